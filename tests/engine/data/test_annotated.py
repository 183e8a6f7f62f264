"""The folder `annotation`: what is saved comes back, nothing is lost, and what is spoilt is named."""

import csv
import os
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.data import annotated
from engine.data.annotated import AnnotationClass, Entry
from engine.data.dataset import Dataset
from engine.data.layouts import find, list_images
from engine.data.specs import Data
from engine.errors import InputError

CELL = AnnotationClass("cell", 1, "#e69f00")
CLASSES = (CELL, AnnotationClass("debris", 4, "#56b4e9"))


def picture(path: Path, shape: tuple[int, ...] = (20, 30), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        picture(tmp_path / "raw" / f"{number}.png", seed=number)
    annotated.write_classes(tmp_path, CLASSES)
    return tmp_path


def painted(*, value: int = 1, share: float = 0.5, shape: tuple[int, ...] = (20, 30)) -> NDArray[np.uint8]:
    labels = np.full(shape, annotated.UNLABELLED, np.uint8)
    labels[: round(shape[0] * share)] = 0
    labels[2:5, 3:9] = value
    return labels


def test_what_is_saved_comes_back(root: Path) -> None:
    labels = painted()
    entry = annotated.save(root, "raw/1.png", labels, status="started", origin="drawn", annotator="ada")
    assert entry.mask == "annotation/masks/raw/1.png"
    assert entry.labelled == pytest.approx(0.5)
    np.testing.assert_array_equal(annotated.read_mask(root / entry.mask), labels)
    kept = annotated.read_set(root)
    assert kept.classes == CLASSES
    assert kept.entries == {"raw/1.png": entry}
    assert annotated.read_entry(root, "raw/2.png") == Entry("raw/2.png")


def test_the_engine_trains_on_labelled_pixels_alone(root: Path) -> None:
    annotated.save(root, "raw/1.png", painted(), status="started")
    annotated.save(root, "raw/2.png", painted(value=4, share=1.0), status="done")
    annotated.save(root, "raw/3.png", np.full((20, 30), 255, np.uint8), status="started")
    annotated.record(root, "raw/0.png", status="untouched")
    dataset = Dataset.open(Data(root=str(root)))
    assert dataset.found.layout == "annotation"
    assert [case.name for case in dataset.found.cases] == ["1", "2"]
    assert dataset.classes.names == ("cell", "debris")
    first, second = dataset.samples("train")
    assert (first.labels[10:] == 255).all()
    assert (first.labels == 1).sum() == 18
    assert (second.labels == 2).sum() == 18
    assert (second.labels != 255).all()
    assert any("1 of 2 images are not done" in note for note in dataset.found.notes)


def test_rows_decide_splits_and_groups(root: Path) -> None:
    for number, split in enumerate(("train", "val", "calib", "test")):
        annotated.save(root, f"raw/{number}.png", painted(), status="done", split=split, group=f"p{number}")
    dataset = Dataset.open(Data(root=str(root)))
    assert {part: [case.name for case in dataset.cases(part)] for part in dataset.splits} == {
        "train": ["0"], "val": ["1"], "calib": ["2"], "test": ["3"],
    }  # fmt: skip
    assert dataset.found.grouped


def test_a_group_in_two_splits_is_refused(root: Path) -> None:
    for number, split in enumerate(("train", "test")):
        annotated.save(root, f"raw/{number}.png", painted(), status="done", split=split, group="patient 1")
    with pytest.raises(InputError, match=r"patient 1.*in the splits train and test"):
        find(Data(root=str(root)))


def test_earlier_versions_stay(root: Path) -> None:
    image = "raw/1.png"
    saved = [painted(share=share) for share in (0.25, 0.5, 0.75)]
    for number, labels in enumerate(saved):
        entry = annotated.save(root, image, labels, status="started")
        os.utime(root / entry.mask, (1_000_000 + 100 * number,) * 2)
    found = annotated.versions(root, entry)
    assert [version.saved.timestamp() for version in found] == [1_000_100, 1_000_000]
    for version, labels in zip(found, saved[1::-1], strict=True):
        np.testing.assert_array_equal(annotated.read_mask(version.path), labels)


def test_strokes_within_a_minute_are_one_version_unless_asked(root: Path) -> None:
    image = "raw/1.png"
    for number in range(6):
        entry = annotated.save(root, image, painted(share=0.1 * (number + 4)), status="started")
        os.utime(root / entry.mask, (1_000_000 + 10 * number,) * 2)
    assert len(annotated.versions(root, entry)) == 1
    annotated.save(root, image, painted(), keep=True)
    assert len(annotated.versions(root, entry)) == 2


def test_the_oldest_versions_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated, "MOST_VERSIONS", 3)
    for number in range(7):
        entry = annotated.save(root, "raw/1.png", painted(), status="started")
        os.utime(root / entry.mask, (1_000_000 + 100 * number,) * 2)
    times = [version.saved.timestamp() for version in annotated.versions(root, entry)]
    assert times == [1_000_500, 1_000_400, 1_000_300]


