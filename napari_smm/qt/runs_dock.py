"""The Runs dock: every run that is found, what it is doing, and what can be done about it."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent, QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from engine.errors import InputError
from napari_smm import launch
from napari_smm.qt.dock import Dock
from napari_smm.qt.run_drops import RunDrops, dropped_folder
from napari_smm.qt.run_tree import RunTree
from napari_smm.run_list import Details, Listing, Row, RunFinder, is_run, status_words

REFRESH_SECONDS = 2.0
"""Time between two looks at the folders of runs."""
SPARING = 5
"""Looking takes at most one part in so many of the time, where folders are large or far away."""
LIST, DETAILS = 430, 150
"""Heights in pixels of the list and of what is said of the selected run, until the user moves the bar."""
GLANCE_MILLISECONDS = 80
"""Time between two looks at what the worker has found."""


class RunsDock(Dock):
    """Lists runs, wherever they were started, and lets the user watch, stop and resume them."""

    def __init__(self, napari_viewer: Any) -> None:
        """Build the dock for a viewer."""
        super().__init__(napari_viewer)
        self.setObjectName("runs-dock")
        self.setAcceptDrops(True)
        self.listing = Listing()
        self._finder = RunFinder()
        self._look: Future[Listing] | None = None
        self._next = 0.0
        self._jobs: list[tuple[Future[Any], Callable[[Any], None]]] = []
        self._fault = ""
        self._drops: RunDrops | None = None
        self._build()
        self._clock = QTimer(self)
        self._clock.setInterval(GLANCE_MILLISECONDS)
        self._clock.timeout.connect(self._glance)
        self.session.watched.connect(self._on_watched)
        self.session.failed.connect(self._say)
        self._show()

    # What the user does

    def selected(self) -> Row | None:
        """The selected run; None if none is."""
        path = self.tree.selected()
        return next((row for row in self.listing.rows if row.path == path), None)

    def watch(self) -> None:
        """Watch the selected run, its past epochs included."""
        row = self.selected()
        if row is not None and row.can_watch:
            self._try(partial(self.session.watch, row.path))

    def stop(self) -> None:
        """Ask the selected run to stop after its batch."""
        row = self.selected()
        if row is not None and row.can_stop:
            self._do(launch.request_stop, row.path)

    def resume(self) -> None:
        """Go on with the selected run, and watch it."""
        row = self.selected()
        if row is not None and row.can_resume:
            self._do(launch.resume, row.path, then=partial(self._resumed, row.path))

    def open_folder(self) -> None:
        """Show the selected run's directory in the system's file manager."""
        row = self.selected()
        if row is not None and not QDesktopServices.openUrl(QUrl.fromLocalFile(str(row.path))):
            self._say(f"no program of this system opens {row.path}: its path can be copied below the list.")

    def add_folder(self) -> None:
        """Let the user choose a run directory, or a folder of some, that is listed from now on."""
        chosen = QFileDialog.getExistingDirectory(self, "A run directory, or a folder of runs")
        if chosen:
            self.add(Path(chosen))

    def add(self, folder: Path) -> None:
        """List a run directory, or a folder of some, from now on."""
        self._do(launch.remember, folder)

    def forget(self) -> None:
        """Take the folder for whose sake the selected run is listed off the list. No file is touched."""
        row = self.selected()
        if row is not None and row.folder is not None:
            self._do(launch.forget, row.folder)

    def take(self, folder: Path) -> None:
        """Watch a dropped run directory, or list a dropped folder of runs."""
        if is_run(folder):
            self._try(partial(self.session.watch, folder))
        else:
            self.add(folder)

    def leave(self) -> None:
        """Undo the connections. What was asked of runs is done all the same."""
        self._clock.stop()
        self.session.watched.disconnect(self._on_watched)
        self.session.failed.disconnect(self._say)
        if self._drops is not None:
            self._drops.close()
            self._drops = None

    # Building

    def _build(self) -> None:
        self.tree = RunTree(self)
        self.tree.setObjectName("runs-list")
        self.tree.chosen.connect(self.watch)
        self.tree.itemSelectionChanged.connect(self._on_selected)
        self.empty = QLabel(self)
        self.empty.setObjectName("runs-empty")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty.setWordWrap(True)
        self.pages = QStackedWidget(self)
        self.pages.addWidget(self.tree)
        self.pages.addWidget(self.empty)
        self.about = QLabel(self)
        self.about.setObjectName("runs-count")
        self.details = QTextBrowser(self)
        self.details.setObjectName("runs-details")
        self.details.setOpenLinks(False)
        self.details.setPlaceholderText("Select a run to read more about it.")
        self.details.setStyleSheet("QTextBrowser { background: transparent; border: none; padding: 0px; }")
        self.error = QLabel(self)
        self.error.setObjectName("runs-error")
        self.error.setWordWrap(True)
        self.error.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        top = QHBoxLayout()
        top.addWidget(self.about, 1)
        top.addWidget(self._button("Add folder…", "runs-add", self.add_folder, ADD))
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        column.addLayout(top)
        column.addWidget(self._halves(), 1)
        column.addWidget(self.error)

    def _halves(self) -> QSplitter:
        """The list with its buttons above, what is said of the selected run below."""
        upper = QWidget(self)
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.pages, 1)
        column.addLayout(self._buttons())
        halves = QSplitter(Qt.Orientation.Vertical, self)
        halves.setChildrenCollapsible(False)
        halves.addWidget(upper)
        halves.addWidget(self.details)
        halves.setStretchFactor(0, 1)
        halves.setSizes([LIST, DETAILS])
        return halves

    def _buttons(self) -> QHBoxLayout:
        self.watch_button = self._button("Watch", "runs-watch", self.watch, WATCH)
        self.stop_button = self._button("Stop", "runs-stop", self.stop, STOP)
        self.resume_button = self._button("Resume", "runs-resume", self.resume, RESUME)
        self.open_button = self._button("Open folder", "runs-open", self.open_folder, OPEN)
        self.forget_button = self._button("Forget", "runs-forget", self.forget, FORGET)
        row = QHBoxLayout()
        row.setSpacing(4)
        for button in (
            self.watch_button, self.stop_button, self.resume_button, self.open_button, self.forget_button
        ):  # fmt: skip
            row.addWidget(button)
        return row

    def _button(self, words: str, name: str, action: Callable[[], None], help_text: str) -> QPushButton:
        button = QPushButton(words, self)
        button.setObjectName(name)
        button.setToolTip(help_text)
        button.setAutoDefault(False)
        button.clicked.connect(lambda: action())
        return button

    # The clock

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Look for runs while the dock can be seen, and take runs that are dropped on the viewer."""
        super().showEvent(event)
        self._next = 0.0
        self._clock.start()
        window = _main_window(self)
        if self._drops is None and window is not None:
            self._drops = RunDrops(window, self.take, self)

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Rest while nobody looks."""
        super().hideEvent(event)
        if not self._jobs:
            self._clock.stop()

    def _glance(self) -> None:
        """Take what the worker has done, and let it look again."""
        for job in [job for job in self._jobs if job[0].done()]:
            self._jobs.remove(job)
            self._take_job(*job)
        if self._look is not None and self._look.done():
            self._take_look(self._look)
        if not self.isVisible():
            if not self._jobs:
                self._clock.stop()
        elif self._look is None and time.monotonic() >= self._next:
            self._look = self.session.run(
                self._finder.look, self.session.root, self.tree.selected(), dict(self.session.processes)
            )
            self._next = float("inf")

    def _take_look(self, look: "Future[Listing]") -> None:
        self._look = None
        if self._next == float("inf"):  # else something has happened meanwhile, and the next look is due
            self._next = time.monotonic() + REFRESH_SECONDS
        try:
            self.listing = look.result()
        except (InputError, OSError) as error:
            self._say(str(error))
            return
        if self._next:
            self._next += max(0.0, SPARING * self.listing.seconds - REFRESH_SECONDS)
        self._show()

    def _take_job(self, order: "Future[Any]", then: Callable[[Any], None]) -> None:
        try:
            result = order.result()
        except (InputError, OSError) as error:
            self._say(str(error))
        else:
            self._try(partial(then, result))
        self._refresh()

    def _do(
        self, job: Callable[..., Any], path: Path, then: Callable[[Any], None] = lambda result: None
    ) -> None:
        """Let the worker do something with a path, then go on here."""
        self._say("")
        self._jobs.append((self.session.run(job, path), then))
        self._clock.start()
        self._show_buttons()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except InputError as error:
            self._say(str(error))
        else:
            self._say("")
        self._refresh()

    def _refresh(self) -> None:
        self._next = 0.0

    # What comes in

    def _resumed(self, root: Path, process: launch.Process) -> None:
        self.session.watch(root, process)

    def _on_watched(self, root: Path | None) -> None:
        self._say("")
        self._refresh()

    def _on_selected(self) -> None:
        self._show_buttons()
        self._show_details()
        self._refresh()

    # Showing

    def _say(self, sentence: str) -> None:
        self._fault = sentence
        self._show_error()

    def _show(self) -> None:
        rows = self.listing.rows
        self.tree.show_rows(rows, datetime.now().astimezone())
        self.pages.setCurrentWidget(self.tree if rows else self.empty)
        _set(self.empty, self._invitation())
        count = sum(not row.empty for row in rows)
        _set(self.about, f"{count} run{'s' * (count != 1)}" if count else "")
        self._show_buttons()
        self._show_details()
        self._show_error()

    def _invitation(self) -> str:
        if not self.listing.looked_in:
            return "Looking for runs…"
        places = " or ".join(_short(folder) for folder in self.listing.looked_in)
        return f"No runs yet in {places}: press Train in the Train dock, or add a folder of runs."

    def _show_buttons(self) -> None:
        row = self.selected()
        free = not self._jobs
        self.watch_button.setEnabled(row is not None and row.can_watch and not row.watched)
        self.stop_button.setEnabled(free and row is not None and row.can_stop)
        self.resume_button.setEnabled(free and row is not None and row.can_resume)
        self.open_button.setEnabled(row is not None)
        folder = None if row is None else row.folder
        self.forget_button.setEnabled(free and folder is not None)
        self.forget_button.setToolTip(FORGET if folder is None else f"{FORGET}: {folder}")

    def _show_details(self) -> None:
        row = self.selected()
        found = self.listing.details
        text = "" if row is None else details_html(row, found if found and found.path == row.path else None)
        if text != self.details.property("shown"):
            # What the user has marked to copy would be lost with each new text.
            self.details.setProperty("shown", text)
            bar = self.details.verticalScrollBar()
            place = bar.value()
            self.details.setHtml(text)
            bar.setValue(place)

    def _show_error(self) -> None:
        text = self._fault or self.listing.problem
        _set(self.error, f"⚠ {text}" if text else "")
        self.error.setVisible(bool(text))

    # Dropping

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Take a folder."""
        if event is not None and dropped_folder(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Watch the run, or list the folder of runs, that was dropped here."""
        folder = None if event is None else dropped_folder(event.mimeData())
        if event is not None and folder is not None:
            event.acceptProposedAction()
            self.take(folder)


ADD = "List a run directory, or a folder of runs such as a server's, from now on"
WATCH = "Show this run in the viewer, its past epochs included (also with Enter or a double click)"
STOP = "Stop this run after the batch that it is in"
RESUME = "Go on with this run where it ended, and watch it"
OPEN = "Show this run's directory in the file manager"
FORGET = "Take an added folder off the list; no file is deleted"


def details_html(row: Row, details: Details | None) -> str:
    """What is said of a selected run, as rich text.

    Args:
        row: its row.
        details: what a look at the run gave; None until then.
    """
    entry = row.entry
    facts = [status_words(row)]
    if entry.epochs:
        facts.append(f"epoch {entry.epoch} of {entry.epochs}")
    if details is not None and details.best is not None:
        facts.append(f"best Dice {details.best[1]:.3f} (epoch {details.best[0]})")
    parts = [f"<b>{escape(entry.name)}</b>", escape(" · ".join(facts))]
    if details is not None:
        parts += [escape(details.explanation)] if details.explanation else []
        parts += [f"⚠ {escape(warning)}" for warning in details.warnings]
    html = "".join(f'<p style="margin: 0 0 4px 0">{part}</p>' for part in parts)
    if details is not None and details.log:
        html += f'<pre style="margin: 4px 0; white-space: pre-wrap">{escape(chr(10).join(details.log))}</pre>'
    place = f"{entry.path}, on {entry.host}" if entry.host else str(entry.path)
    return html + f'<p style="margin: 4px 0 0 0">{escape(place)}</p>'


def _main_window(widget: QWidget) -> QMainWindow | None:
    """The window that a docked widget belongs to, even while its dock floats."""
    above = widget.parentWidget()
    while above is not None and not isinstance(above, QMainWindow):
        above = above.parentWidget()
    return above


def _short(path: Path) -> str:
    """A path with ~ for the user's own folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _set(label: QLabel, text: str) -> None:
    # Setting a label's text anew would lay the whole dock out again.
    if label.text() != text:
        label.setText(text)
