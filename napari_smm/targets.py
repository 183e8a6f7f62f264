"""What a threshold is tried on: a layer of probabilities, and perhaps its truth. No Qt.

Whatever reads pixels here may take long, and is meant for a thread of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.thresholds.curves import Curve
from napari_smm.layers import MARK, Role, masked
from napari_smm.lazy import full_key
from napari_smm.placement import is_deep

Index = tuple[int, ...]

BAND = 2**22
"""Pixels that are looked at together."""
CACHED = 2**16
"""Pixels that are masked together: they stay in the processor's cache, which is three times as fast."""
MOST_PIXELS = 2**28
"""Of a stack whose planes are all counted: each stays in memory, sorted."""


def offered(layer: Any) -> bool:
    """Whether a napari layer can be a threshold's target, as far as shows at once.

    Not the layers that follow a run, whose threshold is the run's own, nor those that show a target.
    """
    meaning = layer.metadata.get(MARK, {})
    if "target" in meaning or (meaning and meaning.get("kind") != "prediction"):
        return False
    return not quick_check(layer)


def quick_check(layer: Any) -> str:
    """A sentence that says why a layer holds no probabilities, "" if it may. Reads no pixel."""
    from napari.layers import Image

    if not isinstance(layer, Image):
        return f"the {type(layer).__name__} layer {layer.name!r} is no image: an Image layer would work."
    if layer.rgb:
        return f"the layer {layer.name!r} is an RGB image: one of probabilities, 0 to 1, would work."
    data = _levels(layer)[0]
    dtype, shape = np.dtype(data.dtype), tuple(map(int, data.shape))
    if dtype.kind in "ui":
        return (
            f"the layer {layer.name!r} holds {dtype}, whole numbers up to {np.iinfo(dtype).max}: "
            "probabilities as floating numbers, 0 to 1, would work."
        )
    if dtype.kind != "f" or dtype.itemsize > 8:
        return f"the layer {layer.name!r} holds {dtype}: float16, float32 or float64, 0 to 1, would work."
    if len(shape) < 2 or 0 in shape:
        return f"the layer {layer.name!r} has shape {shape}: at least a pixel in height and width is needed."
    return ""


def check(layer: Any) -> str:
    """A sentence that says why a layer holds no probabilities, "" if it does. Reads it all, band by band."""
    if reason := quick_check(layer):
        return reason
    data = _levels(layer)[0]
    for key in _bands(tuple(map(int, data.shape))):
        try:
            band = np.asarray(data[key])
        except Exception as error:
            # What computes a lazy layer may raise anything; all of it means that it cannot be had.
            return str(_unreadable(layer.name, error))
        # NaN is neither.
        wrong = ~((band >= 0) & (band <= 1))
        if wrong.any():
            row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
            where = (*key[:-1], key[-1].start + int(row), int(column))
            return (
                f"the layer {layer.name!r} holds {band[row, column]} at {where}: "
                "probabilities, 0 to 1, as a sigmoid or softmax gives, would work."
            )
    return ""


