"""What to annotate next: `python -m engine.suggest` as a process, and what it wrote. No torch, no Qt."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine import suggestions_file
from engine.data.annotated import Status
from engine.errors import InputError
from engine.record import RunReader
from engine.suggestions_file import ORDERS, ImageEntry, PlaceEntry, Suggestions
from napari_smm import launch
from napari_smm.prediction import PATIENCE_SECONDS
from napari_smm.status import Display
from napari_smm.watch import same_run

State = Literal["starting", "running", "cancelling", "cancelled", "failed", "finished"]
PROGRESS = re.compile(r"suggest:[^\r\n]*?\| (\d+)/(\d+) \[")
"""What the command says of how far it is, over and over."""
TAIL = 8192
"""Bytes of what it says that are looked at."""
ANNOTATED: frozenset[Status] = frozenset({"done", "reviewed"})


@dataclass(frozen=True)
class RankingState:
    """How far a ranking is.

    Attributes:
        state: what goes on, or how it ended.
        done, total: images; total is 0 while it is not known.
        message: why it failed, in a sentence; else "".
    """

    state: State
    done: int = 0
    total: int = 0
    message: str = ""

    @property
    def ended(self) -> bool:
        """Whether no process is left."""
        return self.state in ("cancelled", "failed", "finished")

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return not self.ended


class Ranking:
    """A process that ranks a folder's images. It ends when it is done, cancelled, or with Python.

    Get one with :func:`start`; ask :meth:`poll` now and then.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path, folder: Path) -> None:
        """Take charge of a process that was just started."""
        self.folder = folder
        self._popen, self._log = popen, log
        self._cancelled = 0.0
        self._end: RankingState | None = None
        self._finalizer = weakref.finalize(self, _end, popen, log)

    def poll(self) -> RankingState:
        """How far it is now. Once cancelled, this also sees to its end."""
        if self._end is not None:
            return self._end
        code = self._popen.poll()
        text = _tail(self._log)
        steps = PROGRESS.findall(text)
        done, total = map(int, steps[-1]) if steps else (0, 0)
        if code is None:
            if self._cancelled:
                if time.monotonic() - self._cancelled > PATIENCE_SECONDS[1]:
                    self._popen.kill()
                return RankingState("cancelling", done, total)
            return RankingState("running" if total else "starting", done, total)
        if code == 0:
            self._end = RankingState("finished", total, total)
        elif self._cancelled:
            self._end = RankingState("cancelled", done, total)
        else:
            self._end = RankingState("failed", done, total, _last_words(text, code))
        shutil.rmtree(self._log.parent, ignore_errors=True)
        return self._end

    def cancel(self) -> None:
        """Tell it to end. What was suggested before stays."""
        if not self._cancelled and self._end is None:
            self._cancelled = time.monotonic()
            self._popen.terminate()

    def close(self) -> None:
        """End it at once, and wait for that."""
        self._finalizer()


def start(run: Path, folder: Path, order: str) -> Ranking:
    """Rank a folder's images by a run.

    Args:
        run: the run directory; its checkpoint is the engine's choice.
        folder: of the images.
        order: a name of :data:`engine.suggestions_file.ORDERS`.

    Raises:
        InputError: no such run or order, or no process could be started.
    """
    suggestions_file.named_order(order)
    RunReader(run).info()
    home = launch.home()
    # -P: what lies in the current folder must not take the place of the engine's modules.
    command = [sys.executable, "-P", "-m", "engine.suggest", str(run), str(folder), "--order", order]
    try:
        home.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix="suggest-", dir=home))
        with (place / launch.LOG).open("wb") as log:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=place,
                env=launch.environment(), **launch.detached(),
            )  # fmt: skip
    except OSError as error:
        raise InputError(f"the ranking cannot be started ({error.strerror or error}).") from error
    return Ranking(popen, place / launch.LOG, folder)


