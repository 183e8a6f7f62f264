"""Run directories that are dropped on the viewer, before napari asks which reader shall take them."""

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QEvent, QMimeData, QObject, Qt
from qtpy.QtGui import QDragLeaveEvent, QDropEvent, QGuiApplication
from qtpy.QtWidgets import QApplication, QLineEdit, QMainWindow, QWidget

from napari_smm.run_list import is_run


class RunDrops(QObject):
    """Hands over each run directory that is dropped on a window's canvas.

    napari offers every folder to its own reader too, and so would ask which is to take it. Everything
    else that is dropped, and what is dropped with Alt to choose a reader, goes to napari as ever.
    """

    def __init__(self, window: QMainWindow, take: Callable[[Path], None], parent: QObject) -> None:
        """Listen to what a window's central part is given."""
        super().__init__(parent)
        self._take: Callable[[Path], None] | None = take
        centre = window.centralWidget()
        around = [] if centre is None else [centre, *centre.findChildren(QWidget)]
        for widget in around:
            if widget.acceptDrops() and not isinstance(widget, QLineEdit):
                widget.installEventFilter(self)

    def close(self) -> None:
        """Let everything through from now on."""
        # Some of the widgets may be gone. Qt takes a filter away that is deleted.
        self._take = None
        self.deleteLater()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Take a dropped run."""
        if self._take is None or not isinstance(event, QDropEvent) or event.type() != QEvent.Type.Drop:
            return False
        folder = dropped_folder(event.mimeData())
        alt = QGuiApplication.keyboardModifiers() & Qt.KeyboardModifier.AltModifier
        if folder is None or alt or not is_run(folder):
            return False
        event.acceptProposedAction()
        if watched is not None:
            # napari's welcome screen would stay lit as if something still hung above it.
            QApplication.sendEvent(watched, QDragLeaveEvent())
        self._take(folder)
        return True


def dropped_folder(mime: QMimeData | None) -> Path | None:
    """The one folder of this machine that is dragged; None if it is something else, or more."""
    urls = mime.urls() if mime is not None and mime.hasUrls() else []
    if len(urls) != 1 or not urls[0].isLocalFile():
        return None
    path = Path(urls[0].toLocalFile())
    return path if path.is_dir() else None
