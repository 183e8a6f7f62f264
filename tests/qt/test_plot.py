"""Plots in a dock: what they show where, what a click says, and that nothing of them stays."""

import gc
import os
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import qtpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_epochs import event, plain, smm
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QColor, QContextMenuEvent, QMouseEvent, QPalette, QWheelEvent
from qtpy.QtWidgets import QApplication, QWidget

import engine
from engine.errors import InputError
from engine.figures.colours import ADDED, CLASSES
from engine.figures.epochs import History
from napari_smm.qt.canvas import pg
from napari_smm.qt.plot import EpochAxis, LossPlot, PrecisionRecallPlot, RecallSlopePlot
from napari_smm.sheet import DARK, LIGHT, contrast

ROOT = Path(engine.__file__).parents[1]
SIZE = (360, 220)
UPDATES = {4, 6, 7}
LEFT, NONE, CTRL = (
    Qt.MouseButton.LeftButton,
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.ControlModifier,
)


@pytest.fixture
def shown(qtbot):
    """Put a plot on the screen at the size it has in a dock."""

    def show(plot):
        qtbot.addWidget(plot)
        plot.resize(*SIZE)
        with qtbot.waitExposed(plot):
            plot.show()
        QApplication.processEvents()
        return plot

    return show


@pytest.fixture
def recall(shown):
    plot = RecallSlopePlot()
    plot.set_history(smm(10, 12, UPDATES))
    return shown(plot)


def place(plot, epoch, panel=0, share=0.5):
    """Where an epoch is in the canvas, at a share of a panel's height from above."""
    view = plot.panels[panel].view
    (_, _), (low, high) = view.viewRange()
    return plot.canvas.mapFromScene(view.mapViewToScene(QPointF(epoch, high - share * (high - low))))


def xy(curve):
    """What a curve shows, (n, 2)."""
    x, y = curve.line.getData()
    return np.stack([x, y], axis=1) if x is not None else np.empty((0, 2))


def assert_colour(pixel, colour):
    """Within what a screen of 16 bits can show."""
    assert QColor(pixel).getRgb()[:3] == pytest.approx(QColor(colour).getRgb()[:3], abs=8)


def words(plot):
    """What the legend says."""
    text = plot.legend.text()
    while "<" in text:
        start = text.index("<")
        text = text[:start] + text[text.index(">", start) + 1 :]
    return text.replace("&nbsp;", " ").split()


