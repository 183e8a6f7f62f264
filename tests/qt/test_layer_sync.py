"""Layers of a run in a real viewer."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from runs import MadeRun, probabilities, watched_item

from napari_smm.annotation import Pair, write_dataset
from napari_smm.layers import THRESHOLDED, contrast_band, mark
from napari_smm.qt.workbench import Workbench, workbench

SHOWN = [
    "image", "truth", "modulated mask", "probability", "prediction", "false positives", "false negatives",
    "recall slope",
]  # fmt: skip
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is done in threads."""


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def bench(viewer: Any) -> Iterator[Workbench]:
    made = workbench(viewer)
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[MadeRun]:
    items = [watched_item("a", classes=2), watched_item("b", "val", (16, 20), 2)]
    made = MadeRun(tmp_path / "run", items, epochs=6, classes=("core", "ring")).train(2)
    yield made
    made.writer.release()


def shown(qtbot: QtBot, bench: Workbench, epoch: int) -> None:
    """Wait until an epoch is there, and everything about it is in the viewer."""

    def arrived() -> None:
        snapshot = bench.session.snapshot
        assert snapshot is not None
        assert snapshot.run.epochs >= epoch
        assert not bench.sync.busy
        layer = bench.sync.layer("prediction")
        assert layer is not None
        assert len(layer.data) == snapshot.run.epochs

    qtbot.waitUntil(arrived, timeout=PATIENCE)


@pytest.mark.both_bindings
def test_layers_come_once_and_grow_in_place(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun
) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    first = list(viewer.layers)
    assert [layer.name.split(" · ")[0] for layer in first] == SHOWN
    assert viewer.dims.axis_labels[0] == "epoch"
    assert viewer.dims.point[0] == 2
    run.epoch(3)
    shown(qtbot, bench, 3)
    assert list(viewer.layers) == first
    assert viewer.dims.point[0] == 3
    assert viewer.dims.range[0][:2] == (1, 3)
    p = run.probability[0][2, 0].astype(np.float32)
    np.testing.assert_array_equal(bench.sync.layer("probability").data[2], p)


def test_napari_s_slider_scrubs_and_following_waits(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun
) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    viewer.dims.set_point(0, 1)
    assert (bench.session.epoch, bench.session.view.follow) == (1, False)
    run.epoch(3)
    shown(qtbot, bench, 3)
    assert viewer.dims.point[0] == 1
    viewer.dims.set_point(0, 3)
    assert bench.session.view.follow
    run.epoch(4)
    shown(qtbot, bench, 4)
    assert viewer.dims.point[0] == 4


def test_another_image_and_class_are_shown_by_the_same_layers(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun
) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    layer = bench.sync.layer("false negatives")
    bench.session.set_view(item=1, cls=1)
    qtbot.waitUntil(lambda: layer.data.shape == (2, 16, 20) and not bench.sync.busy, timeout=PATIENCE)
    assert bench.sync.layer("false negatives") is layer
    assert layer.name == "false negatives · ring"
    truth = run.items[1].truth[1]
    p = run.probability[1][1, 1].astype(np.float32)
    np.testing.assert_array_equal(layer.data[1] < 0.5, truth & (p < 0.5))
    np.testing.assert_array_equal(bench.sync.layer("image").data, run.items[1].image[..., 0])


def test_a_corrected_mask_and_an_image_that_joins_are_shown_an_epoch_later(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun
) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    layers, before = list(viewer.layers), run.items[0].truth
    truth = np.roll(before, 5, axis=2)
    run.writer.write_truth(0, 3, replace(run.items[0], truth=truth))
    new = watched_item("new", classes=2, size=(10, 12), first=3)
    run.writer.watch([new], run.epochs)
    run.items = (*run.items, new)
    run.probability.append(probabilities(run.epochs, 2, (10, 12), 9))
    run.modulated.append(np.repeat(new.truth[None], run.epochs, axis=0))
    run.writer.event("followed", epoch=3, images=[{"name": "a"}, {"name": "new"}])
    run.epoch(3)
    shown(qtbot, bench, 3)
    np.testing.assert_array_equal(bench.sync.layer("truth").data, truth[0])
    missed = np.asarray(bench.sync.layer("false negatives").data) < 0.5
    for epoch, right in ((2, before), (3, truth)):
        p = run.probability[0][epoch - 1, 0].astype(np.float32)
        np.testing.assert_array_equal(missed[epoch - 1], right[0] & (p < 0.5))
    assert list(viewer.layers) == layers
    viewer.dims.set_point(0, 2)
    qtbot.waitUntil(
        lambda: np.array_equal(bench.sync.layer("truth").data, before[0]) and not bench.sync.busy,
        timeout=PATIENCE,
    )
    bench.session.set_view(item=2)
    layer = bench.sync.layer("prediction")
    qtbot.waitUntil(lambda: layer.data.shape == (3, 10, 12) and not bench.sync.busy, timeout=PATIENCE)
    assert not (np.asarray(layer.data[:2]) >= 0).any()


