"""Miss-aware masks against shapes drawn by hand, scikit-image and the definition."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import diamond, dilation, octahedron

from engine.modulation import miss_aware_mask
from engine.modulation.dilation import dilate

PLANE = """
..#..
.###.
#####
.###.
..#..
"""
SLICES = ["..... ..... ..#.. ..... .....", "..... ..#.. .###. ..#.. .....", "..#.. .###. ##### .###. ..#.."]


def drawn(picture: str) -> torch.Tensor:
    return torch.tensor([[c == "#" for c in row] for row in picture.split()])


def point(*shape: int) -> torch.Tensor:
    """One element in the middle of bool (1, 1, *S)."""
    mask = torch.zeros((1, 1, *shape), dtype=torch.bool)
    mask[(0, 0, *[length // 2 for length in shape])] = True
    return mask


def test_a_pixel_becomes_a_diamond_of_13():
    grown = dilate(point(5, 5))
    assert grown.sum() == 13
    assert torch.equal(grown[0, 0], drawn(PLANE))


def test_a_voxel_becomes_an_octahedron_of_25():
    grown = dilate(point(5, 5, 5))
    assert grown.sum() == 25
    assert torch.equal(grown[0, 0], torch.stack([drawn(SLICES[i]) for i in (0, 1, 2, 1, 0)]))


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("shape", "footprint"), [((23, 31), diamond), ((9, 12, 15), octahedron)])
def test_equals_scikit_image(shape, footprint, radius):
    rng = np.random.default_rng(radius)
    masks = rng.random((2, 3, *shape)) < 0.01
    grown = dilate(torch.from_numpy(masks), radius)
    for image, expected in zip(masks.reshape(-1, *shape), grown.numpy().reshape(-1, *shape), strict=True):
        np.testing.assert_array_equal(dilation(image, footprint(radius)), expected)


@pytest.mark.parametrize("corner", [(0, 0), (0, 6), (4, 0), (4, 6)])
def test_outside_is_background(corner):
    mask = torch.zeros((1, 1, 5, 7), dtype=torch.bool)
    mask[(0, 0, *corner)] = True
    grown = dilate(mask)
    assert grown.sum() == 6  # a quarter of the diamond, with its axes: nothing wraps around
    assert grown[0, 0, corner[0], corner[1]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (1, 1, 3)])
def test_axes_shorter_than_the_diamond(shape):
    assert dilate(point(*shape)).sum() == min(5, shape[-1])


def test_the_argument_is_left_alone():
    mask = point(5, 5)
    dilate(mask)
    assert mask.sum() == 1


def test_only_what_is_missed_grows():
    truth = torch.zeros((1, 1, 9, 20), dtype=torch.bool)
    truth[0, 0, 4, 4] = truth[0, 0, 4, 14] = True
    prediction = torch.zeros_like(truth)
    prediction[0, 0, 4, 14] = True  # found
    prediction[0, 0, 0, 19] = True  # a false positive changes nothing
    grown = miss_aware_mask(truth, prediction)
    expected = torch.zeros_like(truth)
    expected[0, 0, 2:7, 2:7] = drawn(PLANE)
    expected[0, 0, 4, 14] = True
    assert torch.equal(grown, expected)


def test_nothing_leaks_into_another_class_or_image():
    truth = torch.zeros((2, 3, 7, 7), dtype=torch.bool)
    truth[0, 1, 3, 3] = True
    grown = miss_aware_mask(truth, torch.zeros_like(truth))
    assert grown[0, 1].sum() == 13
    assert grown.sum() == 13


def test_neither_misses_nor_growth_outside_the_valid_pixels():
    truth = torch.zeros((1, 2, 5, 12), dtype=torch.bool)
    truth[0, :, 2, 3] = True
    truth[0, 0, 2, 10] = True  # truth that is not valid is not missed
    valid = torch.ones((1, 1, 5, 12), dtype=torch.bool)
    valid[..., 4:] = False
    grown = miss_aware_mask(truth, torch.zeros_like(truth), valid=valid)
    expected = truth.clone()
    expected[0, :, :, 1:4] |= drawn(PLANE)[:, :3]
    assert torch.equal(grown, expected)


@st.composite
def masks(draw: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    shape = draw(st.lists(st.integers(1, 9), min_size=2, max_size=3))
    batch, classes = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    truth, prediction = (torch.from_numpy(rng.random((batch, classes, *shape)) < 0.3) for _ in range(2))
    return truth, prediction, torch.from_numpy(rng.random((batch, 1, *shape)) < 0.7), draw(st.integers(0, 4))


@settings(deadline=None, max_examples=60)
@given(masks())
def test_is_what_the_definition_says(case):
    truth, prediction, valid, radius = case
    grown = miss_aware_mask(truth, prediction, radius=radius, valid=valid)
    assert (grown >= truth).all()
    assert not (grown & ~truth & ~valid).any()
    missed = (truth & ~prediction & valid).numpy()
    for index in np.ndindex(missed.shape[:2]):
        # The L1 distance to the nearest miss says it without any dilation.
        far = ndimage.distance_transform_cdt(~missed[index], metric="taxicab")
        near = (far <= radius) & missed[index].any() & valid.numpy()[index[0], 0]
        np.testing.assert_array_equal(grown.numpy()[index], truth.numpy()[index] | near)


def test_refuses_probabilities_and_other_shapes():
    truth = point(4, 4)
    with pytest.raises(ValueError, match=r"must be bool, not torch.bool and torch.float32"):
        miss_aware_mask(truth, truth.float())
    with pytest.raises(ValueError, match="shapes differ"):
        miss_aware_mask(truth, truth[..., :1])
