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
    PAD,
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

TEXT = 1.35
"""Inches for the words beside a row."""
LINE = 0.125
"""Inches a line of them is high."""
CHARACTERS, BOLD = 24, 17
"""That fit in a line of them, and of a name."""


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
    cell = (width - TEXT) / 4 - 2 * PAD
    heights = [
        max(cell * min(case.truth.shape[1] / case.truth.shape[2], 2.0), LINE * (len(name) + len(words) + 1))
        for case, (name, words) in zip(cases, notes, strict=True)
    ]
    figure = page(width, sum(heights) + 2 * PAD * len(cases) + (0.65 if title else 0.45), title)
    grid = figure.subplots(
        len(cases), 5, squeeze=False, height_ratios=heights, width_ratios=[cell] * 4 + [TEXT]
    )
    for row, (axes, case, words) in enumerate(zip(grid, cases, notes, strict=True)):
        _draw_row(axes, case, words, heading=row == 0)
    legend_below(figure, legend_entries(cases, names))
    return figure


def dice(truth: Mask, prediction: Mask, valid: Mask | None = None) -> list[float]:
    """Of each class of bool (C, H, W); NaN where truth and prediction are both empty."""
    if valid is not None:
        truth, prediction = truth & valid, prediction & valid
    both = (truth & prediction).sum(axis=(1, 2))
    total = truth.sum(axis=(1, 2)) + prediction.sum(axis=(1, 2))
    return [2 * int(b) / int(t) if t else math.nan for b, t in zip(both, total, strict=True)]


def _notes(case: Panel, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paragraphs beside a row: its name, and the rest."""
    scores = [
        "undefined" if math.isnan(d) else f"{d:.3f}" for d in dice(case.truth, case.prediction, case.valid)
    ]
    if len(scores) == 1:
        lines = [f"Dice {scores[0]}"]
    else:
        room = CHARACTERS - 7
        lines = ["Dice", *(f"{s}  {shorten(n, room)}" for n, s in zip(names, scores, strict=True))]
    return _two_lines(case.name), lines + textwrap.wrap(case.caption, CHARACTERS)


def _two_lines(name: str) -> list[str]:
    """A name on one line or two, broken after a separator where there is one."""
    if len(name) <= BOLD:
        return [name]
    cut = max(name.rfind(mark, 0, BOLD) for mark in "_-. ") + 1 or BOLD
    return [name[:cut], shorten(name[cut:], BOLD)]


def _draw_row(axes: Any, case: Panel, words: tuple[list[str], list[str]], *, heading: bool) -> None:
    titles = ("image", "truth", "prediction", "errors") if heading else ("", "", "", "")
    pictures = (
        picture(case.image, case.valid),
        classes(case.truth, case.valid),
        classes(case.prediction, case.valid),
        errors(case.image, case.truth, case.prediction, case.valid),
    )
    for panel, shown, title in zip(axes, pictures, titles, strict=False):
        image_axes(panel, shown, title)
    _write(axes[4], *words)


def _write(axes: Axes, name: Sequence[str], words: Sequence[str]) -> None:
    axes.set_axis_off()
    style: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "color": INK}
    bold = axes.text(0, 1, "\n".join(name), fontsize=NORMAL, fontweight="bold", **style)
    axes.annotate("\n".join(words), (0, 0), xycoords=bold, xytext=(0, -3), textcoords="offset points",
                  fontsize=SMALL, linespacing=1.25, va="top", color=INK)  # fmt: skip


def legend_entries(cases: Sequence[Panel], names: Sequence[str]) -> list[Patch]:
    """Entries for all that can occur in some panels of the same classes; confused and ignored pixels only
    where they do."""
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
