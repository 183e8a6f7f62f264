"""The ++ of the overlap losses: a power on each pixel's error."""

import pytest
import torch
from torch import Tensor

from engine.losses.overlap import dice, dsc_plus_plus

SHAPES = [(2, 1, 6, 9), (1, 3, 7, 5), (2, 2, 3, 4, 5)]
GAMMAS = [0.1, 0.5, 1.0, 1.5, 2.0, 5.0]


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=draw)
    y = torch.rand(shape, generator=draw) < 0.3
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7
    return p, y, valid


def test_dsc_plus_plus_by_hand() -> None:
    p = torch.tensor([[[[0.9, 0.4], [0.2, 0.5]]]])
    y = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    # TP = 1.3; squared errors FP = 0.04 + 0.25, FN = 0.01 + 0.36: 1 - 2.6 / 3.26
    assert dsc_plus_plus(p, y, smooth=0).item() == pytest.approx(1 - 2.6 / 3.26)
    # Square roots: FP = 0.4472 + 0.7071, FN = 0.3162 + 0.7746
    assert dsc_plus_plus(p, y, gamma=0.5, smooth=1).item() == pytest.approx(1 - 3.6 / 5.84512, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_gamma_one_it_is_the_dice_loss(shape: tuple[int, ...]) -> None:
    p, y, valid = sample(shape)
    torch.testing.assert_close(dsc_plus_plus(p, y, gamma=1, valid=valid), dice(p, y, valid=valid))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradients_are_finite_where_a_power_is_steep(gamma: float) -> None:
    for truth in (0.0, 1.0, 0.5):
        # Exactly right, exactly wrong, and so near that a float32 power would overflow.
        p = torch.tensor([0, 1, 1e-45, 1e-38, 1e-20, 1 - 6e-8, 0.5, 1e-31]).view(1, 1, 2, 4).requires_grad_()
        y = torch.full((1, 1, 2, 4), truth).round()
        if truth == 0.5:
            y = p.detach().round()
        loss = dsc_plus_plus(p, y, gamma=gamma)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert p.grad is not None
        assert p.grad.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (1, 2, 2, 2, 3)])
def test_gradient(shape: tuple[int, ...], gamma: float) -> None:
    p, y, valid = sample(shape)
    p = p.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: dsc_plus_plus(p, y, gamma=gamma, valid=valid), (p,))
