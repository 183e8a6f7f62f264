"""Watched images: what a viewer sees of every epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from engine.bits import BYTE, Window
from engine.config import RunConfig
from engine.data.dataset import Dataset
from engine.data.decode import Head, probe
from engine.data.images import Images
from engine.data.store import Frames
from engine.infer import Predictor
from engine.modulation.strategies import NoModulation
from engine.ranks import ALONE, Ranks
from engine.record import WatchedItem

T = TypeVar("T")


@dataclass(frozen=True)
class Watched:
    """A watched image, or the crop of it that is kept.

    Attributes:
        frames: of the crop, which is all that the network is given.
        split: train or val.
        image: the crop as it is shown, (*S, channels).
        scale: extents of its pixels, see :class:`engine.record.WatchedItem`.
        name: the image's.
        origin: first pixel of the crop in the image's frame.
        head: what the header of the image's file says.
        joined: epoch from which on it is watched, if it joined while training went on; else 0.
    """

    frames: Frames
    split: str
    image: NDArray[Any]
    scale: tuple[float, ...]
    name: str
    origin: tuple[int, ...]
    head: Head
    joined: int = 0

    @property
    def number(self) -> int:
        """Of the image among those of its split that this process has."""
        return int(self.frames.window.ids[0])

    def again(self, images: Images) -> "Watched":
        """The same crop with the truth that its image has now."""
        frames = images.read(self.frames.window, self.frames.visits, images.device)
        return replace(self, frames=frames)

    @property
    def box(self) -> tuple[slice, ...]:
        """The crop's part of the frames, whose rows are whole bytes."""
        return tuple(slice(length) for length in self.image.shape[:-1])

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
            image=self.image,
            truth=self.frames.truth[0].cpu().numpy()[:, *self.box],
            valid=valid[0, 0].cpu().numpy()[self.box],
            origin=self.origin,
            scale=self.scale,
            affine=_affine(self.head, self.scale, self.origin),
            first=max(1, self.joined),
        )


def _affine(head: Head, scale: Sequence[float], origin: Sequence[int]) -> NDArray[np.float64] | None:
    """Index (z, y, x, 1) in a crop → mm in RAS+; of images z is 0."""
    if head.affine is None:
        return None
    above = 3 - len(scale)
    # Of volumes whose spacing is known, `scale` is in mm, and it is pixels of the file that are meant here.
    unit = head.spacing if head.dims == 3 and head.spacing is not None else (1.0,) * head.dims
    pixels = [extent / own for extent, own in zip(scale, unit, strict=True)]
    step, first = np.array([*[1.0] * above, *pixels]), np.array([*[0] * above, *origin])
    into = np.diag([*step, 1.0])
    into[:3, 3] = step * (first + 0.5) - 0.5  # middles of pixels on middles of pixels
    return np.asarray(head.affine @ into)


def watch(
    config: RunConfig, train: Images, val: Images | None, dataset: Dataset, ranks: Ranks = ALONE
) -> list[Watched]:
    """The first images of train and val: whole, or of a large one a crop about the middle of its truth.

    Those of them that this process has.
    """
    return [
        watch_one(config, images, dataset, split, ranks.place(number), number=number)
        for images, split, count in ((train, "train", config.watch.train), (val, "val", config.watch.val))
        if images is not None
        for number in range(min(count, len(dataset.splits[split])))
        if ranks.has(number)
    ]


def gathered(items: Sequence[Watched], values: Sequence[T], ranks: Ranks) -> list[T]:
    """On the first process, what belongs to each watched image of all processes, in order; else nothing.

    Args:
        items: those of this process.
        values: what belongs to each.
        ranks: the processes.
    """
    if ranks.alone:
        return list(values)
    splits = [
        [value for item, value in zip(items, values, strict=True) if item.split == split]
        for split in ("train", "val")
    ]
    return [value for mine in splits for value in ranks.merged(mine)]


def watch_one(
    config: RunConfig, images: Images, dataset: Dataset, split: str, place: int, joined: int = 0,
    number: int | None = None,
) -> Watched:  # fmt: skip
    """One image of a split as it is watched.

    Args:
        config: the run.
        images: of the split.
        dataset: all images.
        split: train or val.
        place: of the image among ``images``.
        joined: epoch from which on it is watched, if it joins; else 0.
        number: of the image in its split; ``place`` if None.
    """
    number = place if number is None else number
    extent = images.extents[place].tolist()
    kept = cropped(extent, config.watch.longest)
    origin = placed(images.centre(place), kept, extent) if kept != extent else [0] * len(kept)
    size = (*kept[:-1], -(-kept[-1] // BYTE) * BYTE)
    ids = torch.tensor([place])
    window = Window(ids, torch.tensor([origin]), size)
    frames = images.read(window, torch.zeros_like(ids), images.device)
    box = tuple(slice(start, start + length) for start, length in zip(origin, kept, strict=True))
    crop, scale = dataset.picture(split, number, box)
    head = probe(dataset.cases(split)[number].images[0])
    return Watched(frames, split, crop, scale, images.names[place], tuple(origin), head, joined)


def cropped(extent: Sequence[int], longest: int) -> list[int]:
    """Lengths of the crop that is kept of an image (H, W) or a volume (D, H, W).

    No side is longer than `longest`, and a volume has no more voxels than an image of that side has pixels.
    """
    side = longest
    while math.prod(min(length, side) for length in extent) > longest**2:
        side -= 1
    return [min(length, side) for length in extent]


def placed(centre: Sequence[int], kept: Sequence[int], extent: Sequence[int]) -> list[int]:
    """First pixel of a crop about a pixel, inside the image; the last axis starts on a whole byte."""
    first = [
        min(max(0, middle - length // 2), whole - length)
        for middle, length, whole in zip(centre, kept, extent, strict=True)
    ]
    return [*first[:-1], first[-1] // BYTE * BYTE]
