"""What was taken up, kept in a file and read again."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.data import journal
from engine.data.journal import Entry, forget_after, path_of, read_page, read_pages, write_page
from engine.data.layouts import Case
from engine.data.raster import Source
from engine.errors import InputError


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    root = tmp_path / "data"
    images = (Source(root / "a" / "x.mat", "b.c", "zyx"), Source(root / "y.png"))
    case = Case("ä 1", images, (Source(root / "m.png"),), Source(root / "fov.png"), "patient 7", "val")
    other = replace(case, name="other", valid=None, masks=(), split="")
    return [
        Entry(case, "val", False, "1f", "2e", ((3, 2**62), (4, 5))),
        Entry(other, "test"),
        Entry(other, "train", True, "3d"),
    ]


def written(folder: Path, root: Path, entries: list[Entry], epoch: int = 7) -> list[np.ndarray]:
    labels = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.full((2, 3, 4), 255, np.uint8)]
    write_page(folder, root, epoch, entries, iter(labels), size=[3, 4], note=None)
    return labels


def test_a_page_comes_back_whole_and_from_another_place(entries: list[Entry], tmp_path: Path) -> None:
    labels = written(tmp_path / "followed", tmp_path / "data", entries)
    (page,) = read_pages(tmp_path / "followed", tmp_path / "data", 1)
    assert page.epoch == 7
    assert list(page.entries) == entries
    assert (page.about["size"], page.about["note"]) == ([3, 4], None)
    np.testing.assert_array_equal(page.labels(0), labels[0])
    np.testing.assert_array_equal(page.labels(2), labels[1])
    moved = read_page(page.path, tmp_path / "moved")
    assert moved.entries[0].case.images[0] == Source(tmp_path / "moved" / "a" / "x.mat", "b.c", "zyx")


def test_pages_are_read_in_order_and_forgotten(entries: list[Entry], tmp_path: Path) -> None:
    folder = tmp_path / "followed"
    for epoch in (10001, 9, 0, 30):
        written(folder, tmp_path / "data", entries, epoch)
    (folder / ".0031.npz.new").write_bytes(b"half")
    assert [page.epoch for page in read_pages(folder, tmp_path, 0)] == [0, 9, 30, 10001]
    assert [page.epoch for page in read_pages(folder, tmp_path, 1, 30)] == [9, 30]
    forget_after(folder, 29)
    assert [page.epoch for page in read_pages(folder, tmp_path, 0)] == [0, 9]
    assert read_pages(tmp_path / "none", tmp_path, 0) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone", "other"])
def test_a_damaged_page_is_refused_by_name(damage: str, entries: list[Entry], tmp_path: Path) -> None:
    folder = tmp_path / "followed"
    written(folder, tmp_path / "data", entries)
    path = path_of(folder, 7)
    whole = path.read_bytes()
    middle = whole.index(b"0.npy") + 60
    wrong = bytes(255 - byte for byte in whole[middle : middle + 40])
    content = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "other": whole.replace(b"about.json", b"above.json"),
        "flipped": whole[:middle] + wrong + whole[middle + 40 :],
    }
    path.write_bytes(content[damage]) if damage in content else path.unlink()
    with pytest.raises(InputError, match=r"0007\.npz, where a run keeps the masks .*neither repeated nor"):
        read_page(path, tmp_path).labels(0)


def test_a_later_format_is_refused(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal, "FORMAT", 2)
        written(tmp_path / "followed", tmp_path / "data", entries)
    with pytest.raises(InputError, match="has format 2, and this version reads format 1"):
        read_page(path_of(tmp_path / "followed", 7), tmp_path)


def test_a_full_disk_leaves_what_was_there(entries: list[Entry], tmp_path: Path) -> None:
    folder = tmp_path / "followed"
    labels = written(folder, tmp_path / "data", entries)

    def until_full() -> object:
        yield labels[0]
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_page(folder, tmp_path / "data", 7, entries, until_full())  # type: ignore[arg-type]
    assert [path.name for path in folder.iterdir()] == ["0007.npz"]
    np.testing.assert_array_equal(read_page(path_of(folder, 7), tmp_path).labels(2), labels[1])


def test_an_image_that_is_another_one_is_refused(entries: list[Entry], tmp_path: Path) -> None:
    written(tmp_path / "run" / "followed", tmp_path / "data", entries)
    page = read_page(path_of(tmp_path / "run" / "followed", 7), tmp_path / "data")
    page.require_same(page.entries[0], "1f")
    with pytest.raises(InputError, match=r"x\.mat is another one than when .*run was trained"):
        page.require_same(page.entries[0], "00")
