"""Tables of scores: per image, in the mean, and as text."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

METRICS = {
    "dice": ("DSC", True),
    "cldice": ("clDice", True),
    "jaccard": ("JSI", True),
    "fnr": ("FNR", False),
    "fpr": ("FPR", False),
    "precision": ("precision", True),
    "recall": ("recall", True),
}
"""Metric → its column's title, and whether more is better."""


@dataclass(frozen=True)
class Mean:
    """A mean over images.

    Attributes:
        value: NaN if no image has one.
        margin: half of the 95 % interval (Student's t over images); NaN below two images.
        count: images in it.
        skipped: images for which the metric is not defined.
    """

    value: float
    margin: float
    count: int
    skipped: int


def mean(values: NDArray[np.float64]) -> Mean:
    """Mean over images, NaN left out and counted."""
    defined = values[~np.isnan(values)]
    count = len(defined)
    if count == 0:
        return Mean(np.nan, np.nan, 0, len(values))
    margin = np.nan
    if count > 1:
        margin = float(stats.t.ppf(0.975, count - 1) * defined.std(ddof=1) / np.sqrt(count))
    return Mean(float(defined.mean()), margin, count, len(values) - count)


def percent(entry: Mean) -> str:
    """A mean and its interval in percent, as papers print them."""
    if np.isnan(entry.value):
        return "–"
    text = f"{100 * entry.value:.2f}"
    return text if np.isnan(entry.margin) else f"{text} ± {100 * entry.margin:.2f}"


def text(title: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text, columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (title, *rows)) for column in range(len(title))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(title), "  ".join("─" * width for width in widths), *map(line, rows)])


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with equal keys as CSV; NaN is left empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value != value else value for key, value in row.items()})
    return out.getvalue()
