"""The layers of the watched run as a legend: what each colour means, with a box to show or hide it."""

from collections.abc import Mapping

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QWidget

from engine.figures import colours
from napari_smm.layers import ROLES, Role
from napari_smm.qt.layer_sync import LayerSync

SIDE = 12
"""Pixels of a swatch's side."""

SWATCHES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "truth": ((colours.CORRECT, ""),),
    "modulated mask": ((colours.CORRECT, "truth"), (colours.ADDED, "added")),
    "prediction": ((colours.class_colour(0), ""),),
    "false positives": ((colours.FALSE_ALARM, ""),),
    "false negatives": ((colours.MISSED, ""),),
}
"""Colours of a role, and what each means where there are several."""


class OverlayList(QWidget):
    """A row for each layer of the run: a box for its visibility, name, colours and key."""

    def __init__(self, sync: LayerSync, keys: Mapping[Role, str], parent: QWidget | None = None) -> None:
        """List the layers that are kept in step by `sync`; `keys` show or hide them."""
        super().__init__(parent)
        self._sync = sync
        self._boxes: dict[Role, QCheckBox] = {}
        self._layers: dict[Role, object] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(2, 1)
        for row, role in enumerate(role for role in reversed(ROLES) if role != "outline"):
            box = QCheckBox(role, self)
            box.setObjectName(f"overlay-{role.replace(' ', '-')}")
            box.setEnabled(False)
            box.toggled.connect(self._set(role))
            self._boxes[role] = box
            grid.addWidget(box, row, 0)
            self._swatches = QLabel(self)
            grid.addWidget(self._legend(role), row, 1)
            grid.addWidget(QLabel(keys.get(role, ""), self), row, 3, Qt.AlignmentFlag.AlignRight)
        sync.changed.connect(self.look)
        self.look()

    def look(self) -> None:
        """Follow the layers that there are now."""
        for role, box in self._boxes.items():
            layer = self._sync.layer(role)
            if layer is not self._layers.get(role):
                self._let_go(role)
                if layer is not None:
                    self._layers[role] = layer
                    layer.events.visible.connect(self._show)
            box.setEnabled(layer is not None)
        self._show()

    def leave(self) -> None:
        """Let go of the layers."""
        self._sync.changed.disconnect(self.look)
        for role in list(self._layers):
            self._let_go(role)

    def _let_go(self, role: Role) -> None:
        layer = self._layers.pop(role, None)
        if layer is not None:
            layer.events.visible.disconnect(self._show)  # type: ignore[attr-defined]

    def _show(self, event: object = None) -> None:
        for role, box in self._boxes.items():
            layer = self._layers.get(role)
            box.blockSignals(True)
            box.setChecked(layer is not None and bool(layer.visible))  # type: ignore[attr-defined]
            box.blockSignals(False)

    def _set(self, role: Role):  # type: ignore[no-untyped-def]
        def show(visible: bool) -> None:
            layer = self._layers.get(role)
            if layer is not None:
                layer.visible = visible  # type: ignore[attr-defined]

        return show

    def _legend(self, role: Role) -> QLabel:
        """Swatches with an edge, so that they are seen on any ground, and a word where there are two."""
        parts = SWATCHES.get(role, ())
        label = QLabel(self)
        words = [word for _, word in parts if word]
        metrics = label.fontMetrics()
        widths = [SIDE + (metrics.horizontalAdvance(f" {word}  ") if word else 0) for _, word in parts]
        picture = QPixmap(QSize(max(1, sum(widths)), SIDE + 4))
        picture.fill(Qt.GlobalColor.transparent)
        painter = QPainter(picture)
        left = 0
        for (colour, word), width in zip(parts, widths, strict=True):
            painter.setPen(QColor("#808080"))
            painter.setBrush(QColor(colour))
            painter.drawRect(left, 2, SIDE - 1, SIDE - 1)
            if word:
                painter.drawText(left + SIDE + 3, SIDE, word)
            left += width
        painter.end()
        label.setPixmap(picture)
        label.setAccessibleName(", ".join(words) or role)
        return label