def test_the_threshold_moves_contrast_limits_and_no_data(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun
) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    before = {role: bench.sync.layer(role).data for role in THRESHOLDED}
    for threshold in (0.0, 0.37, 1.0):
        bench.session.set_threshold(threshold)
        for role in THRESHOLDED:
            layer = bench.sync.layer(role)
            assert tuple(layer.contrast_limits) == pytest.approx(contrast_band(threshold), abs=1e-12)
            assert layer.data is before[role]


def test_what_the_user_set_stays(qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    bench.sync.layer("truth").visible = True
    bench.sync.layer("prediction").opacity = 0.9
    viewer.layers.remove(bench.sync.layer("recall slope"))
    painted = viewer.add_labels(np.zeros((24, 32), np.uint8), name="mine")
    painted.mode = "paint"
    run.epoch(3)
    shown(qtbot, bench, 3)
    assert bench.sync.layer("truth").visible
    assert bench.sync.layer("prediction").opacity == 0.9
    assert not any(layer.name == "recall slope" for layer in viewer.layers)
    assert viewer.layers.selection.active is painted
    assert painted.mode == "paint"


def test_derived_layers_cannot_be_painted_on(qtbot: QtBot, bench: Workbench, run: MadeRun) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    assert not bench.sync.layer("modulated mask").editable
    run.epoch(3)
    shown(qtbot, bench, 3)
    assert not bench.sync.layer("modulated mask").editable


def test_a_crash_leaves_layers_and_paint(qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun) -> None:
    painted = viewer.add_labels(np.zeros((24, 32), np.uint8), name="mine")
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    painted.data_setitem((np.array([3]), np.array([4])), 1)
    run.crash()
    qtbot.waitUntil(lambda: bench.session.snapshot.state.status == "crashed", timeout=PATIENCE)
    assert [layer.name.split(" · ")[0] for layer in viewer.layers] == ["mine", *SHOWN]
    assert painted.data[3, 4] == 1
    painted.undo()
    assert painted.data[3, 4] == 0


def test_another_run_replaces_only_the_run_s_layers(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun, tmp_path: Path
) -> None:
    mine = viewer.add_image(np.zeros((24, 32)), name="mine")
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    other = MadeRun(tmp_path / "other", [watched_item("z")]).train(1).end()
    bench.session.watch(other.root)
    shown(qtbot, bench, 1)
    assert [layer.name for layer in viewer.layers] == ["mine", *SHOWN]
    assert viewer.layers[0] is mine


def test_a_closed_workbench_finds_its_layers_again(qtbot: QtBot, viewer: Any, run: MadeRun) -> None:
    first = workbench(viewer)
    first.session.watch(run.root)
    shown(qtbot, first, 2)
    layers = list(viewer.layers)
    first.close()
    assert list(viewer.layers) == layers
    again = workbench(viewer)
    assert again is not first
    again.session.watch(run.root)
    shown(qtbot, again, 2)
    assert list(viewer.layers) == layers
    again.close()


def test_two_viewers_watch_one_run(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], run: MadeRun
) -> None:
    benches = [workbench(make_napari_viewer()), workbench(make_napari_viewer())]
    for bench in benches:
        bench.session.watch(run.root)
    for bench in benches:
        shown(qtbot, bench, 2)
    benches[0].session.set_threshold(0.9)
    benches[0].session.show_epoch(1)
    assert benches[1].session.view.threshold == 0.5
    assert benches[1].session.epoch == 2
    run.epoch(3)
    for bench in benches:
        shown(qtbot, bench, 3)
        bench.close()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"scale": (0.3, 0.7), "translate": (5, -8)},
        {"scale": (2, 3), "rotate": 30, "translate": (1, 2), "shear": (0.4,)},
    ],
)
def test_layers_lie_on_the_layer_that_was_trained_on(
    qtbot: QtBot, bench: Workbench, viewer: Any, tmp_path: Path, given: dict[str, Any]
) -> None:
    source = viewer.add_image(np.random.default_rng(0).random((24, 32)), name="mine", **given)
    labels = viewer.add_labels(np.ones((24, 32), np.uint8), name="painted", **given)
    written = write_dataset(Pair.of_layers(source, labels), tmp_path / "data")
    item = watched_item("mine", size=(12, 10), origin=(4, 6), scale=(1.0, 1.0))
    MadeRun(tmp_path / "run", [item], data=str(written.folder)).train(1).end()
    bench.session.watch(tmp_path / "run")
    shown(qtbot, bench, 1)
    for role in ("image", "truth", "modulated mask", *THRESHOLDED):
        layer = bench.sync.layer(role)
        for pixel in ((0, 0), (11, 9), (0, 9), (5, 3)):
            there = np.asarray(layer.data_to_world((0,) * (layer.ndim - 2) + pixel))[-2:]
            here = source.data_to_world((pixel[0] + 4, pixel[1] + 6))
            np.testing.assert_allclose(there, here, atol=1e-9)


