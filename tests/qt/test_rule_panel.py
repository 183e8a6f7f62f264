"""T by a rule, in a real viewer: what is promised, and what ends or refuses it."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPointF
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel
from runs import MadeRun, watched_item
from vispy.gloo.glir import GlirProgram

from engine import calibration
from engine.calibration import Calibration, Predicted
from engine.spec import Part
from engine.thresholds import Lesions, gather
from engine.thresholds.specs import BestDice, Cls, Conditional, Crc
from napari_smm.layers import MARK, THRESHOLDED, contrast_band
from napari_smm.qt.calibration_choice import OPEN
from napari_smm.qt.threshold_dock import ThresholdDock
from napari_smm.readout import INFINITE

PATIENCE = 20_000
"""Milliseconds that a busy machine may take for what is done in threads."""
SHAPE = (24, 32)
MADE = Predicted("best", 3, "abc", {"tile": 512})


@pytest.fixture(autouse=True)
def kept_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mesa's software renderer crashes when a program is drawn after others of the same code were deleted."""
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
    items = [watched_item("a"), watched_item("v", "val")]
    return MadeRun(tmp_path / "run", items, epochs=4).train(3).end("stopped", reason="x")


def image(number: int, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (C, H, W) and labels of an image with lesions."""
    rng = np.random.default_rng(number)
    p = rng.random((classes, *SHAPE), dtype=np.float32)
    y = rng.integers(0, classes + 1, SHAPE, dtype=np.uint8) * (rng.random(SHAPE) < 0.4)
    for cls in range(classes):
        p[cls][y == cls + 1] **= 0.25
    return p, y.astype(np.uint8)


def images(count: int, classes: tuple[str, ...] = ("vessel",)) -> Lesions:
    """The lesion probabilities of the first images."""
    each = [image(number, len(classes)) for number in range(count)]
    values = [[np.sort(p[cls][y == cls + 1]) for cls in range(len(classes))] for p, y in each]
    return gather([str(number) for number in range(count)], classes, values)


def calibrated(run: MadeRun, lesions: Lesions, notes: tuple[str, ...] = ()) -> None:
    """Write the run's calibration."""
    calibration.write(run.root, Calibration(lesions, MADE, "calib split", notes=notes))


def predict(viewer: Any, run: Path, p: np.ndarray, name: str, **given: Any) -> Any:
    """Add the layer of a prediction."""
    meaning = {
        "run": str(run), "role": "probability", "kind": "prediction", "classes": ["vessel"], "class": 0,
        "of": 1, "checkpoint": "best", "epoch": 3, "folder": name, "weights": "abc", "path": {"tile": 512},
        **given,
    }  # fmt: skip
    return viewer.add_image(p, name=f"probability · {name}", metadata={MARK: meaning}, rgb=False)


def choose(dock: ThresholdDock, name: str) -> None:
    """Choose a rule as a script would, by the combo box's data."""
    box = dock.findChild(QComboBox, "threshold-rule")
    box.setCurrentIndex(box.findData(name))


def slide(dock: ThresholdDock, name: str, share: float) -> None:
    """Move a slider of the rule."""
    slider = dock.rules.rows[name].slider
    assert slider.objectName() == f"threshold-{name}"
    slider.setValue(share)


def promise(dock: ThresholdDock) -> str:
    label = dock.findChild(QLabel, "threshold-promise")
    return str(label.text()) if not label.isHidden() else ""


def said(qtbot: QtBot, dock: ThresholdDock, words: str) -> None:
    """Wait until the rule says something."""

    def there() -> None:
        assert words in promise(dock), promise(dock)

    qtbot.waitUntil(there, timeout=PATIENCE)


def shown(qtbot: QtBot, dock: ThresholdDock) -> None:
    """Wait for the layers of the decision."""
    qtbot.waitUntil(lambda: dock._source.layer("prediction") is not None, timeout=PATIENCE)


def follows(dock: ThresholdDock, rule: Part, lesions: Lesions, cls: int | None = 0) -> float:
    """Check that T, and all that shows it, is the rule's. Returns T."""
    wanted = float(rule.bind()(lesions.units(cls)).threshold)
    assert dock.threshold == wanted
    for role in THRESHOLDED:
        layer = dock._source.layer(role)
        if layer is not None:
            assert tuple(layer.contrast_limits) == pytest.approx(contrast_band(wanted), abs=1e-9)
    assert dock.row.slider.value() == min(wanted, 1)
    assert dock.row.field.text() == (
        INFINITE if math.isinf(wanted) else dock.row.field.textFromValue(dock.row.field.value())
    )
    return wanted


def test_t_follows_the_promise_until_the_hand_moves_it(
    qtbot: QtBot, dock: ThresholdDock, viewer: Any, run: MadeRun
) -> None:
    lesions = images(28)
    calibrated(run, lesions, ("3 images without lesion are left out.",))
    p, y = image(99)
    layer = predict(viewer, run.root, p[0], "new")
    dock.choose_probability(layer, viewer.add_labels(y))
    shown(qtbot, dock)
    assert promise(dock) == ""
    assert dock.rules.page.isHidden()
    choose(dock, "cls")
    said(
        qtbot,
        dock,
        "In at least 90 % of new images with a vessel from the same source, at most 10 % of the vessel is "
        "missed.",
    )
    said(qtbot, dock, "Calibrated on 28 images.\n3 images without lesion are left out.")
    follows(dock, Cls(), lesions)
    assert not dock.rules.page.isHidden()
    slide(dock, "epsilon", 0.3)
    slide(dock, "alpha", 0.25)
    follows(dock, Cls(epsilon=0.3, alpha=0.25), lesions)
    assert "In at least 75 % of new images with a vessel from the same source, at most 30 %" in promise(dock)
    assert dock.rules.rows["epsilon"].field.value() == 0.3
    dock.rules.rows["alpha"].field.setValue(0.125)
    follows(dock, Cls(epsilon=0.3, alpha=0.125), lesions)
    # Settings of one meaning are shared, and others stay, whichever rule is chosen meanwhile.
    choose(dock, "crc")
    follows(dock, Crc(), lesions)
    assert "A single image may miss more." in promise(dock)
    assert dock.rules.rows["epsilon"].slider.isHidden()
    slide(dock, "alpha", 0.5)
    choose(dock, "conditional")
    follows(dock, Conditional(epsilon=0.3, alpha=0.125), lesions)
    choose(dock, "cls")
    exact = follows(dock, Cls(epsilon=0.3, alpha=0.125), lesions)
    # The very T is kept in masks, not what the number shows of it.
    dock.keep()
    qtbot.waitUntil(lambda: "labels" in viewer.layers[-1].name, timeout=PATIENCE)
    np.testing.assert_array_equal(viewer.layers[-1].data, p[0] >= np.float32(exact))
    # By hand in any way, and the rule is none, but remembers.
    for number, move in enumerate(
        (
            lambda: dock.row.slider.setValue(0.75),
            lambda: dock.row.field.setValue(0.6),
            lambda: dock.step_threshold(0.01),
            lambda: dock.plot.threshold_picked.emit(0.4),
        )
    ):
        choose(dock, "cls")
        follows(dock, Cls(epsilon=0.3, alpha=0.125), lesions)
        move()
        assert (dock.rules.rule, promise(dock)) == (None, ""), number
        assert dock.threshold == [0.75, 0.6, round(exact + 0.01, 6), 0.4][number]
    assert dock.findChild(QComboBox, "threshold-rule").currentText() == "By hand"


def test_what_cannot_be_promised(qtbot: QtBot, dock: ThresholdDock, viewer: Any, run: MadeRun) -> None:
    lesions = images(12)
    calibrated(run, lesions)
    p, _ = image(99)
    layer = predict(viewer, run.root, p[0], "new")
    other = predict(viewer, run.root, p[0], "other", weights="xyz", checkpoint="last", epoch=4)
    trained = predict(viewer, run.root, p[0], "old", split="train")
    dock.choose_probability(layer)
    shown(qtbot, dock)
    choose(dock, "conditional")
    said(qtbot, dock, "needs at least 22 calibration images with a vessel, and there are 12: T is 0")
    follows(dock, Conditional(), lesions)
    (point,) = dock.rules.plot.point.getData()[1]
    assert point == 0.1 < dock.rules.plot.least.value() == pytest.approx(1 - 0.1 ** (1 / 12))
    # Another network: T stays where it is.
    dock.choose_probability(other)
    shown(qtbot, dock)
    said(qtbot, dock, "No promise. The calibration does not fit")
    assert "python -m engine.calibrate" in promise(dock)
    assert dock.threshold == 0.5
    assert dock.rules.plot.isHidden()
    dock.choose_probability(trained)
    shown(qtbot, dock)
    choose(dock, "cls")
    said(qtbot, dock, "not about this one: the run was trained on it")
    follows(dock, Cls(), lesions)
    # All may be missed: nothing is predicted.
    slide(dock, "epsilon", 1.0)
    said(qtbot, dock, "T is ∞: nothing is predicted.")
    follows(dock, Cls(epsilon=1), lesions)
    assert "T = ∞" in dock.readout.text()
    dock.keep()
    qtbot.waitUntil(lambda: "labels" in viewer.layers[-1].name, timeout=PATIENCE)
    assert not viewer.layers[-1].data.any()
    dock.step_threshold(-0.01)
    assert dock.threshold == 0.99
    # A heading of the list is nothing that can be chosen.
    box = dock.findChild(QComboBox, "threshold-rule")
    box.setCurrentIndex(box.findText("With a guarantee"))
    assert box.currentText() == "By hand"
    # Nothing in view: no promise stays, and what is missing is said.
    choose(dock, "cls")
    said(qtbot, dock, "T is ∞")
    dock.choose_probability(None)
    said(qtbot, dock, "There is nothing to move T on yet")
    assert dock.rules.plot.isHidden()
    choose(dock, "")
    assert dock.findChild(QLabel, "threshold-promise").text() == ""


@pytest.mark.both_bindings
def test_the_point_is_taken_along(qtbot: QtBot, dock: ThresholdDock, viewer: Any, run: MadeRun) -> None:
    lesions = images(28)
    calibrated(run, lesions)
    dock.choose_probability(predict(viewer, run.root, image(99)[0][0], "new"))
    shown(qtbot, dock)
    choose(dock, "cls")
    said(qtbot, dock, "Calibrated on 28 images.")
    plot = dock.rules.plot
    place = plot.view.mapViewToScene(QPointF(0.4, 0.3))
    plot.canvas.picked.emit(place)
    rule = dock.rules.rule
    assert rule is not None
    assert rule.settings() == pytest.approx({"epsilon": 0.4, "alpha": 0.3}, abs=0.03)
    follows(dock, rule, lesions)
    assert [values[0] for values in plot.point.getData()] == list(rule.settings().values())
    choose(dock, "crc")
    plot.canvas.picked.emit(plot.view.mapViewToScene(QPointF(0.1, 0.2)))
    rule = dock.rules.rule
    assert rule is not None
    assert rule.settings() == pytest.approx({"alpha": 0.2}, abs=0.03)
    assert plot.point.getData()[0][0] == follows(dock, rule, lesions)


@pytest.mark.both_bindings
def test_images_that_are_open_calibrate(
    qtbot: QtBot, dock: ThresholdDock, viewer: Any, tmp_path: Path
) -> None:
    classes = ("core", "ring")
    for number in range(3):
        p, y = image(number, 2)
        for cls, name in enumerate(classes):
            predict(
                viewer, tmp_path, p[cls], f"{number} · {name}", classes=[name], **{"class": cls, "of": 2},
                folder=str(number),
            )  # fmt: skip
        viewer.add_labels(y, name=f"{number}")
    new = [
        predict(
            viewer, tmp_path, p, f"new · {name}", classes=[name], **{"class": cls, "of": 2}, folder="new"
        )
        for cls, (name, p) in enumerate(zip(classes, image(99, 2)[0], strict=True))
    ]  # fmt: skip
    lesions = images(3, classes)
    dock.choose_probability(new[0])
    shown(qtbot, dock)
    choose(dock, "cls")
    said(qtbot, dock, "has no calibration")
    assert dock.threshold == 0.5
    dock.rules.calibration.what.setCurrentIndex(OPEN)
    said(qtbot, dock, "needs at least 9 calibration images with a core, and there are 3")
    slide(dock, "alpha", 0.25)
    said(qtbot, dock, "of the core is missed. Calibrated on 3 images.")
    follows(dock, Cls(alpha=0.25), lesions, 0)
    # Masks are of all classes, whichever is in view: each has its own T.
    ring = Cls(alpha=0.25).bind()(lesions.units(1)).threshold
    assert dock._source.threshold_of(1) == ring
    assert "each class's own mask" in promise(dock)
    dock.save_into(tmp_path / "saved")
    qtbot.waitUntil(lambda: "3 masks written" in dock.message.text(), timeout=PATIENCE)
    own = {cls: iio.imread(tmp_path / "saved" / f"probability_new_mask_{cls}.png") for cls in classes}
    for cls, (name, layer) in enumerate(zip(classes, new, strict=True)):
        np.testing.assert_array_equal(own[name], 255 * (layer.data >= dock._source.threshold_of(cls)))
    label = iio.imread(tmp_path / "saved" / "probability_new_mask.png")
    np.testing.assert_array_equal(label > 0, (own["core"] > 0) | (own["ring"] > 0))
    dock._choose_class(1)
    shown(qtbot, dock)
    said(qtbot, dock, "of the ring is missed")
    follows(dock, Cls(alpha=0.25), lesions, 1)
    together = dock.findChild(QCheckBox, "threshold-together")
    assert not together.isHidden()
    together.setChecked(True)
    said(qtbot, dock, "of each class is missed")
    at_once = follows(dock, Cls(alpha=0.25), lesions, None)
    assert [dock._source.threshold_of(cls) for cls in (0, 1)] == [at_once, at_once]
    # What was best on them is told apart from what is promised.
    choose(dock, "dice")
    said(qtbot, dock, "No guarantee")
    basis = dock.rules.basis
    assert basis is not None
    assert dock.threshold == BestDice().bind()(basis.curves[1]).threshold
    assert dock.rules.plot.isHidden()
    assert not dock.curves.is_open()  # the words have the room
    assert together.isHidden()


def test_a_watched_run(qtbot: QtBot, dock: ThresholdDock, viewer: Any, run: MadeRun) -> None:
    lesions = images(28)
    calibrated(run, lesions)
    dock.session.watch(run.root)
    qtbot.waitUntil(lambda: dock._source.layer("prediction") is not None, timeout=PATIENCE)
    choose(dock, "cls")
    said(qtbot, dock, "The promise is about new images predicted with best, not about this one")
    qtbot.waitUntil(lambda: dock._source.layer("false negatives") is not None, timeout=PATIENCE)
    exact = follows(dock, Cls(), lesions)
    # All of it is seen at once, even with a run's own rows above it.
    viewer.window.resize(1280, 800)
    bar = dock.rules.page.verticalScrollBar()
    qtbot.waitUntil(lambda: not bar.isVisible() and dock.rules.plot.isVisible(), timeout=PATIENCE)
    dock.session.show_epoch(2)
    said(qtbot, dock, "epoch 3 would work")
    assert dock.threshold == exact
    dock.session.show_epoch(3)
    said(qtbot, dock, "the run was trained on it")
    dock.session.set_view(item=1)
    said(qtbot, dock, "the run chose its checkpoint by it")
    # Whoever else moves T, it is no longer the rule's.
    dock.session.set_threshold(0.5)
    assert dock.rules.rule is None
    # The sliders answer at once.
    choose(dock, "cls")
    began = time.perf_counter()
    for step in range(20):
        slide(dock, "epsilon", 0.1 + step / 100)
    assert (time.perf_counter() - began) / 20 < 0.1
    follows(dock, Cls(epsilon=0.29), lesions)
