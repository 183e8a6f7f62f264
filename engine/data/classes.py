"""Mask values and colours → classes.

A table says which values or colours mean which class, several to one. 0, black, is
background unless a class names it. ``background`` and ``ignore`` are classes with
that meaning. Without a table the values themselves decide, where they leave no doubt.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.decode import Raster
from engine.errors import InputError

BACKGROUND, IGNORED = 0, 255
UNNAMED = 254
"""Marks, while a mask is mapped, values that no class names."""
MOST_CLASSES = 253
BAND = 1 << 20
"""Values of a mask that are looked at at once."""
MOST_COUNTED = 1 << 16
"""Range of values up to which they are counted and not sorted."""
NEARLY_WHOLE = 1e-4
"""Whole numbers that a file stored as fractions of its range come back this near."""
MOST_INFERRED = 32
"""With more values than this and no table, the masks rather number objects than classes."""


@dataclass(frozen=True)
class Classes:
    """The foreground classes and the mask values or colours that mean them."""

    names: tuple[str, ...]
    values: Mapping[int, int]
    """Mask value → class index: 1 is the first name, 0 background, 255 ignored."""
    colors: Mapping[int, int]
    """The same for colours, as 0xRRGGBB."""
    rest: str
    """What other values are: refuse, background or ignore."""


def from_table(table: Mapping[str, Sequence[int | str]], rest: str) -> Classes:
    """Classes from ``{name: [values and "#rrggbb" colours]}``, in that order.

    Raises:
        InputError: no class, no values for one, what is no value, or a value with two classes.
    """
    names = tuple(name for name in table if name not in ("background", "ignore"))
    index = {"background": BACKGROUND, "ignore": IGNORED} | {name: i for i, name in enumerate(names, 1)}
    if not 1 <= len(names) <= MOST_CLASSES:
        raise InputError(
            f"data.classes names {len(names)} classes to segment: 1 to {MOST_CLASSES} would work."
        )
    values: dict[int, int] = {}
    colors: dict[int, int] = {}
    for name, entries in table.items():
        if not entries:
            raise InputError(f"data.classes gives no mask value for {name!r}: {{{name} = [1]}} would.")
        for entry in entries:
            code, is_color = _parse(entry, name)
            known = colors if is_color else values
            if known.setdefault(code, index[name]) != index[name]:
                raise InputError(f"data.classes gives {entry!r} to {name!r} and to another: one is needed.")
    if 0 not in colors:
        values.setdefault(0, BACKGROUND)
    return Classes(names, values, colors, rest)


def _parse(entry: int | str, name: str) -> tuple[int, bool]:
    """Value or colour, and whether it is a colour."""
    text = str(entry).strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text), False
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:], 16), True
    raise InputError(
        f"data.classes gives {entry!r} to {name!r}: a whole number or a colour #rrggbb is needed."
    )


def infer(masks: Iterable[tuple[str, list[int] | None, list[int]]]) -> Classes:
    """Classes from what occurs in all masks, where it leaves no doubt.

    0 and one other value (0/1, 0/255) are one class; 0, 1 … K are K classes.

    Args:
        masks: the name and the :func:`survey` of each mask.

    Raises:
        InputError: every mask is empty, or the values could mean anything.
    """
    masks = list(masks)
    colored = any(values is None for _, values, _ in masks)
    seen: dict[int, str] = {}
    for file, values, colors in masks:
        for code in colors if values is None or colored else values:
            seen.setdefault(code, file)
    foreground = sorted(set(seen) - {0})
    if not foreground:
        raise InputError(
            f"every mask is empty ({len(masks)} masks with nothing but 0, the first {masks[0][0]}): "
            "masks with something to segment are needed."
        )
    count = len(foreground)
    if count == 1:
        return _inferred(["foreground"], foreground, colored)
    if foreground == list(range(1, count + 1)) and count <= MOST_INFERRED and 0 in seen and not colored:
        return _inferred([f"class_{value}" for value in foreground], foreground, colored)
    raise _ambiguous(seen, foreground, colored)


def _ambiguous(seen: Mapping[int, str], foreground: Sequence[int], colored: bool) -> InputError:
    odd = next((code for code in foreground if code not in (1, 255)), foreground[-1])
    shown = ", ".join(_show(code, colored) for code in sorted(seen)[:8])
    example = f'["{_show(odd, True)}"]' if colored else f"[{odd}]"
    return InputError(
        f"the masks hold the {len(seen)} {'colours' if colored else 'values'} {shown}"
        f"{', …' if len(seen) > 8 else ''} ({_show(odd, colored)} first in {seen[odd]}), which could mean "
        f"anything: 0/1, 0/255 and 0 to K (at most {MOST_INFERRED}) are understood, more needs data.classes, "
        f"such as {{vessel = {example}}}, with data.rest for what no class names."
    )


def _inferred(names: list[str], codes: list[int], colored: bool) -> Classes:
    index = {0: BACKGROUND} | {code: i for i, code in enumerate(codes, 1)}
    return Classes(tuple(names), {} if colored else index, index if colored else {}, "refuse")


def codes(mask: Raster, colored: bool, file: str) -> NDArray[np.int64] | NDArray[np.uint8]:
    """The value of each pixel, or its colour as 0xRRGGBB.

    A palette's indices are values, but in a black and white palette white is 1 and black 0,
    in whatever order. Three equal channels are one. As a colour, a gray g is 0xgggggg.

    Returns:
        (*S)

    Raises:
        InputError: fractions, or more than one channel where values are asked.
    """
    pixels, palette = mask.pixels, mask.palette
    if palette is not None:
        pixels = palette[pixels] if colored else _indices(pixels, palette)
    several = pixels.ndim > mask.dims
    if several and pixels.shape[-1] == 3 and colored:
        return np.asarray(_whole(pixels, file).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))
    if several:
        if not (pixels == pixels[..., :1]).all():
            raise InputError(
                f"{file} holds colours or {pixels.shape[-1]} differing channels: one channel, or "
                'data.classes with colours, such as {vessel = ["#ffffff"]}, would work.'
            )
        pixels = pixels[..., 0]
    pixels = _whole(pixels, file)
    return np.asarray(pixels.astype(np.int64) * 0x010101) if colored else pixels


def survey(mask: Raster, file: str) -> tuple[list[int] | None, list[int]]:
    """All values, None if only colours tell them apart, and all colours that a mask holds.

    Raises:
        InputError: as :func:`codes`.
    """
    if mask.pixels.ndim > mask.dims and mask.pixels.shape[-1] == 3 and not is_gray(mask.pixels):
        return None, _unique(mask, True, file)
    values = _unique(mask, False, file)
    if mask.palette is None:
        return values, [value * 0x010101 for value in values]
    return values, _unique(mask, True, file)


def _unique(mask: Raster, colored: bool, file: str) -> list[int]:
    found: set[int] = set()
    for _, part in _bands(mask):
        band = codes(part, colored, file)
        low, high = int(band.min()), int(band.max())
        if high - low < MOST_COUNTED:  # counting is much faster than sorting
            counts = np.bincount((band.astype(np.int64) - low).ravel())
            found.update((np.flatnonzero(counts) + low).tolist())
        else:
            found.update(np.unique(band).tolist())
    return sorted(found)


def _bands(mask: Raster) -> Iterator[tuple[slice, Raster]]:
    """A mask in parts along its first axis, since codes take up to eight times its memory; a palette, whose
    meaning hangs on all that is used of it, in one."""
    count = len(mask.pixels)
    values = max(1, mask.pixels[:1].size)
    step = count if mask.palette is not None else max(1, BAND // values)
    for start in range(0, count, step):
        band = slice(start, min(start + step, count))
        yield band, replace(mask, pixels=mask.pixels[band])


def inside(mask: Raster, file: str) -> NDArray[np.bool_]:
    """Where a mask is not 0, or not black.

    Returns:
        (*S)

    Raises:
        InputError: as :func:`codes`.
    """
    found = np.empty(mask.shape, np.bool_)
    for band, part in _bands(mask):
        found[band] = codes(part, True, file) != 0
    return found


def is_gray(pixels: NDArray[Any]) -> bool:
    """Whether all channels (*S, channels) are equal."""
    return bool((pixels[..., 1:] == pixels[..., :1]).all())


def _indices(pixels: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[Any]:
    used = palette[np.unique(pixels)]
    black_and_white = np.isin(used, (0, 255)).all() and (used == used[:, :1]).all()
    return palette[pixels][..., 0] // 255 if black_and_white else pixels


def _whole(pixels: NDArray[Any], file: str) -> NDArray[Any]:
    """Whole numbers in whatever dtype."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all() or (np.abs(np.rint(pixels) - pixels) > NEARLY_WHOLE).any():
            raise InputError(f"{file} holds mask values that are no whole numbers: 0 and 1 would work.")
        return np.asarray(np.rint(pixels).astype(np.int64))
    if pixels.dtype.kind not in "bui":
        raise InputError(f"{file} holds {pixels.dtype} as mask values: whole numbers would work.")
    return pixels.view(np.uint8) if pixels.dtype == bool else pixels


