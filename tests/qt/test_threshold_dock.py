"""The Threshold dock in a real viewer: on a watched run, and on layers of probabilities."""

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import torch
from napari.utils.key_bindings import KeyBinding
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit, QMessageBox, QToolButton
from runs import MadeRun, watched_item
from vispy.gloo.glir import GlirProgram

from engine import metrics
from napari_smm import masks
from napari_smm.layers import MARK, THRESHOLDED, contrast_band
from napari_smm.qt import keys, threshold_dock
from napari_smm.qt.calibration_choice import OPEN
from napari_smm.qt.threshold_dock import ThresholdDock
from napari_smm.readout import UNDEFINED, UNKNOWN

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is done in threads."""
CLASSES = ("core", "ring")
RATES = {"Precision": "precision", "Recall": "recall", "Dice": "dice", "FNR": "fnr", "FPR": "fpr"}
MARGIN = np.ones((24, 32), np.bool_)
MARGIN[:, 28:] = False


@pytest.fixture(autouse=True)
def kept_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mesa's software renderer crashes when a program is drawn after others of the same code were deleted.

    Plain napari shows it too: six image layers, removed from the lowest up.
    """
    monkeypatch.setattr(GlirProgram, "delete", lambda program: None)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any, home: Path) -> Iterator[ThresholdDock]:
    made = ThresholdDock(viewer)
    viewer.window.add_dock_widget(made, name="Threshold")
    yield made
    made.shut()


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    items = [
        watched_item("a", classes=2, valid=MARGIN),
        watched_item("b", classes=2),
        watched_item("v", "val", (16, 20), 2),
    ]
    return MadeRun(tmp_path / "run", items, epochs=5, classes=CLASSES).train(3).end("stopped", reason="x")


@pytest.fixture
def live(qtbot: QtBot, dock: ThresholdDock, run: MadeRun) -> ThresholdDock:
    """The dock with the run's newest epoch in it."""
    dock.session.watch(run.root)
    counted(qtbot, dock)
    return dock


def counted(qtbot: QtBot, dock: ThresholdDock) -> None:
    """Wait until layers and numbers are those of what is in view."""

    def known() -> None:
        subject = dock._source.subject()
        assert subject.shown is not None
        assert subject.several is not None
        assert UNKNOWN not in dock.readout.text()
        assert not dock.workbench.sync.busy
        assert dock._source.layer("prediction") is not None

    qtbot.waitUntil(known, timeout=PATIENCE)


def at_rest(qtbot: QtBot, dock: ThresholdDock) -> Any:
    """Wait for the outline, and return what it shows."""

    def there() -> None:
        assert dock._outline.layer() is not None
        assert not dock._outline._rest.isActive()
        assert not dock._jobs.busy

    qtbot.waitUntil(there, timeout=PATIENCE)
    return dock._outline.layer()


def cells(dock: ThresholdDock) -> dict[str, list[str]]:
    """The readout's rows by their first cell, as plain text."""
    rows = re.findall(r"<tr>(.*?)</tr>", dock.readout.text())
    found = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]
    plain = [[html.unescape(re.sub("<.*?>|&nbsp;", "", cell)).strip() for cell in row] for row in found]
    return {row[0]: row[1:] for row in plain}


def scores(p: np.ndarray, truth: np.ndarray, valid: np.ndarray | None, threshold: float) -> dict[str, float]:
    """The rates of engine.metrics for one image and class."""
    batch = [torch.from_numpy(part)[None, None] for part in (p.astype(np.float64) >= threshold, truth)]
    seen = None if valid is None else torch.from_numpy(valid)[None, None]
    counts = metrics.confusion(*batch, valid=seen)
    return {words: float(getattr(metrics, name)(counts)[0, 0]) for words, name in RATES.items()}


def text(rate: float) -> str:
    return UNDEFINED if np.isnan(rate) else f"{rate:.3f}"


