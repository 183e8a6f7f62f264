"""Cases → arrays: an image, its labels and its field of view, checked together.

Colour: ``auto`` gives three channels if any image has colour, in which case gray images
are repeated, and one channel if none has, even if files store gray as RGB. Other numbers
of channels stay as they are, and so do all of volumes, of which files store what was measured.

S is (H, W) of an image, (D, H, W) of a volume.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.data.boxes import boxes
from engine.data.classes import Classes, from_table, infer, inside, is_gray, survey, to_labels
from engine.data.decode import Head, Raster, Source, decode, probe
from engine.data.layouts import Case, Found
from engine.data.specs import Data
from engine.data.stored import open_stored
from engine.errors import InputError

THREADS = 4
"""Decoding waits for the disk and releases the interpreter, so a few threads help on any machine."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Red, green, blue, ITU-R BT.601."""

ALPHA = "an alpha channel was dropped"
MOST_VALUES = 1 << 22
"""Values of a file that are looked at at once, where it need not be read whole."""
TOGETHER, SMALL = 32, 1 << 19
"""Images that one thread decodes in one go, at the most, and bytes that they take together."""
AT_ONCE = 1 << 29
"""Bytes that decoding ahead may take, where one case does not take more."""
DECODING = 3
"""Times its own size that a compressed volume takes while it is decoded, about."""
SIZES = {2: ("px", "height × width"), 3: ("voxels", "depth × height × width")}

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Loaded:
    """The arrays of one case, of the same S."""

    image: NDArray[Any]
    """(*S, channels) uint8, uint16 or float32, finite"""
    labels: NDArray[np.uint8]
    """(*S): 0 background, 1 … C, 255 ignored"""
    valid: NDArray[np.bool_] | None
    """(*S): the field of view"""
    notes: tuple[str, ...]
    """What was done to the image; the same words for each image to which it was done."""
    spacing: tuple[float, ...] | None = None
    """mm along each axis of S, as the image's file says; None where it does not."""


def read_image(case: Case, channels: int | None = None) -> NDArray[Any]:
    """The image as the file stores it, or with 1 or 3 ``channels`` instead.

    uint8, uint16 and float32 stay; truth values become 0 and 255, all else float32.
    A palette is expanded, an alpha channel dropped.

    Returns:
        (*S, channels) uint8, uint16 or float32

    Raises:
        InputError: unreadable, not finite, channels that differ in size or place, or a number of them
            that cannot become ``channels``.
    """
    return _read_image(case, channels)[0]


def read_spaced(case: Case, channels: int | None = None) -> tuple[NDArray[Any], tuple[float, ...] | None]:
    """As :func:`read_image`, and the mm along each axis of S, or None where the file says nothing."""
    image, grid, _ = _read_image(case, channels)
    return image, grid.spacing


def read_labels(case: Case, classes: Classes) -> NDArray[np.uint8]:
    """The masks as class indices; several masks are merged, a later class over an earlier one.

    Returns:
        (*S): 0 background, 1 … C, 255 ignored

    Raises:
        InputError: unreadable, sizes that differ, or a value that no class names.
    """
    return _read_labels(case, classes)[0]


def read_valid(case: Case) -> NDArray[np.bool_] | None:
    """The field of view: where its file is not 0 (black); None without one.

    Returns:
        (*S)

    Raises:
        InputError: unreadable, or nothing is inside.
    """
    return None if case.valid is None else _read_valid(case.valid)[0]


def load_case(case: Case, classes: Classes, channels: int | None = None) -> Loaded:
    """Read a case and check that its arrays fit together.

    Raises:
        InputError: as the functions above, or sizes or places that differ.
    """
    image, grid, notes = _read_image(case, channels)
    labels, own = _read_labels(case, classes)
    _require_fit(own, grid)
    valid = None
    if case.valid is not None:
        valid, field = _read_valid(case.valid)
        _require_fit(field, grid)
    return Loaded(image, labels, valid, notes, grid.spacing)


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
    ahead = _lookahead([(*case.images, *case.masks) for case in cases[:1]])
    for loaded in _ahead(partial(load_case, classes=classes, channels=channels), cases, *ahead):
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
    sources = [source for case in found.cases for source in case.masks]
    return infer(_ahead(_survey, sources, *_lookahead([sources[:1]])))


def _survey(source: Source) -> tuple[str, list[int] | None, list[int]]:
    """The name and the :func:`survey` of a mask, which is read by boxes where it can be."""
    values: set[int] | None = set()
    colors: set[int] = set()
    for part in _parts(source):
        own, own_colors = survey(part, str(source.path))
        values = None if values is None or own is None else values.union(own)
        colors.update(own_colors)
    return str(source.path), None if values is None else sorted(values), sorted(colors)


