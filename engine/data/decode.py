"""One file → one array, whatever the format: an image (H, W) or a volume (D, H, W), with or without channels.

A folder whose name ends in .zarr counts as a file.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from struct import unpack

import imagecodecs
import numpy as np
from PIL import Image

from engine.data import stacks, volumes, zarrs
from engine.data.axes import MOST_CHANNELS as MOST_CHANNELS
from engine.data.axes import arrange
from engine.data.raster import Array
from engine.data.raster import Head as Head
from engine.data.raster import Raster as Raster
from engine.data.raster import Source as Source
from engine.errors import InputError

GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def decode(source: Source) -> Raster:
    """Read the array at ``source``: the first frame of a GIF, the first series of a TIFF.

    Raises:
        InputError: the file is missing, empty, corrupt, of an unknown format, or neither image nor volume.
    """
    path = source.path
    reader = _reader(path)
    try:
        if path.stat().st_size == 0 and path.is_file():
            raise InputError(f"{path} is empty (0 bytes): replace it or take it out of the folder.")
        raster = reader(source)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # on a corrupt file every decoder raises what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as {ending(path).lstrip('.').upper()} ({reason}): "
            "it may be corrupt; replace it or take it out of the folder."
        ) from error
    if raster.pixels.size == 0:
        raise InputError(f"{path} holds an array of shape {raster.pixels.shape}: take it out of the folder.")
    return raster


def probe(source: Source, axes: str | None = None) -> Head:
    """What a file holds, from its header where the format has one.

    Args:
        source: the file.
        axes: ``data.axes``; None for those of ``source``.

    Raises:
        InputError: as :func:`decode`.
    """
    source = source if axes is None else replace(source, axes=axes)
    _reader(source.path)
    read_head = HEADS.get(ending(source.path))
    try:
        return decode(source).head if read_head is None else read_head(source)
    except (InputError, MemoryError):
        raise
    except Exception:
        return decode(source).head  # says what is wrong


def count_channels(source: Source) -> int:
    """Channels that a file stores, as :func:`probe` says."""
    return probe(source).channels


def ending(path: Path | str) -> str:
    """What tells the format, in small letters: ``.tif``, ``.nii.gz``, ``.ome.zarr``; empty without one."""
    name = Path(path).name.lower()
    double = next((each for each in DOUBLE if name.endswith(each)), None)
    return double or Path(name).suffix


def stem(path: Path | str) -> str:
    """The name of a file without all of its :func:`ending`."""
    name = Path(path).name
    return name[: len(name) - len(ending(name))]


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
    reader = READERS.get(ending(path))
    if reader is None:
        raise InputError(f"{path} has an ending that is not read: known are {', '.join(ENDINGS)}.")
    return reader


def _picture(source: Source) -> Raster:
    """PNG, JPEG, GIF, BMP."""
    content = source.path.read_bytes()
    png = _png_head(content)
    if png is not None and png.depth == 16:  # Pillow cuts colour of 16 bits down to 8
        return _without_alpha(imagecodecs.png_decode(content), alpha=png.alpha)
    if png is not None and png.plain:
        # Five times as fast as Pillow with small images. What it does not take, Pillow has a say in.
        with suppress(imagecodecs.PngError):
            pixels = imagecodecs.png_decode(content)
            if pixels.shape == png.shape:
                return Raster(pixels)
    with Image.open(BytesIO(content)) as image:
        if image.mode == "P":
            palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            return Raster(np.array(image), palette)
        if image.mode in ("LA", "RGBA"):
            return _without_alpha(np.asarray(image), alpha=True)
        if image.mode == "PA":
            return _without_alpha(np.asarray(image.convert("RGBA")), alpha=True)
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa"):
            return Raster(np.array(image.convert("RGB")))
        return Raster(np.array(image))  # a copy, as Pillow's own memory is not to be written


@dataclass(frozen=True)
class _Png:
    """What the first bytes of a PNG say."""

    height: int
    width: int
    depth: int
    kind: int
    """0 gray, 2 RGB, 3 palette, 4 and 6 gray and RGB with alpha."""

    @property
    def gray(self) -> bool:
        return self.kind in (0, 4)

    @property
    def alpha(self) -> bool:
        return self.kind in (4, 6)

    @property
    def plain(self) -> bool:
        """Gray or RGB, a byte each."""
        return self.depth == 8 and self.kind in (0, 2)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels of a plain one."""
        return (self.height, self.width) if self.gray else (self.height, self.width, 3)


