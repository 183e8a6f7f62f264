"""An image or volume that is read a part at a time, so that it need not fit in memory."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.classes import is_gray
from engine.data.decode import Raster, Source, probe
from engine.data.layouts import Case
from engine.data.read import picture, read_image, with_channels
from engine.data.stored import Stored, open_stored, require_stored
from engine.errors import InputError

MOST_VALUES = 1 << 22
"""Intensities in a band: a few of these are held in float64."""
Box = tuple[slice, ...]
"""A slice with start and stop along each axis of S."""


@dataclass(frozen=True)
class Rows:
    """An image as :func:`engine.data.read.read_image` would give it whole.

    Attributes:
        name: for messages.
        shape: (*S, channels).
        dtype: uint8, uint16 or float32.
        chunks: extent along each axis of S of what is stored, and so read, together; None in memory.
        box: a box of S, (*box, channels), without reading more than the chunks that it cuts. It raises
            InputError where they are unreadable or not finite.
        spacing: mm along each axis of S; None where nothing is known.
        before_band: called before each band is read; what it raises ends the pass.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    box: Callable[[Box], NDArray[Any]]
    spacing: tuple[float, ...] | None = None
    before_band: Callable[[], None] = lambda: None

    @property
    def dims(self) -> int:
        """Axes of S: 2 for images, 3 for volumes."""
        return len(self.shape) - 1

    @property
    def block(self) -> int:
        """Bytes of a chunk; 0 in memory."""
        if self.chunks is None:
            return 0
        sides = (min(extent, length) for extent, length in zip(self.chunks, self.shape, strict=False))
        return prod(sides) * self.shape[-1] * self.dtype.itemsize

    def read(self, first: int, last: int) -> NDArray[Any]:
        """All from a first one to before a last one along the first axis, (rows, *S[1:], channels)."""
        return self.box((slice(first, last), *(slice(0, length) for length in self.shape[1:-1])))

    def bands(self) -> Iterator[NDArray[Any]]:
        """The image's lines in order, (lines, W, channels), each chunk of it read once.

        A line runs along the last axis. Where a row of chunks is larger than a band, it waits in a file
        without a name, so that memory does not grow with the image.
        """
        length, *rest = self.shape[:-1]
        step = 1 if self.chunks is None else min(self.chunks[0], length)
        across = prod(rest) * self.shape[-1]
        step *= max(1, MOST_VALUES // (step * across))
        for first in range(0, length, step):
            self.before_band()
            last = min(first + step, length)
            if self.chunks is None or (last - first) * across <= MOST_VALUES:
                yield from self._lines(self.read(first, last))
            else:
                yield from self._spilled(first, last)

    def _lines(self, pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
        lines = pixels.reshape(-1, *self.shape[-2:])
        most = max(1, MOST_VALUES // prod(self.shape[-2:]))
        return (lines[start : start + most] for start in range(0, len(lines), most))

    def _spilled(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        """The lines of a row of chunks, put together on the disk."""
        shape = (last - first, *self.shape[1:])
        with tempfile.TemporaryFile(prefix=".band-") as file:
            file.truncate(prod(shape) * self.dtype.itemsize)
            for box in self._pieces():
                # Mapped anew for each piece: what was written is not counted as this process's then.
                np.memmap(file, self.dtype, "r+", shape=shape)[(slice(None), *box)] = self.box(
                    (slice(first, last), *box)
                )
                self.before_band()
            lines, line = prod(shape[:-2]), prod(shape[-2:])
            most = max(1, MOST_VALUES // line)
            file.seek(0)
            for start in range(0, lines, most):
                count = min(most, lines - start)
                values = np.fromfile(file, self.dtype, count * line)
                yield values.reshape(count, *shape[-2:])

    def _pieces(self) -> Iterator[Box]:
        """Boxes of all axes but the first, of whole chunks, of about a band together with a row of chunks."""
        assert self.chunks is not None
        steps = [*self.chunks[1:]]
        steps[-1] *= max(1, MOST_VALUES // (prod(self.chunks) * self.shape[-1]))
        axes = [
            [slice(start, min(start + step, length)) for start in range(0, length, step)]
            for step, length in zip(steps, self.shape[1:-1], strict=True)
        ]
        return product(*axes)


def open_rows(
    path: Path, channels: int, before_band: Callable[[], None] = lambda: None, axes: str | None = None
) -> Rows:
    """An image file, read whole, or one that is stored in chunks, of which only boxes are read.

    Those are a zarr array, an OME-Zarr image, of which the highest resolution is taken, and a tiled TIFF.

    Args:
        path: a file that :func:`read_image` reads, or the folder of a zarr array or an OME-Zarr image.
        channels: that the image shall have, by the rules of :func:`read_image`.
        before_band: called before each band of a pass over the image, of which there may be one here;
            it may raise.
        axes: letters of the axes where the file does not name them, as ``data.axes`` has them.

    Raises:
        InputError: unreadable, no image or volume, not finite, or channels that cannot become these.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    stored = open_stored(path, axes)
    if stored is not None:
        return _converted(_of_stored(stored, before_band), channels)
    source = Source(path, axes=axes)
    image = read_image(Case(name=path.stem, images=(source,), masks=()), channels)
    return replace(rows_of(image, str(path), probe(source).spacing), before_band=before_band)


def open_case(case: Case, channels: int) -> Rows:
    """The image of a case, a file or one for each channel, of which only boxes are read.

    Args:
        case: its files are stored in chunks.
        channels: that the image shall have, by the rules of :func:`read_image`.

    Raises:
        InputError: a file that can only be read whole, or channels that cannot become these.
    """
    each = [_of_stored(require_stored(source), lambda: None) for source in case.images]
    return _converted(each[0] if len(each) == 1 else _joined(each), channels)


def _joined(each: Sequence[Rows]) -> Rows:
    first = each[0]
    kinds = {rows.dtype for rows in each}
    kind = first.dtype if len(kinds) == 1 else np.dtype(np.float32)

    def box(sides: Box) -> NDArray[Any]:
        return np.concatenate([rows.box(sides).astype(kind, copy=False) for rows in each], axis=-1)

    shape = (*first.shape[:-1], sum(rows.shape[-1] for rows in each))
    return replace(first, shape=shape, dtype=kind, box=box)


def rows_of(image: NDArray[Any], name: str = "the image", spacing: tuple[float, ...] | None = None) -> Rows:
    """An image in memory, (*S, channels), of any real dtype.

    Raises:
        InputError: it is not finite.
    """
    pixels = picture(Raster(image, dims=image.ndim - 1), name)
    return Rows(name, pixels.shape, pixels.dtype, None, pixels.__getitem__, spacing)


def _of_stored(stored: Stored, before_band: Callable[[], None]) -> Rows:
    name = str(stored.path)

    def box(sides: Box) -> NDArray[Any]:
        where = " × ".join(f"{side.start} to {side.stop - 1}" for side in sides)
        return picture(Raster(stored.read(sides), dims=len(sides)), f"{name} (pixels {where})")

    kind = picture(Raster(np.zeros((1, 1, 1), stored.dtype)), name).dtype
    return Rows(name, stored.shape, kind, stored.chunks, box, stored.spacing, before_band)


def _converted(rows: Rows, channels: int) -> Rows:
    *sides, count = rows.shape
    if count == channels:
        return rows
    one = np.zeros((*[1] * len(sides), count), rows.dtype)
    with_channels(one, channels, rows.name)  # refuses at once, if it does
    gray = channels == 1 and all(map(is_gray, rows.bands()))

    def box(wanted: Box) -> NDArray[Any]:
        return with_channels(rows.box(wanted), channels, rows.name, gray)

    return replace(rows, shape=(*sides, channels), box=box)
