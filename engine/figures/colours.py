"""What each colour means, in every figure alike.

From the palettes of Okabe and Ito and of Tol, so that misses and false alarms differ under
every colour blindness and, by lightness, in a gray print.
"""

import numpy as np
from numpy.typing import NDArray

CORRECT = "#E8E8E8"
"""True positives, and the truth of a single class."""
MISSED = "#D55E00"
"""False negatives (vermillion)."""
FALSE_ALARM = "#56B4E9"
"""False positives (sky blue)."""
CONFUSED = "#F0E442"
"""Missed for one class and a false alarm for another (yellow)."""
ADDED = "#E69F00"
"""Pixels that modulation adds to the truth, and the updates that add them (orange)."""
BACKGROUND = "#000000"
IGNORED = "#3A3A44"
"""Pixels that are not valid."""

INK = "#1A1A1A"
"""Text, and what is measured on training images."""
FAINT = "#7A7A7A"
"""What measured lines are held against."""
VALIDATION = "#0072B2"
SHADE = "#ECECEC"
"""The warm-up."""

CLASSES = ("#009E73", "#CC79A7", "#DDCC77", "#882255", "#44AA99", "#999933")
"""Foreground classes, over again where there are more."""

LINES = ("#3B4CC0", "#CC79A7", "#228833", "#1A1A1A", "#7B3FA0", "#AA9933", "#44AA99", "#661100")
"""Methods whose lines lie over each other; :mod:`engine.figures.strokes` gives them patterns, too."""


def class_colour(number: int) -> str:
    """Of class 0…C-1."""
    return CLASSES[number % len(CLASSES)]


def rgb(colour: str) -> NDArray[np.float32]:
    """Red, green, blue of "#RRGGBB": 0…1, float32 (3,)."""
    levels = bytes.fromhex(colour.removeprefix("#"))
    return np.array(list(levels), dtype=np.float32) / np.float32(255)
