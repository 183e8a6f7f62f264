"""The runs that can be watched, and what a list says of each. No Qt."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.errors import InputError
from napari_smm import launch
from napari_smm.launch import Process, RunEntry
from napari_smm.status import SYMBOLS, WORDS, explanation
from napari_smm.watch import RunState, RunWatcher

COLUMNS = ("Run", "Status", "Epoch", "Data", "Method", "Started")
LOG_LINES = 8
"""Of a log, in the details of a run that ended badly."""
STATUS_WORDS = {**WORDS, "waiting": "Waiting"}
"""No trainer may be on its way to a directory that waits for one."""


@dataclass(frozen=True)
class Details:
    """What is said of the selected run beside its row.

    Attributes:
        path: the run directory.
        explanation: why it ended early, or cannot be read; else empty.
        best: number of the best epoch and its mean Dice on the validation images; None without.
        warnings: the run's, in the order in which they came.
        log: its last lines where they may explain something.
    """

    path: Path
    explanation: str = ""
    best: tuple[int, float] | None = None
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A run in the list.

    Attributes:
        entry: what is known of it.
        folder: the remembered folder for whose sake it is in the list; None if it is there anyway.
        watched: whether it is the run that is watched.
        begun: whether its trainer has come so far that the run could be resumed.
        empty: whether it stands for a remembered folder in which there is no run.
    """

    entry: RunEntry
    folder: Path | None = None
    watched: bool = False
    begun: bool = False
    empty: bool = False

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.entry.path

    @property
    def can_watch(self) -> bool:
        """Whether it can be read as a run."""
        return self.entry.status is not None

    @property
    def can_stop(self) -> bool:
        """Whether a process trains in it that was not told to stop yet."""
        return self.entry.status == "running"

    @property
    def can_resume(self) -> bool:
        """Whether it ended early, after it had begun."""
        return self.entry.status in ("stopped", "failed", "crashed") and self.begun


@dataclass(frozen=True)
class Listing:
    """The runs at one moment, newest first.

    Attributes:
        rows: the runs, and remembered folders in which there is none.
        looked_in: the folders that were looked into.
        problem: why some folders could not be, else empty.
        details: of the selected run; None if none is selected, or it is gone.
        seconds: that looking took.
    """

    rows: tuple[Row, ...] = ()
    looked_in: tuple[Path, ...] = ()
    problem: str = ""
    details: Details | None = None
    seconds: float = 0.0


