"""Thresholds: those with a guarantee, what the test split showed of it, and apart from them those without."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.report_page import pictures
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, code, element, folded, joined, note, table
from engine.report_page.words import NONE, command, counted, percent
from engine.thresholds.words import percent as exact_percent
from engine.thresholds_file import Entry

SYMBOLS = {"epsilon": "ε", "alpha": "α", "delta": "δ", "wanted": "wanted"}
"""Settings of the rules as they are written."""
PROMISED = (
    "Each was calibrated on images that the network has never seen. What is promised holds for new images "
    "from the same source, taken together, however good the network is. Of images from another source it "
    "says nothing."
)
CHOSEN = (
    "These thresholds were the best on validation images, by which the network was chosen, too. They promise "
    "nothing: new images may come out otherwise."
)


def section(findings: Findings, entries: Mapping[str, Entry]) -> Markup:
    """The thresholds that were chosen by rules, those with a guarantee first.

    Args:
        findings: of the run.
        entries: rule → what it chose, of thresholds.json; at least one.
    """
    promised = [entry for entry in entries.values() if entry.guarantees]
    chosen = [entry for entry in entries.values() if not entry.guarantees]
    return joined(
        [outdated(findings, entry) for entry in entries.values()],
        _promised(findings, promised) if promised else None,
        _chosen(chosen) if chosen else None,
        element(
            "p", "They are used by their rule's name: ",
            code(command("predict", findings.root, "IMAGES", "--threshold", next(iter(entries)))), ".",
        ),
    )  # fmt: skip


def outdated(findings: Findings, entry: Entry) -> Markup | None:
    """A warning where the run has gone on since the threshold was chosen."""
    history, made = findings.history, entry.predicted
    if history is None:
        return None
    now = {"best": history.best, "last": int(history.number[-1])}.get(made.checkpoint)
    if now in (None, 0, made.epoch):
        return None
    return note(
        f"The threshold by {entry.rule.name} is for the network of epoch {made.epoch}; the run has gone on "
        f"since, its {made.checkpoint} checkpoint is now of epoch {now}, and for that the threshold is "
        "refused. ",
        code(command("calibrate", findings.root, "--rule", entry.rule.name)),
        " makes a new one.",
        kind="warning",
    )


def _promised(findings: Findings, entries: Sequence[Entry]) -> Markup:
    titles = ["rule", "settings", "class", "what is promised", "what the test split showed"]
    rows = [
        [*head, each_words, tested(entry, test), *numbers]
        for entry in entries
        for head, each_words, test, numbers in _rows(entry)
    ]
    return joined(
        element("h3", "With a guarantee"),
        element("p", PROMISED),
        table(
            "Thresholds with a guarantee",
            [*titles, "T", "n", "left out"],
            rows,
            words=len(titles),
        ),
        element(
            "p",
            "n: images or groups that T was calibrated on. Left out: those without lesion, which cannot miss "
            "one. 0 predicts everything, ∞ nothing.",
            class_="faint",
        ),
        [_drawn(findings.root, entry) for entry in entries],
        [_about(entry) for entry in entries],
    )


def _chosen(entries: Sequence[Entry]) -> Markup:
    titles = ["rule", "settings", "class", "what the validation images showed"]
    rows = [
        [*head, each_words, *numbers[:2]]
        for entry in entries
        for head, each_words, _, numbers in _rows(entry)
    ]
    return joined(
        element("h3", "Chosen on validation images, no guarantee"),
        element("p", CHOSEN),
        table("Thresholds without a guarantee", [*titles, "T", "n"], rows, words=len(titles)),
        [_about(entry) for entry in entries],
    )


def _rows(entry: Entry) -> list[tuple[list[Child], str, Mapping[str, Any], list[Child]]]:
    """Of each class, or once for all together: name and settings, words, test, and numbers."""
    shown = entry.classes
    if entry.together:
        shown = {"all together": next(iter(entry.classes.values()))}
    return [
        (
            [code(entry.rule.name), settings(entry), name],
            each.words,
            each.test,
            [threshold(each.threshold), counted(each.n, str(entry.data["unit"])), each.left_out],
        )
        for name, each in shown.items()
    ]


def settings(entry: Entry) -> str:
    """A rule's settings, such as "ε = 10 %, α = 5 %"."""
    said = [f"{SYMBOLS[name]} = {exact_percent(value)}" for name, value in entry.rule.settings().items()]
    return ", ".join(said) or NONE


