"""The progress of a run or a prediction in napari's own activity dock."""

from typing import Any, Protocol

from napari.utils import progress

from napari_smm.status import Display

STEPS = 100
"""Resolution of the bar. At each step napari works off all waiting events of the window, so there are few."""


class Living(Protocol):
    """The state of something that goes on or has ended."""

    @property
    def alive(self) -> bool:
        """Whether it goes on."""


class Activity:
    """One bar in the activity dock while something goes on. Call it on the main thread only."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None
        self._words = ""

    def show(self, name: str, state: Living | None, shown: Display) -> None:
        """Show how far a living one is; nothing for one that has ended."""
        if state is None or not state.alive or shown.done is None:
            self.close()
            return
        if self._bar is None:
            self._bar = progress(total=STEPS, desc=name)
        words = f"{name} · {shown.time_left}" if shown.time_left else name
        if words != self._words:
            self._words = words
            self._bar.set_description(words)
        step = round(shown.done * STEPS) - self._bar.n
        if step > 0:
            self._bar.update(step)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._words = ""
