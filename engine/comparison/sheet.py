"""A sheet: a table as papers print it, in plain text, Markdown and LaTeX."""

import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

BULLET = "•"
"""What stands before the best in plain text, which has no bold."""
NARROW, WIDE = 80, 100
"""Columns that notes below a table have at least, and that a terminal is taken to have."""
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
    '"': "''", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "·": r"$\cdot$",
    "≥": r"$\ge$", "≤": r"$\le$", "−": "$-$", "–": "--", "—": "---", "…": r"\ldots{}", "•": r"\textbullet{}",
    "²": "$^2$", "³": "$^3$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$",
    "ε": r"$\varepsilon$", "λ": r"$\lambda$", "μ": r"$\mu$", "σ": r"$\sigma$", "’": "'", "“": "``", "”": "''",
    "\N{NO-BREAK SPACE}": "~", "½": r"\textonehalf{}",
}  # fmt: skip
"""Characters that LaTeX reads as commands, or knows by another name. Accented letters stay as they are."""
MARKDOWN = frozenset("\\`*_{}[]<>|~#&$")
"""Characters that Markdown may read as marks."""


@dataclass(frozen=True)
class Field:
    """What stands in one place of a table.

    Attributes:
        text: as it is printed.
        best: whether it is in bold.
        mark: whether it carries the significance mark *.
    """

    text: str
    best: bool = False
    mark: bool = False


