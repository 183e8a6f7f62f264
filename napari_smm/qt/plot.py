"""Plots that stand in a dock: recall and its slope, losses, precision against recall.

They show what they are given, say where they were clicked, and hold no timer and no run.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QAction, QKeySequence
from qtpy.QtWidgets import QWidget

from engine.errors import InputError
from engine.figures.colours import class_colour
from engine.figures.epochs import Floats, History, class_mean, slope_limits, tenth_limits
from napari_smm.qt.canvas import (
    AXIS,
    DASHES,
    FOOT,
    GAP,
    LINE,
    TRIANGLE,
    Curve,
    Plot,
    dress_axes,
    font,
    marks,
    pen,
)
from napari_smm.sheet import Sheet

# isort: split
# After the canvas, which says on which binding it runs.
import pyqtgraph as pg

NAMED = 6
"""Classes that a legend names; more have no colours of their own."""
THRESHOLDS = (0.1, 0.5, 0.9)
"""Thresholds that are marked on a precision-recall curve."""


@dataclass(frozen=True)
class Panel:
    """One of the panels that share the epochs."""

    view: pg.ViewBox
    scale: pg.AxisItem
    warmup: pg.LinearRegionItem
    cursor: pg.InfiniteLine


class EpochPlot(Plot):
    """Panels one above another over the epochs 1…E, with a cursor through all of them.

    Click or drag picks an epoch; Ctrl and the wheel zoom into the epochs; a double click or A shows
    all again.
    """

    epoch_picked = Signal(int)
    """The user chose an epoch that has been run."""

    def __init__(self, name: str, panels: Sequence[tuple[str, int]], parent: QWidget | None) -> None:
        """Panels are given by what stands on their scale (HTML), and their share of the height."""
        super().__init__(name, parent)
        self._history = History.of([])
        self._cursor: int | None = None
        self._zoomed = False
        self._epochs = EpochAxis()
        self.panels = [self._add_panel(row, *panel) for row, panel in enumerate(panels)]
        self.canvas.addItem(self._epochs, len(panels), 1)
        self._epochs.linkToView(self.panels[-1].view)
        for panel in self.panels[1:]:
            panel.view.setXLink(self.panels[0].view)
        self.canvas.picked.connect(self._pick)
        self.canvas.zoomed.connect(self._zoom)
        self.canvas.reset.connect(self.show_all)
        self._action("Show all epochs", "A").triggered.connect(self.show_all)

    @property
    def cursor_epoch(self) -> int | None:
        """The epoch in view, or None."""
        return self._cursor

    def set_history(self, history: History) -> None:
        """Show the epochs of a run so far, in place of what was shown."""
        another = history.epochs != self._history.epochs
        self._history = history
        if another or not self._zoomed:
            self.show_all()
        end = history.number[history.warmup].max(initial=0) + 0.5
        for panel in self.panels:
            panel.warmup.setRegion((0.5, end))
            panel.warmup.setVisible(bool(history.warmup.any()))
        self._draw(history)
        self._move_cursor()
        self._refresh_legend()

    def set_cursor(self, epoch: int | None) -> None:
        """Put the cursor at an epoch, or away. Emits nothing."""
        if epoch != self._cursor:
            self._cursor = epoch
            self._move_cursor()

    def show_all(self) -> None:
        """Undo all zooming."""
        self._zoomed = False
        last = max(self._history.epochs, int(self._history.number.max(initial=1)))
        view = self.panels[0].view
        view.setLimits(xMin=0.5, xMax=last + 0.5, minXRange=min(last, 4))
        view.setXRange(0.5, last + 0.5, padding=0)

    def _add_panel(self, row: int, label: str, stretch: int) -> Panel:
        view = pg.ViewBox(enableMenu=False, enableMouse=False, defaultPadding=0)
        view.disableAutoRange()
        scale = pg.AxisItem("left", maxTickLength=4)
        scale.setWidth(AXIS)
        scale.enableAutoSIPrefix(False)
        scale.setLabel(label)
        scale.setStyle(maxTickLevel=0, tickTextOffset=3)
        scale.linkToView(view)
        warmup = pg.LinearRegionItem(movable=False, pen=pg.mkPen(None))
        warmup.setZValue(-10)
        cursor = pg.InfiniteLine(angle=90)
        cursor.setZValue(10)
        cursor.hide()
        for item in (warmup, cursor):
            view.addItem(item, ignoreBounds=True)
        self.canvas.addItem(scale, row, 0)
        self.canvas.addItem(view, row, 1)
        self.canvas.ci.layout.setRowStretchFactor(row, stretch)
        self.canvas.ci.layout.setRowSpacing(row, GAP)
        return Panel(view, scale, warmup, cursor)

    def _action(self, text: str, key: str = "") -> QAction:
        action = QAction(text, self)
        if key:
            action.setShortcut(QKeySequence(key))
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        self.addAction(action)
        return action

    def _pick(self, place: QPointF) -> None:
        if not len(self._history.number):
            return
        x = self.panels[0].view.mapSceneToView(place).x()
        epoch = int(self._history.number[np.abs(self._history.number - x).argmin()])
        if epoch != self._cursor:
            self.set_cursor(epoch)
            self.epoch_picked.emit(epoch)

    def _zoom(self, place: QPointF, factor: float) -> None:
        view = self.panels[0].view
        view.scaleBy(x=factor, center=view.mapSceneToView(place))
        self._zoomed = True

    def _move_cursor(self) -> None:
        for panel in self.panels:
            panel.cursor.setVisible(self._cursor is not None)
            if self._cursor is not None:
                panel.cursor.setPos(self._cursor)

    def _show_lower(self, shown: bool) -> None:
        """Show or leave out the second panel."""
        panel, grid = self.panels[1], self.canvas.ci.layout
        panel.view.setVisible(shown)
        panel.scale.setVisible(shown)
        grid.setRowMaximumHeight(1, 1e6 if shown else 0)
        grid.setRowSpacing(0, GAP if shown else 0)

    def _dress(self, colours: Sheet) -> None:
        super()._dress(colours)
        dress_axes([self._epochs, *(panel.scale for panel in self.panels)], colours)
        for panel in self.panels:
            panel.warmup.setBrush(pg.mkBrush(colours.shade))
            panel.cursor.setPen(pen(colours.ink, 1))
        self._refresh_legend()

    def _draw(self, history: History) -> None:
        """Show what the panels are for."""
        raise NotImplementedError

    def _refresh_legend(self) -> None:
        raise NotImplementedError


class RecallSlopePlot(EpochPlot):
    """Recall of every epoch above its fitted slope β and the threshold γ below which masks are updated.

    Triangles and dots stand at the epochs that updated masks; the thick line on the recalls is the fit
    of the epoch in view, or of the newest. Without a slope the lower panel is left out.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        panels = [("recall", 3), ("slope β<br>10⁻³/epoch", 2)]
        super().__init__("recall-slope-plot", panels, parent)
        above, below = (panel.view for panel in self.panels)
        # Thousandths are what slopes are made of, and leave their numbers short.
        self.panels[1].scale.setScale(1000)
        self.zero = pg.InfiniteLine(angle=0, pos=0)
        below.addItem(self.zero, ignoreBounds=True)
        self.word = pg.TextItem("warm-up", anchor=(0, 0))
        self.word.setFont(font())
        above.addItem(self.word, ignoreBounds=True)
        above.sigResized.connect(self._fit_word)
        above.sigXRangeChanged.connect(self._fit_word)
        self.fit = pg.PlotCurveItem(antialias=True)
        above.addItem(self.fit)
        self.recall = Curve(above)
        self.gamma = Curve(below, dashed=True)
        self.slope = Curve(below)
        self.updates = marks(above, "t1")
        self.updated_slopes = marks(below, "o")
        self.updated_slopes.setZValue(-1)  # a halo, through which many updates let the line be seen
        self._finish()

    def _draw(self, history: History) -> None:
        updated, size = history.updated, _mark_size(len(history.number))
        low, high = tenth_limits(history.recall)
        floor = low - 0.14 * (high - low) if history.modulated else low  # room for the triangles
        self.panels[0].view.setYRange(floor, high, padding=0)
        self.panels[1].view.setYRange(*slope_limits(history), padding=0)
        self.word.setPos(0.5, high)
        self._fit_word()
        self.recall.set(history.number, history.recall)
        self.slope.set(history.number, history.slope)
        self.gamma.set(history.number, history.gamma)
        marked = history.number[updated]
        self.updates.setData(marked, np.full(len(marked), (floor + low) / 2), size=size)
        sloped = updated & np.isfinite(history.slope)
        self.updated_slopes.setData(history.number[sloped], history.slope[sloped], size=size)
        self._show_lower(_any(history.slope) or _any(history.gamma))

    def _fit_word(self) -> None:
        """Name the warm-up where its area is wide enough for the word."""
        view = self.panels[0].view
        (left, right), (_, end) = view.viewRange()[0], self.panels[0].warmup.getRegion()
        room = (end - max(left, 0.5)) / (right - left) * view.width()
        fits = left <= 0.5 and room >= self.word.boundingRect().width()
        self.word.setVisible(bool(self._history.warmup.any() and fits))

    def _move_cursor(self) -> None:
        super()._move_cursor()
        at = math.inf if self._cursor is None else self._cursor
        row = int(np.searchsorted(self._history.number, at, side="right")) - 1
        epochs, recalls = self._history.fit(row) if row >= 0 else (np.empty(0), np.empty(0))
        self.fit.setVisible(_any(recalls))
        self.fit.setData(epochs if _any(recalls) else [], recalls if _any(recalls) else [])

    def _dress(self, colours: Sheet) -> None:
        super()._dress(colours)
        self.word.setColor(colours.faint)
        self.zero.setPen(pen(colours.faint, 1))
        self.fit.setPen(pen(colours.measured, 4, alpha=0.6))
        self.recall.dress(colours.ink)
        self.slope.dress(colours.measured)
        self.gamma.dress(colours.ink)
        for updates in (self.updates, self.updated_slopes):
            updates.setBrush(pg.mkBrush(colours.added))

    def _refresh_legend(self) -> None:
        history, colours = self._history, self._sheet
        entries = [
            (_any(history.recall), (LINE, colours.ink, "recall")),
            (_any(history.slope), (LINE, colours.measured, "slope β")),
            (_any(history.gamma), (DASHES, colours.ink, "γ")),
            (bool(history.updated.any()), (TRIANGLE, colours.added, "masks updated")),
        ]
        self._explain([entry for shown, entry in entries if shown])


