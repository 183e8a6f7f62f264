"""Counts and rates at any threshold, each read off in O(log N) from one pass over the probabilities.

The decision is ``p >= T``, of the exact values: a p of any width is never rounded to T's, nor T to p's.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

HALVES = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float64)
"""All float16 values in [0, 1], ascending: for positive numbers the order of the bits is theirs."""

NEGATIVE_ZERO = 0x8000
"""Bits of −0.0 in float16, the one number with a sign that is a probability."""


@dataclass(frozen=True)
class Counts:
    """Pixels by prediction and truth. Counts of several images are pooled by adding them."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


class Rates(NamedTuple):
    """Rates in [0, 1], NaN where undefined (0 / 0)."""

    precision: float
    """TP / (TP + FP)"""
    recall: float
    """TP / (TP + FN)"""
    dice: float
    """2TP / (2TP + FP + FN)"""
    jaccard: float
    """TP / (TP + FP + FN)"""
    fnr: float
    """FN / (TP + FN)"""
    fpr: float
    """FP / (FP + TN)"""


class Skipped(NamedTuple):
    """For how many images each rate was undefined, and left out of its mean."""

    precision: int
    recall: int
    dice: int
    jaccard: int
    fnr: int
    fpr: int


@dataclass(frozen=True)
class Histogram:
    """float16 probabilities, of which there are so few that each has its own count.

    Attributes:
        passing: int64 (15362,), pixels at or above each value of HALVES, and at last 0.
    """

    passing: NDArray[np.int64]

    @classmethod
    def of(cls, counts: NDArray[np.intp]) -> "Histogram":
        """From the number of pixels of each value of HALVES, (15361,)."""
        return cls(np.append(counts[::-1].cumsum()[::-1], 0).astype(np.int64))

    @property
    def total(self) -> int:
        """Number of pixels."""
        return int(self.passing[0])

    def above(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Pixels with p >= T, for each T."""
        return np.asarray(self.passing[HALVES.searchsorted(thresholds)])

    def spread(self, count: int) -> NDArray[np.float64]:
        """Probabilities that occur, from the least to the largest, about evenly many pixels apart."""
        ranks = np.linspace(0, max(self.total - 1, 0), min(count, self.total)).astype(np.int64)
        return np.asarray(HALVES[(self.total - self.passing).searchsorted(ranks, side="right") - 1])

    def observed(self, low: float, high: float) -> NDArray[np.float64]:
        """The different probabilities that occur in (low, high], ascending."""
        first, last = HALVES.searchsorted([low, high], side="right")
        passing = self.passing[first : last + 1]
        return np.asarray(HALVES[first:last][passing[:-1] > passing[1:]])


@dataclass(frozen=True)
class Sorted:
    """float32 or float64 probabilities, ascending."""

    values: NDArray[Any]

    @property
    def total(self) -> int:
        """Number of pixels."""
        return self.values.size

    def above(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Pixels with p >= T, for each T in [0, 2]."""
        # p >= T where p >= the least number of p's own kind that is not below T.
        least = thresholds.astype(self.values.dtype)
        least = np.where(least < thresholds, np.nextafter(least, self.values.dtype.type(2)), least)
        return np.asarray(self.total - self.values.searchsorted(least), np.int64)

    def spread(self, count: int) -> NDArray[np.float64]:
        """Probabilities that occur, from the least to the largest, about evenly many pixels apart."""
        ranks = np.linspace(0, max(self.total - 1, 0), min(count, self.total)).astype(np.int64)
        return self.values[ranks].astype(np.float64)

    def observed(self, low: float, high: float) -> NDArray[np.float64]:
        """The different probabilities that occur in (low, high], ascending; both in [0, 1], or below 0."""
        first, last = self.total - self.above(np.nextafter([low, high], 2))
        values = self.values[first:last]
        different = np.ones(values.size, bool)
        np.not_equal(values[1:], values[:-1], out=different[1:])
        return values[different].astype(np.float64) + 0.0  # which makes 0 of −0.0


@dataclass(frozen=True)
class Curve:
    """The probabilities of one image and class against its truth: exact counts at any threshold.

    Attributes:
        positives: those where the truth is 1.
        negatives: those where it is 0.
    """

    positives: Histogram | Sorted
    negatives: Histogram | Sorted

    @classmethod
    def of(cls, p: NDArray[Any], y: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> "Curve":
        """Sort or count once; afterwards no pixel is looked at again.

        Args:
            p: float16, float32 or float64 (*S), in [0, 1] where valid.
            y: bool (*S), the truth.
            valid: bool (*S); False is counted nowhere.

        Raises:
            InputError: other shapes or types, or a valid p that is NaN or outside [0, 1].
        """
        check(p, y, valid)
        p = p.astype(p.dtype.newbyteorder("="), copy=False)
        return cls(*(_histograms if p.dtype == np.float16 else _sorted)(p, y, valid))

    def counts(self, threshold: float) -> Counts:
        """Counts of the prediction p >= T.

        Args:
            threshold: T, any real number; infinity predicts nothing.

        Raises:
            InputError: T is NaN.
        """
        predicted = self.above(np.asarray(threshold, np.float64))
        tp, fp = (int(count) for count in predicted)
        return Counts(tp, fp, self.positives.total - tp, self.negatives.total - fp)

    def above(self, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """True and false positives at many thresholds, each int64 of their shape.

        Raises:
            InputError: a threshold is NaN.
        """
        if np.isnan(thresholds).any():
            raise InputError("a threshold is NaN: a number is needed, 0 to 1 for a choice between pixels.")
        # Beyond [0, 1] all thresholds say the same, and a narrower float may not hold them.
        inside = thresholds.clip(0, 2)
        return self.positives.above(inside), self.negatives.above(inside)

    def observed(self, low: float = -1.0, high: float = 1.0) -> NDArray[np.float64]:
        """The different probabilities that occur in (low, high], float64, ascending.

        All T between two neighbours, the upper one included, give the same counts.
        """
        return np.union1d(self.positives.observed(low, high), self.negatives.observed(low, high))


def check(p: NDArray[Any], y: NDArray[Any], valid: NDArray[Any] | None) -> None:
    """Raise InputError unless types and shapes are those of :meth:`Curve.of`."""
    if p.dtype.kind != "f" or p.dtype.itemsize > 8:
        raise InputError(f"probabilities are of type {p.dtype}: float16, float32 or float64 would work.")
    for name, mask in (("truth", y), ("valid pixels", valid)):
        if mask is None:
            continue
        if mask.dtype != np.bool_:
            raise InputError(f"the mask of the {name} is of type {mask.dtype}: bool would work.")
        if mask.shape != p.shape:
            raise InputError(
                f"the mask of the {name} has shape {mask.shape}, the probabilities {p.shape}: "
                "equal shapes are needed."
            )


def rates(counts: Counts) -> Rates:
    """The rates of some counts; NaN rules as in :mod:`engine.metrics`."""
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    return Rates(
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        jaccard=_ratio(tp, tp + fp + fn),
        fnr=_ratio(fn, tp + fn),
        fpr=_ratio(fp, fp + tn),
    )


def pooled(curves: Iterable[Curve], threshold: float) -> Counts:
    """Counts over the pixels of several images taken together; all 0 without an image."""
    return sum((curve.counts(threshold) for curve in curves), Counts(0, 0, 0, 0))


def mean_rates(curves: Iterable[Curve], threshold: float) -> tuple[Rates, Skipped]:
    """Mean of each rate over the images for which it is defined, and for how many it is not.

    A rate that no image defines is NaN.
    """
    each = np.array([rates(curve.counts(threshold)) for curve in curves]).reshape(-1, len(Rates._fields))
    defined = ~np.isnan(each)
    count = defined.sum(0)
    total = np.where(defined, each, 0).sum(0)
    means = np.divide(total, count, out=np.full(len(total), math.nan), where=count > 0)
    return Rates(*means.tolist()), Skipped(*(len(each) - count).tolist())


def precision_recall(
    curves: Sequence[Curve], points: int = 200
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The precision-recall curve of several images' pixels taken together, for a plot.

    Every point is exact. They are chosen so that neighbours lie about equally far apart, in
    threshold, recall and precision together.

    Args:
        curves: of the images.
        points: how many at the most, 2 or more.

    Returns:
        float64 (n,) thresholds, ascending from 0 to the largest p, and precision, recall and Dice there;
        NaN where undefined. n is 1 if no pixel has a p above 0, and 0 without a pixel.
    """
    if points < 2:
        raise InputError(f"a curve of {points} points cannot be drawn: 2 or more would work.")
    tallies = [tally for curve in curves for tally in (curve.positives, curve.negatives) if tally.total]
    if not tallies:
        return (np.empty(0), np.empty(0), np.empty(0), np.empty(0))
    each = max(8, -(-4 * points // len(tallies)))
    found = np.concatenate([tally.spread(each) for tally in tallies])
    thresholds = np.unique(np.concatenate([[0.0], found, np.linspace(0, found.max(), points)]))
    values = _pooled_rates(curves, thresholds)
    kept = _evenly(np.stack([thresholds, *values[:2]]), points)
    precision, recall, dice = values[:, kept]
    return thresholds[kept], precision, recall, dice


def _pooled_rates(curves: Sequence[Curve], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Precision, recall and Dice of pooled pixels at thresholds (n,): (3, n)."""
    tp, fp = np.sum([curve.above(thresholds) for curve in curves], axis=0)
    true = sum(curve.positives.total for curve in curves)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it shall be
        return np.stack([tp / (tp + fp), tp / np.float64(true), 2 * tp / (tp + fp + true)])


def _evenly(curve: NDArray[np.float64], points: int) -> NDArray[np.intp]:
    """Up to `points` positions, first and last among them, evenly along a curve (axes, n)."""
    along = np.abs(np.diff(np.nan_to_num(curve), axis=1)).sum(0).cumsum()
    way = np.concatenate([[0.0], along])
    if len(way) <= points:
        return np.arange(len(way))
    near = way.searchsorted(np.linspace(0, way[-1], points))
    return np.unique(np.concatenate([[0], near[1:-1], [len(way) - 1]]))


def _histograms(
    p: NDArray[np.float16], y: NDArray[np.bool_], valid: NDArray[np.bool_] | None
) -> tuple[Histogram, Histogram]:
    code = np.ravel(p).view(np.uint16) | np.ravel(y).astype(np.uint32) << 16
    if valid is not None:
        code |= np.ravel(~valid).astype(np.uint32) << 17
    counts = np.bincount(code, minlength=1 << 18).reshape(4, 1 << 16)[:2]
    counts[:, 0] += counts[:, NEGATIVE_ZERO]
    counts[:, NEGATIVE_ZERO] = 0
    inside, outside = counts[:, : len(HALVES)], counts[:, len(HALVES) :]
    if outside.any():
        raise _outside(int(outside.sum()))
    return Histogram.of(inside[1]), Histogram.of(inside[0])


def _sorted(p: NDArray[Any], y: NDArray[np.bool_], valid: NDArray[np.bool_] | None) -> tuple[Sorted, Sorted]:
    masks = (y, ~y) if valid is None else (y & valid, ~y & valid)
    positives, negatives = (np.sort(p[mask]) for mask in masks)
    for values in (positives, negatives):
        # NaN is sorted behind all numbers, and is not <= 1.
        if values.size and not (values[0] >= 0 and values[-1] <= 1):
            raise _outside(sum(int((~((v >= 0) & (v <= 1))).sum()) for v in (positives, negatives)))
    return Sorted(positives), Sorted(negatives)


def _outside(count: int) -> InputError:
    return InputError(
        f"{count} of the probabilities are NaN or outside 0 to 1: a sigmoid or softmax gives what would work."
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
