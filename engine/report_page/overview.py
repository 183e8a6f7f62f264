"""The head of the page: what the run is, how it went, and its most important numbers."""

import math
import shlex
from collections.abc import Sequence

from engine.figures.epochs import class_mean
from engine.report_page.evaluation import Evaluation
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, code, element, facts, folded, joined, note, table
from engine.report_page.words import command, counted, duration, listed, moment, number, percent

STATES = {
    "waiting": "The run has not begun.",
    "running": "The run is still going on; this page shows it as it was when the page was made.",
    "stopping": "The run is about to stop; this page shows it as it was when the page was made.",
    "stopped": "The run was stopped before its end.",
    "failed": "The run failed.",
    "finished": "The run is finished.",
    "crashed": "The run's process ended without a word, as after a power cut or a kill.",
}
PARTS = {
    "train": "the network learns from them",
    "val": "choose the best checkpoint; never learned from",
    "calib": "set thresholds; seen by nothing else",
    "test": "scored in this report; seen by nothing before",
}
"""What each split is for."""


def summary(findings: Findings, scores: Evaluation | None) -> Markup:
    """A sentence of what was done, the state if it is not the usual one, and tiles of numbers."""
    return joined(element("p", _sentence(findings)), _state(findings), tiles(findings, scores))


def _sentence(findings: Findings) -> str:
    data, history, splits = findings.info["dataset"], findings.history, findings.splits
    held = [f"{len(splits[part])} for {word}" for part, word in HELD if splits.get(part)]
    method = findings.chosen("modulation")
    made = [("network", findings.chosen("model")), ("method", METHODS.get(method, method)),
            ("loss", findings.chosen("loss"))]  # fmt: skip
    how = ", ".join(f"{word} {name}" for word, name in made if name) or "a network"
    done = f"{len(history.number)} of {history.epochs} epochs" if history else "no epoch so far"
    back = f" ({', '.join(held)} held back)" if held else ""
    return (
        f"{how[0].upper()}{how[1:]}: trained on {counted(len(splits['train']), 'image')} of {data['root']}"
        f"{back} for {done}, {duration(findings.seconds())} on "
        f"{findings.info['device_name']}, to find {listed(findings.classes)}."
    )


METHODS = {"none": "plain training", "smm_v1": "SMM v1", "smm_v2": "SMM v2"}
HELD = (("val", "validation"), ("calib", "calibration"), ("test", "testing"))


def _state(findings: Findings) -> Markup | None:
    status = findings.status
    if status == "finished":
        return None
    again = None
    if status in ("stopped", "failed", "crashed"):
        again = joined(" It goes on with ", code(command("train", "--resume", findings.root)), ".")
    why = None
    if status == "failed":
        why = " " + str(findings.of("failed")[-1].get("message", "")).rstrip(".") + "."
    return note(STATES[status], why, again, kind="warning")


def tiles(findings: Findings, scores: Evaluation | None) -> Markup:
    """The numbers that decide, of the test images or, without them, of training."""
    found: list[tuple[str, str, str]] = []
    if scores is not None:
        images = f"{scores.split} images, mean"
        for metric, name, share in TILES:
            entry = scores.entry("mean", metric)
            if entry is not None and math.isfinite(entry.value):
                value = percent(entry.value) if share else number(entry.value, ".4f")
                margin = ""
                if math.isfinite(entry.margin):
                    margin = f"± {percent(entry.margin)}" if share else f"± {number(entry.margin, '.4f')}"
                if metric == "lesion_recall" and (every := scores.lesions()):
                    margin = f"{every[0]:,} of {every[1]:,}, pooled"
                found.append((name, value, margin or images))
    history = findings.history
    if history is not None and history.validated and history.best:
        dice = class_mean(history.dice)[history.number == history.best][0]
        found.append(("Best validation Dice", percent(float(dice)), f"epoch {history.best}"))
    if history is not None and math.isfinite(history.recall[-1]):
        epoch = f"epoch {history.number[-1]}"
        found.append(("Recall in training", percent(float(history.recall[-1])), epoch))
    if not found:
        return joined()
    return element("dl", [_tile(*tile) for tile in found], class_="tiles")