def wheel(plot, where, turns, modifiers):
    """Turn the wheel over a place in the canvas. Returns whether the plot took it."""
    target = plot.canvas.viewport()
    turned = QWheelEvent(
        QPointF(where), QPointF(target.mapToGlobal(where)), QPoint(), QPoint(0, 120 * turns),
        Qt.MouseButton.NoButton, modifiers, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(target, turned)
    QApplication.processEvents()
    return turned.isAccepted()


# What stands where


def test_plots_can_be_found_by_name(qtbot):
    plots = [RecallSlopePlot(), LossPlot(), PrecisionRecallPlot()]
    for plot in plots:
        qtbot.addWidget(plot)
    assert [p.objectName() for p in plots] == ["recall-slope-plot", "loss-plot", "precision-recall-plot"]


def test_recall_slope_and_threshold_stand_at_their_epochs(recall):
    n = np.arange(1, 11)
    np.testing.assert_allclose(xy(recall.recall), np.stack([n, n / 24], axis=1))
    np.testing.assert_allclose(xy(recall.slope)[1:], np.stack([n[1:], np.full(9, 1 / 24)], axis=1))
    np.testing.assert_allclose(xy(recall.gamma)[1:, 1], (12 - n[1:]) / 10 / 12)
    assert np.isnan(xy(recall.slope)[0, 1])


def test_updates_are_marked_on_the_axis_and_on_the_slope(recall):
    x, y = recall.updates.getData()
    (low, _) = recall.panels[0].view.viewRange()[1]
    assert set(x) == UPDATES
    assert (low < y).all()
    assert (y < recall._history.recall.min()).all()
    x, y = recall.updated_slopes.getData()
    assert set(x) == UPDATES
    np.testing.assert_allclose(y, 1 / 24)
    pixels = recall.grab().toImage()
    where = recall.canvas.mapTo(recall, place(recall, 6, share=0.93))
    assert_colour(pixels.pixel(where), ADDED)


def test_the_epochs_run_to_the_configured_number_in_both_panels(recall):
    for panel in recall.panels:
        assert panel.view.viewRange()[0] == pytest.approx([0.5, 12.5])
    recall.set_history(smm(3, 200))
    for panel in recall.panels:
        assert panel.view.viewRange()[0] == pytest.approx([0.5, 200.5])


def test_panels_stand_exactly_one_above_another(recall):
    above, below = (place(recall, 7, panel) for panel in (0, 1))
    assert above.x() == below.x()
    assert above.y() < below.y()


def test_all_that_was_measured_is_in_view(recall):
    for panel, curves in ((0, [recall.recall]), (1, [recall.slope, recall.gamma])):
        low, high = recall.panels[panel].view.viewRange()[1]
        for curve in curves:
            values = xy(curve)[:, 1]
            assert low <= np.nanmin(values) <= np.nanmax(values) <= high


def test_the_warm_up_is_shaded_and_named(recall):
    for panel in recall.panels:
        assert panel.warmup.isVisible()
        assert panel.warmup.getRegion() == (0.5, 2.5)
    assert recall.word.toPlainText() == "warm-up"
    assert not recall.word.isVisible()  # 2 of 12 epochs are too narrow for it
    recall.set_history(smm(10, 12, warmup=4))
    assert recall.word.isVisible()
    recall.set_history(plain(10, 12))
    assert not recall.word.isVisible()
    assert not recall.panels[0].warmup.isVisible()


def test_the_fit_is_that_of_the_epoch_in_view(recall):
    x, y = recall.fit.getData()
    np.testing.assert_allclose((x, y), [[1, 10], [1 / 24, 10 / 24]])
    recall.set_cursor(5)
    x, y = recall.fit.getData()
    np.testing.assert_allclose((x, y), [[1, 5], [1 / 24, 5 / 24]])
    recall.set_cursor(1)
    assert not recall.fit.isVisible()
    recall.set_history(replace(smm(10, 12), queue=3))
    recall.set_cursor(None)
    assert recall.fit.isVisible()
    assert recall.fit.getData()[0].tolist() == [8, 10]


def test_plain_training_shows_recall_only(shown, recall):
    assert words(recall) == ["━", "recall", "━", "slope", "β", "╍╍", "γ", "▲", "masks", "updated"]
    plot = RecallSlopePlot()
    plot.set_history(plain(10, 12))
    shown(plot)
    assert words(plot) == ["━", "recall"]
    assert not plot.panels[1].view.isVisible()
    assert not plot.panels[1].scale.isVisible()
    assert plot.panels[0].view.height() > 0.7 * plot.canvas.height()
    plot.set_history(smm(10, 12))
    QApplication.processEvents()
    assert plot.panels[1].view.isVisible()
    assert plot.panels[1].view.height() > 0.25 * plot.canvas.height()
    assert words(plot) == ["━", "recall", "━", "slope", "β", "╍╍", "γ"]


def test_axes_say_what_they_are_of(recall, shown):
    assert recall.panels[0].scale.labelText == "recall"
    assert "slope β" in recall.panels[1].scale.labelText
    assert "10⁻³/epoch" in recall.panels[1].scale.labelText
    assert recall.panels[1].scale.scale == 1000
    assert recall._epochs.labelText == "epoch"
    assert [scale.labelText for scale in shown(PrecisionRecallPlot()).scales] == ["precision", "recall"]


@pytest.mark.both_bindings
@pytest.mark.parametrize("plot_class", [RecallSlopePlot, LossPlot])
def test_before_the_first_epoch_nothing_is_shown(shown, plot_class):
    plot = plot_class()
    plot.set_history(History.of([]))
    shown(plot)
    assert words(plot) == []
    assert plot.panels[0].view.viewRange()[0] == pytest.approx([0.5, 1.5])
    plot.set_history(smm(3, 8))
    plot.set_history(History.of([]))
    assert words(plot) == []
    assert not plot.panels[0].warmup.isVisible()


def test_what_was_not_measured_is_a_gap_and_a_lone_value_a_dot(shown):
    values = [0.5 if n not in (40, 42) else None for n in range(1, 61)]
    plot = RecallSlopePlot()
    plot.set_history(History.of([event(n, 60, recall=v) for n, v in enumerate(values, start=1)]))
    shown(plot)
    assert np.flatnonzero(np.isnan(xy(plot.recall)[:, 1])).tolist() == [39, 41]
    assert plot.recall.dots.getData()[0].tolist() == [41]
    plot.set_history(smm(10, 12))
    assert plot.recall.dots.getData()[0].tolist() == list(range(1, 11))


numbers = st.none() | st.floats(-1, 1) | st.just("inf") | st.just("-inf")
losses = st.none() | st.floats(-1e6, 1e6) | st.just("inf")
scores = st.none() | st.floats(0, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(scores, numbers, numbers, losses, losses, scores, st.booleans()), max_size=8))
def test_any_history_can_be_shown(qtbot, rows):
    records = [
        event(
            n, 12, recall=recall, slope=slope, gamma=gamma, loss=loss, updated=updated, warmup=n < 3,
            validation={"loss": other, "dice": [dice], "recall": [dice], "precision": [None], "skipped": [0]},
        )
        for n, (recall, slope, gamma, loss, other, dice, updated) in enumerate(rows, start=1)
    ]  # fmt: skip
    for plot in (RecallSlopePlot(), LossPlot()):
        plot.resize(*SIZE)
        plot.set_history(History.of(records))
        plot.set_cursor(3)
        if isinstance(plot, LossPlot):
            plot.grab()
            plot.logarithmic.setChecked(True)
        plot.grab()
        plot.deleteLater()


