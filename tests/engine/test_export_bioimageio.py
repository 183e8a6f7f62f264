"""bioimage.io packages: they pass the zoo's own test, and normalise images as the run does."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from exports import untrained
from PIL import Image

from engine.data.demo import demo_pair
from engine.errors import InputError
from engine.exported import bioimageio_package
from engine.exported.bioimageio_package import Card, Package, write
from engine.exported.description import description
from engine.exported.graph import Graph
from engine.exported.real_images import RealImage
from engine.trained import Trained

ADA = Card("Cells of a test", (("Ada", "Engines"),), "MIT")


def real(dtype: type = np.uint8, channels: int = 1, scale: float = 1.0) -> RealImage:
    """A piece of the embedded set, at another depth."""
    image = demo_pair(3, size=64, seed=3)[0][:40, :52]
    pixels = np.stack([np.roll(image, 5 * channel, 0) for channel in range(channels)], -1)
    white = {np.uint8: 255.0, np.uint16: 65535.0}.get(dtype, 1.0)
    return RealImage("vessels", (scale * pixels).astype(dtype), white)


def packed(trained: Trained, image: RealImage, path: Path) -> Package:
    graph = Graph.of(trained)
    return write(path, trained, graph, description(trained, graph), ADA, [image])


@pytest.mark.parametrize(
    ("method", "image"),
    [
        ("zscore", real(np.float32, 2, 1 / 255)),
        ("unit", real(np.uint16, 1, 200.0)),
        ("percentile", real()),
        ("imagenet", real(np.uint8, 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.pixels.dtype.name,
)
def test_a_package_passes_the_zoo_s_test_from_the_raw_image(
    method: str, image: RealImage, tmp_path: Path
) -> None:
    channels = image.pixels.shape[-1]
    trained = untrained(tmp_path / "run", channels=channels, data={"normalization": method})
    package = packed(trained, image, tmp_path / "a.zip")
    # Not exactly the same: the zoo adds 1e-6 to what it divides by.
    assert package.check.difference < 1e-5
    assert package.tests > 3
    told = json.loads((tmp_path / "a.zip.json").read_text("utf-8"))
    assert told["agreement"]["largest_difference"] == package.check.difference
    assert len(told["tests"]) == package.tests


def test_what_is_in_a_package(tmp_path: Path) -> None:
    trained = untrained(tmp_path / "run", classes=("cell", "debris"))
    packed(trained, real(), tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = set(archive.namelist())
        (rdf_name,) = (name for name in names if name.endswith(".yaml"))
        rdf: dict[str, Any] = yaml.safe_load(archive.read(rdf_name))
        page = archive.read("documentation.md").decode("utf-8")
        with archive.open("cover.png") as file, Image.open(file) as cover:
            assert cover.size == (512, 256)
        raw = np.load(archive.open("test_input.npy"))
    np.testing.assert_array_equal(raw[0, 0], real().pixels[..., 0])
    assert rdf["format_version"].startswith("0.5.")
    assert rdf["license"] == "MIT"
    assert rdf["authors"] == [{"name": "Ada", "affiliation": "Engines"}]
    assert [entry["doi"] for entry in rdf["cite"]] == ["10.1007/978-3-319-24574-4_28"]
    assert rdf["outputs"][0]["axes"][1]["channel_names"] == ["cell", "debris"]
    steps = rdf["inputs"][0]["preprocessing"]
    assert [step["id"] for step in steps] == ["ensure_dtype", "zero_mean_unit_variance", "ensure_dtype"]
    assert steps[1]["kwargs"]["axes"] == ["y", "x"]
    assert rdf["inputs"][0]["axes"][2]["size"] == {"min": 8, "step": 1}
    assert rdf["config"]["napari_smm"]["classes"] == ["cell", "debris"]
    assert "## Validation" in page
    assert "None was calibrated" in page


def test_volumes(tmp_path: Path) -> None:
    trained = untrained(tmp_path / "run", dims=3)
    pixels = np.random.default_rng(0).normal(900, 60, (10, 12, 9, 1)).astype(np.float32)
    package = packed(trained, RealImage("v", pixels, 1.0), tmp_path / "a.zip")
    assert package.check.difference < 1e-5


def test_a_package_that_differs_is_not_kept(tmp_path: Path) -> None:
    """Intensities so alike that the zoo's 1e-6 changes them: a deviation of a thousandth of it."""
    trained = untrained(tmp_path / "run")
    flat = real(np.float32, 1, 1e-4)
    flat.pixels[:] = 1 + 1e-3 * flat.pixels
    with pytest.raises(
        InputError, match=r"^a\.zip fails the test of bioimageio\.core .*so nothing was written"
    ):
        packed(trained, flat, tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_the_zoo_refuses_is_one_sentence(tmp_path: Path) -> None:
    trained = untrained(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"^a\.zip cannot be described as the zoo asks \(.*too small.*--images"
    ):
        packed(trained, real(np.float32, 1, 1e-8), tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_repair_of_bioimageio_spec_is_undone(tmp_path: Path) -> None:
    from bioimageio.spec._internal import io_packaging

    from engine.exported.zoo import zoo

    function = io_packaging.package_file_descr_serializer
    before = function.__code__
    with zoo():
        assert function.__code__ is not before
    assert function.__code__ is before
    assert "_original" not in function.__globals__


def test_cards(tmp_path: Path) -> None:
    trained = untrained(tmp_path / "run-1")
    card = Card.of(trained, None, ["Ada Lovelace, Engines, London", "Bo"], "CC0-1.0")
    assert card.title == "cell (run-1)"
    assert card.authors == (("Ada Lovelace", "Engines, London"), ("Bo", ""))
    with pytest.raises(InputError, match=r"--license 'GPL 3' is no identifier.*would work"):
        Card.of(trained, None, [], "GPL 3")
    with pytest.raises(InputError, match="--title 'a/b' cannot be used"):
        Card.of(trained, "a/b", [], "MIT")
    with pytest.raises(InputError, match="--author ', there' has no usable name"):
        Card.of(trained, None, [", there"], "MIT")


def test_without_the_packages_a_sentence_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError) as error:
        bioimageio_package.require()
    assert str(error.value) == (
        'bioimage.io packages need onnxruntime, which is not installed: pip install "napari-smm[export]" '
        "brings what is missing."
    )
