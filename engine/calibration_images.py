"""Annotated images, predicted once for a calibration: lesion probabilities, and counts at any threshold."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from engine import fingerprint, scores
from engine.command import existing
from engine.data.dataset import Dataset
from engine.data.layouts import find
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
        notes: what a user should know of the folder, a sentence each.
        watched: wraps what is gone through, of so many images: a progress bar.
    """

    dataset: Dataset
    indices: tuple[int, ...]
    source: str
    split: str = ""
    notes: tuple[str, ...] = ()
    watched: Callable[[Iterable[Sample], int], Iterable[Sample]] = lambda samples, count: samples

    @property
    def place(self) -> str:
        """Where they are, as part of a sentence."""
        return f"the {self.source}" if self.split else self.source

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
        passed: names of the images that were passed over.
    """

    lesions: Lesions
    curves: tuple[tuple[Curve, ...], ...]
    digests: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """Names of images that do not count, in order; grows as they are gone through.

    Attributes:
        passed: wanted elsewhere.
        seen: of the same pixels as one that the run was trained or validated on.
        doubles: of the same pixels as an earlier one → its name.
    """

    passed: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    doubles: dict[str, str] = field(default_factory=dict)

    def notes(self, place: str) -> tuple[str, ...]:
        """Why images were left out, other than those that were passed over, a sentence each."""
        found = []
        if self.seen:
            found.append(
                f"{some(self.seen, 'image')} of {place} left out: the run was trained or validated on "
                "the same pixels."
            )
        if self.doubles:
            pairs = [f"{name} is {first}" for name, first in self.doubles.items()]
            found.append(f"{some(pairs, 'image')} of {place} left out: the same image counts once.")
        return tuple(found)


def of_split(trained: Trained, part: str) -> Images:
    """The images of a split of the run.

    Raises:
        InputError: it is empty, or its images are gone.
    """
    dataset = opened(trained, {}, trained.info["splits"])
    if not dataset.splits[part]:
        sizes = ", ".join(f"{name} {len(dataset.splits[name])}" for name in SPLITS)
        raise InputError(
            f"the run {trained.root} has no {part} images ({sizes}): --data FOLDER with images and masks "
            "that were not trained on, or a run with another data.split, such as [0.5, 0.15, 0.2, 0.15], "
            "would work."
        )
    return Images(dataset, dataset.splits[part], f"{part} split", part)


def of_folder(trained: Trained, folder: Path, layout: str | None, group: str | None) -> Images:
    """The images of another folder, found by the run's settings, but for groups that the run has seen.

    Args:
        trained: the run.
        folder: of images and masks.
        layout, group: in place of the run's ``data.layout`` and ``data.group``.

    Raises:
        InputError: nothing that can be read there, other classes than the run's, or only groups that it
            was trained or validated on.
    """
    given = {"root": str(existing(str(folder)).resolve()), "layout": layout, "group": group}
    try:
        dataset = opened(trained, {name: value for name, value in given.items() if value is not None})
    except InputError as error:
        raise InputError(_by_flags(str(error), given, trained.config.data.group)) from error
    if dataset.dims != trained.dims:
        kinds = {2: "2D images", 3: "volumes"}
        raise InputError(
            f"{folder} holds {kinds[dataset.dims]}, and the run {trained.root} was trained on "
            f"{kinds[trained.dims]}: a folder of those would work."
        )
    if dataset.classes.names != trained.classes:
        raise InputError(
            f"the masks in {folder} have the classes {', '.join(dataset.classes.names)}, and the run "
            f"{trained.root} has {', '.join(trained.classes)}: masks of the run's classes would work."
        )
    seen, notes = seen_groups(trained, dataset, folder)
    indices = [index for index, case in enumerate(dataset.found.cases) if case.group not in seen]
    if not indices:
        raise InputError(
            f"all images in {folder} are of groups that the run {trained.root} was trained or validated on "
            f"({some(sorted(seen), 'group')}): others, that it has never seen, would work."
        )
    return Images(dataset, tuple(indices), str(folder), notes=(*dataset.found.notes, *notes))


def opened(
    trained: Trained, changes: Mapping[str, str], splits: Mapping[str, Sequence[str]] | None = None
) -> Dataset:
    """Images that are read as `predict` does: with the run's channels, whatever is most in the folder.

    Args:
        trained: the run.
        changes: of its settings ``data.*``.
        splits: names of the images in each split, if it is not to be divided anew.
    """
    data, channels = trained.config.data, trained.channels
    color = {1: "gray", 3: "rgb"}.get(channels, data.color)
    dataset = Dataset.open(data.model_copy(update={**changes, "color": color}), splits)
    return replace(dataset, channels=channels)


def _by_flags(message: str, given: Mapping[str, str | None], usual: str | None) -> str:
    """A message of the data set's settings in words of the flags that stand for them here."""
    if given["group"] is None and usual is not None and "data.group" in message:
        return f"the run's {message.removesuffix('.')}; --group REGEX is for another folder's names."
    for flag in ("root", "layout", "group"):
        message = message.replace(f"data.{flag}", "--data" if flag == "root" else f"--{flag}")
    return message


