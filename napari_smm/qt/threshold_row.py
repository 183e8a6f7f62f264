"""The rows by which a threshold is moved: class, slider and exact value."""

import math
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QGridLayout, QLabel, QWidget
from superqt import QDoubleSlider

from napari_smm.qt.share_row import FIELD
from napari_smm.readout import INFINITE, number

DECIMALS = 6
STEP, LEAP = 0.01, 0.1
MEANING = "T: a pixel is predicted where its probability is T or more"
LABELS = 80
"""Pixels of the labels' column, in all rows of the dock."""
GAP = 4
"""Pixels between the columns, in all rows of the dock."""


class ThresholdField(QDoubleSpinBox):
    """T as a number, with as many digits as it needs, 3 to 6; "∞" where it is beyond all of them."""

    beyond = False
    """Whether T is inf, which no spin box can hold: it stands at 1 then, and says otherwise."""

    def textFromValue(self, value: float) -> str:  # noqa: N802 (Qt's name)
        """T as it is shown."""
        if self.beyond:
            return INFINITE
        return str(self.locale().toString(value, "f", len(number(value)) - 2))

    def valueFromText(self, text: str | None) -> float:  # noqa: N802
        """T as it was typed."""
        return 1.0 if text == INFINITE else float(super().valueFromText(text))

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        """What may be typed."""
        if text == INFINITE:
            return QValidator.State.Acceptable, INFINITE, position
        return super().validate(text, position)

    def show_threshold(self, threshold: float) -> None:
        """Show T, 0…1 or inf."""
        self.beyond = math.isinf(threshold)
        self.setValue(min(threshold, 1.0))


class ThresholdRow(QWidget):
    """Class, slider and number. Emits what the user chooses; shows only what it is told."""

    moved = Signal(float)
    """T, as exactly as it was given."""
    class_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        """Show T = 0.5 of no class."""
        super().__init__(parent)
        self.classes = QComboBox(self)
        self.classes.setObjectName("threshold-class")
        self.classes.setToolTip("The class whose threshold is moved, and whose prediction is shown")
        self.slider: Any = QDoubleSlider(Qt.Orientation.Horizontal, self)  # type: ignore[no-untyped-call]
        self.slider.setObjectName("threshold-slider")
        self.slider.setRange(0.0, 1.0)
        self.slider.setSingleStep(STEP)
        self.slider.setPageStep(LEAP)
        self.slider.setValue(0.5)
        self.slider.setToolTip(MEANING)
        self.field = ThresholdField(self)
        self.field.setObjectName("threshold-value")
        self.field.setRange(0.0, 1.0)
        self.field.setDecimals(DECIMALS)
        self.field.setSingleStep(STEP)
        self.field.setKeyboardTracking(False)
        self.field.setValue(0.5)
        self.field.setMinimumWidth(FIELD)
        self.field.setToolTip(MEANING)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        self._class_label = QLabel("Class", self)
        grid.addWidget(self._class_label, 0, 0)
        grid.addWidget(self.classes, 0, 1, 1, 2)
        grid.addWidget(QLabel("T", self), 1, 0)
        grid.addWidget(self.slider, 1, 1)
        grid.addWidget(self.field, 1, 2)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)
        self.slider.valueChanged.connect(self._on_moved)
        self.field.valueChanged.connect(self._on_moved)
        self.classes.activated.connect(self._on_class)
        edit = self.field.lineEdit()
        if edit is not None:
            # What is typed is taken, and the keyboard is free again for the workbench's keys.
            edit.returnPressed.connect(self.field.clearFocus)

    def show_threshold(self, threshold: float) -> None:
        """Show T, 0…1 or inf, and emit nothing."""
        shown = min(threshold, 1.0)
        if self.slider.value() != shown:
            self.slider.blockSignals(True)
            self.slider.setValue(shown)
            self.slider.blockSignals(False)
        if self.field.value() != threshold or self.field.beyond:
            self.field.blockSignals(True)
            self.field.show_threshold(threshold)
            self.field.blockSignals(False)
        self.field.setToolTip(f"{MEANING}; it is {threshold!r} now")

    def show_classes(self, names: Sequence[str], cls: int) -> None:
        """Show the classes and which of them is in view; a single one is no choice."""
        if [self.classes.itemText(at) for at in range(self.classes.count())] != list(names):
            self.classes.clear()
            self.classes.addItems(names)
        if names and self.classes.currentIndex() != cls:
            self.classes.setCurrentIndex(cls)
        for widget in (self._class_label, self.classes):
            widget.setVisible(len(names) > 1)

    def set_ready(self, ready: bool) -> None:
        """Whether there is something to move T on."""
        for widget in (self.slider, self.field):
            widget.setEnabled(ready)

    def _on_moved(self, value: float) -> None:
        self.moved.emit(float(value))

    def _on_class(self, index: int) -> None:
        self.class_chosen.emit(index)
