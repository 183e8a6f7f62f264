"""Strokes: how lines that lie over each other are told apart. Loads no matplotlib."""

from typing import Any

from engine.figures.colours import LINES

PATTERNS = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
SOLID = 4
"""Lines after which the pattern changes: so many colours are told apart without it."""


def stroke(number: int) -> dict[str, Any]:
    """What matplotlib needs to know of line 0, 1, …: no two of the first 8 share a colour, and none of the
    first 16 colour and pattern."""
    colour, turn = LINES[number % len(LINES)], number // len(LINES)
    pattern = PATTERNS[(number // SOLID + turn // 2) % len(PATTERNS)]
    return {"color": colour, "linestyle": pattern, "linewidth": 1.3}


def band_opacity(count: int) -> float:
    """Of the bands of so many lines, so that lines still show where all bands lie over each other."""
    return 0.18 if count <= 3 else 0.54 / count
