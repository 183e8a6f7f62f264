"""The progress bar of a training run on a terminal."""

import math
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from engine.loop import Epoch
from engine.record import Progress


class ProgressBar:
    """A bar over the steps of all epochs, with loss, recall, slope β and threshold γ of the last one.

    A thread looks at the loop's progress twice a second, so the loop itself never waits for a terminal.
    Nor does it fail or hang when the terminal, or whoever reads a pipe, has gone.
    """

    def __init__(self, progress: Progress, epochs: int, done: int, quiet: bool) -> None:
        self._progress, self._epochs, self._done = progress, epochs, done
        self._bar = tqdm(
            total=epochs, initial=done, unit="epoch", disable=quiet, dynamic_ncols=True, desc="loading",
            file=_Lasting(sys.stderr),
            bar_format="{desc} {percentage:3.0f}%|{bar:16}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress-bar", daemon=True)

    def __enter__(self) -> "ProgressBar":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()
        self._bar.close()

    def _follow(self) -> None:
        while not self._closed.wait(0.5):
            progress = self._progress
            if progress.steps and progress.epoch:
                self._bar.n = progress.epoch - 1 + min(1.0, progress.step / progress.steps)
                self._bar.set_description_str(
                    f"epoch {progress.epoch}/{self._epochs}"
                    + (f" {progress.note}" if progress.note else "")
                    + (" stopping" if progress.stop else ""), refresh=False,
                )  # fmt: skip
                self._bar.refresh()

    def show(self, epoch: Epoch) -> None:
        """Put an epoch's numbers behind the bar."""
        numbers = [f"loss {epoch.loss:.3f}", f"recall {epoch.trend.recall:.3f}"]
        numbers += [
            f"{sign} {value:+.4f}"
            for sign, value in (("β", epoch.trend.slope), ("γ", epoch.trend.gamma))
            if not math.isnan(value)
        ]
        if epoch.validation is not None:
            numbers.append(f"val Dice {epoch.validation.score:.3f}")
        self._bar.n = epoch.number
        self._bar.set_description_str(f"epoch {epoch.number}/{self._epochs}", refresh=False)
        self._bar.set_postfix_str(", ".join(numbers))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        with suppress(OSError):
            self._bar.write(text) if not self._bar.disable else print(text)


class _Lasting:
    """A stream to which writing never fails: tqdm, where it does, keeps its lock for ever."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
