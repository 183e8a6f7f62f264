"""clDice on hard skeletons: shapes whose skeletons are known, empty masks, valid pixels."""

import numpy as np
import pytest
import torch
from skimage.morphology import skeletonize
from torch import Tensor

from engine.metrics import cldice


def image(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(mask)[None, None]


def bar(shape: tuple[int, ...], *box: slice) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[box] = True
    return mask


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth blobs and bridges."""
    draw = np.random.default_rng(seed).random(shape)
    for axis in range(draw.ndim):
        draw = draw + np.roll(draw, 1, axis) + np.roll(draw, -1, axis)
    return np.asarray(draw > np.quantile(draw, 0.6))


def test_half_a_line_by_hand() -> None:
    """Lines of one pixel are their own skeletons."""
    truth = bar((5, 12), slice(2, 3), slice(1, 11))
    prediction = bar((5, 12), slice(2, 3), slice(1, 6))
    # The whole predicted line lies in the truth, and half of the true one is found.
    assert cldice(image(prediction), image(truth)).item() == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_too_thick_keeps_the_centreline() -> None:
    truth = bar((9, 30), slice(4, 5), slice(2, 28))
    thick = bar((9, 30), slice(3, 6), slice(2, 28))
    assert cldice(image(thick), image(truth)).item() > 0.95


def test_a_gap_costs_more_than_a_thin_wall() -> None:
    """What the metric is for: a gap hurts it, a wall eaten away does not."""
    truth = bar((9, 40), slice(2, 7), slice(2, 38))
    thin = bar((9, 40), slice(3, 6), slice(2, 38))
    gap = truth.copy()
    gap[:, 15:25] = False
    assert cldice(image(thin), image(truth)).item() > 0.95
    assert cldice(image(gap), image(truth)).item() < 0.9


@pytest.mark.parametrize("shape", [(8, 9), (4, 8, 9)])
def test_empty_masks(shape: tuple[int, ...]) -> None:
    empty = torch.zeros(1, 1, *shape, dtype=torch.bool)
    full = ~empty
    assert cldice(empty, empty).isnan().all()
    assert cldice(empty, full).item() == 0
    assert cldice(full, empty).item() == 0
    assert cldice(full, full).item() == 1
    apart = torch.zeros_like(empty)
    apart[..., 0, 0] = True
    other = torch.zeros_like(empty)
    other[..., 4, 4] = True
    assert cldice(apart, other).item() == 0


@pytest.mark.parametrize("shape", [(30, 40), (12, 14, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_its_definition(shape: tuple[int, ...], seed: int) -> None:
    prediction, truth = noise(seed, shape), noise(seed + 10, shape)
    lines = skeletonize(prediction), skeletonize(truth)
    precise = (lines[0] & truth).sum() / lines[0].sum()
    sensitive = (lines[1] & prediction).sum() / lines[1].sum()
    value = cldice(image(prediction), image(truth))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(2 * precise * sensitive / (precise + sensitive))


def test_images_and_classes_are_apart() -> None:
    masks = np.stack([noise(seed, (20, 24)) for seed in range(12)]).reshape(2, 2, 3, 20, 24)
    prediction, truth = torch.from_numpy(masks)
    together = cldice(prediction, truth)
    assert together.shape == (2, 3)
    for b, c in np.ndindex(2, 3):
        alone = cldice(prediction[b : b + 1, c : c + 1], truth[b : b + 1, c : c + 1])
        assert together[b, c] == alone


def test_invalid_pixels_are_background() -> None:
    prediction, truth = image(noise(0, (20, 24))), image(noise(1, (20, 24)))
    valid = torch.zeros(1, 1, 20, 24, dtype=torch.bool)
    valid[..., :15] = True
    cropped = cldice(prediction[..., :15], truth[..., :15])
    assert cldice(prediction, truth, valid=valid).item() == cropped.item()
    assert cldice(prediction, truth, valid=torch.zeros_like(valid)).isnan().all()


def test_a_tube_that_thinning_deletes_still_has_a_score() -> None:
    """scikit-image leaves nothing of a 3D tube of even width."""
    tube = bar((8, 8, 30), slice(2, 4), slice(2, 4), slice(2, 28))
    half = bar((8, 8, 30), slice(2, 4), slice(2, 4), slice(2, 15))
    assert not skeletonize(tube).any()
    assert cldice(image(tube), image(tube)).item() == 1
    assert cldice(image(half), image(tube)).item() == pytest.approx(2 / 3)
