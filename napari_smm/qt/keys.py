"""Keys of the workbench: one table for binding them, the dock and the docs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QLineEdit, QPlainTextEdit, QTextEdit

from napari_smm.layers import Role

STEP, FINE = 0.01, 0.001
"""How far a key moves the threshold."""


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes:
        key: as napari writes it.
        words: what it does.
        action: name of the dock's method that does it.
        arguments: of the method.
    """

    key: str
    words: str
    action: str
    arguments: tuple[Any, ...] = ()


# Letters alone and with Shift, which napari and its layers leave free: with Alt they are signs of their own
# on some systems, and digits with Shift are other keys on each keyboard.
TOGGLED: dict[Role, str] = {
    "image": "Shift-I",
    "truth": "Shift-T",
    "modulated mask": "Shift-M",
    "probability": "Shift-S",
    "prediction": "Shift-D",
    "false positives": "Shift-F",
    "false negatives": "Shift-G",
    "outline": "Shift-O",
    "recall slope": "Shift-R",
}
"""Role of a layer → the key that shows or hides it."""

KEYS: tuple[Key, ...] = (
    Key("K", f"threshold up by {STEP}", "step_threshold", (STEP,)),
    Key("J", f"threshold down by {STEP}", "step_threshold", (-STEP,)),
    Key("Shift-K", f"threshold up by {FINE}", "step_threshold", (FINE,)),
    Key("Shift-J", f"threshold down by {FINE}", "step_threshold", (-FINE,)),
    Key("N", "next watched image", "step_item", (1,)),
    Key("Shift-N", "previous watched image", "step_item", (-1,)),
    Key("W", "next epoch", "step_epoch", (1,)),
    Key("Q", "previous epoch", "step_epoch", (-1,)),
    Key("G", "follow the newest epoch, or stay", "toggle_follow"),
    *(Key(key, f"show or hide: {role}", "toggle", (role,)) for role, key in TOGGLED.items()),
)


class BoundKeys:
    """The table's keys, bound in a viewer to the methods of a dock.

    Keys that the user has given to something else in this viewer are left alone. Of several docks in a
    viewer the first has the keys; when it closes, the next one has.
    """

    _waiting: dict[int, list["BoundKeys"]] = {}  # noqa: RUF012 (shared on purpose)

    def __init__(self, viewer: Any, dock: Any) -> None:
        """Bind the keys, unless another dock has them."""
        self._viewer, self._dock = viewer, dock
        self.bound: list[Key] = []
        docks = self._waiting.setdefault(id(viewer), [])
        docks.append(self)
        if docks[0] is self:
            self._bind()

    def close(self) -> None:
        """Free the keys again."""
        docks = self._waiting.get(id(self._viewer), [])
        if self not in docks:
            return
        docks.remove(self)
        for entry in self.bound:
            self._viewer.bind_key(entry.key, None)
        self.bound = []
        if docks:
            docks[0]._bind()
        else:
            del self._waiting[id(self._viewer)]

    def _bind(self) -> None:
        taken = {str(key) for key in self._viewer.keymap}
        for entry in KEYS:
            if entry.key.replace("-", "+") not in taken:
                self._viewer.bind_key(entry.key, self._handler(entry))
                self.bound.append(entry)

    def _handler(self, entry: Key) -> Callable[[Any], None]:
        act = partial(getattr(self._dock, entry.action), *entry.arguments)

        def handler(viewer: Any) -> None:
            if not is_typing():
                act()

        return handler


def is_typing() -> bool:
    """Whether what is typed goes into a text."""
    return isinstance(QApplication.focusWidget(), QLineEdit | QAbstractSpinBox | QTextEdit | QPlainTextEdit)


def readable(key: str) -> str:
    """A key as people write it."""
    return key.replace("-", "+")


def markdown() -> str:
    """The table for the docs."""
    lines = [f"| {readable(entry.key)} | {entry.words} |" for entry in KEYS]
    return "\n".join(["| key | what it does |", "|---|---|", *lines]) + "\n"
