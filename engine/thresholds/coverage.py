"""Coverage: how many test units a calibrated threshold may be expected to keep, and how few are too few.

A unit (an image, or a group of images) is kept if it misses at most ε of its lesion. The guarantee of CLS is
marginal: it holds on average over calibrations, and a calibration at hand may keep more or fewer. What the
k-th smallest of n critical thresholds keeps of all new units is a random share, Beta(n + 1 − k, k), and of m
test units a Beta-binomial number (Vovk 2012; Angelopoulos and Bates, A Gentle Introduction to Conformal
Prediction, §3.2). This is exact where no two critical thresholds are equal; ties only raise the number.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, gammaln, stdtrit

from engine.errors import InputError

ROUNDING = 1e-9
"""By so much, relatively, a tail may be larger than asked for: sums of chances are rounded."""


def kept_band(n: int, k: int, m: int, level: float = 0.95) -> tuple[int, int]:
    """Between which counts the number of kept test units lies with probability `level` or more.

    The band is central: above and below it lies at most ``(1 − level) / 2`` each. It is that of splits of
    n + m units at random into calibration and test, so it holds the luck of both.

    Args:
        n: calibration units.
        k: rank of the threshold among their critical thresholds, 0…n + 1, as in
            :attr:`engine.thresholds.Choice.rank`.
        m: test units.
        level: in [0, 1).

    Returns:
        Lowest and highest count, both in the band. (m, m) for k = 0: T = 0 misses nothing. (0, m) for
        k = n + 1, of which nothing can be said: T = inf keeps no unit, or, for ε = 1, every one.

    Raises:
        InputError: a count or a level outside its range.
    """
    _require_counts(n, k, m)
    if not 0 <= level < 1:
        raise InputError(f"the level of the band is {level}: a share from 0 to below 1 would work.")
    if k == 0:
        return m, m
    if k == n + 1:
        return 0, m
    chances = _chances(n, k, m)
    tail = (1 - level) / 2 * (1 + ROUNDING)
    # Each tail is summed from its own end, so that small ones are exact.
    low = int(chances.cumsum().searchsorted(tail, side="right"))
    high = m - int(chances[::-1].cumsum().searchsorted(tail, side="right"))
    return low, max(low, high)


def kept_chance(n: int, k: int, m: int, kept: int) -> float:
    """P(number of kept test units <= kept): the one-sided p-value by which a shortfall is judged.

    Of a small one there are two explanations: bad luck, or test units that are not like those of the
    calibration. With ties it is an upper bound. Arguments and band as in :func:`kept_band`.

    Args:
        n: calibration units.
        k: rank of the threshold, 0…n + 1.
        m: test units.
        kept: of them that miss at most ε of their lesion, 0…m.

    Returns:
        A probability. For k = 0, where every unit is kept, 0 below m; for k = n + 1, of which nothing can be
        said, 1.

    Raises:
        InputError: a count outside its range.
    """
    _require_counts(n, k, m)
    if not 0 <= kept <= m:
        raise InputError(f"{kept} of {m} test units are kept: a count from 0 to {m} would work.")
    if kept == m or k == n + 1:
        return 1.0
    return min(1.0, float(_chances(n, k, m)[: kept + 1].sum())) if k else 0.0


def mean_interval(fnr: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean FNR over test units, by which the bound of CRC is judged.

    It holds the luck of the test units only. CRC's bound holds on average over calibrations, too, so a
    single calibration may lie a little above it.

    Args:
        fnr: (m,) of the test units, in [0, 1].
        level: in [0, 1).

    Returns:
        Its ends, which may lie outside [0, 1]; both NaN below two units.

    Raises:
        InputError: an FNR or a level outside its range.
    """
    values = np.ravel(np.asarray(fnr, np.float64))
    if not 0 <= level < 1:
        raise InputError(f"the level of the interval is {level}: a share from 0 to below 1 would work.")
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError("an FNR is NaN or outside 0 to 1: leave out the units without lesion.")
    if values.size < 2:
        return math.nan, math.nan
    error = values.std(ddof=1) / math.sqrt(values.size)
    margin = float(stdtrit(values.size - 1, (1 + level) / 2) * error)
    return float(values.mean()) - margin, float(values.mean()) + margin


def _chances(n: int, k: int, m: int) -> NDArray[np.float64]:
    """P(j of m test units are kept) for j = 0…m: Beta-binomial(m, n + 1 − k, k), 1 <= k <= n."""
    j = np.arange(m + 1, dtype=np.float64)
    ways = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
    return np.asarray(np.exp(ways + betaln(j + n + 1 - k, m - j + k) - betaln(n + 1 - k, k)))


def _require_counts(n: int, k: int, m: int) -> None:
    if n < 0 or m < 0:
        raise InputError(f"there are {n} calibration and {m} test units: no number below 0 would work.")
    if not 0 <= k <= n + 1:
        raise InputError(f"the rank {k} is none of {n} critical thresholds: 0 to {n + 1} would work.")