class LossPlot(EpochPlot):
    """Training and validation loss above the validation Dice of every class."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("loss-plot", [("loss", 1), ("Dice", 1)], parent)
        above, below = (panel.view for panel in self.panels)
        self.training, self.validation = Curve(above), Curve(above)
        self.classes: list[Curve] = []
        self.mean = Curve(below, width=2)
        self.best = marks(below, "o")
        self.logarithmic = self._action("Logarithmic loss")
        self.logarithmic.setCheckable(True)
        self.logarithmic.toggled.connect(self._redraw)
        self._finish()

    def _draw(self, history: History) -> None:
        logarithmic = self.logarithmic.isChecked()
        losses = history.loss, history.validation_loss
        shown = [_logarithm(loss) if logarithmic else loss for loss in losses]
        for curve, loss in zip((self.training, self.validation), shown, strict=True):
            curve.set(history.number, loss)
        limits = _around(np.concatenate(shown))
        self.panels[0].view.setYRange(*limits, padding=0)
        self.panels[0].scale.setTicks([_decades(*limits)] if logarithmic else None)
        self._draw_dice(history)

    def _redraw(self) -> None:
        self._draw(self._history)

    def _draw_dice(self, history: History) -> None:
        several = len(history.classes) > 1
        while several and len(self.classes) < len(history.classes):
            self.classes.append(Curve(self.panels[1].view, width=1))
            self.classes[-1].dress(self._class_colour(len(self.classes) - 1))
        missing = np.full(len(history.number), np.nan)
        for index, curve in enumerate(self.classes):
            there = several and index < len(history.classes)
            curve.set(history.number, history.dice[:, index] if there else missing)
        mean = class_mean(history.dice)
        self.mean.set(history.number, mean)
        self.panels[1].view.setYRange(*tenth_limits(history.dice.ravel()), padding=0)
        best = (history.number == history.best) & np.isfinite(mean)
        self.best.setData(history.number[best], mean[best], size=7)
        self._show_lower(_any(mean))

    def _class_colour(self, index: int) -> str:
        return self._sheet.readable(class_colour(index))

    def _dress(self, colours: Sheet) -> None:
        super()._dress(colours)
        self.training.dress(colours.ink)
        for curve in (self.validation, self.mean):
            curve.dress(colours.measured)
        for index, curve in enumerate(self.classes):
            curve.dress(self._class_colour(index))
        self.best.setBrush(pg.mkBrush(colours.ground))
        self.best.setPen(pen(colours.measured, 1.5))

    def _refresh_legend(self) -> None:
        history, colours = self._history, self._sheet
        several, more = len(history.classes) > 1, len(history.classes) - NAMED
        entries = [
            (_any(history.loss), (LINE, colours.ink, "training")),
            (_any(history.validation_loss), (LINE, colours.measured, "validation")),
            (bool(history.best), ("○", colours.measured, f"best (epoch {history.best})")),
            *(
                (several and _any(history.dice), (LINE, self._class_colour(index), _short(name)))
                for index, name in enumerate(history.classes[:NAMED])
            ),
            (more > 0, ("", colours.ink, f"and {more} more")),
        ]
        self._explain([entry for shown, entry in entries if shown])


class PrecisionRecallPlot(Plot):
    """Precision against recall over all thresholds, with the point of the threshold in use."""

    threshold_picked = Signal(float)
    """The user pressed, or dragged to, the curve's place that is nearest to a threshold."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("precision-recall-plot", parent)
        self._curve = np.empty((0, 3))
        self.view = pg.ViewBox(enableMenu=False, enableMouse=False, defaultPadding=0)
        self.view.setRange(xRange=(0, 1.02), yRange=(0, 1.04), padding=0)
        self.scales = [pg.AxisItem(side, maxTickLength=4) for side in ("left", "bottom")]
        for scale, label in zip(self.scales, ("precision", "recall"), strict=True):
            scale.enableAutoSIPrefix(False)
            scale.setLabel(label)
            scale.setStyle(maxTickLevel=0, tickTextOffset=3)
            scale.linkToView(self.view)
        self.scales[0].setWidth(AXIS)
        # Legible where the dock is low, too.
        self.scales[0].setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")]])
        self.scales[1].setHeight(FOOT)
        self.scales[1].setStyle(hideOverlappingLabels=15)
        self.canvas.addItem(self.scales[0], 0, 0)
        self.canvas.addItem(self.view, 0, 1)
        self.canvas.addItem(self.scales[1], 1, 1)
        self.curve = Curve(self.view, dots=False)
        self.named = marks(self.view, "o")
        self.words = [pg.TextItem(f"T {t:g}", anchor=(1.1, -0.1)) for t in THRESHOLDS]
        for word in self.words:
            word.setFont(font())
            self.view.addItem(word, ignoreBounds=True)
        self.point = marks(self.view, "o")
        self.canvas.picked.connect(self._pick)
        self.legend.hide()
        self.set_curve(*np.empty((3, 0)))
        self._finish()

    def set_curve(self, precision: Floats, recall: Floats, thresholds: Floats) -> None:
        """Show a curve: precision, recall 0…1 and the thresholds they belong to, each (k,).

        Places where one of them is NaN are gaps. The point stays where it is.

        Raises:
            InputError: the three have different lengths.
        """
        if not len(precision) == len(recall) == len(thresholds):
            raise InputError(
                "a precision-recall curve needs as many precisions as recalls and thresholds; these are"
                f" {len(precision)}, {len(recall)} and {len(thresholds)}."
            )
        # Without a true pixel recall is nowhere defined, and precision 0 everywhere.
        self.curve.set(np.asarray(recall), np.where(np.isfinite(recall), precision, np.nan))
        columns = np.stack([recall, precision, thresholds], axis=1).astype(np.float64)
        self._curve = columns[np.isfinite(columns).all(axis=1)]
        self._name_thresholds()

    def set_point(self, recall: float, precision: float) -> None:
        """Move the point; it goes away where one of the two is NaN."""
        there = math.isfinite(recall) and math.isfinite(precision)
        self.point.setData([recall] if there else [], [precision] if there else [])

    def _name_thresholds(self) -> None:
        """Put a dot and a number where the curve passes the round thresholds."""
        places = []
        for threshold, word in zip(THRESHOLDS, self.words, strict=True):
            distance = np.abs(self._curve[:, 2] - threshold)
            there = bool(len(distance) and distance.min() <= 0.02)
            word.setVisible(there)
            if there:
                places.append(self._curve[distance.argmin(), :2])
                word.setPos(*places[-1])
        self.named.setData(*(np.array(places).T if places else ([], [])))

    def _pick(self, place: QPointF) -> None:
        if len(self._curve):
            at = self.view.mapSceneToView(place)
            distance = np.hypot(self._curve[:, 0] - at.x(), self._curve[:, 1] - at.y())
            self.threshold_picked.emit(float(self._curve[distance.argmin(), 2]))

    def _dress(self, colours: Sheet) -> None:
        super()._dress(colours)
        dress_axes(self.scales, colours)
        self.curve.dress(colours.measured)
        self.named.setBrush(pg.mkBrush(colours.measured))
        self.named.setSize(5)
        for word in self.words:
            word.setColor(colours.ink)
        self.point.setBrush(pg.mkBrush(colours.ink))
        self.point.setPen(pen(colours.ground, 1.5))
        self.point.setSize(11)


