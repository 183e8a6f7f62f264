"""Volumes as cases: what has to agree, what is said, how folders of them are found."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
import zarr
from volumes import SHAPE, SPACING, affine, blobs

from engine.data import classes as classes_module
from engine.data.classes import Classes, from_table, inside, survey, to_labels
from engine.data.dataset import Dataset
from engine.data.decode import Source
from engine.data.layouts import Case, find
from engine.data.orientation import orientation
from engine.data.raster import Raster
from engine.data.read import (
    load_case,
    load_cases,
    probe_cases,
    read_image,
    read_labels,
    read_valid,
    resolve_channels,
    resolve_classes,
)
from engine.data.specs import Data
from engine.errors import InputError

TWO = from_table({"a": [1], "b": [2]}, "refuse")
PutNifti = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> PutNifti:
    """Write (z, y, x[, c]) as NIfTI, NPY, TIFF, NRRD or zarr below the test's folder."""

    def write(name: str, array: np.ndarray, world: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".nii", ".nii.gz")):
            moved = array.transpose(2, 1, 0, *range(3, array.ndim))
            nib.save(nib.Nifti1Image(moved, affine() if world is None else world), path)
        elif name.endswith(".npy"):
            np.save(path, array)
        elif name.endswith(".tif"):
            tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZYX"})
        elif name.endswith(".zarr"):
            zarr.create_array(path, data=array, zarr_format=3, dimension_names=("z", "y", "x"))
        else:
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        return path

    return write


def case(image: Path, mask: Path | None = None, valid: Path | None = None, *more: Path) -> Case:
    images = (Source(image), *map(Source, more))
    return Case("a", images, (Source(mask),) if mask else (), Source(valid) if valid else None)


# ------------------------------------------------------------------ one case


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha", "tif", "zarr"])
def test_a_volume_with_its_mask(put: PutNifti, ending: str) -> None:
    image, labels = blobs(0)
    loaded = load_case(case(put(f"i.{ending}", image), put(f"m.{ending}", labels)), TWO)
    np.testing.assert_array_equal(loaded.image, image[..., None])
    np.testing.assert_array_equal(loaded.labels, labels)
    assert loaded.image.flags.c_contiguous
    spacings = {"nii.gz": SPACING, "nii": SPACING, "nrrd": (1.0,) * 3, "mha": (1.0,) * 3}
    assert loaded.spacing == spacings.get(ending)


def test_formats_may_differ_between_image_and_mask(put: PutNifti) -> None:
    image, labels = blobs(0)
    loaded = load_case(case(put("i.nii.gz", image), put("m.tif", labels)), TWO)
    np.testing.assert_array_equal(loaded.labels, labels)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float32", "float64"])
def test_masks_of_whole_numbers(put: PutNifti, dtype: str) -> None:
    labels = blobs(0, classes=1)[1]
    name = "m.zarr" if dtype == "bool" else "m.nii.gz"  # NIfTI has no truth values
    path = put(name, labels.astype(dtype))
    np.testing.assert_array_equal(read_labels(case(path, path), from_table({"a": [1]}, "refuse")), labels)


def test_masks_that_were_scaled_on_the_way_in_are_whole_again(tmp_path: Path) -> None:
    labels = blobs(0)[1]
    image = nib.Nifti1Image(labels.T.astype(np.float32), affine())
    image.set_data_dtype(np.int16)  # nibabel then stores 0, 1, 2 as shares of the whole range
    nib.save(image, tmp_path / "m.nii.gz")
    proxy = nib.load(tmp_path / "m.nii.gz").dataobj
    assert proxy.slope < 1e-3
    path = tmp_path / "m.nii.gz"
    np.testing.assert_array_equal(read_labels(case(path, path), TWO), labels)


