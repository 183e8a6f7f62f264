"""A prediction of the window: a process of its own, its progress, its end. No torch, no Qt.

Unlike a training run it belongs to the window that started it, and ends with it.
"""

import json
import math
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import InputError
from napari_smm import launch
from napari_smm.annotation import Plane, safe_name
from napari_smm.planes import PlaneSource, stored_plane, write_plane
from napari_smm.predicted import KEPT_BYTES, PredictedArrays, open_plane
from napari_smm.predictors import require_fitting
from napari_smm.status import Display, duration

State = Literal[
    "reading", "starting", "running", "finishing", "cancelling", "cancelled", "failed", "finished"
]
ENDED: frozenset[State] = frozenset({"cancelled", "failed", "finished"})
LOOK_SECONDS = 0.1
"""Time between two looks at what the process has done."""
BATCH_BYTES = 2**30
"""A process is given planes of so many bytes together, or one that is larger."""
MOST_PLANES = 100
"""A process is given no more, as a command line must not be too long."""
PATIENCE_SECONDS = (2.0, 7.0)
"""After which a process that was asked to end is told to, and then killed."""


@dataclass(frozen=True)
class PredictionState:
    """How far a prediction is.

    Attributes:
        state: "reading" the image and writing it for the process, "starting" the process, "running",
            "finishing" (writing smaller copies, opening them), "cancelling" until the process is gone, or
            how it ended.
        done, total: rows of the image while it is read; tiles of all planes while it runs; total is 0
            where it is not known.
        message: why it failed, in a sentence; else "".
        plane, planes: number of the plane or volume that it is at, from 1, and of all.
        part: what those are: "plane" or "volume".
        seconds_left: to the last tile; None where it cannot be said.
    """

    state: State
    done: int = 0
    total: int = 0
    message: str = ""
    plane: int = 1
    planes: int = 1
    part: str = "plane"
    seconds_left: float | None = None

    @property
    def ended(self) -> bool:
        """Whether no process is left."""
        return self.state in ENDED

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return not self.ended

    @property
    def share(self) -> float | None:
        """Share that is done, 0…1; None where it cannot be said."""
        if self.ended:
            return 1.0 if self.state == "finished" else 0.0
        return self.done / self.total if self.total and self.state in ("reading", "running") else None


class CancelledError(Exception):
    """The prediction was cancelled."""


