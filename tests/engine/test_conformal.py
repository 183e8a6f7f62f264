"""Thresholds that keep a promise: by hand, by brute force, and against scipy and engine.metrics."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from engine import metrics
from engine.errors import InputError
from engine.thresholds import (
    cls_needs,
    cls_threshold,
    conditional_cls_threshold,
    conditional_needs,
    crc_threshold,
    critical_threshold,
    gather,
)
from engine.thresholds.conformal import below, cls_rank, conditional_rank, crc_of, missable

WIDTHS = {np.float16: 16, np.float32: 32, np.float64: 64}
EDGES = [0.0, -0.0, 5e-324, 1e-45, 6e-8, 0.1, 0.29, 0.5, 1 / 3, 1 - 2**-53, 1.0]
SHARES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.29, 1 / 3, 0.5, 0.7, 0.9, 0.999, 1.0, 5e-324]),
    st.integers(0, 100).map(lambda percent: percent / 100),
    st.floats(0, 1),
)


def probabilities(dtype: Any) -> st.SearchStrategy[float]:
    """Probabilities of a type: edges, subnormal numbers, 8-bit steps and ties often."""
    edges = sorted({float(dtype(edge)) for edge in EDGES})
    steps = st.integers(0, 255).map(lambda step: float(dtype(step / 255)))
    return st.one_of(st.sampled_from([*edges, -0.0]), steps, st.floats(0, 1, width=WIDTHS[dtype]))  # type: ignore[arg-type]


@st.composite
def lesions(draw: Any, smallest: int = 0) -> Any:
    """The lesion probabilities of one image, of any type and shape."""
    dtype = draw(st.sampled_from(list(WIDTHS)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=smallest, max_side=4))
    return draw(hnp.arrays(dtype, shape, elements=probabilities(dtype)))


CRITICAL = st.lists(st.one_of(probabilities(np.float64), st.just(math.inf)), max_size=25)


def missed(values: Any, threshold: float) -> float:
    """FNR of the decision p >= T, as it is defined; float64 holds every value of the narrower types."""
    return int((np.ravel(values).astype(np.float64) < threshold).sum()) / values.size


# --- the critical threshold of an image ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "epsilon", "expected"),
    [
        ([0.3], 0.0, 0.3),  # m = 1: the one voxel must be found …
        ([0.3], 0.999, 0.3),
        ([0.3], 1.0, math.inf),  # … or nothing need be
        ([0.6, 0.2], 0.0, 0.2),  # m = 2
        ([0.6, 0.2], 0.49, 0.2),
        ([0.6, 0.2], 0.5, 0.6),  # j = 1: 1/2 <= 0.5
        ([0.6, 0.2], 0.99, 0.6),
        ([0.6, 0.2], 1.0, math.inf),
        ([0.4, 0.4], 0.5, 0.4),  # a tie: at 0.4 nothing is missed, above it everything
        ([0.2, 0.4, 0.4, 0.4, 0.9], 0.2, 0.4),
        ([0.2, 0.4, 0.4, 0.4, 0.9], 0.79, 0.4),
        ([0.2, 0.4, 0.4, 0.4, 0.9], 0.8, 0.9),
        ([0.0, 0.0, 1.0, 1.0], 0.25, 0.0),
        ([0.0, 0.0, 1.0, 1.0], 0.5, 1.0),
        ([], 0.0, math.inf),  # m = 0: there is nothing to miss
        ([], 1.0, math.inf),
    ],
)
def test_critical_threshold_by_hand(values: list[float], epsilon: float, expected: float) -> None:
    assert critical_threshold(values, epsilon) == expected


@pytest.mark.parametrize(
    ("epsilon", "place"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.29, 2), (0.3, 3), (0.9, 9)]
)
def test_critical_threshold_of_ten_voxels(epsilon: float, place: int) -> None:
    values = [0.05 + 0.1 * step for step in range(10)]
    assert critical_threshold(values[::-1], epsilon) == values[place]


def test_029_of_100_voxels_are_29_although_the_product_is_less() -> None:
    values = np.arange(100) / 128
    assert 0.29 * 100 < 29  # which int() and floor() would make 28
    assert critical_threshold(values, 0.29) == values[29]
    assert missed(values, values[29]) == 0.29
    assert 0.07 * 100 > 7  # and here ceil() would make 8
    assert critical_threshold(values, 0.07) == values[7]


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("shape", [(100,), (10, 10), (4, 5, 5)])
def test_critical_threshold_is_the_very_value_that_was_observed(dtype: Any, shape: tuple[int, ...]) -> None:
    p = np.random.default_rng(0).random(100).astype(dtype).reshape(shape)
    found = critical_threshold(p, 0.29)
    assert type(found) is float
    assert float(dtype(found)) == found  # exact in p's own type …
    assert (p >= found).sum() == (p >= dtype(found)).sum() == 71  # … so p >= T is the same in any type
    assert found == float(np.sort(p.ravel())[29])


def test_critical_threshold_does_not_touch_what_it_is_given() -> None:
    p = np.random.default_rng(1).random((20, 20)).astype(np.float32)
    before = p.copy()
    critical_threshold(p[::2, ::-3], 0.2)
    crc_threshold([p[::2, ::-3], p.T], 0.8)
    assert np.array_equal(p, before)


def test_probabilities_of_a_foreign_byte_order_and_of_torch() -> None:
    p = np.random.default_rng(2).random(50).astype(np.float32)
    expected = critical_threshold(p, 0.1)
    assert critical_threshold(p.astype(">f4"), 0.1) == expected
    assert critical_threshold(torch.from_numpy(p), 0.1) == expected  # type: ignore[arg-type]
    assert crc_threshold([p.astype(">f4")] * 3, 0.5) == crc_threshold([p] * 3, 0.5)
    assert cls_threshold(p.astype(">f4"), 0.1) == cls_threshold(p, 0.1)


@given(lesions(), SHARES)
def test_critical_threshold_is_that_of_all_candidates(values: Any, epsilon: float) -> None:
    found = critical_threshold(values, epsilon)
    if not values.size:
        assert found == math.inf
        return
    candidates = [*np.ravel(values).astype(np.float64).tolist(), math.inf]
    assert found == max(value for value in candidates if missed(values, value) <= epsilon)
    assert missed(values, found) <= epsilon
    for beyond in (value for value in candidates if value > found):
        assert missed(values, beyond) > epsilon
    if found < math.inf:  # not only at candidates
        assert missed(values, float(np.nextafter(found, 2))) > epsilon


@given(st.integers(0, 400), SHARES)
def test_missable_is_that_of_all_counts(count: int, epsilon: float) -> None:
    expected = max(j for j in range(count + 1) if j == 0 or j / count <= epsilon)
    assert missable(count, epsilon) == expected


@pytest.mark.parametrize("count", [10**7, 512**3, 2**31 + 1])
@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.05, 0.1, 0.29, 1 / 3, 0.9999999, 1.0])
def test_missable_of_large_lesions(count: int, epsilon: float) -> None:
    j = missable(count, epsilon)
    assert j / count <= epsilon
    assert j == count or (j + 1) / count > epsilon


@given(lesions(), SHARES, SHARES)
def test_critical_threshold_rises_with_epsilon(values: Any, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert critical_threshold(values, low) <= critical_threshold(values, high)


@given(lesions(smallest=1), SHARES, st.integers(1, 20), st.randoms())
def test_critical_threshold_keeps_under_any_order_and_rounding(
    values: Any, epsilon: float, steps: int, random: Any
) -> None:
    flat = np.ravel(values)
    order = list(range(flat.size))
    random.shuffle(order)
    found = critical_threshold(values, epsilon)
    assert critical_threshold(flat[order], epsilon) == found
    # Rounding makes ties, in an order that stays: it moves the threshold along, and misses no voxel more.
    rounded = np.floor(flat.astype(np.float64) * steps) / steps
    coarse = critical_threshold(rounded, epsilon)
    assert coarse == (math.floor(found * steps) / steps if found < math.inf else math.inf)
    assert missed(rounded, coarse) <= missed(flat, found)


# --- ranks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [
        (9, 0.1, 1),  # 1/10 <= 0.1
        (8, 0.1, 0),
        (10, 0.1, 1),
        (19, 0.1, 2),
        (18, 0.1, 1),
        (9, 0.3, 3),
        (99, 0.29, 29),  # 0.29 · 100 is less than 29
        (99, 0.07, 7),  # and 0.07 · 100 more than 7
        (2, 1 / 3, 1),
        (19, 0.05, 1),
        (0, 0.999, 0),
        (1, 0.5, 1),
        (0, 1.0, 1),
        (9, 1.0, 10),
        (9, 0.0, 0),
        (10**6, 1e-6, 1),
    ],
)
def test_cls_rank_by_hand(n: int, alpha: float, k: int) -> None:
    assert cls_rank(n, alpha) == k


@given(st.integers(0, 300), SHARES)
def test_cls_rank_is_that_of_all_ranks(n: int, alpha: float) -> None:
    assert cls_rank(n, alpha) == max(k for k in range(n + 2) if k / (n + 1) <= alpha)


@pytest.mark.parametrize(
    ("alpha", "n"),
    [
        (1.0, 0), (0.999, 1), (0.5, 1), (1 / 3, 2), (0.1, 9), (0.05, 19), (0.01, 99), (1e-9, 10**9 - 1),
        (2.0**-50, 2**50 - 1), (0.0, None), (5e-324, None), (1e-20, None),
    ],
)  # fmt: skip
def test_cls_needs_by_hand(alpha: float, n: int | None) -> None:
    assert cls_needs(alpha) == n


@given(st.floats(1e-4, 1))
def test_cls_needs_the_fewest_images_that_do(alpha: float) -> None:
    n = cls_needs(alpha)
    assert n is not None
    assert cls_rank(n, alpha) >= 1
    assert n == 0 or cls_rank(n - 1, alpha) == 0


@pytest.mark.parametrize("percent", range(1, 101))
def test_cls_needs_what_a_percentage_says(percent: int) -> None:
    assert cls_needs(percent / 100) == math.ceil(Fraction(100, percent)) - 1


@pytest.mark.parametrize(
    ("n", "alpha", "delta", "k"),
    [
        (1, 0.5, 0.5, 1),  # (1 − 0.5)^1
        (2, 0.5, 0.25, 1),
        (2, 0.5, 0.24, 0),
        (2, 0.5, 0.75, 2),  # 1 − 0.5²
        (1, 0.1, 0.9, 1),
        (2, 0.2, 0.64, 1),
        (3, 0.1, 0.729, 1),
        (21, 0.1, 0.1, 0),  # 0.9^21 is 0.109
        (22, 0.1, 0.1, 1),  # 0.9^22 is 0.098
        (50, 0.1, 0.1, 2),  # P(Bin(50, 0.1) <= 1) is 0.034, <= 2 is 0.112
        (0, 0.1, 0.1, 0),
        (9, 0.0, 0.5, 0),
        (9, 0.5, 0.0, 0),
        (5000, 0.999, 0.0, 0),  # nor where the chance is too small for a number
        (9, 1.0, 0.0, 10),
        (9, 0.0, 1.0, 10),
        (0, 1.0, 0.0, 1),
    ],
)
def test_conditional_rank_by_hand(n: int, alpha: float, delta: float, k: int) -> None:
    assert conditional_rank(n, alpha, delta) == k


def failing(n: int, alpha: float) -> list[Fraction]:
    """P(Beta(k, n + 1 − k) > α) of k = 0 … n + 1, exactly: fewer than k of n images fail, each with α."""
    part, whole = alpha.as_integer_ratio()
    ways = [math.comb(n, i) * part**i * (whole - part) ** (n - i) for i in range(n + 1)]
    return [Fraction(above, whole**n) for above in accumulate(ways, initial=0)]


@given(
    st.integers(0, 25),
    st.one_of(st.integers(0, 100).map(lambda percent: percent / 100), st.floats(0, 1, width=16)),
    SHARES,
)
def test_conditional_rank_is_that_of_exact_fractions(n: int, alpha: float, delta: float) -> None:
    chances = failing(n, alpha)
    # Beta functions are computed to 15 digits or so: a tie beyond is none of the rule's.
    near = [chance for chance in chances if 0 < abs(chance - Fraction(delta)) < Fraction(delta) / 10**12]
    assume(not near)
    if alpha == 1:  # Beta(n + 1, 0) is 1, and not more than α
        chances = [Fraction(0)] * (n + 2)
    assert conditional_rank(n, alpha, delta) == max(k for k in range(n + 2) if chances[k] <= delta)


@given(st.integers(1, 2000), st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1 - 1e-6))
def test_conditional_rank_against_scipy(n: int, alpha: float, delta: float) -> None:
    k = conditional_rank(n, alpha, delta)
    assert 0 <= k <= n
    if k:
        assert stats.beta.sf(alpha, k, n + 1 - k) <= delta * (1 + 1e-9)
    if k < n:
        assert stats.beta.sf(alpha, k + 1, n - k) > delta * (1 - 1e-9)


@example(8, 0.09375, 0.36)
@given(st.integers(0, 500), st.floats(0, 1), st.floats(0, 0.36))
def test_the_conditional_rank_is_not_above_the_marginal_one(n: int, alpha: float, delta: float) -> None:
    # For δ below 1/e: k > (n + 1)α is an α below the mean of Beta(k, n + 1 - k), which it passes with at
    # least the chance (1 - 1/(n + 1))ⁿ > 1/e. Above that it fails: n = 8, α = 0.094, δ = 0.5 has 1 and 0.
    assert conditional_rank(n, alpha, delta) <= cls_rank(n, alpha)


@pytest.mark.parametrize(
    ("alpha", "delta", "n"),
    [
        (0.1, 0.1, 22), (0.05, 0.1, 45), (0.05, 0.05, 59), (0.01, 0.05, 299), (0.5, 0.5, 1), (0.5, 0.25, 2),
        (0.2, 0.64, 2), (0.1, 0.729, 3), (1 / 3, 0.1, 6), (0.999, 0.001, 2), (0.999, 0.5, 1),
        (1.0, 0.0, 0), (0.0, 1.0, 0), (0.0, 0.5, None), (0.5, 0.0, None), (1e-300, 0.5, None),
        (1e-9, 0.1, 2302585092), (1e-9, 0.2, 1609437912),
    ],
)  # fmt: skip
def test_conditional_needs_by_hand(alpha: float, delta: float, n: int | None) -> None:
    assert conditional_needs(alpha, delta) == n


@given(st.floats(1e-4, 1), st.floats(1e-9, 1))
def test_conditional_needs_the_fewest_images_that_do(alpha: float, delta: float) -> None:
    n = conditional_needs(alpha, delta)
    assert n is not None
    assert conditional_rank(n, alpha, delta) >= 1
    assert n == 0 or conditional_rank(n - 1, alpha, delta) == 0


# --- CLS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "alpha", "expected"),
    [(9, 0.1, 0.01), (8, 0.1, 0.0), (9, 0.2, 0.02), (19, 0.1, 0.02), (9, 0.0, 0.0), (9, 1.0, math.inf)],
)
def test_cls_threshold_by_hand(n: int, alpha: float, expected: float) -> None:
    critical = [step / 100 for step in range(n, 0, -1)]
    assert cls_threshold(critical, alpha) == expected


def test_cls_threshold_of_no_image_and_of_images_that_cannot_fail() -> None:
    assert cls_threshold([], 0.1) == 0.0
    assert cls_threshold([], 0.999) == 0.0
    assert cls_threshold([], 1.0) == math.inf
    assert cls_threshold([math.inf] * 9, 0.1) == math.inf
    assert cls_threshold([0.3, *[math.inf] * 9], 0.1) == 0.3
    assert conditional_cls_threshold([], 0.1, 0.1) == 0.0
    assert conditional_cls_threshold([], 0.1, 1.0) == math.inf


@pytest.mark.parametrize("dtype", WIDTHS)
def test_cls_threshold_is_the_very_value_that_was_observed(dtype: Any) -> None:
    critical = np.random.default_rng(3).random(37).astype(dtype)
    ranked = np.sort(critical)
    assert cls_threshold(critical, 0.1) == float(ranked[2])  # k = 3: 3/38 <= 0.1 < 4/38
    assert conditional_cls_threshold(critical, 0.1, 0.2) == float(ranked[1])
    assert type(cls_threshold(critical, 0.1)) is float


@given(CRITICAL, SHARES)
def test_cls_threshold_is_the_largest_that_keeps_alpha(critical: list[float], alpha: float) -> None:
    def kept(threshold: float) -> bool:
        """Whether the images of the calibration that fail, and the new one, are at most α of all."""
        return (sum(value < threshold for value in critical) + 1) / (len(critical) + 1) <= alpha

    expected = max((value for value in [*critical, math.inf] if kept(value)), default=0.0)
    assert cls_threshold(critical, alpha) == expected


@given(CRITICAL, SHARES, SHARES)
def test_conditional_cls_threshold_is_the_kth_smallest(
    critical: list[float], alpha: float, delta: float
) -> None:
    k = conditional_rank(len(critical), alpha, delta)
    expected = [0.0, *sorted(critical), math.inf][k]
    assert conditional_cls_threshold(critical, alpha, delta) == expected


@given(CRITICAL, SHARES, SHARES, SHARES, st.randoms())
def test_thresholds_rise_with_alpha_and_delta_and_know_no_order(
    critical: list[float], one: float, other: float, third: float, random: Any
) -> None:
    low, high = sorted((one, other))
    assert cls_threshold(critical, low) <= cls_threshold(critical, high)
    assert conditional_cls_threshold(critical, low, third) <= conditional_cls_threshold(critical, high, third)
    assert conditional_cls_threshold(critical, third, low) <= conditional_cls_threshold(critical, third, high)
    mixed = critical.copy()
    random.shuffle(mixed)
    assert cls_threshold(mixed, low) == cls_threshold(critical, low)
    assert conditional_cls_threshold(mixed, low, third) == conditional_cls_threshold(critical, low, third)


@given(CRITICAL, SHARES, st.integers(1, 20))
def test_ties_only_raise_coverage(critical: list[float], alpha: float, steps: int) -> None:
    def rounded(value: float) -> float:
        return math.floor(value * steps) / steps if value < math.inf else value

    k = cls_rank(len(critical), alpha)
    found = cls_threshold(critical, alpha)
    covered = sum(value >= found for value in critical)
    assert covered >= len(critical) + 1 - max(k, 1)  # k = 0 keeps the new image, too
    coarse = [rounded(value) for value in critical]
    assert cls_threshold(coarse, alpha) == rounded(found)
    assert sum(value >= rounded(found) for value in coarse) >= covered
    for value in critical[:3]:  # one more image, like one of those that are there
        more = [*critical, value]
        k = cls_rank(len(more), alpha)
        assert sum(each >= cls_threshold(more, alpha) for each in more) >= len(more) + 1 - max(k, 1)


# --- CRC ------------------------------------------------------------------------------------------------


def test_crc_threshold_by_hand() -> None:
    images = [[0.1, 0.5], [0.2, 0.4, 0.6, 0.8], [0.3]]
    # n = 3: λ, the three FNRs, (Σ + 1) / 4
    #   <= 0.1   0    0    0     1/4
    #   <= 0.2   1/2  0    0     3/8
    #   <= 0.3   1/2  1/4  0     7/16
    #   <= 0.4   1/2  1/4  1     11/16
    #   <= 0.5   1/2  1/2  1     3/4
    #   <= 0.6   1    1/2  1     7/8
    #   <= 0.8   1    3/4  1     15/16
    #   more     1    1    1     1
    steps = [(1 / 4, 0.1), (3 / 8, 0.2), (7 / 16, 0.3), (11 / 16, 0.4), (3 / 4, 0.5), (7 / 8, 0.6)]
    for alpha, expected in [*steps, (15 / 16, 0.8), (1, math.inf)]:
        assert crc_threshold(images, alpha) == expected, alpha
    for (alpha, expected), (following, _) in pairwise(steps):
        assert crc_threshold(images, float(np.nextafter(following, 0))) == expected
        assert alpha < following
    assert crc_threshold(images, 0.2499) == 0.0
    assert crc_threshold(images, 0.0) == 0.0


def test_crc_threshold_leaves_out_images_without_lesion() -> None:
    images = [[0.1, 0.5], [], [0.3], np.empty((0, 4), np.float32)]
    assert crc_threshold(images, 1 / 3) == 0.1  # n = 2; with n = 4 it would be the 0.5 …
    assert crc_threshold(images, 0.5) == crc_threshold([[0.1, 0.5], [0.3]], 0.5) == 0.3
    assert crc_threshold([[], []], 0.999) == 0.0  # … and of none there is nothing to say
    assert crc_threshold([], 0.999) == 0.0
    assert crc_threshold([], 1.0) == math.inf


@pytest.mark.parametrize("n", [9, 19, 37])
def test_crc_threshold_of_one_voxel_each_is_that_of_cls(n: int) -> None:
    # An image of one voxel misses all or nothing, so that the mean FNR is the share that fails.
    values = np.random.default_rng(n).random(n)
    for alpha in np.arange(0, 101, 5) / 100:
        assert crc_threshold(values[:, None], alpha) == cls_threshold(values, alpha)


@st.composite
def sets(draw: Any) -> list[Any]:
    """A few images' lesion probabilities, of one type or of several."""
    kinds = st.sampled_from(list(WIDTHS))
    one = draw(st.none() | kinds)
    found = []
    for _ in range(draw(st.integers(0, 6))):
        dtype = one or draw(kinds)
        size = draw(st.integers(0, 5))
        found.append(draw(hnp.arrays(dtype, size, elements=probabilities(dtype))))
    return found


