"""Lesion probabilities of calibration images: gathering them, and the units that a promise is made about."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import InputError
from engine.thresholds import Lesions, Units, critical_threshold, gather, lesion_probabilities
from engine.thresholds import lesions as module

DTYPES = (np.float16, np.float32, np.float64)


# --- of one image and class -----------------------------------------------------------------------------


def test_by_hand_in_two_and_three_dimensions() -> None:
    p = np.array([[0.9, 0.1, 0.5], [0.3, 0.7, 0.2]], np.float32)
    y = np.array([[1, 0, 1], [1, 0, 0]], bool)
    found = lesion_probabilities(p, y)
    assert found.dtype == np.float32
    assert found.tolist() == np.array([0.3, 0.5, 0.9], np.float32).tolist()
    solid = lesion_probabilities(np.stack([p, 1 - p]), np.stack([y, ~y]))
    assert solid.tolist() == np.sort(np.concatenate([p[y], (1 - p)[~y]])).tolist()


def test_invalid_voxels_are_no_lesion() -> None:
    p = np.array([[0.9, math.nan], [0.3, 7.0]])
    y = np.array([[1, 1], [1, 0]], bool)
    valid = np.array([[1, 0], [1, 0]], bool)
    assert lesion_probabilities(p, y, valid).tolist() == [0.3, 0.9]  # nor is NaN looked at there
    assert lesion_probabilities(p, y, np.zeros((2, 2), bool)).size == 0


@st.composite
def images(draw: Any) -> tuple[Any, Any, Any]:
    """p of any type, shape and stride, truth, and valid pixels or None."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    p = (rng.integers(0, 20, shape) / 19).astype(dtype)
    y, valid = rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 1.0])), rng.random(shape) < 0.7
    if shape and draw(st.booleans()):  # views with steps, from the back and across
        p, y, valid = (array[::-2].T for array in (p, y, valid))
    return p, y, valid if draw(st.booleans()) else None


@given(images(), st.sampled_from([1, 2, 7, 1 << 22]), st.sampled_from("<>="))
def test_gathering_in_blocks_is_indexing_and_sorting(image: Any, block: int, order: Any) -> None:
    p, y, valid = image
    expected = np.sort(p[y if valid is None else y & valid], axis=None)
    given = p.astype(p.dtype.newbyteorder(order))
    before = given.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = lesion_probabilities(given, y, valid)
    assert found.shape == expected.shape
    assert found.dtype == p.dtype
    assert found.dtype.isnative
    assert np.array_equal(found, expected)
    assert np.array_equal(given, before)


def test_the_values_are_the_very_ones_that_were_observed() -> None:
    p = np.array([5e-324, 1e-45, 0.1, 1 / 3, 1 - 2**-53, 1.0])
    for dtype in DTYPES:
        assert lesion_probabilities(p.astype(dtype), np.ones(6, bool)).tobytes() == p.astype(dtype).tobytes()


