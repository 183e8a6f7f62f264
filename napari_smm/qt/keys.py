"""Keys of the workbench: one table for binding them, the dock and the docs. They work in napari's canvas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari_smm.layers import ROLES
from napari_smm.qt.workbench import Workbench

STEP, FINE = 0.01, 0.001
"""How far a key moves the threshold."""

Action = Callable[[Workbench], None]


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes:
        key: as napari writes it.
        words: what it does.
        action: does it.
    """

    key: str
    words: str
    action: Action


def move(step: float) -> Action:
    """Move the threshold of the class in view."""

    def action(bench: Workbench) -> None:
        bench.move_threshold(step)

    return action


def go_epochs(step: int) -> Action:
    """Go to a later or earlier epoch."""
    return lambda bench: bench.session.step_epoch(step)


def go_items(step: int) -> Action:
    """Go to another watched image."""
    return lambda bench: bench.session.step_item(step)


def follow(bench: Workbench) -> None:
    """Follow the newest epoch, or stay at the one in view."""
    session = bench.session
    session.set_view(follow=not session.view.follow, epoch=session.epoch)


def outline(bench: Workbench) -> None:
    """Draw the prediction's outline, or no longer."""
    bench.session.set_view(outline=not bench.session.view.outline)


def toggle(role: Any) -> Action:
    """Show or hide a layer of the watched run."""

    def action(bench: Workbench) -> None:
        layer = bench.sync.layer(role)
        if layer is not None:
            layer.visible = not layer.visible

    return action


TOGGLED = {role: f"Alt-{number}" for number, role in enumerate((r for r in ROLES if r != "outline"), start=1)}
"""Role of a layer → the key that shows or hides it."""

KEYS: tuple[Key, ...] = (
    Key("K", f"threshold up by {STEP}", move(STEP)),
    Key("J", f"threshold down by {STEP}", move(-STEP)),
    Key("Shift-K", f"threshold up by {FINE}", move(FINE)),
    Key("Shift-J", f"threshold down by {FINE}", move(-FINE)),
    Key("N", "next watched image", go_items(1)),
    Key("Shift-N", "previous watched image", go_items(-1)),
    Key("W", "next epoch", go_epochs(1)),
    Key("Q", "previous epoch", go_epochs(-1)),
    Key("G", "follow the newest epoch, or stay", follow),
    Key("U", "outline on or off", outline),
    *(Key(key, f"show or hide: {role}", toggle(role)) for role, key in TOGGLED.items()),
)


def bind(bench: Workbench) -> list[Key]:
    """Bind the keys that the user has not given to something else. Returns those that were bound."""
    taken = {str(key) for key in bench.viewer.keymap}
    bound = []
    for entry in KEYS:
        if entry.key in taken or entry.key.replace("-", "+") in taken:
            continue
        bench.viewer.bind_key(entry.key, _handler(bench, entry.action))
        bound.append(entry)
    return bound


def unbind(bench: Workbench, bound: list[Key]) -> None:
    """Free the keys again."""
    for entry in bound:
        bench.viewer.bind_key(entry.key, None)


def _handler(bench: Workbench, action: Action) -> Callable[[Any], None]:
    def handler(viewer: Any) -> None:
        action(bench)

    return handler


def markdown() -> str:
    """The table for the docs."""
    lines = ["| key | |", "|---|---|", *(f"| `{entry.key}` | {entry.words} |" for entry in KEYS)]
    return "\n".join(lines) + "\n"
