"""Dice loss: values worked by hand, a plain loop, limits, gradients, valid pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.losses.overlap import dice

SHAPES = [(2, 1, 6, 9), (1, 3, 7, 5), (2, 2, 3, 4, 5)]


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=draw)
    y = torch.rand(shape, generator=draw) < 0.3
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7
    return p, y, valid


def by_loop(p: Tensor, y: Tensor, valid: Tensor, smooth: float) -> np.ndarray:
    """The definition, pixel by pixel."""
    loss = np.zeros(p.shape[:2])
    for b, c in np.ndindex(*p.shape[:2]):
        tp = fp = fn = 0.0
        for at in np.ndindex(*p.shape[2:]):
            if not valid[b, 0][at]:
                continue
            probability, truth = float(p[b, c][at]), float(y[b, c][at])
            tp += probability * truth
            fp += probability * (1 - truth)
            fn += (1 - probability) * truth
        loss[b, c] = 1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
    return loss


def test_by_hand() -> None:
    p = torch.tensor([[[[0.9, 0.4], [0.2, 0.5]]]])
    y = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    # TP = 1.3, FP = 0.7, FN = 0.7: 1 - 2.6 / 4
    assert dice(p, y, smooth=0).item() == pytest.approx(0.35)
    # With s = 1: 1 - 3.6 / 5
    assert dice(p, y, smooth=1).item() == pytest.approx(0.28)


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_a_loop(shape: tuple[int, ...]) -> None:
    p, y, valid = sample(shape)
    loss = dice(p, y, valid=valid)
    assert loss.shape == shape[:2]
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss, by_loop(p, y, valid, 1e-5), rtol=1e-5)


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_perfect_prediction_costs_exactly_nothing(shape: tuple[int, ...], fill: float) -> None:
    """An absent class predicted absent included: p is never clipped."""
    y = torch.full(shape, fill)
    assert dice(y, y).abs().max() == 0


def test_only_one_of_both_empty_costs_one() -> None:
    empty, full = torch.zeros(1, 1, 512, 512), torch.ones(1, 1, 512, 512)
    assert dice(full, empty).item() == pytest.approx(1, abs=1e-6)
    assert dice(empty, full).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """In float16 the sum over 512² ones is infinite."""
    p = torch.ones(1, 1, 512, 512, dtype=dtype, requires_grad=True)
    y = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    y[..., :256] = True
    with torch.autocast("cpu", dtype=dtype):
        loss = dice(p, y)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 / 3)
    loss.sum().backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (1, 2, 2, 2, 3)])
def test_gradient(shape: tuple[int, ...]) -> None:
    p, y, valid = sample(shape)
    p = p.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: dice(p, y, valid=valid), (p,))


def test_nan_outside_the_field_of_view_adds_nothing() -> None:
    p, y, valid = sample((2, 2, 5, 5))
    dirty_p = torch.where(valid, p, torch.nan).requires_grad_()
    dirty_y = torch.where(valid, y.float(), torch.nan)
    loss = dice(dirty_p, dirty_y, valid=valid)
    torch.testing.assert_close(loss, dice(p, y, valid=valid))
    loss.sum().backward()
    assert dirty_p.grad is not None
    assert dirty_p.grad.isfinite().all()
    assert (dirty_p.grad[(~valid).expand_as(p)] == 0).all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 8), width=st.integers(2, 8), cut=st.integers(1, 7))
def test_invalid_pixels_are_as_if_cropped_away(seed: int, height: int, width: int, cut: int) -> None:
    cut = min(cut, width - 1)
    p, y, _ = sample((2, 2, height, width), seed)
    valid = torch.zeros(2, 1, height, width, dtype=torch.bool)
    valid[..., :cut] = True
    torch.testing.assert_close(dice(p, y, valid=valid), dice(p[..., :cut], y[..., :cut]))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), classes=st.permutations([0, 1, 2]))
def test_bounds_permutation_and_depth(seed: int, classes: list[int]) -> None:
    p, y, valid = sample((2, 3, 4, 6), seed)
    loss = dice(p, y, valid=valid)
    assert ((loss >= 0) & (loss <= 1)).all()
    torch.testing.assert_close(dice(p[:, classes], y[:, classes], valid=valid), loss[:, classes])
    flat = dice(p.unsqueeze(2), y.unsqueeze(2), valid=valid.unsqueeze(2))
    torch.testing.assert_close(flat, loss)
