"""Guarantees: where a calibrated threshold comes from, whether test images bear it out, and what it costs."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullLocator

from engine.errors import InputError
from engine.figures.colours import FAINT, FALSE_ALARM, INK, MISSED, VALIDATION
from engine.figures.page import BIG, NORMAL, SMALL, WIDTH, legend_below, page, plot_axes, shorten
from engine.figures.verdicts import (
    LEVEL,
    USUAL,
    Floats,
    GuaranteeRow,
    count_kept,
    of_calibration,
    of_cost,
    of_test,
    promised,
)
from engine.thresholds import Curve, mean_bound, mean_interval
from engine.thresholds.specs import Crc
from engine.thresholds.words import percent

CHOSEN = VALIDATION
"""The threshold that was chosen, and what is expected of it."""
TINY = 0.02
"""Below this a threshold is shown on a logarithmic axis, as on a linear one it would lie on its edge."""
POINTS = 201
"""Thresholds at which a curve is drawn, besides those that are marked."""
MANY = 60
"""Units from which dots are small."""

PLOT, AROUND, GAP = 1.45, 0.72, 0.12
"""Inches a panel is high, what its title and labels take, and what is left free between rows."""
LINE = 9.4
"""Points that a line of words is high."""
WORDS, HEADING, NAME = 37, 118, 60
"""Characters that fit over a panel, and over a row, and in its name."""
FIXED = "\N{NO-BREAK SPACE}"


def guarantee(rows: Sequence[GuaranteeRow], title: str = "") -> Figure:
    """Three panels a row: calibration, test split, and what the guarantee costs.

    *Calibration* shows the critical thresholds by rank and which of them was taken, or, for CRC, the bound
    of the mean FNR over T. *Test split* shows the distribution of the test units' FNR at that T, and the
    share of them that keep ε with the Beta-binomial band of what is to be expected
    (:func:`engine.thresholds.kept_band`), or, for CRC, the mean FNR and its interval. *What it costs* shows
    mean precision and recall over T, exact at each point. Where T is below TINY the thresholds stand on a
    logarithmic axis; those that are below its end are drawn there.

    Args:
        rows: at least one.
        title: over the figure.

    Raises:
        InputError: there is no row.
    """
    if not rows:
        raise InputError("there is no threshold to draw: give at least one.")
    headings = [_lines(promised(row), HEADING) for row in rows]
    words = [[_lines(say(row), WORDS) for _, say, _ in PANELS] for row in rows]
    gaps = [GAP * (number > 0) for number in range(len(rows))]
    heights = []
    for heading, gap in zip(headings, gaps, strict=True):
        heights += [(len(heading) + 1.5) * LINE / 72 + gap, PLOT]
    over = sum(AROUND + _room(texts) / 72 for texts in words)
    figure = page(WIDTH, sum(heights) + over + (0.6 if title else 0.35), title)
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(wspace=0.04)  # type: ignore[call-arg]
    grid = figure.add_gridspec(2 * len(rows), 3, height_ratios=heights)
    handles: dict[str, Artist] = {}
    for number, row in enumerate(rows):
        _head(figure.add_subplot(grid[2 * number, :]), row.title, headings[number], gaps[number] * 72)
        for column, (name, _, draw) in enumerate(PANELS):
            axes = figure.add_subplot(grid[2 * number + 1, column])
            for handle in draw(axes, row):
                handles.setdefault(str(handle.get_label()), handle)
            _explain(axes, name, words[number][column], _room(words[number]))
    legend_below(figure, list(handles.values()))
    return figure


def _draw_calibration(axes: Axes, row: GuaranteeRow) -> list[Line2D]:
    return _draw_bound(axes, row) if isinstance(row.rule, Crc) else _draw_ranks(axes, row)


def _draw_ranks(axes: Axes, row: GuaranteeRow) -> list[Line2D]:
    """Critical thresholds by rank, the k-th marked."""
    assert not isinstance(row.rule, Crc)
    plot_axes(axes, "", "critical threshold λ")
    axes.set_xlabel(f"calibration {row.unit}s, by rank", fontsize=NORMAL, color=INK)
    n, chosen, rank = row.units.n, row.choice.threshold, row.choice.rank
    axes.set_xlim(0, n + 1)
    lowest = _scale(axes, "y", chosen)
    critical = np.sort(row.units.critical(row.rule.epsilon))
    ranks, finite = np.arange(1, n + 1), np.isfinite(critical)
    dots: dict[str, Any] = {"color": INK, "markeredgewidth": 0, "linewidth": 0, "clip_on": False}
    handles = []
    if finite.any():
        height = np.maximum(critical[finite], lowest)
        axes.plot(ranks[finite], height, marker="o", markersize=3.2 if n < MANY else 1.6, **dots)
    if not finite.all():
        top, label = np.ones(n - finite.sum()), "λ = ∞: everything may be missed"
        handles += axes.plot(ranks[~finite], top, marker="^", markersize=4, label=label, **dots)
    limit = row.rule.alpha * (n + 1)
    axes.axvline(limit, color=FAINT, linewidth=0.9, linestyle="--", clip_on=False)
    _over(axes, limit, f"α (n + 1) = {limit:.3g}", "left" if limit < (n + 1) / 2 else "right")
    if rank and math.isfinite(chosen):
        axes.hlines(max(chosen, lowest), 0, rank, color=CHOSEN, linewidth=0.9)
        handles += _mark(axes, rank, max(chosen, lowest), "chosen T")
    return handles


def _draw_bound(axes: Axes, row: GuaranteeRow) -> list[Line2D]:
    """CRC's bound of the mean FNR over T."""
    plot_axes(axes, "", "(Σ FNR + 1) / (n + 1)")
    chosen = row.choice.threshold
    thresholds = _thresholds(chosen)
    bounds = [mean_bound(row.units, float(threshold)) for threshold in thresholds]
    axes.plot(thresholds, bounds, color=INK, linewidth=1.3, clip_on=False)
    _scale(axes, "y")
    _scale(axes, "x", chosen)
    axes.set_xlabel("threshold T", fontsize=NORMAL, color=INK)
    axes.axhline(row.rule.alpha, color=FAINT, linewidth=0.9, linestyle="--")
    _beside(axes, row.rule.alpha, "α")
    if not row.choice.enough or math.isinf(chosen):
        return []
    bound = mean_bound(row.units, chosen)
    axes.vlines(chosen, 0, bound, color=CHOSEN, linewidth=0.9)
    return _mark(axes, chosen, bound, "chosen T")


