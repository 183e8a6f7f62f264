"""The layers over a threshold's target, in a real viewer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject

from engine.errors import InputError
from napari_smm.layers import ABOVE, BELOW, MARK, THRESHOLDED, contrast_band
from napari_smm.placement import Transform
from napari_smm.planes import plane_in_view
from napari_smm.qt.target_layers import PLACE, TargetLayers

RNG = np.random.default_rng(0)
P = RNG.random((3, 24, 32)).astype(np.float32)
TURNED = ((1, 0, 0), (0, 0.8, -0.6), (0, 0.6, 0.8))
TRUTH = RNG.integers(0, 3, P.shape).astype(np.uint8)
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is done in threads."""


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


def same_place(layer: Any, other: Any) -> None:
    way, wanted = Transform.of_layer(layer), Transform.of_layer(other)
    for name in ("scale", "translate", "rotate", "shear", "affine"):
        np.testing.assert_allclose(getattr(way, name), getattr(wanted, name), atol=1e-9, err_msg=name)
    assert (way.units, way.axis_labels) == (wanted.units, wanted.axis_labels)


def connected(layer: Any) -> int:
    """How many hear of a layer's events."""
    return sum(len(emitter.callbacks) for emitter in layer.events.emitters.values())


@pytest.mark.both_bindings
def test_a_target_is_shown_moved_painted_and_left(qtbot: QtBot, viewer: Any) -> None:
    target = viewer.add_image(
        P, name="p", scale=(2, 0.5, 0.5), translate=(0, 3, 4), units=("pixel", "um", "um")
    )
    truth = viewer.add_labels(TRUTH.copy(), name="truth", units=("pixel", "um", "um"))
    viewer.layers.selection.active = truth
    heard = [connected(target), connected(truth), len(viewer.layers.events.removed.callbacks)]
    parent = QObject()
    shown = TargetLayers(viewer, target, truth, 0, 0.3, parent)
    assert [layer.name for layer in viewer.layers[2:]] == [f"{role} · p" for role in THRESHOLDED]
    assert viewer.layers.selection.active is truth
    wanted = {
        "prediction": P,
        "false positives": np.where(TRUTH > 0, np.float32(BELOW), P),
        "false negatives": np.where(TRUTH > 0, P, np.float32(ABOVE)),
    }
    for role in THRESHOLDED:
        layer = shown.layer(role)
        same_place(layer, target)
        np.testing.assert_array_equal(np.asarray(layer.data), wanted[role])
        assert tuple(layer.contrast_limits) == contrast_band(0.3)
        assert not layer.editable
        assert layer.metadata == {MARK: {"role": role, "target": "p"}}

    # Another T is other contrast limits, and nothing is read.
    def data_of() -> list[Any]:
        return [shown.layer(role).data for role in THRESHOLDED]

    before = data_of()
    sliced = [shown.layer(role)._slice.image.raw for role in THRESHOLDED]
    shown.set_threshold(0.0)
    shown.set_threshold(0.7)
    assert all(
        shown.layer(role)._slice.image.raw is raw for role, raw in zip(THRESHOLDED, sliced, strict=True)
    )
    assert all(now is then for now, then in zip(data_of(), before, strict=True))
    assert {tuple(shown.layer(role).contrast_limits) for role in THRESHOLDED} == {contrast_band(0.7)}
    assert shown.threshold == 0.7

    # Thumbnails follow once T is at rest, and are napari's own again.
    prediction = shown.layer("prediction")
    old = prediction.thumbnail.copy()
    qtbot.waitUntil(lambda: not np.array_equal(prediction.thumbnail, old), timeout=PATIENCE)
    new = prediction.thumbnail.copy()
    prediction._update_thumbnail()
    np.testing.assert_array_equal(prediction.thumbnail, new)
    assert "_update_thumbnail" not in vars(prediction)

    # The target moves, and they with it.
    target.scale = (1, 0.25, 0.75)
    target.translate = (1, 2, 3)
    target.rotate = TURNED
    target.shear = [0, 0, 0.3]
    target.affine = np.diag([1, 2, 2, 1])
    target.axis_labels = ("z", "y", "x")
    target.units = ("pixel", "nm", "nm")
    for role in THRESHOLDED:
        same_place(shown.layer(role), target)

    for name in PLACE:
        setattr(truth, name, getattr(target, name))

    # What is painted shows, in false positives and negatives alone.
    (plane,) = plane_in_view(truth, viewer)
    truth.selected_label = 1
    truth.data_setitem(tuple(np.array(axis) for axis in ([plane] * 4, [5] * 4, range(4))), 1)
    truth.data_setitem(tuple(np.array(axis) for axis in ([plane] * 4, [6] * 4, range(4))), 0)
    with qtbot.waitSignal(shown.changed, timeout=PATIENCE):
        pass

    def painted() -> None:
        positives = shown.layer("false positives")._slice.image.raw
        negatives = shown.layer("false negatives")._slice.image.raw
        assert (positives[5, :4] == BELOW).all()
        np.testing.assert_array_equal(negatives[5, :4], P[plane, 5, :4])
        np.testing.assert_array_equal(positives[6, :4], P[plane, 6, :4])
        assert (negatives[6, :4] == ABOVE).all()

    qtbot.waitUntil(painted, timeout=PATIENCE)

    # Data set anew show too.
    with qtbot.waitSignal(shown.changed, timeout=PATIENCE):
        truth.data = np.ones_like(TRUTH)
    assert (np.asarray(shown.layer("false positives").data) == BELOW).all()
    assert shown.target.truth is truth.data
    with qtbot.waitSignal(shown.changed, timeout=PATIENCE):
        target.data = P / 2
    np.testing.assert_array_equal(np.asarray(shown.layer("prediction").data), P / 2)
    assert tuple(shown.layer("prediction").contrast_limits) == contrast_band(0.7)
    assert not shown.layer("prediction").editable

    # What the user removes stays away.
    viewer.layers.remove(shown.layer("false positives"))
    assert shown.layer("false positives") is None
    shown.set_threshold(0.6)
    with qtbot.waitSignal(shown.changed, timeout=PATIENCE):
        truth.data = TRUTH.copy()
    assert len(viewer.layers) == 4

    # Without the truth there is a prediction only, also if all the user selected goes at once.
    viewer.layers.selection = {truth, shown.layer("false negatives")}
    with qtbot.waitSignal(shown.changed, timeout=PATIENCE):
        viewer.layers.remove_selected()
    assert [layer.name for layer in viewer.layers] == ["p", "prediction · p"]
    assert shown.target.truth is None

    # Without the target there is nothing, and nobody hears of anything.
    viewer.layers.selection = {target, shown.layer("prediction")}
    with qtbot.waitSignal(shown.gone, timeout=PATIENCE):
        viewer.layers.remove_selected()
    assert not viewer.layers
    shown.close()
    assert len(viewer.layers.events.removed.callbacks) == heard[2]
    assert connected(truth) <= heard[1]
    assert connected(target) <= heard[0]
    parent.deleteLater()


