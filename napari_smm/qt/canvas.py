"""What plots are drawn on: a canvas that pyqtgraph draws, its legend, its curves and axes."""

import html
import os
from collections.abc import Sequence

import numpy as np
import qtpy
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QSize, Qt, Signal
from qtpy.QtGui import QFont, QKeyEvent, QMouseEvent, QPalette, QPen, QWheelEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from engine.errors import InputError
from engine.figures.colours import FAINT
from engine.figures.epochs import Floats
from napari_smm.sheet import DARK, LIGHT, Sheet, is_dark

# pyqtgraph takes whichever binding it finds loaded, or PyQt6, unless it is told which one is in use.
os.environ["PYQTGRAPH_QT_LIB"] = qtpy.API_NAME

import pyqtgraph as pg

if pg.Qt.QT_LIB != qtpy.API_NAME:
    raise InputError(
        f"pyqtgraph was loaded with {pg.Qt.QT_LIB}, and napari runs on {qtpy.API_NAME}: set the environment"
        f" variable PYQTGRAPH_QT_LIB to {qtpy.API_NAME} before napari starts."
    )

FONT = 11
"""Pixels, of all text in plots."""
DOTS = 30
"""Up to so many epochs each has its dot; of more, only those with a gap on both sides."""
MANY = 300
"""More values are drawn with a thin line, which Qt draws four times as fast."""
AXIS = 54
"""Pixels to the left of a panel: two lines of label and the numbers."""
FOOT = 36
"""Pixels under the lowest panel."""
GAP = 10
"""Pixels between panels."""
Entry = tuple[str, str, str]
"""Of a legend: a sign, its colour, and what it stands for."""
LINE, DASHES, TRIANGLE = "━", "╍╍", "▲"


class Canvas(pg.GraphicsLayoutWidget):  # type: ignore[misc]
    """Where panels are drawn. The mouse picks places in it and zooms only with Ctrl and the wheel.

    pyqtgraph's own use of the mouse (panning, zooming, menus, hovering) is left out.
    """

    picked = Signal(QPointF)
    """A place in the scene was pressed, or dragged to, with the left button."""
    zoomed = Signal(QPointF, float)
    """The wheel was turned with Ctrl at a place in the scene: factor by which the range changes."""
    reset = Signal()
    """Double click."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setMouseTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.ci.layout.setContentsMargins(0, 7, 17, 3)
        self.ci.layout.setSpacing(0)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(360, 200)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(200, 160)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self._pick(event, event.button() == Qt.MouseButton.LeftButton)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self._pick(event, bool(event.buttons() & Qt.MouseButton.LeftButton))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        event.accept()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self.reset.emit()

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            place = self.mapToScene(event.position().toPoint())
            self.zoomed.emit(place, 1.02 ** (-event.angleDelta().y() / 8))
            event.accept()
        else:
            event.ignore()  # so that a dock around it can scroll

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        event.ignore()  # keys are the window's

    def _pick(self, event: QMouseEvent, left: bool) -> None:
        event.accept()
        if left:
            self.picked.emit(self.mapToScene(event.pos()))


class Plot(QWidget):
    """A canvas under its legend, in the colours of the window."""

    _finished = False

    def __init__(self, name: str, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self._dark: bool | None = None
        self._sheet = self._find_sheet()
        self.legend = QLabel(self)
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setWordWrap(True)
        self.legend.setContentsMargins(AXIS, 0, 0, 0)
        self.canvas = Canvas(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.legend)
        layout.addWidget(self.canvas, 1)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)

    def set_dark(self, dark: bool) -> None:
        """Draw for a dark or a light window, whatever the palette says."""
        self._dark = dark
        self._restyle()

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._restyle()

    def _finish(self) -> None:
        """Give all parts their colours, once they are there."""
        self._finished = True
        self._sheet = self._find_sheet()
        self._dress(self._sheet)

    def _restyle(self) -> None:
        if self._finished and self._find_sheet() != self._sheet:
            self._finish()

    def _find_sheet(self) -> Sheet:
        """For the window's own ground, unless that is not what was asked for."""
        ground = self.palette().color(QPalette.ColorRole.Window).name()
        if self._dark is None or self._dark == is_dark(ground):
            return Sheet.on(ground)
        return DARK if self._dark else LIGHT

    def _dress(self, colours: Sheet) -> None:
        """Give every part its colour."""
        self.canvas.setBackground(colours.ground)

    def _explain(self, entries: Sequence[Entry]) -> None:
        """Fill the legend."""
        parts = (
            f'<span style="white-space: nowrap"><span style="color: {colour}">{sign}</span>'
            f"&nbsp;{html.escape(word).replace(' ', '&nbsp;')}</span>"
            for sign, colour, word in entries
        )
        text = f'<span style="color: {self._sheet.ink}; font-size: {FONT}px">{" &nbsp; ".join(parts)}</span>'
        self.legend.setText(text if entries else "")


class Curve:
    """A line with gaps where a value is missing, and dots: on every value, or where one stands alone."""

    def __init__(
        self, view: pg.ViewBox, *, width: float = 1.5, dashed: bool = False, dots: bool = True
    ) -> None:
        self.line = pg.PlotCurveItem(antialias=True, connect="finite")
        self.dots = marks(view, "o")
        self.width, self.dashed, self.dotted = width, dashed, dots
        self._colour, self._many = FAINT, False
        view.addItem(self.line)

    def set(self, x: NDArray[np.int64] | Floats, y: Floats) -> None:
        """Show values (n,); what is not finite is a gap."""
        there = np.isfinite(y)
        near = np.zeros(len(y) + 2, dtype=bool)
        near[1:-1] = there
        alone = there & ~near[:-2] & ~near[2:]
        shown = there if self.dotted and not self.dashed and len(y) <= DOTS else alone
        if (len(y) > MANY) != self._many:
            self._many = not self._many
            self.dress(self._colour)
        # Of nothing but gaps pyqtgraph cannot tell the bounds.
        self.line.setData(*((x.astype(np.float64), np.where(there, y, np.nan)) if there.any() else ([], [])))
        self.dots.setData(x[shown], y[shown], size=4)

    def dress(self, colour: str) -> None:
        """Draw in a colour."""
        self._colour = colour
        self.line.setPen(pen(colour, 1 if self._many else self.width, dashed=self.dashed))
        self.dots.setBrush(pg.mkBrush(colour))


def font() -> QFont:
    """What is written in plots."""
    made = QFont()
    made.setPixelSize(FONT)
    return made


def pen(colour: str, width: float, *, dashed: bool = False, alpha: float = 1.0) -> QPen:
    """For a line of so many pixels; alpha is its opacity, 0…1."""
    style = Qt.PenStyle.DashLine if dashed else Qt.PenStyle.SolidLine
    made: QPen = pg.mkPen(colour, width=width, style=style)
    shown = made.color()
    shown.setAlphaF(alpha)
    made.setColor(shown)
    made.setCapStyle(Qt.PenCapStyle.FlatCap)
    return made


def marks(view: pg.ViewBox, symbol: str) -> pg.ScatterPlotItem:
    """Symbols without an outline, on top of lines."""
    made = pg.ScatterPlotItem(symbol=symbol, pen=pg.mkPen(None), antialias=True)
    made.setZValue(5)
    view.addItem(made)
    return made


def dress_axes(axes: Sequence[pg.AxisItem], colours: Sheet) -> None:
    """Give axes their colours and letters."""
    for axis in axes:
        axis.setPen(pen(colours.faint, 1))
        axis.setTickFont(font())
        axis.label.setFont(font())
        axis.setTextPen(colours.ink)