def test_masks_of_fractions_are_refused(put: PutNifti) -> None:
    path = put("m.nii.gz", blobs(0)[1] * np.float32(0.5))
    with pytest.raises(InputError, match=r"m.nii.gz holds mask values that are no whole numbers"):
        read_labels(case(path, path), TWO)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite(put: PutNifti, value: float) -> None:
    image = blobs(0)[0]
    image[3, 4, 5] = value
    with pytest.raises(InputError, match=r"i.nii.gz holds 1 voxels that are NaN or infinite"):
        read_image(case(put("i.nii.gz", image)))


def test_sizes_that_differ(put: PutNifti) -> None:
    image, labels = blobs(0)
    path, short = put("i.nii.gz", image), put("m.nii.gz", labels[:-1])
    says = (
        r"the mask .*m.nii.gz is 15 × 20 × 24 voxels \(depth × height × width\) but the image .*i.nii.gz is "
        r"16 × 20 × 24 voxels: equal sizes"
    )
    with pytest.raises(InputError, match=says):
        load_case(case(path, short), TWO)
    flat = put("flat.nii.gz", labels[:1])
    with pytest.raises(
        InputError, match=r"flat.nii.gz is 20 × 24 px \(height × width\) but .* 16 × 20 × 24 voxels"
    ):
        load_case(case(path, flat), TWO)
    with pytest.raises(
        InputError, match=r"the channel .*m.nii.gz is 15 × 20 × 24 voxels .* the channel .*i.nii.gz"
    ):
        read_image(case(path, None, None, short))
    with pytest.raises(InputError, match=r"the field of view .*m.nii.gz is 15 × 20 × 24 voxels"):
        load_case(case(path, put("n.nii.gz", labels), short), TWO)


def moved(*, by: float = 0.0, flip: bool = False) -> np.ndarray:
    """The usual affine, moved along a world axis by mm, or with x the other way."""
    world = affine()
    world[2, 3] += by
    return world @ np.diag([-1.0, 1, 1, 1]) if flip else world


@pytest.mark.parametrize(
    "world", [moved(by=0.26), moved(by=40), moved(flip=True), affine(turn=14.0), affine((2.0, 1.0, 0.6))]
)
def test_affines_that_disagree_are_refused(put: PutNifti, world: np.ndarray) -> None:
    """A voxel is 0.5 mm at its shortest side: 0.25 mm are half of it."""
    image, labels = blobs(0)
    path, mask = put("i.nii.gz", image), put("m.nii.gz", labels, world)
    says = r"the mask .*m.nii.gz lies up to [\d.]+ mm away from the image .*i.nii.gz .* voxel of 0.[56] mm"
    with pytest.raises(InputError, match=says):
        load_case(case(path, mask), TWO)
    with pytest.raises(InputError, match=r"the channel .*m.nii.gz lies up to"):
        read_image(case(path, None, None, mask))
    with pytest.raises(InputError, match=r"the field of view .*m.nii.gz lies up to"):
        load_case(case(path, put("n.nii.gz", labels), mask), TWO)


@pytest.mark.parametrize("world", [moved(by=0.24), affine(turn=10.001), affine() + 1e-4])
def test_affines_that_differ_by_rounding_pass(put: PutNifti, world: np.ndarray) -> None:
    image, labels = blobs(0)
    load_case(case(put("i.nii.gz", image), put("m.nii.gz", labels, world)), TWO)


def test_how_far_apart_is_said(put: PutNifti) -> None:
    image, labels = blobs(0)
    flipped = put("m.nii.gz", labels, moved(flip=True))
    far = 2 * (SHAPE[2] - 1) * SPACING[2]
    with pytest.raises(InputError, match=rf"lies up to {far:.3g} mm away"):
        load_case(case(put("i.nii.gz", image), flipped), TWO)


def test_a_field_of_view_of_a_volume(put: PutNifti) -> None:
    image, labels = blobs(0)
    field = np.zeros(SHAPE, np.uint8)
    field[2:, 3:, 4:] = 255
    view = case(put("i.nii.gz", image), put("m.nii.gz", labels), put("v.nii.gz", field))
    np.testing.assert_array_equal(load_case(view, TWO).valid, field > 0)
    np.testing.assert_array_equal(read_valid(view), field > 0)


