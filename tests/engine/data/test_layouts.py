"""Each layout on a miniature of the tree that its owner documents."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.layouts import Found, find, known
from engine.data.read import load_case, read_image, read_labels, read_valid, resolve_channels, resolve_classes
from engine.data.specs import Data
from engine.data.split import split
from engine.errors import InputError

Put = Callable[..., Path]
PICTURE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
GRAY = PICTURE[..., 0]
MASK = np.zeros((6, 8), np.uint8)
MASK[2, 1:7] = 255


def found_in(root: Path, **settings: object) -> Found:
    return find(Data(root=str(root), **settings))


def first_labels(found: Found, **settings: object) -> np.ndarray:
    classes = resolve_classes(found, Data(root=str(found.root), **settings))
    return read_labels(found.cases[0], classes)


def names(found: Found) -> list[str]:
    return [case.name for case in found.cases]


def test_every_layout_describes_itself() -> None:
    layouts = known()
    assert len({layout.name for layout in layouts}) == len(layouts)
    for layout in layouts:
        assert layout.title
        assert layout.tree
        assert layout.reference


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "masks/a.png"),
        ("images/a.jpg", "masks/a.png"),
        ("imgs/a.tif", "labels/a_label.png"),
        ("Image/a.bmp", "Annotations/a-mask.gif"),
        ("image/a_mask.png", "mask/a_mask.png"),
    ],
)
def test_images_and_masks(tmp_path: Path, put: Put, image: str, mask: str) -> None:
    put(image, PICTURE)
    put(mask, MASK)
    found = found_in(tmp_path)
    assert found.layout == "images-masks"
    assert (len(found.cases), found.grouped) == (1, False)
    assert found.cases[0].group == found.cases[0].name
    np.testing.assert_array_equal(first_labels(found), MASK // 255)


def test_images_and_masks_below_splits_with_field_of_view(tmp_path: Path, put: Put) -> None:
    for folder in ("train", "validation", "test"):
        for stem in ("a", "b"):
            put(f"{folder}/images/{stem}.png", PICTURE)
            put(f"{folder}/masks/{stem}_mask.png", MASK)
            put(f"{folder}/fov/{stem}.png", 255 - MASK)
    found = found_in(tmp_path)
    assert Counter(case.split for case in found.cases) == {"train": 2, "val": 2, "test": 2}
    assert names(found)[:2] == ["train_a", "train_b"]
    np.testing.assert_array_equal(read_valid(found.cases[0]), MASK == 0)


def test_numbers_sort_by_value_and_other_folders_are_left_alone(tmp_path: Path, put: Put) -> None:
    for number in (1, 2, 10):
        put(f"images/{number}.png", PICTURE)
        put(f"masks/{number}.png", MASK)
        put(f"instances/{number}.png", MASK)
        put(f"images/._{number}.png", MASK)
    assert names(found_in(tmp_path)) == ["1", "2", "10"]


def nnunet(put: Put, root: Path, labels: object, **more: object) -> None:
    """Two training cases of two channels, and one test case."""
    for case in ("BRATS_001", "BRATS_002"):
        put(f"imagesTr/{case}_0001.png", GRAY + 1)
        put(f"imagesTr/{case}_0000.png", GRAY)
        put(f"labelsTr/{case}.png", MASK // 255 * 2)
    put("imagesTs/BRATS_485_0000.png", GRAY)
    put("imagesTs/BRATS_485_0001.png", GRAY)
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "numTraining": 2, **more}))


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "PZ": 1, "TZ": 2},  # version 2
        {"0": "background", "1": "PZ", "2": "TZ"},  # version 1
        {"background": 0, "PZ": [1], "TZ": [2]},  # regions that do not overlap
    ],
)
def test_nnunet(tmp_path: Path, put: Put, labels: object) -> None:
    nnunet(put, tmp_path, labels, file_ending=".png")
    found = found_in(tmp_path)
    assert found.layout == "nnunet"
    assert names(found) == ["BRATS_001", "BRATS_002"]
    assert found.notes == ("1 image (imagesTs/BRATS_485_0000.png) without a mask left out.",)
    np.testing.assert_array_equal(read_image(found.cases[0]), np.stack([GRAY, GRAY + 1], -1))
    assert resolve_channels(found, "auto") == 2
    assert resolve_classes(found, Data()).names == ("PZ", "TZ")
    np.testing.assert_array_equal(first_labels(found), MASK // 255 * 2)


def test_nnunet_test_labels_and_ignored_pixels(tmp_path: Path, put: Put) -> None:
    nnunet(put, tmp_path, {"background": 0, "edema": 1, "ignore": 2}, file_ending=".png")
    put("labelsTs/BRATS_485.png", MASK // 255)
    found = found_in(tmp_path)
    assert [case.split for case in found.cases] == ["train", "train", "test"]
    np.testing.assert_array_equal(first_labels(found), MASK)  # 2 → ignored, which is 255


def test_nnunet_without_description_infers_classes(tmp_path: Path, put: Put) -> None:
    put("imagesTr/a_0000.png", GRAY)
    put("labelsTr/a.png", MASK)
    assert resolve_classes(found_in(tmp_path), Data()).names == ("foreground",)


@pytest.mark.parametrize(
    ("labels", "more", "sentence"),
    [
        ({"background": 0, "whole": [1, 2], "core": [2]}, {}, "regions that overlap"),
        (
            {"background": 0, "heart": 1},
            {"file_ending": ".docx"},
            "file_ending '.docx', which is not read",
        ),
        (["heart"], {}, "is not nnU-Net's description"),
    ],
)
def test_nnunet_refuses(
    tmp_path: Path, put: Put, labels: object, more: dict[str, str], sentence: str
) -> None:
    nnunet(put, tmp_path, labels, **more)
    with pytest.raises(InputError, match=sentence):
        found_in(tmp_path)


def drive(put: Put, test_truth: bool) -> None:
    for number in (21, 22):
        put(f"training/images/{number}_training.tif", PICTURE)
        put(f"training/1st_manual/{number}_manual1.gif", MASK)
        put(f"training/mask/{number}_training_mask.gif", 255 - MASK)
    put("test/images/01_test.tif", PICTURE)
    put("test/mask/01_test_mask.gif", 255 - MASK)
    if test_truth:
        put("test/1st_manual/01_manual1.gif", MASK)
        put("test/2nd_manual/01_manual2.gif", MASK)


def test_drive(tmp_path: Path, put: Put) -> None:
    drive(put, test_truth=True)
    found = found_in(tmp_path)
    assert found.layout == "drive"
    assert [(case.name, case.split) for case in found.cases] == [
        ("21", "train"),
        ("22", "train"),
        ("01", "test"),
    ]
    loaded = load_case(found.cases[0], resolve_classes(found, Data()))
    np.testing.assert_array_equal(loaded.image, PICTURE)
    np.testing.assert_array_equal(loaded.labels, MASK // 255)
    np.testing.assert_array_equal(loaded.valid, MASK == 0)


def test_drive_without_public_test_truth(tmp_path: Path, put: Put) -> None:
    drive(put, test_truth=False)
    found = found_in(tmp_path)
    assert found.layout == "drive"
    assert names(found) == ["21", "22"]
    assert found.notes == ("1 image (test/images/01_test.tif) without a mask left out.",)


def test_chasedb1(tmp_path: Path, put: Put) -> None:
    for stem in ("Image_01L", "Image_01R", "Image_02L"):
        put(f"{stem}.jpg", PICTURE)
        put(f"{stem}_1stHO.png", MASK > 0)  # 1 bit, as they are
        put(f"{stem}_2ndHO.png", MASK == 0)
    found = found_in(tmp_path)
    assert (found.layout, found.grouped) == ("chasedb1", True)
    assert [(case.name, case.group) for case in found.cases] == [
        ("Image_01L", "01"),
        ("Image_01R", "01"),
        ("Image_02L", "02"),
    ]
    np.testing.assert_array_equal(first_labels(found), MASK // 255)


def test_images_of_chasedb1_keep_their_subject_in_other_folders(tmp_path: Path, put: Put) -> None:
    for stem in ("Image_01L", "Image_01R"):
        put(f"images/{stem}.jpg", PICTURE)
        put(f"masks/{stem}.png", MASK)
    found = found_in(tmp_path)
    assert [case.group for case in found.cases] == ["01", "01"]
    assert found.grouped


def test_dsb2018_merges_one_mask_per_nucleus(tmp_path: Path, put: Put) -> None:
    first, second = np.zeros((2, 6, 8), np.uint8)
    first[1:3, 1:3] = second[2:5, 4:7] = 255
    rgba = np.dstack([PICTURE, np.full((6, 8), 255, np.uint8)])
    for case in ("00ae65", "00071198d059"):
        put(f"stage1_train/{case}/images/{case}.png", rgba)
        put(f"stage1_train/{case}/masks/07a9bf1d.png", first)
        put(f"stage1_train/{case}/masks/0e548d0a.png", second)
    put("stage1_test/0114f484/images/0114f484.png", rgba)
    found = found_in(tmp_path)
    assert (found.layout, len(found.cases)) == ("dsb2018", 2)
    assert "0114f484" in found.notes[0]
    np.testing.assert_array_equal(first_labels(found), (first | second) // 255)
    assert load_case(found.cases[0], resolve_classes(found, Data())).notes == (
        "an alpha channel was dropped",
    )
    assert read_image(found.cases[0]).shape == (6, 8, 3)


@pytest.mark.parametrize("suffix", ["segmentation", "Segmentation"])
def test_isic_flat(tmp_path: Path, put: Put, suffix: str) -> None:
    put("ISIC_0000000.jpg", PICTURE)
    put(f"ISIC_0000000_{suffix}.png", MASK)
    put("ISIC_0000000_superpixels.png", PICTURE)
    found = found_in(tmp_path)
    assert (found.layout, names(found)) == ("isic", ["ISIC_0000000"])
    assert found.cases[0].split == ""


@pytest.mark.parametrize(
    ("images", "masks", "part"),
    [
        ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "train"),
        ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", "val"),
        ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "test"),
        ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", "train"),
        ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "test"),
        ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth", "train"),
        ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", "test"),
    ],
)
def test_isic_folders(tmp_path: Path, put: Put, images: str, masks: str, part: str) -> None:
    put(f"{images}/ISIC_0012255.jpg", PICTURE)
    put(f"{masks}/ISIC_0012255_segmentation.png", MASK)
    found = found_in(tmp_path)
    assert (found.layout, found.cases[0].split) == ("isic", part)


def test_cvc_clinicdb_groups_by_sequence(tmp_path: Path, put: Put) -> None:
    for frame in (1, 25, 26, 205, 206, 612):
        put(f"Original/{frame}.tif", PICTURE)
        put(f"Ground Truth/{frame}.tif", np.dstack([MASK] * 3))
    found = found_in(tmp_path)
    assert found.layout == "cvc-clinicdb"
    assert [int(case.group.split()[1]) for case in found.cases] == [1, 1, 2, 10, 11, 29]
    np.testing.assert_array_equal(first_labels(found), MASK // 255)


def test_the_sequences_of_cvc_clinicdb_are_29_of_612_frames() -> None:
    ends = next(layout.sequences for layout in known() if layout.name == "cvc-clinicdb")
    assert len(ends) == 29
    assert ends[-1] == 612
    assert list(ends) == sorted(set(ends))


def test_cvc_clinicdb_beyond_its_frames_knows_no_groups(tmp_path: Path, put: Put) -> None:
    put("Original/613.tif", PICTURE)
    put("Ground Truth/613.tif", MASK)
    found = found_in(tmp_path)
    assert not found.grouped
    assert "frames beyond 612" in found.notes[0]


def test_crackforest_takes_only_value_2(tmp_path: Path, put: Put, put_ground_truth: Put) -> None:
    segmentation = np.ones((6, 8), np.uint8)
    segmentation[2, :] = 2
    segmentation[4, :2], segmentation[4, 2:4] = 3, 4
    for stem in ("001", "002"):
        put(f"image/{stem}.jpg", PICTURE)
        put_ground_truth(f"groundTruth/{stem}.mat", segmentation)
    put("image/119.jpg", PICTURE)  # the owner ships images without truth
    found = found_in(tmp_path)
    assert (found.layout, names(found)) == ("crackforest", ["001", "002"])
    assert found.notes == ("1 image (image/119.jpg) without a mask left out.",)
    np.testing.assert_array_equal(first_labels(found), segmentation == 2)


@pytest.mark.parametrize("folder", ["", "brainTumorDataPublic_1-766/"])
def test_figshare_brain_tumours(tmp_path: Path, put_mat73: Put, folder: str) -> None:
    slices = GRAY.astype(np.int16) - 20
    for number, patient in ((1, "100360"), (2, "100360"), (10, "MR029276E")):
        fields = {
            "label": np.array([[2.0]]),
            "PID": patient,
            "image": slices,
            "tumorBorder": np.array([[1.0], [2.0]]),
            "tumorMask": MASK // 255,
        }
        put_mat73(f"{folder}{number}.mat", "cjdata", fields)
    put_mat73("cvind.mat", "other", {"cvind": np.array([[1.0, 2.0]])})  # the folds, which are no image
    found = found_in(tmp_path)
    assert (found.layout, found.grouped) == ("figshare-brain", True)
    assert [(case.name, case.group) for case in found.cases] == [
        ("1", "100360"),
        ("2", "100360"),
        ("10", "MR029276E"),
    ]
    assert read_image(found.cases[0]).dtype == np.float32
    np.testing.assert_array_equal(read_image(found.cases[0])[..., 0], slices)
    np.testing.assert_array_equal(first_labels(found), MASK // 255)
    assert resolve_channels(found, "auto") == 1


def test_own_patterns(tmp_path: Path, put: Put) -> None:
    put("raw/p1/scan_7.tif", GRAY)
    put("truth/p1/7.v2.png", MASK)
    put("fov/7.png", 255 - MASK)
    found = found_in(
        tmp_path,
        images="raw/{group}/scan_{id}.{ext}",
        masks="truth/{group}/{id}.v*.png",
        valid="fov/{id}.png",
    )
    assert (found.layout, found.grouped) == ("patterns", True)
    assert [(case.name, case.group) for case in found.cases] == [("7", "p1")]
    np.testing.assert_array_equal(read_valid(found.cases[0]), MASK == 0)


def test_own_group_and_names_that_repeat(tmp_path: Path, put: Put) -> None:
    for patient in ("p1", "p2"):
        put(f"{patient}/img/1.png", PICTURE)
        put(f"{patient}/seg/1.png", MASK)
    found = found_in(
        tmp_path,
        layout="patterns",
        images="{patient}/img/{id}.png",
        masks="{patient}/seg/{id}.png",
        group=r"^(p\d)/",
    )
    assert [(case.name, case.group) for case in found.cases] == [("p1_img_1", "p1"), ("p2_img_1", "p2")]


@pytest.mark.parametrize("column", ["group", "patient", "subject_id", "plate"])
def test_index_gives_groups(tmp_path: Path, put: Put, column: str) -> None:
    for stem in ("a", "b", "c"):
        put(f"images/{stem}.png", PICTURE)
        put(f"masks/{stem}.png", MASK)
    (tmp_path / "index.csv").write_text(f"stem,image,{column}\na,images/a.png,7\nb,images/b.png,7\n")
    found = found_in(tmp_path)
    assert [case.group for case in found.cases] == ["7", "7", "c"]
    assert found.notes == (
        f"index.csv names no {column} for 1 image (images/c.png): each is a group of its own.",
    )


def test_index_without_groups_is_left_alone(tmp_path: Path, put: Put) -> None:
    put("images/a.png", PICTURE)
    put("masks/a.png", MASK)
    (tmp_path / "index.csv").write_text("stem,width\na,8\n")
    assert not found_in(tmp_path).grouped


def pair(put: Put) -> None:
    put("images/a.png", PICTURE)
    put("masks/a.png", MASK)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layout": "drvie"}, "unknown data.layout 'drvie' .did you mean 'drive'.*images-masks"),
        ({"layout": "drive"}, "no pairs of image and mask .*training/images.*layout drive"),
        ({"layout": "drive", "images": "{id}.png"}, "go with the layout 'patterns'"),
        ({"images": "images/{id}.png"}, "data.masks is not given"),
        ({"layout": "patterns"}, "data.images is not given"),
        ({"images": "images/a.png", "masks": "masks/{id}.png"}, "'images/a.png' has no {id}"),
        ({"images": "scans/{id}.png", "masks": "masks/{id}.png"}, r"looked for scans/{id}.png with .*1 mask"),
        ({"group": "("}, "is no regular expression"),
        ({"group": "a"}, "has 0 groups in parentheses"),
        ({"group": "(p1)"}, "fits 0 of 1 images, not images/a.png"),
    ],
)
def test_settings_refused(tmp_path: Path, put: Put, settings: dict[str, str], sentence: str) -> None:
    pair(put)
    with pytest.raises(InputError, match=sentence):
        found_in(tmp_path, **settings)


def test_roots_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root, sentence in (("", "is not given"), ("nowhere", "does not exist"), ("file", "is a file")):
        with pytest.raises(InputError, match=f"data.root .*{sentence}.*folder that holds images"):
            find(Data(root=str(tmp_path / root) if root else ""))


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pairs .*images/NAME.png.*found no file.*nnunet.*\.png"):
        found_in(tmp_path)
    (tmp_path / "scan.docx").write_text("")
    with pytest.raises(InputError, match=r"found 1 other file, most \.docx"):
        found_in(tmp_path)


def test_images_and_masks_that_share_no_name(tmp_path: Path, put: Put) -> None:
    put("images/a.png", PICTURE)
    put("masks/b.png", MASK)
    with pytest.raises(InputError, match=r"no pairs .*1 image \(images/a.png\) and 1 mask \(masks/b.png\)"):
        found_in(tmp_path)


def test_image_without_mask(tmp_path: Path, put: Put) -> None:
    pair(put)
    for stem in "bcde":
        put(f"images/{stem}.png", PICTURE)
    with pytest.raises(
        InputError,
        match=r"4 images \(images/b.png, images/c.png, images/d.png, …\) .*"
        r"without a mask: looked for images/NAME.png, masks/",
    ):
        found_in(tmp_path)


def test_mask_without_image(tmp_path: Path, put: Put) -> None:
    pair(put)
    put("masks/b.png", MASK)
    with pytest.raises(
        InputError, match=r"1 mask \(masks/b.png\) .*without an image: looked for images/NAME.png"
    ):
        found_in(tmp_path)


def test_some_fields_of_view_missing(tmp_path: Path, put: Put) -> None:
    for stem in "ab":
        put(f"images/{stem}.png", PICTURE)
        put(f"masks/{stem}.png", MASK)
    put("valid/a.png", MASK)
    with pytest.raises(InputError, match=r"1 image \(images/b.png\) .*without a field of view"):
        found_in(tmp_path)


def test_two_files_for_one(tmp_path: Path, put: Put) -> None:
    pair(put)
    put("masks/a_mask.png", MASK)
    with pytest.raises(InputError, match=r"2 files \(masks/a.png, masks/a_mask.png\) .*for one mask"):
        found_in(tmp_path)


def test_two_owners_layouts_in_one_folder(tmp_path: Path, put: Put) -> None:
    for image, mask in (("ISIC_0000000", "segmentation"), ("Image_01L", "1stHO")):
        put(f"{image}.jpg", PICTURE)
        put(f"{image}_{mask}.png", MASK)
    with pytest.raises(InputError, match="fits the layouts chasedb1 and isic: one of them"):
        found_in(tmp_path)
    assert names(found_in(tmp_path, layout="isic")) == ["ISIC_0000000"]


def test_a_group_in_two_of_the_layouts_splits(tmp_path: Path, put: Put) -> None:
    for path in ("train/{}/p1_a.png", "test/{}/p1_b.png"):
        put(path.format("images"), PICTURE)
        put(path.format("masks"), MASK)
    with pytest.raises(InputError, match="the group 'p1' is in the splits train and test"):
        found_in(tmp_path, group="(p1)")


def test_real_chasedb1(shared: Callable[[str], Path]) -> None:
    found = found_in(shared("chasedb1"))
    assert (found.layout, len(found.cases), found.grouped) == ("images-masks", 28, True)
    assert len({case.group for case in found.cases}) == 14
    sizes = {name: len(indices) for name, indices in split(found.cases, (0.6, 0.15, 0.1, 0.15), 0).items()}
    assert sizes == {"train": 14, "val": 4, "calib": 2, "test": 8}
    loaded = load_case(found.cases[0], resolve_classes(found, Data()), resolve_channels(found, "auto"))
    assert (loaded.image.shape, loaded.image.dtype) == ((960, 999, 3), np.uint8)
    truth = np.asarray(Image.open(found.root / "train/masks/Image_01L.png"))
    np.testing.assert_array_equal(loaded.labels, truth > 0)


def test_real_dsb2018(shared: Callable[[str], Path]) -> None:
    found = found_in(shared("dsb2018"))
    assert (found.layout, len(found.cases), found.grouped) == ("images-masks", 664, False)
    assert resolve_channels(found, "auto") == 3
    sizes = {name: len(indices) for name, indices in split(found.cases, (0.6, 0.15, 0.1, 0.15), 0).items()}
    assert sizes == {"train": 398, "val": 100, "calib": 66, "test": 100}
