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
from engine.figures.views import View, view

TEXT = 1.35
"""Inches for the words beside a row."""
LINE = 0.125
"""Inches a line of them is high."""
CHARACTERS, BOLD = 24, 17
"""That fit in a line of them, and of a name."""


@dataclass(frozen=True)
class Volume:
    """What is said of a volume of which a slice is shown.

    Attributes:
        place: which slice it is, such as "slice 23 of 35, axis z".
        dice: of each class, NaN where not defined.
        missed, false: voxels, over all classes.
    """

    place: str
    dice: tuple[float, ...]
    missed: int
    false: int


@dataclass(frozen=True)
class Panel:
    """One image to show, or a slice of a volume; :meth:`of` makes it of either.

    Attributes:
        name: of the image.
        image: (H, W, channels), any real dtype, as it was read.
        truth, prediction: bool (C, H, W).
        valid: bool (H, W), or None where every pixel counts.
        caption: a few words to stand beside it, or "".
        aspect: height of a pixel over its width.
        volume: that this is a slice of, or None.
    """

    name: str
    image: NDArray[Any]
    truth: Mask
    prediction: Mask
    valid: Mask | None = None
    caption: str = ""
    aspect: float = 1.0
    volume: Volume | None = None

    @classmethod
    def of(
        cls, name: str, image: NDArray[Any], truth: Mask, prediction: Mask, valid: Mask | None = None,
        seen: View | None = None,
    ) -> "Panel":  # fmt: skip
        """An image (H, W, channels) as it is, or the slice of a volume (D, H, W, channels) that shows most.

        Args:
            name: of the image.
            image: (*S, channels).
            truth, prediction: bool (C, *S).
            valid: bool (*S), or None.
            seen: how a volume is looked at; without it across z, as nothing is known of its voxels.
        """
        if truth.ndim == 3:
            return cls(name, image, truth, prediction, valid)
        seen = seen or view(truth, prediction, valid)
        scores = tuple(dice(truth, prediction, valid))
        whole = Volume(seen.words, scores, *miscounted(truth, prediction, valid))
        # Copies, as a slice that is only looked at would keep its volume in memory.
        cut = None if valid is None else seen.of(valid).copy()
        truth, prediction = seen.of(truth, 1).copy(), seen.of(prediction, 1).copy()
        return cls(name, seen.of(image).copy(), truth, prediction, cut, "", seen.aspect, whole)

    @property
    def dice(self) -> tuple[float, ...]:
        """Of each class, of the whole image or volume; NaN where truth and prediction are both empty."""
        if self.volume is not None:
            return self.volume.dice
        return tuple(dice(self.truth, self.prediction, self.valid))

    @property
    def missed_and_false(self) -> tuple[int, int]:
        """Pixels or voxels of the whole that are missed, and falsely found."""
        if self.volume is not None:
            return self.volume.missed, self.volume.false
        return miscounted(self.truth, self.prediction, self.valid)

    @property
    def proportion(self) -> float:
        """Height over width, as it is shown."""
        _, rows, columns = self.truth.shape
        return float(self.aspect * rows / columns)


def panels(cases: Sequence[Panel], title: str = "", *, names: Sequence[str] = ()) -> Figure:
    """A row an image: image, truth, prediction, errors over the image, and its Dice.

    Of a volume a slice is shown, and its words and Dice are the whole volume's.

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
        max(cell * min(case.proportion, 2.0), LINE * (len(name) + len(words) + 1))
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
    """Of each class of bool (C, *S); NaN where truth and prediction are both empty."""
    if valid is not None:
        truth, prediction = truth & valid, prediction & valid
    count = len(truth)
    both = (truth & prediction).reshape(count, -1).sum(axis=1)
    total = truth.reshape(count, -1).sum(axis=1) + prediction.reshape(count, -1).sum(axis=1)
    return [2 * int(b) / int(t) if t else math.nan for b, t in zip(both, total, strict=True)]


def miscounted(truth: Mask, prediction: Mask, valid: Mask | None = None) -> tuple[int, int]:
    """Pixels or voxels of bool (C, *S) that are missed and falsely found, over all classes, where they
    count."""
    missed, false = truth & ~prediction, prediction & ~truth
    if valid is not None:
        missed, false = missed & valid, false & valid
    return int(missed.sum()), int(false.sum())


def _notes(case: Panel, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paragraphs beside a row: its name, and the rest."""
    scores = ["undefined" if math.isnan(d) else f"{d:.3f}" for d in case.dice]
    if len(scores) == 1:
        lines = [f"Dice {scores[0]}"]
    else:
        room = CHARACTERS - 7
        lines = ["Dice", *(f"{s}  {shorten(n, room)}" for n, s in zip(names, scores, strict=True))]
    place = case.volume.place if case.volume is not None else ""
    return _two_lines(case.name), [
        *lines,
        *textwrap.wrap(place, CHARACTERS),
        *textwrap.wrap(case.caption, CHARACTERS),
    ]


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
        image_axes(panel, shown, title, aspect=case.aspect)
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