def _png_head(content: bytes) -> _Png | None:
    """What a file says that begins with these 26 bytes; None where it is no PNG."""
    if len(content) < 26 or not content.startswith(b"\x89PNG\r\n\x1a\n") or content[12:16] != b"IHDR":
        return None
    width, height, depth, kind = unpack(">IIBB", content[16:26])
    return _Png(height, width, depth, kind)


def _picture_head(source: Source) -> Head:
    with source.path.open("rb") as file:
        png = _png_head(file.read(26))
    if png is not None and (png.depth == 16 or png.plain):
        dtype = np.dtype(np.uint16 if png.depth == 16 else np.uint8)
        return Head((png.height, png.width), 1 if png.gray else 3, 2, dtype)
    with Image.open(source.path) as image:
        width, height = image.size
        mode = image.mode
    deep = {"1": bool, "I": np.int32, "F": np.float32}
    dtype = np.dtype(np.uint16 if mode.startswith("I;16") else deep.get(mode, np.uint8))
    return Head((height, width), 1 if mode in GRAY_MODES else 3, 2, dtype)


def _numpy(source: Source) -> Raster:
    return _arranged(np.load(source.path, allow_pickle=False), source)


def _numpy_head(source: Source) -> Head:
    return _arranged(np.load(source.path, mmap_mode="r", allow_pickle=False), source).head


def _arranged(pixels: Array, source: Source) -> Raster:
    order = arrange(pixels.shape, source.path, given=source.axes)
    return Raster(order.of(pixels), dims=order.dims)


def _matlab(source: Source) -> Raster:
    """MATLAB up to 7.2 by scipy; 7.3 is HDF5, where MATLAB's axes come in reverse.

    MATLAB's volumes are stacks along the third axis: y, x, z, channels.
    """
    import h5py

    steps = source.key.split(".") if source.key else []
    read = _hdf5 if h5py.is_hdf5(source.path) else _mat5
    values = read(source.path, steps)
    if values.dtype.kind not in "buif":
        return Raster(values)
    if source.axes is None and arrange(values.shape, source.path).dims == 3:
        source = replace(source, axes="yxzc")
    return _arranged(values, source)


def _mat5(path: Path, steps: list[str]) -> Array:
    import scipy.io

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
    import h5py

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


READERS: dict[str, Callable[[Source], Raster]] = {
    ".png": _picture,
    ".tif": stacks.tiff,
    ".tiff": stacks.tiff,
    ".jpg": _picture,
    ".jpeg": _picture,
    ".gif": _picture,
    ".bmp": _picture,
    ".npy": _numpy,
    ".mat": _matlab,
    **dict.fromkeys(volumes.NIFTI, volumes.nifti),
    **dict.fromkeys(volumes.ITK, volumes.itk),
    ".zarr": zarrs.zarray,
    ".ome.zarr": zarrs.zarray,
}
HEADS: dict[str, Callable[[Source], Head]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp"), _picture_head),
    **dict.fromkeys((".tif", ".tiff"), stacks.tiff_head),
    ".npy": _numpy_head,
    **dict.fromkeys(volumes.NIFTI, volumes.nifti_head),
    **dict.fromkeys(volumes.ITK, volumes.itk_head),
    **dict.fromkeys((".zarr", ".ome.zarr"), zarrs.zarray_head),
}
ENDINGS = tuple(READERS)
DOUBLE = tuple(each for each in ENDINGS if each.count(".") > 1)
FOLDERS = (".zarr", ".ome.zarr")
"""Endings of folders that are one image each."""
