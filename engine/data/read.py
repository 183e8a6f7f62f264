"""Cases → arrays: an image, its labels and its field of view, checked together.

Colour: ``auto`` gives three channels if any image has colour, in which case gray images
are repeated, and one channel if none has, even if files store gray as RGB. Other numbers
of channels stay as they are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.data.classes import Classes, codes, from_table, infer, is_gray, survey, to_labels
from engine.data.decode import Raster, Source, count_channels, decode
from engine.data.layouts import Case, Found
from engine.data.specs import Data
from engine.errors import InputError

THREADS = 4
"""Decoding waits for the disk and releases the interpreter, so a few threads help on any machine."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Red, green, blue, ITU-R BT.601."""

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Loaded:
    """The arrays of one case, of the same height and width."""

    image: NDArray[Any]
    """(H, W, channels) uint8, uint16 or float32, finite"""
    labels: NDArray[np.uint8]
    """(H, W): 0 background, 1 … C, 255 ignored"""
    valid: NDArray[np.bool_] | None
    """(H, W): the field of view"""
    notes: tuple[str, ...]
    """What was done to the image; the same words for each image to which it was done."""


def read_image(case: Case, channels: int | None = None) -> NDArray[Any]:
    """The image as the file stores it, or with 1 or 3 ``channels`` instead.

    uint8, uint16 and float32 stay; truth values become 0 and 255, all else float32.
    A palette is expanded, an alpha channel dropped.

    Returns:
        (H, W, channels) uint8, uint16 or float32

    Raises:
        InputError: unreadable, not finite, or a number of channels that cannot become ``channels``.
    """
    return _read_image(case, channels)[0]


def read_labels(case: Case, classes: Classes) -> NDArray[np.uint8]:
    """The masks as class indices; several masks are merged, a later class over an earlier one.

    Returns:
        (H, W): 0 background, 1 … C, 255 ignored

    Raises:
        InputError: unreadable, sizes that differ, or a value that no class names.
    """
    merged: NDArray[np.uint8] | None = None
    for source in case.masks:
        labels = to_labels(decode(source), classes, str(source.path))
        if merged is not None:
            _require_size(labels, merged, f"the mask {source.path}", f"the mask {case.masks[0].path}")
        merged = labels if merged is None else np.maximum(merged, labels)
    if merged is None:
        raise InputError(f"the image {case.images[0].path} has no mask: a labelled one is needed here.")
    return merged


def read_valid(case: Case) -> NDArray[np.bool_] | None:
    """The field of view: where its file is not 0 (black); None without one.

    Returns:
        (H, W)

    Raises:
        InputError: unreadable, or nothing is inside.
    """
    if case.valid is None:
        return None
    inside = np.asarray(codes(decode(case.valid), True, str(case.valid.path)) != 0)
    if not inside.any():
        raise InputError(f"the field of view {case.valid.path} is black all over: white inside is needed.")
    return inside


def load_case(case: Case, classes: Classes, channels: int | None = None) -> Loaded:
    """Read a case and check that its arrays fit together.

    Raises:
        InputError: as the functions above, or sizes that differ.
    """
    image, notes = _read_image(case, channels)
    labels = read_labels(case, classes)
    valid = read_valid(case)
    _require_size(labels, image, f"the mask {case.masks[0].path}", f"the image {case.images[0].path}")
    if valid is not None and case.valid is not None:
        field = f"the field of view {case.valid.path}"
        _require_size(valid, image, field, f"the image {case.images[0].path}")
    return Loaded(image, labels, valid, notes)


def load_cases(
    found: Found,
    indices: Iterable[int],
    classes: Classes,
    channels: int | None = None,
    *,
    may_be_empty: bool = False,
) -> Iterator[Loaded]:
    """Load cases in the order of ``indices``, decoding ahead in a few threads.

    Raises:
        InputError: as :func:`load_case`; and, at the end, if no mask holds any class,
            unless they ``may_be_empty``.
    """
    cases = [found.cases[index] for index in indices]
    empty = True
    for loaded in _ahead(partial(load_case, classes=classes, channels=channels), cases):
        empty = empty and not ((loaded.labels > 0) & (loaded.labels < 255)).any()
        yield loaded
    if cases and empty and not may_be_empty:
        raise InputError(
            f"every mask of {found.root} is empty ({len(cases)} masks, the first {cases[0].masks[0].path}): "
            f"masks that show {' or '.join(classes.names)} are needed."
        )


def resolve_classes(found: Found, data: Data) -> Classes:
    """The classes: from ``data.classes``, else from the layout, else from the values in all masks.

    What the layout says of unnamed values holds for its own table, unless ``data.rest`` says otherwise.

    Raises:
        InputError: a table that cannot be, or values that could mean anything.
    """
    if data.classes is not None:
        return from_table(data.classes, data.rest)
    if found.classes is not None:
        return from_table(found.classes, found.rest if found.rest and data.rest == "refuse" else data.rest)
    return infer(_ahead(_survey, [source for case in found.cases for source in case.masks]))


