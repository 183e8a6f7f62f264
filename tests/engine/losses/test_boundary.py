"""Boundary loss: distances by hand and by brute force, values, gradients, valid pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.losses.boundary import boundary, signed_distance


def test_distance_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1, 1, 0, 0]], bool)
    np.testing.assert_array_equal(signed_distance(mask), [[2, 1, 0, -1, 0, 1, 2]])
    # Inside, one unit of the spacing is subtracted, whatever the spacing.
    np.testing.assert_array_equal(signed_distance(mask, (1, 2)), [[4, 2, -1, -3, -1, 2, 4]])
    assert signed_distance(mask).dtype == np.float64


def by_brute_force(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    distance = np.zeros(mask.shape)
    for at in np.ndindex(*mask.shape):
        others = outside if mask[at] else inside
        nearest = np.linalg.norm((others - at) * spacing, axis=1).min()
        distance[at] = -(nearest - 1) if mask[at] else nearest
    return distance


@pytest.mark.parametrize(
    ("space", "spacing"),
    [((9, 7), None), ((9, 7), (2.5, 1.0)), ((4, 5, 6), None), ((4, 5, 6), (5.0, 1.0, 1.0))],
)
@pytest.mark.parametrize("share", [0.03, 0.5, 0.97])
def test_distance_by_brute_force(
    space: tuple[int, ...], spacing: tuple[float, ...] | None, share: float
) -> None:
    mask = np.random.default_rng(1).random(space) < share
    mask.flat[0], mask.flat[-1] = True, False
    expected = by_brute_force(mask, spacing or (1.0,) * len(space))
    np.testing.assert_allclose(signed_distance(mask, spacing), expected)


@pytest.mark.parametrize("space", [(1, 1), (6, 7), (3, 4, 5)])
@pytest.mark.parametrize("fill", [False, True])
def test_a_mask_without_a_boundary_has_no_distance(space: tuple[int, ...], fill: bool) -> None:
    distance = signed_distance(np.full(space, fill))
    assert distance.shape == space
    assert (distance == 0).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_a_mask_of_zeros_and_ones_has_the_distances_of_the_bool_one(kind: type) -> None:
    mask = np.random.default_rng(3).random((9, 7)) < 0.5
    np.testing.assert_array_equal(signed_distance(mask.astype(kind)), signed_distance(mask))


def test_boundary_by_hand() -> None:
    phi = torch.tensor([[[[2.0, 1.0], [0.0, -1.0]]]])
    p = torch.tensor([[[[0.1, 0.2], [0.9, 0.8]]]])
    assert boundary(p, phi).item() == pytest.approx((0.2 + 0.2 - 0.8) / 4)
    valid = torch.tensor([[[[False, True], [True, True]]]])
    assert boundary(p, phi, valid=valid).item() == pytest.approx((0.2 - 0.8) / 3)
    assert boundary(p, phi, valid=~valid & False).item() == 0


def test_the_truth_is_among_the_best_predictions() -> None:
    mask = np.random.default_rng(2).random((12, 13)) < 0.3
    phi = torch.from_numpy(signed_distance(mask))[None, None]
    best = boundary(torch.from_numpy(mask)[None, None].double(), phi).item()
    assert best == pytest.approx(np.minimum(phi.numpy(), 0).mean())
    assert boundary(torch.rand(1, 1, 12, 13, dtype=torch.float64), phi).item() > best


@pytest.mark.parametrize("space", [(3, 4), (2, 3, 3)])
def test_gradient(space: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(2, 2, *space, generator=draw, dtype=torch.float64, requires_grad=True)
    phi = torch.randn(2, 2, *space, generator=draw)
    valid = torch.rand(2, 1, *space, generator=draw) < 0.7
    assert torch.autograd.gradcheck(lambda p: boundary(p, phi, valid=valid), (p,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    p = torch.ones(1, 1, 512, 512, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = boundary(p, torch.full((1, 1, 512, 512), 300.0))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(300)


def test_distances_as_they_are_measured_do_not_widen_the_loss() -> None:
    phi = torch.from_numpy(signed_distance(np.eye(6, dtype=bool)))[None, None]
    loss = boundary(torch.full((1, 1, 6, 6), 0.25), phi)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.25 * phi.mean().item())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), classes=st.permutations([0, 1, 2]), cut=st.integers(1, 5))
def test_crop_permutation_and_depth(seed: int, classes: list[int], cut: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    p, phi = torch.rand(2, 3, 4, 6, generator=draw), torch.randn(2, 3, 4, 6, generator=draw)
    valid = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    valid[..., :cut] = True
    close = torch.testing.assert_close
    loss = boundary(p, phi)
    assert loss.shape == (2, 3)
    close(
        boundary(p, torch.where(valid, phi, torch.nan), valid=valid), boundary(p[..., :cut], phi[..., :cut])
    )
    close(boundary(p[:, classes], phi[:, classes]), loss[:, classes])
    close(boundary(p.unsqueeze(2), phi.unsqueeze(2)), loss)