def test_adopted_layers_are_those_of_the_run(
    qtbot: QtBot, bench: Workbench, viewer: Any, run: MadeRun
) -> None:
    foreign = viewer.add_image(np.zeros((3, 3)), metadata=mark("/elsewhere", "prediction"), name="prediction")
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    assert bench.sync.layer("prediction") is not foreign


def drawn(viewer: Any, layer: Any, size: tuple[int, int]) -> np.ndarray:
    """Whether a layer, alone, paints each of its pixels, from a screenshot at 8 screen pixels a pixel."""
    for other in viewer.layers:
        other.visible = other is layer
    layer.opacity = 1
    viewer.canvas.overlays.text.visible = False
    viewer.scene.camera.zoom = 8
    viewer.scene.camera.center = (0, (size[0] - 1) / 2, (size[1] - 1) / 2)
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    ratio = viewer.window._qt_window.devicePixelRatio()
    height, width = picture.shape[:2]
    rows = height / 2 + (np.arange(size[0]) - (size[0] - 1) / 2) * 8 * ratio
    columns = width / 2 + (np.arange(size[1]) - (size[1] - 1) / 2) * 8 * ratio
    return picture[np.ix_(rows.round().astype(int), columns.round().astype(int))].sum(-1) > 60


@pytest.mark.both_bindings
def test_what_is_drawn_is_what_numpy_says(
    qtbot: QtBot, bench: Workbench, viewer: Any, tmp_path: Path
) -> None:
    thresholds = np.array([0.0, 0.2, 0.5, 0.731, 1.0], np.float16)
    run = MadeRun(tmp_path / "run", [watched_item("a")])
    # Some pixels equal a threshold, some lie the last float16 step below it.
    for row, chosen in enumerate(thresholds):
        run.probability[0][0, 0, 2 * row] = chosen
        run.probability[0][0, 0, 2 * row + 1] = np.nextafter(chosen, np.float16(-1)) if row else 0
    run.epoch(1)
    run.end("stopped", reason="enough")
    bench.session.watch(run.root)
    shown(qtbot, bench, 1)
    p, truth = run.probability[0][0, 0].astype(np.float64), run.items[0].truth[0]
    for threshold in map(float, thresholds):
        bench.session.set_threshold(threshold)
        qtbot.wait(20)
        passed = p >= threshold
        wanted = {
            "prediction": passed,
            "false positives": passed & ~truth,
            "false negatives": ~passed & truth,
        }
        for role, mask in wanted.items():
            found = drawn(viewer, bench.sync.layer(role), mask.shape)
            np.testing.assert_array_equal(found, mask, err_msg=f"{role} at {threshold}")


def test_all_layers_come_though_epochs_are_shorter_than_their_round(
    qtbot: QtBot, bench: Workbench, run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.session.watch(run.root)
    shown(qtbot, bench, 2)
    sync, snapshots = bench.sync, []
    monkeypatch.setattr(sync, "_start", lambda: None)
    for epoch in (3, 4):
        run.epoch(epoch)
        qtbot.waitUntil(
            lambda epoch=epoch: bench.session.snapshot.run.epochs >= epoch,  # type: ignore[union-attr]
            timeout=PATIENCE,
        )
        snapshots.append(bench.session.snapshot)
    last = sync.layer("false negatives")
    assert len(last.data) == 2
    for turn in range(3 * len(SHOWN)):  # another epoch arrives before each turn
        sync._on_updated(snapshots[turn % 2])
        sync._work()
    assert len(last.data) > 2
