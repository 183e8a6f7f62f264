"""Results: the files of a run's report/ folder. `docs/run-directory.md` describes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine import tables
from engine.disk import replace_text
from engine.record import plain
from engine.scores import OVER_T, THRESHOLDS, Scored
from engine.summary import BACKGROUND, Summary
from engine.tables import METRICS
from engine.timing import Timing


def write(
    folder: Path, split: str, scored: Sequence[Scored], classes: Sequence[str], content: Mapping[str, Any]
) -> None:
    """Save SPLIT.csv, SPLIT-thresholds.csv and SPLIT.json into a folder, which is made.

    Args:
        folder: where to.
        split: whose images were scored.
        scored: at least one image.
        classes: of the run.
        content: of the JSON file, as :func:`content` makes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / f"{split}.csv", tables.to_csv(image_rows(scored, classes)))
    replace_text(folder / f"{split}-thresholds.csv", tables.to_csv(threshold_rows(scored, classes)))
    replace_text(folder / f"{split}.json", json.dumps(plain(content), indent=2) + "\n")


def image_rows(scored: Sequence[Scored], classes: Sequence[str]) -> list[dict[str, object]]:
    """A row an image and class, background last."""
    rows = []
    for image in scored:
        for column, label in enumerate([*classes, BACKGROUND]):
            row: dict[str, object] = {"image": image.name, "class": label}
            for name in METRICS:
                row[name] = float(image.scores[name][column])
                if name == "lesion_recall":
                    counted = label != BACKGROUND
                    row["lesions_detected"] = int(image.detected[column]) if counted else ""
                    row["lesions"] = int(image.lesions[column]) if counted else ""
            rows.append(row)
    return rows


def threshold_rows(scored: Sequence[Scored], classes: Sequence[str]) -> list[dict[str, object]]:
    """A row an image, foreground class and threshold."""
    return [
        {"image": image.name, "class": label, "threshold": threshold}
        | {name: float(image.over_t[name][number][place]) for name in OVER_T}
        for image in scored
        for number, label in enumerate(classes)
        for place, threshold in enumerate(THRESHOLDS)
    ]


def content(head: Mapping[str, Any], summary: Summary, timing: Timing) -> dict[str, Any]:
    """The JSON file: what was scored (`head`), the scores, calibration and time."""
    made = {
        **head,
        "scores": {
            label: {name: asdict(entry) for name, entry in entries.items()}
            for label, entries in summary.scores.items()
        },
        "lesions": {
            label: {"detected": found, "total": total} for label, (found, total) in summary.lesions.items()
        },
        "reliability": {label: asdict(bins) for label, bins in summary.reliability.items()},
        "inference": asdict(timing),
    }
    if summary.nll_categorical is not None:
        made["nll_categorical"] = asdict(summary.nll_categorical)
    return made
