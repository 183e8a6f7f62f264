"""The planes or volumes of an open image, put where another process can read them.

No Qt, and no napari before a layer.

An image may be larger than memory: no more than a band of its rows is held at once.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.storage import LocalStore

from engine.data.zarrs import open_zarr
from engine.disk import is_disk_full
from engine.errors import InputError
from napari_smm.annotation import Plane
from napari_smm.placement import Transform, spacing_of

BAND_BYTES = 2**24
"""Rows are read so many bytes at a time, or as many as are stored together where those are more."""
CHUNK = (256, 1024)
"""Height and width, in pixels, of what is written in one piece."""
VOLUME_CHUNK = (32, 128, 256)
"""The same of a volume."""
KEPT_METADATA = ("affine", "file")
"""Of a layer that was read from a file with a place in the world, see :mod:`napari_smm.reader`."""

Report = Callable[[int, int], None]
"""Is told how many rows are done, and of how many. What it raises ends the writing."""


@dataclass(frozen=True)
class PlaneSource:
    """An image of which some planes are to be predicted, or volumes, which count as planes here.

    Attributes:
        image: array of numpy, dask, zarr or anything else with shape, dtype and indices: (*leading, *S),
            and 3 or 4 colours behind if rgb; full resolution; whole or floating numbers.
        rgb: whether the last axis is colour.
        name: of the layer.
        planes: indices among the leading axes: all of them, or one.
        transform: of the layer.
        dims: axes of S: 2, or 3 where volumes are predicted.
        metadata: of the layer, as far as results need it.
        files: that hold the image as it is, all channels or one each, where they are known: a process reads
            them itself where S is all of it.
    """

    image: Any
    rgb: bool
    name: str
    planes: tuple[Plane, ...]
    transform: Transform
    dims: int = 2
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Raise InputError for what cannot be predicted, as far as shows without reading it."""
        shape, dtype = tuple(self.image.shape), np.dtype(self.image.dtype)
        if dtype.kind == "b":
            raise InputError(
                f"the image {self.name!r} holds true and false, as a mask does: an image of intensities "
                "would work."
            )
        if dtype.kind not in "uif":
            raise InputError(
                f"the image {self.name!r} holds {dtype} as intensities: real numbers"
                f"{', such as its absolute value,' * (dtype.kind == 'c')} would work."
            )
        if len(shape) - self.rgb < 2 or 0 in shape:
            raise InputError(
                f"the image {self.name!r} has shape {shape}: at least a pixel in height and width is needed."
            )
        if len(shape) - self.rgb < self.dims:
            raise InputError(
                f"the image {self.name!r} is 2D, of shape {shape}, and the run was trained on volumes: a "
                "layer with an axis of depth, or a run that was trained on images, would work."
            )
        if self.rgb and shape[-1] not in (3, 4):
            raise InputError(
                f"the RGB image {self.name!r} has {shape[-1]} colours: 3, or 4 with alpha, would work."
            )
        if not self.rgb and len(shape) > 2 and shape[-1] in (3, 4):
            raise InputError(
                f"the image {self.name!r} has shape {shape}, whose last axis looks like colour but was not "
                "opened as such: opening it with rgb=True, or with its channels first, would work."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(*leading, *S)."""
        return tuple(map(int, self.image.shape[:-1] if self.rgb else self.image.shape))

    @property
    def leading(self) -> tuple[int, ...]:
        """Lengths of the axes in front of S."""
        return self.shape[: -self.dims]

    @property
    def spatial(self) -> tuple[int, ...]:
        """S."""
        return self.shape[-self.dims :]

    @property
    def part(self) -> str:
        """What is predicted at a time: a plane, or a volume."""
        return "plane" if self.dims == 2 else "volume"

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between pixels along each axis of S, by the layer's transform; None without lengths as units."""
        return spacing_of(self.transform, self.dims)

    @property
    def channels(self) -> int:
        """Channels without alpha: 3 for RGB, else 1."""
        return 3 if self.rgb else 1

    @property
    def alpha(self) -> bool:
        """Whether there is an alpha channel, which is left out."""
        return self.rgb and int(self.image.shape[-1]) == 4


def plane_source(layer: Any, plane: Plane | None = None, dims: int = 2) -> PlaneSource:
    """What of an Image layer is to be predicted.

    Args:
        layer: napari's Image layer, of any number of axes, perhaps multiscale.
        plane: index of the one plane among the leading axes; all planes if None.
        dims: 2 for planes, 3 for volumes.

    Raises:
        InputError: no Image layer, one of fewer axes, or one whose values or shape cannot be predicted.
    """
    from napari.layers import Image

    if layer is None:
        raise InputError("no image is chosen: open one as an Image layer, and choose it.")
    if not isinstance(layer, Image):
        raise InputError(
            f"the {type(layer).__name__} layer {layer.name!r} is no image: an Image layer would work."
        )
    image = layer.data[0] if layer.multiscale else layer.data
    rgb = bool(layer.rgb)
    leading = tuple(map(int, image.shape[: -dims - rgb]))
    return PlaneSource(
        image=image,
        rgb=rgb,
        name=str(layer.name),
        planes=tuple(np.ndindex(*leading)) if plane is None else (plane,),
        transform=Transform.of_layer(layer),
        dims=dims,
        metadata={name: layer.metadata[name] for name in KEPT_METADATA if name in layer.metadata},
    )


def plane_in_view(layer: Any, viewer: Any, spatial: int = 2) -> Plane:
    """Index, among a layer's leading axes, of the plane that a viewer shows.

    Args:
        layer: of any number of axes.
        viewer: that shows it.
        spatial: 2 for planes, 3 for volumes, of which it may show a slice along any axis.

    Raises:
        InputError: the viewer shows other axes than the last two, or no plane of the layer.
    """
    leading = layer.ndim - spatial
    if leading <= 0:
        return ()
    dims = viewer.dims
    if spatial == 2 and tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
        raise InputError(
            f"the viewer shows no plane of {layer.name!r} along its last two axes: the 2D view with the axes "
            "in their own order, or all planes, would work."
        )
    factors = _unit_factors(viewer.layers.extent.units, layer.units)
    point = np.asarray(dims.point[-layer.ndim :]) * factors
    index = np.rint(np.asarray(layer.world_to_data(point))[:leading]).astype(int)
    lengths = layer.data[0].shape if layer.multiscale else layer.data.shape
    if any(not 0 <= at < length for at, length in zip(index, lengths, strict=False)):
        raise InputError(
            f"the viewer's sliders stand outside of {layer.name!r}: moving them onto it, or all planes, "
            "would work."
        )
    return tuple(map(int, index))


def stored_plane(source: PlaneSource) -> Path | None:
    """The folder of the zarr array that is the image already, or its files: nothing has to be written then.

    Of a volume the folder has to name the axes, and to say as much of spacing as the layer does. Several
    files, one a channel, stand with commas between them, as on the command line.
    """
    if source.files and not source.leading:
        return Path(",".join(map(str, source.files)))
    array = source.image
    if not isinstance(array, zarr.Array) or not isinstance(array.store, LocalStore):
        return None
    if source.leading or source.alpha:
        return None
    path = (Path(array.store.root) / array.path).absolute()
    return path if source.dims == 2 else _stored_volume(source, path)


def _stored_volume(source: PlaneSource, path: Path) -> Path | None:
    """The OME-Zarr image whose highest resolution the array in a folder is, or else that array."""
    for folder in (path.parent, path):
        try:
            stored = open_zarr(folder)
        except InputError:
            continue
        sizes = stored.sizes[: source.dims]
        known = None if None in sizes else tuple(map(float, sizes))  # type: ignore[arg-type]
        same = (known is None) == (source.spacing is None) and np.allclose(known or 0, source.spacing or 0)
        ours = (Path(stored.array.store.root) / stored.array.path).absolute() == path
        if ours and same and stored.axes == "zyxc"[: source.image.ndim]:
            return folder
    return None


def write_plane(source: PlaneSource, plane: Plane, folder: Path, report: Report) -> None:
    """Write a plane as a zarr array (H, W) or (H, W, 3), or a volume as an OME-Zarr image, band by band.

    Whole numbers stay what they are, floating ones become float32. Alpha is left out.

    Args:
        source: the image.
        plane: index among its leading axes.
        folder: of the new array.
        report: is called before the first band and after each.

    Raises:
        InputError: the image cannot be read, or the disk is full.
    """
    height, *rest = source.spatial
    shape = (*source.spatial, 3) if source.rgb else source.spatial
    dtype = _stored_type(source.image.dtype)
    longest = CHUNK if source.dims == 2 else VOLUME_CHUNK
    chunks = (*map(min, longest, source.spatial), 3)[: len(shape)]
    if source.dims == 3:
        zarr.create_group(folder, zarr_format=3, attributes={"ome": _ome(source)})
    # It is read once and thrown away: packing it would take longer than writing it.
    array = zarr.create_array(
        store=folder if source.dims == 2 else folder / "0",
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        compressors=None,
    )
    report(0, height)
    row = math.prod(rest) * source.channels * dtype.itemsize
    for first, last in row_bands(height, row, _together(source, plane)):
        band = _read(source, plane, first, last)
        try:
            with np.errstate(over="ignore"):  # what becomes infinite is refused by the engine
                array[first:last] = band.astype(dtype, copy=False)
        except OSError as error:
            reason = "the disk is full" if is_disk_full(error) else (error.strerror or str(error))
            raise InputError(
                f"the image {source.name!r} cannot be written to {folder.parent} ({reason}): "
                "with more room there it would work."
            ) from error
        report(last, height)


def _ome(source: PlaneSource) -> dict[str, Any]:
    """What OME-Zarr 0.5 says of a volume: which axis is which, and mm, so that no length is guessed at."""
    spacing = source.spacing
    unit = {} if spacing is None else {"unit": "millimeter"}
    axes: list[dict[str, str]] = [{"name": letter, "type": "space", **unit} for letter in "zyx"]
    scale = [*(spacing or (1.0, 1.0, 1.0))]
    if source.rgb:
        axes.append({"name": "c", "type": "channel"})
        scale.append(1.0)
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}


