"""Dividing cases into train, val, calib and test, by group, once."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.data.layouts import Case
from engine.errors import InputError

SPLITS = ("train", "val", "calib", "test")
FEWEST = 10
"""Below this number of images all are train."""


def split(
    cases: Sequence[Case],
    shares: tuple[float, float, float, float],
    seed: int,
    kept: Mapping[str, str] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Divide cases by group, in proportion to ``shares`` (train, val, calib, test; they add up to 1).

    A val, calib or test split that the layout has is kept; the others are carved from the
    rest, their shares scaled up. Under 10 images in all, the rest is all train.
    Whole groups are dealt in random order to the split that lacks most images, so a
    split may come out larger or smaller than its share, or empty.

    Args:
        cases: images.
        shares: of the four splits.
        seed: of the order.
        kept: group → the split in which it stays, as it was there in an earlier run, whatever the layout
            says. The others are dealt so that all together come near the shares.

    Returns:
        split → indices into ``cases``, in ascending order.

    Raises:
        InputError: nothing is left for train.
    """
    kept = kept or {}
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    before: dict[str, list[int]] = {name: [] for name in SPLITS}
    rest: list[int] = []
    for index, case in enumerate(cases):
        if case.group in kept:
            before[kept[case.group]].append(index)
        else:
            (parts[case.split] if case.split in ("val", "calib", "test") else rest).append(index)
    asked = dict(zip(SPLITS, shares, strict=True)) if len(cases) >= FEWEST else {"train": 1.0}
    carved = {name: share for name, share in asked.items() if share > 0 and not parts[name]}
    has = {name: len(before[name]) for name in carved}
    for name, indices in before.items():
        parts[name] += indices
    for name, indices in _deal(cases, rest, carved, seed, has).items():
        parts[name] += indices
    if not parts["train"]:
        if kept:
            raise InputError(
                f"none of {len(cases)} images is left for train, as those of the run to start from stay in "
                "the split that they have there: more images, or no training.init, would work."
            )
        raise InputError(
            f"none of {len(cases)} images ({len({case.group for case in cases})} groups) is left for train "
            f"with data.split {shares}: a larger first share, or more groups, would work."
        )
    return {name: tuple(sorted(indices)) for name, indices in parts.items()}


def _deal(
    cases: Sequence[Case], indices: Sequence[int], shares: dict[str, float], seed: int, has: Mapping[str, int]
) -> dict[str, list[int]]:
    """Deal whole groups in random order, each to the split that lacks most images; `has`: what each has."""
    members: dict[str, list[int]] = {}
    for index in indices:
        members.setdefault(cases[index].group, []).append(index)
    names = sorted(members)
    targets = _targets(len(indices) + sum(has.values()), shares)
    lacking = {name: target - has[name] for name, target in targets.items()}
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