def test_the_numbers_are_those_of_the_metrics(qtbot: QtBot, live: ThresholdDock, run: MadeRun) -> None:
    for cls in range(2):
        live.session.set_view(cls=cls)
        counted(qtbot, live)
        p = [probability[2, cls] for probability in run.probability]
        equal = float(p[0][3, 4])  # of float16, so that a p is exactly T
        for threshold in (0.0, 0.25, equal, 0.5, 0.999, 1.0):
            live.row.slider.setValue(threshold)
            assert live.session.view.threshold == threshold
            found = cells(live)
            each = [
                scores(p[number], run.items[number].truth[cls], run.items[number].valid, threshold)
                for number in (0, 1)
            ]
            for words in RATES:
                assert found[words][0] == text(each[0][words]), (words, threshold)
                rates = np.array([one[words] for one in each])
                if not np.isnan(rates).any():
                    assert found[words][1] == text(rates.mean()), (words, threshold)
    assert "2 training images" in live.readout.text()


def test_a_mean_leaves_out_what_is_not_defined_and_says_so(
    qtbot: QtBot, dock: ThresholdDock, tmp_path: Path
) -> None:
    run = MadeRun(tmp_path / "run", [watched_item("a"), watched_item("b")])
    run.probability[1][0] = 0.25  # nothing of it passes 0.5, and its precision is 0 / 0
    dock.session.watch(run.train(1).end().root)
    counted(qtbot, dock)
    dock.set_threshold(0.5)
    first, mean = cells(dock)["Precision"]
    assert mean == f"of 1: {first}"
    dock.session.set_view(item=1)
    counted(qtbot, dock)
    assert cells(dock)["Precision"][0] == UNDEFINED


def test_numbers_are_never_those_of_something_else(qtbot: QtBot, live: ThresholdDock) -> None:
    before = cells(live)
    live.workbench._clock.stop()  # nothing new is read
    live.session.set_view(item=2)
    assert cells(live)["Dice"][0] == UNKNOWN
    assert not live.plot.curve.line.yData.size
    live.session.set_view(item=0)
    assert cells(live) == before
    live.session.show_epoch(1)
    assert cells(live)["Dice"] == [UNKNOWN, UNKNOWN]
    live.workbench._clock.start()
    counted(qtbot, live)
    assert cells(live) != before


@pytest.mark.both_bindings
def test_a_threshold_for_each_class(qtbot: QtBot, live: ThresholdDock) -> None:
    row = live.row
    assert [row.classes.itemText(at) for at in range(row.classes.count())] == list(CLASSES)
    row.slider.setValue(0.2)
    row.classes.setCurrentIndex(1)
    row.classes.activated.emit(1)
    assert row.slider.value() == 0.5
    row.field.setValue(0.8)
    counted(qtbot, live)
    assert tuple(live.workbench.sync.layer("prediction").contrast_limits) == pytest.approx(contrast_band(0.8))
    row.classes.activated.emit(0)
    assert (row.slider.value(), row.field.value()) == (0.2, 0.2)
    assert live.session.view.thresholds == {0: 0.2, 1: 0.8}


def test_t_is_exact_and_shown_with_as_many_digits_as_it_needs(live: ThresholdDock) -> None:
    third = 1 / 3
    live.row.slider.setValue(third)
    assert live.session.view.threshold == third
    assert live.row.slider.value() == third
    assert live.row.field.text() == live.row.locale().toString(third, "f", 6)
    live.row.field.clearFocus()
    assert live.session.view.threshold == third
    live.row.field.setValue(0.25)
    assert live.row.slider.value() == 0.25
    assert live.row.field.text() == live.row.locale().toString(0.25, "f", 3)


def test_the_point_goes_along_the_curve_and_a_click_takes_t_there(qtbot: QtBot, live: ThresholdDock) -> None:
    words = [live.curve_of.itemText(at) for at in range(live.curve_of.count())]
    assert words == ["This image", "2 training images, all pixels"]
    for index in range(2):
        live.curve_of.setCurrentIndex(index)
        live.curve_of.activated.emit(index)
        live.plot.threshold_picked.emit(0.375)
        assert live.session.view.threshold == 0.375
        (recall,), (precision,) = live.plot.point.getData()
        curve = np.column_stack([live.plot.curve.line.xData, live.plot.curve.line.yData])
        assert np.abs(curve - (recall, precision)).sum(1).min() < 0.02
        if not index:
            assert text(recall) == cells(live)["Recall"][0]
            assert text(precision) == cells(live)["Precision"][0]


