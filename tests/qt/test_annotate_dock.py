"""The Annotate dock in a real viewer: strokes of the mouse, keys, and what of them is on the disk."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import nibabel as nib
import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy import PYQT5
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QComboBox, QMessageBox, QPushButton
from strokes import double_click, steps, stroke
from vispy.gloo.glir import GlirProgram
from volumes import SPACING, affine

from engine.data import annotated
from engine.data.annotated import UNLABELLED
from napari_smm.qt import annotate_dock, annotate_keys
from napari_smm.qt.annotate_dock import AnnotateDock
from napari_smm.qt.train_dock import TrainDock

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is done in threads."""
SIZE = (40, 60)


@pytest.fixture(autouse=True)
def kept_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mesa's software renderer crashes when a program is drawn after others of the same code were deleted."""
    monkeypatch.setattr(GlirProgram, "delete", lambda program: None)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any) -> Iterator[AnnotateDock]:
    made = AnnotateDock(viewer)
    viewer.window.add_dock_widget(made, name="Annotate")
    yield made
    made.shut()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a, b and c."""
    root = tmp_path / "cells"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        iio.imwrite(root / f"{name}.png", rng.integers(0, 90, SIZE).astype(np.uint8))
    return root


def opened(qtbot: QtBot, dock: AnnotateDock, folder: Path, image: str = "a.png") -> Any:
    """Open a folder and return the layer of an image of it."""
    dock.open_folder(folder)
    return shown(qtbot, dock, image)


def shown(qtbot: QtBot, dock: AnnotateDock, image: str) -> Any:
    """Wait until an image is in view, and return its Labels layer."""

    def there() -> None:
        assert dock.annotator.current == image
        assert dock._layers.image == image, dock.message.text()

    qtbot.waitUntil(there, timeout=PATIENCE)
    layer = dock.layer()
    assert layer is not None
    layer.brush_size = 5
    QApplication.processEvents()
    return layer


def saved(qtbot: QtBot, dock: AnnotateDock) -> None:
    qtbot.waitUntil(lambda: dock.saving.text().startswith("✔ saved"), timeout=PATIENCE)


def on_disk(folder: Path, image: str) -> np.ndarray:
    return annotated.read_mask(folder / annotated.read_entry(folder, image).mask)


def status(folder: Path, image: str) -> str:
    return str(annotated.read_entry(folder, image).status)


def press(qtbot: QtBot, viewer: Any, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    """A key, with the keyboard on the canvas."""
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, key, modifier)


@pytest.mark.both_bindings
def test_a_folder_is_painted_gone_through_with_keys_and_saved(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path
) -> None:
    layer = opened(qtbot, dock, folder)
    assert [each.name for each in viewer.layers] == ["a", "annotation · a"]
    assert viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    assert not (folder / "annotation").exists()
    stroke(viewer, layer, (10, 10), (10, 25))
    painted = layer.data.copy()
    assert (painted[10, 10:26] == 1).all()
    assert set(np.unique(painted)) == {1, UNLABELLED}
    assert dock.status.currentData() == "started"
    saved(qtbot, dock)
    np.testing.assert_array_equal(on_disk(folder, "a.png"), painted)
    assert status(folder, "a.png") == "started"

    # A stroke that goes on and on is on the disk before its end.
    long = steps(viewer, layer, [(2, 5), *((2, 6 + number) for number in range(40))])
    for _ in range(6):
        next(long)
        qtbot.wait(20)
    qtbot.waitUntil(lambda: bool((on_disk(folder, "a.png")[2] == 1).any()), timeout=PATIENCE)
    for _ in long:
        qtbot.wait(20)
    assert (layer.data[2, 5:46] == 1).all()
    layer.undo()
    np.testing.assert_array_equal(layer.data, painted)

    # A second class, by its key.
    dock.add_class()
    qtbot.keyClick(dock.classes.table, Qt.Key.Key_Escape)
    assert layer.selected_label == 2
    press(qtbot, viewer, Qt.Key.Key_1)
    assert (layer.selected_label, dock.classes.value(), layer.mode) == (1, 1, "paint")
    press(qtbot, viewer, Qt.Key.Key_2)
    stroke(viewer, layer, (30, 40))
    press(qtbot, viewer, Qt.Key.Key_0)
    stroke(viewer, layer, (30, 20))
    assert (layer.data[30, 40], layer.data[30, 20]) == (2, 0)
    press(qtbot, viewer, Qt.Key.Key_9)
    assert "There is no class 9" in dock.message.text()

    # On to the next image and back: each has its own layer, and strokes can still be undone.
    press(qtbot, viewer, Qt.Key.Key_N)
    other = shown(qtbot, dock, "b.png")
    assert other is not layer
    assert [each.name for each in viewer.layers] == ["b", "annotation · b"]
    assert (other.mode, other.selected_label) == ("paint", 0)
    assert status(folder, "b.png") == "untouched"
    press(qtbot, viewer, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert shown(qtbot, dock, "a.png") is layer
    before = layer.data.copy()
    press(qtbot, viewer, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert layer.data[30, 20] == UNLABELLED
    qtbot.waitUntil(lambda: (on_disk(folder, "a.png") == layer.data).all(), timeout=PATIENCE)
    press(
        qtbot, viewer, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    np.testing.assert_array_equal(layer.data, before)

    # Done: the rest is background, as one step to undo.
    press(qtbot, viewer, Qt.Key.Key_D)
    shown(qtbot, dock, "b.png")
    wanted = np.where(before == UNLABELLED, 0, before)
    qtbot.waitUntil(lambda: status(folder, "a.png") == "done", timeout=PATIENCE)
    np.testing.assert_array_equal(on_disk(folder, "a.png"), wanted)
    assert dock.list.progress.text() == "1 of 3 done"
    dock.findChild(QPushButton, "annotate-previous").click()
    shown(qtbot, dock, "a.png")
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    qtbot.waitUntil(lambda: (on_disk(folder, "a.png") == before).all(), timeout=PATIENCE)

    # A status by hand; the list of what is not done yet.
    combo = dock.findChild(QComboBox, "annotate-status")
    combo.setCurrentIndex(combo.findData("reviewed"))
    combo.activated.emit(combo.currentIndex())
    qtbot.waitUntil(lambda: status(folder, "a.png") == "reviewed", timeout=PATIENCE)
    dock.findChild(QPushButton, "annotate-next").click()
    shown(qtbot, dock, "b.png")
    dock.list.choose_filter("open")
    assert dock.list.shown() == ["b.png", "c.png"]
    dock.findChild(QPushButton, "annotate-previous").click()
    assert "first image of the list" in dock.message.text()
    # Without the check mark nothing is filled.
    dock.rest.setChecked(False)
    stroke(viewer, dock.layer(), (5, 5))
    dock.findChild(QPushButton, "annotate-accept").click()
    shown(qtbot, dock, "c.png")
    qtbot.waitUntil(lambda: status(folder, "b.png") == "done", timeout=PATIENCE)
    assert (on_disk(folder, "b.png") == UNLABELLED).any()
    assert annotated.read_set(folder).entries["b.png"].annotator == dock.annotator.name


def test_napari_s_tools_take_unlabelled_for_empty(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path
) -> None:
    layer = opened(qtbot, dock, folder)
    dock.add_class()
    qtbot.keyClick(dock.classes.table, Qt.Key.Key_Escape)
    assert layer.colormap.background_value == UNLABELLED
    empty = np.full(SIZE, UNLABELLED, np.uint8)

    def anew() -> None:
        dock.apply(empty)
        press(qtbot, viewer, Qt.Key.Key_1)

    # The eraser.
    press(qtbot, viewer, Qt.Key.Key_1)
    stroke(viewer, layer, (10, 10), (10, 40))
    press(qtbot, viewer, Qt.Key.Key_E)
    stroke(viewer, layer, (10, 20))
    assert layer.data[10, 20] == UNLABELLED
    assert layer.data[10, 40] == 1
    # Fill, of what is empty and of a class, and its undoing.
    press(qtbot, viewer, Qt.Key.Key_0)
    press(qtbot, viewer, Qt.Key.Key_F)
    stroke(viewer, layer, (35, 5))
    assert set(np.unique(layer.data)) == {0, 1}
    layer.undo()
    assert layer.data[35, 5] == UNLABELLED
    # Pick.
    press(qtbot, viewer, Qt.Key.Key_L)
    stroke(viewer, layer, (10, 40))
    assert (layer.selected_label, dock.classes.value()) == (1, 1)
    stroke(viewer, layer, (35, 5))
    assert (layer.selected_label, dock.classes.value()) == (UNLABELLED, UNLABELLED)
    press(qtbot, viewer, Qt.Key.Key_X)  # and the class again
    assert layer.selected_label == 1
    # Only on what is unlabelled (B): neither background nor a class gives way.
    anew()
    stroke(viewer, layer, (20, 20))
    press(qtbot, viewer, Qt.Key.Key_0)
    stroke(viewer, layer, (20, 40))
    press(qtbot, viewer, Qt.Key.Key_B)
    assert layer.preserve_labels
    press(qtbot, viewer, Qt.Key.Key_2)
    stroke(viewer, layer, (20, 10), (20, 50))
    assert [int(layer.data[20, column]) for column in (15, 20, 30, 40, 45)] == [2, 1, 2, 0, 2]
    dock.fill_slice()  # which is no brush
    assert not (layer.data == UNLABELLED).any()
    press(qtbot, viewer, Qt.Key.Key_B)
    # A polygon.
    anew()
    layer.mode = "polygon"
    for point in ((5, 5), (5, 30), (30, 30)):
        stroke(viewer, layer, point)
    double_click(viewer, layer, (30, 5))
    assert layer.data[10, 22] == 1
    assert layer.data[35, 50] == UNLABELLED
    layer.undo()
    assert (layer.data == UNLABELLED).all()
    layer.redo()
    # Contours are of classes, with nothing around them.
    layer.contour = 2
    seen = layer._raw_to_displayed(layer._slice.image.raw)
    assert set(np.unique(seen[:4])) == {UNLABELLED}
    assert int(seen[10, 22]) == UNLABELLED
    assert (seen == 1).any()
    layer.contour = 0
    # Values that no class has cannot be painted with, by whatever way.
    layer.selected_label = 77
    assert layer.selected_label == 1
    assert "77 is no class" in dock.message.text()
    press(qtbot, viewer, Qt.Key.Key_Equal)
    assert layer.selected_label == 2
    press(qtbot, viewer, Qt.Key.Key_Equal)
    assert layer.selected_label == 0
    # What is background is seen, as long as something is unlabelled.
    shade = layer.colormap.map(0)
    assert 0 < shade[3] < 0.5
    assert layer.colormap.map(UNLABELLED)[3] == 0
    dock.fill_slice()
    saved(qtbot, dock)
    qtbot.waitUntil(lambda: layer.colormap.map(0)[3] == 0, timeout=PATIENCE)


def test_a_volume_is_painted_slice_by_slice(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).normal(0, 1, (6, 20, 24)).astype(np.float32)
    for name in ("v", "w"):
        nib.save(nib.Nifti1Image(pixels.transpose(), affine()), tmp_path / f"{name}.nii.gz")
    layer = opened(qtbot, dock, tmp_path, "v.nii.gz")
    np.testing.assert_allclose(layer.scale, SPACING, rtol=1e-6)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.n_edit_dimensions == 2
    viewer.dims.set_point(0, 4 * SPACING[0])
    layer.brush_size = 3
    stroke(viewer, layer, (10, 12))
    assert layer.data[4, 10, 12] == 1
    assert (np.delete(layer.data, 4, 0) == UNLABELLED).all()
    assert dock.fill.text() == "Rest of this slice → background"
    press(qtbot, viewer, Qt.Key.Key_R)
    assert set(np.unique(layer.data[4])) == {0, 1}
    assert (np.delete(layer.data, 4, 0) == UNLABELLED).all()
    layer.undo()
    assert set(np.unique(layer.data[4])) == {1, UNLABELLED}
    layer.redo()
    saved(qtbot, dock)
    qtbot.waitUntil(lambda: (on_disk(tmp_path, "v.nii.gz") == layer.data).all(), timeout=PATIENCE)
    made = nib.load(tmp_path / annotated.read_entry(tmp_path, "v.nii.gz").mask)
    np.testing.assert_allclose(made.affine, affine(), atol=1e-5)
    # In 3D, where napari would paint on the face of what is unlabelled, nothing is painted.
    viewer.dims.ndisplay = 3
    assert layer.mode == "pan_zoom"
    layer.mode = "paint"
    assert layer.mode == "pan_zoom"
    assert "painted in slices" in dock.message.text()
    viewer.dims.ndisplay = 2
    dock.accept()
    shown(qtbot, dock, "w.nii.gz")
    qtbot.waitUntil(lambda: status(tmp_path, "v.nii.gz") == "done", timeout=PATIENCE)
    assert set(np.unique(on_disk(tmp_path, "v.nii.gz"))) == {0, 1}


def test_masks_come_back_and_in(qtbot: QtBot, dock: AnnotateDock, viewer: Any, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    mask = np.zeros(SIZE, np.uint8)
    mask[5:15, 5:15] = 255
    for name in "ab":
        iio.imwrite(tmp_path / "images" / f"{name}.png", np.full(SIZE, 30, np.uint8))
        iio.imwrite(tmp_path / "masks" / f"{name}.png", mask)
    # What lies beside an image is its mask, from the first look on.
    layer = opened(qtbot, dock, tmp_path, "images/a.png")
    np.testing.assert_array_equal(layer.data, mask > 0)
    qtbot.waitUntil(lambda: status(tmp_path, "images/a.png") == "done", timeout=PATIENCE)
    assert annotated.read_entry(tmp_path, "images/a.png").origin == "imported"
    assert not annotated.read_entry(tmp_path, "images/b.png").mask
    assert dock.message.text().endswith("1 more lie beside other images: Import… takes them all.")

    # Another mask takes its place, as one step to undo, and it becomes a version.
    def take(act: Callable[[], None], wanted: np.ndarray) -> None:
        act()
        qtbot.waitUntil(lambda: (layer.data == wanted).all(), timeout=PATIENCE)
        dock.annotator.hurry("images/a.png")
        qtbot.waitUntil(lambda: (on_disk(tmp_path, "images/a.png") == wanted).all(), timeout=PATIENCE)

    objects = np.zeros(SIZE, np.int64)
    objects[20:30, 20:30], objects[32:36, 40:50] = 7, 3000
    viewer.add_labels(objects, name="objects")
    viewer.layers.selection.active = layer
    dock.masks.offer_imports()
    entries = {entry.text(): entry for entry in dock.masks.imports.actions()}
    every = "All masks beside images that were not touched (1)"
    assert list(entries) == ["The mask beside the image", every, "A file…", "The layer objects"]
    dock.masks.imports.hide()
    entries[every].trigger()
    qtbot.waitUntil(lambda: dock.message.text() == "1 masks were taken.", timeout=PATIENCE)
    assert dock.annotator.entry("images/b.png").status == status(tmp_path, "images/b.png") == "done"
    np.testing.assert_array_equal(on_disk(tmp_path, "images/b.png"), mask > 0)
    assert dock.list.progress.text() == "2 of 2 done"
    take(entries["The layer objects"].trigger, (objects > 0).astype(np.uint8))
    take(entries["The mask beside the image"].trigger, (mask > 0).astype(np.uint8))
    layer.undo()
    np.testing.assert_array_equal(layer.data, objects > 0)
    iio.imwrite(tmp_path / "other.png", np.full(SIZE, 255, np.uint8))
    take(lambda: dock.masks.import_file(tmp_path / "other.png"), np.full(SIZE, 255, np.uint8))
    viewer.add_labels(objects[1:], name="smaller")
    dock.masks.import_layer(viewer.layers["smaller"])
    qtbot.waitUntil(lambda: "the layer smaller is 39 × 60" in dock.message.text(), timeout=PATIENCE)

    # And back.
    dock.masks.list_versions()
    qtbot.waitUntil(lambda: len(dock.masks.versions.actions()) >= 3, timeout=PATIENCE)
    newest, *_, oldest = dock.masks.versions.actions()
    assert newest.text().endswith("100 % labelled")
    dock.masks.versions.hide()
    take(oldest.trigger, (mask > 0).astype(np.uint8))
    layer.undo()
    assert (layer.data == UNLABELLED).all()


def test_classes_are_named_coloured_and_removed_if_unused(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path
) -> None:
    layer = opened(qtbot, dock, folder)
    table = dock.classes.table
    table.item(0, 2).setText("nucleus")
    press(qtbot, viewer, Qt.Key.Key_M)
    qtbot.keyClick(table, Qt.Key.Key_Escape)
    table.item(1, 2).setText("debris")
    found = annotated.read_set(folder).classes
    assert [(each.name, each.value) for each in found] == [("nucleus", 1), ("debris", 2)]
    assert found[0].color != found[1].color
    table.item(1, 2).setText("nucleus")
    assert "gives the name 'nucleus' to two classes" in dock.message.text()
    assert table.item(1, 2).text() == "debris"
    dock.classes._change(2, color="#123456")
    assert annotated.read_set(folder).classes[1].color == "#123456"
    np.testing.assert_allclose(layer.colormap.map(2)[:3], np.array([0x12, 0x34, 0x56]) / 255, atol=0.01)
    # One that is painted somewhere stays.
    press(qtbot, viewer, Qt.Key.Key_2)
    stroke(viewer, layer, (10, 10))
    saved(qtbot, dock)
    dock.annotator.go("b.png")
    shown(qtbot, dock, "b.png")
    dock.classes.show_value(2)
    dock.classes.remove.click()
    qtbot.waitUntil(lambda: "debris is painted in a.png" in dock.message.text(), timeout=PATIENCE)
    dock.classes.show_value(1)
    dock.classes.remove.click()
    qtbot.waitUntil(lambda: [each.name for each in dock.annotator.classes] == ["debris"], timeout=PATIENCE)


def test_what_goes_wrong_is_said_and_nothing_is_lost(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock.open_folder(folder / "nowhere")
    qtbot.waitUntil(lambda: "does not exist" in dock.message.text(), timeout=PATIENCE)
    (folder / "b.png").write_bytes(b"no picture")
    layer = opened(qtbot, dock, folder)
    dock.step(1)
    qtbot.waitUntil(lambda: "b.png" in dock.message.text(), timeout=PATIENCE)
    assert dock.layer() is None
    dock.accept()  # which is not for what was not seen
    assert dock.annotator.entry("b.png").status == "untouched"
    dock.step(1)
    layer = shown(qtbot, dock, "c.png")
    # A folder that cannot be written.
    (folder / "annotation").write_text("in the way")
    stroke(viewer, layer, (10, 10))
    width = dock.sizeHint().width()
    qtbot.waitUntil(lambda: dock.saving.text().startswith("⚠ not saved"), timeout=PATIENCE)
    assert "annotations cannot be written to" in dock.message.text()
    assert dock.minimumSizeHint().width() <= width
    dock.train_on_these()
    asked: list[str] = []

    def answer(reason: str, parent: Any) -> str:
        asked.append(reason)
        if len(asked) == 2:
            (folder / "annotation").unlink()
            return "again"
        return "stay"

    monkeypatch.setattr(annotate_dock, "ask_unsaved", answer)
    assert not dock.workbench.may_close()
    assert dock.workbench.may_close()
    assert len(asked) == 2
    assert not dock.message.text()
    assert (on_disk(folder, "c.png") == layer.data).all()
    # Other data under the layer, by a script: taken if they fit, refused if not.
    layer.data = np.zeros(SIZE, np.uint8)
    assert dock.annotator.labels("c.png") is layer.data
    layer.data = np.zeros((5, 5), np.uint8)
    assert layer.data.shape == SIZE
    assert "Other data were put into the layer" in dock.message.text()
    # The layer, removed by hand.
    viewer.layers.remove(layer)
    assert dock.layer() is None
    qtbot.waitUntil(lambda: (on_disk(folder, "c.png") == 0).all(), timeout=PATIENCE)
    dock.annotator.go("c.png")
    assert (shown(qtbot, dock, "c.png").data == 0).all()


def test_a_dropped_folder_is_trained_on_and_closing_leaves_nothing(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path
) -> None:
    train = TrainDock(viewer)
    viewer.window.add_dock_widget(train, name="Train")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(folder))])
    action, buttons, none = (
        Qt.DropAction.CopyAction,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(dock, QDragEnterEvent(QPoint(5, 5), action, mime, buttons, none))
    QApplication.sendEvent(dock, QDropEvent(QPointF(5, 5), action, mime, buttons, none))
    layer = shown(qtbot, dock, "a.png")
    dock.train_on_these()
    assert "Nothing is painted yet" in dock.message.text()
    stroke(viewer, layer, (10, 10))
    dock.session.to_train.emit(folder)
    assert train.source.root() == str(folder)
    config = train.form.value()
    assert (config.data.layout, config.data.follow) == ("auto", True)
    dock.shut()
    # See AnnotateDock.leave.
    assert [each.name for each in viewer.layers] == (["a", "annotation · a"] if PYQT5 else [])
    assert layer.editable != PYQT5
    assert (on_disk(folder, "a.png") == layer.data).all()
    assert not layer.keymap
    # One that is opened again finds it.
    again = AnnotateDock(viewer)
    viewer.window.add_dock_widget(again, name="Annotate again")
    np.testing.assert_array_equal(opened(qtbot, again, folder).data, layer.data)
    again.shut()
    train.shut()


KILLED = """
import sys
from pathlib import Path
import napari
from napari.qt import get_qapp
from qtpy.QtCore import QTimer
from napari_smm.qt.annotate_dock import AnnotateDock
from strokes import steps

