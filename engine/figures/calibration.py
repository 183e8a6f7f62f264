"""Calibration: whether probabilities say how often they are right, and what a threshold gains by it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from engine.errors import InputError
from engine.figures.colours import CLASSES, FAINT, FALSE_ALARM, INK, MISSED, class_colour
from engine.figures.page import NORMAL, WIDTH, legend_below, page, plot_axes, shorten, swatch
from engine.figures.series import Reliability, ThresholdCurve
from engine.figures.strokes import band_opacity

STROKES = ("-", "--", ":", "-.")
"""Of lines; a further one where there are more series than colours."""
SCORES = {"recall": ("recall", MISSED), "precision": ("precision", FALSE_ALARM), "dice": ("Dice", INK)}
"""Score over the threshold → its name, and its colour where it is drawn beside the others."""
NAME = 40
"""Characters of a label."""
BAND_SHADE = "#D8D8D8"
INTERVAL = "95 % interval"


def reliability_diagram(
    series: Mapping[str, Reliability], title: str = "", *, styles: Sequence[Mapping[str, Any]] = ()
) -> Figure:
    """The share of true pixels by p, and below it how many pixels have it.

    On the diagonal p is right: of the pixels with p = 0.8 four in five are true. Bins without pixels have
    no mark. The legend gives the ECE of all of a series' pixels together.

    Args:
        series: label → its bins; at least one.
        title: over the figure.
        styles: of the lines, as :func:`engine.figures.strokes.stroke` gives them; the classes' colours if
            not given.

    Raises:
        InputError: there is no series.
    """
    _refuse_none(series)
    figure = page(WIDTH * 0.62, 5.1, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    plot_axes(above, "", "share of true pixels")
    plot_axes(below, "", "share of pixels")
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=1)
    handles = []
    for style, (label, bins) in zip(styles or _styles(len(series)), series.items(), strict=True):
        used = bins.count > 0
        x, y = bins.confidence[used] / bins.count[used], bins.truth[used] / bins.count[used]
        above.plot(x, y, marker="o", markersize=3.2, clip_on=False, **style)
        edges = np.linspace(0, 1, len(bins.count) + 1)
        shares = bins.count / max(int(bins.count.sum()), 1)
        below.stairs(np.where(shares > 0, shares, np.nan), edges, baseline=None, **style)
        error = "undefined" if math.isnan(bins.ece) else f"{bins.ece:.4f}"
        name = f"{shorten(label, NAME)}, ECE {error}"
        handles.append(Line2D([], [], marker="o", markersize=3.2, label=name, **style))
    _unit(above)
    below.set_yscale("log")
    below.minorticks_off()
    below.set_xlabel("probability p", fontsize=NORMAL, color=INK)
    handles.append(Line2D([], [], color=FAINT, linewidth=0.8, label="calibrated"))
    legend_below(figure, handles)
    return figure


def threshold_curves(
    series: Mapping[str, ThresholdCurve], title: str = "", *, styles: Sequence[Mapping[str, Any]] = ()
) -> Figure:
    """Recall, precision and Dice over the threshold T, with bands of 95 % intervals.

    One series has a panel with three lines. Of several each score has a panel, so that methods lie over
    each other (as the DSC++ paper's Fig. 4 compares losses).

    Args:
        series: label → its curve; at least one.
        title: over the figure.
        styles: of the lines of several series; the classes' colours if not given.

    Raises:
        InputError: there is no series.
    """
    _refuse_none(series)
    if len(series) == 1:
        return _three_scores(*next(iter(series.items())), title)
    figure = page(WIDTH, 3.1, title)
    panels = figure.subplots(1, len(SCORES), sharex=True, sharey=True)
    for panel, (score, (name, _)) in zip(panels, SCORES.items(), strict=True):
        _dress(panel, name.capitalize(), "score (0–1)" if panel is panels[0] else "")
        lines = [
            _band(panel, curve, score, shorten(label, NAME), style, band_opacity(len(series)))
            for style, (label, curve) in zip(styles or _styles(len(series)), series.items(), strict=True)
        ]
    legend_below(figure, [*lines, swatch(BAND_SHADE, INTERVAL)])
    return figure


def _three_scores(label: str, curve: ThresholdCurve, title: str) -> Figure:
    """One series: its scores over each other."""
    figure = page(WIDTH * 0.62, 3.2, title)
    axes = figure.subplots()
    _dress(axes, shorten(label, NAME), "score (0–1)")
    lines = [
        _band(axes, curve, score, name, {"color": colour, "linewidth": 1.3}, band_opacity(len(SCORES)))
        for score, (name, colour) in SCORES.items()
    ]
    legend_below(figure, [*lines, swatch(BAND_SHADE, INTERVAL)])
    return figure


def _dress(axes: Axes, title: str, ylabel: str) -> None:
    """Axes whose x is the threshold."""
    plot_axes(axes, title, ylabel)
    _unit(axes)
    axes.set_xlabel("threshold T", fontsize=NORMAL, color=INK)


def _refuse_none(series: Mapping[str, object]) -> None:
    if not series:
        raise InputError("there is no series to draw: give at least one.")


def _styles(count: int) -> Sequence[dict[str, Any]]:
    """A colour and a stroke for each series, so that no two are the same."""
    return [
        {
            "color": class_colour(number),
            "linestyle": STROKES[number // len(CLASSES) % len(STROKES)],
            "linewidth": 1.3,
        }
        for number in range(count)
    ]


def _band(
    axes: Axes, curve: ThresholdCurve, score: str, label: str, style: Mapping[str, Any], opacity: float
) -> Line2D:
    """A line, and around it its interval where it has one."""
    mean, margin = curve.means[score], curve.margins[score]
    axes.fill_between(
        curve.thresholds, np.clip(mean - margin, 0, 1), np.clip(mean + margin, 0, 1),
        color=style["color"], alpha=opacity, linewidth=0,
    )  # fmt: skip
    (line,) = axes.plot(curve.thresholds, mean, label=label, clip_on=False, **style)
    return line


def _unit(axes: Axes) -> None:
    """Both axes from 0 to 1, with a tick every fifth."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2))
        axis.set_major_formatter("{x:.1f}")
