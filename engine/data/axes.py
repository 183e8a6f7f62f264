"""Which axis of an array is which: any order in a file → (*S) or (*S, channels).

Letters name axes: z, y, x; c channels, s samples (the same); t time. Files write them in capitals or
not. What a file does not name, ``data.axes`` does; where neither does, lengths decide: a first or last
axis of at most 16 elements is taken for channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from engine.data.raster import Array
from engine.errors import InputError

MOST_CHANNELS = 16
"""A first or last axis longer than this is space, not channels, unless it is named."""
UNNAMED = "iq?"
"""Letters that do not say what an axis is: tifffile's for pages and for any other."""


@dataclass(frozen=True)
class Arrangement:
    """How an array becomes (*S) or (*S, channels)."""

    order: tuple[int, ...]
    """Axes of the array, in the order wanted; those left out have length 1."""
    dims: int
    """Length of S: 2 or 3."""

    def of(self, pixels: Array) -> Array:
        """A view of ``pixels`` with its axes in order."""
        rest = [axis for axis in range(pixels.ndim) if axis not in self.order]
        moved = pixels.transpose(*self.order, *rest)
        return moved.reshape(moved.shape[: len(self.order)])

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of :meth:`of` an array of ``shape``."""
        return tuple(int(shape[axis]) for axis in self.order)

    def along(self, values: Sequence[float | None]) -> tuple[float, ...] | None:
        """One value for each axis of S, from one for each axis of the array; None if one is unknown."""
        wanted = [values[axis] for axis in self.order[: self.dims]]
        known = [float(value) for value in wanted if value is not None and isfinite(value) and value > 0]
        return tuple(known) if len(known) == self.dims else None


def arrange(shape: Sequence[int], path: Path, named: str = "", given: str | None = None) -> Arrangement:
    """Find out which axis is which.

    Args:
        shape: of the array as it is stored.
        path: its file, for messages.
        named: the axes' letters as the file names them; empty where it does not.
        given: ``data.axes``, for axes that the file does not name, or names time.

    Raises:
        InputError: neither an image nor a volume, or ``given`` does not fit.
    """
    letters = named.lower().replace("s", "c") if len(named) == len(shape) else "?" * len(shape)
    nothing_named = all(letter in UNNAMED for letter in letters)
    kept = _long(shape) if nothing_named else [a for a, n in enumerate(shape) if n != 1 or letters[a] in "yx"]
    meant = "".join(letters[axis] for axis in kept)
    if given and len(kept) > 2 and not set(meant) <= set("zyxc"):
        kept, meant = _given(shape, kept, path, given.lower())
    elif "t" in meant:
        raise _time(shape[kept[meant.index("t")]], meant, path)
    elif nothing_named:
        meant = _by_length([shape[axis] for axis in kept])
    else:
        meant = _completed(meant, [shape[axis] for axis in kept])
    place = dict(zip(meant, kept, strict=False))
    if len(meant) != len(kept) or len(place) != len(kept) or not {"y", "x"} <= set(place) <= set("zyxc"):
        raise _neither(shape, path, named)
    return Arrangement(tuple(place[letter] for letter in "zyxc" if letter in place), 3 if "z" in place else 2)


def _long(shape: Sequence[int]) -> list[int]:
    """The axes, less those of length 1 before and behind height and width."""
    kept = list(range(len(shape)))
    while len(kept) > 2:
        single = [axis for axis in (*kept[:-2], kept[-1]) if shape[axis] == 1]
        if not single:
            break
        kept.remove(single[0])
    return kept


def _given(
    shape: Sequence[int], kept: Sequence[int], path: Path, given: str
) -> tuple[list[int], str]:  # fmt: skip
    """Axes and letters by ``data.axes``: of all axes, or of the long ones; a mask may lack the channels."""
    for axes in (list(range(len(shape))), list(kept)):
        for letters in (given, given.replace("c", "")):
            if len(letters) == len(axes):
                single = [axis for axis, letter in zip(axes, letters, strict=True) if shape[axis] == 1]
                flat = [axis for axis in single if letters[axes.index(axis)] in "zc"]
                left = [axis for axis in axes if axis not in flat]
                return left, "".join(letters[axes.index(axis)] for axis in left)
    raise InputError(
        f"{path} holds an array of shape {tuple(shape)}, whose axes data.axes {given!r} does not name: "
        "a letter for each of them (z, y, x, and c for channels) would work."
    )


def _by_length(lengths: Sequence[int]) -> str:
    """Letters of axes of which none is named; empty where there are too many."""
    space = {2: "yx", 3: "zyx", 4: ""}.get(len(lengths), "")
    if len(lengths) not in (3, 4):
        return space
    end = min((-1, 0), key=lambda axis: lengths[axis])
    if lengths[end] > MOST_CHANNELS:
        return space
    others = "zyx"[-(len(lengths) - 1) :]
    return others + "c" if end == -1 else "c" + others


def _completed(letters: str, lengths: Sequence[int]) -> str:
    """Letters with those put in that are not named: a short axis is channels, any other depth."""
    unnamed = sorted((a for a, letter in enumerate(letters) if letter in UNNAMED), key=lambda a: lengths[a])
    whole = list(letters)
    for axis in unnamed:
        whole[axis] = "c" if "c" not in whole and lengths[axis] <= MOST_CHANNELS else "z"
    return "".join(whole)


def _time(times: int, letters: str, path: Path) -> InputError:
    instead = letters.replace("t", "z")
    depth = f', and data.axes = "{instead}" would read time as depth' if letters.count("z") == 0 else ""
    return InputError(
        f"{path} has an axis of time ({times} points), which is not read: a file for each time would work"
        f"{depth}."
    )


def _neither(shape: Sequence[int], path: Path, named: str) -> InputError:
    telling = len(named) == len(shape) and set(named.lower()) - set(UNNAMED)
    axes = f" (axes {named.upper()})" if telling else ""
    return InputError(
        f"{path} holds an array of shape {tuple(shape)}{axes}, neither an image nor a volume: height and "
        f"width, with depth before them and up to {MOST_CHANNELS} channels before or behind, would work."
    )
