"""Images that are never loaded: each window is read from its files when it is wanted.

The files are zarr, OME-Zarr or tiled TIFF, of which boxes can be read. What is kept of an image is how its
intensities are normalised and a coarse map of its classes, both found in passes over it before training.
A window has the very same frames as in a :class:`engine.data.store.Store` of the same images.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import fingerprint
from engine.bits import BYTE, Window
from engine.data.boxes import Box, cuts
from engine.data.classes import Classes
from engine.data.coarse import Coarse, coarse_of
from engine.data.decode import FOLDERS, ending, probe
from engine.data.layouts import Case
from engine.data.normalize import CLIPPED, normalised, white
from engine.data.passes import affine_of
from engine.data.rows import Rows, open_case
from engine.data.specs import Data
from engine.data.store import Frames, frame_shape, intensities
from engine.data.stored import open_stored
from engine.data.truth import Truth, open_truth
from engine.errors import InputError

CPU = torch.device("cpu")
THREADS = 4
"""Windows that are read at once: decompression releases the interpreter."""
MOST_CHUNK = 1 << 26
"""Bytes of a chunk up to which reading a file by boxes is better than decoding it once."""


@dataclass(frozen=True)
class LazyStore:
    """Images and masks of a split on disk. All tensors are on the CPU.

    Attributes:
        names: of the N images.
        rows: their intensities, to be read by boxes.
        truths: their masks, to be read by boxes.
        maps: where their classes are, coarsely.
        scale, shift: float32 (N, channels); ``pixels * scale + shift`` is normalised.
        bytewise: whether all images are uint8. All others are normalised and rounded to float16, as a store
            keeps them, so that a run does not depend on where images are kept.
        normalization: method.
        shapes: int64 (N, D), frames: the images, with whole bytes a row.
        extents: int64 (N, D), the images in their frames.
        tile: extent of the windows of :meth:`batches`, multiples of 8.
        digests: fingerprints of the images as they were read.
    """

    names: tuple[str, ...]
    rows: tuple[Rows, ...]
    truths: tuple[Truth, ...]
    maps: tuple[Coarse, ...]
    scale: Tensor
    shift: Tensor
    bytewise: bool
    normalization: str
    shapes: Tensor
    extents: Tensor
    tile: tuple[int, ...]
    digests: tuple[str, ...]
    mapped: bool = True

    def __len__(self) -> int:
        return len(self.names)

    @property
    def device(self) -> torch.device:
        return CPU

    @property
    def empty(self) -> bool:
        """Whether no image has a pixel of any class."""
        return all(each.empty for each in self.maps)

    @property
    def nbytes(self) -> int:
        """Bytes of the maps."""
        return sum(each.sums.nbytes for each in self.maps)

    def read(self, window: Window, visits: Tensor, device: torch.device) -> Frames:
        """A batch of windows on a device; it may have none.

        Raises:
            InputError: a file that cannot be read any more.
        """
        places = list(zip(window.ids.tolist(), window.corner.tolist(), strict=True))
        with ThreadPoolExecutor(max(1, min(THREADS, len(places)))) as pool:
            parts = list(pool.map(partial(self._part, size=window.size), places or [self._somewhere]))
        stacked = [torch.from_numpy(np.stack(each)) for each in zip(*parts, strict=True)]
        raw, truth, valid = (each[: len(places)] for each in stacked)
        scale, shift = self.scale[window.ids], self.shift[window.ids]
        zero = shift
        if not self.bytewise:
            scale, shift = torch.ones_like(scale), torch.zeros_like(shift)
        return Frames(
            window=window,
            visits=visits,
            image=intensities(
                raw.to(device), scale.to(device), shift.to(device), clipped=self.normalization in CLIPPED
            ),
            truth=truth.to(device),
            valid=None if self._everywhere and bool(valid.all()) else valid[:, None].to(device),
            zero=zero.to(device),
        )

    def holds(self, ids: Tensor, corners: Tensor, size: tuple[int, ...]) -> Tensor:
        """Whether each window has a pixel of any class, bool (windows,) on the CPU.

        The files are asked where the map leaves it open: of windows that only cut blocks which hold one.
        """
        found = self._asked(ids, corners, size, Coarse.surrounded)
        unsure = (self.may_hold(ids, corners, size) & ~found).nonzero()[:, 0].tolist()
        places = [(int(ids[number]), corners[number].tolist()) for number in unsure]
        with ThreadPoolExecutor(THREADS) as pool:
            read = pool.map(partial(self._holds, size=size), places)
            found[unsure] = torch.tensor(list(read), dtype=torch.bool)
        return found

    def may_hold(self, ids: Tensor, corners: Tensor, size: tuple[int, ...]) -> Tensor:
        """Whether each window touches a block of the map that holds a class, bool (windows,) on the CPU."""
        return self._asked(ids, corners, size, Coarse.touched)

    def centre(self, number: int) -> list[int]:
        """The pixel in the middle of an image's truth, of all classes; in its own where it has none."""
        found = self.maps[number].centre
        return [length // 2 for length in self.extents[number].tolist()] if found is None else list(found)

    def batches(self, size: int) -> Iterator[Window]:
        """Windows side by side that cover each frame once, up to `size` of one extent at a time."""
        by_extent: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for number, shape in enumerate(self.shapes.tolist()):
            axes = [cuts(length, most, BYTE) for length, most in zip(shape, self.tile, strict=True)]
            for sides in product(*axes):
                extent = tuple(length for _, length in sides)
                by_extent.setdefault(extent, []).append((number, [start for start, _ in sides]))
        for extent, places in by_extent.items():
            for first in range(0, len(places), size):
                ids, corners = zip(*places[first : first + size], strict=True)
                yield Window(torch.tensor(ids), torch.tensor(corners), extent)

    @property
    def _everywhere(self) -> bool:
        """Whether every pixel of every frame is valid."""
        return all(each.everywhere for each in self.maps) and bool((self.shapes == self.extents).all())

    @property
    def _somewhere(self) -> tuple[int, list[int]]:
        """A window that can be read, to see from it what an empty batch is like."""
        return 0, [0] * self.shapes.shape[1]

    def _asked(self, ids: Tensor, corners: Tensor, size: tuple[int, ...], ask: Any) -> Tensor:
        """What the map of each window's image answers."""
        answers = np.zeros(len(ids), np.bool_)
        images, places = ids.numpy(), corners.numpy()
        for number in np.unique(images).tolist():
            chosen = images == number
            answers[chosen] = ask(self.maps[number], places[chosen], size)
        return torch.from_numpy(answers)

    def _holds(self, place: tuple[int, list[int]], size: tuple[int, ...]) -> bool:
        number, corner = place
        box, _ = clipped(corner, size, self.truths[number].shape)
        return bool(self.truths[number].read(box)[0].any())

    def _part(
        self, place: tuple[int, list[int]], size: tuple[int, ...]
    ) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        """A window of one image: pixels (*size, channels), truth (C, *size), valid (*size)."""
        number, corner = place
        box, beyond = clipped(corner, size, self.truths[number].shape)
        image = self.rows[number].box(box)
        if not self.bytewise:
            scale, shift = self.scale[number].numpy(), self.shift[number].numpy()
            image = normalised(image, scale, shift, self.normalization).astype(np.float16)
        truth, valid = self.truths[number].read(box)
        # Beyond its frame an image goes on with the pixels of its border, and nothing is valid.
        if any(any(both) for both in beyond):
            image = np.pad(image, [*beyond, (0, 0)], mode="edge")
            truth, valid = np.pad(truth, [(0, 0), *beyond]), np.pad(valid, beyond)
        return image, truth, valid


def clipped(
    corner: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[Box, list[tuple[int, int]]]:
    """A window's part of an image, and how much of the window lies beyond it at both ends of each axis.

    A window must have at least one pixel of the image along each axis.
    """
    box, beyond = [], []
    for first, length, whole in zip(corner, size, shape, strict=True):
        start, stop = max(first, 0), min(first + length, whole)
        box.append(slice(start, stop))
        beyond.append((start - first, first + length - stop))
    return tuple(box), beyond


def open_images(
    cases: Sequence[Case], classes: Classes, channels: int, data: Data, tile: Sequence[int]
) -> LazyStore:
    """Go over the images and masks of a split, a few boxes at a time, and keep what training needs of them.

    Args:
        cases: of the split.
        classes: what the masks mean.
        channels: that all images shall have.
        data: normalization.
        tile: extent of the windows in passes over whole images.

    Raises:
        InputError: files that can only be read whole, that are unreadable or not finite, or that do not fit
            together; images that shall be resized.
    """
    if data.size is not None or data.spacing is not None:
        raise InputError(
            f"data.cache is none, but data.{'size' if data.size is not None else 'spacing'} resizes whole "
            "images: data.cache = disk, or images at their native size, would work."
        )
    rows, truths, maps, scalings, digests = [], [], [], [], []
    for case in cases:
        truths.append(open_truth(case, classes))
        rows.append(open_case(case, channels))
        maps.append(coarse_of(truths[-1].passes(), truths[-1].shape))
        image = rows[-1]
        digests.append(fingerprint.image_of(image.bands(), image.shape, image.dtype))
        top = white(image.dtype)
        scalings.append(affine_of(image.bands, image.shape, image.dtype, data.normalization, top=top))
    scale, shift = (torch.from_numpy(np.stack(each)) for each in zip(*scalings, strict=True))
    extents = [each.shape for each in truths]
    return LazyStore(
        names=tuple(case.name for case in cases),
        rows=tuple(rows),
        truths=tuple(truths),
        maps=tuple(maps),
        scale=scale,
        shift=shift,
        bytewise=all(each.dtype == np.uint8 for each in rows),
        normalization=data.normalization,
        shapes=torch.tensor([frame_shape(extent) for extent in extents], dtype=torch.int64),
        extents=torch.tensor(extents, dtype=torch.int64),
        tile=tuple(max(BYTE, length // BYTE * BYTE) for length in tile),
        digests=tuple(digests),
    )


def suits(cases: Sequence[Case], data: Data, budget: float) -> bool:
    """Whether images are better read by boxes: decoded, they pass a budget of bytes, and files allow it."""
    sources = [source for case in cases for source in (*case.images, *case.masks)]
    sources += [case.valid for case in cases if case.valid is not None]
    maybe = (*FOLDERS, ".tif", ".tiff")
    if data.size is not None or data.spacing is not None:
        return False
    if any(ending(source.path) not in maybe for source in sources):
        return False
    heads = [probe(source) for case in cases for source in case.images]
    decoded = sum(prod(head.shape) * head.channels * (1 if head.dtype.itemsize == 1 else 2) for head in heads)
    return decoded > budget and all(_in_small_chunks(source.path, source.axes) for source in sources)


def _in_small_chunks(path: Path, axes: str | None) -> bool:
    stored = open_stored(path, axes)
    if stored is None:
        return False
    return prod(stored.chunks) * stored.shape[-1] * stored.dtype.itemsize <= MOST_CHUNK
