"""Slopes worked by hand and by numpy, the length of the warm-up, and the threshold's line."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.modulation import recall_slope
from engine.modulation.recall_trend import starting_threshold, threshold, warmup_epochs

recalls = st.lists(st.floats(0, 1), min_size=2, max_size=40)


@pytest.mark.parametrize(
    ("values", "slope"),
    [
        ([0.2, 0.5], 0.3),
        ([0.5, 0.2], -0.3),
        ([0.1, 0.2, 0.3, 0.4], 0.1),
        ([0.0, 1.0, 0.0], 0.0),
        ([0.2, 0.4, 0.9], 0.35),  # (-1 · 0.2 + 0 · 0.4 + 1 · 0.9) / 2
        ([1.0, 0.0, 0.0, 0.0], -0.3),  # -1.5 · 1 / (2.25 + 0.25 + 0.25 + 2.25)
    ],
)
def test_slopes_worked_by_hand(values, slope):
    assert recall_slope(values) == pytest.approx(slope, abs=1e-15)


@given(recalls)
def test_is_the_line_that_numpy_fits(values):
    assert recall_slope(values) == pytest.approx(np.polyfit(np.arange(len(values)), values, 1)[0], abs=1e-12)


@given(st.floats(0, 1), st.integers(2, 40))
def test_a_constant_has_exactly_no_slope(value, count):
    assert recall_slope([value] * count) == 0  # else rounding would decide whether β < γ = 0


def test_small_trends_survive_large_values():
    values = [1 - 1e-9 * (10 - epoch) for epoch in range(10)]
    assert recall_slope(values) == pytest.approx(1e-9, rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.5], [nan, 0.5], [0.1, nan, 0.5], [nan, nan]])
def test_undefined_slopes_are_nan(values):
    assert isnan(recall_slope(values))


def test_the_warmup_is_a_fifth_rounded_up():
    assert [warmup_epochs(epochs) for epochs in range(1, 501)] == [0] + [(e + 4) // 5 for e in range(2, 501)]


@pytest.mark.parametrize(
    ("epochs", "share", "warmup"),
    [(10, 0.0, 0), (10, 1.0, 10), (1, 1.0, 0), (10, 0.3, 3), (1000, 0.001, 1), (7, 0.5, 4), (100, 0.07, 7)],
)
def test_other_shares(epochs, share, warmup):
    assert warmup_epochs(epochs, share) == warmup


def test_the_threshold_starts_from_the_defined_slopes():
    assert starting_threshold([nan, 0.3, nan, 0.1]) == pytest.approx(0.2)
    assert starting_threshold([nan, -0.4]) == -0.4
    assert isnan(starting_threshold([nan, nan]))
    assert isnan(starting_threshold([]))


def test_the_threshold_falls_to_nothing_on_a_line():
    line = [threshold(0.8, epoch, 20, 4) for epoch in range(4, 21)]
    assert line[0] == 0.8
    assert line[-1] == 0
    np.testing.assert_allclose(np.diff(line), -0.05, atol=1e-15)


def test_a_warmup_of_all_epochs_leaves_the_threshold():
    assert threshold(0.8, 5, 5, 5) == 0.8
