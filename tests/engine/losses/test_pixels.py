"""Gradients written by hand: against plain formulas, in pieces, where elements tie, and of no image."""

from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from engine.head import Head, channels
from engine.losses import pixels, specs, topology
from engine.losses.compound import unified_focal
from engine.losses.guides import Guides
from engine.losses.objective import build
from engine.losses.overlap import dice, dsc_plus_plus, tversky
from engine.losses.pixelwise import binary_cross_entropy, cross_entropy, focal
from engine.losses.specs import LossPart
from engine.losses.topology import binary_skeleton, half_width, soft_cldice, soft_skeleton

LOSSES: tuple[type[LossPart], ...] = get_args(get_args(specs.Loss)[0])


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=draw, dtype=torch.float64, requires_grad=True)
    y = torch.rand(shape, generator=draw) < 0.4
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.8
    return p, y, valid


@pytest.mark.parametrize("space", [(6, 5), (3, 4, 5)])
@pytest.mark.parametrize(
    ("part", "head"),
    [
        (part, head)
        for part, head in product(LOSSES, get_args(Head))
        if head == "sigmoid" or part not in (specs.BinaryCrossEntropy, specs.DiceBinaryCrossEntropy)
    ],
)
def test_no_image_is_no_exception(part: type[LossPart], head: Head, space: tuple[int, ...]) -> None:
    classes = 1 if part in (specs.CrossEntropy, specs.DiceCrossEntropy) else 2
    logits = torch.zeros(0, channels(head, classes), *space, requires_grad=True)
    y = torch.zeros(0, classes, *space, dtype=torch.bool)
    for valid in (None, torch.zeros(0, 1, *space, dtype=torch.bool)):
        terms = [term.bind()(logits[:, :classes], y, valid=valid) for _, term in part().terms(head)
                 if term.needs == "probability"]  # fmt: skip
        assert all(value.shape == (0, classes) for value in terms)
        build(part(), head, classes)(logits, y, valid, Guides(y, y.float())).backward()
    assert logits.grad is not None
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("shape", [(3, 2, 4, 3), (3, 2, 2, 2, 3)])
@pytest.mark.parametrize("piece", [1, 5, 30, 50, 10**6])
def test_pieces_add_up(piece: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    p, y, valid = sample(shape)
    losses = [
        lambda p: dice(p, y, valid=valid),
        lambda p: dsc_plus_plus(p, y, valid=valid),
        lambda p: tversky(p, y, gamma=0.4, valid=valid),
        lambda p: unified_focal(p, y, gamma=0.3, gamma_pp=2.0, valid=valid),
        lambda p: focal(p, y, alpha=0.3, valid=valid),
        lambda p: binary_cross_entropy(p, y, valid=valid),
        lambda p: cross_entropy(p, y[:, 0], valid=valid),
        lambda p: soft_cldice(p, y, valid=valid),
    ]

    def all_of() -> list[Tensor]:
        values = [loss(p).sum() for loss in losses]
        return values + [torch.autograd.grad(value, p)[0] for value in values]

    expected = all_of()
    for module in (pixels, topology):
        monkeypatch.setattr(module, "PIECE", piece)
    torch.testing.assert_close(all_of(), expected)


@pytest.mark.parametrize("gamma", [0.4, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("rest", [False, True])
def test_sums_and_their_gradients_are_those_of_the_plain_formula(gamma: float, rest: bool) -> None:
    p, y, valid = sample((2, 3, 5, 4))
    inside = p * valid
    there = y & valid
    n = there.double()
    plain = [
        inside * n,
        (inside * (1 - n)) ** gamma,
        ((1 - inside) * n) ** gamma,
        (valid * 1.0 - n) * (1 - inside),
    ]
    expected = torch.stack([x.flatten(2).sum(-1) for x in plain])[: 4 if rest else 3]
    ours = pixels.errors(inside, there, gamma, valid, rest=rest)
    torch.testing.assert_close(ours, expected)
    weights = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), p, retain_graph=True)
    if gamma < 1:
        # Where nothing is wrong, a power below 1 has no slope.
        wrong = [x.clamp(min=1e-40) for x in (inside * (1 - n), (1 - inside) * n)]
        plain[1:3] = [torch.where(x > 1e-30, x, 1.0) ** gamma * (x > 1e-30) for x in wrong]
        expected = torch.stack([x.flatten(2).sum(-1) for x in plain])[: 4 if rest else 3]
    (autograd,) = torch.autograd.grad((expected * weights).sum(), p)
    torch.testing.assert_close(gradient, autograd)


@pytest.mark.parametrize("space", [(5, 4), (3, 3, 3), (1, 4), (2, 1, 3)])
def test_a_soft_skeleton_s_gradient(space: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image with its own erosions, in runs shorter than they are many."""
    monkeypatch.setattr(topology, "RUN", 2)
    x, _, _ = sample((2, 2, *space))
    levels = torch.tensor([[0, 3], [4, 1]])
    assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, levels), (x,), fast_mode=True)


@pytest.mark.parametrize("space", [(6, 7), (4, 3, 5)])
def test_where_elements_tie_one_takes_the_gradient(space: tuple[int, ...]) -> None:
    """An erosion's gradient is moved, and neither lost nor doubled; a plateau keeps its own."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (2, *space), generator=draw).double()
    gradient = torch.rand(x.shape, generator=draw, dtype=torch.float64)
    axes = range(1, x.ndim)
    moved = topology._routed(gradient, x, topology.eroded(x), axes)
    torch.testing.assert_close(moved.sum(), gradient.sum())
    assert (moved >= 0).all()
    flat = torch.ones_like(x)
    torch.testing.assert_close(topology._routed(gradient, flat, flat, axes), gradient)


@pytest.mark.parametrize("space", [(6, 7), (4, 3, 5)])
def test_ties_go_to_the_element_itself_or_to_one_neighbour(space: tuple[int, ...]) -> None:
    """A valid subgradient: that of a prediction nearby, in which it alone is the smallest."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 3, (1, *space), generator=draw).double()
    y = topology.eroded(x)
    for at in torch.cartesian_prod(*[torch.arange(n) for n in x.shape]).tolist():
        one = torch.zeros_like(x)
        one[tuple(at)] = 1
        (where,) = topology._routed(one, x, y, range(1, x.ndim)).nonzero().tolist()
        assert x[tuple(where)] == y[tuple(at)]
        assert sum(abs(a - b) for a, b in zip(where, at, strict=True)) <= 1
        if x[tuple(at)] == y[tuple(at)]:
            assert where == at


@pytest.mark.parametrize("space", [(14, 13), (6, 7, 8)])
@pytest.mark.parametrize("iterations", [None, 0, 1, 3])
def test_a_mask_s_skeleton_is_its_soft_one(space: tuple[int, ...], iterations: int | None) -> None:
    mask = torch.rand(2, 3, *space, generator=torch.Generator().manual_seed(2)) < 0.85
    thin, width = binary_skeleton(mask, iterations)
    levels = half_width(mask) if iterations is None else torch.full((2, 3), iterations)
    assert torch.equal(thin.float(), soft_skeleton(mask.float(), levels))
    assert iterations is not None or torch.equal(width, half_width(mask))
