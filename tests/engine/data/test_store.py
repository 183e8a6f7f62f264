"""The store: what goes in comes out, in any window, from memory and from a file."""

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from skimage import transform

from engine import fingerprint
from engine.bits import Window
from engine.data.normalize import affine
from engine.data.specs import Data
from engine.data.store import IGNORED, Maps, Sample, Store, fill, frame_shape, resized, seen
from engine.errors import InputError
from engine.losses.boundary import signed_distance

CPU = torch.device("cpu")
METHODS = get_args(Data.model_fields["normalization"].annotation)
RNG = np.random.default_rng


def sample(
    shape: tuple[int, int], dtype: Any = np.uint8, channels: int = 1, *, classes: int = 1, seed: int = 0
) -> Sample:
    rng = RNG(seed)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    image = (rng.random((*shape, channels)) * top).astype(dtype)
    labels = rng.integers(0, classes + 1, shape).astype(np.uint8)
    return Sample(f"case {seed}", image, labels, None)


def data(**settings: Any) -> Data:
    return Data(**{"patch": 8, **settings})


def filled(samples: list[Sample], *, classes: int = 1, **settings: Any) -> Store:
    return fill(samples, classes, data(**settings), None)


def read(store: Store, number: int) -> Any:
    return store.read(store.whole([number]), torch.tensor([0]), CPU)


@pytest.mark.parametrize("settings", [{}, {"size": (8, 16)}, {"cache": "disk"}])
def test_fingerprints_are_of_the_images_as_they_were_read(settings: Any, tmp_path: Path) -> None:
    # Of mixed kinds, so that all are decoded a second time.
    samples = [sample((9, 13), np.uint8, seed=1), sample((6, 5), np.uint16, seed=2)]
    store = fill(samples, 1, data(**settings), tmp_path / "pixels")
    assert store.digests == tuple(fingerprint.image(each.image) for each in samples)
    assert store.to(CPU).digests == store.digests


def expected(case: Sample, method: str = "zscore") -> np.ndarray:
    """(channels, H, W): the image, normalised by itself."""
    top = np.iinfo(case.image.dtype).max if case.image.dtype.kind == "u" else 1
    scale, shift = affine(case.image, method, top=top)
    out = case.image.astype(np.float64) * scale + shift
    return np.moveaxis(out.clip(0, 1) if method == "percentile" else out, -1, 0)


def test_bytes_stay_bytes():
    store = filled([sample((16, 24), channels=3, seed=s) for s in range(3)])
    assert store.pixels.dtype == torch.uint8
    assert store.pixels.shape == (3 * 16 * 24, 3)
    assert len(store) == 3
    assert store.names == ("case 0", "case 1", "case 2")
    assert store.nbytes == 3 * 16 * 24 * 3 + 3 * 16 * 24 // 8


