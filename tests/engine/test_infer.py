"""Prediction: tiles cover the image, blend to the whole, and leave the network as it was."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from engine import infer, tiles
from engine.infer import Predictor, gaussian
from engine.tiles import extents, starts

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
    for _ in predictor(network, tile, dtype=dtype).blocks(lambda box: image[(..., *box)], (16, 16)):
        assert hasty() == before
    assert hasty() == before
    assert set(network.full) == {dtype is None}
    with pytest.raises(ValueError, match="no"):
        predictor(Reckoning(fails=True), tile, dtype=dtype).logits(image)
    assert hasty() == before


def together(one: Predictor, image: torch.Tensor, **given: Any) -> Any:
    """The blocks of an image (1, channels, *S) in their places; NaN where none came."""
    shape = tuple(image.shape[2:])
    whole: Any = None
    for box, p in one.blocks(lambda box: image[(slice(None), slice(None), *box)].clone(), shape, **given):
        whole = np.full((len(p), *shape), np.nan, np.float32) if whole is None else whole
        assert p.shape[1:] == extents(box)
        assert np.isnan(whole[(slice(None), *box)]).all()  # each comes once
        whole[(slice(None), *box)] = p
    return whole


def conv(axes: int, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return (nn.Conv2d, nn.Conv3d)[axes - 2](2, outputs, 3, padding=1)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("shape", [(50, 37), (16, 90), (9, 12), (33, 20, 18), (8, 40, 9)])
def test_blocks_are_the_whole_to_within_rounding(shape, overlap):
    one, image = predictor(conv(len(shape)), 16, overlap, head="softmax"), noise(*shape)
    torch.testing.assert_close(
        torch.from_numpy(together(one, image))[None], one.probability(image), rtol=0, atol=1e-6
    )


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(1, 18), min_size=2, max_size=3),
    st.integers(6, 13),
    st.floats(0, 0.6),
    st.integers(2, 15),
    st.integers(0, 3),
    st.data(),
)
def test_any_rows_of_blocks_are_bit_for_bit_those_of_the_whole(shape, tile, overlap, unit, budget, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "UNITS", {2: unit, 3: unit})
        one, image = predictor(conv(len(shape), 1), tile, overlap), noise(*shape)
        whole = together(one, image)
        expected = one.probability(image)
        torch.testing.assert_close(torch.from_numpy(whole)[None], expected, rtol=0, atol=1e-6)
        height = min(unit, shape[0])
        rows = -(-shape[0] // height)
        first = data.draw(st.integers(0, rows - 1))
        last = data.draw(st.integers(first + 1, rows))
        # With what is in memory as little as can be.
        patch.setattr(infer, "BUDGET", budget * 4 * height)
        ticks: list[None] = []
        part = together(one, image, rows=(first, last), ticked=lambda: ticks.append(None))
        given = slice(first * height, last * height)
        np.testing.assert_array_equal(part[:, given], whole[:, given])
        assert np.isnan(part[:, : given.start]).all()
        assert np.isnan(part[:, given.stop :]).all()
        assert len(ticks) == one.count(tuple(shape), (first, last)) <= one.count(tuple(shape))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_blocks_on_a_gpu_are_those_of_a_cpu() -> None:
    network, image = conv(2, 2), noise(90, 70)
    expected = together(predictor(network, 16), image)
    there = Predictor(network.to("cuda"), "sigmoid", torch.device("cuda"), None, 16, 0.25)
    np.testing.assert_allclose(together(there, image), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(together(there, image, rows=(0, 1)), together(there, image))


def test_rows_of_blocks_come_one_after_the_other_and_no_tile_too_many(monkeypatch):
    monkeypatch.setattr(tiles, "UNITS", {2: 8})
    network = Recorder()
    image = torch.randn(1, 1, 100, 60)
    blocks = predictor(network, 16).blocks(lambda box: image[(..., *box)], (100, 60))
    rows = [box[0].start // 8 for box, _ in blocks]
    assert sorted(rows) == [row for row in range(13) for _ in range(8)]
    ends = [max(at for at, row in enumerate(rows) if row == number) for number in range(13)]
    assert ends == sorted(ends)
    assert len(network.sizes) == 8 * 5
    network.sizes.clear()
    blocks = predictor(network, 16).blocks(lambda box: image[(..., *box)], (100, 60))
    next(blocks)
    assert len(network.sizes) == 1  # a block is given as soon as no tile is to come that has a part of it
    blocks.close()
    assert network.training


@pytest.mark.parametrize("shape", [(80, 104), (56, 32, 80)])
def test_tiles_weights_and_sums_are_those_of_monai(shape):
    # Of these lengths MONAI's tiles, which end with the image and else lie apart by a step, lie evenly too.
    one, image = predictor(conv(len(shape), 2), 32), noise(*shape)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image, (32,) * len(shape), 1, one.network, overlap=0.25, mode="gaussian",
            roi_weight_map=gaussian([32] * len(shape), CPU),
        )  # fmt: skip
    torch.testing.assert_close(one.logits(image), theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(together(one, image), theirs[0].sigmoid().numpy(), rtol=0, atol=1e-6)
