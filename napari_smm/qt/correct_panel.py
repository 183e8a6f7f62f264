"""Correcting a run's proposal: labels of the image in view from a prediction, and places to look at."""

import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from engine.errors import InputError
from napari_smm import launch
from napari_smm.annotating import Annotator
from napari_smm.annotating_image import MARK as IMAGE_MARK
from napari_smm.annotation import safe_name
from napari_smm.feed import Snapshot
from napari_smm.planes import plane_in_view
from napari_smm.predicted import LayerArguments, layers
from napari_smm.prediction import Prediction, display, start
from napari_smm.proposing import (
    ROLES,
    Candidate,
    Kind,
    Offer,
    Proposed,
    candidate_layer,
    image_source,
    offers,
    propose,
)
from napari_smm.qt.correct_camera import look_at
from napari_smm.qt.jobs import Jobs
from napari_smm.qt.keys import is_typing
from napari_smm.qt.offer_combo import OfferCombo
from napari_smm.session import Session
from napari_smm.status import SYMBOLS, Display

WAIT_MILLISECONDS = 100
"""Time between two looks at what goes on, while something does."""
STEPS = 1000
"""Resolution of the progress bar."""
REMEMBERED = 8
"""Images whose last proposal is kept, so that another one can take its place."""
GOING = (SYMBOLS["running"], SYMBOLS["stopping"])
"""What the words of a run begin with that still trains."""
KEYS = {"U": 1, "Shift-U": -1}
"""Key → how far it steps among the candidates. U for unsure."""
BAND = (
    "Leaves a pixel unlabelled where p is close to T: from T/2 to (1 + T)/2, half way from T to 0 and to 1. "
    "Paint there yourself."
)

Apply = Callable[[NDArray[np.uint8]], Any]
"""Makes labels uint8 (*S) those of the Labels layer, as an edit that can be undone."""


