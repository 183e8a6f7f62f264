"""What every loss does first: widen to float32, and leave invalid pixels out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from engine.ranks import average, together

_POOLING = _APART = False


def masked(x: Tensor, valid: Tensor | None, other: float = 0.0) -> Tensor:
    """x in float32 (float64 stays), 0 or another number where not valid.

    A selection, not a product: 0 · NaN is NaN, forward and backward.

    Args:
        x: (B, C, *S), any dtype.
        valid: bool (B, 1, *S), or None if every pixel is.
        other: what stands where not valid.
    """
    x = x if x.dtype == torch.float64 else x.float()
    if valid is None:
        return x
    found: Tensor = _Masked.apply(x, valid, other)  # type: ignore[no-untyped-call]
    return found


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, valid: Tensor, other: float) -> Tensor:
        ctx.save_for_backward(valid)
        return selected(x, valid, other)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (valid,) = ctx.saved_tensors
        return selected(gradient, valid), None, None


def selected(x: Tensor, valid: Tensor, other: float = 0.0) -> Tensor:
    """``torch.where(valid, x, other)`` without a gradient, on a CPU bit by bit, several times as fast.

    Args:
        x: float32 or float64.
        valid: bool, of a shape that spreads to x's.
        other: what stands where not valid.
    """
    if x.device.type != "cpu":
        return torch.where(valid, x, other)
    kind = torch.int32 if x.dtype == torch.float32 else torch.int64
    bits = valid.view(torch.uint8).to(kind).neg_()
    found = x.view(kind) & bits
    if other:
        found |= bits.bitwise_not_().bitwise_and_(x.new_tensor(other).view(kind))
    return found.view(x.dtype)


def alike(p: Tensor, y: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both :func:`masked`, y in p's type, so that a weight times y is as exact as p is."""
    p = masked(p, valid)
    if y.dtype == torch.bool:
        return p, (y if valid is None else y & valid).view(torch.uint8).to(p.dtype)
    return p, masked(y, valid).to(p.dtype)


def total(x: Tensor) -> Tensor:
    """Sum over space, (B, C, *S) → (B, C)."""
    sums = x.flatten(2).sum(-1)
    return together(sums) if _POOLING else sums


@contextmanager
def pooling() -> Iterator[None]:
    """For a block, :func:`total` adds up over all processes of a training step, of one image each."""
    global _POOLING
    before, _POOLING = _POOLING, True
    try:
        yield
    finally:
        _POOLING = before


@contextmanager
def apart() -> Iterator[None]:
    """For a block, a loss is of each image by itself, as if it were alone in its batch: (B,)."""
    global _APART
    before, _APART = _APART, True
    try:
        yield
    finally:
        _APART = before


def is_apart() -> bool:
    """Whether losses are of each image by itself."""
    return _APART


def mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over channels and all valid pixels of the batch, scalar; 0 if there are none.

    The batch is that of all processes which train together; within :func:`apart` each image is one, (B,).

    Args:
        x: (B, C, *S), already 0 where not valid.
        valid: bool (B, 1, *S), or None if every pixel is.
    """
    if _APART:
        count = x[:1].numel() if valid is None else (valid.flatten(1).sum(1) * x.shape[1]).clamp(min=1)
        return x.flatten(1).sum(1) / count
    return average(x.sum(), x.numel() if valid is None else valid.sum() * x.shape[1])


def power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent for x in [0, 1] and an exponent >= 0, with a gradient that is finite everywhere.

    The slope of a power below 1 grows without bound towards 0, and a product with it turns
    NaN. Below 1e-30 the value stays exact and the gradient is 0: what is as good as 0
    already has nothing left to gain.
    """
    if exponent == 1:
        return x
    if exponent > 1:
        return x**exponent
    steep = x < 1e-30
    return torch.where(steep, x.detach() ** exponent, torch.where(steep, 1.0, x) ** exponent)
