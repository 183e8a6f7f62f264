"""What a threshold is calibrated on in the window: a run's own calibration, or annotated layers. No Qt.

Whatever reads pixels here is meant for a thread of its own, and may end early once nobody waits for it.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine import calibration
from engine.calibration import Predicted
from engine.errors import InputError
from engine.record import RunReader
from engine.thresholds import Curve, Lesions, gather, lesion_probabilities
from engine.thresholds.curves import Histogram, Sorted
from napari_smm import targets
from napari_smm.candidates import UNNAMED, Candidate, clash, predicted
from napari_smm.decisions import DroppedError
from napari_smm.targets import Index, Target

Ended = Callable[[], bool]
"""Says whether nobody waits for the result any more."""
Values = NDArray[Any]
Unit = Literal["image", "group", "volume"]

SOON = 2**23
"""Pixels that are counted at once, as that takes no longer than a moment."""
ROWS = 256
"""Rows are read so many at a time, or a multiple: predictions are stored in pieces of that height."""


@dataclass(frozen=True, eq=False)
class Basis:
    """What a threshold is calibrated on.

    Attributes:
        lesions: lesion probabilities of the images.
        curves: class → image → counts at any threshold, for the rules that guarantee nothing; empty where
            they are not known.
        predicted: what predicted the images; None where it is not known.
        source: in words: "12 open images", "the run's calibration split".
        unit: what a promise is about.
        notes: what a user should know, a sentence each.
        no_curves: why there are no curves, in a sentence; "" where there are, or they are yet to be counted.
    """

    lesions: Lesions
    curves: tuple[tuple[Curve, ...], ...]
    predicted: Predicted | None
    source: str
    unit: Unit
    notes: tuple[str, ...] = ()
    no_curves: str = ""


@dataclass(frozen=True, eq=False)
class Annotated:
    """A candidate with the truth that was chosen for it.

    Attributes:
        candidate: the probabilities.
        channels: of each class the target that has it, and its number there; all with the same truth.
        truth: the Labels layer.
        whole: whether a stack is one image; else each of its planes is.
        group: what the image, or all of the planes, belong to; "" where each is its own.
    """

    candidate: Candidate
    channels: tuple[tuple[Target, int], ...]
    truth: Any
    whole: bool
    group: str

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.candidate.name

    @property
    def target(self) -> Target:
        """That of the first class."""
        return self.channels[0][0]

    @property
    def images(self) -> list[tuple[Index, ...]]:
        """The planes of each image."""
        planes = self.target.planes
        return [tuple(planes)] if self.whole else [(plane,) for plane in planes]

    @property
    def names(self) -> list[str]:
        """Of the images."""
        if len(self.images) == 1:
            return [self.name]
        return [f"{self.name} {list(planes[0])}" for planes in self.images]

    @property
    def pixels(self) -> int:
        """Of all classes."""
        return int(np.prod(self.target.shape, dtype=np.int64)) * len(self.channels)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal where the same arrays are read in the same way, as long as they live."""
        arrays = tuple(id(target.probability) for target, _ in self.channels)
        return (*arrays, id(self.target.truth), self.whole, self.name)


@dataclass(frozen=True, eq=False)
class Read:
    """What was read of an annotated image or stack.

    Attributes:
        of: what was read; it keeps the arrays alive, so that no other gets their identity.
        stamp: a number that is another one if the truth is another.
        values: image → class → sorted lesion probabilities.
        curves: image → class → counts at any threshold; None before they were counted.
    """

    of: Annotated
    stamp: int
    values: tuple[tuple[Values, ...], ...]
    curves: tuple[tuple[Curve, ...], ...] | None = None


Known = Mapping[tuple[Any, ...], Read]
"""What was read before, by the key of what it was read of."""


def annotated(candidate: Candidate, truth: Any, planes_are_images: bool, group: str = "") -> Annotated:
    """A candidate with a truth. Reads no pixel.

    Args:
        candidate: that can be used.
        truth: napari's Labels layer of its shape.
        planes_are_images: whether each plane of a stack is an image of its own.
        group: what it belongs to, "" for nothing else.

    Raises:
        InputError: it cannot be used, or the truth does not fit.
    """
    if not candidate.usable:
        raise InputError(candidate.reason)
    made = [Target.of_layers(layer, truth) for layer in candidate.layers]
    channels = tuple((target, cls) for target in made for cls in range(len(target.classes)))
    return Annotated(candidate, channels, truth, not (planes_are_images and candidate.stack), group)


