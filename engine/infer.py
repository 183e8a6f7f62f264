"""Prediction of whole images: at once where they fit, else tile by tile with Gaussian blending."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from engine.device import full_precision
from engine.head import Head, foreground


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

    @torch.no_grad()
    def rows(
        self, read: Callable[[int, int], Tensor], shape: tuple[int, int], ticked: Callable[[], None]
    ) -> Iterator[Tensor]:
        """Foreground probabilities of an image (1, channels, H, W), a few rows at a time.

        The tiles, their order, weights and sums are those of :meth:`probability`, to within 1e-6. What is
        given depends on the image alone, to the last bit. No more is held than a row of tiles.

        Args:
            read: rows of the normalised image from a first one to before a last one, on the CPU,
                (1, channels, rows, W).
            shape: H, W.
            ticked: called after each tile.

        Yields:
            Probabilities float32 (1, C, rows, W), from top to bottom; the first comes only when all rows
            that reach into a tile below it are summed.
        """
        training = self.network.training
        self.network.eval()
        try:
            yield from self._rows(read, shape, ticked)
        finally:
            self.network.train(training)

    def _rows(
        self, read: Callable[[int, int], Tensor], shape: tuple[int, int], ticked: Callable[[], None]
    ) -> Iterator[Tensor]:
        height, width = shape
        if max(shape) <= self.tile:
            logits = self._run(read(0, height)).cpu()
            ticked()
            yield foreground(logits, self.head)
            return
        size, (tops, lefts) = self.grid(shape)
        weight = gaussian(size, torch.device("cpu"))
        total: Tensor | None = None
        weights = torch.zeros((1, 1, size[0], width))
        for top, below in zip(tops, [*tops[1:], height], strict=True):
            band = read(top, top + size[0])
            for left in lefts:
                box = (..., slice(left, left + size[1]))
                out = self._run(band[box]).cpu()
                if total is None:
                    total = torch.zeros((*out.shape[:2], size[0], width))
                total[box] += out * weight
                weights[box] += weight
                ticked()
            assert total is not None  # there is always a tile
            done = below - top
            yield foreground(total[..., :done, :] / weights[..., :done, :], self.head)
            for sums in (total, weights):
                sums[..., : size[0] - done, :] = sums[..., done:, :].clone()
                sums[..., size[0] - done :, :] = 0

    def grid(self, spatial: tuple[int, ...]) -> tuple[list[int], list[list[int]]]:
        """Size of the tiles of an image, and the first pixels of the tiles along each axis."""
        size = [min(length, self.tile) for length in spatial]
        return size, [
            starts(length, extent, self.overlap) for length, extent in zip(spatial, size, strict=True)
        ]

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


def starts(length: int, extent: int, overlap: float) -> list[int]:
    """First pixels of tiles that cover an axis evenly, neighbours overlapping by at least `overlap`."""
    step = max(1, int(extent * (1 - overlap)))
    count = 1 + -(-(length - extent) // step)
    last = length - extent
    return [round(last * number / max(1, count - 1)) for number in range(count)]


def gaussian(size: list[int], device: torch.device) -> Tensor:
    """Weights of a tile: a Gaussian with a deviation of an eighth of each side, nowhere 0."""
    weight = torch.ones((), device=device)
    for extent in size:
        along = (torch.arange(extent, device=device) - (extent - 1) / 2) / (extent / 8)
        weight = weight[..., None] * torch.exp(-0.5 * along**2)
    return weight.clamp(min=1e-4)
