"""What every loss of probabilities and masks has in common, and each one's formula against plain numpy."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.losses.compound import combo, unified_focal
from engine.losses.overlap import dice, dsc_plus_plus, focal_tversky, tversky
from engine.losses.sensitivity import elevated_sensitivity

Region = Callable[..., Tensor]

LOSSES: dict[str, Region] = {
    "dice": dice,
    "dsc++": dsc_plus_plus,
    "dsc++ 0.5": partial(dsc_plus_plus, gamma=0.5),
    "tversky": tversky,
    "tversky++": partial(tversky, gamma=2.0),
    "tversky 0.9 0.2": partial(tversky, alpha=0.9, beta=0.2, gamma=0.3),
    "focal tversky": focal_tversky,
    "focal tversky++": partial(focal_tversky, gamma=2.0),
    "combo": combo,
    "combo++": partial(combo, alpha=0.3, beta=0.8, gamma=2.0),
    "unified focal": unified_focal,
    "unified focal++": partial(unified_focal, lam=0.2, delta=0.7, gamma=0.4, gamma_pp=2.0),
    "symmetric unified focal": partial(unified_focal, symmetric=True),
    "unified focal without γ": partial(unified_focal, gamma=0.0, gamma_pp=0.5),
    "elevated sensitivity": elevated_sensitivity,
}
SHAPES = [(2, 1, 6, 9), (1, 3, 7, 5), (2, 2, 3, 4, 5)]

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=draw)
    y = torch.rand(shape, generator=draw) < 0.3
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7
    return p, y, valid


def ratio(hits: float, errors: float) -> float:
    return (hits + 1e-5) / (hits + errors + 1e-5)


def by_numpy(name: str, p: np.ndarray, y: np.ndarray) -> float:
    """The definition, of the valid pixels of one image and class."""

    def errors(gamma: float) -> tuple[float, float, float]:
        return (p * y).sum(), ((p * (1 - y)) ** gamma).sum(), (((1 - p) * y) ** gamma).sum()

    def dsc(gamma: float) -> float:
        tp, fp, fn = errors(gamma)
        return ratio(2 * tp, fp + fn)

    def index(alpha: float, beta: float, gamma: float) -> float:
        tp, fp, fn = errors(gamma)
        return ratio(tp, alpha * fp + beta * fn)

    def entropy(beta: float) -> float:
        return -np.mean(beta * y * np.log(p) + (1 - beta) * (1 - y) * np.log(1 - p))

    def unified(lam: float, delta: float, gamma: float, power: float, symmetric: bool) -> float:
        q, x = 1 - p, 1 - y
        fore = -delta * y * np.log(p) * (q**gamma if symmetric else 1)
        back = -(1 - delta) * p**gamma * x * np.log(q)
        own = ratio((p * y).sum(), delta * ((q * y) ** power).sum() + (1 - delta) * ((p * x) ** power).sum())
        rest = ratio((q * x).sum(), delta * ((p * x) ** power).sum() + (1 - delta) * ((q * y) ** power).sum())
        pair = (1 - rest) ** (1 - gamma if symmetric else 1) + (1 - own) ** (1 - gamma)
        return lam * np.mean(fore + back) + (1 - lam) * pair / 2

    values: dict[str, Callable[[], float]] = {
        "dice": lambda: 1 - dsc(1),
        "dsc++": lambda: 1 - dsc(2),
        "dsc++ 0.5": lambda: 1 - dsc(0.5),
        "tversky": lambda: 1 - index(0.3, 0.7, 1),
        "tversky++": lambda: 1 - index(0.3, 0.7, 2),
        "tversky 0.9 0.2": lambda: 1 - index(0.9, 0.2, 0.3),
        "focal tversky": lambda: (1 - index(0.3, 0.7, 1)) ** 0.75,
        "focal tversky++": lambda: (1 - index(0.3, 0.7, 2)) ** 0.75,
        "combo": lambda: 0.5 * entropy(0.5) - 0.5 * dsc(1),
        "combo++": lambda: 0.3 * entropy(0.8) - 0.7 * dsc(2),
        "unified focal": lambda: unified(0.5, 0.6, 0.1, 1, False),
        "unified focal++": lambda: unified(0.2, 0.7, 0.4, 2, False),
        "symmetric unified focal": lambda: unified(0.5, 0.6, 0.1, 1, True),
        "unified focal without γ": lambda: unified(0.5, 0.6, 0, 0.5, False),
        "elevated sensitivity": lambda: -(y * p).sum() / (y.size + (y * (1 - p)).sum()),
    }
    return values[name]()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_its_formula(shape: tuple[int, ...], name: str) -> None:
    p, y, valid = sample(shape)
    loss = LOSSES[name](p.double(), y, valid=valid)
    assert loss.shape == shape[:2]
    assert loss.dtype == torch.float64
    for b, c in np.ndindex(*shape[:2]):
        there = valid[b, 0]
        expected = by_numpy(name, p[b, c][there].double().numpy(), y[b, c][there].double().numpy())
        assert loss[b, c].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    narrow = LOSSES[name](p, y.float(), valid=valid)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, loss.float(), rtol=1e-5, atol=1e-6)


@every_loss
@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float16, torch.float64])
def test_the_truth_s_type_does_not_matter(kind: torch.dtype, loss: Region) -> None:
    p, y, valid = sample((2, 2, 5, 5))
    value = loss(p, y.to(kind), valid=valid)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(p, y, valid=valid), rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (1, 2, 2, 2, 3)])
def test_gradient(shape: tuple[int, ...], loss: Region) -> None:
    p, y, valid = sample(shape)
    p = p.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, y, valid=valid), (p,))


@every_loss
def test_gradients_are_finite_where_p_is_saturated(loss: Region) -> None:
    """Exactly right, exactly wrong, and so near that a power or a logarithm in float32 would overflow."""
    steep = [0, 1, 1e-45, 1e-38, 1e-31, 1e-20, 1e-7, 1 - 6e-8, 0.5, 1 - 1e-6, 1e-12, 0]
    for truth in ("empty", "full", "right", "wrong"):
        for values in (steep, [0] * 12, [1] * 12):
            p = torch.tensor(values, dtype=torch.float32).view(1, 2, 2, 3).requires_grad_()
            y = {
                "empty": torch.zeros(1, 2, 2, 3, dtype=torch.bool),
                "full": torch.ones(1, 2, 2, 3, dtype=torch.bool),
                "right": p >= 0.5,
                "wrong": p < 0.5,
            }[truth]
            value = loss(p, y)
            value.sum().backward()
            assert value.isfinite().all(), (truth, values)
            assert p.grad is not None
            assert p.grad.isfinite().all(), (truth, values)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(loss: Region, dtype: torch.dtype) -> None:
    """In float16 the sum over 512² ones is infinite, and 1 - 1e-7 is 1."""
    p = torch.ones(1, 1, 512, 512, dtype=dtype)
    p[..., 100:] = 0.25
    p.requires_grad_()
    y = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    y[..., :256] = True
    with torch.autocast("cpu", dtype=dtype):
        value = loss(p, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(p.detach().float(), y))
    value.sum().backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


@every_loss
def test_garbage_outside_the_field_of_view_adds_nothing(loss: Region) -> None:
    p, y, valid = sample((2, 2, 5, 5))
    dirty_p = torch.where(valid, p, torch.nan).requires_grad_()
    value = loss(dirty_p, torch.where(valid, y.float(), torch.nan), valid=valid)
    torch.testing.assert_close(value, loss(p, y, valid=valid))
    value.sum().backward()
    assert dirty_p.grad is not None
    assert dirty_p.grad.isfinite().all()
    assert (dirty_p.grad[(~valid).expand_as(p)] == 0).all()


@every_loss
@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6), height=st.integers(1, 6), width=st.integers(2, 7), cut=st.integers(1, 6),
    classes=st.permutations([0, 1, 2]),
)  # fmt: skip
def test_crop_permutation_depth_and_images(
    loss: Region, seed: int, height: int, width: int, cut: int, classes: list[int]
) -> None:
    cut = min(cut, width - 1)
    p, y, sparse = sample((2, 3, height, width), seed)
    close = torch.testing.assert_close
    valid = torch.zeros(2, 1, height, width, dtype=torch.bool)
    valid[..., :cut] = True
    close(loss(p, y, valid=valid), loss(p[..., :cut], y[..., :cut]))
    value = loss(p, y, valid=sparse)
    close(loss(p[:, classes], y[:, classes], valid=sparse), value[:, classes])
    close(loss(p.unsqueeze(2), y.unsqueeze(2), valid=sparse.unsqueeze(2)), value)
    close(loss(p[1:, :1], y[1:, :1], valid=sparse[1:]), value[1:, :1])


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("elevated sensitivity",)])
@pytest.mark.parametrize("fill", [0.0, 1.0, None])
def test_a_perfect_prediction_costs_least(name: str, fill: float | None) -> None:
    """An absent class predicted absent included: p is never clipped."""
    p, y, valid = sample((2, 2, 6, 7))
    truth = y.float() if fill is None else torch.full_like(p, fill)
    best = {"combo": -0.5, "combo++": -0.7}.get(name, 0)
    assert (LOSSES[name](truth, truth, valid=valid) == best).all()
    assert (LOSSES[name](truth, truth) == best).all()
    assert (LOSSES[name](p, truth) > best).all()


@pytest.mark.parametrize("name", ["dice", "dsc++", "dsc++ 0.5", "tversky", "tversky++", "focal tversky"])
def test_only_one_of_both_empty_costs_one(name: str) -> None:
    empty, full = torch.zeros(1, 1, 512, 512), torch.ones(1, 1, 512, 512)
    assert LOSSES[name](full, empty).item() == pytest.approx(1, abs=1e-6)
    assert LOSSES[name](empty, full).item() == pytest.approx(1, abs=1e-6)