def _parts(source: Source) -> Iterator[Raster]:
    """What a file holds: in boxes, so that it need not fit in memory, where it is stored in chunks."""
    stored = open_stored(source.path, source.axes)
    if stored is None:
        yield decode(source)
        return
    for box in boxes(stored.shape[:-1], stored.chunks, MOST_VALUES // stored.shape[-1]):
        yield stored.raster(box)


def probe_cases(found: Found) -> tuple[Head, ...]:
    """The head of each case's image, with the channels of all its files.

    Raises:
        InputError: an unreadable file.
    """
    return tuple(_ahead(_probe_case, found.cases, together=TOGETHER))


def _probe_case(case: Case) -> Head:
    heads = [probe(source) for source in case.images]
    return replace(heads[0], channels=sum(head.channels for head in heads))


def resolve_dims(found: Found, heads: Sequence[Head]) -> int:
    """2 if all cases are images, 3 if all are volumes; ``heads`` as :func:`probe_cases` gives them.

    Raises:
        InputError: there are both.
    """
    first = {head.dims: case for case, head in reversed(list(zip(found.cases, heads, strict=True)))}
    if len(first) > 1:
        image, volume = first[2].images[0].path, first[3].images[0].path
        count = sum(head.dims == 3 for head in heads)
        raise InputError(
            f"{found.root} holds images and volumes ({len(heads) - count} and {count}, such as {image} and "
            f"{volume}): one kind only would work, and data.axes says what files without names of axes are."
        )
    return next(iter(first), 2)


def resolve_channels(found: Found, color: str, heads: Sequence[Head] | None = None) -> int:
    """Channels that all images shall have: what ``data.color`` (auto, gray, rgb) means for these images.

    ``auto`` looks at headers; at pixels only while all images may yet turn out to be gray stored as RGB.
    Volumes keep the channels that they have.

    Raises:
        InputError: numbers of channels that cannot be made equal.
    """
    if color in ("gray", "rgb"):
        return 1 if color == "gray" else 3
    heads = probe_cases(found) if heads is None else heads
    counts = [head.channels for head in heads]
    volumes = any(head.dims == 3 for head in heads)
    if volumes or not set(counts) <= {1, 3}:
        if len(set(counts)) == 1:
            return counts[0]
        odd = next(case for case, count in zip(found.cases, counts, strict=True) if count != counts[0])
        raise InputError(
            f"the images have {', '.join(map(str, sorted(set(counts))))} channels "
            f"({found.cases[0].images[0].path} and {odd.images[0].path} differ): "
            f"the same number in all{'' if volumes else ', or only 1 and 3,'} would work."
        )
    rgb = [case for case, count in zip(found.cases, counts, strict=True) if count == 3]
    if any(len(case.images) > 1 for case in rgb):  # three files are three channels, whatever they show
        return 3
    order = sorted(range(len(rgb)), key=lambda index: f"{index:b}"[::-1])  # neighbours tend to look alike
    ahead = _lookahead([case.images for case in rgb[:1]])
    return 3 if any(_ahead(_shows_color, [rgb[index] for index in order], *ahead)) else 1


def _shows_color(case: Case) -> bool:
    return not all(is_gray(picture(part, str(case.images[0].path))) for part in _parts(case.images[0]))


@dataclass(frozen=True)
class _Grid:
    """Where the pixels of a file are."""

    what: str
    """The file, in words."""
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    affine: NDArray[np.float64] | None


def _grid(raster: Raster | Head, source: Source, noun: str) -> _Grid:
    return _Grid(f"the {noun} {source.path}", raster.shape, raster.spacing, raster.affine)


def _read_image(case: Case, channels: int | None) -> tuple[NDArray[Any], _Grid, tuple[str, ...]]:
    noun = "image" if len(case.images) == 1 else "channel"
    planes: list[NDArray[Any]] = []
    grids: list[_Grid] = []
    alpha = False
    for source in case.images:
        raster = decode(source)
        alpha |= raster.alpha
        grids.append(_grid(raster, source, noun))
        _require_fit(grids[-1], grids[0])
        planes.append(picture(raster, str(source.path)))
    same = len({plane.dtype for plane in planes}) == 1
    if len(planes) > 1:
        planes = [np.concatenate(planes if same else [plane.astype(np.float32) for plane in planes], axis=-1)]
    notes = (ALPHA,) if alpha else ()
    grid = replace(grids[0], what=f"the image {case.images[0].path}")
    return with_channels(planes[0], channels, str(case.images[0].path)), grid, notes


def _read_labels(case: Case, classes: Classes) -> tuple[NDArray[np.uint8], _Grid]:
    merged: tuple[NDArray[np.uint8], _Grid] | None = None
    for source in case.masks:
        raster = decode(source)
        grid = _grid(raster, source, "mask")
        labels = to_labels(raster, classes, str(source.path))
        if merged is not None:
            _require_fit(grid, merged[1])
            labels = np.maximum(labels, merged[0])
        merged = labels, merged[1] if merged else grid
    if merged is None:
        raise _no_mask(case)
    return merged


def _read_valid(source: Source) -> tuple[NDArray[np.bool_], _Grid]:
    raster = decode(source)
    field = inside(raster, str(source.path))
    if not field.any():
        raise InputError(f"the field of view {source.path} is black all over: white inside is needed.")
    return field, _grid(raster, source, "field of view")


def picture(raster: Raster, file: str) -> NDArray[Any]:
    """What a file holds as an image, as :func:`read_image` says: (*S, channels).

    Raises:
        InputError: not real, or not finite.
    """
    pixels = raster.pixels if raster.palette is None else raster.palette[raster.pixels]
    pixels = pixels[..., None] if pixels.ndim == raster.dims else pixels
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
        unit = "pixels" if raster.dims == 2 else "voxels"
        raise InputError(f"{file} holds {count} {unit} that are NaN or infinite: finite ones are needed.")
    return pixels


def with_channels(
    image: NDArray[Any], channels: int | None, file: str, gray: bool | None = None
) -> NDArray[Any]:
    """An image with 1 or 3 channels in place of 3 or 1.

    Args:
        image: (*S, channels) as :func:`picture` gives it, or some of its rows.
        channels: how many it shall have; None for those that it has.
        file: its name, for errors.
        gray: whether all channels of the whole image are equal, where only rows of it are given.

    Raises:
        InputError: a number of channels that cannot become this one.
    """
    count = image.shape[-1]
    if channels is None or channels == count:
        return image
    if channels == 3 and count == 1:
        return np.repeat(image, 3, axis=-1)
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


def require_fit(case: Case) -> None:
    """Refuse masks and a field of view that differ from the image in size or place, by headers alone.

    Raises:
        InputError: they differ, are unreadable, or there is no mask.
    """
    sources = [(source, "image" if len(case.images) == 1 else "channel") for source in case.images]
    sources += [(source, "mask") for source in case.masks]
    sources += [(case.valid, "field of view")] if case.valid is not None else []
    first, *others = (_grid(probe(source), source, noun) for source, noun in sources)
    for other in others:
        _require_fit(other, first)
    if not case.masks:
        raise _no_mask(case)


def _no_mask(case: Case) -> InputError:
    return InputError(f"the image {case.images[0].path} has no mask: a labelled one is needed here.")


def _require_fit(grid: _Grid, other: _Grid) -> None:
    """Refuse sizes that differ, and places in the world that do, where both files name theirs."""
    if grid.shape != other.shape:
        size, than = (
            f"{' × '.join(map(str, each.shape))} {SIZES[len(each.shape)][0]}" for each in (grid, other)
        )
        raise InputError(
            f"{grid.what} is {size} ({SIZES[len(grid.shape)][1]}) but {other.what} is {than}: "
            "equal sizes are needed."
        )
    if grid.affine is None or other.affine is None:
        return
    apart, voxel = _apart(grid.affine, other.affine, grid.shape)
    if apart > voxel / 2:
        raise InputError(
            f"{grid.what} lies up to {apart:.3g} mm away from {other.what} by their affines, more than half "
            f"a voxel of {voxel:.3g} mm: files on the same grid are needed."
        )


def _apart(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[float, float]:
    """mm between the corners of two grids of the same shape at most, and the shortest side of a voxel.

    Between the corners, places differ less: both maps are affine.
    """
    whole = (1,) * (3 - len(shape)) + shape
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)]) * [*(n - 1 for n in whole), 1]
    distances = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1)
    sides = np.linalg.norm(one[:3, 3 - len(shape) : 3], axis=0)
    return float(distances.max()), float(sides.min())


