"""Results: what the runs of a comparison measured on their test images, read from their reports.

`engine.evaluate` has left test.csv and test.json in every run's report; nothing is measured here.
Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from engine.comparison.grid import Cell, Comparison
from engine.comparison.reports import TIME, Floats, Run, broken, nan_mean, ratio, read, thresholds
from engine.comparison.state import Scoring, scores, state
from engine.errors import InputError
from engine.tables import POOLED

REASONS = {
    "absent": "no run", "unfinished": "not finished", "running": "still running",
    "finished": "not scored",
}  # fmt: skip
"""State of a run without scores → why it is missing."""


@dataclass(frozen=True)
class Group:
    """One data set × network × method: a row of the tables.

    Attributes:
        data, network, method: their names.
        runs: one a seed that has results, in the order of the seeds.
    """

    data: str
    network: str
    method: str
    runs: tuple[Run, ...]

    @property
    def place(self) -> tuple[str, str, str]:
        """Data set, network, method."""
        return self.data, self.network, self.method

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the n test images; none without a run."""
        return self.runs[0].images if self.runs else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes; none without a run."""
        return self.runs[0].classes if self.runs else ()

    def over_seeds(self, metric: str, label: str | None = None) -> Floats:
        """The score of every run, (seeds,)."""
        return np.array([run.value(metric, label) for run in self.runs], dtype=np.float64)

    def over_images(self, metric: str, label: str | None = None) -> Floats:
        """The score of every test image, (n,), averaged over the seeds in which it is defined."""
        if not self.runs:
            return np.empty(0)
        if metric in POOLED:
            return ratio(*self.lesions(label))
        return nan_mean(np.stack([run.per_image(metric, label) for run in self.runs]), axis=0)

    def lesions(self, label: str | None = None) -> tuple[Floats, Floats]:
        """Lesions found, in the mean over seeds, and lesions there are, of every image (n,)."""
        counts = [run.lesions(label) for run in self.runs]
        return np.mean([found for found, _ in counts], axis=0), np.mean(
            [total for _, total in counts], axis=0
        )

    def undefined(self, metric: str, label: str | None = None) -> int:
        """Predictions (an image by a seed) for which the metric is not defined."""
        if metric == TIME:
            return 0
        return sum(int(np.isnan(run.per_image(metric, label)).sum()) for run in self.runs)


@dataclass(frozen=True)
class Results:
    """What is there of a comparison.

    Attributes:
        groups: every data set × network × method, in the file's order, those without runs too.
        missing: cells without results, and why, in the order of the groups.
    """

    groups: tuple[Group, ...]
    missing: tuple[tuple[Cell, str], ...]

    @cached_property
    def sets(self) -> dict[str, list[Group]]:
        """Data set → its groups, in order."""
        found: dict[str, list[Group]] = {}
        for group in self.groups:
            found.setdefault(group.data, []).append(group)
        return found

    @cached_property
    def pairs(self) -> dict[tuple[str, str], list[Group]]:
        """(data set, network) → its groups, a method each, in order."""
        found: dict[tuple[str, str], list[Group]] = {}
        for group in self.groups:
            found.setdefault((group.data, group.network), []).append(group)
        return found


def collect(comparison: Comparison) -> Results:
    """Read the reports of all runs of a comparison.

    A run that has not finished, or was not scored in the way that the comparison asks for, is missing: that
    is no error.

    Raises:
        InputError: a report that cannot be read, or reports of one data set that are of different images
            or classes: methods scored on different images cannot be compared.
    """
    scoring = Scoring.of(comparison)
    places = list(product(comparison.data, comparison.networks, comparison.methods))
    runs: dict[tuple[str, str, str], list[Run]] = {place: [] for place in places}
    missing = []
    first: dict[str, Run] = {}
    cells = {(cell.data, cell.network, cell.method, cell.seed): cell for cell in comparison.cells}
    for place, seed in product(places, comparison.seeds):
        cell = cells[(*place, seed)]
        report = scores(cell.folder, scoring)
        if report is None:
            missing.append((cell, _reason(cell)))
            continue
        run = read(cell, report)
        runs[place].append(alike(run, first.setdefault(cell.data, run)))
    return Results(tuple(Group(*place, tuple(runs[place])) for place in places), tuple(missing))


def _reason(cell: Cell) -> str:
    """Why a cell has no scores."""
    now = state(cell.folder)
    other = now == "finished" and (cell.folder / "report" / "test.json").is_file()
    return "scored in another way" if other else REASONS[now]


def over_thresholds(group: Group) -> tuple[Floats, dict[str, Floats]]:
    """Scores by threshold T in p >= T, averaged over seeds.

    Returns:
        T (k,), ascending, and dice, precision and recall of each image, (n, k): means over its classes,
        those without a value left out.

    Raises:
        InputError: a run's report has no such table, or a broken one, or one of other T.
    """
    tables = [thresholds(run) for run in group.runs]
    levels = tables[0][0]
    for run, (others, _) in zip(group.runs, tables, strict=True):
        if not np.array_equal(others, levels):
            raise broken(run.cell.folder / "report" / "test-thresholds.csv", "thresholds of another run")
    names = tables[0][1]
    return levels, {name: nan_mean(np.stack([table[name] for _, table in tables]), axis=0) for name in names}


def alike(run: Run, other: Run) -> Run:
    """The run with its images in the order of another run of the data set.

    Raises:
        InputError: they are not of the same images and classes.
    """
    if run.classes != other.classes:
        raise InputError(
            f"the classes of {run.cell.name} are {', '.join(run.classes)}, and those of {other.cell.name} "
            f"{', '.join(other.classes)}: runs of a data set need the same classes to be compared."
        )
    if run.images == other.images:
        return run
    mine, theirs = set(run.images), set(other.images)
    if mine != theirs:
        more, less = sorted(mine - theirs), sorted(theirs - mine)
        said = [f"{run.cell.name} alone has {_some(more)}"] if more else []
        said += [f"{other.cell.name} alone has {_some(less)}"] if less else []
        raise InputError(
            f"the test images of {run.cell.data} differ, so that a comparison would not be fair: "
            f"{' and '.join(said)}; delete the run that is out of date, {run.cell.folder} or "
            f"{other.cell.folder}, and compare again."
        )
    order = [run.images.index(name) for name in other.images]
    scores = {name: values[order] for name, values in run.scores.items()}
    return Run(run.cell, other.images, run.classes, scores, run.report)


def _some(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
