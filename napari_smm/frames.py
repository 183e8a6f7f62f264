"""The watched images of a run, and their arrays of each epoch, kept in memory while they are looked at."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from engine.record import RunReader, truth_epochs
from napari_smm.placement import MILLIMETRE, Placement, Transform, read_placement, spacing_of

KEPT_BYTES = 2**29
"""Memory for decoded epochs; the longest unused are let go beyond it."""


@dataclass(frozen=True)
class Item:
    """A watched image.

    Attributes:
        number: 0… in the order of the run's `watched/`.
        name: the case's name.
        split: "train" or "val".
        image: (*S, channels) as it was read.
        truth: bool (C, *S), as the run began with it: :meth:`Frames.truth` is that of an epoch.
        valid: bool (*S), likewise.
        origin: first pixel in the image's own frame.
        scale: extents of the frame's pixels in pixels of the file; in mm of volumes whose file knows them.
        affine: float64 (4, 4), index (z, y, x, 1) in the frame → mm in RAS+, or None.
        placement: where the image's layer lay, if the run was started from layers.
        probability: zarr float16 (E, C, *S).
        modulated: zarr bool (E, C, *S).
        truths: epochs from which on there is another truth, ascending; the first one is that from which on
            the image is watched, later than 1 where it joined while training went on.
        group: of all its arrays; None where the first truth is the only one.
    """

    number: int
    name: str
    split: str
    image: NDArray[Any]
    truth: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    origin: tuple[int, ...]
    scale: tuple[float, ...]
    affine: NDArray[np.float64] | None
    placement: Placement | None
    probability: "zarr.Array[Any]"
    modulated: "zarr.Array[Any]"
    truths: tuple[int, ...] = (1,)
    group: zarr.Group | None = None

    @property
    def first(self) -> int:
        """Epoch from which on the image is watched."""
        return self.truths[0]

    def version(self, epoch: int) -> int:
        """The epoch since which the image has the truth that it has in an epoch."""
        return max((since for since in self.truths if since <= epoch), default=self.first)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape S."""
        return self.valid.shape

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between the frame's pixels along each axis of a volume; None where its file says nothing."""
        return self.scale if self.affine is not None and len(self.shape) == 3 else None

    @property
    def extents(self) -> tuple[float, ...]:
        """Of the frame's pixels in pixels of :attr:`source`."""
        if len(self.shape) == 2:
            return self.scale
        if self.placement is None:
            return (1.0, 1.0, 1.0)
        # A layer's volume was written with its spacing, so that the scale is in mm.
        pixel = spacing_of(self.placement.transform, 3) or (1.0, 1.0, 1.0)
        return tuple(a / b for a, b in zip(self.scale, pixel, strict=True))

    @property
    def offset(self) -> tuple[float, ...]:
        """The first pixel's corner in pixels of :attr:`source`, counted from its first corner."""
        return tuple(a * b for a, b in zip(self.origin, self.extents, strict=True))

    @property
    def transform(self) -> Transform:
        """Of :attr:`source`."""
        return self.source.transform if isinstance(self.source, Placement) else self.source

    @property
    def source(self) -> Placement | Transform:
        """Where the whole image lies in the viewer: as its layer lay, else at the origin; volumes in mm."""
        if self.placement is not None:
            return self.placement
        if len(self.shape) == 2:
            return Transform.identity(2)
        return Transform.spaced(self.scale, "pixel" if self.spacing is None else MILLIMETRE)


def open_items(root: Path, known: Sequence[Item] = ()) -> tuple[Item, ...]:
    """The watched images of a run directory, in order; none where the run watches none.

    Args:
        root: the run directory.
        known: those of an earlier call, of which only new truths are looked for.

    Raises:
        InputError: the placement beside the run's images is broken.
    """
    reader = RunReader(root)
    placements: dict[str, Placement] = read_placement(Path(reader.info()["dataset"]["root"])) or {}
    items = []
    for number, group in enumerate(reader.watched()):
        truths = tuple(truth_epochs(group))
        if number < len(known):
            items.append(replace(known[number], truths=truths))
            continue
        attributes: dict[str, Any] = dict(group.attrs)
        spatial = len(attributes["origin"])
        items.append(
            Item(
                number=number,
                name=attributes["name"],
                split=attributes["split"],
                image=np.asarray(group["image"]),
                truth=np.asarray(group["truth"]),
                valid=np.asarray(group["valid"]),
                origin=tuple(attributes["origin"]),
                scale=tuple(attributes.get("scale", [1.0] * spatial)),
                affine=np.asarray(attributes["affine"], np.float64) if "affine" in attributes else None,
                placement=placements.get(attributes["name"]),
                probability=_array(group, "probability"),
                modulated=_array(group, "modulated"),
                truths=truths,
                group=group,
            )
        )
    return tuple(items)


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


class Frames:
    """Decoded arrays of items and epochs. May be used from any thread."""

    def __init__(self, items: Sequence[Item], kept: int = KEPT_BYTES) -> None:
        """Keep at most `kept` bytes of decoded arrays."""
        self.items = tuple(items)
        self._kept = kept
        self._lock = RLock()
        self._arrays: OrderedDict[tuple[str, int, int], NDArray[Any]] = OrderedDict()
        self._bytes = 0

    def probability(self, item: int, epoch: int) -> NDArray[np.float32]:
        """Foreground probability after epoch 1…E, float32 (C, *S); not to be written to."""
        return self._get("probability", item, epoch)

    def modulated(self, item: int, epoch: int) -> NDArray[np.bool_]:
        """The mask that the loss saw in epoch 1…E, bool (C, *S); not to be written to."""
        return self._get("modulated", item, epoch)

    def truth(self, item: int, epoch: int) -> NDArray[np.bool_]:
        """What was right for training in epoch 1…E, bool (C, *S); not to be written to."""
        return self._of_version("truth", item, epoch)

    def valid(self, item: int, epoch: int) -> NDArray[np.bool_]:
        """Where it counted in epoch 1…E, bool (*S); not to be written to."""
        return self._of_version("valid", item, epoch)

    def update(self, items: Sequence[Item]) -> None:
        """Take up truths and items that have been added; those of before keep their arrays."""
        self.items = tuple(items)

    def has(self, item: int, epoch: int) -> bool:
        """Whether both arrays are in memory."""
        with self._lock:
            return all((name, item, epoch) in self._arrays for name in ("probability", "modulated"))

    def forget(self) -> None:
        """Let go of everything, since epochs may have been run again."""
        with self._lock:
            self._arrays.clear()
            self._bytes = 0

    def _of_version(self, name: str, item: int, epoch: int) -> NDArray[np.bool_]:
        kept = self.items[item]
        since = kept.version(epoch)
        return getattr(kept, name) if since == kept.first else self._get(name, item, since)

    def _get(self, name: str, item: int, epoch: int) -> NDArray[Any]:
        key = (name, item, epoch)
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        kept = self.items[item]
        if name in ("truth", "valid"):
            assert kept.group is not None
            stored: Any = _array(kept.group, f"{name}_{epoch:04d}")
        else:
            stored = getattr(kept, name)[epoch - 1]
        array: NDArray[Any] = np.asarray(stored, dtype=np.float32 if name == "probability" else np.bool_)
        array.flags.writeable = False
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = array
                self._bytes += array.nbytes
            while self._bytes > self._kept and len(self._arrays) > 1:
                _, old = self._arrays.popitem(last=False)
                self._bytes -= old.nbytes
        return array
