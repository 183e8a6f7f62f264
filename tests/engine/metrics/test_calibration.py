"""Brier, NLL, ECE and their bins: by hand, pixel by pixel, against torch's losses, at the bins' edges."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import InputError
from engine.metrics import Bins, brier, categorical_nll, ece, expected_error, nll, reliability

SHAPES = [(2, 1, 6, 9), (1, 3, 7, 5), (2, 2, 3, 4, 5)]
SCORES = [brier, nll, ece]


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """p in float64, truth that follows it half of the time, valid pixels."""
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, generator=draw, dtype=torch.float64)
    y = torch.rand(shape, generator=draw) < (p + 0.3) / 2
    return p, y, torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7


def pixels(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)[None, None]


def test_by_hand() -> None:
    p, y = pixels(0.9, 0.2, 0.6, 0.05), pixels(1, 0, 0, 0)
    assert brier(p, y).item() == pytest.approx((0.01 + 0.04 + 0.36 + 0.0025) / 4)
    assert nll(p, y).item() == pytest.approx(-(math.log(0.9 * 0.8 * 0.4 * 0.95)) / 4)
    # Each pixel has a bin of its own.
    assert ece(p, y).item() == pytest.approx((0.1 + 0.2 + 0.6 + 0.05) / 4)
    # In two bins: 0.9 and 0.6 with one of two true, 0.2 and 0.05 with none.
    assert ece(p, y, bins=2).item() == pytest.approx((abs(1.5 - 1) + 0.25) / 4)
    made = reliability(p, y, bins=2)
    assert [field.flatten().tolist() for field in made] == [[2, 2], [0.25, 1.5], [0, 1]]


def test_a_wrong_certainty_costs_what_the_clip_allows() -> None:
    for dtype in (torch.float32, torch.float64):
        wrong = -math.log(1e-7)
        assert nll(pixels(0, 1, dtype=dtype), pixels(1, 0)).item() == pytest.approx(wrong)
        assert nll(pixels(0, 1, dtype=dtype), pixels(0, 1)).item() == 0
        assert categorical_nll(pixels(0, 1, dtype=dtype), pixels(1, 0)).item() == pytest.approx(wrong)
    # p and 1 - p are clipped apart: a p that near to 1 is left as it is.
    near = 1 - 2.0**-23
    assert nll(pixels(near, dtype=torch.float32), pixels(1)).item() == pytest.approx(
        -math.log(near), rel=1e-9
    )
    assert nll(pixels(near, dtype=torch.float32), pixels(0)).item() == pytest.approx(
        23 * math.log(2), rel=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [1, 10, 15, 49])
def test_bins_are_closed_at_the_left_in_every_type(bins: int, dtype: torch.dtype) -> None:
    edges = torch.tensor([k / bins for k in range(bins + 1)], dtype=dtype)
    p = torch.cat([edges, edges[1:].nextafter(torch.zeros((), dtype=dtype))])[None, None]
    made = reliability(p, torch.ones_like(p), bins=bins)
    # Of each bin its left edge and the last number before its right one; of the last bin 1, too.
    expected = torch.full((bins,), 2)
    expected[-1] = 3
    assert torch.equal(made.pixels[0, 0], expected)
    assert torch.equal(made.truth[0, 0], expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_a_loop(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    p, y, valid = sample(shape)
    p = p.to(dtype)
    for b, c in np.ndindex(*shape[:2]):
        chosen = [(float(p[b, c][at]), int(y[b, c][at])) for at in np.ndindex(*shape[2:]) if valid[b, 0][at]]
        squares = [(true - value) ** 2 for value, true in chosen]
        logs = [-math.log(max(value if true else 1 - value, 1e-7)) for value, true in chosen]
        table = np.zeros((15, 3))
        for value, true in chosen:
            table[min(int(value * 15), 14)] += 1, value, true
        used = table[table[:, 0] > 0]
        gap = (used[:, 0] / len(chosen) * abs(used[:, 1] / used[:, 0] - used[:, 2] / used[:, 0])).sum()
        for score, expected in ((brier, np.mean(squares)), (nll, np.mean(logs)), (ece, gap)):
            value = score(p, y, valid=valid)
            assert (value.dtype, value.shape) == (torch.float64, shape[:2])
            assert value[b, c].item() == pytest.approx(expected, rel=1e-12)
        made = reliability(p, y, valid=valid)
        np.testing.assert_allclose(np.stack([field[b, c] for field in made], axis=1), table, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch_losses(shape: tuple[int, ...]) -> None:
    p, y, _ = sample(shape, 3)
    mean = F.binary_cross_entropy(p, y.double(), reduction="none").flatten(2).mean(2)
    torch.testing.assert_close(nll(p, y), mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        brier(p, y), F.mse_loss(p, y.double(), reduction="none").flatten(2).mean(2), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("shape", [(2, 1, 6, 9), (2, 3, 7, 5), (1, 2, 3, 4, 5)])
def test_the_categorical_one_is_cross_entropy(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn((shape[0], shape[1] + 1, *shape[2:]), generator=draw, dtype=torch.float64)
    labels = torch.randint(0, shape[1] + 1, (shape[0], *shape[2:]), generator=draw)
    p = logits.softmax(1)[:, 1:]
    y = F.one_hot(labels, shape[1] + 1).movedim(-1, 1)[:, 1:]
    value = categorical_nll(p, y)
    expected = F.cross_entropy(logits, labels, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    if shape[1] == 1:
        torch.testing.assert_close(value, nll(p, y)[:, 0], rtol=1e-12, atol=0)
    left, cut = torch.zeros(shape[0], 1, *shape[2:], dtype=torch.bool), shape[-1] // 2
    left[..., :cut] = True
    torch.testing.assert_close(
        categorical_nll(p, y, valid=left), categorical_nll(p[..., :cut], y[..., :cut]), rtol=1e-12, atol=0
    )
    assert categorical_nll(p, y, valid=torch.zeros_like(left)).isnan().all()


def test_without_a_valid_pixel_nothing_is_defined() -> None:
    p, y, valid = sample((2, 2, 4, 4))
    valid[1] = False
    for score in SCORES:
        value = score(p, y, valid=valid)
        assert value[0].isfinite().all()
        assert value[1].isnan().all()


def test_what_is_not_valid_may_be_anything() -> None:
    p, y, valid = sample((2, 2, 4, 6))
    for nonsense in (math.nan, math.inf, -3.0):
        wild = torch.where(valid, p, nonsense)
        for score in SCORES:
            torch.testing.assert_close(score(wild, y, valid=valid), score(p, y, valid=valid), rtol=0, atol=0)


def test_what_is_no_probability_and_no_number_of_bins_is_refused() -> None:
    for wrong in (math.nan, -0.1, 1.5):
        with pytest.raises(InputError, match="1 of the probabilities are NaN or outside 0 to 1"):
            ece(pixels(0.3, wrong), pixels(0, 1))
    with pytest.raises(InputError, match="0 bins hold no pixel: 1 or more would work"):
        reliability(pixels(0.3), pixels(0), bins=0)


def test_perfect_probabilities_are_calibrated() -> None:
    """As many pixels of p = k / 10 are true as that says."""
    p = pixels(*(k / 10 for k in range(11) for _ in range(10)))
    y = pixels(*(float(n < k) for k in range(11) for n in range(10)))
    assert ece(p, y).item() == pytest.approx(0, abs=1e-15)
    assert ece(1 - p, y).item() > 0.5
    assert brier(p, y).item() == pytest.approx(np.mean([k * (10 - k) / 100 for k in range(11)]))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), bins=st.integers(1, 20), cut=st.integers(1, 5))
def test_images_pool_crops_agree_and_bounds_hold(seed: int, bins: int, cut: int) -> None:
    p, y, _ = sample((3, 2, 4, 6), seed)
    valid = torch.zeros(3, 1, 4, 6, dtype=torch.bool)
    valid[..., :cut] = True
    for score in SCORES:
        torch.testing.assert_close(
            score(p, y, valid=valid), score(p[..., :cut], y[..., :cut]), rtol=1e-12, atol=1e-15
        )
    made = reliability(p, y, bins=bins, valid=valid)
    assert (made.pixels.sum(-1) == 4 * cut).all()
    assert (made.truth <= made.pixels).all()
    # One long image of all three is their sum.
    together = reliability(
        p.movedim(0, 2).reshape(1, 2, -1), y.movedim(0, 2).reshape(1, 2, -1), bins=bins,
        valid=valid.movedim(0, 2).reshape(1, 1, -1),
    )  # fmt: skip
    pooled = Bins(*(field.sum(0, keepdim=True) for field in made))
    for a, b in zip(together, pooled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    single, parts = expected_error(pooled)[0], ece(p, y, bins=bins, valid=valid)
    assert (single <= parts.mean(0) + 1e-12).all()  # the pool can only cancel
    assert ((parts >= 0) & (parts <= 1)).all()
    # Cancelling within a bin can only lower the error of one bin for all.
    assert (ece(p, y, bins=1, valid=valid) <= parts + 1e-12).all()
