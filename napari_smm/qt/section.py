"""A section that folds: a header that says what is inside, and the content below it."""

from collections.abc import Sequence

from qtpy.QtCore import QRect, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

SHUT, OPEN = "▸", "▾"
WARNING = "⚠"
GAP = 20
"""Pixels between a header's title and its summary, padding included."""

SQUARE = 11
"""Pixels of the side of a legend's colour."""
FAINT = 165
"""Opacity, of 255, of what is said by the way. In the theme's own colour, so that it can be read in all."""

BAR = """
QPushButton { text-align: left; padding: 1px 6px; border: 1px solid transparent; border-radius: 2px; }
QPushButton:focus { border-color: palette(highlight); }
"""
PLAIN = BAR + "QPushButton { background: transparent; padding: 1px 0px; }"


class Header(QPushButton):
    """The bar that opens and shuts a section: with a click, Space, Enter, or the keys right and left.

    The summary stands at its right end, fainter than the title, cut off where there is no room.
    """

    def __init__(self, parent: QWidget, *, inner: bool) -> None:
        super().__init__(parent)
        self.summary = ""
        self.legend: Sequence[tuple[str, str]] = ()
        self.setCheckable(True)
        self.setAutoDefault(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setStyleSheet(PLAIN if inner else BAR)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802
        """Enter toggles, right opens, left shuts; the rest is a button's."""
        key = event.key() if event is not None else None
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.setChecked(not self.isChecked())
        elif key in (Qt.Key.Key_Right, Qt.Key.Key_Left):
            self.setChecked(key == Qt.Key.Key_Right)
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        """The button, and the summary or the legend in what its title leaves free."""
        super().paintEvent(event)
        if self.legend:
            self._paint_legend()
        elif self.summary:
            self._paint_summary()

    def _paint_legend(self) -> None:
        metrics, painter = self.fontMetrics(), QPainter(self)
        right = self.width() - 6
        for colour, word in reversed(self.legend):
            left = right - metrics.horizontalAdvance(word)
            painter.setPen(self.palette().color(self.foregroundRole()))
            painter.drawText(QRect(left, 0, right - left, self.height()), Qt.AlignmentFlag.AlignVCenter, word)
            square = QRect(left - SQUARE - 4, (self.height() - SQUARE) // 2, SQUARE, SQUARE)
            painter.fillRect(square, QColor(colour))
            right = square.left() - SQUARE
        painter.end()

    def _paint_summary(self) -> None:
        metrics = self.fontMetrics()
        left = metrics.horizontalAdvance(self.text()) + GAP
        free = QRect(left, 0, self.width() - left - 6, self.height())
        text = metrics.elidedText(self.summary, Qt.TextElideMode.ElideRight, free.width())
        colour = self.palette().color(self.foregroundRole())
        colour.setAlpha(FAINT)
        painter = QPainter(self)
        painter.setPen(colour)
        painter.drawText(free, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, text)
        painter.end()


class FaintLabel(QLabel):
    """A line of text fainter than the others, without looking disabled."""

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        """The text in the theme's colour, half transparent."""
        colour = self.palette().color(self.foregroundRole())
        colour.setAlpha(FAINT)
        painter = QPainter(self)
        painter.setPen(colour)
        painter.drawText(self.contentsRect(), Qt.AlignmentFlag.AlignVCenter, self.text())
        painter.end()


class Section(QWidget):
    """A title that folds a widget away.

    Args:
        title: what the header says.
        content: what is folded; an empty widget, for a layout of your own, where it is left out.
        inner: a section inside a section, with a plainer header.
        parent: the owner.
    """

    toggled = Signal(bool)
    """Opened (true) or shut, by hand or by :meth:`set_open`."""

    def __init__(
        self,
        title: str,
        content: QWidget | None = None,
        *,
        inner: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.content = QWidget(self) if content is None else content
        """The widget that is folded away."""
        self.header = Header(self, inner=inner)
        """The bar above it."""
        self._title = title
        self._summary = ""
        self._warning = ""
        self._legend: Sequence[tuple[str, str]] = ()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.header)
        column.addWidget(self.content)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.content.hide()
        self.header.toggled.connect(self._fold)
        self._write()

    def is_open(self) -> bool:
        """Whether the content can be seen."""
        return bool(self.header.isChecked())

    def set_open(self, opened: bool) -> None:
        """Show or hide the content; the header stays."""
        self.header.setChecked(opened)

    def set_summary(self, text: str) -> None:
        """Say in a few words what is inside, seen while the section is shut."""
        self._summary = text
        self._write()

    def set_legend(self, colours: Sequence[tuple[str, str]]) -> None:
        """Name a few colours ("#RRGGBB", word), seen in place of a summary while the section is shut."""
        self._legend = tuple(colours)
        self._write()

    def set_warning(self, sentence: str) -> None:
        """Mark the header, open or shut, because of something inside; an empty text takes the mark away."""
        self._warning = sentence
        self._write()

    def _fold(self, opened: bool) -> None:
        self.content.setVisible(opened)
        self._write()
        self.toggled.emit(opened)

    def _write(self) -> None:
        opened = self.is_open()
        mark = f"  {WARNING}" if self._warning else ""
        self.header.setText(f"{OPEN if opened else SHUT}  {self._title}{mark}")
        self.header.summary = "" if opened else self._summary
        self.header.legend = () if opened else self._legend
        self.header.setToolTip(self._warning or self.header.summary)
        self.header.setAccessibleName(self._title)
        self.header.setAccessibleDescription(self._warning or self._summary)
        self.header.update()
