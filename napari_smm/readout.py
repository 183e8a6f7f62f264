"""Rates at a threshold as a small table. Pure."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.thresholds import Curve, Rates, Skipped, mean_rates, rates

ROWS = (
    ("precision", "Precision", "TP / (TP + FP): how much of the prediction is right"),
    ("recall", "Recall", "TP / (TP + FN): how much of the truth is found"),
    ("dice", "Dice", "2 TP / (2 TP + FP + FN)"),
    ("fnr", "FNR", "FN / (TP + FN): how much of the truth is missed"),
    ("fpr", "FPR", "FP / (FP + TN): how much of the background is predicted"),
)
"""Field, name and meaning of what is shown."""
UNKNOWN = "…"
UNDEFINED = "–"
INFINITE = "∞"


@dataclass(frozen=True)
class Subject:
    """What rates are shown of.

    Attributes:
        shown: counts of the image in view; None while they are not known.
        several: counts of the set's images; None while they are not known, empty where there is no set.
        title: what the image in view is called.
        set_title: what the set is called.
        truth: whether a truth is known. If not, counts are against a truth that is nowhere.
        note: a sentence that explains what is missing, or "".
    """

    shown: Curve | None = None
    several: tuple[Curve, ...] | None = ()
    title: str = "This image"
    set_title: str = ""
    truth: bool = True
    note: str = ""


@dataclass(frozen=True)
class Column:
    """Rates of one image, or the mean over several.

    Attributes:
        title: what they are of.
        rates: None while they are not known yet.
        skipped: for how many of the images each is not defined, and left out of the mean.
        count: number of the images.
    """

    title: str
    rates: Rates | None
    skipped: Skipped | None = None
    count: int = 1


def columns(subject: Subject, threshold: float, mean: tuple[Rates, Skipped] | None = None) -> list[Column]:
    """The image in view beside the set that it belongs to.

    Args:
        subject: what rates are shown of.
        threshold: T in p >= T.
        mean: that of the set, if it was computed before; computed here if None.
    """
    first = Column(subject.title, None if subject.shown is None else rates(subject.shown.counts(threshold)))
    if subject.several is None:
        return [first, Column(f"{subject.set_title}, mean", None)]
    if len(subject.several) < 2:
        return [first]
    found, skipped = mean_rates(subject.several, threshold) if mean is None else mean
    return [first, Column(f"{subject.set_title}, mean", found, skipped, len(subject.several))]


def table(subject: Subject, threshold: float, shown: Sequence[Column]) -> str:
    """Rich text: T, then a row for each rate, or for the predicted share where no truth is known."""
    if not subject.truth:
        shown = shown[:1]
    head = "".join(f"<th align='right'>&nbsp;&nbsp;{html.escape(column.title)}</th>" for column in shown)
    lines = [f"<tr><th align='left'>T = {number(threshold)}</th>{head}</tr>"]
    if subject.truth:
        for name, words, _ in ROWS:
            cells = "".join(f"<td align='right'>{_cell(column, name)}</td>" for column in shown)
            lines.append(f"<tr><td>{words}</td>{cells}</tr>")
    else:
        lines.append(f"<tr><td>Predicted</td><td align='right'>{_share(subject, threshold)}</td></tr>")
    below = f"<div>{html.escape(subject.note)}</div>" if subject.note else ""
    return f"<table width='100%' cellspacing='0' cellpadding='0'>{''.join(lines)}</table>{below}"


def number(threshold: float) -> str:
    """T with 3 digits behind the point, or as many as it has, up to 6; "∞" of an infinite one."""
    if math.isinf(threshold):
        return INFINITE
    text = f"{threshold:.6f}"
    return text[:-3] + text[-3:].rstrip("0")


def value(rate: float) -> str:
    """A rate with three digits; a dash where it is not defined."""
    return UNDEFINED if math.isnan(rate) else f"{rate:.3f}"


def help_text() -> str:
    """What the rates mean, a line each."""
    lines = [f"{words} = {meaning}" for _, words, meaning in ROWS]
    return "\n".join(
        [*lines, "A mean leaves out images for which the rate is not defined, and says of how many it is."]
    )


def _cell(column: Column, name: str) -> str:
    if column.rates is None:
        return UNKNOWN
    text = value(getattr(column.rates, name))
    skipped = getattr(column.skipped, name) if column.skipped is not None else 0
    return f"<small>of {column.count - skipped}:</small> {text}" if 0 < skipped < column.count else text


def _share(subject: Subject, threshold: float) -> str:
    if subject.shown is None:
        return UNKNOWN
    counts = subject.shown.counts(threshold)
    total = counts.fp + counts.tn
    return f"{100 * counts.fp / total:.2f} % of the pixels" if total else UNDEFINED
