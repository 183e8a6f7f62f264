"""What the sums of an overlap loss run over, beside one image's foreground."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from engine.losses.masked import is_apart, masked, pooling


def summing(
    loss: Callable[..., Tensor], *, include_background: bool = False, batch: bool = False
) -> Callable[..., Tensor]:
    """An overlap loss with wider sums.

    Args:
        loss: of (p, y, *, valid) → (B, C), which reduces over space alone.
        include_background: average the loss of (p, y) with that of (1 - p, 1 - y), as the public code
            of the DSC++ paper does.
        batch: pool the sums over the batch, so that an image with little of a class weighs little.

    Returns:
        A loss of the same arguments → (B, C), or (C,) with ``batch``, whose images may be divided over
        processes that train together.
    """

    def summed(p: Tensor, y: Tensor, *, valid: Tensor | None = None, **settings: Any) -> Tensor:
        value = loss(p, y, valid=valid, **settings)
        if include_background:
            p, y = masked(p, valid), masked(y, valid)
            value = (value + loss(1 - p, 1 - y, valid=valid, **settings)) / 2
        return value

    def pooled(p: Tensor, y: Tensor, *, valid: Tensor | None = None, **settings: Any) -> Tensor:
        with pooling():
            parts = (_pooled(p), _pooled(y), None if valid is None else _pooled(valid))
            return summed(*parts[:2], valid=parts[2], **settings)[0]

    def of_a_batch(p: Tensor, y: Tensor, **settings: Any) -> Tensor:
        # An image by itself is its own batch.
        return (summed if is_apart() else pooled)(p, y, **settings)

    return of_a_batch if batch else summed


def _pooled(x: Tensor) -> Tensor:
    """The images of a batch as one, side by side on the first axis, (B, C, H, …) → (1, C, B · H, …)."""
    return x.transpose(0, 1).flatten(1, 2).unsqueeze(0)
