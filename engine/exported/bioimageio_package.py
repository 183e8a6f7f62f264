"""A model package of the bioimage.io zoo: an ONNX file, what goes in and comes out, and a test of both.

It is described by bioimageio.spec's own classes and tested by bioimageio.core, as the zoo does with what it
is sent. Nothing in it is a link, so neither needs the network.
"""

import getpass
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from engine.disk import replace_text
from engine.errors import InputError
from engine.exported import onnx_file
from engine.exported.agreement import Check
from engine.exported.citations import papers
from engine.exported.cover import cover
from engine.exported.document import document
from engine.exported.file import agreed
from engine.exported.graph import LEAST, Graph
from engine.exported.packages import need
from engine.exported.real_images import RealImage
from engine.exported.zoo import zoo
from engine.outputs import replacing
from engine.trained import Trained

LICENSE = "CC-BY-4.0"
"""What most models of the zoo have."""
LONGEST = {2: 256, 3: 64}
"""Side of the test image at the most, by dimensions: the zoo's test predicts it several times."""
SPACE = {2: ("y", "x"), 3: ("z", "y", "x")}
EPSILON = 1e-6
"""What bioimageio.core adds to a deviation or range before it divides by it."""
ALLOWED = 1e-3
"""Largest difference of a probability, as the zoo's own test has it: by :data:`EPSILON` an image of tiny
intensities is normalised a little otherwise."""
MEMBER = "probability"
LONGEST_TITLE = 64


@dataclass(frozen=True)
class Card:
    """Whose model it is.

    Attributes:
        title: letters, digits, spaces and _ + - ( ), 5 to 64 of them.
        authors: names, each with an affiliation or "".
        license: an identifier of SPDX.
    """

    title: str
    authors: tuple[tuple[str, str], ...]
    license: str

    @classmethod
    def of(cls, trained: Trained, title: str | None, authors: Sequence[str], license: str) -> "Card":
        """What the user said, and defaults for the rest.

        Raises:
            InputError: a licence that SPDX does not know, or a title that the zoo does not take.
        """
        from bioimageio.spec.generic.v0_3 import LicenseId

        known: tuple[str, ...] = get_args(LicenseId.root_model.model_fields["root"].annotation)
        if license not in known:
            near = get_close_matches(license, known, n=3, cutoff=0.4) or [LICENSE, "MIT", "CC0-1.0"]
            raise InputError(
                f"--license {license!r} is no identifier of spdx.org/licenses: {', '.join(near)} would work."
            )
        named = title or f"{' and '.join(trained.classes)} ({trained.root.resolve().name})"
        allowed = re.sub(r"[^A-Za-z0-9_+\- ()]+", "-", named)
        if title and (allowed != title or not 5 <= len(title) <= LONGEST_TITLE):
            raise InputError(
                f"--title {title!r} cannot be used: 5 to {LONGEST_TITLE} letters, digits, spaces and "
                "_ + - ( ) would work."
            )
        people = [_person(text) for text in authors] or [(getpass.getuser(), "")]
        return cls(allowed[:LONGEST_TITLE].ljust(5, "-"), tuple(people), license)


def _person(text: str) -> tuple[str, str]:
    name, _, place = (part.strip() for part in text.partition(","))
    if not name or "/" in name:
        raise InputError(
            f'--author {text!r} has no usable name: "Ada Lovelace, Analytical Engines" would work.'
        )
    return name, place


@dataclass(frozen=True)
class Package:
    """A package that passed.

    Attributes:
        path: of the file.
        check: its test image, compared with the run.
        tests: how many of the official test's steps passed.
        version: of bioimageio.core, which ran them.
    """

    path: Path
    check: Check
    tests: int
    version: str

    @property
    def words(self) -> str:
        """What was tested, for the user."""
        return (
            f"{self.path}: passes the {self.tests} tests of bioimageio.core {self.version}; probabilities of "
            f"the raw image {self.check.image} equal the run's to within {self.check.difference:.1g} "
            f"({ALLOWED:g} allowed)"
        )


def require() -> None:
    """Raises InputError where a package that is needed is not installed."""
    need("bioimage.io packages", "onnx", "onnxruntime", "bioimageio.core", "bioimageio.spec")


