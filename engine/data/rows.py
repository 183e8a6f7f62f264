"""An image that is read a few rows at a time, so that it need not fit in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from engine.data.classes import is_gray
from engine.data.decode import MOST_CHANNELS, Raster, Source
from engine.data.layouts import Case
from engine.data.read import picture, read_image, with_channels
from engine.errors import InputError

MOST_VALUES = 1 << 22
"""Intensities in a band: a few of these are held in float64."""
NODES = ("zarr.json", ".zarray", ".zgroup")
"""Files by which a folder is known to be zarr's."""


@dataclass(frozen=True)
class Rows:
    """An image as :func:`engine.data.read.read_image` would give it whole.

    Attributes:
        name: for messages.
        shape: height, width, channels.
        dtype: uint8, uint16 or float32.
        together: rows that are stored together, and best read at once; 1 for any.
        read: rows from a first one to before a last one, (rows, W, channels). It raises InputError
            where they are unreadable or not finite.
        before_band: called before each band is read; what it raises ends the pass.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    together: int
    read: Callable[[int, int], NDArray[Any]]
    before_band: Callable[[], None]

    @property
    def block(self) -> int:
        """Bytes of the rows that are stored together."""
        return min(self.together, self.shape[0]) * self.shape[1] * self.shape[2] * self.dtype.itemsize

    def bands(self) -> Iterator[NDArray[Any]]:
        """The image from top to bottom, each part of it read once."""
        height, width, channels = self.shape
        most = max(1, MOST_VALUES // (width * channels))
        step = self.together * max(1, most // self.together)
        for first in range(0, height, step):
            self.before_band()
            read = self.read(first, min(first + step, height))
            for start in range(0, len(read), most):
                yield read[start : start + most]


def open_rows(path: Path, channels: int, before_band: Callable[[], None] = lambda: None) -> Rows:
    """An image file, read whole, or a zarr array, of which only rows are read.

    Args:
        path: a file that :func:`read_image` reads, or the folder of a zarr array (H, W) or
            (H, W, channels).
        channels: that the image shall have, by the rules of :func:`read_image`.
        before_band: called before each band of a pass over the image, of which there may be one here;
            it may raise.

    Raises:
        InputError: unreadable, no 2D image, not finite, or channels that cannot become these.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.is_dir():
        return _converted(_open_zarr(path, before_band), channels)
    image = read_image(Case(name=path.stem, images=(Source(path),), masks=()), channels)
    return replace(rows_of(image, str(path)), before_band=before_band)


def rows_of(image: NDArray[Any], name: str = "the image") -> Rows:
    """An image in memory, (H, W, channels), of any real dtype.

    Raises:
        InputError: it is not finite.
    """
    pixels = picture(Raster(image), name)

    def read(first: int, last: int) -> NDArray[Any]:
        return pixels[first:last]

    height, width, channels = pixels.shape
    return Rows(name, (height, width, channels), pixels.dtype, 1, read, lambda: None)


def _open_zarr(path: Path, before_band: Callable[[], None]) -> Rows:
    if not any((path / name).is_file() for name in NODES):
        raise InputError(f"{path} is a folder and no zarr array: one, or an image file, is needed.")
    try:
        array = zarr.open(path, mode="r")
    except Exception as error:  # of a broken one zarr raises what it likes
        raise _unreadable(path, error) from error
    if not isinstance(array, zarr.Array):
        inside = ", ".join(sorted(name for name, _ in array.arrays())) or "none"
        raise InputError(f"{path} is a zarr group: give one of its arrays ({inside}) as {path}/NAME.")
    shape = array.shape
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] > MOST_CHANNELS):
        raise InputError(
            f"{path} holds an array of shape {shape}, not a 2D image: (height, width) or "
            f"(height, width, channels) with up to {MOST_CHANNELS} channels would work."
        )

    def read(first: int, last: int) -> NDArray[Any]:
        try:
            pixels = np.asarray(array[first:last])
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise _unreadable(path, error) from error
        return picture(Raster(pixels), f"{path} (rows {first} to {last - 1})")

    kind = picture(Raster(np.zeros((1, 1), array.dtype)), str(path)).dtype
    together = (array.shards or array.chunks)[0]
    count = shape[2] if len(shape) == 3 else 1
    return Rows(str(path), (shape[0], shape[1], count), kind, together, read, before_band)


def _converted(rows: Rows, channels: int) -> Rows:
    height, width, count = rows.shape
    if count == channels:
        return rows
    with_channels(np.zeros((1, 1, count), rows.dtype), channels, rows.name)  # refuses at once, if it does
    gray = channels == 1 and all(map(is_gray, rows.bands()))

    def read(first: int, last: int) -> NDArray[Any]:
        return with_channels(rows.read(first, last), channels, rows.name, gray)

    return replace(rows, shape=(height, width, channels), read=read)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(f"{path} cannot be read as zarr ({reason}): it may be corrupt.")
