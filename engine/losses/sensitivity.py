"""Elevated Sensitivity Loss."""

from torch import Tensor

from engine.losses.masked import masked, total
from engine.losses.pixels import chosen, number, sums


def elevated_sensitivity(p: Tensor, y: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Elevated Sensitivity Loss, ``-sum(y p) / (N + sum(y (1 - p)))`` (SMM paper, Eq. 1).

    Rewards found foreground and divides the reward by what is missed. False positives do
    not enter. It lies between minus the prevalence and 0, so it is weak on tiny lesions.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth, or the modulated mask, in {0, 1} or bool, (B, C, *S).
        valid: bool (B, 1, *S); False adds nothing to any sum, and N counts True.

    Returns:
        Loss in [-1, 0] of each image and class, float32 (float64 if p is), (B, C);
        0 where no pixel is valid.
    """
    tp, _, true = (total(x.unsqueeze(-1)) for x in sums(masked(p, valid), chosen(y, valid)))
    return -tp / (number(p, valid) + true - tp)
