"""The progress bar of a run whose terminal has gone."""

import io
import sys
import threading
from collections.abc import Iterator

import pytest
from tqdm import tqdm

from engine.progress_bar import ProgressBar
from engine.record import Progress


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    def write(self, text: str) -> int:
        self.asked.release()
        raise BrokenPipeError(32, "Broken pipe")


@pytest.fixture
def own_lock() -> Iterator[None]:
    lock = tqdm.get_lock()
    tqdm.set_lock(threading.RLock())  # a lock that is never freed would stop all later tests
    yield
    tqdm.set_lock(lock)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("own_lock")
def test_a_terminal_that_has_gone_neither_fails_nor_stops_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Gone()
    monkeypatch.setattr(sys, "stderr", gone)
    monkeypatch.setattr(sys, "stdout", gone)
    with ProgressBar(Progress(epoch=1, step=1, steps=2), 2, 0, quiet=False) as bar:
        bar.say("run directory runs/1")
        for _ in range(5):  # some of these are the thread's, which looks twice a second
            assert gone.asked.acquire(timeout=10)
