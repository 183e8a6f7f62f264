"""Resolution and calibration of image files, carried from an image to its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.errors import InputError

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""GeoTIFF: where the image lies on the ground."""
INCH, CENTIMETRE = 2, 3
"""TIFF's numbers for units of resolution."""


@dataclass(frozen=True)
class Metadata:
    """What a file says about its pixels beyond their values.

    Attributes:
        resolution: pixels per unit along x and y, or None.
        unit: of the resolution, 1 none, 2 inch, 3 centimetre.
        imagej: ImageJ's calibration (unit, spacing), if the file is ImageJ's.
        tags: TIFF tags (code, type, count, value) that say where the image lies.
    """

    resolution: tuple[float, float] | None = None
    unit: int = 1
    imagej: dict[str, Any] = field(default_factory=dict)
    tags: tuple[tuple[int, int, int, Any], ...] = ()

    def with_spacing(self, spacing: Sequence[float] | None) -> "Metadata":
        """The same with the voxels of a stack, (z, y, x) in mm, in ImageJ's words, if it has none."""
        if self.imagej or spacing is None or len(spacing) != 3:
            return self
        z, y, x = (1000 * each for each in spacing)
        return replace(self, resolution=(1 / x, 1 / y), unit=1, imagej={"unit": "micron", "spacing": z})


def read_metadata(path: Path) -> Metadata:
    """What a TIFF, or a file that Pillow reads, says; nothing for other formats."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path)
    try:
        with Image.open(path) as image:
            dpi = image.info.get("dpi")
    except (UnidentifiedImageError, OSError):
        # NPY and MATLAB files carry no metadata.
        return Metadata()
    if not dpi or not all(dpi):
        return Metadata()
    return Metadata((float(dpi[0]), float(dpi[1])), INCH)


def _read_tiff(path: Path) -> Metadata:
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            along = [page.tags[name].value for name in ("XResolution", "YResolution") if name in page.tags]
            unit = page.tags.get("ResolutionUnit")
            imagej = file.imagej_metadata or {}
            tags = tuple(
                (tag.code, int(tag.dtype), tag.count, tag.value) for tag in page.tags if tag.code in GEO_TAGS
            )
    except tifffile.TiffFileError as error:
        raise InputError(f"{path} cannot be read as TIFF ({error}).") from None
    resolution = None
    if len(along) == 2 and all(count and per for count, per in along):
        (x, x_per), (y, y_per) = along
        resolution = (x / x_per, y / y_per)
    kept: dict[str, Any] = {key: imagej[key] for key in ("unit", "spacing") if key in imagej}
    return Metadata(resolution, int(unit.value) if unit is not None else 1, kept, tags)


def write_tiff(
    path: Path, array: NDArray[Any], metadata: Metadata, axes: str = "YX", names: Sequence[str] = ()
) -> None:
    """Write (C, H, W) or (H, W), without loss, with the metadata."""
    content: dict[str, Any] = {"axes": axes, **metadata.imagej}
    if names:
        content["Labels"] = list(names)
    # ImageJ reads its calibration from its own kind of TIFF only, which is not compressed.
    imagej = bool(metadata.imagej)
    tifffile.imwrite(
        path, array, imagej=imagej, compression=None if imagej else "zlib", photometric="minisblack",
        resolution=metadata.resolution, resolutionunit=metadata.unit if metadata.resolution else None,
        metadata=content,
        extratags=[(code, kind, count, value, True) for code, kind, count, value in metadata.tags],
    )  # fmt: skip


def write_stack(
    path: Path, array: NDArray[Any], metadata: Metadata, axes: str = "ZYX", names: Sequence[str] = ()
) -> None:
    """Write (C, D, H, W), axes "CZYX", or (D, H, W), "ZYX", without loss, with the metadata.

    Each slice is a page; of several classes a slice's classes come one after the other, as ImageJ has it.
    """
    if axes == "CZYX":
        array, names = np.moveaxis(array, 0, 1), [name for _ in range(array.shape[1]) for name in names]
        array, axes = (array[:, 0], "ZYX") if array.shape[1] == 1 else (array, "ZCYX")
    write_tiff(path, array, metadata, axes, names)


def write_png(path: Path, array: NDArray[np.uint8], metadata: Metadata) -> None:
    """Write uint8 (H, W) with the resolution, if there is one."""
    options: dict[str, Any] = {}
    if metadata.resolution is not None and metadata.unit in (INCH, CENTIMETRE):
        scale = 1.0 if metadata.unit == INCH else 2.54
        options["dpi"] = (metadata.resolution[0] * scale, metadata.resolution[1] * scale)
    Image.fromarray(array).save(path, format="PNG", **options)
