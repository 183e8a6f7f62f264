"""The run directory: all that a training process and a viewer share. Imports no torch.

``RunWriter`` is held by the one process that trains; ``RunReader`` can be opened by anyone, at
any time, on any machine that sees the files. `docs/run-directory.md` describes the format.
"""

import json
import math
import os
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from engine import lock
from engine.disk import append_line, is_disk_full, replace_text, sweep
from engine.errors import InputError

FORMAT = 1
"""Version of the directory's layout, in run.json."""

FLAT: dict[str, Any] = {"name": "default", "separator": "."}
"""Names of chunks: one file for each epoch, where slashes would make it three folders besides."""
HEARTBEAT_SECONDS = 5.0
FREE_FILES = frozenset(
    {"config.toml", "log.txt", "stop", "events.jsonl", "heartbeat", "lock", lock.GUARD, "cache", "followed"}
)
"""What a directory may hold and still be free: what a viewer puts there before the trainer starts,
and what a run leaves that was refused before it had a run.json."""

Status = Literal["waiting", "running", "stopping", "stopped", "failed", "finished", "crashed"]
ENDINGS: dict[str, Status] = {"stopped": "stopped", "failed": "failed", "finished": "finished"}


@dataclass
class Progress:
    """Where the training loop is; written by the loop, read by the heartbeat and the progress bar.

    `stop` is the one thing that others write: the loop then ends at the next batch. `note` says what is
    special about the epoch, or nothing.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    stop: bool = False
    reason: str = ""
    note: str = ""


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
        scale: extents of the frame's pixels in pixels of the file, other than 1 where images are resized; in
            mm of volumes whose file knows them.
        affine: float64 (4, 4), index (z, y, x, 1) in the crop → mm in RAS+, or None.
        first: epoch from which on it is watched: later than 1 where it joined while training went on.
    """

    name: str
    split: str
    image: NDArray[Any]
    truth: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    origin: tuple[int, ...]
    scale: tuple[float, ...]
    affine: NDArray[np.float64] | None = None
    first: int = 1


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
        """Take the directory, whatever is in it; :meth:`create` and :meth:`reopen` look first."""
        self.root = root
        self.progress = progress
        self._lock = lock.take(root)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch_over, name="heartbeat", daemon=True)
        self._said: set[str] = set()
        self._watched: list[tuple[zarr.Array[Any], zarr.Array[Any]]] = []

    @classmethod
    def create(cls, root: Path, progress: Progress) -> "RunWriter":
        """Take a new or empty directory.

        Raises:
            InputError: the directory holds a run or other files, is in use, or cannot be made.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            refuse_used(root)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"the output directory {root} cannot be made: a file is in the way.") from None
        except OSError as error:
            if is_disk_full(error):
                raise
            reason = error.strerror or type(error).__name__
            raise InputError(
                f"the output directory {root} cannot be made ({reason}): give another --out."
            ) from None
        writer = cls(root, progress)
        with writer._starting():
            # Another process may have run to its end between the look and the lock.
            refuse_used(root)
            (root / "events.jsonl").unlink(missing_ok=True)
        return writer

    @classmethod
    def reopen(cls, root: Path, progress: Progress) -> "RunWriter":
        """Take the directory of a run that stopped or crashed.

        What a killed process left half written is cut off or removed, and an old `stop` file too.

        Raises:
            InputError: there is no run, or a process still trains in it.
        """
        if not (root / "run.json").is_file():
            raise InputError(f"{root} holds no run that could be resumed (there is no run.json in it).")
        writer = cls(root, progress)
        with writer._starting():
            (root / "stop").unlink(missing_ok=True)
            sweep(root)
            sweep(root / "checkpoints")
            events = root / "events.jsonl"
            if events.exists():
                with events.open("r+b") as file:
                    file.truncate(file.read().rfind(b"\n") + 1)
            writer._said = {
                event["message"] for event in RunReader(root).events() if event["event"] == "warning"
            }
        return writer

    @contextmanager
    def _starting(self) -> Iterator[None]:
        try:
            yield
            self.beat()
            self._thread.start()
        except BaseException:
            self.release()
            raise

    def _watch_over(self) -> None:
        # The stop file is looked for oftener than the heartbeat is written, so that a stop is prompt.
        last = time.monotonic()
        while not self._ended.wait(0.25):
            # What fails here must not end the training; readers see the heartbeat grow old.
            with suppress(OSError):
                if not self.progress.stop and (self.root / "stop").exists():
                    self.progress.reason = "stop file"
                    self.progress.stop = True
                if time.monotonic() - last >= HEARTBEAT_SECONDS:
                    last = time.monotonic()
                    self.beat()

    def beat(self) -> None:
        """Rewrite the heartbeat now."""
        progress = self.progress
        content = {"epoch": progress.epoch, "step": progress.step, "steps": progress.steps}
        replace_text(self.root / "heartbeat", json.dumps({**content, "time": time.time()}))

    def write_text(self, name: str, text: str) -> None:
        """Write or replace a text file of the directory."""
        replace_text(self.root / name, text)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write or replace a JSON file of the directory."""
        replace_text(self.root / name, json.dumps(plain(content), indent=2) + "\n")

    def event(self, kind: str, **content: Any) -> None:
        """Append one line to events.jsonl and flush it to the disk."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": kind, "time": stamp, **plain(content)}, allow_nan=False)
        append_line(self.root / "events.jsonl", line)

    def warn(self, message: str) -> bool:
        """Append a warning, once in a run. Returns whether it is new."""
        if message in self._said:
            return False
        self._said.add(message)
        self.event("warning", message=message)
        return True

    def watch(self, items: Sequence[WatchedItem], epochs: int) -> None:
        """Pre-allocate watched/, one zarr group an item, one chunk an epoch; keep arrays that are there.

        Called again, it adds items behind those that there are.
        """
        for number, item in enumerate(items, len(self._watched)):
            folder = self.root / "watched" / f"{number:02d}"
            if not folder.exists():
                # Under another name until it is whole, as a crash can fall between its arrays.
                unfinished = folder.with_name(".new")
                rmtree(unfinished, ignore_errors=True)
                allocate(unfinished, item, epochs)
                unfinished.rename(folder)
            group = zarr.open_group(folder, mode="r+")
            probability, modulated = group["probability"], group["modulated"]
            assert isinstance(probability, zarr.Array)
            assert isinstance(modulated, zarr.Array)
            self._watched.append((probability, modulated))

    def write_watched(
        self, epoch: int, probability: Sequence[NDArray[Any]], modulated: Sequence[NDArray[np.bool_]]
    ) -> None:
        """Store epoch 1…E of every watched item: (C, *S) probabilities and the masks that the loss saw."""
        for arrays, p, mask in zip(self._watched, probability, modulated, strict=True):
            arrays[0][epoch - 1] = p.astype(np.float16)
            arrays[1][epoch - 1] = mask

    @property
    def watching(self) -> int:
        """Number of watched items."""
        return len(self._watched)

    def write_truth(self, number: int, epoch: int, item: WatchedItem) -> None:
        """Store the truth that a watched item has from an epoch on; earlier ones keep theirs."""
        folder = self.root / "watched" / f"{number:02d}"
        # Valid pixels first: where there is a truth, both are there.
        for name, array in (("valid", item.valid), ("truth", item.truth)):
            path = folder / f"{name}_{epoch:04d}"
            unfinished = self.root / "watched" / ".new"
            for old in (unfinished, path):
                rmtree(old, ignore_errors=True)
            zarr.create_array(unfinished, data=np.ascontiguousarray(array), chunks=array.shape)
            unfinished.rename(path)

    def forget_after(self, epoch: int) -> None:
        """Remove what a killed run had begun to keep of epochs after the last whole one: truths and items."""
        for group in RunReader(self.root).watched():
            folder = self.root / "watched" / Path(str(group.store_path)).name
            if first_epoch(group) > epoch:
                rmtree(folder)
                continue
            for kind in ("truth", "valid"):
                for path in folder.glob(f"{kind}_[0-9]*"):
                    if int(path.name.partition("_")[2]) > epoch:
                        rmtree(path)

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
        lock.free(self.root, self._lock)


def new_folder(parent: Path, data: str, method: str) -> Path:
    """A path for a run directory that is not taken: DATE-TIME-DATA-METHOD. Nothing is ever read out of it.

    Args:
        parent: folder of run directories; may not exist yet.
        data: the data's folder, of which the last part is taken.
        method: name of the modulation.
    """
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    name = f"{stamp}-{Path(data).name[:80]}-{method}"
    path, number = parent / name, 2
    while path.exists():
        path, number = parent / f"{name}-{number}", number + 1
    return path


def refuse_used(root: Path) -> None:
    """Raise InputError if a directory holds more than what may be there before a run."""
    # Hidden files are no one's work: the folder views of systems, our own half-written ones.
    names = {item.name for item in root.iterdir() if not item.name.startswith(".")}
    if names <= FREE_FILES:
        return
    if "run.json" in names:
        raise InputError(
            f"the output directory {root} holds a run: continue it with --resume, or give another --out."
        )
    raise InputError(f"the output directory {root} is not empty: give another --out.")


def allocate(folder: Path, item: WatchedItem, epochs: int) -> None:
    """Make a watched item's zarr group: what stays the same, and empty arrays with a chunk an epoch."""
    classes, *spatial = item.truth.shape
    group = zarr.open_group(folder, mode="w")
    group.attrs.update(
        {
            "name": item.name,
            "split": item.split,
            "origin": list(item.origin),
            "scale": list(item.scale),
            "epochs": epochs,
            **({} if item.affine is None else {"affine": item.affine.tolist()}),
            **({} if item.first == 1 else {"first": item.first}),
        }
    )
    for name, array in (("image", item.image), ("truth", item.truth), ("valid", item.valid)):
        group.create_array(name, data=np.ascontiguousarray(array), chunks=array.shape)
    for name, dtype in (("probability", "float16"), ("modulated", "bool")):
        group.create_array(
            name, shape=(epochs, classes, *spatial), chunks=(1, classes, *spatial), dtype=dtype,
            chunk_key_encoding=FLAT,
        )  # fmt: skip


