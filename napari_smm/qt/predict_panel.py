"""Applying a run to an open image: the choice of run and image, the progress, and the result as layers."""

import math
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDockWidget,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
)

from engine.errors import InputError
from napari_smm.feed import Snapshot
from napari_smm.layers import MARK
from napari_smm.planes import PlaneSource, plane_in_view, plane_source
from napari_smm.predicted import LayerArguments, layers
from napari_smm.prediction import Prediction, display, start, title
from napari_smm.predictors import RunChoice, note, offered_runs
from napari_smm.qt.activity import Activity
from napari_smm.qt.dock import Dock
from napari_smm.qt.layer_combo import LayerCombo
from napari_smm.status import Display

WAIT_MILLISECONDS = 200
"""Time between two looks at what goes on, while something does."""
STEPS = 1000
"""Resolution of the progress bar."""
WIDEST = 500
"""Pixels of the list of runs."""
LOOKING = "looking for runs…"
NO_RUNS = "no run with a checkpoint yet"
NO_IMAGES = "no Image layer is open"
CHECKPOINT_WORDS = {"best": "best epoch", "last": "last epoch"}


class RunCombo(QComboBox):
    """Offers runs, and asks for newer ones when it opens."""

    opening = Signal()

    def showPopup(self) -> None:  # noqa: N802 (Qt's name)
        """Open, with what is known; what is found meanwhile comes later."""
        self.opening.emit()
        view = self.view()
        if view is not None:  # names of runs are longer than a dock is wide
            view.setMinimumWidth(min(view.sizeHintForColumn(0) + 24, WIDEST))
        super().showPopup()