def _draw_test(axes: Axes, row: GuaranteeRow) -> list[Artist]:
    """The distribution of the test units' FNR, and what was promised of it."""
    if row.test is None or not row.test.n:
        axes.set_axis_off()
        return []
    plot_axes(axes, "", f"share of test {row.unit}s")
    axes.set_xlabel("FNR at T", fontsize=NORMAL, color=INK)
    fnr = np.sort(row.test.fnr(row.choice.threshold))
    bound = row.rule.alpha if isinstance(row.rule, Crc) else row.rule.epsilon
    # All units lie on the axis, and what was promised no further right than in its middle.
    end = min(1.0, math.ceil(20 * max(1.1 * float(fnr.max()), 2 * bound, 0.1)) / 20)
    shares = np.append(np.arange(fnr.size + 1) / fnr.size, 1.0)
    line = axes.plot(
        np.concatenate([[0.0], fnr, [end]]), shares, color=INK, linewidth=1.3, drawstyle="steps-post",
        clip_on=False, label=f"test {row.unit}s with this FNR or less",
    )  # fmt: skip
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    _scale(axes, "y")
    axes.axvline(bound, color=FAINT, linewidth=0.9, linestyle="--")
    return [*line, *(_draw_mean if isinstance(row.rule, Crc) else _draw_kept)(axes, row, fnr)]


def _draw_kept(axes: Axes, row: GuaranteeRow, fnr: Floats) -> list[Artist]:
    assert not isinstance(row.rule, Crc)
    epsilon = row.rule.epsilon
    _over(axes, epsilon, "ε", "center")
    axes.axhline(1 - row.rule.alpha, color=FAINT, linewidth=0.9, linestyle="--")
    _beside(axes, 1 - row.rule.alpha, "1 − α")
    count = count_kept(row, fnr)
    band: list[Artist] = []
    if not row.silent:
        share = f"share kept in {percent(LEVEL)} of splits"
        band = _bar(axes, epsilon, (count.low / count.of, count.high / count.of), share)
    few = {"label": "share that keeps ε: too few", "colour": MISSED}
    style = few if count.short else {"label": "share that keeps ε"}
    return [*band, *_mark(axes, epsilon, count.kept / count.of, marker="D", **style)]


