"""Made runs of a comparison: only what its tables read, with scores that a test chooses."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from engine.comparison.grid import Cell, Comparison, load
from engine.record import FORMAT
from engine.tables import METRICS, to_csv

Scores = Callable[[Cell], dict[str, Any]]
"""Cell → metric → (images, classes) or (images,) scores; `lesions_detected` and `lesions` counts, too."""


def compared(folder: Path, methods: Sequence[str] = ("A", "B"), **content: Any) -> Comparison:
    """A comparison of methods that differ only in name, on the generated set unless told otherwise."""
    document = {
        "title": "Made up",
        "data": {"demo": {"data": {"root": "demo"}}},
        "methods": {name: {} for name in methods},
        **content,
    }
    file = folder / "made.toml"
    file.write_text(tomli_w.dumps(document), "utf-8")
    return load(file, folder / "out")


def make_run(
    cell: Cell,
    scores: dict[str, Any],
    *,
    images: Sequence[str] = (),
    classes: Sequence[str] = ("vessel",),
    milliseconds: float = 5.0,
    size: str = "native",
    ended: str = "finished",
) -> None:
    """Write a run directory with a report; scores that are not given are 0.5."""
    count = len(next(iter(scores.values())))
    names = list(images) or [f"i{number}" for number in range(count)]
    root = cell.folder
    (root / "report").mkdir(parents=True)
    (root / "checkpoints").mkdir()
    (root / "checkpoints" / "last").touch()
    info = {"format": FORMAT, "splits": {"val": [], "test": names}, "head": "sigmoid",
            "dataset": {"classes": list(classes)}}  # fmt: skip
    (root / "run.json").write_text(json.dumps(info))
    (root / "events.jsonl").write_text(json.dumps({"event": ended}) + "\n")
    columns = {name: _column(0.5, count, classes) for name in METRICS}
    columns |= {name: _column(1.0, count, classes) for name in ("lesions_detected", "lesions")}
    columns |= {name: _column(values, count, classes) for name, values in scores.items()}
    rows = [
        {"image": name, "class": label}
        | {metric: _at(values, number, place) for metric, values in columns.items()}
        for number, name in enumerate(names)
        for place, label in enumerate([*classes, "background"])
    ]
    (root / "report" / "test.csv").write_text(to_csv(rows), "utf-8")
    (root / "report" / "test-thresholds.csv").touch()
    report = {
        "size": size, "checkpoint": "last", "decision": "p ≥ 0.5", "scores": {"mean": dict.fromkeys(METRICS)},
        "lesions": {}, "reliability": {name: bins() for name in classes},
        "inference": {"median_ms": milliseconds, "device_name": "a CPU", "height": 32, "width": 48},
    }  # fmt: skip
    (root / "report" / "test.json").write_text(json.dumps(report), "utf-8")


def make_runs(comparison: Comparison, scores: Scores, **given: Any) -> None:
    """Write a run for every cell."""
    for cell in comparison.cells:
        make_run(cell, scores(cell), **given)


def bins(confidence: float = 0.6, truth: float = 0.5, pixels: int = 100) -> dict[str, list[float]]:
    """Bins of a reliability diagram with all pixels in one of them."""
    place = int(confidence * 15)
    made = {"count": [0.0] * 15, "confidence": [0.0] * 15, "truth": [0.0] * 15}
    made["count"][place], made["confidence"][place] = pixels, confidence * pixels
    made["truth"][place] = round(truth * pixels)
    return made


def _column(values: Any, count: int, classes: Sequence[str]) -> np.ndarray:
    """(images, classes)."""
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    return np.broadcast_to(array, (count, len(classes)))


def _at(values: np.ndarray, number: int, place: int) -> float:
    """The background's are nobody's business: a number that would be seen in a mean."""
    return float(values[number, place]) if place < values.shape[1] else 1000.0