@pytest.mark.both_bindings
def test_classes_levels_and_closing(qtbot: QtBot, viewer: Any) -> None:
    p = RNG.random((2, 40, 65)).astype(np.float32)
    levels = [p, p[:, ::2, ::2], p[:, ::4, ::4]]
    meaning = {MARK: {"role": "probability", "kind": "prediction", "classes": ["core", "ring"]}}
    target = viewer.add_image(
        levels, name="p", multiscale=True, metadata=meaning, scale=(1, 3, 3), rotate=TURNED,
        contrast_limits=(0, 1),
    )  # fmt: skip
    labels = RNG.integers(0, 3, (40, 65)).astype(np.uint8)
    truth = viewer.add_labels(labels, name="truth")
    with pytest.raises(InputError, match=r"\(40, 64\).*\(40, 65\)"):
        TargetLayers(viewer, target, viewer.add_labels(labels[:, :-1]), 0, 0.5)
    viewer.layers.pop()
    with pytest.raises(InputError, match="has no class 2"):
        TargetLayers(viewer, target, truth, 2, 0.5)
    assert len(viewer.layers) == 2
    heard = [connected(target), connected(truth), len(viewer.layers.events.removed.callbacks)]

    parent = QObject()
    shown = TargetLayers(viewer, target, truth, 0, 0.5, parent)
    colours = [np.asarray(shown.layer("prediction").colormap.colors[1])]
    for cls in (0, 1):
        shown.set_class(cls)
        for number, level in enumerate(levels):
            found = np.asarray(shown.layer("false negatives").data[number])
            assert found.shape == level.shape[1:]
            columns = (2 * np.arange(found.shape[1]) + 1) * 65 // (2 * found.shape[1])
            rows = (2 * np.arange(found.shape[0]) + 1) * 40 // (2 * found.shape[0])
            true = labels[np.ix_(rows, columns)] == cls + 1
            np.testing.assert_array_equal(found, np.where(true, level[cls], np.float32(ABOVE)))
    assert shown.cls == 1
    assert not np.allclose(np.asarray(shown.layer("prediction").colormap.colors[1]), colours[0])
    way, wanted = Transform.of_layer(shown.layer("prediction")), Transform.of_layer(target)
    np.testing.assert_allclose(way.matrix, wanted.matrix[1:, 1:], atol=1e-9)
    target.translate = (0, 7, 8)
    np.testing.assert_allclose(Transform.of_layer(shown.layer("prediction")).translate, (7, 8))

    # Labels that do not fit any more end it.
    with qtbot.waitSignal(shown.gone, timeout=PATIENCE):
        truth.data = labels[:, :-1]
    assert list(viewer.layers) == [target, truth]
    truth.data = labels

    for remove in (False, True):
        shown = TargetLayers(viewer, target, None, 1, 0.5, parent)
        assert [layer.name for layer in viewer.layers][-1].startswith("prediction · p")
        shown.close(remove)
        shown.close(remove)
        assert len(viewer.layers) == 3
    assert [connected(target), connected(truth), len(viewer.layers.events.removed.callbacks)] == heard
    parent.deleteLater()


@pytest.mark.both_bindings
def test_the_screen_shows_the_decision(qtbot: QtBot, viewer: Any) -> None:
    p = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    truth = np.zeros((64, 64), np.uint8)
    truth[:, :32] = 1
    target = viewer.add_image(p, name="p", visible=False)
    labels = viewer.add_labels(truth, name="truth", visible=False)
    shown = TargetLayers(viewer, target, labels, 0, 0.25)
    viewer.layers.selection = set()
    for threshold in (0.25, float(p[40, 10]), 1.0):
        shown.set_threshold(threshold)
        for role, wanted in {
            "prediction": p >= threshold,
            "false positives": (p >= threshold) & (truth == 0),
            "false negatives": (p < threshold) & (truth == 1),
        }.items():
            for other in THRESHOLDED:
                shown.layer(other).visible = other == role
            shown.layer(role).opacity = 1
            pixels = viewer.export_figure(flash=False)[..., :3].max(-1) > 60
            assert pixels.shape == (64, 64)
            np.testing.assert_array_equal(pixels, wanted, err_msg=f"{role} at {threshold}")
    shown.close()
