"""The run directory: all that a training process and a viewer share. Imports no torch.

``RunWriter`` is held by the one process that trains; ``RunReader`` can be opened by anyone, at
any time, on any machine that sees the files. `docs/run-directory.md` describes the format.
"""

import errno
import json
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

import numpy as np
import psutil
import zarr
from filelock import FileLock
from numpy.typing import NDArray

from engine.errors import InputError

FORMAT = 1
"""Version of the directory's layout, in run.json."""

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A trainer on another host is taken for dead when its heartbeat is older."""

FREE_FILES = frozenset({"config.toml", "log.txt", "stop", "events.jsonl", "heartbeat", "lock", "cache"})
"""What a directory may hold and still be free: what a viewer puts there before the trainer starts,
and what a run leaves that was refused before it had a run.json."""

Status = Literal["waiting", "running", "stopping", "stopped", "failed", "finished", "crashed"]
ENDINGS: dict[str, Status] = {"stopped": "stopped", "failed": "failed", "finished": "finished"}


@dataclass
class Progress:
    """Where the training loop is; written by the loop, read by the heartbeat and the progress bar.

    `stop` is the one thing that others write: the loop then ends at the next batch.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    stop: bool = False
    reason: str = ""


@dataclass(frozen=True)
class WatchedItem:
    """An image that is kept for every epoch.

    Attributes:
        name: the case's name.
        split: "train" or "val".
        image: (*S, channels) as it was read.
        truth: bool (C, *S).
        valid: bool (*S).
        origin: first pixel of the crop in the image's own frame, all 0 where the whole image is kept.
    """

    name: str
    split: str
    image: NDArray[Any]
    truth: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    origin: tuple[int, ...]


@dataclass(frozen=True)
class Lock:
    """Who trains in a directory. `started` is the process's start time, which tells reused pids apart."""

    host: str
    pid: int
    started: float

    def alive(self) -> bool | None:
        """Whether the process runs; None if it is on another host and cannot be asked."""
        if self.host != socket.gethostname():
            return None
        if self.pid <= 0:
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.NoSuchProcess:
            return False


