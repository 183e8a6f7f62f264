"""An image cut into boxes: one of which only boxes are read, or that is too large for a network."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import prod

Box = tuple[slice, ...]
"""A slice with start and stop along each axis of S."""


def boxes(shape: Sequence[int], chunks: Sequence[int], most: int) -> Iterator[Box]:
    """Boxes of whole chunks that cover an array once, so that each chunk of it is read once.

    Args:
        shape: S.
        chunks: extent along each axis of what is stored together.
        most: elements of a box, unless a chunk has more.
    """
    steps = [min(chunk, length) for chunk, length in zip(chunks, shape, strict=True)]
    for axis in reversed(range(len(steps))):
        steps[axis] *= max(1, min(most // prod(steps), -(-shape[axis] // steps[axis])))
    axes = [
        [slice(start, min(start + step, length)) for start in range(0, length, step)]
        for step, length in zip(steps, shape, strict=True)
    ]
    return product(*axes)


def cuts(length: int, most: int, unit: int) -> list[tuple[int, int]]:
    """Start and extent of pieces of nearly equal extent that cover an axis; no sliver is left at its end.

    Args:
        length: of the axis.
        most: extent of a piece, a multiple of `unit`.
        unit: what all starts are multiples of.
    """
    count = -(-length // most)
    ends = [min(-(-length * number // (count * unit)) * unit, length) for number in range(count + 1)]
    return [(first, last - first) for first, last in pairwise(ends)]