def _survey(source: Source) -> tuple[str, list[int] | None, list[int]]:
    return (str(source.path), *survey(decode(source), str(source.path)))


def resolve_channels(found: Found, color: str) -> int:
    """Channels that all images shall have: what ``data.color`` (auto, gray, rgb) means for these images.

    ``auto`` looks at headers; at pixels only while all images may yet turn out to be gray stored as RGB.

    Raises:
        InputError: numbers of channels that cannot be made equal.
    """
    if color in ("gray", "rgb"):
        return 1 if color == "gray" else 3
    counts = [sum(map(count_channels, case.images)) for case in found.cases]
    if not set(counts) <= {1, 3}:
        if len(set(counts)) == 1:
            return counts[0]
        odd = next(case for case, count in zip(found.cases, counts, strict=True) if count != counts[0])
        raise InputError(
            f"the images have {', '.join(map(str, sorted(set(counts))))} channels "
            f"({found.cases[0].images[0].path} and {odd.images[0].path} differ): "
            "the same number in all, or only 1 and 3, would work."
        )
    rgb = [case for case, count in zip(found.cases, counts, strict=True) if count == 3]
    if any(len(case.images) > 1 for case in rgb):  # three files are three channels, whatever they show
        return 3
    order = sorted(range(len(rgb)), key=lambda index: f"{index:b}"[::-1])  # neighbours tend to look alike
    return 3 if any(_ahead(_shows_color, [rgb[index] for index in order])) else 1


def _shows_color(case: Case) -> bool:
    return not is_gray(read_image(case))


def _read_image(case: Case, channels: int | None) -> tuple[NDArray[Any], tuple[str, ...]]:
    rasters = [decode(source) for source in case.images]
    planes = [picture(raster, str(source.path)) for raster, source in zip(rasters, case.images, strict=True)]
    for plane, source in zip(planes, case.images, strict=True):
        _require_size(plane, planes[0], f"the channel {source.path}", f"the channel {case.images[0].path}")
    same = len({plane.dtype for plane in planes}) == 1
    image = np.concatenate(planes if same else [plane.astype(np.float32) for plane in planes], axis=2)
    notes = ("an alpha channel was dropped",) if any(raster.alpha for raster in rasters) else ()
    return with_channels(image, channels, str(case.images[0].path)), notes


def picture(raster: Raster, file: str) -> NDArray[Any]:
    """What a file holds as an image, as :func:`read_image` says: (H, W, channels).

    Raises:
        InputError: not real, or not finite.
    """
    pixels = raster.pixels if raster.palette is None else raster.palette[raster.pixels]
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype.kind not in "buif":
        raise InputError(f"{file} holds {pixels.dtype} as intensities: real numbers would work.")
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise InputError(f"{file} holds {count} pixels that are NaN or infinite: finite ones are needed.")
    return pixels


def with_channels(
    image: NDArray[Any], channels: int | None, file: str, gray: bool | None = None
) -> NDArray[Any]:
    """An image with 1 or 3 channels in place of 3 or 1.

    Args:
        image: (H, W, channels) as :func:`picture` gives it, or some of its rows.
        channels: how many it shall have; None for those that it has.
        file: its name, for errors.
        gray: whether all channels of the whole image are equal, where only rows of it are given.

    Raises:
        InputError: a number of channels that cannot become this one.
    """
    count = image.shape[2]
    if channels is None or channels == count:
        return image
    if channels == 3 and count == 1:
        return np.repeat(image, 3, axis=2)
    if channels == 1 and count == 3:
        if is_gray(image) if gray is None else gray:
            return image[..., :1]
        light = image @ np.array(LUMINANCE, np.float32)
        return np.asarray(light if image.dtype == np.float32 else np.rint(light)).astype(image.dtype)[
            ..., None
        ]
    raise InputError(
        f"{file} has {count} channels where {channels} are needed: data.color = auto, "
        "or images of 1 or 3 channels, would work."
    )


def _require_size(array: NDArray[Any], other: NDArray[Any], what: str, than: str) -> None:
    if array.shape[:2] != other.shape[:2]:
        (height, width), (high, wide) = array.shape[:2], other.shape[:2]
        raise InputError(
            f"{what} is {height} × {width} px (height × width) but {than} is {high} × {wide} px: "
            "equal sizes are needed."
        )


def _ahead(function: Callable[[Given], Result], given: Sequence[Given]) -> Iterator[Result]:
    """``map`` in order, a few results ahead in threads; what is not needed any more is not begun."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for each in given:
                waiting.append(pool.submit(function, each))
                if len(waiting) > 2 * THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
