"""Dividing cases into train, val, calib and test, by group, once."""

from collections.abc import Sequence

import numpy as np

from engine.data.layouts import Case
from engine.errors import InputError

SPLITS = ("train", "val", "calib", "test")
FEWEST = 10
"""Below this number of images all are train."""


def split(
    cases: Sequence[Case], shares: tuple[float, float, float, float], seed: int
) -> dict[str, tuple[int, ...]]:
    """Divide cases by group, in proportion to ``shares`` (train, val, calib, test; they add up to 1).

    A val, calib or test split that the layout has is kept; the others are carved from the
    rest, their shares scaled up. Under 10 images in all, the rest is all train.
    Whole groups are dealt in random order to the split that lacks most images, so a
    split may come out larger or smaller than its share, or empty.

    Returns:
        split → indices into ``cases``, in ascending order.

    Raises:
        InputError: nothing is left for train.
    """
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    rest: list[int] = []
    for index, case in enumerate(cases):
        (parts[case.split] if case.split in ("val", "calib", "test") else rest).append(index)
    asked = dict(zip(SPLITS, shares, strict=True)) if len(cases) >= FEWEST else {"train": 1.0}
    carved = {name: share for name, share in asked.items() if share > 0 and not parts[name]}
    for name, indices in _deal(cases, rest, carved, seed).items():
        parts[name] += indices
    if not parts["train"]:
        raise InputError(
            f"none of {len(cases)} images ({len({case.group for case in cases})} groups) is left for train "
            f"with data.split {shares}: a larger first share, or more groups, would work."
        )
    return {name: tuple(sorted(indices)) for name, indices in parts.items()}


def _deal(
    cases: Sequence[Case], indices: Sequence[int], shares: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Deal whole groups in random order, each to the split that lacks most images."""
    members: dict[str, list[int]] = {}
    for index in indices:
        members.setdefault(cases[index].group, []).append(index)
    names = sorted(members)
    lacking = _targets(len(indices), shares)
    dealt: dict[str, list[int]] = {name: [] for name in shares}
    for position in np.random.default_rng(seed).permutation(len(names)):
        group = members[names[position]]
        neediest = max(lacking, key=lacking.__getitem__)
        dealt[neediest] += group
        lacking[neediest] -= len(group)
    return dealt


def _targets(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to ``shares`` that add up to ``count``, by largest remainder."""
    exact = {name: count * share / sum(shares.values()) for name, share in shares.items()}
    targets = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: targets[name] - exact[name])
    for name in by_remainder[: count - sum(targets.values())]:
        targets[name] += 1
    return targets