def risk(images: Sequence[Any], threshold: float) -> float:
    """(Σ FNR + 1) / (n + 1), rounded once."""
    counts = ((int((values.astype(np.float64) < threshold).sum()), values.size) for values in images)
    return float(sum((Fraction(*count) for count in counts), Fraction(1)) / (len(images) + 1))


@given(sets(), SHARES)
def test_crc_threshold_is_that_of_all_candidates(images: list[Any], alpha: float) -> None:
    lesion = [values for values in images if values.size]
    candidates = [*(float(value) for values in lesion for value in values), math.inf]
    expected = max((value for value in candidates if risk(lesion, value) <= alpha), default=0.0)
    found = crc_threshold(images, alpha)
    assert type(found) is float
    assert found == expected
    if 0 < found < math.inf:
        assert found in candidates
        assert risk(lesion, float(np.nextafter(found, 2))) > alpha


@given(sets(), SHARES, SHARES, st.randoms())
def test_crc_threshold_rises_with_alpha_and_knows_no_order(
    images: list[Any], one: float, other: float, random: Any
) -> None:
    low, high = sorted((one, other))
    found = crc_threshold(images, low)
    assert found <= crc_threshold(images, high)
    mixed = [values[::-1] for values in images]
    random.shuffle(mixed)
    assert crc_threshold(mixed, low) == found


