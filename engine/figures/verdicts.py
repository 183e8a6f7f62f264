"""Verdicts: what a figure of a guarantee says in words. Loads neither torch nor matplotlib."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.thresholds import (
    Choice,
    Curve,
    Units,
    kept_band,
    kept_chance,
    mean_bound,
    mean_interval,
    mean_rates,
    promise,
)
from engine.thresholds.specs import Cls, Conditional, Crc
from engine.thresholds.words import one, percent

Floats = NDArray[np.float64]

USUAL = 0.5
"""The threshold that is taken where nobody chooses one."""
LEVEL = 0.95
"""Of bands and intervals."""
SLACK = 0.1
"""Share of α by which CRC's bound at T, and of critical thresholds that tie at T, from which it is explained
that more is kept than promised."""


@dataclass(frozen=True)
class GuaranteeRow:
    """One class, or all at once: a threshold, and the images that it comes from and is tried on.

    Attributes:
        title: the class's name, or "all classes".
        rule: that chose the threshold.
        choice: what it answered.
        units: of the calibration.
        test: units of the test split; None where there is no such split.
        curves: of the test images (and classes), for precision and recall; may be empty.
        unit: what is counted: "image", "group", "patient" …
        lesion: what must not be missed.
        count_empty: whether units without lesion count.
    """

    title: str
    rule: Cls | Conditional | Crc
    choice: Choice
    units: Units
    test: Units | None
    curves: Sequence[Curve] = ()
    unit: str = "image"
    lesion: str = "lesion"
    count_empty: bool = False

    @property
    def tied(self) -> int:
        """How many other critical thresholds equal T: units at T are kept, so that ties keep more."""
        if isinstance(self.rule, Crc) or self.silent or not self.choice.enough:
            return 0
        return int((self.units.critical(self.rule.epsilon) == self.choice.threshold).sum()) - 1

    @property
    def silent(self) -> bool:
        """Whether T is 0 or infinite, and so says nothing of how well the test units do."""
        return self.choice.threshold == 0 or math.isinf(self.choice.threshold)


@dataclass(frozen=True)
class Kept:
    """Test units that miss at most ε, and what was to be expected.

    Attributes:
        kept: their number.
        of: number of test units.
        low, high: the band in which the number lies in LEVEL of all splits (kept_band).
        chance: of so few or fewer (kept_chance).
    """

    kept: int
    of: int
    low: int
    high: int
    chance: float

    @property
    def short(self) -> bool:
        """Whether there are fewer than the band allows."""
        return self.kept < self.low


def count_kept(row: GuaranteeRow, fnr: Floats) -> Kept:
    """Judge the FNR (m,) of a row's test units; not for CRC, which says nothing of single units."""
    assert not isinstance(row.rule, Crc)
    assert row.choice.rank is not None
    kept = int((fnr <= row.rule.epsilon).sum())
    given = row.choice.n, row.choice.rank, fnr.size
    return Kept(kept, fnr.size, *kept_band(*given, LEVEL), kept_chance(*given, kept))


def promised(row: GuaranteeRow) -> str:
    """The promise (:func:`engine.thresholds.promise`)."""
    together = any(len(unit) > 1 for unit in row.units.values)
    return promise(
        row.rule, row.choice, unit=row.unit, lesion=row.lesion, together=together,
        count_empty=row.count_empty,
    )  # fmt: skip


def of_calibration(row: GuaranteeRow) -> str:
    """Where T comes from."""
    choice = row.choice
    threshold = "T = ∞" if math.isinf(choice.threshold) else f"T = {choice.threshold:.4g}"
    if not choice.enough:
        if choice.needed is None:
            return f"{threshold}: no number of {row.unit}s would do."
        return f"{threshold}: {choice.needed} {row.unit}s needed, {choice.n} there."
    if math.isinf(choice.threshold):
        return f"{threshold}, which predicts nothing: everything may be missed."
    if choice.rank is None:
        return f"{threshold}, the highest whose bound is at most α = {row.rule.alpha:.4g}{_leap(row)}."
    if choice.n == 1:
        return f"{threshold}, the only critical threshold."
    tied = f"; {row.tied} {'other equals' if row.tied == 1 else 'others equal'} it" if row.tied else ""
    return f"{threshold}, the {_ordinal(choice.rank)} of {choice.n} critical thresholds{tied}."


