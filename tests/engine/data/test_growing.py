"""A store with other masks and more images: the very same as one filled anew."""

from dataclasses import fields, replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bits import PackedMasks
from engine.data.growing import appended, replaced
from engine.data.specs import Data
from engine.data.store import Maps, MixedKindsError, Sample, Store, fill
from engine.losses.boundary import signed_distance
from engine.losses.topology import tubed_skeleton

MAPS = Maps(tube=tubed_skeleton, distance=signed_distance)
CLASSES = 2


def sample(seed: int, shape: tuple[int, ...], dtype: Any = np.uint8, *, ignored: bool = False) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.random((*shape, 2)).astype(np.float32)
    labels = rng.integers(0, CLASSES + 1, shape).astype(np.uint8)
    labels[(rng.random(shape) < 0.2) & ignored] = 255
    valid = rng.random(shape) < 0.9 if seed % 5 == 0 else None
    pixels = (image * 255).astype(np.uint8) if dtype == np.uint8 else image
    return Sample(f"case {seed}", pixels, labels, valid, (2.0, 1.0, 0.5)[3 - len(shape) :])


def assert_equal(one: Store, other: Store) -> None:
    for field in fields(Store):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, PackedMasks):
            assert torch.equal(mine.shapes, theirs.shapes)
            mine, theirs = mine.bits, theirs.bits
        if torch.is_tensor(mine):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


@st.composite
def histories(draw: Any) -> tuple[list[Sample], list[Sample], dict[int, Sample], Data]:
    dims = draw(st.sampled_from([2, 2, 3]))
    shape = st.tuples(*[st.integers(2, 11)] * dims)
    kinds = draw(st.sampled_from([[np.uint8], [np.float32], [np.float32, np.uint8]]))
    ignored = draw(st.booleans())
    made = [
        sample(
            10 * number + draw(st.integers(0, 9)), draw(shape), kinds[number % len(kinds)], ignored=ignored
        )
        for number, kind in zip(range(draw(st.integers(1, 4))), cycle(kinds), strict=False)
    ]
    first = draw(st.integers(1, len(made)))
    corrected = {
        number: replace(
            sample(draw(st.integers(100, 999)), made[number].image.shape[:-1], ignored=draw(st.booleans())),
            name=made[number].name, image=made[number].image,
        )
        for number in draw(st.sets(st.integers(0, first - 1)))
    }  # fmt: skip
    size = draw(st.sampled_from([None, (8, 12) if dims == 2 else (4, 8, 12)]))
    return made[:first], made[first:], corrected, Data(size=size)


@settings(deadline=None, max_examples=40)
@given(histories(), st.booleans())
def test_what_grew_is_the_same_as_what_was_filled_anew(history: Any, with_maps: bool) -> None:
    began, joined, corrected, data = history
    maps = MAPS if with_maps else Maps()
    grown = appended(
        replaced(fill(began, CLASSES, data, None, maps=maps), corrected, maps), joined, data, maps
    )
    now = [corrected.get(number, each) for number, each in enumerate(began)]
    assert_equal(grown, fill([*now, *joined], CLASSES, data, None, maps=maps))


@settings(deadline=None, max_examples=20)
@given(histories())
def test_the_labels_of_a_store_give_the_same_store_again(history: Any) -> None:
    began, joined, _, data = history
    store = fill([*began, *joined], CLASSES, data, None, maps=MAPS)
    again = [
        replace(each, labels=store.labels(number), valid=None)
        for number, each in enumerate([*began, *joined])
    ]
    assert_equal(store, fill(again, CLASSES, data, None, maps=MAPS))


def test_another_kind_of_pixels_does_not_join_bytes() -> None:
    store = fill([sample(1, (6, 8))], CLASSES, Data(), None)
    with pytest.raises(MixedKindsError):
        appended(store, [sample(2, (6, 8), np.float32)], Data())


def test_the_store_that_grew_is_left_alone() -> None:
    store = fill([sample(1, (6, 8)), sample(2, (5, 16))], CLASSES, Data(), None, maps=MAPS)
    before = fill([sample(1, (6, 8)), sample(2, (5, 16))], CLASSES, Data(), None, maps=MAPS)
    replaced(store, {1: sample(3, (5, 16), ignored=True)}, MAPS)
    appended(store, [sample(4, (7, 9))], Data(), MAPS)
    assert_equal(store, before)