def threshold(value: float) -> str:
    """T to six digits."""
    return "∞" if math.isinf(value) else f"{value:.6g}"


def tested(entry: Entry, test: Mapping[str, Any]) -> str:
    """What the test split showed of a promise, in words; a dash where nothing was looked at.

    Args:
        entry: the rule's.
        test: of thresholds.json: `n`, `kept`, `expected`, `fnr`, `interval`, `precision`,
            `precision_at_half`, as far as they are there.
    """
    if not test:
        return NONE
    units = counted(test["n"], f"test {entry.data['unit']}")
    said = [f"missed: {percent(test['fnr'])} on average over {units}{_interval(test)}"]
    if "kept" in test:
        said.insert(0, _kept(test, units))
    if test.get("precision") is not None:
        half = test.get("precision_at_half")
        usual = "" if half is None else f", and {percent(half)} at T = 0.5"
        said.append(f"precision: {percent(test['precision'])}{usual}")
    return "; ".join(said)


def _kept(test: Mapping[str, Any], units: str) -> str:
    """In how many units no more than ε was missed, beside what is to be expected."""
    low, high = test["expected"]
    between = f"{low} to {high}" if low < high else f"{low}"
    few = ", so these are fewer than the promise lets expect" if test["kept"] < low else ""
    return f"kept in {test['kept']} of {units}; in 95 % of test splits it is {between}{few}"


def _interval(test: Mapping[str, Any]) -> str:
    ends = [end for end in test.get("interval") or () if end is not None]
    if len(ends) < 2:
        return ""
    low, high = max(ends[0], 0.0), min(ends[1], 1.0)
    return f" (95 % interval {percent(low)} to {percent(high)})"


def _drawn(root: Path, entry: Entry) -> Markup:
    """The figure that the calibration has saved."""
    name = entry.rule.name
    file = root / "report" / f"guarantee-{name}.png"
    if not file.is_file():
        return note("There is no figure of ", code(name), ": it was calibrated with --no-figures.")
    # The figure is saved after the threshold; times of files may be rounded.
    if file.stat().st_mtime + 2 < datetime.fromisoformat(entry.made).timestamp():
        return note("The figure of ", code(name), " is of an earlier calibration and left out.")
    each = "; ".join(
        f"{key}: T = {threshold(value.threshold)}. {value.words}" for key, value in entry.classes.items()
    )
    return pictures.shown(
        pictures.file(file),
        f"Calibration by {name}, its test, and what it costs in precision. {each} The numbers are in the "
        "table above.",
        joined(
            code(name),
            ": where T comes from, whether the test split bears the promise out, and what it costs.",
        ),
        kind="plot",
    )


def _about(entry: Entry) -> Markup:
    """Which images and which network, folded."""
    data, made = entry.data, entry.predicted
    names = [str(name) for name in data.get("names", ())]
    rows: list[list[Child]] = [
        ["images", f"{data['source']} ({counted(int(data['images']), 'image')})"],
        ["network", f"{made.checkpoint} checkpoint, of epoch {made.epoch}"],
        ["made", f"{datetime.fromisoformat(entry.made):%Y-%m-%d %H:%M %Z}".strip()],
        ["fingerprint of images and masks", code(str(data.get("fingerprint", NONE)))],
        ["fingerprint of weights", code(made.weights)],
        ["names", ", ".join(names) or NONE],
    ]
    return folded(
        joined("What ", code(entry.rule.name), " was chosen on"),
        table(f"{entry.rule.name}: images and network", ["what", "which"], rows, words=2),
    )