def extra_bytes(p: Any, y: Any, valid: Any = None) -> tuple[int, int]:
    """Most bytes in use at a time beyond those of the arrays given, and those of the answer."""
    tracemalloc.start()
    try:
        found = lesion_probabilities(p, y, valid)
        return tracemalloc.get_traced_memory()[1], found.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape", [(128, 128, 128), (1, 1024, 2048), (2048, 1024), (2, 3, 350_000), (1 << 21,)]
)
@pytest.mark.parametrize("order", ["=", ">"])
def test_one_copy_of_the_lesion_voxels_is_made(shape: tuple[int, ...], order: Any) -> None:
    rng = np.random.default_rng(0)
    p = rng.random(shape, dtype=np.float32)
    few, blob = p < 0.1, np.zeros(shape, bool)  # scattered and in one place
    blob.reshape(-1)[: blob.size // 10] = True
    p = p.astype(p.dtype.newbyteorder(order))
    for y in (few, blob):
        for valid in (None, ~np.zeros(shape, bool)):
            peak, one_copy = extra_bytes(p, y, valid)
            assert one_copy == 4 * y.sum() > 800_000
            assert one_copy <= peak < one_copy + (1 << 20)  # 1 MiB: those of a block


def test_one_copy_is_made_of_a_volume_that_is_all_lesion() -> None:
    p = np.full((128, 128, 128), 0.5, np.float32)
    peak, one_copy = extra_bytes(p, np.ones(p.shape, bool))
    assert one_copy == p.nbytes
    assert peak < one_copy + (1 << 20)


@pytest.mark.parametrize(
    ("p", "y", "valid", "named"),
    [
        ([0.5, 3.5], [1, 1], None, r"of scan 7 go from 0.5 to 3.5.*logits"),
        ([-0.5, 0.5], [1, 1], None, r"of scan 7 go from -0.5 to 0.5"),
        ([math.nan, 0.5], [1, 1], None, r"1 of 2 probabilities of scan 7 are NaN"),
        ([0.5, 0.5], [1, 1, 1], None, r"truth has shape \(3,\), the probabilities \(2,\)"),
        ([0.5, 0.5], [1, 1], [1], r"valid pixels has shape \(1,\)"),
    ],
)
def test_misuse_is_refused(p: Any, y: Any, valid: Any, named: str) -> None:
    given = np.array(p), np.array(y, bool), None if valid is None else np.array(valid, bool)
    with pytest.raises(InputError, match=named):
        lesion_probabilities(*given, name="scan 7")


def test_masks_and_probabilities_of_another_type_are_refused() -> None:
    p, y = np.array([0.5, 0.25]), np.array([True, False])
    with pytest.raises(InputError, match="uint8"):
        lesion_probabilities(p, y.astype(np.uint8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="int64"):
        lesion_probabilities(p, y, y.astype(np.int64))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="uint8"):
        lesion_probabilities((p * 255).astype(np.uint8), y)


# --- units ----------------------------------------------------------------------------------------------


def made(*images: list[list[float]], groups: Any = None, classes: tuple[str, ...] = ("a", "b")) -> Lesions:
    """Images of two classes, named 0, 1 …"""
    values = [[np.array(each, np.float32) for each in image] for image in images]
    return gather([str(number) for number in range(len(images))], classes, values, groups)


def listed(units: Units) -> list[list[list[float]]]:
    return [[np.round(values.astype(np.float64), 3).tolist() for values in unit] for unit in units.values]


IMAGES = (
    [[0.1, 0.2], [0.5]],
    [[], [0.3, 0.4]],
    [[], []],
    [[0.6], []],
)


def test_units_of_a_class_leave_out_the_images_without_it() -> None:
    lesions = made(*IMAGES)
    assert listed(lesions.units(0)) == [[[0.1, 0.2]], [[0.6]]]
    assert lesions.units(0).left_out == 2
    assert lesions.units(0).n == 2
    assert listed(lesions.units(1)) == [[[0.5]], [[0.3, 0.4]]]
    assert lesions.units(1).left_out == 2


def test_units_of_all_classes_have_those_that_an_image_has() -> None:
    units = made(*IMAGES).units()
    assert listed(units) == [[[0.1, 0.2], [0.5]], [[0.3, 0.4]], [[0.6]]]
    assert (units.n, units.left_out) == (3, 1)


def test_groups_are_units_whichever_way_they_are_given() -> None:
    for groups in (["p", "q", "q", "p"], {"0": "p", "3": "p", "1": "q", "2": "q"}):
        lesions = made(*IMAGES, groups=groups)
        assert lesions.grouped
        assert listed(lesions.units()) == [[[0.1, 0.2], [0.5], [0.6]], [[0.3, 0.4]]]
        assert listed(lesions.units(0)) == [[[0.1, 0.2], [0.6]]]
        assert lesions.units(0).left_out == 1  # group q
        assert lesions.units().left_out == 0
    alone = made(*IMAGES, groups={"0": "p"})
    assert not alone.grouped
    assert alone.groups == ("p", "1", "2", "3")
    assert not made(*IMAGES).grouped


def test_units_without_lesion_count_where_they_are_asked_for() -> None:
    lesions = made(*IMAGES)
    units = lesions.units(0, count_empty=True)
    assert listed(units) == [[[0.1, 0.2]], [], [], [[0.6]]]
    assert (units.n, units.left_out) == (4, 0)
    # They can miss nothing: at any threshold.
    assert units.critical(0.0).tolist() == [np.float32(0.1), math.inf, math.inf, np.float32(0.6)]
    assert units.fnr(math.inf).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert lesions.units(count_empty=True).left_out == 0


def test_images_without_lesion_are_named() -> None:
    lesions = made(*IMAGES)
    assert lesions.without_lesion() == ("2",)
    assert lesions.without_lesion(0) == ("1", "2")
    assert lesions.without_lesion(1) == ("2", "3")


def test_a_unit_is_judged_by_its_worst_image_and_class() -> None:
    units = made([[0.1, 0.2, 0.3, 0.4], [0.25, 0.75]], [[0.5], []]).units()
    # At ε = 1/4 class a may lose one voxel of four, class b none of two.
    assert units.critical(0.25).tolist() == [np.float32(0.2), np.float32(0.5)]
    assert units.critical(0.5).tolist() == [np.float32(0.3), np.float32(0.5)]
    assert units.critical(1.0).tolist() == [math.inf, math.inf]
    assert units.fnr(0.15).tolist() == [0.25, 0.0]
    assert units.fnr(0.3).tolist() == [0.5, 0.0]
    assert units.fnr(0.6).tolist() == [1.0, 1.0]
    assert units.fnr(-1.0).tolist() == [0.0, 0.0]


SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.9, 1.0])


