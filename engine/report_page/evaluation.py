"""Evaluation: the tables that ``engine.evaluate`` has left in RUN/report, as far as they are there."""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import tables
from engine.errors import InputError
from engine.figures.series import Reliability, ThresholdCurve
from engine.tables import Mean

NOT_CLASSES = frozenset({"mean", "mean with background", "background"})
"""Labels of the summary that are no foreground class."""
OVER_T = ("dice", "precision", "recall")
"""Scores that are given over the threshold."""


@dataclass(frozen=True)
class Evaluation:
    """The newest evaluation of a run on a split.

    Attributes:
        split: whose images were scored.
        summary: the JSON file.
        rows: of the table per image: "image", "class" and the metrics, as text, "" where not defined.
        over_t: class → scores over the threshold; empty where there are none.
        reliability: class → its pixels by p; empty where there are none.
    """

    split: str
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]
    over_t: Mapping[str, ThresholdCurve]
    reliability: Mapping[str, Reliability]

    @property
    def native(self) -> bool:
        """Whether images were scored at their own size, or at the network's."""
        return bool(self.summary["size"] == "native")

    @property
    def threshold(self) -> float | None:
        """T of the decision p ≥ T; None where it was the most probable class."""
        found = re.fullmatch(r"p ≥ (\S+)", str(self.summary["decision"]))
        return float(found[1]) if found else None

    def entry(self, label: str, metric: str) -> Mean | None:
        """A mean of a class, or of "mean"; None where it was not measured."""
        found = self.summary["scores"].get(label, {}).get(metric)
        return None if found is None else _mean(found)

    def lesions(self) -> tuple[int, int] | None:
        """Of all classes together those that were found, and all; None where they were not counted."""
        entries = self.summary.get("lesions", {}).values()
        if not entries:
            return None
        return sum(entry["detected"] for entry in entries), sum(entry["total"] for entry in entries)

    def columns(self) -> list[str]:
        """Names of the columns of the table per image, in order."""
        return list(self.rows[0]) if self.rows else []

    def images(self) -> list[str]:
        """Names of the images, in the order of the table."""
        return list(dict.fromkeys(row["image"] for row in self.rows))

    def image(self, name: str, metric: str) -> float:
        """A score of an image in the mean over its foreground classes; NaN where none is defined."""
        rows = [row for row in self.rows if row["image"] == name and row["class"] not in NOT_CLASSES]
        values = [value for row in rows if not math.isnan(value := number(row[metric]))]
        return sum(values) / len(values) if values else math.nan

    def ranked(self) -> list[str]:
        """Names of the images from the worst to the best Dice; those without one are left out."""
        scores = {name: self.image(name, "dice") for name in self.images()}
        return sorted((name for name in scores if not math.isnan(scores[name])), key=scores.__getitem__)


def read_evaluation(root: Path, split: str) -> Evaluation | None:
    """The newest evaluation of a run on a split; None if there is none.

    Raises:
        InputError: its files cannot be read.
    """
    folder = root / "report"
    if not (folder / f"{split}.json").is_file():
        return None
    try:
        return _read(folder, split)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"the scores in {folder}, {split}.json and .csv, cannot be read ({reason}): scoring the images "
            "anew writes others."
        ) from None


def _read(folder: Path, split: str) -> Evaluation:
    summary = json.loads((folder / f"{split}.json").read_text("utf-8"))
    if lacking := [name for name in NEEDED if name not in summary]:
        raise KeyError(*lacking)
    for entries in summary["scores"].values():
        for found in entries.values():
            _mean(found)
    rows = _table(folder / f"{split}.csv")
    over_t = folder / f"{split}-thresholds.csv"
    reliability = {label: Reliability.of(bins) for label, bins in summary.get("reliability", {}).items()}
    curves = threshold_curves(_table(over_t)) if over_t.is_file() else {}
    made = Evaluation(split, summary, rows, curves, reliability)
    made.ranked()
    return made


NEEDED = ("scores", "size", "decision", "checkpoint", "epoch", "images")
"""Of the JSON file, whatever its version."""


def threshold_curves(rows: Sequence[Mapping[str, str]]) -> dict[str, ThresholdCurve]:
    """Class → means over images at each threshold, of a table with a row an image, class and threshold."""
    curves = {}
    for label in dict.fromkeys(row["class"] for row in rows):
        mine = [row for row in rows if row["class"] == label]
        thresholds = sorted({float(row["threshold"]) for row in mine})
        means, margins = {}, {}
        for name in OVER_T:
            at = [[number(row[name]) for row in mine if float(row["threshold"]) == t] for t in thresholds]
            entries = [tables.mean(np.array(values)) for values in at]
            means[name] = np.array([entry.value for entry in entries])
            margins[name] = np.array([entry.margin for entry in entries])
        curves[label] = ThresholdCurve(np.array(thresholds), means, margins)
    return curves


def number(value: Any) -> float:
    """A number of the files, NaN where it is left empty."""
    return math.nan if value is None or value == "" else float(value)


def _mean(found: Mapping[str, Any]) -> Mean:
    return Mean(number(found["value"]), number(found["margin"]), int(found["count"]), int(found["skipped"]))


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
