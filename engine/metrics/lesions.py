"""Metrics of whole lesions: how many were found, whatever their size."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]


class Lesions(NamedTuple):
    """Lesions of each image and class, int64 (B, C). Those of several images are pooled by adding them."""

    detected: Tensor
    total: Tensor


def lesion_recall(prediction: Tensor, truth: Tensor, *, valid: Tensor | None = None) -> Lesions:
    """Count the lesions of the truth, and those that the prediction touches (U-Net vs SemanticFPN paper, §4).

    A lesion is a connected component of the truth of one class, diagonals included: 8 neighbours in 2D,
    26 in 3D. It is detected if at least one of its pixels is predicted.

    Args:
        prediction: masks, bool or {0, 1}, (B, C, *S). Probabilities must be thresholded first.
        truth: masks, bool or {0, 1}, of the same shape.
        valid: bool (B, 1, *S); False is background to both, so a lesion that it cuts in two counts twice.

    Returns:
        The counts, on the CPU, where the labelling runs. Lesion recall is the sum of ``detected`` over the
        sum of ``total``.
    """
    masks = [x.bool() if valid is None else x.bool() & valid for x in (prediction, truth)]
    predicted, true = (x.flatten(0, 1).cpu().numpy() for x in masks)
    counts = np.array([_counted(p, t) for p, t in zip(predicted, true, strict=True)], np.int64)
    detected, total = torch.from_numpy(counts.reshape(-1, 2)).view(*prediction.shape[:2], 2).unbind(-1)
    return Lesions(detected, total)


def _counted(prediction: Mask, truth: Mask) -> tuple[int, int]:
    """Detected and all components of one mask."""
    from scipy import ndimage

    component, total = ndimage.label(truth, structure=np.ones((3,) * truth.ndim, np.bool_))
    return len(np.unique(component[prediction & truth])), total