@st.composite
def sets(draw: Any) -> Lesions:
    """Up to eight images of three classes, in groups."""
    count = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    values = [
        [np.sort((rng.integers(0, 12, rng.integers(0, 7)) / 11).astype(dtype)) for _ in range(3)]
        for _ in range(count)
    ]
    groups = draw(st.none() | st.lists(st.sampled_from("pqr"), min_size=count, max_size=count))
    return gather([str(number) for number in range(count)], ["a", "b", "c"], values, groups)


@given(sets(), st.sampled_from([None, 0, 1, 2]), SHARES)
def test_critical_thresholds_of_units_are_minima(lesions: Lesions, cls: int | None, epsilon: float) -> None:
    units = lesions.units(cls)
    expected = []
    for group in dict.fromkeys(lesions.groups):
        members = [image for image, own in zip(lesions.values, lesions.groups, strict=True) if own == group]
        parts = [values for image in members for values in (image if cls is None else image[cls : cls + 1])]
        if any(values.size for values in parts):
            expected.append(min(critical_threshold(values, epsilon) for values in parts))
    assert units.critical(epsilon).tolist() == expected
    assert units.n + units.left_out == len(set(lesions.groups))
    counted = lesions.units(cls, count_empty=True)
    assert counted.n == units.n + units.left_out
    assert sorted(counted.critical(epsilon)) == sorted([*expected, *[math.inf] * units.left_out])


@given(sets(), SHARES, st.sampled_from([-1.0, 0.0, 1 / 11, 0.3, 5 / 11, 1.0, 1.5, math.inf]))
def test_a_unit_keeps_epsilon_up_to_its_critical_threshold(
    lesions: Lesions, epsilon: float, threshold: float
) -> None:
    units = lesions.units()
    assert np.array_equal(units.fnr(threshold) <= epsilon, threshold <= units.critical(epsilon))
    for critical in units.critical(epsilon):
        kept = units.fnr(float(critical)) <= epsilon
        assert np.array_equal(kept, units.critical(epsilon) >= critical)


@given(sets(), SHARES)
def test_all_classes_together_are_no_easier_than_any(lesions: Lesions, epsilon: float) -> None:
    together = lesions.units(count_empty=True).critical(epsilon)
    for cls in range(3):
        assert (together <= lesions.units(cls, count_empty=True).critical(epsilon)).all()


def test_what_cannot_be_is_refused() -> None:
    lesions = made(*IMAGES)
    for cls in (-1, 2):
        with pytest.raises(InputError, match=f"no class {cls}: 0 to 1"):
            lesions.units(cls)
    with pytest.raises(InputError, match="no calibration image"):
        gather([], ["a"], [])
    with pytest.raises(InputError, match=r"'scan\.png' is given to two"):  # not one unit of two images
        gather(["scan.png", "b", "scan.png"], ["a"], [[np.array([0.5])]] * 3)
    with pytest.raises(InputError, match=r"epsilon is 1\.5"):
        lesions.units().critical(1.5)
    with pytest.raises(InputError, match=r"epsilon is 1\.5"):
        Units(()).critical(1.5)
    with pytest.raises(InputError, match="NaN"):
        lesions.units().fnr(math.nan)


def test_no_units_have_no_thresholds() -> None:
    units = made([[], []]).units()
    assert (units.n, units.left_out) == (0, 1)
    assert units.critical(0.1).shape == units.fnr(0.5).shape == (0,)
    assert units.critical(0.1).dtype == np.float64
