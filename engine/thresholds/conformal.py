"""Thresholds that keep a promise on new images: CLS, CRC and training-conditional CLS (definitions §6).

The decision is ``p >= λ``. ``FNR_i(λ)``, the share of image i's m lesion voxels with ``p < λ``, never falls
as λ rises. The promises hold for a new image from the same source as the calibration images, whatever that
source and however good the network, as long as image and calibration images are exchangeable.

Reference: Conformal Lesion Segmentation (CLS); Conformal Risk Control (CRC), Angelopoulos et al. 2022; for
the training-conditional rule, Vovk 2012.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from engine.errors import InputError

Values = NDArray[Any]
"""Floating numbers, in the width that they were observed in."""


def critical_threshold(lesion_probabilities: ArrayLike, epsilon: float) -> float:
    """The largest λ at which an image misses at most ε of its lesion (CLS paper, critical threshold).

    With m lesion voxels and ``j = max{j : j / m <= ε}`` it is the (j + 1)-th smallest lesion probability,
    found by selection in O(m), not searched on a grid.

    Args:
        lesion_probabilities: p of the m lesion voxels of one image, any shape and order, float16, float32
            or float64, in [0, 1].
        epsilon: ε, the share of the lesion that may be missed, 0…1.

    Returns:
        One of the values given, exactly; inf if j = m (all may be missed) or m = 0 (nothing can be).

    Raises:
        InputError: ε outside 0…1, or a value that is no probability.
    """
    _require_share("epsilon", epsilon)
    values = probabilities(lesion_probabilities)
    rank = missable(values.size, epsilon)
    if rank == values.size:
        return math.inf
    return float(np.partition(values, rank)[rank])


def cls_threshold(critical: ArrayLike, alpha: float) -> float:
    """The k-th smallest of n critical thresholds, ``k = max{k : k / (n + 1) <= α}`` (CLS paper).

    A new image then misses at most ε of its lesion with probability 1 − α or more, over the draw of the
    calibration images and of the new one.

    Args:
        critical: critical thresholds (n,) of the calibration images at one ε; inf is allowed.
        alpha: α, the share of new images in which the bound may fail, 0…1.

    Returns:
        One of the values given, exactly; 0 if k = 0, which predicts everything: α then needs
        :func:`cls_needs` images. inf if k = n + 1, that is for α = 1, which promises nothing.

    Raises:
        InputError: α outside 0…1, or a critical threshold that is NaN or below 0.
    """
    ranked = np.sort(_critical(critical))
    return _ranked(ranked, cls_rank(ranked.size, alpha))


def conditional_cls_threshold(critical: ArrayLike, alpha: float, delta: float) -> float:
    """CLS for users who calibrate once: the largest k with ``P(Beta(k, n + 1 − k) > α) <= δ``.

    With probability 1 − δ or more over the draw of the calibration images, the threshold they give fails
    in at most α of all new images (Vovk 2012, training-conditional validity).

    Args:
        critical: as for :func:`cls_threshold`.
        alpha: α, the share of new images in which the bound may fail, 0…1.
        delta: δ, how often a calibration may be one that does not keep this, 0…1.

    Returns:
        As :func:`cls_threshold`; 0 if k = 0, for which :func:`conditional_needs` says what would do.

    Raises:
        InputError: α or δ outside 0…1, or a critical threshold that is NaN or below 0.
    """
    ranked = np.sort(_critical(critical))
    return _ranked(ranked, conditional_rank(ranked.size, alpha, delta))


def crc_threshold(lesion_probabilities_per_image: Iterable[ArrayLike], alpha: float) -> float:
    """The largest λ with ``(Σ FNR_i(λ) + 1) / (n + 1) <= α``: conformal risk control of the mean FNR.

    The expected FNR of a new image is then at most α. Exact, by sorting, without a grid.

    Args:
        lesion_probabilities_per_image: for each calibration image what :func:`critical_threshold` takes;
            images without lesion voxels are skipped and not counted in n.
        alpha: α, bound of the mean FNR, 0…1.

    Returns:
        One of the values given, exactly; 0 if no λ will do, which predicts everything: α then needs
        :func:`cls_needs` images. inf for α = 1.

    Raises:
        InputError: α outside 0…1, or a value that is no probability.
    """
    images = [np.sort(probabilities(given)) for given in lesion_probabilities_per_image]
    return crc_of([(image,) for image in images if image.size], alpha)


def crc_of(units: Sequence[Sequence[Values]], alpha: float) -> float:
    """:func:`crc_threshold` of units whose loss is their largest FNR.

    Args:
        units: of each of n units the sorted lesion probabilities of its images or classes, none empty;
            a unit without any has no loss at any λ.
        alpha: bound of the mean loss, 0…1.
    """
    _require_share("alpha", alpha)

    def kept(threshold: float) -> bool:
        # fsum rounds once, so that no order of the images decides a tie.
        return (math.fsum(map(float, worst_fnr(units, threshold))) + 1) / (len(units) + 1) <= alpha

    if not kept(0.0):
        return 0.0
    if kept(math.inf):
        return math.inf
    kinds = {values.dtype for unit in units for values in unit}
    # The risk rises only just behind a lesion probability, so the last λ that keeps it is one.
    return _last(kept, np.result_type(*kinds) if kinds else np.dtype(np.float64))


def worst_fnr(units: Sequence[Sequence[Values]], threshold: float) -> NDArray[np.float64]:
    """Of each unit the largest FNR of its images or classes at λ, float64 (n,); 0 of one that has none.

    Args:
        units: as for :func:`crc_of`.
        threshold: λ, any number or inf.
    """
    return np.array(
        [max((fnr(values, threshold) for values in unit), default=0.0) for unit in units], np.float64
    )


def fnr(values: Values, threshold: float) -> float:
    """Share of sorted lesion probabilities (m,), m ≥ 1, that are below λ, compared as exact numbers."""
    return float(below(values, threshold)) / values.size


def below(values: Values, threshold: float) -> int:
    """How many of the sorted values are below λ, neither being rounded to the other's type."""
    if threshold > 1:
        return values.size
    own = values.dtype.type(threshold)
    # p < λ where p < the least number of p's own kind that is not below λ.
    least = np.nextafter(own, values.dtype.type(2)) if float(own) < threshold else own
    return int(values.searchsorted(least))


