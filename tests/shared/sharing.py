"""What processes that train together do in tests; see :func:`forked.together`."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

SPLITS: dict[int, list[list[int]]] = {2: [[0, 2], [1, 3]], 3: [[0, 1, 3], [], [2]]}
"""Processes → the images that each has of a batch of four; of three, the second has none."""


def losses() -> Iterator[tuple[str, Any, str]]:
    """Every loss, pooled over the batch too where it can be, with every head that it takes."""
    from engine.errors import InputError
    from engine.losses import objective, specs

    for part in get_args(get_args(specs.Loss)[0]):
        variants = [part()]
        if issubclass(part, specs.Overlap):
            variants.append(part(batch=True, include_background=True))
        for number, variant in enumerate(variants):
            for head in ("softmax", "sigmoid"):
                try:
                    objective.check(variant, head, 2)  # type: ignore[arg-type]
                except InputError:
                    continue
                yield f"{variant.name}{' pooled' * number}, {head}", variant, head


def batch(head: str, masked: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Logits, truth, valid, tubes and distances of four images of two classes."""
    draw = torch.Generator().manual_seed(7)
    logits = torch.randn((4, 3 if head == "softmax" else 2, 8, 16), generator=draw)
    labels = torch.randint(0, 3, (4, 8, 16), generator=draw)
    truth = torch.stack([labels == 1, labels == 2], 1)
    valid = torch.rand((4, 1, 8, 16), generator=draw) < torch.tensor([0.2, 0.9, 0.5, 0.7]).view(4, 1, 1, 1)
    tube = truth & (torch.rand(truth.shape, generator=draw) < 0.5)
    distance = torch.randn(truth.shape, generator=draw)
    return logits, truth, valid if masked else None, tube, distance


def gradients(images: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
    """For every loss, its value and the gradient at the logits of some images of the batch."""
    from engine.losses.guides import Guides
    from engine.losses.objective import build

    found, some = {}, torch.tensor(list(images), dtype=torch.int64)
    for (name, part, head), masked in product(losses(), (False, True)):
        logits, truth, valid, tube, distance = (None if x is None else x[some] for x in batch(head, masked))
        assert logits is not None
        assert truth is not None
        logits.requires_grad_()
        loss = build(part, head, 2)(logits, truth, valid, Guides(tube, distance, 3))  # type: ignore[arg-type]
        loss.backward()
        assert logits.grad is not None
        found[f"{name}, {'masked' if masked else 'whole'}"] = (loss.detach(), logits.grad)
    return found


def differentiates(out: Path) -> None:
    """Write this process's part of the gradients of every loss."""
    from engine.ranks import joined

    with joined() as ranks, ranks.summing():
        torch.save(gradients(SPLITS[ranks.size][ranks.rank]), out / f"{ranks.rank}.pt")


def refuses(out: Path) -> None:
    """Write what processes hear of each other when the second of them refuses."""
    from engine.errors import InputError, RefusedError
    from engine.ranks import joined

    with joined() as ranks:
        said: list[Any] = [ranks.told(lambda: "first"), ranks.any(ranks.rank == 1), ranks.any(False)]
        said.append(ranks.merged([f"image {number}" for number in ranks.own(range(5))]))
        try:
            with ranks.agreeing():
                if ranks.rank == 1:
                    raise InputError("the second cannot read this")
        except (InputError, RefusedError) as error:
            said.append((type(error).__name__, str(error)))
        try:
            ranks.told(lambda: refusal(ranks.rank))
        except (InputError, RefusedError) as error:
            said.append((type(error).__name__, str(error)))
        (out / f"{ranks.rank}.txt").write_text(repr(said))


def refusal(rank: int) -> None:
    """The first process's refusal."""
    from engine.errors import InputError

    raise InputError(f"{rank} cannot read this")
