"""Losses and metrics against MONAI's, where the two define the same thing."""

import pytest
import torch
from monai.losses import DiceLoss
from monai.metrics import ConfusionMatrixMetric, DiceMetric

from engine import metrics
from engine.losses.overlap import dice

SHAPES = [(2, 1, 17, 23), (3, 4, 16, 8), (2, 2, 7, 9, 11)]


@pytest.mark.parametrize("shape", SHAPES)
def test_dice_loss(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(shape, generator=generator)
    y = (torch.rand(shape, generator=generator) < 0.3).float()
    theirs = DiceLoss(reduction="none", smooth_nr=1e-5, smooth_dr=1e-5)(p, y).flatten(2)[..., 0]
    torch.testing.assert_close(dice(p, y), theirs)


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
