"""Volumes, OME-Zarr images and predictions as layers, without a window."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import zarr
from napari.layers import Image, Labels, Layer
from volumes import SHAPE, SPACING, affine, blobs, write_nifti

from engine.errors import InputError
from engine.streamed.pyramid import Pyramid
from napari_smm.candidates import known, predicted
from napari_smm.files import ENDINGS, kind_of, read
from napari_smm.reader import get_reader, read_files
from napari_smm.targets import Target, offered


def opened(path: Path) -> list[Layer]:
    return [Layer.create(*data) for data in read(path)]


def place(layer: Layer) -> tuple[list[float], list[str], tuple[str, ...]]:
    return layer.scale.tolist(), [str(unit) for unit in layer.units], layer.axis_labels


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_volume_lies_in_mm_with_z_first_and_knows_its_place(tmp_path: Path, ending: str) -> None:
    pixels, _ = blobs(1)
    path = tmp_path / f"brain{ending}"
    if "nii" in ending:
        write_nifti(path, pixels)
    else:
        image = sitk.GetImageFromArray(pixels)
        image.SetSpacing(SPACING[::-1])
        sitk.WriteImage(image, str(path))
    (layer,) = opened(path)
    assert isinstance(layer, Image)
    assert layer.name == "brain"
    np.testing.assert_array_equal(layer.data, pixels)
    np.testing.assert_allclose(layer.scale, SPACING, rtol=1e-6)
    assert place(layer)[1:] == (["millimeter"] * 3, ("z", "y", "x"))
    assert layer.metadata["file"] == str(path)
    if "nii" in ending:
        corner = layer.metadata["affine"] @ (1, 2, 3, 1)
        np.testing.assert_allclose(corner, affine() @ (3, 2, 1, 1), atol=1e-4)


def test_channels_of_a_volume_are_layers_and_only_the_first_is_visible(tmp_path: Path) -> None:
    pixels, _ = blobs(1, channels=2)
    write_nifti(tmp_path / "both.nii.gz", pixels)
    layers = opened(tmp_path / "both.nii.gz")
    assert [(layer.name, layer.visible) for layer in layers] == [
        ("both · channel 1", True), ("both · channel 2", False)
    ]  # fmt: skip
    np.testing.assert_array_equal(layers[1].data, pixels[..., 1])


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("masks/a.nii.gz", Labels),
        ("labelsTr/a.nii.gz", Labels),
        ("a_mask.nii.gz", Labels),
        ("seg.nii.gz", Labels),
        ("images/a.nii.gz", Image),
        ("unmasked.nii.gz", Image),
    ],
)
def test_whole_numbers_are_labels_where_the_name_says_so(tmp_path: Path, where: str, kind: type) -> None:
    _, labels = blobs(1)
    write_nifti(tmp_path / "data" / where, labels)
    (layer,) = opened(tmp_path / "data" / where)
    assert isinstance(layer, kind)
    np.testing.assert_array_equal(layer.data, labels)


def test_intensities_are_no_labels_whatever_they_are_called(tmp_path: Path) -> None:
    write_nifti(tmp_path / "masks" / "a.nii.gz", blobs(1)[0])
    assert isinstance(opened(tmp_path / "masks" / "a.nii.gz")[0], Image)


def ome(folder: Path, shapes: list[tuple[int, ...]], axes: str, scale: list[float], **more: object) -> None:
    group = zarr.create_group(folder, zarr_format=3)
    levels = []
    for number, shape in enumerate(shapes):
        array = zarr.create_array(folder / str(number), shape=shape, chunks=shape, dtype="uint8")
        array[...] = np.arange(np.prod(shape)).reshape(shape) % 251
        steps = [a * b / c for a, b, c in zip(scale, shapes[0], shape, strict=True)]
        transforms = [
            {"type": "scale", "scale": steps},
            {"type": "translation", "translation": [5.0] * len(shape)},
        ]
        levels.append({"path": str(number), "coordinateTransformations": transforms})
    named = [
        {"name": axis, "type": "channel"}
        if axis == "c"
        else {"name": axis, "type": "space", "unit": "micrometer"}
        for axis in axes
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": levels}], **more}


def test_an_ome_zarr_image_stays_multiscale(tmp_path: Path) -> None:
    ome(tmp_path / "cells.ome.zarr", [(8, 20, 24), (8, 10, 12)], "zyx", [2.0, 0.5, 0.25])
    (layer,) = opened(tmp_path / "cells.ome.zarr")
    assert layer.name == "cells"
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(8, 20, 24), (8, 10, 12)]
    assert isinstance(layer.data[0], zarr.Array)
    assert place(layer) == ([2.0, 0.5, 0.25], ["micrometer"] * 3, ("z", "y", "x"))
    assert layer.translate.tolist() == [5.0] * 3


def test_channels_and_labels_of_an_ome_zarr_image_are_layers(tmp_path: Path) -> None:
    folder = tmp_path / "two.zarr"
    ome(folder, [(2, 20, 24)], "cyx", [1.0, 0.5, 0.5])
    zarr.create_group(folder / "labels", attributes={"ome": {"labels": ["nuclei"]}})
    ome(folder / "labels" / "nuclei", [(20, 24)], "yx", [0.5, 0.5])
    first, second, labels = opened(folder)
    assert [layer.name for layer in (first, second, labels)] == [
        "two · channel 1", "two · channel 2", "two · nuclei"
    ]  # fmt: skip
    assert (first.visible, second.visible) == (True, False)
    whole = np.asarray(zarr.open_array(folder / "0"))
    np.testing.assert_array_equal(np.asarray(second.data), whole[1])
    assert isinstance(labels, Labels)


def prediction(folder: Path, spacing: tuple[float, ...] | None) -> np.ndarray:
    """What a streamed prediction of a volume of two classes leaves."""
    p = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    pyramid = Pyramid.of(folder, 2, SHAPE, spacing)
    pyramid.create()
    zarr.open_array(folder / "probability", mode="r+")[...] = p
    about = {
        "format": 1, "run": "/runs/one", "checkpoint": "best.pt", "epoch": 3, "weights": "w",
        "path": {"a": 1}, "image": "brain.nii.gz", "split": None, "classes": ["core", "rim"],
        "shape": p.shape, "dims": 3, "spacing": spacing, "levels": pyramid.names,
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(about))
    return p


@pytest.mark.parametrize("spacing", [SPACING, None])
def test_a_streamed_prediction_is_a_prediction_again(
    tmp_path: Path, spacing: tuple[float, ...] | None
) -> None:
    p = prediction(tmp_path / "out", spacing)
    assert kind_of(tmp_path / "out") == "prediction"  # though it is an OME-Zarr image, too
    layers = opened(tmp_path / "out")
    assert [layer.name for layer in layers] == [
        "probability · brain.nii.gz · core", "probability · brain.nii.gz · rim"
    ]  # fmt: skip
    for cls, layer in enumerate(layers):
        np.testing.assert_array_equal(np.asarray(layer.data), p[cls])
        assert layer.scale.tolist() == list(spacing or (1, 1, 1))
        assert offered(layer)
        assert known(layer)["dims"] == 3
        assert predicted(layer).weights == "w"
        assert Target.of_layers(layer, None).shape == SHAPE


def test_a_reader_is_offered_for_what_it_reads_only(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", blobs(1)[0])
    prediction(tmp_path / "out", None)
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty.zarr").mkdir()
    zarr.create_group(tmp_path / "group.zarr")
    both = [str(tmp_path / "a.nii.gz"), str(tmp_path / "out")]
    assert get_reader(both[0]) is read_files
    assert get_reader(both) is read_files
    assert len(read_files(both)) == 3
    for name in ("a.txt", "empty.zarr", "group.zarr", "b.nii"):
        assert get_reader(str(tmp_path / name)) is None
        with pytest.raises(InputError, match="no volume, OME-Zarr image or prediction"):
            read(tmp_path / name)
    assert get_reader([*both, str(tmp_path / "a.txt")]) is None


def test_a_broken_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match=r"cut\.nii\.gz cannot be read"):
        read(tmp_path / "cut.nii.gz")
    ome(tmp_path / "lost.zarr", [(4, 5)], "yx", [1.0, 1.0])
    (tmp_path / "lost.zarr" / "0" / "zarr.json").unlink()
    with pytest.raises(InputError, match="multiscales that cannot be read"):
        read(tmp_path / "lost.zarr")


def test_the_manifest_names_the_endings() -> None:
    import yaml

    manifest = Path(__file__).parents[2] / "napari_smm" / "napari.yaml"
    (reader,) = yaml.safe_load(manifest.read_text())["contributions"]["readers"]
    assert reader["filename_patterns"] == [f"*{ending}" for ending in ENDINGS]
