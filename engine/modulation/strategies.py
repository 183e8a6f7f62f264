"""Strategies: what the loss sees in each epoch, and what becomes of the model's misses.

A strategy is told of every batch (`target`, `loss`, `count`, `record`) and of every epoch
(`begin`, `end`). Masks that it keeps live in the images' own frames, one bit per pixel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.bits import PackedMasks, Window
from engine.modulation.dilation import dilate
from engine.modulation.recall_trend import recall_slope, starting_threshold, threshold, warmup_epochs
from engine.ranks import ALONE, Ranks

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Loss of (logits, masks, valid)."""

QUEUE = 15
"""Recalls in the slope that strategies without a decision report."""


@dataclass(frozen=True)
class Trend:
    """How the misses stand after an epoch.

    Attributes:
        recall: over all training pixels visited in the epoch, foreground classes pooled; NaN without any.
        slope: β of the latest recalls, NaN where it is not defined.
        gamma: γ that β was held against, NaN where there is none.
        updated: whether the masks that the next epoch sees were rebuilt.
        warmup: whether the epoch belonged to the warm-up.
        added: for each class, pixels that the loss saw as foreground beyond the truth.
        warning: a sentence for the user, or "".
    """

    recall: float
    slope: float
    gamma: float
    updated: bool
    warmup: bool
    added: tuple[int, ...]
    warning: str = ""


