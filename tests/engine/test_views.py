"""Slices of volumes: which one, the right way up, in proportion."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.figures import Panel, panels
from engine.figures.cases import dice
from engine.figures.views import View, squared, view, world_axes

SHAPE = (5, 6, 7)


def blob(*places: tuple[int, int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """bool (1, D, H, W), True at some voxels."""
    mask = np.zeros((1, *shape), bool)
    for place in places:
        mask[(0, *place)] = True
    return mask


def test_the_slice_with_most_truth_and_misses_is_shown() -> None:
    truth = blob((1, 0, 0), (1, 0, 1), (1, 0, 2), (3, 0, 0), (3, 0, 1))
    assert view(truth).index == 1
    # Slice 3 holds 2, both missed: 4 against 3.
    assert view(truth, truth & (np.arange(5) != 3)[None, :, None, None]).index == 3
    valid = np.ones(SHAPE, bool)
    valid[1] = False
    assert view(truth, None, valid).index == 3


def test_without_truth_false_alarms_are_shown_and_without_any_the_middle() -> None:
    nothing = blob()
    assert view(nothing, blob((4, 1, 1))).index == 4
    assert view(nothing, nothing).index == 2
    assert view(nothing).words == "slice 3 of 5, axis z"


def test_slices_cut_across_the_coarsest_axis() -> None:
    truth = blob((1, 2, 6))
    assert [view(truth, spacing=s).axis for s in ((1, 1, 1), (3, 1, 1), (1, 3, 1), (1, 1.05, 1))] == [
        0, 0, 1, 0
    ]  # fmt: skip
    seen = view(truth, spacing=(1, 1, 4))
    assert (seen.axis, seen.index, seen.count) == (2, 6, 7)
    assert seen.words == "slice 7 of 7, axis x"


def test_a_pixel_is_as_high_and_wide_as_its_voxel() -> None:
    truth = blob((1, 2, 6))
    assert view(truth, spacing=(9.0, 2.0, 0.5)).aspect == 4
    assert view(truth, spacing=(1.0, 0.5, 4.0)).aspect == 2  # rows are z, columns y


@settings(max_examples=48, deadline=None)
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    axis=st.integers(0, 2),
    angle=st.floats(-0.3, 0.3),
)
def test_a_volume_is_the_right_way_up_however_it_is_stored(order, signs, axis, angle) -> None:
    """Against nibabel's canonical orientation, in which x, y, z run to the right, front and top."""
    stored = np.arange(np.prod(SHAPE)).reshape(SHAPE)  # z, y, x
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[list(order)] * np.array(signs)
    nifti = affine[:, [2, 1, 0, 3]]  # index (x, y, z)
    canonical = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(stored.T.astype(float), nifti)).dataobj)
    # A picture of all of it: from the top, from the front, from the left.
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 2.0
    seen = view(np.ones((1, *SHAPE), bool), None, None, spacing, affine)
    assert seen.axis == axis
    world = world_axes(affine)[axis][0]
    shown = seen.of(stored)
    plane = np.moveaxis(canonical, world, 0)
    at = next(number for number, cut in enumerate(plane) if np.isin(shown, cut).all())
    right_way_up = plane[at].T[::-1, ::-1]
    np.testing.assert_array_equal(shown, right_way_up)
    assert seen.sides == {0: "AS", 1: "RS", 2: "RA"}[world]
    assert seen.words.endswith(f", {seen.sides[0]} at the left")


def test_axes_of_oblique_volumes_are_each_taken_once() -> None:
    for order, signs in product(permutations(range(3)), product((-1, 1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * signs * [2.0, 0.5, 1.0]
        found = world_axes(affine)
        expected = [
            (int(np.abs(affine[:3, a]).argmax()), int(np.sign(affine[:3, a].sum()))) for a in range(3)
        ]
        assert list(found) == expected
    # Two axes closest to the same world axis.
    steep = np.eye(4)
    steep[:3, :3] = np.array([[0.9, 0.8, 0], [0.4, 0.6, 0], [0, 0, 1]])
    assert sorted(world for world, _ in world_axes(steep)) == [0, 1, 2]


def test_a_slice_is_taken_from_arrays_with_axes_before_and_behind() -> None:
    array = np.random.default_rng(0).random((2, *SHAPE, 3))
    plain = View(0, 3, 5).of(array, 1)
    np.testing.assert_array_equal(plain, array[:, 3])
    turned = View(1, 2, 6, transposed=True, flipped=(True, False)).of(array, 1)
    np.testing.assert_array_equal(turned, array[:, :, 2].swapaxes(1, 2)[:, ::-1])


@pytest.mark.parametrize(("aspect", "shape"), [(1.0, (4, 6)), (2.5, (10, 6)), (0.5, (4, 12))])
def test_square_pixels(aspect: float, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
    made = squared(picture, aspect)
    assert made.shape == (*shape, 3)
    assert {tuple(p) for p in made.reshape(-1, 3)} == {tuple(p) for p in picture.reshape(-1, 3)}
    np.testing.assert_array_equal(made[0, 0], picture[0, 0])
    np.testing.assert_array_equal(made[-1, -1], picture[-1, -1])


def test_a_panel_of_a_volume_shows_a_slice_and_tells_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    shape = (9, 20, 30)
    image = rng.normal(size=(*shape, 2)).astype(np.float32)
    truth, prediction = rng.random((2, 2, *shape)) < 0.3
    valid = rng.random(shape) < 0.9
    seen = view(truth, prediction, valid, (4.0, 2.0, 1.0))
    panel = Panel.of("head", image, truth, prediction, valid, seen)
    assert panel.truth.shape == (2, 20, 30)
    np.testing.assert_array_equal(panel.image, image[seen.index])
    np.testing.assert_array_equal(panel.valid, valid[seen.index])
    assert panel.dice == tuple(dice(truth, prediction, valid)) != tuple(dice(panel.truth, panel.prediction))
    assert panel.missed_and_false == (
        (truth & ~prediction & valid).sum(), (prediction & ~truth & valid).sum()
    )  # fmt: skip
    assert panel.proportion == pytest.approx(2 * 20 / 30)
    figure = panels([panel])
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx(4 / 3, rel=0.03)
    beside = " ".join(text.get_text() for text in figure.axes[4].texts).replace("\n", " ")
    assert seen.words in beside
    assert f"{panel.dice[0]:.3f}" in beside


def test_a_panel_of_an_image_is_the_image() -> None:
    truth, prediction = blob((1, 2, 6))[:, 1], blob((1, 2, 6))[:, 1]
    image = np.zeros((6, 7, 1))
    panel = Panel.of("eye", image, truth, prediction)
    assert panel.volume is None
    assert panel.truth is truth
    assert panel.dice == (1.0,)
