"""The rules that guarantee: their choices, what else a threshold keeps, and the words for it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from scipy import stats

from engine.schema import choices
from engine.spec import Spec
from engine.thresholds import (
    Choice,
    Units,
    attainable,
    cls_threshold,
    conditional_cls_threshold,
    crc_threshold,
    critical_threshold,
    gather,
    lesion_of,
    mean_bound,
    promise,
)
from engine.thresholds.conformal import conditional_rank
from engine.thresholds.rules import least_alpha
from engine.thresholds.specs import BestDice, Cls, Conditional, Crc, Guarantee, Rule, WantedRecall
from engine.thresholds.words import percent


class Asked(Spec):
    """Somewhere to put a rule."""

    rule: Rule = Cls()


RULES = {name: rule for name, rule in choices(Asked, "rule").items() if issubclass(rule, Guarantee)}
SETTINGS = {
    "cls": [Cls(epsilon=epsilon, alpha=alpha) for epsilon in (0, 0.1, 0.3, 1) for alpha in (0, 0.1, 0.29, 1)],
    "conditional": [
        Conditional(epsilon=epsilon, alpha=alpha, delta=delta)
        for epsilon in (0, 0.3) for alpha in (0, 0.1, 0.29, 1) for delta in (0, 0.1, 0.5, 1)
    ],
    "crc": [Crc(alpha=alpha) for alpha in (0, 0.05, 0.1, 0.29, 0.5, 1)],
}  # fmt: skip
"""Settings that are tried of each rule with a guarantee; a new rule is tested by joining."""

GRID = [pytest.param(rule, id=f"{rule!r}") for rules in SETTINGS.values() for rule in rules]
SIZES = (0, 1, 3, 9, 10, 37)


def made(n: int, classes: int = 1, seed: int = 0, steps: int = 40) -> Any:
    """Images of up to ten lesion voxels a class, with ties."""
    rng = np.random.default_rng(seed)
    values = [
        [np.sort((rng.integers(0, steps + 1, rng.integers(1, 11)) / steps).astype(np.float32))] * classes
        for _ in range(n)
    ]
    return gather([str(number) for number in range(n)], [str(cls) for cls in range(classes)], values)


def units_of(n: int, seed: int = 0) -> Units:
    return made(n, seed=seed).units(0) if n else Units(())


# --- choices --------------------------------------------------------------------------------------------


def test_the_grid_knows_every_rule_of_the_registry() -> None:
    assert set(RULES) == set(SETTINGS)
    for name, settings in SETTINGS.items():
        assert {type(rule) for rule in settings} == {RULES[name]}
        assert isinstance(RULES[name](), BaseModel)  # has defaults


def expected(rule: Any, units: Units) -> float:
    """The same threshold from the public functions and the probabilities, one image at a time."""
    images = [image for unit in units.values for image in unit]
    if isinstance(rule, Crc):
        return crc_threshold(images, rule.alpha)
    critical = [critical_threshold(image, rule.epsilon) for image in images]
    if isinstance(rule, Conditional):
        return conditional_cls_threshold(critical, rule.alpha, rule.delta)
    return cls_threshold(critical, rule.alpha)


@pytest.mark.parametrize("rule", GRID)
def test_a_choice_says_what_it_stands_on(rule: Any) -> None:
    for n in SIZES:
        units = units_of(n)
        choice = rule.bind()(units)
        assert isinstance(choice, Choice)
        assert choice.threshold == expected(rule, units)
        assert choice.n == n
        assert choice.enough == (choice.needed is not None and choice.needed <= n)
        if not choice.enough:
            assert choice.threshold == 0.0
            assert choice.rank in (0, None)
        if choice.rank is not None:
            ranked = [0.0, *sorted(units.critical(rule.epsilon)), math.inf]
            assert choice.threshold == ranked[choice.rank]
        if 0 < choice.threshold < math.inf:
            assert any(choice.threshold in image for unit in units.values for image in unit)


@pytest.mark.parametrize("rule", GRID)
def test_what_is_needed_is_enough_and_one_less_is_not(rule: Any) -> None:
    needed = rule.bind()(units_of(1)).needed
    if needed is None:
        assert 0 in (rule.alpha, getattr(rule, "delta", 1))
        assert not rule.bind()(units_of(37)).enough
        return
    assert rule.bind()(units_of(needed)).enough
    if needed:
        fewer = rule.bind()(units_of(needed - 1))
        assert not fewer.enough
        assert fewer.needed == needed


@pytest.mark.parametrize("rule", GRID)
def test_two_equal_classes_are_as_one(rule: Any) -> None:
    # All classes at once, where both are the same: the least of two equal critical thresholds.
    both, one = made(19, classes=2).units(), made(19).units(0)
    assert rule.bind()(both) == rule.bind()(one)


@pytest.mark.parametrize("rule", GRID)
def test_a_group_is_judged_by_its_worst_image(rule: Any) -> None:
    lesions = made(38, seed=1)
    pairs = gather(lesions.names, lesions.classes, lesions.values, [str(n // 2) for n in range(38)]).units()
    choice = rule.bind()(pairs)
    assert choice.n == 19
    images = lesions.units()
    worst = images.fnr(choice.threshold).reshape(19, 2).max(1)
    assert np.array_equal(pairs.fnr(choice.threshold), worst)
    # What is promised of new groups holds of the calibration's own, with one more that fails.
    if choice.enough and isinstance(rule, Crc):
        assert (worst.sum() + 1) / 20 <= rule.alpha + 1e-12
    elif choice.enough and isinstance(rule, Cls):
        assert ((worst > rule.epsilon).sum() + 1) / 20 <= rule.alpha


def test_choices_by_hand() -> None:
    values = [[np.array([(number + 1) / 16, 0.99])] for number in range(9)]
    units = gather([str(number) for number in range(9)], ["a"], values).units()
    assert Cls(epsilon=0.1, alpha=0.1).bind()(units) == Choice(1 / 16, 9, 9, 1)
    assert Cls(epsilon=0.1, alpha=0.35).bind()(units) == Choice(3 / 16, 9, 2, 3)
    assert Cls(epsilon=0.5, alpha=0.1).bind()(units) == Choice(0.99, 9, 9, 1)
    assert Cls(epsilon=0.1, alpha=0.09).bind()(units) == Choice(0.0, 9, 11, 0)
    assert Cls(epsilon=0.1, alpha=1.0).bind()(units) == Choice(math.inf, 9, 0, 10)
    # 0.6^9 = 0.010, and 0.6^9 + 9 · 0.4 · 0.6^8 = 0.071
    assert Conditional(epsilon=0.1, alpha=0.4, delta=0.05).bind()(units) == Choice(1 / 16, 9, 6, 1)
    assert Conditional(epsilon=0.1, alpha=0.4, delta=0.08).bind()(units) == Choice(2 / 16, 9, 5, 2)
    # Each image whose lower voxel is missed adds 1/2: (j / 2 + 1) / 10 <= 0.2 for j = 2.
    assert Crc(alpha=0.2).bind()(units) == Choice(3 / 16, 9, 4)


# --- what else a threshold keeps ------------------------------------------------------------------------


def at(corners: Any, epsilon: float) -> float:
    """α of a curve that falls in steps, at ε."""
    epsilons, alphas = corners
    return float(alphas[np.searchsorted(epsilons, epsilon, side="right") - 1])


def test_attainable_by_hand() -> None:
    values = [[np.array([0.2, 0.4, 0.6, 0.8])], [np.array([0.3, 0.7])], [np.array([0.5])]]
    units = gather(["a", "b", "c"], ["x"], values).units()
    # At T = 0.5 the FNRs are 1/2, 1/2, 0: more than ε miss two of them, or none.
    epsilon, alpha = attainable(units, 0.5)
    assert epsilon.tolist() == [0, 0.5]
    assert alpha.tolist() == [3 / 4, 1 / 4]
    epsilon, alpha = attainable(units, 0.65)  # 3/4, 1/2, 1
    assert epsilon.tolist() == [0, 0.5, 0.75, 1]
    assert alpha.tolist() == [1, 3 / 4, 1 / 2, 1 / 4]
    assert [found.tolist() for found in attainable(units, 0.1)] == [[0], [1 / 4]]
    assert [found.tolist() for found in attainable(units, math.inf)] == [[0, 1], [1, 1 / 4]]
    assert [found.tolist() for found in attainable(Units(()), 0.5)] == [[0], [1]]
    assert [found.tolist() for found in attainable(Units(()), 0.5, 0.1)] == [[0], [1]]


SHARES = st.one_of(st.sampled_from([0, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.9, 1]), st.floats(0, 1))
THRESHOLDS = st.one_of(
    st.sampled_from([*np.arange(1, 41, dtype=np.float32) / np.float32(40), math.inf]).map(float),
    st.floats(1e-6, 1.5),
)
SETS = st.builds(units_of, st.integers(0, 25), st.integers(0, 1000))


@given(SETS, THRESHOLDS, SHARES, st.booleans())
def test_cls_answers_with_t_or_more_on_the_curve_and_above_it(
    units: Units, threshold: float, epsilon: float, on_a_corner: bool
) -> None:
    corners = attainable(units, threshold)
    assert corners[0][0] == 0
    assert (np.diff(corners[0]) > 0).all()
    assert (np.diff(corners[1]) < 0).all()
    if on_a_corner:
        epsilon = float(corners[0][int(epsilon * (len(corners[0]) - 1))])
    least = at(corners, epsilon)
    assert Cls(epsilon=epsilon, alpha=least).bind()(units).threshold >= threshold
    below = math.nextafter(least, 0)
    assert Cls(epsilon=epsilon, alpha=below).bind()(units).threshold < threshold


@given(SETS, THRESHOLDS, SHARES, SHARES)
def test_cls_answers_with_t_or_more_if_and_only_if_alpha_is_not_below_the_curve(
    units: Units, threshold: float, epsilon: float, alpha: float
) -> None:
    answered = Cls(epsilon=epsilon, alpha=alpha).bind()(units).threshold
    assert (answered >= threshold) == (alpha >= at(attainable(units, threshold), epsilon))


@given(SETS, THRESHOLDS, SHARES, st.sampled_from([0.01, 0.1, 0.5, 0.9]))
def test_conditional_cls_answers_with_t_or_more_above_its_curve(
    units: Units, threshold: float, epsilon: float, delta: float
) -> None:
    least = at(attainable(units, threshold, delta), epsilon)

    def answered(alpha: float) -> float:
        rule = Conditional(epsilon=epsilon, alpha=alpha, delta=delta)
        return float(rule.bind()(units).threshold)

    assert answered(least) >= threshold
    assert answered(least * (1 - 1e-11)) < threshold  # the inverse of a Beta function has so many digits


@given(SETS, THRESHOLDS, SHARES)
def test_conditional_curves_at_the_ends_of_delta(units: Units, threshold: float, epsilon: float) -> None:
    assert at(attainable(units, threshold, 1), epsilon) == 0  # nothing is promised, so all is
    assert at(attainable(units, threshold, 0), epsilon) == 1


@given(SETS, THRESHOLDS, SHARES)
def test_crc_answers_with_t_or_more_from_its_bound_on(units: Units, threshold: float, alpha: float) -> None:
    least = mean_bound(units, threshold)
    assert Crc(alpha=least).bind()(units).threshold >= threshold
    assert Crc(alpha=math.nextafter(least, 0)).bind()(units).threshold < threshold
    assert (Crc(alpha=alpha).bind()(units).threshold >= threshold) == (alpha >= least)


@given(SETS, st.sampled_from([None, 0.01, 0.1, 0.5]))
def test_the_least_alpha_is_that_of_a_threshold_that_misses_nothing(
    units: Units, delta: float | None
) -> None:
    least = least_alpha(units.n, delta)
    assert least == attainable(units, 0.0, delta)[1].min()
    rule = Cls(alpha=least) if delta is None else Conditional(alpha=least, delta=delta)
    assert rule.bind()(units).enough


def test_least_alphas_by_hand() -> None:
    assert least_alpha(9) == 0.1
    assert least_alpha(0) == 1
    assert least_alpha(2, 0.25) == pytest.approx(0.5, abs=1e-15)  # (1 − 0.5)² = 0.25
    assert least_alpha(22, 0.1) == pytest.approx(1 - 0.1 ** (1 / 22), rel=1e-13)
    assert least_alpha(0, 0.1) == 1


@given(st.integers(1, 3000), st.data(), st.floats(-9, -0.001).map(lambda power: 10**power))
def test_conditional_alphas_are_exact_for_small_deltas(n: int, data: Any, delta: float) -> None:
    above = data.draw(st.integers(0, n // 2))
    # Of n images as many miss all as shall miss more than ε.
    least = at(attainable(few_miss_all(n, above), 0.5, delta), 0.1)
    assert stats.beta.sf(least, above + 1, n - above) == pytest.approx(delta, rel=1e-9)
    assert conditional_rank(n, least, delta) >= above + 1


def few_miss_all(n: int, above: int) -> Units:
    """Of n images of one voxel so many have less than 0.5."""
    low, high = (np.array([0.25]),), (np.array([0.75]),)
    return Units((low,) * above + (high,) * (n - above))


def test_curves_are_of_units_in_groups_too() -> None:
    lesions = made(40, classes=1, seed=4)
    units = gather(lesions.names, lesions.classes, lesions.values, [str(n % 13) for n in range(40)]).units()
    assert units.n == 13
    for threshold in (0.1, 0.3, 0.7):
        for epsilon in (0, 0.1, 0.5):
            least = at(attainable(units, threshold), epsilon)
            assert Cls(epsilon=epsilon, alpha=least).bind()(units).threshold >= threshold
            lower = Cls(epsilon=epsilon, alpha=math.nextafter(least, 0)).bind()(units)
            assert lower.threshold < threshold
        least = mean_bound(units, threshold)
        assert Crc(alpha=least).bind()(units).threshold >= threshold


# --- words ----------------------------------------------------------------------------------------------

MANY = Choice(0.3, 50, 9, 5)
"""Of a calibration with enough images."""

SAID: list[tuple[Any, Choice, dict[str, Any], str]] = [
    (
        Cls(), MANY, {},
        "In at least 90 % of new images with a lesion from the same source, at most 10 % of the lesion is "
        "missed. Calibrated on 50 images.",
    ),
    (
        Cls(epsilon=0.05, alpha=0.07), MANY, {"lesion": "tumour"},
        "In at least 93 % of new images with a tumour from the same source, at most 5 % of the tumour is "
        "missed. Calibrated on 50 images.",
    ),
    (
        Cls(epsilon=0), MANY, {},
        "In at least 90 % of new images with a lesion from the same source, nothing of the lesion is missed. "
        "Calibrated on 50 images.",
    ),
    (
        Cls(alpha=0.5), Choice(0.3, 1, 1, 1), {},
        "In at least 50 % of new images with a lesion from the same source, at most 10 % of the lesion is "
        "missed. Calibrated on 1 image.",
    ),
    (
        Cls(), MANY, {"lesion": "class", "together": True},
        "In at least 90 % of new images with a lesion from the same source, at most 10 % of each class is "
        "missed. Calibrated on 50 images.",
    ),
    (
        Cls(), MANY, {"unit": "patient", "together": True},
        "In at least 90 % of new patients with a lesion from the same source, at most 10 % of the lesion is "
        "missed in each image. Calibrated on 50 patients.",
    ),
    (
        Cls(), MANY, {"unit": "group", "lesion": "class", "together": True},
        "In at least 90 % of new groups with a lesion from the same source, at most 10 % of each class is "
        "missed in each image. Calibrated on 50 groups.",
    ),
    (
        Conditional(epsilon=0.2, alpha=0.1, delta=0.05), MANY, {},
        "With 95 % confidence in this calibration: in at least 90 % of new images with a lesion from the "
        "same source, at most 20 % of the lesion is missed. Calibrated on 50 images.",
    ),
    (
        Crc(alpha=0.1), MANY, {},
        "On average over new images with a lesion from the same source, at most 10 % of the lesion is "
        "missed. A single image may miss more. Calibrated on 50 images.",
    ),
    (
        Crc(), MANY, {"lesion": "class", "together": True},
        "On average over new images with a lesion from the same source, at most 10 % of the lesion is "
        "missed, each image counted by its worst class. A single image may miss more. Calibrated on "
        "50 images.",
    ),
    (
        Crc(), MANY, {"unit": "patient", "lesion": "tumour", "together": True},
        "On average over new patients with a tumour from the same source, at most 10 % of the tumour is "
        "missed, each patient counted by its worst image. A single patient may miss more. Calibrated on 50 "
        "patients.",
    ),
    (
        Crc(), MANY, {"unit": "group", "lesion": "class", "together": True},
        "On average over new groups with a lesion from the same source, at most 10 % of the lesion is "
        "missed, each group counted by its worst image and class. A single group may miss more. Calibrated "
        "on 50 groups.",
    ),
    (
        Cls(alpha=0.05), Choice(0, 10, 19, 0), {},
        "α = 5 % needs at least 19 calibration images with a lesion, and there are 10: T is 0, so everything "
        "is predicted.",
    ),
    (
        Cls(alpha=0.5), Choice(0, 0, 1, 0), {"lesion": "class"},
        "α = 50 % needs at least 1 calibration image with a lesion, and there are none: T is 0, so "
        "everything is predicted.",
    ),
    (
        Conditional(), Choice(0, 1, 22, 0), {"unit": "patient", "lesion": "oedema"},
        "α = 10 % with δ = 10 % needs at least 22 calibration patients with an oedema, and there is 1: T is "
        "0, so everything is predicted.",
    ),
    (
        Crc(alpha=0.01), Choice(0, 98, 99), {},
        "α = 1 % needs at least 99 calibration images with a lesion, and there are 98: T is 0, so everything "
        "is predicted.",
    ),
    (
        Cls(alpha=0), Choice(0, 50, None, 0), {},
        "No number of calibration images can keep α = 0 %: a larger share would work. T is 0, so everything "
        "is predicted.",
    ),
    (
        Conditional(delta=0), Choice(0, 50, None, 0), {"unit": "group"},
        "No number of calibration groups can keep δ = 0 %: a larger share would work. T is 0, so everything "
        "is predicted.",
    ),
    (
        Cls(alpha=1), Choice(math.inf, 50, 0, 51), {},
        "α = 100 % promises nothing: all of the lesion may be missed in any new image.",
    ),
    (
        Cls(epsilon=1), Choice(math.inf, 50, 9, 5), {},
        "ε = 100 % promises nothing: all of the lesion may be missed in any new image.",
    ),
    (
        Conditional(delta=1), Choice(math.inf, 50, 0, 51), {"unit": "patient"},
        "δ = 100 % promises nothing: all of the lesion may be missed in any new patient.",
    ),
    (
        Crc(alpha=1), Choice(math.inf, 0, 0), {},
        "α = 100 % promises nothing: all of the lesion may be missed in any new image.",
    ),
    (
        Cls(), MANY, {"lesion": "nucleus", "count_empty": True},
        "In at least 90 % of new images from the same source, at most 10 % of the nucleus is missed. Images "
        "without a nucleus count as kept. Calibrated on 50 images.",
    ),
    (
        Crc(), MANY, {"unit": "patient", "count_empty": True},
        "On average over new patients from the same source, at most 10 % of the lesion is missed, each "
        "patient counted by its worst image. A single patient may miss more. Patients without a lesion count "
        "as missing nothing. Calibrated on 50 patients.",
    ),
    (
        Cls(alpha=0.05), Choice(0, 10, 19, 0), {"count_empty": True},
        "α = 5 % needs at least 19 calibration images, and there are 10: T is 0, so everything is predicted.",
    ),
    (
        Cls(), MANY, {"lesion": "vessels"},
        "In at least 90 % of new images with vessels from the same source, at most 10 % of the vessels is "
        "missed. Calibrated on 50 images.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "choice", "about", "words"), SAID)
def test_the_promise_in_words(rule: Any, choice: Choice, about: dict[str, Any], words: str) -> None:
    assert promise(rule, choice, **about) == words


def test_a_class_without_a_name_of_its_own_is_a_lesion() -> None:
    called = [lesion_of(name) for name in ("", "foreground", "vessel", "lesion")]
    assert called == ["lesion", "lesion", "vessel", "lesion"]


@pytest.mark.parametrize("rule", GRID)
def test_every_choice_has_words_that_claim_no_more_than_is_kept(rule: Any) -> None:
    shares = rule.settings().values()
    for n in SIZES:
        choice = rule.bind()(units_of(n))
        words = promise(rule, choice)
        kept = "from the same source" in words
        assert kept == (choice.enough and 1 not in shares)
        assert kept == ("Calibrated on" in words)
        if not choice.enough:
            assert choice.needed is None or f"at least {choice.needed} calibration" in words
        assert words.endswith(".")
        assert ": ." not in words
        assert "  " not in words
        if kept and isinstance(rule, Crc):  # a mean is no promise about an image
            assert words.startswith("On average")
            assert "at least" not in words
        elif kept:
            assert "average" not in words


@pytest.mark.parametrize(
    ("alpha", "inside"),
    [
        (0.00001, "99.999 %"),
        (0.123456, "87.65 %"),
        (0.07, "93 %"),
        (0.999999, "0.0001 %"),
        (1 / 3, "66.66 %"),
    ],
)
def test_a_promise_is_not_rounded_up(alpha: float, inside: str) -> None:
    words = promise(Cls(epsilon=0.123412, alpha=alpha), Choice(0.5, 10**6, 10, 1))
    assert f"at least {inside} of new images" in words
    assert "at most 12.35 % of" in words
    confident = promise(Conditional(delta=alpha), Choice(0.5, 10**6, 10, 1))
    assert confident.startswith(f"With {inside} confidence")
    assert "at most 33.34 % of the lesion" in promise(Crc(alpha=1 / 3), MANY)


@pytest.mark.parametrize("rule", [BestDice(), WantedRecall()])
@pytest.mark.parametrize("choice", [MANY, Choice(0, 3, 9, 0)])
def test_a_rule_that_guarantees_nothing_has_no_promise(rule: Any, choice: Choice) -> None:
    with pytest.raises(TypeError, match="promises nothing"):
        promise(rule, choice)


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0 %"), (1, "100 %"), (0.1, "10 %"), (0.07, "7 %"), (0.29, "29 %"), (0.125, "12.5 %"),
        (1 / 3, "33.33 %"), (0.9875432, "98.75 %"), (0.99999, "99.999 %"), (1e-9, "0.0000001 %"),
        (0.00012345678, "0.01235 %"), (1 - 2**-53, "99.99999999999999 %"), (np.float32(0.5), "50 %"),
    ],
)  # fmt: skip
def test_percentages(share: float, shown: str) -> None:
    assert percent(share) == shown


@given(st.floats(0, 1))
def test_a_percentage_is_near_its_share_and_neither_nothing_nor_all(share: float) -> None:
    shown = float(percent(share).removesuffix(" %")) / 100
    assert shown == pytest.approx(share, rel=1e-3)
    assert (shown == 0) == (share == 0) or share < 1e-300
    assert (percent(share) == "100 %") == (share == 1)
