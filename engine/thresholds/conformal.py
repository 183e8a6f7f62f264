"""Thresholds that keep a promise on new images: CLS, CRC and training-conditional CLS (definitions §6).

The decision is ``p >= λ``. ``FNR_i(λ)``, the share of image i's m lesion voxels with ``p < λ``, never falls
as λ rises. The promises hold for a new image from the same source as the calibration images, whatever that
source and however good the network, as long as image and calibration images are exchangeable.

Reference: Conformal Lesion Segmentation (CLS); Conformal Risk Control (CRC), Angelopoulos et al. 2022; for
the training-conditional rule, Vovk 2012.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc

from engine.errors import InputError

Values = NDArray[Any]
"""Floating numbers, in the width that they were observed in."""

COUNTABLE = 2**53
"""More images than anybody has, and the last number up to which floating numbers count one by one."""

ROUNDING = 1e-9
"""A mean of FNRs in floating numbers is off by far less, so that this far from α it may decide."""


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
        InputError: α outside 0…1, or a critical threshold that is neither a probability nor inf.
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
        InputError: α or δ outside 0…1, or a critical threshold that is neither a probability nor inf.
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
    images = [np.sort(image) for image in _images(lesion_probabilities_per_image)]
    return crc_of([(image,) for image in images if image.size], alpha)


def crc_of(units: Sequence[Sequence[Values]], alpha: float) -> float:
    """:func:`crc_threshold` of units whose loss is their largest FNR.

    Args:
        units: of each of n units the sorted lesion probabilities of its images or classes, none empty;
            a unit without any has no loss at any λ.
        alpha: bound of the mean loss, 0…1.
    """
    alpha = require_share("alpha", alpha)

    def kept(threshold: float) -> bool:
        # Fractions are slow to add, and only where rounding might decide do they have to.
        estimate = (float(worst_fnr(units, threshold).sum()) + 1) / (len(units) + 1)
        if abs(estimate - alpha) > ROUNDING:
            return estimate < alpha
        return risk_bound(units, threshold) <= alpha

    if not kept(0.0):
        return 0.0
    if kept(math.inf):
        return math.inf
    kinds = {values.dtype for unit in units for values in unit}
    # The risk rises only just behind a lesion probability, so the last λ that keeps it is one.
    return _last(kept, np.result_type(*kinds) if kinds else np.dtype(np.float64))


def risk_bound(units: Sequence[Sequence[Values]], threshold: float) -> float:
    """``(Σ FNR_i(λ) + 1) / (n + 1)``, which CRC holds against α; each unit counts by its largest FNR.

    It is a sum of fractions, rounded once: so 15 % that are missed are 15 % in floating numbers too, as
    ``j / m`` is in :func:`missable`, and no order of the units decides a tie.

    Args:
        units: as for :func:`crc_of`.
        threshold: λ, any number or inf.

    Raises:
        InputError: λ is NaN.
    """
    part, whole = _total([_worst(unit, threshold) for unit in units])
    return (part + whole) / (whole * (len(units) + 1))


def worst_fnr(units: Sequence[Sequence[Values]], threshold: float) -> NDArray[np.float64]:
    """Of each unit the largest FNR of its images or classes at λ, float64 (n,); 0 of one that has none.

    Args:
        units: as for :func:`crc_of`.
        threshold: λ, any number or inf.

    Raises:
        InputError: λ is NaN.
    """
    each = [values for unit in units for values in unit]
    worst = np.zeros(len(units))
    if not each:
        return worst
    least = {kind: _least(kind, threshold) for kind in {values.dtype for values in each}}
    missed = np.array([values.searchsorted(least[values.dtype]) for values in each], np.float64)
    shares = missed / [values.size for values in each]
    lengths = np.array([len(unit) for unit in units])
    some = lengths > 0
    worst[some] = np.maximum.reduceat(shares, (lengths.cumsum() - lengths)[some])
    return worst


def below(values: Values, threshold: float) -> int:
    """How many of the sorted values are below λ, neither being rounded to the other's type.

    Raises:
        InputError: λ is NaN.
    """
    return int(values.searchsorted(_least(values.dtype, threshold)))


def critical_of(values: Values, epsilon: float) -> float:
    """:func:`critical_threshold` of sorted lesion probabilities, read off in O(1)."""
    rank = missable(values.size, epsilon)
    return math.inf if rank == values.size else float(values[rank])


def missable(count: int, epsilon: float) -> int:
    """``max{j : j / count <= ε}``, j from 0 to count, by the comparison by which an FNR is judged."""
    epsilon = require_share("epsilon", epsilon)
    return _most(lambda j: j / count <= epsilon, int(epsilon * count), count) if count else 0


def cls_rank(n: int, alpha: float) -> int:
    """``max{k : k / (n + 1) <= α}``, 0 … n + 1."""
    alpha = require_share("alpha", alpha)
    return _most(lambda k: k / (n + 1) <= alpha, int(alpha * (n + 1)), n + 1)


def conditional_rank(n: int, alpha: float, delta: float) -> int:
    """``max{k : P(Beta(k, n + 1 − k) > α) <= δ}``, 0 … n + 1, Beta(0, ·) being 0 and Beta(·, 0) being 1.

    ``P(Beta(k, n + 1 − k) > α)`` is the probability that fewer than k of n images fail, each with α.
    """
    alpha, delta = require_share("alpha", alpha), require_share("delta", delta)
    if alpha == 1 or delta == 1:
        return n + 1
    if delta == 0:  # a chance too small for a floating number is none the less above 0
        return 0
    # It rises with k.
    return bisect_right(range(1, n + 1), delta, key=lambda k: beta_above(k, n, alpha))


def beta_above(k: int, n: int, alpha: float) -> float:
    """``P(Beta(k, n + 1 − k) > α)`` of k from 1 to n; 0 for α = 1."""
    return float(betaincc(k, n + 1 - k, alpha))


def cls_needs(alpha: float) -> int | None:
    """The fewest calibration images with which CLS and CRC can keep α: ``1 / (n + 1) <= α``.

    None where 2^53 images would not do, as for α = 0, which no number of images can keep.
    """
    alpha = require_share("alpha", alpha)
    return _fewest(lambda n: 1 / (n + 1) <= alpha, 0)


def conditional_needs(alpha: float, delta: float) -> int | None:
    """The fewest calibration images with which training-conditional CLS can keep α: ``(1 − α)^n <= δ``.

    None where 2^53 images would not do, as for α = 0 or δ = 0 (unless the other is 1), which no number of
    images can keep.
    """
    alpha, delta = require_share("alpha", alpha), require_share("delta", delta)
    if alpha == 1 or delta == 1:
        return 0
    if delta == 0:
        return None
    return _fewest(lambda n: beta_above(1, n, alpha) <= delta, 1)


def probabilities(given: ArrayLike, name: str = "") -> Values:
    """A flat array of probabilities in their own type.

    Args:
        given: an array of a floating type, or numbers in a list.
        name: of the image, for messages.

    Raises:
        InputError: another type, or a value that is not in [0, 1].
    """
    values = _numbers(given, f"the probabilities{_of(name)}")
    require_probabilities(values, name)
    return values


def require_probabilities(values: Values, name: str = "") -> None:
    """Raise InputError unless all values are in [0, 1]; names logits where they look like them."""
    if not values.size or (values.min() >= 0 and values.max() <= 1):  # NaN is neither
        return
    missing = int(np.isnan(values).sum())
    if missing:
        raise InputError(
            f"{missing} of {values.size} probabilities{_of(name)} are NaN: numbers from 0 to 1 are needed."
        )
    raise InputError(
        f"the probabilities{_of(name)} go from {float(values.min()):g} to {float(values.max()):g}, so they "
        "may be logits: what a sigmoid or softmax makes of them, 0 to 1, would work."
    )


def require_share(name: str, value: float) -> float:
    """A share as Python's own float, with which a narrower type cannot round what it is compared with.

    Raises:
        InputError: it is no number from 0 to 1; the message gives its name and value.
    """
    if not isinstance(value, Real):
        raise InputError(f"{name} is {value!r}: a share from 0 to 1 would work.")
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: a share from 0 to 1 would work.")
    return float(value)


def _images(given: Iterable[ArrayLike]) -> list[Values]:
    try:
        images = list(given)
    except TypeError as error:
        raise InputError(
            f"{given!r} is no sequence of images: one array for each image would work."
        ) from error
    for number, image in enumerate(images, 1):
        if isinstance(image, Real) or getattr(image, "shape", None) == ():
            raise InputError(
                f"image {number} is the single number {float(image):g}: one array of lesion "  # type: ignore[arg-type]
                "probabilities for each image would work."
            )
    return [probabilities(image, f"image {number}") for number, image in enumerate(images, 1)]


def _critical(given: ArrayLike) -> Values:
    values = _numbers(given, "the critical thresholds")
    # inf is of an image that cannot fail; other numbers above 1 are of something else than probabilities.
    wrong = values[~((values >= 0) & ((values <= 1) | np.isposinf(values)))]
    if wrong.size:
        raise InputError(
            f"a critical threshold is {float(wrong[0]):g}: a probability from 0 to 1, or inf, would work."
        )
    return values


def _numbers(given: ArrayLike, what: str) -> Values:
    """A flat array of floating numbers, in the machine's byte order."""
    try:
        values = np.ravel(np.asarray(given))
    except ValueError as error:
        raise InputError(
            f"{what} are lists of different lengths: an array, or a list of numbers, would work."
        ) from error
    if values.dtype.kind in "iu" and not hasattr(given, "dtype"):
        values = values.astype(np.float64)  # 0 and 1, written without a point
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise InputError(f"{what} are of type {values.dtype}: float16, float32 or float64 would work.")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _of(name: str) -> str:
    return f" of {name}" if name else ""


