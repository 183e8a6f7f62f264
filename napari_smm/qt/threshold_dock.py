"""The Threshold dock: T by hand or by a rule, what it does to masks and rates, and what is in view."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from engine.errors import InputError
from engine.figures import colours
from engine.spec import Part
from engine.thresholds import Curve, Rates, Skipped, mean_rates, pooled, precision_recall, rates
from engine.thresholds.specs import Guarantee
from napari_smm import decisions, readout
from napari_smm.calibrating import Basis
from napari_smm.decisions import Named
from napari_smm.layers import MARK, Role, View
from napari_smm.placement import full_shape
from napari_smm.promising import NOTHING, WAITING, Answer, Thresholded, answer
from napari_smm.qt import keys
from napari_smm.qt.dock import Dock
from napari_smm.qt.jobs import Jobs
from napari_smm.qt.layer_combo import LayerCombo
from napari_smm.qt.navigation import Navigation
from napari_smm.qt.outline_sync import OutlineSync
from napari_smm.qt.overlay_list import OverlayList
from napari_smm.qt.plot import PrecisionRecallPlot
from napari_smm.qt.rule_panel import RulePanel
from napari_smm.qt.scrolling_page import ScrollingPage
from napari_smm.qt.section import Section
from napari_smm.qt.threshold_row import GAP, LABELS, ThresholdRow
from napari_smm.qt.threshold_source import Kept, LayerSource, LiveSource, ThresholdSource
from napari_smm.readout import Subject
from napari_smm.targets import Target

NO_RUN = "no run is watched"
NO_TRUTH = "none"
OWN_TRUTH = "the run's own"
AT_ONCE = 64
"""Images whose mean is computed with each move of T; that of more is computed when a thread has time."""
Mean = tuple[Rates, Skipped]
BY_HAND = ""
"""Name of the rule that is none."""
RULE = "rule"
"""Of the work of asking one."""
FORMATS = ((".png", "as PNG…"), (".tif", "as TIFF…"), (".nii.gz", "as NIfTI…"), (".nrrd", "as NRRD…"))


@dataclass(frozen=True, eq=False)
class Asked:
    """What a rule was asked: of the basis only itself is the same."""

    rule: Part
    basis: Basis | None
    on: Thresholded
    together: bool
    busy: bool
    why: str

    def same(self, other: "Asked | None") -> bool:
        """Whether the answer to another question would be this one's."""
        return other is not None and self.basis is other.basis and self._rest == other._rest

    def answer(self) -> Answer:
        """What the rule says."""
        return answer(self.rule, self.basis, self.on, together=self.together, busy=self.busy, why=self.why)

    @property
    def quick(self) -> bool:
        """Whether it can be answered while the hand moves. Counts of whole images take longer."""
        return isinstance(self.rule, Guarantee) or self.basis is None or not self.basis.curves

    @property
    def _rest(self) -> tuple[object, ...]:
        return self.rule, self.on, self.together, self.busy, self.why


