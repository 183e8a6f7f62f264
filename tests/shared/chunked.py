"""Images and masks stored in chunks, zarr, OME-Zarr and tiled TIFF, for the tests of reading by boxes."""

from pathlib import Path

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

KINDS = (".zarr", ".ome.zarr", ".tif")
"""Endings of formats of which boxes can be read."""


def write_chunked(path: Path, array: NDArray[np.generic], axes: str, chunk: int = 16) -> None:
    """Write an array in chunks of so many pixels a side, in the format of the path's ending.

    Args:
        path: ends in one of KINDS.
        array: of any axes.
        axes: their letters.
        chunk: a multiple of 16.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = zip(axes, array.shape, strict=True)
    chunks = tuple(min(chunk, length) if axis in "zyx" else length for axis, length in sides)
    if path.name.endswith(".ome.zarr"):
        group = zarr.create_group(store=path)
        named = [{"name": axis, "type": "channel" if axis == "c" else "space"} for axis in axes]
        scale = [{"type": "scale", "scale": [1.0] * array.ndim}]
        level = {"path": "0", "coordinateTransformations": scale}
        image = {"axes": named, "datasets": [level]}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
        group.create_array("0", shape=array.shape, chunks=chunks, dtype=array.dtype)[:] = array
    elif path.suffix == ".zarr":
        made = zarr.create_array(
            store=path, shape=array.shape, chunks=chunks, dtype=array.dtype, dimension_names=list(axes)
        )
        made[:] = array
    else:
        color = axes.endswith("c") and array.shape[-1] == 3
        tifffile.imwrite(
            path, array, tile=(chunk, chunk), photometric="rgb" if color else "minisblack",
            metadata={"axes": axes.upper().replace("C", "S")},
        )  # fmt: skip
