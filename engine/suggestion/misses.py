"""The order `misses`: foreground that the model's own decision leaves out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label

from engine.suggestion.seen import Box, Doubt, Seen, percent

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Spots:
    """Connected faint foreground of one class.

    Attributes:
        found: number of each pixel's spot, int (*S), 0 where there is none.
        large: of each number, from 0, whether the spot is large enough to count, bool.
        dropped: of each number whether it counts and the decision at T leaves all of it out, bool.
    """

    found: NDArray[np.int32]
    large: NDArray[np.bool_]
    dropped: NDArray[np.bool_]

    def count(self, box: Box) -> tuple[int, int]:
        """Spots with a pixel in a box: those that are dropped, and all."""
        here = np.unique(self.found[box])
        return int(self.dropped[here].sum()), int(self.large[here].sum())


def misses(seen: Seen, *, floor: float = 0.1, faint: float = 0.5, smallest: int = 16) -> Doubt:
    """Expected false negative rate of the model's own decision; and the spots that it drops.

    score = Σ q [p < T] / (Σ q + smallest), with q = p where p >= floor · T, else 0; sums over pixels and
    classes. If p is calibrated, Σ q [p < T] is how many foreground pixels p >= T is expected to miss. The
    summand puts images in which no more than a speck is expected last.

    Args:
        seen: the image.
        floor: share of T, or of ½ if T is higher, below which p counts as background, 0…1.
        faint: such a share from which neighbouring pixels make up a spot, 0…1; the decision drops a spot that
            reaches T nowhere.
        smallest: pixels of a spot that counts.

    Returns:
        A score in 0…1.
    """
    q = seen.expected(floor)
    missed = np.where(seen.masks, np.float32(0), q)
    each = zip(seen.p, seen.masks, seen.levels(faint), strict=True)
    spots = [spots_of(p >= level, mask, smallest) for p, mask, level in each]

    def words(box: Box) -> str:
        inside = (slice(None), *box)
        said = []
        for number, name in enumerate(seen.classes):
            total = float(q[inside][number].sum(dtype=np.float64))
            lost = float(missed[inside][number].sum(dtype=np.float64))
            if total == 0:
                continue
            text = f"likely misses {percent(lost / total)} of {name}"
            dropped, every = spots[number].count(box)
            if dropped:
                text += f" and {dropped} of {every} spot{'s' * (every != 1)}"
            said.append(text)
        return ", ".join(said) or f"no {' or '.join(seen.classes)} expected"

    score = float(missed.sum(dtype=np.float64)) / (float(q.sum(dtype=np.float64)) + smallest)
    return Doubt(score, missed.sum(axis=0), words)


def spots_of(faint: Mask, mask: Mask, smallest: int) -> Spots:
    """Connected components of a faint mask bool (*S), diagonals included, and which of them lie outside of
    the decision's."""
    found, count = label(faint, generate_binary_structure(faint.ndim, faint.ndim))
    large = np.bincount(found.ravel(), minlength=count + 1) >= smallest
    large[0] = False
    reached = np.zeros(count + 1, bool)
    reached[np.unique(found[mask])] = True
    return Spots(found, large, large & ~reached)
