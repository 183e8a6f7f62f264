"""Miss-Aware Mask Modulation: masks grown where the model misses."""

import torch
from torch import Tensor


def dilate(mask: Tensor, radius: int = 2) -> Tensor:
    """Dilate by the diamond (L1 ball) of a radius, each batch element and channel on its own.

    Args:
        mask: bool (B, C, *S), 2D or 3D. Outside the image is background.
        radius: in pixels; 0 returns the mask. Radius 2 has 13 pixels in 2D and 25 voxels in 3D.

    Returns:
        bool (B, C, *S).
    """
    # r dilations by the unit cross are one dilation by the diamond of radius r, in any dimension.
    for _ in range(radius):
        grown = mask.clone()
        for axis in range(2, mask.ndim):
            length = mask.shape[axis] - 1
            grown.narrow(axis, 1, length).logical_or_(mask.narrow(axis, 0, length))
            grown.narrow(axis, 0, length).logical_or_(mask.narrow(axis, 1, length))
        mask = grown
    return mask


def miss_aware_mask(
    truth: Tensor, prediction: Tensor, *, radius: int = 2, valid: Tensor | None = None
) -> Tensor:
    """Truth joined with the dilated false negatives (SMM paper, Alg. 1, MAMM).

    Each class is grown on its own: nothing leaks into a neighbouring class channel.

    Args:
        truth: bool (B, C, *S).
        prediction: bool (B, C, *S).
        radius: of the diamond, in pixels.
        valid: bool (B, 1, *S) or None. Misses outside it do not count, and dilation does not enter it.

    Returns:
        bool (B, C, *S), a superset of truth.

    Raises:
        ValueError: masks that are not bool, or shapes that differ.
    """
    if truth.dtype != torch.bool or prediction.dtype != torch.bool:
        raise ValueError(f"truth and prediction must be bool, not {truth.dtype} and {prediction.dtype}")
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes differ: truth {tuple(truth.shape)}, prediction {tuple(prediction.shape)}")
    misses = truth & ~prediction
    if valid is None:
        return truth | dilate(misses, radius)
    return truth | (dilate(misses & valid, radius) & valid)