def test_channels_in_one_file_and_in_several(put: PutNifti) -> None:
    image = blobs(0, channels=2)[0]
    together = read_image(case(put("i.nii.gz", image)))
    apart = read_image(case(put("i0.nii.gz", image[..., 0]), None, None, put("i1.nii.gz", image[..., 1])))
    np.testing.assert_array_equal(together, image)
    np.testing.assert_array_equal(apart, image)


# ------------------------------------------------------------------ masks in bands


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (9, 10, 11)).astype(np.int16)
    mask = Raster(labels, dims=3)
    classes = from_table({"a": [1, 3], "b": [2]}, "ignore")
    whole = survey(mask, "m"), to_labels(mask, classes, "m"), inside(mask, "m")
    monkeypatch.setattr(classes_module, "BAND", 2 * 10 * 11)
    in_bands = survey(mask, "m"), to_labels(mask, classes, "m"), inside(mask, "m")
    assert whole[0] == in_bands[0] == ([0, 1, 2, 3, 4], [v * 0x010101 for v in range(5)])
    np.testing.assert_array_equal(whole[1], in_bands[1])
    np.testing.assert_array_equal(whole[1], np.array([0, 1, 2, 1, 255])[labels])
    np.testing.assert_array_equal(whole[2], in_bands[2])
    with pytest.raises(InputError, match=r"m holds mask value 2 and 2 more"):
        to_labels(mask, from_table({"a": [1]}, "refuse"), "m")


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int8", [-128, 0, 127]),
        ("int16", [-32768, -1, 0, 32767]),
        ("uint16", [0, 65535]),
        ("int64", [-(1 << 40), 0, 1 << 40]),
        ("uint64", [0, 5]),
        ("float32", [-3, 0, 1 << 20]),
        ("bool", [0, 1]),
    ],
)
def test_every_value_of_a_mask_is_found(dtype: str, values: list[int]) -> None:
    mask = np.random.default_rng(0).choice(np.array(values), (9, 10, 11)).astype(dtype)
    assert survey(Raster(mask, dims=3), "m")[0] == values


# ------------------------------------------------------------------ folders


def folder(put: PutNifti, ending: str = "nii.gz", count: int = 3) -> None:
    for number in range(count):
        image, labels = blobs(number)
        put(f"images/case_{number}.{ending}", image)
        put(f"masks/case_{number}.{ending}", labels)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "zarr", "tif"])
def test_a_folder_of_volumes_needs_no_settings(tmp_path: Path, put: PutNifti, ending: str) -> None:
    folder(put, ending)
    dataset = Dataset.open(Data(root=str(tmp_path)))
    assert (dataset.dims, dataset.channels, dataset.classes.names) == (3, 1, ("class_1", "class_2"))
    assert dataset.summary()["dims"] == 3
    assert [each.name for each in dataset.found.cases] == ["case_0", "case_1", "case_2"]
    for number, sample in enumerate(dataset.samples("train")):
        image, labels = blobs(number)
        np.testing.assert_array_equal(sample.image[..., 0], image)
        np.testing.assert_array_equal(sample.labels, labels)
        assert sample.spacing == {"nii.gz": SPACING, "nrrd": (1.0,) * 3}.get(ending)


def test_a_zarr_is_one_file_and_its_bytes_are_known(tmp_path: Path, put: PutNifti) -> None:
    folder(put, "zarr", 2)
    before = Dataset.open(Data(root=str(tmp_path))).summary()["fingerprint"]
    assert before == Dataset.open(Data(root=str(tmp_path))).summary()["fingerprint"]
    (tmp_path / "images/case_0.zarr/c/more").write_bytes(b"x")
    assert before != Dataset.open(Data(root=str(tmp_path))).summary()["fingerprint"]


def test_images_and_volumes_are_not_mixed(tmp_path: Path, put: PutNifti) -> None:
    folder(put)
    put("images/flat.nii.gz", blobs(0)[0][:1])
    put("masks/flat.nii.gz", blobs(0)[1][:1])
    says = r"holds images and volumes \(1 and 3, such as .*flat.nii.gz and .*case_0.nii.gz\): one kind only"
    with pytest.raises(InputError, match=says):
        Dataset.open(Data(root=str(tmp_path)))


