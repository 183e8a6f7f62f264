"""Images of any format as layers, and masks that are there already as labels."""

from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import nibabel as nib
import numpy as np
import pytest
import tifffile
from support import write_pair
from volumes import SPACING, affine

from engine.data.annotated import UNLABELLED, AnnotationClass, Entry, read_mask
from engine.data.raster import Source
from engine.errors import InputError
from napari_smm.annotating import Annotator, read_folder
from napari_smm.annotating_image import MARK, contrast, import_all, masks_left, open_image
from napari_smm.annotating_masks import from_values, read_beside, read_file

ONE = (AnnotationClass("cell", 1, "#e69f00"),)
TWO = (*ONE, AnnotationClass("debris", 5, "#56b4e9"))
RNG = np.random.default_rng(0)


def test_a_gray_image_has_a_layer_with_its_own_contrast(tmp_path: Path) -> None:
    pixels = RNG.integers(10, 60, (20, 30)).astype(np.uint8)
    iio.imwrite(tmp_path / "a.png", np.repeat(pixels[..., None], 3, -1))  # gray, stored as RGB
    opened = open_image(read_folder(tmp_path), Entry("a.png"))
    ((data, look, kind),) = opened.layers
    np.testing.assert_array_equal(data, pixels)
    assert kind == "image"
    assert look["name"] == "a"
    assert not look["rgb"]
    assert look["contrast_limits"] == (pixels.min(), np.percentile(pixels, 99.8))
    assert look["metadata"][MARK] == {"root": str(tmp_path), "image": "a.png"}
    assert (opened.labels == UNLABELLED).all()
    assert opened.labels.shape == (20, 30)
    assert not opened.imported
    assert opened.place["metadata"][MARK] == look["metadata"][MARK]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4000), (np.float32, 0.5)])
def test_a_colour_image_is_shown_in_colour(tmp_path: Path, dtype: type, top: float) -> None:
    pixels = (RNG.random((8, 9, 3)) * top).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    ((data, look, _),) = open_image(read_folder(tmp_path), Entry("a.tif")).layers
    assert look["rgb"]
    assert (data.dtype, data.shape) == (np.uint8, (8, 9, 3))
    if dtype is np.uint8:
        np.testing.assert_array_equal(data, pixels)
    else:
        np.testing.assert_array_equal(data, (pixels / float(pixels.max()) * 255).astype(np.uint8))