class ThresholdDock(Dock):
    """Moves T on the watched run's probabilities, or on any probability layer."""

    def __init__(self, napari_viewer: Any) -> None:
        """Build the dock for a viewer."""
        super().__init__(napari_viewer)
        self.setObjectName("threshold-dock")
        self._thresholds: dict[tuple[Any, int], float] = {}
        self._plotted: object = None
        self._ruled = False
        self._asked: Asked | None = None
        self._answer: Answer | None = None
        self._mean: Mean | None = None
        self._mean_due: tuple[object, float] = (None, 0.0)
        self._jobs = Jobs(self.session, self)
        self._outline = OutlineSync(self.viewer, self._jobs, self)
        self._live = LiveSource(self.workbench, self)
        self._source: ThresholdSource = self._live
        self._build()
        self._connect()
        self._keys = keys.BoundKeys(self.viewer, self)
        self._name_run()
        self._choose()

    # For others, and for the keys

    @property
    def threshold(self) -> float:
        """T of the class in view, of what is chosen."""
        return self._source.threshold

    def set_threshold(self, threshold: float) -> None:
        """Move T of the class in view, of what is chosen, by hand: no rule holds any more."""
        self._source.set_threshold(threshold)
        self.rules.choose(BY_HAND)

    def choose_probability(self, layer: Any | None, truth: Any | None = None) -> None:
        """Move T on a layer of probabilities, with a Labels layer as its truth; None is the watched run."""
        self.probability.choose(layer)
        if layer is not None:
            self.truth.choose(truth)

    def step_threshold(self, step: float) -> None:
        """Move T by a step."""
        if self.row.slider.isEnabled():
            self.set_threshold(round(min(self.threshold, 1.0) + step, 6))

    def step_item(self, step: int) -> None:
        """Go to another watched image."""
        self.session.step_item(step)

    def step_epoch(self, step: int) -> None:
        """Go to a later or earlier epoch."""
        self.session.step_epoch(step)

    def toggle_follow(self) -> None:
        """Follow the newest epoch, or stay at the one in view."""
        self.navigation.set_follow(not self.session.view.follow)

    def toggle(self, role: Role) -> None:
        """Show or hide a layer."""
        self.overlays.toggle(role)

    def keep(self) -> None:
        """Add an editable Labels layer of the decision for what is in view."""
        job = self._source.keep_job()
        if job is not None:
            self._jobs.ask("keep", job, self._add_labels)

    def save_into(self, folder: Path, ending: str = ".png") -> None:
        """Write all masks of what is chosen into a folder; asks before it replaces any.

        What is promised of several classes is promised of each class's own mask: then those are written, too.
        """
        classes = len(self._source.classes)
        named = self._source.masks(own=classes > 1 and self._answer is not None and self._answer.guaranteed)
        if named:
            self._say("Saving…", wrong=False)
            write = partial(self._write, folder, named, classes, ending)
            self._jobs.ask("save", partial(decisions.taken, folder, named, ending), write)

    def leave(self) -> None:
        """Undo the connections. Layers of another target than a run go with the dock."""
        self._keys.close()
        self.session.watched.disconnect(self._on_watched)
        self.session.viewed.disconnect(self._on_viewed)
        self.viewer.layers.events.inserted.disconnect(self._on_layers)
        self.viewer.layers.events.removed.disconnect(self._on_layers)
        self._outline.close()
        if self._source is not self._live:
            self._source.close()
        self._live.close()
        self.rules.leave()
        self._jobs.close()
        self.navigation.leave()
        self.overlays.leave()
        self.probability.leave()
        self.truth.leave()

    # Building

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(4)
        column.addLayout(self._sources())
        self.navigation = Navigation(self.session, self)
        column.addWidget(self.navigation)
        self.row = ThresholdRow(self)
        column.addWidget(self.row)
        self.rules = RulePanel(self.viewer, self.session, self._jobs, self)
        column.addWidget(self.rules)
        self.readout = QLabel(self)
        self.readout.setObjectName("threshold-readout")
        self.readout.setTextFormat(Qt.TextFormat.RichText)
        self.readout.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.readout.setToolTip(readout.help_text())
        self.readout.setWordWrap(True)
        column.addWidget(self.readout)
        self.curves = Section("Precision and recall", self._curves(), parent=self)
        self.curves.set_open(True)
        column.addWidget(self.curves, 1)
        self.overlays = OverlayList(keys.TOGGLED, self)
        self.legend = Section("Layers and colours", self.overlays, parent=self)
        self.legend.set_open(True)
        column.addWidget(self.legend)
        self._opened = {self.curves: False, self.legend: False}
        column.addLayout(self._actions())
        self.message = QLabel(self)
        self.message.setObjectName("threshold-message")
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.hide()
        column.addWidget(self.message)
        self.keys = Section("Keys", ScrollingPage(self._keys_page()), parent=self)
        column.addWidget(self.keys)
        column.addStretch(0)

    def _sources(self) -> QGridLayout:
        self.probability = LayerCombo(self.viewer, _may_be_probability, NO_RUN, self, none=True)
        self.probability.setObjectName("threshold-probability")
        self.probability.setToolTip("What T is moved on: the watched run, or a layer of probabilities")
        self.truth = LayerCombo(self.viewer, self._may_be_truth, OWN_TRUTH, self, none=True)
        self.truth.setObjectName("threshold-truth")
        self.truth.setToolTip("A Labels layer of the same shape that says what is right")
        grid = QGridLayout()
        grid.setVerticalSpacing(3)
        grid.addWidget(QLabel("Probability", self), 0, 0)
        grid.addWidget(self.probability, 0, 1)
        grid.addWidget(QLabel("Truth", self), 1, 0)
        grid.addWidget(self.truth, 1, 1)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)
        return grid

    def _curves(self) -> QWidget:
        page = QWidget(self)
        self.curve_of = QComboBox(page)
        self.curve_of.setObjectName("threshold-curve-of")
        self.curve_of.setToolTip("Whose precision and recall are drawn; those of a set are of all its pixels")
        self.plot = PrecisionRecallPlot(page)
        self.plot.setMinimumHeight(92)
        self.plot.setMaximumHeight(220)
        grid = QGridLayout(page)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.addWidget(QLabel("Of", page), 0, 0)
        grid.addWidget(self.curve_of, 0, 1)
        grid.addWidget(self.plot, 1, 0, 1, 2)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)
        return page

    def _actions(self) -> QHBoxLayout:
        self.keep_button = QPushButton("Keep as Labels", self)
        self.keep_button.setObjectName("threshold-keep")
        self.keep_button.setToolTip("An editable layer of the decision p ≥ T in what is in view")
        self.save_button = QPushButton("Save masks", self)
        self.save_button.setObjectName("threshold-save")
        self.save_button.setToolTip("Write the masks of all images or planes: 0 and 255, or 0 … C")
        menu = QMenu(self.save_button)
        for ending, words in FORMATS:
            menu.addAction(words).triggered.connect(partial(self._ask_folder, ending))
        self.save_button.setMenu(menu)
        row = QHBoxLayout()
        for button in (self.keep_button, self.save_button):
            button.setAutoDefault(False)
            row.addWidget(button, 1)
        return row

    def _keys_page(self) -> QWidget:
        page = QLabel(self)
        rows = [f"<td><b>{keys.readable(k.key)}</b>&nbsp;&nbsp;</td><td>{k.words}</td>" for k in keys.KEYS]
        page.setText(f"<table cellspacing='0'>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
        return page

    def _connect(self) -> None:
        self.session.watched.connect(self._on_watched)
        self.session.viewed.connect(self._on_viewed)
        self.viewer.layers.events.inserted.connect(self._on_layers)
        self.viewer.layers.events.removed.connect(self._on_layers)
        self._jobs.failed.connect(self._say)
        self._live.changed.connect(self._on_live)
        self._outline.dismissed.connect(self._want_no_outline)
        self.overlays.outline_wanted.connect(self._want_outline)
        self.probability.chosen.connect(self._choose)
        self.truth.chosen.connect(self._choose_truth)
        self.row.moved.connect(self.set_threshold)
        self.rules.changed.connect(self._on_rule)
        self.row.class_chosen.connect(self._choose_class)
        self.curve_of.activated.connect(self._show)
        self.plot.threshold_picked.connect(self.set_threshold)
        self.keep_button.clicked.connect(self.keep)

    # What comes in

    def _on_watched(self, root: Path | None) -> None:
        self._name_run()
        self._show_outline()
        self._on_layers()

    def _on_viewed(self, view: View) -> None:
        self._show_outline()

    def _on_live(self) -> None:
        if self._source is self._live:
            self._show()

    def _on_layers(self, event: Any = None) -> None:
        self.overlays.look()

    def _name_run(self) -> None:
        root = self.session.root
        self.probability.say_empty(NO_RUN if root is None else f"live: {root.name}")

    # The rule

    def _on_rule(self) -> None:
        ruled = self.rules.rule is not None
        if ruled != self._ruled:
            # What a rule says takes the room of what lies below it, unless the user wants it otherwise.
            self._ruled = ruled
            for section, opened in self._opened.items():
                self._opened[section] = section.is_open()
                section.set_open(opened)
        self._show()

    def _follow_rule(self) -> bool:
        """Let T be what the rule says of what is in view. Returns whether T moved.

        A T that something else has moved since ends the rule: it would not be the rule's own.
        """
        asked = self._question()
        if asked is None:
            self._jobs.drop(RULE)
            self._asked = self._answer = None
            self.rules.show_answer(None if self.rules.rule is None else NOTHING)
            return False
        if asked.same(self._asked):
            if self._answer is not None and not self._follows(self._answer):
                self.rules.choose(BY_HAND)
            return False
        before, self._asked, self._answer = self._answer, asked, None
        if asked.quick:
            self._jobs.drop(RULE)
            return self._take_answer(asked.answer())
        if before is None or before.state != "wish":
            self.rules.show_answer(WAITING)  # no promise stays that another rule had made
        self._jobs.ask(RULE, lambda ended: asked.answer(), self._on_answer)
        return False

    def _on_answer(self, found: Answer) -> None:
        """What a rule says that takes its time."""
        self._take_answer(found)

    def _question(self) -> Asked | None:
        """What the chosen rule is to be asked; None by hand, and where nothing is in view."""
        on = self._source.thresholded() if self._chosen else None
        self.rules.show_classes(0 if on is None else len(on.classes))
        rule, choice = self.rules.rule, self.rules.calibration
        if rule is None or on is None:
            return None
        return Asked(rule, choice.basis, on, self.rules.together, choice.busy, choice.words)

    def _take_answer(self, found: Answer) -> bool:
        """Show what the rule says, and move T there. Returns whether it moved."""
        assert self._asked is not None
        self._answer = found
        self.rules.show_answer(found)
        if self._follows(found):
            return False
        self._source.set_thresholds(found.thresholds)
        return True

    def _follows(self, found: Answer) -> bool:
        """Whether T of each class is what the rule says."""
        return all(self._source.threshold_of(cls) == each for cls, each in found.thresholds.items())

    # Which probabilities

    def _choose(self, _: object = None) -> None:
        """Another layer of probabilities, or the watched run, was chosen."""
        layer = self.probability.layer()
        self.truth.say_empty(OWN_TRUTH if layer is None else NO_TRUTH)
        self.truth.blockSignals(True)
        self.truth.refill()
        self.truth.blockSignals(False)
        self.truth.setEnabled(layer is not None)
        self._take_source()

    def _choose_truth(self, _: object = None) -> None:
        if self.probability.layer() is not None:
            self._take_source()

    def _take_source(self) -> None:
        self._outline.follow(None)  # it lies above the source's layers, and goes first
        if self._source is not self._live:
            self._source.close()
            self._source.deleteLater()
        self._say("")
        self._source = self._live
        layer = self.probability.layer()
        if layer is not None:
            self._source = self._layer_source(layer) or self._live
        self.navigation.setVisible(layer is None)
        self.rules.calibration.set_current(layer)
        self._plotted = None
        self.overlays.follow(self._find)
        self._outline.follow(None if layer is not None and self._source is self._live else self._source)
        self._show()

    def _layer_source(self, layer: Any) -> LayerSource | None:
        try:
            source = LayerSource(self.viewer, self._jobs, layer, self.truth.layer(), self._thresholds, self)
        except InputError as error:
            self._say(str(error))
            return None
        source.changed.connect(self._show)
        source.shown.connect(self._on_layers)
        source.refused.connect(self._refuse)
        return source

    def _refuse(self, reason: str) -> None:
        """The chosen layer turned out to hold no probabilities."""
        self._outline.follow(None)
        self._source.close()
        self._source.deleteLater()
        self._source = self._live
        self.overlays.follow(self._find)
        self._show()
        self._say(reason)

    @property
    def _chosen(self) -> bool:
        """Whether the source is what is chosen: a layer that cannot be used is none."""
        return (self.probability.layer() is None) == (self._source is self._live)

    def _find(self, role: Role) -> Any | None:
        return self._source.layer(role) if self._chosen else None

    def _may_be_truth(self, layer: Any) -> bool:
        chosen = self.probability.layer()
        if chosen is None or not isinstance(layer, Labels) or MARK in layer.metadata:
            return False
        try:
            return full_shape(layer) == Target.of_layers(chosen, None).shape
        except InputError:
            return False

    def _choose_class(self, cls: int) -> None:
        source = self._source
        if not isinstance(source, LayerSource):
            self.session.set_view(cls=cls)
        elif len(source.siblings) > 1:
            truth = self.truth.layer()
            self.probability.choose(source.siblings[cls])
            self.truth.choose(truth)
        else:
            source.set_class(cls)

    def _want_outline(self, wanted: bool) -> None:
        self.session.set_view(outline=wanted)

    def _want_no_outline(self) -> None:
        self.session.set_view(outline=False)

    # Keeping and saving

    def _add_labels(self, found: Kept) -> None:
        labels, place, name = found
        self.viewer.add_labels(labels, name=name, **place)

    def _ask_folder(self, ending: str, *_: object) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Write masks into")
        if folder:
            self.save_into(Path(folder), ending)

    def _write(self, folder: Path, named: Named, classes: int, ending: str, taken: list[Path]) -> None:
        if taken and not self._may_replace(taken):
            self._say("")
            return
        spaces = self._source.spaces(named)
        job = partial(decisions.save, folder, named, classes, ending, bool(taken), spaces)
        self._jobs.ask("save", job, partial(self._saved, folder))

    def _may_replace(self, taken: list[Path]) -> bool:
        words = f"{taken[0].name} is" if len(taken) == 1 else f"{len(taken)} of the masks are"
        question = f"{words} in {taken[0].parent} already. Replace?"
        answer = QMessageBox.question(self, "Replace masks", question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _saved(self, folder: Path, written: list[Path]) -> None:
        count = len(written)
        self._say(f"{count} mask{'s' * (count != 1)} written into {folder}.", wrong=False)

    # Showing

    def _say(self, sentence: str, *, wrong: bool = True) -> None:
        self.message.setText(f"⚠ {sentence}" if sentence and wrong else sentence)
        self.message.setVisible(bool(sentence))

    def _show(self, _: object = None) -> None:
        if self._follow_rule():
            return  # T moved, and with it all was shown
        source = self._source
        ready = self._chosen and source.ready
        self.row.show_classes(source.classes if self._chosen else (), source.cls)
        self.row.show_threshold(source.threshold)
        self.row.set_ready(ready)
        for button in (self.keep_button, self.save_button):
            button.setEnabled(ready)
        self.overlays.show_class(source.colour)
        self.legend.set_legend(_legend(source.colour))
        self._show_outline()
        subject = source.subject() if self._chosen else Subject(None, ())
        self._show_rates(subject, source.threshold)
        self._show_curve(subject, source.threshold)

    def _show_outline(self) -> None:
        wanted = self.session.view.outline
        self._outline.want(wanted)
        self._outline.look()
        self.overlays.show_outline(wanted, self._chosen and self._source.ready)

    def _show_rates(self, subject: Subject, threshold: float) -> None:
        several = subject.several or ()
        mean = None
        if len(several) > AT_ONCE:
            mean = self._mean_of(several, threshold)
            if mean is None:
                subject = replace(subject, several=None)
        text = readout.table(subject, threshold, readout.columns(subject, threshold, mean))
        if self.readout.text() != text:
            self.readout.setText(text)

    def _mean_of(self, several: tuple[Curve, ...], threshold: float) -> Mean | None:
        """The mean over many images, once a thread has computed it."""
        if self._mean_due[0] is not several or self._mean_due[1] != threshold:
            self._mean_due, self._mean = (several, threshold), None
            self._jobs.ask("mean", lambda ended: mean_rates(several, threshold), self._take_mean)
        return self._mean

    def _take_mean(self, found: Mean) -> None:
        self._mean = found
        self._show()

    def _show_curve(self, subject: Subject, threshold: float) -> None:
        several = subject.several or ()
        names = [subject.title]
        if 1 < len(several) <= AT_ONCE:
            names.append(f"{subject.set_title}, all pixels")
        if [self.curve_of.itemText(at) for at in range(self.curve_of.count())] != names:
            index = min(self.curve_of.currentIndex(), len(names) - 1)
            self.curve_of.clear()
            self.curve_of.addItems(names)
            self.curve_of.setCurrentIndex(max(index, 0))
        curves = list(several) if self.curve_of.currentIndex() == 1 else [subject.shown]
        known = [curve for curve in curves if curve is not None and subject.truth]
        for widget in (self.curves, self.plot):
            widget.setVisible(subject.truth)
        # The curves themselves are kept, as an identity may be given to another one once they are gone.
        plotted = self._plotted if isinstance(self._plotted, list) else []
        if len(plotted) != len(known) or any(a is not b for a, b in zip(plotted, known, strict=True)):
            found, precision, recall, _ = precision_recall(known) if known else np.empty((4, 0))
            self.plot.set_curve(precision, recall, found)
        self._plotted = known
        total = rates(pooled(known, threshold))
        self.plot.set_point(total.recall, total.precision)


def _legend(cls: int) -> list[tuple[str, str]]:
    """What the colours mean by which a threshold is judged."""
    predicted = (colours.class_colour(cls), "predicted")
    return [(colours.MISSED, "missed"), (colours.FALSE_ALARM, "false alarm"), predicted]


def _may_be_probability(layer: Any) -> bool:
    """Whether a layer is offered; what is wrong with one is said when it is chosen."""
    meaning = layer.metadata.get(MARK, {})
    ours = bool(meaning) and ("target" in meaning or meaning.get("kind") != "prediction")
    return isinstance(layer, Image) and not layer.rgb and not ours
