"""A run's layers, without a viewer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import MadeRun, watched_item

from engine.errors import InputError
from napari_smm.feed import Feed
from napari_smm.layers import (
    ABOVE,
    ADDED,
    BELOW,
    ROLES,
    THRESHOLDED,
    TRUTH,
    LayerSpec,
    View,
    contrast_band,
    layers,
    masked,
)
from napari_smm.placement import Placement, Transform


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    valid = np.ones((24, 32), np.bool_)
    valid[:, :4] = False
    items = [watched_item("a", classes=2, valid=valid), watched_item("b", "val", (10, 12), 2)]
    return MadeRun(tmp_path / "run", items, epochs=4, classes=("core", "ring")).train(3)


def specs(run: MadeRun, view: View | None = None) -> dict[str, LayerSpec]:
    view = view or View()
    snapshot = Feed(run.root).snapshot(view)
    return {spec.role: spec for spec in layers(snapshot.run, view)}


def test_all_roles_but_the_outline_come_in_order(run: MadeRun) -> None:
    assert list(specs(run)) == [role for role in ROLES if role != "outline"]


def test_before_the_first_epoch_there_are_image_and_truth(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run", [watched_item("a")])
    assert list(specs(run)) == ["image", "truth"]


def test_a_run_that_watches_nothing_has_no_layers(tmp_path: Path) -> None:
    assert specs(MadeRun(tmp_path / "run").train(2)) == {}


@pytest.mark.parametrize("item", [0, 1])
@pytest.mark.parametrize("cls", [0, 1])
def test_layers_hold_what_the_trainer_wrote(run: MadeRun, item: int, cls: int) -> None:
    found = specs(run, View(item=item, cls=cls))
    kept = run.items[item]
    truth, valid = kept.truth[cls], kept.valid
    p = run.probability[item][:3, cls].astype(np.float32)
    grown = run.modulated[item][:3, cls]
    np.testing.assert_array_equal(found["image"].data, kept.image[..., 0])
    np.testing.assert_array_equal(found["truth"].data, truth)
    np.testing.assert_array_equal(
        np.asarray(found["modulated mask"].data), np.where(grown, np.where(truth, TRUTH, ADDED), 0)
    )
    np.testing.assert_array_equal(np.asarray(found["probability"].data), np.where(valid, p, BELOW))
    for threshold in (0.0, 0.25, 0.5, 1.0):
        passed = p >= threshold
        shown = {role: np.asarray(found[role].data) for role in THRESHOLDED}
        np.testing.assert_array_equal(shown["prediction"] >= threshold, passed & valid)
        np.testing.assert_array_equal(shown["false positives"] >= threshold, passed & valid & ~truth)
        np.testing.assert_array_equal(shown["false negatives"] < threshold, ~passed & valid & truth)


def test_names_tell_several_classes_apart(run: MadeRun) -> None:
    assert specs(run, View(cls=1))["prediction"].name == "prediction · ring"
    assert specs(run)["image"].name == "image"
    assert all(spec.name.startswith(role) for role, spec in specs(run).items())


def test_equal_keys_mean_equal_data(run: MadeRun) -> None:
    first, again = specs(run), specs(run, View(thresholds={0: 0.9}))
    assert {role: spec.key for role, spec in first.items()} == {
        role: spec.key for role, spec in again.items()
    }
    run.epoch(4)
    later = specs(run)
    assert later["prediction"].key != first["prediction"].key
    assert later["truth"].key == first["truth"].key


def test_the_epoch_axis_says_the_epoch_s_number(run: MadeRun) -> None:
    place = specs(run)["prediction"].place
    assert place["translate"][0] == 1
    assert place["scale"][0] == 1
    assert place["axis_labels"][0] == "epoch"


def test_a_crop_and_resized_pixels_lie_where_they_were(tmp_path: Path) -> None:
    item = watched_item("a", size=(8, 10), origin=(3, 5), scale=(2.0, 4.0))
    place = specs(MadeRun(tmp_path / "run", [item]).train(1))["prediction"].place
    # The crop's corner is at 3·2 = 6 and 5·4 = 20 pixels of the file; the centre of its first pixel
    # lies half of its own pixel, less half a pixel of the file, further.
    np.testing.assert_allclose(place["translate"], [1, 6.5, 21.5])
    np.testing.assert_allclose(place["scale"], [1, 2, 4])


def test_a_plane_lies_in_its_stack(run: MadeRun) -> None:
    snapshot = Feed(run.root).snapshot(View())
    transform = replace(Transform.identity(3), scale=(5.0, 0.5, 0.5), translate=(1.0, 2.0, 3.0))
    placed = [
        replace(item, placement=Placement("stack", (4,), (7, *item.shape), transform))
        for item in snapshot.run.items
    ]
    found = {spec.role: spec for spec in layers(replace(snapshot.run, items=placed), View())}
    assert found["prediction"].data.shape == (3, 7, 24, 32)
    assert found["image"].data.shape == (7, 24, 32)
    assert not found["image"].look["visible"]
    np.testing.assert_array_equal(np.asarray(found["truth"].data)[4], run.items[0].truth[0])
    assert not np.asarray(found["truth"].data)[[0, 1, 2, 3, 5, 6]].any()
    assert (np.asarray(found["prediction"].data)[:, 3] == BELOW).all()
    assert (np.asarray(found["false negatives"].data)[:, 3] == ABOVE).all()
    np.testing.assert_allclose(found["prediction"].place["scale"], [1, 5, 0.5, 0.5])
    np.testing.assert_allclose(found["truth"].place["translate"], [1, 2, 3])
    pixel = 24 / found["recall slope"].data.shape[2]
    np.testing.assert_allclose(found["recall slope"].place["scale"], [1, 5, 0.5 * pixel, 0.5 * pixel])


def test_the_plot_stands_beside_the_image_as_high_as_it(run: MadeRun) -> None:
    spec = specs(run)["recall slope"]
    high = spec.data.shape[1]
    scale, translate = spec.place["scale"], spec.place["translate"]
    top, bottom = translate[1] - scale[1] / 2, translate[1] + (high - 0.5) * scale[1]
    np.testing.assert_allclose([top, bottom], [-0.5, 23.5])
    assert translate[2] - scale[2] / 2 > 32 - 0.5


@given(st.floats(0, 1))
def test_the_band_stays_wide_enough_for_napari(threshold: float) -> None:
    from napari.utils.colormaps.colormap_utils import _coerce_contrast_limits

    low, high = contrast_band(threshold)
    assert low < threshold < high
    # Narrower limits would make napari rescale the data at every move.
    assert _coerce_contrast_limits((low, high)).scale == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_must_be_a_number(value: float) -> None:
    with pytest.raises(InputError, match="is no probability: 0 to 1 would work"):
        View().at(value)


def test_each_class_keeps_its_threshold() -> None:
    view = replace(View().at(0.3), cls=1).at(0.7)
    assert (view.threshold, replace(view, cls=0).threshold, replace(view, cls=2).threshold) == (0.7, 0.3, 0.5)
    assert (View().at(-2).threshold, View().at(2).threshold) == (0, 1)


def test_without_a_truth_only_the_prediction_is_shown() -> None:
    p = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(masked(p, None, None, "prediction"), p)