class PredictPanel(Dock):
    """Predicts an open image with a run, in a process of its own, and adds the probability as layers.

    A dock of its own, or part of another one, which then calls :meth:`shut` when it closes. A prediction
    that goes on ends with it.

    Attributes:
        prediction: the one that goes on, or ended last; None before the first.
        longest: seconds of the longest callback so far, without what napari needs to add a layer, and to
            move a bar in its activity dock, at which it works off the window's waiting events.
    """

    def __init__(self, napari_viewer: Any) -> None:
        """Build the panel for a viewer."""
        super().__init__(napari_viewer)
        self.setObjectName("predict-panel")
        self.prediction: Prediction | None = None
        self.longest = 0.0
        self._choices: list[RunChoice] = []
        self._wanted: Path | None = None
        self._search: Future[list[RunChoice]] | None = None
        self._again = False
        self._order: Future[Prediction] | None = None
        self._taken = True
        self._fault = ""
        self._waiting: deque[LayerArguments] = deque()
        self._phase = ""
        self._title = ""
        self._activity = Activity(self)
        self._build()
        self._clock = QTimer(self)
        self._clock.setInterval(WAIT_MILLISECONDS)
        self._clock.timeout.connect(self._tick)
        self.run.opening.connect(self.search)
        self.run.currentIndexChanged.connect(self._on_run)
        self.image.chosen.connect(self._on_image)
        self.planes.currentIndexChanged.connect(self._check_image)
        self.begin.clicked.connect(lambda: self.start())
        self.halt.clicked.connect(lambda: self.cancel())
        self.session.watched.connect(self._on_watched)
        self.session.updated.connect(self._on_updated)
        self._on_run()
        self._on_image()
        self._show()

    # For others

    def choose_run(self, run: Path) -> None:
        """Choose a run directory, as soon as it is among those that were found."""
        self._wanted = run.expanduser().absolute()
        self.search()

    def choose_image(self, layer: Any) -> None:
        """Choose an Image layer."""
        self.image.choose(layer)

    def bring(self) -> None:
        """Show the dock that it is in, in front of those behind which it may be."""
        frame = self.parentWidget()
        while frame is not None and not isinstance(frame, QDockWidget):
            frame = frame.parentWidget()
        if frame is not None:
            frame.show()
            frame.raise_()

    def search(self) -> None:
        """Look for runs again."""
        if self._left:
            return
        if self._search is not None:
            self._again = True
            return
        self._search = self.session.run(offered_runs, self.session.root)
        self._clock.start()

    def start(self) -> None:
        """Predict. What is wrong is said beside the field."""
        if self.busy:
            return
        self._fault = ""
        _complain(self.run_error, "")
        choice = self._choice()
        if choice is None:
            _complain(
                self.run_error,
                "there is no run to predict with: train one, or add a folder that holds some in Runs.",
            )
            return
        try:
            source = self._source()
        except InputError as error:
            _complain(self.image_error, str(error))
            return
        job = partial(start, choice.path, source, checkpoint=self.checkpoint.currentData())
        self.prediction = None
        self.state.setToolTip("")
        self._order = self.session.run(job)
        self._clock.start()
        self._show()

    def cancel(self) -> None:
        """End the prediction that goes on. Nothing of it is kept."""
        if self.prediction is not None:
            self.prediction.cancel()
        self._show()

    def leave(self) -> None:
        """Undo the connections, and end a prediction that goes on."""
        self._clock.stop()
        self.session.watched.disconnect(self._on_watched)
        self.session.updated.disconnect(self._on_updated)
        self.image.leave()
        self._activity.close()
        self._waiting.clear()
        if self._order is not None:
            self._order.add_done_callback(_close_started)
        if self.prediction is not None:
            self.prediction.close()

    # Building

    def _build(self) -> None:
        self.run = RunCombo(self)
        self.run.setObjectName("predict-run")
        self.run.addItem(LOOKING)
        self.run.setEnabled(False)
        self.checkpoint = QComboBox(self)
        self.checkpoint.setObjectName("predict-checkpoint")
        self.image = LayerCombo(self.viewer, _offered, NO_IMAGES, self)
        self.image.setObjectName("predict-image")
        self.planes = QComboBox(self)
        self.planes.setObjectName("predict-planes")
        for combo in (self.run, self.checkpoint, self.planes):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(12)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.run_error, self.image_error = (
            self._sentence("predict-run-error"),
            self._sentence("predict-error"),
        )
        self.note = self._sentence("predict-note")
        self.detail = self._sentence("predict-detail")
        self.begin = QPushButton("Predict", self)
        self.begin.setObjectName("predict-start")
        self.begin.setToolTip("Apply the run to the image, in a process of its own")
        self.halt = QPushButton("Cancel", self)
        self.halt.setObjectName("predict-cancel")
        self.halt.setToolTip("End the prediction; nothing of it is kept")
        for button in (self.begin, self.halt):
            button.setAutoDefault(False)
        self.state = QLabel(self)
        self.state.setObjectName("predict-status")
        self.left = QLabel(self)
        self.left.setObjectName("predict-time-left")
        self.bar = QProgressBar(self)
        self.bar.setObjectName("predict-progress")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self._lay_out()

    def _lay_out(self) -> None:
        form = QGridLayout()
        form.setVerticalSpacing(4)
        form.setColumnStretch(1, 1)
        self._planes_label = QLabel("Planes", self)
        fields = {"Run": self.run, "Checkpoint": self.checkpoint, "Image": self.image}
        for row, (text, field) in enumerate(fields.items()):
            form.addWidget(QLabel(text, self), 2 * row, 0)
            form.addWidget(field, 2 * row, 1)
        form.addWidget(self.run_error, 1, 0, 1, 2)
        form.addWidget(self._planes_label, 6, 0)
        form.addWidget(self.planes, 6, 1)
        form.addWidget(self.image_error, 7, 0, 1, 2)
        form.addWidget(self.note, 8, 0, 1, 2)
        buttons = QHBoxLayout()
        buttons.addWidget(self.begin)
        buttons.addWidget(self.halt)
        words = QHBoxLayout()
        words.addWidget(self.state, 1)
        words.addWidget(self.left)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(6)
        column.addLayout(form)
        column.addLayout(buttons)
        column.addLayout(words)
        column.addWidget(self.bar)
        column.addWidget(self.detail)
        column.addStretch(1)

    def _sentence(self, name: str) -> QLabel:
        label = QLabel(self)
        label.setObjectName(name)
        label.setWordWrap(True)
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        label.hide()
        return label

    # What is chosen

    def _choice(self) -> RunChoice | None:
        index = self.run.currentIndex()
        return self._choices[index] if 0 <= index < len(self._choices) else None

    def _source(self) -> PlaneSource:
        layer = self.image.layer()
        one = self.planes.currentData() == "view" and layer is not None
        dims = self._dims()
        return plane_source(layer, plane_in_view(layer, self.viewer, dims) if one else None, dims)

    def _dims(self) -> int:
        choice = self._choice()
        return 2 if choice is None else choice.dims

    def _on_run(self, index: int = 0) -> None:
        choice = self._choice()
        kept = self.checkpoint.currentData()
        self.checkpoint.clear()
        for name in choice.checkpoints if choice else ():
            self.checkpoint.addItem(CHECKPOINT_WORDS[name], name)
        self.checkpoint.setCurrentIndex(max(0, self.checkpoint.findData(kept)))
        self.checkpoint.setEnabled(choice is not None)
        self.run.setToolTip(str(choice.path) if choice else "")
        _complain(self.run_error, "")
        self._on_image()

    def _on_image(self, layer: Any = None) -> None:
        layer = self.image.layer()
        dims = self._dims()
        count = _part_count(layer, dims)
        words = "plane" if dims == 2 else "volume"
        self.planes.blockSignals(True)
        kept = self.planes.currentData() or "view"
        self.planes.clear()
        self.planes.addItem(f"the {words} in view", "view")
        self.planes.addItem(f"all {count}", "all")
        self.planes.setCurrentIndex(self.planes.findData(kept))
        self.planes.blockSignals(False)
        self.planes.setVisible(count > 1)
        self._planes_label.setText(f"{words.capitalize()}s")
        self._planes_label.setVisible(count > 1)
        self._check_image()

    def _check_image(self, index: int = 0) -> None:
        """Say at once what is wrong with the image, and what will be done to it."""
        choice, layer = self._choice(), self.image.layer()
        words = problem = ""
        if layer is not None:
            try:
                dims = self._dims()
                source = plane_source(layer, (0,) * (layer.ndim - dims), dims)
                words = note(choice.channels, source) if choice else ""
            except InputError as error:
                problem = str(error)
        _complain(self.image_error, problem)
        _say(self.note, words)
        self.note.setVisible(bool(words))

    # What comes in

    def _on_watched(self, root: object) -> None:
        self.search()

    def _on_updated(self, snapshot: Snapshot) -> None:
        """Look for runs when the watched one may have got its first checkpoint, or has ended."""
        phase = f"{snapshot.state.root} {snapshot.state.status} {bool(snapshot.state.newest)}"
        if phase != self._phase:
            self._phase = phase
            self.search()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Runs may have come or gone while nobody looked."""
        super().showEvent(event)
        self.search()

    # The clock, which stands still while nothing goes on

    @property
    def busy(self) -> bool:
        """Whether a prediction goes on, or its layers are still to be added."""
        predicts = self.prediction is not None and not self._taken
        return predicts or self._order is not None or bool(self._waiting)

    def _tick(self) -> None:
        began = time.perf_counter()
        theirs = 0.0
        if self._search is not None and self._search.done():
            self._take_runs(self._search)
        if self._order is not None and self._order.done():
            self._take_started(self._order)
        elif self._waiting:
            theirs = self._add(self._waiting.popleft())
        elif self.prediction is not None and not self._taken:
            self._take_result(self.prediction)
        theirs += self._show()
        if not self.busy and self._search is None:
            self._clock.stop()
        self.longest = max(self.longest, time.perf_counter() - began - theirs)

    def _take_runs(self, search: "Future[list[RunChoice]]") -> None:
        self._search = None
        try:
            choices = search.result()
        except (InputError, OSError) as error:
            _complain(self.run_error, str(error))
            choices = self._choices
        if choices != self._choices or self.run.currentText() == LOOKING:
            self._offer(choices)
        wanted = next((at for at, choice in enumerate(self._choices) if choice.path == self._wanted), None)
        if wanted is not None:
            self.run.setCurrentIndex(wanted)
            self._wanted = None
        if self._again:
            self._again = False
            self.search()

    def _offer(self, choices: list[RunChoice]) -> None:
        kept = self._choice()
        self._choices = choices
        self.run.blockSignals(True)
        self.run.clear()
        self.run.addItems([choice.words for choice in choices] or [NO_RUNS])
        for index, choice in enumerate(choices):
            self.run.setItemData(index, str(choice.path), Qt.ItemDataRole.ToolTipRole)
        paths = [choice.path for choice in choices]
        self.run.setCurrentIndex(paths.index(kept.path) if kept and kept.path in paths else 0)
        self.run.setEnabled(bool(choices))
        self.run.blockSignals(False)
        self._on_run()

    def _take_started(self, order: "Future[Prediction]") -> None:
        self._order = None
        try:
            self.prediction, self._taken = order.result(), False
        except InputError as error:
            self._fault = str(error)

    def _take_result(self, prediction: Prediction) -> None:
        """Once a prediction has ended, order its layers."""
        if prediction.poll().ended:
            self._taken = True
            if prediction.poll().state == "finished":
                self._waiting.extend(layers(prediction.result(), prediction.run))
                self.state.setToolTip(f"The probabilities are kept in {prediction.out}")

    def _add(self, layer: LayerArguments) -> float:
        """Add a layer. Returns the seconds that napari took, as for any other layer."""
        active = self.viewer.layers.selection.active
        began = time.perf_counter()
        self.viewer.add_image(layer.data, **layer.arguments)
        took = time.perf_counter() - began
        if active is not None and active is not self.image.layer():
            # The user may be painting on another layer meanwhile: that one stays chosen.
            self.viewer.layers.selection.active = active
        return took

    # Showing

    def _show(self) -> float:
        """Show the state. Returns the seconds that napari took for its activity dock."""
        state = self.prediction.poll() if self.prediction is not None else None
        shown = Display("Starting…", done=None, can_start=False) if self._order else display(state)
        _say(self.state, shown.status)
        _say(self.left, shown.time_left)
        detail = self._fault or shown.detail
        _complain(self.detail, detail)
        self.bar.setUpdatesEnabled(False)  # else it paints itself at once, and the window around it
        self.bar.setRange(0, 0 if shown.done is None else STEPS)
        self.bar.setValue(0 if shown.done is None else round(shown.done * STEPS))
        self.bar.setUpdatesEnabled(True)
        self.begin.setEnabled(shown.can_start and not self.busy and self.run.currentText() != LOOKING)
        self.halt.setEnabled(shown.can_stop)
        began = time.perf_counter()
        if state is not None and self.prediction is not None:
            words = title(state, self.prediction.source.name)
            if words != self._title:
                self._activity.close()
                self._title = words
            self._activity.show(words, state, shown)
        return time.perf_counter() - began


def _close_started(order: "Future[Prediction]") -> None:
    """End a prediction that has started only after its panel was closed."""
    if not order.cancelled() and order.exception() is None:
        order.result().close()


def _offered(layer: Any) -> bool:
    """Images, but not what a run or a prediction shows."""
    derived = not str(layer.metadata.get(MARK, {}).get("role", "image")).startswith("image")
    return type(layer).__name__ == "Image" and not derived


def _part_count(layer: Any, dims: int) -> int:
    """Planes of a layer, or volumes."""
    if layer is None:
        return 1
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    return math.prod(map(int, shape[: max(0, layer.ndim - dims)]))


def _complain(label: QLabel, sentence: str) -> None:
    _say(label, f"⚠ {sentence}" if sentence else "")
    label.setVisible(bool(sentence))


def _say(label: QLabel, text: str) -> None:
    # Setting a label's text anew would lay the whole dock out again.
    if label.text() != text:
        label.setText(text)
