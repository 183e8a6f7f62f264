"""Images that are read from their files give the frames and the choice of crops that they give in memory."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
import zarr
from chunked import KINDS, write_chunked
from hypothesis import given, settings
from hypothesis import strategies as st
from support import write_pair

from engine.bits import Window
from engine.data import lazy
from engine.data.boxes import boxes, cuts
from engine.data.classes import Classes, from_table
from engine.data.coarse import coarse_of
from engine.data.dataset import Dataset
from engine.data.decode import Source
from engine.data.images import Images
from engine.data.layouts import Case
from engine.data.lazy import LazyStore
from engine.data.loader import Loader
from engine.data.read import load_case, resolve_channels, resolve_classes
from engine.data.specs import Data
from engine.data.store import Sample, Store, fill
from engine.errors import InputError

CPU = torch.device("cpu")
SHAPES = {2: [(37, 91), (70, 44)], 3: [(11, 33, 45), (20, 20, 24)]}
TILE = {2: (32, 32), 3: (16, 16, 16)}
TWO = from_table({"a": [1], "b": [2]}, "refuse")


def arrays(
    number: int, shape: tuple[int, ...], dtype: Any = np.uint8, channels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Noise (*S) or (*S, channels), and labels with a box of each of two classes, far apart."""
    rng = np.random.default_rng(number)
    top = 255 if np.dtype(dtype) == np.uint8 else 3000
    image = (rng.random((*shape, channels)) * top).astype(dtype)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(2 + number, 6) for _ in shape)] = 1
    labels[tuple(slice(length - 5, length) for length in shape)] = 2
    return (image if channels > 1 else image[..., 0]), labels


def write_set(
    root: Path, kind: str, shapes: list[tuple[int, ...]], dtype: Any = np.uint8, channels: int = 1
) -> Path:
    """images/sN and masks/sN in chunks of 16 pixels a side; under 10 are all for training."""
    for number, shape in enumerate(shapes):
        image, labels = arrays(number, shape, dtype, channels)
        axes = "zyx"[-len(shape) :]
        write_chunked(root / "images" / f"s{number}{kind}", image, axes + "c" * (channels > 1))
        write_chunked(root / "masks" / f"s{number}{kind}", labels, axes)
    return root


def both(
    cases: list[Case], channels: int = 1, classes: Classes = TWO, **settings: Any
) -> tuple[Store, LazyStore]:
    """The same cases decoded, and left in their files."""
    data = Data(**settings)
    samples = []
    for case in cases:
        one = load_case(case, classes, channels)
        samples.append(Sample(case.name, one.image, one.labels, one.valid, one.spacing))
    decoded = fill(samples, len(classes.names), data, None)
    return decoded, lazy.open_images(cases, classes, channels, data, TILE[decoded.shapes.shape[1]])


def of(root: Path, channels: int = 1, **settings: Any) -> tuple[Store, LazyStore]:
    found = Dataset.open(Data(root=str(root)))
    return both(found.cases("train"), channels, found.classes, **settings)


