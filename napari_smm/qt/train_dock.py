"""The Train dock: what to train on, with which settings, and how the run goes."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from engine.config import RunConfig, presets, read_preset, resolve
from engine.errors import InputError
from napari_smm import launch
from napari_smm.annotation import Cancelled, Pair, write_dataset
from napari_smm.feed import Snapshot
from napari_smm.layers import View
from napari_smm.qt.activity import Activity
from napari_smm.qt.dock import Dock
from napari_smm.qt.form import SettingsForm
from napari_smm.qt.log_window import LogWindow
from napari_smm.qt.plot import LossPlot, RecallSlopePlot
from napari_smm.qt.run_panel import RunPanel
from napari_smm.qt.section import Section
from napari_smm.qt.source_panel import SourcePanel
from napari_smm.status import display

WAIT_MILLISECONDS = 50
"""Time between two looks at what the worker has done for the dock."""


class TrainDock(Dock):
    """Chooses data and settings, starts and stops runs, and shows their curves."""

    def __init__(self, napari_viewer: Any) -> None:
        """Build the dock for a viewer."""
        super().__init__(napari_viewer)
        self.setObjectName("train-dock")
        self.source = SourcePanel(self.viewer, self)
        self.form = SettingsForm(self)
        self.panel = RunPanel(self)
        self.recall = RecallSlopePlot(self)
        self.loss = LossPlot(self)
        self.settings = Section("Settings", self._settings_page(), parent=self)
        self.curves = Section("Curves", self._curves_page(), parent=self)
        self._activity = Activity(self)
        self._busy = ""
        self._locked = False
        self._fault = ""
        self._order: Future[Any] | None = None
        self._then: Callable[[Any], None] | None = None
        self._written = (0, 0)
        self._cancelled = False
        self._drawn: object = None
        self._asking = QTimer(self)
        self._asking.setInterval(WAIT_MILLISECONDS)
        self._asking.timeout.connect(self._look)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        column.addWidget(self.source)
        column.addWidget(self.settings)
        column.addWidget(self.panel)
        column.addWidget(self.curves, 1)
        column.addStretch(0)
        self._connect()
        self.settings.set_open(True)
        self.source.set_source("layers" if self.source.has_layers() else "demo")
        self._suit_settings()
        self._show()
        if self.session.snapshot is not None:
            self._on_updated(self.session.snapshot)

    def choose_layers(self, image_layer: Any, labels_layer: Any | None = None) -> None:
        """Train on open layers: choose these."""
        self.source.set_source("layers")
        self.source.image.choose(image_layer)
        if labels_layer is not None:
            self.source.labels.choose(labels_layer)

    def choose_annotated(self, root: Path) -> None:
        """Train on a folder that is annotated, and take up what is painted meanwhile."""
        self.source.set_source("folder")
        self.source.folder.set_value(str(root))
        try:
            shown = self.form.value()
            data = shown.data.model_copy(update={"layout": "auto", "follow": True})
            self.form.set_value(shown.model_copy(update={"data": data}))
        except InputError as error:
            self._say(str(error))

    def start(self) -> None:
        """Start a run with the chosen data and settings. What is wrong is said beside the field."""
        self._fault = ""
        self.source.show_error("")
        try:
            config = self.form.value()
        except InputError as error:
            self._say(str(error))
            return
        try:
            if self.source.source() == "layers":
                self._start_from_layers(config, self.source.pair())
            else:
                self._launch(located(config, self.source.root()))
        except InputError as error:
            self.source.show_error(str(error))

    def stop(self) -> None:
        """Ask the watched run to stop after its batch."""
        if self._busy:
            self._cancelled = True
        elif self.session.root is not None:
            self._do("", launch.request_stop, self.session.root, then=lambda _: None)

    def resume(self) -> None:
        """Go on with the watched run."""
        root = self.session.root
        if root is not None:
            self._do("Resuming…", launch.resume, root, then=lambda process: self.session.watch(root, process))

    def show_log(self) -> None:
        """Open the watched run's log."""
        if self.session.root is not None:
            LogWindow(self.session.root, self.session.run, self).show()

    def leave(self) -> None:
        """Undo the connections. Images that are being written are left unwritten."""
        self._cancelled = True
        self._asking.stop()
        self.session.watched.disconnect(self._on_watched)
        self.session.updated.disconnect(self._on_updated)
        self.session.viewed.disconnect(self._on_viewed)
        self.session.failed.disconnect(self._say)
        self.session.to_train.disconnect(self.choose_annotated)
        self.source.leave()
        self._activity.close()

    # Building

    def _settings_page(self) -> QWidget:
        self.preset = QComboBox(self)
        self.preset.setObjectName("train-preset")
        self.preset.addItem("Preset…", "")
        for name, about in presets().items():
            self.preset.addItem(name, name)
            self.preset.setItemData(self.preset.count() - 1, about, Qt.ItemDataRole.ToolTipRole)
        menu = QMenu(self)
        for words, action in (("Load settings…", self._load), ("Save settings…", self._save)):
            entry = menu.addAction(words)
            assert entry is not None
            entry.triggered.connect(partial(_without_arguments, action))
        files = QToolButton(self)
        files.setText("File")
        files.setObjectName("train-settings-file")
        files.setToolTip("Load settings from a TOML file, such as a run's config.toml, or save them")
        files.setMenu(menu)
        files.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        row = QHBoxLayout()
        row.addWidget(QLabel("Start from"))
        row.addWidget(self.preset, 1)
        row.addWidget(files)
        page = QWidget(self)
        column = QVBoxLayout(page)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self.form)
        return page

    def _curves_page(self) -> QWidget:
        tabs = QTabWidget(self)
        tabs.setDocumentMode(True)
        tabs.addTab(self.recall, "Recall slope")
        tabs.addTab(self.loss, "Loss and scores")
        tabs.setMinimumHeight(250)
        return tabs

    def _connect(self) -> None:
        self.session.watched.connect(self._on_watched)
        self.session.updated.connect(self._on_updated)
        self.session.viewed.connect(self._on_viewed)
        self.session.failed.connect(self._say)
        self.session.to_train.connect(self.choose_annotated)
        self.source.changed.connect(self._suit_settings)
        self.panel.start.connect(self.start)
        self.panel.stop.connect(self.stop)
        self.panel.resume.connect(self.resume)
        self.panel.log.connect(self.show_log)
        self.preset.activated.connect(self._take_preset)
        self.settings.toggled.connect(self._one_open)
        self.curves.toggled.connect(self._other_open)
        self.recall.epoch_picked.connect(self.session.show_epoch)
        self.loss.epoch_picked.connect(self.session.show_epoch)

    def _one_open(self, opened: bool) -> None:
        if opened:
            self.curves.set_open(False)

    def _other_open(self, opened: bool) -> None:
        if opened:
            self.settings.set_open(False)

    def _take_preset(self, index: int) -> None:
        name = self.preset.itemData(index)
        if name:
            self.form.load_preset(name)
            if name == "demo":
                self.source.set_source("demo")

    def _suit_settings(self) -> None:
        """Untouched settings are those of the demo for the embedded set, else the usual ones."""
        try:
            shown = self.form.value()
        except InputError:
            return
        usual, demo = RunConfig(), resolve([read_preset("demo")])[0]
        if self.source.source() == "demo" and shown == usual:
            self.form.set_value(demo)
        elif self.source.source() != "demo" and shown == demo:
            self.form.set_value(usual)

    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Settings", "", "Settings (*.toml)")
        if path:
            self._try(lambda: self.form.load(Path(path)))

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the settings", "settings.toml", "Settings (*.toml)")
        if path:
            self._try(lambda: self.form.save(Path(path)))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (InputError, OSError) as error:
            self._say(str(error))

    # Starting

    def _start_from_layers(self, config: RunConfig, pair: Pair) -> None:
        folder = launch.new_run_folder(located(config, pair.image_name), launch.home() / "datasets")
        self._written = (0, 0)

        self._cancelled = False

        def progress(done: int, count: int) -> None:
            self._written = (done, count)

        write = partial(
            write_dataset,
            pair,
            folder,
            unlabelled=self.source.unlabelled.value(),
            meaning=self.source.meaning.value(),
            progress=progress,
            cancelled=lambda: self._cancelled,
        )

        def then(written: Any) -> None:
            self._launch(located(config, str(written.folder), written.classes))

        self._do("Writing images…", write, then=then)

    def _launch(self, config: RunConfig) -> None:
        folder = launch.new_run_folder(config, launch.runs_folder())

        def then(process: launch.Process) -> None:
            self.session.watch(folder, process)
            self.curves.set_open(True)

        self._do("Starting…", launch.start, config, folder, then=then)

    def _do(self, words: str, job: Callable[..., Any], *given: Any, then: Callable[[Any], None]) -> None:
        """Let the worker do something, then go on here."""
        self._busy, self._fault = words, ""
        self._then = then
        self._order = self.session.run(job, *given)
        self._asking.start()
        self._show()

    def _look(self) -> None:
        if self._order is None or not self._order.done():
            self._show()
            return
        order, then = self._order, self._then
        self._order, self._then, self._busy, self._written = None, None, "", (0, 0)
        self._asking.stop()
        try:
            result = order.result()
        except Cancelled:
            self._fault = ""
        except (InputError, OSError) as error:
            self._fault = str(error)
        else:
            assert then is not None
            then(result)
        self._show()

    # Showing

    def _say(self, sentence: str) -> None:
        self._fault = sentence
        self._show()

    def _on_watched(self, root: Path | None) -> None:
        self._fault = ""
        self._drawn = None
        self._activity.close()
        self._show()

    def _on_updated(self, snapshot: Snapshot) -> None:
        self._show()
        if snapshot.history is not None and snapshot.history is not self._drawn:
            self._drawn = snapshot.history
            self.recall.set_history(snapshot.history)
            self.loss.set_history(snapshot.history)
        self._on_viewed(self.session.view)

    def _on_viewed(self, view: View) -> None:
        epoch = self.session.epoch or None
        self.recall.set_cursor(epoch)
        self.loss.set_cursor(epoch)

    def _show(self) -> None:
        snapshot = self.session.snapshot
        state = snapshot.state if snapshot is not None else None
        words = self._busy
        if words and self._written[1]:
            words = f"{words} {self._written[0]} of {self._written[1]}"
        if not words and state is None and self.session.root is not None:
            words = "Reading the run…"
        shown = display(state, words, can_cancel=bool(self._written[1]) and bool(self._busy))
        self.panel.show_display(shown, detail=self._fault, has_log=self.session.root is not None)
        if self._locked != bool(self._busy):
            self._locked = bool(self._busy)
            self.form.set_locked(self._locked)
        self._activity.show(f"training {self.session.root.name}" if self.session.root else "", state, shown)


def _without_arguments(action: Callable[[], None], *_: object) -> None:
    action()


def located(config: RunConfig, root: str, classes: dict[str, list[int | str]] | None = None) -> RunConfig:
    """The settings with another data folder, absolute, and a class table if one is given.

    Raises:
        InputError: the settings do not go together.
    """
    changed: dict[str, Any] = {"root": root} | ({} if classes is None else {"classes": classes})
    data = config.data.model_copy(update=changed)
    return config.model_copy(update={"data": data}).located()
