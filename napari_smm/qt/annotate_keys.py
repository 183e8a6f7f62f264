"""Keys of the image that is annotated: one table for binding them, the dock's tooltips and the docs.

They are bound to its layers, not to the viewer: napari asks the selected layer first. Digits, napari's
second keys for its tools, choose classes there; its letters stay.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from napari_smm.qt.keys import Key, is_typing

MOST_DIGITS = 9
"""Classes that have a key."""

NEXT = Key("N", "next image", "step", (1,))
PREVIOUS = Key("Shift-N", "previous image", "step", (-1,))
ACCEPT = Key("D", "done, and to the next image", "accept")
EVERYWHERE = (NEXT, PREVIOUS, ACCEPT)
"""Of these, what works on the Image layers too."""

REST = Key("R", "background: what is unlabelled in this slice", "fill_slice")
KEYS: tuple[Key, ...] = (
    *EVERYWHERE,
    REST,
    Key("0", "paint background", "choose_number", (0,)),
    *(Key(str(n), f"paint class {n}", "choose_number", (n,)) for n in range(1, MOST_DIGITS + 1)),
    Key("M", "add a class", "add_class"),
    Key("=", "paint the next class", "step_class", (1,)),
    Key("-", "paint the class before", "step_class", (-1,)),
)
NAPARI = (
    ("P, E, F, L, Z", "napari's own: brush, eraser (*unlabelled*), fill, pick, move"),
    ("X", "napari's own: *unlabelled*, or the class again"),
    ("[ and ]", "napari's own: a smaller or larger brush"),
    ("B", "napari's own: paint only on what is unlabelled"),
    ("Ctrl+Z, Ctrl+Shift+Z", "napari's own: undo, redo"),
)
"""What stays as it is, for the docs."""


def bind(layer: Any, keys: Iterable[Key], dock: Any) -> None:
    """Bind keys on a layer to the methods of a dock."""
    for entry in keys:
        layer.bind_key(entry.key, _handler(entry, dock), overwrite=True)


def free(layer: Any, keys: Iterable[Key]) -> None:
    """Take them away again."""
    for entry in keys:
        layer.bind_key(entry.key, None)


def _handler(entry: Key, dock: Any) -> Callable[[Any], None]:
    act = partial(getattr(dock, entry.action), *entry.arguments)

    def handler(layer: Any) -> None:
        if not is_typing():
            act()

    return handler


def readable(key: str) -> str:
    """A key as people write it."""
    return key.replace("-", "+") if len(key) > 1 else key


def hint(words: str, entry: Key) -> str:
    """A tooltip that names the key."""
    return f"{words} ({readable(entry.key)})"


def markdown() -> str:
    """The table for the docs."""
    digits = [entry for entry in KEYS if entry.key.isdigit() and entry.key != "0"]
    rows = [(readable(entry.key), entry.words) for entry in KEYS if entry not in digits]
    at = next(number for number, (key, _) in enumerate(rows) if key == "0") + 1
    rows.insert(at, (f"{digits[0].key} … {digits[-1].key}", "paint that class"))
    lines = [f"| {key} | {words} |" for key, words in (*rows, *NAPARI)]
    return "\n".join(["| key | what it does |", "|---|---|", *lines]) + "\n"
