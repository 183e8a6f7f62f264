"""The sheet that figures are drawn on: sizes, fonts, axes, legends, files."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from engine.disk import replacing
from engine.figures.colours import FAINT, IGNORED, INK
from engine.figures.overlay import Picture

WIDTH = 7.2
"""Inches: two columns of a journal."""
WIDE = 10.8
"""Inches, for images that would lose their thin structures on a narrower page."""
LARGE = 400
"""Pixels from which the longest side of an image makes a page wide."""
DPI = 150
PAD = 0.03
"""Inches around every axes."""
SMALL, NORMAL, BIG = 7.0, 8.0, 9.0
"""Font sizes in points: ticks and legends, labels, titles."""


def page(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of a size in inches, in constrained layout. It is known to nobody else."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=PAD, h_pad=PAD, wspace=0, hspace=0)  # type: ignore[call-arg]
    if title:
        figure.suptitle(title, fontsize=BIG, color=INK)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write or replace a PNG in one step, with the margins cut off; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False, apart=True) as file:
        figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.05)


def plot_axes(axes: Axes, title: str, ylabel: str) -> None:
    """Dress axes whose x is the epoch."""
    axes.set_title(title, fontsize=NORMAL, color=INK, loc="left", fontweight="bold")
    axes.set_ylabel(ylabel, fontsize=NORMAL, color=INK)
    axes.tick_params(labelsize=SMALL, color=FAINT, labelcolor=INK, width=0.6, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(linewidth=0.6, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def image_axes(axes: Axes, picture: Picture, title: str = "", below: str = "", aspect: float = 1.0) -> None:
    """Show a picture without ticks; aspect is the height of a pixel over its width."""
    axes.imshow(picture, interpolation="antialiased", aspect=aspect, vmin=0, vmax=1)
    axes.set_anchor("N")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color=FAINT)
    if title:
        axes.set_title(title, fontsize=NORMAL, color=INK, pad=3)
    if below:
        axes.set_xlabel(below, fontsize=SMALL, color=INK, labelpad=2)


def swatch(colour: str, label: str) -> Patch:
    """A legend entry for an area."""
    return Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.5, label=label)


def ignored_swatch() -> Patch:
    """The legend entry of pixels that are not valid."""
    return swatch(IGNORED, "not evaluated")


LEGEND: dict[str, Any] = {"fontsize": SMALL, "frameon": False, "labelcolor": INK}


def legend_within(axes: Axes, handles: Sequence[Artist]) -> None:
    """A legend where axes have most room. It takes no part in the layout."""
    made = axes.legend(handles=list(handles), loc="best", handlelength=1.6, labelspacing=0.3, **LEGEND)
    made.set_in_layout(False)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """The figure's legend, under its axes."""
    if handles:
        style = {"handlelength": 1.6, "columnspacing": 1.6, **LEGEND}
        needed = sum(0.42 + 0.055 * len(str(handle.get_label())) for handle in handles)
        lines = math.ceil(needed / figure.get_figwidth())
        columns = math.ceil(len(handles) / lines)
        figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, **style)


def shorten(text: str, length: int) -> str:
    """A text of at most so many characters, with its middle left out: both ends of a name tell it apart."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"
