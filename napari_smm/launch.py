"""Runs as processes of their own: started, stopped, resumed and found again. No torch, no Qt.

A run needs nothing from the process that started it: its output goes to a file, it is in a session of
its own, and all that is known of it later is read from its directory.
"""

import json
import os
import re
import site
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

from filelock import FileLock

import engine
from engine import lock
from engine.config import RunConfig, to_toml
from engine.disk import replace_text
from engine.errors import InputError
from engine.record import ENDINGS, RunReader, Status, new_folder, refuse_used, status

Event = Mapping[str, Any]

LOG = "log.txt"
LOG_BYTES = 65536
"""Of a long log so much is read, from its end."""
LAST_WORDS = re.compile(r"error: |interrupted$|[\w.]*(Error|Exception)(: |$)|.*: No module named ")
"""The last line that a trainer prints which gives up: a refusal, or the end of a traceback."""
KIND = re.compile(rb'"event":\s*"(\w+)"')
BEST = re.compile(rb'"best":\s*true')
TURNS = frozenset({b"started", *(name.encode() for name in ENDINGS)})


class Process:
    """A trainer that was started here. It lives on without this object, and leaves no zombie.

    Attributes:
        pid: the process's number.
        started: when it was started, in seconds since 1970.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", started: float) -> None:
        """Take charge of a process that was just started."""
        self.pid = popen.pid
        self.started = started
        self._popen = popen
        # Whoever started a process has to ask for its end, be this object still there or not.
        threading.Thread(target=popen.wait, name=f"trainer {popen.pid}", daemon=True).start()

    def poll(self) -> int | None:
        """The exit code, negative for a signal's number; None while the process lives."""
        return self._popen.poll()


@dataclass(frozen=True)
class RunEntry:
    """A run directory as a list shows it.

    Attributes:
        path: the run directory.
        status: what the run is doing; None if the directory cannot be read.
        started: its first event, or when the directory was made; None if that is unknown.
        data: name of the data's folder.
        method: name of the modulation.
        host: machine on which it began; empty until the trainer has said so.
        epoch: the last whole epoch, 0 before the first.
        epochs: configured number of epochs; 0 if unknown.
        dice: mean over the classes on the validation images in the best epoch so far; None without.
        problem: why the directory cannot be read, else empty.
    """

    path: Path
    status: Status | None = None
    started: datetime | None = None
    data: str = ""
    method: str = ""
    host: str = ""
    epoch: int = 0
    epochs: int = 0
    dice: float | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.name


def home() -> Path:
    """The workbench's folder: $NAPARI_SMM_HOME, or `napari-smm` in the user's own."""
    given = os.environ.get("NAPARI_SMM_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / "napari-smm"


def runs_folder() -> Path:
    """Where runs are kept that are started in the window; is made with the first."""
    return home() / "runs"


def new_run_folder(config: RunConfig, parent: Path) -> Path:
    """A path below `parent` for a run's directory that is not taken yet."""
    return new_folder(parent, config.data.root, config.modulation.name)


def start(config: RunConfig, folder: Path) -> Process:
    """Start a run in a new directory, which gets `config.toml` and `log.txt`.

    What the trainer refuses, such as the data, it says in the directory: see :func:`status_of`.

    Raises:
        InputError: there is no data root, the directory is used or cannot be made, or no process started.
    """
    if not config.data.root:
        raise InputError(
            "there is nothing to train on: data.root is empty, and a folder or `demo` would work."
        )
    folder = folder.expanduser().absolute()
    located = config.located()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_used(folder)
        _refuse_held(folder)
        (folder / "stop").unlink(missing_ok=True)
        replace_text(folder / "config.toml", to_toml(located))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"the run directory {folder} cannot be made ({reason}): another place would work."
        ) from error
    return _launch(["--config", str(folder / "config.toml"), "--out", str(folder)], folder)


def resume(folder: Path) -> Process:
    """Go on with a run that was stopped, failed or crashed.

    Raises:
        InputError: there is no run, it has finished or is still going on, or no process started.
    """
    folder = folder.expanduser().absolute()
    reader = RunReader(folder)
    reader.info()
    _refuse_held(folder)
    if reader.status() == "finished":
        raise InputError(f"the run {folder} has finished all its epochs: a new run would work.")
    return _launch(["--resume", str(folder)], folder)


def request_stop(folder: Path) -> None:
    """Ask a run to end at the next batch, wherever it runs.

    Raises:
        InputError: the directory is gone or cannot be written.
    """
    try:
        (folder / "stop").touch()
    except OSError as error:
        raise InputError(
            f"the run {folder} cannot be stopped from here ({error.strerror}): a file named stop in its "
            "directory ends it."
        ) from error


