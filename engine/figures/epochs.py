"""Epochs: what a run measured in each, as columns, and the limits of axes that show them.

Loads neither torch nor matplotlib, so that a window can draw them in its own way.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.record import RunReader

Floats = NDArray[np.float64]

QUEUE = 15
"""Recalls in a slope where the run's settings do not say (definitions: L)."""


@dataclass(frozen=True)
class History:
    """The epochs of a run as columns; what was not measured is NaN. n epochs, C classes.

    Attributes:
        number: int (n,), 1…E, ascending.
        loss, lr, recall, slope, gamma, validation_loss: (n,).
        dice, validation_recall, precision: of the validation images, (n, C).
        added: pixels that modulation added, (n, C).
        updated, warmup: bool (n,).
        leading: bool (n,), whether validation was better than in every epoch before.
        epochs: E, the configured number of epochs; 0 before the first one.
        queue: recalls in a slope.
        classes: names of the C foreground classes.
    """

    number: NDArray[np.int64]
    loss: Floats
    lr: Floats
    recall: Floats
    slope: Floats
    gamma: Floats
    updated: NDArray[np.bool_]
    warmup: NDArray[np.bool_]
    added: Floats
    validation_loss: Floats
    dice: Floats
    validation_recall: Floats
    precision: Floats
    leading: NDArray[np.bool_]
    epochs: int
    queue: int
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, events: Sequence[Mapping[str, Any]], classes: Sequence[str] = (), queue: int = QUEUE
    ) -> "History":
        """From `epoch` events in order, each epoch once, as ``RunReader.epochs()`` gives them.

        Classes without names are numbered from 1.
        """
        named = tuple(classes) or tuple(f"class {c + 1}" for c in range(_classes_in(events)))
        scores = [event["validation"] or {} for event in events]

        def column(name: str, rows: Sequence[Mapping[str, Any]] = events) -> Floats:
            return np.array([_number(row.get(name)) for row in rows], dtype=np.float64)

        def table(name: str, rows: Sequence[Mapping[str, Any]]) -> Floats:
            missing = [None] * len(named)
            values = [[_number(value) for value in row.get(name) or missing] for row in rows]
            return np.array(values, dtype=np.float64).reshape(len(rows), len(named))

        def flag(name: str) -> NDArray[np.bool_]:
            return np.array([bool(event[name]) for event in events], dtype=np.bool_)

        return cls(
            number=np.array([event["epoch"] for event in events], dtype=np.int64),
            loss=column("loss"), lr=column("lr"), recall=column("recall"),
            slope=column("slope"), gamma=column("gamma"),
            updated=flag("updated"), warmup=flag("warmup"),
            added=np.nan_to_num(table("added", events)),
            validation_loss=column("loss", scores),
            dice=table("dice", scores), validation_recall=table("recall", scores),
            precision=table("precision", scores),
            leading=np.array([bool(e["best"] and e["validation"]) for e in events], dtype=np.bool_),
            epochs=int(events[-1]["epochs"]) if events else 0,
            queue=queue,
            classes=named,
        )  # fmt: skip

    def until(self, epoch: int) -> "History":
        """What was known after an epoch: all rows up to its number."""
        rows = self.number <= epoch
        columns: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        cut = {name: value[rows] for name, value in columns.items() if isinstance(value, np.ndarray)}
        return History(**columns | cut)

    @property
    def best(self) -> int:
        """The number of the best epoch, or 0 without validation."""
        return int(self.number[self.leading].max(initial=0))

    @property
    def validated(self) -> bool:
        """Whether there were validation images."""
        return bool(np.isfinite(self.validation_loss).any() or np.isfinite(self.dice).any())

    @property
    def modulated(self) -> bool:
        """Whether masks could have changed."""
        return bool(self.added.any() or self.updated.any() or np.isfinite(self.gamma).any())

    def fit(self, row: int) -> tuple[Floats, Floats]:
        """The line that was fitted after a row's epoch: its two ends, epochs (2,) and recalls (2,).

        It runs through the middle of the recalls it was fitted to. NaN where there was no slope.
        """
        rows = slice(max(0, row + 1 - self.queue), row + 1)
        x, recall = self.number[rows].astype(np.float64), self.recall[rows]
        seen = np.isfinite(recall)
        ends = x[[0, -1]]
        if not seen.any() or not math.isfinite(self.slope[row]):
            return ends, np.full(2, np.nan)
        return ends, recall[seen].mean() + self.slope[row] * (ends - x[seen].mean())


def read_history(run: RunReader) -> History:
    """The epochs that a run has finished so far.

    Raises:
        InputError: none has.
    """
    epochs = run.epochs()
    if not epochs:
        raise InputError(f"{run.root} has no finished epoch, so there are no curves to draw yet.")
    return History.of(epochs, [str(name) for name in run.info()["dataset"]["classes"]], queue_of(run))


def queue_of(run: RunReader) -> int:
    """How many recalls the run's settings put in a slope."""
    try:
        settings = tomllib.loads((run.root / "config.toml").read_text("utf-8"))
    except FileNotFoundError:
        return QUEUE
    return int(settings.get("modulation", {}).get("queue", QUEUE))


def slope_limits(history: History) -> tuple[float, float]:
    """Limits of the slope's axis: all β, or, where a steep start would flatten the rest, those decided on."""
    decided = ~history.warmup & np.isfinite(history.slope)
    held = [history.slope[decided], history.gamma[np.isfinite(history.gamma)], np.zeros(1)]
    every = np.concatenate([history.slope[np.isfinite(history.slope)], *held])
    values = np.concatenate(held)
    if np.ptp(values) * 2 > np.ptp(every) or decided.sum() < 2:
        values = every
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low) if high - low > 1e-9 else 1e-3
    return low - margin, high + margin


def unit_limits(*columns: Floats) -> tuple[float, float]:
    """Limits around scores that lie in 0…1."""
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = max(0.06 * (high - low), 0.02)
    return max(low - margin, -0.02), min(high + margin, 1.02)


def tenth_limits(values: Floats) -> tuple[float, float]:
    """Limits around scores 0…1, at whole tenths, so that they seldom move while a run goes on."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low = max(math.floor(float(values.min()) * 10 - 1e-9), 0)
    high = min(math.ceil(float(values.max()) * 10 + 1e-9), 10)
    return min(low, 9) / 10, max(high, low + 1) / 10 + 0.01 * (high >= 10)


def class_mean(values: Floats) -> Floats:
    """Mean over the classes that are defined, (n, C) → (n,); NaN where none is."""
    there = np.isfinite(values)
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _classes_in(events: Sequence[Mapping[str, Any]]) -> int:
    """How many classes an epoch's counts and scores are of; 0 where no epoch says."""
    listed = [event["added"] or (event["validation"] or {}).get("dice") or () for event in events[-1:]]
    return max((len(values) for values in listed), default=0)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