@pytest.mark.parametrize("percent", [10, 15, 20, 25, 50])
@pytest.mark.parametrize("voxels", [3, 7, 10, 49, 1000])
def test_a_mean_that_is_alpha_in_fractions_is_so_in_floating_numbers(percent: int, voxels: int) -> None:
    n = 4 * 100 // math.gcd(percent, 100) - 1
    allowed = Fraction(percent, 100) * (n + 1) - 1  # whole lesions that may be missed, in sum
    assert allowed.denominator == 1
    each, rest = divmod(int(allowed) * voxels, n)  # of the m voxels of an image; one more in the first images
    images = [[0.25] * (low := each + (number < rest)) + [0.5] * (voxels - low) for number in range(n)]
    assert crc_threshold(images, percent / 100) == 0.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.5])
def test_crc_threshold_against_the_published_formula_on_a_fine_grid(seed: int, alpha: float) -> None:
    """``n / (n + 1) · r(λ) + 1 / (n + 1) <= α``, as MAPIE and the CRC paper's code search for it."""
    rng = np.random.default_rng(seed)
    images = [rng.beta(2, 1, rng.integers(1, 60)).astype(np.float32) for _ in range(50)]
    grid = np.linspace(0, 1, 5001)
    fnr = np.array([(values[:, None] < grid).mean(0) for values in images])
    bound = 50 / 51 * fnr.mean(0) + 1 / 51
    last = grid[np.flatnonzero(bound <= alpha)[-1]]
    assert last <= crc_threshold(images, alpha) < last + 1 / 5000