def to_labels(mask: Raster, classes: Classes, file: str) -> NDArray[np.uint8]:
    """Class index of each pixel: 0 background, 1 … C, 255 ignored.

    Where the classes name colours, colours decide, and a value v means the gray of that value.

    Returns:
        (*S)

    Raises:
        InputError: a value that no class names (if ``classes.rest`` refuses), or as :func:`codes`.
    """
    colored = bool(classes.colors)
    grays = {value * 0x010101: index for value, index in classes.values.items()}
    known = {**grays, **classes.colors} if colored else classes.values
    others = {"background": BACKGROUND, "ignore": IGNORED}.get(classes.rest, UNNAMED)
    labels = np.full(mask.shape, others, np.uint8)
    unnamed: set[int] = set()
    for band, part in _bands(mask):
        found, own = codes(part, colored, file), labels[band]
        for code, index in known.items():
            own[found == code] = index
        if others == UNNAMED and (own == UNNAMED).any():
            unnamed.update(map(int, np.unique(found[own == UNNAMED])))
    if unnamed:
        _refuse(sorted(unnamed), known, classes.names, colored, file)
    return labels


def _refuse(
    unnamed: Sequence[int], known: Mapping[int, int], names: Sequence[str], colored: bool, file: str
) -> None:
    meaning = {BACKGROUND: "background", IGNORED: "ignore"} | dict(enumerate(names, 1))
    table = ", ".join(f"{_show(code, colored)} {meaning[index]}" for code, index in sorted(known.items()))
    more = f" and {len(unnamed) - 1} more" if len(unnamed) > 1 else ""
    raise InputError(
        f"{file} holds mask value {_show(unnamed[0], colored)}{more}, which no class names ({table}): "
        "data.classes that name it, or data.rest = background or ignore, would work."
    )


def _show(code: int, colored: bool) -> str:
    return f"#{code:06x}" if colored else str(code)