def test_what_the_user_added_to_the_table_stays(root: Path) -> None:
    annotated.save(root, "raw/1.png", painted(), status="started")
    path = root / "annotation" / "images.csv"
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "stain"])
        writer.writeheader()
        writer.writerow({**rows[0], "stain": "H&E, 5 µm"})
    annotated.record(root, "raw/2.png", status="started")
    annotated.record(root, "raw/1.png", status="done")
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [(row["image"], row["status"], row["stain"]) for row in rows] == [
        ("raw/1.png", "done", "H&E, 5 µm"), ("raw/2.png", "started", ""),
    ]  # fmt: skip


def test_history_tells_how_a_mask_came_about(root: Path) -> None:
    annotated.save(root, "raw/1.png", painted(), status="started", origin="predicted", run="r1", epoch="7")
    annotated.save(root, "raw/1.png", painted(share=0.7), status="started", origin="predicted")
    annotated.save(root, "raw/1.png", painted(share=1.0), status="done", origin="corrected")
    lines = (root / "annotation" / "history.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert '"origin": "predicted"' in lines[0]
    assert '"run": "r1"' in lines[1]
    assert '"origin": "corrected"' in lines[1]


def test_volumes_keep_their_place(tmp_path: Path) -> None:
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    voxels = np.arange(4 * 6 * 8, dtype=np.int16).reshape(8, 6, 4)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "brain.nii.gz")
    tifffile.imwrite(
        tmp_path / "stack.tif", np.zeros((5, 20, 30), np.uint8), metadata={"axes": "ZYX"},
        photometric="minisblack",
    )  # fmt: skip
    annotated.write_classes(tmp_path, (CELL,))
    for image, shape, name in (
        ("brain.nii.gz", (4, 6, 8), "brain.nii.gz"),
        ("stack.tif", (5, 20, 30), "stack.tif"),
    ):
        labels = np.full(shape, 255, np.uint8)
        labels[2] = 0
        labels[2, 1:3, 2:5] = 1
        entry = annotated.save(tmp_path, image, labels, status="started")
        assert entry.mask == f"annotation/masks/{name}"
        np.testing.assert_array_equal(annotated.read_mask(tmp_path / entry.mask), labels)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "annotation/masks/brain.nii.gz").affine, affine)
    dataset = Dataset.open(Data(root=str(tmp_path)))
    assert dataset.dims == 3
    for sample in dataset.samples("train"):
        assert (sample.labels != 255).any(axis=(1, 2)).nonzero()[0].tolist() == [2]


