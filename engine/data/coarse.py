"""Where the classes of a large image are, coarsely: how many blocks of it hold one, in any box of blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from engine.data.boxes import Box

BLOCKS = {2: 32, 3: 16}
"""Pixels on a side of a block, of images and of volumes: a number of 4 bytes for 1024 or 4096 pixels."""
Boxed = tuple[Box, NDArray[np.bool_], NDArray[np.bool_]]
"""A box, and its classes bool (C, *box) and valid pixels bool (*box)."""


@dataclass(frozen=True)
class Coarse:
    """Blocks of one image that hold a class.

    Attributes:
        shape: S of the image.
        block: pixels on a side of a block; those at the far ends may be smaller.
        sums: int32, one longer than the blocks along each axis: how many before each corner hold a class.
        centre: the pixel in the middle of all that has a class, or None.
        everywhere: whether every pixel is valid.
    """

    shape: tuple[int, ...]
    block: int
    sums: NDArray[np.int32]
    centre: tuple[int, ...] | None
    everywhere: bool

    @property
    def empty(self) -> bool:
        """Whether no pixel has a class."""
        return self.centre is None

    def touched(self, corners: NDArray[np.int64], size: Sequence[int]) -> NDArray[np.bool_]:
        """Whether each window touches a block that holds a class, bool (windows,).

        Args:
            corners: int64 (windows, D), may lie outside the image.
            size: extent of all windows.
        """
        first, last = self._clipped(corners, size)
        return self._counts(first // self.block, -(-last // self.block)) > 0

    def surrounded(self, corners: NDArray[np.int64], size: Sequence[int]) -> NDArray[np.bool_]:
        """Whether each window has a block that holds a class wholly inside, and so one of its pixels."""
        first, last = self._clipped(corners, size)
        blocks = np.array(self.sums.shape) - 1
        # The block at the far end is all inside where the image ends in the window.
        ends = np.where(last == self.shape, blocks, last // self.block)
        return self._counts(-(-first // self.block), ends) > 0

    def _clipped(
        self, corners: NDArray[np.int64], size: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return corners.clip(0, self.shape), (corners + np.array(size)).clip(0, self.shape)

    def _counts(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
        """Blocks that hold a class from a first to before a last one, int64 (windows,), by inclusion and
        exclusion of corners."""
        total = np.zeros(len(first), np.int64)
        last = np.maximum(first, last)
        for far in product((False, True), repeat=len(self.shape)):
            corner = np.where(far, last, first)
            total += self.sums[tuple(corner.T)] * (-1) ** far.count(False)
        return total


def coarse_of(parts: Iterable[Boxed], shape: tuple[int, ...]) -> Coarse:
    """The map of an image that comes in boxes, which cover it once."""
    block = BLOCKS[len(shape)]
    held = np.zeros([-(-length // block) for length in shape], np.bool_)
    total, count = np.zeros(len(shape), np.int64), 0
    everywhere = True
    for box, truth, valid in parts:
        everywhere &= bool(valid.all())
        any_class = np.asarray(truth.any(axis=0))
        found = int(any_class.sum())
        if not found:
            continue
        count += found
        for axis, side in enumerate(box):
            others = tuple(other for other in range(len(shape)) if other != axis)
            total[axis] += int(any_class.sum(axis=others) @ np.arange(side.start, side.stop))
        held[tuple(slice(side.start // block, -(-side.stop // block)) for side in box)] |= _blocks(
            any_class, box, block
        )
    sums = np.zeros([length + 1 for length in held.shape], np.int32)
    inner = (slice(1, None),) * len(shape)
    sums[inner] = held
    for axis in range(len(shape)):
        np.cumsum(sums, axis=axis, out=sums)
    centre = tuple(round(float(along / count)) for along in total) if count else None
    return Coarse(shape, block, sums, centre, everywhere)


def _blocks(mask: NDArray[np.bool_], box: Box, block: int) -> NDArray[np.bool_]:
    """Whether a box has a pixel in each of the image's blocks that it cuts."""
    for axis, side in enumerate(box):
        starts = np.arange(side.start // block * block, side.stop, block).clip(side.start) - side.start
        mask = np.logical_or.reduceat(mask, starts, axis=axis)
    return mask
