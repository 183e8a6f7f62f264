"""Made-up `epoch` events, and the history they make, for the tests of plots."""

from collections.abc import Iterable
from typing import Any

from engine.figures.epochs import History


def event(number: int, epochs: int, **changed: Any) -> dict[str, Any]:
    """Of plain training with validation: recall n/2E, loss 1/n, Dice n/E."""
    scores = {"loss": 0.5, "dice": [number / epochs], "recall": [0.6], "precision": [0.4], "skipped": [0]}
    made = {
        "epoch": number, "epochs": epochs, "loss": 1 / number, "lr": 0.1, "recall": number / (2 * epochs),
        "slope": None, "gamma": None, "updated": False, "warmup": False, "added": [0],
        "validation": scores, "best": True, "last": "", "seconds": {},
    }  # fmt: skip
    return made | changed


def modulated(number: int, epochs: int, updates: Iterable[int] = (), warmup: int = 2) -> dict[str, Any]:
    """Of SMM v2: recall rises by 1/2E an epoch, which is its slope; γ falls to 0 from twice that."""
    left = (epochs - number) / max(epochs - warmup, 1)
    return event(
        number, epochs, slope=1 / (2 * epochs) if number > 1 else None,
        gamma=left / epochs if number >= warmup else None, warmup=number <= warmup,
        updated=number in set(updates), added=[10 if number > warmup else 0],
    )  # fmt: skip


def plain(count: int, epochs: int) -> History:
    """The first epochs of plain training."""
    return History.of([event(n, epochs) for n in range(1, count + 1)])


def smm(count: int, epochs: int, updates: Iterable[int] = (), warmup: int = 2) -> History:
    """The first epochs of SMM v2."""
    return History.of([modulated(n, epochs, updates, warmup) for n in range(1, count + 1)])
