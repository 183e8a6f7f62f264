"""Cross-entropies and focal loss: by hand, a plain loop, extreme logits, gradients, valid pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.losses.pixelwise import binary_cross_entropy, cross_entropy, focal

SPACES = [(5, 7), (3, 4, 5)]


def sample(channels: int, space: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, masks, labels and valid pixels of two images."""
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((2, channels, *space), generator=draw)
    y = torch.rand((2, channels, *space), generator=draw) < 0.4
    labels = torch.randint(0, max(channels, 2), (2, *space), generator=draw)
    valid = torch.rand((2, 1, *space), generator=draw) < 0.7
    return logits, y, labels, valid


def test_by_hand() -> None:
    # One pixel of three even classes, one where the truth has p = 1/2 of three (2, 1, 1).
    logits = torch.tensor([[0.0, math.log(2)], [0.0, 0.0], [0.0, 0.0]]).view(1, 3, 1, 2)
    labels = torch.tensor([[[2, 0]]])
    assert cross_entropy(logits, labels).item() == pytest.approx((math.log(3) + math.log(2)) / 2)
    # sigmoid(ln 3) = 3/4: found costs ln 4/3, a false alarm ln 4.
    logits = torch.full((1, 1, 1, 2), math.log(3))
    y = torch.tensor([[[[1.0, 0.0]]]])
    assert binary_cross_entropy(logits, y).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


@pytest.mark.parametrize("space", SPACES)
def test_categorical_agrees_with_a_loop(space: tuple[int, ...]) -> None:
    logits, _, labels, valid = sample(4, space)
    costs = []
    for b, *at in np.argwhere(valid[:, 0].numpy()):
        scores = logits[(b, slice(None), *at)].double().numpy()
        costs.append(np.log(np.exp(scores).sum()) - scores[labels[(b, *at)]])
    loss = cross_entropy(logits, labels, valid=valid)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.mean(costs), rel=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_binary_agrees_with_a_loop(space: tuple[int, ...]) -> None:
    logits, y, _, valid = sample(3, space)
    costs = []
    for b, c, *at in np.argwhere(valid.expand_as(y).numpy()):
        p = 1 / (1 + math.exp(-logits[(b, c, *at)]))
        costs.append(-math.log(p if y[(b, c, *at)] else 1 - p))
    assert binary_cross_entropy(logits, y, valid=valid).item() == pytest.approx(np.mean(costs), rel=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_one_channel_means_binary(space: tuple[int, ...]) -> None:
    logits, _, labels, valid = sample(1, space)
    binary = binary_cross_entropy(logits, labels.unsqueeze(1), valid=valid)
    torch.testing.assert_close(cross_entropy(logits, labels, valid=valid), binary)
    # … which is the categorical one of two channels whose logits differ as much.
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(cross_entropy(pair, labels, valid=valid), binary)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([3e4, -3e4], dtype=dtype).view(1, 1, 1, 2).requires_grad_()
    right, wrong = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert binary_cross_entropy(logits, right).item() == 0
        loss = binary_cross_entropy(logits, wrong)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(3e4, rel=0.01)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gradients() -> None:
    logits, y, labels, valid = sample(3, (3, 3))
    logits = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: binary_cross_entropy(x, y, valid=valid), (logits,))
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels, valid=valid), (logits,))


def test_garbage_outside_the_field_of_view_adds_nothing() -> None:
    logits, y, labels, valid = sample(3, (5, 5))
    dirty = torch.where(valid, logits, torch.nan).requires_grad_()
    strange = torch.where(valid[:, 0], labels, 255)
    categorical = cross_entropy(dirty, strange, valid=valid)
    torch.testing.assert_close(categorical, cross_entropy(logits, labels, valid=valid))
    binary = binary_cross_entropy(dirty, torch.where(valid, y.float(), torch.nan), valid=valid)
    torch.testing.assert_close(binary, binary_cross_entropy(logits, y, valid=valid))
    (categorical + binary).backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()


def test_no_valid_pixel_costs_nothing() -> None:
    logits, y, labels, valid = sample(3, (5, 5))
    logits.requires_grad_()
    nowhere = torch.zeros_like(valid)
    loss = cross_entropy(logits, labels, valid=nowhere) + binary_cross_entropy(logits, y, valid=nowhere)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 6), classes=st.permutations([0, 1, 2]))
def test_crop_permutation_and_depth(seed: int, cut: int, classes: list[int]) -> None:
    logits, y, labels, _ = sample(3, (4, 7), seed)
    valid = torch.zeros(2, 1, 4, 7, dtype=torch.bool)
    valid[..., :cut] = True
    close = torch.testing.assert_close
    close(cross_entropy(logits, labels, valid=valid), cross_entropy(logits[..., :cut], labels[..., :cut]))
    close(binary_cross_entropy(logits, y, valid=valid), binary_cross_entropy(logits[..., :cut], y[..., :cut]))
    close(binary_cross_entropy(logits[:, classes], y[:, classes]), binary_cross_entropy(logits, y))
    renamed = torch.tensor(classes).argsort()[labels]
    close(cross_entropy(logits[:, classes], renamed), cross_entropy(logits, labels))
    close(cross_entropy(logits.unsqueeze(2), labels.unsqueeze(1)), cross_entropy(logits, labels))


# Focal loss


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return torch.stack([labels == c for c in range(1, classes + 1)], 1)


