"""Which annotated images a threshold is calibrated on: a run's own calibration, or open layers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QWidget

from engine.errors import InputError
from napari_smm.calibrating import (
    Annotated,
    Basis,
    Known,
    Reading,
    RunCalibration,
    annotated,
    countable,
    counting,
    look,
    reading,
)
from napari_smm.candidates import Candidate, candidates, differs, known
from napari_smm.qt.calibration_list import CalibrationList, Chosen
from napari_smm.qt.jobs import Jobs
from napari_smm.qt.threshold_row import GAP, LABELS
from napari_smm.session import Session

RUN, OPEN = range(2)
"""Entries of the combo box."""
OPEN_WORDS = "open layers…"
LOOK, READ, COUNT = "calibration file", "calibration", "calibration curves"
"""Kinds of work."""
LOOK_MILLISECONDS = 2000
"""Time between two looks for a run's calibration, while this is seen."""
SETTLE_MILLISECONDS = 50
"""Stillness of the layer list after which it is looked through."""
REST_MILLISECONDS = 300
"""Stillness after which a truth that was drawn anew is compared with what was read."""


class CalibrationChoice(QWidget):
    """Lets the user choose, and reads what is chosen in a thread.

    Nothing is read of open layers before the user has chosen to calibrate on them. Call :meth:`leave` when
    the owner closes.
    """

    changed = Signal()
    """What is calibrated on is something else, or what is said of it."""

    def __init__(self, viewer: Any, session: Session, jobs: Jobs, parent: QWidget | None = None) -> None:
        """Begin with the calibration of the run that is watched.

        Args:
            viewer: napari's, whose layers may be annotated images.
            session: whose run may have a calibration.
            jobs: of the dock.
            parent: the owner.
        """
        super().__init__(parent)
        self._viewer, self._session, self._jobs = viewer, session, jobs
        self._current: Any | None = None
        self._run = RunCalibration()
        self._looked = False
        self._images: list[Annotated] = []
        self._choice: object = None
        self._reads: Known = {}
        self._doubted: set[tuple[Any, ...]] = set()
        self._basis: Basis | None = None
        self._words = ""
        self._told: tuple[object, ...] = ()
        self._followed: dict[Any, tuple[Any, ...]] = {}
        self._build()
        self._clock = _timer(self, LOOK_MILLISECONDS, self._look)
        self._settle = _timer(self, SETTLE_MILLISECONDS, self._list, once=True)
        self._rest = _timer(self, REST_MILLISECONDS, self._read_again, once=True)
        self._connect()
        self._look()
        self._tell()

    # For the owner

    @property
    def basis(self) -> Basis | None:
        """What is calibrated on; None while nothing is chosen, or it is being read."""
        return self._basis if self._open else self._run.basis

    @property
    def busy(self) -> bool:
        """Whether a basis is being read, and there is none yet."""
        if self._open:
            return self._basis is None and bool(self._jobs.has(READ))
        return self._run.basis is None and not self._looked

    @property
    def words(self) -> str:
        """What is missing or wrong, in a sentence; "" if all is well."""
        said = self._open_words() if self._open else self._run_words()
        return said[:1].upper() + said[1:]

    def set_current(self, layer: Any | None) -> None:
        """Say which layer is thresholded; None is the watched run.

        A prediction's own run counts for more than the one that is watched.
        """
        if layer is not self._current:
            self._current = layer
            self._later()  # others may be preferred
        self._look()
        self._tell()

    def refresh(self) -> None:
        """Look for a run's calibration, and through the layers, once more."""
        self._look()
        if self._open:
            self._list()

    def leave(self) -> None:
        """Let go of viewer, layers and session."""
        for timer in (self._clock, self._settle, self._rest):
            timer.stop()
        self._session.watched.disconnect(self._on_watched)
        events = self._viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removed.disconnect(self._on_removed)
        events.reordered.disconnect(self._later)
        for layer in self._viewer.layers:
            _listed(layer, self._later, connect=False)
        self._follow([])
        for kind in (LOOK, READ, COUNT):
            self._jobs.drop(kind)
        self._current, self._images, self._reads, self._basis = None, [], {}, None
        self.list.show_candidates([], self._prefers)

    # Building

    def _build(self) -> None:
        self.what = QComboBox(self)
        self.what.setObjectName("threshold-calibration")
        self.what.addItems(["", OPEN_WORDS])
        self.what.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.what.setMinimumContentsLength(12)
        self.list = CalibrationList(self)
        self.list.hide()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.addWidget(QLabel("Calibrate", self), 0, 0)
        grid.addWidget(self.what, 0, 1)
        grid.addWidget(self.list, 1, 0, 1, 2)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)

    def _connect(self) -> None:
        self._session.watched.connect(self._on_watched)
        events = self._viewer.layers.events
        events.inserted.connect(self._on_inserted)
        events.removed.connect(self._on_removed)
        events.reordered.connect(self._later)
        for layer in self._viewer.layers:
            _listed(layer, self._later, connect=True)
        self.what.currentIndexChanged.connect(self._on_what)
        self.list.changed.connect(self._take_choice)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Look for a run's calibration from now on."""
        super().showEvent(event)
        self._clock.start()
        self._look()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Look no longer."""
        super().hideEvent(event)
        self._clock.stop()

    # What comes in

    def _on_watched(self, root: Path | None) -> None:
        self._look()
        self._tell()

    def _on_what(self, index: int) -> None:
        self.list.setVisible(self._open)
        if self._open:
            self._choice = None
            self._list()
        else:
            self._follow([])
            self._jobs.drop(READ)
            self._jobs.drop(COUNT)
            self._images, self._reads, self._basis = [], {}, None
        self._tell()

    def _on_inserted(self, event: Any) -> None:
        _listed(event.value, self._later, connect=True)
        self._later()

    def _on_removed(self, event: Any) -> None:
        _listed(event.value, self._later, connect=False)
        if event.value is self._current:
            self._current = None
        self._later()

    def _later(self, event: Any = None) -> None:
        if self._open or self.list.found:
            self._settle.start()

    def _on_drawn(self, event: Any) -> None:
        """A truth was painted on, or only drawn anew, which is all that is told of an undone stroke."""
        self._doubted |= {image.key for image in self._images if image.truth is event.source}
        self._rest.start()

    def _on_data(self, event: Any) -> None:
        self._rest.start()

    # The run's own calibration

    @property
    def _open(self) -> bool:
        return bool(self.what.currentIndex() == OPEN)

    @property
    def _root(self) -> Path | None:
        """The run whose calibration counts."""
        run = known(self._current).get("run") if self._current is not None else None
        return self._session.root if run is None else Path(run)

    def _look(self) -> None:
        root = self._root
        if root != self._run.root:
            self._run, self._looked = RunCalibration(root), False
            self._jobs.drop(LOOK)
        if root is None:
            self._looked = True
        elif not self._jobs.has(LOOK):
            self._jobs.ask(LOOK, partial(look, root, self._run), self._take_look)

    def _take_look(self, found: RunCalibration) -> None:
        self._run, self._looked = found, True
        self._tell()

    def _run_words(self) -> str:
        root = self._run.root
        if self._run.basis is not None or not self._looked:
            return ""
        if root is None:
            return "no run is watched: annotated open layers would work."
        return self._run.words or (
            f"the run {root.name} has no calibration: python -m engine.calibrate {_quoted(root)} --rule cls "
            "makes one, and annotated open layers would work too."
        )

    # Open layers

    def _list(self) -> None:
        """Look through the viewer's layers."""
        self._settle.stop()
        self.list.show_candidates(candidates(self._viewer.layers), self._prefers)
        if self._open:
            self._take_choice()

    def _prefers(self, candidate: Candidate) -> bool | None:
        """Whether a new candidate is ticked: made by what made the current one, with a truth beyond doubt.

        None where that cannot be said yet, as no prediction is current.
        """
        layer, current = candidate.layers[0], self._current
        sure = candidate.sure and candidate.ours
        if current is None or not known(current):
            own = current is None and str(known(layer).get("run")) == str(self._session.root)
            return True if sure and own else None
        return (
            sure and all(other is not current for other in candidate.layers) and not differs(layer, current)
        )

    def _take_choice(self) -> None:
        """Read what is ticked, unless it was before."""
        chosen, planes = self.list.chosen, self.list.planes_are_images
        choice = planes, [(c.key, c.name, truth.unique_id, group) for c, truth, group in chosen]
        if choice == self._choice:
            return
        self._choice, self._basis, self._words = choice, None, ""
        self._doubted |= set(self._reads)  # what was not ticked was not followed
        self._follow(chosen)
        self._read_again()

    def _read_again(self) -> None:
        """Read what is ticked; what was read before counts until then."""
        self._rest.stop()
        planes = self.list.planes_are_images
        self._jobs.drop(READ)
        self._jobs.drop(COUNT)
        try:
            self._images = [
                annotated(one.candidate, one.truth, planes, one.group) for one in self.list.chosen
            ]
        except InputError as error:
            self._images, self._basis, self._words = [], None, str(error)
        if self._images:
            doubted = frozenset(self._doubted)
            job = partial(reading, self._images, self._reads, doubted)
            self._jobs.ask(READ, job, partial(self._take_reading, doubted))
        self._tell()

    def _take_reading(self, doubted: frozenset[tuple[Any, ...]], found: Reading) -> None:
        self._doubted -= doubted
        known_all = all(self._reads.get(key) is one for key, one in found.reads.items())
        if self._basis is None or found.words or not known_all:
            self._take(found)
        basis = self._basis
        if basis is not None and not basis.curves and countable(self._images):
            self._jobs.ask(COUNT, partial(counting, self._images, self._reads), self._take)
        self._tell()

    def _take(self, found: Reading) -> None:
        self._reads = found.reads or self._reads
        self._basis, self._words = found.basis, found.words
        self._tell()

    def _open_words(self) -> str:
        if self._words or self._basis is not None:
            return self._words
        if self._jobs.has(READ):
            return "the images are being read…"
        if not any(candidate.usable for candidate in self.list.found):
            return (
                "no annotated prediction is open: a layer of probabilities with a Labels layer of the same "
                "shape, of an image that was not trained on, would work."
            )
        return "no image is ticked: those that are annotated and were not trained on would work."

    # Saying

    def _tell(self) -> None:
        """Show what is found, and say if it is something else."""
        text, tip = self._entry()
        if self.what.itemText(RUN) != text:
            self.what.setItemText(RUN, text)
        self.what.setToolTip(tip)
        state = self.basis, self.busy, self.words
        if self._told != state:
            self._told = state
            self.changed.emit()

    def _entry(self) -> tuple[str, str]:
        """What the run's entry says, and its explanation."""
        root, found = self._run.root, self._run.basis
        if root is None:
            return "no run", "Watch a run that was calibrated, or choose open layers"
        if found is None:
            return f"{root.name}: {'no calibration' if self._looked else '…'}", str(root)
        count, groups = len(found.lesions.names), len(set(found.lesions.groups))
        units = f", {groups} groups" if found.unit == "group" else ""
        tip = "\n".join([str(root), found.source[:1].upper() + found.source[1:], *found.notes])
        return f"the run's calibration ({count} image{'s' * (count != 1)}{units})", tip

    # Following layers

    def _follow(self, chosen: Sequence[Chosen]) -> None:
        """Hear of what happens to the layers that are chosen."""
        wanted: dict[Any, tuple[Any, ...]] = {}
        for one in chosen:
            events = one.truth.events
            wanted[one.truth] = (events.data, events.labels_update, events.paint, events.set_data)
            wanted |= {layer: (layer.events.data,) for layer in one.candidate.layers}
        for old, new, connect in ((self._followed, wanted, False), (wanted, self._followed, True)):
            for layer in [layer for layer in old if layer not in new]:
                hear = self._on_data if len(old[layer]) == 1 else self._on_drawn
                for emitter in old[layer]:
                    (emitter.connect if connect else emitter.disconnect)(hear)
        self._followed = wanted


def _listed(layer: Any, hear: Any, *, connect: bool) -> None:
    """Hear of another name or other data of a layer, or no longer."""
    for emitter in (layer.events.name, layer.events.data):
        (emitter.connect if connect else emitter.disconnect)(hear)


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def _timer(parent: QObject, milliseconds: int, call: Any, *, once: bool = False) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(once)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer
