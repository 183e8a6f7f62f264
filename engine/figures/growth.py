"""Masks as they grew: one watched image, and what the loss saw of it in several epochs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from engine.errors import InputError
from engine.figures.colours import ADDED, CORRECT
from engine.figures.overlay import Mask, added_to, classes, growth, picture
from engine.figures.page import (
    NORMAL,
    PAD,
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
from engine.record import RunReader, read_truth, truth_epochs

ZOOMED = 192
"""Pixels from which an image's longest side gets a row with a crop."""
CROP = 96
"""Height and width of the crop in pixels."""


@dataclass(frozen=True)
class Growth:
    """A watched image in two dimensions, with the masks of the epochs that are shown.

    Attributes:
        name: of the image.
        place: which slice it is of a volume, or "".
        image: (H, W, channels).
        truth: bool (C, H, W).
        valid: bool (H, W).
        epochs: numbers of the epochs shown, k of them.
        modulated: bool (k, C, H, W).
        added: int (k, C) pixels added, of a volume in all its slices.
        unit: what they are, "px" or "voxels".
        changes: number of epochs in which the mask was another than in the epoch before.
        aspect: height of a pixel over its width.
    """

    name: str
    place: str
    image: NDArray[Any]
    truth: Mask
    valid: Mask
    epochs: tuple[int, ...]
    modulated: Mask
    added: NDArray[np.int64]
    unit: str
    changes: int
    aspect: float = 1.0


Box = tuple[slice, slice]


def masks(run: RunReader, item: int = 0, count: int = 6) -> Figure:
    """A watched image, its truth, and its modulated mask at up to `count` epochs at which it changed.

    One row a class that has foreground; a second one, zoomed to where most was added, if the
    image is large. Of a volume the slice is shown to which most was added.

    Raises:
        InputError: there is no such item, or no finished epoch.
    """
    grown = read_growth(run, item, count)
    names = [str(name) for name in run.info()["dataset"]["classes"]]
    shown = [c for c in range(len(names)) if grown.truth[c].any() or grown.added[:, c].any()] or [0]
    zoomed = max(grown.truth.shape[1:]) >= ZOOMED
    rows: list[tuple[int, Box | None]] = []
    for number in shown:
        rows += [(number, None), (number, _busiest(grown, number))] if zoomed else [(number, None)]
    columns = 2 + len(grown.epochs)
    figure, grid = _grid(grown, rows, columns)
    for line, (axes, (number, box)) in enumerate(zip(grid, rows, strict=True)):
        _draw_row(axes, grown, number, box, heading=line == 0)
        if len(names) > 1 and box is None:
            axes[0].set_ylabel(shorten(names[number], 18), fontsize=NORMAL)
    handles = [swatch(CORRECT, "truth"), swatch(ADDED, "added by modulation")]
    legend_below(figure, handles if grown.valid.all() else [*handles, ignored_swatch()])
    return figure


def read_growth(run: RunReader, item: int, count: int) -> Growth:
    """Load what :func:`masks` draws.

    Raises:
        InputError: there is no such item, or no finished epoch.
    """
    watched = run.watched()
    if not 0 <= item < len(watched):
        raise InputError(f"{run.root} has no watched item {item}: it has {len(watched)}, counted from 0.")
    finished = [event["epoch"] for event in run.epochs()]
    if not finished:
        raise InputError(f"{run.root} has no finished epoch, so there are no masks to draw yet.")
    group: Any = watched[item]
    truth, valid = read_truth(group, finished[-1])
    # Where the truth was corrected as training went on, the epochs since are what compares with it.
    since = max((epoch for epoch in truth_epochs(group) if epoch <= finished[-1]), default=finished[-1])
    finished = [epoch for epoch in finished if epoch >= since]
    changed = changes(group["modulated"], truth, finished)
    epochs = evenly(changed, count) if changed else [finished[-1]]
    modulated = np.stack([np.asarray(group["modulated"][epoch - 1]) for epoch in epochs])
    added = added_to(truth, modulated, valid)
    image, name, unit = np.asarray(group["image"]), str(group.attrs["name"]), "px"
    counts = added.reshape(*added.shape[:2], -1).sum(axis=2)
    place, aspect = "", 1.0
    if truth.ndim == 4:
        seen = watched_view(group, np.logical_or.reduce(added) if added.any() else truth)
        place, unit, aspect = seen.words, "voxels", seen.aspect
        image, truth, valid, modulated = (
            seen.of(array, first) for array, first in ((image, 0), (truth, 1), (valid, 0), (modulated, 2))
        )
    return Growth(
        name, place, image, truth, valid, tuple(epochs), modulated, counts, unit, len(changed), aspect
    )


