"""Curves: what a run measured in each epoch."""

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from engine.figures.colours import ADDED, FAINT, INK, SHADE, VALIDATION, class_colour
from engine.figures.epochs import Floats, History, class_mean, read_history, slope_limits, unit_limits
from engine.figures.page import NORMAL, WIDTH, legend_below, legend_within, page, plot_axes
from engine.record import RunReader

FITS = 8
"""At most so many fitted slopes are drawn."""
UPDATED = "updated"
"""Id of the marks of epochs that updated masks."""


def curves(run: RunReader) -> Figure:
    """Loss, scores, recall with its slope β and threshold γ, added pixels and learning rate by epoch.

    Panels without anything to show are left out.

    Raises:
        InputError: no epoch is finished.
    """
    history = read_history(run)
    middle = {
        (True, True): ["scores", "added"],
        (True, False): ["scores", "scores"],
        (False, True): ["added", "added"],
    }.get((history.validated, history.modulated))
    rows = [
        [name, *([middle[row]] if middle else []), last]
        for row, (name, last) in enumerate([("loss", "recall"), ("lr", "slope")])
    ]
    figure = page(WIDTH if middle else WIDTH * 0.7, 4.3)
    axes = figure.subplot_mosaic(rows, sharex=True, height_ratios=[1.6, 1])  # type: ignore[arg-type]
    for name, draw in PANELS.items():
        if name in axes:
            draw(axes[name], history)
    for name, panel in axes.items():
        _shade_warmup(panel, history)
        lowest = name in rows[1]
        panel.set_xlim(history.number[0] - 0.5, history.number[-1] + 0.5)
        panel.tick_params(labelbottom=lowest)
        if lowest:
            panel.set_xlabel("epoch", fontsize=NORMAL)
    legend_below(figure, _shared_legend(history))
    return figure


def _draw_loss(axes: Axes, history: History) -> None:
    plot_axes(axes, "Loss", "loss")
    lines = [_line(axes, history.number, history.loss, INK, "training")]
    if np.isfinite(history.validation_loss).any():
        lines.append(_line(axes, history.number, history.validation_loss, VALIDATION, "validation"))
    legend_within(axes, lines)


def _draw_rate(axes: Axes, history: History) -> None:
    plot_axes(axes, "Learning rate", "learning rate")
    _line(axes, history.number, history.lr, INK, "learning rate")
    if history.lr.min() > 0 and np.median(history.lr) < 0.2 * history.lr.max():
        axes.set_yscale("log")  # it falls by steps or factors, which a linear axis would hide
    else:
        axes.set_ylim(bottom=0)


def _draw_scores(axes: Axes, history: History) -> None:
    """Dice of every class, and the means over classes; the figure's legend names the classes."""
    plot_axes(axes, "Validation scores", "score (0–1)")
    several = len(history.classes) > 1
    mean = "mean " if several else ""
    lines = []
    if several:
        for index, name in enumerate(history.classes):
            colour = class_colour(index)
            _line(axes, history.number, history.dice[:, index], colour, f"Dice, {name}", width=1)
    dice = class_mean(history.dice)
    lines.append(_line(axes, history.number, dice, VALIDATION, f"{mean}Dice", width=1.6))
    for values, label, style in (
        (history.validation_recall, f"{mean}recall", "--"),
        (history.precision, f"{mean}precision", ":"),
    ):
        lines.append(_line(axes, history.number, class_mean(values), VALIDATION, label, style=style, width=1))
    if history.best and np.isfinite(dice[history.number == history.best]).all():
        where = history.number == history.best
        lines += axes.plot(
            history.best, dice[where][0], "o", color="white", markeredgecolor=VALIDATION, markersize=5,
            label=f"best (epoch {history.best})", zorder=5, clip_on=False,
        )  # fmt: skip
    axes.set_ylim(unit_limits(dice, class_mean(history.validation_recall), class_mean(history.precision)))
    legend_within(axes, lines)


def _draw_added(axes: Axes, history: History) -> None:
    plot_axes(axes, "Pixels added to masks", "pixels per epoch")
    axes.yaxis.set_major_formatter(lambda value, _: _counted(value))
    several = len(history.classes) > 1
    for index, name in enumerate(history.classes):
        colour = class_colour(index) if several else ADDED
        _line(axes, history.number, history.added[:, index], colour, name)
    axes.set_ylim(bottom=0, top=None if history.added.any() else 1)


