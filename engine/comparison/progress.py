"""Progress over the grid: what is done of all epochs, which cells are running, when it will end."""

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from tqdm import tqdm

from engine import lock
from engine.comparison.execute import Outcome
from engine.comparison.grid import Cell
from engine.comparison.state import Scoring, mean_dice, scores
from engine.record import RunReader

NAMED = 2
"""Running cells that are named behind the bar."""


class Following:
    """How far one run is, read from its directory as it grows, on whatever machine that happens.

    Attributes:
        total: configured epochs.
        epochs: those done when :meth:`look` was last called.
        ended: whether nothing more is to come.
        done: whether it has its scores.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.total = cell.config.training.epochs
        self.ended = self.done = False
        self.epochs = 0.0
        self._reader: RunReader | None = None
        self._whole = 0

    def look(self) -> float:
        """Epochs done, with the part of the one that is running; all of them once the cell is done."""
        if not self.ended and self.cell.folder.is_dir():
            self._reader = self._reader or RunReader(self.cell.folder)
            for event in self._reader.poll():
                self._whole = int(event["epoch"]) if event["event"] == "epoch" else self._whole
            self.epochs = max(float(self._whole), _in_heartbeat(self.cell.folder))
        return self.total if self.done else self.epochs

    @property
    def doing(self) -> str:
        """What is going on, in words; empty if nothing is."""
        if self.ended or not self.cell.folder.is_dir():
            return ""
        if self.epochs >= self.total:
            return f"{self.cell.name} scoring"
        held = lock.holder(self.cell.folder) is not None
        return f"{self.cell.name} {int(self.epochs)}/{self.total}" if held else ""


def _in_heartbeat(run: Path) -> float:
    try:
        beat = json.loads((run / "heartbeat").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return 0.0
    if not beat["steps"] or not beat["epoch"]:
        return 0.0
    return float(beat["epoch"] - 1 + min(1.0, beat["step"] / beat["steps"]))


class GridBar:
    """A bar over the epochs of all cells, on a terminal, and a line for each cell that ends.

    Epochs that were done before count as done, but not for the time that remains.
    """

    def __init__(
        self, cells: Sequence[Cell], done: Collection[Path], scoring: Scoring, *, quiet: bool
    ) -> None:
        """Begin, with the run directories of the cells that are `done`."""
        self._following = {cell.folder: Following(cell) for cell in cells}
        for folder in done:
            self._following[folder].ended = self._following[folder].done = True
        self._scoring = scoring
        self._quiet = quiet
        self._bar = tqdm(
            total=sum(run.total for run in self._following.values()), unit="epoch", dynamic_ncols=True,
            initial=sum(run.look() for run in self._following.values()), smoothing=0,
            disable=quiet or not sys.stderr.isatty(),
            bar_format="{percentage:3.0f}%|{bar:16}| {elapsed}<{remaining} {desc}",
        )  # fmt: skip

    def __enter__(self) -> "GridBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self) -> None:
        """Look at the run directories, and draw the bar anew."""
        if self._bar.disable:
            return
        self._bar.n = sum(run.look() for run in self._following.values())
        doing = [words for run in self._following.values() if (words := run.doing)]
        more = [f"and {len(doing) - NAMED} more"] if len(doing) > NAMED else []
        self._bar.set_description_str(", ".join(doing[:NAMED] + more), refresh=False)
        self._bar.refresh()

    def end(self, cell: Cell, outcome: Outcome) -> None:
        """Say how a cell ended."""
        run = self._following[cell.folder]
        run.ended, run.done = True, outcome.kind == "done"
        if self._quiet:
            return
        report = scores(cell.folder, self._scoring) if outcome.kind == "done" else None
        dice = mean_dice(report) if report is not None else None
        words = outcome.kind if report is None else "Dice –" if dice is None else f"Dice {100 * dice:.2f} %"
        done = sum(run.done for run in self._following.values())
        text = f"{cell.name}: {words} ({done} of {len(self._following)} done)"
        text += f": {outcome.reason}" if outcome.reason else ""
        self._bar.write(text) if not self._bar.disable else print(text, flush=True)
