"""How many test units a calibrated threshold is expected to keep: against scipy, by hand, by simulation."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import engine
from engine.errors import InputError
from engine.thresholds import cls_needs, conditional_needs, kept_band, kept_chance, mean_interval
from engine.thresholds.conformal import cls_rank, cls_threshold

GRID = [(19, 1, 8), (50, 5, 30), (99, 10, 1), (9, 9, 40), (500, 50, 200), (3, 2, 0), (20_000, 2000, 5000)]


def exact(n: int, k: int, m: int) -> list[Fraction]:
    """Chances of each number kept by counting: of all orders of n + m thresholds, those in which j of the
    test units lie above the k-th of the calibration units."""
    return [
        Fraction(math.comb(m - j + k - 1, m - j) * math.comb(j + n - k, j), math.comb(n + m, m))
        for j in range(m + 1)
    ]


@pytest.mark.parametrize(("n", "k", "m"), GRID)
def test_chances_are_those_of_the_beta_binomial_distribution(n: int, k: int, m: int) -> None:
    known = stats.betabinom(m, n + 1 - k, k)
    for kept in sorted({0, m // 2, int(0.9 * m), max(m - 1, 0), m}):
        assert kept_chance(n, k, m, kept) == pytest.approx(known.cdf(kept), rel=1e-6, abs=1e-12)
    for level in (0.5, 0.95, 0.99):
        tail = (1 - level) / 2
        low, high = kept_band(n, k, m, level)
        assert known.cdf(low - 1) <= tail + 1e-9
        assert known.sf(high) <= tail + 1e-9
        assert known.cdf(high) - known.cdf(low - 1) >= level - 1e-9


@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 5), (19, 1, 8), (19, 2, 8), (12, 7, 20), (50, 5, 30)])
@pytest.mark.parametrize("level", [0.0, 0.8, 0.95])
def test_the_band_is_the_narrowest_with_such_tails(n: int, k: int, m: int, level: float) -> None:
    chances, tail = exact(n, k, m), (1 - Fraction(level).limit_denominator(100)) / 2
    assert sum(chances) == 1
    low = max(j for j in range(m + 1) if sum(chances[:j]) <= tail)
    high = min(j for j in range(m + 1) if sum(chances[j + 1 :]) <= tail)
    assert kept_band(n, k, m, level) == (low, max(low, high))
    for kept in range(m + 1):
        assert kept_chance(n, k, m, kept) == pytest.approx(float(sum(chances[: kept + 1])), rel=1e-12)


def test_one_calibration_unit_by_hand() -> None:
    # The threshold is the one unit's; of m test units any number is as likely to lie above it.
    assert [kept_chance(1, 1, 4, kept) for kept in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert kept_chance(1, 1, 1, 0) == pytest.approx(1 / 2)
    assert kept_band(1, 1, 4) == (0, 4)
    # Of 40 counts the outer two have 1/40 each, just the tails that 95 % leaves.
    assert kept_band(1, 1, 39) == (1, 38)
    assert kept_band(1, 1, 9, 0.6) == (2, 7)


def test_two_units_by_hand() -> None:
    # n = 2, k = 1, m = 1: the test unit is one of three, and falls below the lowest other in one of three.
    assert kept_chance(2, 1, 1, 0) == pytest.approx(1 / 3)
    # k = 2: it falls below the second lowest in two of three.
    assert kept_chance(2, 2, 1, 0) == pytest.approx(2 / 3)


def test_nothing_is_missed_at_zero_and_nothing_said_at_infinity() -> None:
    assert kept_band(5, 0, 8) == (8, 8)
    assert (kept_chance(5, 0, 8, 8), kept_chance(5, 0, 8, 7)) == (1, 0)
    assert kept_band(5, 6, 8) == (0, 8)
    assert (kept_chance(5, 6, 8, 0), kept_chance(5, 6, 8, 8)) == (1, 1)
    assert kept_band(0, 0, 3) == (3, 3)
    assert kept_band(0, 1, 3) == (0, 3)
    assert kept_band(19, 1, 0) == (0, 0)
    assert kept_chance(19, 1, 0, 0) == 1


@pytest.mark.parametrize(("n", "alpha", "m"), [(9, 0.1, 12), (30, 0.25, 6), (1, 0.5, 5), (60, 0.1, 20)])
def test_splits_of_thresholds_at_random_fall_into_the_band(n: int, alpha: float, m: int) -> None:
    rng = np.random.default_rng(5)
    k, draws = cls_rank(n, alpha), 20_000
    both = rng.random((draws, n + m))
    threshold = np.sort(both[:, :n], axis=1)[:, k - 1]
    assert threshold[0] == cls_threshold(both[0, :n], alpha)
    kept = (both[:, n:] >= threshold[:, None]).sum(1)
    low, high = kept_band(n, k, m)
    four_sigma = 4 * 0.5 / math.sqrt(draws)
    assert ((kept >= low) & (kept <= high)).mean() >= 0.95 - four_sigma
    for j in range(m + 1):
        assert (kept <= j).mean() == pytest.approx(kept_chance(n, k, m, j), abs=four_sigma)
    assert kept.mean() >= (1 - alpha) * m - four_sigma * m


def test_ties_only_raise_the_number_kept() -> None:
    rng = np.random.default_rng(6)
    n, k, m, draws = 30, 3, 10, 20_000
    both = rng.integers(0, 4, (draws, n + m)) / 4
    kept = (both[:, n:] >= np.sort(both[:, :n], axis=1)[:, [k - 1]]).sum(1)
    shares = np.array([(kept <= j).mean() for j in range(m)])
    chances = np.array([kept_chance(n, k, m, j) for j in range(m)])
    assert (shares <= chances + 4 * 0.5 / math.sqrt(draws)).all()
    assert shares[8] < chances[8] - 0.1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bands_hold_what_they_say(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 60))
    k = data.draw(st.integers(0, n + 1))
    m = data.draw(st.integers(0, 40))
    level = data.draw(st.floats(0, 0.999))
    low, high = kept_band(n, k, m, level)
    assert 0 <= low <= high <= m
    below = kept_chance(n, k, m, low - 1) if low and k <= n else 0.0
    assert kept_chance(n, k, m, high) - below >= level - 1e-9
    wider = kept_band(n, k, m, (level + 1) / 2)
    assert wider[0] <= low <= high <= wider[1]
    chances = [kept_chance(n, k, m, kept) for kept in range(m + 1)]
    assert np.diff(chances).min(initial=0) >= -1e-12
    assert chances[-1] == 1


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_interval_of_the_mean_is_students(level: float) -> None:
    fnr = np.random.default_rng(1).random(7) ** 2
    known = stats.t.interval(level, 6, loc=fnr.mean(), scale=stats.sem(fnr))
    assert mean_interval(fnr, level) == pytest.approx(known, rel=1e-9)


def test_the_interval_by_hand_and_where_there_is_none() -> None:
    # One degree of freedom: tan(0.95 π / 2) = 12.7062 standard errors of 0.1.
    assert mean_interval([0.1, 0.3]) == pytest.approx((0.2 - 1.270620, 0.2 + 1.270620), abs=1e-5)
    assert mean_interval([0.2, 0.2, 0.2]) == pytest.approx((0.2, 0.2))
    for few in ([], [0.5]):
        assert all(map(math.isnan, mean_interval(few)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kept_band(-1, 0, 3), "-1 calibration and 3 test units"),
        (lambda: kept_band(5, 7, 3), "rank 7 is none of 5"),
        (lambda: kept_band(5, -1, 3), "0 to 6 would work"),
        (lambda: kept_band(5, 1, 3, 1.0), "level of the band is 1.0"),
        (lambda: kept_band(5, 1, 3, math.nan), "level of the band is nan"),
        (lambda: kept_chance(5, 1, 3, 4), "4 of 3 test units"),
        (lambda: kept_chance(5, 1, -3, 0), "-3 test units"),
        (lambda: mean_interval([0.1, math.nan]), "FNR is NaN"),
        (lambda: mean_interval([0.1, 1.1]), "outside 0 to 1"),
        (lambda: mean_interval([0.1, 0.2], -0.1), "level of the interval"),
    ],
)
def test_what_is_no_count_or_share_is_refused(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def tables(page: Path) -> list[list[list[str]]]:
    """The tables of a page in Markdown: rows of cells, without the line under the head."""
    rows = [line.strip("|").split("|") for line in page.read_text("utf-8").splitlines() if line[:1] == "|"]
    found: list[list[list[str]]] = []
    for cells in rows:
        if set(cells[0]) == {"-"}:
            found[-1:] = [found[-1][:-1], found[-1][-1:]]
        else:
            found = found or [[]]
            found[-1].append([cell.strip() for cell in cells])
    return [table for table in found if table]


def test_the_tables_in_the_manual_are_right() -> None:
    _, needed, shares = tables(Path(engine.__file__).parents[1] / "docs/guarantees.md")
    assert len(needed) == 6
    for alpha, *counts in needed[1:]:
        a = float(alpha)
        assert counts == [str(cls_needs(a)), *(str(conditional_needs(a, d)) for d in (0.2, 0.1, 0.05))]
    for row, tail in zip(shares[1:], (0.025, 0.975), strict=True):
        for n, share in zip(map(int, shares[0][1:]), row[1:], strict=True):
            k = cls_rank(n, 0.1)
            assert share == f"{100 * stats.beta.ppf(tail, n + 1 - k, k):.1f} %"
