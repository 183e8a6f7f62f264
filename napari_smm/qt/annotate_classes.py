"""The classes that can be painted: name, colour and number key of each."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from engine.data.annotated import BACKGROUND, PALETTE, UNLABELLED, AnnotationClass
from napari_smm.qt.annotate_keys import MOST_DIGITS

SQUARE = 14
"""Pixels of the side of a colour."""
ROW = 22
MOST_ROWS = 5
"""Rows that are seen without scrolling."""
KEY, COLOR, NAME = range(3)
FIXED = ((BACKGROUND, "0", "#808080", "background"), (UNLABELLED, "X", "", "unlabelled"))
"""What can be painted beside classes: value, key, colour, name."""

Classes = tuple[AnnotationClass, ...]


class ClassTable(QWidget):
    """Shows and edits classes. It never changes them itself: it says what the user wants."""

    chosen = Signal(int)
    """Paint with this value."""
    edited = Signal(object)
    """The user wants these classes."""
    removed = Signal(object)
    """The user wants this class gone."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Show nothing yet."""
        super().__init__(parent)
        self._classes: Classes = ()
        self.table = QTableWidget(0, 3, self)
        self.table.setObjectName("annotate-classes")
        self.table.horizontalHeader().hide()
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(ROW)
        self.table.setShowGrid(False)
        self.table.setIconSize(QSize(SQUARE, SQUARE))
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.table.horizontalHeader()
        header.setMinimumSectionSize(20)
        for column, width in ((KEY, 26), (COLOR, 28)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, width)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.add = self._button("add", "+", "Add a class (M)", self.add_class)
        self.rename = self._button(
            "rename", "Rename", "Rename the class (double click on its name)", self._rename
        )
        self.recolour = self._button("recolour", "Colour…", "Give the class another colour", self._recolour)
        self.remove = self._button("remove", "Remove", "Remove the class, if no image has it", self._remove)
        row = QHBoxLayout()
        row.setSpacing(3)
        for button in (self.add, self.rename, self.recolour, self.remove):
            row.addWidget(button)
        row.addStretch(1)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(3)
        rows.addWidget(self.table)
        rows.addLayout(row)
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.table.itemChanged.connect(self._on_renamed)
        self.table.cellDoubleClicked.connect(self._on_double)

    def show_classes(self, classes: Classes) -> None:
        """Show these, background and *unlabelled* below them."""
        value = self.value()
        self._classes = classes
        self.table.blockSignals(True)
        rows = [
            (c.value, str(n) if n <= MOST_DIGITS else "", c.color, c.name) for n, c in enumerate(classes, 1)
        ]
        self.table.setRowCount(len(rows) + len(FIXED))
        for number, row in enumerate((*rows, *FIXED)):
            self._fill(number, *row, own=number < len(rows))
        self.table.setFixedHeight(ROW * min(len(rows) + len(FIXED), MOST_ROWS) + 4)
        self.table.blockSignals(False)
        self.show_value(value if value is not None else (classes[0].value if classes else BACKGROUND))
        self.setEnabled(bool(classes))

    def value(self) -> int | None:
        """The value of the row that is selected."""
        row = self.table.currentRow()
        item = self.table.item(row, NAME) if row >= 0 else None
        return None if item is None else int(item.data(Qt.ItemDataRole.UserRole))

    def show_value(self, value: int) -> None:
        """Select the row of a value, and tell nobody."""
        self.table.blockSignals(True)
        for row in range(self.table.rowCount()):
            item = self.table.item(row, NAME)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) == value:
                self.table.selectRow(row)
        self.table.blockSignals(False)
        self._allow()

    def add_class(self) -> None:
        """Ask for one class more, and let the user name it."""
        used = {each.value for each in self._classes}
        names = {each.name for each in self._classes}
        value = next(n for n in range(1, UNLABELLED) if n not in used)
        name = next(f"class {n}" for n in range(len(names) + 1, UNLABELLED + 1) if f"class {n}" not in names)
        taken = {each.color for each in self._classes}
        free = [color for color in PALETTE if color not in taken]
        color = free[0] if free else PALETTE[len(used) % len(PALETTE)]
        self.edited.emit((*self._classes, AnnotationClass(name, value, color)))
        if value in {each.value for each in self._classes}:
            self.show_value(value)
            self.chosen.emit(value)
            self._rename()

    def selected(self) -> AnnotationClass | None:
        """The class whose row is selected; None on background and unlabelled."""
        return next((each for each in self._classes if each.value == self.value()), None)

    def _button(self, name: str, text: str, about: str, act: Callable[[], None]) -> QPushButton:
        button = QPushButton(self)
        button.setObjectName(f"annotate-class-{name}")
        button.setText(text)
        button.setToolTip(about)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.clicked.connect(partial(_call, act))
        return button

    def _fill(self, row: int, value: int, key: str, color: str, name: str, *, own: bool) -> None:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        for column, text in ((KEY, key), (COLOR, ""), (NAME, name)):
            item = QTableWidgetItem(text)
            item.setData(Qt.ItemDataRole.UserRole, value)
            item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if own and column == NAME else flags)
            if column == KEY:
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                item.setToolTip("Its key" if key else "No key is left for it")
            if column == COLOR:
                item.setIcon(_swatch(color))
                item.setToolTip(f"{color}, value {value}" if color else "nothing is known here")
            self.table.setItem(row, column, item)

    def _allow(self) -> None:
        own = self.selected() is not None
        self.rename.setEnabled(own)
        self.recolour.setEnabled(own)
        self.remove.setEnabled(own and len(self._classes) > 1)

    def _on_selected(self) -> None:
        self._allow()
        value = self.value()
        if value is not None:
            self.chosen.emit(value)

    def _on_renamed(self, item: QTableWidgetItem) -> None:
        value, name = item.data(Qt.ItemDataRole.UserRole), item.text().strip()
        self._change(value, name=name)

    def _on_double(self, row: int, column: int) -> None:
        if column != NAME:
            self._recolour()

    def _rename(self) -> None:
        item = self.table.item(self.table.currentRow(), NAME)
        if item is not None and self.selected() is not None:
            self.table.setFocus()
            self.table.editItem(item)

    def _recolour(self) -> None:
        chosen = self.selected()
        if chosen is None:
            return
        color = QColorDialog.getColor(QColor(chosen.color), self, f"Colour of {chosen.name}")
        if color.isValid():
            self._change(chosen.value, color=color.name())

    def _remove(self) -> None:
        chosen = self.selected()
        if chosen is not None:
            self.removed.emit(chosen)

    def _change(self, value: int, *, name: str | None = None, color: str | None = None) -> None:
        wanted = tuple(
            replace(each, name=name or each.name, color=color or each.color) if each.value == value else each
            for each in self._classes
        )
        if wanted != self._classes:
            self.edited.emit(wanted)
            self.show_classes(self._classes)  # as they stand, if they could not be had


def _swatch(color: str) -> QIcon:
    """A square of a colour; a crossed one for none."""
    picture = QPixmap(SQUARE, SQUARE)
    picture.fill(QColor(color) if color else QColor(0, 0, 0, 0))
    painter = QPainter(picture)
    painter.setPen(QColor("#808080"))
    painter.drawRect(0, 0, SQUARE - 1, SQUARE - 1)
    if not color:
        painter.drawLine(0, SQUARE - 1, SQUARE - 1, 0)
    painter.end()
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)  # a colour is not to be tinted
    return icon


def _call(act: Callable[[], None], *_: object) -> None:
    act()
