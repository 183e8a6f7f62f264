"""Outputs: the files of an image's prediction, named after it and in its own format."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import volumes
from engine.data.decode import Source, ending, probe
from engine.errors import InputError
from engine.inputs import Input
from engine.metadata import read_metadata, write_png, write_stack, write_tiff

TIFF = (".tif", ".tiff")
MEDICAL = {
    ".nii": ".nii.gz", ".nii.gz": ".nii.gz", ".nrrd": ".nrrd", ".nhdr": ".nrrd",
    ".mha": ".mha", ".mhd": ".mha",
}  # fmt: skip
"""Ending of a medical image → that of its results."""


def endings(file: Path, dims: int) -> tuple[str, str]:
    """What the names of an image's probability map and of its masks end in.

    Args:
        file: the image, or the first of its files.
        dims: 2 for images, 3 for volumes.
    """
    own = ending(file)
    if own in MEDICAL:
        return MEDICAL[own], MEDICAL[own]
    if own in TIFF:
        return ".tif", ".tif"
    return (".tif", ".png") if dims == 2 else (".npy", ".npy")


def plan(
    images: Sequence[Input], dims: int, out: Path, overwrite: bool, own: Sequence[str] = ()
) -> dict[Input, tuple[Path, ...]]:
    """Each image's results: probability map, mask, and masks of the classes that have one of their own.

    Raises:
        InputError: two results of one name, or results that exist.
    """
    jobs: dict[Input, tuple[Path, ...]] = {}
    taken: dict[str, Input] = {}
    for image in images:
        map_ending, mask_ending = endings(image.files[0], dims)
        names = [f"{image.name}_mask{part}{mask_ending}" for part in ("", *parts(own))]
        results = (out / f"{image.name}_probability{map_ending}", *(out / name for name in names))
        if image.name in taken:
            raise InputError(
                f"{taken[image.name].words} and {image.words} would both be written to {results[0].name}: "
                "predict them one after the other, each with its own --out."
            )
        taken[image.name] = image
        jobs[image] = results
        there = next((result for result in results if result.exists()), None)
        if there is not None and not overwrite:
            raise InputError(f"{there} exists already: give another --out, or --overwrite.")
    return jobs


def parts(classes: Sequence[str]) -> list[str]:
    """What the names of the classes' own masks end in: the class, or its number where two look alike."""
    safe = [re.sub(r"[^\w.-]+", "-", name) for name in classes]
    return [f"_{name if safe.count(name) == 1 else number}" for number, name in enumerate(safe, start=1)]


def write_probability(path: Path, p: NDArray[np.float32], like: Source, classes: Sequence[str]) -> None:
    """Write probabilities (C, *S) in the format of the path's ending, with what `like` says of its voxels.

    A class is a page of a TIFF, a channel of its stacks, and a channel behind x, y, z of medical files, which
    have none for a single class; NPY is (C, D, H, W).

    Raises:
        InputError: `like` cannot be read.
    """
    if ending(path) in MEDICAL:
        volumes.write_like(path, p[0] if len(p) == 1 else p, like.path)
        return
    _write(path, p, like, "CYX" if p.ndim == 3 else "CZYX", classes)


def write_mask(path: Path, mask: NDArray[np.uint8], like: Source) -> None:
    """Write a mask (*S) in the format of the path's ending, with what `like` says of its voxels.

    Raises:
        InputError: `like` cannot be read.
    """
    if ending(path) in MEDICAL:
        volumes.write_like(path, mask, like.path)
        return
    _write(path, mask, like, "YX" if mask.ndim == 2 else "ZYX", ())


def _write(path: Path, array: NDArray[Any], like: Source, axes: str, names: Sequence[str]) -> None:
    with replacing(path) as file:
        if ending(path) == ".npy":
            np.save(file, array)
        elif ending(path) == ".png":
            write_png(file, array, read_metadata(like.path))
        elif "Z" in axes:
            metadata = read_metadata(like.path).with_spacing(probe(like).spacing)
            write_stack(file, array, metadata, axes, names)
        else:
            write_tiff(file, array, read_metadata(like.path), axes, names)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds, so that no half-written result is left."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