def test_images_and_epochs_are_gone_through(qtbot: QtBot, live: ThresholdDock) -> None:
    go, session = live.navigation, live.session
    assert [go.item.itemText(at) for at in range(3)] == ["train · a", "train · b", "val · v"]
    assert go.epoch.text() == "3 of 5"
    assert go.follow.isChecked()
    press(live, "previous-epoch")
    assert (session.epoch, go.epoch.text(), go.follow.isChecked()) == (2, "2 of 5", False)
    press(live, "previous-epoch")
    press(live, "previous-epoch")
    assert session.epoch == 1
    qtbot.mouseClick(go.follow, Qt.MouseButton.LeftButton)
    assert (session.epoch, session.view.follow) == (3, True)
    qtbot.mouseClick(go.follow, Qt.MouseButton.LeftButton)
    assert (session.epoch, session.view.follow) == (3, False)
    press(live, "previous-image")
    assert go.item.currentText() == "val · v"
    counted(qtbot, live)
    assert cells(live)["Dice"] == [cells(live)["Dice"][0]]  # one validation image is no set
    press(live, "next-image")
    assert session.view.item == 0
    go.item.setCurrentIndex(1)
    go.item.activated.emit(1)
    assert session.view.item == 1


def press(dock: ThresholdDock, name: str) -> None:
    button = dock.findChild(QToolButton, f"threshold-{name}")
    assert button is not None
    button.click()


def test_boxes_and_layers_follow_each_other(qtbot: QtBot, live: ThresholdDock, viewer: Any) -> None:
    boxes = live.overlays
    for role in ("image", "truth", "prediction", "false negatives", "recall slope"):
        layer = live.workbench.sync.layer(role)
        assert boxes.box(role).isChecked() == layer.visible
        layer.visible = not layer.visible
        assert boxes.box(role).isChecked() == layer.visible
        before = layer.visible
        boxes.box(role).click()
        assert layer.visible == boxes.box(role).isChecked() == (not before)
    viewer.layers.remove(live.workbench.sync.layer("truth"))
    assert not boxes.box("truth").isEnabled()
    assert not boxes.box("truth").isChecked()
    boxes.toggle("truth")
    live.session.set_view(cls=1)
    assert boxes.swatches["prediction"][0].colours == ("#CC79A7",)


def test_the_outline_follows_once_the_hand_rests(
    qtbot: QtBot, live: ThresholdDock, viewer: Any, run: MadeRun
) -> None:
    box = live.overlays.box("outline")
    assert box.objectName() == "threshold-outline"
    count = len(viewer.layers)
    active = viewer.layers.selection.active
    box.click()
    layer = at_rest(qtbot, live)
    assert layer.name == "outline"
    assert viewer.layers.selection.active is active
    for change in ({"item": 1}, {"cls": 1}, {"epoch": 2, "follow": False}, {}):
        live.session.set_view(**change)
        live.set_threshold(0.3 + 0.1 * len(change))
        view = live.session.view
        assert at_rest(qtbot, live) is layer
        p = run.probability[view.item][live.session.epoch - 1, view.cls].astype(np.float64)
        wanted = masks.outline((p >= view.threshold) & run.items[view.item].valid)
        np.testing.assert_array_equal(np.asarray(layer.data), wanted)
        np.testing.assert_array_equal(layer.scale, live.workbench.sync.layer("image").scale)
    box.click()
    assert len(viewer.layers) == count
    box.click()
    viewer.layers.remove(at_rest(qtbot, live))
    assert not box.isChecked()
    assert not live.session.view.outline


