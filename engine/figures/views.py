"""Views: the slice that stands for a volume in a picture, the right way up and in proportion.

Loads neither torch nor matplotlib.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Affine = NDArray[np.float64]

LETTERS = "zyx"
"""Of the axes of an array (D, H, W)."""
SAGITTAL, CORONAL, AXIAL = 0, 1, 2
"""World axes of RAS+: to the patient's right, front, top; also the planes that they stand on."""
COARSER = 1.1
"""Slices are cut across z, unless the voxels of another axis are longer than along z by this factor:
volumes are acquired in slices across their coarsest axis, and only those are sharp."""


@dataclass(frozen=True)
class View:
    """A slice of a volume, as it is shown.

    Attributes:
        axis: array axis that it cuts across, 0 z, 1 y, 2 x.
        index: of the slice, from 0.
        count: of slices along that axis.
        transposed: whether the later of the other two axes runs down instead of to the right.
        flipped: whether the rows, and the columns, run backwards.
        aspect: height of a pixel over its width.
        sides: what is at the picture's left and top, R, L, A, P, S or I; or "" where nothing says so.
    """

    axis: int
    index: int
    count: int
    transposed: bool = False
    flipped: tuple[bool, bool] = (False, False)
    aspect: float = 1.0
    sides: str = ""

    def of(self, array: NDArray[Any], first: int = 0) -> NDArray[Any]:
        """The slice of an array (…, D, H, W, …) whose axis `first` is D: (…, rows, columns, …)."""
        cut = np.take(array, self.index, axis=first + self.axis)
        cut = np.swapaxes(cut, first, first + 1) if self.transposed else cut
        backwards = tuple(first + place for place, turned in enumerate(self.flipped) if turned)
        return np.flip(cut, backwards)

    @property
    def words(self) -> str:
        """As in "slice 23 of 35, axis z"; with an affine also which side is at the left."""
        side = f", {self.sides[0]} at the left" if self.sides else ""
        return f"slice {self.index + 1} of {self.count}, axis {LETTERS[self.axis]}{side}"


def view(
    truth: Mask, prediction: Mask | None = None, valid: Mask | None = None,
    spacing: Sequence[float] | None = None, affine: Affine | None = None,
) -> View:  # fmt: skip
    """The slice with most truth, in which what the prediction missed counts twice.

    A volume without truth is shown where most is falsely found, or in its middle.

    Args:
        truth, prediction: bool (C, D, H, W).
        valid: bool (D, H, W); False counts nowhere.
        spacing: mm along z, y, x, or any unit, as only proportions count.
        affine: float64 (4, 4), index (z, y, x, 1) → mm in RAS+. With it the top of the picture is the
            patient's top or front, and its left the patient's right or front, as radiologists look at it.
    """
    axis = across(spacing)
    others = tuple(place for place in range(truth.ndim) if place != axis + 1)
    weight = _counted(truth, valid).sum(axis=others)
    if prediction is not None:
        weight = weight + _counted(truth & ~prediction, valid).sum(axis=others)
        if not weight.any():
            weight = _counted(prediction, valid).sum(axis=others)
    count = truth.shape[axis + 1]
    index = int(weight.argmax()) if weight.any() else count // 2
    return _oriented(axis, index, count, spacing, affine)


def across(spacing: Sequence[float] | None) -> int:
    """The array axis that slices are cut across."""
    if spacing is None:
        return 0
    coarsest = int(np.argmax(spacing))
    return coarsest if spacing[coarsest] > COARSER * spacing[0] else 0


def world_axes(affine: Affine) -> tuple[tuple[int, int], ...]:
    """Of each array axis z, y, x the world axis that it runs along best, each one once, and its sign.

    Args:
        affine: float64 (4, 4), index (z, y, x, 1) → mm in RAS+.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best = max(permutations(range(3)), key=lambda order: np.abs(directions[order, range(3)]).sum())
    return tuple((world, 1 if directions[world, axis] >= 0 else -1) for axis, world in enumerate(best))


def squared(picture: NDArray[np.float32], aspect: float) -> NDArray[np.float32]:
    """A picture (H, W, 3) with pixels of an aspect as one of square pixels; the shorter side is repeated."""
    tall, wide = max(aspect, 1.0), max(1 / aspect, 1.0)
    rows, columns = (
        np.minimum((np.arange(max(round(length * factor), 1)) / factor).astype(int), length - 1)
        for length, factor in zip(picture.shape, (tall, wide), strict=False)
    )
    made: NDArray[np.float32] = picture[rows][:, columns]
    return made


def _counted(mask: Mask, valid: Mask | None) -> Mask:
    return mask if valid is None else mask & valid


def _oriented(
    axis: int, index: int, count: int, spacing: Sequence[float] | None, affine: Affine | None
) -> View:
    rows, columns = (place for place in range(3) if place != axis)
    transposed, flipped, sides = False, (False, False), ""
    if affine is not None and np.all(np.linalg.norm(affine[:3, :3], axis=0) > 0):
        worlds = world_axes(affine)
        # What runs up and down is the patient's height or, in an axial slice, depth.
        transposed = worlds[rows][0] < worlds[columns][0]
        rows, columns = (columns, rows) if transposed else (rows, columns)
        # To the right, front and top index and picture run against each other.
        flipped = (worlds[rows][1] > 0, worlds[columns][1] > 0)
        sides = "RAS"[worlds[columns][0]] + "RAS"[worlds[rows][0]]
    aspect = 1.0 if spacing is None else float(spacing[rows] / spacing[columns])
    return View(axis, index, count, transposed, flipped, aspect, sides)
