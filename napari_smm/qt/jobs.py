"""Slow work of one dock, done in the session's threads and taken by a timer."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from engine.errors import InputError
from napari_smm.session import Session

LOOK_MILLISECONDS = 20
"""Time between two looks at what is done, while something is."""

Ended = Callable[[], bool]
"""Says whether nobody waits for the result any more."""


@dataclass(frozen=True)
class Job:
    """Work that goes on.

    Attributes:
        future: its result.
        dropped: set when nobody waits for it any more.
        then: is given the result.
    """

    future: "Future[Any]"
    dropped: Event
    then: Callable[[Any], None]


class Jobs(QObject):
    """The newest wish of each kind counts; older ones are dropped, and told so."""

    failed = Signal(str)
    """Why work could not be done, in a sentence."""

    def __init__(self, session: Session, parent: QObject) -> None:
        """Have nothing to do."""
        super().__init__(parent)
        self._session = session
        self._jobs: dict[str, Job] = {}
        self._look = QTimer(self)
        self._look.setInterval(LOOK_MILLISECONDS)
        self._look.timeout.connect(self._take)

    @property
    def busy(self) -> bool:
        """Whether work goes on."""
        return bool(self._jobs)

    def has(self, kind: str) -> bool:
        """Whether work of a kind goes on."""
        return kind in self._jobs

    def ask(self, kind: str, job: Callable[[Ended], Any], then: Callable[[Any], None]) -> None:
        """Begin work, in place of older work of its kind.

        Args:
            kind: what it is.
            job: is called in a thread, with a function that says whether it may end early.
            then: is called with the result in the window's thread.
        """
        self.drop(kind)
        dropped = Event()
        self._jobs[kind] = Job(self._session.run(job, dropped.is_set), dropped, then)
        self._look.start()

    def drop(self, kind: str) -> None:
        """Wait for a kind of work no longer."""
        job = self._jobs.pop(kind, None)
        if job is not None:
            job.dropped.set()
            job.future.cancel()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._look.stop()
        for kind in list(self._jobs):
            self.drop(kind)

    def _take(self) -> None:
        done = {kind: job for kind, job in self._jobs.items() if job.future.done()}
        for kind in done:
            del self._jobs[kind]
        if not self._jobs:
            self._look.stop()
        for job in done.values():
            try:
                found = job.future.result()
            except (InputError, OSError) as error:
                self.failed.emit(str(error))
            except MemoryError:
                self.failed.emit("there is not enough memory for this: a smaller image would work.")
            else:
                job.then(found)
