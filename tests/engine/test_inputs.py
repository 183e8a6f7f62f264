"""What is given on the command line → images: names, channels, folders, refusals by headers."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from volumes import blobs, write_nifti, write_volumes

from engine.errors import InputError
from engine.inputs import Input, Wanted, gather

RUN = Path("run")


def names(found: list[Input]) -> list[tuple[str, list[str]]]:
    return [(image.name, [file.name for file in image.files]) for image in found]


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    """Three volumes of two channels, in nnU-Net's folders."""
    return write_volumes(tmp_path, count=3, channels=2)


def test_double_endings_are_no_part_of_names(tmp_path: Path) -> None:
    write_nifti(tmp_path / "case.1.nii.gz", blobs(0)[0])
    np.save(tmp_path / "plain.npy", np.zeros((20, 30, 40), np.float32))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.npy").write_bytes(b"")
    found = gather([str(tmp_path)], Wanted(RUN, 1, 3))
    assert names(found) == [("case.1", ["case.1.nii.gz"]), ("plain", ["plain.npy"])]
    assert gather([str(tmp_path), str(tmp_path / "plain.npy")], Wanted(RUN, 1, 3)) == found


@pytest.mark.parametrize("joint", [",", "+", " , "])
def test_files_of_one_image_are_joined(joint: str, channels: Path) -> None:
    files = [str(channels / "imagesTr" / f"b01_000{number}.nii.gz") for number in (0, 1)]
    found = gather([joint.join(files)], Wanted(RUN, 2, 3))
    assert names(found) == [("b01", ["b01_0000.nii.gz", "b01_0001.nii.gz"])]
    turned = gather([joint.join(files[::-1])], Wanted(RUN, 2, 3))
    assert names(turned) == [("b01", ["b01_0001.nii.gz", "b01_0000.nii.gz"])]
    assert [source.path for source in turned[0].case().images] == [Path(file) for file in files[::-1]]


