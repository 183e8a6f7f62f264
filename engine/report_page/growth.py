"""Growth: the watched images over the epochs, the masks that the loss saw and what was predicted."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import figures
from engine.figures.cases import Panel
from engine.figures.epochs import History
from engine.figures.growth import evenly, watched_view
from engine.figures.overlay import Mask, errors, picture
from engine.figures.views import squared
from engine.record import first_epoch, read_truth
from engine.report_page import pictures
from engine.report_page.findings import Findings
from engine.report_page.legend import error_legend
from engine.report_page.markup import Markup, element, joined, note
from engine.report_page.words import percent

MASKS = 2
"""Training images whose masks are shown."""
PREDICTIONS = 2
"""Images whose predictions are shown."""
EPOCHS = 6
"""Epochs of each."""


def section(findings: Findings) -> Markup:
    """Masks of some training images and predictions of some others, epoch by epoch."""
    history = findings.history
    watched = findings.reader.watched()
    if history is None or not watched:
        why = "no epoch is finished" if history is None else "the run watched none (watch.train, watch.val)"
        return note(f"There are no images over the epochs: {why}.")
    splits = [str(group.attrs["split"]) for group in watched]
    return joined(_masks(findings, history, splits), _predictions(findings, history, watched, splits))


def _masks(findings: Findings, history: History, splits: Sequence[str]) -> Markup:
    if not history.modulated or not history.added.any():
        return element("p", _ungrown(findings, history))
    chosen = [item for item, split in enumerate(splits) if split == "train"][:MASKS]
    if not chosen:
        return element("p", "Masks grew, and no training image was watched (watch.train) that would show it.")
    alt = "A training image, its truth, and the mask that the loss saw after each rebuilding."
    return joined(
        element("h3", "Masks that the loss saw"),
        element(
            "p",
            "Orange pixels were added where the network had missed foreground; the count below is of the "
            "whole image. At most six of the epochs at which the mask changed are shown.",
        ),
        [
            pictures.shown(
                pictures.painted(lambda item=item: figures.masks(findings.reader, item, EPOCHS)),  # type: ignore[misc]
                alt,
                kind="plot",
            )
            for item in chosen
        ],
    )


def _ungrown(findings: Findings, history: History) -> str:
    if findings.chosen("modulation") == "none":
        return "The method is plain training: the masks are the truth in every epoch."
    if history.warmup.all():
        return "All epochs so far belong to the warm-up, so the masks are still the truth."
    return "No pixel was added to any mask: they are the truth in every epoch."


def _predictions(
    findings: Findings, history: History, watched: Sequence[Any], splits: Sequence[str]
) -> Markup:
    order = sorted(range(len(watched)), key=lambda item: splits[item] != "val")
    epochs = evenly(history.number.tolist(), EPOCHS)
    words = {"val": "validation image", "train": "training image"}
    rows = []
    for item in order[:PREDICTIONS]:
        group = watched[item]
        name = f"{group.attrs['name']} ({words.get(splits[item], splits[item])})"
        rows.append(element("h4", name))
        rows.append(element("div", _row(group, epochs, findings), class_="row small"))
    return joined(
        element("h3", "Predictions as they grew"),
        error_legend(len(findings.classes)),
        rows,
    )


def _row(group: Any, epochs: Sequence[int], findings: Findings) -> list[Markup]:
    image = np.asarray(group["image"])
    epochs = [epoch for epoch in epochs if epoch >= first_epoch(group)]
    truth, _ = read_truth(group, epochs[-1] if epochs else 1)
    head = str(findings.info.get("head", "sigmoid"))
    seen = watched_view(group, truth) if truth.ndim == 4 else None
    made: list[Markup] = []
    for epoch in epochs:
        found = predicted(np.asarray(group["probability"][epoch - 1]).astype(np.float32), head)
        truth, valid = read_truth(group, epoch)
        panel = Panel.of(str(group.attrs["name"]), image, truth, found, valid, seen)
        if not made:
            read = pictures.photograph(squared(picture(panel.image, panel.valid), panel.aspect))
            place = "" if panel.volume is None else f", {panel.volume.place}"
            made.append(pictures.shown(read, "The image as it was read.", f"image{place}"))
        scores = [score for score in panel.dice if not math.isnan(score)]
        said = f"Dice {percent(sum(scores) / len(scores))}" if scores else "Dice undefined"
        missed, false = panel.missed_and_false
        unit = "px" if panel.volume is None else "voxels"
        alt = f"Errors after epoch {epoch}: {missed:,} {unit} missed, {false:,} {unit} falsely found. {said}."
        drawn = errors(panel.image, panel.truth, panel.prediction, panel.valid)
        made.append(
            pictures.shown(pictures.overlay(squared(drawn, panel.aspect)), alt, f"epoch {epoch}: {said}")
        )
    return made


def predicted(p: NDArray[np.float32], head: str) -> Mask:
    """Masks of probabilities (C, *S): p ≥ 0.5, or where classes exclude each other the most probable."""
    if head != "softmax":
        return np.asarray(p >= 0.5)
    every = np.concatenate([1 - p.sum(axis=0, keepdims=True), p])
    classes = np.arange(1, len(every)).reshape(-1, *[1] * (p.ndim - 1))
    return np.asarray(every.argmax(axis=0) == classes)
