"""Weights put into a network for other classes: what stays as it was, for every registered network."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import IN_3D, NAMES, SMALL, build, draw, spec
from torch import Tensor, nn

from engine.head import Head, foreground
from engine.models.specs import SemanticFPN
from engine.transplant import (
    Meaning,
    empty_network,
    first_difference,
    head_keys,
    rows,
    shapes,
    transplanted,
)

CLASSES = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True).map(tuple)
HEADS: tuple[Head, ...] = ("sigmoid", "softmax")


def moved(name: str, old: Meaning, new: Meaning, side: int = 32) -> tuple[Tensor, Tensor]:
    """Probabilities (B, C, *S) of a network that learned, and of one that starts from it."""
    learned = build(name, 1, old.outputs, seed=0)
    with torch.no_grad():  # statistics, so that they are seen to be copied, and a head that says something
        learned.train()(draw(2, 1, side, side))
        for key in head_keys(spec(name), 1, old.outputs, 2):
            learned.state_dict()[key].copy_(draw(*learned.state_dict()[key].shape, seed=3) / 4)
    started = build(name, 1, new.outputs, seed=1)
    keys = head_keys(spec(name), 1, new.outputs, 2)
    started.load_state_dict(transplanted(learned.state_dict(), started.state_dict(), keys, old, new))
    image = draw(1, 1, side, side, seed=2)
    return probability(learned, image, old.head), probability(started, image, new.head)


def probability(network: nn.Module, image: Tensor, head: Head) -> Tensor:
    with torch.no_grad():
        return foreground(network.eval()(image), head)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_classes_give_identical_predictions(name: str) -> None:
    old = Meaning("softmax", ("a", "b"))
    before, after = moved(name, old, old)
    assert torch.equal(before, after)
    assert before.std() > 1e-3  # that of an image, not of a constant


@pytest.mark.parametrize("name", NAMES)
def test_classes_that_are_kept_keep_their_probability(name: str) -> None:
    """Permuted, one added, one gone: classes of a sigmoid head know nothing of each other."""
    before, after = moved(name, Meaning("sigmoid", ("a", "b", "c")), Meaning("sigmoid", ("c", "x", "a")))
    torch.testing.assert_close(after[:, [0, 2]], before[:, [2, 0]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES[:2])
def test_another_head_keeps_the_odds_against_background(name: str) -> None:
    before, after = moved(name, Meaning("softmax", ("a", "b")), Meaning("sigmoid", ("b",)))
    background = 1 - before.sum(1)
    torch.testing.assert_close(after[:, 0], before[:, 1] / (before[:, 1] + background), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_network_has_the_shapes_and_draws_no_number(name: str) -> None:
    outputs = 3
    state = build(name, 2, outputs).state_dict()
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    empty = empty_network(spec(name), 2, outputs, 2)
    assert torch.equal(torch.rand(1), first)
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes(spec(name), 2, outputs, 2)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert len(head_keys(spec(name), 2, outputs, 2)) == 2  # weights and bias


@pytest.mark.parametrize("name", [name for name in IN_3D if name != "swin_unetr"])  # which takes seconds
def test_heads_of_networks_for_volumes(name: str) -> None:
    assert len(head_keys(spec(name), 1, 2, 3)) == 2


def odds(p: Tensor, meaning: Meaning) -> dict[str, Tensor]:
    """Class → its probability over the background's, in the terms of its head."""
    rest = 1 - (p if meaning.head == "sigmoid" else p.sum(0, keepdim=True))
    return dict(zip(meaning.classes, p / rest, strict=True))


@given(CLASSES, CLASSES, st.sampled_from(list(product(HEADS, HEADS))), st.integers(0, 99))
@settings(max_examples=60)
def test_rows(was: tuple[str, ...], now: tuple[str, ...], heads: tuple[Head, Head], seed: int) -> None:
    """Of any classes and heads: odds stay, new rows are the fresh ones, the same classes stay the same."""
    old, new = Meaning(heads[0], was), Meaning(heads[1], now)
    learned, fresh = draw(old.outputs, 5, seed=seed).double(), draw(new.outputs, 5, seed=seed + 1).double()
    made = rows(learned, fresh, old, new)
    assert made.shape == fresh.shape
    x = draw(5, 7, seed=seed + 2).double()
    before, after = (
        (z.sigmoid() if meaning.head == "sigmoid" else z.softmax(0)[1:])
        for z, meaning in ((learned @ x, old), (made @ x, new))
    )
    was_odds, now_odds = odds(before, old), odds(after, new)
    for name in now:
        if name in was:
            torch.testing.assert_close(now_odds[name], was_odds[name], rtol=1e-6, atol=0)
        else:
            assert torch.equal(made[new.place(name)], fresh[new.place(name)])
    if old.head == new.head and sorted(was) == sorted(now):
        torch.testing.assert_close(after[[now.index(name) for name in was]], before)
    if was == now and len(was) == 1:
        torch.testing.assert_close(after, before)  # one class: sigmoid z is softmax [0, z], and back


def test_one_class_by_hand() -> None:
    fresh, one, two = torch.full((2,), 9.0), Meaning("sigmoid", ("a",)), Meaning("softmax", ("a",))
    assert rows(torch.tensor([3.0]), fresh, one, two).tolist() == [0, 3]
    assert rows(torch.tensor([1.0, 3.0]), fresh[:1], two, one).tolist() == [2]


def test_the_first_difference_is_one_that_changes_shapes() -> None:
    mine, theirs = spec("unet", dropout=0.5, depth=3, norm="instance"), spec("unet")
    assert first_difference(mine, theirs, 1, 1, 2) == "depth"
    assert first_difference(spec("unet", norm="instance"), theirs, 1, 1, 2) == "norm"
    assert first_difference(spec("unet", dropout=0.5), theirs, 1, 1, 2) is None
    assert first_difference(spec("segnet"), theirs, 1, 1, 2) == "name"
    weights = SemanticFPN(**SMALL["semantic_fpn"], weights="none.pth")
    assert first_difference(weights, spec("semantic_fpn"), 3, 1, 2) is None
