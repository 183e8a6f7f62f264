"""Thresholds without a guarantee: against brute force over every observed probability, and by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import InputError
from engine.thresholds import (
    Choice,
    Curve,
    Rates,
    Skipped,
    Wished,
    best_dice,
    mean_rates,
    promise,
    softmax,
    wanted_precision,
    wanted_recall,
)
from engine.thresholds.specs import BestDice, Cls, WantedPrecision, WantedRecall

WIDTHS = {np.float16: 16, np.float32: 32, np.float64: 64}
TIES = [-0.0, 0.0, 5e-324, 1e-45, 6e-8, 0.1, 0.25, 0.5, 0.75, 1 - 2**-53, 1.0]


def probabilities(dtype: Any) -> st.SearchStrategy[float]:
    """Any probability of a type, ties often."""
    some = [*sorted({float(dtype(value)) for value in TIES} - {0.0}), 0.0, -0.0]
    return st.one_of(st.sampled_from(some), st.floats(0, 1, width=WIDTHS[dtype]))  # type: ignore[arg-type]


@st.composite
def arrays(draw: Any) -> tuple[Any, Any, Any]:
    """p, y and valid of any type and truth, often without truth, of one pixel or of none that counts."""
    dtype = draw(st.sampled_from(list(WIDTHS)))
    shape = (draw(st.integers(0, 8)),)
    constant = st.builds(lambda value: np.full(shape, value, dtype), probabilities(dtype))
    p = draw(constant | hnp.arrays(dtype, shape, elements=probabilities(dtype)))
    y = draw(st.just(np.zeros(shape, bool)) | st.just(np.ones(shape, bool)) | hnp.arrays(bool, shape))
    return p, y, draw(st.none() | hnp.arrays(bool, shape))


SETS = st.lists(arrays().map(lambda given: Curve.of(*given)), min_size=1, max_size=6)
WANTED = st.one_of(st.sampled_from([0.0, 0.5, 1 / 3, 2 / 3, 0.9, 1.0]), st.floats(0, 1))


def candidates(curves: Sequence[Curve]) -> list[float]:
    """Every observed probability, and 0."""
    return sorted({0.0, *(float(value) for curve in curves for value in curve.observed())})


def over(curves: Sequence[Curve]) -> dict[float, Rates]:
    """Candidate → mean rates."""
    return {t: mean_rates(curves, t)[0] for t in candidates(curves)}


def defined(table: dict[float, Rates], name: str) -> bool:
    return not all(math.isnan(getattr(means, name)) for means in table.values())


def near(table: dict[float, Rates], name: str) -> list[float]:
    """Some of the very means that occur, and what is a last bit above, where rounding decides."""
    values = sorted({getattr(means, name) for means in table.values()})
    some = [values[place] for place in {0, len(values) // 2, len(values) - 1}]
    return [*some, *(min(math.nextafter(value, 2), 1.0) for value in some)]


def check(curves: Sequence[Curve], found: Wished, threshold: float, *, reached: bool) -> None:
    assert found.threshold == threshold
    assert math.copysign(1, found.threshold) == 1
    assert found.reached == reached
    assert found.n == len(curves)
    rates, skipped = mean_rates(curves, found.threshold)
    np.testing.assert_equal(tuple(found.rates), tuple(rates))
    assert found.skipped == skipped


def check_best_dice(curves: Sequence[Curve], table: dict[float, Rates]) -> None:
    best = min(table, key=lambda t: (-table[t].dice, abs(t - 0.5), t))
    check(curves, best_dice(curves), best, reached=True)


def check_wanted_precision(curves: Sequence[Curve], table: dict[float, Rates], wanted: float) -> None:
    found = wanted_precision(curves, wanted=wanted)
    if enough := [t for t in table if table[t].precision >= wanted]:
        check(curves, found, min(enough), reached=True)
        assert math.isnan(found.rates.recall) or found.rates.recall == max(table[t].recall for t in enough)
    else:
        check(curves, found, min(table, key=lambda t: (-table[t].precision, t)), reached=False)


def check_wanted_recall(curves: Sequence[Curve], table: dict[float, Rates], wanted: float) -> None:
    enough = [t for t in table if table[t].recall >= wanted]
    check(curves, wanted_recall(curves, wanted=wanted), max(enough), reached=True)


# Against brute force


@given(arrays(), st.sampled_from([-1.0, *TIES[1:]]), st.sampled_from(TIES[1:]))
def test_observed_are_the_probabilities_that_occur(image: Any, low: float, high: float) -> None:
    p, y, valid = image
    counted = p.astype(np.float64)[... if valid is None else valid]
    curve = Curve.of(p, y, valid)
    np.testing.assert_array_equal(curve.observed(), np.unique(counted))
    inside = counted[(counted > low) & (counted <= high)]
    np.testing.assert_array_equal(curve.observed(low, max(low, high)), np.unique(inside))


@given(SETS)
def test_best_dice_is_that_of_brute_force(curves: list[Curve]) -> None:
    table = over(curves)
    if defined(table, "dice"):
        check_best_dice(curves, table)
    else:
        with pytest.raises(InputError, match=r"no pixel of the .* counts"):
            best_dice(curves)


@given(SETS, WANTED)
def test_wanted_precision_is_that_of_brute_force(curves: list[Curve], wanted: float) -> None:
    table = over(curves)
    if defined(table, "precision"):
        for value in (wanted, *near(table, "precision")):
            check_wanted_precision(curves, table, value)
    else:
        with pytest.raises(InputError, match=r"no pixel of the .* counts"):
            wanted_precision(curves, wanted=wanted)


@given(SETS, WANTED)
def test_wanted_recall_is_that_of_brute_force(curves: list[Curve], wanted: float) -> None:
    table = over(curves)
    if defined(table, "recall"):
        for value in (wanted, *near(table, "recall")):
            check_wanted_recall(curves, table, value)
    else:
        some = any(curve.observed().size for curve in curves)
        expected = r"none of the .* has the class" if some else r"no pixel of the .* counts"
        with pytest.raises(InputError, match=expected):
            wanted_recall(curves, wanted=wanted)


def made(dtype: Any, seed: int, count: int = 5, side: int = 10) -> list[Curve]:
    """Images of a middling network; one without truth, one all true, some with saturated pixels."""
    rng = np.random.default_rng(seed)
    curves = []
    for number in range(count):
        y = rng.random((side, side)) < (0, 1, 0.02, 0.3)[number % 4]
        logits = rng.normal(-1, 1, y.shape) + 2 * y
        p = 1 / (1 + np.exp(-logits * (1, 30)[seed % 2]))
        curves.append(Curve.of(p.astype(dtype), y, rng.random(y.shape) < 0.95))
    return curves


@pytest.mark.parametrize(("blocks", "seed"), [(4, 0), (16, 1), (softmax.BLOCKS, 2)])
@pytest.mark.parametrize("dtype", WIDTHS)
def test_large_blocks_of_candidates_and_small_ones(
    dtype: Any, blocks: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "BLOCKS", blocks)
    curves = made(dtype, seed)
    table = over(curves)
    assert len(table) > 90
    check_best_dice(curves, table)
    for wanted in (0.3, 0.6, 0.9, 0.99999):
        check_wanted_precision(curves, table, wanted)
        check_wanted_recall(curves, table, wanted)


def test_types_may_be_mixed() -> None:
    curves = [made(dtype, seed=0, count=4)[3] for dtype in WIDTHS]
    table = over(curves)
    check_best_dice(curves, table)
    check_wanted_precision(curves, table, 0.7)
    check_wanted_recall(curves, table, 0.7)


@settings(max_examples=30)
@given(st.permutations(range(7)))
def test_a_sum_that_rounds_is_judged_as_the_tables_round_it(order: list[int]) -> None:
    # Means of the same tenths in another order differ in the last bit, and only that decides.
    hits = np.array([1, 2, 3, 4, 6, 7, 9])[order]
    curves = [Curve.of(np.linspace(0.9, 0.1, 10), np.arange(10) < count) for count in hits]
    table = over(curves)
    wanted = table[0.0].precision
    for value in (wanted, math.nextafter(wanted, 0), math.nextafter(wanted, 1), *near(table, "precision")):
        check_wanted_precision(curves, table, value)


# By hand


def test_one_image_by_hand() -> None:
    p = np.array([0.1, 0.2, 0.4, 0.6, 0.8, 0.9], np.float64)
    y = np.array([0, 0, 1, 0, 1, 1], bool)
    curves = [Curve.of(p, y)]
    # At 0.4: TP 3, FP 1, FN 0, and Dice 6/7; at 0.8: TP 2, FP 0, FN 1, and Dice 4/5.
    assert best_dice(curves).threshold == 0.4
    assert best_dice(curves).rates == Rates(3 / 4, 1, 6 / 7, 3 / 4, 0, 1 / 3)
    assert wanted_precision(curves, wanted=0.5).threshold == 0  # 3 of 6
    assert wanted_precision(curves, wanted=0.51).threshold == 0.2  # 3 of 5
    assert wanted_precision(curves, wanted=0.76).threshold == 0.8  # 0.6 has 2 of 3
    assert wanted_recall(curves, wanted=1).threshold == 0.4
    assert wanted_recall(curves, wanted=2 / 3).threshold == 0.8
    assert wanted_recall(curves, wanted=0).threshold == 0.9


def test_the_mean_is_over_images_and_not_over_pixels() -> None:
    small = Curve.of(np.array([0.5, 0.7]), np.array([False, True]))
    large = Curve.of(np.repeat([0.6, 0.8], 50), np.repeat([False, True], 50))
    found = wanted_precision([small, large], wanted=0.75)
    assert found.threshold == 0.6  # of the small one 1 of 1, of the large one half
    assert found.rates.precision == 0.75
    assert wanted_precision([large], wanted=0.75).threshold == 0.8


def test_of_equal_dice_the_one_nearest_to_a_half_is_taken_and_of_two_the_lower() -> None:
    y = np.zeros(1, bool)
    without_truth = [Curve.of(np.array([value]), y) for value in (0.9, 0.7, 0.4, 0.1)]
    found = best_dice(without_truth)  # Dice is 0 wherever anything is predicted, at 0.9 too
    assert (found.threshold, found.rates.dice, found.skipped.dice) == (0.4, 0, 1)
    assert best_dice([without_truth[0], Curve.of(np.array([0.25]), y), *without_truth[1:2]]).threshold == 0.7
    assert best_dice([Curve.of(np.array([value]), y) for value in (0.25, 0.75)]).threshold == 0.25


def test_an_image_that_drops_out_of_the_mean() -> None:
    # Without truth: Dice 0 as long as anything is predicted, then not defined and left out.
    empty = Curve.of(np.array([0.2, 0.3]), np.zeros(2, bool))
    other = Curve.of(np.array([0.1, 0.8]), np.array([False, True]))
    found = best_dice([empty, other])
    assert found == Wished(0.8, Rates(1, 1, 1, 1, 0, 0), Skipped(1, 1, 1, 1, 1, 0), True, 2)


def test_what_no_threshold_reaches() -> None:
    # False pixels are on top: precision is highest where all true ones are in.
    p, y = np.array([0.2, 0.4, 0.4, 0.9]), np.array([False, True, True, False])
    found = wanted_precision([Curve.of(p, y)], wanted=0.9)
    assert (found.threshold, found.reached, found.rates.precision) == (0.4, False, 2 / 3)
    # Of equal ones the smallest, and 0 where all are equal.
    assert wanted_precision([Curve.of(p, np.zeros(4, bool))], wanted=0.1).threshold == 0
    halves = Curve.of(np.repeat([0.3, 0.6], 2), np.array([False, True] * 2))
    assert wanted_precision([halves], wanted=0.51).threshold == 0
    assert wanted_recall([halves], wanted=0.51).threshold == 0.3


@pytest.mark.parametrize("dtype", WIDTHS)
def test_constants_and_single_pixels(dtype: Any) -> None:
    value = float(dtype(0.3))
    for shape in ((), (1,), (2, 3), (2, 1, 2)):
        curves = [Curve.of(np.full(shape, 0.3, dtype), np.ones(shape, bool))]
        assert best_dice(curves).threshold == value
        assert wanted_recall(curves, wanted=1).threshold == value
        assert wanted_precision(curves, wanted=1).threshold == 0
    zeros = [Curve.of(np.full(3, -0.0, dtype), np.array([True, False, False]))]
    for found in (best_dice(zeros), wanted_recall(zeros, wanted=0.1), wanted_precision(zeros, wanted=1)):
        assert math.copysign(1, found.threshold) == 1
        assert found.threshold == 0


def test_scoring_at_the_threshold_in_float32_shows_what_was_wanted() -> None:
    rng = np.random.default_rng(3)
    maps = [rng.random((40, 50)).astype(np.float32) for _ in range(7)]
    truths = [rng.random(p.shape) < p for p in maps]
    curves = [Curve.of(p, y) for p, y in zip(maps, truths, strict=True)]
    t = np.float32(wanted_precision(curves, wanted=0.8).threshold)
    precision = [(p >= t)[y].sum() / (p >= t).sum() for p, y in zip(maps, truths, strict=True)]
    assert np.mean(precision) >= 0.8
    below = np.nextafter(t, np.float32(0))
    precision = [(p >= below)[y].sum() / (p >= below).sum() for p, y in zip(maps, truths, strict=True)]
    assert t in np.concatenate([p.ravel() for p in maps])
    t = np.float32(wanted_recall(curves, wanted=0.8).threshold)
    above = np.nextafter(t, np.float32(1))
    recalls = [[(p >= at)[y].mean() for p, y in zip(maps, truths, strict=True)] for at in (t, above)]
    assert np.mean(recalls[0]) >= 0.8 > np.mean(recalls[1])


# What cannot be


@pytest.mark.parametrize("wanted", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_outside_0_to_1_is_refused(wanted: float) -> None:
    curves = [Curve.of(np.array([0.5]), np.array([True]))]
    for rule in (wanted_precision, wanted_recall):
        with pytest.raises(InputError, match=f"what is wanted is {wanted}: a share from 0 to 1"):
            rule(curves, wanted=wanted)


def test_no_images_and_images_without_the_class_are_refused() -> None:
    for rule in (BestDice(), WantedPrecision(), WantedRecall()):
        with pytest.raises(InputError, match="no validation image: at least one"):
            rule.bind()([])
    empty = Curve.of(np.array([0.5]), np.array([False]))
    with pytest.raises(InputError, match="none of the 2 validation images has the class"):
        wanted_recall([empty, empty], wanted=0.5)


# Specs and words


def test_the_specs_are_bound_to_the_rules() -> None:
    curves = made(np.float32, seed=0)
    assert BestDice().bind()(curves) == best_dice(curves)
    assert WantedPrecision(wanted=0.7).bind()(curves) == wanted_precision(curves, wanted=0.7)
    assert WantedRecall(wanted=0.7).bind()(curves) == wanted_recall(curves, wanted=0.7)
    for spec in (BestDice, WantedPrecision, WantedRecall):
        assert spec.guarantees is False


def wished(reached: bool = True, skipped: int = 0, n: int = 28, **rates: float) -> Wished:
    values = {"precision": 0.905, "recall": 0.71, "dice": 0.796, **rates}
    found = Rates(**values, jaccard=0.66, fnr=0.29, fpr=0.01)
    return Wished(0.4, found, Skipped(*[skipped] * 6), reached, n)


SAID = {
    "precision": (
        WantedPrecision(wanted=0.9), wished(),
        "No guarantee: on 28 validation images the mean precision is 0.905 at this T, the mean recall 0.710. "
        "New images may differ.",
    ),
    "recall": (
        WantedRecall(wanted=0.7), wished(n=1),
        "No guarantee: on 1 validation image the mean recall is 0.710 at this T, the mean precision 0.905. "
        "New images may differ.",
    ),
    "dice": (
        BestDice(), wished(skipped=1),
        "No guarantee: on 28 validation images the mean Dice is highest at this T, 0.796; the mean precision "
        "is 0.905, the mean recall 0.710. 1 of them, for which Dice is not defined, is left out. New images "
        "may differ.",
    ),
    "out of reach": (
        WantedPrecision(wanted=0.95), wished(reached=False, skipped=3),
        "No guarantee: a mean precision of 0.95 is reached at no T on 28 validation images. This T comes "
        "nearest: the mean precision is 0.905, the mean recall 0.710. 3 of them, for which precision is not "
        "defined, are left out. New images may differ.",
    ),
    "no truth": (
        BestDice(), wished(recall=math.nan, precision=0.0, dice=0.0),
        "No guarantee: on 28 validation images the mean Dice is highest at this T, 0.000; the mean precision "
        "is 0.000, the mean recall is not defined. New images may differ.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_the_words_promise_nothing(case: str) -> None:
    rule, found, expected = SAID[case]
    said = softmax.words(rule, found)
    assert said == expected
    assert said.startswith("No guarantee: ")
    # Nothing of a promise is in them.
    promised = promise(Cls(), Choice(0.4, 28, 9, 2)).lower()
    assert "at most" in promised
    assert not any(word in said.lower() for word in ("at most", "at least", "calibrated", "confidence"))


def test_a_number_is_never_shown_on_the_other_side_of_the_one_wanted() -> None:
    said = softmax.words(WantedPrecision(wanted=0.9), wished(reached=False, precision=0.89996))
    assert "the mean precision is 0.89996," in said
    assert softmax.told_apart(0.89996, 0.9) == "0.89996"
    assert softmax.told_apart(0.9000001, 0.9000001) == "0.9000001"
    assert softmax.told_apart(0.9, 0.9) == "0.900"
    assert softmax.told_apart(math.nextafter(0.9, 0), 0.9) == "0.8999999999999999"
    assert softmax.told_apart(2 / 3, 2 / 3) == "0.667"


def test_a_rule_that_guarantees_has_other_words() -> None:
    with pytest.raises(TypeError, match="no rule without a guarantee"):
        softmax.words(Cls(), wished())
    with pytest.raises(TypeError):
        promise(BestDice(), Choice(0.4, 28, 9, 2))
