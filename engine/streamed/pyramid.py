"""A prediction as an OME-Zarr image: arrays of falling resolution, each written as those above it grow.

OME-NGFF 0.5, https://ngff.openmicroscopy.org/0.5: a zarr 3 group whose attributes name axes, units, and
the arrays with their scales.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from engine.tiles import Box, boxes, unit

LONGEST = {2: 4096, 3: 512}
"""The longest side, in pixels, that needs no smaller copy, by dimensions: graphics cards draw it whole."""
LEAST = 64
"""Axes that are no longer than this stay as they are in smaller copies."""


@dataclass(frozen=True)
class Pyramid:
    """The arrays of a prediction in a folder: `probability`, `probability_1`, `probability_2` …

    A pixel of one is the mean of the 2 along each halved axis of the one before, or of those that there
    are at an odd end. An array is stored in chunks of all classes and one block of :func:`engine.tiles.unit`.

    Attributes:
        out: the folder.
        classes: C.
        shapes: S of each array, the largest first.
        spacing: mm along each axis of the largest; None where nothing is known.
    """

    out: Path
    classes: int
    shapes: tuple[tuple[int, ...], ...]
    spacing: tuple[float, ...] | None

    @classmethod
    def of(
        cls, out: Path, classes: int, shape: tuple[int, ...], spacing: tuple[float, ...] | None
    ) -> "Pyramid":
        """That of an image of shape S."""
        shapes = [shape]
        while max(shapes[-1]) > LONGEST[len(shape)]:
            shapes.append(smaller(shapes[-1]))
        return cls(out, classes, tuple(shapes), spacing)

    @property
    def names(self) -> list[str]:
        """Of the arrays, the largest first."""
        return ["probability", *(f"probability_{level}" for level in range(1, len(self.shapes)))]

    def create(self) -> None:
        """Make the group, and its arrays full of zeros, of which no chunk is stored yet."""
        zarr.create_group(self.out, zarr_format=3, attributes={"ome": self.metadata()})
        axes = ("c", *"zyx"[-len(self.shapes[0]) :])
        for name, shape in zip(self.names, self.shapes, strict=True):
            zarr.create_array(
                store=self.out / name, shape=(self.classes, *shape), chunks=(self.classes, *unit(shape)),
                dtype="float32", fill_value=0.0, zarr_format=3, dimension_names=axes,
            )  # fmt: skip

    def metadata(self) -> dict[str, Any]:
        """What OME-NGFF 0.5 wants to know: pixels are placed by their centres."""
        unit_of = {} if self.spacing is None else {"unit": "millimeter"}
        steps = self.spacing or (1.0,) * len(self.shapes[0])
        datasets, factors = [], (1,) * len(steps)
        for level, name in enumerate(self.names):
            if level:
                factors = tuple(a * b for a, b in zip(factors, self._factors(level), strict=True))
            scale = [1.0, *(step * factor for step, factor in zip(steps, factors, strict=True))]
            first = [0.0, *(step * (factor - 1) / 2 for step, factor in zip(steps, factors, strict=True))]
            datasets.append({
                "path": name,
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale}, {"type": "translation", "translation": first}
                ],
            })  # fmt: skip
        space = [{"name": letter, "type": "space", **unit_of} for letter in "zyx"[-len(steps) :]]
        axes = [{"name": "c", "type": "channel"}, *space]
        image = {"name": "probability", "axes": axes, "datasets": datasets, "type": "mean"}
        return {"version": "0.5", "multiscales": [image]}

    def rows(self, level: int = 0) -> int:
        """Rows of chunks of an array, along its first axis."""
        return -(-self.shapes[level][0] // unit(self.shapes[level])[0])

    def write(self, box: Box, p: NDArray[np.float32]) -> None:
        """Write a chunk (C, *box) of the largest array."""
        self._array(0)[(slice(None), *box)] = p

    def follow(self, done: set[int], row: int, look: Callable[[], None]) -> None:
        """Write what a new row of chunks of the largest array completes in the smaller ones.

        Args:
            done: the rows of the largest that are written, `row` among them.
            row: the new one.
            look: called before each chunk; what it raises ends it, and the row can be followed again.
        """
        changed = {row}
        for level in range(1, len(self.shapes)):
            before, done = done, set()
            for small in range(self.rows(level)):
                above = self._above(level, small)
                if all(large in before for large in above):
                    done.add(small)
            changed = {small for small in done if changed & set(self._above(level, small))}
            for small in sorted(changed):
                self._shrink(level, small, look)

    def _above(self, level: int, row: int) -> range:
        """The rows of chunks of the array before from which a row is made."""
        tall, factor = unit(self.shapes[level])[0], self._factors(level)[0]
        above = unit(self.shapes[level - 1])[0]
        last = min(factor * (row + 1) * tall, self.shapes[level - 1][0])
        return range(factor * row * tall // above, -(-last // above))

    def _shrink(self, level: int, row: int, look: Callable[[], None]) -> None:
        large, small, factors = self._array(level - 1), self._array(level), self._factors(level)
        for box in boxes(self.shapes[level], (row, row + 1)):
            look()
            wide = [slice(side.start * f, side.stop * f) for side, f in zip(box, factors, strict=True)]
            block = np.asarray(large[(slice(None), *wide)])  # an odd end is cut there
            small[(slice(None), *box)] = halved(block, tuple(f == 2 for f in factors))

    def _factors(self, level: int) -> tuple[int, ...]:
        pairs = zip(self.shapes[level - 1], self.shapes[level], strict=True)
        return tuple(1 if large == small else 2 for large, small in pairs)

    def _array(self, level: int) -> "zarr.Array[Any]":
        return zarr.open_array(self.out / self.names[level], mode="r+")


def smaller(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The next smaller shape: long axes are halved, upwards."""
    return tuple(-(-length // 2) if length > LEAST else length for length in shape)


def halved(p: NDArray[np.float32], along: tuple[bool, ...]) -> NDArray[np.float32]:
    """Means of 2 pixels along some axes of S, (C, *S) → (C, ⌈S/2⌉ …); an odd end is repeated."""
    for axis, wanted in enumerate(along, start=1):
        if wanted:
            odd = [(0, 0)] * p.ndim
            odd[axis] = (0, p.shape[axis] % 2)
            even = np.pad(p, odd, mode="edge")
            first, second = ((slice(None),) * axis + (slice(start, None, 2),) for start in (0, 1))
            p = even[first] + even[second]
    return np.asarray(p / np.float32(2 ** sum(along)))
