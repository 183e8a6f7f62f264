"""The tables of a comparison, as the papers print them: text, Markdown, LaTeX, and CSV for machines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from engine import tables
from engine.comparison import sheet
from engine.comparison.grid import Comparison
from engine.comparison.remarks import names, remarks
from engine.comparison.reports import TIME
from engine.comparison.results import Group, Results
from engine.comparison.sheet import Field, Line, Sheet
from engine.comparison.significance import Verdict, judge
from engine.disk import replace_text
from engine.tables import COLUMNS, POOLED

MEAN = "mean"
"""The class of rows that are over all foreground classes."""
NOTHING = "–"
BEST = "the best of its data set, by the digits printed"


@dataclass(frozen=True)
class Entry:
    """One number of a table.

    Attributes:
        metric: its name.
        value: a share, nats or ms; NaN where there is none.
        low, high: value minus and plus the standard deviation over seeds, or the ends of the 95 % interval
            over images; NaN where there are fewer than two.
        count: seeds or images that the spread is over.
        undefined: predictions (an image by a seed) for which the metric is not defined.
        printed: value and spread as they are printed, without marks.
        rank: the value as it is printed, in the printed unit; NaN where there is none.
        best: whether nothing in its block is better.
        verdict: the test of this entry against a baseline.
        published: the number as the paper printed it, "" without one.
    """

    metric: str
    value: float
    low: float
    high: float
    count: int
    undefined: int
    printed: str
    rank: float
    best: bool = False
    verdict: Verdict | None = None
    published: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: a group, the class it is of (:data:`MEAN` for all), and an entry a metric."""

    group: Group
    label: str
    entries: tuple[Entry, ...]


def write(comparison: Comparison, results: Results, folder: Path) -> str:
    """Write table.txt, table.md, table.tex and table.csv into a folder, and return the text.

    Markdown and CSV hold a table of each class, too, where there are several. The best of a data set is in
    bold, judged by the digits that are printed, so that equal numbers are never told apart; all that are
    equal are bold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = judge(comparison, results)
    rows = table(comparison, results, verdicts)
    made = printed(comparison, results, rows, verdicts)
    classes = class_rows(comparison, results)
    document = sheet.markdown(made)
    if classes:
        document += "\n" + sheet.markdown(_class_sheet(comparison, classes))
    text = sheet.text(made)
    replace_text(folder / "table.txt", text)
    replace_text(folder / "table.md", document)
    replace_text(folder / "table.tex", sheet.latex(made))
    everything = [row for block in (*rows.values(), *classes.values()) for row in block]
    replace_text(folder / "table.csv", tables.to_csv(long(comparison, everything)))
    return text


def table(
    comparison: Comparison, results: Results, verdicts: Sequence[Verdict]
) -> dict[str, tuple[Row, ...]]:
    """Data set → its rows, over all classes, with the best, the tests and the published numbers."""
    found = {(v.data, v.network, v.method, v.metric): v for v in verdicts}
    blocks = {}
    for data, groups in results.sets.items():
        rows = []
        for group in groups:
            entries = [entry(comparison, group, metric) for metric in comparison.metrics]
            told = comparison.published.get(group.place, {})
            entries = [
                replace(e, published=told.get(e.metric, ""), verdict=found.get((*group.place, e.metric)))
                for e in entries
            ]
            rows.append(Row(group, MEAN, tuple(entries)))
        blocks[data] = _with_best(rows)
    return blocks


def class_rows(comparison: Comparison, results: Results) -> dict[tuple[str, str], tuple[Row, ...]]:
    """(data set, class) → rows of that class, of data sets with several."""
    blocks = {}
    metrics = [metric for metric in comparison.metrics if metric != TIME]
    for data, groups in results.sets.items():
        present = [group for group in groups if group.runs]
        classes = present[0].classes if present else ()
        for label in classes if len(classes) > 1 else ():
            rows = [
                Row(group, label, tuple(entry(comparison, group, metric, label) for metric in metrics))
                for group in present
            ]
            blocks[data, label] = _with_best(rows)
    return blocks


def entry(comparison: Comparison, group: Group, metric: str, label: str | None = None) -> Entry:
    """A group's number: mean and standard deviation over seeds, or mean and 95 % interval over images."""
    seeds = group.over_seeds(metric, label)
    if comparison.spread == "std" or metric == TIME:
        made = tables.mean(seeds)
        deviation = float(np.nanstd(seeds, ddof=1)) if made.count > 1 else math.nan
        value, half, count = made.value, deviation, made.count
    else:
        value, half, count = interval(group, metric, label)
    if metric == TIME and comparison.spread == "interval":
        half = math.nan  # a run has one time, so there is no interval over images
    ends = (value - half, value + half)
    unit, digits = _unit(comparison, metric)
    rank = round(unit * value, digits) if not math.isnan(value) else math.nan
    text = _number(value, half, unit, digits, comparison.spread)
    return Entry(metric, value, *ends, count, group.undefined(metric, label), text, rank)


