"""Sums over pixels whose gradients are written by hand, so that few passes over memory make them.

Written as plain operations, a sum of a few products keeps an image-sized tensor for each, and its
backward pass makes as many again. On a CPU such a loss takes as long as it takes to move them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from engine.losses.masked import alike as alike
from engine.losses.masked import mean, selected, total

PIECE = 1 << 20
"""Pixels worked on at once on a CPU, whose caches hold what comes in between. A GPU works on all at once,
since it is the number of steps that costs there."""

Rule = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Of x and y of some pixels: what each costs. Its derivative by x is written to the third, if given."""


def chosen(y: Tensor, valid: Tensor | None) -> Tensor:
    """Where a truth in {0, 1} or bool is 1 and valid, bool (B, C, *S)."""
    there = y if y.dtype == torch.bool else y > 0.5
    return there if valid is None else there & valid


def as_numbers(mask: Tensor, kind: torch.dtype) -> Tensor:
    """A bool mask as 0 and 1: five times as fast as torch's own conversion on a CPU."""
    return mask.view(torch.uint8).to(kind)


def number(x: Tensor, valid: Tensor | None) -> Tensor | int:
    """N, the number of valid pixels of each image, at least 1: int64 (B, 1), or one int for all.

    Of an empty batch too.
    """
    return x.shape[2:].numel() if valid is None else total(valid).clamp(min=1)


def pieces(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and pixels of the parts of x, (B, C, N), that are worked on one after the other."""
    images, channels, pixels = x.shape
    whole = x.device.type != "cpu"
    wide = pixels if whole else max(1, min(pixels, PIECE // max(1, channels)))
    many = images if whole else max(1, PIECE // max(1, channels * pixels))
    for first in range(0, images, max(1, many)):
        for start in range(0, pixels, max(1, wide)):
            yield slice(first, first + many), slice(start, start + wide)


def sums(p: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of p y, p and y of each image and class, (B, C) each.

    Args:
        p: foreground probabilities, float32 or float64, (B, C, *S), 0 where not valid.
        there: where y is 1, bool (B, C, *S), of :func:`chosen`.
    """
    found: tuple[Tensor, Tensor, Tensor] = _Sums.apply(p.flatten(2), there.flatten(2))  # type: ignore[no-untyped-call]
    return found


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(there)
        y = as_numbers(there, p.dtype)
        size = y.sum(-1)
        ctx.mark_non_differentiable(size)
        return y.mul_(p).sum(-1), p.sum(-1), size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hit: Tensor, size: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (there,) = ctx.saved_tensors
        slope = as_numbers(there, hit.dtype)
        return slope.mul_(hit.unsqueeze(-1)).add_(size.unsqueeze(-1)), None


def errors(
    p: Tensor, there: Tensor, gamma: float, valid: Tensor | None = None, *, rest: bool = False
) -> Tensor:
    """TP, FPγ and FNγ of each image and class: sums of p y, (p (1 - y))^γ and ((1 - p) y)^γ.

    Args:
        p: foreground probabilities, float32 or float64, (B, C, *S), 0 where not valid.
        there: where y is 1, bool (B, C, *S), of :func:`chosen`.
        gamma: γ > 0.
        valid: bool (B, 1, *S); False does not count as TN.
        rest: count TN too, the sum of (1 - p)(1 - y).

    Returns:
        (3, B, C), or (4, B, C) with TN. With γ below 1, an error below 1e-30 has no gradient, which would
        have no bound.
    """
    known = None if valid is None else valid.flatten(2)
    sums: Tensor = _Errors.apply(p.flatten(2), there.flatten(2), gamma, known, rest)  # type: ignore[no-untyped-call]
    return sums


class _Errors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, there: Tensor, gamma: float, known: Tensor | None, rest: bool) -> Tensor:
        ctx.save_for_backward(p, there)
        ctx.gamma = gamma
        sums = p.new_zeros(4 if rest else 3, *p.shape[:2])
        for images, pixels in pieces(p):
            part, truth = p[images, :, pixels], as_numbers(there[images, :, pixels], p.dtype)
            hit = part * truth
            sums[0, images] += hit.sum(-1)
            alarm = part - hit
            if rest:
                inside = 1 if known is None else as_numbers(known[images, :, pixels], p.dtype)
                empty = inside - truth
                sums[3, images] += empty.sub_(alarm).sum(-1)
            sums[1, images] += _raised(alarm, gamma).sum(-1)
            sums[2, images] += _raised(truth.sub_(hit), gamma).sum(-1)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        p, there = ctx.saved_tensors
        gamma = ctx.gamma
        hit, alarm, miss = gradient[:3].unsqueeze(-1)
        # Where y is 0, TN falls as p rises.
        empty = gradient[3].unsqueeze(-1) if len(gradient) == 4 else torch.zeros_like(hit)
        slope = torch.empty_like(p, memory_format=torch.contiguous_format)
        for images, pixels in pieces(p):
            out = slope[images, :, pixels]
            truth = there[images, :, pixels].view(torch.uint8)
            if gamma == 1:
                out.copy_(truth).mul_((hit - miss - alarm + empty)[images]).add_((alarm - empty)[images])
            else:
                truth = truth.to(p.dtype)
                # Errors of both kinds in one: none is of both.
                wrong = _slope((truth - p[images, :, pixels]).abs_(), gamma)
                torch.mul(truth, -gamma * (alarm + miss)[images], out=out)
                out.add_(gamma * alarm[images]).mul_(wrong)
                out += truth.mul_((hit + empty)[images]).sub_(empty[images])
        return slope, None, None, None, None