def display(state: RankingState | None) -> Display:
    """What to show of a ranking; None before the first."""
    if state is None:
        return Display("")
    if state.ended:
        words = {"finished": "✔ Ranked", "cancelled": "■ Cancelled", "failed": "✖ Failed"}[state.state]
        return Display(words, detail=state.message, done=float(state.state == "finished"))
    if state.state == "cancelling":
        return Display("◑ Cancelling…", done=None, can_start=False)
    if not state.total:
        return Display("Starting…", done=None, can_start=False, can_stop=True)
    words = f"▶ Looking at image {min(state.done + 1, state.total)} of {state.total}"
    return Display(words, done=state.done / state.total, can_start=False, can_stop=True)


def titles() -> dict[str, str]:
    """Name of an order → what it is called where people read it, the default first."""
    found = {name: str(getattr(spec, "title", name)) for name, spec in ORDERS.items()}
    first = suggestions_file.DEFAULT
    return {first: found[first], **found}


# The queue


@dataclass(frozen=True)
class Row:
    """A suggested image as a list shows it.

    Attributes:
        entry: the suggestion.
        share: its score over the highest one, 0…1.
        annotated: whether it is done meanwhile.
    """

    entry: ImageEntry
    share: float
    annotated: bool

    @property
    def image(self) -> str:
        """As the folder names it."""
        return self.entry.image

    @property
    def places(self) -> tuple[PlaceEntry, ...]:
        """Places in it, best first."""
        return self.entry.places


def rows(found: Suggestions | None, images: Sequence[str], status: Mapping[str, Status]) -> list[Row]:
    """The suggestions as a list shows them: those of images that the folder still has.

    Args:
        found: what was suggested; None without.
        images: of the folder.
        status: of each of them.
    """
    if found is None:
        return []
    there = set(images)
    kept = [entry for entry in found.images if entry.image in there]
    highest = max((entry.score for entry in kept), default=0.0) or 1.0
    return [Row(entry, entry.score / highest, status.get(entry.image) in ANNOTATED) for entry in kept]


def following(queue: Sequence[Row], current: str | None, by: int = 1) -> str | None:
    """The image that comes next in a queue.

    Args:
        queue: the rows.
        current: the image in view.
        by: 1 for the next one that is not annotated yet, from the top if the one in view is none of the
            queue; -1 for the one before, annotated or not.

    Returns:
        None at the queue's end.
    """
    names = [row.image for row in queue]
    at = names.index(current) if current in names else None
    if by < 0:
        return names[at - 1] if at else None
    rest = queue if at is None else queue[at + 1 :]
    return next((row.image for row in rest if not row.annotated), None)


def staleness(found: Suggestions, newest: Path | None) -> str:
    """Why a ranking is no longer the newest there could be, in a sentence; "" if it is.

    Args:
        found: what was suggested.
        newest: the run that would be asked now; None if there is none.
    """
    run = Path(found.run)
    if newest is not None and not same_run(run, newest):
        return f"This order is by {run.name}; {newest.name} is newer."
    epoch = checkpoint_epoch(run, found.checkpoint)
    if epoch > found.epoch:
        return f"This order is by epoch {found.epoch} of {run.name}, which has come to epoch {epoch}."
    return ""


def checkpoint_epoch(run: Path, checkpoint: str) -> int:
    """After which epoch a checkpoint of a run was saved, by its events; 0 where that is not known."""
    try:
        events = RunReader(run).epochs()
    except InputError:
        return 0
    wanted = [event for event in events if checkpoint == "last" or event.get("best")]
    return int(wanted[-1]["epoch"]) if wanted and checkpoint in ("last", "best") else 0


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _last_words(text: str, code: int) -> str:
    """Why a process gave up: what it said last, without its bar."""
    said = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    words = next((line for line in reversed(said) if not line.startswith("suggest:")), "")
    if words.startswith("error: "):
        return words.removeprefix("error: ")
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"the ranking's process {how}; {f'its last words were: {words}' if words else 'it said nothing'}"


def _end(popen: "subprocess.Popen[bytes]", log: Path) -> None:
    if popen.poll() is None:
        popen.terminate()
        try:
            popen.wait(PATIENCE_SECONDS[0])
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
    shutil.rmtree(log.parent, ignore_errors=True)
