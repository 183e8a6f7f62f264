"""Appearance and arrangement: known answers, brute force, the guarantee of the greedy order."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from engine.suggestion.appearance import LAGS, QUANTILES, appearance, distances, madogram, similarity
from engine.suggestion.arrangement import by_cover, by_score


def covering(scores: np.ndarray, alike: np.ndarray, chosen: tuple[int, ...], known: np.ndarray) -> float:
    """F of the docstring, by its definition, beyond what the known images cover."""
    best = np.maximum(alike[:, list(chosen)].max(axis=1), known)
    return float((scores * (best - known)).sum() / scores.sum())


def test_by_score_and_ties_in_the_order_given() -> None:
    turns = by_score(np.array([0.2, 0.9, 0.2, 0.5]))
    assert [turn.index for turn in turns] == [1, 3, 0, 2]
    assert [turn.score for turn in turns] == [0.9, 0.5, 0.2, 0.2]
    assert by_score(np.zeros(0)) == []


def test_of_two_copies_the_second_waits_till_the_end() -> None:
    looks = np.array([[0.0, 0.0], [0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])
    turns = by_cover(np.array([0.9, 0.8, 0.5, 0.4]), looks)
    assert [turn.index for turn in turns] == [0, 2, 3, 1]
    assert turns[0].words == "looks like 1 other"
    assert turns[-1].score == pytest.approx(0, abs=1e-9)


def test_what_looks_like_an_annotated_image_waits() -> None:
    looks = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])
    scores = np.array([0.9, 0.5, 0.4])
    assert by_cover(scores, looks)[0].index == 0
    assert by_cover(scores, looks, looks[:1])[-1].index == 0


def test_many_alike_come_before_an_odd_one_out() -> None:
    rng = np.random.default_rng(0)
    crowds = [rng.normal(centre, 0.05, (count, 2)) for centre, count in (((0, 0), 12), ((2, 2), 10))]
    looks = np.concatenate([*crowds, [[0.0, 3.0]]])
    first = [turn.index for turn in by_cover(np.full(23, 0.5), looks)[:3]]
    assert first[0] < 12
    assert 12 <= first[1] < 22
    assert first[2] == 22


def test_no_scores_at_all_still_give_an_order() -> None:
    looks = np.random.default_rng(1).standard_normal((5, 2))
    assert sorted(turn.index for turn in by_cover(np.zeros(5), looks)) == list(range(5))
    assert by_cover(np.zeros(0), np.zeros((0, 2))) == []
    assert [turn.index for turn in by_cover(np.ones(1), np.ones((1, 3)))] == [0]
    # All alike: nothing tells them apart.
    assert [turn.index for turn in by_cover(np.ones(3), np.ones((3, 3)))] == [0, 1, 2]


def test_of_very_many_images_those_of_low_scores_follow_by_score() -> None:
    rng = np.random.default_rng(0)
    looks, scores = rng.standard_normal((9, 3)), rng.permutation(9) / 10 + 0.05
    turns = by_cover(scores, looks, most=5)
    best = np.argsort(-scores)
    inner = by_cover(scores[best[:5]], looks[best[:5]])
    assert [turn.index for turn in turns] == [*best[[turn.index for turn in inner]], *best[5:]]
    assert [turn.score for turn in turns[5:]] == [0.0] * 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_the_lazy_order_is_the_greedy_one_and_keeps_its_guarantee(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    looks, scores = rng.standard_normal((n, 3)), rng.random(n) + 0.01
    given = rng.standard_normal((int(rng.integers(0, 3)), 3))
    alike = similarity(looks)
    known = similarity(looks, given).max(axis=1) if len(given) else np.zeros(n)
    turns = by_cover(scores, looks, given if len(given) else None)
    assert sorted(turn.index for turn in turns) == list(range(n))
    chosen: list[int] = []
    before = 0.0
    for turn in turns:
        free = [index for index in range(n) if index not in chosen]
        reached = {index: covering(scores, alike, (*chosen, index), known) for index in free}
        assert reached[turn.index] == pytest.approx(max(reached.values()), abs=1e-9)
        assert turn.score == pytest.approx(reached[turn.index] - before, abs=1e-9)
        chosen.append(turn.index)
        before = reached[turn.index]
    for size in range(1, min(n, 4) + 1):
        best = max(covering(scores, alike, group, known) for group in combinations(range(n), size))
        assert covering(scores, alike, tuple(chosen[:size]), known) >= (1 - 1 / np.e) * best - 1e-9


def test_distances_are_scipys() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((5, 7)), rng.standard_normal((4, 7))
    np.testing.assert_allclose(distances(one, other), cdist(one, other) / np.sqrt(7), atol=1e-7)


def test_similarity_is_one_to_itself_and_symmetric() -> None:
    looks = np.random.default_rng(2).standard_normal((6, 4))
    alike = similarity(looks)
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-6)
    np.testing.assert_allclose(alike, alike.T)
    np.testing.assert_allclose(similarity(looks, looks), alike, atol=1e-12)
    assert 0 < alike.min() < alike.max() <= 1


def test_a_madogram_by_hand() -> None:
    ramp = np.tile(np.arange(10, dtype=np.float32), (10, 1))
    # Along rows pixels differ by the lag, along columns not at all.
    assert [madogram(ramp, lag) for lag in (1, 2, 8)] == [0.5, 1, 4]
    assert madogram(np.ones((3, 3), np.float32), 8) == 0


def test_appearance_tells_texture_size_and_colour_apart() -> None:
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((64, 64, 1)).astype(np.float32)
    coarse = np.repeat(np.repeat(fine[:8, :8], 8, 0), 8, 1)
    gray = np.repeat(fine, 3, axis=-1)
    color = rng.standard_normal((64, 64, 3)).astype(np.float32)
    assert len(appearance(fine)) == len(QUANTILES) + len(LAGS)
    assert len(appearance(gray)) == len(appearance(fine)) + 3
    place = len(QUANTILES)
    assert appearance(fine)[place] > 3 * appearance(coarse)[place]
    assert np.abs(appearance(gray)[-3:]).max() < 1e-6
    assert appearance(color)[-3:].min() > 0.3
    again = appearance(np.stack([fine] * 2))  # a volume of two equal slices
    np.testing.assert_allclose(again, appearance(fine), atol=2e-3)
