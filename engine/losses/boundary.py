"""Boundary loss, and the distances that it weighs by."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.losses.masked import alike, total
from engine.losses.pixels import number


def signed_distance(
    mask: NDArray[np.bool_], spacing: Sequence[float] | None = None
) -> NDArray[np.floating[Any]]:
    """Signed distance to a mask's boundary: φ of Kervadec et al., MIDL 2019, as in their code.

    Outside, the distance to the nearest element of the mask; inside, ``-(d - 1)`` with d the
    distance to the nearest element outside. So the mask's outermost elements have φ = 0.

    Args:
        mask: bool or {0, 1}, (H, W) or (D, H, W), one class of one image, invalid pixels False.
        spacing: distance between neighbours on each axis; None is 1 on all. The 1 that is
            subtracted inside is one unit of it, as in the published code: give it relative
            to the finest axis, such as (5, 1, 1), and not in mm, or the outermost elements of a
            mask are off 0, and with a spacing below 1 they even count as outside.

    Returns:
        float64 of the mask's shape, in units of the spacing. 0 everywhere if the mask is empty or
        full: it has no boundary, so the boundary loss says nothing about it.
    """
    mask = np.asarray(mask, bool)  # of uint8, ~ would make no mask but 254 and 255
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    from scipy.ndimage import distance_transform_edt  # here, as only this loss needs it

    outside = distance_transform_edt(~mask, sampling=spacing)
    inside = distance_transform_edt(mask, sampling=spacing)
    distance: NDArray[np.floating[Any]] = np.where(mask, 1 - inside, outside)
    return distance


def boundary(p: Tensor, phi: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Boundary loss, ``mean(p φ)`` (Kervadec et al., MIDL 2019).

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        phi: φ of :func:`signed_distance`, (B, C, *S).
        valid: bool (B, 1, *S); False adds nothing to the sum, and the mean is over True.

    Returns:
        Loss of each image and class, float32 (float64 if p is), (B, C): smallest, and not
        above 0, for the truth itself; 0 where no pixel is valid.
    """
    pixels = number(p, valid)
    p, phi = alike(p, phi, valid)
    return total(p * phi) / pixels