def test_images_of_one_name_have_masks_of_their_own(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.tif")
    annotated.write_classes(tmp_path, (CELL,))
    names = [annotated.save(tmp_path, image, painted(), status="done").mask for image in ("a.png", "a.tif")]
    assert names == ["annotation/masks/a.png.png", "annotation/masks/a.tif.png"]
    assert len(find(Data(root=str(tmp_path))).cases) == 2


def test_several_files_are_channels(tmp_path: Path) -> None:
    for name in ("x_dapi.png", "x_gfp.png"):
        picture(tmp_path / name)
    annotated.write_classes(tmp_path, (CELL,))
    annotated.save(tmp_path, "x_dapi.png;x_gfp.png", painted(), status="done")
    dataset = Dataset.open(Data(root=str(tmp_path)))
    assert dataset.channels == 2


def test_a_failed_save_leaves_what_was_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = painted()
    entry = annotated.save(root, "raw/1.png", first, status="started")
    before = (root / "annotation" / "images.csv").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"disk is full.*still there"):
        annotated.save(root, "raw/1.png", painted(share=1.0), status="done")
    np.testing.assert_array_equal(annotated.read_mask(root / entry.mask), first)
    assert (root / "annotation" / "images.csv").read_bytes() == before
    assert not list((root / "annotation").rglob("*.new"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(root: Path) -> None:
    (root / "annotation").chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        annotated.record(root, "raw/1.png", status="started")
    (root / "annotation").chmod(0o700)


def test_writers_take_turns(root: Path) -> None:
    def write(number: int) -> None:
        for _ in range(5):
            annotated.record(root, f"raw/{number}.png", status="started", annotator=f"{number}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(annotated.read_set(root).entries) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,status\nraw/1.png,finished\n", "line 2 .*'finished' as status: untouched, started"),
        ("image,status\nraw/1.png,done\nraw/1.png,done\n", "line 3 .*a second time"),
        ("image,status\n,done\n", "line 2 .*names no image"),
        ("image,labelled\nraw/1.png,much\n", "line 2 .*'much' as labelled"),
        ("image,mask\nraw/1.png,../../etc/x.png\n", "line 2 .*below the folder"),
        ("image,split\nraw/1.png,dev\n", "line 2 .*'dev' as split"),
        ('image,status\n"raw/1.png,done\n', "cannot be read as a table"),
    ],
)
def test_a_spoilt_table_is_named(root: Path, text: str, words: str) -> None:
    (root / "annotation" / "images.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        annotated.read_set(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[class]]\nvalue = 1\n", "cannot be read .*name"),
        ("class = 3\n", "cannot be read"),
        ('[[class]]\nname = "a"\nvalue = 0\n', "gives 0 to a"),
        ('[[class]]\nname = "a"\nvalue = 255\n', "gives 255 to a"),
        ('[[class]]\nname = "ignore"\nvalue = 1\n', "a name of its own"),
        ('[[class]]\nname = "a"\nvalue = 1\ncolor = "red"\n', "#e69f00 would work"),
        ('[[class]]\nname = "a"\nvalue = 1\n[[class]]\nname = "a"\nvalue = 2\n', "'a' to two classes"),
        ('[[class]]\nname = "a"\nvalue = 1\n[[class]]\nname = "b"\nvalue = 1\n', "1 to two classes"),
    ],
)
def test_spoilt_classes_are_named(root: Path, text: str, words: str) -> None:
    (root / "annotation" / "classes.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        annotated.read_set(root)


def test_nothing_labelled_is_refused(root: Path) -> None:
    annotated.record(root, "raw/1.png", status="started")
    with pytest.raises(InputError, match=r"none of the 1 image .*has a label"):
        find(Data(root=str(root)))


def test_files_that_are_gone_are_named(root: Path) -> None:
    entry = annotated.save(root, "raw/1.png", painted(), status="done")
    (root / entry.mask).unlink()
    with pytest.raises(InputError, match=r"1 file \(annotation/masks/raw/1.png\) that is gone"):
        find(Data(root=str(root)))


def test_labels_of_another_size_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"shape \(30, 20\).*\(20, 30\) would work"):
        annotated.save(root, "raw/1.png", painted(shape=(30, 20)))


def test_a_plain_folder_lists_its_images(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "deep/3.tif"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    annotated.write_classes(tmp_path, (CELL,))
    annotated.save(tmp_path, "2.png", painted(), status="done")
    assert list_images(tmp_path).images == (("2.png",), ("10.png",), ("deep/3.tif",))


def test_masks_that_lie_beside_images_are_no_images(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png")
    picture(tmp_path / "masks" / "1_mask.png")
    found = list_images(tmp_path)
    assert found.images == (("images/0.png",), ("images/1.png",), ("images/2.png",))
    assert {image: [mask.path.name for mask in masks] for image, masks in found.masks.items()} == {
        "images/1.png": ["1_mask.png"]
    }


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(InputError, match="no image in"):
        list_images(tmp_path)


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\;\0", exclude_categories=["Cc"]), min_size=1
)


@settings(max_examples=25, deadline=None)
@given(
    text=names.filter(lambda text: text.strip() == text and text not in (".", "..")),
    status=st.sampled_from(annotated.STATUSES),
    origin=st.sampled_from(annotated.ORIGINS),
)
def test_rows_of_any_text_come_back(
    tmp_path_factory: pytest.TempPathFactory, text: str, status: annotated.Status, origin: annotated.Origin
) -> None:
    root = tmp_path_factory.mktemp("set")
    entry = annotated.record(root, f"folder/{text}", status=status, origin=origin, annotator=text, run=text)
    assert annotated.read_set(root).entries == {entry.image: entry}