def test_data_axes_reach_image_mask_and_field_of_view(tmp_path: Path, put: PutNifti) -> None:
    image, labels = blobs(0)
    put("images/a.npy", image)
    put("masks/a.npy", labels)
    put("valid/a.npy", np.ones_like(labels))
    dataset = Dataset.open(Data(root=str(tmp_path), axes="zyx"))
    assert dataset.dims == 3
    sample = next(iter(dataset.samples("train")))
    np.testing.assert_array_equal(sample.image[..., 0], image)
    np.testing.assert_array_equal(sample.labels, labels)
    assert sample.valid is not None
    with pytest.raises(InputError, match=r"differing channels: one channel"):
        Dataset.open(Data(root=str(tmp_path)))  # 16 slices pass for channels


@pytest.mark.parametrize("color", ["auto", "rgb", "gray"])
def test_three_channels_of_a_volume_are_no_colours(tmp_path: Path, put: PutNifti, color: str) -> None:
    for number in range(2):
        put(f"images/{number}.nii.gz", np.stack([blobs(number)[0]] * 3, -1))
        put(f"masks/{number}.nii.gz", blobs(number)[1])
    found = find(Data(root=str(tmp_path)))
    assert resolve_channels(found, color) == (1 if color == "gray" else 3)
    put("images/1.nii.gz", blobs(1)[0])
    if color == "auto":
        with pytest.raises(
            InputError, match=r"the images have 1, 3 channels .* the same number in all would"
        ):
            resolve_channels(find(Data(root=str(tmp_path))), color)


def two_channels(put: PutNifti, *, lacking: str = "") -> None:
    for number in range(2):
        image, labels = blobs(number, channels=2)
        for channel, place in enumerate(("flair", "t1")):
            if f"{place}/{number}" != lacking:
                put(f"{place}/{number}.nii.gz", image[..., channel])
        put(f"masks/{number}.nii.gz", labels)


def test_several_patterns_are_a_channel_each(tmp_path: Path, put: PutNifti) -> None:
    two_channels(put)
    patterns = ["flair/{id}.{ext}", "t1/{id}.{ext}"]
    for order in (1, -1):
        data = Data(root=str(tmp_path), images="; ".join(patterns[::order]), masks="masks/{id}.{ext}")
        dataset = Dataset.open(data)
        assert dataset.channels == 2
        assert [each.name for each in dataset.found.cases] == ["0", "1"]
        for number, sample in enumerate(dataset.samples("train")):
            np.testing.assert_array_equal(sample.image, blobs(number, channels=2)[0][..., ::order])


@pytest.mark.parametrize(("lacking", "channel"), [("t1/1", "t1"), ("flair/1", "flair")])
def test_an_image_that_lacks_a_channel_is_named(
    tmp_path: Path, put: PutNifti, lacking: str, channel: str
) -> None:
    two_channels(put, lacking=lacking)
    data = Data(root=str(tmp_path), images="flair/{id}.{ext};t1/{id}.{ext}", masks="masks/{id}.{ext}")
    with pytest.raises(
        InputError, match=rf"1 image \(\w+/1.nii.gz\) .* without the channel {channel}/{{id}}"
    ):
        find(data)
    with pytest.raises(InputError, match=r"the pattern 'flair' has no {id}"):
        find(data.model_copy(update={"images": "t1/{id}.{ext}; flair"}))


