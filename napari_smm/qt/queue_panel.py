"""What to annotate next: a run's ranking of the folder's images, with its reasons and places."""

from concurrent.futures import Future
from functools import partial
from typing import Any

from qtpy.QtCore import QModelIndex, QRect, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from engine import suggestions_file
from engine.errors import InputError
from engine.figures.colours import VALIDATION
from engine.suggestions_file import PlaceEntry, Suggestions
from napari_smm.annotating import Annotator
from napari_smm.annotating_image import MARK as IMAGE_MARK
from napari_smm.feed import Snapshot
from napari_smm.proposing import Offer, offers
from napari_smm.qt.correct_camera import look_at
from napari_smm.qt.jobs import Ended, Jobs
from napari_smm.qt.offer_combo import OfferCombo
from napari_smm.session import Session
from napari_smm.status import Display
from napari_smm.suggesting import Ranking, Row, display, following, rows, staleness, start, titles

WAIT_MILLISECONDS = 100
"""Time between two looks at what goes on, while something does."""
PATIENCE = 200
"""So many looks are waited for an image that was gone to."""
STEPS = 1000
"""Resolution of the progress bar."""
SCORE = 1
"""Column of the score."""
SHARE = Qt.ItemDataRole.UserRole
"""Under which an item keeps its score's share of the highest, in the column of the score."""
IMAGE = Qt.ItemDataRole.UserRole + 1
PLACE = Qt.ItemDataRole.UserRole + 2
DONE = "✔ Ranked"


