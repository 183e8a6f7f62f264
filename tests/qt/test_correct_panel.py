"""Proposals in the Annotate dock, with real processes in a real viewer."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hands import child, press, processes, said
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QCheckBox, QComboBox

from engine.data.annotated import UNLABELLED
from engine.data.demo import demo_pair
from napari_smm.proposing import identity
from napari_smm.qt.annotate_dock import AnnotateDock
from napari_smm.qt.correct_panel import CorrectPanel

PATIENCE = 90_000
"""Milliseconds that a process may take to start on a busy machine."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_run: Path) -> Path:
    """A home of its own with a finished run in it."""
    monkeypatch.setenv("NAPARI_SMM_HOME", str(tmp_path / "home"))
    shutil.copytree(demo_run, tmp_path / "home" / "runs" / "demo")
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 64 × 64 px that the run has not seen."""
    root = tmp_path / "images"
    root.mkdir()
    for number in range(3):
        Image.fromarray(demo_pair(100 + number, size=64)[0]).save(root / f"{number}.png")
    return root


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any, qtbot: QtBot, folder: Path) -> Iterator[AnnotateDock]:
    made = AnnotateDock(viewer)
    viewer.window.add_dock_widget(made, name="Annotate")
    made.open_folder(folder)
    qtbot.waitUntil(lambda: made.layer() is not None, timeout=PATIENCE)
    unfold(made)
    qtbot.waitUntil(lambda: made.correct.run.isEnabled(), timeout=PATIENCE)
    yield made
    made.shut()


def unfold(dock: AnnotateDock) -> None:
    section = dock.correct.parentWidget()
    section.set_open(True)


def proposed(qtbot: QtBot, dock: AnnotateDock) -> CorrectPanel:
    """Press the button, and wait for labels and layers."""
    press(qtbot, dock.correct, "correct-propose")
    qtbot.waitUntil(lambda: not dock.correct.busy, timeout=PATIENCE)
    assert said(dock.correct, "correct-error") == ""
    return dock.correct


def row(folder: Path, image: str) -> dict[str, str]:
    with (folder / "annotation" / "images.csv").open(newline="") as file:
        return {each["image"]: each for each in csv.DictReader(file)}[image]


def history(folder: Path, image: str) -> list[tuple[str, str]]:
    lines = (folder / "annotation" / "history.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [(each["status"], each["origin"]) for each in found if each["image"] == image]


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


@pytest.mark.usefixtures("quick")
def test_a_proposal_is_accepted_or_corrected(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path, home: Path
) -> None:
    assert child(dock, QComboBox, "correct-run").currentText() == "✔ demo · epoch 6 of 6"
    panel = proposed(qtbot, dock)
    layer, heat = dock.layer(), viewer.layers["probability · 0"]
    p = np.asarray(heat.data)
    np.testing.assert_array_equal(layer.data, (p >= 0.5).astype(np.uint8))
    assert layer.data is dock.annotator.labels("0.png")
    assert said(panel, "correct-status") == "✔ Proposed 100 % of the pixels, p ≥ 0.5"
    # The heat map lies below the labels, hidden; who paints goes on painting.
    order = names(viewer)
    assert order.index("0") < order.index("probability · 0") < order.index("annotation · 0")
    assert not heat.visible
    assert viewer.layers.selection.active is layer
    for kind, title in (("missed", "likely missed · 0"), ("doubtful", "doubtful · 0")):
        found = panel.shown.of_kind(kind)
        assert (title in viewer.layers) == bool(found)
        if found:
            assert viewer.layers[title].data.sum() == sum(one.size for one in found)
            assert not viewer.layers[title].editable
    # It is one edit, and comes back.
    layer.undo()
    assert (layer.data == UNLABELLED).all()
    layer.redo()
    np.testing.assert_array_equal(layer.data, (p >= 0.5).astype(np.uint8))
    assert len(list((home / "proposals").iterdir())) == 1

    # The next image: its layers are its own. It is accepted as it was proposed.
    press(qtbot, dock, "annotate-accept")
    qtbot.waitUntil(lambda: "annotation · 1" in viewer.layers, timeout=PATIENCE)
    assert names(viewer) == ["1", "annotation · 1"]
    assert list((home / "proposals").iterdir()) == []
    assert panel.shown is None
    proposed(qtbot, dock)
    press(qtbot, dock, "annotate-accept")
    qtbot.waitUntil(lambda: "annotation · 2" in viewer.layers, timeout=PATIENCE)
    # The third is corrected by one pixel.
    proposed(qtbot, dock)
    third = dock.layer()
    third.data_setitem((np.array([5]), np.array([6])), 1 - third.data[5, 6])
    press(qtbot, dock, "annotate-accept")
    assert dock.annotator.flush()
    whence = {"run": identity(home / "runs" / "demo"), "checkpoint": "best", "threshold": "0.5"}
    for image, origin in (("1.png", "predicted"), ("2.png", "corrected")):
        found = row(folder, image)
        assert (found["status"], found["origin"], found["labelled"]) == ("done", origin, "1")
        assert {key: found[key] for key in whence} == whence
        assert int(found["epoch"]) in range(1, 7)
        assert Path(folder, found["mask"]).is_file()
    assert history(folder, "1.png")[-1] == ("done", "predicted")
    assert history(folder, "2.png")[-1] == ("done", "corrected")
    # Undone and done again is as it was proposed.
    assert row(folder, "0.png")["origin"] == "predicted"


@pytest.mark.both_bindings
@pytest.mark.usefixtures("quick")
def test_what_is_painted_stays_and_candidates_are_gone_through(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path
) -> None:
    layer, panel = dock.layer(), dock.correct
    press(qtbot, panel, "correct-propose")
    layer.data_setitem(tuple(np.mgrid[0:64, 0:20].reshape(2, -1)), 1)  # while it is being predicted
    qtbot.waitUntil(lambda: not panel.busy, timeout=PATIENCE)
    assert (layer.data[:, :20] == 1).all()
    p = np.asarray(viewer.layers["probability · 0"].data)
    np.testing.assert_array_equal(layer.data[:, 20:], p[:, 20:] >= 0.5)
    assert dock.annotator.entry("0.png").origin == "corrected"
    # What the run does not see where it was painted comes first.
    count = len(panel.shown.candidates)
    assert count >= 1
    assert said(panel, "correct-left") == f"{count} to look at"
    assert panel.left == count
    first = panel.shown.candidates[0]
    assert first.painted
    before = viewer.scene.camera.zoom
    press(qtbot, panel, "correct-next")
    assert said(panel, "correct-left") == f"1 of {count} · {count - 1 or 'none'} left"
    assert said(panel, "correct-reason") == first.words
    middle = [(side.start + side.stop - 1) / 2 for side in first.box]
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], middle)
    assert viewer.scene.camera.zoom >= before
    # By key too, back and round.
    for key in ("Shift-U", "U"):
        viewer.keymap[next(each for each in viewer.keymap if str(each) == key.replace("-", "+"))](viewer)
    assert said(panel, "correct-left").startswith(f"1 of {count}")
    # The same run proposes nothing more, and over what is painted only if asked to.
    proposed(qtbot, dock)
    assert said(panel, "correct-status").startswith("✔ Nothing to add")
    child(panel, QCheckBox, "correct-over").setChecked(True)
    proposed(qtbot, dock)
    np.testing.assert_array_equal(layer.data, p >= 0.5)
    child(panel, QCheckBox, "correct-spare").setChecked(True)
    layer.data_setitem(tuple(np.indices(layer.data.shape).reshape(2, -1)), UNLABELLED)
    proposed(qtbot, dock)
    near = (p >= 0.25) & (p < 0.75)
    np.testing.assert_array_equal(layer.data == UNLABELLED, near)


@pytest.mark.both_bindings
def test_none_is_applied_to_another_image(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path, home: Path
) -> None:
    panel = dock.correct
    first = dock.annotator.labels("0.png")
    press(qtbot, panel, "correct-propose")
    qtbot.waitUntil(lambda: bool(panel.prediction and processes("engine.predict")), timeout=PATIENCE)
    prediction = panel.prediction
    press(qtbot, dock, "annotate-next")
    qtbot.waitUntil(lambda: "annotation · 1" in viewer.layers, timeout=PATIENCE)
    assert not panel.busy
    assert prediction.wait(PATIENCE / 1000)
    assert processes("engine.predict") == []
    assert (first == UNLABELLED).all()
    assert (dock.layer().data == UNLABELLED).all()
    assert dock.annotator.entry("0.png").origin == ""
    assert list((home / "proposals").iterdir()) == []
    # By the button, and by closing.
    press(qtbot, panel, "correct-propose")
    qtbot.waitUntil(lambda: panel.prediction is not None, timeout=PATIENCE)
    press(qtbot, panel, "correct-cancel")
    qtbot.waitUntil(lambda: not panel.busy, timeout=PATIENCE)
    assert said(panel, "correct-status") == "■ Cancelled"
    press(qtbot, panel, "correct-propose")
    qtbot.waitUntil(lambda: panel.prediction is not None, timeout=PATIENCE)
    prediction = panel.prediction
    viewer.window.remove_dock_widget(dock)
    assert prediction.wait(PATIENCE / 1000)
    assert (dock.annotator.entry("1.png").status, processes("engine.predict")) == ("untouched", [])


@pytest.mark.both_bindings
@pytest.mark.usefixtures("quick")
def test_a_volume_slice_by_slice(qtbot: QtBot, dock: AnnotateDock, viewer: Any, tmp_path: Path) -> None:
    root = tmp_path / "stacks"
    root.mkdir()
    stack = np.stack([demo_pair(100 + number, size=64)[0] for number in range(3)])
    tifffile.imwrite(root / "stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    dock.open_folder(root)
    qtbot.waitUntil(lambda: dock.layer() is not None and dock.layer().data.ndim == 3, timeout=PATIENCE)
    panel = dock.correct
    qtbot.waitUntil(lambda: child(panel, QComboBox, "correct-slices").isVisible(), timeout=PATIENCE)
    viewer.dims.set_point(0, 2)
    proposed(qtbot, dock)
    layer = dock.layer()
    assert (layer.data[:2] == UNLABELLED).all()
    heat = viewer.layers["probability · stack"]
    np.testing.assert_array_equal(layer.data[2], np.asarray(heat.data)[0] >= 0.5)
    child(panel, QComboBox, "correct-slices").setCurrentIndex(1)
    proposed(qtbot, dock)
    p = np.asarray(viewer.layers["probability · stack"].data)
    np.testing.assert_array_equal(layer.data, p >= 0.5)
    count = len(panel.shown.candidates)
    for _ in range(count):
        panel.step(1)
        assert viewer.dims.current_step[0] == panel.shown.candidates[panel._at].peak[0]
    assert panel.left == 0


def test_what_is_wrong_is_said(qtbot: QtBot, dock: AnnotateDock, home: Path) -> None:
    panel = dock.correct
    shutil.rmtree(home / "runs" / "demo")
    press(qtbot, panel, "correct-propose")
    qtbot.waitUntil(lambda: not panel.busy, timeout=PATIENCE)
    assert "no run directory" in said(panel, "correct-error")
    panel.search()
    qtbot.waitUntil(lambda: not panel.run.isEnabled(), timeout=PATIENCE)
    press(qtbot, panel, "correct-propose")
    assert "there is no run to propose with" in said(panel, "correct-error")