class CorrectPanel(QWidget):
    """Has a run propose labels for the image in view, and steps through what it may have got wrong.

    A prediction that goes on when another image is gone to is cancelled: none is ever applied to an image
    that it is not of. Call :meth:`leave` when the owner closes.

    Attributes:
        prediction: the one that goes on; None while none does.
        shown: the proposal whose candidates are in view; None without one.
    """

    def __init__(
        self, viewer: Any, session: Session, annotator: Annotator, apply: Apply, parent: QWidget | None = None
    ) -> None:
        """Build the panel.

        Args:
            viewer: napari's, with the layers of the image.
            session: whose runs are offered.
            annotator: whose images are proposed for.
            apply: edits the Labels layer.
            parent: the owner.
        """
        super().__init__(parent)
        self.setObjectName("correct-panel")
        self.viewer, self.session, self.annotator = viewer, session, annotator
        self.prediction: Prediction | None = None
        self.shown: Proposed | None = None
        self._apply = apply
        self._order: Future[Prediction] | None = None
        self._image = ""
        self._made: dict[str, Proposed] = {}
        self._at: int | None = None
        self._seen: set[int] = set()
        self._waiting: deque[Callable[[], None]] = deque()
        self._own: dict[str, Any] = {}
        self._folders: list[Path] = []
        self._phase = ""
        self._end = ""
        self._keys: list[str] = []
        self._jobs = Jobs(session, self)
        self._build()
        self._clock = QTimer(self)
        self._clock.setInterval(WAIT_MILLISECONDS)
        self._clock.timeout.connect(self._tick)
        self._connect()
        self._show()

    # For others

    @property
    def busy(self) -> bool:
        """Whether something goes on that will change labels or layers."""
        going = self.prediction is not None or self._order is not None
        return going or self._jobs.has("propose") or bool(self._waiting)

    def choose_run(self, run: Path) -> None:
        """Choose a run among those that are offered."""
        self.run.choose(run.expanduser().absolute())

    def search(self) -> None:
        """Look for runs again."""
        self._jobs.ask("runs", lambda _: offers(self.session.root, self.annotator.root), self._offer)

    def start(self) -> None:
        """Propose for the image in view. What is wrong is said below."""
        if self.busy:
            return
        self._say_fault("")
        self._end = ""
        try:
            offer, image = self._choice(), self._current()
            source = self._source(offer, image)
        except InputError as error:
            self._say_fault(str(error))
            return
        self._image = image
        folder = launch.home() / "proposals" / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{safe_name(source.name)}"
        self._folders.append(folder)
        # Of a run that goes on, its newest epoch; of others what the engine takes.
        newest = "last" if offer.choice.words[0] in GOING else None
        self._order = self.session.run(partial(start, offer.choice.path, source, folder, checkpoint=newest))
        self._clock.start()
        self._show()

    def cancel(self) -> None:
        """End the proposal that goes on. Nothing of it is kept."""
        if self.prediction is not None:
            self.prediction.cancel()
        if self._jobs.has("propose"):
            self._jobs.drop("propose")
            self._end = "■ Cancelled"
        self._show()

    def step(self, by: int) -> None:
        """Go to the next (1) or previous (-1) candidate, past those that were painted on."""
        found = self._candidates()
        if not found:
            return
        count = len(found)
        first = (0 if by > 0 else count - 1) if self._at is None else self._at + by
        ways = [(first + by * way) % count for way in range(count)]
        labels = self._labels()
        left = [at for at in ways if at in self._seen or not self._settled(found[at], labels)]
        self._at = left[0] if left else ways[0]
        self._seen.add(self._at)
        layer = self._labels_layer()
        if layer is not None:
            look_at(self.viewer, layer, found[self._at].box, found[self._at].peak)
        self._show_candidates()

    @property
    def left(self) -> int:
        """Candidates that nobody has looked at or painted on."""
        labels = self._labels()
        return sum(
            at not in self._seen and not self._settled(one, labels)
            for at, one in enumerate(self._candidates())
        )

    def leave(self) -> None:
        """Undo the connections, end what goes on, and take the layers away."""
        self._clock.stop()
        self.session.updated.disconnect(self._on_updated)
        self.annotator.moved.disconnect(self._on_moved)
        self.annotator.opened.disconnect(self._on_opened)
        self.annotator.changed.disconnect(self._on_changed)
        self.annotator.saved.disconnect(self._on_saved)
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        for key in self._keys:
            self.viewer.bind_key(key, None)
        self._jobs.close()
        self._drop()

    # Building

    def _build(self) -> None:
        self.run = OfferCombo("correct-run", self)
        self.slices = QComboBox(self)
        self.slices.setObjectName("correct-slices")
        self.slices.addItem("the slice in view", "view")
        self.slices.addItem("all slices", "all")
        for combo in (self.run, self.slices):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(12)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.over = QCheckBox("also over what is painted", self)
        self.over.setObjectName("correct-over")
        self.over.setToolTip("Else the proposal fills only what is unlabelled, or was proposed before")
        self.spare = QCheckBox("leave doubtful pixels unlabelled", self)
        self.spare.setObjectName("correct-spare")
        self.spare.setToolTip(BAND)
        self.begin = self._button("Propose", "correct-propose", "Have the run label this image, as an edit")
        self.halt = self._button("Cancel", "correct-cancel", "End it; nothing of it is kept")
        self.state, self.detail = QLabel(self), QLabel(self)
        self.state.setObjectName("correct-status")
        self.detail.setObjectName("correct-error")
        self.bar = QProgressBar(self)
        self.bar.setObjectName("correct-progress")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.reason = QLabel(self)
        self.reason.setObjectName("correct-reason")
        for label in (self.state, self.detail, self.reason):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.count = QLabel(self)
        self.count.setObjectName("correct-left")
        self._lay_out()

    def _button(self, text: str, name: str, tip: str) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(name)
        button.setToolTip(tip)
        button.setAutoDefault(False)
        return button

    def _lay_out(self) -> None:
        form = QGridLayout()
        form.setVerticalSpacing(4)
        form.setColumnStretch(1, 1)
        self._slices_label = QLabel("Slices", self)
        form.addWidget(QLabel("Run", self), 0, 0)
        form.addWidget(self.run, 0, 1)
        form.addWidget(self._slices_label, 1, 0)
        form.addWidget(self.slices, 1, 1)
        form.addWidget(self.over, 2, 0, 1, 2)
        form.addWidget(self.spare, 3, 0, 1, 2)
        buttons = QHBoxLayout()
        buttons.addWidget(self.begin, 1)
        buttons.addWidget(self.halt, 1)
        walk = QHBoxLayout()
        walk.setSpacing(3)
        for sign, word, by in (("◀", "previous", -1), ("▶", "next", 1)):
            button = QToolButton(self)
            button.setObjectName(f"correct-{word}")
            button.setText(sign)
            button.setAccessibleName(f"{word} candidate")
            key = "Shift+U" if by < 0 else "U"
            button.setToolTip(f"{word.capitalize()} candidate ({key})")
            button.clicked.connect(partial(_call, self.step, by))
            walk.addWidget(button)
        walk.insertWidget(1, self.count, 1)
        self.count.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.walk = QWidget(self)
        self.walk.setLayout(walk)
        walk.setContentsMargins(0, 0, 0, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(4)
        column.addLayout(form)
        column.addLayout(buttons)
        column.addWidget(self.bar)
        for widget in (self.state, self.detail, self.walk, self.reason):
            column.addWidget(widget)

    def _connect(self) -> None:
        self.begin.clicked.connect(_without(self.start))
        self.halt.clicked.connect(_without(self.cancel))
        self.run.currentIndexChanged.connect(_without(self._show))
        self._jobs.failed.connect(self._on_failed)
        self.session.updated.connect(self._on_updated)
        self.annotator.moved.connect(self._on_moved)
        self.annotator.opened.connect(self._on_opened)
        self.annotator.changed.connect(self._on_changed)
        self.annotator.saved.connect(self._on_saved)
        self.viewer.layers.events.inserted.connect(self._on_inserted)
        taken = {str(key) for key in self.viewer.keymap}
        for key, by in KEYS.items():
            if key.replace("-", "+") not in taken:
                self.viewer.bind_key(key, _typed(self.step, by))
                self._keys.append(key)

    # What is chosen

    def _choice(self) -> Offer:
        offer = self.run.chosen()
        if offer is None:
            raise InputError(
                "there is no run to propose with: paint three to five images, train on them, and come back."
            )
        return offer

    def _current(self) -> str:
        if self.annotator.current is None:
            raise InputError("no image is in view: open a folder, and go to one of its images.")
        return self.annotator.current

    def _source(self, offer: Offer, image: str) -> Any:
        assert self.annotator.root is not None
        dims, shape = offer.choice.dims, self.annotator.labels(image).shape
        images = self._image_layers()
        plane = None
        if len(shape) > dims and self.slices.currentData() == "view" and images:
            plane = plane_in_view(images[0], self.viewer, dims)
        entry = self.annotator.entry(image)
        return image_source(images, self.annotator.root, entry, plane, dims)

    def _image_layers(self) -> list[Any]:
        """Those of the image in view, the lowest first."""
        return [layer for layer in self._annotated() if type(layer).__name__ == "Image"]

    def _labels_layer(self) -> Any | None:
        return next((layer for layer in self._annotated() if type(layer).__name__ == "Labels"), None)

    def _annotated(self) -> list[Any]:
        current = self.annotator.current
        return [
            layer
            for layer in self.viewer.layers
            if current is not None and layer.metadata.get(IMAGE_MARK, {}).get("image") == current
        ]

    def _labels(self) -> NDArray[np.uint8] | None:
        """The labels of the image whose candidates are in view."""
        return self.annotator.labels(self._image) if self.shown is not None else None

    def _candidates(self) -> tuple[Candidate, ...]:
        return () if self.shown is None else self.shown.candidates

    def _settled(self, candidate: Candidate, labels: NDArray[np.uint8] | None) -> bool:
        assert self.shown is not None
        return labels is not None and candidate.is_settled(labels, self.shown.labels)

    # What comes in

    def _on_updated(self, snapshot: Snapshot) -> None:
        """A watched run that goes on has a newer epoch to offer, or has ended."""
        phase = f"{snapshot.state.root} {snapshot.state.status} {snapshot.state.newest}"
        if phase != self._phase and self.isVisible():
            self._phase = phase
            self.search()

    def _on_moved(self, image: str) -> None:
        if image != self._image:
            self._drop()
            self._show()

    def _on_opened(self) -> None:
        if self.annotator.current is None:
            self._made.clear()
            self._drop()
        self.search()
        self._show()

    def _on_changed(self, image: str) -> None:
        """Once it is accepted, all of an image is what the annotator says it is."""
        if self.annotator.entry(image).status in ("done", "reviewed"):
            self._made.pop(image, None)

    def _on_inserted(self, event: Any) -> None:
        """Whether there are slices shows with the image's layers."""
        if IMAGE_MARK in event.value.metadata:
            self._show()

    def _on_saved(self, image: str) -> None:
        if image == self._image:
            self._show_candidates()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Runs may have come or gone while nobody looked."""
        super().showEvent(event)
        self.search()

    def _on_failed(self, sentence: str) -> None:
        self._end = "✖ Failed"
        self._say_fault(sentence)
        self._show()

    def _offer(self, found: list[Offer]) -> None:
        self.run.offer(found)
        self._show()

    # The clock, which stands still while nothing goes on

    def _tick(self) -> None:
        if self._order is not None and self._order.done():
            self._take_started(self._order)
        elif self.prediction is not None:
            self._look(self.prediction)
        elif self._waiting:
            self._waiting.popleft()()
        self._show()
        if not self.busy:
            self._clock.stop()

    def _take_started(self, order: "Future[Prediction]") -> None:
        self._order = None
        try:
            self.prediction = order.result()
        except InputError as error:
            self._end = "✖ Failed"
            self._say_fault(str(error))

    def _look(self, prediction: Prediction) -> None:
        """Once a prediction has ended, make a proposal of it."""
        state = prediction.poll()
        if not state.ended:
            return
        self.prediction = None
        if state.state != "finished":
            self._end = display(state).status
            self._say_fault(state.message)
            return
        image, before = self._image, self.annotator.labels(self._image).copy()
        found, known, last = prediction.result(), self.annotator.classes, self._made.get(image)
        over, spare = self.over.isChecked(), self.spare.isChecked()

        def job(ended: Callable[[], bool]) -> Proposed:
            return propose(found, prediction.run, before, known, last, over=over, spare=spare, ended=ended)

        def take(made: Proposed) -> None:
            self._take(image, before, made, layers(found, prediction.run), found)

        self._jobs.ask("propose", job, take)

    def _take(
        self, image: str, before: NDArray[np.uint8], made: Proposed, heat: list[LayerArguments], found: Any
    ) -> None:
        """Apply a proposal, but where someone has painted since it was asked for."""
        now = self.annotator.labels(image)
        since = now != before
        if made.changed:
            try:
                self._apply(np.where(since, now, made.labels))
            except InputError as error:  # its layer was removed meanwhile
                self._on_failed(str(error))
                return
            self.annotator.propose(
                image,
                self.annotator.labels(image),
                run=made.whence.run,
                checkpoint=made.whence.checkpoint,
                epoch=made.whence.epoch,
                threshold=made.whence.threshold,
            )
            if made.mixed or since.any():
                self.annotator.touched(image)
        self._made.pop(image, None)
        self._made[image] = made
        while len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]
        self.shown, self._at, self._seen = made, None, set()
        self._end = _summary(made)
        self._say_fault(" ".join(made.notes))
        self._take_layers_away()
        for each in heat:
            self._waiting.append(partial(self._add_heat, each))
        kinds: tuple[Kind, ...] = ("doubtful", "missed")
        for kind in kinds:
            if made.of_kind(kind):
                self._waiting.append(partial(self._add_candidates, kind, candidate_layer(made, kind, found)))
        self._clock.start()
        self._show_candidates()
        self._show()

    # The layers

    def _add_heat(self, layer: LayerArguments) -> None:
        """The probability below the labels, hidden: what is to be corrected is the image's."""
        from napari.layers import Image

        labels = self._labels_layer()
        at = self.viewer.layers.index(labels) if labels is not None else len(self.viewer.layers)
        made = Image(layer.data, **{**layer.arguments, "visible": False})
        self._insert(at, made)

    def _add_candidates(self, kind: Kind, layer: LayerArguments) -> None:
        from napari.layers import Labels

        made = Labels(layer.data, **layer.arguments)
        self._insert(len(self.viewer.layers), made)
        made.contour = 2
        made.editable = False

    def _insert(self, at: int, layer: Any) -> None:
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(at, layer)
        self._own[layer.unique_id] = layer
        if active is not None:
            self.viewer.layers.selection.active = active  # who paints goes on painting

    def _take_layers_away(self) -> None:
        # From the top down: vispy 0.17 crashes while drawing when they go from the bottom up.
        for layer in [layer for layer in reversed(self.viewer.layers) if layer.unique_id in self._own]:
            self.viewer.layers.remove(layer)
        self._own.clear()

    def _drop(self) -> None:
        """Let go of the image that was in view: what goes on for it, its candidates and layers."""
        self._image, self.shown, self._at, self._seen, self._end = "", None, None, set(), ""
        self._jobs.drop("propose")
        self._waiting.clear()
        if self._order is not None:
            self._order.add_done_callback(_close_started)
            self._order = None
        if self.prediction is not None:
            self.prediction.close()
            self.prediction = None
        self._take_layers_away()
        folders, self._folders = self._folders, []
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._say_fault("")
        self._show_candidates()

    # Showing

    def _show(self) -> None:
        if self._order is not None:
            shown = Display("Starting…", done=None, can_start=False)
        elif self.prediction is not None:
            shown = display(self.prediction.poll())
        elif self._jobs.has("propose"):
            shown = Display("Making the proposal…", done=None, can_start=False, can_stop=True)
        else:
            shown = Display(self._end, done=0.0)
        _say(self.state, " · ".join(filter(None, (shown.status, shown.time_left))))
        self.state.setVisible(bool(self.state.text()))
        self.bar.setVisible(self.busy and not self._waiting)
        self.bar.setUpdatesEnabled(False)  # else it paints itself at once, and the window around it
        self.bar.setRange(0, 0 if shown.done is None else STEPS)
        self.bar.setValue(0 if shown.done is None else round(shown.done * STEPS))
        self.bar.setUpdatesEnabled(True)
        ready = self.annotator.current is not None and not self.run.looking
        self.begin.setEnabled(ready and not self.busy)
        self.halt.setEnabled(shown.can_stop)
        several = self._has_slices()
        self.slices.setVisible(several)
        self._slices_label.setVisible(several)

    def _has_slices(self) -> bool:
        """Whether the image is a volume and the run one of 2D images."""
        offer = self.run.chosen()
        if self.annotator.current is None or offer is None:
            return False
        images = self._image_layers()
        return bool(images) and images[0].ndim > offer.choice.dims

    def _show_candidates(self) -> None:
        found = self._candidates()
        self.walk.setVisible(self.shown is not None)
        self.reason.setVisible(bool(found))
        if self.shown is None:
            return
        if not found:
            _say(self.count, "no place that is in doubt")
        elif self._at is None:
            _say(self.count, f"{len(found)} to look at")
        else:
            _say(self.count, f"{self._at + 1} of {len(found)} · {self.left or 'none'} left")
        _say(self.reason, _legend(self.shown) if self._at is None else found[self._at].words)

    def _say_fault(self, sentence: str) -> None:
        _say(self.detail, f"⚠ {sentence}" if sentence else "")
        self.detail.setVisible(bool(sentence))


def _summary(made: Proposed) -> str:
    """What a proposal did, in a line."""
    if not made.changed:
        return "✔ Nothing to add: all that the run proposes is labelled so, or painted otherwise"
    share = 100 * made.changed / made.labels.size
    return f"✔ Proposed {share:.3g} % of the pixels, {made.cut.words}"


def _legend(made: Proposed) -> str:
    parts = []
    for kind, (name, colour) in ROLES.items():
        count = len(made.of_kind(kind))
        parts.append(f"<span style='color:{colour}'>■</span> {count} {name}")
    return "&nbsp;&nbsp; ".join(parts)


def _close_started(order: "Future[Prediction]") -> None:
    """End a prediction that has started only after nobody wanted it any more."""
    if not order.cancelled() and order.exception() is None:
        prediction = order.result()
        prediction.close()


def _typed(step: Callable[[int], None], by: int) -> Callable[[Any], None]:
    """For a key. No partial: napari asks each bound function for its name, at every key."""

    def typed(viewer: Any) -> None:
        if not is_typing():
            step(by)

    return typed


def _without(action: Callable[[], None]) -> Callable[..., None]:
    """For signals that say more than an action wants to know."""

    def act(*_: object) -> None:
        action()

    return act


def _call(step: Callable[[int], None], by: int, *_: object) -> None:
    step(by)


def _say(label: QLabel, text: str) -> None:
    # Setting a label's text anew would lay the whole dock out again.
    if label.text() != text:
        label.setText(text)