def windows(images: Images, size: tuple[int, ...], count: int = 4) -> list[Window]:
    """Random ones, also across borders; the last axis on whole bytes."""
    rng = np.random.default_rng(5)
    out = []
    for _ in range(count):
        ids = rng.integers(0, len(images), 3)
        corner = [
            [rng.integers(-3, length - 4) for length in images.extents[number].tolist()[:-1]]
            + [8 * rng.integers(0, images.extents[number, -1] // 8)]
            for number in ids
        ]
        out.append(Window(torch.from_numpy(ids), torch.tensor(np.array(corner)), size))
    return out


def assert_alike(decoded: Store, left: LazyStore, size: tuple[int, ...]) -> None:
    """The same in all that training asks of them, bit for bit."""
    assert (left.names, left.digests) == (decoded.names, decoded.digests)
    assert torch.equal(left.shapes, decoded.shapes)
    assert torch.equal(left.extents, decoded.extents)
    assert left.empty == decoded.empty
    for number in range(len(decoded)):
        assert left.centre(number) == decoded.centre(number)
    for window in windows(decoded, size):
        one, other = (store.read(window, window.ids, CPU) for store in (decoded, left))
        for name in ("image", "truth", "valid", "zero"):
            wanted, got = getattr(one, name), getattr(other, name)
            assert (wanted is None) == (got is None), name
            if wanted is not None:
                assert got.dtype == wanted.dtype
                assert torch.equal(got, wanted.expand(got.shape)), name
        assert other.image.stride() == one.image.stride()  # convolutions choose their ways by it
        held = decoded.holds(window.ids, window.corner, size)
        assert torch.equal(left.holds(window.ids, window.corner, size), held)
        assert bool(left.may_hold(window.ids, window.corner, size)[held].all())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_those_of_images_in_memory(kind: str, dims: int, tmp_path: Path) -> None:
    root = write_set(tmp_path, kind, SHAPES[dims])
    assert Dataset.open(Data(root=str(root))).dims == dims
    assert_alike(*of(root), (24, 16) if dims == 2 else (8, 24, 16))


@pytest.mark.parametrize("method", ["unit", "percentile", "imagenet"])
@pytest.mark.parametrize("kind", [".zarr", ".tif"])
def test_colour_and_each_way_of_normalising(kind: str, method: str, tmp_path: Path) -> None:
    root = write_set(tmp_path, kind, SHAPES[2], channels=3)
    found = Dataset.open(Data(root=str(root)))
    assert found.channels == 3
    assert_alike(*of(root, 3, normalization=method), (16, 24))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_other_types_are_rounded_as_in_memory(dtype: Any, tmp_path: Path) -> None:
    root = write_set(tmp_path, ".zarr", SHAPES[2], dtype)
    decoded, left = of(root)
    assert decoded.pixels.dtype == torch.float16
    assert_alike(decoded, left, (16, 24))


def test_mixed_types_are_rounded_too(tmp_path: Path) -> None:
    write_set(tmp_path, ".zarr", SHAPES[2])
    write_chunked(tmp_path / "images" / "t.zarr", arrays(7, (40, 40), np.uint16)[0], "yx")
    write_chunked(tmp_path / "masks" / "t.zarr", arrays(1, (40, 40))[1], "yx")
    assert_alike(*of(tmp_path), (16, 24))


def test_frames_without_padding_are_valid_everywhere(tmp_path: Path) -> None:
    decoded, left = of(write_set(tmp_path, ".zarr", [(40, 48), (33, 64)]))
    assert decoded.valid is None
    inner = Window(torch.tensor([0, 1]), torch.tensor([[3, 8], [0, 16]]), (16, 16))
    assert left.read(inner, inner.ids, CPU).valid is None
    assert_alike(decoded, left, (24, 24))


def test_masks_are_merged_and_fields_of_view_and_ignored_pixels_left_out(tmp_path: Path) -> None:
    image, first = arrays(0, (50, 60))
    second = np.zeros((50, 60), np.uint8)
    second[3:20, 3:20], second[30:40, :9] = 1, 7
    field = np.zeros((50, 60), np.uint8)
    field[:, 4:] = 255
    parts = {"image": image, "first": first, "second": second, "field": field}
    for number, (name, array) in enumerate(parts.items()):
        write_chunked(tmp_path / f"{name}.zarr", array, "yx", chunk=16 * (1 + number % 2))
    image_at, *masks, seen = (Source(tmp_path / f"{name}.zarr") for name in parts)
    case = Case("merged", (image_at,), tuple(masks), seen)
    classes = from_table({"a": [1], "b": [2], "ignore": [7]}, "refuse")
    decoded, left = both([case], classes=classes)
    frame = left.read(Window(torch.tensor([0]), torch.tensor([[0, 0]]), (48, 56)), torch.tensor([0]), CPU)
    assert frame.valid is not None
    assert not frame.valid[0, 0, 35].logical_and(torch.arange(56) < 9).any()
    assert_alike(decoded, left, (24, 16))


def test_files_of_a_channel_each(tmp_path: Path) -> None:
    pixels = [arrays(number, (30, 40), kind)[0] for number, kind in ((0, np.uint8), (1, np.uint16))]
    for number, plane in enumerate(pixels):
        write_chunked(tmp_path / f"c{number}.tif", plane, "yx")
    write_chunked(tmp_path / "m.tif", arrays(0, (30, 40))[1], "yx")
    channels = tuple(Source(tmp_path / f"c{number}.tif") for number in range(2))
    decoded, left = both([Case("two", channels, (Source(tmp_path / "m.tif"),))], 2)
    assert_alike(decoded, left, (16, 16))


def test_thousands_of_files_may_be_more_than_can_be_open(tmp_path: Path) -> None:
    _, left = of(write_set(tmp_path, ".tif", SHAPES[2]))
    window = windows(left, (16, 16), 1)[0]
    left.read(window, window.ids, CPU)
    assert not [file for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]


@pytest.mark.parametrize("dims", [2, 3])
def test_batches_cover_each_frame_once(dims: int, tmp_path: Path) -> None:
    _, left = of(write_set(tmp_path, ".zarr", SHAPES[dims]))
    counts = [np.zeros(shape, int) for shape in left.shapes.tolist()]
    for window in left.batches(4):
        assert len(window.ids) <= 4
        assert all(length <= most for length, most in zip(window.size, TILE[dims], strict=True))
        for number, corner in zip(window.ids.tolist(), window.corner.tolist(), strict=True):
            box = tuple(slice(c, c + n) for c, n in zip(corner, window.size, strict=True))
            assert counts[number][box].shape == window.size
            counts[number][box] += 1
    assert all((count == 1).all() for count in counts)


def test_images_within_a_tile_come_whole_as_from_memory(tmp_path: Path) -> None:
    found = Dataset.open(Data(root=str(write_set(tmp_path, ".zarr", [(20, 24), (16, 16), (20, 24)]))))
    decoded, left = both(found.cases("train"))
    for one, other in zip(decoded.batches(2), left.batches(2), strict=True):
        assert one.size == other.size
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.corner, other.corner)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(3, 20), st.integers(1, 4000))
@settings(deadline=None, max_examples=20)
def test_boxes_are_of_whole_chunks_and_cover_an_array_once(shape, chunk, most):
    count = np.zeros(shape, int)
    for box in boxes(shape, [chunk] * len(shape), most):
        count[box] += 1
        assert all(side.start % min(chunk, length) == 0 for side, length in zip(box, shape, strict=True))
        area = np.prod([side.stop - side.start for side in box])
        assert area <= max(most, chunk ** len(shape))
    assert (count == 1).all()


