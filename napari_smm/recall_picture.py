"""The recall-slope plot as a picture that scrubs with the epochs, to stand beside an image.

It is drawn once for all epochs so far, off the main thread, which is also where this module should be
loaded: matplotlib takes half a second. Any epoch is then composed from it without drawing again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from engine.errors import InputError
from engine.figures.epochs import Floats, History, slope_limits, tenth_limits
from napari_smm.sheet import DARK, LIGHT, Sheet, rgba

Pixels = NDArray[np.uint8]

SIZE = (320, 480)
"""Height and width in pixels at which letters have their size; larger pictures have larger ones."""
LEAST = 64
"""Pixels, of the shorter side."""
DPI = 100
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.66, 0.14, 0.32, 0.44, 0.14
"""Inches around and between panels."""
SMALL, NORMAL = 8.0, 9.0
"""Font sizes in points: numbers, words."""
FITTED = 5.0
"""Width of the fitted line in pixels at the normal size."""
THROUGH = 0.6
"""Opacity of the fitted line."""


@dataclass(frozen=True)
class Picture:
    """The plot of n epochs, and what it takes to show any of them as the newest.

    Attributes:
        full: uint8 (h, w, 4), with all epochs.
        bare: uint8 (h, w, 4), the same without what was measured.
        number: int (n,), the epochs, ascending.
        column: int (n,), where they are in pixels from the left.
        fits: float (n, 2, 2), both ends (x, y) in pixels of the line that was fitted after each epoch;
            NaN where none was.
        panels: first row, and the row after the last one, of every panel, from above; fits are in the first.
        cursor, fit: colours of the two, uint8 (4,).
        scale: pixels of the picture to those of one of the normal size.
    """

    full: Pixels
    bare: Pixels
    number: NDArray[np.int64]
    column: NDArray[np.int64]
    fits: Floats
    panels: tuple[tuple[int, int], ...]
    cursor: Pixels
    fit: Pixels
    scale: float

    def at(self, epoch: int) -> Pixels:
        """The plot as it was after an epoch: uint8 (h, w, 4), a new array.

        Right of the epoch nothing is drawn but axes and the warm-up; a line stands at the epoch, behind
        what was measured, and the fitted slope is the one of that epoch. An epoch that has not been run
        shows the newest one before it, and one before all of them shows none.
        """
        row = int(np.searchsorted(self.number, epoch, side="right")) - 1
        shown = self.bare.copy()
        if row < 0:
            return shown
        column = int(self.column[row])
        shown[:, : column + 1] = self.full[:, : column + 1]
        if np.isfinite(self.fits[row]).all():
            self._draw_fit(shown, self.fits[row])
        width = max(2, round(2 * self.scale))
        for top, bottom in self.panels:
            line = slice(top, bottom), slice(column + 1 - width, column + 1)
            shown[line][self._free(line)] = self.cursor
        return shown

    def _draw_fit(self, shown: Pixels, ends: Floats) -> None:
        """Blend a thick line between two points in, under what was measured, within the first panel."""
        (left, start), (right, end) = ends
        slope = (end - start) / max(right - left, 1)
        half = FITTED / 2 * self.scale * float(np.hypot(1, slope))
        top, bottom = self.panels[0]
        reach = min(math.ceil(half) + 1, bottom - top)
        x = np.arange(math.ceil(left), math.floor(right) + 1)
        middle = start + slope * (x - left)
        y = np.floor(middle).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        cover = np.clip(half + 0.5 - np.abs(y - middle[:, None]), 0, 1)
        near = (y >= top) & (y < bottom) & (cover > 0)
        at = y[near], np.broadcast_to(x[:, None], y.shape)[near]
        share = THROUGH * cover[near, None] * self._free(at)[:, None]
        shown[at] = (shown[at] + share * (self.fit.astype(np.float64) - shown[at])).round()

    def _free(self, at: Any) -> NDArray[np.bool_]:
        """Where, of an index into rows and columns, nothing measured was drawn."""
        return np.asarray((self.full[at] == self.bare[at]).all(axis=-1))


def draw(history: History, size: tuple[int, int] = SIZE, *, dark: bool = True) -> Picture:
    """Draw recall, and its slope β with the threshold γ where there is one, for all epochs so far.

    Touches no state that threads share. Takes about a tenth of a second.

    Args:
        history: the epochs; there may be none yet.
        size: height and width in pixels.
        dark: on a dark or a light ground.

    Raises:
        InputError: the size is too small to hold a plot.
    """
    if min(size) < LEAST:
        raise InputError(
            f"a plot of {size[0]} × {size[1]} pixels cannot be read: give it at least {LEAST} each way."
        )
    colours = DARK if dark else LIGHT
    figure, axes = _figure(history, size, colours)
    measured = [_draw_recall(axes[0], history, colours)]
    if len(axes) > 1:
        measured.append(_draw_slope(axes[1], history, colours))
    _draw_legend(figure, history, colours)
    bare, full = _render(figure, axes, measured)
    height = size[0]
    boxes = [panel.get_window_extent() for panel in axes]
    return Picture(
        full=full,
        bare=bare,
        number=history.number,
        column=_pixels(axes[0], history.number, np.zeros(len(history.number)), height)[:, 0].astype(np.int64),
        fits=_fits(axes[0], history, height),
        panels=tuple((round(height - box.y1), round(height - box.y0)) for box in boxes),
        cursor=rgba(colours.faint),
        fit=rgba(colours.measured),
        scale=figure.dpi / DPI,
    )


def _figure(history: History, size: tuple[int, int], colours: Sheet) -> tuple[Figure, list[Axes]]:
    """A figure of exactly so many pixels, with one panel, or two if there are slopes."""
    height, width = size
    dpi = DPI * min(height / SIZE[0], width / SIZE[1])
    inches = width / dpi, height / dpi
    figure = Figure(figsize=inches, dpi=dpi, facecolor=colours.ground)
    FigureCanvasAgg(figure)
    sloped = bool(np.isfinite(history.slope).any() or np.isfinite(history.gamma).any())
    room = inches[1] - TOP - BOTTOM - GAP * sloped
    heights = [0.6 * room, 0.4 * room] if sloped else [room]
    axes, top = [], inches[1] - TOP
    for tall in heights:
        box = (LEFT, top - tall, inches[0] - LEFT - RIGHT, tall)
        axes.append(
            figure.add_axes((box[0] / inches[0], box[1] / inches[1], box[2] / inches[0], box[3] / inches[1]))
        )
        top -= tall + GAP
    for panel in axes:
        _dress(panel, history, colours)
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel("epoch", fontsize=NORMAL, color=colours.ink, labelpad=2)
    return figure, axes


def _dress(axes: Axes, history: History, colours: Sheet) -> None:
    """Axes over the epochs 1…E, with the warm-up shaded."""
    last = max(history.epochs, int(history.number.max(initial=1)))
    axes.set_xlim(0.5, last + 0.5)
    axes.set_facecolor(colours.ground)
    axes.tick_params(labelsize=SMALL, color=colours.faint, labelcolor=colours.ink, width=0.6, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=0.6, color=colours.faint)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=colours.faint, linewidth=0.4, alpha=0.4)
    axes.set_axisbelow(True)
    if history.warmup.any():
        end = int(history.number[history.warmup].max()) + 0.5
        axes.axvspan(0.5, end, color=colours.shade, linewidth=0, zorder=0)


def _draw_recall(axes: Axes, history: History, colours: Sheet) -> list[Artist]:
    axes.set_ylabel("recall", fontsize=NORMAL, color=colours.ink)
    low, high = tenth_limits(history.recall)
    axes.set_ylim(low - 0.12 * (high - low) * history.modulated, high)  # room for the marks
    marked = history.number[history.updated]
    marks = axes.plot(
        marked, np.full(len(marked), 0.05), "^", color=colours.added, markersize=_mark_size(history),
        markeredgewidth=0, transform=axes.get_xaxis_transform(),
    )  # fmt: skip
    return [*_line(axes, history.number, history.recall, colours.ink), *marks]


def _draw_slope(axes: Axes, history: History, colours: Sheet) -> list[Artist]:
    axes.set_ylabel("slope β\n10⁻³/epoch", fontsize=NORMAL, color=colours.ink)
    axes.yaxis.set_major_formatter(lambda value, _: f"{1000 * value:.4g}")
    axes.axhline(0, color=colours.faint, linewidth=0.6, zorder=1)
    axes.set_ylim(slope_limits(history))
    updated = history.updated
    halo = axes.plot(
        history.number[updated], history.slope[updated], "o", color=colours.added,
        markersize=_mark_size(history), markeredgewidth=0, zorder=1.5,
    )  # fmt: skip
    return [
        *halo,
        *_line(axes, history.number, history.gamma, colours.ink, style="--"),
        *_line(axes, history.number, history.slope, colours.measured),
    ]


def _line(axes: Axes, x: NDArray[np.int64], y: Floats, colour: str, *, style: str = "-") -> list[Line2D]:
    """A line with gaps where y is not finite, and a dot where a value stands alone."""
    there = np.isfinite(y)
    near = np.zeros(len(y) + 2, dtype=bool)
    near[1:-1] = there
    alone = there & ~near[:-2] & ~near[2:]
    dots = axes.plot(x[alone], y[alone], ".", color=colour, markersize=5)
    return dots + axes.plot(
        x, np.where(there, y, np.nan), style, color=colour, linewidth=1.4, solid_capstyle="butt"
    )


def _draw_legend(figure: Figure, history: History, colours: Sheet) -> None:
    """Above the panels, of what is there."""
    entries: Sequence[tuple[bool, Artist]] = (
        (bool(np.isfinite(history.recall).any()), Line2D([], [], color=colours.ink, label="recall")),
        (bool(np.isfinite(history.slope).any()), Line2D([], [], color=colours.measured, label="slope β")),
        (
            bool(np.isfinite(history.gamma).any()),
            Line2D([], [], color=colours.ink, linestyle="--", label="γ"),
        ),
        (
            bool(history.updated.any()),
            Line2D(
                [], [], color=colours.added, marker="^", linewidth=0, markeredgewidth=0, label="masks updated"
            ),
        ),
        (bool(history.warmup.any()), Patch(facecolor=colours.shade, label="warm-up")),
    )
    shown = [entry for there, entry in entries if there]
    if shown:
        figure.legend(
            handles=shown, ncols=len(shown),
            loc="upper left", bbox_to_anchor=(LEFT / figure.get_figwidth(), 1),
            fontsize=SMALL, labelcolor=colours.ink, frameon=False, handlelength=1.5, handletextpad=0.5,
            columnspacing=1.2, borderaxespad=0.2, borderpad=0.2,
        )  # fmt: skip


def _mark_size(history: History) -> float:
    """Points, so that neighbouring epochs keep apart as long as that is possible."""
    return 6.0 if len(history.number) <= 60 else 4.0


def _fits(axes: Axes, history: History, height: int) -> Floats:
    """Both ends (x, y) in pixels of every fitted line, (n, 2, 2)."""
    ends = [history.fit(row) for row in range(len(history.number))]
    x = np.array([x for x, _ in ends]).reshape(-1, 2)
    y = np.array([y for _, y in ends]).reshape(-1, 2)
    return np.stack([_pixels(axes, x[:, end], y[:, end], height) for end in (0, 1)], axis=1)


def _pixels(axes: Axes, x: NDArray[np.int64] | Floats, y: Floats, height: int) -> Floats:
    """Column and row of data points, (n, 2)."""
    places = axes.transData.transform(np.stack([np.asarray(x, np.float64), y], axis=1))
    return np.stack([places[:, 0], height - places[:, 1]], axis=1)


def _render(
    figure: Figure, axes: Sequence[Axes], measured: Sequence[Sequence[Artist]]
) -> tuple[Pixels, Pixels]:
    """The figure without and with what each of its axes has measured."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    for artist in chain(*measured):
        artist.set_animated(True)  # left out of the first drawing, which the second goes on from
    canvas.draw()  # type: ignore[no-untyped-call]
    bare = np.array(canvas.buffer_rgba(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    for panel, artists in zip(axes, measured, strict=True):
        for artist in artists:
            panel.draw_artist(artist)
    return bare, np.array(canvas.buffer_rgba(), dtype=np.uint8)  # type: ignore[no-untyped-call]
