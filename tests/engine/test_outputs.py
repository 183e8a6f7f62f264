"""Results of volumes in the formats of their images: values where they were, on the same voxels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from volumes import SHAPE, blobs, write_nifti

from engine.data.decode import Source, decode
from engine.errors import InputError
from engine.inputs import Input
from engine.outputs import endings, plan, write_mask, write_probability

RNG = np.random.default_rng(0)
P = RNG.random((2, *SHAPE), dtype=np.float32)
MASK = (P[0] > 0.7).astype(np.uint8)
CLASSES = ("head", "tail")


@pytest.mark.parametrize(
    ("name", "dims", "expected"),
    [
        ("a.nii", 3, (".nii.gz", ".nii.gz")), ("a.nii.gz", 3, (".nii.gz", ".nii.gz")),
        ("a.nhdr", 3, (".nrrd", ".nrrd")), ("a.mhd", 3, (".mha", ".mha")), ("a.TIF", 3, (".tif", ".tif")),
        ("a.tiff", 2, (".tif", ".tif")), ("a.npy", 3, (".npy", ".npy")), ("a.mat", 3, (".npy", ".npy")),
        ("a.ome.zarr", 3, (".npy", ".npy")), ("a.png", 2, (".tif", ".png")), ("a.npy", 2, (".tif", ".png")),
        ("a.nii.gz", 2, (".nii.gz", ".nii.gz")),
    ],
)  # fmt: skip
def test_results_have_the_format_of_their_image(name: str, dims: int, expected: tuple[str, str]) -> None:
    assert endings(Path(name), dims) == expected


@pytest.mark.parametrize("classes", [1, 2])
def test_nifti_results_lie_on_the_same_voxels(classes: int, tmp_path: Path) -> None:
    like = tmp_path / "scan.nii.gz"
    write_nifti(like, blobs(3)[0], spacing=(2.5, 0.7, 0.4), turn=17.0)
    write_probability(tmp_path / "p.nii.gz", P[:classes], Source(like), CLASSES[:classes])
    write_mask(tmp_path / "m.nii.gz", MASK, Source(like))
    first, p, mask = (nib.load(tmp_path / name) for name in ("scan.nii.gz", "p.nii.gz", "m.nii.gz"))
    for made in (p, mask):
        np.testing.assert_array_equal(made.affine, first.affine)
        for form in ("get_sform", "get_qform"):
            (matrix, code), (expected, wanted) = (getattr(image, form)(coded=True) for image in (made, first))
            np.testing.assert_array_equal(matrix, expected)
            assert code == wanted
        assert made.header.get_zooms()[:3] == first.header.get_zooms()[:3]
        assert made.header.get_xyzt_units()[0] == "mm"
    assert mask.get_data_dtype() == np.uint8
    assert p.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(mask.dataobj), MASK.transpose(2, 1, 0))
    expected = P[:1].transpose(3, 2, 1, 0)[..., 0] if classes == 1 else P.transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(np.asarray(p.dataobj), expected)


@pytest.mark.parametrize(("given", "made"), [(".nrrd", ".nrrd"), (".mha", ".mha"), (".mhd", ".mha")])
def test_results_of_itks_formats_lie_on_the_same_voxels(given: str, made: str, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(blobs(2)[0])
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((-12.5, 30.0, 4.25))
    image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / f"scan{given}"))
    write_mask(tmp_path / f"m{made}", MASK, Source(tmp_path / f"scan{given}"))
    write_probability(tmp_path / f"p{made}", P, Source(tmp_path / f"scan{given}"), CLASSES)
    mask, p = (sitk.ReadImage(str(tmp_path / f"{name}{made}")) for name in "mp")
    for result in (mask, p):
        np.testing.assert_allclose(result.GetSpacing(), image.GetSpacing(), rtol=1e-12)
        np.testing.assert_allclose(result.GetOrigin(), image.GetOrigin(), rtol=1e-12)
        np.testing.assert_allclose(result.GetDirection(), image.GetDirection(), atol=1e-12)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), MASK)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(p), np.moveaxis(P, 0, -1))


@pytest.mark.parametrize("classes", [1, 2])
def test_stacks_keep_imagejs_axes_and_spacing(classes: int, tmp_path: Path) -> None:
    like = tmp_path / "cells.tif"
    tifffile.imwrite(
        like, blobs(1)[0], imagej=True, resolution=(4.0, 4.0),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 1.5},
    )  # fmt: skip
    write_probability(tmp_path / "p.tif", P[:classes], Source(like), CLASSES[:classes])
    write_mask(tmp_path / "m.tif", MASK, Source(like))
    for name, axes in (("p.tif", "ZYX" if classes == 1 else "ZCYX"), ("m.tif", "ZYX")):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.series[0].axes == axes
            assert file.imagej_metadata is not None
            assert (file.imagej_metadata["unit"], file.imagej_metadata["spacing"]) == ("um", 1.5)
            assert file.pages.first.tags["XResolution"].value == (4, 1)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), MASK)
    p = tifffile.imread(tmp_path / "p.tif")
    np.testing.assert_array_equal(p, P[0] if classes == 1 else P.swapaxes(0, 1))
    again = decode(Source(tmp_path / "m.tif"))
    assert again.spacing == pytest.approx((1.5e-3, 0.25e-3, 0.25e-3))


def test_stacks_of_ome_keep_their_spacing(tmp_path: Path) -> None:
    like = tmp_path / "cells.ome.tif"
    tifffile.imwrite(
        like, blobs(1)[0],
        metadata={
            "axes": "ZYX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25,
            "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 1.0, "PhysicalSizeZUnit": "µm",
        },
    )  # fmt: skip
    write_mask(tmp_path / "m.tif", MASK, Source(like))
    made = decode(Source(tmp_path / "m.tif"))
    np.testing.assert_array_equal(made.pixels, MASK)
    assert made.spacing == pytest.approx((1e-3, 0.25e-3, 0.2e-3))


def test_plain_stacks_and_npy_hold_the_values(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", blobs(1)[0], photometric="minisblack")
    np.save(tmp_path / "v.npy", blobs(1)[0])
    write_mask(tmp_path / "m.tif", MASK, Source(tmp_path / "plain.tif"))
    write_probability(tmp_path / "p.tif", P, Source(tmp_path / "plain.tif"), CLASSES)
    write_mask(tmp_path / "m.npy", MASK, Source(tmp_path / "v.npy"))
    write_probability(tmp_path / "p.npy", P, Source(tmp_path / "v.npy"), CLASSES)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), MASK)
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), MASK)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), P)
    again = decode(Source(tmp_path / "p.tif"))
    np.testing.assert_array_equal(again.pixels, np.moveaxis(P, 0, -1))


def test_names_and_what_is_in_the_way(tmp_path: Path) -> None:
    images = [Input("a", (Path("x/a_0000.nii.gz"), Path("x/a_0001.nii.gz"))), Input("b", (Path("b.npy"),))]
    made = plan(images, 3, tmp_path, overwrite=False, own=CLASSES)
    assert [path.name for path in made[images[0]]] == [
        "a_probability.nii.gz", "a_mask.nii.gz", "a_mask_head.nii.gz", "a_mask_tail.nii.gz"
    ]  # fmt: skip
    assert made[images[1]][1] == tmp_path / "b_mask.npy"
    (tmp_path / "b_mask.npy").touch()
    with pytest.raises(InputError, match=r"b_mask\.npy exists already"):
        plan(images, 3, tmp_path, overwrite=False)
    assert plan(images, 3, tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"a\.nii and y/a\.nrrd would both"):
        plan([Input("a", (Path("a.nii"),)), Input("a", (Path("y/a.nrrd"),))], 3, tmp_path / "n", False)


def test_no_half_written_result_is_left(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", blobs(1)[0])
    with pytest.raises(InputError):
        write_mask(tmp_path / "m.nii.gz", MASK, Source(tmp_path / "gone.nii.gz"))
    with pytest.raises(FileNotFoundError):
        write_mask(tmp_path / "none" / "m.npy", MASK, Source(tmp_path / "v.npy"))
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]
