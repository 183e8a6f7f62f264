"""Masks of thresholded probabilities: their outline, one label a pixel, and the files they are saved as."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.disk import is_disk_full, replacing
from engine.errors import InputError

ENDINGS = (".png", ".tif", ".tiff", ".nii.gz", ".nii", ".nrrd", ".mha")
"""Of the files that a mask can be written to."""
MOST_CLASSES = 255
"""A label has 8 bits."""
BAND = 2**20
"""Pixels whose outline is found at once: they stay in the processor's cache."""

PLACED = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Of those, files that say where a volume lies."""

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Report = Callable[[int, int], None]
"""Is told how many masks are done, and of how many. What it raises ends the saving."""


@dataclass(frozen=True)
class Space:
    """Where a mask lies in the world.

    Attributes:
        spacing: mm along each axis; None where nothing is known.
        affine: float64 (4, 4), index (z, y, x, 1) → mm in RAS+; None where nothing is known.
        file: of the same shape, whose header says it; None without one.
    """

    spacing: tuple[float, ...] | None = None
    affine: NDArray[np.float64] | None = None
    file: Path | None = None


NOWHERE = Space()


def outline(mask: NDArray[np.bool_]) -> Labels:
    """The border of a mask, one pixel wide and inside it; of a volume that of each slice.

    Args:
        mask: bool (*S).

    Returns:
        uint8 (*S), 1 where a pixel of the mask has a neighbour above, below, left or right that is
        not in it. Where the image ends is no border.
    """
    out = np.empty(mask.shape, np.uint8)
    if mask.ndim > 2:
        for at, part in enumerate(mask):
            out[at] = outline(part)
        return out
    height, width = mask.shape
    rows = max(1, BAND // max(width, 1))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        inner = mask[first:last].copy()
        above, below = max(first, 1), min(last, height - 1)
        inner[above - first :] &= mask[above - 1 : last - 1]
        inner[: below - first] &= mask[first + 1 : below + 1]
        inner[:, 1:] &= mask[first:last, :-1]
        inner[:, :-1] &= mask[first:last, 1:]
        np.logical_xor(mask[first:last], inner, out=out[first:last].view(np.bool_))
    return out


def label_map(p: NDArray[Any], thresholds: Sequence[float]) -> Labels:
    """One label a pixel: the class of largest p among those with p >= T, as :func:`engine.head.labels`.

    Args:
        p: probabilities, floating, (C, *S).
        thresholds: T of each class; compared in p's own type, as the engine does.

    Returns:
        uint8 (*S): 0 where no class passes, else 1…C; the earlier class where several are equal.

    Raises:
        InputError: another number of thresholds than classes, or more than 255 classes.
    """
    if len(thresholds) != len(p):
        raise InputError(
            f"{len(thresholds)} thresholds are given for {len(p)} classes: one for each would work."
        )
    _require_classes(len(p))
    label = np.zeros(p.shape[1:], np.uint8)
    if len(p) == 1:
        return np.asarray(p[0] >= p.dtype.type(thresholds[0])).astype(np.uint8)
    best = np.full(p.shape[1:], -1, p.dtype)
    for cls, (values, threshold) in enumerate(zip(p, thresholds, strict=True)):
        wins = (values >= p.dtype.type(threshold)) & (values > best)
        np.copyto(best, values, where=wins)
        label[wins] = cls + 1
    return label


def write_mask(
    path: Path, labels: Labels | Mask, classes: int, *, overwrite: bool = False, space: Space = NOWHERE
) -> None:
    """Write a mask of 8 bits, without loss. It is there whole or not at all.

    Args:
        path: ends in one of :data:`ENDINGS`; not .png for a volume.
        labels: uint8 (*S), 0…C; or bool (*S), the mask of one of the classes.
        classes: C. A mask of one class is 0 and 255, but 0 and 1 in files of volumes that say where they lie,
            whose readers take it for a label; of several 0…C.
        overwrite: replace a file that is there.
        space: where it lies. TIFF keeps the spacing, PNG nothing.

    Raises:
        InputError: another ending, labels that are none, a file that is there, or a folder or disk that
            nothing can be written to.
    """
    ending = _ending(path)
    _require_ending(ending)
    one = labels.dtype == np.bool_
    found: NDArray[Any] = labels.view(np.uint8) if one else labels
    _require_labels(path.name, found, classes)
    if not overwrite:
        _require_free(path)
    if found.ndim > 2 and ending == ".png":
        raise InputError(
            f"the mask {path.name!r} is a volume of shape {found.shape}, which PNG cannot hold: .nii.gz or "
            ".tif would work."
        )
    pixels: Labels = found
    if one or classes == 1:
        pixels = (found > 0).astype(np.uint8) * np.uint8(1 if ending in PLACED else 255)
    try:
        if ending in PLACED:
            _write_placed(path, pixels, space)
            return
        with replacing(path) as file:
            if ending == ".png":
                _write_png(file, pixels)
            else:
                _write_tiff(file, pixels, space)
    except OSError as error:
        raise _unwritable(path, error) from error


def save_masks(
    folder: Path,
    named: Iterable[tuple[str, Labels | Callable[[], Labels | Mask]]],
    classes: int,
    *,
    ending: str = ".png",
    overwrite: bool = False,
    progress: Report | None = None,
    spaces: Mapping[str, Space] | None = None,
) -> list[Path]:
    """Write several masks into a folder, which is made if it is not there.

    All names are looked at before the first mask is written.

    Args:
        folder: for the masks.
        named: name without ending, and the labels, as in :func:`write_mask`, or what computes them: so not
            all masks of a stack need be in memory.
        classes: C, as in :func:`write_mask`.
        ending: one of :data:`ENDINGS`.
        overwrite: replace files that are there.
        progress: is called after each mask.
        spaces: where masks lie, by their names.

    Returns:
        The files, in the order of the names.

    Raises:
        InputError: names that are none, are given twice or are taken, or as :func:`write_mask`.
    """
    _require_ending(ending)
    _require_classes(classes)
    masks = list(named)
    paths = [folder / f"{name}{ending}" for name, _ in masks]
    _require_names([name for name, _ in masks])
    if not overwrite:
        for path in paths:
            _require_free(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    for number, (path, (name, labels)) in enumerate(zip(paths, masks, strict=True)):
        found, space = labels() if callable(labels) else labels, (spaces or {}).get(name, NOWHERE)
        write_mask(path, found, classes, overwrite=overwrite, space=space)
        if progress is not None:
            progress(number + 1, len(masks))
    return paths


def _write_png(file: Any, pixels: Labels) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(file, format="PNG")


def _write_tiff(file: Any, pixels: Labels, space: Space) -> None:
    import tifffile

    axes = "ZYX"[-pixels.ndim :]
    about: dict[str, Any] = {"axes": axes}
    for axis, step in zip(axes, space.spacing or (), strict=False):
        about |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "mm"}
    # OME's metadata only where there is a spacing or a volume: other readers know plain TIFF best.
    ome = pixels.ndim > 2 or space.spacing is not None
    tifffile.imwrite(file, pixels, photometric="minisblack", compression="zlib", metadata=about, ome=ome)


def _write_placed(path: Path, pixels: Labels, space: Space) -> None:
    from engine.data import volumes
    from engine.data.decode import probe
    from engine.data.raster import Head, Source

    if space.file is not None and space.file.exists() and probe(Source(space.file)).shape == pixels.shape:
        volumes.write_like(path, pixels, space.file)
    else:
        head = Head(pixels.shape, 1, pixels.ndim, pixels.dtype, space.spacing, space.affine)
        volumes.write_placed(path, pixels, head)


def _ending(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _require_ending(ending: str) -> None:
    if ending.lower() not in ENDINGS:
        raise InputError(
            f"a mask cannot be written to a file that ends in {ending!r}: {', '.join(ENDINGS)} would work."
        )


def _require_classes(classes: int) -> None:
    if not 1 <= classes <= MOST_CLASSES:
        raise InputError(f"a mask cannot hold {classes} classes: 1 to {MOST_CLASSES} would work.")


def _require_labels(name: str, labels: NDArray[Any], classes: int) -> None:
    _require_classes(classes)
    if labels.dtype != np.uint8 or labels.ndim not in (2, 3) or not labels.size:
        raise InputError(
            f"the mask {name!r} is {labels.dtype} of shape {labels.shape}: uint8 (height, width), "
            "with depth in front of a volume, would work."
        )
    if labels.max() > classes:
        raise InputError(
            f"the mask {name!r} holds the label {labels.max()}: 0 to {classes}, the number of classes, "
            "would work."
        )


def _require_names(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name.strip() or name.startswith(".") or any(sign in name for sign in "/\\\0"):
            raise InputError(
                f"{name!r} cannot be the name of a mask: one without slashes, and without a dot in front, "
                "would work."
            )
        # To some file systems, names that differ in case alone are one.
        if name.casefold() in seen:
            raise InputError(f"two masks have the name {name!r}: a name for each would work.")
        seen.add(name.casefold())


def _require_free(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} exists already: another name or folder, or overwriting it, would work.")


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = "the disk is full" if is_disk_full(error) else (error.strerror or str(error))
    return InputError(f"{path} cannot be written ({reason}): another folder may work.")
