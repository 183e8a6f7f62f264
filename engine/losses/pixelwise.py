"""Losses that are a mean over pixels. They work from logits, and so need no clipped logarithm."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.losses.masked import masked, mean, power
from engine.losses.pixels import as_numbers, binary_nats, categorical_nats, chosen, costs, mean_of


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
        there = labels if labels.dtype == torch.bool else labels > 0
        return binary_cross_entropy(logits, there.unsqueeze(1), valid=valid)
    logits = masked(logits, None)
    return mean_of(categorical_nats(logits, labels, valid), logits, valid)


def binary_cross_entropy(logits: Tensor, y: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each class against all else, in nats.

    Args:
        logits: (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        valid: bool (B, 1, *S); the mean is over True, all images and classes together.

    Returns:
        Scalar >= 0, float32 (float64 if logits are); 0 where no pixel is valid.
    """
    logits = masked(logits, None)
    return mean_of(binary_nats(logits, chosen(y, valid), valid), logits, valid)


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
    if logits.shape[1] == y.shape[1]:
        return _mean(logits, y, valid, gamma, alpha)
    logits, there = masked(logits, valid), chosen(y, valid)
    # Reduced by hand: torch's own reduction has no deterministic version on a GPU.
    nats = F.cross_entropy(logits, label_map(there).long(), reduction="none").unsqueeze(1)
    loss = power(-torch.expm1(-nats), gamma) * nats
    if alpha is not None:
        loss = loss * as_numbers(there.any(1, keepdim=True), loss.dtype).mul_(2 * alpha - 1).add_(1 - alpha)
    return mean(masked(loss, valid), valid)


def _mean(logits: Tensor, y: Tensor, valid: Tensor | None, gamma: float, alpha: float | None) -> Tensor:
    """Mean of :func:`_focal`."""
    # Background without a doubt costs nothing.
    logits = masked(logits, valid, -1e4)
    rule = partial(_focal, gamma=gamma, alpha=alpha)
    return mean_of(costs(logits, chosen(y, valid), rule), logits, valid)


def _focal(z: Tensor, y: Tensor, slope: Tensor | None, *, gamma: float, alpha: float | None) -> Tensor:
    """``-w (1 - p_t)^γ ln p_t`` of each pixel, a :data:`engine.losses.pixels.Rule`.

    From the logit of what is not true, so that no power or logarithm is taken of a number near 0.

    Args:
        z: logits of some pixels.
        y: truth in {0, 1} of their type.
        slope: takes the derivative.
        gamma: γ.
        alpha: w of foreground; 1 - α is the background's. None: both are 1.
    """
    wrong = torch.addcmul(z, z, y, value=-2)
    nats = F.softplus(wrong, threshold=40)
    if not gamma and alpha is None:
        if slope is not None:
            torch.sigmoid(z, out=slope).sub_(y)
        return nats
    weight = torch.ones_like(y) if alpha is None else (y * (2 * alpha - 1)).add_(1 - alpha)
    if gamma:
        weight *= (wrong - nats).mul_(gamma).exp_()
    if slope is not None:
        torch.sigmoid(wrong, out=slope)
        if gamma:
            slope += (1 - slope).mul_(nats).mul_(gamma)
        slope.mul_(weight).addcmul_(slope, y, value=-2)
    return nats.mul_(weight)


def label_map(y: Tensor) -> Tensor:
    """Label map of exclusive masks, (B, C, *S) in {0, 1} or bool → integers in 0…C, (B, *S).

    Of the smallest type: bool if C is 1, int64 if it is above 255, uint8 else.
    """
    there = chosen(y, None)
    classes = there.shape[1]
    if classes == 1:
        return there[:, 0]
    kind = torch.uint8 if classes < 256 else torch.int64
    labels = there[:, 0].view(torch.uint8).to(kind)
    for number in range(2, classes + 1):
        labels = torch.maximum(labels, there[:, number - 1].view(torch.uint8).to(kind) * number)
    return labels
