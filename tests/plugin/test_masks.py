"""Outlines, label maps and saved masks."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from engine import head
from engine.errors import InputError
from napari_smm import masks
from napari_smm.masks import label_map, outline, save_masks, write_mask

ROOT = Path(__file__).parents[2]
SIDES = st.integers(1, 12)


@settings(deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(SIDES, SIDES)), st.integers(1, 40))
def test_the_outline_is_the_mask_without_its_erosion(mask: np.ndarray, band: int) -> None:
    inner = ndimage.binary_erosion(mask, border_value=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "BAND", band)
        found = outline(mask)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, (mask & ~inner).astype(np.uint8))


def test_an_outline_of_a_view_is_that_of_its_copy_and_leaves_the_mask_alone() -> None:
    whole = np.random.default_rng(0).random((3000, 801)) > 0.3
    view = whole[::2, ::-1]
    before = view.copy()
    np.testing.assert_array_equal(outline(view), outline(before))
    np.testing.assert_array_equal(view, before)


def test_the_outline_of_a_large_mask_takes_a_blink() -> None:
    mask = np.random.default_rng(0).random((4096, 4096)) > 0.5

    def seconds() -> float:
        began = time.perf_counter()
        outline(mask)
        return time.perf_counter() - began

    # The best of several, for others use the machine too; it takes 10 ms, and must not take many times that.
    assert min(seconds() for _ in range(10)) < 0.06


@settings(deadline=None)
@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 4))
def test_label_maps_are_the_engines(data: st.DataObject, dtype: type, classes: int) -> None:
    # Few values, so that ties and a p that equals T come up.
    values = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]) | st.floats(0, 1)
    shape = data.draw(st.sampled_from([(4, 5), (1, 1), (2, 3, 4), (0, 3)]))
    p = data.draw(hnp.arrays(np.float64, (classes, *shape), elements=values)).astype(dtype)
    thresholds = data.draw(st.lists(values, min_size=classes, max_size=classes))
    expected = head.labels(torch.from_numpy(p[None]), "sigmoid", thresholds)[0].numpy()
    found = label_map(p, thresholds)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_what_is_no_number_passes_nothing() -> None:
    p = np.array([[[np.nan, 0.7]], [[0.6, np.nan]]], np.float32)
    assert label_map(p, (0.5, 0.5)).tolist() == [[2, 1]]


def test_each_class_needs_a_threshold_and_a_label() -> None:
    with pytest.raises(InputError, match="1 thresholds are given for 2 classes"):
        label_map(np.zeros((2, 4, 4)), [0.5])
    with pytest.raises(InputError, match=r"256 classes: 1 to 255"):
        label_map(np.zeros((256, 1, 1)), [0.5] * 256)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) if path.suffix == ".png" else tifffile.imread(path)


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("classes", [1, 3])
def test_masks_are_read_back_as_they_were(tmp_path: Path, ending: str, classes: int) -> None:
    labels = np.random.default_rng(0).integers(0, classes + 1, (37, 53)).astype(np.uint8)
    path = tmp_path / f"mask{ending}"
    write_mask(path, labels, classes)
    found = read(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels * (255 if classes == 1 else 1))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_the_mask_of_one_class_of_several_is_0_and_255(tmp_path: Path, ending: str) -> None:
    mask = np.random.default_rng(0).random((37, 53)) < 0.3
    (path,) = save_masks(tmp_path, [("a", lambda: mask)], 3, ending=ending)
    found = read(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.where(mask, 255, 0))


def test_a_file_is_replaced_only_if_told_to(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_mask(path, np.zeros((4, 4), np.uint8), 1)
    with pytest.raises(InputError, match=r"mask\.png exists already.*overwriting"):
        write_mask(path, np.ones((4, 4), np.uint8), 1)
    assert not read(path).any()
    write_mask(path, np.ones((4, 4), np.uint8), 1, overwrite=True)
    assert read(path).all()


@pytest.mark.parametrize(
    ("name", "labels", "classes", "said"),
    [
        ("mask.jpg", np.zeros((4, 4), np.uint8), 1, r"'\.jpg'.*\.png.*would work"),
        ("mask.png", np.full((4, 4), 3, np.uint8), 2, "label 3: 0 to 2"),
        ("mask.png", np.full((4, 4), 255, np.uint8), 1, "label 255: 0 to 1"),
        ("mask.png", np.zeros((4, 4), np.int64), 1, "int64"),
        ("mask.png", np.zeros((2, 4, 4), np.uint8), 1, r"\(2, 4, 4\)"),
        ("mask.png", np.zeros((0, 4), np.uint8), 1, r"\(0, 4\)"),
        ("mask.png", np.zeros((4, 4), np.uint8), 0, "0 classes: 1 to 255"),
        ("mask.png", np.zeros((4, 4), np.uint8), 256, "256 classes: 1 to 255"),
        ("none/mask.png", np.zeros((4, 4), np.uint8), 1, r"mask\.png cannot be written \(No such file"),
        ("file/mask.png", np.zeros((4, 4), np.uint8), 1, r"mask\.png cannot be written \(Not a directory"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(
    tmp_path: Path, name: str, labels: np.ndarray, classes: int, said: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=said):
        write_mask(tmp_path / name, labels, classes)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit to a file's size")
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mask{ending}"
    write_mask(path, np.zeros((8, 8), np.uint8), 1)
    before = path.read_bytes()
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from engine.errors import InputError
from napari_smm.masks import write_mask
noise = np.random.default_rng(0).integers(0, 9, (200, 200)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_mask(Path(sys.argv[1]), noise, 8, overwrite=True)
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert f"{path} cannot be written (File too large)" in done.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_stack_is_saved_plane_by_plane(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 3, (3, 8, 9)).astype(np.uint8)
    computed: list[int] = []
    told: list[tuple[int, int]] = []

    def plane(number: int) -> np.ndarray:
        assert len(told) == number, "the plane before was not written yet"
        computed.append(number)
        return stack[number]

    paths = save_masks(
        tmp_path / "new" / "masks",
        [(f"s_{number}", lambda number=number: plane(number)) for number in range(3)],
        2,
        ending=".tif",
        progress=lambda done, of: told.append((done, of)),
    )
    assert [path.name for path in paths] == ["s_0.tif", "s_1.tif", "s_2.tif"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    for path, labels in zip(paths, stack, strict=True):
        np.testing.assert_array_equal(read(path), labels)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "A"], "two masks have the name 'A'"),
        (["a", "b", "taken"], r"taken\.png exists already"),
        (["a", "../b"], r"'\.\./b' cannot be the name"),
        (["a", ".hidden"], "'.hidden' cannot be the name"),
        (["a", " "], "' ' cannot be the name"),
    ],
)
def test_no_mask_is_written_before_all_names_are_good(tmp_path: Path, names: list[str], said: str) -> None:
    (tmp_path / "taken.png").write_text("all of it")
    with pytest.raises(InputError, match=said):
        save_masks(tmp_path, [(name, np.zeros((4, 4), np.uint8)) for name in names], 1)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]
    assert (tmp_path / "taken.png").read_text() == "all of it"


def test_masks_that_are_there_are_replaced_if_told_to(tmp_path: Path) -> None:
    for value in (0, 1):
        save_masks(tmp_path, [("a", np.full((4, 4), value, np.uint8))], 1, overwrite=bool(value))
    assert read(tmp_path / "a.png").all()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be written"):
        save_masks(tmp_path / "file", [("a", np.zeros((4, 4), np.uint8))], 1)
