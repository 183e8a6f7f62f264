"""Cases: the worst and the best images, large enough to see what was missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from engine.figures.cases import Panel
from engine.figures.overlay import Mask, classes, errors, picture
from engine.figures.views import squared
from engine.report_page import pictures
from engine.report_page.legend import class_legend, error_legend
from engine.report_page.markup import Markup, element, joined, note

RANKS = (
    (0, "worst"),
    (-1, "best"),
    (1, "second worst"),
    (None, "median"),
    (-2, "second best"),
    (2, "third worst"),
)
"""Places from the worst to the best that are shown, the most telling first; None is the middle."""
ZOOMED = 384
"""Pixels of the longest side from which a part is shown enlarged too."""
PART = 160
"""Height and width of that part, px."""


@dataclass(frozen=True)
class Ranked:
    """An image that is shown, and why.

    Attributes:
        name: of the image.
        rank: in words, such as "worst".
    """

    name: str
    rank: str


def choose(ranked: Sequence[str]) -> list[Ranked]:
    """Of names from the worst to the best some of each end and the middle one, none twice, in their order."""
    count = len(ranked)
    places: dict[int, str] = {}
    for place, word in RANKS:
        index = count // 2 if place is None else place % count if abs(place + 0.5) < count else count
        if index < count:
            places.setdefault(index, word)
    return [Ranked(ranked[index], places[index]) for index in sorted(places)]


def section(
    panels: Sequence[Panel], chosen: Sequence[Ranked], scores: Mapping[str, str], names: Sequence[str]
) -> Markup:
    """Images with what was found, missed and falsely found.

    Args:
        panels: the images, in the order of `chosen`.
        chosen: what they are.
        scores: image → its scores in words.
        names: of the classes.
    """
    ignored = any(panel.valid is not None and not panel.valid.all() for panel in panels)
    return joined(
        error_legend(len(names), ignored=ignored),
        class_legend(names) if len(names) > 1 else None,
        [
            _case(panel, case.rank, scores[case.name], names)
            for panel, case in zip(panels, chosen, strict=True)
        ],
    )


def _case(panel: Panel, rank: str, score: str, names: Sequence[str]) -> Markup:
    missed, false = panel.missed_and_false
    unit = "px" if panel.volume is None else "voxels"
    said = f"{score}; {missed:,} {unit} missed, {false:,} {unit} falsely found"
    alt = f"Errors in {panel.name}: {missed:,} {unit} missed, {false:,} {unit} falsely found."
    large = pictures.LARGE
    seen = pictures.photograph(squared(picture(panel.image, panel.valid), panel.aspect), large)
    wrong = pictures.overlay(
        squared(errors(panel.image, panel.truth, panel.prediction, panel.valid), panel.aspect), large
    )
    row = [
        pictures.shown(seen, f"The image {panel.name}.", "image"),
        pictures.shown(wrong, alt, "errors"),
    ]
    if max(panel.truth.shape[1:]) >= ZOOMED:
        row.append(element("div", _enlarged(panel), class_="stack"))
    if len(names) > 1:
        for title, masks in (("truth", panel.truth), ("prediction", panel.prediction)):
            drawn = pictures.flat(squared(classes(masks, panel.valid), panel.aspect), large)
            row.append(pictures.shown(drawn, f"{title.capitalize()} of {panel.name}.", title))
    return element(
        "div",
        element("h3", f"{rank[0].upper()}{rank[1:]}: {panel.name}"),
        element("p", said if panel.volume is None else f"{said}; shown is {panel.volume.place}"),
        element("div", row, class_="row case"),
        class_="keep",
    )


def saved(root: Path) -> Markup:
    """The figure that an evaluation has left in RUN/report, where images are not predicted again."""
    file = root / "report" / "panels.png"
    if not file.is_file():
        return note("There is no picture of test images: without --no-evaluate they are predicted and shown.")
    return pictures.shown(
        pictures.file(file),
        "Images, their truth, prediction and errors, from worst to best.",
        "As the newest evaluation drew it.",
        kind="plot",
    )


def _enlarged(panel: Panel) -> list[Markup]:
    box, words = part(panel)
    # The contrast is that of the whole image.
    seen = picture(panel.image, panel.valid)[box]
    whole = errors(panel.image, panel.truth, panel.prediction, panel.valid)[box]
    size = f"{max(whole.shape[:2])} px"
    near, wrong = (squared(part, panel.aspect) for part in (seen, whole))
    return [
        pictures.shown(pictures.photograph(near), f"A part of {panel.name}, enlarged.", f"{words} ({size})"),
        pictures.shown(pictures.overlay(wrong), "Errors in the same part.", "errors there"),
    ]


def part(panel: Panel) -> tuple[tuple[slice, slice], str]:
    """Where most is missed; without a miss where most is falsely found; and which of the two."""
    valid = np.ones(panel.truth.shape[1:], bool) if panel.valid is None else panel.valid
    missed = (panel.truth & ~panel.prediction).any(axis=0) & valid
    wrong = missed if missed.any() else (panel.prediction & ~panel.truth).any(axis=0) & valid
    words = "where most is missed" if missed.any() else "where most is falsely found"
    return densest(wrong), words


def densest(mask: Mask) -> tuple[slice, slice]:
    """The part of PART × PART px, or less where the mask is smaller, that holds most of a mask (H, W)."""
    size = [min(PART, length) for length in mask.shape]
    near = uniform_filter(mask.astype(np.float32), size, mode="constant")
    row, column = np.unravel_index(int(near.argmax()), mask.shape)
    corner = [
        min(max(int(middle) - extent // 2, 0), length - extent)
        for middle, extent, length in zip((row, column), size, mask.shape, strict=True)
    ]
    top, left = corner
    return slice(top, top + size[0]), slice(left, left + size[1])
