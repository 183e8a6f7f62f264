"""Losses made of true positives, false positives and false negatives."""

from torch import Tensor

from engine.losses.masked import masked, total


def dice(p: Tensor, y: Tensor, *, smooth: float = 1e-5, valid: Tensor | None = None) -> Tensor:
    """Soft Dice loss, ``1 - (2TP + s) / (2TP + FP + FN + s)`` (DSC++ paper, the loss that Eq. 9 extends).

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
    p, y = masked(p, valid), masked(y, valid)
    twice_tp = 2 * total(p * y)
    # FP + FN + 2TP, in the form that is exactly 2TP when p = y.
    size = total(p) + total(y)
    return 1 - (twice_tp + smooth) / (size + smooth)