@pytest.mark.parametrize(
    "kinds", [(np.uint8, np.uint16), (np.float32, np.uint8), (np.uint8, np.uint8, np.float64)]
)
def test_mixed_kinds_become_half_floats_in_any_order(kinds):
    cases = [sample((16, 24), kind, seed=s) for s, kind in enumerate(kinds)]
    store = filled(cases)
    assert store.pixels.dtype == torch.float16
    for number, case in enumerate(cases):
        np.testing.assert_allclose(read(store, number).image[0], expected(case), atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_reads_normalised(method, dtype):
    case = sample((16, 24), dtype, channels=3)
    valid = RNG(9).random((16, 24)) < 0.7
    case = replace(case, valid=valid)
    frames = read(filled([case], normalization=method), 0)
    assert frames.image.dtype == torch.float32
    np.testing.assert_allclose(frames.image[0], expected(case, method), atol=2e-3)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    scale, shift = affine(case.image, method, top=top)
    np.testing.assert_array_equal(frames.zero[0], 0 * scale + shift)  # of raw intensity 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_imagenet_knows_white_after_resizing_too(dtype):
    white = Sample(
        "white", np.full((20, 20, 3), np.iinfo(dtype).max, dtype), np.ones((20, 20), np.uint8), None
    )
    image = read(filled([white], normalization="imagenet", size=16), 0).image
    np.testing.assert_allclose(
        image[0, :, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-3
    )


def test_a_bright_spot_is_clipped_before_it_overflows():
    image = RNG(0).random((16, 16, 1)).astype(np.float32)
    image[5, 5] = 1e9
    case = Sample("spot", image, np.ones((16, 16), np.uint8), None)
    out = read(filled([case], normalization="percentile"), 0).image
    assert out[0, 0, 5, 5] == 1
    assert out.isfinite().all()


def test_rows_are_padded_to_whole_bytes_and_the_padding_counts_nowhere():
    case = sample((5, 13), channels=2)
    case.labels[:] = 1
    store = filled([case])
    assert store.shapes.tolist() == [[5, 16]]
    assert store.extents.tolist() == [[5, 13]]
    frames = read(store, 0)
    inside = torch.zeros((5, 16), dtype=torch.bool)
    inside[:5, :13] = True
    assert torch.equal(frames.valid[0, 0], inside)
    assert torch.equal(frames.truth[0, 0], inside)
    np.testing.assert_allclose(frames.image[0, :, :5, :13], expected(case), atol=1e-5)
    # The edge goes on, so none is drawn.
    wanted = np.pad(expected(case), ((0, 0), (0, 0), (0, 3)), mode="edge")
    np.testing.assert_allclose(frames.image[0], wanted, atol=1e-5)


def test_a_window_larger_than_the_image_shows_its_border_beyond_it_and_that_counts_nowhere():
    case = sample((5, 8))
    case.labels[:] = 1
    store = filled([case])
    assert store.valid is None
    window = Window(torch.tensor([0]), torch.zeros((1, 2), dtype=torch.int64), (7, 16))
    frames = store.read(window, torch.tensor([0]), torch.device("cpu"))
    inside = torch.zeros((7, 16), dtype=torch.bool)
    inside[:5, :8] = True
    assert torch.equal(frames.valid[0, 0], inside)
    assert torch.equal(frames.truth[0, 0], inside)
    wanted = np.pad(expected(case)[0], ((0, 2), (0, 8)), mode="edge")
    np.testing.assert_allclose(frames.image[0, 0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "frame"), [((8, 8), (8, 8)), ((9, 9), (9, 16)), ((3, 3), (3, 8)), ((100, 7), (100, 8))]
)
def test_frames(shape, frame):
    assert frame_shape(shape) == frame


def test_where_every_pixel_is_valid_nothing_is_kept():
    assert filled([sample((8, 16)), sample((16, 8))]).valid is None
    assert filled([sample((8, 16)), sample((16, 9))]).valid is not None


def test_ignored_labels_and_the_field_of_view_count_nowhere():
    case = sample((8, 16), classes=2)
    case.labels[0] = IGNORED
    case.labels[1:3] = 2
    valid = np.ones((8, 16), dtype=bool)
    valid[:, :4] = False
    case = replace(case, valid=valid)
    frames = read(filled([case], classes=2), 0)
    inside = valid & (case.labels != IGNORED)
    np.testing.assert_array_equal(frames.valid[0, 0], inside)
    for c in (1, 2):
        np.testing.assert_array_equal(frames.truth[0, c - 1], (case.labels == c) & inside)
    assert frames.truth[0, 1, 1, 4:].all()
    # Mean and deviation are over the whole image: who predicts knows neither field of view nor labels.
    np.testing.assert_allclose(frames.image[0, 0].mean(), 0, atol=1e-5)


def test_crops_are_slices_of_the_normalised_image():
    cases = [sample((16 + s, 24 + 8 * s), channels=2, classes=3, seed=s) for s in range(3)]
    store = filled(cases, classes=3)
    ids, corners, (h, w) = [2, 0, 2, 1], [[0, 0], [3, 8], [9, 32], [8, 16]], (8, 8)
    visits = torch.tensor([0, 0, 1, 0])
    window = Window(torch.tensor(ids), torch.tensor(corners), (h, w))
    frames = store.read(window, visits, CPU)
    assert frames.image.shape == (4, 2, 8, 8)
    assert frames.image.is_contiguous(memory_format=torch.channels_last)
    assert frames.valid is None
    assert frames.window is window
    assert frames.visits is visits
    for b, (number, (y, x)) in enumerate(zip(ids, corners, strict=True)):
        cut = (slice(y, y + h), slice(x, x + w))
        np.testing.assert_allclose(frames.image[b], expected(cases[number])[:, *cut], atol=1e-5)
        np.testing.assert_array_equal(frames.truth[b], [cases[number].labels[cut] == c for c in (1, 2, 3)])


@pytest.mark.parametrize("kinds", [(np.uint8, np.uint8), (np.uint8, np.float32), (np.float32, np.uint8)])
@pytest.mark.parametrize("budget", [0, 500])
def test_a_file_holds_what_memory_would(tmp_path, kinds, budget):
    cases = [sample((16, 20 + s), kind, channels=2, seed=s) for s, kind in enumerate((*kinds, kinds[-1]))]
    memory = fill(cases, 1, data(), None)
    file = fill(cases, 1, data(), tmp_path / "cache" / "train.pixels", budget=budget)
    assert file.mapped
    assert not memory.mapped
    assert sys.platform == "win32" or not any((tmp_path / "cache").iterdir()), "its name is gone at once"
    assert torch.equal(memory.pixels, file.pixels)
    for number in range(3):
        assert torch.equal(read(memory, number).image, read(file, number).image)
        assert torch.equal(read(memory, number).truth, read(file, number).truth)


@pytest.mark.parametrize(
    ("cache", "budget", "mapped"),
    [
        ("auto", 1e9, False),
        ("auto", 1, True),
        ("memory", 1, False),
        ("device", 1, False),
        ("disk", 1e9, True),
    ],
)
def test_where_pixels_are_kept(tmp_path, cache, budget, mapped):
    store = fill([sample((8, 8))], 1, data(cache=cache), tmp_path / "pixels", budget=budget)
    assert store.mapped == mapped


def test_an_error_while_filling_leaves_no_file(tmp_path):
    def broken() -> Any:
        yield sample((8, 8))
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        # A file left open would warn, which fails here.
        fill(broken(), 1, data(), tmp_path / "pixels", budget=0)
    assert not (tmp_path / "pixels").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resized(dtype):
    rows = np.linspace(0, 200, 40).astype(dtype)
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[:20] = 2
    labels[20:, 30:] = IGNORED
    valid = np.ones((40, 60), dtype=bool)
    valid[:, :15] = False
    image = np.broadcast_to(rows[:, None, None], (40, 60, 1)).copy()
    store = filled([Sample("ramp", image, labels, valid)], classes=2, size=(20, 28), normalization="unit")
    assert store.shapes.tolist() == [[20, 32]]
    assert store.extents.tolist() == [[20, 28]]
    assert (store.pixels.dtype == torch.uint8) == (dtype == np.uint8)
    frames = read(store, 0)
    assert torch.equal(frames.truth[0, 1, :10, 7:28], torch.ones(10, 21, dtype=torch.bool))
    assert frames.truth[0, 1].sum() == 10 * 21
    inside = frames.valid[0, 0]
    assert torch.equal(
        inside[:10], (torch.arange(32) >= 7) & (torch.arange(32) < 28) & torch.ones(10, 1, dtype=torch.bool)
    )
    assert not inside[10:, 14:].any()
    assert inside[10:, 7:14].all()
    np.testing.assert_allclose(frames.image[0, 0, 1:-1, 10], np.linspace(0, 1, 20)[1:-1], atol=0.03)


def test_resizing_keeps_kind_and_values():
    image = RNG(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    assert resized(image, None, labels=False) is image
    assert resized(image, (16, 16), labels=False) is image
    assert resized(image, (8, 8), labels=False).dtype == np.uint8
    assert resized(image.astype(np.uint16), (8, 8), labels=False).dtype == np.float32
    labels = RNG(0).choice(np.array([0, 3, 7, 255], np.uint8), (16, 16))
    out = resized(labels, (11, 23), labels=True)
    assert out.dtype == np.uint8
    assert out.shape == (11, 23)
    assert set(np.unique(out)) <= {0, 3, 7, 255}
    doubled = resized(labels, (32, 32), labels=True)
    np.testing.assert_array_equal(doubled, labels.repeat(2, axis=0).repeat(2, axis=1))


def test_batches_are_whole_frames_of_one_shape():
    shapes = [(8, 8), (8, 16), (8, 8), (8, 8), (8, 16), (9, 8)]
    store = filled([sample(shape, seed=s) for s, shape in enumerate(shapes)])
    batches = list(store.batches(2))
    assert [(w.ids.tolist(), w.size) for w in batches] == [
        ([0, 2], (8, 8)), ([3], (8, 8)), ([1, 4], (8, 16)), ([5], (9, 8)),
    ]  # fmt: skip
    assert not any(w.corner.any() for w in batches)


def test_moves_to_a_device(tmp_path):
    cases = [sample((8, 12), channels=2, seed=s) for s in range(2)]
    store = fill(cases, 1, data(), tmp_path / "pixels", budget=0)
    moved = store.to(torch.device("meta"))
    assert not moved.mapped
    on = [
        moved.pixels,
        moved.scale,
        moved.shift,
        moved.zero,
        moved.truth.bits,
        moved.valid.bits,
    ]
    assert {x.device.type for x in on} == {"meta"}
    assert moved.extents.device == CPU
    same = store.to(CPU)
    assert torch.equal(read(same, 1).image, read(store, 1).image)
    assert torch.equal(read(same, 1).valid, read(store, 1).valid)


def test_filling_holds_the_pixels_about_once():
    def cases() -> Any:
        for seed in range(40):
            yield sample((128, 128), channels=3, seed=seed)

    tracemalloc.start()
    try:
        store = fill(cases(), 1, data(), None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # numpy's part; torch's own, the store, comes once on top of what is waiting to be copied.
    assert most < 1.5 * store.pixels.nbytes


def test_maps_are_made_once_of_the_valid_truth_and_read_with_the_window() -> None:
    """A map of each mask goes the same way as the mask, into any window."""
    cases = [
        replace(sample((16, 21), classes=2, seed=s), valid=RNG(s).random((16, 21)) < 0.8) for s in (1, 2)
    ]
    seen: list[np.ndarray] = []

    def tube(mask: np.ndarray) -> np.ndarray:
        seen.append(mask)
        return mask & (np.arange(21) % 2 == 0)

    def distance(mask: np.ndarray, spacing: object = None) -> np.ndarray:
        assert spacing is None
        return np.where(mask, -1.0, np.arange(21) * 0.5)

    store = fill(cases, 2, data(), None, maps=Maps(tube, distance))
    assert len(seen) == 4
    for number, case in enumerate(cases):
        frames = read(store, number)
        truth = np.stack([(case.labels == c) & case.valid for c in (1, 2)])
        np.testing.assert_array_equal(np.stack(seen[2 * number : 2 * number + 2]), truth)
        np.testing.assert_array_equal(frames.tube[0, :, :, :21], [tube(mask) for mask in truth])
        assert frames.distance.dtype == torch.float32
        np.testing.assert_array_equal(frames.distance[0, :, :, :21], [distance(mask) for mask in truth])
        assert not frames.tube[..., 21:].any()
        assert not frames.distance[..., 21:].any()
    window = Window(torch.tensor([1, 0]), torch.tensor([[3, 8], [8, 0]]), (8, 8))
    crop = store.read(window, torch.zeros(2, dtype=torch.int64), CPU)
    np.testing.assert_array_equal(crop.tube[0], read(store, 1).tube[0, :, 3:11, 8:16])
    np.testing.assert_array_equal(crop.distance[1], read(store, 0).distance[0, :, 8:16, 0:8])


def test_a_mask_that_fills_its_image_is_full_to_maps_whatever_the_padding() -> None:
    case = Sample("full", np.zeros((8, 13, 1), np.uint8), np.ones((8, 13), np.uint8), None)
    full: list[bool] = []

    def distance(mask: np.ndarray, spacing: object) -> np.ndarray:
        full.append(bool(mask.all()))
        return np.zeros(mask.shape)

    fill([case], 1, data(), None, maps=Maps(distance=distance))
    assert full == [True]


def test_without_maps_nothing_is_kept() -> None:
    store = filled([sample((16, 24))])
    assert store.tube is None
    assert store.distance is None
    assert read(store, 0).tube is None
    assert read(store, 0).distance is None


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_volumes_come_out_as_they_went_in(dtype: Any) -> None:
    rng = RNG(4)
    cases = []
    for number, shape in enumerate([(5, 9, 13), (7, 6, 16)]):
        image = (rng.random((*shape, 2)) * 200).astype(dtype)
        labels = rng.choice([0, 1, 2, IGNORED], shape).astype(np.uint8)
        cases.append(Sample(f"v{number}", image, labels, None, (3.0, 1.0, 1.5)))
    store = filled(cases, classes=2)
    assert store.shapes.tolist() == [[5, 9, 16], [7, 6, 16]]
    assert store.extents.tolist() == [[5, 9, 13], [7, 6, 16]]
    for number, case in enumerate(cases):
        frames, box = read(store, number), tuple(slice(length) for length in case.labels.shape)
        assert frames.image.shape == (1, 2, *store.shapes[number].tolist())
        np.testing.assert_allclose(frames.image[0][:, *box], expected(case), atol=2e-3)
        np.testing.assert_array_equal(frames.truth[0, 1][box], case.labels == 2)
        np.testing.assert_array_equal(frames.valid[0, 0][box], case.labels != IGNORED)
        assert frames.valid.sum() == (case.labels != IGNORED).sum()
        window = Window(torch.tensor([number]), torch.tensor([[2, 1, 8]]), (3, 4, 8))
        crop = store.read(window, torch.tensor([0]), CPU)
        assert torch.equal(crop.image, frames.image[:, :, 2:5, 1:5, 8:16])
        assert torch.equal(crop.truth, frames.truth[:, :, 2:5, 1:5, 8:16])


def test_volumes_are_resampled_to_a_spacing_and_refused_without_one() -> None:
    case = Sample("v", RNG(0).random((6, 10, 12, 1)).astype(np.float32), np.ones((6, 10, 12), np.uint8), None)
    known = replace(case, spacing=(4.0, 1.0, 2.0))
    store = filled([known], spacing=(2.0, 2.0, 2.0), patch=None)
    assert store.extents.tolist() == [[12, 5, 12]]
    frame, *_ = seen(known.image, known.spacing, data(spacing=(2.0, 2.0, 2.0), patch=None))
    np.testing.assert_array_equal(
        frame, transform.resize(known.image, (12, 5, 12), order=1, preserve_range=True, anti_aliasing=True)
    )
    with pytest.raises(InputError, match=r"data\.spacing is 2, 2, 2 mm, but a file gives no spacing"):
        filled([case], spacing=(2.0, 2.0, 2.0), patch=None)
    with pytest.raises(InputError, match=r"data\.size has 2 numbers, 16, 16, but these are volumes: 3"):
        filled([case], size=(16, 16), patch=None)


def test_distances_follow_the_spacing_of_a_volume_in_units_of_the_finest() -> None:
    labels = np.zeros((7, 9, 8), np.uint8)
    labels[3, 4, 4] = 1
    image = np.zeros((7, 9, 8, 1), np.uint8)
    for spacing, step in [(None, (1, 1, 1)), ((2.5, 0.5, 1.0), (5, 1, 2))]:
        case = Sample("v", image, labels, None, spacing)
        store = fill([case], 1, data(), None, maps=Maps(None, signed_distance))
        distance = read(store, 0).distance[0, 0]
        assert (distance[1, 4, 4], distance[3, 1, 4]) == (2 * step[0], 3 * step[1])
        assert distance[3, 4, 1] == 3 * step[2]


def test_the_middle_of_the_truth() -> None:
    labels = np.zeros((6, 20, 30), np.uint8)
    labels[1, 2:5, 10] = 1
    labels[3, 3, 10:12] = 2
    image = np.zeros((6, 20, 30, 1), np.uint8)
    store = filled([Sample("a", image, labels, None), Sample("b", image, 0 * labels, None)], classes=2)
    assert store.centre(0) == [2, 3, 10]
    assert store.centre(1) == [3, 10, 15]