@dataclass(frozen=True)
class Line:
    """A row, or the published numbers of the row above it."""

    fields: tuple[Field, ...]
    quoted: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table with what stands around it.

    Attributes:
        title: of the table.
        head: of its columns.
        names: how many columns, the first ones, hold names and not numbers.
        blocks: title → rows, each of as many fields as there are columns.
        best: what it means to be the best, in a few words.
        notes: below the table, a sentence or two each.
    """

    title: str
    head: tuple[str, ...]
    names: int
    blocks: tuple[tuple[str, tuple[Line, ...]], ...]
    best: str
    notes: tuple[str, ...]


def text(sheet: Sheet) -> str:
    """In plain text, for a terminal: columns aligned by the width that characters have there.

    What is wider than a terminal stands in parts below each other, each with the names, as a line that is
    broken by the terminal cannot be read.
    """
    head, blocks = _plain_cells(sheet)
    rows = [row for block in blocks for row in block]
    widths = [max(map(width, column)) for column in zip(head, *rows, strict=True)]

    def aligned(row: Sequence[str], part: Sequence[int]) -> str:
        cells = []
        for place in part:
            space = " " * (widths[place] - width(row[place]))
            cells.append(row[place] + space if place < sheet.names else space + row[place])
        return "  ".join(cells).rstrip()

    made, room = [one_line(sheet.title)], NARROW
    for part in _parts(widths, sheet.names):
        rule = "  ".join("─" * widths[place] for place in part)
        room = max(room, len(rule))
        made += ["", aligned(head, part), rule]
        for number, ((title, _), block) in enumerate(zip(sheet.blocks, blocks, strict=True)):
            made += [""] if number else []
            made += [one_line(title), *(aligned(row, part) for row in block)]
        made.append(rule)
    notes = [
        textwrap.fill(one_line(note), room, subsequent_indent="  ", break_on_hyphens=False)
        for note in (*_explained(sheet, BULLET), *sheet.notes)
    ]
    return "\n".join([*made, *notes]) + "\n"


def _parts(widths: Sequence[int], names: int) -> list[list[int]]:
    """Places of the columns of each part of a table: as few parts as a terminal is wide enough for."""
    numbers = range(names, len(widths))
    parts = [list(range(len(widths)))]
    for count in range(1, len(numbers) + 1):
        ends = [len(numbers) * number // count for number in range(count + 1)]
        parts = [[*range(names), *numbers[start:end]] for start, end in pairwise(ends)]
        if all(sum(widths[place] + 2 for place in part) - 2 <= WIDE for part in parts):
            break
    return parts


def _plain_cells(sheet: Sheet) -> tuple[list[str], list[list[list[str]]]]:
    """What stands in the columns' heads, and in each block's rows, before it is aligned."""

    def shown(field: Field) -> str:
        return one_line(f"{BULLET * field.best}{field.text}") + "*" * field.mark

    blocks = [[[shown(field) for field in line.fields] for line in lines] for _, lines in sheet.blocks]
    # Where a column of numbers has marks, what has none ends in a space: digits stand under digits.
    numbers = range(sheet.names, len(sheet.head))
    marked = {place for place in numbers for block in blocks for row in block if row[place].endswith("*")}

    def ended(row: Sequence[str]) -> list[str]:
        return [cell + " " * (place in marked and not cell.endswith("*")) for place, cell in enumerate(row)]

    indented = [
        [["  " * line.quoted + row[0], *row[1:]] for line, row in zip(lines, block, strict=True)]
        for (_, lines), block in zip(sheet.blocks, blocks, strict=True)
    ]
    return ended([one_line(title) for title in sheet.head]), [list(map(ended, rows)) for rows in indented]


def markdown(sheet: Sheet) -> str:
    """In Markdown, as a pipe table with the best in bold."""

    def said(field: Field, quoted: bool) -> str:
        inner = escaped_markdown(field.text)
        inner = f"**{inner}**" if field.best and inner else inner
        inner = f"*{inner}*" if quoted and inner else inner
        return inner + r"\*" * field.mark

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    made = [f"### {escaped_markdown(sheet.title)}", "", row([escaped_markdown(t) for t in sheet.head])]
    made.append(row([":--" if place < sheet.names else "--:" for place in range(len(sheet.head))]))
    for title, lines in sheet.blocks:
        made.append(row([f"**{escaped_markdown(title)}**", *[""] * (len(sheet.head) - 1)]))
        made += [row([said(field, line.quoted) for field in line.fields]) for line in lines]
    notes = [f"- {escaped_markdown(note)}" for note in (*_explained(sheet, "In bold:"), *sheet.notes)]
    return "\n".join([*made, "", *notes]) + "\n"


def latex(sheet: Sheet) -> str:
    """In LaTeX, as a floating table; needs the package booktabs, and UTF-8 input."""

    def said(field: Field, quoted: bool) -> str:
        inner = escaped_latex(field.text)
        inner = rf"\textbf{{{inner}}}" if field.best and inner else inner
        inner = rf"\textit{{{inner}}}" if quoted and inner else inner
        return inner + "$^{*}$" * field.mark

    columns = "l" * sheet.names + "r" * (len(sheet.head) - sheet.names)
    made = [
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering",
        rf"\caption{{{escaped_latex(sheet.title)}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
        _latex_row([escaped_latex(title) for title in sheet.head]),
    ]  # fmt: skip
    for title, lines in sheet.blocks:
        whole = rf"\multicolumn{{{len(sheet.head)}}}{{l}}{{\textbf{{{escaped_latex(title)}}}}} \\"
        made += [r"\midrule", whole]
        for line in lines:
            indent = r"\quad " if line.quoted else ""
            made.append(indent + _latex_row([said(field, line.quoted) for field in line.fields]))
    made += [r"\bottomrule", r"\end{tabular}", "", r"\medskip", r"\begin{minipage}{\linewidth}\footnotesize"]
    notes = (*_explained(sheet, "In bold:"), *sheet.notes)
    made += [escaped_latex(note) + r"\par" for note in notes]
    return "\n".join([*made, r"\end{minipage}", r"\end{table}"]) + "\n"


def _explained(sheet: Sheet, sign: str) -> list[str]:
    """What the sign of the best means, where there is a best."""
    marked = any(field.best for _, lines in sheet.blocks for line in lines for field in line.fields)
    return [f"{sign} {sheet.best}."] if marked else []


def _latex_row(cells: Sequence[str]) -> str:
    # A row that begins with [ would be read as the argument of the \\ before it.
    first = "{}" + cells[0] if cells[0].startswith("[") else cells[0]
    return " & ".join([first, *cells[1:]]) + r" \\"


def escaped_latex(plain: str) -> str:
    """A text as LaTeX prints it."""
    return _each(one_line(plain), lambda character: LATEX.get(character, character))


def escaped_markdown(plain: str) -> str:
    """A text as Markdown prints it."""
    return _each(one_line(plain), lambda character: "\\" * (character in MARKDOWN) + character)


def one_line(plain: str) -> str:
    """A text without line breaks, tabs and control characters."""
    kept = (c if unicodedata.category(c) != "Cc" else " " for c in plain)
    return " ".join("".join(kept).split())


def width(plain: str) -> int:
    """Columns that a text takes in a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2 if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in plain
    )  # fmt: skip


def _each(plain: str, change: Callable[[str], str]) -> str:
    return "".join(map(change, plain))
