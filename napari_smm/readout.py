"""Rates at a threshold as a small table. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.thresholds import Curve, Rates, mean_rates, rates

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


@dataclass(frozen=True)
class Column:
    """Rates of one image, or the mean over several.

    Attributes:
        title: what they are of.
        rates: None while they are not known yet.
    """

    title: str
    rates: Rates | None


def columns(
    curves: Sequence[Curve] | None, shown: Curve | None, threshold: float, title: str
) -> tuple[Column, ...]:
    """The image in view beside the set that it belongs to.

    Args:
        curves: of the set's images, the one in view included; None while they are not known.
        shown: of the image in view; None while it is not known.
        threshold: T in p >= T.
        title: of the set, such as "4 training images"; a set of one image gets no column.
    """
    first = Column("This image", None if shown is None else rates(shown.counts(threshold)))
    if curves is None:
        return (first,) if not title else (first, Column(title, None))
    if len(curves) < 2:
        return (first,)
    return first, Column(title, mean_rates(curves, threshold)[0])


def table(threshold: float, shown: Sequence[Column], note: str = "") -> str:
    """Rich text: T, then a row for each rate."""
    head = "".join(f"<th align='right'>&nbsp;&nbsp;{column.title}</th>" for column in shown)
    lines = [f"<tr><th align='left'>T = {threshold:.4g}</th>{head}</tr>"]
    for name, words, _ in ROWS:
        cells = "".join(
            f"<td align='right'>{UNKNOWN if c.rates is None else value(getattr(c.rates, name))}</td>"
            for c in shown
        )
        lines.append(f"<tr><td>{words}</td>{cells}</tr>")
    below = f"<div>{note}</div>" if note else ""
    return f"<table width='100%' cellspacing='0' cellpadding='1'>{''.join(lines)}</table>{below}"


def value(rate: float) -> str:
    """A rate with three digits; a dash where it is not defined."""
    return UNDEFINED if math.isnan(rate) else f"{rate:.3f}"


def help_text() -> str:
    """What the rates mean, a line each."""
    lines = [f"{words} = {meaning}" for _, words, meaning in ROWS]
    return "\n".join([*lines, "Means over images leave out those for which a rate is not defined."])
