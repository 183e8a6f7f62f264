"""Arrays that are computed where they are looked at, in the form in which napari slices them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class LazyStack:
    """An array (*outer, *frame) whose frames are computed when they are indexed. It cannot be written to."""

    def __init__(
        self,
        frame: Callable[[tuple[int, ...]], Any],
        outer: Sequence[int],
        shape: Sequence[int],
        dtype: DTypeLike,
        *,
        blank: float = 0,
    ) -> None:
        """Describe the array.

        Args:
            frame: gives the frame at an index of the outer axes, an array of `shape` and `dtype` or what
                is indexed like one, or None where there is nothing.
            outer: lengths of the outer axes.
            shape: of a frame: spatial axes, then perhaps colour channels.
            dtype: of a frame.
            blank: value where there is nothing.
        """
        self._frame = frame
        self._outer = len(outer)
        self._blank = blank
        self.dtype = np.dtype(dtype)
        self.shape = (*outer, *shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, were it computed."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = full_key(key, self.ndim)
        lengths = self.shape[: self._outer]
        axes = [np.arange(length)[part] for length, part in zip(lengths, keys[: self._outer], strict=True)]
        inner = keys[self._outer :]
        frame_shape = np.broadcast_to(np.bool_(), self.shape[self._outer :])[inner].shape
        out = np.full((*(axis.size for axis in axes), *frame_shape), self._blank, self.dtype)
        for position in np.ndindex(*(axis.size for axis in axes)):
            index = tuple(int(axis.flat[at]) for axis, at in zip(axes, position, strict=True))
            found = self._frame(index)
            if found is not None:
                out[position] = found[inner]
        return out.reshape((*(length for axis in axes for length in axis.shape), *frame_shape))


def full_key(key: Any, ndim: int) -> tuple[Any, ...]:
    """An index with one entry an axis: integers, slices or integer arrays.

    Raises:
        IndexError: more entries than axes.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    for at, part in enumerate(keys):
        if part is Ellipsis:
            keys[at : at + 1] = [slice(None)] * (ndim - len(keys) + 1)
            break
    if len(keys) > ndim:
        raise IndexError(f"too many indices for an array of {ndim} axes: {len(keys)} were given.")
    return (*keys, *[slice(None)] * (ndim - len(keys)))