def write(
    path: Path, trained: Trained, graph: Graph, description: Mapping[str, Any], card: Card,
    images: Sequence[RealImage],
) -> Package:  # fmt: skip
    """Write a package, and PATH.json with what the tests said.

    Args:
        path: ends in .zip.
        trained: the run.
        graph: of the run.
        description: of the graph.
        card: whose it is.
        images: of the run's data; that in which most is found becomes the test.

    Raises:
        InputError: it cannot be described, fails the official test, or differs from the run; then nothing
            is there.
    """
    require()
    with zoo(), TemporaryDirectory() as folder, replacing(path) as new:
        from bioimageio.spec import save_bioimageio_package

        examples = [test_image(trained, graph, image) for image in images]
        given = [trained.predictor.probability(each.seen(trained)).numpy() for each in examples]
        example, expected = max(zip(examples, given, strict=True), key=lambda pair: float(pair[1].mean()))
        try:
            model = described(Path(folder), trained, graph, description, card, example, expected)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise InputError(
                f"{path.name} cannot be described as the zoo asks ({reason}): other --images, or --onnx, may "
                "work."
            ) from error
        save_bioimageio_package(model, output_path=new)
        steps, version = official_test(new, path.name)
        check = compared(new, example, expected, path.name)
        told = {
            "file": path.name,
            **description,
            "agreement": agreed([check], f"bioimageio.core {version}", ALLOWED),
            "tests": steps,
        }
        text = json.dumps(told, indent=2, ensure_ascii=False)
        replace_text(path.with_name(f"{path.name}.json"), text + "\n")
    return Package(path, check, len(steps), version)


def test_image(trained: Trained, graph: Graph, image: RealImage) -> RealImage:
    """The middle of a real image, small enough to be predicted many times, or of the graph's one size."""
    piece = image.cut(graph.fixed or (LONGEST[trained.dims],) * trained.dims)
    if graph.fixed is None:
        return piece
    missing = [side - length for side, length in zip(graph.fixed, piece.pixels.shape[:-1], strict=True)]
    filled = np.pad(piece.pixels, [*((0, after) for after in missing), (0, 0)], mode="edge")
    return replace(piece, pixels=filled)


test_image.__test__ = False  # type: ignore[attr-defined]  # no test, for all its name


def described(
    folder: Path, trained: Trained, graph: Graph, description: Mapping[str, Any], card: Card,
    example: RealImage, expected: NDArray[np.float32],
) -> Any:  # fmt: skip
    """The package's description, a ModelDescr, and in a folder the files that it names.

    Args:
        folder: empty.
        trained: the run.
        graph: of the run.
        description: of the graph.
        card: whose it is.
        example: the test image.
        expected: its probabilities, (1, C, *S).
    """
    from bioimageio.spec.common import FileDescr
    from bioimageio.spec.model import v0_5

    raw = np.moveaxis(example.pixels, -1, 0)[None]
    onnx_file.write(folder / "weights.onnx", graph, description)
    np.save(folder / "test_input.npy", np.ascontiguousarray(raw))
    np.save(folder / "test_output.npy", expected)
    (folder / "cover.png").write_bytes(cover(example.pixels, trained.masks(expected[0])))
    (folder / "documentation.md").write_text(document(trained, description, card.title), "utf-8")
    rules = tuple(each["rule"].split()[0] for each in description["thresholds"])
    cited = [paper for paper in papers(trained.config, rules) if paper.doi]
    authors = [v0_5.Author(name=name, affiliation=place or None) for name, place in card.authors]
    return v0_5.ModelDescr(
        name=card.title,
        description=_in_short(trained),
        authors=authors,
        license=v0_5.LicenseId(card.license),
        cite=[v0_5.CiteEntry(text=paper.text, doi=v0_5.Doi(paper.doi)) for paper in cited],
        tags=_tags(trained),
        covers=[FileDescr(source=folder / "cover.png")],
        documentation=FileDescr(source=folder / "documentation.md"),
        inputs=[_input(trained, graph, example, FileDescr(source=folder / "test_input.npy"))],
        outputs=[_output(trained, graph, FileDescr(source=folder / "test_output.npy"))],
        weights=v0_5.WeightsDescr(
            onnx=v0_5.OnnxWeightsDescr(source=folder / "weights.onnx", opset_version=onnx_file.OPSET)
        ),
        config=v0_5.Config.model_validate({"napari_smm": dict(description)}),
    )


def _input(trained: Trained, graph: Graph, example: RealImage, test: Any) -> Any:
    from bioimageio.spec.model import v0_5

    pixels = example.pixels
    colours = ("red", "green", "blue") if trained.channels == 3 and trained.dims == 2 else ()
    names = [colours[n] if colours else f"channel{n}" for n in range(trained.channels)]
    return v0_5.InputTensorDescr(
        id=v0_5.TensorId("image"),
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=names),
            *(
                v0_5.SpaceInputAxis(id=v0_5.AxisId(name), size=_size(graph, axis, length))
                for axis, (name, length) in enumerate(
                    zip(SPACE[trained.dims], pixels.shape[:-1], strict=True)
                )
            ),
        ],
        test_tensor=test,
        data=v0_5.IntervalOrRatioDataDescr(type=pixels.dtype.name),
        preprocessing=preprocessing(trained, example.white),
    )


def _size(graph: Graph, axis: int, length: int) -> Any:
    from bioimageio.spec.model import v0_5

    if graph.fixed is not None:
        return graph.fixed[axis]
    return v0_5.ParameterizedSize(min=min(LEAST * graph.module.multiple, length), step=1)


