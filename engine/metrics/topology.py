"""Metrics of connectedness."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]


def cldice(prediction: Tensor, truth: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Centreline Dice on hard skeletons (SMM paper, metrics; Shit et al., CVPR 2021, Eq. 3).

    The harmonic mean of two shares: of the predicted skeleton inside the truth, and of the
    true skeleton inside the prediction.

    Args:
        prediction: masks, bool or {0, 1}, (B, C, H, W) or (B, C, D, H, W).
        truth: masks, bool or {0, 1}, of the same shape.
        valid: bool (B, 1, *S); False is background to both.

    Returns:
        float64 in [0, 1], (B, C); NaN if both are empty, 0 if only one is. On the CPU,
        where the thinning runs.
    """
    masks = [x.bool() if valid is None else x.bool() & valid for x in (prediction, truth)]
    predicted, true = (x.flatten(0, 1).cpu().numpy() for x in masks)
    scores = [_cldice(p, t) for p, t in zip(predicted, true, strict=True)]
    return torch.tensor(scores, dtype=torch.float64).view(prediction.shape[:2])


def _cldice(prediction: Mask, truth: Mask) -> float:
    if not (prediction.any() or truth.any()):
        return np.nan
    if not (prediction.any() and truth.any()):
        return 0.0
    precise = truth[_skeleton(prediction)].mean()
    sensitive = prediction[_skeleton(truth)].mean()
    # Without overlap both are 0, and so is their harmonic mean.
    return float(2 * precise * sensitive / max(precise + sensitive, np.finfo(float).tiny))


def _skeleton(mask: Mask) -> Mask:
    """Skeleton of a non-empty mask, as scikit-image thins it, so that values compare with published ones.

    In 3D it deletes some components of even width altogether (its issue 3757). Where
    that leaves nothing, the score would be undefined, and the mask is its own skeleton.
    """
    from skimage.morphology import skeletonize

    skeleton: Mask = skeletonize(mask)  # type: ignore[no-untyped-call]
    return skeleton if skeleton.any() else mask
