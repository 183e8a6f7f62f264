"""The whole loop in a real viewer: paint, train, propose, correct, accept, train on, and predict better."""

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import press
from napari.layers import Image as ImageLayer
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QCheckBox

from engine.config import RunConfig
from engine.data.annotated import UNLABELLED
from engine.record import RunReader
from napari_smm import launch
from napari_smm.planes import plane_source
from napari_smm.prediction import start as predict
from napari_smm.proposing import identity
from napari_smm.qt.annotate_dock import AnnotateDock

PATIENCE = 120_000
"""Milliseconds that a process may take to start on a busy machine."""
SIDE = 64
RADIUS = 9
CENTRES = (((18, 20), (44, 42)), ((20, 44), (46, 18)), ((32, 16), (24, 46)), ((16, 16), (46, 46)))
"""Of the discs in each image."""
HELD_OUT = ((22, 30), (48, 50))


def disc(centres: Sequence[tuple[int, int]], radius: float = RADIUS) -> np.ndarray:
    """Discs, bool (SIDE, SIDE)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.any([(y - row) ** 2 + (x - column) ** 2 <= radius**2 for row, column in centres], axis=0)


def picture(centres: Sequence[tuple[int, int]], seed: int) -> np.ndarray:
    """Bright discs on a dark ground, with noise that two epochs do not see through."""
    noise = np.random.default_rng(seed).normal(0, 35, (SIDE, SIDE))
    return (70 + 60 * disc(centres) + noise).clip(0, 255).astype(np.uint8)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "discs"
    root.mkdir()
    for number, centres in enumerate(CENTRES):
        Image.fromarray(picture(centres, number)).save(root / f"{number}.png")
    return root


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any, qtbot: QtBot, folder: Path) -> Iterator[AnnotateDock]:
    made = AnnotateDock(viewer)
    viewer.window.add_dock_widget(made, name="Annotate")
    made.open_folder(folder)
    yield made
    made.shut()


def shows(qtbot: QtBot, viewer: Any, number: int) -> None:
    qtbot.waitUntil(lambda: f"annotation · {number}" in viewer.layers, timeout=PATIENCE)
    qtbot.wait(50)  # until it is drawn


def stroke(qtbot: QtBot, viewer: Any, value: int, *path: tuple[float, float], brush: int = 5) -> None:
    """Paint with the mouse from pixel to pixel (row, column) of the image."""
    layer = viewer.layers.selection.active
    layer.mode, layer.brush_size, layer.selected_label = "paint", brush, value
    canvas, camera = viewer.window._qt_viewer.canvas.native, viewer.scene.camera
    middle = np.array([canvas.height(), canvas.width()]) / 2

    def at(pixel: tuple[float, float]) -> QPoint:
        row, column = (np.array(pixel) - camera.center[-2:]) * camera.zoom + middle
        return QPoint(round(column), round(row))

    button = Qt.MouseButton.LeftButton
    QTest.mouseMove(canvas, at(path[0]))
    qtbot.wait(10)
    QTest.mousePress(canvas, button, Qt.KeyboardModifier.NoModifier, at(path[0]))
    for pixel in path[1:]:
        QTest.mouseMove(canvas, at(pixel))
        qtbot.wait(10)
    QTest.mouseRelease(canvas, button, Qt.KeyboardModifier.NoModifier, at(path[-1]))


def scribble(qtbot: QtBot, viewer: Any, centres: Sequence[tuple[int, int]]) -> None:
    """A stroke inside of each disc, and one along two sides of the image, where there is none."""
    for row, column in centres:
        stroke(qtbot, viewer, 1, (row - 4, column), (row, column), (row + 4, column))
    last = SIDE - 3
    stroke(qtbot, viewer, 0, (2, last), (2, 2), (last, 2), (last, last // 2))
    layer = viewer.layers.selection.active
    assert set(np.unique(layer.data)) == {0, 1, UNLABELLED}
    assert not (layer.data == 1)[~disc(centres)].any()


def correct(qtbot: QtBot, viewer: Any, layer: Any, truth: np.ndarray) -> None:
    """A stroke along the longest line of pixels that are missed, and one along that of false alarms."""
    for value in (1, 0):
        wrong = (layer.data != truth) & (truth == value)
        if wrong.any():
            row = int(wrong.sum(axis=1).argmax())
            ends = np.flatnonzero(np.diff(np.r_[0, wrong[row].astype(int), 0]))
            start, stop = max(zip(ends[::2], ends[1::2], strict=True), key=lambda ends: ends[1] - ends[0])
            stroke(
                qtbot, viewer, value, (row, start), (row, (start + stop - 1) / 2), (row, stop - 1), brush=1
            )


def trained(folder: Path, name: str, epochs: int, init: Path | None = None) -> Path:
    """A run on what is annotated, by a process of its own."""
    config = RunConfig.model_validate(
        {
            "data": {"root": str(folder), "patch": [32, 32], "patches_per_image": 4},
            "model": {"name": "unet", "base_width": 4, "depth": 2},
            "modulation": {"name": "none"},
            "optimizer": {"name": "adam", "lr": 0.01},
            "training": {
                "epochs": epochs, "threads": 1, "device": "cpu", "batch_size": 4,
                **({} if init is None else {"init": str(init)}),
            },
        }
    )  # fmt: skip
    out = launch.runs_folder() / name
    process = launch.start(config, out)
    deadline = time.monotonic() + PATIENCE / 1000
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert launch.status_of(out, process) == "finished", launch.failure(out)
    return out


def held_out(run: Path) -> float:
    """Dice of a run on an image that nobody annotates."""
    prediction = predict(run, plane_source(ImageLayer(picture(HELD_OUT, 99), name="held out")))
    assert prediction.wait(PATIENCE / 1000)
    return dice(np.asarray(prediction.result().levels(0)[0]) >= 0.5, disc(HELD_OUT))


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "annotation" / "images.csv").open(newline="") as file:
        return {each["image"]: each for each in csv.DictReader(file)}


@pytest.mark.usefixtures("quick")
def test_paint_train_correct_and_train_on(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path, home: Path
) -> None:
    box = dock.findChild(QCheckBox, "annotate-rest")
    assert box is not None
    shows(qtbot, viewer, 0)
    box.setChecked(False)  # scribbles: what is unlabelled counts nowhere
    # Three images, a few strokes each.
    for number in range(3):
        shows(qtbot, viewer, number)
        scribble(qtbot, viewer, CENTRES[number])
        press(qtbot, dock, "annotate-accept")
    assert dock.annotator.flush()
    found = rows(folder)
    assert {row["origin"] for row in found.values()} == {"drawn"}
    assert [row["status"] for row in found.values()] == ["done"] * 3
    assert all(0.05 < float(row["labelled"]) < 0.3 for row in found.values())
    first = trained(folder, "first", epochs=2)
    before = held_out(first)

    # The run proposes for the fourth image; two strokes put some of it right.
    shows(qtbot, viewer, 3)
    dock.correct.parentWidget().set_open(True)
    dock.correct.search()
    qtbot.waitUntil(lambda: dock.correct.run.isEnabled(), timeout=PATIENCE)
    press(qtbot, dock, "correct-propose")
    qtbot.waitUntil(lambda: not dock.correct.busy, timeout=PATIENCE)
    layer = dock.layer()
    assert (layer.data != UNLABELLED).all()
    assert dock.annotator.entry("3.png").origin == "predicted"
    truth = disc(CENTRES[3])
    proposed = dice(layer.data == 1, truth)
    viewer.layers.selection.active = layer
    correct(qtbot, viewer, layer, truth)
    assert dice(layer.data == 1, truth) > proposed
    press(qtbot, dock, "annotate-accept")
    assert dock.annotator.flush()
    row = rows(folder)["3.png"]
    assert (row["status"], row["origin"], row["threshold"]) == ("done", "corrected", "0.5")
    assert (row["run"], row["checkpoint"], row["epoch"]) == (identity(first), "last", "2")

    # Trained on from there, with the corrected mask among the images, it predicts better.
    second = trained(folder, "second", epochs=20, init=first)
    info = RunReader(second).info()
    assert info["dataset"]["images"] == 4
    assert info["init"]["run"] == str(first)
    after = held_out(second)
    assert after > before + 0.05, (before, after)
    assert after > 0.8, (before, after)
