"""Runs of volumes, and volumes to train on and to predict, in a real viewer."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from runs import MadeRun, watched_item
from volumes import SHAPE, volume_settings, write_volumes
from volumes import SPACING as MADE_SPACING

from napari_smm.layers import MARK, contrast_band
from napari_smm.qt.predict_panel import PredictPanel
from napari_smm.qt.source_panel import SourcePanel
from napari_smm.qt.threshold_dock import ThresholdDock
from napari_smm.qt.workbench import workbench

ROOT = Path(__file__).parents[2]
SIZE = (6, 10, 12)
SPACING = (3.0, 1.0, 0.5)
PATIENCE = 90_000
"""Milliseconds that a process may take to start on a busy machine."""


@pytest.mark.both_bindings
def test_a_run_of_volumes_is_followed_in_the_slice_in_view_and_seen_in_3d(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], tmp_path: Path
) -> None:
    image = np.random.default_rng(0).random((*SIZE, 2)).astype(np.float32)
    item = watched_item("brain", size=SIZE, image=image)
    item = replace(item, scale=SPACING, affine=np.diag([*SPACING, 1.0]))
    run = MadeRun(tmp_path / "run", [item], epochs=5).train(2)
    viewer = make_napari_viewer(show=True)
    bench = workbench(viewer)

    def shown(epoch: int) -> None:
        def arrived() -> None:
            layer = bench.sync.layer("recall slope")
            assert layer is not None
            assert not bench.sync.busy
            assert len(layer.data) == epoch

        qtbot.waitUntil(arrived, timeout=PATIENCE)

    bench.session.watch(run.root)
    shown(2)
    assert viewer.dims.axis_labels == ("epoch", "z", "y", "x")
    assert [layer.name for layer in viewer.layers][:2] == ["image · channel 1", "image · channel 2"]
    for layer in viewer.layers:
        assert [str(unit) for unit in layer.units][-3:] == ["millimeter"] * 3
        if layer.name != "recall slope":
            np.testing.assert_array_equal(layer.scale[-3:], SPACING)
    viewer.dims.set_point(1, 2 * SPACING[0])
    run.epoch(3)
    shown(3)
    assert viewer.dims.point[:2] == (3, 2 * SPACING[0])
    p = run.probability[0][2, 0].astype(np.float32)
    prediction = bench.sync.layer("prediction")
    np.testing.assert_array_equal(prediction._slice.image.raw, p[2])
    viewer.dims.ndisplay = 3
    np.testing.assert_array_equal(prediction._slice.image.raw, p)
    bench.session.set_threshold(0.25)
    np.testing.assert_allclose(prediction.contrast_limits, contrast_band(0.25))
    run.writer.release()
    bench.close()


def test_depth_makes_volumes_the_choice_and_a_plain_stack_slices(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any]
) -> None:
    viewer = make_napari_viewer()
    panel = SourcePanel(viewer)
    qtbot.addWidget(panel)
    pixels, labels = np.random.default_rng(0).random((5, 20, 24)), np.ones((5, 20, 24), np.uint8)
    labels[:2] = 0
    stack = viewer.add_image(pixels, name="stack")
    viewer.add_labels(labels, name="paint")
    panel.set_source("layers")
    panel.image.choose(stack)
    assert (panel.stack.isEnabled(), panel.stack.value()) == (True, "slices")
    assert panel.pair().planes == [(0,), (1,), (2,), (3,), (4,)]
    panel.stack.set_value("volumes")
    assert panel.pair().planes == [()]
    deep = viewer.add_image(pixels, name="deep", axis_labels=("z", "y", "x"))
    panel.image.choose(deep)
    assert panel.stack.value() == "volumes"
    panel.image.choose(viewer.add_image(pixels[0], name="flat"))
    assert not panel.stack.isEnabled()
    panel.leave()


@pytest.mark.usefixtures("quick")
def test_a_volume_is_predicted_whole_and_its_mask_lies_where_its_file_does(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], ready: str, home: Path, tmp_path: Path
) -> None:
    data, run = write_volumes(tmp_path / "set", classes=1), home / "runs" / "brains"
    command = [ready, "-m", "engine.train", "--data.root", str(data), "--out", str(run)]
    subprocess.run([*command, *volume_settings("--training.epochs=1")], cwd=ROOT, check=True, timeout=120)
    viewer = make_napari_viewer()
    scan = data / "images" / "b03.nii.gz"
    viewer.open(scan, plugin="napari-smm")
    panel = PredictPanel(viewer)
    panel.choose_run(run)
    qtbot.waitUntil(lambda: panel.run.isEnabled(), timeout=PATIENCE)
    assert panel.planes.itemText(0) == "the volume in view"
    assert panel.planes.isHidden()  # there is but one
    panel.start()
    qtbot.waitUntil(lambda: not panel.busy, timeout=PATIENCE)
    assert panel.state.text() == "✔ Finished", panel.detail.text()
    layer = viewer.layers["probability · b03"]
    np.testing.assert_array_equal(layer.data, panel.prediction.result().levels(0)[0])
    assert (layer.data.shape, layer.metadata[MARK]["dims"]) == (SHAPE, 3)
    np.testing.assert_allclose(layer.scale, MADE_SPACING, rtol=1e-6)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3

    dock = ThresholdDock(viewer)
    dock.choose_probability(layer)
    qtbot.waitUntil(lambda: dock._source.ready, timeout=PATIENCE)
    dock.set_threshold(float(np.median(layer.data)))
    dock.save_into(tmp_path / "masks", ".nii.gz")
    qtbot.waitUntil(lambda: "1 mask written" in dock.message.text(), timeout=PATIENCE)
    (written,) = (tmp_path / "masks").glob("*b03_mask.nii.gz")
    made = nib.load(written)
    np.testing.assert_array_equal(made.affine, nib.load(scan).affine)
    mask = np.asarray(layer.data) >= np.float32(dock.threshold)
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(np.asarray(made.dataobj), mask.transpose())
    dock.shut()
    panel.shut()
