"""The rows by which a threshold is moved: class, slider and exact value."""

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QGridLayout, QLabel, QWidget
from superqt import QDoubleSlider

from napari_smm.readout import number

DECIMALS = 6
STEP, LEAP = 0.01, 0.1
LABELS = 80
"""Pixels of the labels' column, in all rows of the dock."""


class ThresholdField(QDoubleSpinBox):
    """T as a number, with as many digits as it needs, 3 to 6."""

    def textFromValue(self, value: float) -> str:  # noqa: N802 (Qt's name)
        """T as it is shown."""
        return str(self.locale().toString(value, "f", len(number(value)) - 2))


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
        self.slider.setToolTip("T: a pixel is predicted where its probability is T or more")
        self.field = ThresholdField(self)
        self.field.setObjectName("threshold-value")
        self.field.setRange(0.0, 1.0)
        self.field.setDecimals(DECIMALS)
        self.field.setSingleStep(STEP)
        self.field.setKeyboardTracking(False)
        self.field.setValue(0.5)
        self.field.setMinimumWidth(112)
        self.field.setToolTip(self.slider.toolTip())
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.addWidget(QLabel("Class", self), 0, 0)
        grid.addWidget(self.classes, 0, 1, 1, 2)
        grid.addWidget(QLabel("T", self), 1, 0)
        grid.addWidget(self.slider, 1, 1)
        grid.addWidget(self.field, 1, 2)
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
        """Show T, 0…1, and emit nothing."""
        for widget in (self.slider, self.field):
            if widget.value() != threshold:
                widget.blockSignals(True)
                widget.setValue(threshold)
                widget.blockSignals(False)

    def show_classes(self, names: Sequence[str], cls: int) -> None:
        """Show the classes and which of them is in view."""
        if [self.classes.itemText(at) for at in range(self.classes.count())] != list(names):
            self.classes.clear()
            self.classes.addItems(names)
        if names and self.classes.currentIndex() != cls:
            self.classes.setCurrentIndex(cls)

    def set_ready(self, ready: bool) -> None:
        """Whether there is something to move T on."""
        for widget in (self.slider, self.field):
            widget.setEnabled(ready)

    def _on_moved(self, value: float) -> None:
        self.moved.emit(float(value))

    def _on_class(self, index: int) -> None:
        self.class_chosen.emit(index)
