"""Rows by which a share from 0 to 1 is chosen: a slider and its number."""

from typing import Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QWidget
from superqt import QDoubleSlider

DECIMALS = 3
STEP, LEAP = 0.01, 0.1
FIELD = 124
"""Least pixels of the number, in all rows of the dock."""


class ShareRow(QObject):
    """A label, a slider and a number in a row of a grid, which show the same share.

    A hand that drags the slider goes in steps of 0.01; the number takes three decimals.

    Args:
        grid: whose row it is; in columns 0, 1 and 2.
        row: number of the row.
        name: object name of the slider; the number's has "-value" behind it.
        limits: least and greatest share.
        parent: the owner.
    """

    moved = Signal(float)
    """The user chose another share."""

    def __init__(
        self, grid: QGridLayout, row: int, name: str, limits: tuple[float, float], parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._value = limits[0]
        self.label = QLabel(parent)
        self.slider: Any = QDoubleSlider(Qt.Orientation.Horizontal, parent)  # type: ignore[no-untyped-call]
        self.slider.setObjectName(name)
        self.field = QDoubleSpinBox(parent)
        self.field.setObjectName(f"{name}-value")
        self.field.setDecimals(DECIMALS)
        self.field.setKeyboardTracking(False)
        self.field.setMinimumWidth(FIELD)
        for widget in (self.slider, self.field):
            widget.setRange(*limits)
            widget.setSingleStep(STEP)
        self.slider.setPageStep(LEAP)
        grid.addWidget(self.label, row, 0)
        grid.addWidget(self.slider, row, 1)
        grid.addWidget(self.field, row, 2)
        self.slider.valueChanged.connect(self._on_slider)
        self.field.valueChanged.connect(self._take)
        edit = self.field.lineEdit()
        if edit is not None:
            # What is typed is taken, and the keyboard is free again for the workbench's keys.
            edit.returnPressed.connect(self.field.clearFocus)

    @property
    def value(self) -> float:
        """The share."""
        return self._value

    def show_value(self, value: float) -> None:
        """Show a share, and emit nothing."""
        self._value = value
        for widget in (self.slider, self.field):
            if widget.value() != value:
                widget.blockSignals(True)
                widget.setValue(value)
                widget.blockSignals(False)

    def set_label(self, label: str, help_text: str) -> None:
        """Say what the share is, and explain it where the mouse rests."""
        self.label.setText(label)
        for widget in (self.label, self.slider, self.field):
            widget.setToolTip(help_text)
        for widget in (self.slider, self.field):
            widget.setAccessibleName(label)
            widget.setAccessibleDescription(help_text)

    def set_visible(self, visible: bool) -> None:
        """Show or hide the row."""
        for widget in (self.label, self.slider, self.field):
            widget.setVisible(visible)

    def _on_slider(self, value: float) -> None:
        self._take(round(value, 2) if self.slider.isSliderDown() else value)

    def _take(self, value: float) -> None:
        value = round(float(value), DECIMALS)
        moved = value != self._value
        self.show_value(value)
        if moved:
            self.moved.emit(value)
