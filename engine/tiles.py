"""The tiles in which a large image is predicted, and the blocks in which its prediction is given."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]
"""A slice with start and stop along each axis of S."""
Values = NDArray[np.float32]
UNITS = {2: 512, 3: 64}
"""Extent of a block of a prediction, and of a chunk where it is stored, along each axis, by dimensions."""


@dataclass(frozen=True)
class Blocks:
    """The grid of tiles that are predicted, and that of blocks that are given, of one image.

    Attributes:
        shape: of the image, S.
        unit: extent of a block along each axis; the last ones may be shorter.
        size: of a tile.
        corners: the tiles' first pixels along each axis.
        tiles: numbers of the tiles to be predicted along each axis.
        rows: the first row of blocks to be given, and that before which to end.
    """

    shape: tuple[int, ...]
    unit: tuple[int, ...]
    size: list[int]
    corners: list[list[int]]
    tiles: tuple[range, ...]
    rows: tuple[int, int]

    @classmethod
    def of(
        cls, shape: tuple[int, ...], size: list[int], corners: list[list[int]], rows: tuple[int, int] | None
    ) -> "Blocks":
        """The grids of an image, or of some rows of its blocks."""
        units = unit(shape)
        first, last = rows or (0, -(-shape[0] // units[0]))
        tops = [
            number
            for number, top in enumerate(corners[0])
            if top < last * units[0] and top + size[0] > first * units[0]
        ]
        tiles = (range(tops[0], tops[-1] + 1), *(range(len(along)) for along in corners[1:]))
        return cls(shape, units, size, corners, tiles, (first, last))

    def tile(self, number: tuple[int, ...]) -> Box:
        """The box of a tile, by its number along each axis."""
        first = [along[at] for along, at in zip(self.corners, number, strict=True)]
        return tuple(slice(a, a + extent) for a, extent in zip(first, self.size, strict=True))

    def box(self, index: tuple[int, ...]) -> Box:
        """The box of a block, by its number along each axis."""
        return tuple(
            slice(at * extent, min((at + 1) * extent, length))
            for at, extent, length in zip(index, self.unit, self.shape, strict=True)
        )

    def touched(self, number: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The blocks to be given that a tile has a part of, in row-major order."""
        return product(*(self._under(axis, at) for axis, at in enumerate(number)))

    def finished(self, number: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The blocks of which a tile is the last: of all that cover a block, the last along each axis."""
        under = [self._under(axis, at) for axis, at in enumerate(number)]
        return product(*(
            [index for index in along if self._last(axis, index) == at]
            for axis, (along, at) in enumerate(zip(under, number, strict=True))
        ))  # fmt: skip

    def _under(self, axis: int, at: int) -> range:
        first, extent = self.corners[axis][at], self.unit[axis]
        found = range(first // extent, -(-(first + self.size[axis]) // extent))
        if axis:
            return found
        return range(max(found.start, self.rows[0]), min(found.stop, self.rows[1]))

    def _last(self, axis: int, index: int) -> int:
        """The last tile along an axis that has a part of a block."""
        return bisect_left(self.corners[axis], (index + 1) * self.unit[axis]) - 1

    def weights(self, index: tuple[int, ...], weight: Values) -> Values:
        """Sums of the tiles' weights over a block, added as the tiles are."""
        box = self.box(index)
        total = np.zeros(extents(box), np.float32)
        near = [
            [first for first in along if first < sides.stop and first + extent > sides.start]
            for along, sides, extent in zip(self.corners, box, self.size, strict=True)
        ]
        for corner in product(*near):
            tile = tuple(slice(a, a + extent) for a, extent in zip(corner, self.size, strict=True))
            inside, part = overlap_of(box, tile)
            total[inside] += weight[part]
        return total


def unit(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extent of a block of the prediction of an image of this shape, along each axis.

    It is part of the arithmetic: the exponential of a vector of numbers and that of the few that are left
    over at its end may differ in the last bit.
    """
    return tuple(min(UNITS[len(shape)], length) for length in shape)


def boxes(shape: tuple[int, ...], rows: tuple[int, int] | None = None) -> Iterator[Box]:
    """The blocks of an image, or of some rows of them, in row-major order."""
    axes = [
        [slice(start, min(start + extent, length)) for start in range(0, length, extent)]
        for length, extent in zip(shape, unit(shape), strict=True)
    ]
    first, last = rows or (0, len(axes[0]))
    return product(axes[0][first:last], *axes[1:])


def extents(box: Box) -> tuple[int, ...]:
    """Lengths of a box along its axes."""
    return tuple(side.stop - side.start for side in box)


def overlap_of(one: Box, other: Box) -> tuple[Box, Box]:
    """What two boxes have in common, as each of them counts from its own first pixel."""
    both = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)]
    inside, part = (
        tuple(
            slice(first - side.start, last - side.start)
            for (first, last), side in zip(both, box, strict=True)
        )
        for box in (one, other)
    )
    return inside, part


def starts(length: int, extent: int, overlap: float) -> list[int]:
    """First pixels of tiles that cover an axis evenly, neighbours overlapping by at least `overlap`."""
    step = max(1, int(extent * (1 - overlap)))
    count = 1 + -(-(length - extent) // step)
    last = length - extent
    return [round(last * number / max(1, count - 1)) for number in range(count)]
