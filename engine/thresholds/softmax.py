"""Softmax thresholding: the T that is best on validation images, without a guarantee for new ones.

As in the DSC++ paper (section "Softmax thresholding") T trades recall for precision, but instead of a grid
of T every probability that occurs is a candidate, and 0, which predicts everything. What is wanted is wanted
of the mean over images, as :func:`engine.thresholds.mean_rates` takes it: over those images for which the
rate is defined. Scoring the same images at T therefore shows the very number that was asked for.

Between two neighbouring candidates no count of any image changes, so none better lies between them. The
candidates are searched in blocks, with bounds that leave out those blocks that cannot hold the answer. In
the others the mean is cumulated over the sorted candidates; where rounding might decide, the exact mean does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.spec import Part
from engine.thresholds.curves import Curve, Rates, Skipped, mean_rates
from engine.thresholds.specs import BestDice, WantedPrecision, WantedRecall

Floats = NDArray[np.float64]
Name = Literal["dice", "precision", "recall"]

BLOCKS = 128
"""Parts into which the candidates are divided."""
SCALE = 2.0**40
"""Rates are cumulated as multiples of 1 / SCALE: sums of whole numbers do not drift."""


@dataclass(frozen=True)
class Wished:
    """A threshold chosen on validation images. It promises nothing for others.

    Attributes:
        threshold: T in p >= T: a probability that occurs in the images, exactly, or 0.
        rates: mean over the images at T, as :func:`engine.thresholds.mean_rates` gives them.
        skipped: for how many images each rate is not defined at T and left out of its mean.
        reached: whether the wish is met on these images. If not, T is the one that comes nearest.
        n: number of images.
    """

    threshold: float
    rates: Rates
    skipped: Skipped
    reached: bool
    n: int


def best_dice(curves: Sequence[Curve]) -> Wished:
    """The T of the highest mean Dice. Of several such T the one nearest to 0.5, and of two the lower.

    Args:
        curves: of the validation images, one class.

    Raises:
        InputError: no image, or none with a pixel that counts.
    """
    _require_defined(curves, "dice")
    return _wished(curves, _highest(curves, "dice", lambda t: abs(t - 0.5)), reached=True)


def wanted_precision(curves: Sequence[Curve], *, wanted: float) -> Wished:
    """The smallest T with a mean precision of `wanted` or more: of all such T the one with the best recall.

    Precision need not rise with T, so that a higher T may have less. Where no T reaches what is wanted, the
    one of the highest mean precision is chosen, and of several such T the smallest.

    Args:
        curves: of the validation images, one class.
        wanted: mean precision, 0…1.

    Raises:
        InputError: no image, none with a pixel that counts, or `wanted` outside 0…1.
    """
    _require_defined(curves, "precision")
    _require_share(wanted)
    found = _first(curves, "precision", wanted)
    if found is not None:
        return _wished(curves, found, reached=True)
    return _wished(curves, _highest(curves, "precision", lambda t: t), reached=False)


def wanted_recall(curves: Sequence[Curve], *, wanted: float) -> Wished:
    """The largest T with a mean recall of `wanted` or more. There always is one, for T = 0 misses nothing.

    Args:
        curves: of the validation images, one class.
        wanted: mean recall, 0…1.

    Raises:
        InputError: no image, none that has the class, or `wanted` outside 0…1.
    """
    _require_defined(curves, "recall")
    _require_share(wanted)
    found = _first(curves, "recall", wanted, from_above=True)
    assert found is not None
    return _wished(curves, found, reached=True)


def words(rule: Part, wished: Wished) -> str:
    """What a threshold came to on the validation images, in words that promise nothing.

    Args:
        rule: BestDice, WantedPrecision or WantedRecall.
        wished: what it answered.

    Raises:
        TypeError: a rule that guarantees something, whose words are :func:`engine.thresholds.promise`.
    """
    rates = wished.rates._asdict()
    images = f"{wished.n} validation image{'s' * (wished.n != 1)}"
    if isinstance(rule, BestDice):
        found = (
            f"on {images} the mean Dice is highest at this T, {rates['dice']:.3f}; the mean precision is "
            f"{rates['precision']:.3f}, the mean recall {_number(rates['recall'])}."
        )
    elif isinstance(rule, WantedPrecision | WantedRecall):
        name, other = (
            ("precision", "recall") if isinstance(rule, WantedPrecision) else ("recall", "precision")
        )
        value = told_apart(rates[name], rule.wanted)
        rest = f"the mean {other} {_number(rates[other])}"
        found = f"on {images} the mean {name} is {value} at this T, {rest}."
        if not wished.reached:
            found = (
                f"a mean {name} of {rule.wanted:.10g} is reached at no T on {images}. This T comes nearest: "
                f"the mean {name} is {value}, {rest}."
            )
    else:
        raise TypeError(f"{rule!r} is no rule without a guarantee")
    return f"No guarantee: {found}{_left_out(rule, wished)} New images may differ."


def told_apart(value: float, wanted: float) -> str:
    """A share with three digits, or as many as it takes to be on its own side of the one wanted."""
    for digits in range(3, 17):
        text = f"{value:.{digits}f}"
        if (float(text) >= wanted) == (value >= wanted):
            return text
    return repr(value)


def _number(value: float) -> str:
    return "is not defined" if math.isnan(value) else f"{value:.3f}"


def _left_out(rule: Part, wished: Wished) -> str:
    name = {BestDice: "dice", WantedPrecision: "precision", WantedRecall: "recall"}[type(rule)]
    count = getattr(wished.skipped, name)
    if not count:
        return ""
    title = "Dice" if name == "dice" else name
    return f" {count} of them, for which {title} is not defined, {'is' if count == 1 else 'are'} left out."


def _wished(curves: Sequence[Curve], threshold: float, *, reached: bool) -> Wished:
    rates, skipped = mean_rates(curves, threshold)
    return Wished(threshold, rates, skipped, reached, len(curves))


def _first(curves: Sequence[Curve], name: Name, wanted: float, *, from_above: bool = False) -> float | None:
    """The first candidate at which a mean rate is `wanted` or more, from below or from above."""
    near = _rounding(curves)
    blocks = _blocks(curves, name)
    order = slice(None, None, -1 if from_above else 1)
    for low, high, most in zip(*(part[order].tolist() for part in blocks), strict=True):
        if most < wanted - near:
            continue
        candidates, means, starts = _cumulated(curves, name, low, high)
        ends = np.append(starts[1:], candidates.size) - 1
        chosen = (ends if from_above else starts)[order]
        candidates, means = candidates[chosen], means[chosen]
        # Up to the first that is sure, rounding may decide; the exact mean has the last word.
        sure = np.flatnonzero(means >= wanted + near)
        near_it = np.flatnonzero(means[: sure[0] + 1 if sure.size else None] >= wanted - near)
        kept = near_it[_means(curves, name, candidates[near_it]) >= wanted]
        if kept.size:
            return float(candidates[kept[0]])
    return None


def _highest(curves: Sequence[Curve], name: Name, cost: Callable[[Any], Any]) -> float:
    """The candidate of the highest mean rate; of several the one that costs least, and of those the lowest.

    Args:
        curves: of the images.
        name: of the rate.
        cost: of candidates (n,) → (n,).
    """
    near = _rounding(curves)
    lows, highs, most = _blocks(curves, name)
    best, found = float(_means(curves, name, highs).max()), []
    for first, last in _neighbours(np.flatnonzero(most >= best - near)):
        candidates, means, starts = _cumulated(curves, name, float(lows[first]), float(highs[last]))
        best = max(best, float(means.max()) - near)
        ends = np.append(starts[1:], candidates.size)
        chosen = means[starts] >= best - near
        for start, end in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True):
            found.append(candidates[start + int(cost(candidates[start:end]).argmin())])
    thresholds = np.array(found)
    means = _means(curves, name, thresholds)
    equal = thresholds[means == means.max()]
    return float(equal[cost(equal).argmin()])


def _neighbours(places: NDArray[np.intp], most: int = 8) -> Iterator[tuple[int, int]]:
    """First and last of neighbours among ascending places, not more than so many together.

    An image's part of a single block would take less time than the calls that look at it.
    """
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        for start in range(0, run.size, most):
            together = run[start : start + most]
            yield int(together[0]), int(together[-1])


def _blocks(curves: Sequence[Curve], name: Name) -> tuple[Floats, Floats, Floats]:
    """All candidates in blocks, each of about equally many pixels, and what is the most in each.

    Returns:
        float64 (b,): candidates of a block are in (low, high], high being one of them; and a bound that the
        mean rate does not exceed there. The first block holds only the least probability, and 0.
    """
    tallies = [tally for curve in curves for tally in (curve.positives, curve.negatives)]
    spread = np.sort(np.concatenate([tally.spread(BLOCKS // 2) for tally in tallies]))
    high = np.unique(spread[np.linspace(0, spread.size - 1, BLOCKS).astype(np.int64)])
    low = np.append(-1.0, high[:-1])
    most, count = np.zeros(high.size), np.zeros(high.size)
    for curve in curves:
        # Of the pixels that pass in a block, at most those at its lower end are true, and at least those
        # at its upper end false.
        tp, fp = curve.above(np.stack([low, high]))
        most += np.nan_to_num(_rate(name, tp[0], fp[1], curve.positives.total))
        count += ~np.isnan(_rate(name, tp[1], fp[1], curve.positives.total))
    return low, high, most / count


def _cumulated(
    curves: Sequence[Curve], name: Name, low: float, high: float
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """The candidates of a block, and the mean rate at each but for an error of less than :func:`_rounding`.

    Returns:
        float64 (m,) candidates, ascending, and mean rates; and the places at which a rate of any image
        changes, beginning with 0: from each to the next all rates are the same.
    """
    each = [curve.observed(low, high) for curve in curves]
    candidates = np.unique(np.concatenate([*each, [0.0] if low < 0 else []]))
    jumps = np.zeros((2, candidates.size), np.int64)
    changed = np.zeros(candidates.size, bool)
    changed[0] = True
    for curve, own in zip(curves, each, strict=True):
        # The image is counted anew just behind each of its own probabilities, and last at the block's end.
        rate = _rate(name, *curve.above(np.append(own, high)), curve.positives.total)
        defined = ~np.isnan(rate)
        steps = np.stack([np.rint(np.where(defined, rate, 0) * SCALE).astype(np.int64), defined])
        jumps[:, 0] += steps[:, 0]
        differs = np.flatnonzero(np.diff(np.where(defined, rate, -1)))
        behind = candidates.searchsorted(own[differs], side="right")
        inside = behind < candidates.size
        places, steps = behind[inside], np.diff(steps)[:, differs[inside]]
        jumps[:, places] += steps
        changed[places] = True
    total, count = jumps.cumsum(axis=1)
    return candidates, total / SCALE / count, np.flatnonzero(changed)


def _means(curves: Sequence[Curve], name: Name, thresholds: Floats) -> Floats:
    """Mean of a rate at thresholds (n,), to the last bit as :func:`engine.thresholds.mean_rates` has it."""
    total, count = np.zeros(thresholds.size), np.zeros(thresholds.size)
    for curve in curves:
        rate = _rate(name, *curve.above(thresholds), curve.positives.total)
        defined = ~np.isnan(rate)
        total += np.where(defined, rate, 0)
        count += defined
    return total / count


def _rate(name: Name, tp: NDArray[np.int64], fp: NDArray[np.int64], true: int) -> Floats:
    """A rate of counts (n,), of `true` positives in all; NaN where it is not defined."""
    part, whole = {
        "precision": (tp, tp + fp),
        "recall": (tp, np.full_like(tp, true)),
        "dice": (2 * tp, tp + fp + true),
    }[name]
    rate = np.full(tp.shape, np.nan)
    np.divide(part, whole, out=rate, where=whole > 0)
    return rate


def _rounding(curves: Sequence[Curve]) -> float:
    """By how much at the most the means of :func:`_cumulated` and :func:`_means` may differ."""
    return 2.0**-40 + len(curves) * 2.0**-52


def _require_defined(curves: Sequence[Curve], name: Name) -> None:
    """Raise InputError unless a mean over the images can be taken at any candidate."""
    if not curves:
        raise InputError("there is no validation image: at least one with its mask is needed.")
    there = f"{len(curves)} validation image{'s' * (len(curves) != 1)}"
    if not any(curve.positives.total + curve.negatives.total for curve in curves):
        raise InputError(f"no pixel of the {there} counts, so nothing can be measured: others are needed.")
    if name == "recall" and not any(curve.positives.total for curve in curves):
        raise InputError(
            f"the mask of none of the {there} has the class, so recall is not defined: one is needed."
        )


def _require_share(wanted: float) -> None:
    if not 0 <= wanted <= 1:
        raise InputError(f"what is wanted is {wanted}: a share from 0 to 1 would work.")