def _raised(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent, in its place."""
    if exponent == 1:
        return x
    return x.mul_(x) if exponent == 2 else x.pow_(exponent)


def _slope(x: Tensor, exponent: float) -> Tensor:
    """x ** (exponent - 1), in its place; 0 where it is too steep."""
    if exponent == 2:
        return x
    if exponent > 1:
        return x.pow_(exponent - 1)
    steep = x < 1e-30
    return x.pow_(exponent - 1).masked_fill_(steep, 0)


def costs(x: Tensor, there: Tensor, rule: Rule) -> Tensor:
    """Sum over space of what each pixel costs, (B, C).

    Args:
        x: what the cost is differentiated by, float32 or float64, (B, C, *S).
        there: where y is 1, bool (B, C, *S).
        rule: the cost of a pixel, of x and y in {0, 1} of x's type.
    """
    sums: Tensor = _Costs.apply(x.flatten(2), there.flatten(2), rule)  # type: ignore[no-untyped-call]
    return sums


def mean_of(sums: Tensor, x: Tensor, valid: Tensor | None) -> Tensor:
    """:func:`engine.losses.masked.mean` of what is summed over space already.

    Args:
        sums: (B, channels), of what is 0 where not valid.
        x: of any channels, (B, …, *S).
        valid: bool (B, 1, *S), or None if every pixel is.
    """
    if valid is None:
        # All images of a batch have as many pixels.
        sums = sums / x.shape[2:].numel()
    return mean(sums.unsqueeze(-1), valid)


class _Sloped(torch.autograd.Function):
    """What is of three arguments, and has kept the slope of each pixel by the first."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * gradient.unsqueeze(-1), None, None


class _Costs(_Sloped):
    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, rule: Rule) -> Tensor:
        needed = ctx.needs_input_grad[0]
        slopes = torch.empty_like(x, memory_format=torch.contiguous_format) if needed else None
        sums = x.new_zeros(x.shape[:2])
        for images, pixels in pieces(x):
            truth = as_numbers(there[images, :, pixels], x.dtype)
            slope = None if slopes is None else slopes[images, :, pixels]
            sums[images] += rule(x[images, :, pixels], truth, slope).sum(-1)
        ctx.save_for_backward(*([] if slopes is None else [slopes]))
        return sums


def binary_nats(z: Tensor, there: Tensor, valid: Tensor | None) -> Tensor:
    """Sum over space of ``softplus(z) - y z``, the binary cross-entropy of each image and class, (B, C).

    Args:
        z: logits, float32 or float64, (B, C, *S); any value where not valid.
        there: where y is 1, bool (B, C, *S), of :func:`chosen`.
        valid: bool (B, 1, *S); False adds nothing.
    """
    known = None if valid is None else valid.flatten(2)
    sums: Tensor = _BinaryNats.apply(z.flatten(2), there.flatten(2), known)  # type: ignore[no-untyped-call]
    return sums