def test_kept_labels_are_the_users_own(
    qtbot: QtBot, live: ThresholdDock, viewer: Any, run: MadeRun, tmp_path: Path
) -> None:
    live.set_threshold(0.4)
    live.session.set_view(cls=1)
    live.set_threshold(0.7)
    live.session.show_epoch(2)
    count = len(viewer.layers)
    live.keep_button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) > count, timeout=PATIENCE)
    labels = viewer.layers[-1]
    assert labels.name.startswith("labels from prediction")
    p = run.probability[0][1].astype(np.float32)
    passed = (p >= np.array([0.4, 0.7], np.float32)[:, None, None]) & MARGIN
    best = np.where(passed, p, -1).argmax(0) + 1
    wanted = np.where(passed.any(0), best, 0)
    np.testing.assert_array_equal(labels.data, wanted)
    assert labels.editable
    labels.selected_label = 7
    labels.paint((2, 2), 7)
    assert labels.data[2, 2] == 7
    labels.undo()
    np.testing.assert_array_equal(labels.data, wanted)


def test_labels_lie_on_their_image(qtbot: QtBot, dock: ThresholdDock, viewer: Any, tmp_path: Path) -> None:
    item = watched_item("a", origin=(4, 6), scale=(2.0, 0.5))
    dock.session.watch(MadeRun(tmp_path / "run", [item]).train(1).end().root)
    counted(qtbot, dock)
    dock.keep()
    qtbot.waitUntil(lambda: "labels" in viewer.layers[-1].name, timeout=PATIENCE)
    image, labels = dock.workbench.sync.layer("image"), viewer.layers[-1]
    np.testing.assert_array_equal(labels.extent.world, image.extent.world)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_masks_are_saved_and_replaced_only_when_told_to(
    qtbot: QtBot, live: ThresholdDock, run: MadeRun, tmp_path: Path, ending: str, monkeypatch: Any
) -> None:
    folder = tmp_path / "masks"
    live.save_into(folder, ending)
    qtbot.waitUntil(lambda: "3 masks written" in live.message.text(), timeout=PATIENCE)
    read = tifffile.imread if ending == ".tif" else iio.imread
    for number, item in enumerate(run.items):
        p = run.probability[number][2].astype(np.float32)
        wanted = masks.label_map(p, [0.5, 0.5])
        wanted[~item.valid] = 0
        np.testing.assert_array_equal(read(folder / f"{item.name}_mask{ending}"), wanted)
    before = (folder / f"a_mask{ending}").read_bytes()
    live.set_threshold(0.9)
    asked = []

    def answer(parent: Any, title: str, question: str) -> Any:
        asked.append(question)
        return QMessageBox.StandardButton.Yes if len(asked) > 1 else QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    live.save_into(folder, ending)
    qtbot.waitUntil(lambda: len(asked) == 1, timeout=PATIENCE)
    assert "3 of the masks" in asked[0]
    assert (folder / f"a_mask{ending}").read_bytes() == before
    live.save_into(folder, ending)
    qtbot.waitUntil(lambda: "3 masks written" in live.message.text(), timeout=PATIENCE)
    assert (folder / f"a_mask{ending}").read_bytes() != before