class RunFinder:
    """Finds the runs again and again. Every :meth:`look` reads only what is new, and may run in any
    thread, but only in one at a time."""

    def __init__(self) -> None:
        """Know of no run yet."""
        self._watcher: RunWatcher | None = None

    def look(
        self,
        watched: Path | None = None,
        selected: Path | None = None,
        processes: Mapping[Path, Process] | None = None,
    ) -> Listing:
        """The runs now: below the workbench's folder, in the remembered ones, and beside the watched run.

        Args:
            watched: the watched run's directory.
            selected: the directory whose details are wanted.
            processes: trainers that were started here, by run directory.
        """
        began = time.perf_counter()
        problem = ""
        try:
            kept = launch.remembered()
        except InputError as error:
            kept, problem = [], str(error)
        own = launch.runs_folder()
        entries = launch.find_runs(own, *kept)
        looked_in = [own, *kept]
        if watched is not None and watched.parent not in looked_in:
            looked_in.append(watched.parent)
            entries = merged(entries, launch.find_runs(watched.parent, depth=1))
        real = None if watched is None else watched.resolve()
        rows = [
            Row(
                entry=_known(entry, processes or {}),
                folder=_kept_by(entry.path, own, kept),
                watched=real is not None and entry.path.resolve() == real,
                begun=entry.status is not None and (entry.path / "run.json").is_file(),
            )
            for entry in entries
        ]
        rows += [_empty(folder) for folder in kept if not _holds_one(folder, entries)]
        chosen = next((row for row in rows if row.path == selected), None)
        details = None if chosen is None else self._details(chosen.entry)
        return Listing(tuple(rows), tuple(looked_in), problem, details, time.perf_counter() - began)

    def _details(self, entry: RunEntry) -> Details:
        if entry.status is None:
            return Details(entry.path, entry.problem)
        try:
            if self._watcher is None or self._watcher.root != entry.path:
                self._watcher = RunWatcher(entry.path)
            return details(self._watcher.poll(), entry)
        except (InputError, OSError) as error:
            return Details(entry.path, str(error))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            return Details(entry.path, f"{entry.path} cannot be read ({type(error).__name__}: {error}).")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory, begun or waiting for its trainer, and not one that holds some."""
    begun = any((folder / name).is_file() for name in ("run.json", "events.jsonl"))
    return begun or all((folder / name).is_file() for name in ("config.toml", launch.LOG))


def details(state: RunState, entry: RunEntry) -> Details:
    """What is to be said of a run, which needs a look at its log where it ended badly.

    Args:
        state: all that is known of the run.
        entry: its entry, whose status counts.
    """
    early = entry.status in ("failed", "crashed", "waiting")
    why = launch.failure(entry.path) if entry.status == "failed" else explanation(state)
    return Details(
        path=entry.path,
        explanation=why,
        best=best_epoch(state.epochs),
        warnings=state.warnings,
        log=tuple(launch.log_tail(entry.path, LOG_LINES)) if early else (),
    )


def best_epoch(epochs: Iterable[Mapping[str, Any]]) -> tuple[int, float] | None:
    """Number and mean foreground Dice of the best validated epoch; None without validation."""
    best = None
    for event in epochs:
        scores = [score for score in (event.get("validation") or {}).get("dice") or [] if score is not None]
        if event["best"] and scores:
            best = int(event["epoch"]), sum(scores) / len(scores)
    return best


def merged(first: list[RunEntry], second: list[RunEntry]) -> list[RunEntry]:
    """Two lists as one, newest first, each directory once."""
    known = {entry.path.resolve() for entry in first}
    both = first + [entry for entry in second if entry.path.resolve() not in known]
    return sorted(both, key=lambda entry: entry.started.timestamp() if entry.started else 0.0, reverse=True)


def cells(row: Row, now: datetime) -> tuple[str, ...]:
    """A row's texts in the order of COLUMNS.

    Args:
        row: of the list.
        now: with its time zone, in which the start is told.
    """
    entry = row.entry
    return (
        f"● {entry.name}" if row.watched else entry.name,
        status_words(row),
        f"{entry.epoch} / {entry.epochs}" if entry.epochs else "",
        entry.data,
        entry.method,
        started_words(entry.started, now),
    )


def status_words(row: Row) -> str:
    """A run's status as a sign and a word."""
    status = row.entry.status
    if status is not None:
        return f"{SYMBOLS[status]} {STATUS_WORDS[status]}"
    return "– No runs" if row.empty else "? Unreadable"


def started_words(started: datetime | None, now: datetime) -> str:
    """When a run was started: the time if it was today, else the day, with its year if it was another."""
    if started is None:
        return ""
    here = started.astimezone(now.tzinfo)
    if here.date() == now.date():
        return f"{here:%H:%M}"
    return f"{here.day} {here:%b}" if here.year == now.year else f"{here.day} {here:%b %Y}"


def _empty(folder: Path) -> Row:
    sentence = f"there is no run in {folder} yet, nor in the two levels of folders below it."
    return Row(RunEntry(folder, problem=sentence), folder=folder, empty=True)


def _known(entry: RunEntry, processes: Mapping[Path, Process]) -> RunEntry:
    """The entry, with the status that follows from a trainer that was started for it here."""
    process = processes.get(entry.path)
    if process is None or entry.status is None:
        return entry
    try:
        return replace(entry, status=launch.status_of(entry.path, process))
    except InputError as error:  # the directory has gone meanwhile
        return RunEntry(entry.path, problem=str(error))


def _holds_one(folder: Path, entries: Iterable[RunEntry]) -> bool:
    real = folder.resolve()
    return any(entry.path.resolve().is_relative_to(real) for entry in entries)


def _kept_by(path: Path, own: Path, kept: Iterable[Path]) -> Path | None:
    """The innermost remembered folder that a directory is in; None if it would be listed anyway."""
    holding = [folder for folder in kept if path.is_relative_to(folder)]
    if not holding or path.is_relative_to(own):
        return None
    return max(holding, key=lambda folder: len(folder.parts))