def test_a_comma_in_a_name_is_part_of_it(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a,b.png")
    assert names(gather([str(tmp_path / "a,b.png")], Wanted(RUN, 1))) == [("a,b", ["a,b.png"])]


def test_files_of_other_names_are_called_by_the_first(tmp_path: Path) -> None:
    for folder in ("t1", "flair"):
        write_nifti(tmp_path / folder / "p7.nii.gz", blobs(0)[0])
    write_nifti(tmp_path / "flair_2.nii.gz", blobs(0)[0])
    given = [
        f"{tmp_path}/t1/p7.nii.gz,{tmp_path}/flair/p7.nii.gz",
        f"{tmp_path}/flair_2.nii.gz,{tmp_path}/t1/p7.nii.gz",
    ]
    assert [image.name for image in gather(given, Wanted(RUN, 2, 3))] == ["p7", "flair_2"]


def test_a_folder_is_grouped_by_nnunets_names(channels: Path) -> None:
    found = gather([str(channels / "imagesTr")], Wanted(RUN, 2, 3))
    assert names(found) == [(f"b0{n}", [f"b0{n}_0000.nii.gz", f"b0{n}_0001.nii.gz"]) for n in range(3)]
    single = gather([str(channels / "imagesTr")], Wanted(RUN, 1, 3))
    assert len(single) == 6


def test_a_folder_is_grouped_by_the_runs_patterns(tmp_path: Path) -> None:
    for folder in ("images", "images_t1", "masks"):
        for name in ("p1", "p2"):
            write_nifti(tmp_path / folder / f"{name}.nii.gz", blobs(0)[0])
    patterns = ("images/{id}.nii.gz", "images_t1/{id}.nii.gz")
    found = gather([str(tmp_path)], Wanted(RUN, 2, 3, patterns=patterns))
    assert [(i.name, [f.parent.name for f in i.files]) for i in found] == [
        ("p1", ["images", "images_t1"]), ("p2", ["images", "images_t1"])
    ]  # fmt: skip
    for name in ("p1", "p2"):
        (tmp_path / "images_t1" / f"{name}.nii.gz").rename(tmp_path / "images" / f"{name}_t1.nii.gz")
    together = gather(
        [str(tmp_path)], Wanted(RUN, 2, 3, patterns=("images/{id}.nii.gz", "images/{id}_t1.nii.gz"))
    )
    assert names(together) == [(n, [f"{n}.nii.gz", f"{n}_t1.nii.gz"]) for n in ("p1", "p2")]
    for name in ("p1", "p2"):
        (tmp_path / "images" / f"{name}_t1.nii.gz").rename(tmp_path / "images_t1" / f"{name}.nii.gz")
    by_channel = gather([str(tmp_path)], Wanted(RUN, 3, 3, patterns=("{channel}/{id}.nii.gz",)))
    assert [f.parent.name for f in by_channel[0].files] == ["images", "images_t1", "masks"]
    with pytest.raises(
        InputError, match=r"p1.nii.gz has 1 channel.* images/NAME.nii.gz,images_t1/NAME.nii.gz, or"
    ):
        gather([str(tmp_path / "images")], Wanted(RUN, 2, 3, patterns=patterns))


def test_a_volume_that_holds_all_channels_is_one_file(tmp_path: Path) -> None:
    write_nifti(tmp_path / "both.nii.gz", blobs(0, channels=2)[0])
    assert len(gather([str(tmp_path / "both.nii.gz")], Wanted(RUN, 2, 3))) == 1


def refused(folder: Path, case: str) -> tuple[list[str], Wanted]:
    write_nifti(folder / "v.nii.gz", blobs(0)[0])
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(folder / "flat.png")
    tifffile.imwrite(
        folder / "stack.tif", np.zeros((20, 24, 28), np.uint8), imagej=True, metadata={"axes": "ZYX"}
    )
    (folder / "empty").mkdir()
    at = {name: str(folder / name) for name in ("v.nii.gz", "flat.png", "stack.tif", "empty", "none.nii.gz")}
    volumes, images, two = Wanted(RUN, 1, 3), Wanted(RUN, 1, 2), Wanted(RUN, 2, 3)
    return {
        "volume for images": ([at["v.nii.gz"]], images),
        "stack for images": ([at["stack.tif"]], images),
        "image for volumes": ([at["flat.png"]], volumes),
        "a channel too few": ([at["v.nii.gz"]], two),
        "a channel too many": ([f"{at['v.nii.gz']}+{at['v.nii.gz']}"], volumes),
        "missing file": ([f"{at['v.nii.gz']},{at['none.nii.gz']}"], two),
        "folder among files": ([f"{at['v.nii.gz']},{at['empty']}"], two),
        "empty folder": ([at["empty"]], volumes),
        "nothing there": ([at["none.nii.gz"]], volumes),
    }[case]


SENTENCES = {
    "volume for images": r"v.nii.gz is a volume of 16 × 20 × 24 voxels.*trained on 2D images",
    "stack for images": "stack.tif is a volume of 20 × 24 × 28 voxels",
    "image for volumes": "flat.png is a 2D image of 12 × 16 px, and the run run was trained on volumes",
    "a channel too few": r"v.nii.gz has 1 channel, and .* volumes of 2 channels: .*NAME_0000.nii.gz,NAME_",
    "a channel too many": r"v.nii.gz with .*v.nii.gz has 2 channels in 2 files, and .* of 1 channel: such",
    "missing file": "none.nii.gz does not exist",
    "folder among files": "empty is a folder: of images in several files, each file has to be named",
    "empty folder": "holds no images",
    "nothing there": "none.nii.gz does not exist",
}


@pytest.mark.parametrize("case", SENTENCES)
def test_what_the_run_cannot_take_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    given, wanted = refused(tmp_path, case)
    with pytest.raises(InputError, match=SENTENCES[case]) as refusal:
        gather(given, wanted)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_gray_and_colour_become_each_other(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "gray.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "colour.png")
    for wanted in (Wanted(RUN, 1), Wanted(RUN, 3)):
        assert len(gather([str(tmp_path)], wanted)) == 2
