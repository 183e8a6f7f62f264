"""The figures of a comparison, a folder for each data set × network."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from engine import figures, tables
from engine.comparison.examples import examples
from engine.comparison.grid import Comparison, folder_names
from engine.comparison.results import Group, Results, over_thresholds
from engine.comparison.training_curves import training_curves
from engine.figures.series import Reliability, ThresholdCurve, pooled
from engine.figures.strokes import stroke


def draw(comparison: Comparison, results: Results, folder: Path) -> list[Path]:
    """Draw the figures that the comparison asks for, as FOLDER/<data>/<network>/<figure>.png.

    Methods without results are left out, and so is a data set × network without any. A method has the
    same colour and stroke in all figures.

    Returns:
        The files written.
    """
    data = folder_names("data set", comparison.data)
    networks = folder_names("network", comparison.networks)
    written = []
    for (set_name, network), groups in results.pairs.items():
        present = [group for group in groups if group.runs]
        title = set_name if len(comparison.networks) == 1 else f"{set_name}, {network}"
        for name in comparison.figures if present else ():
            path = folder / data[set_name] / networks[network] / f"{name}.png"
            figures.save(FIGURES[name](comparison, present, title), path)
            written.append(path)
    return written


def thresholds(comparison: Comparison, groups: Sequence[Group], title: str) -> Figure:
    """Recall, precision and Dice over T for each method (DSC++ paper, Fig. 4).

    Scores of an image are averaged over seeds first; bands are 95 % intervals over images.
    """
    series = {group.method: threshold_curve(group) for group in groups}
    count = len(groups[0].images)
    title = f"{title}: {count} test image{'s' * (count != 1)}"
    return figures.threshold_curves(series, title, styles=_styles(comparison, groups))


def threshold_curve(group: Group) -> ThresholdCurve:
    """Mean and 95 % interval over test images at each T, an image's scores averaged over seeds first."""
    levels, scores = over_thresholds(group)
    made = {name: [tables.mean(column) for column in values.T] for name, values in scores.items()}
    means = {name: np.array([entry.value for entry in column]) for name, column in made.items()}
    margins = {name: np.array([entry.margin for entry in column]) for name, column in made.items()}
    return ThresholdCurve(levels, means, margins)


def reliability(comparison: Comparison, groups: Sequence[Group], title: str) -> Figure:
    """Reliability diagrams of all methods, with the pixels of all test images, classes and seeds."""
    series = {
        group.method: pooled(
            Reliability.of(run.report["reliability"][label]) for run in group.runs for label in run.classes
        )
        for group in groups
    }
    return figures.reliability_diagram(
        series, f"{title}: pixels of all test images and seeds", styles=_styles(comparison, groups)
    )


def _styles(comparison: Comparison, groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [stroke(comparison.methods.index(group.method)) for group in groups]


FIGURES: dict[str, Callable[[Comparison, Sequence[Group], str], Figure]] = {
    "curves": training_curves,
    "thresholds": thresholds,
    "reliability": reliability,
    "panels": examples,
}
"""Name in a comparison file → what draws it, of groups of one data set × network that have runs."""
