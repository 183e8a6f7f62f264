"""Intensities of an image as an affine map per channel, so that uint8 can stay uint8 until it is used."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

Image = NDArray[Any]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIPPED = frozenset({"percentile"})
"""Methods whose result is clipped to 0…1 after the affine map."""


def affine(image: Image, valid: NDArray[np.bool_] | None, method: str) -> tuple[Image, Image]:
    """Scale and shift of each channel, so that ``image * scale + shift`` is normalised.

    Args:
        image: (*S, channels), any real dtype.
        valid: bool (*S) or None; statistics are over True pixels only.
        method: "zscore", "unit", "percentile" or "imagenet".

    Returns:
        float32 (channels,) scale and shift. A constant channel becomes 0.

    Raises:
        InputError: "imagenet" for an image that has not 3 channels.
    """
    channels = image.shape[-1]
    if method == "imagenet":
        if channels != 3:
            raise InputError(
                f"data.normalization imagenet needs RGB images, not {channels} channels: "
                "use zscore, or data.color rgb."
            )
        top = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1.0
        scale = 1 / (top * np.asarray(IMAGENET_STD))
        return scale.astype(np.float32), (-np.asarray(IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)
    pixels = image.reshape(-1, channels) if valid is None or not valid.any() else image[valid]
    pixels = pixels.astype(np.float64)
    if method == "zscore":
        low, spread = pixels.mean(axis=0), pixels.std(axis=0)
    else:
        ends = (0, 100) if method == "unit" else (1, 99)
        low, high = np.percentile(pixels, ends, axis=0)
        spread = high - low
    scale = np.where(spread > 1e-8 * np.maximum(1.0, np.abs(low)), 1 / np.maximum(spread, 1e-30), 0.0)
    return scale.astype(np.float32), (-low * scale).astype(np.float32)