def test_a_volume_lies_where_its_file_says(tmp_path: Path) -> None:
    pixels = RNG.normal(0, 1, (4, 6, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(pixels.transpose(), affine()), tmp_path / "v.nii.gz")
    opened = open_image(read_folder(tmp_path), Entry("v.nii.gz"))
    ((data, look, _),) = opened.layers
    np.testing.assert_array_equal(data, pixels)
    for place in (look, opened.place):
        np.testing.assert_allclose(place["scale"], SPACING, rtol=1e-6)
        assert place["units"] == ("millimeter",) * 3
        assert place["axis_labels"] == ("z", "y", "x")
        assert place["metadata"]["affine"].shape == (4, 4)
    assert opened.labels.shape == (4, 6, 8)
    # And its mask lies there too.
    annotator = Annotator()
    annotator.open(tmp_path)
    annotator.labels("v.nii.gz")[1] = 1
    annotator.touched("v.nii.gz")
    annotator.close()
    made = nib.load(tmp_path / annotator.entry("v.nii.gz").mask)
    np.testing.assert_allclose(made.affine, affine(), atol=1e-5)


def test_channels_in_files_of_their_own_have_a_layer_each(tmp_path: Path) -> None:
    for number in (0, 1):
        iio.imwrite(tmp_path / f"a_{number}.png", np.full((5, 6), 10 + number, np.uint8))
    opened = open_image(read_folder(tmp_path), Entry("a_0.png;a_1.png"))
    assert [look["visible"] for _, look, _ in opened.layers] == [True, False]
    assert [int(data[0, 0]) for data, _, _ in opened.layers] == [10, 11]
    iio.imwrite(tmp_path / "a_1.png", np.zeros((5, 7), np.uint8))
    with pytest.raises(InputError, match="channels of equal size would work"):
        open_image(read_folder(tmp_path), Entry("a_0.png;a_1.png"))


def test_a_file_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG, but no more")
    with pytest.raises(InputError, match=r"a\.png"):
        open_image(read_folder(tmp_path), Entry("a.png"))


def test_contrast_of_an_even_image_is_a_range() -> None:
    assert contrast(np.zeros((4, 4))) == (0, 1)
    spot = np.zeros((100, 100))
    spot[0, 0] = 9
    assert contrast(spot) == (0, 9)


@pytest.mark.parametrize(
    ("masks", "names", "wanted"),
    [
        ({"a": 255, "b": 255}, ["foreground"], {"a": 1, "b": 1}),
        ({"a": 1, "b": 2}, ["class_1", "class_2"], {"a": 1, "b": 2}),
        ({"a": 7, "b": 40}, ["foreground"], {"a": 1, "b": 1}),  # numbers of objects, as good as any
    ],
)
def test_masks_beside_images_are_imported(
    tmp_path: Path, masks: dict[str, int], names: list[str], wanted: dict[str, int]
) -> None:
    for name, value in masks.items():
        mask = np.zeros((6, 7), np.uint8)
        mask[2] = value
        write_pair(tmp_path, name, np.full((6, 7), 50, np.uint8), mask)
    folder = read_folder(tmp_path)
    assert [each.name for each in folder.classes] == names
    for name, value in wanted.items():
        opened = open_image(folder, Entry(f"images/{name}.png"))
        assert opened.imported
        assert (opened.labels[2] == value).all()
        assert (opened.labels[[0, 1, 3, 4, 5]] == 0).all()
        # Not where someone has begun, nor where labels are in memory.
        begun = open_image(folder, Entry(f"images/{name}.png", status="started"))
        assert (begun.imported, int(begun.labels.min())) == (False, UNLABELLED)
        held = np.zeros((6, 7), np.uint8)
        assert open_image(folder, Entry(f"images/{name}.png"), held).labels is held


def test_a_mask_that_does_not_fit_is_left_out_and_the_image_opens(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.full((6, 7), 50, np.uint8), np.ones((6, 8), np.uint8))
    opened = open_image(read_folder(tmp_path), Entry("images/a.png"))
    assert not opened.imported
    assert (opened.labels == UNLABELLED).all()
    assert "The mask beside it was not taken:" in opened.note
    assert "(6, 8)" in opened.note


def test_classes_of_a_layout_are_found_by_name_or_place(tmp_path: Path) -> None:
    mask = np.zeros((6, 7), np.uint8)
    mask[1], mask[2] = 1, 2
    write_pair(tmp_path, "a", np.full((6, 7), 50, np.uint8), mask)
    folder = read_folder(tmp_path)
    masks = folder.listing.masks["images/a.png"]
    swapped = (AnnotationClass("class_2", 1, "#e69f00"), AnnotationClass("class_1", 9, "#56b4e9"))
    labels = read_beside([Source(tmp_path / "images/a.png")], masks, folder.meaning, swapped)
    assert (int(labels[1, 0]), int(labels[2, 0])) == (9, 1)
    renamed = (AnnotationClass("cell", 1, "#e69f00"), AnnotationClass("debris", 2, "#56b4e9"))
    labels = read_beside([Source(tmp_path / "images/a.png")], masks, folder.meaning, renamed)
    assert (int(labels[1, 0]), int(labels[2, 0])) == (1, 2)
    with pytest.raises(InputError, match="holds the class class_2, which is none of the folder's"):
        read_beside([Source(tmp_path / "images/a.png")], masks, folder.meaning, ONE)


@pytest.mark.parametrize(
    ("values", "classes", "wanted"),
    [
        ([0, 1, 255], ONE, [0, 1, 255]),
        ([0, 255], ONE, [0, 1]),
        ([0, 300, 4], ONE, [0, 1, 1]),
        ([0, 5, 1], TWO, [0, 5, 1]),
        ([0, 0], TWO, [0, 0]),
        ([255, 255], TWO, [255, 255]),
    ],
)
def test_values_of_a_mask_mean_classes(
    values: list[int], classes: tuple[AnnotationClass, ...], wanted: list[int]
) -> None:
    given = np.array([values, values])
    found = from_values(given, given.shape, classes, "it")
    assert found.dtype == np.uint8
    assert found.tolist() == [wanted, wanted]


def test_values_and_sizes_that_fit_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"it holds the value 2 and 1 more, which no class has \(1 cell, 5 de"
    ):
        from_values(np.array([[0, 2, 9]]), (1, 3), TWO, "it")
    with pytest.raises(InputError, match="it is 1 × 3 but the image is 2 × 3"):
        from_values(np.array([[0, 2, 9]]), (2, 3), TWO, "it")
    iio.imwrite(tmp_path / "m.png", np.array([[0, 255, 0]], np.uint8))
    assert read_file(Source(tmp_path / "m.png"), (1, 3), ONE).tolist() == [[0, 1, 0]]
    with pytest.raises(InputError, match=r"m\.png is 1 × 3 but the image is 3 × 1"):
        read_file(Source(tmp_path / "m.png"), (3, 1), ONE)


def test_all_masks_beside_untouched_images_are_saved_at_once(tmp_path: Path) -> None:
    image, mask = np.full((6, 7), 50, np.uint8), np.zeros((6, 7), np.uint8)
    mask[2] = 255
    for name in "abcd":
        write_pair(tmp_path, name, image, mask if name != "c" else mask[:-1])
    folder = read_folder(tmp_path)
    annotator = Annotator("ada")
    annotator.open(tmp_path)
    annotator.labels("images/a.png")[0] = 1
    annotator.touched("images/a.png")
    left = masks_left(folder, map(annotator.entry, annotator.images))
    assert [entry.image for entry in left] == [f"images/{name}.png" for name in "bcd"]
    annotator.labels("images/d.png")[0] = 1
    annotator.touched("images/d.png")
    annotator.flush()  # meanwhile
    made, (refused,) = import_all(folder, left, "ada")
    assert refused.startswith("images/c.png: The mask beside it was not taken")
    assert [(entry.image, entry.origin, entry.status) for entry in made] == [
        ("images/b.png", "imported", "done")
    ]
    np.testing.assert_array_equal(read_mask(tmp_path / made[0].mask), mask > 0)
    annotator.take([*made, replace(made[0], image="images/gone.png")])
    assert annotator.entry("images/b.png") == made[0]
    assert annotator.entry("images/d.png").origin == "drawn"
    assert import_all(folder, left, ended=lambda: True) == ([], [])
    assert annotator.close()
