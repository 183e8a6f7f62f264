"""The head: how a network's raw output channels mean foreground classes. Imports no torch.

"sigmoid": C channels, classes may overlap. "softmax": C + 1 channels, background first,
classes exclude each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Head = Literal["sigmoid", "softmax"]


def channels(head: Head, classes: int) -> int:
    """Output channels that a network needs for this many foreground classes."""
    return classes + 1 if head == "softmax" else classes


def foreground(logits: Tensor, head: Head) -> Tensor:
    """Foreground probabilities.

    Args:
        logits: raw network output, float of any width, (B, channels, *S).
        head: what the channels mean.

    Returns:
        p in [0, 1], float32, (B, C, *S). Computed in float32 too: in half precision a
        sigmoid is exactly 1 from a logit of about 9 on, and its gradient is gone.
    """
    if head == "softmax":
        return logits.float().softmax(1)[:, 1:]
    return logits.float().sigmoid()


def labels(p: Tensor, head: Head, thresholds: Sequence[float] | None = None) -> Tensor:
    """One label an element: 0 for background, 1…C for the classes.

    With exclusive classes and no threshold, the largest of all C + 1 probabilities. Else
    the class of largest p among those with p >= T, and background where none passes.

    Args:
        p: foreground probabilities, (B, C, *S).
        head: what they came from; with "softmax" the background's share is 1 - sum(p).
        thresholds: T of each class; None means 0.5 for overlapping classes.

    Returns:
        int64 (B, *S). Ties go to background, then to the earlier class.
    """
    if thresholds is None and head == "softmax":
        best, label = p.max(1)
        return (label + 1).masked_fill(best <= 1 - p.sum(1), 0)
    # In p's own dtype, so that a threshold that was read off p compares equal to it.
    limits = p.new_tensor([0.5] * p.shape[1] if thresholds is None else thresholds)
    passed = p >= limits.view(-1, *[1] * (p.ndim - 2))
    best, label = p.masked_fill(~passed, -1).max(1)
    return (label + 1).masked_fill(best < 0, 0)
