"""How volumes lie in the world, and how large their voxels are: what differs among those of a data set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.data.layouts import Found
from engine.data.raster import Head
from engine.data.specs import Data

DIRECTIONS = (("L", "R"), ("P", "A"), ("I", "S"))
"""To the left or right, to the back or front, down or up."""
UNLIKE = 1.05
"""Sides of voxels that differ by less than this factor pass for equal."""


def orientation(affine: NDArray[np.float64]) -> str:
    """Where the axes x, y, z of a volume point, by NIfTI's letters: ``RAS`` is right, front, up.

    Each axis has the letter of the direction that it is nearest to, the surest axis first; no two share one.

    Args:
        affine: (4, 4), index (z, y, x, 1) → mm in RAS+.
    """
    columns = affine[:3, [2, 1, 0]] / np.linalg.norm(affine[:3, [2, 1, 0]], axis=0)
    letters = ["", "", ""]
    left = np.abs(columns)
    for _ in range(3):
        world, axis = np.unravel_index(np.argmax(left), left.shape)
        letters[axis] = DIRECTIONS[world][int(columns[world, axis] > 0)]
        left[world, :] = left[:, axis] = -1
    return "".join(letters)


def world_notes(found: Found, heads: Sequence[Head], data: Data) -> list[str]:
    """What a user should know where volumes of a data set differ, a sentence each; nothing of images.

    Args:
        found: the cases.
        heads: of each case.
        data: size and spacing, which make voxels equal.
    """
    volumes = [(case.name, head) for case, head in zip(found.cases, heads, strict=True) if head.dims == 3]
    notes = []
    ways: dict[str, list[str]] = {}
    for name, head in volumes:
        if head.affine is not None:
            ways.setdefault(orientation(head.affine), []).append(name)
    if len(ways) > 1:
        shown = ", ".join(f"{way} {len(names)}, such as {names[0]}" for way, names in ways.items())
        notes.append(
            f"the volumes have different orientations ({shown}); voxels are used as they are stored, so "
            "anatomy is turned and mirrored from case to case: volumes of one orientation would be easier."
        )
    sides = np.array([head.spacing for _, head in volumes if head.spacing is not None])
    if len(sides) and data.size is None and data.spacing is None:
        low, high = sides.min(axis=0), sides.max(axis=0)
        if (high > low * UNLIKE).any():
            small, large = (" × ".join(f"{side:.3g}" for side in each) for each in (low, high))
            notes.append(
                f"the voxels are from {small} to {large} mm large (depth × height × width): data.spacing "
                "would make them equal."
            )
    return notes
