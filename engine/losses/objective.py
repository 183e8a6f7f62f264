"""The objective: what the training loop minimises, from a loss and a head."""

from collections.abc import Callable

import torch
from torch import Tensor

from engine.errors import InputError
from engine.head import Head, foreground
from engine.losses.masked import masked
from engine.losses.specs import LossPart

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""``objective(logits, y, valid) -> loss``: raw logits in the head's channels, float of any
width; y in {0, 1} or bool, (B, C, *S); valid bool (B, 1, *S) or None; loss a float32 scalar."""


def build(part: LossPart, head: Head, classes: int) -> Objective:
    """Bind a loss to a head: the weighted sum of its terms, each given what it needs.

    A term that returns one value per image and class is averaged over both; an image
    without a valid pixel counts, with 0.

    Args:
        part: the loss.
        head: what the logits' channels mean.
        classes: number of foreground classes C.

    Raises:
        InputError: the loss has a term that cannot work with this head.
    """
    check(part, head, classes)
    terms = [(weight, term.needs, term.bind()) for weight, term in part.terms()]
    needed = {needs for _, needs, _ in terms}

    def objective(logits: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        # Here already, or a NaN outside the field of view comes back through the head's gradient.
        logits = masked(logits, valid)
        inputs = {"logits": (logits, y)}
        if "probability" in needed:
            inputs["probability"] = (foreground(logits, head), y)
        if "labels" in needed:
            inputs["labels"] = (logits, label_map(y))
        loss = torch.zeros((), device=logits.device)
        for weight, needs, term in terms:
            loss = loss + weight * term(*inputs[needs], valid=valid).mean()
        return loss

    return objective


def check(part: LossPart, head: Head, classes: int) -> None:
    """Refuse a loss that cannot work with this head, and name what would work."""
    name = part.model_dump()["name"]
    for _, term in part.terms():
        if term.needs == "logits" and head == "softmax":
            raise InputError(
                f"loss {name!r} scores each class on its own, which needs a sigmoid head, but the head "
                "is softmax: use 'dice_ce', or a sigmoid head."
            )
        if term.needs == "labels" and head == "sigmoid" and classes > 1:
            raise InputError(
                f"loss {name!r} needs classes that exclude each other, but with a sigmoid head the "
                f"{classes} classes may overlap: use 'dice_bce', or a softmax head."
            )


def label_map(y: Tensor) -> Tensor:
    """Label map of exclusive masks, (B, C, *S) in {0, 1} or bool → int64 in 0…C, (B, *S)."""
    numbers = torch.arange(1, y.shape[1] + 1, device=y.device).view(-1, *[1] * (y.ndim - 2))
    return torch.where(y > 0.5, numbers, 0).amax(1)