def _lookahead(first: Sequence[Sequence[Source]]) -> tuple[int, int]:
    """How many images and masks may be decoded ahead, and how many of them by one thread in one go, by the
    size of the first, if there is one."""
    most, together = 2 * THREADS, 1
    for sources in first:
        heads = [probe(source) for source in sources]
        size = max(1, sum(prod(head.shape) * head.channels * min(head.dtype.itemsize, 4) for head in heads))
        fitting = max(1, AT_ONCE // (DECODING * size))
        together = max(1, min(TOGETHER, SMALL // size, fitting // most))
        most = min(most, fitting)
    return most, together


def _ahead(
    function: Callable[[Given], Result], given: Sequence[Given], most: int = 2 * THREADS, together: int = 1
) -> Iterator[Result]:
    """``map`` in order, ahead in threads; what is not needed any more is not begun.

    Args:
        function: of one.
        given: all.
        most: how many are made ahead, times ``together``.
        together: how many a thread makes before it says so; to hand on small ones each costs more than
            to make them.
    """
    with ThreadPoolExecutor(min(THREADS, most)) as pool:
        waiting: deque[Future[tuple[list[Result], Exception | None]]] = deque()
        try:
            for start in range(0, len(given), together):
                waiting.append(pool.submit(_some, function, given[start : start + together]))
                if len(waiting) > most:
                    yield from _or_raise(*waiting.popleft().result())
            while waiting:
                yield from _or_raise(*waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()


def _some(
    function: Callable[[Given], Result], given: Sequence[Given]
) -> tuple[list[Result], Exception | None]:
    """The results up to the first error, and that one."""
    made: list[Result] = []
    try:
        for each in given:
            made.append(function(each))
    except Exception as error:
        return made, error
    return made, None


def _or_raise(made: Iterable[Result], error: Exception | None) -> Iterator[Result]:
    yield from made
    if error is not None:
        raise error
