"""The Train dock with real trainers, on the embedded set and on painted layers."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hands import child, press
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QWidget

from engine import lock
from engine.config import Layer, RunConfig, read_preset, resolve
from engine.record import RunReader
from napari_smm import launch
from napari_smm.qt.train_dock import TrainDock
from napari_smm.qt.workbench import Workbench, workbench

PATIENCE = 90_000
"""Milliseconds that a trainer may take to start on a busy machine."""


def tiny(**training: Any) -> RunConfig:
    """Settings of which an epoch takes about a second."""
    config, _ = resolve(
        [
            Layer(
                "test",
                {
                    "data": {"root": "demo", "patch": [32, 32], "patches_per_image": 1},
                    "model": {"name": "unet", "base_width": 4, "depth": 2},
                    # Grown masks from the third epoch on; SMM v2 waits for a long warm-up first.
                    "modulation": {"name": "smm_v1", "warmup": 0.005},
                    "training": {"epochs": 200, "threads": 1, "device": "cpu", **training},
                    "watch": {"train": 1, "val": 1},
                },
            )
        ]
    )
    return config


@pytest.fixture(autouse=True)
def no_trainer_stays(home: Path, nothing_is_left: None) -> Iterator[None]:
    """Kill what still trains at the end of a test, before the guard counts processes."""
    yield
    for folder in launch.running_here([home / "runs"]):
        held = lock.holder(folder)
        if held is not None:
            process = psutil.Process(held.pid)
            process.kill()


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any) -> Iterator[TrainDock]:
    made = TrainDock(viewer)
    viewer.window.add_dock_widget(made, name="Train")
    yield made
    made.shut()


def status(dock: QWidget) -> str:
    return str(child(dock, QLabel, "train-status").text())


def epochs(bench: Workbench) -> int:
    return bench.session.snapshot.run.epochs if bench.session.snapshot else 0


def has_drawn(bench: Workbench, epoch: int) -> bool:
    """Whether the layers hold this epoch. The window is seldom at rest while a trainer goes on beside it."""
    return bench.sync.layer("recall slope") is not None and all(
        len(bench.sync.layer(role).data) >= epoch for role in ("probability", "false negatives")
    )


def data_of(bench: Workbench, role: Any) -> np.ndarray:
    return np.asarray(bench.sync.layer(role).data[-1])


@pytest.mark.both_bindings
@pytest.mark.usefixtures("quick")
def test_a_run_s_life_in_the_window(qtbot: QtBot, dock: TrainDock, viewer: Any) -> None:
    bench = dock.workbench
    painted = viewer.add_labels(np.zeros((128, 128), np.uint8), name="mine")
    dock.form.set_value(tiny())
    dock.source.set_source("demo")
    press(qtbot, dock, "train-start")
    assert not child(dock, QPushButton, "train-start").isEnabled()

    # Modulated masks, overlays and plot arrive, and change.
    qtbot.waitUntil(lambda: has_drawn(bench, 2), timeout=PATIENCE)
    assert status(dock).startswith("▶ Running")
    first = {role: data_of(bench, role) for role in ("probability", "false negatives", "recall slope")}
    drawn = bench.session.snapshot.history

    def changed() -> None:
        for role, before in first.items():
            assert not np.array_equal(data_of(bench, role), before), role

    qtbot.waitUntil(changed, timeout=PATIENCE)
    assert len(bench.session.snapshot.history.number) > len(drawn.number)
    assert child(dock, QProgressBar, "train-progress").value() > 0
    grown = lambda: (data_of(bench, "modulated mask") == 2).any()  # noqa: E731
    qtbot.waitUntil(grown, timeout=PATIENCE)

    # Stop: always true to the process.
    press(qtbot, dock, "train-stop")
    qtbot.waitUntil(lambda: status(dock).startswith(("◑ Stopping", "■ Stopped")), timeout=PATIENCE)
    qtbot.waitUntil(lambda: status(dock).startswith("■ Stopped"), timeout=PATIENCE)
    root = bench.session.root
    assert lock.holder(root) is None
    assert RunReader(root).status() == "stopped"

    # Resume, and kill.
    before = epochs(bench)
    press(qtbot, dock, "train-resume")
    qtbot.waitUntil(lambda: has_drawn(bench, before + 1), timeout=PATIENCE)
    painted.data_setitem((np.array([3]), np.array([4])), 1)
    layers = list(viewer.layers)
    os.kill(lock.holder(root).pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: status(dock).startswith("⚠ Crashed"), timeout=PATIENCE)
    assert "gone without a word" in child(dock, QLabel, "train-detail").text()
    assert child(dock, QPushButton, "train-resume").isEnabled()
    assert list(viewer.layers) == layers
    assert painted.data[3, 4] == 1


def test_a_run_outlives_docks_and_is_found_again(qtbot: QtBot, dock: TrainDock, viewer: Any) -> None:
    dock.form.set_value(tiny())
    dock.source.set_source("demo")
    press(qtbot, dock, "train-start")
    qtbot.waitUntil(lambda: epochs(dock.workbench) >= 1, timeout=PATIENCE)
    root = dock.session.root
    viewer.window.remove_dock_widget(dock)
    qtbot.wait(50)
    assert dock._left
    assert lock.holder(root) is not None
    again = TrainDock(viewer)
    viewer.window.add_dock_widget(again, name="Train")
    assert again.workbench is not dock.workbench
    qtbot.waitUntil(lambda: again.session.root is not None, timeout=PATIENCE)
    assert again.session.root == root
    qtbot.waitUntil(lambda: epochs(again.workbench) >= 2, timeout=PATIENCE)
    assert status(again).startswith("▶ Running")
    again.shut()
    assert lock.holder(root) is not None


@pytest.mark.both_bindings
@pytest.mark.usefixtures("quick")
def test_painted_layers_are_trained_on_and_shown_in_place(qtbot: QtBot, dock: TrainDock, viewer: Any) -> None:
    rng = np.random.default_rng(0)
    stack = rng.random((4, 48, 64)).astype(np.float32)
    labels = np.zeros((4, 48, 64), np.uint8)
    labels[1, 10:20, 10:30] = 1
    labels[3, 20:40, 5:15] = 1
    place = {"scale": (3, 0.5, 0.5), "translate": (0, 10, 20)}
    image = viewer.add_image(stack, name="tissue", **place)
    paint = viewer.add_labels(labels, name="lesions", **place)
    dock.form.set_value(tiny(epochs=2))
    dock.choose_layers(image, paint)
    press(qtbot, dock, "train-start")
    qtbot.waitUntil(lambda: status(dock).startswith("✔ Finished"), timeout=PATIENCE)
    qtbot.waitUntil(lambda: not dock.workbench.sync.busy, timeout=PATIENCE)
    info = dock.session.snapshot.state.info
    assert info["dataset"]["images"] == 2  # two planes have no labels
    layer = dock.workbench.sync.layer("prediction")
    plane = dock.session.snapshot.item.placement.plane[0]
    assert layer.data.shape == (2, 4, 48, 64)
    there = np.asarray(layer.data_to_world((1, plane, 7, 9)))
    np.testing.assert_allclose(there[1:], image.data_to_world((plane, 7, 9)))
    np.testing.assert_array_equal(dock.workbench.sync.layer("truth").data[plane], labels[plane])
    assert image.visible


def test_what_is_wrong_is_said_beside_the_choice(qtbot: QtBot, dock: TrainDock, viewer: Any) -> None:
    error = child(dock, QLabel, "train-source-error")
    dock.source.set_source("folder")
    press(qtbot, dock, "train-start")
    assert "no folder is given" in error.text()
    dock.source.set_source("layers")
    press(qtbot, dock, "train-start")
    assert "no layer is chosen where an Image layer" in error.text()
    viewer.add_image(np.zeros((8, 9, 10)), name="image")
    labels = viewer.add_labels(np.ones((10, 8, 9), np.uint8), name="turned")
    assert "the same axes in another order" in error.text()
    viewer.layers.remove(labels)
    viewer.add_labels(np.ones((8, 9, 10), np.uint8), name="right")
    assert error.text() == ""
    assert not list(launch.home().glob("runs/*"))


@pytest.mark.usefixtures("quick")
def test_data_that_the_trainer_refuses_are_a_failed_run(
    qtbot: QtBot, dock: TrainDock, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    dock.form.set_value(tiny())
    dock.source.set_source("folder")
    dock.source.folder.path.setText(str(tmp_path / "empty"))
    press(qtbot, dock, "train-start")
    qtbot.waitUntil(lambda: status(dock).startswith("✖ Failed"), timeout=PATIENCE)
    assert str(tmp_path / "empty") in child(dock, QLabel, "train-detail").text()
    assert child(dock, QPushButton, "train-start").isEnabled()
    assert not child(dock, QPushButton, "train-resume").isEnabled()


def test_a_fresh_dock_is_ready_to_train_on_the_embedded_set(dock: TrainDock) -> None:
    demo, _ = resolve([read_preset("demo")])
    assert dock.source.source() == "demo"
    assert dock.form.value() == demo
    dock.source.set_source("folder")
    assert dock.form.value() == RunConfig()
    dock.source.set_source("demo")
    assert dock.form.value() == demo
    changed = demo.model_copy(update={"training": demo.training.model_copy(update={"epochs": 3})})
    dock.form.set_value(changed)
    dock.source.set_source("folder")
    assert dock.form.value() == changed  # what the user set stays


def test_a_dock_beside_painted_layers_takes_them(viewer: Any) -> None:
    image = viewer.add_image(np.zeros((8, 8)))
    labels = viewer.add_labels(np.ones((8, 8), np.uint8))
    dock = TrainDock(viewer)
    assert dock.source.source() == "layers"
    assert (dock.source.image.layer(), dock.source.labels.layer()) == (image, labels)
    dock.shut()


@pytest.mark.both_bindings
def test_a_closed_dock_leaves_the_workbench_to_others(viewer: Any) -> None:
    first, second = TrainDock(viewer), TrainDock(viewer)
    assert first.workbench is second.workbench
    first.shut()
    assert workbench(viewer) is second.workbench
    second.shut()
    second.shut()
    assert id(viewer) not in Workbench._open