def _leap(row: GuaranteeRow) -> str:
    """What CRC's bound is at T and above, where it leaps over α: many lesion probabilities equal T."""
    threshold = row.choice.threshold
    at = mean_bound(row.units, threshold)
    if row.rule.alpha - at <= SLACK * row.rule.alpha:
        return ""
    return f": {at:.2g} at T, {mean_bound(row.units, math.nextafter(threshold, 2)):.2g} above it"


def of_test(row: GuaranteeRow) -> str:
    """Whether the test units bear the promise out."""
    if row.test is None:
        return f"There are no test {row.unit}s."
    if row.test.n == 0:
        return f"No test {row.unit} has {one(row.lesion)}."
    fnr = row.test.fnr(row.choice.threshold)
    if isinstance(row.rule, Crc):
        found = f"Mean FNR {fnr.mean():.2g}" if row.silent else f"Mean FNR of {row.test.n}: {fnr.mean():.2g}"
        low, high = mean_interval(fnr, LEVEL)
        if not (row.silent or math.isnan(low)):
            found += f" ({percent(LEVEL)} interval {max(low, 0):.2g} to {min(high, 1):.2g})"
        judged = f"; promised is α = {row.rule.alpha:.4g}."
    else:
        count = count_kept(row, fnr)
        found = f"Kept in {count.kept} of {count.of}"
        between = f"{count.low} to {count.high}" if count.low < count.high else f"{count.low}"
        judged = f"; {percent(LEVEL)} of splits give {between}."
        if count.short:
            chance = percent(count.chance) if count.chance >= 1e-4 else f"below {percent(1e-4)}"
            judged += f" Chance of so few: {chance}."
        elif row.tied >= SLACK * row.choice.n and row.tied and count.kept > (1 - row.rule.alpha) * count.of:
            judged += f" More than 1 − α = {percent(1 - row.rule.alpha)}, as those that tie at T are kept."
    if row.silent:
        judged = ": T = ∞ promises nothing." if row.choice.threshold else ": T = 0 misses nothing."
    return found + judged


def of_cost(row: GuaranteeRow) -> str:
    """What becomes of precision and recall, in the mean over test images."""
    if not row.curves:
        if row.test is None:
            return f"There are no test {row.unit}s to count precision on."
        return "Precision and recall were not counted."
    there, skipped = mean_rates(row.curves, row.choice.threshold)
    usual, usually = mean_rates(row.curves, USUAL)
    if math.isnan(there.precision):
        return f"Nothing is predicted. At T = {USUAL}: {_rates(usual.precision, usual.recall)}."
    if math.isnan(usual.precision):
        return f"{_rates(there.precision, there.recall).capitalize()}; at T = {USUAL} nothing is predicted."
    said = f"Precision {there.precision:.2f} instead of {usual.precision:.2f} at T = {USUAL}"
    if not math.isnan(there.recall):
        said += f"; recall {there.recall:.2f} instead of {usual.recall:.2f}"
    if skipped.precision or usually.precision:
        said += (
            f". Nothing is predicted in {skipped.precision} instead of {usually.precision} "
            f"of {len(row.curves)}"
        )
    return f"{said}."


def _rates(precision: float, recall: float) -> str:
    named = (("precision", precision), ("recall", recall))
    return ", ".join(
        f"{name} {value:.2f}" if not math.isnan(value) else f"no {name}" for name, value in named
    )


def _ordinal(number: int) -> str:
    if number == 1:
        return "lowest"
    last = number % 100 if 10 < number % 100 < 14 else number % 10
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') } lowest"
