"""Make one HTML page of a run, which opens offline and holds all that it shows.

RUN/report/report.html tells what the run is, its settings, curves, masks as they grew, the test table,
the worst and the best images with false negatives and false positives, calibration, and the thresholds
that were chosen by rules. Test images that have not been scored are scored first, as engine.evaluate
--no-figures does. A run that is still going on, was stopped or has crashed gets a page, too, which says
what is missing and why.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import thresholds_file
from engine.command import Parser, run
from engine.disk import replace_text
from engine.errors import InputError
from engine.figures.cases import Panel
from engine.record import RunReader
from engine.report_page import (
    calibration,
    cases,
    growth,
    guarantee,
    notes,
    overview,
    score_table,
    settings,
    training,
)
from engine.report_page.document import Section, page
from engine.report_page.evaluation import Evaluation, read_evaluation
from engine.report_page.findings import Findings, read_findings
from engine.report_page.markup import Markup, joined, note, prose
from engine.report_page.words import command, percent, size
from engine.thresholds_file import Entry

if TYPE_CHECKING:
    from engine.trained import Threshold, Trained

ALIKE = 2e-3
"""By how much the Dice of a picture may differ from the table's, for it is predicted anew, on any device."""


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.report``."""
    parser = Parser("report", __doc__ or "")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: RUN/report/report.html)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--evaluate", action="store_true", help="score the test images anew")
    again.add_argument(
        "--no-evaluate", action="store_true", help="score and predict nothing: show what is there, in seconds"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    options = parser.parse_args(arguments)
    if options.out is not None and len(options.runs) > 1:
        raise InputError(
            f"--out is one page and {len(options.runs)} runs are given: give one run, or no --out."
        )
    if options.out is not None and options.out.is_dir():
        raise InputError(
            f"--out {options.out} is a folder: a file such as {options.out / 'report.html'} works."
        )
    for root in options.runs:  # all of them, before the first is scored
        RunReader(root).info()
    if options.device != "auto" and not options.no_evaluate:
        from engine.device import find_device

        find_device(options.device)
    wanted = True if options.evaluate else False if options.no_evaluate else None
    for root in options.runs:
        out = options.out or root / "report" / "report.html"
        text, problems = make(root, wanted, options.device)
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, text)
        for problem in problems:
            print(f"note: {problem}", file=sys.stderr)
        print(f"{out} ({size(len(text.encode()))})")
    return 0


def make(root: Path, wanted: bool | None, device: str) -> tuple[str, list[str]]:
    """The page of a run, and what it lacks, a sentence each.

    Args:
        root: the run directory.
        wanted: True to score the test images anew, False never to, None where they have not been.
        device: to score and predict on.
    """
    findings = read_findings(root)
    split = scored_split(findings)
    why = score(findings, wanted, device) if split == "test" else ""
    try:
        scores = read_evaluation(root, split)
    except InputError as error:
        scores, why = None, _sentence(error)
    pictures, lack = Markup(), ""
    if scores is not None:
        pictures, lack = pictured(findings, scores, device, allowed=wanted is not False)
    chosen, damage = thresholds(findings)
    problems = [problem for problem in (findings.refusal, why, lack, damage) if problem]
    parts = [*_scored(findings, scores, pictures, why), *chosen, *_told(findings, problems)]
    return page(findings.name, overview.summary(findings, scores), parts), problems


def _scored(findings: Findings, scores: Evaluation | None, pictures: Markup, why: str) -> list[Section]:
    """What the network does on images that it never saw."""
    if scores is None:
        return [Section("results", "Test images", score_table.missing(findings, why))]
    title = {"test": "Test images", "val": "Validation images", "train": "Training images"}[scores.split]
    return [
        Section(
            "results", title, joined(note(prose(why)) if why else None, score_table.section(findings, scores))
        ),
        Section("cases", "Worst and best images", pictures),
        Section("calibration", "Calibration", calibration.section(findings, scores)),
    ]


def thresholds(findings: Findings) -> tuple[list[Section], str]:
    """The thresholds that rules chose, nothing if none did; and why they cannot be shown, or ""."""
    content, damage = Markup(), ""
    try:
        if entries := thresholds_file.read(findings.root):
            content = guarantee.section(findings, entries, unfit(findings, entries))
    except InputError as error:
        damage = _sentence(error)
    except (LookupError, TypeError, ValueError) as error:
        path = findings.root / thresholds_file.FILE
        damage = (
            f"{path} cannot be shown ({type(error).__name__}: {error}): move it away and calibrate again."
        )
    if damage:
        content = note(damage, kind="warning")
    return ([Section("thresholds", "Thresholds", content)] if content else []), damage


def unfit(findings: Findings, entries: Mapping[str, Entry]) -> dict[str, str]:
    """Rule → why its threshold is refused by now, one sentence, of those that are: by the check of `predict`.

    Each is held against the checkpoint of the name that it was made with, predicted as it was.
    """
    # Torch is loaded only where weights are looked at.
    from engine.trained import Trained

    refused: dict[str, str] = {}
    opened: dict[str, Trained] = {}
    for rule, entry in entries.items():
        made = entry.predicted
        try:
            if made.checkpoint not in opened:
                own = made.checkpoint in ("best", "last")
                file = made.checkpoint if own else str(findings.root / "checkpoints" / made.checkpoint)
                opened[made.checkpoint] = Trained.open(findings.root, file, "cpu")
            now = opened[made.checkpoint].tiled(made.path.get("tile"))
            small = made.path.get("size") == "trained"
            thresholds_file.require(
                findings.root, rule, now.predicted("trained" if small else "native"), now.classes
            )
        except InputError as error:
            refused[rule] = str(error)
    return refused


def _told(findings: Findings, problems: Sequence[str]) -> list[Section]:
    """What the run is and how it went."""
    return [
        Section("training", "Training", training.section(findings)),
        Section("growth", "Masks and predictions as they grew", growth.section(findings)),
        Section("notes", "Warnings and notes", notes.section(findings, problems)),
        Section("settings", "Settings", settings.section(findings)),
        Section("run", "The run", overview.section(findings)),
    ]


def scored_split(findings: Findings) -> str:
    """The split whose scores are shown: test, or without test images one that was scored by hand."""
    if findings.splits.get("test"):
        return "test"
    there = (part for part in ("val", "train") if (findings.root / "report" / f"{part}.json").is_file())
    return next(there, "test")


def score(findings: Findings, wanted: bool | None, device: str) -> str:
    """Score the test images of a run if they have to be.

    Returns:
        Why they were not, a sentence in which `backticks` mark code; or "".
    """
    root = findings.root
    if wanted is None and (root / "report" / "test.json").is_file():
        return ""
    if wanted is False:
        there = (root / "report" / "test.json").is_file()
        how = command("evaluate", root)
        return "" if there else f"The test images have not been scored: `{how}` scores them."
    if wanted is None and findings.status in ("running", "stopping", "waiting"):
        now = command("report", "--evaluate", root)
        return f"The run is still going on: its test images are scored when it has ended, or now by `{now}`."
    if findings.history is None:
        return "No epoch is finished, so there is nothing to score the test images with."
    from engine import evaluate

    try:
        evaluate.main([str(root), "--device", device, "--no-figures"])
    except InputError as error:
        return f"The test images could not be scored: {error}"
    return ""


def pictured(findings: Findings, scores: Evaluation, device: str, *, allowed: bool) -> tuple[Markup, str]:
    """The worst and the best images of an evaluation, and why they are not there, or ""."""
    chosen = cases.choose(scores.ranked())
    if not chosen:
        return note("Dice is defined for no image, so none is the worst."), ""
    if not allowed:
        return cases.saved(findings.root), ""
    try:
        panels = predict(findings, scores, [case.name for case in chosen], device)
    except InputError as error:
        lack = f"The worst and best images could not be predicted again: {error}"
        return joined(note(lack), cases.saved(findings.root)), lack
    other = [
        panel.name
        for panel in panels
        if not math.isclose(_dice(panel), scores.image(panel.name, "dice"), abs_tol=ALIKE)
    ]
    lack = ""
    if other:
        lack = (
            f"The pictures of {', '.join(other)} do not have the Dice of the table: images, masks or "
            "checkpoint have changed since they were scored; --evaluate scores them anew."
        )
    drawn = cases.section(panels, chosen, {name: in_words(scores, name) for name in scores.images()},
                          findings.classes)  # fmt: skip
    return joined(note(lack, kind="warning") if lack else None, drawn), lack


def predict(findings: Findings, scores: Evaluation, names: Sequence[str], device: str) -> list[Panel]:
    """Predict images of an evaluation as it did.

    Raises:
        InputError: the images or the checkpoint are gone or are others by now.
    """
    # Torch is loaded only where something is predicted.
    from engine.data.dataset import Dataset
    from engine.panels import shown
    from engine.trained import Trained

    said = scores.summary
    trained = Trained.open(findings.root, str(said["checkpoint"]), device)
    if trained.epoch != said["epoch"]:
        raise InputError(
            f"the scores are of epoch {said['epoch']}, and the checkpoint {trained.file} is of epoch "
            f"{trained.epoch} by now: --evaluate scores it anew."
        )
    dataset = Dataset.open(trained.config.data, trained.info["splits"])
    indices = dict(zip(findings.splits[scores.split], dataset.splits[scores.split], strict=True))
    chosen, threshold = [indices[name] for name in names], decided(trained, scores)
    return list(shown(trained, dataset, chosen, native=scores.native, threshold=threshold))


def decided(trained: "Trained", scores: Evaluation) -> "Threshold":
    """The threshold, or that of each class, by which the images of an evaluation were scored.

    Raises:
        InputError: a rule chose it, and has chosen another since.
    """
    said = str(scores.summary["decision"])
    rule = re.search(r" by (\w+)(?: \([^()]*\))?$", said)
    if rule is None:
        return scores.threshold
    from engine.decision import decide

    decision = decide(trained, rule[1], "native" if scores.native else "trained")
    if decision.words != said:
        again = command("evaluate", trained.root, "--threshold", rule[1])
        raise InputError(
            f"the images were scored by {said}, and the rule chose {decision.words} since: {again} scores "
            "them anew."
        )
    return decision.threshold


def in_words(scores: Evaluation, name: str) -> str:
    """An image's scores."""
    titles = {"dice": "Dice", "recall": "recall", "precision": "precision"}
    return ", ".join(f"{title} {percent(scores.image(name, metric))}" for metric, title in titles.items())


def _dice(panel: Panel) -> float:
    """Mean over the classes where it is defined."""
    defined = [value for value in panel.dice if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _sentence(error: InputError) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}"


if __name__ == "__main__":
    run(main)
