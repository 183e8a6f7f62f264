"""What there is of a cell: its run, whole or in part, and its scores. Imports no torch.

All of it is read from the run directory, so that it is the same for whoever asks, on any machine.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine import lock
from engine.comparison.grid import Cell, Comparison
from engine.config import RunConfig, read_file, resolve
from engine.errors import InputError
from engine.record import RunReader

State = Literal["absent", "unfinished", "running", "finished"]
ELSEWHERE = frozenset({"training.device", "training.threads", "data.cache"})
"""Settings that say where and with how much of a machine a run is trained, not what it is."""
PARTS = frozenset({"size", "checkpoint", "decision", "scores", "reliability", "inference"})
"""What a report must have; those of older versions have less."""


@dataclass(frozen=True)
class Scoring:
    """How test images are scored.

    Attributes:
        size: "native" or "trained".
        checkpoint: "best" or "last"; None for best where there is one and a val split, else last.
        metrics: names that the report must have.
    """

    size: str
    checkpoint: str | None
    metrics: tuple[str, ...]

    @classmethod
    def of(cls, comparison: Comparison) -> "Scoring":
        """A comparison's."""
        return cls(comparison.size, comparison.checkpoint, comparison.metrics)


def state(run: Path) -> State:
    """How far a run is. What was refused before it had a run.json is absent."""
    if not (run / "run.json").is_file():
        return "running" if run.is_dir() and lock.holder(run) is not None else "absent"
    found = RunReader(run).status()
    if found in ("running", "stopping"):
        return "running"
    return "finished" if found == "finished" else "unfinished"


def refuse_another(cell: Cell) -> None:
    """Raise InputError if a run with other settings is in the cell's folder, naming the first of them."""
    if not (cell.folder / "run.json").is_file():
        return
    there, _ = resolve([read_file(cell.folder / "config.toml")])
    found = difference(there, cell.config)
    if found is not None:
        setting, is_there, asked = found
        raise InputError(
            f"the run {cell.folder} was trained with {setting} = {is_there!r}, and {cell.name} has "
            f"{asked!r}: give another --out, the same setting, or move that run away."
        )


def difference(there: RunConfig, asked: RunConfig) -> tuple[str, Any, Any] | None:
    """The first setting in which two configs differ, with both values; None if they give the same run.

    Settings of :data:`ELSEWHERE` may differ. Of parts with different names, the names differ.
    """
    first, second = there.model_dump(mode="json"), asked.model_dump(mode="json")
    for group, values in second.items():
        others = first[group]
        keys = ["name"] if values.get("name") != others.get("name") else values
        for key in keys:
            if others[key] != values[key] and f"{group}.{key}" not in ELSEWHERE:
                return f"{group}.{key}", others[key], values[key]
    return None


def scores(run: Path, scoring: Scoring) -> dict[str, Any] | None:
    """report/test.json of a finished run; None if it is missing, broken, older than the weights, or of
    another size, checkpoint or decision than asked for, or lacks what tables and figures are made of."""
    path = run / "report" / "test.json"
    beside = (path, path.with_name("test.csv"), path.with_name("test-thresholds.csv"))
    if state(run) != "finished" or not all(file.is_file() for file in beside):
        return None
    info = RunReader(run).info()
    best = (run / "checkpoints" / "best").is_file() and info["splits"]["val"]
    checkpoint = scoring.checkpoint or ("best" if best else "last")
    weights = run / "checkpoints" / checkpoint
    if not weights.is_file() or path.stat().st_mtime < weights.stat().st_mtime:
        return None
    asked = {"size": scoring.size, "checkpoint": checkpoint}
    rule = "argmax" if info["head"] == "softmax" else "p ≥ 0.5"
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        known = {*report["scores"]["mean"], "inference_ms"}
        whole = set(report) >= PARTS and set(scoring.metrics) <= known
        right = all(report[key] == value for key, value in asked.items())
        return report if whole and right and report["decision"].startswith(rule) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # no JSON, or not that of a report


def mean_dice(report: dict[str, Any]) -> float | None:
    """Mean foreground Dice over the test images; None where it is not defined."""
    value: float | None = report["scores"]["mean"]["dice"]["value"]
    return value
