"""Tubes, skeleton recall and soft clDice: by hand, by brute force, any size, gradients, valid pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses.cldice import soft_skel
from scipy import ndimage
from skimage.morphology import skeletonize
from torch import Tensor

from engine.losses import topology
from engine.losses.topology import half_width, skeleton_recall, soft_cldice, soft_skeleton, tubed_skeleton


def blobs(space: tuple[int, ...], seed: int, share: float = 0.3) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(space), 1.5)
    return noise > np.quantile(noise, 1 - share)


def plane(*rows: str) -> Tensor:
    return torch.tensor([[float(mark == "#") for mark in row] for row in rows])[None, None]


# Tubes


def test_a_tube_by_hand() -> None:
    mask = np.zeros((11, 15), bool)
    mask[2:9, 2:13] = True  # 7 rows: the centreline is the fifth row from above
    tube = tubed_skeleton(mask)
    assert tube.dtype == bool
    assert (tube[3:8, 7] == True).all()  # noqa: E712
    assert not tube[2, 7]
    assert not tube[8, 7]


@pytest.mark.parametrize("space", [(40, 33), (14, 17, 15)])
@pytest.mark.parametrize("seed", range(4))
def test_a_tube_is_what_is_near_the_skeleton(space: tuple[int, ...], seed: int) -> None:
    mask = blobs(space, seed)
    skeleton = skeletonize(mask)
    # The diamond is the ball of the L1 distance.
    near = ndimage.distance_transform_cdt(~skeleton, metric="taxicab") <= 2
    np.testing.assert_array_equal(tubed_skeleton(mask), near & mask)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_a_mask_of_zeros_and_ones_has_the_tube_of_the_bool_one(kind: type) -> None:
    mask = blobs((40, 33), 0)
    tube = tubed_skeleton(mask.astype(kind))
    assert tube.dtype == bool
    np.testing.assert_array_equal(tube, tubed_skeleton(mask))


@pytest.mark.parametrize(("space", "size"), [((9, 9), 13), ((9, 9, 9), 25)])
def test_a_point_gives_the_diamond_inside_the_mask(space: tuple[int, ...], size: int) -> None:
    mask = np.zeros(space, bool)
    mask[(4,) * len(space)] = True
    np.testing.assert_array_equal(tubed_skeleton(mask), mask)
    around = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(len(space), 1), iterations=2)
    assert around.sum() == size


@pytest.mark.parametrize("space", [(8, 9), (4, 5, 6)])
def test_tubes_of_nothing_and_of_everything(space: tuple[int, ...]) -> None:
    assert not tubed_skeleton(np.zeros(space, bool)).any()
    assert tubed_skeleton(np.ones(space, bool)).any()


def test_a_bar_that_thinning_deletes_is_its_own_tube() -> None:
    mask = np.zeros((12, 12, 20), bool)
    mask[4:8, 4:8, 2:18] = True
    assert not skeletonize(mask).any()
    np.testing.assert_array_equal(tubed_skeleton(mask), mask)


# Skeleton recall


def test_skeleton_recall_by_hand() -> None:
    p = torch.tensor([[[[0.9, 0.4], [0.2, 0.5]]]])
    tube = torch.tensor([[[[True, True], [False, True]]]])
    assert skeleton_recall(p, tube).item() == pytest.approx(-(0.9 + 0.4 + 0.5) / 3)
    valid = torch.tensor([[[[True, False], [True, True]]]])
    assert skeleton_recall(p, tube, valid=valid).item() == pytest.approx(-(0.9 + 0.5) / 2)


@pytest.mark.parametrize("space", [(6, 7), (3, 4, 5)])
def test_an_empty_tube_has_neither_value_nor_gradient(space: tuple[int, ...]) -> None:
    p = torch.rand(2, 2, *space, requires_grad=True)
    tube = torch.zeros(2, 2, *space, dtype=torch.bool)
    tube[0, 0] = True
    loss = skeleton_recall(p, tube)
    assert loss.shape == (2, 2)
    assert loss[0, 0].item() == pytest.approx(-p[0, 0].mean().item())
    assert loss[0, 1] == 0
    assert (loss[1] == 0).all()
    loss.sum().backward()
    assert p.grad is not None
    assert (p.grad[0, 0] < 0).all()
    assert (p.grad[0, 1] == 0).all()
    assert (p.grad[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_skeleton_recall_is_summed_in_float32(dtype: torch.dtype) -> None:
    p = torch.ones(1, 1, 512, 512, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = skeleton_recall(p, torch.ones(1, 1, 512, 512, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == -1


@pytest.mark.parametrize("space", [(3, 4), (2, 3, 3)])
def test_skeleton_recall_s_gradient(space: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(2, 2, *space, generator=draw, dtype=torch.float64, requires_grad=True)
    tube = torch.rand(2, 2, *space, generator=draw) < 0.4
    valid = torch.rand(2, 1, *space, generator=draw) < 0.7
    assert torch.autograd.gradcheck(lambda p: skeleton_recall(p, tube, valid=valid), (p,))


# Soft skeletons and soft clDice


def test_a_soft_skeleton_by_hand() -> None:
    bar = plane(
        ".........",
        ".#######.",
        ".#######.",
        ".#######.",
        ".........",
    )
    # One erosion leaves the middle row without its ends, a second nothing. The box dilates the
    # middle back to all but nothing of the bar, so that its own ridge comes at the second level.
    assert half_width(bar > 0.5).item() == 2
    skeleton = soft_skeleton(bar, torch.tensor([[2]]))
    middle = plane(".........", ".........", "..#####..", ".........", ".........")
    assert torch.equal(skeleton, middle)
    assert soft_skeleton(bar, torch.tensor([[0]])).sum() == 0


@pytest.mark.parametrize("space", [(1, 9), (12, 11), (5, 6, 7), (1, 6, 7), (2, 2, 2)])
@pytest.mark.parametrize("iterations", [0, 1, 3, 11])
def test_soft_skeletons_are_monai_s(space: tuple[int, ...], iterations: int) -> None:
    draw = torch.Generator().manual_seed(4)
    p = torch.rand(2, 3, *space, generator=draw)
    ours = soft_skeleton(p, torch.full((2, 3), iterations))
    torch.testing.assert_close(ours, soft_skel(p, iterations))
    mask = (p > 0.3).float()
    assert torch.equal(soft_skeleton(mask, torch.full((2, 3), iterations)), soft_skel(mask, iterations))


@pytest.mark.parametrize("space", [(30, 26), (12, 13, 14)])
def test_the_half_width_is_the_largest_l1_distance(space: tuple[int, ...]) -> None:
    mask = np.stack([blobs(space, seed, share) for seed, share in ((0, 0.2), (1, 0.5), (2, 0.7))])[None]
    # What lies beyond the edge is no background.
    expected = [ndimage.distance_transform_cdt(each, metric="taxicab").max() for each in mask[0]]
    assert half_width(torch.from_numpy(mask)).tolist() == [expected]


def test_half_widths_of_nothing_everything_and_half() -> None:
    mask = torch.zeros(1, 3, 6, 9, dtype=torch.bool)
    mask[:, 1] = True
    mask[:, 2, :, :4] = True
    assert half_width(mask).tolist() == [[0, 0, 4]]


def test_soft_cldice_by_hand() -> None:
    y = plane("......", ".####.", "......")
    p = plane("......", ".##...", ".##...")
    # y is its own skeleton, of 4; p is a square, whose skeleton is all 4 as well. They meet in 2.
    assert torch.equal(soft_skeleton(p, torch.tensor([[1]])), p)
    share = (2 + 1) / (4 + 1)
    assert soft_cldice(p, y).item() == pytest.approx(1 - share)
    assert soft_cldice(p, y, smooth=1e-6).item() == pytest.approx(0.5, abs=1e-5)
    assert soft_cldice(0.5 * y, y).item() == pytest.approx(1 - 2 * 1 * 0.6 / 1.6)


@pytest.mark.parametrize("space", [(23, 31), (9, 12, 14)])
def test_soft_cldice_is_the_harmonic_mean_of_monai_s_skeletons(space: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(1)
    p = torch.rand(2, 3, *space, generator=draw)
    y = torch.stack([torch.from_numpy(blobs(space, seed)) for seed in range(6)]).view(2, 3, *space)
    thin_p, thin_y = soft_skel(p, 3), soft_skel(y.float(), 3)
    precise = ((thin_p * y).flatten(2).sum(-1) + 1) / (thin_p.flatten(2).sum(-1) + 1)
    sensitive = ((thin_y * p).flatten(2).sum(-1) + 1) / (thin_y.flatten(2).sum(-1) + 1)
    expected = 1 - 2 / (1 / precise + 1 / sensitive)
    loss = soft_cldice(p, y, iterations=3)
    assert loss.shape == (2, 3)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("half", [1, 4, 15])
def test_iterations_reach_the_widest_structure(half: int) -> None:
    """Of the truth or of the prediction; more change nothing, fewer leave its inside out."""
    y = torch.zeros(1, 1, 41, 60)
    y[..., 5, 5:55] = 1
    wide = torch.zeros_like(y)
    wide[..., 5 : 4 + 2 * half, 4:56] = 1
    for p, truth in ((wide, y), (y, wide), (0.9 * wide, y)):
        loss = soft_cldice(p, truth)
        torch.testing.assert_close(loss, soft_cldice(p, truth, iterations=half))
        torch.testing.assert_close(loss, soft_cldice(p, truth, iterations=half + 9))
        if half > 1:
            assert (loss - soft_cldice(p, truth, iterations=half - 2)).abs() > 0.01


def test_an_image_has_its_own_iterations() -> None:
    """Else a batch would change what a faint surrounding costs."""
    draw = torch.Generator().manual_seed(3)
    p = torch.rand(2, 2, 24, 24, generator=draw) * 0.4
    y = torch.zeros(2, 2, 24, 24)
    y[0, 0, 2:22, 2:22] = 1
    y[1, 1, 4, 2:22] = 1
    together = soft_cldice(p, y)
    for b, c in np.ndindex(2, 2):
        alone = soft_cldice(p[b : b + 1, c : c + 1], y[b : b + 1, c : c + 1])
        torch.testing.assert_close(together[b : b + 1, c : c + 1], alone)


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("space", [(6, 7), (4, 5, 6), (1, 1)])
def test_soft_cldice_of_nothing_and_everything(space: tuple[int, ...], fill: float) -> None:
    y = torch.full((1, 2, *space), fill)
    p = y.clone().requires_grad_()
    loss = soft_cldice(p, y)
    assert (loss == 0).all()
    loss.sum().backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()
    assert soft_cldice(1 - y, y).isfinite().all()


def test_a_perfect_prediction_costs_nothing() -> None:
    y = torch.from_numpy(np.stack([blobs((40, 30), seed) for seed in range(3)]))[None]
    assert soft_cldice(y.float(), y).abs().max() < 1e-6


@pytest.mark.parametrize("iterations", [None, 0, 2])
@pytest.mark.parametrize("space", [(4, 4), (3, 3, 2)])
def test_soft_cldice_s_gradient(space: tuple[int, ...], iterations: int | None) -> None:
    draw = torch.Generator().manual_seed(5)
    p = torch.rand(1, 2, *space, generator=draw, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 2, *space, generator=draw) < 0.5
    valid = torch.rand(1, 1, *space, generator=draw) < 0.8
    assert torch.autograd.gradcheck(lambda p: soft_cldice(p, y, iterations=iterations, valid=valid), (p,))


def test_wide_structures_are_recomputed_to_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    y = torch.from_numpy(blobs((60, 60), 0, 0.6))[None, None]
    p = (y * 0.8 + 0.1 * torch.rand(1, 1, 60, 60)).requires_grad_()
    gradients = []
    for run in (2, 1000):
        monkeypatch.setattr(topology, "RUN", run)
        (gradient,) = torch.autograd.grad(soft_cldice(p, y).sum(), p)
        gradients.append(gradient)
    assert half_width(y).item() > 4
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_soft_cldice_is_summed_in_float32(dtype: torch.dtype) -> None:
    p = torch.zeros(1, 1, 512, 512, dtype=dtype)
    p[..., ::2] = 1
    y = p > 0.5
    p.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = soft_cldice(p, y)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.sum().backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


def test_invalid_pixels_are_background_to_the_skeleton() -> None:
    y = torch.from_numpy(blobs((20, 24), 1, 0.5))[None, None]
    p = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(1)) < 0.9
    dirty = torch.where(valid, p, torch.nan)
    expected = soft_cldice(p * valid, y & valid)
    torch.testing.assert_close(soft_cldice(dirty, y | ~valid, valid=valid), expected)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), classes=st.permutations([0, 1, 2]), pad=st.integers(1, 4))
def test_bounds_permutation_depth_and_padding(seed: int, classes: list[int], pad: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    # Nothing touches the edge, which takes nothing away from a structure, as padding does.
    p = torch.zeros(2, 3, 9, 8)
    p[..., 1:-1, 1:-1] = torch.rand(2, 3, 7, 6, generator=draw)
    y = (torch.rand(2, 3, 9, 8, generator=draw) < 0.6) & (p > 0)
    loss = soft_cldice(p, y)
    close = torch.testing.assert_close
    assert ((loss >= -1e-6) & (loss <= 1)).all()
    close(soft_cldice(p[:, classes], y[:, classes]), loss[:, classes])
    close(soft_cldice(p.unsqueeze(2), y.unsqueeze(2)), loss)
    wide = [torch.nn.functional.pad(x, (pad, 0, 0, pad), value=1) for x in (p, y.float())]
    valid = torch.nn.functional.pad(torch.ones(2, 1, 9, 8, dtype=torch.bool), (pad, 0, 0, pad))
    close(soft_cldice(*wide, valid=valid), loss)
    close(skeleton_recall(*wide, valid=valid), skeleton_recall(p, y))
    close(skeleton_recall(p.unsqueeze(2), y.unsqueeze(2)), skeleton_recall(p, y))
