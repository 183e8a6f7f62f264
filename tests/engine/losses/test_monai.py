"""Losses and metrics against MONAI's, where the two define the same thing."""

import pytest
import torch
from monai.losses import DiceFocalLoss, DiceLoss, FocalLoss, TverskyLoss
from monai.metrics import ConfusionMatrixMetric, DiceMetric
from torch import Tensor

from engine import metrics
from engine.losses import specs
from engine.losses.objective import build
from engine.losses.overlap import dice, tversky
from engine.losses.pixelwise import focal

SHAPES = [(2, 1, 17, 23), (3, 4, 16, 8), (2, 2, 7, 9, 11)]


def sample(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=generator), (torch.rand(shape, generator=generator) < 0.3).float()


@pytest.mark.parametrize("shape", SHAPES)
def test_dice_loss(shape: tuple[int, ...]) -> None:
    p, y = sample(shape)
    theirs = DiceLoss(reduction="none", smooth_nr=1e-5, smooth_dr=1e-5)(p, y).flatten(2)[..., 0]
    torch.testing.assert_close(dice(p, y), theirs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (1.0, 0.0)])
def test_tversky_loss(shape: tuple[int, ...], alpha: float, beta: float) -> None:
    p, y = sample(shape)
    reference = TverskyLoss(alpha=alpha, beta=beta, reduction="none", smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(tversky(p, y, alpha=alpha, beta=beta), reference(p, y).view(shape[:2]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [None, 0.7])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss(shape: tuple[int, ...], gamma: float, alpha: float | None) -> None:
    p, y = sample(shape)
    logits = p.logit()
    reference = FocalLoss(gamma=gamma, alpha=alpha)
    torch.testing.assert_close(focal(logits, y, gamma=gamma, alpha=alpha), reference(logits, y))


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_focal_loss_of_exclusive_classes(shape: tuple[int, ...]) -> None:
    """MONAI's mean is over the channels too."""
    p, _ = sample(shape)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=torch.Generator().manual_seed(3))
    reference = FocalLoss(use_softmax=True, to_onehot_y=True)(p, labels) * shape[1]
    y = torch.cat([labels == c for c in range(1, shape[1])], 1)
    torch.testing.assert_close(focal(p, y), reference)


@pytest.mark.parametrize("shape", SHAPES)
def test_dice_focal_loss(shape: tuple[int, ...]) -> None:
    p, y = sample(shape)
    logits = p.logit()
    reference = DiceFocalLoss(sigmoid=True, lambda_dice=0.5, lambda_focal=2.0)(logits, y)
    part = specs.DiceFocal(dice_weight=0.5, focal_weight=2.0)
    torch.testing.assert_close(build(part, "sigmoid", shape[1])(logits, y), reference)


@pytest.mark.parametrize("shape", SHAPES)
def test_overlap_metrics(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    prediction, truth = (torch.rand(shape, generator=generator) < share for share in (0.4, 0.3))
    count = metrics.confusion(prediction, truth)
    theirs = DiceMetric(include_background=True, reduction="none")(prediction.float(), truth.float())
    torch.testing.assert_close(metrics.dice(count).float(), theirs)
    names = ["sensitivity", "precision", "false negative rate", "false positive rate"]
    confusion = ConfusionMatrixMetric(metric_name=names, compute_sample=True, reduction="none")
    confusion(prediction.float(), truth.float())
    ours = [metrics.recall, metrics.precision, metrics.fnr, metrics.fpr]
    for metric, value in zip(ours, confusion.aggregate(), strict=True):
        torch.testing.assert_close(metric(count).float(), value)
