"""Tables of scores: per image, in the mean, and as text."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Metric(NamedTuple):
    """How a score is shown."""

    title: str
    """Of its column."""
    more: bool
    """Whether more is better."""
    percent: bool
    """Whether it is printed in percent, as papers do with shares, or as it is."""

    @property
    def heading(self) -> str:
        """Title and the direction that is better, as in "FNR ↓"."""
        return f"{self.title} {'↑' if self.more else '↓'}"


METRICS = {
    "dice": Metric("DSC", True, True),
    "cldice": Metric("clDice", True, True),
    "jaccard": Metric("JSI", True, True),
    "fnr": Metric("FNR", False, True),
    "fpr": Metric("FPR", False, True),
    "precision": Metric("precision", True, True),
    "recall": Metric("recall", True, True),
    "lesion_recall": Metric("lesion recall", True, True),
    "nll": Metric("NLL", False, False),
    "brier": Metric("Brier", False, False),
    "ece": Metric("ECE", False, False),
}
"""Score → how it is shown. NLL is in nats, the others lie in 0…1."""

POOLED = frozenset({"lesion_recall"})
"""Scores that are no mean over images but pooled over the set: of all lesions the detected ones."""

TIME = Metric("ms an image", False, False)
"""How the median inference time is shown."""

COLUMNS = {**METRICS, "inference_ms": TIME}
"""What a comparison's tables can show: scores, and the time that a run has once."""


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


def rate(detected: int, total: int, *, count: int, skipped: int) -> Mean:
    """A share of things pooled over images, with Wilson's interval for a binomial share.

    Half of the interval's width is the margin. The interval's middle is a little nearer to ½ than the share
    is, so that near 0 and 1 it is not the same as share ± margin. It takes the things as independent of
    each other.

    Args:
        detected, total: of the things; 0 <= detected <= total.
        count, skipped: images that have any, and that have none.

    Returns:
        NaN of nothing.
    """
    if total == 0:
        return Mean(np.nan, np.nan, count, skipped)
    share, z = detected / total, float(stats.norm.ppf(0.975))
    margin = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Mean(share, float(margin), count, skipped)


def percent(entry: Mean) -> str:
    """A mean and its interval in percent, as papers print them."""
    return _number(entry, 100, 2)


def cell(name: str, entry: Mean) -> str:
    """A score and its interval in a table: in percent, or with four decimals, as METRICS says of its name."""
    return percent(entry) if METRICS[name].percent else _number(entry, 1, 4)


def _number(entry: Mean, scale: float, digits: int) -> str:
    if np.isnan(entry.value):
        return "–"
    text = f"{scale * entry.value:.{digits}f}"
    return text if np.isnan(entry.margin) else f"{text} ± {scale * entry.margin:.{digits}f}"


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


def extent(shape: Sequence[int]) -> str:
    """A size in words: "40 × 48 px" of an image H × W, "35 × 51 × 40 voxels" of a volume D × H × W."""
    return f"{' × '.join(map(str, shape))} {'px' if len(shape) == 2 else 'voxels'}"


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with equal keys as CSV; NaN is left empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value != value else value for key, value in row.items()})
    return out.getvalue()
