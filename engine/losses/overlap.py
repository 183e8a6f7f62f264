"""Losses made of true positives, false positives and false negatives."""

from torch import Tensor

from engine.losses.masked import masked, power, total
from engine.losses.pixels import chosen, errors, sums


def dice(p: Tensor, y: Tensor, *, smooth: float = 1e-5, valid: Tensor | None = None) -> Tensor:
    """Soft Dice loss, ``1 - (2TP + s) / (2TP + FP + FN + s)`` (DSC++ paper, Eq. 4).

    Neither p nor y is clipped, so a perfect prediction costs exactly 0, an absent class
    predicted absent included.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        smooth: s. With 0, an absent class predicted absent is NaN.
        valid: bool (B, 1, *S); False adds nothing to any sum.

    Returns:
        Loss in [0, 1] of each image and class, float32 (float64 if p is), (B, C).
    """
    tp, found, true = (total(x.unsqueeze(-1)) for x in sums(masked(p, valid), chosen(y, valid)))
    # 2TP + FP + FN, in the form that is exactly 2TP when p = y.
    return 1 - (2 * tp + smooth) / (found + true + smooth)


def dsc_plus_plus(
    p: Tensor, y: Tensor, *, gamma: float = 2.0, smooth: float = 1e-5, valid: Tensor | None = None
) -> Tensor:
    """DSC++ loss, ``1 - (2TP + s) / (2TP + FPγ + FNγ + s)`` (DSC++ paper, Eq. 9).

    ``FPγ = sum((p (1 - y)) ** γ)`` and ``FNγ = sum(((1 - p) y) ** γ)``: above γ = 1 an
    unsure error costs less, compared with a confident one. With γ = 1 it is the Dice loss.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        gamma: γ > 0.
        smooth: s. With 0, an absent class predicted absent is NaN.
        valid: bool (B, 1, *S); False adds nothing to any sum.

    Returns:
        Loss in [0, 1] of each image and class, float32 (float64 if p is), (B, C).
    """
    tp, fp, fn = counts(p, y, gamma, valid)
    return excess(2 * tp, fp + fn, smooth)


def tversky(
    p: Tensor, y: Tensor, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0, smooth: float = 1e-5,
    valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Tversky loss, ``1 - (TP + s) / (TP + α FPγ + β FNγ + s)`` (DSC++ paper, Eq. 15 and 16).

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        alpha: α >= 0, weight of false positives.
        beta: β >= 0, weight of false negatives: above α, missing costs more than a false alarm.
        gamma: γ > 0 of Eq. 9; 1 is the plain loss, 2 Tversky++.
        smooth: s. With 0, an absent class predicted absent is NaN.
        valid: bool (B, 1, *S); False adds nothing to any sum.

    Returns:
        Loss in [0, 1] of each image and class, float32 (float64 if p is), (B, C).
    """
    tp, fp, fn = counts(p, y, gamma, valid)
    return excess(tp, alpha * fp + beta * fn, smooth)


def focal_tversky(
    p: Tensor, y: Tensor, *, alpha: float = 0.3, beta: float = 0.7, exponent: float = 0.75,
    gamma: float = 1.0, smooth: float = 1e-5, valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Focal Tversky loss, the Tversky loss to the power of 1 / γ_FT (DSC++ paper, Eq. 17).

    The paper adds the classes up; here each stands on its own, and the objective takes their
    mean. A perfect prediction (TI = 1) costs 0 and has no gradient.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        alpha: α >= 0, weight of false positives.
        beta: β >= 0, weight of false negatives.
        exponent: 1 / γ_FT > 0; 0.75 for the published γ_FT = 4/3.
        gamma: γ > 0 of Eq. 9; 1 is the plain loss, 2 Focal Tversky++.
        smooth: s. With 0, an absent class predicted absent is NaN.
        valid: bool (B, 1, *S); False adds nothing to any sum.

    Returns:
        Loss in [0, 1] of each image and class, float32 (float64 if p is), (B, C).
    """
    loss = tversky(p, y, alpha=alpha, beta=beta, gamma=gamma, smooth=smooth, valid=valid)
    return power(loss, exponent)


def counts(
    p: Tensor, y: Tensor, gamma: float, valid: Tensor | None, *, rest: bool = False
) -> tuple[Tensor, ...]:
    """TP, FPγ and FNγ of each image and class, (B, C) each, and TN with ``rest``; other arguments as of
    :func:`dsc_plus_plus`."""
    both = errors(masked(p, valid), chosen(y, valid), gamma, valid, rest=rest)
    # As channels, so that processes which pool a batch exchange all in one message.
    pooled = total(both.transpose(0, 1).flatten(1).unsqueeze(-1))
    return pooled.chunk(len(both), dim=1)


def excess(hits: Tensor, errors: Tensor, smooth: float) -> Tensor:
    """``1 - (hits + s) / (hits + errors + s)``, without the difference of two numbers near 1."""
    return errors / (hits + errors + smooth)
