"""The rule that T comes from: by hand, with a guarantee, or what was best on annotated images."""

from functools import partial
from typing import Any, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPalette, QStandardItemModel
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from engine.spec import Part
from engine.thresholds_file import RULES
from napari_smm.calibrating import Basis
from napari_smm.promising import Answer, State
from napari_smm.qt.attainable_plot import AttainablePlot
from napari_smm.qt.calibration_choice import CalibrationChoice
from napari_smm.qt.calibration_list import MOST_ROWS
from napari_smm.qt.fields import limits_of
from napari_smm.qt.jobs import Jobs
from napari_smm.qt.scrolling_page import ScrollingPage
from napari_smm.qt.share_row import ShareRow
from napari_smm.qt.threshold_row import GAP, LABELS
from napari_smm.session import Session
from napari_smm.sheet import Sheet

BY_HAND = "By hand"
HEADINGS = {True: "With a guarantee", False: "No guarantee, best on annotated images"}
SIGNS: dict[State, str] = {"promise": "✓", "short": "⚠", "refused": "⚠"}
"""In front of the words, so that a promise is not told by colour alone."""
BEFOREHAND = (
    "A promise is about ε, α and δ that were fixed beforehand. Whoever moves them until the masks please\n"
    "has used up the calibration images for that choice, and needs new ones for the promise."
)
FEW_ROWS = 3
"""Of the list of annotated images, where classes have rows of their own."""
SNAP = 2
"""Decimals of what is picked in the plot."""