def watched_view(group: Any, truth: Mask, prediction: Mask | None = None) -> View:
    """The slice of a watched volume that shows most of bool (C, D, H, W), as :func:`views.view` chooses it.

    Args:
        group: its zarr group, of whose attributes `scale` gives the voxels' sides; `affine` may be there.
        truth, prediction: what shall be seen.
    """
    scale, affine = group.attrs.get("scale"), group.attrs.get("affine")
    oriented = None if affine is None else np.asarray(affine, np.float64)
    return view(truth, prediction, np.asarray(group["valid"]), scale, oriented)


def changes(modulated: Any, truth: Mask, finished: list[int]) -> list[int]:
    """Of the finished epochs, those whose mask (C, *S) differs from the one before; at first, from the truth.

    One epoch is in memory at a time.
    """
    changed, before = [], truth
    for epoch in finished:
        mask = np.asarray(modulated[epoch - 1])
        if not np.array_equal(mask, before):
            changed.append(epoch)
        before = mask
    return changed


def evenly(values: list[int], count: int) -> list[int]:
    """At most `count` of the values, first and last included, evenly spaced in the list."""
    if len(values) <= count:
        return values
    return [values[index] for index in np.linspace(0, len(values) - 1, count).round().astype(int)]


def _busiest(grown: Growth, number: int) -> Box:
    """The crop with most pixels added to a class, over the epochs shown; without any, with most truth."""
    truth = grown.truth[number]
    added = added_to(truth, grown.modulated[:, number], grown.valid).sum(axis=0)
    weight = added if added.any() else truth.astype(np.int64)
    sums = np.pad(weight.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = (min(CROP, length) for length in truth.shape)
    within = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    best = np.argwhere(within == within.max())
    top, left = best[len(best) // 2]  # any of them holds as much; the middle one has the most around it
    return slice(top, top + height), slice(left, left + width)


def _grid(grown: Growth, rows: list[tuple[int, Box | None]], columns: int) -> tuple[Figure, Any]:
    """Figure and axes (rows, columns), each row as high as its pictures are."""
    height, width = grown.truth.shape[1:]
    page_width = WIDE if columns > 5 else WIDTH
    labels = 0.2 * (len(grown.truth) > 1)
    cell = (page_width - labels) / columns - 2 * PAD
    shapes = [(height, width) if box is None else (min(CROP, height), min(CROP, width)) for _, box in rows]
    heights = [cell * min(grown.aspect * tall / wide, 2.0) for tall, wide in shapes]
    counts = 0.17 * sum(box is None for _, box in rows)
    title = f"{shorten(grown.name, 60)}{grown.place and ', '}{grown.place}: mask that the loss saw"
    title += "" if grown.changes else " (the truth, in every epoch)"
    figure = page(page_width, sum(heights) + counts + 2 * PAD * len(rows) + 0.65, title)
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    return figure, axes


def _draw_row(axes: Any, grown: Growth, number: int, box: Box | None, *, heading: bool) -> None:
    """One class: image, truth, masks; whole, or a crop of them."""
    cut = box or (slice(None), slice(None))
    image, valid, truth = grown.image[cut], grown.valid[cut], grown.truth[number][cut]
    whole = picture(grown.image, grown.valid)
    aspect = grown.aspect
    image_axes(axes[0], whole[cut], "image" if heading else "", aspect=aspect)
    image_axes(axes[1], classes(truth[None], valid), "truth" if heading else "", aspect=aspect)
    for column, epoch in enumerate(grown.epochs):
        mask = grown.modulated[column, number][cut]
        below = f"+{grown.added[column, number]:,} {grown.unit}" if box is None else ""
        title = f"epoch {epoch}" if heading else ""
        image_axes(axes[column + 2], growth(image, truth, mask, valid), title, below, aspect)
    if box is None and max(grown.truth.shape[1:]) >= ZOOMED:
        _outline(axes, _busiest(grown, number))


def _outline(axes: Any, box: Box) -> None:
    """Mark on whole images where the row below is cut from."""
    rows, columns = box
    for panel in axes:
        corner = (columns.start - 0.5, rows.start - 0.5)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        panel.add_patch(Rectangle(corner, *size, fill=False, edgecolor=ADDED, linewidth=0.8))
