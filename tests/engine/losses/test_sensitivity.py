"""Elevated Sensitivity Loss: values worked by hand, a plain loop, bounds, gradients, valid pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.losses.sensitivity import elevated_sensitivity


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=draw)
    y = torch.rand(shape, generator=draw) < 0.3
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7
    return p, y, valid


def by_loop(p: Tensor, y: Tensor, valid: Tensor) -> np.ndarray:
    """Eq. 1, pixel by pixel."""
    loss = np.zeros(p.shape[:2])
    for b, c in np.ndindex(*p.shape[:2]):
        found = missed = size = 0.0
        for at in np.ndindex(*p.shape[2:]):
            if valid[b, 0][at]:
                size += 1
                found += float(y[b, c][at]) * float(p[b, c][at])
                missed += float(y[b, c][at]) * (1 - float(p[b, c][at]))
        loss[b, c] = -found / (size + missed)
    return loss


def test_by_hand() -> None:
    p = torch.tensor([[[[0.9, 0.4], [0.2, 0.5]]]])
    y = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    # found 1.3, missed 0.7, N = 4
    assert elevated_sensitivity(p, y).item() == pytest.approx(-1.3 / 4.7)
    # The second and fourth pixel out: found 0.9, missed 0.1, N = 2
    valid = torch.tensor([[[[True, False], [True, False]]]])
    assert elevated_sensitivity(p, y, valid=valid).item() == pytest.approx(-0.9 / 2.1)


@pytest.mark.parametrize("shape", [(2, 1, 6, 9), (1, 3, 7, 5), (2, 2, 3, 4, 5)])
def test_agrees_with_a_loop(shape: tuple[int, ...]) -> None:
    p, y, valid = sample(shape)
    loss = elevated_sensitivity(p, y, valid=valid)
    assert loss.shape == shape[:2]
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss, by_loop(p, y, valid), rtol=1e-5)


def test_limits() -> None:
    empty, full = torch.zeros(1, 1, 512, 512), torch.ones(1, 1, 512, 512)
    assert elevated_sensitivity(full, full).item() == -1
    assert elevated_sensitivity(empty, full).item() == 0
    assert elevated_sensitivity(full, empty).item() == 0
    nowhere = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    assert elevated_sensitivity(full, full, valid=nowhere).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    p = torch.ones(1, 1, 512, 512, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = elevated_sensitivity(p, torch.ones_like(p))
    assert loss.dtype == torch.float32
    assert loss.item() == -1


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (1, 2, 2, 2, 3)])
def test_gradient(shape: tuple[int, ...]) -> None:
    p, y, valid = sample(shape)
    p = p.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: elevated_sensitivity(p, y, valid=valid), (p,))


def test_false_positives_do_not_enter() -> None:
    p, y, _ = sample((1, 2, 6, 6))
    more = torch.where(y, p, 1.0)
    torch.testing.assert_close(elevated_sensitivity(more, y), elevated_sensitivity(p, y))


def test_nan_outside_the_field_of_view_adds_nothing() -> None:
    p, y, valid = sample((2, 2, 5, 5))
    dirty_p = torch.where(valid, p, torch.nan).requires_grad_()
    dirty_y = torch.where(valid, y.float(), torch.nan)
    loss = elevated_sensitivity(dirty_p, dirty_y, valid=valid)
    torch.testing.assert_close(loss, elevated_sensitivity(p, y, valid=valid))
    loss.sum().backward()
    assert dirty_p.grad is not None
    assert dirty_p.grad.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), classes=st.permutations([0, 1, 2]), cut=st.integers(1, 5))
def test_bounds_permutation_depth_and_crop(seed: int, classes: list[int], cut: int) -> None:
    p, y, _ = sample((2, 3, 4, 6), seed)
    loss = elevated_sensitivity(p, y)
    prevalence = y.float().mean((2, 3))
    assert ((loss <= 0) & (loss >= -prevalence - 1e-6)).all()
    torch.testing.assert_close(elevated_sensitivity(p[:, classes], y[:, classes]), loss[:, classes])
    torch.testing.assert_close(elevated_sensitivity(p.unsqueeze(2), y.unsqueeze(2)), loss)
    valid = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    valid[..., :cut] = True
    cropped = elevated_sensitivity(p[..., :cut], y[..., :cut])
    torch.testing.assert_close(elevated_sensitivity(p, y, valid=valid), cropped)
