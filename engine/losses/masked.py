"""What every loss does first: widen to float32, and leave invalid pixels out."""

import torch
from torch import Tensor


def masked(x: Tensor, valid: Tensor | None) -> Tensor:
    """x in float32 (float64 stays), 0 where not valid.

    A selection, not a product: 0 · NaN is NaN, forward and backward.

    Args:
        x: (B, C, *S), any dtype.
        valid: bool (B, 1, *S), or None if every pixel is.
    """
    x = x if x.dtype == torch.float64 else x.float()
    return x if valid is None else torch.where(valid, x, 0.0)


def total(x: Tensor) -> Tensor:
    """Sum over space, (B, C, *S) → (B, C)."""
    return x.flatten(2).sum(-1)


def mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over channels and all valid pixels of the batch, scalar; 0 if there are none.

    Args:
        x: (B, C, *S), already 0 where not valid.
        valid: bool (B, 1, *S), or None if every pixel is.
    """
    if valid is None:
        return x.mean()
    return x.sum() / (valid.sum() * x.shape[1]).clamp(min=1)
