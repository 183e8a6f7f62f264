"""Losses that are a mean over pixels. They work from logits, and so need no clipped logarithm."""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.losses.masked import masked, mean


def cross_entropy(logits: Tensor, labels: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Categorical cross-entropy in nats, or the binary one if there is only one channel.

    Args:
        logits: (B, C + 1, *S), background first, or (B, 1, *S): one class against background.
        labels: int64 in 0…C, (B, *S); any value where not valid.
        valid: bool (B, 1, *S); the mean is over True, all images of the batch together.

    Returns:
        Scalar >= 0, float32 (float64 if logits are); 0 where no pixel is valid.
    """
    if logits.shape[1] == 1:
        return binary_cross_entropy(logits, labels.unsqueeze(1), valid=valid)
    if valid is not None:
        labels = torch.where(valid.squeeze(1), labels, 0)
    # Reduced by hand: torch's own reduction has no deterministic version on a GPU.
    loss = F.cross_entropy(masked(logits, valid), labels, reduction="none")
    return mean(masked(loss.unsqueeze(1), valid), valid)


def binary_cross_entropy(logits: Tensor, y: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each class against all else, in nats.

    Args:
        logits: (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        valid: bool (B, 1, *S); the mean is over True, all images and classes together.

    Returns:
        Scalar >= 0, float32 (float64 if logits are); 0 where no pixel is valid.
    """
    logits = masked(logits, valid)
    y = masked(y, valid).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return mean(masked(loss, valid), valid)


def label_map(y: Tensor) -> Tensor:
    """Label map of exclusive masks, (B, C, *S) in {0, 1} or bool → int64 in 0…C, (B, *S)."""
    numbers = torch.arange(1, y.shape[1] + 1, device=y.device).view(-1, *[1] * (y.ndim - 2))
    return torch.where(y > 0.5, numbers, 0).amax(1)