@dataclass(frozen=True)
class Target:
    """Probabilities, and perhaps the labels that are the truth.

    Attributes:
        probability: array of numpy, dask, zarr or anything else with shape, dtype and indices, floating,
            (*leading, H, W), with the classes in front if there is a class axis; full resolution.
        levels: all resolutions of it, the full one first.
        truth: whole numbers (*leading, H, W), or None.
        classes: names of the classes; one empty name where it is not known.
        class_axis: 0, or None where there is only one class.
        name: of the layer.
        number: of the first class, from 0, among those of the run that predicted it.
        several: whether the labels number classes: class c is c + 1. Else each label is foreground.
        dims: 2 where each plane is an image of its own, 3 where volumes are: those count as planes here.
    """

    probability: Any
    levels: tuple[Any, ...]
    truth: Any | None
    classes: tuple[str, ...]
    class_axis: int | None
    name: str
    number: int = 0
    several: bool = False
    dims: int = 2

    def __post_init__(self) -> None:
        """Raise InputError for a truth of another shape."""
        if self.truth is not None and tuple(map(int, self.truth.shape)) != self.shape:
            raise InputError(
                f"the truth has shape {tuple(map(int, self.truth.shape))} and the probabilities "
                f"{self.name!r} have {self.shape}: labels of that shape would work."
            )

    @classmethod
    def of_layers(cls, probability_layer: Any, truth_layer: Any | None) -> "Target":
        """From napari's Image layer, and the Labels layer if there is one. Reads no pixel.

        Raises:
            InputError: a layer that holds no probabilities, or a truth of another kind or shape.
        """
        if reason := quick_check(probability_layer):
            raise InputError(reason)
        levels = _levels(probability_layer)
        meaning = probability_layer.metadata.get(MARK, {})
        names = tuple(map(str, meaning.get("classes", ()))) or ("",)
        stacked = len(names) > 1 and len(levels[0].shape) > 2 and int(levels[0].shape[0]) == len(names)
        if not stacked:
            names = names if len(names) == 1 else ("",)
        number = int(meaning.get("class", 0))
        return cls(
            probability=levels[0],
            levels=levels,
            truth=None if truth_layer is None else labels_levels(truth_layer)[0],
            classes=names,
            class_axis=0 if stacked else None,
            name=str(probability_layer.name),
            number=number,
            # A layer of one class of several says how many there are, or shows it by its number.
            several=stacked or number > 0 or int(meaning.get("of", 1)) > 1,
            # A prediction says what its network saw; else depth makes a volume.
            dims=int(meaning.get("dims", 3 if is_deep(probability_layer) else 2)),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(*leading, H, W), without the class axis."""
        return tuple(map(int, self.probability.shape))[self.class_axis is not None :]

    @property
    def planes(self) -> list[Index]:
        """Indices of all planes or volumes among the leading axes; one empty index for a single one."""
        return list(np.ndindex(*self.leading))

    @property
    def leading(self) -> tuple[int, ...]:
        """Lengths of the axes in front of S."""
        return self.shape[: -self.dims]

    @property
    def part(self) -> str:
        """What counts as an image: a plane, or a volume."""
        return "plane" if self.dims == 2 else "volume"

    def is_foreground(self, labels: NDArray[Any], cls: int) -> NDArray[np.bool_]:
        """Where labels say that a class is."""
        return np.asarray(labels == self.number + cls + 1 if self.several else labels > 0)

    def key(self, cls: int) -> tuple[int, ...]:
        """What to index the probabilities with first, for a class.

        Raises:
            InputError: there is no such class.
        """
        if not 0 <= cls < len(self.classes):
            raise InputError(
                f"{self.name!r} has no class {cls}: 0 to {len(self.classes) - 1} would work."
                if len(self.classes) > 1
                else f"{self.name!r} has no class {cls}: it has only one, 0."
            )
        return () if self.class_axis is None else (cls,)


def labels_levels(layer: Any) -> tuple[Any, ...]:
    """All resolutions of a Labels layer, the full one first.

    Raises:
        InputError: it is another layer.
    """
    from napari.layers import Labels

    if not isinstance(layer, Labels):
        raise InputError(
            f"the {type(layer).__name__} layer {layer.name!r} is no truth: a Labels layer would work."
        )
    return _levels(layer)


def plane(target: Target, cls: int, index: Index) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """One plane or volume of a target.

    Args:
        target: of any number of axes.
        cls: number of the class, from 0.
        index: of the plane among the leading axes, without the class axis.

    Returns:
        p, floating (*S), and the truth, bool (*S), or None.

    Raises:
        InputError: there is no such class or plane, or it cannot be read.
    """
    leading = target.leading
    if len(index) != len(leading) or any(
        not 0 <= at < length for at, length in zip(index, leading, strict=True)
    ):
        raise InputError(f"there is no {target.part} {index} in {target.name!r} of shape {target.shape}.")
    key = (*target.key(cls), *index)
    whole = (slice(None),) * target.dims
    try:
        p = np.asarray(target.probability[(*key, *whole)])
        if target.truth is None:
            return p, None
        labels = np.asarray(target.truth[(*index, *whole)])
    except Exception as error:
        raise _unreadable(target.name, error) from error
    return p, target.is_foreground(labels, cls)


def curve_of(target: Target, cls: int, index: Index) -> Curve | None:
    """Exact counts of a plane at any threshold; None without truth. Arguments and errors as :func:`plane`.

    Raises:
        InputError: also for a p that is NaN or outside [0, 1].
    """
    p, truth = plane(target, cls, index)
    return None if truth is None else Curve.of(p, truth)


def set_curves(target: Target, cls: int) -> list[Curve] | str:
    """Exact counts of each plane of a target, or a sentence that says why there are none.

    Raises:
        InputError: as :func:`curve_of`.
    """
    if target.truth is None:
        return f"nothing is known to be true of {target.name!r}: a Labels layer would work."
    pixels = int(np.prod(target.shape, dtype=np.int64))
    if pixels > MOST_PIXELS:
        return (
            f"{target.name!r} has {pixels:,} pixels, too many to count all at once: "
            f"up to {MOST_PIXELS:,}, or one {target.part}, would work."
        )
    return [curve for index in target.planes if (curve := curve_of(target, cls, index)) is not None]


@dataclass(frozen=True)
class Shares:
    """How much of a plane passes any threshold, read off in O(log N).

    Attributes:
        curve: of the plane's probabilities, against a truth that is nowhere.
    """

    curve: Curve

    def share(self, threshold: float) -> float:
        """Share of the pixels with p >= T, 0…1. Raises InputError if T is NaN."""
        return self.curve.counts(threshold).fp / self.curve.negatives.total


def share_above(target: Target, cls: int, index: Index) -> Shares:
    """Shares of a plane, with or without a truth. Arguments and errors as :func:`curve_of`."""
    p, _ = plane(target, cls, index)
    return Shares(Curve.of(p, np.zeros(p.shape, np.bool_)))


class Masked:
    """A thresholded layer's data: p where the role can be, computed where it is indexed. Not writable.

    See :func:`napari_smm.layers.masked`.
    """

    def __init__(
        self, target: Target, cls: int, role: Role, level: int = 0, truth: Any | None = None
    ) -> None:
        """Describe the array.

        Args:
            target: with a truth, unless the role is "prediction".
            cls: number of the class.
            role: "prediction", "false positives" or "false negatives".
            level: which resolution.
            truth: labels at some resolution; the target's own if None.
        """
        self._target, self._cls, self._role = target, cls, role
        self._p = target.levels[level]
        self._key = target.key(cls)
        self._truth = target.truth if truth is None else truth
        self.shape = tuple(map(int, self._p.shape))[len(self._key) :]
        self.dtype = np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, were it computed."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        parts = full_key(key, self.ndim)
        axes = [np.arange(length)[part] for length, part in zip(self.shape, parts, strict=True)]
        p = _taken(self._p, [*map(np.asarray, self._key), *axes])
        if self._role == "prediction":
            return p.astype(np.float32, copy=False)
        assert self._truth is not None
        # Where the truth has more pixels, the one in the middle of each of ours.
        lengths = zip(axes, map(int, self._truth.shape), self.shape, strict=True)
        labels = _taken(self._truth, [(2 * axis + 1) * full // (2 * own) for axis, full, own in lengths])
        if p.size <= CACHED:
            return self._masked(p, labels)
        out = np.empty(p.shape, np.float32)
        rows = max(1, CACHED * len(p) // p.size)
        for first in range(0, len(p), rows):
            band = slice(first, first + rows)
            out[band] = self._masked(p[band], labels[band])
        return out

    def _masked(self, p: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
        return masked(p, self._target.is_foreground(labels, self._cls), None, self._role)


def _taken(array: Any, axes: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
    """An array at some positions along each axis, reading no more than the box around them."""
    box, picks = [], {}
    for number, axis in enumerate(axes):
        at = axis.ravel()
        steps = np.diff(at)
        if not at.size:
            box.append(slice(0, 0))
        elif not steps.size or (steps[0] > 0 and (steps == steps[0]).all()):
            box.append(slice(int(at[0]), int(at[-1]) + 1, int(steps[0]) if steps.size else 1))
        else:
            box.append(slice(int(at.min()), int(at.max()) + 1))
            picks[number] = at - at.min()
    found = np.asarray(array[tuple(box)])
    for number, pick in picks.items():
        found = found.take(pick, axis=number)
    return found.reshape([length for axis in axes for length in axis.shape])


def _bands(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices of bands of rows that cover an array (*leading, H, W)."""
    rows = max(1, BAND // shape[-1])
    for index in np.ndindex(*shape[:-2]):
        for first in range(0, shape[-2], rows):
            yield (*index, slice(first, min(first + rows, shape[-2])))


def _levels(layer: Any) -> tuple[Any, ...]:
    return tuple(layer.data) if layer.multiscale else (layer.data,)


def _unreadable(name: str, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(f"{name!r} cannot be read ({reason}): what the layer is computed from is needed.")