# The mouse


@pytest.mark.both_bindings
@pytest.mark.parametrize("panel", [0, 1])
@pytest.mark.parametrize("epoch", [1, 4, 10])
def test_a_click_picks_the_epoch_under_it(qtbot, recall, epoch, panel):
    with qtbot.waitSignal(recall.epoch_picked) as picked:
        qtbot.mouseClick(recall.canvas.viewport(), LEFT, pos=place(recall, epoch + 0.3, panel))
    assert picked.args == [epoch]
    assert recall.cursor_epoch == epoch


def test_a_click_beyond_the_newest_epoch_picks_the_newest(qtbot, recall):
    with qtbot.waitSignal(recall.epoch_picked) as picked:
        qtbot.mouseClick(recall.canvas.viewport(), LEFT, pos=place(recall, 12))
    assert picked.args == [10]


@pytest.mark.both_bindings
def test_dragging_picks_every_epoch_once(qtbot, recall):
    heard = []
    recall.epoch_picked.connect(heard.append)
    view = recall.canvas.viewport()
    qtbot.mousePress(view, LEFT, pos=place(recall, 2))
    for x in np.arange(2, 7.01, 0.25):
        moved = QPointF(place(recall, x))
        drag = QMouseEvent(
            QEvent.Type.MouseMove, moved, QPointF(view.mapToGlobal(moved.toPoint())), LEFT, LEFT, NONE
        )
        QApplication.sendEvent(view, drag)
    qtbot.mouseRelease(view, LEFT, pos=place(recall, 7))
    assert heard == [2, 3, 4, 5, 6, 7]


@pytest.mark.both_bindings
def test_other_buttons_and_mere_movement_pick_nothing(qtbot, recall):
    with qtbot.assertNotEmitted(recall.epoch_picked):
        qtbot.mouseClick(recall.canvas.viewport(), Qt.MouseButton.MiddleButton, pos=place(recall, 4))
        qtbot.mouseMove(recall.canvas.viewport(), place(recall, 6))
        QApplication.processEvents()


@pytest.mark.both_bindings
def test_without_epochs_a_click_says_nothing(qtbot, shown):
    plot = shown(RecallSlopePlot())
    with qtbot.assertNotEmitted(plot.epoch_picked):
        qtbot.mouseClick(plot.canvas.viewport(), LEFT, pos=place(plot, 1))


