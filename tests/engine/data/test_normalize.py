"""Normalisation: known answers over valid pixels, for every kind of image."""

from typing import get_args

import numpy as np
import pytest

from engine.data.normalize import IMAGENET_MEAN, IMAGENET_STD, affine, white
from engine.data.specs import Data
from engine.errors import InputError

METHODS = get_args(Data.model_fields["normalization"].annotation)
RAMP = np.arange(101, dtype=np.uint8).reshape(1, 101, 1)


def normalised(image, method, **more):
    scale, shift = affine(image, method, **more)
    assert scale.dtype == shift.dtype == np.float32
    assert scale.shape == shift.shape == (image.shape[-1],)
    return image.astype(np.float64) * scale + shift


def test_zscore_has_mean_0_and_deviation_1_in_each_channel():
    image = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    image[..., 1] //= 100
    out = normalised(image, "zscore")
    np.testing.assert_allclose(out.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 1)), 1, atol=1e-5)


def test_zscore_worked_by_hand():
    out = normalised(np.array([[[1.0], [3.0]]]), "zscore")
    np.testing.assert_allclose(out.ravel(), [-1, 1], atol=1e-6)


@pytest.mark.parametrize(("method", "low", "high"), [("unit", 0, 100), ("percentile", 1, 99)])
def test_ends_go_to_0_and_1(method, low, high):
    out = normalised(RAMP, method).ravel()
    np.testing.assert_allclose(out, (np.arange(101) - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_imagenet_takes_white_as_1(dtype, top):
    assert white(np.dtype(dtype)) == top
    image = np.zeros((1, 2, 3), dtype)
    image[0, 1] = top
    out = normalised(image, "imagenet", top=white(image.dtype))
    np.testing.assert_allclose(out[0, 0], -np.divide(IMAGENET_MEAN, IMAGENET_STD), rtol=1e-6)
    np.testing.assert_allclose(out[0, 1], (1 - np.array(IMAGENET_MEAN)) / IMAGENET_STD, rtol=1e-6)


def test_imagenet_wants_colour():
    with pytest.raises(InputError, match="needs RGB images, not 1 channels"):
        affine(RAMP, "imagenet")


@pytest.mark.parametrize("method", ["zscore", "unit", "percentile"])
@pytest.mark.parametrize("value", [0, 7, 255, 0.1, -1e-6, 1e30])
def test_a_constant_channel_becomes_0(method, value):
    image = np.full((9, 11, 2), value, dtype=np.float64)
    image[..., 1] = np.arange(99).reshape(9, 11)
    out = normalised(image, method)
    assert not out[..., 0].any()
    assert np.ptp(out[..., 1]) > 0.9


@pytest.mark.parametrize("method", ["zscore", "unit", "percentile"])
def test_the_unit_of_the_intensities_does_not_matter(method):
    image = np.random.default_rng(0).random((16, 16, 1)).astype(np.float32)
    faint = normalised(image * np.float32(1e-12), method)  # as in ampere or metre
    np.testing.assert_allclose(faint, normalised(image, method), atol=1e-4)


def test_a_sparse_image_does_not_vanish():
    image = np.zeros((20, 20, 1), dtype=np.uint8)
    image[3, 4] = 200  # 1 of 400: the 1st and the 99th percentile are both 0
    out = normalised(image, "percentile")
    assert out[3, 4, 0] == pytest.approx(1)
    assert out.sum() == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_finite_on_every_kind(method):
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64):
        assert np.isfinite(normalised((200 * rng.random((5, 6, 3))).astype(dtype), method)).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_moments_of_whole_numbers_are_numpys(dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 41, 2)).astype(dtype)
    scale, shift = affine(image, "zscore")
    real = image.astype(np.float64)
    mean, deviation = real.mean(axis=(0, 1)), real.std(axis=(0, 1))
    assert np.allclose(scale, 1 / deviation, rtol=1e-7)
    assert np.allclose(shift, -mean / deviation, rtol=1e-7)
