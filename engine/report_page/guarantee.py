"""Thresholds: those with a guarantee, what the test split showed of it, and apart from them those without."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.report_page import pictures
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, code, element, folded, joined, note, table
from engine.report_page.words import NONE, counted, percent
from engine.threshold_use import commands, worst
from engine.thresholds.words import percent as exact_percent
from engine.thresholds_file import Entry

SYMBOLS = {"epsilon": "ε", "alpha": "α", "delta": "δ", "wanted": "wanted"}
"""Settings of the rules as they are written."""
PROMISED = (
    "Each was calibrated on images that the network has never seen. What is promised holds for new images "
    "from the same source, taken together, however good the network is. Of images from another source it "
    "says nothing."
)
NO_MORE = "nothing any more: see the warning"
"""Stands for the words of a threshold that does not fit the run any more."""
CHOSEN = (
    "These thresholds were the best on validation images, by which the network was chosen, too. They promise "
    "nothing: new images may come out otherwise."
)


def section(findings: Findings, entries: Mapping[str, Entry], unfit: Mapping[str, str]) -> Markup:
    """The thresholds that were chosen by rules, those with a guarantee first.

    Args:
        findings: of the run.
        entries: rule → what it chose, of thresholds.json; at least one.
        unfit: rule → why `predict` would refuse its threshold now, one sentence; the others fit.
    """
    promised = [entry for entry in entries.values() if entry.guarantees]
    chosen = [entry for entry in entries.values() if not entry.guarantees]
    return joined(
        [_refused(rule, why) for rule, why in unfit.items()],
        _goes_on(findings, entries),
        _promised(findings, promised, unfit) if promised else None,
        _chosen(chosen, unfit) if chosen else None,
        _use(findings, [entry for rule, entry in entries.items() if rule not in unfit]),
    )


def _refused(rule: str, why: str) -> Markup:
    """A warning that a threshold does not hold any more."""
    said = f"The threshold by {rule} does not hold any more, and promises nothing: {why}"
    return note(said, kind="warning")


def _goes_on(findings: Findings, entries: Mapping[str, Entry]) -> Markup | None:
    """That thresholds are of weights which a run in progress will replace."""
    made = {f"{entry.predicted.checkpoint} after epoch {entry.predicted.epoch}" for entry in entries.values()}
    if findings.status not in ("running", "stopping"):
        return None
    return note(
        f"The run still trains: the thresholds belong to the weights of {', and '.join(sorted(made))}, and "
        "are refused once those of a later epoch have taken their place."
    )


def _use(findings: Findings, entries: Sequence[Entry]) -> Markup | None:
    """The commands that take the thresholds."""
    if findings.config is None:
        return None
    lines = []
    dims = int(findings.info["dataset"].get("dims", 2))
    for entry in entries:
        made = entry.predicted.checkpoint
        flag = None if made == usual_checkpoint(findings) else made
        if flag not in (None, "best", "last"):
            flag = str(findings.root / "checkpoints" / made)
        typed, cannot = commands(
            entry, findings.root, findings.config.prediction.tile_of(dims), checkpoint=flag,
            untested="" if findings.splits.get("test") else "the run has no test images",
        )  # fmt: skip
        lines += [element("li", code(line)) for line in typed[:1]]
        lines += [element("li", code(entry.rule.name), f": {reason}.") for reason in cannot]
    if not lines:
        return None
    return joined(element("p", "They are used by their rule's name:"), element("ul", lines))


def usual_checkpoint(findings: Findings) -> str:
    """The checkpoint that commands take where none is given."""
    best = findings.splits.get("val") and (findings.root / "checkpoints" / "best").is_file()
    return "best" if best else "last"


def _promised(findings: Findings, entries: Sequence[Entry], unfit: Mapping[str, str]) -> Markup:
    titles = ["rule", "settings", "class", "what is promised", "what the test split showed"]
    rows = [
        [*head, NO_MORE if entry.rule.name in unfit else each_words, tested(entry, test), *numbers]
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
            "one. T = 0 predicts everything, ∞ nothing.",
            class_="faint",
        ),
        [_drawn(findings.root, entry) for entry in entries if entry.rule.name not in unfit],
        [_about(entry) for entry in entries],
    )


def _chosen(entries: Sequence[Entry], unfit: Mapping[str, str]) -> Markup:
    titles = ["rule", "settings", "class", "what the validation images showed"]
    rows = [
        [*head, NO_MORE if entry.rule.name in unfit else each_words, *numbers[:2]]
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
        chose = entry.data["source"] == "test split"
        return "nothing: the test images chose T, so none is left to test it" if chose else NONE
    units = counted(test["n"], f"test {entry.data['unit']}")
    parts = f" of {share}" if (share := worst(entry)) else ""
    said = [f"missed: {percent(test['fnr'])}{parts} on average over {units}{_interval(test)}"]
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
