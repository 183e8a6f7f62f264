"""How much of a streamed prediction is in its folder, so that another process can go on with it."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.disk import replace_text
from engine.errors import InputError
from engine.streamed.pyramid import Pyramid

Span = tuple[int, int]
"""The first row of chunks, and that before which to end."""
SAME = {
    "weights": "the weights of the run",
    "path": "settings that decide on the digits of a probability",
    "digest": "the image",
    "shape": "the image's shape or the run's classes",
}
"""What a prediction that is gone on with must have in common with its beginning, in words."""


@dataclass
class State:
    """What of a prediction is written.

    Attributes:
        pyramid: its arrays.
        about: what meta.json says in the end.
        done: numbers of the rows of chunks of the largest array that are written, and of which all is
            written that they complete in the smaller ones.
    """

    pyramid: Pyramid
    about: Mapping[str, Any]
    done: set[int]

    @classmethod
    def begin(cls, pyramid: Pyramid, about: Mapping[str, Any]) -> "State":
        """That of a folder: what an earlier process left, or new arrays.

        Raises:
            InputError: what it left is another prediction's.
        """
        out = pyramid.out
        for name in ("meta.json", "state.json"):
            if (out / name).is_file():
                there = json.loads((out / name).read_text("utf-8"))
                old = there if name == "meta.json" else there["about"]
                _require_same(out, old, about)
                spans = [(0, pyramid.rows())] if name == "meta.json" else there["rows"]
                return cls(pyramid, about, {row for first, last in spans for row in range(first, last)})
        # A process that was killed while it made them may have left some.
        for array in pyramid.names:
            shutil.rmtree(out / array, ignore_errors=True)
        pyramid.create()
        state = cls(pyramid, about, set())
        state.save()
        return state

    def add(self, row: int) -> None:
        """Note a row that is written."""
        self.done.add(row)
        self.save()

    def save(self) -> None:
        """Replace state.json."""
        content = {"rows": list(spans_of(self.done)), "about": self.about}
        replace_text(self.pyramid.out / "state.json", json.dumps(content) + "\n", durable=False)

    def missing(self) -> list[Span]:
        """Rows that are not written."""
        return list(spans_of(set(range(self.pyramid.rows())) - self.done))

    def finish(self) -> None:
        """Say what is there, which makes the folder whole."""
        replace_text(self.pyramid.out / "meta.json", json.dumps(self.about, indent=2) + "\n")
        (self.pyramid.out / "state.json").unlink(missing_ok=True)


def spans_of(rows: set[int]) -> Iterator[Span]:
    """Rows that follow each other, together."""
    for first in sorted(row for row in rows if row - 1 not in rows):
        last = first
        while last in rows:
            last += 1
        yield first, last


def _require_same(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name, words in SAME.items():
        if old.get(name) != new[name]:
            given, now = old.get(name), new[name]
            if name == "path" and isinstance(given, Mapping):
                differ = [key for key in {**given, **now} if given.get(key) != now.get(key)]
                words = (
                    f"{words} ({', '.join(f'{key} {given.get(key)}, now {now.get(key)}' for key in differ)})"
                )
            raise InputError(
                f"the prediction in {out} cannot be resumed: {words} differ from those that it began with; "
                "--overwrite begins anew."
            )