def test_units_of_several_images_count_by_their_worst() -> None:
    units = [[np.array([0.2, 0.4]), np.array([0.1, 0.3, 0.5, 0.7])], [np.array([0.6])]]
    # λ: the largest FNR of the first unit, that of the second, (Σ + 1) / 3
    #   <= 0.1  0    0  1/3
    #   <= 0.2  1/4  0  5/12
    #   <= 0.4  1/2  0  1/2
    #   <= 0.6  1    0  2/3
    for alpha, expected in ((1 / 3, 0.1), (5 / 12, 0.2), (1 / 2, 0.4), (2 / 3, 0.6), (0.999, 0.6)):
        assert crc_of(units, alpha) == expected
    assert crc_of([*units, []], 0.25) == 0.1  # a unit that cannot fail is one more
    assert crc_of([[], []], 1 / 3) == math.inf


# --- the viewer's numbers are those of engine.metrics ---------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(9, 11), (4, 5, 6)])
@pytest.mark.parametrize("steps", [None, 255, 5])
def test_fnr_at_a_threshold_equals_that_of_the_metrics(
    dtype: Any, shape: tuple[int, ...], steps: int | None
) -> None:
    rng = np.random.default_rng(7)
    p = rng.random((25, 2, *shape))
    p = (p if steps is None else np.round(p * steps) / steps).astype(dtype)
    y = rng.random((25, 2, *shape)) < 0.3
    values = [[np.sort(image[c][truth[c]]) for c in range(2)] for image, truth in zip(p, y, strict=True)]
    units = gather([f"{number}" for number in range(25)], ["a", "b"], values)
    seen = 0
    for cls in (0, 1, None):
        chosen = units.units(cls)
        for epsilon in (0.0, 0.1, 0.3):
            critical = chosen.critical(epsilon)
            found = [
                cls_threshold(critical, 0.1),
                conditional_cls_threshold(critical, 0.2, 0.1),
                crc_of(chosen.values, 0.2),
            ]
            for threshold in found:
                prediction = torch.from_numpy(p) >= threshold
                each = metrics.fnr(metrics.confusion(prediction, torch.from_numpy(y))).numpy()
                expected = each.max(1) if cls is None else each[:, cls]
                assert np.array_equal(chosen.fnr(threshold), expected)
                seen += 1
            assert (chosen.fnr(found[0]) <= epsilon).sum() >= 26 - cls_rank(25, 0.1)
    assert seen == 27