def test_what_cannot_be_written_is_said(qtbot: QtBot, live: ThresholdDock, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    live.save_into(tmp_path / "taken")
    qtbot.waitUntil(lambda: "cannot be written" in live.message.text(), timeout=PATIENCE)
    assert live.message.isVisible()


def test_a_layer_of_one_class_is_measured_drawn_and_saved(
    qtbot: QtBot, dock: ThresholdDock, viewer: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    p = rng.random((24, 32))
    truth = (rng.random((24, 32)) > 0.6).astype(np.uint8)
    source = viewer.add_image(p, name="mine", visible=False)
    labels = viewer.add_labels(truth, name="hand", visible=False)
    wrong = viewer.add_labels(truth[:5], name="too small")
    dock.choose_probability(source)
    counted(qtbot, dock)
    offered = [dock.truth.itemText(at) for at in range(dock.truth.count())]
    assert offered == ["none", "hand"]
    viewer.layers.remove(wrong)
    dock.row.slider.setValue(0.25)
    share = 100 * (p >= 0.25).mean()
    assert cells(dock)["Predicted"] == [f"{share:.2f} % of the pixels"]
    assert dock.plot.isHidden()
    dock.choose_probability(source, labels)
    counted(qtbot, dock)
    assert not dock.plot.isHidden()
    assert dock.threshold == 0.25
    for threshold in (0.0, float(p[5, 5]), 1.0):
        dock.row.slider.setValue(threshold)
        wanted = scores(p, truth > 0, None, threshold)
        assert {words: cells(dock)[words] for words in RATES} == {w: [text(r)] for w, r in wanted.items()}
        passed, positive = p.astype(np.float32) >= np.float32(threshold), truth > 0
        drawn = {
            "prediction": passed,
            "false positives": passed & ~positive,
            "false negatives": ~passed & positive,
        }
        for role, mask in drawn.items():
            np.testing.assert_array_equal(painted(qtbot, dock, viewer, role), mask, f"{role} at {threshold}")
    dock.save_into(tmp_path)
    qtbot.waitUntil(lambda: "1 mask written" in dock.message.text(), timeout=PATIENCE)
    np.testing.assert_array_equal(iio.imread(tmp_path / "mine_mask.png"), (p >= 1.0) * np.uint8(255))
    source.scale = (2, 3)
    source.translate = (1, 2)
    source.rotate = 30
    for role in THRESHOLDED:
        np.testing.assert_allclose(dock._source.layer(role).extent.world, source.extent.world)


def painted(qtbot: QtBot, dock: ThresholdDock, viewer: Any, role: Any) -> np.ndarray:
    """Whether a layer, alone, paints each of its pixels: one screen pixel a data pixel."""
    for other in viewer.layers:
        other.visible = other is dock._source.layer(role)
    layer = dock._source.layer(role)
    opacity, layer.opacity = layer.opacity, 1
    picture = viewer.export_figure(flash=False)[..., :3]
    layer.opacity = opacity
    assert picture.shape[:2] == (24, 32)
    return picture.max(-1) > 60


def test_a_stack_has_planes(qtbot: QtBot, dock: ThresholdDock, viewer: Any) -> None:
    rng = np.random.default_rng(1)
    p = rng.random((3, 20, 24), dtype=np.float32)
    truth = (rng.random(p.shape) > 0.5).astype(np.uint8)
    layer = viewer.add_image(p, name="stack", translate=(10, 0, 0))
    labels = viewer.add_labels(truth, name="truth")
    dock.choose_probability(layer, labels)
    for plane in (0, 2):
        viewer.dims.set_point(0, 10 + plane)
        counted(qtbot, dock)
        each = [scores(p[at], truth[at] > 0, None, 0.5) for at in range(3)]
        found = cells(dock)
        for words in RATES:
            mean = np.mean([one[words] for one in each])
            assert found[words] == [text(each[plane][words]), text(mean)]
    assert "3 planes" in dock.readout.text()
    dock.session.set_view(outline=True)
    outline = at_rest(qtbot, dock)
    assert outline.data.shape == p.shape
    np.testing.assert_array_equal(outline.data[2], masks.outline(p[2] >= 0.5))
    assert not np.asarray(outline.data[:2]).any()
    np.testing.assert_array_equal(outline.translate, (10, 0, 0))
    dock.keep()
    qtbot.waitUntil(lambda: "labels" in viewer.layers[-1].name, timeout=PATIENCE)
    kept = viewer.layers[-1]
    np.testing.assert_array_equal(kept.data[2], p[2] >= 0.5)
    assert not kept.data[:2].any()
    np.testing.assert_array_equal(kept.translate, (10, 0, 0))
    viewer.dims.set_point(0, 0)  # where the labels are, and the probabilities are not
    assert not dock.keep_button.isEnabled()
    assert "outside" in dock.readout.text()
    viewer.dims.ndisplay = 3
    assert "no plane" in dock.readout.text()
    viewer.dims.ndisplay = 2


def test_the_mean_of_many_planes_waits_for_a_thread(
    qtbot: QtBot, dock: ThresholdDock, viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threshold_dock, "AT_ONCE", 2)
    rng = np.random.default_rng(1)
    p = rng.random((3, 20, 24), dtype=np.float32)
    truth = (rng.random(p.shape) > 0.5).astype(np.uint8)
    dock.choose_probability(viewer.add_image(p), viewer.add_labels(truth))
    counted(qtbot, dock)
    dock.row.slider.setValue(0.125)
    assert cells(dock)["Dice"][1] == UNKNOWN
    counted(qtbot, dock)
    each = [scores(p[at], truth[at] > 0, None, 0.125)["Dice"] for at in range(3)]
    assert cells(dock)["Dice"][1] == text(np.mean(each))


@pytest.mark.both_bindings
def test_what_is_painted_on_the_truth_counts(qtbot: QtBot, dock: ThresholdDock, viewer: Any) -> None:
    p = np.random.default_rng(0).random((24, 32), dtype=np.float32)
    layer, labels = viewer.add_image(p), viewer.add_labels(np.zeros(p.shape, np.uint8))
    dock.choose_probability(layer, labels)
    counted(qtbot, dock)
    assert cells(dock)["Recall"] == [UNDEFINED]
    labels.brush_size = 9
    for change in (lambda: labels.paint((10, 10), 1), labels.undo, labels.redo):
        change()
        wanted = text(scores(p, labels.data > 0, None, 0.5)["Recall"])
        qtbot.waitUntil(lambda wanted=wanted: cells(dock)["Recall"] == [wanted], timeout=PATIENCE)
        missed = np.asarray(dock._source.layer("false negatives").data) < 0.5
        np.testing.assert_array_equal(missed, (labels.data > 0) & (p < 0.5))
    viewer.layers.remove(labels)
    qtbot.waitUntil(lambda: "Predicted" in cells(dock), timeout=PATIENCE)
    assert dock._source.layer("false negatives") is None


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.full((8, 9), 200, np.uint8), "holds uint8"),
        (np.full((8, 9), 1.5, np.float32), "NaN or outside 0 to 1"),
        (np.full((8, 9), np.nan, np.float32), "NaN or outside 0 to 1"),
        (np.stack([np.full((8, 9), 0.5), np.full((8, 9), -3.0)]), "holds -3.0"),
    ],
)
def test_what_is_no_probability_is_refused_in_a_sentence(
    qtbot: QtBot, dock: ThresholdDock, viewer: Any, data: np.ndarray, said: str
) -> None:
    layer = viewer.add_image(data, name="wrong", rgb=False)
    viewer.dims.set_point(0, 0)
    dock.choose_probability(layer)
    qtbot.waitUntil(lambda: said in dock.message.text(), timeout=PATIENCE)
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=PATIENCE)
    assert not dock.row.slider.isEnabled()
    assert not dock.save_button.isEnabled()
    dock.choose_probability(None)
    assert not dock.message.text()


