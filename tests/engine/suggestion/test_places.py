"""Places: against brute force, never overlapping, inside, best first."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.suggestion.places import FADED, box_sums, places, sides
from engine.suggestion.seen import Box, Doubt


def doubt(values: np.ndarray) -> Doubt:
    def words(box: Box) -> str:
        return f"{values[box].sum():.3f} in all"

    return Doubt(1.0, values.astype(np.float32), words)


def test_the_sides_are_for_painting() -> None:
    assert sides((256, 256)) == (64, 64)
    assert sides((4000, 3000)) == (128, 128)
    assert sides((20, 300)) == (20, 75)
    assert sides((40, 256, 200)) == (8, 64, 64)
    assert sides((2, 30, 30)) == (2, 30, 30)


def test_three_spots_are_found_by_their_weight() -> None:
    values = np.zeros((400, 400), np.float32)
    for row, column, weight in ((50, 60, 2.0), (300, 310, 3.0), (60, 330, 1.0)):
        values[row : row + 10, column : column + 10] = weight
    found = places(doubt(values))
    assert len(found) == 3
    for place, (row, column) in zip(found, ((305, 315), (55, 65), (65, 335)), strict=True):
        assert all(side.start <= at < side.stop for side, at in zip(place.box, (row, column), strict=True))
        assert place.score == np.float64(values[place.box].mean(dtype=np.float64))
    assert found[0].reason == "300.000 in all"


def test_what_is_faint_beside_the_best_is_no_place() -> None:
    values = np.zeros((400, 400), np.float32)
    values[10:20, 10:20] = 1
    values[300:310, 300:310] = FADED / 2
    assert len(places(doubt(values))) == 1
    assert places(doubt(np.zeros((50, 50)))) == []
    assert places(Doubt(0.5, None, lambda box: "")) == []


def test_no_more_than_asked_for() -> None:
    values = np.ones((300, 300), np.float32)
    assert len(places(doubt(values), 2)) == 2
    assert places(doubt(values), 0) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_sums_are_those_of_brute_force_and_places_are_the_greedy_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 14, rng.integers(2, 4)))
    side = tuple(int(rng.integers(1, n + 1)) for n in shape)
    values = rng.random(shape).astype(np.float32)
    starts = [
        np.unique([*rng.integers(0, n - extent + 1, 3), n - extent])
        for n, extent in zip(shape, side, strict=True)
    ]
    sums = box_sums(values, starts, side)
    for where in product(*(range(len(each)) for each in starts)):
        box = tuple(
            slice(each[at], each[at] + extent) for each, at, extent in zip(starts, where, side, strict=True)
        )
        np.testing.assert_allclose(sums[where], values[box].sum(dtype=np.float64), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([(90, 130), (33, 200), (5, 40, 70)]))
def test_places_lie_inside_apart_and_fall(seed: int, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(seed).random(shape) ** 6
    found = places(doubt(values), 4)
    assert 1 <= len(found) <= 4
    covered = np.zeros(shape, int)
    for place in found:
        assert tuple(values[place.box].shape) == sides(shape)
        covered[place.box] += 1
    assert covered.max() == 1
    scores = [place.score for place in found]
    assert scores == sorted(scores, reverse=True)