def _least(kind: np.dtype[Any], threshold: float) -> Any:
    """The least number of a floating type that is not below λ: p < λ where p is below it."""
    if math.isnan(threshold):
        raise InputError("a threshold is NaN: a number is needed, 0 to 1 for a choice between voxels.")
    if threshold <= 0:
        return kind.type(0)
    if threshold > 1:
        return kind.type(math.inf)
    own = kind.type(threshold)
    return np.nextafter(own, kind.type(2)) if float(own) < threshold else own


def _worst(unit: Sequence[Values], threshold: float) -> tuple[int, int]:
    """Voxels missed, and voxels, of the image or class of a unit that misses most at λ."""
    shares = [(below(values, threshold), values.size) for values in unit]
    return max(shares, key=lambda share: share[0] / share[1], default=(0, 1))


def _total(shares: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The sum of fractions, as a fraction; by halves, so that few of its numbers are long."""
    if len(shares) < 2:
        return shares[0] if shares else (0, 1)
    half = len(shares) // 2
    (part, whole), (other_part, other_whole) = _total(shares[:half]), _total(shares[half:])
    return part * other_whole + other_part * whole, whole * other_whole


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


def _fewest(holds: Callable[[int], bool], least: int) -> int | None:
    """The smallest number from a least one on for which a condition holds, and keeps holding."""
    counts = range(least, COUNTABLE)
    place = bisect_left(counts, True, key=holds)
    return counts[place] if place < len(counts) else None