def _read_lock(root: Path) -> Lock | None:
    try:
        return Lock(**json.loads((root / "lock").read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # The trainer died between creating the file and writing it, or is doing so now.
        return Lock(socket.gethostname(), -1, 0.0)


def _replace_text(path: Path, text: str) -> None:
    """Write a file so that readers see the old text or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def plain(value: Any) -> Any:
    """JSON's own types: NaN becomes null, infinity the text "inf", arrays lists, paths text."""
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return number if math.isfinite(number) else ("inf" if number > 0 else "-inf")
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


class RunWriter:
    """The trainer's hold on a run directory, from :meth:`create` or :meth:`reopen` to :meth:`release`.

    While it is held a thread rewrites the heartbeat and looks for the `stop` file.
    """

    def __init__(self, root: Path, progress: Progress) -> None:
        self.root = root
        self.progress = progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._said: set[str] = set()
        self._arrays: dict[str, zarr.Group] = {}

    @classmethod
    def create(cls, root: Path, progress: Progress) -> "RunWriter":
        """Take a new or empty directory.

        Raises:
            InputError: the directory holds a run or other files, is in use, or cannot be made.
        """
        writer = cls(root, progress)
        try:
            root.mkdir(parents=True, exist_ok=True)
            strange = {item.name for item in root.iterdir()} - FREE_FILES
            if strange:
                what = "already holds a run" if "run.json" in strange else "is not empty"
                raise InputError(
                    f"the output directory {root} {what}: give another --out, or continue it with --resume."
                )
            writer._take_lock()
            (root / "events.jsonl").unlink(missing_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"the output directory {root} cannot be made: a file is in the way.") from None
        except PermissionError:
            raise InputError(f"the output directory {root} cannot be written: permission is denied.") from None
        writer._thread.start()
        return writer

    @classmethod
    def reopen(cls, root: Path, progress: Progress) -> "RunWriter":
        """Take the directory of a run that stopped or crashed.

        A half-written last event is cut off, and an old `stop` file removed.

        Raises:
            InputError: there is no run, or a process still trains in it.
        """
        if not (root / "run.json").is_file():
            raise InputError(f"{root} holds no run that could be resumed (there is no run.json in it).")
        writer = cls(root, progress)
        writer._take_lock()
        (root / "stop").unlink(missing_ok=True)
        events = root / "events.jsonl"
        if events.exists():
            whole = events.read_bytes().rpartition(b"\n")
            with events.open("r+b") as file:
                file.truncate(len(whole[0]) + len(whole[1]))
        writer._said = {event["message"] for event in RunReader(root).events() if event["event"] == "warning"}
        writer._thread.start()
        return writer

    def _take_lock(self) -> None:
        # Two processes of one host must not both find a dead lock and both replace it.
        name = "napari-smm-" + sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        with FileLock(Path(gettempdir()) / f"{name}.lock"):
            held = _read_lock(self.root)
            if held is not None:
                alive = held.alive()
                if alive is None:
                    alive = heartbeat_age(self.root) < SILENT_SECONDS
                if alive:
                    raise InputError(
                        f"the run directory {self.root} is in use by process {held.pid} on {held.host}: "
                        "wait for it, stop it, or give another directory."
                    )
                (self.root / "lock").unlink(missing_ok=True)
            me = Lock(socket.gethostname(), os.getpid(), psutil.Process().create_time())
            try:
                with (self.root / "lock").open("x", encoding="utf-8") as file:
                    json.dump(vars(me), file)
            except FileExistsError:
                raise InputError(f"the run directory {self.root} was just taken by another process.") from None

    def _beat(self) -> None:
        # The stop file is looked for oftener than the heartbeat is written, so that a stop is prompt.
        last = -math.inf
        while not self._ended.wait(0.25):
            if not self.progress.stop and (self.root / "stop").exists():
                self.progress.reason = "stop file"
                self.progress.stop = True
            if time.monotonic() - last >= HEARTBEAT_SECONDS:
                last = time.monotonic()
                # A heartbeat that fails must not end the training; readers then see it grow old.
                with suppress(OSError):
                    self.beat()

    def beat(self) -> None:
        """Rewrite the heartbeat now."""
        progress = self.progress
        content = {
            "epoch": progress.epoch, "step": progress.step, "steps": progress.steps, "time": time.time()
        }  # fmt: skip
        _replace_text(self.root / "heartbeat", json.dumps(content))

    def write_text(self, name: str, text: str) -> None:
        """Write or replace a text file of the directory."""
        _replace_text(self.root / name, text)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write or replace a JSON file of the directory."""
        _replace_text(self.root / name, json.dumps(plain(content), indent=2) + "\n")

    def event(self, kind: str, **content: Any) -> None:
        """Append one line to events.jsonl and flush it to the disk."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": kind, "time": stamp, **plain(content)}, allow_nan=False) + "\n"
        with (self.root / "events.jsonl").open("ab") as file:
            start = file.tell()
            try:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                # Half a line on a full disk would spoil the next one.
                with suppress(OSError):
                    file.truncate(start)
                raise

    def warn(self, message: str) -> bool:
        """Append a warning, once in a run. Returns whether it is new."""
        if message in self._said:
            return False
        self._said.add(message)
        self.event("warning", message=message)
        return True

    def watch(self, items: Sequence[WatchedItem], epochs: int) -> None:
        """Pre-allocate watched/, one zarr group an item, one chunk an epoch; keep arrays that are there."""
        for number, item in enumerate(items):
            key = f"{number:02d}"
            folder = self.root / "watched" / key
            if folder.exists():
                self._arrays[key] = zarr.open_group(folder, mode="r+")
                continue
            spatial = item.truth.shape[1:]
            classes = item.truth.shape[0]
            group = zarr.open_group(folder, mode="w")
            group.attrs.update(
                {"name": item.name, "split": item.split, "origin": list(item.origin), "epochs": epochs}
            )
            for name, array in (("image", item.image), ("truth", item.truth), ("valid", item.valid)):
                group.create_array(name, data=np.ascontiguousarray(array), chunks=array.shape)
            for name, dtype in (("probability", "float16"), ("modulated", "bool")):
                group.create_array(
                    name, shape=(epochs, classes, *spatial), chunks=(1, classes, *spatial), dtype=dtype
                )
            self._arrays[key] = group

    def write_watched(
        self, epoch: int, probability: Sequence[NDArray[Any]], modulated: Sequence[NDArray[np.bool_]]
    ) -> None:
        """Store epoch 1…E of every watched item: (C, *S) probabilities and the masks that the loss saw."""
        for group, p, mask in zip(self._arrays.values(), probability, modulated, strict=True):
            group["probability"][epoch - 1] = p.astype(np.float16)
            group["modulated"][epoch - 1] = mask

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write what ends the block early as the run's last event, and let go of the directory."""
        try:
            yield
        except BaseException as error:
            # The first failure is what the user must see, so a full disk while noting it is let pass.
            with suppress(OSError):
                self.event(
                    "failed", epoch=self.progress.epoch, message=str(error) or type(error).__name__,
                    traceback="" if isinstance(error, InputError) else traceback.format_exc(),
                )  # fmt: skip
            raise
        finally:
            self.release()

    def release(self) -> None:
        """End the heartbeat and free the directory for others."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        (self.root / "lock").unlink(missing_ok=True)


def heartbeat_age(root: Path) -> float:
    """Seconds since the trainer's last sign of life; infinity without one."""
    try:
        return time.time() - (root / "heartbeat").stat().st_mtime
    except FileNotFoundError:
        return math.inf


