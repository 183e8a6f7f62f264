"""An image layer and its labels → a data set's folder: `images/NAME.tif` and `masks/NAME.tif`.

Every leading axis of a stack (time, depth, position) becomes a row of 2D planes, or, of volumes, all but
the last of them a row of volumes, as NIfTI with their spacing. They are read and
written one by one, so a stack may be larger than memory. No napari is imported before a layer is given.
"""

import itertools
import math
import re
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.disk import is_disk_full
from engine.errors import InputError
from napari_smm.placement import Placement, Transform, is_deep, spacing_of, write_placement

Plane = tuple[int, ...]
Unlabelled = Literal["leave out", "background"]
Meaning = Literal["classes", "one class"]

QUICK_PIXELS = 4096**2
"""Labels in memory up to this size are looked through (5 ms) as soon as the layers are chosen."""
LONGEST_NAME = 60
"""Letters of a layer's name that file names keep."""


class Cancelled(Exception):  # noqa: N818 (no error)
    """The writing was cancelled; nothing of it is left."""


@dataclass(frozen=True)
class Pair:
    """An image and its labels as arrays of numpy, dask, zarr or anything else with shape, dtype and indices.

    Attributes:
        image: (*leading, *S), and 3 or 4 colours behind if rgb; full resolution; any real dtype.
        labels: (*leading, *S); whole numbers, 0 is not labelled.
        rgb: whether the image's last axis is colour.
        image_name, labels_name: of the layers.
        transform: of the image layer.
        dims: axes of S: 2, or 3 where volumes are trained on, which count as planes here.
        affine: float64 (4, 4), index (z, y, x, 1) → mm in RAS+, of a volume; None where it is not known.
    """

    image: Any
    labels: Any
    rgb: bool
    image_name: str
    labels_name: str
    transform: Transform
    dims: int = 2
    affine: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Raise InputError for arrays that cannot be trained on, as far as shows without reading them."""
        _require_image(self)
        _require_labels(self)
        _require_same_shape(self)

    @classmethod
    def of_layers(cls, image_layer: Any, labels_layer: Any, dims: int = 2) -> "Pair":
        """A napari Image layer and the Labels layer that was painted on it.

        Args:
            image_layer, labels_layer: the layers.
            dims: 2 to train on planes, 3 on volumes.

        Raises:
            InputError: other layers, shapes or values, labels that lie elsewhere than the image, or
                (where that is quick to see) without any labelled pixel.
        """
        from napari.layers import Image, Labels

        _require_layer(image_layer, Image, "an Image layer, to train on,")
        _require_layer(labels_layer, Labels, "a Labels layer, painted on the image,")
        pair = cls(
            image=_full_resolution(image_layer),
            labels=_full_resolution(labels_layer),
            rgb=bool(image_layer.rgb),
            image_name=str(image_layer.name),
            labels_name=str(labels_layer.name),
            transform=Transform.of_layer(image_layer),
            dims=dims,
            affine=_affine(image_layer, dims),
        )
        _require_same_place(pair, image_layer, labels_layer)
        quick = isinstance(pair.labels, np.ndarray) and pair.labels.size <= QUICK_PIXELS
        if quick and not pair.labels.any():
            raise _nothing_labelled(pair)
        return pair

    @property
    def shape(self) -> tuple[int, ...]:
        """(*leading, *S)."""
        return tuple(map(int, self.image.shape[:-1] if self.rgb else self.image.shape))

    @property
    def planes(self) -> list[Plane]:
        """Indices of the planes or volumes among the leading axes; one empty index for a single one."""
        return list(np.ndindex(*self.shape[: -self.dims]))

    def name(self, plane: Plane) -> str:
        """File name, without its ending, of a plane: the layer's name made safe, and the padded index."""
        widths = [len(str(length - 1)) for length in self.shape[: -self.dims]]
        numbers = [f"{index:0{width}d}" for index, width in zip(plane, widths, strict=True)]
        return "_".join([safe_name(self.image_name), *numbers])


@dataclass(frozen=True)
class Written:
    """A data set that was written.

    Attributes:
        folder: for `data.root`.
        used: number of planes in it.
        left_out: number of planes without any label, which are not in it.
        classes: table for `data.classes`; None where the masks' values say it themselves.
    """

    folder: Path
    used: int
    left_out: int
    classes: dict[str, list[int | str]] | None


