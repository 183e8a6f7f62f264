"""The shares of network, data and modulation in a training step of the engine, each piece timed by itself."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from statistics import fmean, median
from typing import Any

import torch
from measured import Table, in_turns
from torch import Tensor

from engine.config import RunConfig
from engine.device import arithmetic
from engine.head import foreground
from engine.loop import Batch
from engine.prepare import Prepared

PARTS = {
    "network": ("forward and backward", "loss, forward and backward", "optimiser"),
    "data": ("reading", "changing"),
    "modulation": ("recall", "reading and growing masks", "taking misses home", "recording them"),
}


class Pieces:
    """What a step consists of, each piece on the same batch."""

    def __init__(self, config: RunConfig, ready: Prepared) -> None:
        self.config, self.ready, self.modulation = config, ready, ready.modulation
        self.modulation.begin(2)
        self.frames = next(iter(ready.loader.epoch(2)))
        self.optimizer = config.optimizer.bind()(ready.network.parameters())
        self.grown = self.modulation.target(self.frames.window, self.frames.truth, self.frames.valid)
        self.batch = Batch.augmented(self.frames, self.grown, config, 2)
        ready.network.train()
        self.logits: Tensor = self.forward()
        self.gradient = torch.zeros_like(self.logits)
        self.loss()
        head = ready.predictor.head
        self.prediction = foreground(self.logits.detach(), head) >= 0.5
        self.misses = self.batch.misses(self.prediction)

    def named(self) -> dict[str, Callable[[], object]]:
        """What runs each piece."""
        window, batch = self.frames.window, self.batch
        return {
            "forward and backward": lambda: self.forward().backward(self.gradient),
            "loss, forward and backward": self.loss,
            "optimiser": self.optimizer.step,
            "reading": lambda: self.ready.train.read(window, self.frames.visits, self.ready.device),
            "changing": lambda: Batch.augmented(self.frames, self.grown, self.config, 2),
            "recall": lambda: self.modulation.count(self.prediction, batch.truth, batch.valid),
            "reading and growing masks": self.grow,
            "taking misses home": lambda: batch.misses(self.prediction),
            "recording them": lambda: self.modulation.record(window, self.misses),
        }

    def forward(self) -> Tensor:
        dtype = self.ready.dtype
        with torch.autocast(self.ready.device.type, dtype) if dtype else nullcontext():
            logits: Tensor = self.ready.network(self.batch.image)
        return logits

    def loss(self) -> None:
        logits = self.logits.detach().requires_grad_()
        self.ready.objective(logits, self.batch.truth, self.batch.valid, self.batch.guides).backward()
        assert logits.grad is not None
        self.gradient = logits.grad

    def grow(self) -> None:
        frames = self.frames
        grown = self.modulation.target(frames.window, frames.truth, frames.valid)
        assert grown is not None
        self.modulation.seen(grown, frames.truth)

    def drawn(self, config: RunConfig) -> Callable[[], object]:
        """Changes by other settings, drawn anew at each call."""
        epochs: Iterator[int] = iter(range(1, 1_000_000))
        return lambda: Batch.augmented(self.frames, None, config, next(epochs))


def shares(
    name: str, title: str, config: RunConfig, ready: Prepared, step: float, more: RunConfig, rounds: int
) -> Table:
    """What each piece of a step takes, and what is left over.

    Args:
        name, title: of the table.
        config, ready: a run of SMM v2 that grows masks; it is used up.
        step: seconds of a step in such a run.
        more: with all changes of the images.
        rounds: how often each piece is timed.
    """
    with arithmetic(None, config.training.deterministic):
        pieces = Pieces(config, ready)
        seconds = in_turns(pieces.named(), rounds, ready.device)
        # Drawn anew each time, and often nothing resamples, so the mean counts.
        many = in_turns({"all": pieces.drawn(more)}, 10 * rounds, ready.device)["all"]
    took = {piece: median(values) for piece, values in seconds.items()}
    rows: list[list[Any]] = []
    for part, names in PARTS.items():
        rows.append([f"**{part}**", sum(took[piece] for piece in names)])
        rows += [[piece, took[piece]] for piece in names]
    rows.append(["**left over**", step - sum(took.values())])
    rows.append(["a step of the loop", step])
    rows.append(["changing, with rotation, zoom and elastic", fmean(many)])
    return Table(
        name,
        title,
        ["", "ms", "% of the step"],
        [[row, 1e3 * value, 100 * value / step] for row, value in rows],
        "Growing and recording masks in every step, source train. Each piece is timed alone, and waited for; "
        "in the loop a GPU works while the next piece is asked for, so that less than nothing can be left "
        "over. The last row takes the place of changing where images resample.",
    )
