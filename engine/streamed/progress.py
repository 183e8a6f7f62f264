"""How far a streamed prediction is, for whoever watches its folder, and their wish to end it."""

import json
import math
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from tqdm import tqdm

from engine.disk import replace_text

SECONDS = 0.25
"""Between two writings of progress.json."""

Ended = Literal["running", "finished", "cancelled", "failed"]


class CancelledError(Exception):
    """Someone created `cancel`."""


class Progress:
    """The folder's progress.json and `cancel`, and a bar on a terminal."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._done = self._tiles = 0
        self._written = -math.inf
        self._bar: tqdm[Any] | None = None

    def begin(self, tiles: int, done: int = 0) -> None:
        """Announce the number of tiles, and how many of them an earlier process did."""
        self._tiles, self._done = tiles, done
        self._bar = tqdm(total=tiles, initial=done, unit="tile", desc="predict", disable=None)
        self.write("running")

    def tick(self, tiles: int = 1) -> None:
        """A tile is done, or several."""
        self._done += tiles
        if self._bar is not None:
            self._bar.update(tiles)
        if monotonic() - self._written >= SECONDS:
            # A reader that has the file open just now, as Windows sees it, must not end the work.
            with suppress(PermissionError):
                self.write("running")
        self.look()

    def look(self) -> None:
        """Raise CancelledError if there is a `cancel`."""
        if (self._out / "cancel").exists():
            raise CancelledError

    def write(self, state: Ended, message: str = "") -> None:
        """Replace progress.json."""
        content = {"state": state, "done": self._done, "tiles": self._tiles, "message": message}
        replace_text(self._out / "progress.json", json.dumps(content) + "\n", durable=False)
        self._written = monotonic()

    def end(self, state: Ended, message: str = "") -> None:
        """Write how it ended, and close the bar; what ended well is whole."""
        if self._bar is not None:
            self._bar.close()
        if state == "finished":
            self._done = self._tiles
        self.write(state, message)
