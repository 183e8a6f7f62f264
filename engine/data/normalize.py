"""Intensities of an image as an affine map per channel, so that uint8 can stay uint8 until it is used."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

Image = NDArray[Any]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIPPED = frozenset({"percentile"})
"""Methods whose result is clipped to 0…1 after the affine map."""


def white(dtype: np.dtype[Any]) -> float:
    """The largest intensity of a kind of image, as files have it: 255, 65535, or 1 for fractions."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def affine(image: Image, method: str, *, top: float = 1.0) -> tuple[Image, Image]:
    """Scale and shift of each channel, so that ``image * scale + shift`` is normalised.

    By the whole image: who predicts has no field of view, and must see what training saw.

    Args:
        image: (*S, channels), any real dtype.
        method: "zscore", "unit", "percentile" or "imagenet".
        top: intensity that ImageNet's constants take as 1, see :func:`white`.

    Returns:
        float32 (channels,) scale and shift. A constant channel becomes 0. Where 1st and 99th
        percentile are one value, as in sparse images, "percentile" takes the whole range.

    Raises:
        InputError: "imagenet" for an image that has not 3 channels.
    """
    channels = image.shape[-1]
    if method == "imagenet":
        return constant(channels, top)
    # Channel by channel, since float64 is up to eight times the image.
    return mapped([_ends(image[..., channel], method) for channel in range(channels)])


def constant(channels: int, top: float) -> tuple[Image, Image]:
    """Scale and shift of "imagenet", whatever the image."""
    if channels != 3:
        raise InputError(
            f"data.normalization imagenet needs RGB images, not {channels} channels: "
            "use zscore, or data.color rgb."
        )
    scale = 1 / (top * np.asarray(IMAGENET_STD))
    return scale.astype(np.float32), (-np.asarray(IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)


def mapped(ends: Sequence[tuple[float, float]]) -> tuple[Image, Image]:
    """Scale and shift from what becomes 0 in each channel, and how far from it what becomes 1 lies."""
    low, spread = np.asarray(ends).T
    scale = np.where(spread > np.maximum(1e-30, 1e-8 * np.abs(low)), 1 / np.maximum(spread, 1e-30), 0.0)
    return scale.astype(np.float32), (-low * scale).astype(np.float32)


def normalised(image: Image, scale: Image, shift: Image, method: str) -> NDArray[np.float32]:
    """Intensities float32 (*S, channels) by what :func:`affine` gave for the method."""
    values = image.astype(np.float32) * scale + shift
    return values.clip(0, 1) if method in CLIPPED else values


def moments(count: int, total: int, square: int) -> tuple[float, float]:
    """Mean and deviation of whole numbers from their sum and that of their squares: exact until the last
    division and root."""
    return total / count, math.sqrt((count * square - total * total) / (count * count))


def _ends(pixels: Image, method: str) -> tuple[float, float]:
    """What becomes 0, and how far from it what becomes 1 lies."""
    if method == "zscore" and pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        whole = pixels.astype(np.int64).ravel()
        return moments(len(whole), int(whole.sum()), int(np.dot(whole, whole)))
    pixels = pixels.astype(np.float64)
    if method == "zscore":
        return float(pixels.mean()), float(pixels.std())
    low, high = np.percentile(pixels, (1, 99)) if method == "percentile" else (0.0, 0.0)
    if low == high:
        low, high = pixels.min(), pixels.max()
    return float(low), float(high - low)
