"""Where an array is, what a file holds, and what its header says: the words that all formats share.

Nothing here knows about images and masks: a raster is what the file holds, with
its palette beside it, because the indices are a mask's values but not an image's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """Where one array is."""

    path: Path
    key: str = ""
    """Variable inside a .mat file, in MATLAB's notation, such as ``groundTruth.Segmentation``."""
    axes: str | None = None
    """Letters of the array's axes, such as ``zyx``, for files that do not name theirs."""


@dataclass(frozen=True)
class Raster:
    """What a file holds. S is (H, W) of an image, (D, H, W) of a volume: the axes are z, y, x."""

    pixels: Array
    """(*S) or (*S, channels), in the file's own dtype; indices where there is a palette."""
    palette: NDArray[np.uint8] | None = None
    """(colours, 3)"""
    alpha: bool = False
    """An alpha channel was there and is dropped."""
    dims: int = 2
    """Length of S."""
    spacing: tuple[float, ...] | None = None
    """mm between neighbours along each axis of S; None where the file says nothing."""
    affine: NDArray[np.float64] | None = None
    """(4, 4), index (z, y, x, 1) → mm to the right, to the front and up (RAS+); None where the file says
    nothing. An image has z = 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        """S"""
        return self.pixels.shape[: self.dims]

    @property
    def channels(self) -> int:
        """Channels of the pixels; a palette counts 3."""
        if self.palette is not None:
            return 3
        return 1 if self.pixels.ndim == self.dims else int(self.pixels.shape[-1])

    @property
    def head(self) -> "Head":
        """What a header would say of it."""
        return Head(self.shape, self.channels, self.dims, self.pixels.dtype, self.spacing, self.affine)


@dataclass(frozen=True)
class Head:
    """What a file holds, without the pixels."""

    shape: tuple[int, ...]
    """S"""
    channels: int
    """1 where the array has no axis for them; a palette counts 3, alpha does not count."""
    dims: int
    """Length of S."""
    dtype: np.dtype[Any]
    """As :func:`engine.data.decode.decode` gives the pixels."""
    spacing: tuple[float, ...] | None = None
    """As of :class:`Raster`."""
    affine: NDArray[np.float64] | None = None
    """As of :class:`Raster`."""
