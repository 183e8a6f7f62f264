"""Sheets: each format keeps its own rules, whatever the names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.comparison import sheet
from engine.comparison.sheet import Field, Line, Sheet

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip)


def small(name: str, note: str = "a note", head: str = "score") -> Sheet:
    lines = (
        Line((Field(name), Field("0.50"), Field("1"))),
        Line((Field("published"), Field(name), Field("")), quoted=True),
        Line((Field("other"), Field("12.50 ± 0.10", best=True, mark=True), Field("2 of 3"))),
    )
    return Sheet(name, ("method", head, "seeds"), 1, ((name, lines), ("more", lines)), "the best", (note,))


def unescaped(text: str, character: str) -> int:
    """How often a character stands without a backslash before it."""
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(character)}", text))


@given(names, names, names)
def test_latex_keeps_its_structure_whatever_the_names(name: str, note: str, head: str) -> None:
    made = sheet.latex(small(name, note, head))
    plain = re.sub(r"\\\\$|\\[&%$#_{}]|\\[a-zA-Z]+", "", made, flags=re.MULTILINE)
    assert "\\" not in plain, "every backslash is a command, an escape or the end of a row"
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0
    for special in "#_^~":
        assert special not in re.sub(r"\$\^[^$]*\$|~", "", plain), special
    body = made[made.index(r"\toprule") : made.index(r"\bottomrule")].splitlines()
    rows = [row for row in body if row.endswith(r"\\") and not row.startswith(r"\multicolumn")]
    assert len(rows) == 7
    assert {unescaped(row, "&") for row in rows} == {2}
    assert made.count("%") == unescaped(made, "%") + made.count(r"\%")
    assert unescaped(made, "%") == 1, "the comment in the first line"


def test_latex_known() -> None:
    assert sheet.escaped_latex("50 % of A_1 & B#2 {x} $y ~ ^ \\ γ = 2 ± 1") == (
        r"50 \% of A\_1 \& B\#2 \{x\} \$y \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"$\gamma$ = 2 $\pm$ 1"
    )
    made = sheet.latex(small("U-Net + SRL"))
    assert r"other & \textbf{12.50 $\pm$ 0.10}$^{*}$ & 2 of 3 \\" in made
    assert r"\quad \textit{published} & \textit{U-Net + SRL} &  \\" in made
    assert r"\begin{tabular}{lrr}" in made
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", made) for word in ("begin", "end"))
    assert (begun, ended) == (["table", "tabular", "minipage"], ["tabular", "minipage", "table"])
    assert "{}[a]" in sheet.latex(small("[a]")), "a bracket is no argument of the row's end before it"


@given(names, names)
def test_markdown_keeps_its_columns_whatever_the_names(name: str, note: str) -> None:
    made = sheet.markdown(small(name, note)).split("\n")
    rows = [row for row in made if row.startswith("| ")]
    assert len(rows) == 10
    assert {unescaped(row, "|") for row in rows} == {4}


def test_markdown_known() -> None:
    made = sheet.markdown(small("a_b|c*"))
    assert r"| a\_b\|c\* | 0.50 | 1 |" in made
    assert r"| *published* | *a\_b\|c\** |  |" in made
    assert r"| other | **12.50 ± 0.10**\* | 2 of 3 |" in made
    assert "| :-- | --: | --: |" in made
    assert "- In bold: the best." in made


@given(names, names)
def test_text_is_aligned_by_the_width_of_characters(name: str, head: str) -> None:
    made = sheet.text(small(name, head=head)).split("\n")
    rule = made[3]
    assert set(rule) == {"─", " "}
    end = [at + 1 for at, mark in enumerate(rule) if mark == "─" and rule[at + 1 : at + 2] != "─"]
    for row in made:
        if row.startswith(("other", "method")):
            assert sheet.width(row) == end[-1] or row.startswith("method")
    # The number's column ends where the rule's does, with room for the mark.
    (first, _) = (row for row in made if row.startswith("other"))
    before = first[: first.index("*") + 1]
    assert sheet.width(before) == end[1]


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("細胞", 4), ("e\u0301", 1), ("γ ± ↑", 5), ("\u200bx", 1), ("", 0)]
)
def test_width_in_a_terminal(text: str, columns: int) -> None:
    assert sheet.width(text) == columns


def test_what_is_wider_than_a_terminal_stands_in_parts_below_each_other() -> None:
    def wide(count: int) -> Sheet:
        head = ("method", *(f"metric {place} of many" for place in range(count)), "seeds")
        rows = tuple(
            Line(tuple(map(Field, (name, *[f"{place}.5" for place in range(count)], "3")))) for name in "ab"
        )
        return Sheet("title", head, 1, (("demo", rows), ("more", rows)), "the best", ())

    assert sheet.text(wide(4)).count("method") == 1
    made = sheet.text(wide(12))
    assert max(map(sheet.width, made.splitlines())) <= sheet.WIDE
    assert made.count("method") == 3, "each part has the names"
    assert [made.count(f" {place}.5") for place in range(12)] == [4] * 12, "and no number is lost or doubled"
    assert made.count("seeds") == 1
    alone = Sheet("t", ("m" * 90, "s" * 90), 1, (("demo", ()),), "the best", ())
    assert sheet.text(alone).count("s" * 90) == 1, "what is too wide for any terminal is not taken apart"


def test_names_with_line_breaks_stay_in_their_row() -> None:
    for made in (sheet.text, sheet.markdown, sheet.latex):
        assert made(small("two\nlines\there")) == made(small("two lines here"))
