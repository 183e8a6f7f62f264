"""The order `errors`: images whose mask the model itself expects to be wrong."""

import numpy as np
from numpy.typing import NDArray

from engine.suggestion.seen import Box, Doubt, Map, Seen, without_rims


def errors(seen: Seen, *, floor: float = 0.1, smallest: int = 16, rim: int = 1) -> Doubt:
    """One minus the Dice that the model expects of its own mask, mean over the classes.

    With m = [p >= T] and q = p where p >= floor · T, else 0, the expectations of 2 TP and of 2 TP + FP + FN
    under calibrated p are 2 Σ q m and Σ m + Σ q; score = 1 - (2 Σ q m + s) / (Σ m + Σ q + s), the ratio of
    expectations in place of the expected ratio. Unlike a mean over pixels it does not depend on how much
    foreground an image has.

    Args:
        seen: the image.
        floor: share of T, or of ½ if T is higher, below which p counts as background, 0…1.
        smallest: s, in pixels: foreground below which the score falls towards 0.
        rim: errors along outlines, up to about twice as wide in pixels, do not attract places.

    Returns:
        A score in 0…1; 0 where nothing is expected and nothing found.
    """
    masks, q = seen.masks, seen.expected(floor)
    wrong = np.where(masks, 1 - seen.p, q)
    each = [1 - expected_dice(*pair, smallest) for pair in zip(q, masks, strict=True)]

    def words(box: Box) -> str:
        inside = (slice(None), *box)
        pairs = zip(q[inside], masks[inside], seen.classes, strict=True)
        known = [(expected_dice(p, mask), name) for p, mask, name in pairs if p.any() or mask.any()]
        if not known:
            return f"no {' or '.join(seen.classes)} expected"
        return "expects a Dice of " + ", ".join(f"{dice:.2f} for {name}" for dice, name in known)

    return Doubt(float(np.mean(each)), without_rims(wrong.max(axis=0), rim), words)


def expected_dice(q: Map, mask: NDArray[np.bool_], smooth: float = 0) -> float:
    """(2 Σ q m + s) / (Σ m + Σ q + s), of probabilities and a mask of one class; 1 where both are empty."""
    both = float(q.sum(dtype=np.float64)) + float(mask.sum()) + smooth
    return 1.0 if both == 0 else (2 * float(q.sum(dtype=np.float64, where=mask)) + smooth) / both
