"""Volumes in the window's pure parts: layers of a run, data sets, predictions' inputs, counts and masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image, Labels
from runs import MadeRun, watched_item
from volumes import SHAPE, SPACING, affine, blobs, write_nifti

from engine.data.decode import decode, probe
from engine.data.raster import Source
from engine.data.rows import open_rows
from engine.data.volumes import REVERSED
from engine.errors import InputError
from engine.thresholds import Curve
from napari_smm.annotation import Pair, volumes_likely, write_dataset
from napari_smm.calibrating import annotated, basis, read_all
from napari_smm.candidates import candidates
from napari_smm.decisions import plane_masks, run_masks, run_spaces
from napari_smm.feed import Feed
from napari_smm.layers import MARK, ROLES, THRESHOLDED, LayerSpec, View
from napari_smm.masks import Space, outline, write_mask
from napari_smm.placement import Placement, Transform, read_placement, spacing_of
from napari_smm.planes import PlaneSource, plane_source, stored_plane, write_plane
from napari_smm.predictors import require_fitting
from napari_smm.targets import Target, curve_of

SIZE = (6, 10, 12)
PLACE = {"scale": SPACING, "units": ("mm",) * 3, "axis_labels": ("z", "y", "x")}


def made_run(root: Path, channels: int = 1) -> MadeRun:
    image = np.random.default_rng(0).random((*SIZE, channels)).astype(np.float32)
    valid = np.ones(SIZE, np.bool_)
    valid[0] = False
    item = watched_item("brain", size=SIZE, classes=2, image=image, valid=valid, origin=(1, 2, 8))
    item = replace(item, scale=SPACING, affine=np.diag([*SPACING, 1.0]))
    return MadeRun(root, [item], epochs=4, classes=("core", "rim")).train(3)


def specs(run: MadeRun) -> dict[str, LayerSpec]:
    return {spec.role: spec for spec in Feed(run.root).snapshot(View(cls=1)).layers}


def test_a_run_of_volumes_has_its_layers_in_mm_with_the_epochs_in_front(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    found = specs(run)
    assert list(found) == [role for role in ROLES if role != "outline"]
    p = run.probability[0][:3, 1].astype(np.float32)
    truth, valid = run.items[0].truth[1], run.items[0].valid
    for role in THRESHOLDED:
        spec = found[role]
        assert spec.data.shape == (3, *SIZE)
        assert spec.place["axis_labels"] == ("epoch", "z", "y", "x")
        assert spec.place["units"] == ("pixel", *["millimeter"] * 3)
        np.testing.assert_array_equal(spec.place["scale"], (1, *SPACING))
        np.testing.assert_array_equal(spec.place["translate"], [1, *np.multiply(SPACING, (1, 2, 8))])
    np.testing.assert_array_equal(found["image"].place["scale"], SPACING)
    # A slice along any axis, and the whole of an epoch, as the views in 2D and 3D take them.
    shown = valid & ~truth
    for key in ((2, 3), (1, slice(None), 4), (0, slice(None), slice(None), 5), (2,)):
        inner = key[1:]
        wrong = found["false positives"].data[key] >= 0.5
        np.testing.assert_array_equal(wrong, (p[key] >= 0.5) & shown[inner])
        missed = found["false negatives"].data[key] < 0.5
        np.testing.assert_array_equal(missed, (p[key] < 0.5) & (truth & valid)[inner])


def test_the_plot_stands_beside_all_slices_of_a_volume(tmp_path: Path) -> None:
    spec = specs(made_run(tmp_path / "run"))["recall slope"]
    layer = Image(spec.data, **spec.arguments())
    depth = layer.extent.world[:, 1]
    first, last = SPACING[0], SPACING[0] * SIZE[0]  # the crop begins at slice 1
    assert depth[0] - layer.scale[1] / 2 == pytest.approx(first - SPACING[0] / 2)
    assert depth[0] + layer.scale[1] / 2 == pytest.approx(last + SPACING[0] / 2)
    assert layer.depiction == "plane"


def test_channels_of_a_volume_are_layers_even_three(tmp_path: Path) -> None:
    found = specs(made_run(tmp_path / "run", channels=3))
    assert [role for role in found if role.startswith("image")] == ["image", "image 2", "image 3"]
    assert [found[role].look["visible"] for role in ("image", "image 2", "image 3")] == [True, False, False]
    assert found["image 3"].name == "image · channel 3"
    assert found["image 3"].data.shape == SIZE


def test_the_outline_of_a_volume_is_that_of_its_slices() -> None:
    mask = np.random.default_rng(0).random(SIZE) > 0.4
    np.testing.assert_array_equal(outline(mask), [outline(part) for part in mask])


# Training


def layers(**given: object) -> tuple[Image, Labels]:
    pixels, labels = blobs(3)
    metadata = {"affine": affine() @ REVERSED}
    return Image(pixels, name="brain", metadata=metadata, **PLACE, **given), Labels(
        labels, name="paint", **PLACE
    )


def test_depth_or_a_place_in_the_world_makes_a_volume_likely() -> None:
    stack = np.zeros((4, 5, 6))
    assert volumes_likely(Image(stack, axis_labels=("z", "y", "x")))
    assert volumes_likely(Image(stack, metadata={"affine": np.eye(4)}))
    assert not volumes_likely(Image(stack))
    assert not volumes_likely(Image(stack, axis_labels=("t", "y", "x")))
    assert not volumes_likely(Image(stack[0], axis_labels=("y", "x")))
    assert not volumes_likely(None)


def test_a_volume_is_written_where_it_lies_and_read_as_it_was(tmp_path: Path) -> None:
    image, labels = layers()
    written = write_dataset(Pair.of_layers(image, labels, 3), tmp_path / "set")
    assert (written.used, written.left_out) == (1, 0)
    (kept,) = (tmp_path / "set" / "images").iterdir()
    raster = decode(Source(kept))
    assert (raster.dims, raster.shape) == (3, SHAPE)
    np.testing.assert_array_equal(raster.pixels, image.data)
    np.testing.assert_allclose(raster.spacing, SPACING, rtol=1e-6)
    np.testing.assert_allclose(raster.affine, image.metadata["affine"], atol=1e-5)
    (mask,) = (tmp_path / "set" / "masks").iterdir()
    np.testing.assert_array_equal(decode(Source(mask)).pixels, labels.data)
    placed = read_placement(tmp_path / "set")
    assert placed["brain"] == Placement("brain", (), SHAPE, Transform.of_layer(image))


@pytest.mark.parametrize("dtype", ["bool", "uint16", "int64", "float16", "float64"])
def test_volumes_of_any_kind_over_time_are_written(tmp_path: Path, dtype: str) -> None:
    pixels = (np.random.default_rng(0).random((2, *SHAPE)) * 9).astype(dtype)
    labels = np.zeros((2, *SHAPE), np.int32)
    labels[1, 3:6, 4:8, 5:9] = 1
    pair = Pair.of_layers(Image(pixels, name="m"), Labels(labels), 3)
    written = write_dataset(pair, tmp_path / "set")
    assert (written.used, written.left_out) == (1, 1)
    raster = decode(Source(tmp_path / "set" / "images" / "m_1.nii"))
    assert raster.shape == SHAPE
    np.testing.assert_allclose(raster.pixels, pixels[1].astype(np.float64))


def test_colours_of_a_volume_are_its_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), np.uint8)
    pair = Pair.of_layers(Image(pixels, rgb=True, name="m"), Labels(blobs(1)[1]), 3)
    write_dataset(pair, tmp_path / "set")
    raster = decode(Source(tmp_path / "set" / "images" / "m.nii"))
    assert (raster.dims, raster.channels) == (3, 3)
    np.testing.assert_array_equal(raster.pixels, pixels)


def test_a_plain_image_is_no_volume() -> None:
    with pytest.raises(InputError, match=r"is 2D.*slices would work"):
        Pair.of_layers(Image(np.zeros((30, 40))), Labels(np.ones((30, 40), np.uint8)), 3)


# Predicting


def test_the_spacing_of_a_layer_is_in_mm_where_its_units_are_lengths() -> None:
    way = Transform.of_layer(Image(np.zeros((2, 4, 5, 6)), scale=(9, 3, 2, 1), units=("s", "um", "um", "mm")))
    np.testing.assert_allclose(spacing_of(way, 3), (0.003, 0.002, 1.0))
    assert spacing_of(Transform.identity(3), 3) is None


def test_the_engine_sees_a_volume_of_few_slices_as_a_volume_in_mm(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((2, 5, 30, 40))  # of 5 slices, which look like channels
    layer = Image(pixels, scale=(1, *SPACING), units=("pixel", "mm", "mm", "mm"))
    source = plane_source(layer, dims=3)
    assert source.planes == ((0,), (1,))
    write_plane(source, (1,), tmp_path / "volume_1.zarr", lambda done, total: None)
    rows = open_rows(tmp_path / "volume_1.zarr", 1)
    assert (rows.shape, rows.spacing) == ((5, 30, 40, 1), SPACING)
    np.testing.assert_array_equal(rows.read(0, 5)[..., 0], pixels[1].astype(np.float32))


def test_only_a_volume_that_says_as_much_is_not_copied(tmp_path: Path) -> None:
    image, _ = layers()
    source = plane_source(image, dims=3)
    write_plane(source, (), tmp_path / "v.zarr", lambda done, total: None)
    array = zarr.open_array(tmp_path / "v.zarr" / "0", mode="r")
    assert stored_plane(plane_source(Image(array, **PLACE), dims=3)) == tmp_path / "v.zarr"
    assert stored_plane(plane_source(Image(array), dims=3)) is None
    assert stored_plane(plane_source(Image(array, **{**PLACE, "scale": (1, 1, 1)}), dims=3)) is None
    named = zarr.create_array(tmp_path / "n", shape=SHAPE, dtype="u1", dimension_names=("z", "y", "x"))
    assert stored_plane(plane_source(Image(named), dims=3)) == tmp_path / "n"
    bare = zarr.create_array(tmp_path / "b", shape=SHAPE, dtype="u1")
    assert stored_plane(plane_source(Image(bare), dims=3)) is None


def test_images_and_volumes_take_runs_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is 2D.*trained on volumes"):
        plane_source(Image(np.zeros((30, 40))), dims=3)
    run = tmp_path / "run"
    made_run(run)
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "best").touch()
    volume = PlaneSource(np.zeros(SHAPE), False, "v", ((),), Transform.identity(3), 3)
    with pytest.raises(InputError, match="trained on images, and 'v' was to be predicted as volumes"):
        require_fitting(run, volume)


# Thresholds


def probability(**meaning: object) -> Image:
    p = np.random.default_rng(5).random(SHAPE, np.float32)
    mark = {MARK: {"kind": "prediction", "role": "probability", **meaning}} if meaning else {}
    return Image(p, name="probability · brain", metadata=mark)


def test_a_volume_counts_as_one_where_its_network_saw_one() -> None:
    truth = Labels(blobs(3)[1], name="brain")
    for layer, dims in ((probability(dims=3), 3), (probability(dims=2), 2), (probability(), 2)):
        assert Target.of_layers(layer, truth).dims == dims
    own = probability()
    own.axis_labels = ("z", "y", "x")
    assert Target.of_layers(own, truth).dims == 3
    target = Target.of_layers(probability(dims=3), truth)
    assert target.planes == [()]
    whole = Curve.of(target.probability, truth.data > 0)
    assert curve_of(target, 0, ()).counts(0.4) == whole.counts(0.4)


def test_volumes_calibrate_whole_whatever_a_stack_is_said_to_be() -> None:
    layer, truth = probability(dims=3), Labels(blobs(3)[1], name="brain")
    (found,) = candidates([layer, truth])
    assert not found.stack
    for planes_are_images in (False, True):
        image = annotated(found, truth, planes_are_images)
        made = basis([image], read_all([image], lambda: False))
        assert (made.unit, made.source) == ("volume", "1 open volume")
        values = made.lesions.units(0).values[0][0]
        np.testing.assert_array_equal(values, np.sort(layer.data[truth.data > 0]))


# Masks


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
def test_a_mask_of_a_volume_lies_where_the_volume_does(tmp_path: Path, ending: str) -> None:
    labels = blobs(2)[1]
    world = affine() @ REVERSED
    path = tmp_path / f"mask{ending}"
    write_mask(path, labels, 2, space=Space(SPACING, world))
    raster = decode(Source(path))
    np.testing.assert_array_equal(raster.pixels, labels)
    np.testing.assert_allclose(raster.spacing, SPACING, rtol=1e-5)
    if ending != ".tif":
        np.testing.assert_allclose(raster.affine, world, atol=1e-4)


def test_a_mask_gets_the_header_of_the_file_that_it_belongs_to(tmp_path: Path) -> None:
    image, labels = blobs(2)
    write_nifti(tmp_path / "brain.nii.gz", image)
    space = Space(file=tmp_path / "brain.nii.gz")
    write_mask(tmp_path / "mask.nii.gz", labels > 0, 2, space=space)
    raster, like = decode(Source(tmp_path / "mask.nii.gz")), probe(Source(tmp_path / "brain.nii.gz"))
    np.testing.assert_array_equal(raster.affine, like.affine)
    np.testing.assert_array_equal(raster.pixels, labels > 0)  # 0 and 1: a label, to those who read volumes
    write_mask(
        tmp_path / "crop.nii.gz", labels[:5], 2, space=space
    )  # of another shape: the file's is not its place
    assert decode(Source(tmp_path / "crop.nii.gz")).shape == (5, *SHAPE[1:])


def test_a_volume_is_no_png_and_an_image_needs_no_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which PNG cannot hold"):
        write_mask(tmp_path / "mask.png", np.zeros(SHAPE, np.uint8), 1)
    write_mask(tmp_path / "mask.tif", np.ones((4, 5), np.uint8), 1)
    with tifffile.TiffFile(tmp_path / "mask.tif") as file:
        assert not file.is_ome


def test_masks_of_a_run_of_volumes_and_of_a_layer_are_one_each(tmp_path: Path) -> None:
    run = Feed(made_run(tmp_path / "run").root).snapshot(View()).run
    named = run_masks(run, View(), 2, own=True)
    assert [name for name, _ in named] == ["brain_mask", "brain_mask_core", "brain_mask_rim"]
    assert named[0][1]().shape == SIZE
    spaces = run_spaces(run, named)
    assert [spaces[name].spacing for name, _ in named] == [SPACING] * 3
    target = Target.of_layers(probability(dims=3), None)
    ((name, make),) = plane_masks("brain", [(target, 0)], [0.5])
    assert name == "brain_mask"
    np.testing.assert_array_equal(make(), target.probability >= 0.5)
