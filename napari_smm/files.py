"""Volumes in files, OME-Zarr images and predictions → layers with their scale and units. No Qt.

Voxels keep the order of the file: a layer has the spacing of its file and no rotation, for napari shows
slices along the axes of an array. Where the volume lies in the world goes along in the layer's metadata:
`affine`, index (z, y, x, 1) → mm in RAS+, and `file`. What is saved of it gets both.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import InputError

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Of the files that are read; the manifest has the same."""
MASKS = re.compile(r"(?i)(^|[^a-z])(masks?|labels?|labelstr|labelsts|seg|segmentations?|gt)([^a-z]|$)")
"""Names of files, or of the folders that they are in, that hold labels."""
UNNAMED = "pixel"
"""napari's unit of what has none."""

LayerData = tuple[Any, dict[str, Any], str]


def kind_of(path: Path) -> str:
    """What a path is, as far as shows quickly: "volume", "prediction", "ome-zarr", or "" for others."""
    if path.name.lower().endswith(ENDINGS):
        return "volume" if path.is_file() else ""
    if not path.is_dir():
        return ""
    if (path / "meta.json").is_file() and (path / "probability").is_dir():
        return "prediction"
    return "ome-zarr" if _multiscales(path) else ""


def read(path: Path) -> list[LayerData]:
    """The layers of a path of some kind.

    Raises:
        InputError: it cannot be read, or is none of them.
    """
    readers = {"volume": read_volume, "prediction": read_prediction, "ome-zarr": read_ome_zarr}
    reader = readers.get(kind_of(path))
    if reader is None:
        raise InputError(
            f"{path} is no volume, OME-Zarr image or prediction: files ending in {', '.join(ENDINGS)} are, "
            "and folders with multiscales or a meta.json."
        )
    return reader(path)


def read_volume(path: Path) -> list[LayerData]:
    """A file as an Image layer for each channel, or, if it is a mask by its name, as Labels.

    Raises:
        InputError: it cannot be read.
    """
    # What decodes volumes takes a while to load, and a reader is asked about every path that is opened.
    import numpy as np

    from engine.data.decode import decode, stem
    from engine.data.raster import Source

    raster = decode(Source(path))
    place = spaced(raster.spacing, raster.dims)
    metadata: dict[str, Any] = {"file": str(path)}
    if raster.affine is not None:
        metadata["affine"] = raster.affine
    whole = raster.pixels.dtype.kind in "bui" and raster.channels == 1
    if whole and (MASKS.search(stem(path)) or MASKS.search(path.absolute().parent.name)):
        pixels = raster.pixels.astype(np.uint8) if raster.pixels.dtype.kind == "b" else raster.pixels
        return [(pixels, {"name": stem(path), "metadata": metadata, **place}, "labels")]
    several = raster.pixels.ndim > raster.dims
    channels = np.moveaxis(raster.pixels, -1, 0) if several else [raster.pixels]
    return [
        (pixels, {**appearance(stem(path), at, len(channels)), "metadata": dict(metadata), **place}, "image")
        for at, pixels in enumerate(channels)
    ]


def read_prediction(folder: Path) -> list[LayerData]:
    """What `python -m engine.predict --stream` or the Predict dock left, as layers of each class.

    Raises:
        InputError: it is not whole, or of another version.
    """
    import numpy as np

    from napari_smm.lazy import LazyStack
    from napari_smm.placement import Transform
    from napari_smm.planes import PlaneSource
    from napari_smm.predicted import OneClass, PredictedArrays, layers, open_plane

    plane = open_plane(folder)
    about = json.loads((folder / "meta.json").read_text("utf-8"))
    array, dims = plane.levels[0], int(about.get("dims", 2))
    spacing = about.get("spacing")
    way = Transform.identity(dims) if spacing is None else Transform.spaced(spacing)
    source = PlaneSource(
        image=LazyStack(lambda _: OneClass(array, 0), (), array.shape[1:], np.float32),
        rgb=False,
        name=Path(str(about["image"])).name,
        planes=((),),
        transform=way,
        dims=dims,
    )
    made = layers(PredictedArrays({(): plane}, source, folder), plane.run)
    return [(each.data, dict(each.arguments), "image") for each in made]


