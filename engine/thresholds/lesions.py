"""Lesion probabilities: all that the guarantees need to know of calibration images.

A set of images keeps, of each image and class, the probabilities of its lesion voxels, sorted. From them
every rule reads a threshold for any ε and α in microseconds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.thresholds.conformal import critical_of, require_probabilities, require_share, worst_fnr
from engine.thresholds.curves import check

Values = NDArray[Any]

BLOCK = 1 << 17
"""Voxels that are looked at together, so that a volume costs neither a mask nor a second copy of its own."""


def lesion_probabilities(
    p: Values, y: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None, *, name: str = ""
) -> Values:
    """The probabilities of one image's and class's lesion voxels, sorted.

    One copy of the lesion voxels is made, and sorted where it lies.

    Args:
        p: float16, float32 or float64 (*S), of any dimension; looked at only where the lesion is.
        y: bool (*S), the truth.
        valid: bool (*S); False is no lesion voxel.
        name: of the image, for messages.

    Returns:
        (m,) in p's type, ascending.

    Raises:
        InputError: other shapes or types, or a lesion probability that is NaN or outside 0…1.
    """
    check(p, y, valid)
    parts = list(_blocks(p, y, valid))
    counts = [int(np.count_nonzero(_lesion(inside, counted))) for _, inside, counted in parts]
    found = np.empty(sum(counts), p.dtype.newbyteorder("="))
    start = 0
    for (block, inside, counted), count in zip(parts, counts, strict=True):
        if count:
            found[start : start + count] = block[_lesion(inside, counted)]
        start += count
    require_probabilities(found, name)
    found.sort()
    return found


def _lesion(y: NDArray[np.bool_], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return y if valid is None else y & valid


def _blocks(
    p: Values, y: NDArray[np.bool_], valid: NDArray[np.bool_] | None
) -> Iterator[tuple[Values, NDArray[np.bool_], NDArray[np.bool_] | None]]:
    """The arrays in parts along their longest axis; views. Their order is of no account."""
    if not p.size or not p.ndim:
        yield p, y, valid
        return
    axis = int(np.argmax(p.shape))
    rows = p.shape[axis]
    step = max(1, BLOCK * rows // p.size)
    for first in range(0, rows, step):
        part = (slice(None),) * axis + (slice(first, first + step),)
        yield p[part], y[part], None if valid is None else valid[part]


@dataclass(frozen=True)
class Units:
    """What a promise is made about: images, or groups of images that belong together.

    Attributes:
        values: of each of n units the sorted lesion probabilities of its images and classes, none of them
            empty. A unit without lesion, if it is counted at all, has none.
        left_out: number of units without lesion that are not counted.
    """

    values: tuple[tuple[Values, ...], ...]
    left_out: int = 0

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.values)

    def critical(self, epsilon: float) -> NDArray[np.float64]:
        """Each unit's critical threshold at ε, float64 (n,): the least of its images and classes.

        Raises:
            InputError: ε outside 0…1.
        """
        epsilon = require_share("epsilon", epsilon)
        return np.array(
            [min((critical_of(values, epsilon) for values in unit), default=np.inf) for unit in self.values],
            np.float64,
        )

    def fnr(self, threshold: float) -> NDArray[np.float64]:
        """Each unit's largest FNR among its images and classes at T, float64 (n,).

        Raises:
            InputError: T is NaN.
        """
        return worst_fnr(self.values, threshold)


@dataclass(frozen=True)
class Lesions:
    """The lesion probabilities of some annotated images.

    Attributes:
        names: of the images.
        groups: what each image belongs to; images of one group are one unit.
        classes: names of the C foreground classes.
        values: image → class → (m,), sorted, in the probabilities' own type.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    values: tuple[tuple[Values, ...], ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.groups) == len(self.values)
        assert all(len(image) == len(self.classes) for image in self.values)

    @property
    def grouped(self) -> bool:
        """Whether a group has several images."""
        return len(set(self.groups)) < len(self.groups)

    def units(self, cls: int | None = None, *, count_empty: bool = False) -> Units:
        """The units of one class, or of all classes at once.

        Args:
            cls: number of the class from 0; None for all at once: a unit then keeps its promise where
                it keeps it for every class that it has.
            count_empty: count units without lesion, which cannot miss one, too.

        Raises:
            InputError: there is no such class.
        """
        if cls is not None and not 0 <= cls < len(self.classes):
            raise InputError(f"there is no class {cls}: 0 to {len(self.classes) - 1} would work.")
        found: dict[str, list[Values]] = {}
        for group, image in zip(self.groups, self.values, strict=True):
            chosen = image if cls is None else image[cls : cls + 1]
            found.setdefault(group, []).extend(values for values in chosen if values.size)
        kept = [tuple(values) for values in found.values() if values or count_empty]
        return Units(tuple(kept), len(found) - len(kept))

    def without_lesion(self, cls: int | None = None) -> tuple[str, ...]:
        """Names of the images that have no lesion of a class, or of any."""
        classes = range(len(self.classes)) if cls is None else (cls,)
        return tuple(
            name
            for name, image in zip(self.names, self.values, strict=True)
            if not any(image[number].size for number in classes)
        )


def gather(
    names: Sequence[str],
    classes: Sequence[str],
    values: Sequence[Sequence[Values]],
    groups: Sequence[str] | Mapping[str, str] | None = None,
) -> Lesions:
    """A set of images from the sorted lesion probabilities of each.

    Args:
        names: of the images.
        classes: of the C classes.
        values: image → class → what :func:`lesion_probabilities` gave.
        groups: of each image, in their order or by their name; each image is its own if None.

    Raises:
        InputError: no image at all, or two of one name where names tell the units apart.
    """
    if not names:
        raise InputError("there is no calibration image: at least one with its mask is needed.")
    if groups is None or isinstance(groups, Mapping):
        _require_different(names)
    if groups is None:
        groups = names
    elif isinstance(groups, Mapping):
        groups = [groups.get(name, name) for name in names]
    return Lesions(tuple(names), tuple(groups), tuple(classes), tuple(map(tuple, values)))


def _require_different(names: Sequence[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"the name {twice!r} is given to two calibration images: a name for each would work."
        )