def write_dataset(
    pair: Pair,
    folder: Path,
    *,
    unlabelled: Unlabelled = "leave out",
    meaning: Meaning = "classes",
    class_names: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Written:
    """Write a pair's planes as a data set that the engine reads, with `placement.json`.

    All is written beside `folder` first and renamed at the end: the folder is there whole or not at all.

    Args:
        pair: image and labels.
        folder: does not exist yet, or is empty.
        unlabelled: what planes without any label are: left out, or nothing but background.
        meaning: labels 1…K are K classes, or every label above 0 is (an object of) one class.
        class_names: of labels 1, 2 …; with one class, its one name.
        progress: is called with the number of planes done and of all.
        cancelled: is asked before each plane.

    Raises:
        InputError: values that cannot be trained on, no labels, a folder that is used or cannot be written.
        Cancelled: `cancelled` said so.
    """
    if meaning == "one class" and len(class_names) > 1:
        raise InputError(
            f"{len(class_names)} class names are given where all labels mean one class: one would work."
        )
    _require_names(class_names)
    seen: set[int] = set()
    used: dict[str, Placement] = {}
    planes = pair.planes
    with _appearing(folder) as unfinished:
        for done, plane in enumerate(planes):
            if cancelled is not None and cancelled():
                raise Cancelled
            mask = _mask(pair, plane, meaning)
            found = [int(value) for value in _unique(mask)]
            if any(found) or unlabelled == "background":
                seen.update(found)
                _require_classes(pair, seen, class_names)
                write = _write if pair.dims == 2 else partial(_write_volume, pair)
                write(unfinished, pair.name(plane), _picture(pair, plane), mask)
                used[pair.name(plane)] = Placement(
                    pair.image_name, plane, tuple(map(int, pair.image.shape)), pair.transform
                )
            if progress is not None:
                progress(done + 1, len(planes))
        if not any(seen):
            raise _nothing_labelled(pair)
        write_placement(unfinished, used)
    return Written(folder, len(used), len(planes) - len(used), _table(seen, class_names))


def safe_name(name: str) -> str:
    """A layer's name as a file name that every system takes, in plain letters; "image" if none are left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    safe = re.sub(r"[^A-Za-z0-9+-]+", "_", plain).strip("_")[:LONGEST_NAME].rstrip("_") or "image"
    # Windows keeps the names of its devices to itself.
    return f"{safe}_" if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", safe) else safe


def volumes_likely(layer: Any) -> bool:
    """Whether an Image layer is rather a volume, or several, than a stack of planes."""
    return layer is not None and layer.ndim > 2 and (is_deep(layer) or "affine" in layer.metadata)


def _affine(layer: Any, dims: int) -> NDArray[np.float64] | None:
    """Where a volume lies in the world, if its file said so."""
    known = dims == layer.ndim == 3 and "affine" in layer.metadata
    return np.asarray(layer.metadata["affine"], np.float64) if known else None


def _full_resolution(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _require_layer(layer: Any, kind: type, wanted: str) -> None:
    if layer is None:
        raise InputError(f"no layer is chosen where {wanted} is needed.")
    if not isinstance(layer, kind):
        given = f"the {type(layer).__name__} layer {layer.name!r}" if hasattr(layer, "name") else repr(layer)
        hint = ""
        if kind.__name__ == "Labels" and type(layer).__name__ == "Image":
            hint = " (a mask that was opened as an image becomes one by its menu's Convert to Labels)"
        raise InputError(f"{given} is chosen where {wanted} is needed{hint}.")


def _require_image(pair: Pair) -> None:
    shape, kind = tuple(pair.image.shape), np.dtype(pair.image.dtype).kind
    spatial = len(shape) - pair.rgb
    if kind not in "buif":
        raise InputError(
            f"the image {pair.image_name!r} holds {pair.image.dtype} as intensities: "
            f"real numbers{', such as its absolute value,' * (kind == 'c')} would work."
        )
    if spatial < pair.dims == 3:
        raise InputError(
            f"the image {pair.image_name!r} is 2D, of shape {shape}: volumes need an axis of depth, and "
            "slices would work."
        )
    if spatial < 2:
        raise InputError(
            f"the image {pair.image_name!r} has shape {shape}: at least height and width are needed."
        )
    if pair.rgb and shape[-1] not in (3, 4):
        raise InputError(f"the RGB image {pair.image_name!r} has {shape[-1]} colours: 3 or 4 would work.")
    if not pair.rgb and len(shape) > 2 and shape[-1] in (3, 4):
        raise InputError(
            f"the image {pair.image_name!r} has shape {shape}, whose last axis looks like colour but was not "
            "opened as such: opening it with rgb=True, or with its channels first, would work."
        )
    if math.prod(shape) == 0:
        raise InputError(f"the image {pair.image_name!r} has shape {shape}: there is no pixel in it.")


def _require_labels(pair: Pair) -> None:
    dtype = np.dtype(pair.labels.dtype)
    if dtype.kind not in "bui":
        raise InputError(f"the labels {pair.labels_name!r} hold {dtype}: whole numbers would work.")


def _require_same_shape(pair: Pair) -> None:
    shape, found = pair.shape, tuple(map(int, pair.labels.shape))
    if found == shape:
        return
    given = (
        f"the labels {pair.labels_name!r} have shape {found} but the image {pair.image_name!r} has "
        f"{shape}{' and colours' * pair.rgb}"
    )
    order = _order(found, shape)
    if order is not None:
        raise InputError(
            f"{given}, which are the same axes in another order: labels.data.transpose{order} would work."
        )
    hint = f"labels of shape {shape} would work"
    if len(found) < len(shape) and shape[-len(found) :] == found:
        hint += ", or one image of the stack as a layer of its own"
    raise InputError(f"{given}: {hint}.")


def _order(given: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The transpose that makes one shape the other, the first if there are several; None if none does."""
    if sorted(given) != sorted(wanted) or len(given) > 8:
        return None
    orders = itertools.permutations(range(len(given)))
    return next(order for order in orders if tuple(given[axis] for axis in order) == wanted)


def _require_same_place(pair: Pair, image_layer: Any, labels_layer: Any) -> None:
    """Raise InputError if labels are seen on other pixels of the image than those that they number."""
    factors = [
        _in_units(theirs, ours) for theirs, ours in zip(labels_layer.units, image_layer.units, strict=True)
    ]
    corners = np.array(list(itertools.product(*((0, length - 1) for length in pair.shape))), dtype=np.float64)
    points = np.c_[corners, np.ones(len(corners))].T
    image, labels = pair.transform.matrix, Transform.of_layer(labels_layer).matrix
    labels = np.diag([*factors, 1.0]) @ labels
    apart = np.linalg.norm(((labels - image) @ points)[:-1], axis=0).max()
    if apart > 0.5 * np.linalg.norm(image[:-1, :-1], axis=0).min():
        raise InputError(
            f"the labels {pair.labels_name!r} do not lie on the image {pair.image_name!r} (they differ in "
            "scale, translate, rotate, shear, affine or units): give both layers the same, for "
            "each pixel of the image is trained with the label of the same index."
        )


def _in_units(unit: Any, other: Any) -> float:
    """How many of another unit one unit is; 1 for units of different kinds, which napari does not convert."""
    same_kind = unit.dimensionality == other.dimensionality
    return float((1 * unit).to(other).magnitude) if same_kind else 1.0


def _nothing_labelled(pair: Pair) -> InputError:
    return InputError(
        f"the labels {pair.labels_name!r} are empty: paint what is to be found, on one plane at least."
    )


def _require_names(names: Sequence[str]) -> None:
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice or not all(name.strip() for name in names):
        wrong = f"{twice[0]!r} is given twice" if twice else "an empty one is given"
        raise InputError(f"class names have to differ, and {wrong}: a name for each label would work.")


def _require_classes(pair: Pair, seen: set[int], names: Sequence[str]) -> None:
    from engine.data.classes import MOST_CLASSES

    count, highest = len(seen - {0}), max(seen, default=0)
    if count > MOST_CLASSES:
        raise InputError(
            f"the labels {pair.labels_name!r} hold more than {MOST_CLASSES} values, which rather number "
            'objects than classes: with the meaning "one class" they would work.'
        )
    if names and highest > len(names):
        raise InputError(
            f"the labels {pair.labels_name!r} hold {highest} but {len(names)} "
            f"class name{' is' if len(names) == 1 else 's are'} given: a name for each label would work."
        )


def _table(seen: set[int], names: Sequence[str]) -> dict[str, list[int | str]] | None:
    """`data.classes` for the labels that occur; None if the engine tells them from the masks alone."""
    from engine.data.classes import MOST_INFERRED

    values = sorted(seen - {0})
    if names:
        return {names[value - 1]: [value] for value in values}
    if len(values) == 1:
        return None
    if values == list(range(1, len(values) + 1)) and len(values) <= MOST_INFERRED and 0 in seen:
        return None
    return {f"class_{value}": [value] for value in values}


def _mask(pair: Pair, plane: Plane, meaning: Meaning) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A plane's labels as they are stored, (H, W)."""
    found = _read(pair.labels, plane, f"the labels {pair.labels_name!r}")
    if meaning == "one class":
        return (found > 0).astype(np.uint8)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise InputError(
            f"the labels {pair.labels_name!r} hold {low if low < 0 else high}{_of(plane)}: "
            '0 to 65535, or the meaning "one class", would work.'
        )
    return found.astype(np.uint8) if high <= np.iinfo(np.uint8).max else found.astype(np.uint16)


def _picture(pair: Pair, plane: Plane) -> NDArray[Any]:
    """A plane's pixels (H, W) or (H, W, 3); alpha is dropped."""
    pixels = _read(pair.image, plane, f"the image {pair.image_name!r}")
    pixels = pixels[..., :3] if pair.rgb else pixels
    if pixels.dtype.kind == "f":
        if pixels.dtype.itemsize > 8:
            pixels = pixels.astype(np.float64)
        with np.errstate(over="ignore"):
            wrong = int((~np.isfinite(pixels.astype(np.float32))).sum())
        if wrong:
            raise InputError(
                f"the image {pair.image_name!r} holds {wrong} values{_of(plane)} that are NaN, infinite or "
                "beyond 32-bit numbers: finite ones are needed."
            )
    return pixels


def _read(array: Any, plane: Plane, what: str) -> NDArray[Any]:
    """A copy of a plane, since the user may go on painting in it."""
    try:
        return np.array(array[plane])
    except OSError as error:
        raise InputError(
            f"{what} cannot be read{_of(plane)} ({error.strerror or error}): "
            "the file behind the layer is needed."
        ) from error


def _of(plane: Plane) -> str:
    if not plane:
        return ""
    return f" in plane {plane[0] if len(plane) == 1 else plane}"


def _unique(mask: NDArray[Any]) -> NDArray[Any]:
    return np.flatnonzero(np.bincount(mask.ravel()))


def _write(folder: Path, name: str, picture: NDArray[Any], mask: NDArray[Any]) -> None:
    import tifffile

    color: dict[str, Any] = {"photometric": "minisblack"}
    if picture.ndim == 3:
        color = {"photometric": "rgb", "planarconfig": "contig"}
    tifffile.imwrite(folder / "images" / f"{name}.tif", picture, metadata=None, **color)
    tifffile.imwrite(
        folder / "masks" / f"{name}.tif", mask, photometric="minisblack", metadata=None, compression="zlib"
    )


def _write_volume(pair: Pair, folder: Path, name: str, picture: NDArray[Any], mask: NDArray[Any]) -> None:
    """Write a volume (D, H, W) or (D, H, W, 3), and its mask, where the layer's units and file say."""
    from engine.data import volumes
    from engine.data.raster import Head

    spacing = spacing_of(pair.transform, 3)
    for part, pixels in (("images", _storable(picture)), ("masks", mask)):
        channels = pixels if pixels.ndim == 3 else np.moveaxis(pixels, -1, 0)
        count = 1 if pixels.ndim == 3 else pixels.shape[-1]
        head = Head(mask.shape, count, 3, pixels.dtype, spacing, pair.affine)
        volumes.write_placed(folder / part / f"{name}.nii", channels, head)


def _storable(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels of a kind that NIfTI has and other programs read."""
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8)
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    if pixels.dtype.itemsize < 8:
        return pixels
    fits = pixels.min() >= np.iinfo(np.int32).min and pixels.max() <= np.iinfo(np.int32).max
    return pixels.astype(np.int32 if fits else np.float32)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that takes its place when the block ends well, and is gone if not.

    Raises:
        InputError: `folder` is used, or nothing can be written there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"the folder {folder} is used already: one that does not exist would work.")
    # A name of its own for each try, as two may go on at once.
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        for name in ("images", "masks"):
            (unfinished / name).mkdir(parents=True)
        yield unfinished
        if folder.is_dir():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else (error.strerror or str(error))
        raise InputError(
            f"the images cannot be written to {folder} ({reason}): another folder may work."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