def _draw_mean(axes: Axes, row: GuaranteeRow, fnr: Floats) -> list[Artist]:
    """Upright, as a mean has no share of units as its height."""
    _over(axes, row.rule.alpha, "α", "center")
    low, high = mean_interval(fnr, LEVEL)
    band: list[Artist] = []
    if not (row.silent or math.isnan(low)):
        ends = max(low, 0), min(high, axes.get_xlim()[1])
        style: dict[str, Any] = {"color": CHOSEN, "alpha": 0.25, "linewidth": 0, "zorder": 0.5}
        band = [axes.axvspan(*ends, label=f"its {percent(LEVEL)} interval", **style)]
    line = axes.axvline(float(fnr.mean()), color=CHOSEN, linewidth=1.6, label="mean FNR", clip_on=False)
    return [line, *band]


def _draw_cost(axes: Axes, row: GuaranteeRow) -> list[Line2D]:
    """Mean precision and recall over T."""
    if not row.curves:
        axes.set_axis_off()
        return []
    plot_axes(axes, "", "mean over images (0–1)")
    axes.set_xlabel("threshold T", fontsize=NORMAL, color=INK)
    chosen = row.choice.threshold
    thresholds = _thresholds(chosen)
    precision, recall = _means(row.curves, thresholds)
    style: dict[str, Any] = {"linewidth": 1.6, "clip_on": False}
    lines = axes.plot(thresholds, precision, color=FALSE_ALARM, label="precision", **style)
    lines += axes.plot(thresholds, recall, color=MISSED, linestyle="-.", label="recall", **style)
    _scale(axes, "y")
    _scale(axes, "x", chosen)
    axes.axvline(USUAL, color=FAINT, linewidth=0.9, linestyle=":")
    apart = abs(chosen - USUAL) > 0.2
    sides = ("right", "left") if chosen < USUAL else ("left", "right")
    own, usual = ("center", "center") if apart else sides
    if chosen != USUAL:
        _over(axes, USUAL, f"{USUAL}", usual)
    if math.isfinite(chosen):
        axes.axvline(chosen, color=CHOSEN, linewidth=1.1, clip_on=False)
        _over(axes, chosen, "T" if chosen != USUAL else f"T = {USUAL}", own, CHOSEN)
    return lines


PANELS: tuple[
    tuple[str, Callable[[GuaranteeRow], str], Callable[[Axes, GuaranteeRow], Sequence[Artist]]], ...
] = (
    ("Calibration", of_calibration, _draw_calibration),
    ("Test split", of_test, _draw_test),
    ("What it costs", of_cost, _draw_cost),
)
"""Of a row: title, what is said, what is drawn."""


def _means(curves: Sequence[Curve], thresholds: Floats) -> Floats:
    """Mean precision and recall over images at thresholds (n,): (2, n), NaN where no image has one."""
    sums, counts = np.zeros((2, thresholds.size)), np.zeros((2, thresholds.size))
    for curve in curves:
        tp, fp = curve.above(thresholds)
        for number, whole in enumerate((tp + fp, np.full_like(tp, curve.positives.total))):
            defined = whole > 0
            sums[number] += np.divide(tp, whole, out=np.zeros(tp.shape), where=defined)
            counts[number] += defined
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _thresholds(chosen: float) -> Floats:
    """Where curves over T are drawn: evenly on their axis, at the marked ones, and just behind the chosen."""
    lowest = _lowest(chosen)
    even = np.geomspace(lowest, 1, POINTS) if lowest else np.linspace(0, 1, POINTS)
    marked = [USUAL, *([chosen, np.nextafter(chosen, 2)] if math.isfinite(chosen) else [])]
    return np.unique(np.concatenate([even, marked]))