viewer = napari.Viewer()
dock = AnnotateDock(viewer)
viewer.window.add_dock_widget(dock, name="Annotate")
dock.open_folder(Path(sys.argv[1]))
acts = []

def act():
    layer = dock.layer()
    if layer is None:
        return
    if not acts:
        layer.brush_size = 5
        first = steps(viewer, layer, [(10, 10), (10, 25)])
        second = steps(viewer, layer, [(30, 10 + number) for number in range(40)])
        acts.extend([first, second])
    if len(acts) == 2:
        if next(acts[0], "end") == "end":
            acts.pop(0)
            print("painted", flush=True)
    elif dock.saving.text().startswith("✔"):
        next(acts[0])
        print("painting", flush=True)

timer = QTimer()
timer.timeout.connect(act)
timer.start(20)
napari.run()
"""


def test_who_kills_napari_in_the_middle_of_a_stroke_finds_the_work_saved(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path
) -> None:
    path = os.pathsep.join([str(ROOT / "tests" / "shared"), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        lines = []
        while "painting" not in lines:  # the second stroke has begun: the first is on the disk
            line = child.stdout.readline()
            assert line, lines
            lines.append(line.strip())
        time.sleep(0.05)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert "painted" in lines
    layer = opened(qtbot, dock, folder)
    assert (layer.data[10, 10:26] == 1).all()
    assert set(np.unique(layer.data)) == {1, UNLABELLED}
    assert dock.status.currentData() == "started"
    assert not list((folder / "annotation").rglob("*.new"))
    # And work goes on.
    stroke(viewer, layer, (20, 20))
    saved(qtbot, dock)
    np.testing.assert_array_equal(on_disk(folder, "a.png"), layer.data)


def test_the_docs_have_the_keys() -> None:
    assert annotate_keys.markdown() in (ROOT / "docs/keys.md").read_text("utf-8")


def test_the_question_is_what_is_answered(qtbot: QtBot, dock: AnnotateDock) -> None:
    from qtpy.QtCore import QTimer

    answers = []
    for words in ("Try again", "Close and lose it", "Don't close"):

        def click(words: str = words) -> None:
            (box,) = [each for each in QApplication.topLevelWidgets() if isinstance(each, QMessageBox)]
            next(button for button in box.buttons() if button.text() == words).click()
            box.deleteLater()

        QTimer.singleShot(200, click)
        answers.append(annotate_dock.ask_unsaved("the disk is full", dock))
    assert answers == ["again", "close", "stay"]
