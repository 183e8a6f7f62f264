"""The plot of what a threshold can promise: which pairs of ε and α, or which mean share missed."""

import math

import numpy as np
from qtpy.QtCore import QPointF, Signal
from qtpy.QtWidgets import QWidget

from napari_smm.promising import Attainable
from napari_smm.qt.canvas import AXIS, FOOT, Plot, dress_axes, font, marks, pen
from napari_smm.sheet import Sheet

# isort: split
# After the canvas, which says on which binding it runs.
import pyqtgraph as pg

HEIGHT = 104
"""Pixels of the plot."""
END = 1.02
"""Of the axes: a point at 1 is seen whole."""
LEAST = 0.04
"""Share below which the dashed line is too near to the axis for words of its own."""
LABELS = {
    "epsilon": ("α", "ε: share of a lesion that may be missed"),
    "threshold": ("mean FNR", "T"),
}
"""Of the axes up and along, by what the curve is drawn over."""


class AttainablePlot(Plot):
    """What the present threshold promises: everything on a curve and above it, with the point in use.

    Below the dashed line is what so few calibration images cannot promise at any threshold.
    """

    picked = Signal(float, float)
    """The user pressed, or dragged to, a place of these coordinates, each 0…1."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("attainable-plot", parent)
        self.setFixedHeight(HEIGHT)
        self.view = pg.ViewBox(enableMenu=False, enableMouse=False, defaultPadding=0)
        self.view.setRange(xRange=(0, END), yRange=(0, END), padding=0)
        self.scales = [pg.AxisItem(side, maxTickLength=4) for side in ("left", "bottom")]
        for scale in self.scales:
            scale.enableAutoSIPrefix(False)
            scale.setStyle(maxTickLevel=0, tickTextOffset=3)
            scale.linkToView(self.view)
        self.scales[0].setWidth(AXIS)
        self.scales[0].setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")]])
        self.scales[1].setHeight(FOOT)
        self.scales[1].setStyle(hideOverlappingLabels=15)
        self.canvas.addItem(self.scales[0], 0, 0)
        self.canvas.addItem(self.view, 0, 1)
        self.canvas.addItem(self.scales[1], 1, 1)
        self.curve = pg.PlotCurveItem(antialias=True, fillLevel=END)
        self.least = pg.InfiniteLine(angle=0)
        self.word, self.meaning = pg.TextItem(), pg.TextItem()
        for word in (self.word, self.meaning):
            word.setFont(font())
        for item in (self.curve, self.least, self.word, self.meaning):
            self.view.addItem(item, ignoreBounds=True)
        self.point = marks(self.view, "o")
        self.canvas.picked.connect(self._pick)
        self.legend.hide()
        self._finish()

    def show_attainable(self, shown: Attainable | None) -> None:
        """Show a curve with its point; nothing for None."""
        self.setVisible(shown is not None)
        if shown is None:
            return
        for scale, label in zip(self.scales, LABELS[shown.over], strict=True):
            if scale.labelText != label:
                scale.setLabel(label)
                scale.resizeEvent(None)  # which puts the label into the middle
        x, y = (np.append(values, values[-1]) for values in (shown.x, shown.y))
        x[-1] = END
        if shown.over == "epsilon":  # α holds from its ε to the next one
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        self.curve.setData(x, y)
        self.least.setPos(shown.least)
        self.word.setText(f"n = {shown.n} allows no less")
        self.word.setVisible(shown.least >= LEAST)
        # Above the line, where there is room.
        self.word.setAnchor((1, 1) if shown.least < 0.6 else (1, 0))
        self.word.setPos(END, shown.least)
        over_pairs = shown.over == "epsilon"
        self.meaning.setText("promised at this T" if over_pairs else "promised")
        self.meaning.setAnchor((1 if over_pairs else 0, 0))
        self.meaning.setPos(END if over_pairs else 0, END)
        self.point.setData(*([min(value, END)] for value in shown.point))

    def _pick(self, place: QPointF) -> None:
        at = self.view.mapSceneToView(place)
        if math.isfinite(at.x()) and math.isfinite(at.y()):
            self.picked.emit(min(1.0, max(0.0, at.x())), min(1.0, max(0.0, at.y())))

    def _dress(self, colours: Sheet) -> None:
        super()._dress(colours)
        dress_axes(self.scales, colours)
        self.curve.setPen(pen(colours.measured, 1.5))
        self.curve.setBrush(pg.mkBrush(colours.shade))
        self.least.setPen(pen(colours.faint, 1, dashed=True))
        for word in (self.word, self.meaning):
            word.setColor(colours.faint)
        self.point.setBrush(pg.mkBrush(colours.ink))
        self.point.setPen(pen(colours.ground, 1.5))
        self.point.setSize(11)
