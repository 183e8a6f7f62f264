"""The objective: what the training loop minimises, from a loss and a head."""

from typing import Protocol

import torch
from torch import Tensor

from engine.errors import InputError
from engine.head import Head, foreground
from engine.losses.guides import Guides
from engine.losses.masked import is_apart, masked
from engine.losses.pixelwise import label_map
from engine.losses.specs import LossPart
from engine.ranks import average


class Objective(Protocol):
    """What a training step minimises."""

    def __call__(
        self, logits: Tensor, y: Tensor, valid: Tensor | None = None, guides: Guides | None = None
    ) -> Tensor:
        """The loss, a float32 scalar.

        Args:
            logits: raw, in the head's channels, float of any width, (B, channels, *S).
            y: masks in {0, 1} or bool, (B, C, *S).
            valid: bool (B, 1, *S), or None if every pixel is.
            guides: maps of the original truth, and the epoch; None in epoch 1 for a loss without maps.

        Raises:
            ValueError: a map that the loss needs is not among the guides.
        """


def build(part: LossPart, head: Head, classes: int) -> Objective:
    """Bind a loss to a head: the weighted sum of its terms, each given what it needs.

    A term that returns one value per image and class is averaged over both; an image
    without a valid pixel counts, with what a perfect prediction costs. A batch may be divided over
    processes (:meth:`engine.ranks.Ranks.summing`), of which some have no image of it.

    Args:
        part: the loss.
        head: what the logits' channels mean.
        classes: number of foreground classes C.

    Raises:
        InputError: the loss has a term that cannot work with this head.
    """
    check(part, head, classes)
    terms = [(weight, term.needs, term.bind()) for weight, term in part.terms(head)]
    needed = {needs for _, needs, _ in terms}

    def objective(
        logits: Tensor, y: Tensor, valid: Tensor | None = None, guides: Guides | None = None
    ) -> Tensor:
        guides = guides or Guides()
        # Here already, or a NaN outside the field of view comes back through the head's gradient.
        logits = masked(logits, valid)
        inputs = {"logits": (logits, y), "channels": (logits, y)}
        if needed - {"logits", "channels", "labels"}:
            p = foreground(logits, head)
            inputs["probability"] = (p, y)
            if "tube" in needed:
                inputs["tube"] = (p, _given(guides.tube, "tube", part))
            if "distance" in needed:
                inputs["distance"] = (p, _given(guides.distance, "distance", part))
        if "labels" in needed:
            inputs["labels"] = (logits, label_map(y))
        loss = torch.zeros((), device=logits.device)
        for weight, needs, term in terms:
            share = weight(guides.epoch) if callable(weight) else weight
            loss = loss + share * _mean(term(*inputs[needs], valid=valid))
        return loss

    return objective


def _mean(value: Tensor) -> Tensor:
    """Mean over images and classes, those of all processes which train together; what a batch gives as one
    is so already. Within :func:`engine.losses.masked.apart` over classes alone, (B,)."""
    if is_apart():
        return value.mean(1) if value.ndim == 2 else value
    return average(value.sum(), value.numel()) if value.ndim == 2 else value.mean()


def _given(guide: Tensor | None, name: str, part: LossPart) -> Tensor:
    if guide is None:
        raise ValueError(f"loss {part.model_dump()['name']!r} needs guides.{name}, which was not given.")
    return guide


def check(part: LossPart, head: Head, classes: int) -> None:
    """Refuse a loss that cannot work with this head, and name what would work."""
    name = part.model_dump()["name"]
    for _, term in part.terms(head):
        if term.needs == "logits" and head == "softmax":
            raise InputError(
                f"loss {name!r} scores each class on its own, which needs a sigmoid head, but the head "
                "is softmax: use 'dice_ce', or a sigmoid head (training.head multilabel)."
            )
        if term.needs == "labels" and head == "sigmoid" and classes > 1:
            raise InputError(
                f"loss {name!r} needs classes that exclude each other, but with a sigmoid head the "
                f"{classes} classes may overlap: use 'dice_bce' or 'binary_cross_entropy', or a softmax "
                "head (training.head exclusive, which smm_v2 does not take)."
            )
