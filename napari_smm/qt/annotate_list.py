"""The images of an annotated folder: which there are, how far each is, and which is open."""

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from engine.data.annotated import STATUSES, Status
from napari_smm.annotating import Annotator

MARKS: dict[Status, str] = {"untouched": "○", "started": "◐", "done": "●", "reviewed": "★"}
"""A shape for each status, for those who cannot tell colours, or words at a glance."""
FINISHED = ("done", "reviewed")
FILTERS: dict[str, tuple[str, tuple[Status, ...]]] = {
    "all": ("all images", STATUSES),
    "open": ("not done", ("untouched", "started")),
    **{status: (f"{MARKS[status]} {status}", (status,)) for status in STATUSES},
}
WHENCE = {
    "": "",
    "drawn": "drawn",
    "predicted": "predicted, and accepted as it was",
    "corrected": "predicted and corrected",
    "imported": "imported from a mask that was there",
}


class ImageModel(QAbstractTableModel):
    """A row for each image: its name with its mark, and its status in words."""

    def __init__(self, annotator: Annotator, parent: QWidget) -> None:
        """Show an annotator's images."""
        super().__init__(parent)
        self._annotator = annotator

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Images."""
        return 0 if parent is not None and parent.isValid() else len(self._annotator.images)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Name and status."""
        return 2

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell says."""
        if not index.isValid():
            return None
        image = self._annotator.images[index.row()]
        entry = self._annotator.entry(image)
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{MARKS[entry.status]}  {image}" if index.column() == 0 else entry.status
        if role == Qt.ItemDataRole.ToolTipRole:
            parts = [image, entry.status, WHENCE[entry.origin], entry.run and f"run {entry.run}"]
            share = f"{100 * entry.labelled:.0f} % labelled" if entry.mask else ""
            return "\n".join(part for part in (*parts, share) if part)
        return None

    def renew(self) -> None:
        """Show other images."""
        self.beginResetModel()
        self.endResetModel()

    def notice(self, image: str) -> None:
        """An image's row is another."""
        row = self._annotator.index(image)
        self.dataChanged.emit(self.index(row, 0), self.index(row, 1))


class Filtered(QSortFilterProxyModel):
    """The images of some status, and the one that is open."""

    def __init__(self, annotator: Annotator, parent: QWidget) -> None:
        """Let all through."""
        super().__init__(parent)
        self._annotator = annotator
        self._wanted: tuple[Status, ...] = STATUSES

    def choose(self, statuses: tuple[Status, ...]) -> None:
        """Let only these through."""
        self._wanted = statuses
        self.invalidate()

    def filterAcceptsRow(self, row: int, parent: QModelIndex) -> bool:  # noqa: N802
        """Whether an image is shown."""
        image = self._annotator.images[row]
        return image == self._annotator.current or self._annotator.entry(image).status in self._wanted


class ImageTree(QTreeView):
    """A list that leaves letters and digits to the keys of napari."""

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802
        """Move with the arrows."""
        if event is not None and event.text().strip() and event.key() != Qt.Key.Key_Return:
            event.ignore()
        else:
            super().keyPressEvent(event)


class ImageList(QWidget):
    """Lets the user choose an image, and says how many are done. Call :meth:`leave` when the owner closes."""

    chosen = Signal(str)
    """The user wants this image."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        """Follow an annotator."""
        super().__init__(parent)
        self._annotator = annotator
        self.filter = QComboBox(self)
        self.filter.setObjectName("annotate-filter")
        self.filter.setToolTip("Which images the list shows, and the keys go through")
        for key, (words, _) in FILTERS.items():
            self.filter.addItem(words, key)
        self.progress = QLabel(self)
        self.progress.setObjectName("annotate-progress")
        self._model = ImageModel(annotator, self)
        self._filtered = Filtered(annotator, self)
        self._filtered.setSourceModel(self._model)
        self.tree = self._tree()
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.filter)
        row.addWidget(self.progress, 1)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(row)
        column.addWidget(self.tree, 1)
        self.filter.currentIndexChanged.connect(self._on_filter)
        self.tree.clicked.connect(self._on_clicked)
        self.tree.activated.connect(self._on_clicked)
        annotator.opened.connect(self._on_opened)
        annotator.moved.connect(self._on_moved)
        annotator.changed.connect(self._on_changed)
        self._on_opened()

    def leave(self) -> None:
        """Let go of the annotator."""
        self._annotator.opened.disconnect(self._on_opened)
        self._annotator.moved.disconnect(self._on_moved)
        self._annotator.changed.disconnect(self._on_changed)

    def neighbour(self, by: int) -> str | None:
        """The image so many rows further in the list; None beyond its ends."""
        rows = self._filtered.rowCount()
        current = self._annotator.current
        at = -1 if by > 0 else rows
        if current is not None:
            at = self._filtered.mapFromSource(self._model.index(self._annotator.index(current), 0)).row()
        wanted = at + by
        if not 0 <= wanted < rows:
            return None
        return self._annotator.images[self._filtered.mapToSource(self._filtered.index(wanted, 0)).row()]

    def choose_filter(self, key: str) -> None:
        """Show only images of some status."""
        self.filter.setCurrentIndex(list(FILTERS).index(key))

    def shown(self) -> list[str]:
        """The images in the list."""
        rows = range(self._filtered.rowCount())
        return [
            self._annotator.images[self._filtered.mapToSource(self._filtered.index(row, 0)).row()]
            for row in rows
        ]

    def _tree(self) -> ImageTree:
        tree = ImageTree(self)
        tree.setObjectName("annotate-images")
        tree.setModel(self._filtered)
        tree.setHeaderHidden(True)
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        tree.setMinimumHeight(76)
        header = tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        return tree

    def _on_filter(self, number: int) -> None:
        self._filtered.choose(FILTERS[self.filter.itemData(number)][1])
        self._mark()

    def _on_clicked(self, index: QModelIndex) -> None:
        image = self._annotator.images[self._filtered.mapToSource(index).row()]
        if image != self._annotator.current:
            self.chosen.emit(image)

    def _on_opened(self) -> None:
        self._model.renew()
        self._count()
        self._mark()

    def _on_moved(self, image: str) -> None:
        self._filtered.invalidate()
        self._mark()

    def _on_changed(self, image: str) -> None:
        self._model.notice(image)
        self._count()

    def _mark(self) -> None:
        current = self._annotator.current
        if current is None:
            self.tree.clearSelection()
            return
        index = self._filtered.mapFromSource(self._model.index(self._annotator.index(current), 0))
        self.tree.setCurrentIndex(index)
        self.tree.scrollTo(index)

    def _count(self) -> None:
        images = self._annotator.images
        done = self._annotator.count(FINISHED)
        self.progress.setText(f"{done} of {len(images)} done" if images else "")
