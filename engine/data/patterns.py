"""The little language of path patterns that describes how a data set is laid out.

A pattern is a path below the data set's root, with ``/`` between folders.
``{name}`` stands for a piece of a file's or folder's name, ``*`` for anything
within one. Pieces that image and mask pattern share tie an image to its mask.
Five names mean more:

    {id}       what names an image
    {group}    patient, eye, sequence: what must stay in one split
    {channel}  one file per channel of an image, in this order
    {part}     one file per object of a mask, merged
    {ext}      any ending that can be read, not tied between image and mask

Letter case does not matter, as folders are spelled ``Images`` as often as ``images``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.data.decode import ENDINGS

PLACEHOLDER = re.compile(r"\{(\w+)\}|(\*)")
UNTIED = {"ext", "channel", "part"}
ANY_ENDING = "|".join(re.escape(ending.lstrip(".")) for ending in ENDINGS)


@dataclass(frozen=True)
class Pattern:
    """A path pattern, its regular expression, and the names of its pieces."""

    text: str
    regex: re.Pattern[str]
    names: frozenset[str]

    def match(self, path: str) -> dict[str, str] | None:
        """The pieces of ``path`` (relative, with ``/``), or None if it does not fit."""
        found = self.regex.fullmatch(path)
        return None if found is None else {name: found[name] or "" for name in self.names}


def pattern(text: str, where: Mapping[str, str]) -> Pattern:
    """Compile ``text``; ``where`` gives regular expressions for pieces that are not just any name."""
    names: set[str] = set()
    regex, end = "", 0
    for placeholder in PLACEHOLDER.finditer(text):
        regex += re.escape(text[end : placeholder.start()])
        end, name = placeholder.end(), placeholder[1]
        if name is None:
            regex += "[^/]*"
        elif name in names:
            regex += f"(?P={name})"
        else:
            names.add(name)
            default = ANY_ENDING if name == "ext" else "[^/]+?"
            regex += f"(?P<{name}>{where.get(name, default)})"
    return Pattern(text, re.compile(regex + re.escape(text[end:]), re.IGNORECASE), frozenset(names))