TILES = (
    ("dice", "Dice", True),
    ("fnr", "Missed (FNR)", True),
    ("precision", "Precision", True),
    ("cldice", "clDice", True),
    ("lesion_recall", "Lesions found", True),
    ("ece", "Calibration (ECE)", False),
)


def _tile(name: str, value: str, below: str) -> Markup:
    return element("div", element("dt", name), element("dd", value, element("small", below)), class_="tile")


def section(findings: Findings) -> Markup:
    """Data, splits, machine, versions, command, time."""
    info, data = findings.info, findings.info["dataset"]
    return joined(
        facts(_identity(findings)),
        element("h3", "Images and splits"),
        facts(
            [
                ("folder", code(str(data["root"]))),
                ("layout", str(data["layout"])),
                ("images", f"{data['images']:,}, of {counted(data['channels'], 'channel')}"),
                ("classes", listed(findings.classes, 40)),
                (
                    "split by",
                    "patient or group" if data.get("grouped") else "image: the layout names no patients",
                ),
                ("fingerprint of the files", code(str(data["fingerprint"])[:16])),
            ]
        ),
        _splits(findings.splits),
        element("h3", "Where and with what"),
        facts(
            [
                ("device", f"{info['device_name']} ({info['device']}), {info['precision']}"),
                ("threads", f"{info['threads']}"),
                ("host", str(info["host"])),
                ("versions", _versions(findings)),
                ("seed", f"{info['seed']}"),
                ("command", code(_typed(info["command"]))),
            ]
        ),
    )


def _identity(findings: Findings) -> list[tuple[Child, Child]]:
    history, info = findings.history, findings.info
    done = f"{len(history.number)} of {history.epochs} epochs" if history else "no epoch finished"
    began = findings.of("started")
    rows: list[tuple[Child, Child]] = [
        ("status", f"{findings.status}, {done}"),
        ("folder", code(str(findings.root.resolve()))),
    ]
    if began:
        sessions = "" if len(began) == 1 else f", in {len(began)} sittings"
        rows += [
            ("began", moment(began[0]["time"])),
            ("last sign", moment(findings.events[-1]["time"])),
            ("time taken", f"{duration(findings.seconds())}{sessions}{_an_epoch(findings)}"),
        ]
    rows.append(("weights", f"{info['parameters']:,}"))
    if init := info.get("init"):
        new = f"; new classes: {', '.join(init['new'])}" if init["new"] else ""
        rows.append(("started from", f"{init['run']}, {init['checkpoint']} of epoch {init['epoch']}{new}"))
    rows.append(("steps", f"{info['steps']:,} an epoch"))
    if history is not None:
        rows.append(("best epoch", f"{history.best}" if history.best else "none: the last checkpoint counts"))
    return rows


def _an_epoch(findings: Findings) -> str:
    seconds = sorted(event["seconds"]["epoch"] for event in findings.epochs if "seconds" in event)
    return f", {duration(seconds[len(seconds) // 2])} an epoch (median)" if seconds else ""


def _versions(findings: Findings) -> str:
    info = findings.info
    libraries = [f"{name} {version}" for name, version in info["libraries"].items()]
    return ", ".join([f"engine {info['engine']}", f"Python {info['python']}", *libraries])


def _typed(words: Sequence[str]) -> str:
    return shlex.join(map(str, words))


def _splits(splits: dict[str, list[str]]) -> Markup:
    total = sum(map(len, splits.values())) or 1
    rows: list[list[Child]] = [
        [part, PARTS.get(part, ""), f"{len(names):,}", percent(len(names) / total, 0)]
        for part, names in splits.items()
    ]
    counts = table("Splits", ["split", "its images …", "images", "share"], rows, words=2)
    names = [(part, listed(names, 1000) or "none") for part, names in splits.items()]
    return joined(counts, folded("Names of the images", facts(names)))
