"""The objective: what each term is given, weights, and which heads a loss refuses."""

import pytest
import torch
from torch import Tensor

from engine.errors import InputError
from engine.head import Head, foreground
from engine.losses import specs
from engine.losses.boundary import boundary
from engine.losses.guides import Guides
from engine.losses.objective import build
from engine.losses.overlap import dice
from engine.losses.pixelwise import binary_cross_entropy, cross_entropy, focal, label_map
from engine.losses.sensitivity import elevated_sensitivity
from engine.losses.topology import skeleton_recall, soft_cldice


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


def maps(classes: int, epoch: int = 1) -> Guides:
    draw = torch.Generator().manual_seed(1)
    tube = torch.rand((2, classes, 6, 7), generator=draw) < 0.2
    return Guides(tube, torch.randn((2, classes, 6, 7), generator=draw), epoch)


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_skeleton_recall_joins_dice_and_the_head_s_cross_entropy(head: Head) -> None:
    logits, labels, valid = sample(4 if head == "softmax" else 3)
    y, given = one_hot(labels, 3), maps(3)
    assert given.tube is not None
    p = foreground(logits, head)
    part = specs.SkeletonRecall(dice_weight=0.5, ce_weight=2, weight=3)
    loss = build(part, head, 3)(logits, y, valid, given)
    nats = (
        cross_entropy(logits, labels, valid=valid)
        if head == "softmax"
        else binary_cross_entropy(logits, y, valid=valid)
    )
    recall = skeleton_recall(p, given.tube, valid=valid).mean()
    torch.testing.assert_close(loss, 0.5 * dice(p, y, valid=valid).mean() + 2 * nats + 3 * recall)


@pytest.mark.parametrize(
    ("schedule", "epoch", "share"),
    [
        ("constant", 1, None),
        ("constant", 60, None),
        ("rebalance", 1, 0.99),
        ("rebalance", 60, 0.4),
        ("rebalance", 99, 0.01),
        ("rebalance", 500, 0.01),
    ],
)
def test_the_boundary_s_weight_follows_the_epoch(schedule: str, epoch: int, share: float | None) -> None:
    logits, labels, valid = sample(3)
    y, given = one_hot(labels, 3), maps(3, epoch)
    assert given.distance is not None
    p = logits.sigmoid()
    region = dice(p, y, valid=valid).mean() + binary_cross_entropy(logits, y, valid=valid)
    edge = 2 * boundary(p, given.distance, valid=valid).mean()
    part = specs.Boundary.model_validate({"schedule": schedule, "weight": 2})
    loss = build(part, "sigmoid", 3)(logits, y, valid, given)
    expected = region + edge if share is None else share * region + (1 - share) * edge
    torch.testing.assert_close(loss, expected)


def test_cldice_comes_with_dice() -> None:
    logits, labels, valid = sample(3)
    y, p = one_hot(labels, 3), logits.sigmoid()
    loss = build(specs.CLDice(), "sigmoid", 3)(logits, y, valid)
    parts = dice(p, y, valid=valid).mean(), soft_cldice(p, y, valid=valid).mean()
    torch.testing.assert_close(loss, (parts[0] + parts[1]) / 2)
    loss = build(specs.CLDice(weight=0.2, iterations=1, smooth=2), "sigmoid", 3)(logits, y, valid)
    thin = soft_cldice(p, y, iterations=1, smooth=2, valid=valid).mean()
    torch.testing.assert_close(loss, 0.8 * parts[0] + 0.2 * thin)
    with pytest.raises(ValueError, match="less than 1"):
        specs.CLDice(weight=1)


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_focal_takes_either_head(head: Head) -> None:
    logits, labels, valid = sample(4 if head == "softmax" else 3)
    y = one_hot(labels, 3)
    p = foreground(logits, head)
    part = specs.DiceFocal(gamma=1, alpha=0.3, focal_weight=4)
    loss = build(part, head, 3)(logits, y, valid)
    hard = focal(logits, y, gamma=1, alpha=0.3, valid=valid)
    torch.testing.assert_close(loss, dice(p, y, valid=valid).mean() + 4 * hard)


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
        (
            specs.CrossEntropy(),
            "sigmoid",
            ["'cross_entropy'", "2 classes", "'dice_bce'", "softmax"],
        ),
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
    assert torch.equal(label_map(one_hot(labels, 3)).long(), labels)
    assert torch.equal(label_map(one_hot(labels, 3).float()).long(), labels)


def test_a_label_map_has_room_for_every_class() -> None:
    labels = torch.tensor([[255, 256, 0, 300]])
    assert torch.equal(label_map(one_hot(labels, 300)).long(), labels)
    assert label_map(one_hot(labels, 255)).dtype == torch.uint8
