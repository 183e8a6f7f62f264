"""The objective: what each term is given, weights, and which heads a loss refuses."""

import pytest
import torch
from torch import Tensor

from engine.errors import InputError
from engine.head import Head, foreground
from engine.losses import specs
from engine.losses.objective import build
from engine.losses.overlap import dice
from engine.losses.pixelwise import binary_cross_entropy, cross_entropy, label_map
from engine.losses.sensitivity import elevated_sensitivity


def sample(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels in 0…3 and valid pixels of two images."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn((2, channels, 6, 7), generator=draw)
    labels = torch.randint(0, 4, (2, 6, 7), generator=draw)
    valid = torch.rand((2, 1, 6, 7), generator=draw) < 0.7
    return logits, labels, valid


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return torch.stack([labels == c for c in range(1, classes + 1)], 1)


def test_exclusive_classes() -> None:
    logits, labels, valid = sample(4)
    y = one_hot(labels, 3)
    p = foreground(logits, "softmax")
    loss = build(specs.DiceCrossEntropy(dice_weight=0.5, ce_weight=2), "softmax", 3)(logits, y, valid)
    by_hand = 0.5 * dice(p, y, valid=valid).mean() + 2 * cross_entropy(logits, labels, valid=valid)
    torch.testing.assert_close(loss, by_hand)


def test_overlapping_classes() -> None:
    logits, labels, valid = sample(3)
    y = one_hot(labels, 3)
    y[:, 0] |= y[:, 1]
    p = logits.sigmoid()
    loss = build(specs.DiceBinaryCrossEntropy(), "sigmoid", 3)(logits, y, valid)
    by_hand = dice(p, y, valid=valid).mean() + binary_cross_entropy(logits, y, valid=valid)
    torch.testing.assert_close(loss, by_hand)


def test_one_class_means_binary() -> None:
    logits, labels, valid = sample(1)
    y = one_hot(labels, 1)
    loss = build(specs.CrossEntropy(), "sigmoid", 1)(logits, y, valid)
    torch.testing.assert_close(loss, binary_cross_entropy(logits, y, valid=valid))


def test_a_single_loss() -> None:
    logits, labels, _ = sample(3)
    y = one_hot(labels, 3)
    loss = build(specs.ElevatedSensitivity(), "sigmoid", 3)(logits, y, None)
    torch.testing.assert_close(loss, elevated_sensitivity(logits.sigmoid(), y).mean())


def test_nan_outside_the_field_of_view_has_no_gradient() -> None:
    """Through the head as well, whose own gradient at NaN is NaN."""
    logits, labels, valid = sample(4)
    dirty = torch.where(valid, logits, torch.nan).requires_grad_()
    build(specs.DiceCrossEntropy(), "softmax", 3)(dirty, one_hot(labels, 3), valid).backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()


@pytest.mark.parametrize(
    ("part", "head", "words"),
    [
        (specs.BinaryCrossEntropy(), "softmax", ["'binary_cross_entropy'", "sigmoid", "'dice_ce'"]),
        (specs.DiceBinaryCrossEntropy(), "softmax", ["'dice_bce'", "sigmoid"]),
        (specs.CrossEntropy(), "sigmoid", ["'cross_entropy'", "2 classes", "'dice_bce'", "softmax"]),
        (specs.DiceCrossEntropy(), "sigmoid", ["'dice_ce'", "'dice_bce'"]),
    ],
)
def test_a_head_that_cannot_work_is_refused(part: specs.LossPart, head: Head, words: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        build(part, head, 2)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize("space", [(5, 6), (2, 3, 4)])
def test_label_map_undoes_one_hot(space: tuple[int, ...]) -> None:
    labels = torch.randint(0, 4, (2, *space), generator=torch.Generator().manual_seed(1))
    assert torch.equal(label_map(one_hot(labels, 3)), labels)
    assert torch.equal(label_map(one_hot(labels, 3).float()), labels)
    assert label_map(one_hot(labels, 3)).dtype == torch.int64
