"""Losses that are a mean over pixels. They work from logits, and so need no clipped logarithm."""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.losses.masked import masked, mean, power


def cross_entropy(logits: Tensor, labels: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Categorical cross-entropy in nats, or the binary one if there is only one channel.

    Args:
        logits: (B, C + 1, *S), background first, or (B, 1, *S): one class against background.
        labels: integers in 0…C, (B, *S); any value where not valid.
        valid: bool (B, 1, *S); the mean is over True, all images of the batch together.

    Returns:
        Scalar >= 0, float32 (float64 if logits are); 0 where no pixel is valid.
    """
    if logits.shape[1] == 1:
        return binary_cross_entropy(logits, labels.unsqueeze(1), valid=valid)
    if valid is not None:
        labels = torch.where(valid.squeeze(1), labels, 0)
    # Reduced by hand: torch's own reduction has no deterministic version on a GPU.
    loss = F.cross_entropy(masked(logits, valid), labels.long(), reduction="none")
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


def focal(
    logits: Tensor, y: Tensor, *, gamma: float = 2.0, alpha: float | None = None, valid: Tensor | None = None
) -> Tensor:
    """Focal loss, mean of ``-(1 - p_t)^γ ln p_t`` (DiceFocal paper, 7.3.2; Lin et al., ICCV 2017, Eq. 4, 5).

    p_t is the probability of what is true. With as many channels as masks, each class stands
    against all else on its own (sigmoid), and the mean is over pixels and classes. With one
    channel more, background first, the classes exclude each other (softmax), p_t is the
    probability of the pixel's one label, and the mean is over pixels. So γ = 0 without α is
    :func:`binary_cross_entropy` or :func:`cross_entropy`.

    Args:
        logits: (B, C, *S) or (B, C + 1, *S).
        y: truth in {0, 1} or bool, (B, C, *S), exclusive with C + 1 channels.
        gamma: γ >= 0; the larger, the less well-classified pixels weigh.
        alpha: weight in [0, 1] of foreground pixels, 1 - α of background ones; None weighs both with 1.
        valid: bool (B, 1, *S); the mean is over True, all images of the batch together.

    Returns:
        Scalar >= 0, float32 (float64 if logits are); 0 where no pixel is valid.

    Raises:
        ValueError: the number of channels is neither C nor C + 1.
    """
    if logits.shape[1] not in (y.shape[1], y.shape[1] + 1):
        raise ValueError(
            f"{y.shape[1]} masks need as many logits or one more, but there are {logits.shape[1]}."
        )
    logits, y = masked(logits, valid), masked(y, valid)
    if logits.shape[1] == y.shape[1]:
        # ln p_t = ln σ(z) and ln(1 - p_t) = ln σ(-z), so that no power is taken of a number near 0.
        z = torch.where(y > 0.5, logits, -logits)
        loss = (gamma * F.logsigmoid(-z)).exp() * -F.logsigmoid(z)
    else:
        labels = label_map(y)
        nats = F.cross_entropy(logits, labels, reduction="none").unsqueeze(1)
        loss = power(-torch.expm1(-nats), gamma) * nats
        y = y.amax(1, keepdim=True)
    if alpha is not None:
        loss = torch.where(y > 0.5, alpha * loss, (1 - alpha) * loss)
    return mean(masked(loss, valid), valid)


def label_map(y: Tensor) -> Tensor:
    """Label map of exclusive masks, (B, C, *S) in {0, 1} or bool → int64 in 0…C, (B, *S)."""
    numbers = torch.arange(1, y.shape[1] + 1, device=y.device).view(-1, *[1] * (y.ndim - 2))
    return torch.where(y > 0.5, numbers, 0).amax(1)
