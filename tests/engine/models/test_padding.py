"""Padding to what a network takes, and cropping back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import draw
from torch import Tensor

from engine.models.padding import crop, pad


def test_nothing_is_padded_that_fits() -> None:
    image = draw(1, 2, 32, 48)
    assert pad(image, 16) is image


def test_padding_repeats_the_edge_and_leaves_the_coarsest_map_two_elements() -> None:
    image = draw(1, 2, 5, 40)
    padded = pad(image, 16)
    assert padded.shape == (1, 2, 32, 48)
    assert torch.equal(padded[..., :5, :40], image)
    assert torch.equal(padded[..., 31, :40], image[..., 4, :])
    assert torch.equal(padded[..., :5, 47], image[..., 39])
    volume = pad(draw(1, 1, 3, 5, 9), 4)
    assert volume.shape == (1, 1, 8, 8, 12)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    multiple=st.sampled_from([1, 2, 4, 16, 32]),
)
def test_any_size_is_padded_to_the_least_that_fits_and_cropped_back(sizes: list[int], multiple: int) -> None:
    image = torch.arange(torch.Size(sizes).numel(), dtype=torch.float32).reshape(1, 1, *sizes)
    padded = pad(image, multiple)
    for size, new in zip(sizes, padded.shape[2:], strict=True):
        assert new % multiple == 0
        assert new >= 2 * multiple
        assert new >= size
        assert new - multiple < max(size, multiple + 1)
    assert torch.equal(crop(padded, image), image)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_stays(kind: torch.dtype) -> None:
    image: Tensor = draw(2, 1, 3, 3).to(kind)
    assert pad(image, 4).dtype == kind
