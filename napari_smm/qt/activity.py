"""The progress of a run or a prediction in napari's own activity dock."""

from typing import Any, Protocol

from napari.utils import progress
from qtpy.QtCore import QObject, QTimer

from napari_smm.status import Display

STEPS = 100
"""Resolution of the bar. At each step napari works off all waiting events of the window, so there are few."""


class Living(Protocol):
    """The state of something that goes on or has ended."""

    @property
    def alive(self) -> bool:
        """Whether it goes on."""


class Activity(QObject):
    """One bar in the activity dock while something goes on. It is moved in a turn of its own, as napari then
    draws whatever waits to be drawn."""

    def __init__(self, parent: QObject | None = None) -> None:
        """Show nothing yet."""
        super().__init__(parent)
        self._bar: Any = None
        self._wanted = ("", 0)
        self._turn = QTimer(self)
        self._turn.setSingleShot(True)
        self._turn.setInterval(0)
        self._turn.timeout.connect(self._move)

    def show(self, name: str, state: Living | None, shown: Display) -> None:
        """Show how far a living one is; nothing for one that has ended."""
        if state is None or not state.alive or shown.done is None:
            self.close()
            return
        step = round(shown.done * STEPS)
        if self._bar is None or step > self._bar.n:
            self._wanted = name, step
            self._turn.start()

    def close(self) -> None:
        """Take the bar away."""
        self._turn.stop()
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _move(self) -> None:
        name, step = self._wanted
        if self._bar is None:
            self._bar = progress(total=STEPS, desc=name)  # napari adds the time left
        else:
            self._bar.update(step - self._bar.n)
