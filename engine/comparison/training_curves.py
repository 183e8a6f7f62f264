"""Training curves of methods over each other, with what the seeds differ by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.comparison.grid import Comparison
from engine.comparison.reports import Floats, nan_mean
from engine.comparison.results import Group
from engine.figures.colours import FAINT
from engine.figures.epochs import History, class_mean, read_history
from engine.figures.page import NORMAL, WIDTH, legend_below, page, plot_axes, shorten
from engine.figures.strokes import band_opacity, stroke
from engine.record import RunReader

NAME = 40
"""Characters of a method's name."""
ENDED: Literal[":"] = ":"
"""Line where some seeds have ended."""


@dataclass(frozen=True)
class Course:
    """One measurement of one method, epoch by epoch, over its seeds.

    Attributes:
        epochs: 1…E, (E,), up to the last one of any seed.
        mean, low, high: over the seeds that were still training and had a value, (E,); NaN without any.
        whole: the last epoch in which every seed was still training.
    """

    epochs: Floats
    mean: Floats
    low: Floats
    high: Floats
    whole: int


MEASURES: dict[str, tuple[str, Callable[[History], Floats]]] = {
    "Training loss": ("loss, of each method its own", lambda history: history.loss),
    "Validation Dice": ("Dice (0–1)", lambda history: class_mean(history.dice)),
    "Training recall": ("recall (0–1)", lambda history: history.recall),
}
"""Title of a panel → its axis, and what it shows of a run."""


def training_curves(comparison: Comparison, groups: Sequence[Group], title: str) -> Figure:
    """Training loss, validation Dice and training recall by epoch: the mean over seeds, and a band from
    the lowest to the highest seed. Where some seeds have ended early, the line is that of the others, dotted.

    A panel of which no run measured anything is left out.
    """
    histories = {
        group.method: [read_history(RunReader(run.cell.folder)) for run in group.runs] for group in groups
    }
    courses = {
        panel: {
            method: course([(history.number.astype(np.float64), measure(history)) for history in runs])
            for method, runs in histories.items()
        }
        for panel, (_, measure) in MEASURES.items()
    }
    shown = [panel for panel, made in courses.items() if any(map(_measured, made.values()))]
    most = max(len(group.runs) for group in groups)
    said = f"{title}: mean over {most} seeds, bands from the lowest to the highest" if most > 1 else title
    figure = page(WIDTH if len(shown) > 1 else WIDTH * 0.6, 2.7, said)
    for axes, panel in zip(np.ravel(figure.subplots(1, len(shown))), shown, strict=True):
        plot_axes(axes, panel, MEASURES[panel][0])
        axes.set_xlabel("epoch", fontsize=NORMAL)
        for group in groups:
            style = stroke(comparison.methods.index(group.method))
            _draw(axes, courses[panel][group.method], style, band_opacity(len(groups)))
    legend_below(figure, _legend(comparison, groups, courses[shown[0]]))
    return figure


def course(runs: Sequence[tuple[Floats, Floats]]) -> Course:
    """Mean, lowest and highest of several runs by epoch.

    Args:
        runs: of each run the epochs' numbers, ascending, and a value for each, NaN where there is none.
    """
    last = [int(epochs[-1]) for epochs, _ in runs]
    values = np.full((len(runs), max(last)), np.nan)
    for row, (epochs, measured) in zip(values, runs, strict=True):
        row[epochs.astype(np.int64) - 1] = measured
    there = np.isfinite(values)
    low = np.where(there, values, np.inf).min(axis=0)
    high = np.where(there, values, -np.inf).max(axis=0)
    low, high = (np.where(np.isfinite(edge), edge, np.nan) for edge in (low, high))
    return Course(np.arange(1.0, max(last) + 1), nan_mean(values, axis=0), low, high, min(last))


def _measured(made: Course) -> bool:
    return bool(np.isfinite(made.mean).any())


def _draw(axes: Axes, made: Course, style: dict[str, Any], opacity: float) -> None:
    axes.fill_between(made.epochs, made.low, made.high, color=style["color"], alpha=opacity, linewidth=0)
    whole, rest = made.epochs <= made.whole, made.epochs >= made.whole
    single = np.isfinite(made.mean).sum() == 1  # a line of one point would not be seen
    axes.plot(made.epochs[whole], made.mean[whole], marker="o" if single else "", markersize=3.2, **style)
    axes.plot(made.epochs[rest], made.mean[rest], **{**style, "linestyle": ENDED})


def _legend(comparison: Comparison, groups: Sequence[Group], courses: dict[str, Course]) -> list[Line2D]:
    entries = []
    most = max(len(group.runs) for group in groups)
    for group in groups:
        count = f" ({len(group.runs)} of {most} seeds)" if len(group.runs) < most else ""
        style = stroke(comparison.methods.index(group.method))
        entries.append(Line2D([], [], label=shorten(group.method, NAME) + count, **style))
    if any(made.whole < len(made.epochs) for made in courses.values()):
        entries.append(Line2D([], [], color=FAINT, linestyle=ENDED, label="some seeds have ended"))
    return entries