class NoModulation:
    """Plain training; recall and its slope are measured all the same.

    Args:
        epochs: E, the configured number.
        shapes: int64 (N, D) frame shapes of the training images.
        classes: C.
        device: where masks and counts are kept.
        revisits: whether an image can be visited more than once in an epoch (crops).
        folder: where masks are kept in files, None for memory; see :class:`engine.bits.PackedMasks`.
        ranks: the processes that train together, each with its part of the images. What is counted is counted
            over all, so that all decide alike.
    """

    records = False
    """Whether misses are to be recorded."""

    def __init__(
        self, *, epochs: int, shapes: Tensor, classes: int, device: torch.device, revisits: bool = False,
        folder: Path | None = None, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        self.epochs, self.classes, self.device, self.ranks = epochs, classes, device, ranks
        self.warmup, self.queue = 0, QUEUE
        self.epoch = 0
        self.recalls: list[float] = []
        self.slopes: list[float] = []
        self._hits = torch.zeros(2, dtype=torch.int64, device=device)
        self._added = torch.zeros(classes, dtype=torch.int64, device=device)

    def begin(self, epoch: int) -> None:
        """Start epoch 1…E."""
        self.epoch = epoch
        self._hits.zero_()
        self._added.zero_()

    def target(self, window: Window, truth: Tensor, valid: Tensor | None) -> Tensor | None:
        """Modulated masks bool (B, C, *S) in the images' own frame, or None where they are the truth."""
        return None

    def seen(self, grown: Tensor, truth: Tensor) -> None:
        """Count the pixels that the loss sees beyond the truth in this batch."""
        added = (grown & ~truth).flatten(2).sum(2).sum(0)
        self._added = self._added.to(added.device) + added

    def loss(
        self, plain: Objective, elevated: Objective, logits: Tensor, truth: Tensor, grown: Tensor | None,
        valid: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Scalar loss, given the configured objective and the Elevated Sensitivity Loss."""
        return plain(logits, truth, valid)

    def count(self, prediction: Tensor, truth: Tensor, valid: Tensor | None) -> None:
        """Add bool (B, C, *S) predictions to the epoch's recall."""
        positive = truth if valid is None else truth & valid
        # Counted where the batch is, which need not be where the masks are kept.
        hits = torch.stack([(positive & prediction).sum(), positive.sum()])
        self._hits = self._hits.to(hits.device) + hits

    def record(self, window: Window, misses: Tensor) -> None:
        """Keep this batch's misses, bool (B, C, *S) in the images' own frame."""

    def end(self) -> Trend:
        """Close the epoch and decide about the masks."""
        hit, positive, *added = self.ranks.sum(torch.cat([self._hits.cpu(), self._added.cpu()])).tolist()
        self.recalls.append(hit / positive if positive else nan)
        self.slopes.append(recall_slope(self.recalls[-self.queue :]))
        gamma, updated, warning = self._decide()
        return Trend(
            recall=self.recalls[-1],
            slope=self.slopes[-1],
            gamma=gamma,
            updated=updated,
            warmup=self.epoch <= self.warmup,
            added=tuple(added),
            warning=warning,
        )

    def _decide(self) -> tuple[float, bool, str]:
        return nan, False, ""

    def take_up(self, shapes: Tensor, changed: Sequence[int], revisits: bool) -> None:
        """Take note that the truth of images has changed, or that others have joined, before an epoch begins.

        Misses of another truth mean nothing: those images start without. Recall and its slope go on.

        Args:
            shapes: int64 (N', D) frame shapes of all training images, new ones last.
            changed: those whose truth is another.
            revisits: as of the constructor.
        """

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, for a checkpoint: masks themselves, not copies."""
        return {"recalls": list(self.recalls), "slopes": list(self.slopes)}

    @property
    def disk_bytes(self) -> int:
        """Bytes of the files that masks are kept in, at their largest."""
        return 0

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`, whose masks are taken over, not copied, but for those kept in files."""
        self.recalls, self.slopes = list(state["recalls"]), list(state["slopes"])


class _Modulated(NoModulation):
    """What SMM v1 and v2 share: misses in packed masks, grown when they are read.

    `threshold` and `source` say what a prediction is; whoever predicts has applied them.
    """

    records = True

    def __init__(
        self, *, epochs: int, shapes: Tensor, classes: int, device: torch.device, revisits: bool = False,
        folder: Path | None = None, ranks: Ranks = ALONE, warmup: float, radius: int, threshold: float,
        source: str,
    ) -> None:  # fmt: skip
        super().__init__(
            epochs=epochs, shapes=shapes, classes=classes, device=device, revisits=revisits, folder=folder,
            ranks=ranks,
        )  # fmt: skip
        self.warmup = warmup_epochs(epochs, warmup)
        self.radius = radius
        self.observed = PackedMasks(shapes, classes, device, folder=folder)
        self.in_force = self.observed

    def _grow(self, window: Window, truth: Tensor, valid: Tensor | None) -> Tensor:
        around = self.in_force.read(window, halo=self.radius).to(truth.device)
        around = dilate(around, self.radius)
        for axis in range(2, around.ndim):
            around = around.narrow(axis, self.radius, truth.shape[axis])
        return truth | (around if valid is None else around & valid)

    def record(self, window: Window, misses: Tensor) -> None:
        self.observed.write(window, misses)

    def take_up(self, shapes: Tensor, changed: Sequence[int], revisits: bool) -> None:
        shared = self.in_force is self.observed
        self.observed = anew(self.observed, shapes, changed)
        self.in_force = self.observed if shared else anew(self.in_force, shapes, changed)

    @property
    def disk_bytes(self) -> int:
        kept = (self.observed,) if self.in_force is self.observed else (self.observed, self.in_force)
        return sum(masks.disk_bytes for masks in kept)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "observed": self.observed.bits}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.observed.take(state["observed"])


class SMMv1(_Modulated):
    """Supervised Mask Modulation v1 (SMM paper, Alg. 2).

    After the warm-up the loss on the truth is joined by `weight` times the Elevated Sensitivity
    Loss on masks rebuilt from the misses of the epoch before; in epoch W+1 these masks are the truth.
    One bit per pixel is kept, or two where an image can be visited more than once in an epoch.
    """

    def __init__(self, *, weight: float, shapes: Tensor, revisits: bool = False, **common: Any) -> None:
        super().__init__(shapes=shapes, revisits=revisits, **common)
        self.weight = weight
        if revisits:
            self.in_force = self.observed.empty_like()

    def target(self, window: Window, truth: Tensor, valid: Tensor | None) -> Tensor | None:
        if self.epoch <= self.warmup:
            return None
        return truth if self.epoch == self.warmup + 1 else self._grow(window, truth, valid)

    def loss(
        self, plain: Objective, elevated: Objective, logits: Tensor, truth: Tensor, grown: Tensor | None,
        valid: Tensor | None,
    ) -> Tensor:  # fmt: skip
        loss = plain(logits, truth, valid)
        return loss if grown is None else loss + self.weight * elevated(logits, grown, valid)

    def _decide(self) -> tuple[float, bool, str]:
        if self.in_force is not self.observed:
            self.in_force.bits.copy_(self.observed.bits)
        return nan, self.warmup < self.epoch < self.epochs, ""

    def take_up(self, shapes: Tensor, changed: Sequence[int], revisits: bool) -> None:
        super().take_up(shapes, changed, revisits)
        if revisits and self.in_force is self.observed:
            self.in_force = self.observed.copy()

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        if self.in_force is not self.observed:
            self.in_force.bits.copy_(self.observed.bits)


def anew(masks: PackedMasks, shapes: Tensor, changed: Sequence[int]) -> PackedMasks:
    """Misses of images of which some start without any, and new ones too.

    Args:
        masks: of the images so far.
        shapes: int64 (N', D), frames of all images.
        changed: those that start anew.
    """
    count = len(masks.shapes)
    if changed:
        masks = masks.put({number: torch.zeros_like(masks.bits_of(number)) for number in changed})
    return masks.more(shapes[count:]) if len(shapes) > count else masks


class SMMv2(_Modulated):
    """Supervised Mask Modulation v2 (SMM paper, Alg. 3 and 4).

    After each of epochs W+1…E-1 whose recall slope β lies below γ, every mask is rebuilt from
    the truth and this epoch's misses; else all keep what they have. Two bits per pixel: the
    misses in force, and this epoch's, until the decision.
    """

    def __init__(self, *, queue: int, shapes: Tensor, **common: Any) -> None:
        super().__init__(shapes=shapes, **common)
        self.queue = queue
        self.in_force = self.observed.empty_like()
        self.grown = False

    def target(self, window: Window, truth: Tensor, valid: Tensor | None) -> Tensor | None:
        return self._grow(window, truth, valid) if self.grown else None

    def loss(
        self, plain: Objective, elevated: Objective, logits: Tensor, truth: Tensor, grown: Tensor | None,
        valid: Tensor | None,
    ) -> Tensor:  # fmt: skip
        return plain(logits, truth if grown is None else grown, valid)

    def _decide(self) -> tuple[float, bool, str]:
        if self.epoch < self.warmup:
            return nan, False, ""
        start = starting_threshold(self.slopes[: self.warmup])
        warning = ""
        if isnan(start):
            start = 0.0
            if self.epoch == max(self.warmup, 1):
                warning = (
                    f"recall has no slope in the warm-up ({self.warmup} of {self.epochs} epochs), so γ is 0: "
                    "two warm-up epochs that see foreground (more epochs, or a larger modulation.warmup) "
                    "give one."
                )
        gamma = threshold(start, self.epoch, self.epochs, self.warmup)
        # A β that is not defined is not below γ either.
        updated = self.warmup < self.epoch < self.epochs and self.slopes[-1] < gamma
        if updated:
            self.in_force.bits.copy_(self.observed.bits)
            self.grown = True
        return gamma, updated, warning

    def state(self) -> dict[str, Any]:
        return {**super().state(), "in_force": self.in_force.bits, "grown": self.grown}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.in_force.take(state["in_force"])
        self.grown = bool(state["grown"])