def interval(group: Group, metric: str, label: str | None = None) -> tuple[float, float, int]:
    """Mean over test images, each averaged over seeds; half of its 95 % interval; images in it.

    The interval is Student's over images. A pooled share is a ratio of two means over images, whose
    residuals, linearised, take the images' place: lesions of one image are found or missed together.
    """
    if metric not in POOLED or not group.runs:
        made = tables.mean(group.over_images(metric, label))
        return made.value, made.margin, made.count
    detected, total = group.lesions(label)
    detected, total = detected[total > 0], total[total > 0]
    count = len(total)
    if not count:
        return math.nan, math.nan, 0
    share = float(detected.sum() / total.sum())
    if count < 2:
        return share, math.nan, count
    error = (detected - share * total).std(ddof=1) / (total.mean() * math.sqrt(count))
    # Where all is found, or nothing, residuals are 0 and say nothing of how far the share could be off.
    margin = float(stats.t.ppf(0.975, count - 1) * error) if 0 < share < 1 else math.nan
    return share, margin, count


def printed(
    comparison: Comparison, results: Results, rows: Mapping[str, Sequence[Row]], verdicts: Sequence[Verdict]
) -> Sheet:
    """The sheet of the table over all classes."""
    blocks = []
    for data, block in rows.items():
        count = max((len(row.group.images) for row in block), default=0)
        lines = [line for row in block for line in _lines(comparison, row)]
        images = f"{count} test image{'s' * (count != 1)}" if count else "nothing scored yet"
        blocks.append((f"{data}, {images}", tuple(lines)))
    notes = remarks(comparison, results, verdicts)
    return Sheet(comparison.title, *_head(comparison, comparison.metrics), tuple(blocks), BEST, tuple(notes))


def long(comparison: Comparison, rows: Sequence[Row]) -> list[dict[str, object]]:
    """A line a row and metric, for machines: shares from 0 to 1, whatever the table prints."""
    lines: list[dict[str, object]] = []
    for row in rows:
        for e in row.entries:
            verdict = e.verdict
            lines.append(
                {
                    "data": row.group.data, "network": row.group.network, "method": row.group.method,
                    "class": row.label, "metric": e.metric, "value": e.value, "low": e.low, "high": e.high,
                    "spread": comparison.spread, "n": e.count, "seeds": len(row.group.runs),
                    "images": len(row.group.images), "undefined": e.undefined, "best": int(e.best),
                    "test": comparison.test if verdict else "", "against": verdict.against if verdict else "",
                    "p": verdict.p if verdict else math.nan,
                    "significant": int(verdict.significant) if verdict else "",
                    "published": e.published,
                }
            )  # fmt: skip
    return lines


def _class_sheet(comparison: Comparison, classes: Mapping[tuple[str, str], Sequence[Row]]) -> Sheet:
    blocks = [
        (f"{data}, {label}", tuple(line for row in rows for line in _lines(comparison, row)))
        for (data, label), rows in classes.items()
    ]
    metrics = [metric for metric in comparison.metrics if metric != TIME]
    return Sheet(f"{comparison.title}: by class", *_head(comparison, metrics), tuple(blocks), BEST, ())


def _head(comparison: Comparison, metrics: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Titles of the columns, and how many of them are names."""
    kinds = names(comparison)
    titles = [
        COLUMNS[metric].heading + (" (%)" if _unit(comparison, metric)[0] == 100 else "")
        for metric in metrics
    ]
    return (*kinds, *titles, "seeds"), len(kinds)


def _lines(comparison: Comparison, row: Row) -> list[Line]:
    """A row as it is printed, and the published numbers below it where there are some."""
    called = [getattr(row.group, kind) for kind in names(comparison)]
    numbers = [Field(e.printed, e.best, e.verdict is not None and e.verdict.significant) for e in row.entries]
    there, wanted = len(row.group.runs), len(comparison.seeds)
    seeds = str(there) if there == wanted else f"{there} of {wanted}"
    lines = [Line((*map(Field, called), *numbers, Field(seeds)))]
    if any(e.published for e in row.entries):
        told = [e.published or NOTHING for e in row.entries]
        blank = [""] * (len(called) - 1)
        lines.append(Line(tuple(map(Field, ("published", *blank, *told, ""))), quoted=True))
    return lines


def _with_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their best entries told, where more than one has a value."""
    best: list[float] = []
    for column in zip(*(row.entries for row in rows), strict=True):
        ranks = [e.rank for e in column if not math.isnan(e.rank)]
        pick = max if COLUMNS[column[0].metric].more else min
        best.append(pick(ranks) if len(ranks) > 1 else math.nan)
    return tuple(
        replace(
            row, entries=tuple(replace(e, best=e.rank == b) for e, b in zip(row.entries, best, strict=True))
        )
        for row in rows
    )


def _unit(comparison: Comparison, metric: str) -> tuple[int, int]:
    """What values are multiplied by, and digits behind the point, as the papers have them."""
    if COLUMNS[metric].percent and comparison.percent:
        return 100, 2
    if metric == TIME:
        return 1, 2
    return 1, 3 if comparison.spread == "interval" else 4


def _number(value: float, half: float, unit: int, digits: int, spread: str) -> str:
    if math.isnan(value):
        return NOTHING
    text = _fixed(unit * value, digits)
    if math.isnan(half):
        return text
    if spread == "std":
        return f"{text} ± {_fixed(unit * half, digits)}"
    return f"{text} ({_fixed(unit * (value - half), digits)}–{_fixed(unit * (value + half), digits)})"


def _fixed(number: float, digits: int) -> str:
    """With a minus that no dash of an interval is mistaken for; zero has none."""
    return f"{number:z.{digits}f}".replace("-", "−")