@dataclass
class RunReader:
    """A run directory seen from outside: status, events, arrays.

    Attributes:
        root: the run directory.
        offset: byte of events.jsonl up to which :meth:`poll` has read.
    """

    root: Path
    offset: int = field(default=0)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise InputError(f"there is no run directory {self.root}.")

    def info(self) -> dict[str, Any]:
        """run.json. Raises InputError if there is none, or it has a format that this version cannot read."""
        try:
            info: dict[str, Any] = json.loads((self.root / "run.json").read_text("utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.root} is no run directory (there is no run.json in it).") from None
        except ValueError as error:
            raise InputError(f"{self.root / 'run.json'} cannot be read ({error}).") from None
        if info.get("format") != FORMAT:
            raise InputError(
                f"{self.root} has format {info.get('format')}, and this version reads format {FORMAT}."
            )
        return info

    def poll(self) -> list[dict[str, Any]]:
        """Events since the last call. A half-written last line is left for the next one."""
        try:
            with (self.root / "events.jsonl").open("rb") as file:
                file.seek(self.offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self.offset += len(whole) + len(newline)
        return [json.loads(line) for line in whole.splitlines() if line]

    def events(self) -> list[dict[str, Any]]:
        """All events from the first."""
        return RunReader(self.root).poll()

    def epochs(self) -> list[dict[str, Any]]:
        """The epochs' events in order; where an epoch was run again after a resume, the later one."""
        latest = {event["epoch"]: event for event in self.events() if event["event"] == "epoch"}
        return [latest[number] for number in sorted(latest)]

    def watched(self) -> list[zarr.Group]:
        """The watched items' zarr groups, in order."""
        folder = self.root / "watched"
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        return [zarr.open_group(folder / name, mode="r") for name in names]

    def status(self) -> Status:
        """What the run is doing, from events, `stop`, `lock` and the heartbeat's age."""
        turning = [event["event"] for event in self.events() if event["event"] in {"started", *ENDINGS}]
        if turning and turning[-1] in ENDINGS:
            return ENDINGS[turning[-1]]
        lock = _read_lock(self.root)
        if lock is None:
            return "crashed" if turning else "waiting"
        alive = lock.alive()
        if alive is None:
            alive = heartbeat_age(self.root) < SILENT_SECONDS
        if not alive:
            return "crashed"
        return "stopping" if (self.root / "stop").exists() else "running"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error came from a full disk or an exhausted quota."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
