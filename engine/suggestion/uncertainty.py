"""The order `uncertain`: where the model cannot tell foreground from background."""

import numpy as np

from engine.suggestion.seen import Box, Doubt, Map, Seen, percent, without_rims

UNSURE = 0.5
"""Bits of entropy from which a pixel is called unsure: p from 0.11 to 0.89."""
FEWEST = np.float32(1e-7)
"""p and 1 - p are taken as no smaller in logarithms."""


def uncertain(seen: Seen, *, rim: int = 1, share: float = 1.0) -> Doubt:
    """Mean binary entropy of an image's most uncertain pixels, outlines of objects left out.

    Entropy sampling (Settles, "Active learning literature survey", University of Wisconsin–Madison, TR 1648,
    2009, section 3.1), pixel by pixel. Of several classes each pixel's most uncertain one counts.

    Args:
        seen: the image.
        rim: ridges of doubt up to about twice as wide, in pixels, do not count; see :func:`without_rims`.
        share: of the pixels, the most uncertain ones, over which the mean is taken, 0 < share <= 1.

    Returns:
        A score in bits, 0…1.
    """
    doubt = without_rims(entropy(seen.p).max(axis=0), rim)

    def words(box: Box) -> str:
        return f"unsure about {percent(float((doubt[box] >= UNSURE).mean()))} of the {seen.pixels}"

    return Doubt(mean_of_most(doubt, share), doubt, words)


def entropy(p: Map) -> Map:
    """Binary entropy -p ld p - (1 - p) ld (1 - p) in bits, 0…1, of probabilities of any shape."""
    rest = 1 - p
    found = p * np.log2(np.maximum(p, FEWEST)) + rest * np.log2(np.maximum(rest, FEWEST))
    return np.asarray(np.clip(-found, 0, 1), np.float32)


def mean_of_most(values: Map, share: float) -> float:
    """Mean of the largest share of the values, of one at least."""
    count = max(1, round(share * values.size))
    if count < values.size:
        values = np.partition(values, -count, axis=None)[-count:]
    return float(values.mean(dtype=np.float64))