@given(
    lesions(smallest=1), st.one_of(SHARES, st.sampled_from([-1.0, -1e300, 1.5, 1e300, math.inf, -math.inf]))
)
def test_below_compares_exact_numbers(values: Any, threshold: float) -> None:
    ranked = np.sort(np.ravel(values))
    for edge in (threshold, float(ranked[0]), float(np.nextafter(float(ranked[-1]), 2))):
        assert below(ranked, edge) == int((ranked.astype(np.float64) < edge).sum())


# --- misuse ---------------------------------------------------------------------------------------------

GIVEN = [
    (np.array([-2.5, 0.5, 3.25]), r"from -2.5 to 3.25"),  # logits
    (np.array([0.5, 7.5], np.float32), r"from 0.5 to 7.5"),
    (np.array([0.5, np.inf]), r"to inf"),
    (np.array([0.5, np.nan, np.nan]), r"2 of 3 probabilities"),
    (np.array([0, 255, 128], np.uint8), r"uint8"),
    (np.array([0, 1, 1]), r"int64"),
    (np.array([True, False]), r"bool"),
    ([0, 128, 255], r"from 0 to 255"),
    (np.array([0.5 + 1j]), r"complex128"),
    (np.array([0.5], np.longdouble), r"float128|longdouble"),
    ("0.5", r"<U3"),
    (["a", "b"], r"<U1"),
    (None, r"object"),
    ([[0.1, 0.2], [0.3]], r"different lengths"),
]


