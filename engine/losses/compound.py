"""Sums of an overlap loss and a cross-entropy, as published under one name."""

from functools import partial

import torch
from torch import Tensor

from engine.losses.masked import masked, power, total
from engine.losses.overlap import counts, dsc_plus_plus, excess
from engine.losses.pixels import Rule, chosen, costs, number


def combo(
    p: Tensor, y: Tensor, *, alpha: float = 0.5, beta: float = 0.5, gamma: float = 1.0, smooth: float = 1e-5,
    valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Combo loss, ``α wBCE - (1 - α) DSC`` (DSC++ paper, Eq. 13 and 14).

    ``wBCE = -mean[β y ln p + (1 - β)(1 - y) ln(1 - p)]`` in nats, DSC is 1 minus the Dice or
    DSC++ loss. A perfect prediction costs -(1 - α), an image without a valid pixel too.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        alpha: α in [0, 1], share of the cross-entropy.
        beta: β in [0, 1], weight of foreground pixels in the cross-entropy: the printed formula,
            and not its text, which speaks of false positives first.
        gamma: γ > 0 of Eq. 9; 1 is the plain loss, 2 Combo++.
        smooth: s of the Dice. With 0, an absent class predicted absent is NaN.
        valid: bool (B, 1, *S); False adds nothing to any sum, and the mean is over True.

    Returns:
        Loss of each image and class, from -(1 - α) on, float32 (float64 if p is), (B, C).
    """
    overlap = 1 - dsc_plus_plus(p, y, gamma=gamma, smooth=smooth, valid=valid)
    rule = partial(_nats, weights=(beta, 1 - beta))
    nats = _sum(p, y, valid, rule) / number(p, valid)
    return alpha * nats - (1 - alpha) * overlap


def unified_focal(
    p: Tensor, y: Tensor, *, lam: float = 0.5, delta: float = 0.6, gamma: float = 0.1, gamma_pp: float = 1.0,
    symmetric: bool = False, smooth: float = 1e-5, valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Unified Focal loss, ``λ AF + (1 - λ) AFT`` (DSC++ paper, Eq. 18 to 21).

    Of foreground p against background 1 - p, for each class on its own:

    - ``AF = mean[δ y (-ln p) + (1 - δ) p^γ (1 - y) (-ln(1 - p))]`` in nats: background that is
      well classified weighs less.
    - ``AFT = ½ [(1 - TI_b) + (1 - TI_f)^(1 - γ)]``: foreground that is well found weighs more.
      TI has δ on false negatives and 1 - δ on false positives, each class's own; the paper's
      Eq. 21 prints them swapped.

    The symmetric variant has the focal factor on both in AF, and the exponent on both in AFT.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        lam: λ in [0, 1], share of the focal cross-entropy.
        delta: δ in [0, 1], weight of foreground in AF, of misses in TI.
        gamma: γ in [0, 1).
        gamma_pp: γ > 0 of Eq. 9 in TI; 1 is the plain loss, 2 Unified Focal++.
        symmetric: use the symmetric variant.
        smooth: s of TI. With 0, a class that is absent, or everywhere, and predicted so is NaN.
        valid: bool (B, 1, *S); False adds nothing to any sum, and the mean is over True.

    Returns:
        Loss >= 0 of each image and class, float32 (float64 if p is), (B, C).
    """
    tp, fp, fn, tn = counts(p, y, gamma_pp, valid, rest=True)
    rule = partial(_nats, weights=(delta, 1 - delta), gamma=gamma, symmetric=symmetric)
    focal = _sum(p, y, valid, rule) / number(p, valid)

    found = excess(tp, delta * fn + (1 - delta) * fp, smooth)
    # What background misses are false positives, and the other way round.
    left = excess(tn, delta * fp + (1 - delta) * fn, smooth)
    tversky = (power(left, 1 - gamma if symmetric else 1.0) + power(found, 1 - gamma)) / 2
    return lam * focal + (1 - lam) * tversky


def _sum(p: Tensor, y: Tensor, valid: Tensor | None, rule: Rule) -> Tensor:
    return total(costs(masked(p, valid), chosen(y, valid), rule).unsqueeze(-1))


def _nats(
    p: Tensor, y: Tensor, slope: Tensor | None, *, weights: tuple[float, float], gamma: float = 0.0,
    symmetric: bool = False,
) -> Tensor:  # fmt: skip
    """``-w e^γ ln(1 - e)`` of each pixel, e what p is off y, a :data:`engine.losses.pixels.Rule`.

    The probability is clipped from below at 1e-7, so that its logarithm is at least -16.1. Where the
    slope of e^γ is too steep to be told, below 1e-30, it counts as 0.

    Args:
        p, y: of some pixels, of one type.
        slope: takes the derivative.
        weights: w of foreground and of background.
        gamma: γ, which is 0 for foreground unless ``symmetric``.
        symmetric: take the factor on foreground too.
    """
    fore, back = weights
    q = 1 - p
    right = torch.lerp(q, p, y)
    clipped = right.clamp(min=1e-7)
    nats = clipped.log().neg_()
    weight = (y * (fore - back)).add_(back)
    if gamma:
        # Of foreground, without the factor, 1 to any power.
        wrong = torch.lerp(p, q, y) if symmetric else torch.maximum(p, y)
        weight *= wrong.log().mul_(gamma).exp_()
    if slope is not None:
        torch.div(right.ge_(1e-7), clipped, out=slope)
        if gamma:
            rise = nats.div(wrong.clamp_(min=1e-30)).mul_(gamma)
            slope += rise if symmetric else rise.sub_(rise * y)
        # Of background the cost rises with p.
        slope.mul_(weight).addcmul_(slope, y, value=-2)
    return nats.mul_(weight)