def test_channels_may_lie_in_one_folder_with_the_mask(tmp_path: Path, put: PutNifti) -> None:
    image, labels = blobs(0, channels=2)
    put("p1.nii.gz", image[..., 0])
    put("p1_t1.nii.gz", image[..., 1])
    put("p1_seg.nii.gz", labels)
    found = find(Data(root=str(tmp_path), images="{id}.{ext}; {id}_t1.{ext}", masks="{id}_seg.{ext}"))
    assert [each.name for each in found.cases] == ["p1"]
    np.testing.assert_array_equal(read_image(found.cases[0]), image)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_nnunet_of_volumes(tmp_path: Path, put: PutNifti, ending: str) -> None:
    for number in range(2):
        image, labels = blobs(number, channels=2)
        for channel in range(2):
            put(f"imagesTr/MS_{number:03d}_{channel:04d}.{ending}", image[..., channel])
        put(f"labelsTr/MS_{number:03d}.{ending}", labels)
    described = {"labels": {"background": 0, "core": 1, "rim": 2}, "file_ending": f".{ending}"}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    dataset = Dataset.open(Data(root=str(tmp_path)))
    assert (dataset.found.layout, dataset.channels, dataset.dims) == ("nnunet", 2, 3)
    assert dataset.classes.names == ("core", "rim")
    assert [each.name for each in dataset.found.cases] == ["MS_000", "MS_001"]
    np.testing.assert_array_equal(next(iter(dataset.samples("train"))).image, blobs(0, channels=2)[0])
    (tmp_path / f"imagesTr/MS_001_0001.{ending}").unlink()
    with pytest.raises(
        InputError, match=rf"1 image \(imagesTr/MS_001_0000.{ending}\) .* without the channel 0001"
    ):
        find(Data(root=str(tmp_path)))


def test_decathlon(tmp_path: Path, put: PutNifti) -> None:
    for number in range(2):
        image, labels = blobs(number, channels=2)
        put(f"imagesTr/BRATS_{number:03d}.nii.gz", image)
        put(f"labelsTr/BRATS_{number:03d}.nii.gz", labels)
    put("imagesTs/BRATS_485.nii.gz", blobs(5, channels=2)[0])
    put("imagesTr/._BRATS_001.nii.gz", blobs(5)[0])  # which the archives hold
    described = {"labels": {"0": "background", "1": "edema", "2": "tumour"}, "tensorImageSize": "4D"}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    dataset = Dataset.open(Data(root=str(tmp_path)))
    assert (dataset.found.layout, dataset.channels, dataset.dims) == ("decathlon", 2, 3)
    assert dataset.classes.names == ("edema", "tumour")
    assert dataset.found.notes[0] == "1 image (imagesTs/BRATS_485.nii.gz) without a mask left out."


def test_a_table_of_groups_names_volumes_by_stem(tmp_path: Path, put: PutNifti) -> None:
    folder(put)
    (tmp_path / "index.csv").write_text("stem,patient\ncase_0,p\ncase_1,q\ncase_2,p\n")
    assert [each.group for each in find(Data(root=str(tmp_path))).cases] == ["p", "q", "p"]


# ------------------------------------------------------------------ in the world


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIP", "SRA", "PIR"])
def test_orientation(codes: str) -> None:
    world = np.zeros((4, 4))
    for axis, letter in enumerate(codes):
        row = next(row for row, ends in enumerate(("LR", "PA", "IS")) if letter in ends)
        world[row, axis] = (0.5, 1.0, 2.0)[axis] * (1 if letter in "RAS" else -1)
    world[3, 3] = 1
    assert nib.aff2axcodes(world) == tuple(codes)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    for turned in (world, turn @ world):
        assert orientation(turned[:, [2, 1, 0, 3]]) == codes


def test_orientations_and_voxels_that_differ_are_said(tmp_path: Path, put: PutNifti) -> None:
    folder(put)
    assert Dataset.open(Data(root=str(tmp_path))).remarks()[:-1] == []
    image, labels = blobs(3)
    world = affine((4.0, 1.0, 0.5)) @ np.diag([-1.0, 1, 1, 1])
    put("images/turned.nii.gz", image, world)
    put("masks/turned.nii.gz", labels, world)
    remarks = Dataset.open(Data(root=str(tmp_path))).remarks()
    assert "different orientations (LAS 3, such as case_0, RAS 1, such as turned)" in remarks[0]
    assert "from 2 × 1 × 0.5 to 4 × 1 × 0.5 mm large" in remarks[1]
    equal = Dataset.open(Data(root=str(tmp_path), spacing=(2.0, 1.0, 1.0)))
    assert not any("mm large" in remark for remark in equal.remarks())


