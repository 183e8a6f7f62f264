"""When SMM v2 updates its masks: the slope of recall over epochs against a decaying threshold."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, isnan, nan

import numpy as np


def recall_slope(recalls: Sequence[float]) -> float:
    """Slope β of the line fitted to recall over epochs (SMM paper, Eq. 2).

    Args:
        recalls: one recall for each of consecutive epochs; all of them are used.

    Returns:
        ``Cov(recall, epoch) / Var(epoch)`` per epoch, in float64; NaN below two values or if one is NaN.
    """
    if len(recalls) < 2:
        return nan
    values = np.asarray(recalls, dtype=np.float64)
    epochs = np.arange(len(values), dtype=np.float64)
    epochs -= epochs.mean()
    return float((epochs * (values - values.mean())).sum() / (epochs**2).sum())


def warmup_epochs(epochs: int, share: float = 0.2) -> int:
    """Warm-up W = ⌈share · E⌉ epochs, 0 if E = 1. Exact: 0.2 of 35 is 7, not 8."""
    return 0 if epochs == 1 else ceil(epochs * Fraction(str(share)))


def starting_threshold(warmup_slopes: Sequence[float]) -> float:
    """γ at the end of the warm-up: the mean of the warm-up's slopes that are defined; NaN if none is."""
    defined = [slope for slope in warmup_slopes if not isnan(slope)]
    return float(np.mean(defined)) if defined else nan


def threshold(start: float, epoch: int, epochs: int, warmup: int) -> float:
    """Threshold γ_t = γ_0 · (E - t) / (E - W) for epoch t ≥ W: a line to 0 in the last epoch."""
    return start * (epochs - epoch) / (epochs - warmup) if epochs > warmup else start