def require_fitting(images: Sequence[Annotated]) -> None:
    """Raise InputError for images that cannot be calibrated on together."""
    if not images:
        raise InputError("no image is chosen: one with its labels would work, and more promise more.")
    for one, two in combinations(images, 2):
        if one.truth is two.truth:
            raise InputError(
                f"the labels {one.truth.name!r} are chosen as the truth of both {one.name!r} and "
                f"{two.name!r}: each image may be there once, with labels of its own."
            )
        if reason := clash(two.candidate, (one.candidate,))[1]:
            raise InputError(reason)


def gathered(images: Sequence[Annotated], ended: Ended, before: Known | None = None) -> Lesions:
    """The lesion probabilities of annotated images.

    Args:
        images: that are chosen.
        ended: says whether nobody waits any more.
        before: what was read before, and needs not be read again.

    Raises:
        InputError: images that do not fit together, values that are no probabilities, what cannot be
            read, or no lesion in any image.
        DroppedError: it has ended early.
    """
    return lesions(images, read_all(images, ended, before))


def read_all(
    images: Sequence[Annotated],
    ended: Ended,
    before: Known | None = None,
    doubted: frozenset[tuple[Any, ...]] = frozenset(),
) -> dict[tuple[Any, ...], Read]:
    """Read images, band by band.

    Args:
        images: that are chosen.
        ended: says whether nobody waits any more.
        before: what was read before, and needs not be read again.
        doubted: keys of those of them whose truth may have been painted on since.

    Returns:
        What was read, by its key; the very same as before where nothing has changed.

    Raises:
        InputError, DroppedError: as :func:`gathered`.
    """
    require_fitting(images)
    found = {}
    for image in images:
        old = None if before is None else before.get(image.key)
        if old is not None and image.key in doubted and stamp(image, ended) != old.stamp:
            old = None
        found[image.key] = read(image, ended) if old is None else old
    return found


def read(image: Annotated, ended: Ended) -> Read:
    """Read an image or a stack. Arguments and errors as :func:`gathered`."""
    code, values = 0, []
    for planes in image.images:
        parts: list[list[Values]] = [[] for _ in image.channels]
        for plane in planes:
            for key in bands(plane, image.target.shape):
                if ended():
                    raise DroppedError
                labels = part(image.target.truth, key, str(image.truth.name))
                code = zlib.crc32(np.ascontiguousarray(labels).data, code)
                for found, (target, cls) in zip(parts, image.channels, strict=True):
                    p = part(target.probability, (*target.key(cls), *key), target.name)
                    require_probabilities(p, target.name)
                    found.append(lesion_probabilities(p, target.is_foreground(labels, cls), name=target.name))
        values.append(tuple(_sorted(found) for found in parts))
    return Read(image, code, tuple(values))


def stamp(image: Annotated, ended: Ended) -> int:
    """A number that is another one if the truth of an image is another."""
    code = 0
    for plane in image.target.planes:
        for key in bands(plane, image.target.shape):
            if ended():
                raise DroppedError
            labels = part(image.target.truth, key, str(image.truth.name))
            code = zlib.crc32(np.ascontiguousarray(labels).data, code)
    return code


def countable(images: Sequence[Annotated]) -> bool:
    """Whether images are small enough for all of their pixels to be counted and kept, sorted."""
    return sum(image.pixels for image in images) <= targets.MOST_PIXELS


def counted(found: Read, ended: Ended) -> Read:
    """The same with counts at any threshold. Arguments and errors as :func:`gathered`."""
    if found.curves is not None:
        return found
    curves = []
    for planes in found.of.images:
        each: list[list[Curve]] = [[] for _ in found.of.channels]
        for plane in planes:
            for parts, (target, cls) in zip(each, found.of.channels, strict=True):
                if ended():
                    raise DroppedError
                curve = targets.curve_of(target, cls, plane)
                assert curve is not None  # there is a truth
                parts.append(curve)
        curves.append(tuple(_joined(parts) for parts in each))
    return replace(found, curves=tuple(curves))