def test_the_picture_of_a_volume_is_in_mm(tmp_path: Path, put: PutNifti) -> None:
    folder(put, count=1)
    shown, scale = Dataset.open(Data(root=str(tmp_path))).picture("train", 0)
    assert (shown.shape, scale) == ((*SHAPE, 1), SPACING)
    shown, scale = Dataset.open(Data(root=str(tmp_path), spacing=(4.0, 1.0, 1.0))).picture("train", 0)
    assert (shown.shape, scale) == ((8, 20, 12, 1), (4.0, 1.0, 1.0))
    shown, scale = Dataset.open(Data(root=str(tmp_path), size=(8, 10, 24))).picture("train", 0)
    assert (shown.shape, scale) == ((8, 10, 24, 1), (4.0, 2.0, 0.5))


def test_the_picture_of_a_volume_of_unknown_voxels_is_in_voxels(tmp_path: Path, put: PutNifti) -> None:
    folder(put, "tif", count=1)
    assert Dataset.open(Data(root=str(tmp_path), size=(8, 10, 24))).picture("train", 0)[1] == (2.0, 2.0, 1.0)


def test_few_volumes_wait_in_memory(tmp_path: Path, put: PutNifti, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a case is as large as what may wait, one is decoded ahead of the one that is used."""
    folder(put, count=8)
    found = find(Data(root=str(tmp_path)))
    image, labels = blobs(0)
    monkeypatch.setattr("engine.data.read.AT_ONCE", image.nbytes + labels.nbytes)
    begun: list[str] = []

    def watched(case: Case, **settings: object) -> object:
        begun.append(case.name)
        return load_case(case, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.data.read.load_case", watched)
    for number, _ in enumerate(load_cases(found, range(8), TWO), 1):
        assert len(begun) <= number + 1
    assert len(begun) == 8
    assert resolve_classes(found, Data()) == Classes(("class_1", "class_2"), {0: 0, 1: 1, 2: 2}, {}, "refuse")


# ------------------------------------------------------------------ shared data


def test_hippocampus(shared: Callable[[str], Path]) -> None:
    root = shared("hippocampus3d")
    found = find(Data(root=str(root)))
    assert len(found.cases) == 260
    assert [each.name for each in found.cases[:2]] == ["hippocampus_001", "hippocampus_003"]
    heads = probe_cases(replace(found, cases=found.cases[:20]))
    assert {head.dims for head in heads} == {3}
    assert heads[0].shape == (35, 51, 35)
    for loaded in load_cases(found, [0, 1, 100], TWO):
        assert loaded.image.shape == (*loaded.labels.shape, 1)
        assert set(np.unique(loaded.labels)) == {0, 1, 2}
        assert loaded.spacing == (1.0, 1.0, 1.0)


def test_ms_lesions_in_two_channels(shared: Callable[[str], Path]) -> None:
    root = shared("ms_lesion3d")
    data = Data(
        root=str(root), images="images/{id}.{ext}; images_t1/{id}.{ext}", masks="masks/{id}.{ext}",
        classes={"lesion": [1]},
    )  # fmt: skip
    dataset = Dataset.open(data)
    assert (dataset.dims, dataset.channels) == (3, 2)
    loaded = load_case(dataset.found.cases[0], dataset.classes, dataset.channels)
    assert loaded.image.shape == (182, 218, 182, 2)
    flair = nib.load(root / "images/patient07.nii.gz")
    wanted = np.asarray(flair.dataobj[:, :, 90]).T
    np.testing.assert_allclose(loaded.image[90, ..., 0], wanted, rtol=1e-6, atol=1e-4)
    np.testing.assert_array_equal(
        loaded.labels, np.asarray(nib.load(root / "masks/patient07.nii.gz").dataobj).T
    )