def test_the_cursor_stands_in_all_panels_and_says_nothing(qtbot, recall):
    with qtbot.assertNotEmitted(recall.epoch_picked):
        recall.set_cursor(4)
    assert [panel.cursor.value() for panel in recall.panels] == [4, 4]
    assert all(panel.cursor.isVisible() for panel in recall.panels)
    recall.set_history(smm(11, 12))
    assert [panel.cursor.value() for panel in recall.panels] == [4, 4]
    recall.set_cursor(None)
    assert not any(panel.cursor.isVisible() for panel in recall.panels)


@pytest.mark.both_bindings
def test_the_wheel_alone_is_left_to_the_dock(recall):
    before = recall.panels[0].view.viewRange()
    assert not wheel(recall, place(recall, 6), 3, NONE)
    assert recall.panels[0].view.viewRange() == before


@pytest.mark.both_bindings
def test_ctrl_and_the_wheel_zoom_into_the_epochs_until_they_are_reset(qtbot, recall):
    heights = [panel.view.viewRange()[1] for panel in recall.panels]
    assert wheel(recall, place(recall, 6), 3, CTRL)
    near = recall.panels[0].view.viewRange()[0]
    assert 0.5 < near[0] < 6 < near[1] < 12.5
    assert recall.panels[1].view.viewRange()[0] == pytest.approx(near)
    assert [panel.view.viewRange()[1] for panel in recall.panels] == heights
    recall.set_history(smm(11, 12))
    assert recall.panels[0].view.viewRange()[0] == pytest.approx(near)
    qtbot.mouseDClick(recall.canvas.viewport(), LEFT, pos=place(recall, 6))
    assert recall.panels[0].view.viewRange()[0] == pytest.approx([0.5, 12.5])


def test_one_cannot_zoom_away(recall):
    for turns in (-9, -9, 50, 50, -100, -100):
        wheel(recall, place(recall, 6), turns, CTRL)
        low, high = recall.panels[0].view.viewRange()[0]
        assert 0.5 <= low < high <= 12.5
        assert high - low >= 3.99


def test_another_run_is_shown_whole(recall):
    wheel(recall, place(recall, 6), 3, CTRL)
    recall.set_history(smm(20, 100))
    assert recall.panels[0].view.viewRange()[0] == pytest.approx([0.5, 100.5])


@pytest.mark.both_bindings
def test_a_shows_all_epochs(qtbot, recall):
    wheel(recall, place(recall, 6), 3, CTRL)
    recall.activateWindow()
    recall.canvas.setFocus()
    qtbot.waitUntil(recall.canvas.hasFocus)
    qtbot.keyClick(recall.canvas, Qt.Key.Key_A)
    assert recall.panels[0].view.viewRange()[0] == pytest.approx([0.5, 12.5])


@pytest.mark.both_bindings
def test_the_menu_holds_what_the_plot_can_do_and_no_more(shown):
    plot, found = shown(LossPlot()), []

    def look():
        menu = QApplication.activePopupWidget()
        found.extend(action.text() for action in menu.actions())
        menu.close()

    QTimer.singleShot(100, look)
    where = QPoint(100, 80)
    view = plot.canvas.viewport()
    QApplication.sendEvent(
        view, QContextMenuEvent(QContextMenuEvent.Reason.Mouse, where, view.mapToGlobal(where))
    )
    assert found == ["Show all epochs", "Logarithmic loss"]


# Losses


def test_losses_and_dice_stand_at_their_epochs(shown):
    plot = LossPlot()
    plot.set_history(plain(8, 10))
    shown(plot)
    n = np.arange(1, 9)
    np.testing.assert_allclose(xy(plot.training), np.stack([n, 1 / n], axis=1))
    np.testing.assert_allclose(xy(plot.validation)[:, 1], 0.5)
    np.testing.assert_allclose(xy(plot.mean), np.stack([n, n / 10], axis=1))
    np.testing.assert_allclose(plot.best.getData(), [[8], [0.8]])
    assert words(plot) == ["━", "training", "━", "validation", "○", "best", "(epoch", "8)"]


