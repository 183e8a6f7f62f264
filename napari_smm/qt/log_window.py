"""A window that shows the end of a run's log while it grows."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QDialog, QPlainTextEdit, QVBoxLayout, QWidget

from napari_smm.launch import log_tail

LINES = 500
MILLISECONDS = 1000


class LogWindow(QDialog):
    """Shows a run's log.txt. The file is read by a worker."""

    def __init__(self, root: Path, run: Callable[..., "Future[Any]"], parent: QWidget | None = None) -> None:
        """Show a run's log.

        Args:
            root: the run directory.
            run: gives a function and its arguments to the worker.
            parent: the owner.
        """
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(f"Log of {root.name}")
        self.setObjectName("train-log")
        self.resize(720, 420)
        self.text = QPlainTextEdit(self)
        self.text.setReadOnly(True)
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.text.setPlaceholderText("Nothing has been written yet.")
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 4, 4, 4)
        column.addWidget(self.text)
        self._root, self._run = root, run
        self._order: Future[Any] | None = None
        self._clock = QTimer(self)
        self._clock.setInterval(MILLISECONDS)
        self._clock.timeout.connect(self._look)
        self._clock.start()
        self._look()

    def _look(self) -> None:
        if self._order is not None and self._order.done():
            self._show("\n".join(self._order.result()))
            self._order = None
        if self._order is None:
            self._order = self._run(log_tail, self._root, LINES)
            self._clock.setInterval(50 if not self.text.toPlainText() else MILLISECONDS)

    def _show(self, text: str) -> None:
        if text == self.text.toPlainText():
            return
        bar = self.text.verticalScrollBar()
        assert bar is not None
        at_end = bar.value() >= bar.maximum() - 2
        self.text.setPlainText(text)
        if at_end:
            bar.setValue(bar.maximum())
