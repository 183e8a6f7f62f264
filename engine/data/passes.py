"""Normalisation of an image that does not fit in memory, in passes over a few of its lines at a time."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.normalize import Image, constant, mapped, moments

Passes = Callable[[], Iterable[Image]]
"""Each call goes once over the lines of an image or a volume in order, (lines, W, channels) of one dtype."""

BINS = 1 << 16


def affine_of(
    passes: Passes, shape: tuple[int, ...], dtype: np.dtype[Any], method: str, *, top: float = 1.0
) -> tuple[Image, Image]:
    """Scale and shift as :func:`engine.data.normalize.affine` gives them for the whole image.

    Percentiles and ends are exactly the same, mean and deviation but for the last bits of float64. How
    the image is cut into bands changes no bit. Memory hardly grows with the image: by two numbers a line.

    Args:
        passes: the image.
        shape: its S and channels.
        dtype: uint8, uint16 or float32.
        method: "zscore", "unit", "percentile" or "imagenet".
        top: intensity that ImageNet's constants take as 1.

    Raises:
        InputError: "imagenet" for an image that has not 3 channels.
    """
    count, channels = math.prod(shape[:-1]), shape[-1]
    if method == "imagenet":
        return constant(channels, top)
    if method == "zscore":
        return mapped(_moments(passes, count, channels, dtype))
    if method == "unit":
        least, most = ranked(passes, dtype, channels, [0, count - 1]).T
        return mapped(list(zip(least, most - least, strict=True)))
    at = [(count - 1) * (percent / 100) for percent in (1, 99)]
    ranks = [rank for place in at for rank in (int(place), min(int(place) + 1, count - 1))]
    values = ranked(passes, dtype, channels, [*ranks, 0, count - 1])
    return mapped([_percentiles(*channel, *(place % 1 for place in at)) for channel in values.tolist()])


def _moments(passes: Passes, count: int, channels: int, dtype: np.dtype[Any]) -> list[tuple[float, float]]:
    """Mean and deviation of each channel, the same however the image is cut into bands."""
    found = _exact_moments if dtype.kind == "u" else _moments_by_row
    return found(passes, count, channels)


def _exact_moments(passes: Passes, count: int, channels: int) -> list[tuple[float, float]]:
    """Those of whole numbers, from whole sums: exact until the last division and root."""
    total, square = [0] * channels, [0] * channels
    for band in passes():
        for channel in range(channels):
            pixels = band[..., channel].astype(np.int64)
            total[channel] += int(pixels.sum())
            square[channel] += int(np.multiply(pixels, pixels, out=pixels).sum())
    return [moments(count, *sums) for sums in zip(total, square, strict=True)]


def _moments_by_row(passes: Passes, count: int, channels: int) -> list[tuple[float, float]]:
    """Those of real numbers, in two passes, as squares of large numbers would cancel.

    Each line is summed for itself, and then the lines' sums, so that it is always the same numbers that
    are added in the same order.
    """
    mean = _row_sums(passes, np.zeros(channels), 1).sum(axis=1) / count
    square = _row_sums(passes, mean, 2).sum(axis=1)
    return list(zip(mean.tolist(), np.sqrt(square / count).tolist(), strict=True))


def _row_sums(passes: Passes, centre: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """Sums over each line of (pixel - centre) or its square, float64 (channels, lines)."""
    sums = []
    for band in passes():
        rows = np.empty((len(centre), len(band)))
        for channel, middle in enumerate(centre):
            away = np.ascontiguousarray(band[..., channel], np.float64) - middle
            rows[channel] = (away if power == 1 else np.multiply(away, away, out=away)).sum(axis=1)
        sums.append(rows)
    return np.concatenate(sums, axis=1)


def _percentiles(
    a: float, b: float, c: float, d: float, least: float, most: float, first: float, last: float
) -> tuple[float, float]:
    """What becomes 0, and the way to what becomes 1: between a and b, and between c and d."""
    low, high = _between(a, b, first), _between(c, d, last)
    return (least, most - least) if low == high else (low, high - low)


def _between(a: float, b: float, share: float) -> float:
    """As numpy.percentile reckons: from the nearer end, so that it never passes it."""
    return b - (b - a) * (1 - share) if share >= 0.5 else a + (b - a) * share


def ranked(passes: Passes, dtype: np.dtype[Any], channels: int, ranks: Sequence[int]) -> NDArray[np.float64]:
    """The values that sorting each channel would put at some ranks (from 0), exactly: (channels, ranks).

    Values are counted by 16 bits. Those of float32 have 32, whose order is that of the numbers: the
    first pass finds the upper half of each value, a second one, among those that share it, the lower.
    """
    wide = dtype.itemsize == 4
    counts = np.zeros((channels, BINS), np.int64)
    for band in passes():
        for channel in range(channels):
            key = _key(band[..., channel])
            counts[channel] += np.bincount(key >> 16 if wide else key, minlength=BINS)
    places = [[_placed(row, rank) for rank in ranks] for row in counts]
    if not wide:
        return np.array([[value for value, _ in row] for row in places], np.float64)
    within = {
        (channel, upper): np.zeros(BINS, np.int64) for channel, row in enumerate(places) for upper, _ in row
    }
    for band in passes():
        keys = [_key(band[..., channel]) for channel in range(channels)]
        for (channel, upper), row in within.items():
            alike = keys[channel][keys[channel] >> 16 == upper]
            row += np.bincount(alike & 0xFFFF, minlength=BINS)
    return _value(
        [
            [upper << 16 | _placed(within[channel, upper], rest)[0] for upper, rest in row]
            for channel, row in enumerate(places)
        ]
    )


def _placed(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin in which a rank falls, and the rank that it has inside of it."""
    up_to = counts.cumsum()
    found = int(up_to.searchsorted(rank, side="right"))
    return found, rank - int(up_to[found] - counts[found])


def _key(pixels: Image) -> NDArray[Any]:
    """Whole numbers of the pixels' own width, flat, in the pixels' order."""
    flat = np.ascontiguousarray(pixels).ravel()
    if flat.dtype != np.float32:
        return flat
    bits = flat.view(np.uint32)
    return np.asarray(np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)))


def _value(keys: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """The float32 numbers that :func:`_key` was given."""
    key = np.asarray(keys, np.uint32)
    bits = np.where(key >> 31, key ^ np.uint32(1 << 31), ~key)
    return bits.view(np.float32).astype(np.float64)