class EpochAxis(pg.AxisItem):  # type: ignore[misc]
    """The axis of epochs, which are whole and begin with 1."""

    def __init__(self) -> None:
        super().__init__("bottom", maxTickLength=4)
        self.enableAutoSIPrefix(False)
        self.setLabel("epoch")
        self.setStyle(tickTextOffset=2, hideOverlappingLabels=15)
        self.setHeight(FOOT)

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:  # noqa: N802
        """Steps of 1, 2, 5, 10 … that leave each number its room."""
        room = max(size / 40, 1)
        step = next(s for s in _round_numbers() if (high - low) / s <= room)
        first = math.ceil(low / step) * step
        values = [float(v) for v in range(max(first, step), math.floor(high) + 1, step)]
        return [(float(step), [1.0, *values] if low <= 1 < step and step >= 5 else values)]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:  # noqa: N802
        """Numbers without a fraction."""
        return [f"{value:.0f}" for value in values]


def _mark_size(epochs: int) -> float:
    """Pixels of a mark, so that neighbours can be told apart as long as that is possible."""
    return 9.0 if epochs <= 40 else 7.0 if epochs <= 100 else 5.0


def _any(values: Floats) -> bool:
    return bool(np.isfinite(values).any())


def _around(values: Floats) -> tuple[float, float]:
    """Limits around values, with a margin."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high), 1e-6)
    margin = 0.06 * (high - low) if high - low > 1e-6 * size else 0.05 * size
    return low - margin, high + margin


def _logarithm(values: Floats) -> Floats:
    """Of base 10; NaN where there is none."""
    return np.log10(np.where(values > 0, values, np.nan))


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks between two logarithms: where they are, and what they say."""
    first, last = math.floor(low), math.ceil(high)
    powers = range(first, last + 1, max((last - first) // 4, 1))
    for digits in ((1,), (1, 2, 5), range(1, 10)):
        ticks = [(math.log10(d) + k, f"{float(f'{d}e{k}'):g}") for k in powers for d in digits]
        within = [tick for tick in ticks if low <= tick[0] <= high]
        if len(within) >= 3:
            break
    return within


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}"


def _round_numbers() -> Iterator[int]:
    for power in count():
        yield from (factor * 10**power for factor in (1, 2, 5))
