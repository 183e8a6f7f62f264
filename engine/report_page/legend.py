"""Legends: what the colours of overlays mean, in words."""

from collections.abc import Sequence

from engine.figures.colours import CONFUSED, CORRECT, FALSE_ALARM, IGNORED, MISSED, class_colour
from engine.report_page.markup import Markup, element


def error_legend(classes: int, *, ignored: bool = False) -> Markup:
    """Of overlays of errors; confused classes only where there are several."""
    entries = [
        (CORRECT, "found (true positive)"),
        (MISSED, "missed (false negative)"),
        (FALSE_ALARM, "false alarm (false positive)"),
    ]
    entries += [(CONFUSED, "wrong class")] if classes > 1 else []
    entries += [(IGNORED, "not evaluated")] if ignored else []
    return _legend(entries)


def class_legend(names: Sequence[str]) -> Markup:
    """Of masks of several classes."""
    return _legend([(class_colour(number), name) for number, name in enumerate(names)])


def _legend(entries: Sequence[tuple[str, str]]) -> Markup:
    return element(
        "ul",
        [
            element("li", element("span", style=f"background:{colour}", aria_hidden="true"), name)
            for colour, name in entries
        ],
        class_="legend",
    )
