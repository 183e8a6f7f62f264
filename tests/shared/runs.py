"""Run directories made without training, for tests of what shows them."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from engine.record import FORMAT, Progress, RunWriter, WatchedItem


def probabilities(epochs: int, classes: int, size: tuple[int, ...], seed: int = 0) -> NDArray[np.float16]:
    """Smooth random probabilities (E, C, *S), other ones in each epoch."""
    rng = np.random.default_rng(seed)
    return rng.random((epochs, classes, *size)).astype(np.float16)


def watched_item(
    name: str, split: str = "train", size: tuple[int, ...] = (24, 32), classes: int = 1, **given: Any
) -> WatchedItem:
    """An image with a disc as truth of class 1, its complement's corner as class 2, and so on."""
    rng = np.random.default_rng(sum(map(ord, name)))
    centre = [length / 2 for length in size]
    grid = np.indices(size)
    distance = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) ** 0.5
    truth = np.stack([(distance > 2 * c) & (distance < 2 * c + 6) for c in range(classes)])
    return WatchedItem(
        name=name,
        split=split,
        image=given.get("image", rng.integers(0, 255, (*size, 1), dtype=np.uint8)),
        truth=truth,
        valid=given.get("valid", np.ones(size, np.bool_)),
        origin=given.get("origin", (0,) * len(size)),
        scale=given.get("scale", (1.0,) * len(size)),
        first=given.get("first", 1),
    )


def epoch_event(number: int, epochs: int, classes: int = 1, **given: Any) -> dict[str, Any]:
    """What the trainer says of an epoch."""
    warm = number <= -(-epochs // 5)
    return {
        "epoch": number,
        "epochs": epochs,
        "loss": 1 / number,
        "lr": 1e-3,
        "recall": 0.5 + 0.4 * number / epochs,
        "slope": None if number < 2 else 0.4 / epochs,
        "gamma": None if warm else 0.3 / epochs,
        "updated": not warm and number % 2 == 0,
        "warmup": warm,
        "added": [10 * number] * classes,
        "validation": {
            "loss": 1.2 / number,
            "dice": [0.5] * classes,
            "recall": [0.5] * classes,
            "precision": [0.5] * classes,
            "skipped": [0] * classes,
        },
        "best": number == 1,
        "last": "epochs" if number == epochs else "",
        "seconds": {"epoch": 2.0, "pass": 0.0, "validation": 0.1, "watched": 0.1},
        **given,
    }


class MadeRun:
    """A run directory that a test writes epoch by epoch, holding its lock as a trainer would."""

    def __init__(
        self,
        root: Path,
        items: Sequence[WatchedItem] = (),
        *,
        epochs: int = 5,
        classes: Sequence[str] = ("vessel",),
        data: str = "demo",
        resumed_after: int | None = None,
    ) -> None:
        """Begin (or, with `resumed_after`, go on with) a run."""
        self.root, self.epochs, self.classes = root, epochs, tuple(classes)
        self.items = tuple(items)
        self.probability = [
            probabilities(epochs, len(classes), item.valid.shape, seed) for seed, item in enumerate(items)
        ]
        self.modulated = [
            np.stack([item.truth | (p[epoch] > 0.9) for epoch in range(epochs)])
            for item, p in zip(items, self.probability, strict=True)
        ]
        self.progress = Progress()
        again = resumed_after is not None
        self.writer = (
            RunWriter.reopen(root, self.progress) if again else RunWriter.create(root, self.progress)
        )
        if not again:
            self.writer.write_text("config.toml", tomli_w.dumps({"training": {"epochs": epochs}}))
            self.writer.write_json("run.json", self._identity(data))
        self.writer.watch(self.items, epochs)
        extra = {"resumed_after": resumed_after} if again else {}
        self.writer.event("started", pid=1, host="here", epochs=epochs, **extra)

    def _identity(self, data: str) -> dict[str, Any]:
        dataset = {
            "root": data, "layout": "pairs", "images": len(self.items), "classes": list(self.classes),
            "channels": 1, "grouped": False, "fingerprint": "",
        }  # fmt: skip
        names = {split: [i.name for i in self.items if i.split == split] for split in ("train", "val")}
        return {"format": FORMAT, "dataset": dataset, "splits": {**names, "calib": [], "test": []}}

    def epoch(self, number: int, **given: Any) -> None:
        """Write an epoch whole: arrays, then its line."""
        self.progress.epoch = number
        self.writer.write_watched(
            number, [p[number - 1] for p in self.probability], [m[number - 1] for m in self.modulated]
        )
        self.writer.event("epoch", **epoch_event(number, self.epochs, len(self.classes), **given))

    def train(self, last: int | None = None) -> "MadeRun":
        """Write epochs 1 to `last`, or all."""
        for number in range(1, (last or self.epochs) + 1):
            self.epoch(number)
        return self

    def end(self, how: str = "finished", **given: Any) -> "MadeRun":
        """Say how the run ended, and let go of it."""
        self.writer.event(how, epoch=self.progress.epoch, **given)
        self.writer.release()
        return self

    def crash(self) -> "MadeRun":
        """Leave the lock of a process that is gone."""
        self.writer.release()
        (self.root / "lock").write_text(
            json.dumps({"host": socket.gethostname(), "pid": 2**22 - 1, "started": 1.0})
        )
        return self
