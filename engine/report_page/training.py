"""Training: curves, how recall's slope decided about the masks, and a line for each epoch."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from engine import figures
from engine.figures.epochs import History, class_mean
from engine.report_page import pictures
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, element, folded, joined, note, table
from engine.report_page.words import NONE, counted, duration, listed, number, percent


def section(findings: Findings) -> Markup:
    """Curves, recall and masks in words, all epochs in a table."""
    history = findings.history
    if history is None:
        return note("No epoch is finished, so there are no curves yet.")
    drawn = pictures.lines(lambda: figures.curves(findings.reader))
    return joined(
        pictures.shown(drawn, in_words(history), _caption(history), kind="plot"),
        recall_in_words(findings, history),
        folded(f"All {counted(len(history.number), 'epoch')} as a table", epoch_table(findings, history)),
    )


def in_words(history: History) -> str:
    """What the curves show."""
    parts = [_course("training loss", history.loss, number)]
    if history.validated:
        parts += [
            _course("validation loss", history.validation_loss, number),
            _course("mean validation Dice", class_mean(history.dice), percent),
        ]
    parts.append(_course("training recall", history.recall, percent))
    first, last = history.number[0], history.number[-1]
    return f"Curves of epochs {first} to {last}: {'; '.join(filter(None, parts))}."


def _course(name: str, values: Sequence[float] | np.ndarray, say: Callable[[float], str]) -> str:
    seen = [float(value) for value in values if math.isfinite(value)]
    if not seen:
        return ""
    return f"{name} {say(seen[0])}" + (f" at first, {say(seen[-1])} at last" if len(seen) > 1 else "")


def _caption(history: History) -> str:
    best = f" The best epoch is {history.best}, by validation Dice." if history.best else ""
    warmup = " Shaded: the warm-up, on the original masks." if history.warmup.any() else ""
    return f"What each epoch measured.{best}{warmup}"


def recall_in_words(findings: Findings, history: History) -> Markup:
    """Recall, its slope β, the threshold γ, and what was decided by them."""
    method = findings.chosen("modulation")
    recall = in_epochs(history)
    if method == "none":
        return element("p", recall, " The method is plain training: recall is watched and steers nothing.")
    warm = int(history.warmup.sum())
    rebuilt = history.number[history.updated].tolist()
    first = "The first epoch" if warm == 1 else f"The first {counted(warm, 'epoch')}"
    parts = [recall, f"{first} trained on the original masks (warm-up)." if warm else ""]
    known = history.gamma[np.isfinite(history.gamma)]
    if len(known):
        parts.append(
            f"The threshold γ went from {known[0]:.4f} to {known[-1]:.4f} per epoch, the slope β of recall "
            f"over the last {history.queue} epochs was {number(float(history.slope[-1]), '+.4f')} per epoch "
            "at last; masks are rebuilt where β lies below γ."
        )
    if rebuilt:
        epochs = listed([str(epoch) for epoch in rebuilt], 12)
        added = int(history.added[-1].sum())
        parts.append(
            f"Masks were rebuilt after {counted(len(rebuilt), 'epoch')} ({epochs}); in epoch "
            f"{history.number[-1]} they held {added:,} px more than the truth."
        )
    else:
        parts.append("No mask was rebuilt: the network trained on the original masks throughout.")
    return element("p", " ".join(parts))


def in_epochs(history: History) -> str:
    """How training recall went."""
    said = _course("recall over all training images", history.recall, percent)
    return f"{said[0].upper()}{said[1:]}." if said else "Training recall was not defined."


def epoch_table(findings: Findings, history: History) -> Markup:
    """A row an epoch; columns without any value are left out."""
    seconds = [event.get("seconds", {}).get("epoch", math.nan) for event in findings.epochs]
    columns: list[tuple[str, Sequence[float] | np.ndarray, Callable[[float], str]]] = [
        ("loss", history.loss, number),
        ("validation loss", history.validation_loss, number),
        ("validation Dice", class_mean(history.dice), percent),
        ("validation recall", class_mean(history.validation_recall), percent),
        ("validation precision", class_mean(history.precision), percent),
        ("training recall", history.recall, percent),
        ("slope β, 1/epoch", history.slope, lambda value: number(value, "+.4f")),
        ("threshold γ, 1/epoch", history.gamma, lambda value: number(value, "+.4f")),
        ("learning rate", history.lr, lambda value: number(value, ".3g")),
        ("time", seconds, lambda value: NONE if math.isnan(value) else duration(value)),
    ]
    shown = [column for column in columns if np.isfinite(np.asarray(column[1], float)).any()]
    rows: list[list[Child]] = []
    for row, epoch in enumerate(history.number):
        marks = [
            word for flag, word in ((history.warmup, "warm-up"), (history.updated, "rebuilt")) if flag[row]
        ]
        cells: list[Child] = [f"{epoch}{' (best)' if epoch == history.best else ''}"]
        cells += [say(float(values[row])) for _, values, say in shown]
        if history.modulated:
            cells += [f"{int(history.added[row].sum()):,}", ", ".join(marks) or NONE]
        rows.append(cells)
    more = ["added, px", "masks"] if history.modulated else []
    return table("Epochs", ["epoch", *(title for title, _, _ in shown), *more], rows)
