"""What the docks of one viewer share: the run that is watched and the view of it. No Qt.

Docks listen to a session and never to each other.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from psygnal import Signal

from engine.errors import InputError
from napari_smm.feed import Feed, Snapshot
from napari_smm.launch import Process, failure, status_of
from napari_smm.layers import View
from napari_smm.watch import same_run

POLL_SECONDS = 0.25
"""Time between two looks at a run directory."""
HELPERS = 3
"""Slow jobs of the docks that can go on at once."""


class Session:
    """The run that a viewer watches, and what the user wants to see of it.

    Everything happens in :meth:`tick`, which the window calls from a timer: it takes the finished
    snapshot, if there is one, and orders the next. Signals are emitted on the thread that ticks.

    Attributes:
        watched: emitted with the run directory, or None, when another one is watched.
        updated: emitted with each new Snapshot.
        viewed: emitted with each new View, before anything new was read for it.
        failed: emitted with a sentence when the watched directory cannot be read.
        to_train: emitted with a folder that the user wants to train on.
        root: the watched run directory, or None.
        view: what the user wants to see.
        snapshot: the newest one; None until there is one.
    """

    watched = Signal(object)
    updated = Signal(object)
    viewed = Signal(object)
    failed = Signal(str)
    to_train = Signal(object)

    def __init__(self) -> None:
        """Watch nothing."""
        self.root: Path | None = None
        self.view = View()
        self.snapshot: Snapshot | None = None
        self.processes: dict[Path, Process] = {}
        self._feed: Feed | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._helpers: ThreadPoolExecutor | None = None
        self._order: Future[Any] | None = None
        self._ordered: View | None = None
        self._next = 0.0

    def watch(self, root: Path, process: Process | None = None) -> None:
        """Watch a run directory instead of the one before.

        Args:
            root: the run directory.
            process: its trainer, if it was started here, to take note of its end.

        Raises:
            InputError: the directory does not exist.
        """
        root = root.expanduser().absolute()
        if process is not None:
            self.processes[root] = process
        if same_run(root, self.root):
            self._next = 0.0
            return
        feed = Feed(root)
        self._feed, self.root, self.snapshot = feed, root, None
        self._order, self._ordered, self._next = None, None, 0.0
        self.view = View()
        self.watched.emit(root)

    def leave(self) -> None:
        """Watch nothing any more; the run goes on."""
        self._feed = self.root = self.snapshot = self._order = None
        self.view = View()
        self.watched.emit(None)

    def set_view(self, **changes: Any) -> None:
        """Change what is to be seen: ``item``, ``cls``, ``epoch``, ``follow``, ``outline``."""
        self._show(replace(self.view, **changes))

    def set_threshold(self, threshold: float) -> None:
        """Move T of the class in view. Raises InputError if it is not a number."""
        self._show(self.view.at(threshold))

    def _show(self, view: View) -> None:
        if view != self.view:
            self.view = view
            self.viewed.emit(view)

    def step_item(self, step: int) -> None:
        """Go to the next (1) or previous (-1) watched image, round and round."""
        count = len(self.snapshot.run.items) if self.snapshot else 0
        if count:
            self.set_view(item=(self.view.item + step) % count)

    def step_epoch(self, step: int) -> None:
        """Go to a later or earlier epoch, and follow again at the newest."""
        newest = self.snapshot.run.epochs if self.snapshot else 0
        if newest:
            self.show_epoch(self.epoch + step)

    def show_epoch(self, epoch: int) -> None:
        """Go to an epoch 1…E, kept within those that there are; the newest is followed from then on."""
        newest = self.snapshot.run.epochs if self.snapshot else 0
        if newest:
            wanted = min(max(1, epoch), newest)
            self.set_view(epoch=wanted, follow=wanted == newest)

    @property
    def epoch(self) -> int:
        """The epoch in view, 1…E; 0 before the first."""
        newest = self.snapshot.run.epochs if self.snapshot else 0
        return newest if self.view.follow or not self.view.epoch else min(self.view.epoch, newest)

    def tick(self, now: float) -> None:
        """Take what the worker has finished, and give it the next order.

        Args:
            now: seconds on a steady clock.
        """
        for root, process in list(self.processes.items()):
            if process.poll() is not None and not same_run(root, self.root):
                del self.processes[root]
        order, feed = self._order, self._feed
        if feed is None:
            return
        if order is not None and order.done():
            self._order = None
            self._take(order)
        if self._order is None and self._feed is feed and (now >= self._next or self._asked_anew()):
            self._next = now + POLL_SECONDS
            self._ordered = self.view
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="napari-smm")
            self._order = self._worker.submit(look, feed, self.view, self.processes.get(feed.root))

    def _asked_anew(self) -> bool:
        # Moving T needs nothing new from the disk.
        asked, had = self.view, self._ordered
        return had is None or (asked.item, asked.cls, asked.epoch, asked.follow) != (
            had.item, had.cls, had.epoch, had.follow
        )  # fmt: skip

    def _take(self, order: "Future[Snapshot]") -> None:
        try:
            snapshot = order.result()
        except (InputError, OSError) as error:
            self.failed.emit(str(error))
            return
        self.snapshot = snapshot
        self.updated.emit(snapshot)

    def run(self, job: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Do something slow beside watching the run, in a thread of its own."""
        if self._helpers is None:
            self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="napari-smm-job")
        return self._helpers.submit(job, *arguments)

    def close(self) -> None:
        """End the threads. Runs go on."""
        if self.root is not None:
            self.leave()
        for pool in (self._worker, self._helpers):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
        self._worker = self._helpers = None


def look(feed: Feed, view: View, process: Process | None) -> Snapshot:
    """A snapshot that knows of a trainer's process too, which may end before it has taken the directory."""
    snapshot = feed.snapshot(view)
    if process is None or snapshot.state.alive:
        return snapshot
    found = status_of(feed.root, process)
    if found == snapshot.state.status:
        return snapshot
    message = failure(feed.root) if found == "failed" else ""
    return replace(snapshot, state=replace(snapshot.state, status=found, message=message))
