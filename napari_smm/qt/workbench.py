"""The workbench of one viewer: its session, its clock and its layers, alive while a dock is open."""

import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QObject, QThread, QTimer
from qtpy.QtWidgets import QMessageBox, QWidget

from engine.errors import InputError
from napari_smm.launch import remembered, request_stop, runs_folder
from napari_smm.qt.layer_sync import LayerSync
from napari_smm.reattach import newest_living
from napari_smm.session import Session

TICK_MILLISECONDS = 40
"""Time between two looks at what the worker has finished."""


class Workbench(QObject):
    """What the docks of a viewer stand on. Get it with :func:`workbench`.

    Attributes:
        viewer: napari's viewer.
        session: what is watched.
        sync: the layers.
        longest: seconds of the longest callback of the clock so far.
    """

    _open: dict[int, "Workbench"] = {}  # noqa: RUF012 (shared on purpose)

    def __init__(self, viewer: Any) -> None:
        """Begin to watch nothing."""
        super().__init__()
        self.viewer = viewer
        self.session = Session()
        self.sync = LayerSync(viewer, self.session, self)
        self.longest = 0.0
        self._docks: list[Any] = []
        self._window: QWidget | None = None
        self._closing = False
        self._clock = QTimer(self)
        self._clock.setInterval(TICK_MILLISECONDS)
        self._clock.timeout.connect(self._tick)
        self._clock.start()
        self._search: Future[Path | None] | None = self.session.run(find_living)

    def join(self, dock: Any) -> None:
        """A dock has opened."""
        self._docks.append(dock)

    def part(self, dock: Any) -> None:
        """A dock has closed. The last one ends the workbench; runs go on, and layers stay."""
        if dock in self._docks:
            self._docks.remove(dock)
        if not self._docks:
            self.close()

    def guard(self, window: QWidget) -> None:
        """Ask before this window closes while a run of this machine goes on that it watches."""
        if window is not self._window:
            self._unguard()
            self._window = window
            window.installEventFilter(self)

    def close(self) -> None:
        """End clock, worker and connections."""
        if Workbench._open.get(id(self.viewer)) is not self:
            return
        del Workbench._open[id(self.viewer)]
        self._clock.stop()
        self.sync.close()
        self.session.close()
        self._unguard()
        self.deleteLater()

    def _unguard(self) -> None:
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    def _tick(self) -> None:
        began = time.perf_counter()
        if self._search is not None and self._search.done():
            self._reattach(self._search)
        self.session.tick(time.monotonic())
        self.longest = max(self.longest, time.perf_counter() - began)

    def _reattach(self, search: "Future[Path | None]") -> None:
        """Watch a run that is still going on, unless the user has chosen one meanwhile."""
        self._search = None
        try:
            found = search.result()
        except (InputError, OSError) as error:
            self.session.failed.emit(str(error))
            return
        if found is not None and self.session.root is None:
            self.session.watch(found)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Ask what shall become of a living run when the user closes the window; end with the window."""
        if watched is not self._window or event is None:
            return False
        if event.type() == QEvent.Type.Close:
            self._closing = False
            # Whoever closes from a script, outside the event loop, is not asked: the run goes on.
            thread = QThread.currentThread()
            by_user = event.spontaneous() or (thread is not None and thread.loopLevel() > 0)
            if by_user and not self.may_close():
                event.ignore()
                return True
            self._closing = True
        elif event.type() == QEvent.Type.Hide and self._closing:
            self._shut()  # napari has closed it, and will delete what the layers are drawn on
        return False

    def _shut(self) -> None:
        for dock in list(self._docks):
            dock.shut()
        self.close()

    def living_run(self) -> Path | None:
        """The watched run, if a process trains in it."""
        snapshot = self.session.snapshot
        return snapshot.state.root if snapshot is not None and snapshot.state.alive else None

    def may_close(self) -> bool:
        """Whether the window may close: asks the docks, and what shall become of a living run."""
        if not all(dock.may_close() for dock in list(self._docks)):
            return False
        run = self.living_run()
        if run is None:
            return True
        answer = ask_about(run, self._window)
        if answer == "stop":
            request_stop(run)
        return answer != "cancel"


def workbench(viewer: Any) -> Workbench:
    """The workbench of a viewer, made if there is none. Viewers that napari wraps for plugins do too."""
    real = getattr(viewer, "__wrapped__", viewer)
    return Workbench._open.get(id(real)) or Workbench._open.setdefault(id(real), Workbench(real))


def find_living() -> Path | None:
    """The run that is still going on among those that the workbench knows of."""
    return newest_living([runs_folder(), *remembered()])


def ask_about(run: Path, parent: QWidget | None) -> str:
    """Ask what shall become of a living run: "keep", "stop" or "cancel"."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("A training run is going on")
    box.setText(f"{run.name} is still training.")
    box.setInformativeText(
        "It is a process of its own: it can go on without napari, and the workbench finds it again."
    )
    keep = box.addButton("Keep running", QMessageBox.ButtonRole.AcceptRole)
    stop = box.addButton("Stop the run", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Don't close", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.exec()
    clicked = box.clickedButton()
    if clicked is keep:
        return "keep"
    return "stop" if clicked is stop else "cancel"