def test_another_choice_takes_its_layers_away(
    qtbot: QtBot, live: ThresholdDock, viewer: Any, run: MadeRun
) -> None:
    of_run = list(viewer.layers)
    live.set_threshold(0.3)
    layer = viewer.add_image(np.random.default_rng(0).random((24, 32), dtype=np.float32), name="mine")
    live.choose_probability(layer)
    counted(qtbot, live)
    live.set_threshold(0.9)
    assert live.session.view.threshold == 0.3
    assert live._source.layer("prediction").name == "prediction · mine"
    assert live.overlays.box("prediction").isEnabled()
    assert not live.overlays.box("modulated mask").isEnabled()
    assert live.navigation.isHidden()
    live.choose_probability(None)
    assert list(viewer.layers) == [*of_run, layer]
    assert live.row.slider.value() == 0.3
    live.choose_probability(layer)
    counted(qtbot, live)
    assert live.row.slider.value() == 0.9
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: list(viewer.layers) == of_run, timeout=PATIENCE)
    assert live.row.slider.value() == 0.3
    assert live.probability.currentText() == "live: run"


def test_the_classes_of_a_prediction_belong_together(
    qtbot: QtBot, dock: ThresholdDock, viewer: Any, tmp_path: Path
) -> None:
    p = np.random.default_rng(0).dirichlet([1, 1, 1], (24, 32)).astype(np.float32).transpose(2, 0, 1)[:2]
    layers = [
        viewer.add_image(
            p[cls],
            name=f"probability · {name}",
            metadata={
                MARK: {
                    "role": "probability", "kind": "prediction", "folder": "f", "classes": [name],
                    "class": cls, "of": 2,
                }
            },
        )
        for cls, name in enumerate(CLASSES)
    ]  # fmt: skip
    dock.choose_probability(layers[0])
    counted(qtbot, dock)
    row = dock.row
    assert [row.classes.itemText(at) for at in range(row.classes.count())] == list(CLASSES)
    row.slider.setValue(0.4)
    row.classes.setCurrentIndex(1)
    row.classes.activated.emit(1)
    counted(qtbot, dock)
    assert dock.probability.layer() is layers[1]
    assert (row.classes.currentIndex(), row.slider.value()) == (1, 0.5)
    dock.keep()
    qtbot.waitUntil(lambda: "labels" in viewer.layers[-1].name, timeout=PATIENCE)
    wanted = masks.label_map(p, [0.4, 0.5])
    assert set(np.unique(wanted)) == {0, 1, 2}
    np.testing.assert_array_equal(viewer.layers[-1].data, wanted)


