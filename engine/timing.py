"""Timing: how long a trained network takes for an image."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from engine.data.store import Sample
from engine.device import device_name
from engine.errors import InputError
from engine.tables import extent
from engine.trained import Trained

PASSES = 10
"""Timed passes at the most."""
WARM_UP = 3
"""Passes before them: the first ones allocate memory and choose algorithms."""
SECONDS = 10.0
"""After so long no further image is timed, nor warmed up for."""


@dataclass(frozen=True)
class Timing:
    """Time of an image through the network.

    Attributes:
        median_ms: milliseconds an image, of all timed passes.
        repeats: timed passes of each image.
        images: that were timed.
        depth: of volumes as the network sees them, in voxels; None for images.
        height, width: of the images or volumes as the network sees them, in pixels or voxels.
        device, device_name: where it ran.
        threads: that PyTorch used on the CPU.
    """

    median_ms: float
    repeats: int
    images: int
    depth: int | None
    height: int
    width: int
    device: str
    device_name: str
    threads: int

    def words(self) -> str:
        """How it was measured, for a line under a table."""
        shape = (self.height, self.width) if self.depth is None else (self.depth, self.height, self.width)
        where = f"{self.device} ({self.device_name})"
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.device == "cpu" else ""
        return (
            f"batch 1, {extent(shape)}, {where}{threads}, "
            f"median of {self.images * self.repeats} pass{'es' * (self.images * self.repeats != 1)}"
        )


def inference_time(trained: Trained, samples: Iterable[Sample], count: int) -> Timing:
    """Time the network with its head, an image at a time, from the normalised image to its probabilities.

    The image is on the device before the clock starts, and the device is waited for before it stops. An
    image larger than a tile is timed as it is predicted: tile by tile, each brought to the device.

    Args:
        trained: the run.
        samples: images as read, all of one size as the network sees them; read one by one.
        count: how many they are.

    Raises:
        InputError: there is none.
    """
    predictor = trained.predictor
    repeats = max(1, PASSES // max(1, count))
    taken: list[float] = []
    done = 0
    shape: tuple[int, ...] = ()
    for sample in samples:
        x = trained.as_seen(sample.image, sample.spacing)
        shape = tuple(x.shape[2:])
        if max(shape) <= predictor.tile:
            x = x.to(predictor.device)
        if not taken:
            _warm_up(trained, x)
        taken += [_pass(trained, x) for _ in range(repeats)]
        done += 1
        if done == PASSES or sum(taken) > SECONDS:
            break
    if not taken:
        raise InputError("there is no image to time the network on: give at least one.")
    *depth, height, width = shape
    return Timing(
        1000 * median(taken), repeats, done, depth[0] if depth else None, height, width,
        predictor.device.type, device_name(predictor.device), torch.get_num_threads(),
    )  # fmt: skip


def _warm_up(trained: Trained, x: Tensor) -> None:
    spent = 0.0
    for _ in range(WARM_UP):
        spent += _pass(trained, x)
        if spent > SECONDS:
            return


def _pass(trained: Trained, x: Tensor) -> float:
    """Seconds of one pass."""
    device = trained.predictor.device
    _wait_for(device)
    start = time.perf_counter()
    trained.predictor.probability(x)
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    """Let a device finish: it works on while Python goes ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
