"""Growth: the watched images over the epochs, the masks that the loss saw and what was predicted."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import figures
from engine.figures.cases import dice
from engine.figures.epochs import History
from engine.figures.growth import evenly
from engine.figures.overlay import Mask, errors, picture
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
    image, truth, valid = (np.asarray(group[name]) for name in ("image", "truth", "valid"))
    head = str(findings.info.get("head", "sigmoid"))
    cut = slice(None)
    if truth.ndim == 4:  # of a volume, the slice with most truth
        cut = int(truth.sum(axis=(0, 2, 3)).argmax())  # type: ignore[assignment]
    image, truth, valid = image[cut], truth[:, cut], valid[cut]
    read = pictures.photograph(picture(image, valid))
    made = [pictures.shown(read, "The image as it was read.", "image")]
    for epoch in epochs:
        p = np.asarray(group["probability"][epoch - 1])[:, cut].astype(np.float32)
        found = predicted(p, head)
        scores = [score for score in dice(truth, found, valid) if not math.isnan(score)]
        said = f"Dice {percent(sum(scores) / len(scores))}" if scores else "Dice undefined"
        missed = int((truth & ~found & valid).sum())
        false = int((found & ~truth & valid).sum())
        alt = f"Errors after epoch {epoch}: {missed:,} px missed, {false:,} px falsely found. {said}."
        drawn = pictures.overlay(errors(image, truth, found, valid))
        made.append(pictures.shown(drawn, alt, f"epoch {epoch}: {said}"))
    return made


def predicted(p: NDArray[np.float32], head: str) -> Mask:
    """Masks of probabilities (C, H, W): p ≥ 0.5, or where classes exclude each other the most probable."""
    if head != "softmax":
        return np.asarray(p >= 0.5)
    every = np.concatenate([1 - p.sum(axis=0, keepdims=True), p])
    return np.asarray(every.argmax(axis=0) == np.arange(1, len(every))[:, None, None])
