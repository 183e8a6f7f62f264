"""Augmentation: what is drawn, image and masks stay together, company and order do not matter."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine.data.augment import Draw, _affine, apply, draw, elastic, move, undo
from engine.data.specs import Augment

NOTHING = {"flip": 0, "quarter_turn": 0}
EVERYTHING = Augment(
    probability=0.6,
    rotation=30,
    scale=(0.8, 1.25),
    elastic_alpha=(0, 300),
    elastic_sigma=(5, 8),
    brightness=(0.5, 2),
    contrast=(0.7, 1.4),
)


def smooth(n: int, height: int, width: int, channels: int = 2) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(n, channels, height, width))
    return torch.from_numpy(8 * ndimage.gaussian_filter(noise, (0, 0, 4, 4))).float()


def draw_for(settings: Augment, n: int, size=(48, 48), seed=0, epoch=1) -> Draw:
    return draw(settings, seed, epoch, torch.arange(n), torch.zeros(n, dtype=torch.int64), size)


def test_off_means_untouched():
    x = smooth(3, 20, 30)
    image, masks, inside = apply(draw_for(Augment(**NOTHING), 3, (20, 30)), x, x > 0, torch.zeros(3, 2))
    assert torch.equal(image, x)
    assert torch.equal(masks, x > 0)
    assert inside.shape == (3, 1, 20, 30)
    assert inside.all()


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_turns_are_undone_exactly(size):
    x = smooth(32, *size)
    drawn = draw_for(Augment(), 32, size)
    image, masks, inside = apply(drawn, x, x > 0, torch.zeros(32, 2))
    assert len(set(drawn.codes.tolist())) == (8 if size[0] == size[1] else 4)
    assert not torch.equal(image, x)
    assert inside.all()
    assert torch.equal(undo(drawn, masks), x > 0)
    assert torch.equal(undo(drawn, image), x)


def test_undo_refuses_a_warp():
    drawn = draw_for(Augment(probability=1, rotation=10), 2)
    assert drawn.resampled
    with pytest.raises(ValueError, match="cannot be undone"):
        undo(drawn, torch.zeros(2, 1, 48, 48, dtype=torch.bool))


def rotation(angle: float, size: tuple[int, int], zoom: float = 1.0) -> Draw:
    """A draw of one image, by known values."""
    source = _affine(torch.tensor([angle]), torch.tensor([zoom]), size, "cpu")
    return Draw(torch.zeros(1, dtype=torch.int64), torch.tensor([0]), source, None)


@pytest.mark.parametrize("size", [(33, 33), (32, 32)])
def test_rotation_by_90_degrees_is_the_quarter_turn(size):
    x = smooth(1, *size)
    image, masks, inside = apply(rotation(90, size), x, x > 0, torch.zeros(1, 2))
    torch.testing.assert_close(image, torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)
    assert torch.equal(masks, torch.rot90(x > 0, 1, (2, 3)))
    assert inside.all()


def test_oblong_images_rotate_in_pixels():
    """A disc stays a disc, and turns about the centre."""
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = (y**2 + (x - 10) ** 2 < 64)[None, None]
    _, turned, inside = apply(rotation(90, (40, 80)), disc.float(), disc, torch.zeros(1, 1))
    expected = ((y + 10) ** 2 + x**2 < 64)[None, None]
    assert torch.equal(turned, expected)
    assert torch.equal(inside[0, 0], (x.abs() < 20) & (y.abs() < 20))


def test_zoom_enlarges():
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    disc = (y**2 + x**2 < 100)[None, None]
    _, larger, inside = apply(rotation(0, (64, 64), zoom=2), disc.float(), disc, torch.zeros(1, 1))
    assert larger.sum() / disc.sum() == pytest.approx(4, rel=0.05)
    assert inside.all()
    image, smaller, inside = apply(rotation(0, (64, 64), zoom=0.5), disc.float() + 1, disc, torch.zeros(1, 1))
    assert smaller.sum() / disc.sum() == pytest.approx(0.25, rel=0.05)
    assert inside.sum() == 32 * 32
    assert (image[~inside] == 0).all()


def test_image_and_mask_stay_aligned():
    """A mask warped as an image, cut at one half, is the mask warped as a mask, but for edge pixels."""
    settings = EVERYTHING.model_copy(update={"brightness": (1, 1), "contrast": (1, 1), "probability": 1})
    mask = smooth(6, 64, 64) > 0
    image, warped, inside = apply(draw_for(settings, 6, (64, 64)), mask.float(), mask, torch.zeros(6, 2))
    disagree = (image > 0.5) != warped
    assert disagree.float().mean() < 0.03
    assert not warped[~inside.expand_as(warped)].any()
    assert (~inside).any()


def test_inside_flags_what_came_from_outside():
    """Warping a frame of ones finds exactly the pixels inside."""
    ones = torch.ones(5, 1, 40, 56)
    drawn = draw_for(Augment(probability=1, rotation=45, scale=(0.7, 0.9), **NOTHING), 5, (40, 56))
    image, masks, inside = apply(drawn, ones, ones > 0, torch.zeros(5, 1))
    assert torch.equal(masks, inside)
    torch.testing.assert_close(image, inside.float())
    assert 0.2 < inside.float().mean() < 0.95


def test_brightness_is_a_factor_on_raw_intensities():
    raw = torch.rand(16, 3, 24, 24) * 200 + 20
    mean, deviation = raw.mean((2, 3), keepdim=True), raw.std((2, 3), keepdim=True)
    drawn = draw_for(Augment(probability=1, brightness=(0.5, 2), **NOTHING), 16, (24, 24))
    zero = (-mean / deviation)[..., 0, 0]
    image, *_ = apply(drawn, (raw - mean) / deviation, raw[:, :1] > 0, zero)
    assert drawn.factors is not None
    expected = (raw * drawn.factors[:, 0, None, None, None] - mean) / deviation
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=1e-4)
    assert drawn.factors[:, 0].min() < 0.9
    assert drawn.factors[:, 0].max() > 1.5


def test_contrast_keeps_the_mean_and_scales_the_deviation():
    x = smooth(16, 24, 24) + 3
    drawn = draw_for(Augment(probability=1, contrast=(0.5, 2), **NOTHING), 16, (24, 24))
    image, *_ = apply(drawn, x, x > 0, torch.full((16, 2), -1.0))
    assert drawn.factors is not None
    torch.testing.assert_close(image.mean((2, 3)), x.mean((2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(image.std((2, 3)), x.std((2, 3)) * drawn.factors[:, 1:], atol=1e-4, rtol=1e-4)


def test_each_change_happens_as_often_as_set():
    n, p = 4000, 0.15
    bound = 4.5 * (p * (1 - p) / n) ** 0.5
    settings = Augment(probability=p, brightness=(0.5, 2), contrast=(0.5, 0.9))
    drawn = draw_for(settings, n, (8, 8))
    assert drawn.factors is not None
    brighter, stretched = (drawn.factors != 1).T.float()
    assert abs(brighter.mean() - p) < bound
    assert abs(stretched.mean() - p) < bound
    assert abs((brighter * stretched).mean() - p * p) < bound
    for warp in ({"rotation": 20.0}, {"scale": (0.8, 0.9)}, {"elastic_alpha": (1.0, 2.0)}):
        rows = draw_for(Augment(probability=p, **warp), n, (8, 8)).rows
        assert abs(len(rows) / n - p) < bound


def test_turns_happen_as_often_as_set():
    n = 4000
    counts = torch.bincount(draw_for(Augment(flip=0, quarter_turn=0.6), n, (8, 8)).codes, minlength=8) / n
    assert counts[0] == pytest.approx(0.4, abs=0.04)
    assert counts[1:4].tolist() == pytest.approx([0.2] * 3, abs=0.03)
    assert counts[4:].sum() == 0
    counts = torch.bincount(draw_for(Augment(flip=0.3, quarter_turn=0), n, (8, 8)).codes, minlength=8) / n
    # Neither mirror, both (half a turn), left to right, upside down.
    assert counts[[0, 2, 4, 6]].tolist() == pytest.approx([0.49, 0.09, 0.21, 0.21], abs=0.04)


def test_angles_and_zooms_fill_their_interval():
    source = draw_for(Augment(probability=1, rotation=30, scale=(0.5, 2), **NOTHING), 2000, (8, 8)).source
    step = source[:, 0, 1] - source[:, 0, 0]
    angle, zoom = torch.rad2deg(torch.atan2(step[:, 1], step[:, 0])), 1 / step.norm(dim=1)
    for values, low, high in ((angle, -30, 30), (zoom, 0.5, 2)):
        assert values.min() >= low - 1e-3
        assert values.max() <= high + 1e-3
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.04 * (high - low))
        assert values.std() == pytest.approx((high - low) / 12**0.5, rel=0.05)


def test_elastic_is_smoothed_noise_in_pixels():
    noise = torch.rand(2, 2, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alpha, sigma = torch.tensor([900.0, 100.0]), torch.tensor([9.0, 4.0])
    shift = elastic(noise, alpha, sigma)
    for image in range(2):
        expected = ndimage.gaussian_filter(
            noise[image].numpy().astype(float),
            (0, float(sigma[image]), float(sigma[image])),
            mode="wrap",
            truncate=6,
        )
        np.testing.assert_allclose(shift[image], float(alpha[image]) * expected, atol=2e-2)


def test_company_order_and_repetition_do_not_matter():
    x, ids, visits = smooth(6, 48, 48), torch.tensor([7, 3, 3, 11, 0, 8]), torch.tensor([0, 0, 1, 2, 0, 0])
    zero = torch.full((6, 2), -1.0)

    def result(rows):
        drawn = draw(EVERYTHING, 5, 2, ids[rows], visits[rows], (48, 48))
        return apply(drawn, x[rows], x[rows] > 0, zero[rows])

    everyone = torch.arange(6)
    together, again = result(everyone), result(everyone)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    for rows in ([4], [5, 2], [3, 1, 0]):
        image, masks, inside = result(torch.tensor(rows))
        torch.testing.assert_close(image, together[0][rows], atol=1e-4, rtol=0)
        assert torch.equal(masks, together[1][rows])
        assert torch.equal(inside, together[2][rows])


def test_another_visit_epoch_or_seed_is_another_draw():
    ids = torch.zeros(3, dtype=torch.int64)
    source = draw(Augment(probability=1, rotation=30), 0, 1, ids, torch.arange(3), (8, 8)).source
    others = [
        draw_for(Augment(probability=1, rotation=30), 1, (8, 8), seed, epoch).source
        for seed, epoch in ((0, 2), (1, 1))
    ]
    assert len({tuple(s.flatten().tolist()) for s in (*source, *others)}) == 5


def test_maps_such_as_distances_can_follow_an_image():
    x = smooth(4, 48, 48)
    drawn = draw_for(Augment(probability=1, rotation=20), 4)
    image, *_ = apply(drawn, x, x > 0, torch.zeros(4, 2))
    assert torch.equal(move(drawn, x), image)


def test_slices_of_a_volume_change_alike_and_as_images_do():
    """But for the mirror along the depth, a volume is changed as each of its slices is on its own."""
    settings = EVERYTHING.model_copy(update={"probability": 1, "contrast": (1, 1)})
    x = torch.stack([smooth(12, 32, 32, 1)] * 5, dim=2)
    x = x + torch.arange(5.0)[:, None, None]
    zero = torch.zeros(12, 1)
    drawn, flat = draw_for(settings, 12, (5, 32, 32)), draw_for(settings, 12, (32, 32))
    image, masks, inside = apply(drawn, x, x > 1, zero)
    assert (image.shape, masks.shape, inside.shape) == (x.shape, x.shape, x.shape)
    mirrored = drawn.codes >= 8
    assert 0 < mirrored.sum() < 12
    assert torch.equal(drawn.codes % 8, flat.codes)
    back = torch.where(mirrored.view(-1, 1, 1, 1, 1), image.flip(2), image)
    for depth in range(5):
        alone, _, within = apply(flat, x[:, :, depth], x[:, :, depth] > 1, zero)
        torch.testing.assert_close(back[:, :, depth], alone)
        assert torch.equal(inside[:, :, depth], within)
    only = draw_for(Augment(), 12, (5, 32, 32))
    assert torch.equal(undo(only, move(only, x)), x)


def test_contrast_of_a_volume_is_about_the_mean_of_all_of_it():
    x = smooth(3, 16, 16, 2)[:, :, None] + torch.tensor([0.0, 5.0])[:, None, None]
    drawn = draw_for(Augment(probability=1, contrast=(2, 2), flip=0, quarter_turn=0), 3, (2, 16, 16))
    image, *_ = apply(drawn, x, x > 0, torch.zeros(3, 2))
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    torch.testing.assert_close(image, mean + 2 * (x - mean), atol=1e-5, rtol=1e-5)
