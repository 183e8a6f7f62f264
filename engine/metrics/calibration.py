"""Metrics of probabilities: how far they are from the truth, and whether they say how often they are right.

Each class is taken on its own, against all else. Values are float64 (B, C), lower is better, and NaN
where no pixel is valid. All sums run in float64, whatever the probabilities' own type.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.errors import InputError

BINS = 15
LEAST = 1e-7
"""Below which p and 1 - p are clipped in logarithms: one pixel costs at most 16.1 nats."""


class Bins(NamedTuple):
    """Pixels by their probability, in bins of equal width: (B, C, bins). Images are pooled by adding them."""

    pixels: Tensor
    """How many, int64."""
    confidence: Tensor
    """Sum of their p, float64."""
    truth: Tensor
    """How many of them are true, int64."""


def brier(p: Tensor, y: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean of (y - p)², in [0, 1] (DSC++ paper, Eq. 11, without its mean over classes).

    Args:
        p: probabilities, float32 or wider, (B, C, *S); any value where not valid.
        y: truth, bool or {0, 1}, of the same shape.
        valid: bool (B, 1, *S); False is counted nowhere.
    """
    return _mean((p.double() - y.bool().double()).square(), valid)


def nll(p: Tensor, y: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Negative log-likelihood in nats a pixel, of each class against all else.

    The mean of -ln p where the truth is 1 and of -ln(1 - p) elsewhere; p and 1 - p are clipped at 1e-7
    each on its own. With one class it is the categorical one, too (DSC++ paper, Eq. 1).

    Args:
        p: probabilities, float32 or wider, (B, C, *S); any value where not valid.
        y: truth, bool or {0, 1}, of the same shape.
        valid: bool (B, 1, *S); False is counted nowhere.
    """
    p = p.double()
    return _mean(-torch.where(y.bool(), p, 1 - p).clamp(min=LEAST).log(), valid)


def categorical_nll(p: Tensor, y: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Negative log-likelihood in nats a pixel of classes that exclude each other (DSC++ paper, Eq. 1).

    The mean of -ln of the true class's probability, clipped at 1e-7. The background's is what the classes
    leave of 1, and as exact as their sum: to about 1e-7 where they come from float32.

    Args:
        p: probabilities of the foreground classes, float32 or wider, summing to at most 1, (B, C, *S); any
            value where not valid.
        y: truth, bool or {0, 1}, of the same shape, at most one class a pixel.
        valid: bool (B, 1, *S); False is counted nowhere.

    Returns:
        float64 (B,).
    """
    p, y = p.double(), y.bool()
    right = torch.where(y, p, 0).sum(1, keepdim=True)
    right = torch.where(y.any(1, keepdim=True), right, 1 - p.sum(1, keepdim=True))
    return _mean(-right.clamp(min=LEAST).log(), valid)[:, 0]


def ece(p: Tensor, y: Tensor, *, bins: int = BINS, valid: Tensor | None = None) -> Tensor:
    """Expected calibration error of p against y, in [0, 1]: what :func:`expected_error` makes of the bins.

    Args:
        p: probabilities, float32 or wider, (B, C, *S), in [0, 1] where valid.
        y: truth, bool or {0, 1}, of the same shape.
        bins: how many.
        valid: bool (B, 1, *S); False is counted nowhere.
    """
    return expected_error(reliability(p, y, bins=bins, valid=valid))


def expected_error(made: Bins) -> Tensor:
    """Mean over pixels of the distance between their bin's mean p and its share of true pixels."""
    distance = (made.confidence - made.truth).abs().sum(-1)
    return distance / made.pixels.sum(-1).double()


def reliability(p: Tensor, y: Tensor, *, bins: int = BINS, valid: Tensor | None = None) -> Bins:
    """Count pixels by their probability: what a reliability diagram shows.

    Bin k of n holds k/n <= p < (k + 1)/n, the last one also p = 1.

    Args:
        p: probabilities, float32 or wider, (B, C, *S), in [0, 1] where valid.
        y: truth, bool or {0, 1}, of the same shape.
        bins: how many, at least 1.
        valid: bool (B, 1, *S); False is counted nowhere.

    Raises:
        InputError: no bins, or a valid p that is NaN or outside [0, 1].
    """
    if bins < 1:
        raise InputError(f"{bins} bins hold no pixel: 1 or more would work, 15 are usual.")
    p = p if p.dtype == torch.float64 else p.float()
    used = torch.ones_like(p, dtype=torch.bool) if valid is None else valid.expand_as(p)
    # What is not valid may be NaN, which no bin holds and no weight of 0 removes.
    p = torch.where(used, p, 0)
    wrong = int((~((p >= 0) & (p <= 1))).sum())
    if wrong:
        raise InputError(
            f"{wrong} of the probabilities are NaN or outside 0 to 1: a sigmoid or a softmax would work."
        )
    # In p's own type, so that a p that was written as k/n lies in bin k in float32, too.
    edges = (torch.arange(1, bins, dtype=torch.float64) / bins).to(p)
    rows, images_and_classes = p.flatten(0, 1).flatten(1), p.shape[0] * p.shape[1]
    place = torch.bucketize(rows.contiguous(), edges, right=True)
    place += bins * torch.arange(images_and_classes, device=p.device)[:, None]
    inside = used.flatten(0, 1).flatten(1)

    def summed(chosen: Tensor, weight: Tensor | None = None) -> Tensor:
        weights = None if weight is None else weight[chosen].double()
        made = place[chosen].bincount(weights, minlength=bins * images_and_classes)
        return made.view(*p.shape[:2], bins)

    true = y.bool().flatten(0, 1).flatten(1)
    return Bins(summed(inside), summed(inside, rows), summed(inside & true))


def _mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Over valid pixels: (B, C, *S) → float64 (B, C), NaN without any. A selection, as 0 · NaN is NaN."""
    if valid is None:
        return x.flatten(2).mean(-1)
    total = torch.where(valid, x, 0).flatten(2).sum(-1)
    return total / valid.flatten(2).sum(-1).double()
