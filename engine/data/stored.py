"""Images that are stored in chunks and need not be loaded whole: zarr, OME-Zarr and tiled TIFF."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from engine.data.axes import Arrangement, arrange
from engine.data.boxes import Box
from engine.data.decode import probe
from engine.data.raster import Raster, Source
from engine.data.zarrs import open_zarr
from engine.errors import InputError

PLAIN = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
"""Meanings of a TIFF's values that decoding gives as they are."""


@dataclass(frozen=True)
class Stored:
    """An array on disk.

    Attributes:
        path: of the file or folder.
        shape: (*S, channels).
        dtype: as stored.
        chunks: extent of a chunk along each axis of S.
        read: a box of S, (*box, channels), as stored. It raises InputError where that cannot be read.
        spacing: mm along each axis of S; None where nothing is known.
        alpha: whether an alpha channel was there and is dropped.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    read: Callable[[Box], NDArray[Any]]
    spacing: tuple[float, ...] | None
    alpha: bool = False

    def raster(self, box: Box) -> Raster:
        """A box as :func:`engine.data.decode.decode` would give it of the whole: one channel has no axis."""
        pixels = self.read(box)
        return Raster(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, dims=len(box))


def open_stored(path: Path, axes: str | None = None) -> Stored | None:
    """Open a zarr array, an OME-Zarr image (its highest resolution) or a tiled TIFF; None for any other file.

    Args:
        path: of the file or folder.
        axes: letters of the axes, where the file does not name them.

    Raises:
        InputError: a folder of something else, or no image or volume.
    """
    if path.is_dir():
        found = open_zarr(path)
        order = arrange(found.array.shape, path, found.axes, axes)
        return _of_array(path, found.array, order, order.along(found.sizes))
    if path.suffix.lower() in (".tif", ".tiff"):
        return _tiff(path, axes)
    return None


def require_stored(source: Source) -> Stored:
    """A file of which only boxes are read.

    Raises:
        InputError: it is unreadable, or must be read whole.
    """
    stored = open_stored(source.path, source.axes)
    if stored is None:
        probe(source)  # says what is wrong with the file, if something is
        raise InputError(
            f"data.cache is none, but {source.path} can only be read whole: zarr, OME-Zarr or a tiled TIFF, "
            "or data.cache = disk, would work."
        )
    return stored


def _of_array(
    path: Path, array: Any, order: Arrangement, spacing: tuple[float, ...] | None, alpha: bool = False
) -> Stored:
    """A zarr array, perhaps without the last of its channels, which is `alpha`."""
    wanted = order.shape(array.shape)
    if 0 in wanted:
        raise InputError(f"{path} holds an array of shape {tuple(array.shape)}, which is empty.")
    flat = len(wanted) == order.dims
    channels = 1 if flat else wanted[-1] - alpha

    def read(box: Box) -> NDArray[Any]:
        key = [slice(None)] * len(array.shape)
        for axis, side in zip(order.order, box, strict=False):
            key[axis] = side
        try:
            pixels = order.of(np.asarray(array[tuple(key)]))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of a broken chunk decoders raise what they like
            kind = "TIFF" if path.is_file() else "zarr"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{path} cannot be read as {kind} ({reason}): it may be corrupt.") from error
        return pixels[..., None] if flat else pixels[..., :channels]

    return Stored(
        path, (*wanted[: order.dims], channels), np.dtype(array.dtype),
        order.shape(array.shards or array.chunks)[: order.dims], read, spacing, alpha,
    )  # fmt: skip


def _tiff(path: Path, axes: str | None) -> Stored | None:
    """A tiled TIFF whose values are intensities as they are stored; None for any other."""
    try:
        file = tifffile.TiffFile(path)
    except (OSError, MemoryError):
        raise
    except Exception:  # reading it whole says what is wrong
        return None
    with file:
        stored = _of_tiff(path, file, axes)
    return None if stored is None else replace(stored, read=_reopening(stored.read, file.filehandle))


def _reopening(
    read: Callable[[Box], NDArray[Any]], handle: tifffile.FileHandle
) -> Callable[[Box], NDArray[Any]]:
    """Have a file open only while it is read: of the thousands in a data set, a system lets few be open."""
    lock = threading.Lock()

    def reopened(box: Box) -> NDArray[Any]:
        with lock:
            handle.open()
            try:
                return read(box)
            finally:
                handle.close()

    return reopened


def _of_tiff(path: Path, file: tifffile.TiffFile, axes: str | None) -> Stored | None:
    if not file.series or len(file.series) > 1:
        return None
    series = file.series[0]
    page = series.keyframe
    if not page.is_tiled or page.bitspersample % 8 or page.photometric not in PLAIN:
        return None
    head = probe(Source(path), axes)
    order = arrange(series.shape, path, series.axes, axes)
    wanted = order.shape(series.shape)
    alpha = len(wanted) > order.dims and head.channels < wanted[-1]
    array = zarr.open(series.aszarr(level=0), mode="r")
    return _of_array(path, array, order, head.spacing, alpha)