class RulePanel(QWidget):
    """Lets the user choose a rule, its settings, and the annotated images that it is asked about.

    It shows what it is told of the answer. Settings of the same meaning are the same in all rules, and
    stay when another rule is chosen. Call :meth:`leave` when the owner closes.
    """

    changed = Signal()
    """Another rule, setting or set of annotated images is chosen."""

    def __init__(self, viewer: Any, session: Session, jobs: Jobs, parent: QWidget | None = None) -> None:
        """Begin by hand, with the rules' defaults.

        Args:
            viewer: napari's, whose layers can be annotated images.
            session: whose run can have a calibration.
            jobs: of the dock.
            parent: the owner.
        """
        super().__init__(parent)
        self._values: dict[tuple[str, str], float] = {}
        self._chosen = 0
        self._several = False
        self.choice = self._build_choice()
        self.details = QWidget()
        grid = QGridLayout(self.details)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)
        self.rows = self._build_rows(grid)
        self.all_classes = QCheckBox("One T and promise for all classes", self.details)
        self.all_classes.setObjectName("threshold-together")
        self.all_classes.setToolTip("An image keeps the promise where it does for every class that it has")
        grid.addWidget(self.all_classes, len(self.rows), 1, 1, 2)
        self.calibration = CalibrationChoice(viewer, session, jobs, self.details)
        self.promise = QLabel(self.details)
        self.promise.setObjectName("threshold-promise")
        self.promise.setTextFormat(Qt.TextFormat.PlainText)
        self.promise.setWordWrap(True)
        self.promise.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.promise.setToolTip(BEFOREHAND)
        self.plot = AttainablePlot(self.details)
        for number, widget in enumerate((self.calibration, self.promise, self.plot), len(self.rows) + 1):
            grid.addWidget(widget, number, 0, 1, 3)
        head = QGridLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.addWidget(QLabel("Rule", self), 0, 0)
        head.addWidget(self.choice, 0, 1)
        head.setHorizontalSpacing(GAP)
        head.setColumnMinimumWidth(0, LABELS)
        head.setColumnStretch(1, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(head)
        self.page = ScrollingPage(self.details)
        column.addWidget(self.page)
        self.show_answer(None)
        self._turn()
        self.choice.currentIndexChanged.connect(self._on_choice)
        self.all_classes.toggled.connect(self._on_changed)
        self.calibration.changed.connect(self._on_changed)
        self.plot.picked.connect(self._on_picked)

    # What is chosen

    @property
    def rule(self) -> Part | None:
        """The rule with its settings; None by hand."""
        spec = self._spec
        return None if spec is None else spec(**{name: self.rows[name].value for name in _shares(spec)})

    @property
    def together(self) -> bool:
        """Whether one T is for all classes at once."""
        return not self.all_classes.isHidden() and bool(self.all_classes.isChecked())

    @property
    def basis(self) -> Basis | None:
        """The annotated images, once they are known."""
        found: Basis | None = self.calibration.basis
        return found

    def choose(self, name: str) -> None:
        """Choose a rule by its name; "" is by hand."""
        self.choice.setCurrentIndex(self.choice.findData(name))

    def leave(self) -> None:
        """Let go of viewer and session."""
        self.calibration.leave()

    # What is shown

    def show_classes(self, count: int) -> None:
        """Say how many classes there are."""
        if self._several != (count > 1):
            self._several = count > 1
            self.calibration.list.set_most_rows(FEW_ROWS if self._several else MOST_ROWS)
            self._turn()

    def show_answer(self, answer: Answer | None) -> None:
        """Show what the rule says; nothing for None."""
        self.promise.setVisible(answer is not None)
        self.plot.show_attainable(None if answer is None else answer.attainable)
        if answer is None:
            self.promise.clear()
            return
        text = "\n".join([f"{SIGNS.get(answer.state, '')} {answer.words}".strip(), *answer.notes])
        if self.promise.text() != text:
            self.promise.setText(text)
        style = _border(answer.state, self.palette().color(QPalette.ColorRole.Window).name())
        if self.promise.styleSheet() != style:
            self.promise.setStyleSheet(style)

    # Building

    def _build_choice(self) -> QComboBox:
        box = QComboBox(self)
        box.setObjectName("threshold-rule")
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(12)
        _add(box, BY_HAND, "", "T is moved with its slider, number, keys or the plot")
        for guarantees, heading in HEADINGS.items():
            box.insertSeparator(box.count())
            box.addItem(heading)
            item = cast(QStandardItemModel, box.model()).item(box.count() - 1)
            if item is not None:
                item.setFlags(Qt.ItemFlag.NoItemFlags)  # said, but not to be chosen
            for name, spec in RULES.items():
                if _guarantees(spec) == guarantees:
                    _add(box, spec.title, name, _help(spec))  # type: ignore[attr-defined]
        return box

    def _build_rows(self, grid: QGridLayout) -> dict[str, ShareRow]:
        """A row for each setting that any rule has."""
        rows: dict[str, ShareRow] = {}
        for spec in RULES.values():
            for name in _shares(spec):
                if name not in rows:
                    limits = limits_of(spec.model_fields[name].metadata)
                    ends = (limits.ge or 0.0, 1.0 if limits.le is None else limits.le)
                    row = ShareRow(grid, len(rows), f"threshold-{name}", ends, self.details)
                    row.moved.connect(partial(self._on_moved, name))
                    rows[name] = row
        return rows

    # What comes in

    @property
    def _spec(self) -> type[Part] | None:
        return RULES.get(str(self.choice.currentData()))

    def _on_choice(self, index: int) -> None:
        if self.choice.itemData(index) is None:  # a heading
            self.choice.setCurrentIndex(self._chosen)
            return
        if index != self._chosen:
            self._chosen = index
            self._turn()
            self.changed.emit()

    def _on_moved(self, name: str, value: float) -> None:
        self._values[self._meaning(name)] = value
        self._on_changed()

    def _on_changed(self, *_: object) -> None:
        if self._spec is not None:
            self.changed.emit()

    def _on_picked(self, x: float, y: float) -> None:
        """The point was taken elsewhere."""
        spec = self._spec
        if spec is None:
            return
        before = self.rule
        for name, place in (("epsilon", x), ("alpha", y)):
            if name in _shares(spec):
                value = round(place, SNAP)
                self.rows[name].show_value(value)
                self._values[self._meaning(name)] = value
        if self.rule != before:
            self.changed.emit()

    def _turn(self) -> None:
        """Show the rows of the chosen rule, with what was set for it."""
        spec = self._spec
        self.page.setVisible(spec is not None)
        self.choice.setToolTip(self.choice.itemData(self._chosen, Qt.ItemDataRole.ToolTipRole))
        self.all_classes.setVisible(spec is not None and _guarantees(spec) and self._several)
        for name, row in self.rows.items():
            label, words = self._meaning(name)
            field = self._owner(name).model_fields[name]
            row.set_label(label, words)
            row.show_value(self._values.get((label, words), float(field.default)))
            row.set_visible(spec is not None and name in _shares(spec))

    def _owner(self, name: str) -> type[Part]:
        """The chosen rule, or the first that has a setting."""
        spec = self._spec
        having = [spec] if spec is not None else []
        return next(each for each in [*having, *RULES.values()] if name in each.model_fields)

    def _meaning(self, name: str) -> tuple[str, str]:
        """Label and help of a setting, from the field's docstring: "α: share of …"."""
        words = str(self._owner(name).model_fields[name].description)
        label, colon, rest = words.partition(": ")
        return (label, rest[:1].upper() + rest[1:]) if colon else (name.capitalize(), words)


def _shares(spec: type[Part]) -> list[str]:
    """Names of a rule's settings, all of which are shares from 0 to 1."""
    return [name for name in spec.model_fields if name != "name"]


def _guarantees(spec: type[Part]) -> bool:
    return bool(spec.guarantees)  # type: ignore[attr-defined]


def _help(spec: type[Part]) -> str:
    return " ".join(str(spec.__doc__).split())


def _add(box: QComboBox, text: str, name: str, help_text: str) -> None:
    box.addItem(text, name)
    box.setItemData(box.count() - 1, help_text, Qt.ItemDataRole.ToolTipRole)


def _border(state: State, ground: str) -> str:
    """A line at the left of the words, in the colour of a promise or of a warning."""
    sheet = Sheet.on(ground)
    shown = {"promise": sheet.measured, "short": sheet.added, "refused": sheet.added}
    if state not in shown:
        return ""
    return f"QLabel {{ border-left: 3px solid {shown[state]}; padding-left: 7px; }}"
