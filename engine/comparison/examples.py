"""Example images: what the methods miss, and what they see that is not there, side by side."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from engine.comparison.grid import Comparison
from engine.comparison.reports import Floats, Run, nan_mean
from engine.comparison.results import Group
from engine.data.dataset import Dataset
from engine.figures.cases import Panel, legend_entries
from engine.figures.overlay import classes, errors, picture
from engine.figures.page import LARGE, PAD, WIDE, image_axes, legend_below, page, shorten
from engine.panels import shown
from engine.trained import Trained

CELL = 2.4
"""Inches that a picture is wide at most."""
ACROSS, LARGE_ACROSS = 7, 6
"""Pictures in a row, image and truth included, of small and of large images; further methods go below."""
NAME = 22
"""Characters of a method's name over its pictures."""
SHOWN = {1: "the only", 2: "worst and best", 3: "worst, median and best"}
"""What is shown where there are so many test images or more."""
PLACE = 44
"""Characters of which slice it is, under the truth."""
WORDS = 0.15
"""Inches of the words under a picture, or over it."""


def examples(comparison: Comparison, groups: Sequence[Group], title: str) -> Figure:
    """The worst, the median and the best test image by the mean Dice of all methods, as each method's
    first seed segments it: image, truth, then false negatives and false positives of every method.
    """
    chosen = representative(np.stack([group.over_images("dice") for group in groups]))
    names = [groups[0].images[place] for place in chosen]
    first = [group.runs[0] for group in groups]
    cases = [predicted(run, names, comparison) for run in first]
    several = len(groups[0].classes) > 1
    large = max(max(case.truth.shape[1:]) for case in cases[0]) >= LARGE
    rows = math.ceil(len(groups) / ((LARGE_ACROSS if large else ACROSS) - 2))
    columns = 2 + math.ceil(len(groups) / rows)
    across = min(WIDE, columns * CELL)
    cell = across / columns - 2 * PAD
    heights = [cell * min(case.proportion, 2.0) for case in cases[0]]
    heights = [height for height in heights for _ in range(rows)]
    # Names stand over the first row, and where methods take several rows, over all.
    words = WORDS * (len(heights) + (len(heights) if rows > 1 else 1))
    seeds = {run.cell.seed for run in first}
    which = f"seed {seeds.pop()}" if len(seeds) == 1 else "first seed"
    title = f"{title}: {SHOWN[len(chosen)]} test image, {which}"
    figure = page(across, sum(heights) + words + 2 * PAD * len(heights) + 0.5, title)
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, place in enumerate(chosen):
        block = grid[number * rows : (number + 1) * rows]
        _draw(block, [made[number] for made in cases], [run.per_image("dice")[place] for run in first],
              [group.method for group in groups] if rows > 1 or not number else [],
              "mean Dice" if several else "Dice")  # fmt: skip
    legend_below(figure, legend_entries([case for made in cases for case in made], groups[0].classes))
    return figure


def representative(dice: Floats) -> list[int]:
    """Places of the worst, the median and the best image, each once; fewer where there are fewer images.

    Args:
        dice: (methods, n), NaN where not defined. An image where no method has a value comes last, and
            only where there is no other.
    """
    mean = nan_mean(dice, axis=0)
    ranked = [int(place) for place in np.argsort(mean, kind="stable") if not np.isnan(mean[place])]
    ranked = ranked or [0]
    return list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))


def predicted(run: Run, names: Sequence[str], comparison: Comparison) -> list[Panel]:
    """Some of a run's test images with truth and prediction, as they were scored."""
    trained = Trained.open(run.cell.folder, comparison.checkpoint, run.cell.config.training.device)
    dataset = Dataset.open(trained.config.data, trained.info["splits"])
    places = dict(zip(dataset.names()["test"], dataset.splits["test"], strict=True))
    indices = [places[name] for name in names]
    return list(shown(trained, dataset, indices, native=comparison.size == "native", by_truth=True))


def _draw(
    grid: Any, cases: Sequence[Panel], dice: Sequence[float], methods: Sequence[str], score: str
) -> None:
    """One image: its own pictures at the left of the first row, the methods' at the right of all rows.

    Args:
        grid: axes (rows, columns).
        cases: the image as each method segments it.
        dice: of each method.
        methods: names over the pictures, or none.
        score: what dice is called.
    """
    case, across = cases[0], grid.shape[1] - 2
    part = "" if case.volume is None else case.volume.place
    for axes, drawn, word, below in (
        (grid[0, 0], picture(case.image, case.valid), "image", shorten(case.name, NAME)),
        (grid[0, 1], classes(case.truth, case.valid), "truth", shorten(part, PLACE)),
    ):
        axes.set_axis_on()
        image_axes(axes, drawn, word if methods else "", below, case.aspect)
    for place, (made, value) in enumerate(zip(cases, dice, strict=True)):
        axes = grid[place // across, 2 + place % across]
        axes.set_axis_on()
        said = f"{score} {'not defined' if math.isnan(value) else f'{value:.3f}'}"
        wrong = errors(made.image, made.truth, made.prediction, made.valid)
        name = shorten(methods[place], NAME) if methods else ""
        image_axes(axes, wrong, name, said, made.aspect)
