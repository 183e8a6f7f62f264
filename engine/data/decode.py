"""One file → one array, whatever the format.

Nothing here knows about images and masks: a raster is what the file holds, with
its palette beside it, because the indices are a mask's values but not an image's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import scipy.io
import tifffile
from numpy.typing import NDArray
from PIL import Image

from engine.errors import InputError

MOST_CHANNELS = 16
"""A third axis longer than this is depth or time, not channels."""

GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """Where one array is."""

    path: Path
    key: str = ""
    """Variable inside a .mat file, in MATLAB's notation, such as ``groundTruth.Segmentation``."""


@dataclass(frozen=True)
class Raster:
    """What a file holds."""

    pixels: Array
    """(H, W) or (H, W, channels), in the file's own dtype; indices where there is a palette."""
    palette: NDArray[np.uint8] | None = None
    """(colours, 3)"""
    alpha: bool = False
    """An alpha channel was there and is dropped."""


def decode(source: Source) -> Raster:
    """Read the array at ``source``: the first frame of a GIF, the first series of a TIFF.

    Raises:
        InputError: the file is missing, empty, corrupt, of an unknown format, or not a 2D image.
    """
    path = source.path
    reader = _reader(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): replace it or take it out of the folder.")
        raster = reader(source)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # on a corrupt file every decoder raises what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as {path.suffix.lstrip('.').upper()} ({reason}): "
            "it may be corrupt; replace it or take it out of the folder."
        ) from error
    if raster.pixels.size == 0:
        raise InputError(f"{path} holds an array of shape {raster.pixels.shape}: take it out of the folder.")
    return raster


def count_channels(source: Source) -> int:
    """Channels that an image file stores, from its header where the format has one; a palette counts 3.

    Raises:
        InputError: as :func:`decode`.
    """
    reader = _reader(source.path)
    try:
        if reader is _picture:
            depth, kind = _png_head(source.path)
            if depth == 16:
                return 1 if kind in (0, 4) else 3
            with Image.open(source.path) as image:
                return 3 if image.mode not in GRAY_MODES else 1
        if reader is _tiff:
            with tifffile.TiffFile(source.path) as file:
                series = file.series[0]  # of the pixels only the shape is needed
                raster = _tiff_raster(np.broadcast_to(np.zeros((), series.dtype), series.shape), series)
        else:
            raster = decode(source)
    except Exception:
        raster = decode(source)  # says what is wrong
    if raster.palette is not None:
        return 3
    return 1 if raster.pixels.ndim == 2 else int(raster.pixels.shape[2])


def read_text(source: Source) -> str:
    """A short text or number inside a .mat file, as text (MATLAB 7.3 stores characters as uint16).

    Raises:
        InputError: as :func:`decode`, or the file is no .mat file.
    """
    values = np.ravel(decode(source).pixels)
    if values.dtype == np.uint16:
        return "".join(chr(code) for code in values if code)
    return " ".join(str(value) if values.dtype.kind in "US" else f"{value:g}" for value in values).strip()


def _reader(path: Path) -> Callable[[Source], Raster]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} has an ending that is not read: known are {', '.join(ENDINGS)}.")
    return reader


def _picture(source: Source) -> Raster:
    """PNG, JPEG, GIF, BMP."""
    depth, kind = _png_head(source.path)
    if depth == 16:  # Pillow cuts colour of 16 bits down to 8
        return _without_alpha(imagecodecs.png_decode(source.path.read_bytes()), alpha=kind in (4, 6))
    with Image.open(source.path) as image:
        if image.mode == "P":
            palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            return Raster(np.asarray(image), palette)
        if image.mode in ("LA", "RGBA"):
            return _without_alpha(np.asarray(image), alpha=True)
        if image.mode == "PA":
            return _without_alpha(np.asarray(image.convert("RGBA")), alpha=True)
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa"):
            return Raster(np.asarray(image.convert("RGB")))
        return Raster(np.asarray(image))


def _png_head(path: Path) -> tuple[int, int]:
    """Bit depth and colour type (0 gray, 2 RGB, 3 palette, 4 and 6 with alpha) of a PNG; zeros for others."""
    with path.open("rb") as file:
        head = file.read(26)
    return (head[24], head[25]) if head.startswith(b"\x89PNG") and len(head) == 26 else (0, 0)