def lesions(images: Sequence[Annotated], found: Known) -> Lesions:
    """What was read of some images, together.

    Raises:
        InputError: there is no lesion in any.
    """
    names: list[str] = []
    groups: list[str] = []
    values: list[tuple[Values, ...]] = []
    for image in images:
        names += image.names
        groups += [image.group or name for name in image.names]
        values += found[image.key].values
    if not any(each.size for classes in values for each in classes):
        raise InputError(
            f"no lesion is labelled in {_some(len(names), 'image')}: without one nothing is known of what a "
            "threshold misses; labels with a lesion would work."
        )
    return gather(names, classes_of(images), values, groups)


def basis(images: Sequence[Annotated], found: Known) -> Basis:
    """What some images are as a basis of a threshold. Arguments and errors as :func:`lesions`."""
    together = lesions(images, found)
    unit: Unit = "image"
    if together.grouped:
        unit = "group"
    elif all(image.whole and len(image.target.shape) > 2 for image in images):
        unit = "volume"
    reads = [found[image.key] for image in images]
    curves: tuple[tuple[Curve, ...], ...] = ()
    counts = [each for one in reads for each in one.curves or ()]
    if all(one.curves is not None for one in reads):
        curves = tuple(zip(*counts, strict=True))
    layers = [image.candidate.layers[0] for image in images]
    makers = [made for layer in layers if (made := predicted(layer)) is not None]
    noun = "volume" if unit == "volume" else "image"
    source = f"{len(together.names)} open {noun}{'s' * (len(together.names) != 1)}"
    return Basis(
        lesions=together,
        curves=curves,
        predicted=makers[0] if makers else None,
        source=source + (f" in {_some(len(set(together.groups)), 'group')}" if unit == "group" else ""),
        unit=unit,
        notes=tuple(_notes(images, together, unit, len(layers) - len(makers))),
        no_curves=""
        if curves or countable(images)
        else (
            f"the {noun}s have {sum(image.pixels for image in images):,} pixels, too many to count them "
            f"all: up to {targets.MOST_PIXELS:,} would work."
        ),
    )


@dataclass(frozen=True, eq=False)
class Reading:
    """What came of reading images.

    Attributes:
        reads: what was read, by its key.
        basis: what it is; None if it cannot be used.
        words: why not, in a sentence.
    """

    reads: Known
    basis: Basis | None = None
    words: str = ""


def reading(
    images: Sequence[Annotated], before: Known, doubted: frozenset[tuple[Any, ...]], ended: Ended
) -> Reading:
    """Read images, and count what is soon counted; or say why they cannot be used.

    Arguments as :func:`read_all`.

    Raises:
        DroppedError: it has ended early.
    """
    reads: Known = {}
    try:
        reads = read_all(images, ended, before, doubted)
        if sum(image.pixels for image in images) <= SOON:
            reads = {key: counted(found, ended) for key, found in reads.items()}
        return Reading(reads, basis(images, reads))
    except (InputError, OSError) as error:
        return Reading(reads, words=str(error))
    except MemoryError:
        return Reading(reads, words="there is not enough memory for these images: fewer would work.")


def counting(images: Sequence[Annotated], reads: Known, ended: Ended) -> Reading:
    """Count what was read at any threshold. Arguments and errors as :func:`reading`."""
    try:
        found = {key: counted(one, ended) for key, one in reads.items()}
        return Reading(found, basis(images, found))
    except (InputError, OSError) as error:
        return Reading(reads, words=str(error))
    except MemoryError:
        words = "there is not enough memory to count all pixels: fewer images would work."
        return Reading(reads, replace(basis(images, reads), no_curves=words))


@dataclass(frozen=True, eq=False)
class RunCalibration:
    """A run's own calibration, as it was when it was looked at.

    Attributes:
        root: the run directory; None where there is no run.
        stamp: another one if the file is another; None without a file.
        basis: what it holds; None without one that can be read.
        words: why it cannot be read, in a sentence.
    """

    root: Path | None = None
    stamp: tuple[int, int] | None = None
    basis: Basis | None = None
    words: str = ""