def test_focal_by_hand() -> None:
    # sigmoid(ln 3) = 3/4: found with p_t = 3/4, a false alarm with p_t = 1/4.
    logits = torch.full((1, 1, 1, 2), math.log(3))
    y = torch.tensor([[[[1.0, 0.0]]]])
    found, alarm = 0.25**2 * math.log(4 / 3), 0.75**2 * math.log(4)
    assert focal(logits, y).item() == pytest.approx((found + alarm) / 2)
    assert focal(logits, y, alpha=0.8).item() == pytest.approx((0.8 * found + 0.2 * alarm) / 2)
    root = 0.25**0.5 * math.log(4 / 3) + 0.75**0.5 * math.log(4)
    assert focal(logits, y, gamma=0.5).item() == pytest.approx(root / 2)
    # Exclusive: background with p_t = 1/3 of three, the second class with p_t = 1/2 of (1, 1, 2).
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, math.log(2)]]).view(1, 3, 1, 2)
    y = torch.tensor([[0.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    empty, found = (2 / 3) ** 2 * math.log(3), 0.5**2 * math.log(2)
    assert focal(logits, y).item() == pytest.approx((empty + found) / 2)
    assert focal(logits, y, alpha=0.8).item() == pytest.approx((0.2 * empty + 0.8 * found) / 2)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.7])
def test_focal_agrees_with_a_loop(space: tuple[int, ...], gamma: float, alpha: float | None) -> None:
    logits, y, labels, valid = sample(3, space)
    fore, back = (1, 1) if alpha is None else (alpha, 1 - alpha)
    costs = []
    for b, c, *at in np.argwhere(valid.expand_as(y).numpy()):
        p = 1 / (1 + math.exp(-logits[(b, c, *at)].double()))
        p, weight = (p, fore) if y[(b, c, *at)] else (1 - p, back)
        costs.append(-weight * (1 - p) ** gamma * math.log(p))
    classwise = focal(logits.double(), y, gamma=gamma, alpha=alpha, valid=valid)
    assert classwise.item() == pytest.approx(np.mean(costs), rel=1e-9)
    costs = []
    for b, *at in np.argwhere(valid[:, 0].numpy()):
        scores = logits[(b, slice(None), *at)].double()
        label = labels[(b, *at)]
        p = scores.softmax(0)[label].item()
        costs.append(-(fore if label else back) * (1 - p) ** gamma * math.log(p))
    categorical = focal(logits.double(), one_hot(labels, 2), gamma=gamma, alpha=alpha, valid=valid)
    assert categorical.item() == pytest.approx(np.mean(costs), rel=1e-9)


@pytest.mark.parametrize("space", SPACES)
def test_focal_without_gamma_is_cross_entropy(space: tuple[int, ...]) -> None:
    logits, y, labels, valid = sample(3, space)
    close = torch.testing.assert_close
    close(focal(logits, y, gamma=0, valid=valid), binary_cross_entropy(logits, y, valid=valid))
    exclusive = one_hot(labels, 2)
    close(focal(logits, exclusive, gamma=0, valid=valid), cross_entropy(logits, labels, valid=valid))


@pytest.mark.parametrize("space", SPACES)
def test_focal_of_one_class_is_the_same_under_both_heads(space: tuple[int, ...]) -> None:
    logits, y, _, valid = sample(1, space)
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(
        focal(pair, y, valid=valid, alpha=0.3), focal(logits, y, valid=valid, alpha=0.3)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_focal_of_extreme_logits(dtype: torch.dtype, gamma: float) -> None:
    right, wrong = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    for classes in (1, 2):
        logits = torch.tensor([3e4, -3e4], dtype=dtype).view(1, 1, 1, 2)
        logits = torch.cat([torch.zeros_like(logits)] * (classes - 1) + [logits], 1).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert focal(logits, right, gamma=gamma).item() == 0
            loss = focal(logits, wrong, gamma=gamma)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(3e4, rel=0.01)
        (loss + focal(logits, right, gamma=gamma)).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_s_gradient(gamma: float) -> None:
    logits, y, labels, valid = sample(3, (3, 3))
    logits = logits.double().requires_grad_()
    exclusive = one_hot(labels, 2)
    for truth in (y, exclusive):
        assert torch.autograd.gradcheck(
            lambda x, truth=truth: focal(x, truth, gamma=gamma, alpha=0.3, valid=valid), (logits,)
        )


def test_focal_skips_what_is_not_valid() -> None:
    logits, y, labels, valid = sample(3, (5, 5))
    dirty = torch.where(valid, logits, torch.nan).requires_grad_()
    nowhere = torch.zeros_like(valid)
    for truth in (y, one_hot(labels, 2)):
        loss = focal(dirty, torch.where(valid, truth.float(), torch.nan), alpha=0.3, valid=valid)
        torch.testing.assert_close(loss, focal(logits, truth, alpha=0.3, valid=valid))
        torch.testing.assert_close(
            focal(logits[..., :3], truth[..., :3]),
            focal(logits, truth, valid=(torch.arange(5) < 3).expand_as(valid)),
        )
        empty = focal(dirty, truth, valid=nowhere)
        assert empty.item() == 0
        (loss + empty).backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()


def test_focal_refuses_other_channels() -> None:
    with pytest.raises(ValueError, match="2 masks need as many logits or one more, but there are 4"):
        focal(torch.zeros(1, 4, 3, 3), torch.zeros(1, 2, 3, 3))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
@pytest.mark.parametrize("channels", [1, 2])
def test_labels_may_be_of_any_integer_type(dtype: torch.dtype, channels: int) -> None:
    logits = torch.randn((2, channels, 4, 5), generator=torch.Generator().manual_seed(3))
    labels = torch.randint(0, 2, (2, 4, 5), generator=torch.Generator().manual_seed(4))
    assert cross_entropy(logits, labels.to(dtype)) == cross_entropy(logits, labels)