def sentence(error: InputError) -> str:
    """What an error says, having looked that it is one sentence."""
    said = str(error)
    assert said.endswith(".")
    assert ". " not in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize(("given", "named"), GIVEN)
def test_what_is_no_probability_is_refused(given: Any, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        critical_threshold(given, 0.1)
    sentence(caught.value)
    with pytest.raises(InputError, match=named) as caught:
        crc_threshold([[0.5], given], 0.1)
    assert "image 2" in sentence(caught.value)


def test_numbers_0_and_1_in_a_list_are_probabilities() -> None:
    assert critical_threshold([0, 1, 1], 0.5) == 1.0
    assert crc_threshold([[0, 1], [1]], 0.5) == 1.0  # (1/2 + 0 + 1) / 3
    assert cls_threshold([1] * 9, 0.1) == 1.0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([0.5, math.nan], "nan"),
        ([0.5, -0.25], "-0.25"),
        ([-math.inf], "-inf"),
        ([0.5, 2.75], "2.75"),  # of logits
        (np.array([0, 200], np.uint8), "uint8"),
        (["a"], "<U1"),
        (None, "object"),
        ([0.5 + 1j], "complex128"),
        ([[0.5], [0.1, 0.2]], "different lengths"),
    ],
)
def test_what_is_no_critical_threshold_is_refused(given: Any, named: str) -> None:
    for call in (cls_threshold, lambda critical, alpha: conditional_cls_threshold(critical, alpha, 0.1)):
        with pytest.raises(InputError, match=named) as caught:
            call(given, 0.1)
        sentence(caught.value)


