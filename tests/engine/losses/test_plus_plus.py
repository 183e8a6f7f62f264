"""Overlap and compound losses: values worked by hand, and the ++, which with γ = 1 are the plain ones."""

import math

import pytest
import torch
from torch import Tensor

from engine.losses.compound import combo, unified_focal
from engine.losses.overlap import dice, dsc_plus_plus, focal_tversky, tversky

SHAPES = [(2, 1, 6, 9), (2, 2, 3, 4, 5)]


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_dsc_plus_plus_by_hand() -> None:
    p, y = pixels(0.9, 0.4, 0.2, 0.5), pixels(1, 1, 0, 0)
    # TP = 1.3; squared errors FP = 0.04 + 0.25, FN = 0.01 + 0.36: 1 - 2.6 / 3.26
    assert dsc_plus_plus(p, y, smooth=0).item() == pytest.approx(1 - 2.6 / 3.26)
    # Square roots: FP = 0.4472 + 0.7071, FN = 0.3162 + 0.7746
    assert dsc_plus_plus(p, y, gamma=0.5, smooth=1).item() == pytest.approx(1 - 3.6 / 5.84512, rel=1e-5)


def test_tversky_by_hand() -> None:
    p, y = pixels(0.9, 0.4, 0.2, 0.5), pixels(1, 0, 0, 0)
    # TP = 0.9, FP = 1.1, FN = 0.1: 0.9 + 0.33 + 0.07
    assert tversky(p, y, smooth=0).item() == pytest.approx(1 - 0.9 / 1.3)
    assert focal_tversky(p, y, smooth=0).item() == pytest.approx((1 - 0.9 / 1.3) ** 0.75)
    assert focal_tversky(p, y, smooth=0, exponent=2).item() == pytest.approx((1 - 0.9 / 1.3) ** 2)
    # Squared errors FP = 0.45, FN = 0.01; α = 1, β = 0 sees false positives alone.
    assert tversky(p, y, smooth=0, gamma=2).item() == pytest.approx(1 - 0.9 / (0.9 + 0.135 + 0.007))
    assert tversky(p, y, smooth=0, alpha=1, beta=0).item() == pytest.approx(1 - 0.9 / 2)
    assert tversky(p, y, smooth=1, alpha=0, beta=1).item() == pytest.approx(1 - 1.9 / 2)


def test_combo_by_hand() -> None:
    p, y = pixels(0.5, 0.25), pixels(1, 0)
    nats = (0.7 * math.log(2) + 0.3 * math.log(4 / 3)) / 2
    # 2TP = 1, FP = 0.25, FN = 0.5; squared 0.0625 and 0.25
    loss = combo(p, y, alpha=0.4, beta=0.7, smooth=0)
    assert loss.item() == pytest.approx(0.4 * nats - 0.6 / 1.75)
    loss = combo(p, y, alpha=0.4, beta=0.7, gamma=2, smooth=0)
    assert loss.item() == pytest.approx(0.4 * nats - 0.6 / 1.3125)


def test_unified_focal_by_hand() -> None:
    p, y = pixels(0.5, 0.25), pixels(1, 0)
    fore, back = 0.6 * math.log(2), 0.4 * 0.25**0.1 * math.log(4 / 3)
    # Foreground: TP = 0.5, FP = 0.25, FN = 0.5. Background: TP = 0.75, FP = 0.5, FN = 0.25.
    own = 1 - 0.5 / (0.5 + 0.6 * 0.5 + 0.4 * 0.25)
    rest = 1 - 0.75 / (0.75 + 0.6 * 0.25 + 0.4 * 0.5)
    loss = unified_focal(p, y, lam=0.3, smooth=0)
    assert loss.item() == pytest.approx(0.3 * (fore + back) / 2 + 0.7 * (rest + own**0.9) / 2)
    loss = unified_focal(p, y, lam=0.3, smooth=0, symmetric=True)
    fore *= 0.5**0.1
    assert loss.item() == pytest.approx(0.3 * (fore + back) / 2 + 0.7 * (rest**0.9 + own**0.9) / 2)
    own = 1 - 0.5 / (0.5 + 0.6 * 0.25 + 0.4 * 0.0625)
    rest = 1 - 0.75 / (0.75 + 0.6 * 0.0625 + 0.4 * 0.25)
    loss = unified_focal(p, y, lam=0, smooth=0, gamma_pp=2)
    assert loss.item() == pytest.approx((rest + own**0.9) / 2)


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_a_logarithm_is_clipped_at_1e_minus_7(sure: float) -> None:
    p, y = pixels(sure), pixels(1 - sure)
    nats = -math.log(1e-7)
    assert combo(p, y, alpha=1, beta=0.5).item() == pytest.approx(0.5 * nats)
    assert unified_focal(p, y, lam=1, delta=0.5).item() == pytest.approx(0.5 * nats)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_gamma_one_a_plus_plus_is_the_plain_loss(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(shape, generator=draw, dtype=torch.float64)
    y = torch.rand(shape, generator=draw) < 0.3
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7
    close = torch.testing.assert_close
    plain = dice(p, y, valid=valid)
    close(dsc_plus_plus(p, y, gamma=1, valid=valid), plain)
    # So are Tversky's α = β = 1/2, a Focal Tversky's exponent 1, and a Combo without cross-entropy.
    close(tversky(p, y, alpha=0.5, beta=0.5, smooth=5e-6, valid=valid), plain)
    close(focal_tversky(p, y, exponent=1, valid=valid), tversky(p, y, valid=valid))
    close(combo(p, y, alpha=0, valid=valid), plain - 1)
    close(combo(p, y, alpha=0, gamma=2, valid=valid), dsc_plus_plus(p, y, valid=valid) - 1)


def test_an_unsure_error_costs_less_with_a_larger_gamma() -> None:
    p, y = pixels(0.6, 0.2, 0.3, 0.9), pixels(1, 0, 0, 1)
    for loss in (dsc_plus_plus, tversky, focal_tversky):
        costs = [loss(p, y, gamma=gamma).item() for gamma in (0.5, 1.0, 2.0, 5.0)]
        assert costs == sorted(costs, reverse=True)


def test_a_miss_costs_more_than_a_false_alarm() -> None:
    missed, invented = pixels(0, 1, 0, 0), pixels(1, 1, 1, 0)
    y = pixels(1, 1, 0, 0)
    for loss in (tversky, focal_tversky):
        assert loss(missed, y) > loss(invented, y)
        assert loss(missed, y, alpha=0.9, beta=0.1) < loss(invented, y, alpha=0.9, beta=0.1)