def test_without_validation_there_is_no_second_panel(shown):
    plot = LossPlot()
    plot.set_history(History.of([event(n, 9, validation=None, best=False) for n in range(1, 6)]))
    shown(plot)
    assert words(plot) == ["━", "training"]
    assert not plot.panels[1].view.isVisible()


@pytest.mark.both_bindings
def test_every_class_has_a_line_a_colour_and_a_name(shown):
    validation = {"loss": 1.0, "dice": [0.9, None, 0.5], "recall": [1] * 3, "precision": [1] * 3}
    names = ["vein", "<b>artery & co</b>", "lesion"]
    records = [event(n, 5, validation=validation, added=[0] * 3) for n in range(1, 4)]
    plot = LossPlot()
    plot.set_history(History.of(records, names))
    shown(plot)
    np.testing.assert_allclose(xy(plot.classes[0])[:, 1], 0.9)
    assert len(xy(plot.classes[1])) == 0
    np.testing.assert_allclose(xy(plot.mean)[:, 1], 0.7)
    pens = [curve.line.opts["pen"].color().name() for curve in plot.classes]
    assert len(set(pens)) == 3
    assert all(contrast(pen, plot._sheet.ground) >= 3 for pen in pens)
    assert all(
        name in plot.legend.text() for name in ("vein", "&lt;b&gt;artery&nbsp;&amp;&nbsp;co", "lesion")
    )
    plot.set_history(plain(4, 5))
    assert all(len(xy(curve)) == 0 for curve in plot.classes)
    assert "vein" not in plot.legend.text()


def test_a_legend_of_many_classes_ends(shown):
    count = len(CLASSES) + 5
    validation = {"loss": 1.0, "dice": [0.5] * count, "recall": [1] * count, "precision": [1] * count}
    names = [f"a class with quite a long name, number {c}" for c in range(count)]
    plot = LossPlot()
    plot.set_history(History.of([event(1, 3, validation=validation, added=[0] * count)], names))
    shown(plot)
    assert words(plot)[-3:] == ["and", "5", "more"]
    assert plot.legend.height() < SIZE[1] / 2


@pytest.mark.both_bindings
def test_losses_can_be_shown_by_their_logarithms(shown):
    plot = LossPlot()
    plot.set_history(
        History.of([event(n, 5, loss=loss) for n, loss in enumerate([100.0, 1.0, 0.0, 0.01], 1)])
    )
    shown(plot)
    plot.logarithmic.setChecked(True)
    np.testing.assert_allclose(xy(plot.training)[:, 1], [2, 0, np.nan, -2])
    ticks = dict(plot.panels[0].scale._tickLevels[0])
    assert {0.0: "1", 2.0: "100", -2.0: "0.01"}.items() <= ticks.items()
    plot.logarithmic.setChecked(False)
    np.testing.assert_allclose(xy(plot.training)[:, 1], [100, 1, 0, 0.01])
    assert plot.panels[0].scale._tickLevels is None


# Precision and recall


def curve_of(thresholds):
    return 0.3 + 0.7 * thresholds, 1 - thresholds**2


@pytest.fixture
def trade(shown):
    plot = PrecisionRecallPlot()
    thresholds = np.linspace(0, 1, 101)
    plot.set_curve(*curve_of(thresholds), thresholds)
    return shown(plot)


def test_a_curve_stands_at_recall_and_precision(trade):
    precision, recall = curve_of(np.linspace(0, 1, 101))
    np.testing.assert_allclose(xy(trade.curve), np.stack([recall, precision], axis=1))
    (left, right), (low, high) = trade.view.viewRange()
    assert left <= 0 < 1 <= right
    assert low <= 0 < 1 <= high