def _lowest(chosen: float) -> float:
    """The low end of an axis of thresholds: 0 of a linear one."""
    return 10.0 ** (math.floor(math.log10(chosen)) - 1) if 0 < chosen < TINY else 0.0


def _scale(axes: Axes, name: str, chosen: float = 1.0) -> float:
    """Dress axis x or y from 0 to 1; one of thresholds by the chosen one. Returns its low end."""
    lowest = _lowest(chosen)
    axis: Axis = getattr(axes, f"{name}axis")
    axes.set(**{f"{name}scale": "log" if lowest else "linear", f"{name}lim": (lowest, 1)})
    axis.set_minor_locator(NullLocator())
    if not lowest:
        axis.set_major_locator(MultipleLocator(0.2))
    axis.set_major_formatter("{x:g}" if lowest else "{x:.1f}")
    return lowest


def _mark(
    axes: Axes, x: float, y: float, label: str, *, marker: str = "o", colour: str = CHOSEN
) -> list[Line2D]:
    """What to look at first: white with a coloured edge."""
    return axes.plot(
        x, y, marker, color="white", markeredgecolor=colour, markeredgewidth=1.4, markersize=5.5, zorder=5,
        clip_on=False, label=label,
    )  # fmt: skip


def _bar(axes: Axes, x: float, ends: tuple[float, float], label: str) -> list[Artist]:
    """What is to be expected: broader than a mark on it, and closed, so that it is seen however short."""
    style: dict[str, Any] = {"color": CHOSEN, "zorder": 3, "clip_on": False}
    axes.plot([x, x], ends, marker="_", markersize=13, markeredgewidth=1.2, linewidth=0, **style)
    return list(axes.plot([x, x], ends, linewidth=11, alpha=0.3, solid_capstyle="butt", label=label, **style))


def _over(axes: Axes, x: float, label: str, align: str, colour: str = INK) -> None:
    """Name a vertical line at its upper end, outside the axes, where no line crosses it."""
    axes.annotate(
        label, (x, 1), xycoords=axes.get_xaxis_transform(), xytext=(0, 5), textcoords="offset points",
        ha=align, va="bottom", fontsize=SMALL, color=colour, annotation_clip=False,
    )  # fmt: skip


def _beside(axes: Axes, y: float, label: str) -> None:
    """Name a horizontal line at its right end."""
    axes.annotate(
        label, (1, y), xycoords=axes.get_yaxis_transform(), xytext=(3, 0), textcoords="offset points",
        ha="left", va="center", fontsize=SMALL, color=INK, annotation_clip=False,
    )  # fmt: skip


def _lines(text: str, width: int) -> list[str]:
    """A text in lines that part neither a number from its sign nor what belongs together."""
    for bound in (" = ", " %", " to ", " of "):
        text = text.replace(bound, bound.replace(" ", FIXED))
    return textwrap.wrap(text, width)


def _room(texts: Sequence[Sequence[str]]) -> float:
    """Points between the panels of a row and their titles: words, and the names of lines."""
    return LINE * (max(map(len, texts)) + 1) + 8


def _explain(axes: Axes, name: str, words: Sequence[str], room: float) -> None:
    """A panel's title, and the words between it and the panel."""
    axes.set_title(name, fontsize=NORMAL, color=INK, loc="left", fontweight="bold", pad=room + 2)
    axes.annotate(
        "\n".join(words), (0, 1), xycoords="axes fraction", xytext=(0, room - 1), textcoords="offset points",
        va="top", fontsize=SMALL, color=INK, linespacing=1.25, annotation_clip=False,
    )  # fmt: skip


def _head(axes: Axes, title: str, promise: Sequence[str], gap: float) -> None:
    """What a row is about, and what is promised; below a gap in points.

    Its height is reckoned with, and its width is none that panels should give way to.
    """
    axes.set_axis_off()
    points: dict[str, Any] = {
        "xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "color": INK,
        "in_layout": False,
    }  # fmt: skip
    axes.annotate(shorten(title, NAME), (0, 1), xytext=(0, -gap), fontsize=BIG, fontweight="bold", **points)
    axes.annotate("\n".join(promise), (0, 1), xytext=(0, -gap - 1.45 * LINE), fontsize=SMALL,
                  linespacing=1.25, **points)  # fmt: skip
