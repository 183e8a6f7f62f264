"""Turns against numpy, for every code, shape and dtype."""

import numpy as np
import pytest
import torch

from engine.data.turns import _by_code, _by_index, turn, unturn

DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32]


def batch(height: int, width: int, dtype: torch.dtype, size: int = 8) -> torch.Tensor:
    values = torch.rand(size, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    return values > 127 if dtype == torch.bool else values.to(dtype)


def by_numpy(image: torch.Tensor, code: int) -> torch.Tensor:
    array = image.numpy()
    mirrored = np.flip(array, -1) if code >= 4 else array
    return torch.from_numpy(np.rot90(mirrored, code % 4, axes=(-2, -1)).copy())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_code_is_its_mirror_and_turn_and_is_undone(dtype):
    x, codes = batch(12, 12, dtype), torch.arange(8)
    turned = turn(x, codes)
    for image, result, code in zip(x, turned, codes, strict=True):
        torch.testing.assert_close(result, by_numpy(image, int(code)), rtol=0, atol=0)
    torch.testing.assert_close(unturn(turned, codes), x, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(7, 12), (1, 5), (6, 1), (1, 1)])
def test_any_shape_keeps_the_codes_that_keep_it(size):
    codes = torch.tensor([0, 2, 4, 6])
    x = batch(*size, torch.float32, size=4)
    turned = turn(x, codes)
    for image, result, code in zip(x, turned, codes, strict=True):
        assert torch.equal(result, by_numpy(image, int(code)))
    assert torch.equal(unturn(turned, codes), x)


def test_a_quarter_turn_of_an_oblong_image_is_refused():
    with pytest.raises(ValueError, match="square images, and these are 4 × 6"):
        turn(batch(4, 6, torch.float32, size=1), torch.tensor([1]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("way", [_by_code, _by_index])
def test_both_ways_are_alike_with_any_company(way, layout):
    """One is for CPUs, the other for GPUs."""
    x = batch(6, 6, torch.float32, size=24).contiguous(memory_format=layout)
    codes = torch.arange(24)[torch.randperm(24, generator=torch.Generator().manual_seed(0))] % 8
    expected = torch.stack([by_numpy(image, int(code)) for image, code in zip(x, codes, strict=True)])
    assert torch.equal(way(x, codes), expected)
    even = torch.tensor([0, 2, 4, 6])
    oblong = batch(4, 6, torch.bool, size=4)
    expected = torch.stack([by_numpy(image, int(code)) for image, code in zip(oblong, even, strict=True)])
    assert torch.equal(way(oblong, even), expected)
    assert way(x[:0], codes[:0]).shape == (0, 3, 6, 6)


def test_channels_last_input_is_turned_alike():
    x, codes = batch(8, 8, torch.float32), torch.arange(8)
    assert torch.equal(turn(x.contiguous(memory_format=torch.channels_last), codes), turn(x, codes))


def test_volumes_are_turned_slice_by_slice_and_mirrored_in_depth():
    x = torch.randn(16, 2, 3, 5, 5)
    codes = torch.arange(16)
    turned = turn(x, codes)
    for code in range(16):
        deep = x[code].flip(1) if code >= 8 else x[code]
        for depth in range(3):
            assert torch.equal(turned[code, :, depth], by_numpy(deep[:, depth], code % 8))
    assert torch.equal(unturn(turned, codes), x)