class ScoreBar(QStyledItemDelegate):
    """Draws a bar behind a score, as long as its share of the highest one."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """The bar, then the number."""
        share = index.data(SHARE)
        if painter is not None and share is not None:
            colour = QColor(VALIDATION)
            colour.setAlpha(150)
            room = option.rect.adjusted(1, 3, -1, -3)
            painter.fillRect(
                QRect(room.left(), room.top(), round(room.width() * share), room.height()), colour
            )
        super().paint(painter, option, index)


class NameCell(QStyledItemDelegate):
    """Cuts a name in its middle where it is too long: names often differ in their ends."""

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:  # noqa: N802
        """As usual, but for the cut."""
        super().initStyleOption(option, index)
        if option is not None:
            option.textElideMode = Qt.TextElideMode.ElideMiddle


class QueuePanel(QWidget):
    """Ranks the images of the annotated folder by a run, lists them with reasons, and goes to them.

    Call :meth:`leave` when the owner closes.

    Attributes:
        ranking: the process that ranks; None while none does.
        found: what was suggested last; None without.
        queue: the list's rows.
    """

    def __init__(
        self, viewer: Any, session: Session, annotator: Annotator, parent: QWidget | None = None
    ) -> None:
        """Build the panel.

        Args:
            viewer: napari's, with the layers of the image.
            session: whose runs are offered.
            annotator: of the folder.
            parent: the owner.
        """
        super().__init__(parent)
        self.setObjectName("queue-panel")
        self.viewer, self.session, self.annotator = viewer, session, annotator
        self.ranking: Ranking | None = None
        self.found: Suggestions | None = None
        self.queue: list[Row] = []
        self._order: Future[Ranking] | None = None
        self._target: tuple[str, PlaceEntry] | None = None
        self._looks = 0
        self._end: Display | None = None
        self._stale = ""
        self._phase = ""
        self._jobs = Jobs(session, self)
        self._build()
        self._clock = QTimer(self)
        self._clock.setInterval(WAIT_MILLISECONDS)
        self._clock.timeout.connect(self._tick)
        self._connect()
        self.read()
        self._show()

    # For others

    @property
    def busy(self) -> bool:
        """Whether a ranking goes on."""
        return self.ranking is not None or self._order is not None

    @property
    def follows(self) -> bool:
        """Whether the next image is the queue's, and there is a queue."""
        return self.follow.isChecked() and bool(self.queue)

    def neighbour(self, image: str | None, by: int = 1) -> str | None:
        """The image that the queue has next to another, see :func:`napari_smm.suggesting.following`."""
        return following(self.queue, image, by)

    def rank(self) -> None:
        """Have the chosen run rank the folder's images. What is wrong is said below."""
        if self.busy:
            return
        self._end = None
        offer, root = self.run.chosen(), self.annotator.root
        if root is None or offer is None:
            what = "no folder is open" if root is None else "there is no run to ask: train one first"
            self._end = Display("✖ Failed", detail=f"{what}.")
            self._show()
            return
        # What is not saved yet would be suggested anew.
        self.annotator.flush()
        self._order = self.session.run(partial(start, offer.choice.path, root, self.order.currentData()))
        self._clock.start()
        self._show()

    def cancel(self) -> None:
        """End the ranking that goes on; what was suggested before stays."""
        if self.ranking is not None:
            self.ranking.cancel()
        self._show()

    def read(self) -> None:
        """Read what was suggested for the folder."""
        root = self.annotator.root
        if root is None:
            self._take(None)
            return
        path = suggestions_file.path_of(root)
        self._jobs.ask("read", lambda _: suggestions_file.read(path), self._take)

    def search(self) -> None:
        """Look for runs again, and whether the ranking is still the newest."""
        watched, root = self.session.root, self.annotator.root
        found = self.found

        def job(_: Ended) -> tuple[list[Offer], str]:
            offered = offers(watched, root)
            return offered, _staleness(found, offered)

        self._jobs.ask("runs", job, self._offer)

    def leave(self) -> None:
        """Undo the connections, and end what goes on."""
        self._clock.stop()
        self.session.updated.disconnect(self._on_updated)
        self.annotator.opened.disconnect(self._on_opened)
        self.annotator.moved.disconnect(self._on_moved)
        self.annotator.changed.disconnect(self._on_changed)
        self._jobs.close()
        if self._order is not None:
            self._order.add_done_callback(_close_started)
            self._order = None
        if self.ranking is not None:
            self.ranking.close()
            self.ranking = None

    # Building

    def _build(self) -> None:
        self.run = OfferCombo("queue-run", self)
        self.order = QComboBox(self)
        self.order.setObjectName("queue-order")
        for name, title in titles().items():
            self.order.addItem(title, name)
            self.order.setItemData(self.order.count() - 1, title, Qt.ItemDataRole.ToolTipRole)
        for combo in (self.run, self.order):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(12)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.begin = QPushButton("Rank", self)
        self.begin.setObjectName("queue-rank")
        self.begin.setToolTip("Have the run look at all images that are not annotated yet")
        self.halt = QPushButton("Cancel", self)
        self.halt.setObjectName("queue-cancel")
        for button in (self.begin, self.halt):
            button.setAutoDefault(False)
        self.bar = QProgressBar(self)
        self.bar.setObjectName("queue-progress")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.state, self.detail, self.note, self.reason = (QLabel(self) for _ in range(4))
        names = ("queue-status", "queue-error", "queue-note", "queue-reason")
        for label, name in zip((self.state, self.detail, self.note, self.reason), names, strict=True):
            label.setObjectName(name)
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.follow = QCheckBox("Next follows this list", self)
        self.follow.setObjectName("queue-follow")
        self.follow.setToolTip(
            "The key and the button for the next image go through the list, not the folder"
        )
        self.list = self._tree()
        self._lay_out()

    def _tree(self) -> QTreeWidget:
        tree = QTreeWidget(self)
        tree.setObjectName("annotate-queue")
        tree.setHeaderLabels(["Image", "Score", "Why"])
        tree.setItemDelegateForColumn(0, NameCell(tree))
        tree.setItemDelegateForColumn(SCORE, ScoreBar(tree))
        tree.setUniformRowHeights(True)
        tree.setMinimumHeight(76)
        tree.setIndentation(14)
        tree.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = tree.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        header.setSectionResizeMode(SCORE, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(0, 150)
        header.resizeSection(SCORE, 56)
        header.setStretchLastSection(True)
        return tree

    def _lay_out(self) -> None:
        form = QGridLayout()
        form.setVerticalSpacing(4)
        form.setColumnStretch(1, 1)
        form.addWidget(QLabel("Run", self), 0, 0)
        form.addWidget(self.run, 0, 1, 1, 2)
        form.addWidget(QLabel("Order", self), 1, 0)
        form.addWidget(self.order, 1, 1)
        form.addWidget(self.begin, 1, 2)
        form.addWidget(self.halt, 1, 2)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(4)
        column.addLayout(form)
        for widget in (self.bar, self.state, self.detail, self.note):
            column.addWidget(widget)
        column.addWidget(self.list, 1)
        column.addWidget(self.reason)
        column.addWidget(self.follow)

    def _connect(self) -> None:
        self.begin.clicked.connect(lambda: self.rank())
        self.halt.clicked.connect(lambda: self.cancel())
        self.list.itemActivated.connect(self._on_activated)
        self.list.currentItemChanged.connect(self._on_chosen)
        self._jobs.failed.connect(self._on_failed)
        self.session.updated.connect(self._on_updated)
        self.annotator.opened.connect(self._on_opened)
        self.annotator.moved.connect(self._on_moved)
        self.annotator.changed.connect(self._on_changed)

    # What comes in

    def _on_updated(self, snapshot: Snapshot) -> None:
        phase = f"{snapshot.state.root} {snapshot.state.status} {snapshot.state.newest}"
        if phase != self._phase and self.isVisible():
            self._phase = phase
            self.search()

    def _on_opened(self) -> None:
        if self.found is not None and self.annotator.current is None:
            self._take(None)
        self.read()

    def _on_moved(self, image: str) -> None:
        if self._target is not None and self._target[0] != image:
            self._target = None
        self._mark()

    def _on_changed(self, image: str) -> None:
        before = {row.image: row.annotated for row in self.queue}
        if image in before:
            self._make_rows()
            if {row.image: row.annotated for row in self.queue} != before:
                self._mark()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Runs may have come or gone while nobody looked."""
        super().showEvent(event)
        self.search()

    def _on_failed(self, sentence: str) -> None:
        self._end = Display("✖ Failed", detail=sentence)
        self._show()

    def _on_activated(self, item: QTreeWidgetItem, column: int = 0) -> None:
        """Go to the image, and to the place if it is one."""
        image, place = item.data(0, IMAGE), item.data(0, PLACE)
        try:
            if image != self.annotator.current:
                self.annotator.go(image)
        except InputError as error:
            self._on_failed(str(error))
            return
        if place is not None:
            self._target, self._looks = (image, place), 0
            self._clock.start()
            self._go_to_place()

    def _on_chosen(self, item: QTreeWidgetItem | None, before: object = None) -> None:
        _say(self.reason, "" if item is None else item.toolTip(2))
        self.reason.setVisible(bool(self.reason.text()))

    def _offer(self, found: tuple[list[Offer], str]) -> None:
        runs, self._stale = found
        self.run.offer(runs)
        self._show()

    # The clock, which stands still while nothing goes on

    def _tick(self) -> None:
        if self._order is not None and self._order.done():
            self._take_started(self._order)
        elif self.ranking is not None:
            self._look(self.ranking)
        if self._target is not None:
            self._go_to_place()
        self._show()
        if not self.busy and self._target is None:
            self._clock.stop()

    def _take_started(self, order: "Future[Ranking]") -> None:
        self._order = None
        try:
            self.ranking = order.result()
        except InputError as error:
            self._end = Display("✖ Failed", detail=str(error))

    def _look(self, ranking: Ranking) -> None:
        state = ranking.poll()
        if state.ended:
            self.ranking, self._end = None, display(state)
            if state.state == "finished" and ranking.folder == self.annotator.root:
                self.read()

    def _go_to_place(self) -> None:
        """Centre the camera on a place as soon as its image is shown."""
        assert self._target is not None
        image, place = self._target
        layer = next(
            (one for one in self.viewer.layers if one.metadata.get(IMAGE_MARK, {}).get("image") == image),
            None,
        )
        self._looks += 1
        if layer is not None or self._looks > PATIENCE:
            self._target = None
        if layer is not None:
            look_at(self.viewer, layer, place.slices)

    # The list

    def _take(self, found: Suggestions | None) -> None:
        self.found = found
        self._make_rows()
        self._fill()
        self.search()
        if found is not None:
            self.order.setCurrentIndex(max(0, self.order.findData(found.order)))
        self._show()

    def _make_rows(self) -> None:
        status = {image: self.annotator.entry(image).status for image in self.annotator.images}
        self.queue = rows(self.found, self.annotator.images, status)

    def _fill(self) -> None:
        self.list.clear()
        for row in self.queue:
            item = self._item(row.image, f"{row.entry.rank}  {row.image}", row.entry.score, row.entry.reason)
            item.setData(SCORE, SHARE, row.share)
            for number, place in enumerate(row.places, start=1):
                child = self._item(row.image, f"place {number}", place.score, place.reason)
                child.setData(0, PLACE, place)
                item.addChild(child)
            self.list.addTopLevelItem(item)
        self._mark()

    def _item(self, image: str, name: str, score: float, reason: str) -> QTreeWidgetItem:
        item = QTreeWidgetItem([name, f"{score:.3g}", reason])
        item.setTextAlignment(SCORE, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        item.setToolTip(0, image)
        item.setToolTip(2, reason)
        item.setData(0, IMAGE, image)
        return item

    def _mark(self) -> None:
        """Tell what is annotated meanwhile, by a sign too, and which image is in view."""
        for number, row in enumerate(self.queue):
            item = self.list.topLevelItem(number)
            sign = "✔ " if row.annotated else ""
            item.setText(0, f"{row.entry.rank}  {sign}{row.image}")
            for column in range(3):
                font = item.font(column)
                font.setStrikeOut(row.annotated)
                font.setBold(column == 0 and row.image == self.annotator.current)
                item.setFont(column, font)

    # Showing

    def _show(self) -> None:
        if self._order is not None:
            shown = Display("Starting…", done=None, can_start=False)
        elif self.ranking is not None:
            shown = display(self.ranking.poll())
        else:
            shown = self._end or Display("")
        # How many there are shows in the list.
        _say(self.state, "" if shown.status == DONE and self.queue else shown.status)
        _say(self.detail, f"⚠ {shown.detail}" if shown.detail else "")
        _say(self.note, f"⚠ {self._stale}" if self._stale else "")
        for label in (self.state, self.detail, self.note):
            label.setVisible(bool(label.text()))
        self.bar.setVisible(self.busy)
        self.bar.setUpdatesEnabled(False)  # else it paints itself at once, and the window around it
        self.bar.setRange(0, 0 if shown.done is None else STEPS)
        self.bar.setValue(0 if shown.done is None else round(shown.done * STEPS))
        self.bar.setUpdatesEnabled(True)
        self.begin.setEnabled(
            self.annotator.root is not None and self.run.chosen() is not None and not self.busy
        )
        self.halt.setEnabled(shown.can_stop)
        self.begin.setVisible(not self.busy)
        self.halt.setVisible(self.busy)
        self.follow.setEnabled(bool(self.queue))
        self.list.setVisible(bool(self.queue))


def _staleness(found: Suggestions | None, offered: list[Offer]) -> str:
    """Why a ranking is no longer the newest that the folder's runs could give."""
    if found is None:
        return ""
    here = [offer.choice.path for offer in offered if offer.here]
    newest = here or [offer.choice.path for offer in offered]
    return staleness(found, newest[0] if newest else None)


def _close_started(order: "Future[Ranking]") -> None:
    """End a ranking that has started only after nobody wanted it any more."""
    if not order.cancelled() and order.exception() is None:
        order.result().close()


def _say(label: QLabel, text: str) -> None:
    # Setting a label's text anew would lay the whole dock out again.
    if label.text() != text:
        label.setText(text)
