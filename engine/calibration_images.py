"""Annotated images, predicted once for a calibration: lesion probabilities, and counts at any threshold."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from engine import fingerprint, scores
from engine.command import existing
from engine.data.dataset import Dataset
from engine.data.pairs import some
from engine.data.split import SPLITS
from engine.data.store import Sample
from engine.errors import InputError
from engine.thresholds import Curve, Lesions, gather, lesion_probabilities
from engine.trained import Trained

Size = Literal["native", "trained"]
MOST_PIXELS = 2**27
"""Of images whose counts at any threshold are kept beside each other: four bytes each."""


@dataclass(frozen=True)
class Images:
    """Annotated images that can be predicted.

    Attributes:
        dataset: where they are.
        indices: of their cases.
        source: in words: "calib split", or the folder.
        split: the run's split that they are, "" of another folder.
        watched: wraps what is gone through, of so many images: a progress bar.
    """

    dataset: Dataset
    indices: tuple[int, ...]
    source: str
    split: str = ""
    watched: Callable[[Iterable[Sample], int], Iterable[Sample]] = lambda samples, count: samples

    @property
    def samples(self) -> Iterable[Sample]:
        """The decoded images."""
        return self.watched(self.dataset.some(self.indices), len(self.indices))

    @property
    def groups(self) -> dict[str, str]:
        """Name of each image → its group."""
        cases = [self.dataset.found.cases[index] for index in self.indices]
        return {case.name: case.group or case.name for case in cases}


@dataclass(frozen=True)
class Gathered:
    """Predicted images as the rules need them.

    Attributes:
        lesions: sorted lesion probabilities, of single images.
        curves: class → image → counts at any threshold; empty where they were not asked for, or the
            images have too many pixels.
        digests: of the decoded images.
        fingerprint: of images and masks together.
        notes: what a user should know, a sentence each.
    """

    lesions: Lesions
    curves: tuple[tuple[Curve, ...], ...]
    digests: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


def of_split(trained: Trained, part: str) -> Images:
    """The images of a split of the run.

    Raises:
        InputError: it is empty, or its images are gone.
    """
    dataset = Dataset.open(trained.config.data, trained.info["splits"])
    if not dataset.splits[part]:
        sizes = ", ".join(f"{name} {len(dataset.splits[name])}" for name in SPLITS)
        raise InputError(
            f"the run {trained.root} has no {part} images ({sizes}): --data FOLDER with images and masks "
            "that were not trained on, or a run with another data.split, such as [0.5, 0.15, 0.2, 0.15], "
            "would work."
        )
    return Images(dataset, dataset.splits[part], f"{part} split", part)


def of_folder(trained: Trained, folder: Path, layout: str | None, group: str | None) -> Images:
    """All images of another folder, found by the run's settings.

    Args:
        trained: the run.
        folder: of images and masks.
        layout, group: in place of the run's ``data.layout`` and ``data.group``.

    Raises:
        InputError: nothing that can be read there, or other classes than the run's.
    """
    existing(str(folder))
    changes = {"root": str(folder.expanduser().resolve())}
    changes |= {key: value for key, value in (("layout", layout), ("group", group)) if value is not None}
    dataset = Dataset.open(trained.config.data.model_copy(update=changes))
    if dataset.classes.names != trained.classes:
        raise InputError(
            f"the masks in {folder} have the classes {', '.join(dataset.classes.names)}, and the run "
            f"{trained.root} has {', '.join(trained.classes)}: masks of the run's classes would work."
        )
    return Images(dataset, tuple(range(len(dataset.found.cases))), str(folder))


def gathered(
    trained: Trained, images: Images, size: Size, *, curves: bool, besides: Sequence[str] = ()
) -> Gathered:
    """Predict images one by one, and keep of each what the rules need.

    Args:
        trained: the run.
        images: not trained on.
        size: native, or as the network saw them.
        curves: whether counts at any threshold are wanted too.
        besides: digests of images that are passed over.

    Raises:
        InputError: images of another folder that were trained or validated on, or none is left.
    """
    names: list[str] = []
    copies: list[str] = []
    digests: list[str] = []
    values: list[list[NDArray[Any]]] = []
    kept: list[list[Curve]] = [[] for _ in trained.classes]
    pixels, whole = 0, sha256()
    for sample in images.samples:
        digest = fingerprint.image(sample.image)
        if digest in besides:
            continue
        if is_copy(trained, images, sample.name, digest):
            copies.append(sample.name)
            continue
        made = scores.predict(trained, sample, size == "native", None)
        names.append(sample.name)
        digests.append(digest)
        whole.update(f"{sample.name}:{digest}:".encode())
        whole.update(made.truth.tobytes())
        whole.update(made.valid.tobytes())
        values.append(
            [
                lesion_probabilities(p, y, made.valid, name=sample.name)
                for p, y in zip(made.p, made.truth, strict=True)
            ]
        )
        pixels += made.p.size
        if curves and pixels <= MOST_PIXELS:
            for each, p, y in zip(kept, made.p, made.truth, strict=True):
                each.append(Curve.of(p, y, made.valid))
    lesions = gather(names, trained.classes, values, images.groups)
    enough = curves and pixels <= MOST_PIXELS
    notes = (
        (
            f"{some(copies, 'image')} of the {images.source} left out: the run was trained or validated on "
            "the same pixels.",
        )
        if copies
        else ()
    )
    return Gathered(
        lesions, tuple(map(tuple, kept)) if enough else (), tuple(digests), whole.hexdigest(), notes
    )


def is_copy(trained: Trained, images: Images, name: str, digest: str) -> bool:
    """Whether an image of the run's own split has the same pixels as one that it was trained or validated on.

    Raises:
        InputError: an image of another folder was trained or validated on.
    """
    if images.split == "val":
        return False
    seen = trained.seen_in(digest)
    if images.split:
        return seen is not None
    same = Path(images.source).resolve() == Path(trained.info["dataset"]["root"]).resolve()
    if seen is None and (same or not trained.knows_images):
        splits = trained.info["splits"]
        seen = next((part for part in ("train", "val") if name in splits[part]), None)
    if seen is not None:
        done = "trained on" if seen == "train" else "validated on, which chose its best checkpoint"
        raise InputError(
            f"{name} of {images.source} is an image that the run {trained.root} was {done}: a promise needs "
            "images that the run has never seen, such as its calib split."
        )
    return False