def _refuse_held(folder: Path) -> None:
    holder = lock.holder(folder)
    if holder is not None:
        raise InputError(
            f"the run directory {folder} is in use by process {holder.pid} on {holder.host}: "
            "wait for it, stop it, or give another directory."
        )


def _launch(arguments: Sequence[str], folder: Path) -> Process:
    """Start the trainer detached, with its output in the directory's log."""
    if not sys.executable:
        raise InputError("Python's own program is not known here, so no process can be started.")
    # -P: what lies in the current folder must not take the place of the engine's modules.
    command = [sys.executable, "-P", "-m", "engine.train", *arguments, "--quiet"]
    started = time.time()
    try:
        with (folder / LOG).open("ab") as log:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
                env=environment(), **detached(),
            )  # fmt: skip
    except OSError as error:
        raise InputError(f"the trainer cannot be started in {folder} ({error.strerror or error}).") from error
    return Process(popen, started)


def detached() -> dict[str, Any]:
    """Arguments by which a process outlives this one and gets none of its Ctrl-C."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def environment() -> dict[str, str]:
    """This process's environment, in which the same engine is found."""
    found = {**os.environ, "PYTHONUNBUFFERED": "1"}
    root = Path(engine.__file__).resolve().parents[1]
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()}
    if root not in {Path(place).resolve() for place in places}:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    return found


def status_of(folder: Path, process: Process | None = None) -> Status:
    """What a run is doing, with what is known of the process that was started for it.

    As `RunReader.status`, but a trainer that was started and has not taken the directory yet is
    "waiting" even where the directory tells of an earlier end, and one that ended without ever taking
    it has "failed".

    Raises:
        InputError: there is no such directory.
    """
    code = None if process is None else process.poll()
    RunReader(folder)  # refuses a directory that is not there
    # The lock before the events: a trainer writes its last event, then lets go of the lock.
    held = lock.holder(folder) is not None
    turn = _events(folder).turn
    found = status(folder, held, turn["event"] if turn else "")
    if found in ("running", "stopping", "finished"):
        return found
    if process is None:
        return "failed" if found == "waiting" and _last_words(folder) else found
    if _took(folder, turn, process):
        return found
    return "waiting" if code is None else "failed"


def _took(folder: Path, turn: Event | None, process: Process) -> bool:
    """Whether a process has come so far as to take the directory."""
    if turn is not None and _time(turn).timestamp() >= process.started - 0.001:
        return True
    held = lock.read(folder)
    # A process's start is counted from the boot, whose time the system corrects: see engine.lock.
    return held is not None and (held.pid == process.pid or held.started > process.started - 2)


def failure(folder: Path) -> str:
    """Why a run failed, in a sentence: from its failed event, else from what the trainer said last."""
    turn = _events(folder).turn
    if turn is not None and turn["event"] == "failed":
        return str(turn["message"])
    words = _last_words(folder)
    return words.removeprefix("error: ") if words else "the trainer ended without a word."


def log_tail(folder: Path, lines: int = 20) -> list[str]:
    """The last lines of a run's log, without reading all of a long one; empty where there is none."""
    try:
        with (folder / LOG).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = text.splitlines()
    whole = found[1:] if size > LOG_BYTES else found
    return whole[-lines:] if lines > 0 else []


def _last_words(folder: Path) -> str:
    """The log's last line if a trainer ends with such a one, else an empty text."""
    spoken = [line for line in log_tail(folder) if line.strip()]
    return spoken[-1].strip() if spoken and LAST_WORDS.match(spoken[-1]) else ""


def find_runs(*folders: Path, depth: int = 2) -> list[RunEntry]:
    """The run directories in some folders, newest first.

    What cannot be read is in the list too and says why. A run whose files have not changed since the
    last call costs a few looks at the directory.

    Args:
        folders: run directories, or folders that hold some.
        depth: how far below a folder is looked; 0 is the folder alone.
    """
    found: dict[Path, RunEntry] = {}
    for folder in folders:
        for path, problem in _directories(folder.expanduser().absolute(), depth):
            real = path.resolve()
            if real not in found:
                found[real] = RunEntry(path, problem=problem) if problem else _entry(path)
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(found.values(), key=lambda entry: (entry.started or never, entry.name), reverse=True)


def running_here(folders: Sequence[Path]) -> list[Path]:
    """Run directories in some folders in which a process of this machine trains now."""
    running = [entry.path for entry in find_runs(*folders) if entry.status in ("running", "stopping")]
    holders = {path: lock.read(path) for path in running}
    return [path for path, held in holders.items() if held and held.host == socket.gethostname()]