def read_ome_zarr(folder: Path) -> list[LayerData]:
    """An OME-Zarr image, all of its resolutions, a layer for each channel; and its labels, if it has any.

    Raises:
        InputError: its metadata are broken.
    """
    import zarr

    try:
        group = zarr.open_group(folder, mode="r")
        name = re.sub(r"(?i)(\.ome)?\.zarr$", "", folder.name)
        found = _scales(group, name, "image")
        for label in _labels(group):
            found += _scales(group[f"labels/{label}"], f"{name} · {label}", "labels")
        return found
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise InputError(
            f"{folder} has multiscales that cannot be read ({type(error).__name__}: {error}): OME-Zarr 0.4 "
            "or 0.5 would work."
        ) from error


def _scales(group: Any, name: str, kind: str) -> list[LayerData]:
    """The layers of the first image of a group."""
    image = _metadata(group.attrs.asdict())["multiscales"][0]
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", ())]
    levels = [group[level["path"]] for level in image["datasets"]]
    axes = axes or [{"name": letter} for letter in "tczyx"[-levels[0].ndim :]]
    scale, translate = _world(image, levels[0].ndim)
    kept = [at for at, axis in enumerate(axes) if axis["name"] != "c"]
    place = {
        "scale": [scale[at] for at in kept],
        "translate": [translate[at] for at in kept],
        "units": [_unit(axes[at].get("unit")) for at in kept],
        "axis_labels": [str(axes[at]["name"]) for at in kept],
    }
    made = []
    channel = next((at for at, axis in enumerate(axes) if axis["name"] == "c"), None)
    count = 1 if channel is None else levels[0].shape[channel]
    for number in range(count):
        shown = levels if channel is None else [_channel(level, channel, number) for level in levels]
        data = shown if len(shown) > 1 else shown[0]
        look = appearance(name, number, count) if kind == "image" else {"name": name}
        made.append((data, {**look, "multiscale": len(shown) > 1, **place}, kind))
    return made


def _channel(level: Any, axis: int, number: int) -> Any:
    """One channel of an array, read no further than it is indexed."""
    import dask.array

    return dask.array.from_zarr(level)[(slice(None),) * axis + (number,)]


def _world(image: Mapping[str, Any], ndim: int) -> tuple[Any, Any]:
    """Scale and translation of the first resolution, in the units of the axes."""
    import numpy as np

    scale, first = np.ones(ndim), np.zeros(ndim)
    steps = (
        *image["datasets"][0].get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    )
    for step in steps:
        if step["type"] == "scale":
            scale, first = scale * step["scale"], first * step["scale"]
        elif step["type"] == "translation":
            first = first + step["translation"]
    return scale.tolist(), first.tolist()


def _labels(group: Any) -> Sequence[str]:
    if "labels" not in group:
        return ()
    return [str(name) for name in _metadata(group["labels"].attrs.asdict()).get("labels", ())]


def _multiscales(folder: Path) -> bool:
    for name in ("zarr.json", ".zattrs"):
        try:
            found = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        attributes = found.get("attributes", {}) if name == "zarr.json" else found
        return bool(_metadata(attributes).get("multiscales"))
    return False


def _metadata(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """OME's part of a group's attributes, of whichever version."""
    found: Mapping[str, Any] = attributes.get("ome", attributes)
    return found


def _unit(name: Any) -> str:
    """A unit that napari knows."""
    import pint

    try:
        return (
            str(
                pint.get_application_registry().Unit(  # type: ignore[no-untyped-call]
                    str(name)
                )
            )
            if name
            else UNNAMED
        )
    except (pint.errors.PintError, ValueError):
        return UNNAMED


def spaced(spacing: Sequence[float] | None, dims: int) -> dict[str, Any]:
    """Scale, units and names of a layer's axes from the mm along each, or None where nothing is known."""
    from napari_smm.placement import MILLIMETRE

    return {
        "scale": spacing or (1.0,) * dims,
        "units": (UNNAMED if spacing is None else MILLIMETRE,) * dims,
        "axis_labels": tuple("zyx"[-dims:]),
    }


def appearance(name: str, channel: int, channels: int) -> dict[str, Any]:
    """Name and look of a channel: of several only the first is visible, for each would cover the others."""
    behind = f" · channel {channel + 1}" if channels > 1 else ""
    return {"name": f"{name}{behind}", "rgb": False, "visible": not channel, "rendering": "attenuated_mip"}
