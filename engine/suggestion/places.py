"""Places: the few boxes of an image in which there is most to be learned, of a size to be painted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.suggestion.seen import Box, Doubt, Map

SHARE = 4
"""A box's side is the image's longest side in the plane over this, within the limits below."""
SHORTEST, LONGEST = 32, 128
"""Limits of a box's side in pixels: less shows too little around an object, more is a morning's painting."""
SLICES = 8
"""A box of a volume has its side over this many slices: painting goes slice by slice."""
STEPS = 8
"""Boxes start at multiples of their side over this."""
FADED = 0.25
"""A box with less doubt than this share of the best one's is no place."""


@dataclass(frozen=True)
class Place:
    """A box of an image worth painting.

    Attributes:
        box: in the image's own pixels, inside it.
        score: mean doubt in it, 0 or more.
        reason: what is in doubt there.
    """

    box: Box
    score: float
    reason: str


def places(doubt: Doubt, count: int = 3) -> list[Place]:
    """The boxes of most doubt that do not overlap, best first: greedily, up to `count`.

    None where the order sees no difference between places, or there is no doubt at all.
    """
    if doubt.map is None:
        return []
    side = sides(doubt.map.shape)
    starts = [_starts(length, extent) for length, extent in zip(doubt.map.shape, side, strict=True)]
    sums = box_sums(doubt.map, starts, side)
    found: list[Place] = []
    best = float(sums.max())
    while len(found) < count and best > 0:
        where = np.unravel_index(int(np.argmax(sums)), sums.shape)
        if sums[where] < max(FADED * best, np.finfo(np.float32).tiny):
            break
        corner = [int(each[place]) for each, place in zip(starts, where, strict=True)]
        box = tuple(slice(first, first + extent) for first, extent in zip(corner, side, strict=True))
        found.append(Place(box, float(sums[where]) / float(np.prod(side)), doubt.words(box)))
        near = [
            np.abs(each - first) < extent for each, first, extent in zip(starts, corner, side, strict=True)
        ]
        sums[np.ix_(*near)] = -1
    return found


def sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sides of the boxes of an image (H, W) or volume (D, H, W), no longer than its own."""
    side = min(max(max(shape[-2:]) // SHARE, SHORTEST), LONGEST)
    wanted = (side,) * 2 if len(shape) == 2 else (side // SLICES, side, side)
    return tuple(map(min, wanted, shape))


def _starts(length: int, side: int) -> NDArray[np.int64]:
    """First pixels of boxes along an axis, ascending; the last box ends with the image."""
    step = max(1, side // STEPS)
    return np.unique([*range(0, length - side, step), length - side]).astype(np.int64)


def box_sums(values: Map, starts: list[NDArray[np.int64]], side: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums of (*S) over all boxes, float64 (boxes along each axis).

    Args:
        values: 0 or more.
        starts: along each axis, where boxes begin; with `side` they stay inside.
        side: of a box.
    """
    table: NDArray[Any] = values
    for axis, (first, extent) in enumerate(zip(starts, side, strict=True)):
        # Between the places where some box begins or ends nothing needs to be told apart. The last box ends
        # with the image, so the last cell does, too.
        cuts = np.unique([*first, *(first + extent)])
        cells = np.add.reduceat(table, cuts[:-1], axis=axis, dtype=np.float64)
        running = np.insert(np.cumsum(cells, axis=axis), 0, 0, axis=axis)
        ends = np.take(running, np.searchsorted(cuts, first + extent), axis=axis)
        table = ends - np.take(running, np.searchsorted(cuts, first), axis=axis)
    return np.asarray(table)
