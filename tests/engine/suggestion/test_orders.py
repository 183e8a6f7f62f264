"""Every order of the registry: what all must keep, and known answers of each."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, generate_binary_structure, label
from scipy.stats import entropy as scipy_entropy

from engine.suggestion import Doubt, Seen, candidate, ranked
from engine.suggestion.errors import errors, expected_dice
from engine.suggestion.misses import misses
from engine.suggestion.seen import percent, without_rims
from engine.suggestion.specs import Order
from engine.suggestion.uncertainty import entropy, mean_of_most, uncertain
from engine.suggestions_file import ORDERS

Array = NDArray[np.float32]


def seen(p: Array, *thresholds: float, name: str = "image") -> Seen:
    """Probabilities (C, *S) with T = 0.5 unless told."""
    return Seen.cut(
        name, p.astype(np.float32), thresholds or (0.5,) * len(p), [f"c{k}" for k in range(len(p))]
    )


def blobs(shape: tuple[int, ...], seed: int = 0, classes: int = 1) -> Array:
    """Smooth probabilities (C, *S)."""
    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.standard_normal(shape), 2) for _ in range(classes)])
    return (1 / (1 + np.exp(-25 * (field - 0.08)))).astype(np.float32)


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> Order:
    made: Order = ORDERS[request.param]()
    return made


@pytest.mark.parametrize(
    ("shape", "classes"), [((40, 56), 1), ((9, 24, 20), 1), ((32, 32), 3), ((6, 12, 12), 2), ((1, 1), 1)]
)
def test_an_order_gives_a_score_a_reason_and_a_map_that_fits(
    order: Order, shape: tuple[int, ...], classes: int
) -> None:
    given = blobs(shape, classes=classes)
    before = given.copy()
    image = seen(given)
    doubt: Doubt = order.bind()(image)
    assert 0 <= doubt.score <= 1
    assert math.isfinite(doubt.score)
    assert any(letter.isdigit() for letter in doubt.words(image.whole))
    if doubt.map is not None:
        assert doubt.map.shape == shape
        assert doubt.map.dtype == np.float32
        assert doubt.map.min() >= 0
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("threshold", [0.0, 1e-6, 0.3, 1.0, math.inf])
@pytest.mark.parametrize("value", [0.0, 1e-8, 0.3, 1.0])
def test_no_threshold_and_no_flat_image_breaks_an_order(order: Order, threshold: float, value: float) -> None:
    image = seen(np.full((1, 8, 8), value, np.float32), threshold)
    found = candidate(order, image)
    assert 0 <= found.score <= 1
    assert found.reason


@pytest.mark.parametrize("name", [name for name in ORDERS if name != "random"])
def test_what_is_certain_comes_last(name: str) -> None:
    order = ORDERS[name]()
    assert isinstance(order, Order)
    truth = blobs((40, 40)) >= 0.5
    sure = seen(truth.astype(np.float32), name="sure")
    unsure = seen(np.where(truth, 0.7, 0.3).astype(np.float32), name="unsure")
    found = ranked(order, [candidate(order, each) for each in (sure, unsure)], np.array([[0.0], [1.0]]))
    assert [each.image for each in found] == ["unsure", "sure"]
    assert candidate(order, sure).score == pytest.approx(0, abs=1e-6)
    assert candidate(order, sure).places == ()


def test_an_order_does_not_depend_on_turning_the_image(order: Order) -> None:
    p = blobs((40, 56), seed=3)
    turned = seen(np.ascontiguousarray(np.rot90(p, axes=(1, 2))))
    assert order.bind()(turned).score == pytest.approx(order.bind()(seen(p)).score, rel=1e-5)


def test_every_order_ranks_each_image_once_with_falling_scores(order: Order) -> None:
    images = [seen(blobs((24, 24), seed=k), name=f"i{k}") for k in range(7)]
    looks = np.random.default_rng(0).standard_normal((7, 4))
    found = ranked(order, [candidate(order, each) for each in images], looks, looks[:2] + 5)
    assert [each.rank for each in found] == list(range(1, 8))
    assert {each.image for each in found} == {each.name for each in images}
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)


def test_entropy_is_scipys_in_bits() -> None:
    p = np.linspace(0.001, 0.999, 97, dtype=np.float32)
    np.testing.assert_allclose(entropy(p), scipy_entropy([p, 1 - p], base=2), rtol=1e-4)
    np.testing.assert_array_equal(entropy(np.array([0, 0.5, 1], np.float32)), [0, 1, 0])


def test_a_thin_outline_does_not_count_and_a_doubtful_area_does() -> None:
    outline = np.zeros((20, 20), np.float32)
    outline[5:15, 5:15] = 1
    outline[5:15, 5] = 0.5
    area = np.zeros((20, 20), np.float32)
    area[5:10, 5:10] = 0.5
    assert uncertain(seen(outline[None])).score == 0
    assert uncertain(seen(outline[None]), rim=0).score == pytest.approx(10 / 400)
    # The diamond of radius 1 leaves all of a square of 5 but its four corners.
    assert uncertain(seen(area[None])).score == pytest.approx(21 / 400)


def test_the_most_uncertain_share_alone() -> None:
    values = np.arange(10, dtype=np.float32)
    assert mean_of_most(values, 0.2) == 8.5
    assert mean_of_most(values, 1.0) == 4.5
    assert mean_of_most(values, 0.001) == 9


def test_rims_of_an_image_smaller_than_the_diamond_stay() -> None:
    ones = np.ones((1, 9), np.float32)
    np.testing.assert_array_equal(without_rims(ones, 3), ones)


def test_misses_by_hand() -> None:
    p = np.zeros((1, 20, 20), np.float32)
    p[0, 2:6, 2:6] = 0.8  # found: 16 px
    p[0, 10:14, 2:6] = 0.4  # a spot of 16 px that the decision drops
    p[0, 10:12, 12:14] = 0.4  # a speck of 4 px, too small to count
    p[0, 18, :] = 0.04  # background, below a tenth of T
    doubt = misses(seen(p))
    missed, total = 0.4 * 20, 0.4 * 20 + 0.8 * 16
    assert doubt.score == pytest.approx(missed / (total + 16))
    whole = (slice(0, 20), slice(0, 20))
    assert doubt.words(whole) == f"likely misses {percent(missed / total)} of c0 and 1 of 2 spots"
    assert doubt.words((slice(0, 8), slice(0, 8))) == "likely misses 0 % of c0"
    assert doubt.words((slice(15, 20), slice(0, 20))) == "no c0 expected"
    assert doubt.map is not None
    np.testing.assert_allclose(np.unique(doubt.map), [0, 0.4])


def test_misses_of_several_classes_are_told_by_class() -> None:
    p = np.zeros((2, 10, 10), np.float32)
    p[0, :5, :5] = 0.9
    p[1, 5:, 5:] = 0.3
    words = misses(seen(p)).words((slice(0, 10), slice(0, 10)))
    assert words == "likely misses 0 % of c0, likely misses 100 % of c1 and 1 of 1 spot"


def test_a_lower_threshold_misses_less() -> None:
    p = blobs((48, 48), seed=1)
    scores = [misses(seen(p, t)).score for t in (0.05, 0.2, 0.5, 0.8)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_dropped_spots_are_those_of_scipy_by_brute_force() -> None:
    p = blobs((64, 64), seed=4)
    mask = p[0] >= 0.9
    found, count = label(p[0] >= 0.25, generate_binary_structure(2, 2))
    large = [k for k in range(1, count + 1) if (found == k).sum() >= 16]
    dropped = [k for k in large if not mask[found == k].any()]
    assert 0 < len(dropped) < len(large)
    words = misses(seen(p, 0.9)).words((slice(0, 64), slice(0, 64)))
    assert words.endswith(f"and {len(dropped)} of {len(large)} spots")


def test_expected_dice_by_hand_and_against_a_simulation() -> None:
    p = np.array([[0.9, 0.8], [0.4, 0.0]], np.float32)
    mask = p >= 0.5
    assert expected_dice(p, mask) == pytest.approx(2 * 1.7 / (2 + 2.1))
    assert expected_dice(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)) == 1
    rng = np.random.default_rng(0)
    large = blobs((40, 40), seed=2)[0]
    cut = large >= 0.5
    truths = rng.random((200, 40, 40)) < large
    dice = 2 * (truths & cut).sum((1, 2)) / (truths.sum((1, 2)) + cut.sum())
    assert expected_dice(large, cut) == pytest.approx(dice.mean(), abs=0.005)


def test_errors_do_not_depend_on_how_much_there_is() -> None:
    few, many = np.zeros((1, 64, 64), np.float32), np.zeros((1, 64, 64), np.float32)
    few[0, :16, :16] = 0.7
    many[0, :32, :32] = 0.7
    assert errors(seen(few), smallest=1).score == pytest.approx(
        errors(seen(many), smallest=1).score, abs=0.01
    )


def test_an_empty_image_does_not_come_first_for_what_background_has_of_probability() -> None:
    empty = seen(np.full((1, 200, 200), 0.02, np.float32))
    speck = np.zeros((1, 200, 200), np.float32)
    speck[0, :1, :3] = 0.3
    for score in (misses, errors):
        assert score(empty).score == 0
        assert score(seen(speck)).score < 0.15


def test_a_draw_depends_on_seed_and_name_alone() -> None:
    order = ORDERS["random"]
    p = blobs((8, 8))

    def first(seed: int, names: list[str]) -> list[str]:
        drawn = order(seed=seed)
        assert isinstance(drawn, Order)
        return [
            each.image for each in ranked(drawn, [candidate(drawn, seen(p, name=name)) for name in names])
        ]

    names = [f"i{k}" for k in range(30)]
    assert first(1, names) == first(1, names[::-1])
    assert first(1, names) != first(2, names)
    fewer = names[::2]
    assert first(1, fewer) == [name for name in first(1, names) if name in fewer]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from(sorted(ORDERS)))
def test_noise_of_any_kind_gives_finite_scores_and_places_inside(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 40, rng.integers(2, 4)))
    p = (rng.random((int(rng.integers(1, 3)), *shape)) ** rng.integers(1, 9)).astype(np.float32)
    order = ORDERS[name]()
    assert isinstance(order, Order)
    found = candidate(order, seen(p, *rng.random(len(p))))
    assert 0 <= found.score <= 1
    for place in found.places:
        assert all(0 <= side.start < side.stop <= n for side, n in zip(place.box, shape, strict=True))
