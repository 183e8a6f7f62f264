"""The page: its sections in the order of interest, in one file that asks for no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from engine import __version__
from engine.report_page.markup import Markup, element, joined
from engine.report_page.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""No scripts, no files, no network: whatever a name in the page might try."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        id: of its heading, for links.
        title: of it.
        content: below it.
    """

    id: str
    title: str
    content: Markup


def page(name: str, head: Markup, sections: Sequence[Section]) -> str:
    """The whole page as text.

    Args:
        name: of the run.
        head: what stands before the first heading.
        sections: in order.
    """
    title = f"Report of the run {name}"
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    body = joined(
        element("a", "Skip to the results", href="#main", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("p", f"Made {made} by napari-smm {__version__}.", class_="faint"),
        ),
        element("main", head, _contents(sections), [_section(part) for part in sections], id="main"),
        element(
            "footer",
            element("p", "This file is complete in itself. Research software: not a medical device."),
        ),
    )
    return "<!DOCTYPE html>\n" + element("html", _head(title), element("body", body), lang="en") + "\n"


def _head(title: str) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(STYLE)),
    )


def _contents(sections: Sequence[Section]) -> Markup:
    links = [element("li", element("a", part.title, href=f"#{part.id}")) for part in sections]
    return element("nav", element("ul", links), aria_label="Contents")


def _section(part: Section) -> Markup:
    heading = element("h2", part.title, id=part.id)
    return element("section", heading, part.content, aria_labelledby=part.id)