def look(root: Path, before: RunCalibration, ended: Ended) -> RunCalibration:
    """A run's own calibration; the very same as before where the file is the same."""
    try:
        about = (root / calibration.FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return RunCalibration(root)
    except OSError as error:
        return RunCalibration(root, words=f"{root} cannot be read ({error.strerror or error}).")
    stamp = about.st_mtime_ns, about.st_size
    if (before.root, before.stamp) == (root, stamp):
        return before
    try:
        return RunCalibration(root, stamp, from_run(root))
    except InputError as error:
        return RunCalibration(root, stamp, words=str(error))


def from_run(root: Path) -> Basis | None:
    """A run's own calibration; None if it has none.

    Args:
        root: the run directory.

    Raises:
        InputError: its calibration cannot be read.
    """
    found = calibration.read(root)
    if found is None:
        return None
    split = found.source.removesuffix(" split")
    words = {"calib": "calibration", "val": "validation"}.get(split, split)
    return Basis(
        lesions=found.lesions,
        curves=(),
        predicted=found.predicted,
        source=f"the images of {found.source}" if split == found.source else f"the run's {words} split",
        unit="group" if found.unit == "group" else "volume" if _dims(root) == 3 else "image",
        notes=found.notes,
        no_curves="a run keeps only what its calibration images show of lesions: open images would work.",
    )


def _dims(root: Path) -> int:
    """Axes of space of a run's images; 2 where the run does not say."""
    try:
        return int(RunReader(root).info()["dataset"].get("dims", 2))
    except InputError:
        return 2


def classes_of(images: Sequence[Annotated]) -> tuple[str, ...]:
    """Names of the classes, which all images share, from one that knows them."""
    names = [image.candidate.classes for image in images]
    return next((found for found in names if UNNAMED not in found), names[0])


def bands(plane: Index, shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices of bands of rows that cover a plane or volume of an array (*leading, *S)."""
    *leading, height, width = shape
    rows = max(ROWS, targets.BAND // width // ROWS * ROWS)
    for index in np.ndindex(*leading[len(plane) :]):
        for first in range(0, height, rows):
            yield (*plane, *index, slice(first, min(first + rows, height)), slice(None))


def part(array: Any, key: tuple[Any, ...], name: str) -> NDArray[Any]:
    """A part of an array.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return np.asarray(array[key])
    except MemoryError:
        raise
    except Exception as error:
        # What computes a lazy layer may raise anything; all of it means that it cannot be had.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name!r} cannot be read ({reason}): what the layer is computed from is needed."
        ) from error


def require_probabilities(p: NDArray[Any], name: str) -> None:
    """Raise InputError, with the layer's name, if a value is NaN or outside 0…1."""
    # NaN is neither.
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        wrong = p[~((p >= 0) & (p <= 1))]
        raise InputError(
            f"the layer {name!r} holds {wrong[0]}, which is no probability: values from 0 to 1, as a sigmoid "
            "or softmax makes of logits, would work."
        )


def _notes(images: Sequence[Annotated], found: Lesions, unit: Unit, unknown: int) -> Iterator[str]:
    """What a user should know of some images."""
    if left_out := found.units().left_out:
        verb = "is" if left_out == 1 else "are"
        yield f"{_some(left_out, unit)} without lesion {verb} left out."
    for cls, name in enumerate(found.classes):
        if len(found.classes) > 1 and not found.units(cls).n:
            yield f"No {unit} has a lesion of the class {name}."
    if unknown:
        which = "these probabilities" if unknown == len(images) else f"{unknown} of the {len(images)} layers"
        yield (
            f"Nothing is known of how {which} were predicted: they must come from the same network and "
            "settings as those to be thresholded."
        )
    kinds = sorted({str(np.dtype(image.target.probability.dtype)) for image in images})
    if len(kinds) > 1:
        yield f"The probabilities are of different precision: {', '.join(kinds)}."


def _sorted(parts: Sequence[Values]) -> Values:
    """Sorted parts as one, sorted."""
    if len(parts) == 1:
        return parts[0]
    found = np.concatenate(parts)
    found.sort()
    return found


def _joined(curves: Sequence[Curve]) -> Curve:
    """The counts of planes as those of one image."""
    if len(curves) == 1:
        return curves[0]
    return Curve(_tally([curve.positives for curve in curves]), _tally([curve.negatives for curve in curves]))


def _tally(tallies: Sequence[Histogram | Sorted]) -> Histogram | Sorted:
    histograms = [tally.passing for tally in tallies if isinstance(tally, Histogram)]
    if histograms:
        return Histogram(np.sum(histograms, axis=0))
    return Sorted(_sorted([tally.values for tally in tallies if isinstance(tally, Sorted)]))


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
