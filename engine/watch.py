"""Watched images: what a viewer sees of every epoch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RunConfig
from engine.data.dataset import Dataset
from engine.data.store import Frames, Store
from engine.infer import Predictor
from engine.modulation.strategies import NoModulation
from engine.record import WatchedItem


@dataclass(frozen=True)
class Watched:
    """A watched image: its frames, and the part of them that is kept."""

    frames: Frames
    split: str
    image: NDArray[Any]
    scale: tuple[float, ...]
    name: str
    box: tuple[slice, ...]

    def modulated(self, modulation: NoModulation) -> NDArray[np.bool_]:
        """The mask that the loss sees in the epoch that begins, bool (C, *S)."""
        grown = None
        if self.split == "train":
            grown = modulation.target(self.frames.window, self.frames.truth, self.frames.valid)
        mask = self.frames.truth if grown is None else grown
        return np.asarray(mask[0].cpu().numpy()[:, *self.box])

    def probability(self, predictor: Predictor) -> NDArray[Any]:
        """Foreground probability float32 (C, *S)."""
        return np.asarray(predictor.probability(self.frames.image)[0].cpu().numpy()[:, *self.box])

    def record(self) -> WatchedItem:
        """What the run directory keeps once."""
        valid = torch.ones_like(self.frames.truth[:, :1]) if self.frames.valid is None else self.frames.valid
        return WatchedItem(
            name=self.name,
            split=self.split,
            image=self.image[self.box],
            truth=self.frames.truth[0].cpu().numpy()[:, *self.box],
            valid=valid[0, 0].cpu().numpy()[self.box],
            origin=tuple(part.start for part in self.box),
            scale=self.scale,
        )


def watch(config: RunConfig, train: Store, val: Store | None, dataset: Dataset) -> list[Watched]:
    """The first images of train and val, whole, or a central crop of a long one."""
    items = []
    for images, split, count in ((train, "train", config.watch.train), (val, "val", config.watch.val)):
        if images is None:
            continue
        for number in range(min(count, len(images))):
            ids = torch.tensor([number])
            frames = images.read(images.whole([number]), torch.zeros_like(ids), images.device)
            extent = images.extents[number].tolist()
            kept = [min(length, config.watch.longest) for length in extent]
            starts = [(length - keep) // 2 for length, keep in zip(extent, kept, strict=True)]
            box = tuple(slice(a, a + n) for a, n in zip(starts, kept, strict=True))
            image, scale = dataset.picture(split, number)
            items.append(Watched(frames, split, image, scale, images.names[number], box))
    return items
