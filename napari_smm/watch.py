"""A run as it goes on: all that a window says about it, read from its directory. No timer, no Qt."""

import json
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import lock
from engine.errors import InputError
from engine.record import RunReader, Status, last_turn, status

Event = Mapping[str, Any]

RECENT = 5
"""Epochs whose median duration tells how long the next ones will take."""


@dataclass(frozen=True)
class Beat:
    """The trainer's last heartbeat: the epoch it is in, and the step of so many."""

    epoch: int = 0
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class RunState:
    """What is known of a run at one moment.

    Attributes:
        root: the run directory.
        status: what the run is doing.
        info: run.json; None until the trainer has written it.
        epochs: the epochs' events in order; where an epoch was run again, the later one.
        total: configured number of epochs E; 0 while it is unknown.
        beat: the last heartbeat.
        warnings: sentences of the run's warnings.
        message: why the run failed or stopped, else "".
        started: whether the trainer has said that it started; all watched arrays are there then.
        resumed: how often the run was resumed. Epochs may have been run again since.
        followed: the events of masks that were taken up while the run went on.
    """

    root: Path
    status: Status = "waiting"
    info: Mapping[str, Any] | None = None
    epochs: tuple[Event, ...] = ()
    total: int = 0
    beat: Beat = field(default_factory=Beat)
    warnings: tuple[str, ...] = ()
    message: str = ""
    started: bool = False
    resumed: int = 0
    followed: tuple[Event, ...] = ()

    @property
    def newest(self) -> int:
        """Number of the newest whole epoch; 0 before the first."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else 0

    @property
    def alive(self) -> bool:
        """Whether a process trains in the directory."""
        return self.status in ("running", "stopping")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; empty until they are known."""
        return tuple(self.info["dataset"]["classes"]) if self.info else ()

    @property
    def done(self) -> float:
        """Share of the run that is done, 0…1, with the heartbeat's part of the current epoch."""
        if not self.total:
            return 0.0
        inside = (
            self.beat.step / self.beat.steps if self.beat.steps and self.beat.epoch > self.newest else 0.0
        )
        return min(1.0, (self.newest + min(inside, 1.0)) / self.total)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last configured epoch, from the median of the recent ones; None before the first."""
        took = [event["seconds"]["epoch"] for event in self.epochs[-RECENT:] if event.get("seconds")]
        if not took or not self.total:
            return None
        return float(statistics.median(took)) * (1 - self.done) * self.total


class RunWatcher:
    """Follows a run directory. Every :meth:`poll` reads only what is new, and may run in any thread,
    but only in one at a time."""

    def __init__(self, root: Path) -> None:
        """Follow a directory. Raises InputError if it does not exist."""
        self.root = root
        self._reader = RunReader(root)
        self._forget()

    def _forget(self) -> None:
        self._info: Mapping[str, Any] | None = None
        self._epochs: dict[int, Event] = {}
        self._warnings: list[str] = []
        self._followed: list[Event] = []
        self._turn = ""
        self._message = ""
        self._total = 0
        self._resumed = 0

    def poll(self) -> RunState:
        """The run's state now.

        Raises:
            InputError: run.json has a format that this version cannot read.
        """
        # The lock before the events: a trainer writes its last event, then lets go of the lock.
        held = lock.holder(self.root) is not None
        offset = self._reader.offset
        events = self._reader.poll()
        if self._reader.offset < offset:
            self._forget()  # a run that was refused has been started anew in its directory
        self._take(events)
        if self._info is None and (self.root / "run.json").exists():
            self._info = self._reader.info()
        return RunState(
            root=self.root,
            status=status(self.root, held, self._turn),
            info=self._info,
            epochs=tuple(self._epochs[number] for number in sorted(self._epochs)),
            total=self._total or configured_epochs(self.root),
            beat=read_beat(self.root),
            warnings=tuple(self._warnings),
            message=self._message,
            started=bool(self._turn),
            resumed=self._resumed,
            followed=tuple(self._followed),
        )

    def _take(self, events: Sequence[Event]) -> None:
        self._turn = last_turn(events, self._turn)
        for event in events:
            kind = event["event"]
            if kind == "epoch":
                self._epochs[event["epoch"]] = event
            elif kind == "warning":
                self._warnings.append(event["message"])
            elif kind == "followed":
                self._followed.append(event)
            elif kind == "started":
                self._total = event["epochs"]
                self._message = ""
                self._resumed += "resumed_after" in event
            elif kind in ("failed", "stopped"):
                self._message = event.get("message") or event.get("reason") or ""


def read_beat(root: Path) -> Beat:
    """The heartbeat of a run directory; zeros where there is none."""
    try:
        found = json.loads((root / "heartbeat").read_text("utf-8"))
        return Beat(int(found["epoch"]), int(found["step"]), int(found["steps"]))
    except FileNotFoundError:
        return Beat()
    except (ValueError, KeyError, TypeError):
        # It is replaced in one piece, so what is no heartbeat comes from a disk that lost it.
        return Beat()


def configured_epochs(root: Path) -> int:
    """The epochs in a directory's config.toml; 0 if it does not say."""
    return int(read_config(root).get("training", {}).get("epochs", 0))


def read_config(root: Path) -> dict[str, Any]:
    """The settings in a run directory's config.toml, as they stand, empty where there is none.

    Raises:
        InputError: it is no TOML.
    """
    try:
        return tomllib.loads((root / "config.toml").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{root / 'config.toml'} is not TOML ({error}).") from None


def same_run(first: Path | None, second: Path | None) -> bool:
    """Whether two paths mean one run directory."""
    return first is not None and second is not None and first.resolve() == second.resolve()
