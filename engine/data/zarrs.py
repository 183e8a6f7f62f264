"""Zarr arrays and OME-Zarr images: opened, not read, so that parts of them can be.

Zarr's formats 2 and 3; OME-Zarr 0.4 and 0.5, of which the first, the highest, resolution is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.axes import arrange
from engine.data.raster import Head, Raster, Source
from engine.data.stacks import length_unit
from engine.errors import InputError

NODES = ("zarr.json", ".zarray", ".zgroup")
"""Files by which a folder is known to be zarr's."""


@dataclass(frozen=True)
class Stored:
    """An array on disk and what is known of its axes."""

    array: Any
    """zarr.Array"""
    axes: str
    """A letter for each axis; empty where nothing names them."""
    sizes: tuple[float | None, ...]
    """mm between neighbours along each axis of the array."""


def zarray(source: Source) -> Raster:
    """Read a zarr array, or an OME-Zarr image at its highest resolution, whole.

    Raises:
        InputError: no image or volume, time, or several images.
    """
    stored = open_zarr(source.path)
    order = arrange(stored.array.shape, source.path, stored.axes, source.axes)
    pixels = order.of(np.asarray(stored.array[...]))
    return Raster(pixels, dims=order.dims, spacing=order.along(stored.sizes))


def zarray_head(source: Source) -> Head:
    """What the metadata of a zarr say."""
    stored = open_zarr(source.path)
    order = arrange(stored.array.shape, source.path, stored.axes, source.axes)
    shape = order.shape(stored.array.shape)
    channels = shape[-1] if len(shape) > order.dims else 1
    return Head(shape[: order.dims], channels, order.dims, stored.array.dtype, order.along(stored.sizes))


def open_zarr(path: Path) -> Stored:
    """The array of a zarr folder, of whichever format, and its axes.

    Raises:
        InputError: not a zarr, or not one image.
    """
    if not path.is_dir() or not any((path / name).is_file() for name in NODES):
        raise InputError(
            f"{path} is not a zarr that can be read: a folder with {' or '.join(NODES)} in it would work."
        )
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception as error:  # of a broken one zarr raises what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as zarr ({reason}): it may be corrupt.") from error
    if isinstance(node, zarr.Array):
        axes = _named_by_array(node)
        return Stored(node, axes, (None,) * node.ndim)
    return _ome(node, path)


def _named_by_array(array: Any) -> str:
    """Letters from a zarr 3 array's dimension names, or xarray's."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    letters = [str(name).lower() for name in names]
    words = {"depth": "z", "height": "y", "width": "x", "channel": "c", "channels": "c", "time": "t"}
    letters = [words.get(name, name) for name in letters]
    known = len(letters) == array.ndim and all(name in tuple("tczyx") for name in letters)
    return "".join(letters) if known else ""


def _ome(group: Any, path: Path) -> Stored:
    """The highest resolution of an OME-Zarr image."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    ome = ome if isinstance(ome, Mapping) else {}
    images = ome.get("multiscales")
    if not images and ome.get("bioformats2raw.layout") is not None:
        series = sorted((name for name, _ in group.groups() if name.isdigit()), key=int)
        if len(series) == 1:  # a converter's box around one image
            return _ome(group[series[0]], path / series[0])
        raise _several(path, len(series))
    if images and len(images) > 1:
        raise _several(path, len(images))
    if "plate" in ome or "well" in ome:
        raise InputError(
            f"{path} is a plate of many images, which is not read: a .zarr folder for each would work."
        )
    if not images:
        inside = ", ".join(sorted(name for name, _ in group.members())[:5]) or "nothing"
        raise InputError(
            f"{path} is a zarr that is not an image, for its group lacks OME-Zarr's multiscales "
            f"(in it: {inside}): an array, or an OME-Zarr image, would work."
        )
    try:
        return _first(group, images[0], path)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} has multiscales that are not OME-Zarr's ({type(error).__name__}: {error}): "
            "version 0.4 or 0.5 would work."
        ) from error


def _first(group: Any, image: Mapping[str, Any], path: Path) -> Stored:
    level = image["datasets"][0]
    array = group[level["path"]]
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", ())]
    letters = "".join(str(axis["name"]).lower() for axis in axes)
    scale = np.ones(array.ndim)
    for transform in (
        *level.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ):
        if transform["type"] == "scale":
            scale = scale * np.asarray(transform["scale"], float)
    units = [length_unit(str(axis.get("unit", ""))) for axis in axes]
    return Stored(array, letters if len(letters) == array.ndim else "", _sizes(scale, units, array.ndim))


def _sizes(scale: Any, units: Sequence[float | None], count: int) -> tuple[float | None, ...]:
    if len(units) != count or len(scale) != count:
        return (None,) * count
    return tuple(
        None if unit is None else float(size) * unit for size, unit in zip(scale, units, strict=True)
    )


def _several(path: Path, count: int) -> InputError:
    return InputError(
        f"{path} holds {count} images, and it is unclear which is meant: a .zarr folder for each would work."
    )
