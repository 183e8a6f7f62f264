"""What training asks of the images of a split, wherever they are."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from engine.bits import Window
from engine.data.store import Frames


class Images(Protocol):
    """The images of a split: decoded (:class:`engine.data.store.Store`), or read from their files when
    they are needed (:class:`engine.data.lazy.LazyStore`). Both give the same frames."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the N images."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Fingerprints of the images as they were read."""

    @property
    def shapes(self) -> Tensor:
        """int64 (N, D), the frames."""

    @property
    def extents(self) -> Tensor:
        """int64 (N, D) on the CPU, the image's part of its frame, from the frame's first pixel."""

    @property
    def device(self) -> torch.device:
        """Where pixels and masks are."""

    @property
    def mapped(self) -> bool:
        """Whether pixels come from a file, so that reading ahead pays."""

    @property
    def bytewise(self) -> bool:
        """Whether all images are uint8."""

    @property
    def empty(self) -> bool:
        """Whether no image has a pixel of any class."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is held of the images."""

    def __len__(self) -> int: ...

    def read(self, window: Window, visits: Tensor, device: torch.device) -> Frames:
        """A batch of windows on a device; it may have none."""

    def holds(self, ids: Tensor, corners: Tensor, size: tuple[int, ...]) -> Tensor:
        """Whether each window has a pixel of any class, bool (windows,) on the CPU."""

    def may_hold(self, ids: Tensor, corners: Tensor, size: tuple[int, ...]) -> Tensor:
        """The same at little cost for many windows: True for all that hold a class, and for others."""

    def centre(self, number: int) -> list[int]:
        """The pixel in the middle of an image's truth, of all classes; in its own where it has none."""

    def batches(self, size: int) -> Iterator[Window]:
        """All pixels of all images once, up to `size` windows at a time: for passes in evaluation mode."""