class Prediction:
    """A prediction that goes on in a thread, which starts a process and waits for it.

    Get one with :func:`start`. It ends with the last plane, when it is cancelled, or with Python.
    """

    def __init__(self, run: Path, source: PlaneSource, out: Path, checkpoint: str | None) -> None:
        """Begin at once."""
        self.run, self.source, self.out = run, source, out
        self._checkpoint = checkpoint
        self._state = PredictionState("reading", planes=len(source.planes), part=source.part)
        self._result: PredictedArrays | None = None
        self._process = _Process()
        self._tiling: float | None = None
        self._thread = threading.Thread(target=self._work, name="napari-smm prediction", daemon=True)
        self._thread.start()
        # Whoever leaves Python leaves no process behind.
        self._finalizer = weakref.finalize(self, _end, self._process, self._thread)

    def poll(self) -> PredictionState:
        """How far it is now."""
        state = self._state
        if self._process.cancelled.is_set() and not state.ended:
            return replace(state, state="cancelling", seconds_left=None)
        return state

    def cancel(self) -> None:
        """Ask it to end; it is "cancelled" once the process is gone. Nothing is kept."""
        self._process.cancelled.set()

    def close(self) -> None:
        """Cancel it without waiting; the process is told to end at once."""
        self.cancel()
        self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait for the end. Returns whether it came within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> PredictedArrays:
        """What it gave. Raises InputError as long as it has not finished."""
        if self._result is None:
            raise InputError(f"there is no result: the prediction of {self.source.name!r} has not finished.")
        return self._result

    # What the thread does

    def _work(self) -> None:
        try:
            self._predict()
        except CancelledError:
            shutil.rmtree(self.out, ignore_errors=True)
            self._say("cancelled")
        except (InputError, OSError) as error:
            self._drop()
            self._say("failed", message=str(error))
        except BaseException as error:
            self._drop()
            self._say("failed", message=f"{type(error).__name__}: {error}")
            raise

    def _predict(self) -> None:
        count = len(self.source.planes)
        folders = {plane: self.out / folder_name(self.source, plane) for plane in self.source.planes}
        size = batch_size(self.source)
        for first in range(0, count, size):
            self._look()
            self._predict_batch(dict(list(folders.items())[first : first + size]), first)
        self._say("finishing")
        planes = {plane: open_plane(folder, KEPT_BYTES // count) for plane, folder in folders.items()}
        self._look()
        self._result = PredictedArrays(planes, self.source, self.out)
        self._say("finished")

    def _predict_batch(self, folders: Mapping[Plane, Path], first: int) -> None:
        """Predict planes by one process, since starting it takes seconds; `first` were predicted before."""
        copies = self.out / "images"
        try:
            stored = stored_plane(self.source)
            images = [stored] if stored is not None else self._copied(folders, copies)
            self._run(images, list(folders.values()), first)
        finally:
            shutil.rmtree(copies, ignore_errors=True)

    def _copied(self, folders: Mapping[Plane, Path], copies: Path) -> list[Path]:
        images = []
        for number, (plane, folder) in enumerate(folders.items()):
            images.append(copies / f"{folder.name}.zarr")
            write_plane(self.source, plane, images[-1], partial(self._reading, number, len(folders)))
        return images

    def _reading(self, number: int, planes: int, done: int, total: int) -> None:
        self._look()
        if self._tiling is None:
            self._say("reading", done=number * total + done, total=planes * total)

    def _run(self, images: Sequence[Path], folders: Sequence[Path], first: int) -> None:
        if self._tiling is None:
            self._say("starting", done=0, total=0)
        for folder in folders:
            folder.mkdir(parents=True)
        self._process.start(self._command(images, folders), self.out, folders)
        at = 0
        while self._process.runs():
            progress = read_progress(folders[at])
            self._follow(progress, first + at)
            self._process.press()
            if progress.get("state") == "finished" and at + 1 < len(folders):
                at += 1
            else:
                time.sleep(LOOK_SECONDS)
        self._look()
        ends = [read_progress(folder) for folder in folders]
        if self._process.code == 0 and all(end.get("state") == "finished" for end in ends):
            return
        said = next((end["message"] for end in ends if end.get("state") == "failed"), None)
        words = said or epitaph(self._process.code, launch.log_tail(self.out))
        for image in images:
            words = words.replace(str(image), f"the image {self.source.name!r}")
        raise InputError(words)

    def _command(self, images: Sequence[Path], folders: Sequence[Path]) -> list[str]:
        # -P: what lies in the current folder must not take the place of the engine's modules.
        command = [sys.executable, "-P", "-m", "engine.predict", str(self.run), *map(str, images)]
        chosen = ["--checkpoint", self._checkpoint] if self._checkpoint else []
        # Of several, each goes into a folder of its own name.
        return [*command, "--stream", str(folders[0] if len(folders) == 1 else self.out), *chosen]

    def _follow(self, progress: Mapping[str, Any], number: int) -> None:
        tiles, done = int(progress.get("tiles", 0)), int(progress.get("done", 0))
        if not tiles:
            return
        now = time.monotonic()
        if self._tiling is None:
            self._tiling = now
        whole, total = number * tiles + done, len(self.source.planes) * tiles
        where = {"done": whole, "total": total, "plane": number + 1}
        if whole == total:
            self._say("finishing", **where)
            return
        took = now - self._tiling
        left = took * (total - whole) / whole if whole and took > 1 else None
        self._say("running", seconds_left=left, **where)

    def _look(self) -> None:
        if self._process.cancelled.is_set():
            raise CancelledError

    def _say(self, state: State, **changes: Any) -> None:
        self._state = replace(self._state, state=state, **{"message": "", "seconds_left": None, **changes})

    def _drop(self) -> None:
        """Of what failed only the log is kept."""
        for path in list(self.out.iterdir()) if self.out.is_dir() else []:
            if path.name != launch.LOG:
                shutil.rmtree(path, ignore_errors=True)


class _Process:
    """The process that predicts, if there is one."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._folders: Sequence[Path] = ()
        self._pressed = 0.0
        self._guard = threading.Lock()

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal's number."""
        return None if self._popen is None else self._popen.poll()

    def start(self, command: list[str], out: Path, folders: Sequence[Path]) -> None:
        """Start the process, unless the prediction is cancelled."""
        with self._guard:
            if self.cancelled.is_set():
                raise CancelledError
            try:
                with (out / launch.LOG).open("ab") as log:
                    self._popen = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=out,
                        env=launch.environment(), **launch.detached(),
                    )  # fmt: skip
            except OSError as error:
                raise InputError(f"the prediction cannot be started ({error.strerror or error}).") from error
            self._folders = folders

    def runs(self) -> bool:
        """Whether it lives. One that has ended leaves no zombie."""
        return self._popen is not None and self._popen.poll() is None

    def press(self) -> None:
        """Once cancelled: ask for the end, then tell, then kill."""
        if not self.cancelled.is_set() or self._popen is None:
            return
        now = time.monotonic()
        if not self._pressed:
            self._pressed = now
            for folder in self._folders:
                (folder / "cancel").touch()
        if now - self._pressed > PATIENCE_SECONDS[1]:
            self._popen.kill()
        elif now - self._pressed > PATIENCE_SECONDS[0]:
            self._popen.terminate()

    def terminate(self) -> None:
        """Tell it to end, if it lives."""
        with self._guard:
            if self._popen is not None and self._popen.poll() is None:
                self._popen.terminate()


def start(
    run: Path, source: PlaneSource, out: Path | None = None, *, checkpoint: str | None = None
) -> Prediction:
    """Predict planes of an image with a run.

    Args:
        run: the run directory.
        source: the image.
        out: new folder for the result; one below the workbench's own folder if None.
        checkpoint: "best" or "last"; None is the engine's choice.

    Raises:
        InputError: no run, no checkpoint yet, channels that do not fit, or a folder that cannot be made.
    """
    run = run.expanduser().absolute()
    require_fitting(run, source, checkpoint)
    out = new_folder(source) if out is None else out.expanduser().absolute()
    try:
        out.mkdir(parents=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"the folder {out} cannot be made ({reason}): another place would work.") from error
    return Prediction(run, source, out, checkpoint)


def display(state: PredictionState | None) -> Display:
    """What to show of a prediction; None before the first."""
    if state is None:
        return Display("")
    if state.ended:
        words = {"finished": "✔ Finished", "cancelled": "■ Cancelled", "failed": "✖ Failed"}[state.state]
        return Display(words, detail=state.message, done=state.share)
    if state.state == "cancelling":
        return Display("◑ Cancelling…", done=None, can_start=False)
    words = {"reading": "Reading the image…", "starting": "Starting…"}.get(state.state, "▶ Predicting…")
    if state.state == "running":
        tile = f"tile {min(state.done + 1, state.total)} of {state.total}"
        words = f"{words} · {f'{state.part} {state.plane} of {state.planes}' if state.planes > 1 else tile}"
    left = "" if state.seconds_left is None else f"{duration(state.seconds_left)} left"
    return Display(words, done=state.share, time_left=left, can_start=False, can_stop=True)


def title(state: PredictionState, image: str) -> str:
    """What napari's activity dock says of a prediction."""
    return f"{'reading' if state.state == 'reading' else 'predicting'} {image}"


def new_folder(source: PlaneSource) -> Path:
    """A path below the workbench's folder that is not taken yet, named by the date and the image."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{safe_name(source.name)}"
    parent = launch.home() / "predictions"
    number, path = 1, parent / name
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


def folder_name(source: PlaneSource, plane: Plane) -> str:
    """Name of a plane's folder, which sorts as the planes do."""
    widths = [len(str(length - 1)) for length in source.leading]
    return "_".join([source.part, *(f"{at:0{width}d}" for at, width in zip(plane, widths, strict=True))])


def batch_size(source: PlaneSource) -> int:
    """Planes whose copies are on the disk at once."""
    pixel = source.channels * min(int(np.dtype(source.image.dtype).itemsize), 4)
    return min(MOST_PLANES, max(1, BATCH_BYTES // (math.prod(source.spatial) * pixel)))


def epitaph(code: int | None, log: list[str]) -> str:
    """Why a process ended without saying so itself, in a sentence, with the last line of its log."""
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
    hint = ", as happens when memory runs out" if code == -9 else ""
    words = next((line.strip() for line in reversed(log) if line.strip()), "")
    last = f"its last words were: {words}" if words else "it had said nothing"
    return f"the prediction's process {how}{hint}; {last}"


def read_progress(folder: Path) -> Mapping[str, Any]:
    """The folder's progress.json; empty where there is none yet."""
    try:
        found: Mapping[str, Any] = json.loads((folder / "progress.json").read_text("utf-8"))
        return found
    except FileNotFoundError:
        return {}


def _end(process: _Process, thread: threading.Thread) -> None:
    process.cancelled.set()
    process.terminate()
    if thread is not threading.current_thread():
        thread.join(PATIENCE_SECONDS[1] + 1)
