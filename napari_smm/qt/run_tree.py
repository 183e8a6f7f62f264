"""The list of runs as a widget that is refreshed in place."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from napari_smm.run_list import COLUMNS, Row, cells

PATH = Qt.ItemDataRole.UserRole
"""Role under which an item's first column keeps its run directory, as text."""

NAME = 130
"""Least width of the runs' names in pixels: they begin with date and time."""
WIDEST = 120
"""Of the other columns, unless the user widens them."""
MARGIN = 10
"""Pixels beside a text."""


class RunTree(QTreeWidget):
    """Shows rows, and keeps selection and scrolling where they are when the rows change."""

    chosen = Signal()
    """The selected run was double clicked, or Enter was pressed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Show no run."""
        super().__init__(parent)
        self.setHeaderLabels(list(COLUMNS))
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setAllColumnsShowFocus(True)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerItem)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setStyleSheet("QTreeWidget::item { padding: 2px 0px; }")
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(30)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Fixed)
        for column in range(1, len(COLUMNS)):
            self.setColumnWidth(column, header.sectionSizeHint(column))
        header.sectionResized.connect(self._on_resized)
        self.itemDoubleClicked.connect(lambda item, column: self.chosen.emit())

    def selected(self) -> Path | None:
        """The selected run directory; None if none is."""
        items = self.selectedItems()
        return _path(items[0]) if items else None

    def show_rows(self, rows: Sequence[Row], now: datetime) -> None:
        """Show these rows in their order. What is selected stays so, unless it is gone.

        Args:
            rows: each of another path.
            now: with the time zone in which starts are told.
        """
        if [row.path for row in rows] != [_path(item) for item in self._items()]:
            self._arrange([row.path for row in rows])
        for item, row in zip(self._items(), rows, strict=True):
            texts = cells(row, now)
            if _write(item, row, texts):
                self._fit(texts)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Give the names what the other columns leave."""
        super().resizeEvent(event)
        self._stretch()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Enter chooses; the rest is the list's."""
        if event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.chosen.emit()
        else:
            super().keyPressEvent(event)

    def _fit(self, texts: Sequence[str]) -> None:
        """Widen columns that texts need wider. None gets narrower: that would make the list tremble."""
        for column in range(1, len(COLUMNS)):
            needed = self.fontMetrics().horizontalAdvance(texts[column]) + MARGIN
            if needed > self.columnWidth(column):
                self.setColumnWidth(column, max(min(needed, WIDEST), self.columnWidth(column)))

    def _on_resized(self, column: int, before: int, width: int) -> None:
        if column:
            self._stretch()

    def _stretch(self) -> None:
        """Give the names what the others leave; where not all fit, those that do fill the list."""
        others = [self.columnWidth(column) for column in range(1, len(COLUMNS))]
        rooms = [self.viewport().width() - sum(others[:shown]) for shown in range(len(others), -1, -1)]
        self.setColumnWidth(0, next((room for room in rooms if room >= NAME), NAME))

    def _items(self) -> list[QTreeWidgetItem]:
        found = (self.topLevelItem(number) for number in range(self.topLevelItemCount()))
        return [item for item in found if item is not None]

    def _arrange(self, paths: Sequence[Path]) -> None:
        """Make the items be those of some paths, in their order."""
        selected, at_top = self.selected(), self.verticalScrollBar().value() == 0
        first = self.itemAt(1, 1)
        anchor = None if first is None or at_top else _path(first)
        blocked = self.blockSignals(True)
        kept = {_path(item): item for item in self._items()}
        while self.topLevelItemCount():
            self.takeTopLevelItem(0)
        items = [kept.get(path) or _item(path) for path in paths]
        self.addTopLevelItems(items)
        for path, item in zip(paths, items, strict=True):
            if path == selected:
                self.setCurrentItem(item)
            if path == anchor:
                self.scrollToItem(item, QAbstractItemView.ScrollHint.PositionAtTop)
        if at_top:
            self.scrollToTop()
        self.blockSignals(blocked)
        if selected is not None and selected not in paths:
            self.clearSelection()
            self.itemSelectionChanged.emit()


def _item(path: Path) -> QTreeWidgetItem:
    item = QTreeWidgetItem()
    item.setData(0, PATH, str(path))
    return item


def _path(item: QTreeWidgetItem) -> Path:
    return Path(item.data(0, PATH))


def _write(item: QTreeWidgetItem, row: Row, texts: Sequence[str]) -> bool:
    """Make an item show a row. Returns whether its texts are others now."""
    if item.font(0).bold() != row.watched:
        font = item.font(0)
        font.setBold(row.watched)
        item.setFont(0, font)
    about = f"{row.path}\n(watched)" if row.watched else str(row.path)
    if item.toolTip(0) != about:
        item.setToolTip(0, about)
        item.setToolTip(5, f"{row.entry.started.astimezone():%Y-%m-%d %H:%M}" if row.entry.started else "")
    changed = [column for column, text in enumerate(texts) if item.text(column) != text]
    for column in changed:
        item.setText(column, texts[column])
    return bool(changed)
