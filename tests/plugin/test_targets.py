"""Targets of a threshold: which layers can be one, their planes, their counts, and what their layers show."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image, Labels

from engine.errors import InputError
from napari_smm import targets
from napari_smm.layers import ABOVE, BELOW, MARK, THRESHOLDED, mark, masked
from napari_smm.targets import (
    Masked,
    Target,
    check,
    curve_of,
    offered,
    plane,
    quick_check,
    set_curves,
    share_above,
)

RNG = np.random.default_rng(0)


def p_of(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.random(shape).astype(dtype)


def predicted(classes: list[str], **more: Any) -> dict[str, Any]:
    return {MARK: {"run": "/r", "role": "probability", "kind": "prediction", "classes": classes, **more}}


def target_of(p: Any, truth: np.ndarray | None = None, metadata: dict[str, Any] | None = None) -> Target:
    layer = Image(p, name="p", rgb=False, multiscale=isinstance(p, list), metadata=metadata or {})
    return Target.of_layers(layer, None if truth is None else Labels(truth, name="truth"))


LAYERS = {
    "float16": (Image(p_of(8, 9, dtype=np.float16)), True),
    "float64 stack": (Image(p_of(3, 8, 9, dtype=np.float64)), True),
    "predicted": (Image(p_of(8, 9), metadata=predicted(["lesion"])), True),
    "other plugin's metadata": (Image(p_of(8, 9), metadata={"other": 1}), True),
    "of a run": (Image(p_of(8, 9), metadata=mark("/r", "probability")), False),
    "derived": (Image(p_of(8, 9), metadata={MARK: {"role": "prediction", "target": "p"}}), False),
    "uint8": (Image(np.zeros((8, 9), np.uint8)), False),
    "bool": (Image(np.zeros((8, 9), np.bool_)), False),
    "rgb": (Image(p_of(8, 9, 3), rgb=True), False),
    "labels": (Labels(np.zeros((8, 9), np.uint8)), False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_probabilities_are_offered_and_what_follows_something_else_is_not(name: str) -> None:
    layer, wanted = LAYERS[name]
    assert offered(layer) is wanted


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Image(np.full((8, 9), 255, np.uint8), name="x"), "'x' holds uint8, whole numbers up to 255"),
        (Image(p_of(8, 9, 3), rgb=True, name="x"), "'x' is an RGB image"),
        (Image(np.zeros((8, 9), np.bool_), name="x"), "'x' holds bool"),
        (Labels(np.zeros((8, 9), np.uint8), name="x"), "Labels layer 'x'"),
    ],
)
def test_a_layer_of_another_kind_is_known_without_reading_it(layer: Any, said: str) -> None:
    assert said in quick_check(layer)
    assert "would work" in quick_check(layer)
    assert check(layer) == quick_check(layer)
    with pytest.raises(InputError, match=said):
        Target.of_layers(layer, None)


@pytest.mark.parametrize("value", [-0.001, 1.0001, 7.5, np.nan, np.inf])
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "multiscale"])
def test_a_single_value_that_is_no_probability_is_found(value: float, kind: str) -> None:
    p = p_of(3, 40, 50)
    p[2, 31, 7] = value
    data = {
        "numpy": p,
        "dask": da.from_array(p, chunks=(1, 16, 16)),
        "zarr": zarr.array(p, chunks=(1, 16, 16)),
        "multiscale": [p, np.zeros((3, 20, 25), np.float32)],
    }[kind]
    layer = Image(data, name="x", multiscale=kind == "multiscale", contrast_limits=(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "BAND", 500)
        found = check(layer)
    assert f"'x' holds {np.float32(value)} at (2, 31, 7)" in found
    assert not quick_check(layer)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_probabilities_pass_ends_and_negative_zero_included(dtype: Any) -> None:
    p = p_of(2, 8, 9, dtype=dtype)
    p[0, 0, :3] = 0, 1, -0.0
    assert check(Image(p)) == ""


def test_a_layer_that_cannot_be_read_is_said() -> None:
    def broken(block: np.ndarray) -> np.ndarray:
        raise OSError("the file is gone")

    lazy = da.from_array(p_of(8, 9), chunks=4).map_blocks(
        broken, dtype=np.float32, meta=np.empty((0, 0), "f4")
    )
    target = Target(lazy, (lazy,), None, ("",), None, "x")
    with pytest.raises(InputError, match=r"'x' cannot be read \(the file is gone\)"):
        plane(target, 0, ())


def test_a_truth_of_another_shape_or_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(8, 8\).*\(8, 9\)"):
        target_of(p_of(8, 9), np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"Image layer 't' is no truth"):
        Target.of_layers(Image(p_of(8, 9)), Image(p_of(8, 9), name="t"))


def test_one_class_is_whatever_is_labelled() -> None:
    truth = RNG.integers(0, 4, (2, 8, 9)).astype(np.uint8)
    target = target_of(p_of(2, 8, 9), truth)
    assert (target.classes, target.class_axis, target.shape) == (("",), None, (2, 8, 9))
    p, y = plane(target, 0, (1,))
    np.testing.assert_array_equal(p, target.probability[1])
    np.testing.assert_array_equal(y, truth[1] > 0)
    for cls, index in ((1, (1,)), (-1, (1,)), (0, (2,)), (0, (-1,)), (0, ()), (0, (0, 0))):
        with pytest.raises(InputError, match=r"there is no plane|has no class"):
            plane(target, cls, index)


def test_classes_in_front_are_each_their_label() -> None:
    p, truth = p_of(3, 2, 8, 9), RNG.integers(0, 5, (2, 8, 9)).astype(np.uint8)
    target = target_of(p, truth, predicted(["a", "b", "c"]))
    assert (target.classes, target.class_axis, target.shape) == (("a", "b", "c"), 0, (2, 8, 9))
    for cls in range(3):
        found, y = plane(target, cls, (1,))
        np.testing.assert_array_equal(found, p[cls, 1])
        np.testing.assert_array_equal(y, truth[1] == cls + 1)


@pytest.mark.parametrize(
    ("meaning", "wanted"), [({"class": 1}, 2), ({"class": 0, "of": 2}, 1), ({"class": 0, "of": 1}, None)]
)
def test_a_layer_of_one_class_of_several_goes_with_its_own_label(
    meaning: dict[str, int], wanted: int | None
) -> None:
    truth = RNG.integers(0, 3, (8, 9)).astype(np.uint8)
    target = target_of(p_of(8, 9), truth, predicted(["ring"], **meaning))
    assert target.classes == ("ring",)
    np.testing.assert_array_equal(plane(target, 0, ())[1], truth > 0 if wanted is None else truth == wanted)


def test_more_names_than_planes_are_no_class_axis() -> None:
    assert target_of(p_of(8, 9), None, predicted(["a"] * 8)).class_axis is None
    assert target_of(p_of(4, 8, 9), None, predicted(["a", "b"])).classes == ("",)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32, np.float64]), st.floats(0, 1))
def test_counts_and_shares_are_exact_at_any_threshold(seed: int, dtype: Any, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that many equal each other and T.
    p = rng.integers(0, 5, (3, 6, 7)).astype(dtype) / dtype(4)
    truth = rng.integers(0, 3, (3, 6, 7)).astype(np.int32)
    target = target_of(p, truth)
    curves = set_curves(target, 0)
    assert not isinstance(curves, str)
    assert len(curves) == 3
    for index, curve in enumerate(curves):
        for limit in (threshold, float(p[index, 0, 0])):
            passed, true = p[index].astype(np.float64) >= limit, truth[index] > 0
            counts = curve.counts(limit)
            assert counts == curve_of(target, 0, (index,)).counts(limit)  # type: ignore[union-attr]
            assert (counts.tp, counts.fp) == ((passed & true).sum(), (passed & ~true).sum())
            assert (counts.fn, counts.tn) == ((~passed & true).sum(), (~passed & ~true).sum())
            assert share_above(target, 0, (index,)).share(limit) == passed.mean()


def test_without_truth_there_are_shares_only() -> None:
    target = target_of(p_of(2, 8, 9))
    assert curve_of(target, 0, (0,)) is None
    assert "a Labels layer would work" in str(set_curves(target, 0))
    assert share_above(target, 0, (1,)).share(0) == 1


def test_a_stack_that_is_too_large_is_said_and_not_read() -> None:
    huge = da.zeros((17, 4096, 4096), dtype=np.float32, chunks=(1, 4096, 4096))
    target = Target(huge, (huge,), huge.astype(np.uint8), ("",), None, "x")
    assert "285,212,672 pixels" in str(set_curves(target, 0))


def test_values_that_are_no_probabilities_are_not_counted() -> None:
    with pytest.raises(InputError, match="NaN or outside 0 to 1"):
        curve_of(target_of(p_of(8, 9) * 3, np.ones((8, 9), np.uint8)), 0, ())


KEYS = [
    ..., 1, (1, slice(None), slice(2, 7)), (slice(None), 3, slice(None)), (0, slice(5, 2), slice(None)),
    (2, slice(None, None, 3), slice(None, None, -1)), (..., np.array([4, 0, 0])), (np.int64(1), 2, 3),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
@pytest.mark.parametrize("role", ["prediction", "false positives", "false negatives"])
def test_masked_arrays_are_the_masked_array_indexed(key: Any, kind: str, role: Any) -> None:
    p, truth = p_of(2, 3, 8, 9), RNG.integers(0, 3, (3, 8, 9)).astype(np.uint8)
    wanted = masked(p[1], truth == 2, None, role)[key]
    wrap = {"numpy": np.asarray, "dask": da.from_array, "zarr": zarr.array}[kind]
    given, labels = wrap(p), wrap(truth)
    found = Masked(Target(given, (given,), labels, ("a", "b"), 0, "x", several=True), 1, role)
    assert (found.shape, found.ndim, found.size, len(found)) == ((3, 8, 9), 3, 216, 3)
    assert found.dtype == np.float32 == found[key].dtype
    np.testing.assert_array_equal(found[key], wanted)
    np.testing.assert_array_equal(np.asarray(found)[key], wanted)


@pytest.mark.parametrize("shape", [(300, 400), (3, 300, 400), (7, 2, 65537)])
def test_large_masked_arrays_are_made_of_bands(shape: tuple[int, ...]) -> None:
    p, truth = p_of(*shape), RNG.integers(0, 2, shape).astype(np.uint8)
    for role in THRESHOLDED:
        found = Masked(target_of(p, truth), 0, role)[...]
        np.testing.assert_array_equal(found, masked(p, truth > 0, None, role))


def test_masked_arrays_read_no_more_than_is_looked_at(tmp_path: Path) -> None:
    class Counted:
        def __init__(self, array: np.ndarray) -> None:
            self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

        def __getitem__(self, key: Any) -> np.ndarray:
            found = self.array[key]
            self.read += found.size
            return found

    p, truth = Counted(p_of(5, 64, 64)), Counted(np.ones((5, 64, 64), np.uint8))
    Masked(Target(p, (p,), truth, ("",), None, "x"), 0, "false negatives")[3, 10:20, 30:35]
    assert (p.read, truth.read) == (50, 50)


@pytest.mark.parametrize("shape", [(64, 96), (65, 99), (33, 31)])
def test_a_smaller_level_goes_with_the_truth_below_each_of_its_pixels(shape: tuple[int, int]) -> None:
    small = tuple(-(-length // 4) for length in shape)
    # Each label says where it is, as far as a level's pixel spans about four.
    rows, columns = np.indices(shape)
    p, less = p_of(*shape), p_of(*small)
    for axis, along in enumerate((rows, columns)):
        for at in range(small[axis]):
            target = target_of([p, less], (along * small[axis] // shape[axis] == at).astype(np.uint8))
            wanted = np.indices(small)[axis] == at
            negatives = Masked(target, 0, "false negatives", 1)
            np.testing.assert_array_equal(negatives[...], np.where(wanted, less, np.float32(ABOVE)))
            positives = Masked(target, 0, "false positives", 1)
            np.testing.assert_array_equal(positives[:, 1:], np.where(wanted, np.float32(BELOW), less)[:, 1:])
