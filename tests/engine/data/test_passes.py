"""Normalisation in passes over bands is that of the whole image."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.data.normalize import affine, white
from engine.data.passes import affine_of, ranked
from engine.data.specs import Data
from engine.errors import InputError

METHODS = get_args(Data.model_fields["normalization"].annotation)
FINITE = st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, 7.0])


def passes(image: Any, rows: int) -> Any:
    """An image in bands of some rows."""

    def once() -> Iterator[Any]:
        for first in range(0, len(image), rows):
            yield image[first : first + rows]

    return once


@st.composite
def images(draw: Any) -> Any:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 9), st.sampled_from([1, 3])))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    elements = FINITE if dtype is np.float32 else st.integers(0, np.iinfo(dtype).max)
    return draw(hnp.arrays(dtype, shape, elements=elements))


@given(images(), st.integers(1, 5), st.data())
def test_ranks_are_those_of_sorting(image: Any, rows: int, data: Any) -> None:
    count = image.shape[0] * image.shape[1]
    ranks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6))
    found = ranked(passes(image, rows), image.dtype, image.shape[2], ranks)
    in_order = np.sort(image.reshape(count, -1).astype(np.float64), axis=0)
    np.testing.assert_array_equal(found, in_order[ranks].T)


@settings(deadline=None)
@given(images(), st.integers(1, 5), st.sampled_from(METHODS))
def test_scale_and_shift_are_those_of_the_whole(image: Any, rows: int, method: str) -> None:
    if method == "imagenet" and image.shape[2] != 3:
        return
    top = white(image.dtype)
    found = affine_of(passes(image, rows), image.shape, image.dtype, method, top=top)
    for mine, whole in zip(found, affine(image, method, top=top), strict=True):
        assert mine.dtype == np.float32
        assert mine.shape == whole.shape
        if method == "zscore":  # sums in another order
            np.testing.assert_allclose(mine, whole, rtol=1e-6)
        else:
            np.testing.assert_array_equal(mine, whole)


@given(images(), st.integers(1, 5), st.sampled_from(["zscore", "unit", "percentile"]))
def test_how_the_image_is_cut_changes_no_bit(image: Any, rows: int, method: str) -> None:
    found, whole = (
        affine_of(passes(lying, cut), image.shape, image.dtype, method)
        for lying, cut in ((image, rows), (np.asfortranarray(image), len(image)))
    )
    np.testing.assert_array_equal(found, whole)


def test_long_rows_are_summed_alike_in_any_band() -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 1000, 1), (1000, 5, 2), (300, 301, 3)):
        image = rng.gamma(2, 20, shape).astype(np.float32)
        cuts = (1, 2, 33, len(image))
        found = {
            np.stack(affine_of(passes(image, rows), shape, image.dtype, "zscore")).tobytes() for rows in cuts
        }
        assert len(found) == 1


@given(images(), st.integers(1, 5))
def test_mean_and_deviation_of_whole_numbers_are_exact(image: Any, rows: int) -> None:
    if image.dtype == np.float32:
        return
    scale, shift = affine_of(passes(image, rows), image.shape, image.dtype, "zscore")
    for channel in range(image.shape[2]):
        values = [Fraction(int(value)) for value in image[..., channel].ravel()]
        mean = sum(values, Fraction(0)) / len(values)
        variance = sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values)
        deviation = math.sqrt(variance)
        assert scale[channel] == np.float32(1 / deviation if deviation else 0)
        assert shift[channel] == np.float32(-float(mean) * (1 / deviation if deviation else 0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_of_an_image_as_microscopes_give_it(dtype: Any, method: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.gamma(2, 20, (301, 257, 3)) + np.array([10, 0, 60])
    image = (image / 255).astype(dtype) if dtype is np.float32 else image.clip(0, 255).astype(dtype)
    whole = affine(image, method, top=white(image.dtype))
    found = affine_of(passes(image, 64), image.shape, image.dtype, method, top=white(image.dtype))
    for mine, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-7 if method == "zscore" else 0)


def test_a_deviation_that_is_small_beside_its_mean() -> None:
    image = (1e6 + np.random.default_rng(0).random((500, 64, 1))).astype(np.float32)
    scale, shift = affine_of(passes(image, 7), image.shape, image.dtype, "zscore")
    assert scale[0] * image.astype(np.float64).std() == pytest.approx(1, rel=1e-6)
    assert shift[0] / scale[0] == pytest.approx(-image.astype(np.float64).mean(), rel=1e-6)


@pytest.mark.parametrize("method", ["zscore", "unit", "percentile"])
def test_a_constant_channel_becomes_0_and_a_sparse_one_does_not(method: str) -> None:
    image = np.full((20, 20, 2), 7, np.uint8)
    image[3, 4, 1] = 200
    scale, shift = affine_of(passes(image, 6), image.shape, image.dtype, method)
    out = image * scale + shift
    assert not out[..., 0].any()
    assert np.ptp(out[..., 1]) >= 1


def test_imagenet_wants_colour() -> None:
    gray = np.zeros((4, 4, 1), np.uint8)
    with pytest.raises(InputError, match="needs RGB images, not 1 channels"):
        affine_of(passes(gray, 2), gray.shape, gray.dtype, "imagenet")