@given(st.integers(1, 5000), st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_cuts_are_nearly_equal(length, eighths):
    found = cuts(length, 8 * eighths, 8)
    assert sum(extent for _, extent in found) == length
    assert found[0][0] == 0
    assert all(start + extent == after for (start, extent), (after, _) in pairwise(found))
    assert all(start % 8 == 0 and 0 < extent <= 8 * eighths for start, extent in found)
    assert max(extent for _, extent in found) - min(extent for _, extent in found) <= 15


@given(st.integers(0, 10**6), st.sampled_from([(70, 99), (150, 33), (20, 37, 50)]), st.integers(0, 6))
@settings(deadline=None, max_examples=20)
def test_the_coarse_map_errs_to_one_side_alone(seed, shape, objects):
    rng = np.random.default_rng(seed)
    mask = np.zeros((2, *shape), bool)
    for _ in range(objects):
        first = [rng.integers(0, length) for length in shape]
        mask[(rng.integers(0, 2), *(slice(f, f + rng.integers(1, 30)) for f in first))] = True
    valid = np.ones(shape, bool)
    parts = (((box), mask[:, *box], valid[box]) for box in boxes(shape, [13] * len(shape), 800))
    coarse = coarse_of(parts, shape)
    size = (24, 40, 40)[-len(shape) :]
    corners = np.array([[rng.integers(-5, length - 1) for length in shape] for _ in range(40)])
    held = np.array(
        [
            mask[:, *(slice(max(c, 0), c + n) for c, n in zip(corner, size, strict=True))].any()
            for corner in corners
        ]
    )
    assert (coarse.touched(corners, size) >= held).all()
    assert (coarse.surrounded(corners, size) <= held).all()
    assert coarse.empty == (not mask.any())
    if mask.any():
        middle = [round(float(along)) for along in np.argwhere(mask.any(axis=0)).mean(axis=0)]
        assert list(coarse.centre or ()) == middle


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_crops_hold_classes_as_often_as_from_memory(share: float, tmp_path: Path) -> None:
    mask = np.zeros((200, 136), np.uint8)
    for row, column in np.ndindex(5, 3):
        mask[40 * row + 9 : 40 * row + 15, 40 * column + 30 : 40 * column + 36] = 1
    write_chunked(tmp_path / "images" / "a.zarr", arrays(0, mask.shape)[0], "yx", chunk=64)
    write_chunked(tmp_path / "masks" / "a.zarr", mask, "yx", chunk=64)
    decoded, left = of(tmp_path)
    held = []
    for epoch in range(1, 6):
        plans = []
        for images in (decoded, left):
            load = Loader(images, (16, 16), 8, 6, 0, CPU, share)
            plans.append([(frames.window, frames.truth) for frames in load.epoch(epoch)])
        for (one, truth), (other, _) in zip(*plans, strict=True):
            assert torch.equal(one.ids, other.ids)
            assert torch.equal(one.corner, other.corner)
            held += truth.flatten(1).any(dim=1).tolist()
    assert share <= np.mean(held) <= share + 0.45  # those that are taken from all may hold one too


def test_classes_and_colour_are_told_from_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.read.MOST_VALUES", 300)
    root = write_set(tmp_path, ".zarr", SHAPES[2])
    assert resolve_classes(Dataset.open(Data(root=str(root))).found, Data()).names == ("class_1", "class_2")
    gray = np.repeat(arrays(0, (40, 40))[0][..., None], 3, axis=-1)
    for number, end in ((0, 90), (1, 91)):  # one pixel of the last box has a colour
        image = gray.copy()
        image[39, 39, 0] = image[39, 39, 1] = image[39, 39, 2] = 90
        image[39, 39, 2] = end
        path = tmp_path / str(number)
        write_chunked(path / "images" / "a.zarr", image, "yxc")
        write_chunked(path / "masks" / "a.zarr", arrays(0, (40, 40))[1], "yx")
        found = Dataset.open(Data(root=str(path))).found
        assert resolve_channels(found, "auto") == (1 if end == 90 else 3)


def test_coloured_masks_in_boxes_are_surveyed_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.read.MOST_VALUES", 300)
    mask = np.zeros((40, 40, 3), np.uint8)
    mask[30:, 30:, 1] = 200  # the first boxes are black, which is gray
    write_chunked(tmp_path / "images" / "a.zarr", arrays(0, (40, 40))[0], "yx")
    write_chunked(tmp_path / "masks" / "a.zarr", mask, "yxc")
    found = Dataset.open(Data(root=str(tmp_path)))
    assert dict(found.classes.colors) == {0: 0, 200 << 8: 1}
    decoded, left = both(found.cases("train"), 1, found.classes)
    assert_alike(decoded, left, (16, 16))


def test_a_watched_crop_is_read_alone(tmp_path: Path) -> None:
    root = write_set(tmp_path, ".zarr", SHAPES[2])
    found = Dataset.open(Data(root=str(root)))
    box = (slice(5, 20), slice(8, 30))
    crop, sides = found.picture("train", 0, box)
    np.testing.assert_array_equal(crop, found.picture("train", 0)[0][box])
    assert sides == (1.0, 1.0)
    spoiled = next((root / "images" / "s0.zarr" / "c" / "2").iterdir())
    spoiled.write_bytes(b"no chunk")  # of rows that are not wanted
    np.testing.assert_array_equal(found.picture("train", 0, box)[0], crop)
    with pytest.raises(InputError, match="cannot be read"):
        found.picture("train", 0)


def test_auto_reads_from_files_what_memory_has_no_room_for(tmp_path: Path) -> None:
    root = write_set(tmp_path / "zarr", ".zarr", SHAPES[2])
    cases = Dataset.open(Data(root=str(root))).cases("train")
    size = sum(int(np.prod(shape)) for shape in SHAPES[2])
    assert lazy.suits(cases, Data(), size - 1)
    assert not lazy.suits(cases, Data(), size)
    assert not lazy.suits(cases, Data(size=(32, 32)), 0)
    image, mask = arrays(0, (40, 48))
    write_pair(tmp_path / "png", "a", image, mask)
    assert not lazy.suits(Dataset.open(Data(root=str(tmp_path / "png"))).cases("train"), Data(), 0)
    whole = [replace(case, masks=(Source(tmp_path / "png" / "masks" / "a.png"),)) for case in cases]
    assert not lazy.suits(whole, Data(), 0)


def test_auto_does_not_read_large_chunks_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = Dataset.open(Data(root=str(write_set(tmp_path, ".zarr", SHAPES[2])))).cases("train")
    monkeypatch.setattr(lazy, "MOST_CHUNK", 16 * 16)
    assert lazy.suits(cases, Data(), 0)
    monkeypatch.setattr(lazy, "MOST_CHUNK", 16 * 16 - 1)
    assert not lazy.suits(cases, Data(), 0)


def broken(root: Path, what: str) -> dict[str, Any]:
    """Spoil a set in one way, or settings for it."""
    image, mask = root / "images" / "s1.zarr", root / "masks" / "s1.zarr"
    small = np.zeros((30, 30), np.uint8)
    if what == "sizes":
        write_chunked(root / "masks" / "s1.tif", small, "yx")
        mask.rename(root / "s1.zarr")
    elif what == "values":
        zarr.open(mask)[60, 40] = 77  # type: ignore[index]
    elif what == "chunk":
        for file in (image / "c" / "4").iterdir():
            file.write_bytes(b"broken")
    elif what == "nan":
        array = np.ones((70, 44), np.float32)
        array[60, 40] = np.nan
        image.rename(root / "s1.zarr")
        write_chunked(root / "images" / "s1.tif", array, "yx")
    elif what == "strips":
        image.rename(root / "s1.zarr")
        tifffile.imwrite(root / "images" / "s1.tif", np.ones((70, 44), np.uint8))
    return {"size": {"size": (32, 32)}, "spacing": {"spacing": (1.0, 1.0)}}.get(what, {})


BROKEN = {
    "sizes": "30 × 30.*70 × 44", "values": "77.*no class names", "chunk": "cannot be read", "nan": "NaN",
    "strips": "tiled TIFF, or data.cache = disk, would work", "size": "data.size resizes",
    "spacing": "data.spacing resizes",
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_bad_input_is_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    root = write_set(tmp_path, ".zarr", SHAPES[2])
    settings = broken(root, what)
    data = Data(root=str(root), classes={"a": [1], "b": [2]}, **settings)
    found = Dataset.open(data)
    with pytest.raises(InputError, match=BROKEN[what]) as refusal:
        lazy.open_images(found.cases("train"), found.classes, 1, data, (32, 32))
    assert "\n" not in str(refusal.value)


def test_a_black_field_of_view_is_refused_and_an_ignored_one_is_not(tmp_path: Path) -> None:
    image, mask = arrays(0, (40, 48))
    write_chunked(tmp_path / "i.zarr", image, "yx")
    for name, array in {
        "m": mask,
        "all": np.full((40, 48), 9, np.uint8),
        "f": 0 * mask,
        "w": 0 * mask + 1,
    }.items():
        write_chunked(tmp_path / f"{name}.zarr", array, "yx")
    at = {name: Source(tmp_path / f"{name}.zarr") for name in ("i", "m", "all", "f", "w")}
    classes = from_table({"a": [1], "b": [2], "ignore": [9]}, "refuse")
    with pytest.raises(InputError, match="black all over"):
        lazy.open_images([Case("x", (at["i"],), (at["m"],), at["f"])], classes, 1, Data(), (32, 32))
    left = lazy.open_images([Case("x", (at["i"],), (at["all"],), at["w"])], classes, 1, Data(), (32, 32))
    assert left.empty
    assert left.centre(0) == [20, 24]