class _BinaryNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, there: Tensor, known: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, there, known)
        sums = z.new_zeros(z.shape[:2])
        room = _room(z)
        for images, pixels in pieces(z):
            part = _sure(z, known, images, pixels)
            work = room[: part.numel()].view(part.shape)
            work.copy_(there[images, :, pixels].view(torch.uint8))
            wrong = torch.addcmul(part, part, work, value=-2, out=work).clamp_(min=0).sum(-1)
            # Of a sure pixel almost nothing, but to the last digit.
            sure = torch.abs(part, out=work).neg_().exp_()
            sums[images].add_(wrong).add_(_log1p(sure, 1))
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        z, there, known = ctx.saved_tensors
        slope = torch.empty_like(z, memory_format=torch.contiguous_format)
        room = _room(z)
        for images, pixels in pieces(z):
            out = torch.sigmoid(_sure(z, known, images, pixels), out=slope[images, :, pixels])
            truth = room[: out.numel()].view(out.shape).copy_(there[images, :, pixels].view(torch.uint8))
            out.sub_(truth).mul_(gradient[images].unsqueeze(-1))
        return slope, None, None


def _room(x: Tensor) -> Tensor:
    """As many elements as a piece has: all are worked out in the same, which a CPU's caches keep."""
    images, pixels = next(pieces(x), (slice(0), slice(0)))
    return x.new_empty(x[images, :, pixels].numel())


def _sure(z: Tensor, known: Tensor | None, images: slice, pixels: slice) -> Tensor:
    """Logits of a piece, background without a doubt where not valid, which costs nothing."""
    part = z[images, :, pixels]
    return part if known is None else selected(part, known[images, :, pixels], -1e4)


def _log1p(x: Tensor, most: float) -> Tensor:
    """Sum of ln(1 + x) over the last axis, for x from 0 to `most`; x is used up.

    On a CPU a logarithm takes ten times as long as a product: up to 32 of them become one. What a product
    is off 1 is multiplied, and not the product, so that a small x keeps its digits.
    """
    if x.device.type == "cpu":
        for _ in range(min(3, int(math.log2(120 / math.log2(1 + most))))):
            pairs = x.shape[-1] // 2
            first, second = x[..., :pairs], x[..., x.shape[-1] - pairs :]
            first.addcmul_(first, second).add_(second)
            x = x[..., : x.shape[-1] - pairs]
    return x.log1p_().sum(-1)


def categorical_nats(z: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
    """Sum over space of ``ln sum(e^z) - z[label]``, the categorical cross-entropy of each image, (B, 1).

    Args:
        z: logits, float32 or float64, (B, C + 1, *S), C > 0; any value where not valid.
        labels: integers in 0…C, (B, *S); any value where not valid.
        valid: bool (B, 1, *S); False adds nothing.
    """
    known = None if valid is None else valid.flatten(2)
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    sums: Tensor = _CategoricalNats.apply(z.flatten(2), labels.flatten(1), known)  # type: ignore[no-untyped-call]
    return sums


class _CategoricalNats(_Sloped):
    @staticmethod
    def forward(ctx: Any, z: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        slopes = torch.empty_like(z, memory_format=torch.contiguous_format)
        sums = z.new_zeros(len(z), 1)
        room = _room(z)
        for images, pixels in pieces(z):
            # Of z's type: integers of eight bytes are compared at half the speed.
            part, label = z[images, :, pixels], labels[images, pixels].to(z.dtype)
            if known is not None:
                # As in _sure: logits 1e4 and 0, and the label 0.
                inside = known[images, :, pixels]
                part = selected(part, inside)
                part[:, :1] = selected(part[:, :1], inside, 1e4)
                label = label.masked_fill(~inside[:, 0], 0)
            off = torch.sub(part, part.amax(1, keepdim=True), out=room[: part.numel()].view(part.shape))
            slope = slopes[images, :, pixels]
            missed = torch.zeros_like(off[:, 0])
            for channel in range(z.shape[1]):
                truth = torch.eq(label, channel, out=slope[:, channel])
                missed.addcmul_(truth, off[:, channel])
            whole = off.exp_().sum(1, keepdim=True)
            torch.sub(off.div_(whole), slope, out=slope)
            nats = _log1p(whole.sub_(1), z.shape[1] - 1).sub_(missed.sum(-1, keepdim=True))
            sums[images].add_(nats)
        ctx.save_for_backward(slopes)
        return sums
