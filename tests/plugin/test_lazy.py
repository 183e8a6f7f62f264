"""Lazy stacks against the numpy arrays that they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_smm.lazy import LazyStack, full_key

Shape = tuple[int, ...]


def stack(outer: Shape, inner: Shape, present: frozenset[int]) -> tuple[LazyStack, np.ndarray]:
    whole = np.arange(np.prod(outer + inner), dtype=np.float32).reshape(outer + inner)
    expected = whole.copy()
    for number, index in enumerate(np.ndindex(*outer)):
        if number not in present:
            expected[index] = -1

    def frame(index: tuple[int, ...]) -> np.ndarray | None:
        return whole[index] if np.ravel_multi_index(index, outer) in present else None

    return LazyStack(frame, outer, inner, np.float32, blank=-1), expected


@given(
    st.data(),
    st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
    st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple),
    st.frozensets(st.integers(0, 15)),
)
def test_any_basic_index_gives_what_numpy_gives(
    data: st.DataObject, outer: Shape, inner: Shape, present: frozenset[int]
) -> None:
    lazy, expected = stack(outer, inner, present)
    key = data.draw(hnp.basic_indices(lazy.shape, allow_newaxis=False))
    np.testing.assert_array_equal(lazy[key], expected[key])
    assert lazy[key].dtype == expected.dtype


def test_it_says_what_an_array_says() -> None:
    lazy, expected = stack((3,), (4, 5), frozenset({0, 2}))
    assert (lazy.shape, lazy.ndim, lazy.size, lazy.nbytes, len(lazy), lazy.dtype) == (
        (3, 4, 5), 3, 60, 240, 3, np.float32
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(lazy), expected)
    np.testing.assert_array_equal(np.asarray(lazy, dtype=np.float64), expected)


def test_only_the_frames_that_are_looked_at_are_computed() -> None:
    asked = []

    def frame(index: tuple[int, ...]) -> np.ndarray:
        asked.append(index)
        return np.zeros((2, 2), np.uint8)

    lazy = LazyStack(frame, (100, 7), (2, 2), np.uint8)
    assert lazy[5:6, 3].shape == (1, 2, 2)
    assert asked == [(5, 3)]


def test_an_index_outside_is_refused() -> None:
    lazy, _ = stack((3,), (4, 5), frozenset())
    with pytest.raises(IndexError):
        lazy[3]
    with pytest.raises(IndexError, match="too many indices"):
        full_key((0, 0, 0, 0), 3)
