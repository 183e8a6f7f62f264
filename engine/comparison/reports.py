"""Reports: what `engine.evaluate` has left of one run in its report folder. Imports no torch."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.comparison.grid import Cell
from engine.errors import InputError
from engine.tables import POOLED

Floats = NDArray[np.float64]

BACKGROUND = "background"
TIME = "inference_ms"
"""The metric that a run has once, not once an image."""
DETECTED, LESIONS = "lesions_detected", "lesions"
"""Columns of test.csv that :data:`POOLED` is the ratio of."""


@dataclass(frozen=True)
class Run:
    """One cell's test images with their scores: n images, C foreground classes.

    Attributes:
        cell: what was run.
        images: names of the n images.
        classes: names of the C classes.
        scores: column of test.csv → (n, C), as shares and nats, never in percent; NaN where not defined.
        report: test.json.
    """

    cell: Cell
    images: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Mapping[str, Floats]
    report: Mapping[str, Any]

    def per_image(self, metric: str, label: str | None = None) -> Floats:
        """A metric of every image, (n,): of one class, or the mean over those of the image that are defined.

        Lesions are pooled over the classes. A metric that a run has once, not an image, is NaN everywhere.
        """
        if metric == TIME:
            return np.full(len(self.images), np.nan)
        if metric in POOLED:
            return ratio(*self.lesions(label))
        values = self._column(metric)
        return nan_mean(values, axis=1) if label is None else values[:, self.classes.index(label)]

    def lesions(self, label: str | None = None) -> tuple[Floats, Floats]:
        """Lesions found and lesions there are, of every image (n,), of one class or of all together."""
        detected, total = self._column(DETECTED), self._column(LESIONS)
        if label is None:
            return detected.sum(axis=1), total.sum(axis=1)
        place = self.classes.index(label)
        return detected[:, place], total[:, place]

    def value(self, metric: str, label: str | None = None) -> float:
        """The run's score: its mean over the images that have one, or of all lesions the share found."""
        if metric == TIME:
            return float("nan") if label else float(self.report["inference"]["median_ms"])
        if metric in POOLED:
            detected, total = self.lesions(label)
            return float(ratio(detected.sum(keepdims=True), total.sum(keepdims=True))[0])
        return float(nan_mean(self.per_image(metric, label), axis=0))

    def _column(self, name: str) -> Floats:
        if name not in self.scores:
            raise InputError(
                f"the report of {self.cell.folder} has no {name}: score the run anew with "
                f"python -m engine.evaluate {self.cell.folder}."
            )
        return self.scores[name]


def read(cell: Cell, report: Mapping[str, Any]) -> Run:
    """A cell's test.csv beside its test.json. Raises InputError if it is broken."""
    path = cell.folder / "report" / "test.csv"
    rows = [row for row in _rows(path) if row["class"] != BACKGROUND]
    images = tuple(dict.fromkeys(row["image"] for row in rows))
    classes = tuple(dict.fromkeys(row["class"] for row in rows))
    return Run(cell, images, classes, _columns(path, rows, (images, classes), ("image", "class")), report)


def thresholds(run: Run) -> tuple[Floats, dict[str, Floats]]:
    """Scores of a run by threshold T in p >= T, from test-thresholds.csv.

    Returns:
        T (k,), ascending, and dice, precision and recall of each image, (n, k): means over its classes,
        those without a value left out.

    Raises:
        InputError: there is no such table, or a broken one.
    """
    path = run.cell.folder / "report" / "test-thresholds.csv"
    rows = [row for row in _rows(path) if row["class"] != BACKGROUND]
    try:
        keyed = [{**row, "threshold": float(row["threshold"])} for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise broken(path, error) from None
    levels = sorted({row["threshold"] for row in keyed})
    columns = _columns(path, keyed, (run.images, run.classes, levels), ("image", "class", "threshold"))
    return np.array(levels), {name: nan_mean(values, axis=1) for name, values in columns.items()}


def nan_mean(values: Floats, axis: int) -> Floats:
    """Mean along an axis with NaN left out; NaN where nothing is left, without a warning."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def ratio(part: Floats, whole: Floats) -> Floats:
    """Part by whole; NaN of nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    except OSError as error:
        raise broken(path, error.strerror) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise broken(path, error) from None
    if not rows or not {"image", "class"} <= set(rows[0]):
        raise broken(path, "no columns image and class, or no rows")
    if any(None in row or None in row.values() for row in rows):
        raise broken(path, "a row is cut off")
    return rows


def _columns(
    path: Path, rows: Sequence[Mapping[str, Any]], axes: Sequence[Sequence[Any]], keys: Sequence[str]
) -> dict[str, Floats]:
    """Every further column as an array along the axes of its keys; an empty field is NaN."""
    places = [{value: place for place, value in enumerate(axis)} for axis in axes]
    shape = tuple(map(len, axes))
    names = [name for name in rows[0] if name not in keys]
    columns = {name: np.full(shape, np.nan) for name in names}
    filled = np.zeros(shape, dtype=np.int64)
    try:
        for row in rows:
            at = tuple(place[row[key]] for place, key in zip(places, keys, strict=True))
            filled[at] += 1
            for name in names:
                columns[name][at] = float(row[name]) if row[name] != "" else np.nan
    except (KeyError, ValueError, TypeError) as error:
        raise broken(path, error) from None
    if not (filled == 1).all():
        raise broken(path, f"a row for each of {' × '.join(keys)} is not what it holds")
    return columns


def broken(path: Path, reason: object) -> InputError:
    """The error for a report's file that cannot be used, and what would work."""
    said = f"{reason!r}" if isinstance(reason, KeyError) else str(reason)
    return InputError(
        f"the report {path} cannot be read ({said}): score the run anew with python -m engine.evaluate "
        f"{path.parent.parent}."
    )
