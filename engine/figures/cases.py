"""Panels: images beside their truth, their prediction, and where the two differ."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from engine.errors import InputError
from engine.figures.colours import CONFUSED, CORRECT, FALSE_ALARM, INK, MISSED, class_colour
from engine.figures.overlay import Mask, classes, confusion, errors, picture
from engine.figures.page import (
    LARGE,
    NORMAL,
    SMALL,
    WIDE,
    WIDTH,
    ignored_swatch,
    image_axes,
    legend_below,
    page,
    shorten,
    swatch,
)

TEXT = 1.25
"""Inches for the words beside a row."""
LINE = 0.125
"""Inches a line of them is high."""
CHARACTERS = 22
"""That fit in a line of them."""


@dataclass(frozen=True)
class Panel:
    """One image to show.

    Attributes:
        name: of the image.
        image: (H, W, channels), any real dtype, as it was read.
        truth, prediction: bool (C, H, W).
        valid: bool (H, W), or None where every pixel counts.
        caption: a few words to stand beside it, or "".
    """

    name: str
    image: NDArray[Any]
    truth: Mask
    prediction: Mask
    valid: Mask | None = None
    caption: str = ""


def panels(cases: Sequence[Panel], title: str = "", *, names: Sequence[str] = ()) -> Figure:
    """A row an image: image, truth, prediction, errors over the image, and its Dice.

    Args:
        cases: at least one, all with the same classes.
        title: over the figure.
        names: of the C classes; "class 1" and so on where they are not given.

    Raises:
        InputError: there is no case.
    """
    if not cases:
        raise InputError("there is no image to show: give at least one.")
    count = len(cases[0].truth)
    names = list(names) or [f"class {number + 1}" for number in range(count)]
    notes = [_notes(case, names) for case in cases]
    width = WIDE if max(max(case.truth.shape[1:]) for case in cases) >= LARGE else WIDTH
    cell = (width - TEXT) / 4
    heights = [
        max(cell * min(case.truth.shape[1] / case.truth.shape[2], 2.0), LINE * (len(words) + 1))
        for case, words in zip(cases, notes, strict=True)
    ]
    figure = page(width, sum(heights) + 0.07 * len(cases) + 0.6, title)
    grid = figure.subplots(
        len(cases), 5, squeeze=False, height_ratios=heights, width_ratios=[cell] * 4 + [TEXT]
    )
    for axes, case, words in zip(grid, cases, notes, strict=True):
        _draw_row(axes, case, words, heading=axes is grid[0])
    legend_below(figure, _legend(cases, names))
    return figure


def dice(truth: Mask, prediction: Mask, valid: Mask | None = None) -> list[float]:
    """Of each class of bool (C, H, W); NaN where truth and prediction are both empty."""
    if valid is not None:
        truth, prediction = truth & valid, prediction & valid
    both = (truth & prediction).sum(axis=(1, 2))
    total = truth.sum(axis=(1, 2)) + prediction.sum(axis=(1, 2))
    return [2 * int(b) / int(t) if t else math.nan for b, t in zip(both, total, strict=True)]


def _notes(case: Panel, names: Sequence[str]) -> list[str]:
    """The lines beside a row; the first is the name."""
    scores = [
        "undefined" if math.isnan(d) else f"{d:.3f}" for d in dice(case.truth, case.prediction, case.valid)
    ]
    lines = [shorten(case.name, CHARACTERS)]
    if len(scores) == 1:
        lines.append(f"Dice {scores[0]}")
    else:
        room = CHARACTERS - 7
        lines += ["Dice", *(f"{s}  {shorten(n, room)}" for n, s in zip(names, scores, strict=True))]
    return lines + textwrap.wrap(case.caption, CHARACTERS + 2)


def _draw_row(axes: Any, case: Panel, words: Sequence[str], *, heading: bool) -> None:
    titles = ("image", "truth", "prediction", "errors") if heading else ("", "", "", "")
    pictures = (
        picture(case.image, case.valid),
        classes(case.truth, case.valid),
        classes(case.prediction, case.valid),
        errors(case.image, case.truth, case.prediction, case.valid),
    )
    for panel, shown, title in zip(axes, pictures, titles, strict=False):
        image_axes(panel, shown, title)
    _write(axes[4], words)


def _write(axes: Axes, words: Sequence[str]) -> None:
    axes.set_axis_off()
    style = {"transform": axes.transAxes, "va": "top", "ha": "left", "color": INK}
    axes.text(0, 1, words[0], fontsize=NORMAL, fontweight="bold", **style)  # type: ignore[arg-type]
    text = "\n" + "\n".join(words[1:])
    axes.text(0, 1, text, fontsize=SMALL, linespacing=1.25, **style)  # type: ignore[arg-type]


def _legend(cases: Sequence[Panel], names: Sequence[str]) -> list[Patch]:
    """Entries for all that can occur; confused and ignored pixels only where they do."""
    entries = []
    if len(names) > 1:
        entries += [swatch(class_colour(number), name) for number, name in enumerate(names)]
    right = "true positive" if len(names) > 1 else "foreground, true positive"
    entries += [
        swatch(CORRECT, right),
        swatch(MISSED, "false negative"),
        swatch(FALSE_ALARM, "false positive"),
    ]
    if any(confusion(case.truth, case.prediction, case.valid)[3].any() for case in cases):
        entries.append(swatch(CONFUSED, "wrong class"))
    if any(case.valid is not None and not np.all(case.valid) for case in cases):
        entries.append(ignored_swatch())
    return entries