def test_classes_on_an_axis_of_their_own(qtbot: QtBot, dock: ThresholdDock, viewer: Any) -> None:
    p = np.random.default_rng(0).random((2, 24, 32), dtype=np.float32)
    meaning = {"role": "probability", "kind": "prediction", "classes": list(CLASSES)}
    layer = viewer.add_image(p, metadata={MARK: meaning}, scale=(1, 2, 2))
    labels = viewer.add_labels(np.random.default_rng(1).integers(0, 3, (24, 32), dtype=np.uint8))
    dock.choose_probability(layer, labels)
    counted(qtbot, dock)
    for cls in (0, 1):
        dock.row.class_chosen.emit(cls)
        dock.row.slider.setValue(0.25 + 0.5 * cls)
        counted(qtbot, dock)
        wanted = scores(p[cls], labels.data == cls + 1, None, 0.25 + 0.5 * cls)
        assert {words: cells(dock)[words] for words in RATES} == {w: [text(r)] for w, r in wanted.items()}
        shown = dock._source.layer("prediction")
        np.testing.assert_array_equal(shown.data, p[cls])
        np.testing.assert_array_equal(shown.scale, (2, 2))
    dock.keep()
    qtbot.waitUntil(lambda: "labels" in viewer.layers[-1].name, timeout=PATIENCE)
    np.testing.assert_array_equal(viewer.layers[-1].data, masks.label_map(p, [0.25, 0.75]))


@pytest.mark.both_bindings
def test_the_keys_do_what_the_table_says(qtbot: QtBot, live: ThresholdDock, viewer: Any) -> None:
    def type_key(key: str) -> None:
        handler = viewer.window._qt_viewer.canvas._key_map_handler
        assert handler.press_key(key)

    type_key("K")
    type_key("K")
    type_key("Shift-J")
    assert live.session.view.threshold == 0.519
    type_key("J")
    type_key("Shift-K")
    assert live.session.view.threshold == 0.51
    type_key("Q")
    assert (live.session.epoch, live.session.view.follow) == (2, False)
    type_key("W")
    type_key("G")
    assert (live.session.epoch, live.session.view.follow) == (3, False)
    type_key("Shift-N")
    assert live.session.view.item == 2
    type_key("N")
    assert live.session.view.item == 0
    for role, key in keys.TOGGLED.items():
        if role == "outline":
            type_key(key)
            at_rest(qtbot, live)
            continue
        before = live.workbench.sync.layer(role).visible
        type_key(key)
        assert live.workbench.sync.layer(role).visible != before, role


@pytest.mark.both_bindings
def test_letters_that_are_typed_are_letters(qtbot: QtBot, live: ThresholdDock, viewer: Any) -> None:
    window = viewer.window._qt_window
    field = QLineEdit(live)
    field.show()
    for widget, moved in ((field, 0.5), (live.row.field, 0.5), (live.row.slider, 0.51)):
        widget.setFocus()
        qtbot.waitUntil(lambda widget=widget: window.focusWidget() is widget, timeout=PATIENCE)
        qtbot.keyClick(widget, Qt.Key.Key_K)
        assert live.session.view.threshold == moved
    assert field.text() == "k"
    field.hide()