def _draw_recall(axes: Axes, history: History) -> None:
    plot_axes(axes, "Training recall", "recall (0–1)")
    lines = [_line(axes, history.number, history.recall, INK, "recall")]
    fits = [history.fit(end) for end in _fit_ends(history)]
    for x, y in fits:
        (fit,) = axes.plot(x, y, color=VALIDATION, linewidth=2.2, alpha=0.55, zorder=1.5,
                           solid_capstyle="butt", label=f"slope β ({history.queue} epochs)")  # fmt: skip
    lines += [fit] if fits else []
    low, high = unit_limits(history.recall)
    axes.set_ylim(low - 0.08 * (high - low), high)  # room for the marks
    for number in history.number[history.updated]:
        axes.axvline(number, 0, 0.05, color=ADDED, linewidth=_tick_width(len(history.number)), gid=UPDATED)
    legend_within(axes, lines)


def _draw_slope(axes: Axes, history: History) -> None:
    plot_axes(axes, "Recall slope", "slope (1/epoch)")
    axes.axhline(0, color=FAINT, linewidth=0.5)
    lines = [_line(axes, history.number, history.slope, VALIDATION, "slope β")]
    if np.isfinite(history.gamma).any():
        lines.append(_line(axes, history.number, history.gamma, INK, "threshold γ", style="--", width=1))
    chosen = history.updated
    axes.plot(history.number[chosen], history.slope[chosen], ".", color=ADDED, zorder=4, gid=UPDATED,
              markersize=5 if len(chosen) <= 50 else 2.5)  # fmt: skip
    axes.set_ylim(slope_limits(history))
    legend_within(axes, lines)


PANELS: dict[str, Callable[[Axes, History], None]] = {
    "loss": _draw_loss,
    "lr": _draw_rate,
    "scores": _draw_scores,
    "added": _draw_added,
    "recall": _draw_recall,
    "slope": _draw_slope,
}


def _line(
    axes: Axes, x: NDArray[np.int64], y: Floats, colour: str, label: str, *, style: str = "-",
    width: float = 1.3,
) -> Line2D:  # fmt: skip
    """A line with gaps where y is NaN, and a dot where a value stands alone."""
    there = np.isfinite(y)
    near = np.zeros(len(y) + 2, dtype=bool)
    near[1:-1] = there
    alone = np.flatnonzero(there & ~near[:-2] & ~near[2:])
    axes.plot(x[alone], y[alone], ".", color=colour, markersize=5)
    (line,) = axes.plot(x, y, style, color=colour, linewidth=width, label=label)
    return line


def _shade_warmup(axes: Axes, history: History) -> None:
    if history.warmup.any():
        last = history.number[history.warmup].max()
        axes.axvspan(history.number[0] - 0.5, last + 0.5, color=SHADE, linewidth=0, zorder=0)


def _shared_legend(history: History) -> list[Line2D | Patch]:
    """What all panels share; a single class needs no entry."""
    entries: list[Line2D | Patch] = []
    if len(history.classes) > 1 and (history.validated or history.modulated):
        for index, name in enumerate(history.classes):
            entries.append(Line2D([], [], color=class_colour(index), label=name))
    if history.warmup.any():
        entries.append(Patch(facecolor=SHADE, label="warm-up"))
    if history.modulated:
        count = int(history.updated.sum())
        label = f"masks updated after the epoch ({count} of {len(history.number)})"
        entries.append(Line2D([], [], color=ADDED, marker="o", markersize=3.5, linewidth=0, label=label))
    return entries


def _fit_ends(history: History) -> list[int]:
    """Rows at whose end a fitted slope is drawn: windows side by side, counted from the last."""
    defined = np.flatnonzero(np.isfinite(history.slope))
    if not len(defined):
        return []
    step = max(history.queue, math.ceil(len(history.number) / FITS))
    ends = range(len(history.number) - 1, 0, -step)
    return [end for end in ends if np.isfinite(history.slope[end])]


def _tick_width(epochs: int) -> float:
    """Points, so that neighbouring epochs stay apart in axes about 130 points wide."""
    return min(max(65 / epochs, 0.3), 1.5)


def _counted(value: float) -> str:
    """12 k instead of 12000."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"
