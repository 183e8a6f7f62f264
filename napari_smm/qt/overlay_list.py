"""The layers that are shown as a legend: what each colour means, a box to show or hide it, and its key."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QWidget

from engine.figures import colours
from napari_smm.layers import MARK, ROLES, Role
from napari_smm.qt.section import FaintLabel

SIDE = 12
"""Pixels of a swatch's side."""
EDGE = "#808080"
"""Colour around swatches, so that they are seen on any ground."""
GRAY = ("#000000", "#FFFFFF")
VIRIDIS = ("#440154", "#3B528B", "#21918C", "#5EC962", "#FDE725")
WIDE: Role = "modulated mask"
"""The role that has a row for itself, as its two colours need words."""

Lookup = Callable[[Role], Any | None]


class Swatch(QWidget):
    """A little square of a colour, of several from left to right, or with an edge alone."""

    def __init__(self, shown: Sequence[str], *, hollow: bool = False, parent: QWidget | None = None) -> None:
        """Show colours "#RRGGBB"."""
        super().__init__(parent)
        self._colours = tuple(shown)
        self._hollow = hollow
        self.setFixedSize(SIDE + 2, SIDE + 2)

    @property
    def colours(self) -> tuple[str, ...]:
        """What is shown."""
        return self._colours

    def set_colour(self, colour: str) -> None:
        """Show one colour."""
        if self._colours != (colour,):
            self._colours = (colour,)
            self.update()

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """The square and its edge."""
        return QSize(SIDE + 2, SIDE + 2)

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        """Draw it; faint where it cannot be switched."""
        painter = QPainter(self)
        painter.setOpacity(1.0 if self.isEnabled() else 0.35)
        box = QRect(1, 1, SIDE - 1, SIDE - 1)
        if self._hollow:
            painter.fillRect(box, QColor(EDGE))
            painter.fillRect(box.adjusted(1, 1, -1, -1), QColor(self._colours[0]))
            painter.fillRect(box.adjusted(4, 4, -4, -4), self.palette().color(self.backgroundRole()))
            return
        if len(self._colours) == 1:
            painter.fillRect(box, QColor(self._colours[0]))
        else:
            gradient = QLinearGradient(box.left(), 0, box.right(), 0)
            for number, colour in enumerate(self._colours):
                gradient.setColorAt(number / (len(self._colours) - 1), QColor(colour))
            painter.fillRect(box, gradient)
        painter.setPen(QColor(EDGE))
        painter.drawRect(box)


class OverlayList(QWidget):
    """A box for each role's layer, bound to its visibility both ways; the outline's is bound to a wish.

    Call :meth:`leave` when the owner closes, so that the layers forget it.
    """

    outline_wanted = Signal(bool)
    """The user switched the outline, which is a layer only while it is wanted."""

    def __init__(self, keys: Mapping[Role, str], parent: QWidget | None = None) -> None:
        """List the roles with the keys that show or hide them."""
        super().__init__(parent)
        self._find: Lookup = lambda role: None
        self._layers: dict[Role, Any] = {}
        self._boxes: dict[Role, QCheckBox] = {}
        self._cells: dict[Role, QWidget] = {}
        self.swatches: dict[Role, list[Swatch]] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 0, 4, 0)
        grid.setHorizontalSpacing(14)
        grid.setVerticalSpacing(0)
        for column in (0, 1):
            grid.setColumnStretch(column, 1)
        # From the uppermost layer down, as in napari's own list; down the left column first.
        roles = [role for role in reversed(ROLES) if role != WIDE]
        half = (len(roles) + 1) // 2
        for number, role in enumerate(roles):
            grid.addWidget(self._cell(role, keys.get(role, "")), number % half, number // half)
        grid.addWidget(self._cell(WIDE, keys.get(WIDE, "")), half, 0, 1, 2)
        self.follow(self._find)

    def box(self, role: Role) -> QCheckBox:
        """The box of a role."""
        return self._boxes[role]

    def follow(self, find: Lookup) -> None:
        """Show the layers that a function finds for each role."""
        self._find = find
        self.look()

    def look(self) -> None:
        """Find the layers again, as some have come or gone."""
        for role, box in self._boxes.items():
            if role == "outline":
                continue
            layer = self._find(role)
            if layer is not self._layers.get(role):
                self._let_go(role)
                if layer is not None:
                    self._layers[role] = layer
                    layer.events.visible.connect(self._show)
            box.setEnabled(layer is not None)
            for swatch in self.swatches[role]:
                swatch.setEnabled(layer is not None)
                # A layer of the user's has colours of its own.
                swatch.setVisible(layer is None or MARK in layer.metadata)
        self._show()

    def toggle(self, role: Role) -> None:
        """Show or hide a role's layer, if there is one."""
        if self._boxes[role].isEnabled():
            self._boxes[role].click()

    def show_outline(self, wanted: bool, possible: bool) -> None:
        """Show whether the outline is wanted, and whether there is something to draw it of."""
        box = self._boxes["outline"]
        box.setChecked(wanted)
        box.setEnabled(possible)

    def show_class(self, cls: int) -> None:
        """Give the prediction the colour of a class, counted from 0."""
        self.swatches["prediction"][0].set_colour(colours.class_colour(cls))

    def leave(self) -> None:
        """Let go of the layers."""
        for role in list(self._layers):
            self._let_go(role)

    def _cell(self, role: Role, key: str) -> QWidget:
        cell = QWidget(self)
        row = QHBoxLayout(cell)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(5)
        box = QCheckBox(role, cell)
        box.setObjectName("threshold-outline" if role == "outline" else f"overlay-{role.replace(' ', '-')}")
        box.clicked.connect(partial(self._set, role))
        self._boxes[role] = box
        row.addWidget(box)
        swatches = []
        for shown, word in _legend(role):
            swatch = Swatch(shown, hollow=role == "outline", parent=cell)
            swatches.append(swatch)
            row.addWidget(swatch)
            if word:
                row.addWidget(QLabel(word, cell))
        self.swatches[role] = swatches
        row.addStretch(1)
        hint = FaintLabel(key.replace("Shift-", "⇧"), cell)
        hint.setToolTip(f"{key.replace('-', '+')} shows or hides it")
        row.addWidget(hint, 0, Qt.AlignmentFlag.AlignRight)
        self._cells[role] = cell
        return cell

    def _set(self, role: Role, visible: bool) -> None:
        if role == "outline":
            self.outline_wanted.emit(visible)
        elif role in self._layers:
            self._layers[role].visible = visible

    def _show(self, event: Any = None) -> None:
        for role, box in self._boxes.items():
            if role != "outline":
                layer = self._layers.get(role)
                box.setChecked(layer is not None and bool(layer.visible))

    def _let_go(self, role: Role) -> None:
        layer = self._layers.pop(role, None)
        if layer is not None:
            layer.events.visible.disconnect(self._show)


def _legend(role: Role) -> tuple[tuple[tuple[str, ...], str], ...]:
    """The colours of a role, each with a word where there are several."""
    legends: dict[Role, tuple[tuple[tuple[str, ...], str], ...]] = {
        "image": ((GRAY, ""),),
        "truth": (((colours.CORRECT,), ""),),
        "modulated mask": (((colours.CORRECT,), "truth"), ((colours.ADDED,), "added")),
        "probability": ((VIRIDIS, ""),),
        "prediction": (((colours.class_colour(0),), ""),),
        "false positives": (((colours.FALSE_ALARM,), ""),),
        "false negatives": (((colours.MISSED,), ""),),
        "outline": (((colours.CONFUSED,), ""),),
    }
    return legends.get(role, ())
