"""Packed masks against plain boolean arrays: any shape, window and halo, in 2D and 3D."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bits import PackedMasks, Window, pack, unpack


def window(ids: list[int], corners: list[list[int]], size: tuple[int, ...]) -> Window:
    return Window(torch.tensor(ids), torch.tensor(corners), size)


def whole(number: int, shape: tuple[int, ...]) -> Window:
    return window([number], [[0] * len(shape)], shape)


MARGIN = 64  # more than any window reaches beyond its image


def cut(dense: np.ndarray, corner: list[int], size: tuple[int, ...], halo: int) -> np.ndarray:
    """What a window shows of bool (C, *S); False outside."""
    padded = np.pad(dense, [(0, 0), *[(MARGIN, MARGIN)] * len(size)])
    return padded[(slice(None), *box([a - halo for a in corner], [n + 2 * halo for n in size]))]


def paste(dense: np.ndarray, corner: list[int], masks: np.ndarray) -> None:
    """Put bool (C, *size) into bool (C, *S) in place; what lies outside is lost."""
    padded = np.pad(dense, [(0, 0), *[(MARGIN, MARGIN)] * len(corner)])
    padded[(slice(None), *box(corner, masks.shape[1:]))] = masks
    dense[:] = padded[(slice(None), *box([0] * len(corner), dense.shape[1:]))]


def box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(MARGIN + a, MARGIN + a + n) for a, n in zip(corner, size, strict=True))


def random_masks(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.random(shape) < 0.5


def filled(rng: np.random.Generator, shapes: list[tuple[int, ...]], channels: int) -> tuple[Any, Any]:
    packed = PackedMasks(torch.tensor(shapes), channels)
    dense = [random_masks(rng, channels, *shape) for shape in shapes]
    for number, (masks, shape) in enumerate(zip(dense, shapes, strict=True)):
        packed.write(whole(number, shape), torch.from_numpy(masks[None]))
    return packed, dense


@st.composite
def cases(
    draw: Any,
) -> tuple[list[tuple[int, ...]], int, list[int], list[list[int]], tuple[int, ...], int, int]:
    axes = draw(st.integers(2, 3))
    short = st.integers(1, 7 if axes == 2 else 4)
    long = st.integers(1, 4).map(lambda n: 8 * n)
    shape = st.tuples(*[short] * (axes - 1), long)
    shapes = draw(st.lists(shape, min_size=1, max_size=4))
    ids = draw(st.lists(st.integers(0, len(shapes) - 1), min_size=1, max_size=4))
    corner = st.tuples(*[st.integers(-5, 8)] * (axes - 1), st.integers(-2, 4).map(lambda n: 8 * n)).map(list)
    corners = [draw(corner) for _ in ids]
    size = draw(st.tuples(*[short] * (axes - 1), st.integers(1, 2).map(lambda n: 8 * n)))
    return (
        shapes,
        draw(st.integers(1, 3)),
        ids,
        corners,
        size,
        draw(st.integers(0, 11)),
        draw(st.integers(0, 99)),
    )


@settings(deadline=None, max_examples=60)
@given(cases())
def test_reads_what_a_plain_array_holds(case):
    shapes, channels, ids, corners, size, halo, seed = case
    packed, dense = filled(np.random.default_rng(seed), shapes, channels)
    found = packed.read(window(ids, corners, size), halo)
    assert found.dtype == torch.bool
    expected = [cut(dense[i], corner, size, halo) for i, corner in zip(ids, corners, strict=True)]
    np.testing.assert_array_equal(found.numpy(), np.stack(expected))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_writes_what_a_plain_array_would_take(case):
    shapes, channels, ids, corners, size, _, seed = case
    rng = np.random.default_rng(seed)
    packed, dense = filled(rng, shapes, channels)
    first = {number: index for index, number in reversed(list(enumerate(ids)))}  # one window an image
    ids, corners = list(first), [corners[index] for index in first.values()]
    masks = random_masks(rng, len(ids), channels, *size)
    packed.write(window(ids, corners, size), torch.from_numpy(masks))
    for number, corner, mask in zip(ids, corners, masks, strict=True):
        paste(dense[number], corner, mask)
    for number, (shape, expected) in enumerate(zip(shapes, dense, strict=True)):
        np.testing.assert_array_equal(packed.read(whole(number, shape))[0].numpy(), expected)


def test_two_crops_of_one_image_in_one_batch():
    rng = np.random.default_rng(0)
    packed, dense = filled(rng, [(5, 16), (9, 32)], 2)
    corners = [[1, 8], [1, 16], [0, 0]]
    masks = random_masks(rng, 3, 2, 4, 8)
    crops = window([1, 1, 0], corners, (4, 8))
    packed.write(crops, torch.from_numpy(masks))
    assert torch.equal(packed.read(crops), torch.from_numpy(masks))
    for number, corner, mask in zip([1, 1, 0], corners, masks, strict=True):
        paste(dense[number], corner, mask)
    np.testing.assert_array_equal(packed.read(whole(1, (9, 32)))[0].numpy(), dense[1])
    np.testing.assert_array_equal(packed.read(whole(0, (5, 16)))[0].numpy(), dense[0])


def test_the_first_pixel_is_the_lowest_bit():
    packed = PackedMasks(torch.tensor([[2, 16]]), 1)
    mask = torch.zeros((1, 1, 2, 16), dtype=torch.bool)
    mask[0, 0, 0, 0] = mask[0, 0, 0, 9] = mask[0, 0, 1, 15] = True
    packed.write(whole(0, (2, 16)), mask)
    assert packed.bits.tolist() == [[1, 2, 0, 128]]
    np.testing.assert_array_equal(
        packed.bits[0].numpy(), np.packbits(mask.numpy().reshape(-1), bitorder="little")
    )


@pytest.mark.parametrize("shape", [(1, 1, 8), (2, 3, 5, 16), (1, 2, 3, 4, 24), (0, 1, 8)])
def test_packs_as_numpy_does(shape):
    masks = random_masks(np.random.default_rng(0), *shape)
    packed = pack(torch.from_numpy(masks))
    np.testing.assert_array_equal(packed.numpy(), np.packbits(masks, axis=-1, bitorder="little"))
    np.testing.assert_array_equal(unpack(packed).numpy(), masks)
    across = torch.from_numpy(masks).transpose(0, 1)
    np.testing.assert_array_equal(unpack(pack(across)).numpy(), masks.swapaxes(0, 1))


def test_every_byte_is_unpacked_and_packed_again():
    every = torch.arange(256, dtype=torch.uint8)[:, None]
    assert torch.equal(pack(unpack(every)), every)
    channels_last = torch.rand(2, 4, 8, 1).movedim(-1, 1) > 0.5
    assert torch.equal(unpack(pack(channels_last)), channels_last)


@pytest.mark.parametrize("shape", [(6, 16), (3, 4, 8)])
@pytest.mark.parametrize("halo", [0, 2, 9])
def test_whole_images_of_one_shape(shape, halo):
    """They are copied as a whole, which no other window is."""
    rng = np.random.default_rng(halo)
    packed, dense = filled(rng, [shape] * 4, 2)
    some = window([3, 0, 2], [[0] * len(shape)] * 3, shape)
    masks = random_masks(rng, 3, 2, *shape)
    packed.write(some, torch.from_numpy(masks))
    for number, mask in zip([3, 0, 2], masks, strict=True):
        dense[number] = mask
    again = window([2, 1, 0, 3], [[0] * len(shape)] * 4, shape)
    expected = np.stack([cut(dense[number], [0] * len(shape), shape, halo) for number in (2, 1, 0, 3)])
    np.testing.assert_array_equal(packed.read(again, halo).numpy(), expected)
    np.testing.assert_array_equal(
        packed.any(again).numpy(), expected.any(axis=tuple(range(1, expected.ndim)))
    )
    none = Window(torch.zeros(0, dtype=torch.int64), torch.zeros((0, len(shape)), dtype=torch.int64), shape)
    packed.write(none, torch.zeros((0, 2, *shape), dtype=torch.bool))
    assert len(packed.read(none, halo)) == 0


def test_given_bits_are_taken_over_not_copied():
    bits = torch.zeros((1, 2), dtype=torch.uint8)
    PackedMasks(torch.tensor([[2, 8]]), 1, bits=bits).write(whole(0, (2, 8)), torch.ones(1, 1, 2, 8) > 0)
    assert bits.tolist() == [[255, 255]]


def test_empty_like_is_apart():
    packed, _ = filled(np.random.default_rng(0), [(3, 8)], 2)
    other = packed.empty_like()
    assert not other.bits.any()
    other.write(whole(0, (3, 8)), ~packed.read(whole(0, (3, 8))))
    assert torch.equal(other.bits, ~packed.bits)


@pytest.mark.parametrize(("masks", "limit"), [(1, 0.85e9), (2, 1.7e9)])
def test_a_hundred_thousand_masks_fit(masks, limit):
    assert masks * PackedMasks.count_bytes(torch.full((100_000, 2), 256), 1) < limit
    shapes = torch.full((500, 2), 256)
    few = PackedMasks(shapes, 1)
    held = sum(x.untyped_storage().nbytes() for x in vars(few).values() if isinstance(x, torch.Tensor))
    assert few.bits.nbytes == PackedMasks.count_bytes(shapes, 1)
    assert masks * held * 200 < limit


def test_refuses_what_is_not_whole_bytes():
    with pytest.raises(ValueError, match="multiple of 8"):
        PackedMasks(torch.tensor([[8, 12]]), 1)
    with pytest.raises(ValueError, match="multiple of 8, not 12"):
        whole(0, (8, 12))


@pytest.mark.parametrize("bits", [torch.zeros((2, 8), dtype=torch.uint8), torch.zeros((1, 8))])
def test_refuses_bits_of_another_size_or_kind(bits):
    with pytest.raises(ValueError, match=r"uint8 \(1, 8\)"):
        PackedMasks(torch.tensor([[8, 8]]), 1, bits=bits)
