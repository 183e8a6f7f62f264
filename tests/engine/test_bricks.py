"""Sums in bricks: those of an array, wherever they wait."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bricks import Bricks


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["add", "add", "take"])), max_size=60),
)
def test_bricks_are_what_was_added_and_gone_when_taken(budget: int, steps: list[Any]) -> None:
    shapes = {number: (2, 3 + number % 2, 4) for number in range(8)}
    known: dict[int, Any] = {}
    size = 4 * 2 * 4 * 4
    with Bricks(size, budget * size) as bricks:
        for value, (number, what) in enumerate(steps, start=1):
            if what == "add":
                bricks.at((number,), shapes[number])[:, 1] += value
                known.setdefault(number, np.zeros(shapes[number], np.float32))[:, 1] += value
            else:
                found = bricks.take((number,))
                expected = known.pop(number, None)
                assert (found is None) == (expected is None)
                np.testing.assert_array_equal(found, expected)
            assert len(bricks) == len(known)


def test_memory_and_the_file_have_no_more_room_than_is_needed(tmp_path: Path) -> None:
    size = 4 * 1024
    with Bricks(size, 3 * size, tmp_path) as bricks:
        for number in range(100):
            bricks.at((number,), (1024,))[:] = number
            if number >= 10:
                taken = bricks.take((number - 10,))
                assert taken is not None
                assert (taken == number - 10).all()
            assert len(bricks._near) <= 3
        assert bricks._file is not None
        assert bricks._file.seek(0, 2) <= 9 * size
    assert not list(tmp_path.iterdir())
    assert bricks._file.closed


def test_what_fits_needs_no_file(tmp_path: Path) -> None:
    with Bricks(100, 1000, tmp_path) as bricks:
        for number in range(10):
            bricks.at((number,), (25,))
        assert bricks._file is None


def test_a_folder_that_cannot_be_written_is_told() -> None:
    with Bricks(100, 100, Path("/nowhere/at/all")) as bricks:
        bricks.at((0,), (25,))
        with pytest.raises(FileNotFoundError):
            bricks.at((1,), (25,))