def seen_groups(trained: Trained, dataset: Dataset, folder: Path) -> tuple[set[str], tuple[str, ...]]:
    """Groups of a folder that have the name of one which the run was trained or validated on, and notes.

    New images of a patient who was trained on are like the training images, though no pixel is the same.
    Nothing but the name can tell; it is taken at its word.
    """
    if not trained.info["dataset"].get("grouped"):
        return set(), ()
    if not dataset.found.grouped:
        return set(), (
            f"The run's images belong to groups, such as patients, and nothing says which in {folder} belong "
            "together: each counts as a unit of its own; --group REGEX, or an index.csv, would say.",
        )
    try:
        cases = find(trained.config.data).cases
    except InputError as error:
        reason = str(error).partition(":")[0]
        return set(), (f"Whether groups in {folder} were trained on cannot be told: {reason}.",)
    names = {name for part in ("train", "val") for name in trained.info["splits"][part]}
    seen = {case.group for case in cases if case.name in names} & {case.group for case in dataset.found.cases}
    note = (
        f"{some(sorted(seen), 'group')} of {folder} left out: the run was trained or validated on groups of "
        "the same name; if these are others, --group REGEX can give them other names."
    )
    return seen, (note,) if seen else ()


def gathered(
    trained: Trained, images: Images, size: Size, *, curves: bool, besides: Sequence[str] = ()
) -> Gathered:
    """Predict images one by one, and keep of each what the rules need.

    Args:
        trained: the run.
        images: not trained on.
        size: native, or as the network saw them.
        curves: whether counts at any threshold are wanted too.
        besides: digests of images that are passed over, as they calibrated.

    Raises:
        InputError: images of another folder that were trained or validated on, or none is left.
    """
    names: list[str] = []
    digests: list[str] = []
    values: list[list[NDArray[Any]]] = []
    kept: list[list[Curve]] = [[] for _ in trained.classes]
    pixels, whole, left = 0, sha256(), LeftOut()
    for sample, digest in counting(trained, images, besides, left):
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
    if left.passed and not names:
        raise InputError(f"all images of the {images.source} that could test T calibrated it.")
    lesions = gather(names, trained.classes, values, images.groups)
    enough = curves and pixels <= MOST_PIXELS
    return Gathered(
        lesions, tuple(map(tuple, kept)) if enough else (), tuple(digests), whole.hexdigest(),
        images.notes + left.notes(images.place), tuple(left.passed),
    )  # fmt: skip


def counting(
    trained: Trained, images: Images, besides: Sequence[str], left: LeftOut
) -> Iterator[tuple[Sample, str]]:
    """The images that count, each once, whatever it is called and however it was saved, and their digests.

    Args:
        trained, images, besides: as for :func:`gathered`.
        left: told of the others.

    Raises:
        InputError: as :func:`is_copy`, or images of the same pixels have different masks.
    """
    earlier: dict[str, tuple[str, str]] = {}
    for sample in images.samples:
        known = fingerprint.known_as([sample.image], sample.image.shape, sample.image.dtype)
        digest = known[0]
        if digest in besides:
            left.passed.append(sample.name)
            continue
        if is_copy(trained, images, sample.name, known):
            left.seen.append(sample.name)
            continue
        truth = sha256(sample.labels.tobytes() + (b"" if sample.valid is None else sample.valid.tobytes()))
        first, its_truth = earlier.setdefault(digest, (sample.name, truth.hexdigest()))
        if first == sample.name:
            yield sample, digest
        elif its_truth == truth.hexdigest():
            left.doubles[sample.name] = first
        else:
            raise InputError(
                f"{first} and {sample.name} of {images.place} are the same image with different masks: "
                "take one of them away."
            )


def is_copy(trained: Trained, images: Images, name: str, known: Sequence[str]) -> bool:
    """Whether an image of the run's own split has the same pixels as one that it was trained or validated on.

    Args:
        trained, images: the run, and the images.
        name: of an image.
        known: its digests, by :func:`engine.fingerprint.known_as`.

    Raises:
        InputError: an image of another folder was trained or validated on.
    """
    if images.split == "val":
        return False
    seen = next(filter(None, map(trained.seen_in, known)), None)
    if images.split:
        return seen is not None
    splits = trained.info["splits"]
    same = images.dataset.found.root.resolve() == Path(trained.info["dataset"]["root"]).resolve()
    if seen is None and (same or not trained.knows_images):
        seen = next((part for part in ("train", "val") if name in splits[part]), None)
    if seen is not None:
        done = "trained on" if seen == "train" else "validated on, which chose its best checkpoint"
        own = ", such as its calib split" if splits["calib"] else ""
        raise InputError(
            f"{name} of {images.source} is an image that the run {trained.root} was {done}: a promise needs "
            f"images that the run has never seen{own}."
        )
    return False
