"""The Annotate dock: a folder of images, gone through with keys, painted on, and saved by itself."""

import getpass
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy import PYQT5
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from engine.data import annotated
from engine.data.annotated import STATUSES, AnnotationClass
from engine.errors import InputError
from napari_smm.annotating import Annotator, Folder, read_folder, users_of
from napari_smm.annotating_image import OpenedImage, open_image
from napari_smm.qt import annotate_keys as keys
from napari_smm.qt.annotate_classes import ClassTable
from napari_smm.qt.annotate_layers import AnnotateLayers
from napari_smm.qt.annotate_list import MARKS, ImageList
from napari_smm.qt.annotate_masks import MaskMenus, caught
from napari_smm.qt.correct_panel import CorrectPanel
from napari_smm.qt.dock import Dock, bring_dock
from napari_smm.qt.jobs import Jobs
from napari_smm.qt.queue_panel import QueuePanel
from napari_smm.qt.run_drops import dropped_folder
from napari_smm.qt.section import FaintLabel, Section

TICK_MILLISECONDS = 100
"""Time between two looks at what is to be saved, and at what was undone."""
NO_FOLDER = "Open a folder of images, or drop one here."


class AnnotateDock(Dock):
    """Goes through the images of a folder, and keeps what is painted on them.

    Attributes:
        annotator: what is painted, and its way to the disk.
    """

    def __init__(self, napari_viewer: Any) -> None:
        """Build the dock for a viewer."""
        super().__init__(napari_viewer)
        self.setObjectName("annotate-dock")
        self.setAcceptDrops(True)
        self.annotator = Annotator(_user())
        self._jobs = Jobs(self.session, self)
        self._layers = AnnotateLayers(self.viewer, self)
        self._keep = False
        self._fault = ""
        self._build()
        self._clock = QTimer(self)
        self._clock.setInterval(TICK_MILLISECONDS)
        self._clock.timeout.connect(self._tick)
        self._clock.start()
        self._connect()
        self._show()

    # What others call

    def layer(self) -> Labels | None:
        """The Labels layer that is painted on; None while no image is open."""
        return self._layers.labels

    def open_folder(self, root: Path) -> None:
        """Open a folder of images instead of the one before."""
        self._say("")
        self._folder_words("reading the folder…")
        self._jobs.ask("folder", lambda ended: caught(read_folder, root), self._take_folder)

    def apply(self, labels: NDArray[np.uint8]) -> None:
        """Put labels in place of those in view, as one edit that can be undone.

        What was saved becomes a version.

        Args:
            labels: uint8 (*S).

        Raises:
            InputError: no image is open, or another shape or dtype than the image's labels.
        """
        self._keep = True
        try:
            self._layers.apply(labels)
            self._layers.check()  # now: what is said of the edit afterwards is the last word about it
        finally:
            self._keep = False

    def step(self, by: int) -> None:
        """Go to the next image in the list (1) or the one before (-1)."""
        follows = self.queue.follows
        image = self.queue.neighbour(self.annotator.current, by) if follows else self.list.neighbour(by)
        if image is not None:
            self.annotator.go(image)
        elif self.annotator.images:
            self._say(f"This is the {'last' if by > 0 else 'first'} image of the list.")

    def accept(self) -> None:
        """The image is done: go to the next. What is unlabelled becomes background, if so wished."""
        image = self.annotator.current
        if image is None or image != self._layers.image:
            return
        if self.rest.isChecked():
            self._layers.fill_rest(slice_only=False)
        if self.annotator.entry(image).status != "reviewed":
            self.annotator.set_status(image, "done")
        self.annotator.hurry(image)
        self.step(1)

    def fill_slice(self) -> None:
        """Make background of what is unlabelled in the slice in view."""
        if self._layers.labels is not None:
            self._layers.fill_rest(slice_only=True)

    def choose_number(self, number: int) -> None:
        """Paint with class 1…9 of the table, or with background (0)."""
        classes = self.annotator.classes
        if number == 0:
            self._layers.choose(annotated.BACKGROUND)
        elif number <= len(classes):
            self._layers.choose(classes[number - 1].value)
        else:
            self._say(f"There is no class {number}: + or M adds one.")

    def step_class(self, by: int) -> None:
        """Paint with the next class, or the one before."""
        self._layers.step_class(by)

    def add_class(self) -> None:
        """Add a class, and let the user name it."""
        if self.annotator.root is not None:
            self.classes.add_class()

    def may_close(self) -> bool:
        """Save all; where that fails, ask whether to close all the same."""
        self._layers.check()
        while not self.annotator.flush():
            answer = ask_unsaved(self.annotator.saving.fault, self)
            if answer != "again":
                return answer == "close"
        return True

    def leave(self) -> None:
        """Save what is not saved, take the layers away, and undo the connections."""
        self._clock.stop()
        self._jobs.close()
        self.correct.leave()
        self.queue.leave()
        self._free_keys()
        # What would be painted on them from now on nobody would save. With PyQt5 napari comes down when a
        # dock goes just after labels that were painted on, so they stay, but nobody can paint on them.
        self._layers.clear(leave=PYQT5)
        self.annotator.opened.disconnect(self._on_opened)
        self.annotator.moved.disconnect(self._on_moved)
        self.annotator.changed.disconnect(self._on_changed)
        self.annotator.saved.disconnect(self._on_saved)
        self.annotator.failed.disconnect(self._on_failed)
        self.list.leave()
        if not self.annotator.close():
            _warn(f"Not all that was painted could be saved: {self.annotator.saving.fault}")
        self._layers.close()

    # Building

    def _build(self) -> None:
        self.list = ImageList(self.annotator, self)
        self.classes = ClassTable(self)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(5)
        column.addLayout(self._folder_row())
        column.addWidget(self.list, 1)
        column.addLayout(self._status_row())
        column.addWidget(_line(self))
        column.addWidget(self.classes)
        column.addLayout(self._rest_row())
        column.addWidget(_line(self))
        column.addLayout(self._file_row())
        self.saving = FaintLabel(self)
        self.saving.setObjectName("annotate-saving")
        _cut_off(self.saving)
        column.addWidget(self.saving)
        self.message = QLabel(self)
        self.message.setObjectName("annotate-message")
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.hide()
        column.addWidget(self.message)
        self.sections = QVBoxLayout()
        self.sections.setSpacing(5)
        column.addLayout(self.sections)
        self._add_sections()

    def _add_sections(self) -> None:
        """What folds below the essentials."""
        self.correct = CorrectPanel(self.viewer, self.session, self.annotator, self.apply, self)
        self.queue = QueuePanel(self.viewer, self.session, self.annotator, self)
        correct = Section("Correct a prediction", self.correct, parent=self)
        queue = Section("What next?", self.queue, parent=self)
        for section, other in ((correct, queue), (queue, correct)):
            self.sections.addWidget(section)
            # A window of 800 pixels has room for one of them.
            section.toggled.connect(partial(_one_open, other))
        about = QWidget(self)
        row = QHBoxLayout(about)
        row.setContentsMargins(0, 0, 0, 0)
        self.name = QLineEdit(self.annotator.name, about)
        self.name.setObjectName("annotate-name")
        self.name.setToolTip("Kept beside each mask in annotation/images.csv")
        row.addWidget(QLabel("Painted by", about))
        row.addWidget(self.name, 1)
        self.sections.addWidget(Section("Who paints", about, parent=self))

    def _folder_row(self) -> QHBoxLayout:
        self.open = self._button("open", "Open folder…", "A folder of images, in any layout", self._ask)
        self.where = QLabel(NO_FOLDER, self)
        self.where.setObjectName("annotate-folder")
        _cut_off(self.where)
        row = QHBoxLayout()
        row.addWidget(self.open)
        row.addWidget(self.where, 1)
        return row

    def _status_row(self) -> QHBoxLayout:
        before = self._button(
            "previous",
            "◀",
            keys.hint("Previous image of the list", keys.PREVIOUS),
            partial(self.step, -1),
        )
        after = self._button(
            "next", "▶", keys.hint("Next image of the list", keys.NEXT), partial(self.step, 1)
        )
        self.status = QComboBox(self)
        self.status.setObjectName("annotate-status")
        self.status.setToolTip("How far this image is. Those that were not touched are not trained on.")
        for status in STATUSES:
            self.status.addItem(f"{MARKS[status]} {status}", status)
        done = self._button(
            "accept",
            "✔ Done, next",
            keys.hint("This image is done: go on", keys.ACCEPT),
            self.accept,
        )
        self._moving = (before, after, self.status, done)
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(before)
        row.addWidget(self.status, 1)
        row.addWidget(done)
        row.addWidget(after)
        return row

    def _rest_row(self) -> QVBoxLayout:
        self.rest = QCheckBox("When done, the rest is background", self)
        self.rest.setObjectName("annotate-rest")
        self.rest.setChecked(True)
        self.rest.setToolTip(
            "Done makes background of all that is unlabelled, in all slices; Ctrl+Z takes it back. Off for "
            "scribbles: what is unlabelled then counts nowhere."
        )
        self.fill = self._button(
            "fill-slice",
            "Rest of this slice → background",
            keys.hint(
                "Makes background of what is unlabelled in the slice in view; Ctrl+Z undoes it", keys.REST
            ),
            self.fill_slice,
        )
        column = QVBoxLayout()
        column.setSpacing(3)
        column.addWidget(self.rest)
        column.addWidget(self.fill)
        return column

    def _file_row(self) -> QHBoxLayout:
        self.masks = MaskMenus(self.viewer, self.annotator, self._layers, self._jobs, self.apply, self)
        self.train = self._button(
            "train",
            "Train on these",
            "Opens the Train dock with this folder; what is unlabelled counts nowhere",
            self.train_on_these,
        )
        row = QHBoxLayout()
        row.addWidget(self.masks)
        row.addStretch(1)
        row.addWidget(self.train)
        return row

    def _button(self, name: str, text: str, about: str, act: Callable[[], None]) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(f"annotate-{name}")
        button.setToolTip(about)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # so that keys stay the canvas's after a click
        button.clicked.connect(partial(_call, act))
        return button

    def _connect(self) -> None:
        self.annotator.opened.connect(self._on_opened)
        self.annotator.moved.connect(self._on_moved)
        self.annotator.changed.connect(self._on_changed)
        self.annotator.saved.connect(self._on_saved)
        self.annotator.failed.connect(self._on_failed)
        self._jobs.failed.connect(self._say)
        self._layers.painted.connect(self._on_painted)
        self._layers.gone.connect(self._on_gone)
        self._layers.refused.connect(self._say)
        self.masks.said.connect(self._say)
        self._layers.selected.connect(self.classes.show_value)
        self.list.chosen.connect(self.annotator.go)
        self.classes.chosen.connect(self._layers.choose)
        self.classes.edited.connect(self._edit_classes)
        self.classes.removed.connect(self._remove_class)
        self.status.activated.connect(self._on_status)
        self.name.textChanged.connect(self._on_name)

    # The folder and its images

    def _ask(self) -> None:
        start = str(self.annotator.root or "")
        chosen = QFileDialog.getExistingDirectory(self, "Folder of images", start)
        if chosen:
            self.open_folder(Path(chosen))

    def _take_folder(self, found: Folder | Exception) -> None:
        if isinstance(found, Exception):
            self._say(str(found))
            self._show()
            return
        self._layers.check()
        try:
            self.annotator.open(found.root, found)
        except InputError as error:
            self._say(str(error))
            return
        unfinished = [
            image for image in found.images if self.annotator.entry(image).status in ("untouched", "started")
        ]
        self.annotator.go((unfinished or list(found.images))[0])

    def _on_opened(self) -> None:
        """Another folder, or other classes."""
        if self.annotator.current is None:
            self._jobs.drop("image")
            self._free_keys()
            self._layers.forget()
        self.classes.show_classes(self.annotator.classes)
        self._recolour()
        self._show()

    def _on_moved(self, image: str) -> None:
        self._say("")
        self._layers.check()
        if self._layers.image is not None:
            self.annotator.hurry(self._layers.image)
        if self._layers.image == image:
            self._jobs.drop("image")
        elif self._layers.has(image):
            self._jobs.drop("image")
            self._present(None, image)
        else:
            held = self.annotator.labels(image) if self.annotator.holds(image) else None
            entry, folder = self.annotator.entry(image), self.annotator.folder
            assert folder is not None
            self._jobs.ask("image", lambda ended: caught(open_image, folder, entry, held), self._take_image)
        self._show()

    def _take_image(self, opened: OpenedImage | Exception) -> None:
        if isinstance(opened, Exception):
            self._free_keys()
            self._layers.clear()
            self._say(str(opened))
            self._show()
            return
        if not self.annotator.holds(opened.image):
            self.annotator.hold(opened.image, opened.labels)
        self._present(opened, opened.image)
        note = opened.note
        if opened.imported:
            self.annotator.imported(opened.image, opened.labels)
            left = len(self.masks.left())
            note = "The mask beside it was imported." + (
                f" {left} more lie beside other images: Import… takes them all." if left else ""
            )
        self._say(note)
        self._show()

    def _present(self, opened: OpenedImage | None, image: str) -> None:
        self._free_keys()
        shown = self._layers.show(opened, image)
        keys.bind(shown.labels, keys.KEYS, self)
        for picture in shown.pictures:
            keys.bind(picture, keys.EVERYWHERE, self)
        for other in self._layers.trim():
            self.annotator.release(other)
        self._recolour()

    def _free_keys(self) -> None:
        if self._layers.labels is not None:
            keys.free(self._layers.labels, keys.KEYS)
        for picture in self._layers.pictures:
            keys.free(picture, keys.EVERYWHERE)

    def _on_gone(self, image: str) -> None:
        self._say("The layer was removed; what was painted is saved. Choose the image again to go on.")
        self.annotator.hurry(image)
        self.annotator.release(image)

    # Painting

    def _on_painted(self, image: str) -> None:
        layer = self._layers.labels
        if (
            layer is not None
            and image == self._layers.image
            and layer.data is not self.annotator.labels(image)
        ):
            held = self.annotator.labels(image)
            if (
                not isinstance(layer.data, np.ndarray)
                or layer.data.dtype != np.uint8
                or layer.data.shape != held.shape
            ):
                layer.data = held
                self._say(
                    "Other data were put into the layer, and taken out: Import… takes masks of any kind."
                )
                return
            self.annotator.hold(image, layer.data)
        self.annotator.touched(image, keep=self._keep)

    def _recolour(self) -> None:
        layer = self._layers.labels
        shaded = layer is not None and bool((np.asarray(layer.data) == annotated.UNLABELLED).any())
        self._layers.recolour(self.annotator.classes, shaded=shaded)

    def _on_changed(self, image: str) -> None:
        if image == self.annotator.current:
            self._show()

    def _on_failed(self, sentence: str) -> None:
        self._fault = sentence
        self._say(sentence)

    def _on_saved(self, image: str) -> None:
        if self._fault and self.message.text() == self._fault:
            self._say("")
        self._fault = ""
        if image == self._layers.image:
            self._layers.recolour(self.annotator.classes, shaded=self.annotator.entry(image).labelled < 1)

    def _on_status(self, number: int) -> None:
        if self.annotator.current is not None:
            self.annotator.set_status(self.annotator.current, self.status.itemData(number))

    def _on_name(self, text: str) -> None:
        self.annotator.name = text.strip()

    # Classes

    def _edit_classes(self, classes: tuple[AnnotationClass, ...]) -> None:
        try:
            self.annotator.set_classes(classes)
        except InputError as error:
            self._say(str(error))

    def _remove_class(self, wanted: AnnotationClass) -> None:
        root, folder = self.annotator.root, self.annotator
        if root is None:
            return
        held = {image: folder.labels(image) for image in folder.images if folder.holds(image)}
        entries = [folder.entry(image) for image in folder.images if image not in held]
        used = [image for image, labels in held.items() if (labels == wanted.value).any()]

        def look(ended: Callable[[], bool]) -> list[str]:
            return used or users_of(root, entries, wanted.value, ended)

        self._jobs.ask("remove", look, partial(self._take_removed, wanted))

    def _take_removed(self, wanted: AnnotationClass, used: list[str]) -> None:
        if used:
            more = f" and {len(used) - 1} more" * (len(used) > 1)
            self._say(f"{wanted.name} is painted in {used[0]}{more}: a class that is used nowhere can go.")
            return
        self._edit_classes(tuple(each for each in self.annotator.classes if each != wanted))

    # Training

    def train_on_these(self) -> None:
        """Save all, and hand the folder to the Train dock."""
        self._layers.check()
        root = self.annotator.root
        if root is None or not self.annotator.flush():
            return
        labelled = [
            image
            for image in self.annotator.images
            if self.annotator.entry(image).mask and self.annotator.entry(image).labelled > 0
        ]
        if not labelled:
            self._say("Nothing is painted yet: paint on one image at least.")
            return
        bring_dock(self.viewer, "Train")
        self.session.to_train.emit(root)

    # Showing

    def _tick(self) -> None:
        now = time.monotonic()
        self._layers.check()
        self.annotator.tick(now)
        words = self.annotator.saving.words(now)
        if self.saving.text() != words:
            self.saving.setText(words)
            self.saving.setToolTip(words)

    def _say(self, sentence: str) -> None:
        self.message.setText(sentence)
        self.message.setVisible(bool(sentence))

    def _folder_words(self, words: str) -> None:
        self.where.setText(words)

    def _show(self) -> None:
        root, image = self.annotator.root, self.annotator.current
        self._folder_words(NO_FOLDER if root is None else root.name)
        self.where.setToolTip("" if root is None else str(root))
        for widget in self._moving:
            widget.setEnabled(image is not None)
        opened = image is not None and image == self._layers.image
        self.fill.setEnabled(opened)
        self.masks.setEnabled(opened)
        self.train.setEnabled(root is not None)
        layer = self._layers.labels
        deep = layer is not None and layer.ndim > 2
        self.fill.setText(f"Rest of this {'slice' if deep else 'image'} → background")
        if image is not None:
            self.status.setCurrentIndex(STATUSES.index(self.annotator.entry(image).status))

    # Dropped folders

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802
        """Take folders."""
        if event is not None and dropped_folder(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802
        """Open a folder."""
        folder = None if event is None else dropped_folder(event.mimeData())
        if event is not None and folder is not None:
            event.acceptProposedAction()
            self.open_folder(folder)


def _one_open(other: Section, opened: bool) -> None:
    if opened:
        other.set_open(False)


def _user() -> str:
    """Who is logged in."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a system without names
        return ""


def _cut_off(label: QLabel) -> None:
    """Let no long text make the dock wider; its tooltip has it all."""
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)


def _line(parent: QWidget) -> QFrame:
    line = QFrame(parent)
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFixedHeight(1)
    return line


def _warn(sentence: str) -> None:
    from napari.utils.notifications import show_warning

    show_warning(sentence)


def ask_unsaved(reason: str, parent: QWidget) -> str:
    """Ask what to do with what cannot be saved: "again", "close" or "stay"."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Not all is saved")
    box.setText("What was painted last could not be saved.")
    box.setInformativeText(reason)
    again = box.addButton("Try again", QMessageBox.ButtonRole.AcceptRole)
    close = box.addButton("Close and lose it", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Don't close", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(again)
    box.exec()
    clicked = box.clickedButton()
    if clicked is again:
        return "again"
    return "close" if clicked is close else "stay"


def _call(act: Callable[[], None], *_: object) -> None:
    act()
