"""Prediction: tiles cover the image, blend to the whole, and leave the network as it was."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.infer import Predictor, gaussian, starts

CPU = torch.device("cpu")


def pointwise(axes: int, outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return (nn.Conv2d, nn.Conv3d)[axes - 2](3, outputs, 1)


def predictor(network: nn.Module, tile: int, overlap: float = 0.25, head="sigmoid", dtype=None) -> Predictor:
    return Predictor(network, head, CPU, dtype, tile, overlap)


class Recorder(nn.Module):
    """Passes images on, and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(x.shape[2:]))
        self.modes.append(self.training)
        return x


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(26, 35), (16, 61), (5, 33), (17, 17), (1, 40), (10, 20, 18), (40, 3, 5)])
def test_tiles_of_a_pointwise_network_blend_to_the_whole(shape, overlap):
    network = pointwise(len(shape))
    image = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(image)
    found = predictor(network, 16, overlap).logits(image)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_what_fits_is_predicted_at_once():
    network = Recorder()
    image = torch.randn(1, 2, 16, 12)
    assert torch.equal(predictor(network, 16).logits(image), image)
    assert network.sizes == [(16, 12)]


def test_what_does_not_fit_is_predicted_in_tiles_no_longer_than_asked():
    network = Recorder()
    image = torch.randn(1, 1, 40, 12)
    torch.testing.assert_close(predictor(network, 16).logits(image), image)
    assert set(network.sizes) == {(16, 12)}
    assert len(network.sizes) == 3  # steps of 12 from 0 to 24


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 0.99))
def test_tiles_cover_every_pixel_and_overlap_enough(length, tile, overlap):
    extent = min(length, tile)
    found = starts(length, extent, overlap)
    assert found[0] == 0
    assert found[-1] + extent == length
    steps = [b - a for a, b in pairwise(found)]
    assert all(0 < step <= max(1, extent * (1 - overlap)) for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1  # evenly


def test_each_axis_has_tiles_of_its_own():
    network = predictor(Recorder(), 5)
    assert network.grid((10, 5)) == ([5, 5], [[0, 2, 5], [0]])
    assert network.grid((4, 12)) == ([4, 5], [[0], [0, 2, 5, 7]])


@pytest.mark.parametrize("size", [[1], [8], [1, 5], [16, 32], [4, 6, 8], [512, 512]])
def test_weights_are_symmetric_highest_in_the_middle_and_nowhere_0(size):
    weight = gaussian(size, CPU)
    assert list(weight.shape) == size
    assert weight.min() > 0
    assert weight.max() <= 1
    assert weight[tuple(n // 2 for n in size)] == weight.max()
    torch.testing.assert_close(weight, weight.flip(tuple(range(len(size)))))


@pytest.mark.parametrize("tile", [8, 64])
@pytest.mark.parametrize("training", [True, False])
def test_predicts_in_evaluation_mode_and_restores_the_mode(tile, training):
    network = Recorder().train(training)
    predictor(network, tile).logits(torch.zeros(1, 1, 16, 16))
    assert not any(network.modes)
    assert network.training == training


def test_restores_the_mode_when_the_network_fails():
    network = Failing().train()
    with pytest.raises(ValueError, match="no"):
        predictor(network, 64).logits(torch.zeros(1, 1, 16, 16))
    assert network.training


@pytest.mark.parametrize("tile", [8, 64])
def test_probabilities_are_of_the_foreground(tile):
    network, image = pointwise(2, outputs=3), torch.randn(1, 3, 12, 20)
    with torch.no_grad():
        logits = network(image)
    exclusive = predictor(network, tile, head="softmax").probability(image)
    torch.testing.assert_close(exclusive, logits.softmax(1)[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        predictor(network, tile).probability(image), logits.sigmoid(), atol=1e-5, rtol=1e-5
    )


def test_half_precision_comes_back_as_float32():
    network, image = pointwise(2), torch.randn(1, 3, 16, 16)
    found = predictor(network, 8, dtype=torch.bfloat16).logits(image)
    exact = predictor(network, 8).logits(image)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)


class Reckoning(Recorder):
    """Remembers whether float32 was float32 in its forward, and can fail."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.full: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.full.append(not any(hasty()))
        if self.fails:
            raise ValueError("no")
        return x


def hasty() -> list[bool]:
    """For each kind of operation on CUDA, whether it may be reckoned in TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return [operation.fp32_precision == "tf32" for operation in (cudnn.conv, matmul)]
    return [cudnn.allow_tf32, matmul.allow_tf32]


@pytest.mark.parametrize("tile", [8, 64])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_float32_is_full_float32_and_only_while_the_network_runs(tile, dtype):
    before = hasty()
    assert before[0]  # as PyTorch has it, convolutions on CUDA are reckoned in TF32
    network, image = Reckoning(), torch.zeros(1, 1, 16, 16)
    predictor(network, tile, dtype=dtype).logits(image)
    for _ in predictor(network, tile, dtype=dtype).rows(
        lambda first, last: image[:, :, first:last], (16, 16), lambda: None
    ):
        assert hasty() == before
    assert hasty() == before
    assert set(network.full) == {dtype is None}
    with pytest.raises(ValueError, match="no"):
        predictor(Reckoning(fails=True), tile, dtype=dtype).logits(image)
    assert hasty() == before


def test_rows_are_the_whole_to_within_rounding():
    torch.manual_seed(0)
    network = nn.Conv2d(2, 3, 3, padding=1)
    image = torch.randn(1, 2, 50, 37)
    one = predictor(network, 16, head="softmax")
    found = torch.cat(
        list(one.rows(lambda first, last: image[:, :, first:last], (50, 37), lambda: None)), dim=2
    )
    torch.testing.assert_close(found, one.probability(image), rtol=0, atol=1e-6)
