"""Which watched image and which epoch are in view."""

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QSize
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QHBoxLayout, QLabel, QToolButton, QWidget

from napari_smm.layers import View
from napari_smm.qt.threshold_row import GAP, LABELS
from napari_smm.session import Session


class Navigation(QWidget):
    """Steps through the images and epochs of the watched run. Call :meth:`leave` when the owner closes."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        """Follow a session."""
        super().__init__(parent)
        self._session = session
        self.item = QComboBox(self)
        self.item.setObjectName("threshold-item")
        self.item.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.epoch = QLabel(self)
        self.epoch.setObjectName("threshold-epoch")
        self.follow = QCheckBox("follow", self)
        self.follow.setObjectName("threshold-follow")
        self.follow.setToolTip("Go to each new epoch as it comes")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.addWidget(QLabel("Image", self), 0, 0)
        grid.addLayout(self._between("image", session.step_item, self.item), 0, 1)
        grid.addWidget(QLabel("Epoch", self), 1, 0)
        row = self._between("epoch", session.step_epoch, self.epoch)
        row.addWidget(self.follow)
        grid.addLayout(row, 1, 1)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)
        self.item.activated.connect(self._on_item)
        self.follow.clicked.connect(self.set_follow)
        session.watched.connect(self._look)
        session.updated.connect(self._look)
        session.viewed.connect(self._look)
        self._look()

    def leave(self) -> None:
        """Let go of the session."""
        self._session.watched.disconnect(self._look)
        self._session.updated.disconnect(self._look)
        self._session.viewed.disconnect(self._look)

    def set_follow(self, follow: bool) -> None:
        """Follow the newest epoch, or stay at the one in view."""
        session = self._session
        newest = session.snapshot.run.epochs if session.snapshot is not None else 0
        session.set_view(follow=follow, epoch=newest if follow else session.epoch)

    def _between(self, what: str, step: Callable[[int], None], middle: QWidget) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(3)
        for sign, word, by in (("◀", "previous", -1), ("▶", "next", 1)):
            button = QToolButton(self)
            button.setObjectName(f"threshold-{word}-{what}")
            button.setText(sign)
            button.setFixedSize(QSize(24, 22))
            button.setAccessibleName(f"{word} {what}")
            button.setToolTip(f"{word.capitalize()} {what}")
            button.clicked.connect(partial(_call, step, by))
            row.addWidget(button)
        row.insertWidget(1, middle, 1)
        return row

    def _on_item(self, index: int) -> None:
        self._session.set_view(item=index)

    def _look(self, _: object = None) -> None:
        snapshot, view = self._session.snapshot, self._session.view
        items = snapshot.run.items if snapshot is not None else ()
        names = [f"{item.split} · {item.name}" for item in items]
        if [self.item.itemText(at) for at in range(self.item.count())] != names:
            self.item.clear()
            self.item.addItems(names)
        if names and self.item.currentIndex() != view.item:
            self.item.setCurrentIndex(min(view.item, len(names) - 1))
        self._say(snapshot.state.total if snapshot is not None else 0, view)
        self.setEnabled(bool(names))

    def _say(self, total: int, view: View) -> None:
        epoch = self._session.epoch
        text = f"{epoch} of {total}" if epoch else "none yet" if total else "–"
        if self.epoch.text() != text:
            self.epoch.setText(text)
        self.follow.setChecked(view.follow)


def _call(step: Callable[[int], None], by: int, *_: object) -> None:
    step(by)