def first_epoch(group: zarr.Group) -> int:
    """Epoch from which on a watched item's arrays hold something."""
    return int(str(group.attrs.get("first", 1)))


def truth_epochs(group: zarr.Group) -> list[int]:
    """Epochs from which on a watched item has another truth, ascending; first the one that it began with."""
    later = [name.partition("_")[2] for name in group.array_keys() if name.startswith("truth_")]
    return [first_epoch(group), *sorted(int(number) for number in later if number.isdecimal())]


def read_truth(
    group: zarr.Group, epoch: int, epochs: Sequence[int] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Truth (C, *S) and valid pixels (*S) of a watched item in an epoch: those that training had then.

    Args:
        group: of the item.
        epoch: 1…E.
        epochs: its :func:`truth_epochs`, where they are known.
    """
    known = truth_epochs(group) if epochs is None else epochs
    newest = max((number for number in known if number <= epoch), default=known[0])
    end = "" if newest == known[0] else f"_{newest:04d}"
    return np.asarray(group[f"truth{end}"]), np.asarray(group[f"valid{end}"])


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
            raise InputError(
                f"{self.root} is no run directory (there is no run.json in it): a folder into which "
                "python -m engine.train wrote would work."
            ) from None
        except ValueError as error:
            raise InputError(f"{self.root / 'run.json'} cannot be read ({error}).") from None
        found = info.get("format") if isinstance(info, dict) else None
        if found != FORMAT:
            raise InputError(f"{self.root} has format {found}, and this version reads format {FORMAT}.")
        return info

    def poll(self) -> list[dict[str, Any]]:
        """Events since the last call. A half-written last line is left for the next one.

        Raises:
            InputError: a line is no event.
        """
        try:
            with (self.root / "events.jsonl").open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.offset:
                    # A run that was refused has been started anew in its directory.
                    self.offset = 0
                file.seek(self.offset)
                whole = file.read()
        except FileNotFoundError:
            return []
        whole = whole[: whole.rfind(b"\n") + 1]
        events = [self._event(line) for line in whole.splitlines()]
        self.offset += len(whole)
        return events

    def _event(self, line: bytes) -> dict[str, Any]:
        try:
            event: dict[str, Any] = json.loads(line)
            event["event"]
        except (ValueError, TypeError, KeyError):
            start = line[:40].decode("utf-8", "replace")
            raise InputError(
                f"{self.root / 'events.jsonl'} cannot be read, as the line {start!r} is no event: take the "
                "line out, or move the run away."
            ) from None
        return event

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
        names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
        return [zarr.open_group(folder / name, mode="r") for name in sorted(names) if name != ".new"]

    def status(self) -> Status:
        """What the run is doing, from events, `lock`, the heartbeat's age and `stop`."""
        # The lock before the events: a trainer writes its last event, then lets go of the lock.
        held = lock.holder(self.root) is not None
        return status(self.root, held, last_turn(self.events()))


def last_turn(events: Iterable[Mapping[str, Any]], before: str = "") -> str:
    """The last of the events started, stopped, failed and finished; `before` if there is none of them."""
    for event in events:
        if event["event"] == "started" or event["event"] in ENDINGS:
            before = event["event"]
    return before


def status(root: Path, held: bool, turn: str) -> Status:
    """A run's status.

    Args:
        root: the run directory.
        held: whether a living trainer held the lock, looked up before the events were read.
        turn: the :func:`last_turn` of its events.
    """
    # A living trainer comes first: when it resumes a stopped run, its first event is yet to come.
    if held:
        return "stopping" if (root / "stop").exists() else "running"
    if turn in ENDINGS:
        return ENDINGS[turn]
    return "crashed" if turn or lock.read(root) is not None else "waiting"
