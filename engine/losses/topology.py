"""Losses on the centreline: skeleton recall, and soft clDice."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import skeletonize
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from engine.losses.masked import alike, total

Mask = NDArray[np.bool_]

RUN = 8
"""Levels of a soft skeleton whose intermediate results are kept at once."""


def tubed_skeleton(mask: Mask) -> Mask:
    """Tubed skeleton of a mask: its skeleton, dilated by the radius-2 diamond, inside the mask.

    Kirchhoff et al., ECCV 2024, with the L1 ball of radius 2: 13 pixels in 2D, 25 voxels in
    3D. As scikit-image thins it, so that values compare with published ones. In 3D it deletes
    some components of even width altogether (its issue 3757), whose tube is empty; where that
    leaves nothing at all, the mask is its own skeleton.

    Args:
        mask: bool or {0, 1}, (H, W) or (D, H, W), one class of one image, invalid pixels False.

    Returns:
        bool, of the mask's shape; a part of the mask, empty only if the mask is.
    """
    mask = np.asarray(mask, bool)
    skeleton = skeletonize(mask)  # type: ignore[no-untyped-call]
    if not skeleton.any():
        return mask.copy()
    cross = ndimage.generate_binary_structure(mask.ndim, 1)
    tube: Mask = ndimage.binary_dilation(skeleton, cross, iterations=2) & mask
    return tube


def skeleton_recall(p: Tensor, tube: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Skeleton recall loss, ``-sum(p tube) / sum(tube)`` (Kirchhoff et al., ECCV 2024).

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        tube: tubed skeletons of the truth in {0, 1} or bool, (B, C, *S), of :func:`tubed_skeleton`.
        valid: bool (B, 1, *S); False adds nothing to any sum.

    Returns:
        Minus the soft recall on the tube, in [-1, 0], of each image and class, float32 (float64 if
        p is), (B, C). Where the tube is empty, value and gradient are 0.
    """
    p, tube = alike(p, tube, valid)
    return -total(p * tube) / total(tube).clamp(min=1)


def soft_cldice(
    p: Tensor, y: Tensor, *, iterations: int | None = None, smooth: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """Soft clDice loss, 1 minus the harmonic mean of two shares (Shit et al., CVPR 2021, Alg. 2).

    They are p's soft skeleton inside y, and y's skeleton inside p. It sees centrelines alone, so
    that it is to be added to a Dice loss.

    Too few iterations leave the inside of wide structures out of the skeleton. Without a number
    they are counted for each image and class: until nothing is left of y, nor of where
    p >= 0.5, by taking away their outermost pixels (L1 distance) again and again. More of them
    would not change y's skeleton. Of a soft p they would go on through ever wider and fainter
    surroundings, whose every level is a structure of its own; those below one half are given
    as many as the structures that count. What lies beyond the image's edge is unknown and
    takes nothing away, as in the published code, so a mask that fills the image has no skeleton.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        iterations: erosions of each soft skeleton, >= 0, or None.
        smooth: s, added to both parts of both shares. With 0, an empty skeleton gives NaN.
        valid: bool (B, 1, *S); False is background to the skeletons, and adds nothing to any sum.

    Returns:
        Loss in [0, 1] of each image and class, float32 (float64 if p is), (B, C).
    """
    p, y = alike(p, y, valid)
    if iterations is None:
        reach = torch.maximum(half_width(y > 0.5), half_width(p >= 0.5))
    else:
        reach = torch.full(p.shape[:2], iterations, device=p.device)
    thin_p, thin_y = soft_skeleton(p, reach), soft_skeleton(y, reach)
    precise = (total(thin_p * y) + smooth) / (total(thin_p) + smooth)
    sensitive = (total(thin_y * p) + smooth) / (total(thin_y) + smooth)
    return 1 - 2 * precise * sensitive / (precise + sensitive)


def soft_skeleton(x: Tensor, iterations: Tensor) -> Tensor:
    """Soft skeleton by erosions (Shit et al., CVPR 2021, Alg. 1).

    Args:
        x: (B, C, *S) in [0, 1].
        iterations: int64 (B, C), erosions of each image and class.

    Returns:
        (B, C, *S) in [0, 1].
    """
    deep = iterations.view(*iterations.shape, *[1] * (x.ndim - 2))
    last = int(iterations.max())
    skeleton = torch.zeros_like(x)
    for first in range(0, last + 1, RUN):
        levels = range(first, min(first + RUN, last + 1))
        if last < RUN or not x.requires_grad:
            x, skeleton = _thinned(x, skeleton, deep, levels)
        else:
            # A level holds some ten times its image for the gradient, and a wide mask has hundreds.
            x, skeleton = checkpoint(
                _thinned, x, skeleton, deep, levels, use_reentrant=False, preserve_rng_state=False
            )
    return skeleton


def _thinned(x: Tensor, skeleton: Tensor, deep: Tensor, levels: range) -> tuple[Tensor, Tensor]:
    """x after so many more erosions, and the skeleton with what an opening took away at each."""
    for level in levels:
        inner = eroded(x)
        ridge = torch.where(level <= deep, (x - dilated(inner)).relu(), 0.0)
        skeleton = skeleton + ridge * (1 - skeleton)
        x = inner
    return x, skeleton


def half_width(mask: Tensor) -> Tensor:
    """Erosions after which nothing is left of a mask, or nothing changes: bool (B, C, *S) → int64 (B, C)."""
    left = mask.to(torch.uint8)
    count = torch.zeros(mask.shape[:2], dtype=torch.int64, device=mask.device)
    while True:
        inner = eroded(left)
        changed = (inner != left).flatten(2).any(-1)
        if not changed.any():
            return count
        count += changed
        left = inner


def eroded(x: Tensor) -> Tensor:
    """Smallest of each element and its direct neighbours (the unit cross), (B, C, *S)."""
    smallest = x
    for axis in range(2, x.ndim):
        smallest = torch.minimum(smallest, _among_three(x, axis, torch.minimum))
    return smallest


def dilated(x: Tensor) -> Tensor:
    """Largest of each element and all its neighbours (3 × 3, 3 × 3 × 3), (B, C, *S)."""
    for axis in range(2, x.ndim):
        x = _among_three(x, axis, torch.maximum)
    return x


def _among_three(x: Tensor, axis: int, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The smallest or largest of each element and its two neighbours on an axis.

    By slices: max pooling has no deterministic gradient on a GPU in 3D.
    """
    length = x.shape[axis]
    if length == 1:
        return x
    pairs = choose(x.narrow(axis, 0, length - 1), x.narrow(axis, 1, length - 1))
    inside = choose(pairs.narrow(axis, 0, length - 2), pairs.narrow(axis, 1, length - 2))
    return torch.cat([pairs.narrow(axis, 0, 1), inside, pairs.narrow(axis, length - 2, 1)], axis)