@pytest.mark.parametrize("given", [0.5, 7, None])
def test_images_must_come_one_by_one(given: Any) -> None:
    with pytest.raises(InputError, match=str(given)) as caught:
        crc_threshold(given, 0.1)
    sentence(caught.value)


def test_one_image_in_place_of_several_is_refused() -> None:
    with pytest.raises(InputError, match=r"image 1 is the single number 0.25"):
        crc_threshold(np.array([0.25, 0.5]), 0.1)


CALLS = {
    "epsilon": [lambda share: critical_threshold([0.5], share), lambda share: missable(3, share)],
    "alpha": [
        lambda share: cls_threshold([0.5], share),
        lambda share: conditional_cls_threshold([0.5], share, 0.1),
        lambda share: crc_threshold([[0.5]], share),
        lambda share: cls_rank(3, share),
        lambda share: conditional_rank(3, share, 0.1),
        cls_needs,
        lambda share: conditional_needs(share, 0.1),
    ],
    "delta": [
        lambda share: conditional_cls_threshold([0.5], 0.1, share),
        lambda share: conditional_rank(3, 0.1, share),
        lambda share: conditional_needs(0.1, share),
    ],
}


@pytest.mark.parametrize("share", [-0.1, 1.0001, 10, math.nan, math.inf, "0.1", None, [0.1]])
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_what_is_no_share_is_refused(share: Any, name: str, call: Any) -> None:
    with pytest.raises(InputError) as caught:
        call(share)
    assert sentence(caught.value).startswith(f"{name} is {share!r}")


def test_a_number_of_numpy_is_named_as_a_number() -> None:
    with pytest.raises(InputError, match=r"^alpha is 1\.5:"):
        cls_threshold([0.5], np.float64(1.5))


def test_a_share_of_any_numeric_type_is_taken_as_the_number_that_it_is() -> None:
    # float32's 0.1 is a little more than 1/10, and 0.3 a little less than what Python calls 0.3 … + 2e-8.
    values = np.arange(1, 11) / 16
    for share in (np.float32(0.1), np.float32(0.3), np.float16(0.7), np.float64(0.1), Fraction(1, 2), 0, 1):
        assert critical_threshold(values, share) == critical_threshold(values, float(share))  # type: ignore[arg-type]
        assert cls_threshold(values, share) == cls_threshold(values, float(share))  # type: ignore[arg-type]
        assert missable(10**7 + 1, share) == missable(10**7 + 1, float(share))  # type: ignore[arg-type]
    assert missable(10, np.float32(0.7)) == 6  # type: ignore[arg-type]  # float32's 0.7 is below 7/10
