"""The Threshold dock: T by hand, what it does to masks and rates, and what is in view."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QDoubleSlider

from engine.errors import InputError
from engine.thresholds import Curve, precision_recall, rates
from napari_smm import readout, targets
from napari_smm.decisions import kept, kept_plane, measured, save_planes, save_run
from napari_smm.feed import Snapshot
from napari_smm.layers import MARK, View
from napari_smm.qt import keys
from napari_smm.qt.dock import Dock
from napari_smm.qt.layer_combo import LayerCombo
from napari_smm.qt.outline_sync import OutlineSync
from napari_smm.qt.overlay_list import OverlayList
from napari_smm.qt.plot import PrecisionRecallPlot
from napari_smm.qt.section import Section
from napari_smm.qt.target_layers import TargetLayers

LIVE = "The watched run"
DECIMALS = 4
LOOK_MILLISECONDS = 40


class ThresholdDock(Dock):
    """Moves T on the watched run's probabilities, or on any probability layer."""

    def __init__(self, napari_viewer: Any) -> None:
        """Build the dock for a viewer."""
        super().__init__(napari_viewer)
        self.setObjectName("threshold-dock")
        self._target: TargetLayers | None = None
        self._thresholds: dict[int, float] = {}
        self._curves: list[Curve] | None = None
        self._shown: Curve | None = None
        self._set_title = ""
        self._note = ""
        self._plotted: object = None
        self._jobs: list[tuple[Future[Any], Callable[[Any], None]]] = []
        self._asked: object = None
        self._look = QTimer(self)
        self._look.setInterval(LOOK_MILLISECONDS)
        self._look.timeout.connect(self._take)
        self._outline = OutlineSync(self.workbench, self)
        self._build()
        self._connect()
        self._bound = keys.bind(self.workbench)
        self.workbench.move_threshold = self._step
        self._choose_source()
        if self.session.snapshot is not None:
            self._on_updated(self.session.snapshot)

    # What others ask

    @property
    def threshold(self) -> float:
        """T of the class in view, of what is chosen."""
        if self._target is not None:
            return self._thresholds.get(self._class(), 0.5)
        return self.session.view.threshold

    def set_threshold(self, threshold: float) -> None:
        """Move T of the class in view, of what is chosen."""
        if self._target is None:
            self.session.set_threshold(threshold)
            return
        self._thresholds[self._class()] = min(1.0, max(0.0, threshold))
        self._target.set_threshold(self.threshold)
        self._show_threshold()

    def leave(self) -> None:
        """Undo the connections. Layers of another target than a run go with the dock."""
        self._look.stop()
        keys.unbind(self.workbench, self._bound)
        self.workbench.move_threshold = self.workbench._move_threshold
        self.session.watched.disconnect(self._on_watched)
        self.session.updated.disconnect(self._on_updated)
        self.session.viewed.disconnect(self._on_viewed)
        self.viewer.dims.events.current_step.disconnect(self._on_step)
        self._outline.close()
        self.overlays.leave()
        self._drop_target()
        self.probability.leave()
        self.truth.leave()

    # Building

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(5)
        column.addWidget(self._source_page())
        column.addWidget(self._view_page())
        column.addLayout(self._slider_row())
        self.readout = QLabel(self)
        self.readout.setObjectName("threshold-readout")
        self.readout.setTextFormat(Qt.TextFormat.RichText)
        self.readout.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.readout.setToolTip(readout.help_text())
        self.readout.setWordWrap(True)
        column.addWidget(self.readout)
        self.plot = PrecisionRecallPlot(self)
        self.plot.setMinimumHeight(120)
        self.plot.setMaximumHeight(190)
        column.addWidget(self.plot, 1)
        self.overlays = OverlayList(self.workbench.sync, keys.TOGGLED, self)
        self.legend = Section("Layers and colours", self.overlays, parent=self)
        self.legend.set_open(True)
        column.addWidget(self.legend)
        column.addLayout(self._actions())
        self.error = QLabel(self)
        self.error.setObjectName("threshold-error")
        self.error.setWordWrap(True)
        self.error.hide()
        column.addWidget(self.error)
        self.keys = Section("Keys", self._keys_page(), parent=self)
        column.addWidget(self.keys)
        column.addStretch(0)

    def _source_page(self) -> QWidget:
        self.live = QCheckBox(LIVE, self)
        self.probability = LayerCombo(self.viewer, targets.offered, LIVE, self)
        self.probability.setObjectName("threshold-probability")
        self.truth = LayerCombo(self.viewer, _may_be_truth, "no truth", self)
        self.truth.setObjectName("threshold-truth")
        self.live.setObjectName("threshold-live")
        self.live.setChecked(True)
        self.live.setToolTip("Move T on the watched run's layers, and not on another probability layer")
        self.with_truth = QCheckBox("Truth", self)
        self.with_truth.setObjectName("threshold-with-truth")
        page = QWidget(self)
        grid = QGridLayout(page)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.addWidget(self.live, 0, 0, 1, 2)
        self._other = QLabel("Probability", self)
        grid.addWidget(self._other, 1, 0)
        grid.addWidget(self.probability, 1, 1)
        grid.addWidget(self.with_truth, 2, 0)
        grid.addWidget(self.truth, 2, 1)
        grid.setColumnStretch(1, 1)
        return page

    def _view_page(self) -> QWidget:
        self.item = QComboBox(self)
        self.item.setObjectName("threshold-item")
        self.item.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.epoch = QLabel(self)
        self.epoch.setObjectName("threshold-epoch")
        self.follow = QCheckBox("follow", self)
        self.follow.setObjectName("threshold-follow")
        self.follow.setToolTip("Go to each new epoch as it comes")
        self._live_page = QWidget(self)
        form = QFormLayout(self._live_page)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(3)
        form.addRow("Image", self._stepper(self.item, self.session.step_item))
        row = QHBoxLayout()
        row.addWidget(self.epoch, 1)
        row.addWidget(self.follow)
        holder = QWidget(self)
        row.setContentsMargins(0, 0, 0, 0)
        holder.setLayout(row)
        form.addRow("Epoch", self._stepper(holder, self.session.step_epoch))
        return self._live_page

    def _stepper(self, middle: QWidget, step: Callable[[int], None]) -> QWidget:
        page = QWidget(self)
        row = QHBoxLayout(page)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for words, by in (("◀", -1), ("▶", 1)):
            button = QToolButton(page)
            button.setText(words)
            button.setAccessibleName("previous" if by < 0 else "next")
            button.clicked.connect(partial(_call, step, by))
            if by < 0:
                row.addWidget(button)
                row.addWidget(middle, 1)
            else:
                row.addWidget(button)
        return page

    def _slider_row(self) -> QFormLayout:
        self.classes = QComboBox(self)
        self.classes.setObjectName("threshold-class")
        self.slider = QDoubleSlider(Qt.Orientation.Horizontal, self)
        self.slider.setObjectName("threshold-slider")
        self.slider.setRange(0.0, 1.0)
        self.slider.setSingleStep(0.01)
        self.slider.setValue(0.5)
        self.spin = QDoubleSpinBox(self)
        self.spin.setObjectName("threshold-value")
        self.spin.setRange(0.0, 1.0)
        self.spin.setDecimals(DECIMALS)
        self.spin.setSingleStep(0.01)
        self.spin.setKeyboardTracking(False)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.slider, 1)
        row.addWidget(self.spin)
        holder = QWidget(self)
        holder.setLayout(row)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(3)
        form.addRow("Class", self.classes)
        form.addRow("T", holder)
        return form

    def _actions(self) -> QHBoxLayout:
        self.outline = QCheckBox("Outline (U)", self)
        self.outline.setObjectName("threshold-outline")
        self.outline.setToolTip("Draw the prediction's outline when the hand rests")
        self.keep = QPushButton("Keep as Labels", self)
        self.keep.setObjectName("threshold-keep")
        self.keep.setToolTip("An editable layer of the decision p ≥ T in what is in view")
        self.save = QPushButton("Save…", self)
        self.save.setObjectName("threshold-save")
        self.save.setToolTip("Write masks of all the images: PNG, 0 and 255, or 0 … C")
        row = QHBoxLayout()
        row.addWidget(self.outline, 1)
        for button in (self.keep, self.save):
            button.setAutoDefault(False)
            row.addWidget(button)
        return row

    def _keys_page(self) -> QWidget:
        page = QLabel(self)
        lines = "".join(f"<tr><td><b>{k.key}</b>&nbsp;&nbsp;</td><td>{k.words}</td></tr>" for k in keys.KEYS)
        page.setText(f"<table cellspacing='0'>{lines}</table>")
        page.setToolTip("They work while the canvas has the keyboard: click into the picture first.")
        return page

    def _connect(self) -> None:
        self.session.watched.connect(self._on_watched)
        self.session.updated.connect(self._on_updated)
        self.session.viewed.connect(self._on_viewed)
        self.viewer.dims.events.current_step.connect(self._on_step)
        self.slider.valueChanged.connect(self._by_hand)
        self.spin.valueChanged.connect(self._by_hand)
        self.classes.activated.connect(self._on_class)
        self.item.activated.connect(self._on_item)
        self.follow.clicked.connect(self._on_follow)
        self.outline.clicked.connect(self._on_outline)
        self.plot.threshold_picked.connect(self.set_threshold)
        self.live.toggled.connect(self._choose_source)
        self.with_truth.toggled.connect(self._choose_source)
        self.probability.chosen.connect(self._choose_source)
        self.truth.chosen.connect(self._choose_source)
        self.keep.clicked.connect(self._keep)
        self.save.clicked.connect(self._ask_folder)

    # What comes in

    def _on_watched(self, root: Path | None) -> None:
        self._asked = None
        if self._target is None:
            self._curves, self._shown, self._plotted = None, None, None
            self._show()

    def _on_updated(self, snapshot: Snapshot) -> None:
        if self._target is None:
            self._take_live(snapshot)
        self._show_view()

    def _on_viewed(self, view: View) -> None:
        if self._target is None:
            snapshot = self.session.snapshot
            if snapshot is not None:
                self._take_live(snapshot)
            self._show_threshold()
        self._show_view()

    def _on_step(self, event: Any = None) -> None:
        if self._target is not None:
            self._measure()

    def _on_class(self, index: int) -> None:
        if self._target is None:
            self.session.set_view(cls=index)
        else:
            self._target.set_class(index)
            self._target.set_threshold(self.threshold)
            self._measure()
            self._show_threshold()

    def _on_item(self, index: int) -> None:
        self.session.set_view(item=index)

    def _on_follow(self, checked: bool) -> None:
        self.session.set_view(follow=checked, epoch=self.session.epoch)

    def _on_outline(self, checked: bool) -> None:
        self.session.set_view(outline=checked)

    def _by_hand(self, value: float) -> None:
        if round(value, DECIMALS) != round(self.threshold, DECIMALS):
            self.set_threshold(round(value, DECIMALS))

    def _step(self, step: float) -> None:
        self.set_threshold(round(self.threshold + step, 6))

    # Which probabilities

    def _choose_source(self, *_: object) -> None:
        layer = self.probability.layer()
        chosen = None if self.live.isChecked() else layer
        self.live.setEnabled(layer is not None)
        if layer is None and not self.live.isChecked():
            self.live.setChecked(True)
            return
        truth = self.truth.layer() if self.with_truth.isChecked() else None
        for widget in (self.probability, self.with_truth, self.truth, self._other):
            widget.setVisible(chosen is not None)
        self._live_page.setVisible(chosen is None)
        self.outline.setVisible(chosen is None)
        self.legend.setVisible(chosen is None)
        self._say("")
        self._drop_target()
        if chosen is not None:
            self._take_target(chosen, truth)
        elif self.session.snapshot is not None:
            self._take_live(self.session.snapshot)
        self._show()

    def _take_target(self, layer: Any, truth: Any) -> None:
        wrong = targets.quick_check(layer)
        if wrong:
            self._say(wrong)
            return
        try:
            self._target = TargetLayers(self.viewer, layer, truth, 0, self._thresholds.get(0, 0.5), self)
        except InputError as error:
            self._say(str(error))
            return
        self._target.gone.connect(self._choose_source)
        self._do(targets.check, layer, then=self._say)
        self._measure()

    def _drop_target(self) -> None:
        target, self._target = self._target, None
        self._curves, self._shown, self._plotted, self._note = None, None, None, ""
        if target is not None:
            target.close()
            target.deleteLater()

    def _take_live(self, snapshot: Snapshot) -> None:
        view = self.session.view
        asked = (snapshot.view.item, snapshot.view.cls, snapshot.epoch)
        if asked != (view.item, view.cls, self.session.epoch) or not snapshot.curves:
            self._curves, self._shown = None, None
        else:
            self._curves = list(snapshot.curves.values())
            self._shown = snapshot.curves.get(view.item)
        items = snapshot.run.items
        if items:
            split = items[min(view.item, len(items) - 1)].split
            count = sum(item.split == split for item in items)
            words = {"train": "training", "val": "validation"}.get(split, split)
            self._set_title = f"{count} {words} images" if count > 1 else ""
            self._note = f"Mean over the {count} watched {words} images." if count > 1 else ""
        self._show()

    def _measure(self) -> None:
        """Count for the plane in view of a target layer, in a helper thread; the newest wish counts."""
        assert self._target is not None
        target, cls, index = self._target.target, self._class(), self._plane()
        self._asked = asked = (id(target), cls, index)

        def take(found: Any) -> None:
            if self._asked == asked:
                self._shown, self._curves = found
                self._set_title = "all planes" if self._curves and len(self._curves) > 1 else ""
                self._note = "" if self._shown is not None else self._without_truth(found)
                self._plotted = None
                self._show()

        self._do(measured, target, cls, index, then=take)

    def _without_truth(self, found: Any) -> str:
        return "Choose a truth to see rates."

    def _plane(self) -> tuple[int, ...]:
        assert self._target is not None
        layer = self._target.layer("prediction")
        if layer is None:
            return ()
        point = layer.world_to_data(self.viewer.dims.point[-layer.ndim :])
        lengths = (layer.data[0] if layer.multiscale else layer.data).shape[:-2]
        return tuple(int(np.clip(round(a), 0, n - 1)) for a, n in zip(point, lengths, strict=False))

    def _class(self) -> int:
        return max(0, self.classes.currentIndex()) if self._target is not None else self.session.view.cls

    # Keeping

    def _keep(self, *_: object) -> None:
        snapshot, view = self.session.snapshot, self.session.view
        if self._target is not None:
            job: Any = partial(kept_plane, self._target.target, self._class(), self._plane(), self.threshold)
            layer = self._target.layer("prediction")
            self._do(job, then=partial(self._add_plane, layer))
        elif snapshot is not None and snapshot.item is not None and snapshot.run.epochs:
            self._do(kept, snapshot.run, view, self.session.epoch, then=self._add_labels)

    def _add_labels(self, found: tuple[Any, dict[str, Any]]) -> None:
        labels, place = found
        name = f"labels from prediction, epoch {self.session.epoch}"
        self.viewer.add_labels(labels, name=name, **place)

    def _add_plane(self, source: Any, labels: Any) -> None:
        if source is None:
            return
        whole = np.zeros((source.data[0] if source.multiscale else source.data).shape, np.uint8)
        whole[self._plane()] = labels
        names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
        place = {name: getattr(source, name) for name in names}
        self.viewer.add_labels(whole, name=f"labels from {source.name}", **place)

    def _ask_folder(self, *_: object) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Write masks into")
        if folder:
            self.save_into(Path(folder))

    def save_into(self, folder: Path) -> None:
        """Write the masks of all images of what is chosen into a folder; says what is wrong in the dock."""
        snapshot, view = self.session.snapshot, self.session.view

        def then(written: list[Path]) -> None:
            self._say(f"{len(written)} mask{'s' * (len(written) != 1)} written into {folder}.", wrong=False)

        if self._target is not None:
            job: Any = partial(save_planes, folder, self._target.target, dict(self._thresholds))
            self._do(job, then=then)
        elif snapshot is not None and snapshot.item is not None and snapshot.run.epochs:
            self._do(save_run, folder, snapshot.run, view, self.session.epoch, then=then)

    # Helper threads

    def _do(self, job: Callable[..., Any], *given: Any, then: Callable[[Any], None]) -> None:
        self._jobs.append((self.session.run(job, *given), then))
        self._look.start()

    def _take(self) -> None:
        done = [pair for pair in self._jobs if pair[0].done()]
        self._jobs = [pair for pair in self._jobs if not pair[0].done()]
        if not self._jobs:
            self._look.stop()
        for order, then in done:
            try:
                found = order.result()
            except (InputError, OSError) as error:
                self._say(str(error))
            else:
                then(found)

    # Showing

    def _say(self, sentence: str, *, wrong: bool = True) -> None:
        self.error.setText(f"⚠ {sentence}" if sentence and wrong else sentence)
        self.error.setVisible(bool(sentence))

    def _show(self) -> None:
        self._fill_classes()
        self._show_threshold()
        self._show_view()

    def _fill_classes(self) -> None:
        if self._target is not None:
            names = [name or "foreground" for name in self._target.target.classes]
        else:
            names = list(self.session.snapshot.run.classes) if self.session.snapshot else []
        if [self.classes.itemText(number) for number in range(self.classes.count())] != names:
            self.classes.clear()
            self.classes.addItems(names)
        if self._target is None and self.classes.currentIndex() != self.session.view.cls:
            self.classes.setCurrentIndex(self.session.view.cls)

    def _show_threshold(self) -> None:
        threshold = self.threshold
        for widget in (self.slider, self.spin):
            if round(widget.value(), DECIMALS) != round(threshold, DECIMALS):
                widget.blockSignals(True)
                widget.setValue(threshold)
                widget.blockSignals(False)
        shown = readout.columns(self._curves, self._shown, threshold, self._set_title)
        self.readout.setText(readout.table(threshold, shown, self._note))
        curves = self._curves if self._curves is not None else ([self._shown] if self._shown else None)
        self._plot(curves, threshold)

    def _plot(self, curves: list[Curve] | None, threshold: float) -> None:
        if curves is None:
            if self._plotted is not None:
                self._plotted = None
                self.plot.set_curve(*np.empty((3, 0)))
                self.plot.set_point(float("nan"), float("nan"))
            return
        if self._plotted is not curves and self._plotted != [id(curve) for curve in curves]:
            self._plotted = [id(curve) for curve in curves]
            found, precision, recall, _ = precision_recall(curves)
            self.plot.set_curve(precision, recall, found)
        total = rates(sum((c.counts(threshold) for c in curves[1:]), curves[0].counts(threshold)))
        self.plot.set_point(total.recall, total.precision)

    def _show_view(self) -> None:
        snapshot, view = self.session.snapshot, self.session.view
        items = snapshot.run.items if snapshot is not None else ()
        names = [f"{item.split} · {item.name}" for item in items]
        if [self.item.itemText(number) for number in range(self.item.count())] != names:
            self.item.clear()
            self.item.addItems(names)
        if self.item.currentIndex() != view.item:
            self.item.setCurrentIndex(min(view.item, len(names) - 1))
        total = snapshot.state.total if snapshot is not None else 0
        _say(self.epoch, f"{self.session.epoch} of {total}" if total else "none yet")
        self.follow.setChecked(view.follow)
        self.outline.setChecked(view.outline)
        ready = self._target is not None or bool(items and self.session.epoch)
        for widget in (self.keep, self.save, self.slider, self.spin):
            widget.setEnabled(ready)


def _may_be_truth(layer: Any) -> bool:
    return isinstance(layer, Labels) and MARK not in layer.metadata


def _say(label: QLabel, text: str) -> None:
    if label.text() != text:
        label.setText(text)


def _call(step: Callable[[int], None], by: int, *_: object) -> None:
    step(by)
