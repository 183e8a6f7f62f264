"""Lesion recall: shapes counted by hand, a flood fill, scikit-image, valid pixels."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from torch import Tensor

from engine.metrics import lesion_recall


def drawn(rows: list[str]) -> Tensor:
    """A mask from text, # for true."""
    return torch.tensor([[c == "#" for c in row] for row in rows])[None, None]


def noise(seed: int, shape: tuple[int, ...], share: float) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def counts(prediction: Tensor, truth: Tensor, valid: Tensor | None = None) -> tuple[int, int]:
    detected, total = lesion_recall(prediction, truth, valid=valid)
    assert detected.dtype == total.dtype == torch.int64
    assert detected.shape == total.shape == truth.shape[:2]
    return int(detected), int(total)


def flooded(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Detected and all lesions of one mask, pixel after pixel."""
    left = set(map(tuple, np.argwhere(truth)))
    detected = total = 0
    while left:
        lesion, new = set(), {left.pop()}
        while new:
            pixel = new.pop()
            lesion.add(pixel)
            near = {tuple(np.add(pixel, step)) for step in product((-1, 0, 1), repeat=truth.ndim)} & left
            left -= near
            new |= near
        total += 1
        detected += any(prediction[pixel] for pixel in lesion)
    return detected, total


def test_by_hand() -> None:
    truth = drawn(["##...#", "##....", "...#..", "#...#.", "......"])
    # The square, the corner, the diagonal and the pixel at the left: four.
    assert counts(torch.zeros_like(truth), truth) == (0, 4)
    assert counts(truth, truth) == (4, 4)
    assert counts(drawn([".#....", "......", "......", "....##", "......"]), truth) == (2, 4)
    beside = drawn(["..#.#.", "..#...", "##....", ".#....", "######"])
    assert counts(beside, truth) == (0, 4)
    assert counts(torch.ones_like(truth), truth) == (4, 4)


def test_neighbours_share_a_corner_in_3d_too() -> None:
    truth = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    truth[0, 0, 0, 0, 0] = truth[0, 0, 1, 1, 1] = truth[0, 0, 3, 3, 3] = True
    found = torch.zeros_like(truth)
    found[0, 0, 1, 1, 1] = True
    assert counts(found, truth) == (1, 2)


def test_no_lesions_are_no_detections() -> None:
    empty = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    assert counts(~empty, empty) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 1, 9, 12), (2, 3, 8, 7), (1, 2, 4, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_agrees_with_a_flood_fill_and_with_scikit_image(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    dense = 0.12 if len(shape) == 5 else 0.3
    prediction, truth = noise(1, shape, 0.3), noise(2, shape, dense)
    detected, total = lesion_recall(prediction.to(dtype), truth.to(dtype))
    for b, c in np.ndindex(*shape[:2]):
        p, y = prediction[b, c].numpy(), truth[b, c].numpy()
        component = label(y, connectivity=y.ndim)
        both = flooded(p, y)
        assert both == (len(set(component[p & y])), component.max())
        assert (int(detected[b, c]), int(total[b, c])) == both
    assert total.sum() > 4  # and not one that fills all


def test_invalid_pixels_are_background() -> None:
    prediction, truth = noise(3, (1, 1, 12, 20), 0.3), noise(4, (1, 1, 12, 20), 0.3)
    valid = torch.zeros(1, 1, 12, 20, dtype=torch.bool)
    valid[..., :9] = True
    assert counts(prediction, truth, valid) == counts(prediction[..., :9], truth[..., :9])
    assert counts(prediction, truth, torch.zeros_like(valid)) == (0, 0)
    # A lesion found only where nothing counts is missed, and one cut in two counts twice.
    bar = drawn(["#######"])
    cut = drawn(["###.###"])
    assert counts(drawn(["...#..."]), bar, cut) == (0, 2)
    assert counts(drawn(["...##.."]), bar, cut) == (1, 2)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), classes=st.permutations([0, 1, 2]), turns=st.integers(0, 3))
def test_order_and_turns_change_nothing_and_more_pixels_never_lose_a_lesion(
    seed: int, classes: list[int], turns: int
) -> None:
    prediction, truth = noise(seed, (2, 3, 7, 8), 0.2), noise(seed + 1, (2, 3, 7, 8), 0.25)
    detected, total = lesion_recall(prediction, truth)
    assert ((detected >= 0) & (detected <= total)).all()
    turned = lesion_recall(
        prediction[:, classes].rot90(turns, (2, 3)), truth[:, classes].rot90(turns, (2, 3))
    )
    assert torch.equal(turned.detected, detected[:, classes])
    assert torch.equal(turned.total, total[:, classes])
    more = lesion_recall(prediction | noise(seed + 2, prediction.shape, 0.1), truth)
    assert (more.detected >= detected).all()
    assert torch.equal(more.total, total)
