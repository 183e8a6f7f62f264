"""The annotated open layers that a threshold can be calibrated on, to be ticked, each with its truth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_smm.candidates import Candidate, clash
from napari_smm.qt.threshold_row import GAP, LABELS

IMAGE, TRUTH, GROUP = range(3)
"""Columns."""
HEADS = ("Image", "Truth", "Group")
ROW = 24
"""Pixels of a row's height."""
MOST_ROWS = 5
"""Rows that are seen at once; more are scrolled."""
GROUP_WIDTH = 64
"""Pixels of the groups' column."""
SMALL = "QPushButton { padding: 1px 6px; }"
WHOLE, PLANES = "one volume", "separate images"
HINT = (
    "Annotated open layers that may be calibrated on. They must be new to the network: not trained on, and "
    "not used to choose its checkpoint."
)

Preference = Callable[[Candidate], bool | None]
"""Whether to tick a candidate; None where it cannot be said yet."""


class Chosen(NamedTuple):
    """A candidate that is ticked, its truth, and the group that it belongs to, "" for none."""

    candidate: Candidate
    truth: Any
    group: str


class CalibrationList(QWidget):
    """Shows the candidates that it is told of, and keeps what the user chose of them."""

    changed = Signal()
    """Others are ticked, or with another truth or group; or stacks are something else."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Show nothing."""
        super().__init__(parent)
        self._found: list[Candidate] = []
        self._most_rows = MOST_ROWS
        self._rows: list[object] = []
        self._ticks: dict[Any, bool] = {}
        self._truths: dict[Any, Any] = {}
        self._groups: dict[Any, str] = {}
        self._prefer: Preference = lambda candidate: None
        self.tree = self._build_tree()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.tree)
        column.addLayout(self._build_buttons())
        column.addLayout(self._build_stack())

    # What is chosen

    @property
    def found(self) -> list[Candidate]:
        """What is shown."""
        return self._found

    @property
    def chosen(self) -> list[Chosen]:
        """What is ticked, in the order of the list."""
        return [
            Chosen(candidate, self._truth(candidate), self._groups.get(candidate.key, ""))
            for candidate in self._found
            if self._ticked(candidate)
        ]

    @property
    def planes_are_images(self) -> bool:
        """Whether each plane of a stack is an image of its own."""
        return bool(self.stack_is.currentText() == PLANES)

    def tick(self, candidate: Candidate, ticked: bool) -> None:
        """Tick a candidate, or no longer, if it can be."""
        if ticked:
            others = [other for other in self._found if self._ticked(other)]
            if not candidate.usable or clash(candidate, others)[0]:
                return
        self._ticks[candidate.key] = ticked
        if ticked:
            # What others bring later changes no truth that is in use.
            self._truths.setdefault(candidate.key, candidate.truth.unique_id)

    def tick_all(self) -> None:
        """Tick all that can be calibrated on together, each with a truth of its own."""

        # One whose truth is only a guess comes last, and gets none that another one has.
        def late(candidate: Candidate) -> tuple[bool, ...]:
            return not self._ticked(candidate), not self._prefer(candidate), not candidate.sure

        for candidate in sorted(self._found, key=late):
            taken = [truth for other, truth, _ in self.chosen if other is not candidate]
            alike = all(other.ours == candidate.ours for other, _, _ in self.chosen)
            if candidate.usable and alike and (candidate.sure or self._truth(candidate) not in taken):
                self.tick(candidate, True)
        self._show_states()
        self.changed.emit()

    def tick_none(self) -> None:
        """Tick nothing."""
        for candidate in self._found:
            self._ticks[candidate.key] = False
        self._show_states()
        self.changed.emit()

    # What is shown

    def show_candidates(self, found: Sequence[Candidate], prefer: Preference) -> None:
        """Show candidates, and tick those of the new ones that are preferred and can be.

        Args:
            found: the candidates, the topmost first.
            prefer: whether to tick one that nothing was decided of before.
        """
        self._found, self._prefer = list(found), prefer
        known = {candidate.key for candidate in found}
        for kept in (self._ticks, self._truths, self._groups):
            for key in [key for key in kept if key not in known]:
                del kept[key]
        for candidate in found:
            truths = {truth.unique_id for truth in candidate.truths}
            if self._truths.get(candidate.key, None) not in (None, *truths):
                del self._truths[candidate.key]  # its truth is gone, and another one may be another image's
                self._ticks[candidate.key] = False
            elif candidate.usable and candidate.key not in self._ticks:
                preferred = prefer(candidate)
                if preferred is not None:
                    self._ticks[candidate.key] = False
                    self.tick(candidate, preferred)
        rows = [_row(candidate) for candidate in found]
        if rows != self._rows:  # else a group may be being written, or a truth looked for
            self._rows = rows
            self._fill()
        self._show_states()

    def set_most_rows(self, rows: int) -> None:
        """Say how many rows are seen at once."""
        self._most_rows = rows
        self._fit()

    # Building

    def _build_tree(self) -> QTreeWidget:
        tree = QTreeWidget(self)
        tree.setObjectName("threshold-calibration-images")
        tree.setToolTip(HINT)
        tree.setColumnCount(len(HEADS))
        tree.setHeaderLabels(HEADS)
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        tree.setMinimumWidth(120)
        tree.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        head = tree.header()
        head.setStretchLastSection(False)
        for column in (IMAGE, TRUTH):
            head.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        head.setSectionResizeMode(GROUP, QHeaderView.ResizeMode.Fixed)
        head.resizeSection(GROUP, GROUP_WIDTH)
        tree.setHeaderHidden(True)
        tree.setColumnHidden(GROUP, True)
        tree.itemChanged.connect(self._on_item)
        tree.itemClicked.connect(self._on_clicked)
        return tree

    def _build_buttons(self) -> QHBoxLayout:
        self.all = _button("All", "Tick all that can be calibrated on together", self)
        self.none = _button("None", "Tick nothing", self)
        self.grouped = _button("Groups", "Say which images belong together, such as those of a patient", self)
        self.grouped.setCheckable(True)
        self.all.clicked.connect(self.tick_all)
        self.none.clicked.connect(self.tick_none)
        self.grouped.toggled.connect(self._show_groups)
        row = QHBoxLayout()
        row.setSpacing(4)
        for button in (self.all, self.none, self.grouped):
            row.addWidget(button)
        row.addStretch(1)
        return row

    def _build_stack(self) -> QGridLayout:
        self.stack_words = QLabel("A stack is", self)
        self.stack_is = QComboBox(self)
        self.stack_is.setObjectName("threshold-calibration-stack")
        self.stack_is.addItems([WHOLE, PLANES])
        self.stack_is.setToolTip("What a promise is about: a whole stack, or any plane of it")
        self.stack_is.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.stack_is.setMinimumContentsLength(8)
        self.stack_is.currentIndexChanged.connect(self._on_stack)
        grid = QGridLayout()
        grid.addWidget(self.stack_words, 0, 0)
        grid.addWidget(self.stack_is, 0, 1)
        grid.setHorizontalSpacing(GAP)
        grid.setColumnMinimumWidth(0, LABELS)
        grid.setColumnStretch(1, 1)
        return grid

    # Filling

    def _fill(self) -> None:
        self.tree.blockSignals(True)
        self.tree.clear()
        for number, candidate in enumerate(self._found):
            item = QTreeWidgetItem([candidate.title, "", self._groups.get(candidate.key, "")])
            item.setData(IMAGE, Qt.ItemDataRole.UserRole, number)
            item.setSizeHint(IMAGE, QSize(0, ROW))
            self.tree.addTopLevelItem(item)
        self.tree.blockSignals(False)
        stacks = any(candidate.stack and candidate.usable for candidate in self._found)
        wanted: dict[QWidget, bool] = {self.stack_words: stacks, self.stack_is: stacks}
        wanted |= dict.fromkeys((self.tree, self.all, self.none, self.grouped), bool(self._found))
        for widget, seen in wanted.items():
            widget.setVisible(seen)
        self._fit()

    def _truth_combo(self, candidate: Candidate) -> QComboBox:
        box = QComboBox(self.tree)
        box.setObjectName("threshold-calibration-truth")
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(4)
        box.setFixedHeight(ROW)
        box.addItems([str(truth.name) for truth in candidate.truths])
        box.setCurrentIndex(candidate.truths.index(self._truth(candidate)))
        box.currentIndexChanged.connect(partial(self._on_truth, candidate))
        return box

    def _show_states(self) -> None:
        """Show what is ticked, and why what cannot be ticked cannot."""
        self.tree.blockSignals(True)
        others = [candidate for candidate in self._found if self._ticked(candidate)]
        for number, candidate in enumerate(self._found):
            item = self.tree.topLevelItem(number)
            ticked = self._ticked(candidate)
            brief, reason = ("", "") if ticked else (candidate.brief, candidate.reason)
            if not ticked and not brief:
                brief, reason = clash(candidate, others)
            flags = Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsSelectable
            if not brief:
                flags |= Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsEditable
            item.setFlags(flags)
            item.setCheckState(IMAGE, Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
            truth, box = self._truth(candidate), self._truth_box(item, candidate, brief)
            said = "" if truth is None or box is not None else str(truth.name)
            shape = " × ".join(map(str, candidate.shape))
            about = f"{candidate.name}, {shape} px" + ("" if truth is None else f"\nTruth: {truth.name}")
            if box is not None:
                box.setToolTip(about)
            item.setText(TRUTH, brief or said)
            for column in (IMAGE, TRUTH):
                item.setToolTip(column, reason or about)
            item.setToolTip(GROUP, "Images with the same word here belong together: click to write it")
        self.tree.blockSignals(False)

    def _truth_box(self, item: QTreeWidgetItem | None, candidate: Candidate, brief: str) -> QWidget | None:
        """The box in which to choose among several truths; none where there is to be read why not."""
        assert item is not None
        box = self.tree.itemWidget(item, TRUTH)
        wanted = len(candidate.truths) > 1 and not brief
        if wanted and box is None:
            box = self._truth_combo(candidate)
            self.tree.setItemWidget(item, TRUTH, box)
        elif box is not None and not wanted:
            self.tree.removeItemWidget(item, TRUTH)
            box = None
        return box

    def _fit(self) -> None:
        """As high as its rows, up to some."""
        rows = min(len(self._found), self._most_rows)
        head = 0 if self.tree.isHeaderHidden() else self.tree.header().sizeHint().height()
        self.tree.setFixedHeight(rows * ROW + head + 2 * self.tree.frameWidth())

    def _show_groups(self, wanted: bool) -> None:
        self.tree.setColumnHidden(GROUP, not wanted)
        self.tree.setHeaderHidden(not wanted)
        self._fit()
        if not wanted and self._groups:
            self._groups.clear()
            self._fill()
            self._show_states()
            self.changed.emit()

    # What a candidate is

    def _ticked(self, candidate: Candidate) -> bool:
        return candidate.usable and self._ticks.get(candidate.key, False)

    def _truth(self, candidate: Candidate) -> Any | None:
        wanted = self._truths.get(candidate.key)
        return next((truth for truth in candidate.truths if truth.unique_id == wanted), candidate.truth)

    # What the user does

    def _candidate(self, item: QTreeWidgetItem) -> Candidate:
        return self._found[int(item.data(IMAGE, Qt.ItemDataRole.UserRole))]

    def _on_item(self, item: QTreeWidgetItem, column: int) -> None:
        candidate = self._candidate(item)
        if column == IMAGE:
            self.tick(candidate, item.checkState(IMAGE) == Qt.CheckState.Checked)
        elif column == GROUP:
            self._groups[candidate.key] = item.text(GROUP).strip()
        self._show_states()
        self.changed.emit()

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == GROUP and item.flags() & Qt.ItemFlag.ItemIsEnabled:
            self.tree.editItem(item, GROUP)

    def _on_truth(self, candidate: Candidate, index: int) -> None:
        self._truths[candidate.key] = candidate.truths[index].unique_id
        self._show_states()
        if self._ticked(candidate):
            self.changed.emit()

    def _on_stack(self) -> None:
        if any(candidate.stack for candidate, _, _ in self.chosen):
            self.changed.emit()


def _row(candidate: Candidate) -> object:
    """Equal for candidates whose rows look the same, but for what is chosen of them."""
    truths = [(truth.unique_id, str(truth.name)) for truth in candidate.truths]
    return candidate.key, candidate.title, candidate.stack, candidate.usable, truths


def _button(text: str, tip: str, parent: QWidget) -> QPushButton:
    button = QPushButton(text, parent)
    button.setToolTip(tip)
    button.setAutoDefault(False)
    button.setStyleSheet(SMALL)
    button.setObjectName(f"threshold-calibration-{text.lower()}")
    return button
