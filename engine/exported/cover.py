"""A picture of what a run does: an image, and what it finds in it."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.figures.colours import class_colour, rgb
from engine.figures.overlay import picture

SIDE = 256
"""Of each of the two squares, in pixels."""


def cover(pixels: NDArray[Any], masks: NDArray[np.bool_]) -> bytes:
    """A PNG, twice as wide as high: the image, and the image with its classes in colour.

    Args:
        pixels: (*S, channels), any real dtype. Of a volume the slice with most foreground is shown.
        masks: (C, *S)
    """
    if masks.ndim == 4:
        best = int(masks.any(0).sum((1, 2)).argmax())
        pixels, masks = pixels[best], masks[:, best]
    plain = picture(pixels)
    coloured = plain.copy()
    for number, mask in enumerate(masks):
        coloured[mask] = 0.45 * coloured[mask] + 0.55 * rgb(class_colour(number))
    halves = [_square(half) for half in (plain, coloured)]
    whole = Image.new("RGB", (2 * SIDE, SIDE))
    for number, half in enumerate(halves):
        whole.paste(half, (number * SIDE, 0))
    packed = BytesIO()
    whole.save(packed, format="PNG", optimize=True)
    return packed.getvalue()


def _square(half: NDArray[np.float32]) -> Image.Image:
    """The middle square of a picture (H, W, 3), 0…1, at the cover's size."""
    side = min(half.shape[:2])
    top, left = ((length - side) // 2 for length in half.shape[:2])
    middle = half[top : top + side, left : left + side]
    levels = np.rint(255 * middle.clip(0, 1)).astype(np.uint8)
    return Image.fromarray(levels).resize(
        (SIDE, SIDE), Image.Resampling.NEAREST if side < SIDE else Image.Resampling.BOX
    )
