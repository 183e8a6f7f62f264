"""HTML as text that cannot be broken by what it shows: everything but :class:`Markup` is escaped."""

import html
import re
from collections.abc import Iterable, Sequence

VOID = frozenset({"br", "hr", "img", "meta"})
"""Elements that have no content and no end tag."""
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML or UTF-8 does not have; file names can hold them."""


class Markup(str):
    """Text that is HTML already. Made by the functions here, of escaped text only."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]
"""What an element can hold: markup, text, whole numbers, or any of them in a row; None is left out."""


def escaped(text: str) -> str:
    """Text so that it shows as it is, in an element or in a quoted attribute."""
    return html.escape(UNPRINTABLE.sub("\ufffd", text), quote=True)


def joined(*children: Child) -> Markup:
    """One piece of HTML of several, one behind the other."""
    return Markup("".join(_pieces(children)))


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int):
            yield escaped(str(child))
        elif child is not None:
            yield from _pieces(child)


def element(tag: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """``<tag attribute="…">children</tag>``.

    Args:
        tag: name of the element; one of VOID has no end tag.
        children: what it holds.
        attributes: an underscore at the end is dropped (``class_``), others become hyphens. None and
            False leave an attribute out, True sets it without a value.
    """
    words = [tag]
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words.append(f'{name}="{escaped(value)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if tag in VOID else f"{start}{joined(*children)}</{tag}>")


def table(
    caption: str, titles: Sequence[Child], rows: Iterable[Sequence[Child]], *, words: int = 1
) -> Markup:
    """A table that scrolls sideways where it is too wide; each row's first cell is its header.

    Args:
        caption: above it.
        titles: of the columns.
        rows: as long as the titles.
        words: so many columns, from the first, are text and set to the left; the rest are numbers.
    """
    head = [
        element("th", title, scope="col", class_="number" if column >= words else None)
        for column, title in enumerate(titles)
    ]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=None if words else "number"),
            [
                element("td", cell, class_="number" if column >= words else None)
                for column, cell in enumerate(row[1:], 1)
            ],
        )
        for row in rows
    ]
    grid = element(
        "table", element("caption", caption), element("thead", element("tr", head)), element("tbody", body)
    )
    # In the order of the Tab key, so that it scrolls without a mouse too.
    return element("div", grid, class_="wide", tabindex="0", role="group", aria_label=caption)


def facts(rows: Iterable[tuple[Child, Child]]) -> Markup:
    """Names and what they are."""
    return element("dl", [(element("dt", name), element("dd", value)) for name, value in rows])


def folded(summary: Child, *children: Child) -> Markup:
    """What is shown when its line is clicked, and in print."""
    return element("details", element("summary", summary), *children)


def code(text: str) -> Markup:
    """A command or a name as it is typed."""
    return element("code", text)


def note(*children: Child, kind: str = "note") -> Markup:
    """A remark that stands out; kind is "note" or "warning"."""
    return element("p", *children, class_=kind, role="note")


def prose(text: str) -> Markup:
    """A sentence in which `backticks` mark code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is just a character
        return joined(text)
    return joined(code(part) if odd % 2 else part for odd, part in enumerate(parts))
