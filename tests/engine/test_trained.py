"""A trained run predicts what training saw."""

import json
import math
import shutil
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from engine import checkpoint, fingerprint
from engine.config import RunConfig
from engine.data.specs import Data
from engine.data.store import IGNORED, Sample, fill, resized
from engine.infer import Predictor
from engine.models.unet import UNet
from engine.trained import Trained

METHODS = get_args(Data.model_fields["normalization"].annotation)
CPU = torch.device("cpu")


def case(dtype: Any, shape: tuple[int, int]) -> Sample:
    """An image with a darker outside of its field of view, some labels ignored, odd sizes."""
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    image = (rng.random((*shape, 3)) * top).astype(dtype)
    labels = rng.integers(0, 2, shape).astype(np.uint8)
    labels[:4] = IGNORED
    valid = np.ones(shape, dtype=bool)
    valid[:, :6] = False
    image[~valid] //= 7
    return Sample("case", image, labels, valid)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("size", [None, (40, 44)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("method", METHODS)
def test_predicts_as_validation_does(method: str, dtype: Any, size: Any, norm: Any) -> None:
    sample = case(dtype, (37, 45))
    data = Data(normalization=method, size=size)
    torch.manual_seed(0)
    predictor = Predictor(UNet(3, 1, base_width=4, depth=3, norm=norm), "sigmoid", CPU, None, 1024, 0.25)
    store = fill([sample], 1, data, None)
    seen = store.read(store.whole([0]), torch.tensor([0]), CPU)
    height, width = store.extents[0].tolist()
    validated = predictor.probability(seen.image)[0, :, :height, :width].numpy()
    trained = Trained(Path(), RunConfig(data=data), {}, ("vessel",), predictor, 1, "last")
    found = trained.probability(sample.image, native=False)
    # Other kinds than uint8 are kept in half precision.
    np.testing.assert_allclose(found, validated, atol=1e-6 if dtype is np.uint8 else 2e-3)


def by_tiles(model: nn.Module, image: Any, tile: int, overlap: float) -> Any:
    """Probabilities (*S) of an image or volume (*S) that is normalised by its mean and deviation: each tile's
    logits weighted by a Gaussian of an eighth of its sides, all added up over the whole and divided."""
    seen = ((image - image.mean()) / image.std()).astype(np.float32)
    sides = [min(tile, length) for length in image.shape]
    corners = []
    for length, side in zip(image.shape, sides, strict=True):
        count = 1 + math.ceil((length - side) / int(side * (1 - overlap)))
        corners.append([round(number * (length - side) / max(1, count - 1)) for number in range(count)])
    along = [np.arange(side) - (side - 1) / 2 for side in sides]
    distance = sum((axis / (side / 8)) ** 2 for axis, side in zip(np.ix_(*along), sides, strict=True))
    weight = np.maximum(np.exp(-distance / 2), 1e-4)
    sums, weights = np.zeros(image.shape), np.zeros(image.shape)
    model.eval()
    for corner in product(*corners):
        box = tuple(slice(first, first + side) for first, side in zip(corner, sides, strict=True))
        with torch.no_grad():
            logits = model(torch.from_numpy(seen[box].copy())[None, None])[0, 0].numpy()
        sums[box] += weight * logits
        weights[box] += weight
    return 1 / (1 + np.exp(-sums / weights))


def volume_run(tile: int = 16, **data: Any) -> Trained:
    """A run on volumes of one channel, with weights by chance."""
    torch.manual_seed(0)
    model = UNet(1, 1, base_width=4, depth=2, spatial_dims=3)
    with torch.no_grad():  # surer of itself, so that differences show
        model.head.weight.mul_(20)
        model.head.bias.zero_()
    predictor = Predictor(model, "sigmoid", CPU, None, tile, 0.25)
    info = {"dataset": {"channels": 1, "dims": 3}}
    return Trained(Path(), RunConfig(data=Data(**data)), info, ("lesion",), predictor, 1, "last")


@pytest.mark.parametrize("shape", [(20, 41, 30), (9, 16, 33), (12, 8, 10)])
def test_a_volume_is_predicted_by_tiles(shape: tuple[int, ...]) -> None:
    volume = np.random.default_rng(0).normal(50, 20, shape).astype(np.float32)
    trained = volume_run()
    found = trained.probability(volume[..., None])
    assert (found.shape, found.dtype) == ((1, *shape), np.float32)
    np.testing.assert_allclose(found[0], by_tiles(trained.predictor.network, volume, 16, 0.25), atol=1e-5)
    assert np.ptp(found) > 0.01


def test_a_volume_that_is_resampled_is_predicted_at_its_own_size() -> None:
    volume = np.random.default_rng(0).normal(50, 20, (12, 40, 37)).astype(np.float32)
    trained, spacing = volume_run(spacing=(2.0, 1.0, 1.0)), (2.0, 0.5, 0.5)
    small = resized(volume[..., None], (12, 20, 18), labels=False)[..., 0]
    seen = by_tiles(trained.predictor.network, small, 16, 0.25)
    coarse = trained.probability(volume[..., None], native=False, spacing=spacing)
    np.testing.assert_allclose(coarse[0], seen, atol=1e-5)
    # Linearly between the centres of voxels, as they lie in the volume.
    expected = ndimage.zoom(seen, (1, 2, 37 / 18), order=1, mode="nearest", grid_mode=True)
    found = trained.probability(volume[..., None], spacing=spacing)
    assert found.shape == (1, 12, 40, 37)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    # One whose voxels have that size already is taken as it is.
    np.testing.assert_array_equal(
        trained.probability(volume[..., None], spacing=(2.0, 1.0, 1.0)),
        volume_run().probability(volume[..., None]),
    )


class Sure(nn.Module):
    """Says everywhere that it is there."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :1], 100.0)


@pytest.mark.parametrize("size", [(8, 16), (40, 8), (40, 16), (40, 40)])
def test_what_is_resized_stays_a_probability(size: tuple[int, int]) -> None:
    # Of ones of these sizes, PyTorch's bilinear resizing makes 1 + 2^-23 on the usual processors.
    predictor = Predictor(Sure(), "sigmoid", CPU, None, 64, 0.25)
    trained = Trained(Path(), RunConfig(data=Data(size=size)), {}, ("vessel",), predictor, 1, "last")
    found = trained.probability(np.zeros((37, 50, 1), np.uint8))
    assert found.shape == (1, 37, 50)
    assert found.max() == 1
    assert found.min() > 0.999999


@pytest.mark.parametrize("dtype", [np.float64, np.int32, ">u2", bool])
def test_other_kinds_of_images_are_what_reading_makes_of_them(dtype: Any) -> None:
    image = (np.random.default_rng(0).random((20, 30, 1)) * 2).astype(dtype)
    trained = Trained(
        Path(), RunConfig(), {}, ("vessel",),
        Predictor(nn.Conv2d(1, 1, 3, padding=1), "sigmoid", CPU, None, 64, 0.25), 1, "last",
    )  # fmt: skip
    as_read = {bool: image.astype(np.uint8) * np.uint8(255), ">u2": image.astype(np.uint16)}
    expected = trained.probability(as_read.get(dtype, image.astype(np.float32)))
    np.testing.assert_array_equal(trained.probability(image), expected)


def test_what_predicts_is_said_in_plain_values_that_survive_a_file(finished: Path) -> None:
    trained = Trained.open(finished, device="cpu")
    found = trained.predicted()
    assert (found.checkpoint, found.epoch) == (trained.file, trained.epoch)
    assert found.weights == fingerprint.weights(trained.predictor.network)
    assert json.loads(json.dumps(found.path)) == found.path
    expected = {
        "version": 2, "precision": "float32", "tile": 1024, "overlap": 0.25, "data.size": None,
        "data.normalization": "zscore", "size": "native", "head": "sigmoid",
        "classes": list(trained.classes), "channels": 1, "model.name": "unet", "model.base_width": 4,
    }  # fmt: skip
    assert found.path == {**found.path, **expected}
    assert not found.differs(Trained.open(finished, device="cpu").predicted("trained"))
    assert "tile 1024, and here it is 64" in found.differs(trained.tiled(64).predicted())


def test_sizes_differ_only_where_images_are_resized() -> None:
    predictor = Predictor(nn.Conv2d(1, 1, 1), "sigmoid", CPU, None, 64, 0.25)
    info = {"dataset": {"channels": 1}}
    for size, same in ((None, True), ((32, 40), False)):
        config = RunConfig(data=Data(size=size))
        trained = Trained(Path(), config, info, ("vessel",), predictor, 1, "last")
        native, small = (trained.predicted(which).path for which in ("native", "trained"))
        assert (native == small) is same
        assert native["data.size"] == (None if size is None else [32, 40])
        assert json.loads(json.dumps(native)) == native


def test_other_weights_of_the_same_network_are_told_apart(trained_run: Path) -> None:
    best = Trained.open(trained_run, device="cpu").predicted()
    shutil.copy(trained_run / "checkpoints" / "best", trained_run / "copy.pt")
    assert Trained.open(trained_run, str(trained_run / "copy.pt"), "cpu").predicted().weights == best.weights
    state = checkpoint.load(trained_run / "checkpoints" / "best")
    name = next(iter(state["model"]))
    state["model"][name] = torch.nextafter(state["model"][name], torch.tensor(9.0))
    checkpoint.save(trained_run / "checkpoints" / "last", state)
    assert "weights of best" in best.differs(Trained.open(trained_run, "last", "cpu").predicted())
