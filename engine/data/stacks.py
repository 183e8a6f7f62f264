"""TIFF: images, and stacks of pages, with what ImageJ and OME say of their axes and voxels."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from engine.data.axes import Arrangement, arrange
from engine.data.raster import Array, Head, Raster, Source

MILLIMETRES = {
    "nm": 1e-6, "nanometer": 1e-6, "å": 1e-7, "angstrom": 1e-7,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
    "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "m": 1e3, "meter": 1e3,
    "inch": 25.4, "in": 25.4,
}  # fmt: skip
"""mm in each unit of length, as ImageJ, OME and OME-Zarr write them, in small letters."""


def tiff(source: Source) -> Raster:
    """Read the first series of a TIFF, at full resolution; pages of equal size are a stack.

    Raises:
        InputError: neither an image nor a volume.
    """
    with tifffile.TiffFile(source.path) as file:
        if _is_written_apart(file):
            pixels = np.stack([series.asarray() for series in file.series])
        else:
            pixels = np.asarray(file.series[0].asarray())
        return _raster(pixels, file, source)


def tiff_head(source: Source) -> Head:
    """What the tags of a TIFF say."""
    with tifffile.TiffFile(source.path) as file:
        series = file.series[0]
        shape = (len(file.series), *series.shape) if _is_written_apart(file) else series.shape
        return _raster(np.broadcast_to(np.zeros((), series.dtype), shape), file, source).head


def _is_written_apart(file: tifffile.TiffFile) -> bool:
    """Whether each page is a series of its own, though all are alike: written one by one."""
    first = file.series[0]
    alike = {(series.kind, series.shape, series.dtype, series.axes) for series in file.series}
    return len(file.series) > 1 and len(alike) == 1 and first.kind == "shaped" and first.axes == "YX"


def _raster(pixels: Array, file: tifffile.TiffFile, source: Source) -> Raster:
    series = file.series[0]
    page = series.keyframe
    axes = "I" + series.axes if _is_written_apart(file) else series.axes
    order = arrange(pixels.shape, source.path, axes, source.axes)
    pixels = order.of(pixels)
    spacing = _spacing(file, order)
    indexed = page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None
    if indexed and order.dims == 2:  # a stack's palette is how it was shown last, in ImageJ
        colors = np.asarray(page.colormap).T
        palette = (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8)
        return Raster(pixels, palette, dims=order.dims, spacing=spacing)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
        pixels = ~pixels if pixels.dtype == bool else pixels ^ pixels.dtype.type(2**page.bitspersample - 1)
    alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2) and pixels.ndim > order.dims
    if alpha:
        pixels = pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]
    return Raster(pixels, None, alpha, order.dims, spacing)


def _spacing(file: tifffile.TiffFile, order: Arrangement) -> tuple[float, ...] | None:
    """mm along each axis of S by ImageJ's or OME's metadata; a plain TIFF's dots an inch mean paper."""
    sizes = _imagej(file) if file.is_imagej else _ome(file) if file.is_ome else {}
    known = [sizes[letter] for letter in "zyx"[-order.dims :] if sizes.get(letter, 0.0) > 0]
    return tuple(known) if len(known) == order.dims else None


def _imagej(file: tifffile.TiffFile) -> dict[str, float]:
    metadata: Mapping[str, Any] = file.imagej_metadata or {}
    unit = length_unit(str(metadata.get("unit", "")))
    if unit is None:
        return {}
    tags = file.pages[0].tags  # type: ignore[union-attr]
    sizes = {"z": abs(float(metadata.get("spacing", 0.0))) * unit}  # below 0 from top to bottom
    for letter, name in (("y", "YResolution"), ("x", "XResolution")):
        pixels, units = tags[name].value if name in tags else (0, 1)
        if pixels:
            sizes[letter] = units / pixels * unit
    return sizes


def _ome(file: tifffile.TiffFile) -> dict[str, float]:
    root = ElementTree.fromstring(file.ome_metadata or "<OME/>")
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    sizes: dict[str, float] = {}
    for letter in "XYZ" if pixels is not None else "":
        assert pixels is not None
        unit = length_unit(pixels.get(f"PhysicalSize{letter}Unit", "µm"))
        size = pixels.get(f"PhysicalSize{letter}")
        if size is not None and unit is not None:
            sizes[letter.lower()] = float(size) * unit
    return sizes


def length_unit(name: str) -> float | None:
    """mm in a unit of length, by whatever name microscopes give it; None if it is none."""
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), name)
    return MILLIMETRES.get(plain.strip().lower())
