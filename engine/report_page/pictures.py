"""Pictures as part of the page: no file beside it, and as few bytes as do them no harm."""

import io
import math
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from engine.errors import InputError
from engine.figures.colours import CONFUSED, CORRECT, FALSE_ALARM, IGNORED, MISSED, rgb
from engine.figures.overlay import DIMMED, Picture
from engine.figures.page import DPI
from engine.report_page.markup import Child, Markup, element

LARGE = 640
"""Pixels of the longest side at most, of images that are shown large."""
SMALL = 360
"""The same of images in a row of several."""
ENLARGED = 256
"""Pixels of the longest side to which smaller pictures, as slices of volumes often are, are enlarged by whole
factors: browsers would blur them."""
QUALITY = 88
"""Of JPEG, at which stains keep their hue."""
ERRORS = (CORRECT, MISSED, FALSE_ALARM, CONFUSED, IGNORED)
MIXTURES = 14
"""Steps from one colour of an overlay to another."""


def shown(source: str, alt: str, caption: Child = None, *, kind: str | None = None) -> Markup:
    """An image in the page, with what it shows in words for those who do not see it."""
    image = element("img", src=source, alt=alt)
    return element("figure", image, caption and element("figcaption", caption), class_=kind)


def lines(make: Callable[[], Figure]) -> str:
    """A figure of lines and words as an SVG, sharp at any size."""
    content = io.BytesIO()
    # Equal figures are equal files.
    with matplotlib.rc_context({"svg.hashsalt": "report"}):
        _made(make).savefig(
            content, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None}
        )
    return _data("image/svg+xml", content.getvalue())


def painted(make: Callable[[], Figure]) -> str:
    """A figure with images in it as a PNG."""
    content = io.BytesIO()
    _made(make).savefig(content, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.05)
    return _png(Image.open(content))


def _made(make: Callable[[], Figure]) -> Figure:
    """A figure in which a dollar sign in a name is no formula; the numbers along axes may be some."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = make()
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                tick.label1.set_parse_math(True)
    return figure


def file(path: Path) -> str:
    """A PNG that is there already, anew, so that nothing but its pixels comes along.

    Raises:
        InputError: it is no image.
    """
    try:
        with Image.open(path) as image:
            return _png(image)
    except OSError as error:
        raise InputError(f"the figure {path} cannot be read ({error}).") from None


def overlay(picture: Picture, longest: int = SMALL) -> str:
    """Errors over an image as a PNG; picture float32 (H, W, 3), 0…1, as ``figures.overlay.errors`` paints it.

    In 8 bits a pixel, from a fixed palette: one fitted to the image would give its colours to the
    background's many shades and lose those of the few pixels that are missed.
    """
    content = io.BytesIO()
    few = _reduced(picture, longest).quantize(palette=_palette(), dither=Image.Dither.NONE)
    few.save(content, format="png", optimize=True)
    return _data("image/png", content.getvalue())


@cache
def _palette() -> Image.Image:
    """The dimmed background's grays, the colours of errors, and their mixtures along edges."""
    ground = [(level,) * 3 for level in range(0, math.ceil(255 * DIMMED) + 2, 2)]
    kinds = [tuple(int(255 * part + 0.5) for part in rgb(c).tolist()) for c in ERRORS]
    pairs = [(kind, other) for kind in kinds for other in [(20, 20, 20), *kinds] if other < kind]
    mixed = [
        tuple(round(a + (b - a) * step / MIXTURES) for a, b in zip(*pair, strict=True))
        for pair in pairs
        for step in range(1, MIXTURES)
    ]
    colours = list(dict.fromkeys([*ground, *kinds, *mixed]))
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for colour in colours for level in colour])
    return palette


def flat(picture: Picture, longest: int = SMALL) -> str:
    """Masks in their colours as a PNG; picture float32 (H, W, 3), 0…1."""
    return _png(_reduced(picture, longest))


def photograph(picture: Picture, longest: int = SMALL) -> str:
    """Pixels as a JPEG; picture float32 (H, W, 3), 0…1."""
    content = io.BytesIO()
    _reduced(picture, longest).save(content, format="jpeg", quality=QUALITY, subsampling=0, optimize=True)
    return _data("image/jpeg", content.getvalue())


def _reduced(picture: Picture, longest: int) -> Image.Image:
    factor = max(ENLARGED // max(picture.shape[:2]), 1)
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    image = Image.fromarray((large.clip(0, 1) * 255).round().astype(np.uint8))
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=None)
    return image


def _png(image: Image.Image) -> str:
    """Without a palette, in which photographs would show steps."""
    content = io.BytesIO()
    image.convert("RGB").save(content, format="png", optimize=True)
    return _data("image/png", content.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