def critical_of(values: Values, epsilon: float) -> float:
    """:func:`critical_threshold` of sorted lesion probabilities, read off in O(1)."""
    rank = missable(values.size, epsilon)
    return math.inf if rank == values.size else float(values[rank])


def missable(count: int, epsilon: float) -> int:
    """``max{j : j / count <= ε}``, j from 0 to count, by the comparison by which an FNR is judged."""
    _require_share("epsilon", epsilon)
    return _most(lambda j: j / count <= epsilon, int(epsilon * count), count) if count else 0


def cls_rank(n: int, alpha: float) -> int:
    """``max{k : k / (n + 1) <= α}``, 0 … n + 1."""
    _require_share("alpha", alpha)
    return _most(lambda k: k / (n + 1) <= alpha, int(alpha * (n + 1)), n + 1)


def conditional_rank(n: int, alpha: float, delta: float) -> int:
    """``max{k : P(Beta(k, n + 1 − k) > α) <= δ}``, 0 … n + 1, Beta(0, ·) being 0 and Beta(·, 0) being 1.

    ``P(Beta(k, n + 1 − k) > α)`` is the probability that fewer than k of n images fail, each with α.
    """
    _require_share("alpha", alpha)
    _require_share("delta", delta)
    if alpha == 1 or delta == 1:
        return n + 1
    # It rises with k: from 0 at k = 0, which is nothing that bdtr knows, to 1 − α ** n at k = n.
    chances = bdtr(np.arange(n, dtype=np.float64), n, alpha) if n else np.empty(0)
    return int(np.searchsorted(chances, delta, side="right"))


def cls_needs(alpha: float) -> int | None:
    """The fewest calibration images with which CLS and CRC can keep α: ``1 / (n + 1) <= α``.

    None for α = 0, which no number of images can keep.
    """
    _require_share("alpha", alpha)
    if alpha < 2.0**-52:  # no counting number comes near enough to 1 / α
        return None
    n = max(0, round(1 / alpha) - 2)
    while 1 / (n + 1) > alpha:
        n += 1
    return n


def conditional_needs(alpha: float, delta: float) -> int | None:
    """The fewest calibration images with which training-conditional CLS can keep α: ``(1 − α)^n <= δ``.

    None for α = 0 or δ = 0 (unless the other is 1), which no number of images can keep.
    """
    _require_share("alpha", alpha)
    _require_share("delta", delta)
    if alpha == 1 or delta == 1:
        return 0
    if not alpha or not delta:
        return None
    estimate = math.log(delta) / math.log1p(-alpha)
    if not estimate < 2**31:
        return None
    n = max(1, math.floor(estimate) - 2)
    while not bdtr(0.0, n, alpha) <= delta:
        n += 1
    return n


def probabilities(given: ArrayLike) -> Values:
    """A flat array of probabilities in their own type. Raises InputError unless all are in [0, 1]."""
    values = np.ravel(np.asarray(given))
    if values.dtype.kind in "iub":
        values = values.astype(np.float64)
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise InputError(f"probabilities are of type {values.dtype}: float16, float32 or float64 would work.")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    require_probabilities(values)
    return values


def require_probabilities(values: Values, name: str = "") -> None:
    """Raise InputError unless all values are in [0, 1]; names logits where they look like them."""
    if not values.size or (values.min() >= 0 and values.max() <= 1):  # NaN is neither
        return
    of = f" of {name}" if name else ""
    if np.isnan(values).any():
        raise InputError(
            f"{int(np.isnan(values).sum())} of {values.size} probabilities{of} are NaN: numbers from 0 to 1 "
            "are needed."
        )
    raise InputError(
        f"the probabilities{of} go from {float(values.min()):g} to {float(values.max()):g}, so they may be "
        "logits: what a sigmoid or softmax makes of them, 0 to 1, would work."
    )


def _critical(given: ArrayLike) -> Values:
    values = np.ravel(np.asarray(given))
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if values.size and not values.min() >= 0:
        raise InputError("a critical threshold is NaN or below 0: probabilities or inf are needed.")
    return values


def _ranked(ranked: Values, k: int) -> float:
    if k == 0:
        return 0.0
    return float(ranked[k - 1]) if k <= ranked.size else math.inf


def _most(holds: Callable[[int], bool], guess: int, limit: int) -> int:
    """The largest j from 0 to limit for which a condition holds that holds for 0, near a guess."""
    j = min(max(guess, 0), limit)
    while j > 0 and not holds(j):
        j -= 1
    while j < limit and holds(j + 1):
        j += 1
    return j


def _last(holds: Callable[[float], bool], dtype: np.dtype[Any]) -> float:
    """The largest number of a floating type in [0, 1] for which a condition holds that holds for 0.

    By bisection of their bits, whose order is that of positive numbers: at most 62 steps.
    """
    code = np.dtype(f"uint{8 * dtype.itemsize}")
    low, high = 0, int(np.ones(1, dtype).view(code)[0])
    while low < high:
        middle = (low + high + 1) // 2
        if holds(float(np.array([middle], code).view(dtype)[0])):
            low = middle
        else:
            high = middle - 1
    return float(np.array([low], code).view(dtype)[0])


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: a share from 0 to 1 would work.")
