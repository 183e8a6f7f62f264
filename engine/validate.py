"""Scores of the validation images after an epoch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from engine import metrics
from engine.bits import Window
from engine.data.images import Images
from engine.data.store import Frames
from engine.head import foreground
from engine.losses.guides import Guides
from engine.losses.masked import apart
from engine.prepare import Prepared
from engine.record import Progress


@dataclass(frozen=True)
class Validation:
    """Scores of the validation images after an epoch.

    Attributes:
        loss: the configured loss on the original masks, with the weights of the epoch; mean over images.
        dice, recall, precision: of each class, mean over the images where it is defined, else NaN.
        skipped: for each class, images whose Dice is not defined.
    """

    loss: float
    dice: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    skipped: tuple[int, ...]

    @property
    def score(self) -> float:
        """Mean foreground Dice, by which the best checkpoint is chosen; NaN if no class has one."""
        defined = [value for value in self.dice if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan


def validate(ready: Prepared, progress: Progress) -> Validation | None:
    """Score the validation images, each in its own frame, at the threshold 0.5 of every class.

    Each process scores those that it has; all get the scores of all.

    Returns:
        None if ``progress.stop`` was set meanwhile.
    """
    ranks, images = ready.ranks, ready.validated
    # Of each image its loss, and how many parts that is the sum of: a large one comes in several.
    losses = torch.zeros((2, images), device=ready.device)
    total = torch.zeros((4, images, len(ready.dataset.classes.names)), dtype=torch.int64, device=ready.device)
    for frames in whole(ready.val, ready) if ready.val is not None else ():
        if progress.stop:
            break
        numbers = ranks.numbers(frames.window.ids).to(ready.device)
        logits = ready.predictor.logits(frames.image)
        prediction = foreground(logits, ready.predictor.head) >= 0.5
        counts = torch.stack(metrics.confusion(prediction, frames.truth, valid=frames.valid))
        total.index_add_(1, numbers, counts)
        guides = Guides(frames.tube, frames.distance, progress.epoch)
        with apart():
            loss = ready.objective(logits, frames.truth, frames.valid, guides)
        losses.index_add_(1, numbers, torch.stack([loss, torch.ones_like(loss)]))
    if ranks.any(progress.stop):
        return None
    loss, parts = ranks.sum(losses.cpu())
    count = metrics.Confusion(*ranks.sum(total.cpu()))
    dice = metrics.dice(count)
    return Validation(
        loss=float((loss / parts).mean()),
        dice=tuple(dice.nanmean(dim=0).tolist()),
        recall=tuple(metrics.recall(count).nanmean(dim=0).tolist()),
        precision=tuple(metrics.precision(count).nanmean(dim=0).tolist()),
        skipped=tuple(dice.isnan().sum(dim=0).tolist()),
    )


def whole(images: Images, ready: Prepared) -> Iterator[Frames]:
    """All images, in whole frames or in windows side by side, batch by batch, not augmented."""
    # No more pixels at once than in a training step, so that memory stays what training needs.
    most = ready.loader.batch // ready.ranks.size * math.prod(ready.loader.size)
    for batch in images.batches(ready.loader.batch // ready.ranks.size):
        fitting = max(1, most // math.prod(batch.size))
        for start in range(0, len(batch.ids), fitting):
            part = slice(start, start + fitting)
            ids = batch.ids[part]
            yield images.read(
                Window(ids, batch.corner[part], batch.size), torch.zeros_like(ids), ready.device
            )