def row_bands(height: int, row_bytes: int, together: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First rows and ends of bands that cover an image, none of them within rows that are stored together.

    Args:
        height: number of rows.
        row_bytes: bytes of a row.
        together: numbers of rows stored together, from the top; repeated where they are too few.
    """
    first = last = 0
    for rows in itertools.cycle(together):
        last = min(last + rows, height)
        if last == height or (last - first) * row_bytes >= BAND_BYTES:
            yield first, last
            first = last
        if last == height:
            return


def _together(source: PlaneSource, plane: Plane) -> tuple[int, ...]:
    """Numbers of rows that the image's array keeps in one piece."""
    array, axis = source.image, len(plane)
    pieces = getattr(array, "shards", None) or getattr(array, "chunks", None)
    if not isinstance(pieces, tuple) or len(pieces) != len(array.shape):
        return (CHUNK[0],)
    rows = pieces[axis]
    return tuple(map(int, rows)) if isinstance(rows, tuple) else (int(rows),)


def _stored_type(dtype: DTypeLike) -> np.dtype[Any]:
    given = np.dtype(dtype)
    return np.dtype(np.float32) if given.kind == "f" else given.newbyteorder("=")


def _read(source: PlaneSource, plane: Plane, first: int, last: int) -> NDArray[Any]:
    try:
        band = np.asarray(source.image[(*plane, slice(first, last))])
    except Exception as error:
        # What computes a lazy image may raise anything; all of it means that the image cannot be had.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the image {source.name!r} cannot be read in rows {first} to {last - 1} ({reason}): "
            "what the layer is computed from is needed."
        ) from error
    return band[..., :3] if source.rgb else band


def _unit_factors(world: Sequence[Any] | None, units: Sequence[Any]) -> NDArray[np.float64]:
    """How many of a layer's units one of the viewer's is, for each axis; 1 where napari does not convert."""
    if world is None:
        return np.ones(len(units))
    pairs = zip(world[-len(units) :], units, strict=True)
    return np.array(
        [
            float((1 * theirs).to(ours).magnitude) if theirs.dimensionality == ours.dimensionality else 1.0
            for theirs, ours in pairs
        ]
    )
