"""Prediction of whole images: at once where they fit, else tile by tile with Gaussian blending."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.bricks import Bricks
from engine.device import full_precision
from engine.head import Head, foreground
from engine.tiles import Blocks, Box, Values, extents, overlap_of, starts

BUDGET = 1 << 24
"""Bytes of sums that are held in memory; more are in a file."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Predictor:
    """A network in evaluation mode, and how it is applied.

    Attributes:
        network: maps float (B, channels, *S) to logits.
        head: what the logits mean.
        device: where it runs.
        dtype: of autocast, or None for float32, which calibration and prediction use: full float32, on
            CUDA too, and the same result each time.
        tile: largest extent of an axis that is predicted at once, in pixels.
        overlap: share of a tile by which neighbours overlap, 0 ≤ overlap < 1.
    """

    network: nn.Module
    head: Head
    device: torch.device
    dtype: torch.dtype | None
    tile: int
    overlap: float

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """Logits float32 (B, outputs, *S) of normalised images (B, channels, *S), on the images' device."""
        training = self.network.training
        self.network.eval()
        try:
            if max(image.shape[2:]) <= self.tile:
                return self._run(image).to(image.device)
            return self._tiled(image)
        finally:
            self.network.train(training)

    def probability(self, image: Tensor) -> Tensor:
        """Foreground probabilities float32 (B, C, *S)."""
        return foreground(self.logits(image), self.head)

    def blocks(
        self,
        read: Callable[[Box], Tensor],
        shape: tuple[int, ...],
        ticked: Callable[[], None] = lambda: None,
        *,
        rows: tuple[int, int] | None = None,
        scratch: Path | None = None,
    ) -> Iterator[tuple[Box, Values]]:
        """Foreground probabilities of an image of any size, a block at a time.

        The tiles, their order, weights and sums are those of :meth:`probability`, to within 1e-6. What is
        given depends on the image alone, to the last bit: each pixel is a sum over the tiles that cover
        it, in their order, whatever is held in memory and whatever part is asked for. Memory does not grow
        with the image: sums wait in a file for the tiles that are still to come.

        Args:
            read: a box of the normalised image on the CPU, (1, channels, *box).
            shape: of the image, S.
            ticked: called after each tile.
            rows: the first row of blocks along the first axis, and that before which to end; None for all.
            scratch: folder of the sums' file; the system's for temporary files if None.

        Yields:
            A box and its probabilities float32 (C, *box). The boxes lie on a grid of
            :func:`engine.tiles.unit` from the origin. Each comes once, as soon as the last tile that has a
            part of it is done; so rows of blocks are whole one after the other.
        """
        work = Blocks.of(shape, *self.grid(shape), rows)
        one = prod(map(len, work.corners)) == 1
        weight = torch.ones(work.size) if one else gaussian(work.size, CPU)
        bricks: Bricks | None = None
        training = self.network.training
        self.network.eval()
        with ExitStack() as stack:
            stack.callback(self.network.train, training)
            for number, values in self._weighted(work, read, weight):
                tile = work.tile(number)
                if bricks is None:
                    largest = 4 * len(values) * prod(work.unit)
                    bricks = stack.enter_context(Bricks(largest, BUDGET, scratch))
                for index in work.touched(number):
                    box = work.box(index)
                    inside, part = overlap_of(box, tile)
                    brick = bricks.at(index, (len(values), *extents(box)))
                    brick[(slice(None), *inside)] += values[(slice(None), *part)]
                del values
                ticked()
                for index in work.finished(number):
                    sums = bricks.take(index)
                    assert sums is not None  # tiles cover the image
                    sums /= work.weights(index, weight.numpy())
                    p = foreground(torch.from_numpy(sums)[None], self.head)[0]
                    yield work.box(index), np.ascontiguousarray(p.numpy())

    def _weighted(
        self, work: Blocks, read: Callable[[Box], Tensor], weight: Tensor
    ) -> Iterator[tuple[tuple[int, ...], Values]]:
        """Each tile's number, and its weighted logits float32 (outputs, *size).

        A GPU is given the next tile before the last one's logits are waited for, so that reading and adding
        up go on meanwhile.
        """
        weight = weight.to(self.device)
        running: deque[tuple[tuple[int, ...], Tensor, torch.cuda.Event | None]] = deque()
        for number in product(*work.tiles):
            with torch.no_grad():
                out, copied = self._run(read(work.tile(number)))[0] * weight, None
                if self.device.type == "cuda":
                    values = torch.empty(out.shape, pin_memory=True).copy_(out, non_blocking=True)
                    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                    copied.record(torch.cuda.current_stream(self.device))
                else:
                    values = out.cpu()
            running.append((number, values, copied))
            del out, values
            if copied is None or len(running) > 1:
                yield _awaited(*running.popleft())
        while running:
            yield _awaited(*running.popleft())

    def grid(self, spatial: tuple[int, ...]) -> tuple[list[int], list[list[int]]]:
        """Size of the tiles of an image, and the first pixels of the tiles along each axis."""
        size = [min(length, self.tile) for length in spatial]
        return size, [
            starts(length, extent, self.overlap) for length, extent in zip(spatial, size, strict=True)
        ]

    def count(self, spatial: tuple[int, ...], rows: tuple[int, int] | None = None) -> int:
        """Tiles of an image, or of some of its rows of blocks; arguments as :meth:`blocks`."""
        return prod(map(len, Blocks.of(spatial, *self.grid(spatial), rows).tiles))

    def _run(self, image: Tensor) -> Tensor:
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)
        with full_precision() if self.dtype is None else nullcontext(), autocast:
            out: Tensor = self.network(image.to(self.device))
        return out.float()

    def _tiled(self, image: Tensor) -> Tensor:
        spatial = image.shape[2:]
        size, corners = self.grid(tuple(spatial))
        weight = gaussian(size, image.device)
        total: Tensor | None = None
        weights = torch.zeros((1, 1, *spatial), device=image.device)
        for corner in product(*corners):
            inside = [slice(first, first + n) for first, n in zip(corner, size, strict=True)]
            box = (slice(None), slice(None), *inside)
            out = self._run(image[box]).to(image.device)
            if total is None:
                total = torch.zeros((*out.shape[:2], *spatial), device=image.device)
            total[box] += out * weight
            weights[box] += weight
        assert total is not None  # there is always a tile
        return total.div_(weights)


def _awaited(
    number: tuple[int, ...], values: Tensor, copied: torch.cuda.Event | None
) -> tuple[tuple[int, ...], Values]:
    """A tile's number and values, once they are there."""
    if copied is not None:
        copied.synchronize()
    return number, values.numpy()


def gaussian(size: list[int], device: torch.device) -> Tensor:
    """Weights of a tile: a Gaussian with a deviation of an eighth of each side, nowhere 0."""
    weight = torch.ones((), device=device)
    for extent in size:
        along = (torch.arange(extent, device=device) - (extent - 1) / 2) / (extent / 8)
        weight = weight[..., None] * torch.exp(-0.5 * along**2)
    return weight.clamp(min=1e-4)
