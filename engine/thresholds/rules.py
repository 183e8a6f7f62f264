"""The rules that guarantee something: from the lesion probabilities of calibration images to a threshold."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainccinv

from engine.thresholds.conformal import (
    beta_above,
    cls_needs,
    cls_rank,
    cls_threshold,
    conditional_cls_threshold,
    conditional_needs,
    conditional_rank,
    crc_of,
    risk_bound,
)
from engine.thresholds.lesions import Units


@dataclass(frozen=True)
class Choice:
    """A threshold with a guarantee.

    Attributes:
        threshold: T in p >= T: 0, a lesion probability, or inf.
        n: units that it was calibrated on.
        needed: the fewest units that would do; None where no number does.
        rank: k, the place of T among the n critical thresholds in ascending order; 0 and n + 1 for T 0
            and inf. None for CRC, which has none.
    """

    threshold: float
    n: int
    needed: int | None
    rank: int | None = None

    @property
    def enough(self) -> bool:
        """Whether n units are enough. If not, T is 0, which predicts everything."""
        return self.needed is not None and self.n >= self.needed


def cls(units: Units, *, epsilon: float, alpha: float) -> Choice:
    """See :func:`engine.thresholds.cls_threshold`."""
    threshold = cls_threshold(units.critical(epsilon), alpha)
    return Choice(threshold, units.n, cls_needs(alpha), cls_rank(units.n, alpha))


def conditional(units: Units, *, epsilon: float, alpha: float, delta: float) -> Choice:
    """See :func:`engine.thresholds.conditional_cls_threshold`."""
    threshold = conditional_cls_threshold(units.critical(epsilon), alpha, delta)
    rank = conditional_rank(units.n, alpha, delta)
    return Choice(threshold, units.n, conditional_needs(alpha, delta), rank)


def crc(units: Units, *, alpha: float) -> Choice:
    """See :func:`engine.thresholds.crc_threshold`."""
    return Choice(crc_of(units.values, alpha), units.n, cls_needs(alpha))


def attainable(
    units: Units, threshold: float, delta: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pairs (ε, α) that CLS would answer with T or a higher threshold: those on a curve and above it.

    At ε the least such α is ``(c + 1) / (n + 1)``, c being the number of units that miss more than ε at T;
    for training-conditional CLS it is the α for which ``P(Beta(c + 1, n − c) > α) = δ``.

    Args:
        units: of the calibration.
        threshold: T, any number or inf.
        delta: δ of training-conditional CLS, 0…1; None for CLS.

    Returns:
        ε and α, float64 (m,): corners of a curve that falls in steps. α holds from its ε, inclusive, to
        the next one; the first ε is 0. One pair (0, 1) without units.
    """
    fnr = np.sort(units.fnr(threshold))
    corners = np.unique(np.append(fnr, 0.0))
    above = units.n - fnr.searchsorted(corners, side="right")
    if delta is None:
        return corners, (above + 1) / (units.n + 1)
    return corners, np.array([_conditional_alpha(int(count), units.n, delta) for count in above])


def least_alpha(n: int, delta: float | None = None) -> float:
    """The least α that n units can keep: ``1 / (n + 1)``, or with δ ``1 − δ^(1 / n)``."""
    return 1 / (n + 1) if delta is None else _conditional_alpha(0, n, delta)


def _conditional_alpha(above: int, n: int, delta: float) -> float:
    """The least α with ``P(Beta(above + 1, n − above) > α) <= δ``, Beta(·, 0) being 1."""
    if delta == 1:
        return 0.0
    if above >= n or delta == 0:
        return 1.0
    alpha = float(betainccinv(above + 1, n - above, delta))
    # The inverse is rounded: what is said to be attainable shall be so for the rule, too.
    step = math.ulp(alpha)
    while beta_above(above + 1, n, alpha) > delta:
        alpha, step = min(alpha + step, 1.0), 2 * step
    return alpha


def mean_bound(units: Units, threshold: float) -> float:
    """The least α for which CRC would answer with T or a higher threshold: ``(Σ FNR + 1) / (n + 1)``."""
    return risk_bound(units.values, threshold)