def test_the_keys_are_free_and_stand_in_the_docs(viewer: Any) -> None:
    from napari._app_model import get_app_model
    from napari.layers import Image, Labels, Points, Shapes, Surface, Tracks, Vectors
    from napari.utils.shortcuts import default_shortcuts

    taken = {str(binding) for bindings in default_shortcuts.values() for binding in bindings}
    taken |= {str(rule.keybinding) for rule in get_app_model().keybindings}
    for kind in (type(viewer), Image, Labels, Points, Shapes, Surface, Tracks, Vectors):
        for cls in kind.__mro__:
            taken |= {str(key) for key in getattr(cls, "class_keymap", {})}
    ours = [str(KeyBinding.from_str(keys.readable(entry.key))) for entry in keys.KEYS]
    assert len(taken) > 50
    assert len(set(ours)) == len(ours)
    assert not taken & set(ours)
    assert keys.markdown() in (ROOT / "docs/keys.md").read_text("utf-8")


@pytest.mark.both_bindings
def test_a_key_of_the_users_stays_and_docks_take_turns(viewer: Any, home: Path) -> None:
    viewer.bind_key("K", lambda viewer: None)
    theirs = viewer.keymap[KeyBinding.from_str("K")]
    first, second = ThresholdDock(viewer), ThresholdDock(viewer)
    assert viewer.keymap[KeyBinding.from_str("K")] is theirs
    count = len(viewer.keymap)
    assert count == len(keys.KEYS)
    first.shut()
    assert len(viewer.keymap) == count
    assert second._keys.bound
    second.shut()
    assert list(viewer.keymap.values()) == [theirs]
    for dock in (first, second):
        dock.deleteLater()


@pytest.mark.both_bindings
def test_a_closed_dock_lets_go_of_everything(
    qtbot: QtBot, viewer: Any, home: Path, run: MadeRun, make_napari_viewer: Any
) -> None:
    layer = viewer.add_image(np.random.default_rng(0).random((9, 24, 32), dtype=np.float32))
    labels = viewer.add_labels(np.ones((9, 24, 32), np.uint8))

    def listeners() -> dict[str, int]:
        groups = {"layers": viewer.layers.events, "dims": viewer.dims.events, "layer": layer.events}
        groups["labels"] = labels.events
        return {
            f"{name}.{event}": len(emitter.callbacks)
            for name, group in groups.items()
            for event, emitter in group.emitters.items()
        }

    before = listeners()
    for _ in range(2):
        dock = ThresholdDock(viewer)
        frame = viewer.window.add_dock_widget(dock, name="Threshold")
        session = dock.session
        session.watch(run.root)
        dock.choose_probability(layer, labels)
        counted(qtbot, dock)
        session.set_view(outline=True)
        at_rest(qtbot, dock)
        dock.set_threshold(0.25)  # an outline is due
        dock.rules.choose("cls")
        dock.rules.calibration.what.setCurrentIndex(OPEN)  # and layers are to be looked through
        viewer.window.remove_dock_widget(frame)
        assert [len(signal) for signal in (session.watched, session.viewed, session.updated)] == [0, 0, 0]
        assert listeners() == before
        assert not viewer.keymap
        left = [other for other in viewer.layers if MARK not in other.metadata]
        assert left == [layer, labels]
        assert not any("target" in other.metadata.get(MARK, {}) for other in viewer.layers)
        qtbot.wait(20)


def test_the_dock_fits_the_window(qtbot: QtBot, live: ThresholdDock, viewer: Any) -> None:
    for _ in range(2):
        hint = live.minimumSizeHint()
        assert hint.width() <= 390
        assert hint.height() <= 640
        live.keys.set_open(True)
        qtbot.wait(20)
        assert live.minimumSizeHint().width() <= 390
        assert live.minimumSizeHint().height() <= 720
        live.keys.set_open(False)
        layer = viewer.add_image(np.zeros((9, 24, 32), np.float32))
        live.choose_probability(layer, viewer.add_labels(np.zeros((9, 24, 32), np.uint8)))
        counted(qtbot, live)
