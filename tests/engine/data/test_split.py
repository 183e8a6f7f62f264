"""Splits: a partition by whole groups, by share, the same for the same seed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.decode import Source
from engine.data.layouts import Case
from engine.data.split import SPLITS, split
from engine.errors import InputError

SHARES = (0.6, 0.15, 0.1, 0.15)


def cases(groups: list[str], splits: list[str] | None = None) -> list[Case]:
    return [
        Case(
            str(index), (Source(Path("a.png")),), (), group=group, split=(splits or [""] * len(groups))[index]
        )
        for index, group in enumerate(groups)
    ]


def alone(count: int, own: str = "") -> list[Case]:
    return cases([f"{own}{index}" for index in range(count)], [own] * count)


def sizes(parts: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(len(parts[name]) for name in SPLITS)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 5))
def test_a_partition_that_keeps_groups_together(groups: list[int], seed: int) -> None:
    members = cases([str(group) for group in groups])
    parts = split(members, SHARES, seed)
    assert sorted(index for part in parts.values() for index in part) == list(range(len(groups)))
    for group in set(groups):
        assert sum(any(groups[index] == group for index in part) for part in parts.values()) == 1
    assert all(list(part) == sorted(part) for part in parts.values())
    assert parts == split(members, SHARES, seed)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(100, (60, 15, 10, 15)), (20, (12, 3, 2, 3)), (11, (6, 2, 1, 2)), (9, (9, 0, 0, 0))],
)
def test_shares(count: int, expected: tuple[int, ...]) -> None:
    assert sizes(split(alone(count), SHARES, 0)) == expected


def test_seeds_differ_and_file_order_does_not_matter() -> None:
    members = alone(40)
    assert split(members, SHARES, 0) != split(members, SHARES, 1)
    backwards = split(members[::-1], SHARES, 0)["test"]
    assert sorted(39 - index for index in backwards) == list(split(members, SHARES, 0)["test"])


def test_the_layouts_test_split_is_kept_and_the_rest_scaled_up() -> None:
    parts = split(alone(85) + alone(30, "test"), SHARES, 0)
    assert sizes(parts) == (60, 15, 10, 30)
    assert parts["test"] == tuple(range(85, 115))


def test_the_layouts_val_split_is_kept_too() -> None:
    parts = split(alone(70, "train") + alone(5, "val") + alone(5, "test"), SHARES, 0)
    assert sizes(parts) == (60, 5, 10, 5)


def test_under_10_images_all_that_the_layout_does_not_place_are_train() -> None:
    assert sizes(split(alone(5) + alone(2, "test"), SHARES, 0)) == (5, 0, 0, 2)


def test_a_share_of_0_gets_nothing() -> None:
    assert sizes(split(alone(20), (0.7, 0.3, 0.0, 0.0), 0)) == (14, 6, 0, 0)


@pytest.mark.parametrize("members", [alone(12, "test"), cases(["p"] * 20)])
def test_nothing_left_for_train(members: list[Case]) -> None:
    with pytest.raises(
        InputError, match=rf"none of {len(members)} images .* is left for train with data.split"
    ):
        split(members, (0.1, 0.3, 0.3, 0.3), 0)
