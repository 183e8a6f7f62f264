"""Images and masks as pixels to look at. All pictures are float32 (H, W, 3), 0…1."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.figures.colours import (
    ADDED,
    BACKGROUND,
    CONFUSED,
    CORRECT,
    FALSE_ALARM,
    IGNORED,
    MISSED,
    class_colour,
    rgb,
)

Image = NDArray[Any]
Mask = NDArray[np.bool_]
Picture = NDArray[np.float32]

PERCENTILES = (0.5, 99.5)
"""Intensities that become black and white, except in 8-bit colour images, which stay as they are."""
DIMMED = 0.30
"""Brightness that white keeps under an overlay, so that every colour on it is the lightest thing there."""


def picture(image: Image, valid: Mask | None = None) -> Picture:
    """An image as its owner would look at it.

    Args:
        image: (H, W) or (H, W, channels), any real dtype. 1 channel is gray, 2 are green and
            magenta, of more the first three are red, green and blue.
        valid: bool (H, W); the contrast is taken from True pixels only.
    """
    channels = image.reshape(*image.shape[:2], -1)[..., :3]
    count = channels.shape[2]
    if count == 3:
        return _unit(channels) if image.dtype == np.uint8 else _stretch(channels, valid)
    parts = [_stretch(channels[..., [index]], valid) for index in range(count)]
    if count == 1:
        return np.repeat(parts[0], 3, axis=2)
    green, magenta = parts
    return np.concatenate([magenta, green, magenta], axis=2)


def backdrop(image: Image, valid: Mask | None = None) -> Picture:
    """The image in dim gray, so that colour and brightness are free to mean something."""
    gray = picture(image, valid) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return _ignore(np.repeat(DIMMED * gray[..., None], 3, axis=2), valid)


def classes(masks: Mask, valid: Mask | None = None) -> Picture:
    """Masks bool (C, H, W) on black: one class light, several in their colours, mixed where they overlap."""
    count = masks.sum(axis=0)[..., None]
    colours = [CORRECT] if len(masks) == 1 else [class_colour(number) for number in range(len(masks))]
    total = np.einsum("chw,cr->hwr", masks, np.stack([rgb(colour) for colour in colours]))
    mixed = np.where(count > 0, total / np.maximum(count, 1), rgb(BACKGROUND))
    return _ignore(mixed.astype(np.float32), valid)


def confusion(truth: Mask, prediction: Mask, valid: Mask | None = None) -> tuple[Mask, Mask, Mask, Mask]:
    """Where a pixel is correct, missed, a false alarm, or confused, over all classes of (C, H, W).

    The four exclude one another: a pixel with any miss is not correct, and one that is missed
    for one class and a false alarm for another is confused only.
    """
    missed = (truth & ~prediction).any(axis=0)
    alarm = (prediction & ~truth).any(axis=0)
    correct = (truth & prediction).any(axis=0) & ~missed & ~alarm
    counted = np.ones(truth.shape[1:], dtype=bool) if valid is None else valid
    return correct & counted, missed & ~alarm & counted, alarm & ~missed & counted, missed & alarm & counted


def errors(image: Image, truth: Mask, prediction: Mask, valid: Mask | None = None) -> Picture:
    """False negatives, false positives and what is right, over the dimmed image; masks bool (C, H, W)."""
    paint = zip(confusion(truth, prediction, valid), (CORRECT, MISSED, FALSE_ALARM, CONFUSED), strict=True)
    return _painted(backdrop(image, valid), *paint)


def growth(image: Image, truth: Mask, modulated: Mask, valid: Mask | None = None) -> Picture:
    """The truth and what a modulated mask adds to it, over the dimmed image; one class, bool (H, W)."""
    added = added_to(truth, modulated, valid)
    truth = truth if valid is None else truth & valid
    return _painted(backdrop(image, valid), (truth, CORRECT), (added, ADDED))


def added_to(truth: Mask, modulated: Mask, valid: Mask | None = None) -> Mask:
    """Pixels that the loss sees as foreground and the truth does not."""
    added = modulated & ~truth
    return added if valid is None else added & valid


def _painted(canvas: Picture, *layers: tuple[Mask, str]) -> Picture:
    for mask, colour in layers:
        canvas[mask] = rgb(colour)
    return canvas


def _ignore(canvas: Picture, valid: Mask | None) -> Picture:
    return canvas if valid is None else _painted(canvas, (~valid, IGNORED))


def _unit(image: Image) -> Picture:
    return image.astype(np.float32) / np.float32(255)


def _stretch(image: Image, valid: Mask | None) -> Picture:
    """Contrast between two percentiles, which all channels share so that colours keep their hue."""
    values = image[valid] if valid is not None and valid.any() else image
    low, high = np.percentile(values.astype(np.float64), PERCENTILES)
    if high <= low:  # sparse or constant
        low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    stretched: Picture = np.clip((image.astype(np.float64) - low) / span, 0, 1).astype(np.float32)
    return stretched
