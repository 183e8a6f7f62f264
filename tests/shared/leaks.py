"""What a test of the window may leave behind: nothing."""

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import psutil
from qtpy import sip
from qtpy.QtCore import QCoreApplication, QEvent, QObject, QThread, QThreadPool, QTimer
from qtpy.QtWidgets import QApplication

PATIENCE = 5.0
"""Seconds for what was told to end to have ended."""
OF_THE_PROCESS = ("zarr_io", "asyncio_", "tqdm", "pydevd", "Dummy-")
"""Threads of libraries that start with the first need and end with the process, by how their names begin."""


@dataclass(frozen=True)
class Census:
    """What there is at a moment, each by its identity with what to call it."""

    windows: dict[int, Any]
    """Top-level widgets."""
    ours: dict[int, Any]
    """Living Qt objects of the plugin."""
    timers: dict[int, Any]
    """Active QTimers that Python knows."""
    threads: dict[int, Any]
    """Python's threads and running QThreads."""
    processes: dict[int, Any]
    """Children that run."""

    def beyond(self, before: "Census") -> dict[str, list[str]]:
        """What has come since, by kind."""
        found: dict[str, list[str]] = {}
        for field in fields(self):
            old, new = getattr(before, field.name), getattr(self, field.name)
            if more := [str(thing) for key, thing in new.items() if key not in old]:
                found[field.name] = more
        return found


def census() -> Census:
    """Count what there is, after Qt and Python have cleared away what was left to them."""
    settle()
    objects = [thing for thing in gc.get_objects() if issubclass(type(thing), QObject) and is_known(thing)]
    return Census(
        windows={id(window): Named(window) for window in QApplication.topLevelWidgets()},
        ours={id(o): Named(o) for o in objects if type(o).__module__.startswith("napari_smm.")},
        timers={id(o): Named(o) for o in objects if isinstance(o, QTimer) and o.isActive()},
        threads=dict(threads(objects)),
        processes={child.pid: child for child in psutil.Process().children() if is_running(child)},
    )


def leaks_since(before: Census) -> dict[str, list[str]]:
    """What has come since a census and does not go away, by kind; waits for it no longer than PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while (left := census().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


class Named:
    """A Qt object, kept, so that its identity is not given to another one, and called what it was then."""

    def __init__(self, thing: QObject) -> None:
        self.thing = thing
        parent = thing.parent()
        self.name = f"{type(thing).__name__} {thing.objectName()!r} of {type(parent).__name__}"

    def __str__(self) -> str:
        return self.name


def settle() -> None:
    """Let Qt delete what waits for deletion, and Python what nothing refers to."""
    QApplication.processEvents()
    kind = QEvent.Type.DeferredDelete
    QCoreApplication.sendPostedEvents(None, getattr(kind, "value", kind))  # an int, which PyQt5's enum is
    gc.collect()


def is_known(thing: QObject) -> bool:
    """Whether the C++ object behind a wrapper is surely still there."""
    # Of objects that Qt made itself, PyQt is not told when they are deleted.
    return sip.ispycreated(thing) and not sip.isdeleted(thing)


def threads(objects: list[QObject]) -> Iterator[tuple[int, str]]:
    """Running threads, but those that libraries keep for the life of the process."""
    for thread in threading.enumerate():
        if not thread.name.startswith(OF_THE_PROCESS):
            yield id(thread), f"thread {thread.name}"
    for thing in objects:
        if isinstance(thing, QThread) and thing.isRunning() and thing is not QThread.currentThread():
            yield id(thing), f"QThread {thing.objectName()!r}"
    pool = QThreadPool.globalInstance()
    if pool is not None and (active := pool.activeThreadCount()):
        yield -active, f"{active} workers of the thread pool"


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that nobody has asked for its end counts as ended."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_processes(before: Census) -> None:
    """End the processes that have come since a census."""
    for pid, process in census().processes.items():
        if pid not in before.processes:
            process.kill()
            while is_running(process):  # whoever started it asks for its end
                time.sleep(0.01)