def _output(trained: Trained, graph: Graph, test: Any) -> Any:
    from bioimageio.spec.model import v0_5

    def side(name: str) -> Any:
        return v0_5.SizeReference(tensor_id=v0_5.TensorId("image"), axis_id=v0_5.AxisId(name))

    return v0_5.OutputTensorDescr(
        id=v0_5.TensorId(MEMBER),
        description="foreground probability of each class",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=list(trained.classes)),
            *(v0_5.SpaceOutputAxis(id=v0_5.AxisId(name), size=side(name)) for name in SPACE[trained.dims]),
        ],
        test_tensor=test,
        data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
    )


def preprocessing(trained: Trained, white: float) -> list[Any]:
    """The run's normalisation in the zoo's words: of each image and channel for itself.

    Args:
        trained: the run.
        white: the largest intensity of its images' kind, for ImageNet's constants.
    """
    from bioimageio.spec.model import v0_5

    method = trained.config.data.normalization
    axes = [v0_5.AxisId(name) for name in SPACE[trained.dims]]
    steps: list[Any] = []
    if method == "zscore":
        steps.append(
            v0_5.ZeroMeanUnitVarianceDescr(kwargs=v0_5.ZeroMeanUnitVarianceKwargs(axes=axes, eps=EPSILON))
        )
    elif method == "imagenet":
        steps.append(
            v0_5.FixedZeroMeanUnitVarianceDescr(
                kwargs=v0_5.FixedZeroMeanUnitVarianceAlongAxisKwargs(
                    axis=v0_5.AxisId("channel"),
                    mean=[white * mean for mean in IMAGENET_MEAN],
                    std=[white * deviation for deviation in IMAGENET_STD],
                )
            )
        )
    else:
        low, high = (1.0, 99.0) if method == "percentile" else (0.0, 100.0)
        scale = v0_5.ScaleRangeKwargs(axes=axes, min_percentile=low, max_percentile=high, eps=EPSILON)
        steps.append(v0_5.ScaleRangeDescr(kwargs=scale))
        if method == "percentile":
            steps.append(v0_5.ClipDescr(kwargs=v0_5.ClipKwargs(min=0.0, max=1.0)))
    # Without this the values would go back to the image's own type, which may hold whole numbers alone.
    return [*steps, v0_5.EnsureDtypeDescr(kwargs=v0_5.EnsureDtypeKwargs(dtype="float32"))]


def official_test(path: Path, name: str) -> tuple[list[str], str]:
    """Run the zoo's own test of a package.

    Returns:
        Names of its steps, and the version that ran them.

    Raises:
        InputError: it did not pass.
    """
    import bioimageio.core

    summary = bioimageio.core.test_model(path, weight_format="onnx", devices=["cpu"])
    if summary.status != "passed":
        failed = [detail for detail in summary.details if detail.status != "passed"]
        reasons = [str(error.msg).splitlines()[0] for detail in failed for error in detail.errors]
        raise InputError(
            f"{name} fails the test of bioimageio.core {bioimageio.core.__version__} "
            f"({'; '.join(reasons) or summary.status}), so nothing was written: --onnx may work."
        )
    return [detail.name for detail in summary.details], str(bioimageio.core.__version__)


def compared(path: Path, example: RealImage, expected: NDArray[np.float32], name: str) -> Check:
    """Predict the test image from the package, pre-processing included, and compare it with the run.

    Raises:
        InputError: they differ by more than :data:`ALLOWED`.
    """
    from bioimageio.core import create_prediction_pipeline, load_model_description
    from bioimageio.core.digest_spec import get_test_input_sample

    model = load_model_description(path, perform_io_checks=False)
    with create_prediction_pipeline(model, weight_format="onnx", devices=["cpu"]) as pipeline:
        found = pipeline.predict_sample_without_blocking(get_test_input_sample(model))
    p = np.asarray(found.members[MEMBER].data)
    difference = float(np.abs(p.astype(np.float64) - expected).max())
    if not difference <= ALLOWED:
        raise InputError(
            f"{name} would differ from the run by up to {difference:.2g} on {example.name}, more than "
            f"{ALLOWED:g}, so nothing was written: bioimage.io normalises images of very small intensities "
            "otherwise; --onnx would work."
        )
    return Check(example.name, (1, *np.moveaxis(example.pixels, -1, 0).shape), difference)


def _in_short(trained: Trained) -> str:
    kind = "images" if trained.dims == 2 else "volumes"
    return (
        f"Segments {', '.join(trained.classes)} in {kind} of {trained.channels} "
        f"channel{'s' * (trained.channels != 1)}: gives the foreground probability of each class. Network "
        f"{trained.config.model.name}, trained with napari-smm."
    )[:512]


def _tags(trained: Trained) -> list[str]:
    dims = f"{trained.dims}d"
    return ["semantic-segmentation", "segmentation", dims, trained.config.model.name, "pytorch", "napari-smm"]
