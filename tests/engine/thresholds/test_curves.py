"""Curves over the threshold: against brute force, against engine.metrics, at the edges of each float."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine import metrics
from engine.errors import InputError
from engine.thresholds import Counts, Curve, Rates, mean_rates, pooled, precision_recall, rates
from engine.thresholds.curves import HALVES

WIDTHS = {np.float16: 16, np.float32: 32, np.float64: 64}
NEAR_HALF = [np.nextafter(d(0.5), d(e)) for d in WIDTHS for e in (0, 1)]
EDGES = [-0.0, 0.0, 5e-324, 1e-45, 6e-8, 0.1, 0.5, *map(float, NEAR_HALF), 1 / 3, 1 - 2**-53, 1.0]


def probabilities(dtype: Any) -> st.SearchStrategy[float]:
    """Any probability of a type, edges and ties often."""
    width = WIDTHS[dtype]
    edges = [*sorted({float(dtype(edge)) for edge in EDGES} - {0.0}), 0.0, -0.0]
    return st.one_of(st.sampled_from(edges), st.floats(0, 1, width=width))  # type: ignore[arg-type]


@st.composite
def images(draw: Any) -> tuple[Any, Any, Any]:
    """p of a random type, truth, and valid pixels or None."""
    dtype = draw(st.sampled_from(list(WIDTHS)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    p = draw(hnp.arrays(dtype, shape, elements=probabilities(dtype)))
    y, valid = draw(hnp.arrays(bool, shape)), draw(st.none() | hnp.arrays(bool, shape))
    return p, y, valid


THRESHOLDS = st.one_of(
    st.sampled_from([*EDGES, -1.0, 2.0, math.inf, -math.inf, 1e300, *(HALVES[1:9] - HALVES[1] / 2)]),
    st.floats(0, 1),
)


def counted(p: Any, y: Any, valid: Any, threshold: float) -> Counts:
    """Pixel by pixel; float64 holds every value of the narrower types."""
    valid = np.ones(p.shape, bool) if valid is None else valid
    found = p.astype(np.float64) >= threshold
    parts = (found & y, found & ~y, ~found & y, ~found & ~y)
    return Counts(*(int((part & valid).sum()) for part in parts))


@given(images(), THRESHOLDS)
def test_counts_are_those_of_brute_force(image: Any, threshold: float) -> None:
    p, y, valid = image
    curve = Curve.of(p, y, valid)
    assert curve.counts(threshold) == counted(p, y, valid, threshold)
    for value in np.unique(p):  # at the very values that occur, where >= and > differ
        assert curve.counts(value) == counted(p, y, valid, float(value))


def test_every_float16_against_thresholds_on_and_between_them() -> None:
    p = HALVES.astype(np.float16)
    curve = Curve.of(p, np.ones(p.shape, bool))
    for number in (0, 1, 2, 1023, 1024, 7000, 15359, 15360):
        assert curve.counts(HALVES[number]).fn == number
        assert curve.counts(np.nextafter(HALVES[number], 2)).fn == number + 1
        assert curve.counts(np.nextafter(HALVES[number], -1)).fn == number


def test_a_threshold_is_not_rounded_to_the_probabilities() -> None:
    p = np.array([0.1], np.float32)  # a little more than 0.1
    curve = Curve.of(p, np.array([True]))
    assert curve.counts(0.1).tp == 1
    assert curve.counts(float(p[0])).tp == 1
    assert curve.counts(np.nextafter(float(p[0]), 1)).tp == 0
    low = Curve.of(np.array([0.3], np.float16), np.array([True]))  # 0.30004883
    assert low.counts(0.3000488).tp == 1
    assert low.counts(0.3000489).tp == 0


@given(images(), THRESHOLDS)
def test_counts_and_rates_are_those_of_the_metrics(image: Any, threshold: float) -> None:
    p, y, valid = image
    found = Curve.of(p, y, valid).counts(threshold)
    masks = [
        torch.from_numpy(np.atleast_1d(mask)[None, None]) for mask in (p.astype(np.float64) >= threshold, y)
    ]
    inside = None if valid is None else torch.from_numpy(np.atleast_1d(valid)[None, None])
    c = metrics.confusion(*masks, valid=inside)
    assert found == Counts(*(int(part) for part in c))
    for name, value in rates(found)._asdict().items():
        # To the last bit: both divide the same whole numbers in double precision.
        np.testing.assert_equal(value, float(getattr(metrics, name)(c)))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(6, 2, 4, 88), Rates(6 / 8, 6 / 10, 12 / 18, 6 / 12, 4 / 10, 2 / 90)),
        (Counts(0, 0, 0, 9), Rates(math.nan, math.nan, math.nan, math.nan, math.nan, 0)),
        (Counts(0, 3, 0, 6), Rates(0, math.nan, 0, 0, math.nan, 3 / 9)),
        (Counts(0, 0, 3, 6), Rates(math.nan, 0, 0, 0, 1, 0)),
        (Counts(9, 0, 0, 0), Rates(1, 1, 1, 1, 0, math.nan)),
        (Counts(0, 0, 0, 0), Rates(*[math.nan] * 6)),
    ],
)
def test_rates_by_hand(counts: Counts, expected: Rates) -> None:
    np.testing.assert_equal(tuple(rates(counts)), tuple(expected))


def test_counts_of_more_pixels_than_32_bits_hold() -> None:
    many = Counts(2**40, 2**40, 0, 0)
    assert rates(many + many) == Rates(0.5, 1, 2 / 3, 0.5, 0, 1)


@given(st.lists(images(), max_size=4), THRESHOLDS)
def test_images_are_pooled_by_pixel_or_averaged_by_image(sets: Any, threshold: float) -> None:
    curves = [Curve.of(*image) for image in sets]
    each = [counted(*image, threshold) for image in sets]
    total = sum(each, Counts(0, 0, 0, 0))
    assert pooled(curves, threshold) == total
    means, skipped = mean_rates(iter(curves), threshold)
    for name in Rates._fields:
        values = [value for c in each if not math.isnan(value := getattr(rates(c), name))]
        expected = sum(values) / len(values) if values else math.nan
        assert getattr(means, name) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert getattr(skipped, name) == len(each) - len(values)


@given(st.lists(images(), max_size=3), st.integers(2, 40))
def test_every_point_of_a_plotted_curve_is_exact(sets: Any, points: int) -> None:
    curves = [Curve.of(*image) for image in sets]
    thresholds, *values = precision_recall(curves, points)
    assert len(thresholds) <= points
    assert (np.diff(thresholds) > 0).all()
    for threshold, precision, recall, dice in zip(thresholds, *values, strict=True):
        exact = rates(pooled(curves, threshold))
        np.testing.assert_equal((precision, recall, dice), (exact.precision, exact.recall, exact.dice))
    inside = [p[np.ones(p.shape, bool) if valid is None else valid] for p, _, valid in sets]
    present = np.concatenate([[], *(p.ravel().astype(np.float64) for p in inside)])
    if present.size:
        assert thresholds[0] == 0
        assert thresholds[-1] == present.max()
    else:
        assert thresholds.size == 0


@pytest.mark.parametrize("dtype", WIDTHS)
def test_a_plotted_curve_has_no_gaps(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    y = rng.random((300, 300)) < 0.1
    p = (1 / (1 + np.exp(-rng.normal(-6, 4, y.shape) - 8 * y))).astype(dtype)
    thresholds, precision, recall, dice = precision_recall([Curve.of(p, y)], 200)
    assert 150 <= len(thresholds) <= 200
    assert np.abs(np.diff(recall)).max() < 0.05
    assert np.abs(np.diff(thresholds)).max() < 0.05
    assert recall[0] == 1
    assert precision[0] == pytest.approx(y.mean())
    best = max(
        2 * (p >= t)[y].sum() / ((p >= t).sum() + y.sum()) for t in np.linspace(0, 1, 400).astype(dtype)
    )
    assert dice.max() == pytest.approx(best, abs=0.01)


def test_a_curve_of_few_pixels_or_none() -> None:
    few = Curve.of(np.array([0.25, 0.75], np.float32), np.array([False, True]))
    thresholds, precision, recall, _ = precision_recall([few], 1000)
    assert dict(zip(thresholds, zip(precision, recall, strict=True), strict=True)).items() >= {
        (0.0, (0.5, 1.0)), (0.25, (0.5, 1.0)), (0.75, (1.0, 1.0)),
    }  # fmt: skip
    for dtype in WIDTHS:
        thresholds, precision, recall, dice = precision_recall(
            [Curve.of(np.zeros(3, dtype), np.zeros(3, bool))]
        )
        np.testing.assert_equal((thresholds, precision, recall, dice), ([0], [0], [math.nan], [0]))
        assert [array.size for array in precision_recall([])] == [0] * 4


def test_the_order_of_bytes_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    y = rng.random((7, 9)) < 0.5
    for dtype in WIDTHS:
        p = rng.random((9, 7)).astype(dtype)
        swapped = p.astype(p.dtype.newbyteorder()).T  # and no rows of one piece
        assert Curve.of(swapped, y).counts(0.4) == counted(p.T, y, None, 0.4)


def refused(case: str) -> tuple[Any, ...]:
    p, y = np.zeros((2, 3), np.float32), np.zeros((2, 3), bool)
    return {
        "shape": (p, y.T),
        "valid shape": (p, y, np.ones((1, 2, 3), bool)),
        "integers": (p.astype(np.uint8), y),
        "wider": (p.astype(np.longdouble), y),
        "labels": (p, y.astype(np.uint8)),
        "valid numbers": (p, y, np.ones((2, 3))),
    }[case]


REFUSALS = {
    "shape": r"truth has shape \(3, 2\), the probabilities \(2, 3\)", "valid shape": r"\(1, 2, 3\)",
    "integers": "uint8: float16", "wider": "float32 or float64", "labels": "truth is of type uint8: bool",
    "valid numbers": "valid pixels is of type float64",
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_other_types_and_shapes_are_refused(case: str) -> None:
    with pytest.raises(InputError, match=REFUSALS[case]):
        Curve.of(*refused(case))


@pytest.mark.parametrize("truth", [False, True])
@pytest.mark.parametrize("value", [math.nan, -math.nan, 1.001, -6e-8, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", WIDTHS)
def test_what_is_no_probability_is_refused_where_it_counts(dtype: Any, value: float, truth: bool) -> None:
    p, y, valid = np.full(5, 0.5, dtype), np.full(5, truth), np.ones(5, bool)
    p[3] = value
    with pytest.raises(InputError, match="1 of the probabilities are NaN or outside"):
        Curve.of(p, y, valid)
    valid[3] = False
    assert sum(vars(Curve.of(p, y, valid).counts(0.2)).values()) == 4


def test_a_threshold_that_is_no_number_is_refused() -> None:
    curve = Curve.of(np.zeros(1, np.float16), np.zeros(1, bool))
    with pytest.raises(InputError, match="NaN"):
        curve.counts(math.nan)
    with pytest.raises(InputError, match="1 points cannot be drawn"):
        precision_recall([curve], 1)