def _directories(folder: Path, depth: int, top: bool = True) -> Iterator[tuple[Path, str]]:
    """Run directories, and folders that cannot be looked into with the reason."""
    try:
        with os.scandir(folder) as items:
            names = {item.name: item.is_dir() for item in items if not item.name.startswith(".")}
    except OSError as error:
        # Folders come and go while one looks, and the window's own is made with the first run.
        gone = isinstance(error, FileNotFoundError) and (not top or folder == runs_folder())
        if not gone:
            yield folder, f"{folder} cannot be looked into ({error.strerror})."
        return
    if "run.json" in names or "events.jsonl" in names or {"config.toml", LOG} <= names.keys():
        yield folder, ""
    elif depth > 0:
        for name in sorted(name for name, is_folder in names.items() if is_folder):
            yield from _directories(folder / name, depth - 1, top=False)


@dataclass(frozen=True)
class _Events:
    """The events that say what a list shows; None where there is no such one yet."""

    first: Event | None = None
    turn: Event | None = None
    """The last of started, stopped, failed and finished."""
    epoch: Event | None = None
    """The last whole epoch."""
    best: Event | None = None
    """The epoch that was the best so far."""


def _entry(path: Path) -> RunEntry:
    try:
        return _read_entry(path)
    except InputError as error:
        return RunEntry(path, problem=str(error))
    except OSError as error:
        return RunEntry(path, problem=f"{path} cannot be read ({error.strerror}).")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return RunEntry(path, problem=f"{path} cannot be read ({type(error).__name__}: {error}).")


def _read_entry(path: Path) -> RunEntry:
    config = _cached(_read_config, path / "config.toml") or {}
    info = _cached(_read_info, path / "run.json") or {}
    kept = status_of(path)
    events = _events(path)
    latest = events.epoch or events.turn or {}
    return RunEntry(
        path=path,
        status=kept,
        started=_time(events.first) if events.first else _made(path),
        # A path of another system, too, has a last part.
        data=PureWindowsPath(config.get("data", {}).get("root", "")).name,
        method=config.get("modulation", {}).get("name", ""),
        host=info.get("host", ""),
        epoch=int(events.epoch["epoch"]) if events.epoch else 0,
        epochs=int(latest.get("epochs") or config.get("training", {}).get("epochs", 0)),
        dice=_mean_dice(events.best),
    )


def _mean_dice(best: Event | None) -> float | None:
    scores = ((best or {}).get("validation") or {}).get("dice") or []
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _made(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp((path / "config.toml").stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event["time"])


def _cached(read: Any, path: Path) -> Any:
    """What a reader makes of a file, remembered until the file changes; None where there is none."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return None
    return read(path, now.st_mtime_ns, now.st_size)


def _events(folder: Path) -> _Events:
    found: _Events | None = _cached(_read_events, folder / "events.jsonl")
    return found or _Events()


@lru_cache(maxsize=1024)
def _read_config(path: Path, changed: int, size: int) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


@lru_cache(maxsize=1024)
def _read_info(path: Path, changed: int, size: int) -> dict[str, Any]:
    info = RunReader(path.parent).info()
    return {"host": info.get("host", "")}


@lru_cache(maxsize=1024)
def _read_events(path: Path, changed: int, size: int) -> _Events:
    """The telling events, found from the end without parsing the others."""
    whole = path.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1].splitlines()
    turn = epoch = best = None
    for line in reversed(lines):
        kind = KIND.search(line)
        if kind is None:
            raise InputError(f"{path} holds a line that is no event: {line[:40]!r}.")
        if turn is None and kind[1] in TURNS:
            turn = json.loads(line)
        elif kind[1] == b"epoch":
            epoch = epoch or json.loads(line)
            if best is None and BEST.search(line):
                best = json.loads(line)
        if turn and epoch and best:
            break
    return _Events(json.loads(lines[0]) if lines else None, turn, epoch, best)


def remembered() -> list[Path]:
    """Run directories and folders of some that the user added, in the order in which they were.

    Raises:
        InputError: the file in which they are kept is broken.
    """
    path = home() / "remembered.json"
    try:
        return [Path(text) for text in json.loads(path.read_text("utf-8"))["folders"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}): delete it and add the folders again."
        ) from None


def remember(folder: Path) -> None:
    """Keep a run directory or a folder of some, such as a server's, for the next time.

    Raises:
        InputError: there is no such folder, or nothing can be kept.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    _change_remembered(add=folder)


def forget(folder: Path) -> None:
    """Remember a folder no more; the folder itself stays. Raises InputError if that cannot be kept."""
    _change_remembered(drop=folder.expanduser().absolute())


def _change_remembered(add: Path | None = None, drop: Path | None = None) -> None:
    path = home() / "remembered.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two windows may remember at once.
        with FileLock(path.with_name(".remembered.lock")):
            kept = [folder for folder in remembered() if folder not in (add, drop)]
            texts = [str(folder) for folder in [*kept, *([add] if add else [])]]
            replace_text(path, json.dumps({"folders": texts}, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}).") from error
