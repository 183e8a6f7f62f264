"""Sums over an image that need not fit in memory, in bricks: those in use in memory, the others in a file."""

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from io import FileIO
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

Index = tuple[int, ...]
Values = NDArray[np.float32]


class Bricks:
    """Boxes of float32 that are 0 when they are first asked for, and gone once they are taken.

    What was used last is in memory, up to a budget; the rest is in a file without a name, which a killed
    process leaves no trace of. So memory does not grow with the number of bricks, and the file has room
    for no more of them than there are at one time.

    Args:
        size: bytes of the largest brick.
        budget: bytes of bricks in memory; one at least is.
        folder: where the file is, once there is one; the system's for temporary files if None.
    """

    def __init__(self, size: int, budget: int, folder: Path | None = None) -> None:
        self._size, self._most, self._folder = size, max(1, budget // size), folder
        self._near: OrderedDict[Index, Values] = OrderedDict()
        self._far: dict[Index, tuple[int, tuple[int, ...]]] = {}
        self._free: list[int] = []
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._near.clear()
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._near) + len(self._far)

    def at(self, index: Index, shape: Sequence[int]) -> Values:
        """A brick to be added to, valid until the next call. `shape` is always the same for an index."""
        brick = self.take(index)
        while len(self._near) >= self._most:
            self._put_away(*self._near.popitem(last=False))
        self._near[index] = brick if brick is not None else np.zeros(tuple(shape), np.float32)
        return self._near[index]

    def take(self, index: Index) -> Values | None:
        """A brick, which is from now on the caller's; None if it was never asked for."""
        if index in self._near:
            return self._near.pop(index)
        if index not in self._far:
            return None
        slot, shape = self._far.pop(index)
        self._free.append(slot)
        brick = np.empty(prod(shape), np.float32)
        assert self._file is not None
        self._file.seek(slot * self._size)
        left = brick.data.cast("B")
        while left:
            read = self._file.readinto(left)
            if not read:
                raise OSError("the scratch file of a prediction is shorter than what was written to it")
            left = left[read:]
        return brick.reshape(shape)

    def _put_away(self, index: Index, brick: Values) -> None:
        if self._file is None:
            # Unbuffered: a buffer would copy each brick once more. Closed by __exit__.
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".sums-", buffering=0)  # noqa: SIM115
        slot = self._free.pop() if self._free else len(self._far)
        self._far[index] = slot, brick.shape
        self._file.seek(slot * self._size)
        left = np.ascontiguousarray(brick).data.cast("B")
        while left:
            left = left[self._file.write(left) :]
