"""The Predict panel with real processes, in a real viewer."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import child, press, processes, said
from napari.utils import progress
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QComboBox, QLabel, QProgressBar, QPushButton, QWidget

from napari_smm import menu
from napari_smm.layers import MARK
from napari_smm.qt import predict_panel
from napari_smm.qt.predict_panel import PredictPanel
from napari_smm.qt.workbench import Workbench

PATIENCE = 90_000
"""Milliseconds that a process may take to start on a busy machine."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_run: Path) -> Path:
    """A home of its own with a finished run in it."""
    monkeypatch.setenv("NAPARI_SMM_HOME", str(tmp_path / "home"))
    shutil.copytree(demo_run, tmp_path / "home" / "runs" / "demo")
    return tmp_path / "home"


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def panel(viewer: Any, qtbot: QtBot) -> Iterator[PredictPanel]:
    made = PredictPanel(viewer)
    viewer.window.add_dock_widget(made, name="Predict")
    qtbot.waitUntil(lambda: made.run.isEnabled(), timeout=PATIENCE)
    yield made
    made.shut()


def choices(panel: QWidget, name: str) -> list[str]:
    combo = child(panel, QComboBox, name)
    return [combo.itemText(index) for index in range(combo.count())]


def picture(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).gamma(2, 20, shape).clip(0, 200)
    values[..., : shape[-1] // 2] += 50
    return values.astype(np.uint8)


def idle(panel: PredictPanel) -> bool:
    return not panel.busy and not panel._clock.isActive()


def bars() -> list[str]:
    return [str(bar) for bar in progress._all_instances]


@pytest.mark.usefixtures("quick")
def test_a_prediction_in_the_window(qtbot: QtBot, panel: PredictPanel, viewer: Any) -> None:
    image = picture(2000, 1500)
    source = viewer.add_image(
        image, name="mine", scale=(0.5, 2), translate=(3, -4), rotate=20, shear=[0.3], units=("um", "um")
    )
    assert choices(panel, "predict-run") == ["✔ demo · epoch 6 of 6"]
    assert choices(panel, "predict-checkpoint") == ["best epoch", "last epoch"]
    assert choices(panel, "predict-image") == ["mine"]
    assert not child(panel, QComboBox, "predict-planes").isVisible()
    assert not child(panel, QPushButton, "predict-cancel").isEnabled()
    states: list[str] = []
    shown: list[int] = []

    def look() -> bool:
        states.append(said(panel, "predict-status").partition("…")[0])
        shown.append(child(panel, QProgressBar, "predict-progress").value())
        if bars():
            assert bars()[0].startswith(("reading mine", "predicting mine"))
            states.append("activity")
        return idle(panel)

    press(qtbot, panel, "predict-start")
    assert not child(panel, QPushButton, "predict-start").isEnabled()
    qtbot.waitUntil(look, timeout=PATIENCE)
    order = list(dict.fromkeys(states))
    assert order[0] == "Starting"
    assert {"▶ Predicting", "activity", "✔ Finished"} <= set(order)
    assert order[-1] == "✔ Finished"
    assert str(panel.prediction.out) in child(panel, QLabel, "predict-status").toolTip()
    assert shown[-1] == 1000
    assert len({value for value in shown if 0 < value < 1000}) >= 2
    assert bars() == []
    assert processes("engine.predict") == []
    layer = viewer.layers["probability · mine"]
    np.testing.assert_array_equal(layer.data, panel.prediction.result().levels(0)[0])
    assert (layer.data.dtype, layer.data.shape) == (np.float32, image.shape)
    assert np.ptp(layer.data) > 0.01
    assert layer.contrast_limits == [0, 1]
    assert (layer.colormap.name, layer.blending) == ("viridis", "translucent")
    for pixel in ((0, 0), (1999, 1499)):
        np.testing.assert_allclose(layer.data_to_world(pixel), source.data_to_world(pixel))
    assert layer.units == source.units
    mark = layer.metadata[MARK]
    assert (mark["role"], mark["kind"], mark["classes"]) == ("probability", "prediction", ["foreground"])
    assert Path(mark["run"]).name == "demo"
    # It is no image to predict.
    assert choices(panel, "predict-image") == ["mine"]
    assert child(panel, QPushButton, "predict-start").isEnabled()


@pytest.mark.both_bindings
@pytest.mark.usefixtures("quick")
def test_a_cancel_by_the_button(qtbot: QtBot, panel: PredictPanel, viewer: Any) -> None:
    viewer.add_image(picture(4000, 3000), name="mine")
    press(qtbot, panel, "predict-start")
    qtbot.waitUntil(
        lambda: said(panel, "predict-status").startswith("▶ Predicting… · tile"), timeout=PATIENCE
    )
    (process,) = processes("engine.predict")
    press(qtbot, panel, "predict-cancel")
    assert said(panel, "predict-status") == "◑ Cancelling…"
    assert process.is_running()
    assert not child(panel, QPushButton, "predict-start").isEnabled()
    qtbot.waitUntil(lambda: idle(panel), timeout=PATIENCE)
    assert said(panel, "predict-status") == "■ Cancelled"
    assert not process.is_running()
    assert [layer.name for layer in viewer.layers] == ["mine"]
    assert child(panel, QPushButton, "predict-start").isEnabled()


def test_a_closed_panel_ends_its_process(qtbot: QtBot, panel: PredictPanel, viewer: Any, home: Path) -> None:
    viewer.add_image(picture(4000, 3000), name="mine")
    press(qtbot, panel, "predict-start")
    qtbot.waitUntil(lambda: bool(panel.prediction and processes("engine.predict")), timeout=PATIENCE)
    prediction = panel.prediction
    viewer.window.remove_dock_widget(panel)
    assert Workbench._open == {}
    assert prediction.wait(PATIENCE / 1000)
    assert prediction.poll().state == "cancelled"
    assert processes("engine.predict") == []
    assert list((home / "predictions").iterdir()) == []


def test_a_closed_viewer_ends_its_process(qtbot: QtBot, panel: PredictPanel, viewer: Any) -> None:
    viewer.add_image(picture(4000, 3000), name="mine")
    press(qtbot, panel, "predict-start")
    qtbot.waitUntil(lambda: bool(panel.prediction and processes("engine.predict")), timeout=PATIENCE)
    prediction = panel.prediction
    viewer.close()
    qtbot.waitUntil(lambda: prediction.poll().state == "cancelled", timeout=PATIENCE)
    assert processes("engine.predict") == []
    assert bars() == []


@pytest.mark.both_bindings
def test_a_panel_closed_before_its_prediction_has_started(
    qtbot: QtBot, panel: PredictPanel, viewer: Any, home: Path
) -> None:
    viewer.add_image(picture(4000, 3000), name="mine")
    press(qtbot, panel, "predict-start")
    assert panel.prediction is None
    viewer.window.remove_dock_widget(panel)
    qtbot.waitUntil(lambda: not list((home / "predictions").glob("*")), timeout=PATIENCE)
    assert processes("engine.predict") == []


@pytest.mark.both_bindings
@pytest.mark.usefixtures("quick")
def test_a_plane_of_a_stack_is_laid_in_its_place(qtbot: QtBot, panel: PredictPanel, viewer: Any) -> None:
    stack = viewer.add_image(picture(3, 40, 50), name="stack", scale=(2, 1, 1))
    painted = viewer.add_labels(np.zeros((40, 50), np.uint8), name="paint")
    assert choices(panel, "predict-planes") == ["the plane in view", "all 3"]
    assert child(panel, QComboBox, "predict-planes").isVisible()
    viewer.dims.set_point(0, 2)
    press(qtbot, panel, "predict-start")
    qtbot.waitUntil(lambda: idle(panel), timeout=PATIENCE)
    layer = viewer.layers["probability · stack"]
    assert layer.data.shape == (1, 40, 50)
    np.testing.assert_allclose(layer.data_to_world((0, 5, 6)), stack.data_to_world((1, 5, 6)))
    # Who paints goes on painting.
    assert viewer.layers.selection.active is painted
    assert layer.get_value((2, 5, 6), world=True) == pytest.approx(float(np.asarray(layer.data)[0, 5, 6]))


def test_what_is_wrong_is_said_beside_the_field(qtbot: QtBot, panel: PredictPanel, viewer: Any) -> None:
    assert choices(panel, "predict-image") == ["no Image layer is open"]
    press(qtbot, panel, "predict-start")
    assert said(panel, "predict-error").startswith("⚠ no image is chosen")
    mask = viewer.add_image(np.zeros((20, 30), bool), name="mask")
    assert "as a mask does" in said(panel, "predict-error")
    viewer.add_image(picture(20, 30, 4), name="colour", rgb=True)
    panel.choose_image(viewer.layers["colour"])
    assert said(panel, "predict-error") == ""
    assert "Alpha is left out. The run was trained on gray" in said(panel, "predict-note")
    panel.choose_image(mask)
    press(qtbot, panel, "predict-start")
    assert "as a mask does" in said(panel, "predict-error")
    assert panel.prediction is None
    mask.name = "renamed"
    assert choices(panel, "predict-image") == ["colour", "renamed"]
    viewer.layers.clear()
    assert choices(panel, "predict-image") == ["no Image layer is open"]
    assert said(panel, "predict-error") == said(panel, "predict-note") == ""


@pytest.mark.usefixtures("quick")
def test_what_fails_is_said_below_the_bar(qtbot: QtBot, panel: PredictPanel, viewer: Any, home: Path) -> None:
    viewer.add_image(np.full((20, 30), np.nan), name="mine", contrast_limits=(0, 1))
    press(qtbot, panel, "predict-start")
    qtbot.waitUntil(lambda: idle(panel), timeout=PATIENCE)
    assert said(panel, "predict-status") == "✖ Failed"
    assert "'mine'" in said(panel, "predict-detail")
    assert "NaN" in said(panel, "predict-detail")
    # The run has gone meanwhile.
    shutil.rmtree(home / "runs" / "demo")
    press(qtbot, panel, "predict-start")
    qtbot.waitUntil(lambda: idle(panel), timeout=PATIENCE)
    assert "no run directory" in said(panel, "predict-detail")


def test_runs_that_come_and_go_are_offered(
    qtbot: QtBot, panel: PredictPanel, demo_run: Path, home: Path
) -> None:
    shutil.copytree(demo_run, home / "runs" / "second")
    panel.run.showPopup()
    qtbot.waitUntil(lambda: panel.run.count() == 2, timeout=PATIENCE)
    panel.run.hidePopup()
    shutil.rmtree(home / "runs" / "second" / "checkpoints")
    shutil.copytree(demo_run, home / "third")
    (home / "third" / "checkpoints" / "best").unlink()
    panel.session.watch(home / "third")
    panel.choose_run(home / "third")
    qtbot.waitUntil(lambda: panel.run.currentText().startswith("✔ third"), timeout=PATIENCE)
    assert choices(panel, "predict-checkpoint") == ["last epoch"]
    assert sorted(choices(panel, "predict-run")) == ["✔ demo · epoch 6 of 6", "✔ third · epoch 6 of 6"]
    shutil.rmtree(home / "runs" / "demo")
    panel.session.leave()
    qtbot.waitUntil(lambda: choices(panel, "predict-run") == [predict_panel.NO_RUNS], timeout=PATIENCE)
    assert not panel.run.isEnabled()
    press(qtbot, panel, "predict-start")
    assert said(panel, "predict-run-error").startswith("⚠ there is no run to predict with")
    qtbot.waitUntil(lambda: idle(panel), timeout=PATIENCE)


@pytest.mark.both_bindings
def test_the_menu_opens_one_panel(qtbot: QtBot, viewer: Any) -> None:
    viewer.add_image(picture(20, 30), name="first")
    viewer.add_image(picture(20, 30), name="second")
    viewer.layers.selection.active = viewer.layers["first"]
    menu.predict(viewer)
    (panel,) = (dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, PredictPanel))
    assert panel.image.layer().name == "first"
    assert panel.isVisible()
    viewer.layers.selection.active = viewer.layers["second"]
    menu.predict(viewer)
    docks = [dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, PredictPanel)]
    assert docks == [panel]
    assert panel.image.layer().name == "second"
    qtbot.waitUntil(lambda: idle(panel), timeout=PATIENCE)
    viewer.window.remove_dock_widget(panel)


def test_it_fits_beside_other_docks(qtbot: QtBot, panel: PredictPanel, viewer: Any) -> None:
    viewer.add_image(picture(3, 20, 30, 4), name="a stack of colour images with a long name", rgb=True)
    predict_panel._complain(panel.detail, "the prediction's process was killed by signal 9. " * 2)
    panel.resize(390, 300)
    assert "Alpha" in said(panel, "predict-note")
    assert panel.minimumSizeHint().width() <= 390
    assert panel.heightForWidth(390) <= 300
