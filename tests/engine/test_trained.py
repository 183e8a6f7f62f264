"""A trained run predicts what training saw."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from engine.config import RunConfig
from engine.data.specs import Data
from engine.data.store import IGNORED, Sample, fill
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
