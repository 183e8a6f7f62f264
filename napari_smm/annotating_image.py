"""An image of an annotated folder → what its layers show: pixels of any format, and its labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import annotated
from engine.data.annotated import UNLABELLED, Entry
from engine.data.classes import is_gray
from engine.data.decode import decode, probe, stem
from engine.data.raster import Raster, Source
from engine.data.read import picture
from engine.errors import InputError
from napari_smm import files
from napari_smm.annotating import Folder, read_labels
from napari_smm.annotating_masks import read_beside
from napari_smm.files import LayerData

Labels = NDArray[np.uint8]
MARK = "napari-smm-annotation"
"""Key in the metadata of the layers: their folder and image."""
SEEN = 1 << 18
"""Values of a channel from which its contrast is taken, about."""
BRIGHTEST = 99.8
"""Percentile of a channel that is shown white."""


@dataclass(frozen=True)
class OpenedImage:
    """An image, ready to be shown.

    Attributes:
        image: as its folder names it.
        layers: of napari's kind "image": one of colour, or one a channel.
        labels: uint8 (*S), saved before, read from masks that lie beside the image, or all unlabelled.
        place: scale, units, axis_labels and metadata of the Labels layer.
        imported: the labels come from masks beside the image and are not saved yet.
        note: why such masks could not be used, in a sentence; or empty.
    """

    image: str
    layers: tuple[LayerData, ...]
    labels: Labels
    place: Mapping[str, Any]
    imported: bool = False
    note: str = ""


def open_image(folder: Folder, entry: Entry, held: Labels | None = None) -> OpenedImage:
    """Read an image and its labels.

    Args:
        folder: that it is in.
        entry: of the image.
        held: its labels, where they are in memory.

    Raises:
        InputError: it or its mask cannot be read, or they differ in size.
    """
    sources = [Source(folder.root / name) for name in entry.files]
    rasters = [decode(source) for source in sources]
    first = rasters[0]
    for raster, source in zip(rasters, sources, strict=True):
        if raster.shape != first.shape:
            raise InputError(
                f"{source.path} has shape {raster.shape} but {sources[0].path} has {first.shape}: channels "
                "of equal size would work."
            )
    place = files.spaced(first.spacing, first.dims)
    metadata: dict[str, Any] = {MARK: {"root": str(folder.root), "image": entry.image}}
    metadata["file"] = str(sources[0].path)
    if first.affine is not None:
        metadata["affine"] = first.affine
    place["metadata"] = metadata
    channels = [
        each for raster, source in zip(rasters, sources, strict=True) for each in _seen(raster, source)
    ]
    layers = tuple(_layer(entry, each, at, len(channels), place) for at, each in enumerate(channels))
    labels, imported, note = (held, False, "") if held is not None else _labels(folder, entry, first.shape)
    return OpenedImage(entry.image, layers, labels, place, imported, note)


def _labels(folder: Folder, entry: Entry, shape: tuple[int, ...]) -> tuple[Labels, bool, str]:
    """Saved labels; or else those of masks beside the image, whether it is these, and why it is not."""
    masks = folder.listing.masks.get(entry.files[0], ())
    if entry.mask or not masks or entry.status != "untouched":
        return read_labels(folder.root, entry), False, ""
    try:
        found = read_beside(
            [Source(folder.root / name) for name in entry.files], masks, folder.meaning, folder.classes
        )
        if found.shape != shape:
            raise InputError(
                f"the mask {masks[0].path} has shape {found.shape} but its image has {shape}: a mask of the "
                "image's size would work."
            )
        return found, True, ""
    except InputError as error:
        return np.full(shape, UNLABELLED, np.uint8), False, f"The mask beside it was not taken: {error}"


def masks_left(folder: Folder, entries: Iterable[Entry]) -> list[Entry]:
    """Of some images those that have a mask beside them, and were not touched yet."""
    return [
        entry
        for entry in entries
        if not entry.mask and entry.status == "untouched" and folder.listing.masks.get(entry.files[0])
    ]


def import_all(
    folder: Folder,
    entries: Sequence[Entry],
    name: str = "",
    ended: Callable[[], bool] = lambda: False,
) -> tuple[list[Entry], list[str]]:
    """Save the masks beside images as their labels: done, imported.

    Args:
        folder: of the images.
        entries: of images that have a mask beside them.
        name: of who asked for it.
        ended: says whether to stop.

    Returns:
        The new rows; and a sentence for each image whose mask could not be taken.

    Raises:
        InputError: the folder cannot be written.
    """
    if not annotated.read_set(folder.root).classes:
        annotated.write_classes(folder.root, folder.classes)
    made, refused = [], []
    for entry in entries:
        if ended():
            break
        if annotated.read_entry(folder.root, entry.image).mask:
            continue  # painted meanwhile
        shape = probe(Source(folder.root / entry.files[0])).shape
        labels, imported, note = _labels(folder, entry, shape)
        if imported:
            row: dict[str, Any] = {"status": "done", "origin": "imported", "annotator": name}
            made.append(annotated.save(folder.root, entry.image, labels, **row))
        else:
            refused.append(f"{entry.image}: {note}")
    return made, refused


def _seen(raster: Raster, source: Source) -> list[NDArray[Any]]:
    """What a file shows: (H, W, 3) in colour, or (*S) for each channel."""
    pixels = picture(raster, str(source.path))
    if pixels.shape[-1] == 3 and is_gray(pixels):
        pixels = pixels[..., :1]
    if raster.dims == 2 and pixels.shape[-1] == 3:
        return [_eight_bits(pixels)]
    return [np.ascontiguousarray(pixels[..., at]) for at in range(pixels.shape[-1])]


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours as napari shows them; of 16 bits and fractions the brightest is white."""
    if pixels.dtype == np.uint8:
        return pixels
    brightest = max(float(pixels.max()), np.finfo(np.float32).tiny)
    return np.asarray((np.clip(pixels / brightest, 0, 1) * 255).astype(np.uint8))


def _layer(entry: Entry, pixels: NDArray[Any], at: int, count: int, place: Mapping[str, Any]) -> LayerData:
    name = stem(Path(entry.files[0]))
    rgb = pixels.dtype == np.uint8 and pixels.ndim == len(place["scale"]) + 1
    look: dict[str, Any] = {**files.appearance(name, at, count), **place, "metadata": dict(place["metadata"])}
    if rgb:
        return pixels, {**look, "rgb": True}, "image"
    return pixels, {**look, "contrast_limits": contrast(pixels)}, "image"


def contrast(pixels: NDArray[Any]) -> tuple[float, float]:
    """Darkest and brightest that a channel is shown with: few bright pixels do not darken all others."""
    flat = pixels.reshape(-1)
    part = flat[:: max(1, flat.size // SEEN)]
    low, high = float(part.min()), float(np.percentile(part, BRIGHTEST))
    high = high if high > low else float(flat.max())
    return (low, high) if high > low else (low, low + 1.0)