def test_round_thresholds_are_named_on_the_curve(trade):
    precision, recall = curve_of(np.array([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(trade.named.getData(), [recall, precision])
    for word, x, y in zip(trade.words, recall, precision, strict=True):
        assert word.isVisible()
        assert (word.pos().x(), word.pos().y()) == pytest.approx((x, y))
    trade.set_curve(*(np.array([0.5]) for _ in range(3)))
    assert [word.isVisible() for word in trade.words] == [False, True, False]


def test_the_point_moves_and_leaves_where_it_is_undefined(trade):
    trade.set_point(0.75, 0.25)
    np.testing.assert_allclose(trade.point.getData(), [[0.75], [0.25]])
    trade.set_point(float("nan"), 0.5)
    assert len(trade.point.getData()[0]) == 0
    trade.set_point(1.0, 1.0)
    np.testing.assert_allclose(trade.point.getData(), [[1], [1]])


@pytest.mark.both_bindings
def test_a_click_picks_the_nearest_threshold(qtbot, trade):
    (precision,), (recall,) = curve_of(np.array([0.63]))
    where = trade.canvas.mapFromScene(trade.view.mapViewToScene(QPointF(recall, precision)))
    with qtbot.waitSignal(trade.threshold_picked) as picked:
        qtbot.mouseClick(trade.canvas.viewport(), LEFT, pos=where)
    assert picked.args[0] == pytest.approx(0.63, abs=0.03)


def test_undefined_precisions_are_gaps_and_cannot_be_picked(qtbot, shown):
    plot = PrecisionRecallPlot()
    nothing = np.full(3, np.nan)
    plot.set_curve(nothing, nothing, np.array([0.1, 0.5, 0.9]))
    shown(plot)
    assert not any(word.isVisible() for word in plot.words)
    with qtbot.assertNotEmitted(plot.threshold_picked):
        qtbot.mouseClick(plot.canvas.viewport(), LEFT, pos=QPoint(100, 100))


@pytest.mark.both_bindings
def test_a_curve_of_uneven_columns_is_refused(trade):
    with pytest.raises(InputError, match="3, 2 and 3"):
        trade.set_curve(np.zeros(3), np.zeros(2), np.zeros(3))


# Colours


@pytest.mark.both_bindings
@pytest.mark.parametrize("plot_class", [RecallSlopePlot, LossPlot, PrecisionRecallPlot])
@pytest.mark.parametrize("dark", [True, False])
def test_dark_and_light_by_request(shown, plot_class, dark):
    plot = shown(plot_class())
    plot.set_dark(not dark)
    plot.set_dark(dark)
    QApplication.processEvents()
    assert_colour(plot.canvas.grab().toImage().pixel(1, 1), plot._sheet.ground)
    assert plot._sheet.ink == (DARK if dark else LIGHT).ink
    axes = plot.scales if isinstance(plot, PrecisionRecallPlot) else [p.scale for p in plot.panels]
    assert all(axis.textPen().color().name() == plot._sheet.ink.lower() for axis in axes)


@pytest.mark.both_bindings
def test_the_palette_decides_unless_asked_otherwise(recall):
    palette = recall.palette()
    for ground in ("#23242b", "#ebe7e6", "#23242b"):
        palette.setColor(QPalette.ColorRole.Window, QColor(ground))
        recall.setPalette(palette)
        assert recall._sheet.ground == ground
        assert recall.recall.line.opts["pen"].color().name() == recall._sheet.ink.lower()
        assert contrast(recall._sheet.ink, ground) > 10
        assert recall._sheet.ink in recall.legend.text()
    recall.set_dark(False)
    assert recall._sheet == LIGHT


@pytest.mark.both_bindings
def test_a_window_s_style_sheet_decides_too(qtbot):
    """As napari's themes do."""
    window = QWidget()
    qtbot.addWidget(window)
    plot = RecallSlopePlot(window)
    for ground in ("#101820", "#f0f0e8"):
        window.setStyleSheet(f"QWidget {{ background-color: {ground}; }}")
        window.show()
        QApplication.processEvents()
        assert plot._sheet.ground == ground


# What it costs, and that it goes


@pytest.mark.both_bindings
def test_a_thousand_epochs_are_shown_quickly(shown):
    """10 ms are promised; ten times that here, for machines that do other things beside."""
    whole = smm(1000, 1000, range(201, 1000), warmup=200)
    for plot_class in (RecallSlopePlot, LossPlot):
        plot = plot_class()
        plot.set_history(whole)
        shown(plot)
        times = []
        for count in range(990, 1000):
            history = whole.until(count)
            begun = time.perf_counter()
            plot.set_history(history)
            plot.canvas.viewport().repaint()
            times.append(time.perf_counter() - begun)
        assert np.median(times) < 0.1


def test_the_point_moves_quickly(trade):
    """2 ms are promised; ten times that here."""
    begun = time.perf_counter()
    for step in range(100):
        trade.set_point(step / 100, 0.5)
    assert (time.perf_counter() - begun) / 100 < 0.02


@pytest.mark.both_bindings
@pytest.mark.parametrize("plot_class", [RecallSlopePlot, LossPlot, PrecisionRecallPlot])
def test_a_closed_plot_is_gone(qtbot, plot_class):
    gc.collect()
    windows = {id(widget) for widget in QApplication.topLevelWidgets()}
    dock = QWidget()
    plot = plot_class(dock)
    if plot_class is PrecisionRecallPlot:
        plot.set_curve(*np.full((3, 5), 0.5))
        plot.set_point(0.5, 0.5)
    else:
        plot.set_history(smm(10, 12, UPDATES))
        plot.set_cursor(4)
    plot.set_dark(True)
    dock.show()
    qtbot.waitExposed(dock)
    QApplication.processEvents()
    assert plot.findChildren(QTimer) == []
    parts = [weakref.ref(part) for part in (plot, plot.canvas, plot.canvas.scene(), plot.legend)]
    heard = []
    plot.destroyed.connect(lambda: heard.append(True))
    dock.close()
    dock.deleteLater()
    del plot, dock
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    gc.collect()
    assert heard == [True]
    assert [part() for part in parts] == [None] * 4
    assert {id(widget) for widget in QApplication.topLevelWidgets()} <= windows


@pytest.mark.both_bindings
def test_pyqtgraph_runs_on_the_window_s_binding():
    assert pg.Qt.QT_LIB == qtpy.API_NAME


@pytest.mark.both_bindings
@pytest.mark.skipif(not (find_spec("PyQt5") and find_spec("PyQt6")), reason="needs both bindings installed")
@pytest.mark.parametrize("api", ["pyqt5", "pyqt6"])
def test_the_binding_is_right_whichever_is_loaded_first(api):
    """pyqtgraph alone would take PyQt6; where it has taken another already, that is said."""
    code = (
        "import os, sys, engine.errors\n"
        "other = {'pyqt5': 'PyQt6', 'pyqt6': 'PyQt5'}[os.environ['QT_API']]\n"
        "import napari_smm.qt.plot, pyqtgraph, qtpy\n"
        "print(pyqtgraph.Qt.QT_LIB == qtpy.API_NAME, other in sys.modules)\n"
    )
    late = (
        "import os, qtpy.QtCore, engine.errors\n"
        "os.environ['PYQTGRAPH_QT_LIB'] = {'pyqt5': 'PyQt6', 'pyqt6': 'PyQt5'}[os.environ['QT_API']]\n"
        "import pyqtgraph\n"
        "try: import napari_smm.qt.plot\n"
        "except engine.errors.InputError as error: print(error)\n"
    )
    environment = {**os.environ, "QT_API": api, "QT_QPA_PLATFORM": "offscreen"}
    environment.pop("PYQTGRAPH_QT_LIB", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for script in (code, late)
    ]
    assert said[0] == "True False"
    assert "PYQTGRAPH_QT_LIB" in said[1]


@given(st.integers(1, 5000), st.floats(0, 1), st.integers(100, 900))
def test_epochs_on_the_axis_are_whole_and_keep_apart(qapp, last, zoom, size):
    axis = EpochAxis()
    low = 0.5 + zoom * max(last - 4, 0)
    ((step, ticks),) = axis.tickValues(low, last + 0.5, size)
    assert ticks
    assert all(tick == int(tick) and max(1, low) <= tick <= last + 0.5 for tick in ticks)
    assert axis.tickStrings(ticks, 1, step) == [str(int(tick)) for tick in ticks]
    apart = np.diff(ticks) * size / (last + 0.5 - low)
    assert apart.min(initial=np.inf) > 25
