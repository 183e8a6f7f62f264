"""Sheets: the colours that plots are drawn in, on a dark or a light ground."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.figures.colours import ADDED, FAINT, INK, VALIDATION, rgb

CONTRAST = 3.0
"""Least contrast ratio (WCAG 2, 1…21) of a line and what it is drawn on."""
CHALK, CHALK_FAINT = "#F0F1F2", "#9A9DA4"
"""Ink on a dark ground."""


@dataclass(frozen=True)
class Sheet:
    """Colours of a plot, "#RRGGBB".

    Attributes:
        ground: what everything is drawn on.
        ink: text, the cursor, and what is measured on training images.
        faint: axes, and what measured lines are held against.
        shade: the warm-up.
        measured: fitted slopes, and what is measured on validation images.
        added: updates of the masks.
    """

    ground: str
    ink: str
    faint: str
    shade: str
    measured: str
    added: str = ADDED

    @classmethod
    def on(cls, ground: str) -> "Sheet":
        """The sheet for a ground, which is a window's own colour."""
        if is_dark(ground):
            # The blue of printed figures would sink into a dark ground.
            return cls(ground, CHALK, CHALK_FAINT, _mix(ground, CHALK, 0.12), _mix(VALIDATION, CHALK, 0.4))
        return cls(ground, INK, FAINT, _mix(ground, INK, 0.08), VALIDATION)

    def readable(self, colour: str) -> str:
        """The colour, mixed with ink as far as a line in it needs to be seen on the ground."""
        for tenths in range(10):
            mixed = _mix(colour, self.ink, tenths / 10)
            if contrast(mixed, self.ground) >= CONTRAST:
                return mixed
        return self.ink


def is_dark(ground: str) -> bool:
    """Whether light ink can be read better on a ground than dark ink."""
    return contrast(CHALK, ground) > contrast(INK, ground)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours after WCAG 2: 1 (the same) … 21 (black and white)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgba(colour: str) -> NDArray[np.uint8]:
    """Red, green, blue and full opacity, uint8 (4,)."""
    return np.array([*(round(255 * float(v)) for v in rgb(colour)), 255], dtype=np.uint8)


def _luminance(colour: str) -> float:
    levels = (float(v) for v in rgb(colour))
    linear = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels)
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _mix(colour: str, other: str, share: float) -> str:
    mixed = (1 - share) * rgb(colour) + share * rgb(other)
    return "#" + "".join(f"{round(255 * float(v)):02X}" for v in mixed)


DARK = Sheet.on("#262930")
"""On the ground of napari's dark theme."""
LIGHT = Sheet.on("#FFFFFF")