def _tiff(source: Source) -> Raster:
    with tifffile.TiffFile(source.path) as file:
        series = file.series[0]
        return _tiff_raster(np.asarray(series.asarray()), series)


def _tiff_raster(pixels: Array, series: Any) -> Raster:
    page = series.keyframe
    pixels = _channels_last(pixels, Path(page.parent.filehandle.path), series.axes)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        colors = np.asarray(page.colormap).T
        return Raster(pixels, (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8))
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
        pixels = ~pixels if pixels.dtype == bool else pixels ^ pixels.dtype.type(2**page.bitspersample - 1)
    alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2) and pixels.ndim == 3
    return _without_alpha(pixels, alpha)


def _numpy(source: Source) -> Raster:
    return Raster(_channels_last(np.load(source.path, allow_pickle=False), source.path))


def _matlab(source: Source) -> Raster:
    """MATLAB up to 7.2 by scipy; 7.3 is HDF5, where MATLAB's axes come in reverse."""
    steps = source.key.split(".") if source.key else []
    read = _hdf5 if h5py.is_hdf5(source.path) else _mat5
    values = read(source.path, steps)
    return Raster(_channels_last(values, source.path) if values.dtype.kind in "buif" else values)


def _mat5(path: Path, steps: list[str]) -> Array:
    names = [name for name, *_ in scipy.io.whosmat(path)]
    first, *fields = steps or names[:1]
    if first not in names or (not steps and len(names) > 1):
        raise _no_variable(path, ".".join(steps), names)
    value = scipy.io.loadmat(path, variable_names=[first])[first]
    for field in fields:
        if field not in (value.dtype.names or ()):
            raise _no_variable(path, ".".join(steps), list(value.dtype.names or names))
        value = value[field].flat[0]
    while value.dtype == object and value.size == 1:  # a cell of one element
        value = value.flat[0]
    return np.asarray(value)


def _hdf5(path: Path, steps: list[str]) -> Array:
    with h5py.File(path, "r") as file:
        names = [name for name in file if not name.startswith("#")]
        key = "/".join(steps or names[:1])
        if not (steps or len(names) == 1) or not isinstance(file.get(key), h5py.Dataset):
            raise _no_variable(path, ".".join(steps), names)
        return np.asarray(file[key][()]).T


def _no_variable(path: Path, key: str, names: list[str]) -> InputError:
    asked = f"has no array {key!r}" if key else "does not hold just one array"
    return InputError(f"{path} {asked}: in it are {', '.join(names) or 'no variables'}.")


def _without_alpha(pixels: Array, alpha: bool) -> Raster:
    if not alpha:
        return Raster(pixels)
    kept = pixels[..., :-1]
    return Raster(kept[..., 0] if kept.shape[-1] == 1 else kept, alpha=True)


def _channels_last(pixels: Array, path: Path, axes: str = "") -> Array:
    """(H, W) or (H, W, channels) from an array whose channels, if any, come first or last.

    The axes' letters decide where the format has them (S samples, C channels, Z and T a stack);
    else the shorter of the first and last axis is taken for the channels, if it is at most 16 long.
    """
    axes = axes if len(axes) == pixels.ndim else "?" * pixels.ndim
    for axis in (*range(pixels.ndim - 2), -1):  # axes of length 1 before and behind
        if pixels.ndim > 2 and pixels.shape[axis] == 1 and axes[axis] not in "YX":
            return _channels_last(pixels.squeeze(axis), path, axes[:axis] + axes[axis:][1:])
    if pixels.ndim == 2:
        return pixels
    stack = pixels.ndim != 3 or any(letter in "ZT" for letter in axes)
    named = [axis for axis, letter in enumerate(axes) if letter in "SC"]
    ends = () if stack else sorted((2, 0), key=lambda axis: pixels.shape[axis])
    short = [axis for axis in ends if pixels.shape[axis] <= MOST_CHANNELS]
    if stack or not (named or short):
        raise InputError(
            f"{path} holds an array of shape {pixels.shape}, not a 2D image: "
            f"height and width, with up to {MOST_CHANNELS} channels before or behind them, would work."
        )
    return np.moveaxis(pixels, (named or short)[0], -1)


READERS: dict[str, Callable[[Source], Raster]] = {
    ".png": _picture,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".jpg": _picture,
    ".jpeg": _picture,
    ".gif": _picture,
    ".bmp": _picture,
    ".npy": _numpy,
    ".mat": _matlab,
}
ENDINGS = tuple(READERS)
