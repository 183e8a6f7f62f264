"""NIfTI, NRRD and MHA: what nibabel and SimpleITK write is read, and what is written they read."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from volumes import affine

from engine.data.decode import ENDINGS, Source, count_channels, decode, ending, probe, stem
from engine.data.raster import Raster
from engine.data.volumes import result_ending, write_like
from engine.errors import InputError

XYZ = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
"""As a file has it: x, y, z."""
ZYX = XYZ.transpose(2, 1, 0)
SPACING = (2.0, 1.0, 0.5)


def write_nifti(path: Path, array: np.ndarray, world: np.ndarray | None = None, unit: str = "mm") -> Path:
    image = nib.Nifti1Image(array, affine(SPACING) if world is None else world)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def write_itk(path: Path, array: np.ndarray, *, vector: bool = False) -> Path:
    """Write an array (z, y, x[, c]), turned about z and moved, with spacing 2, 1, 0.5 along z, y, x."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing(SPACING[::-1])
        image.SetOrigin((3.0, -4.0, 5.0))
        image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(path))
    return path


def same_head(path: Path) -> Raster:
    """Decode a file, and check that its header told the same."""
    raster, head = decode(Source(path)), probe(Source(path))
    assert (raster.shape, raster.channels, raster.dims) == (head.shape, head.channels, head.dims)
    assert raster.pixels.dtype == head.dtype
    assert raster.spacing == head.spacing
    assert (raster.affine is None) == (head.affine is None)
    if raster.affine is not None:
        np.testing.assert_array_equal(raster.affine, head.affine)
    return raster


# ------------------------------------------------------------------ NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_nifti_is_read_as_z_y_x(tmp_path: Path, name: str) -> None:
    raster = same_head(write_nifti(tmp_path / name, XYZ))
    np.testing.assert_array_equal(raster.pixels, ZYX)
    assert raster.pixels.dtype == np.int16
    assert raster.dims == 3
    np.testing.assert_allclose(raster.spacing, SPACING, rtol=1e-6)
    index = np.array([3, 2, 1, 1])  # z, y, x
    np.testing.assert_allclose(raster.affine @ index, affine(SPACING) @ [1, 2, 3, 1])


@pytest.mark.parametrize(
    ("shape", "dims", "wanted"),
    [
        ((5, 6), 2, (6, 5)),
        ((5, 6, 1), 2, (6, 5)),
        ((5, 6, 1, 2), 2, (6, 5, 2)),
        ((5, 6, 7, 1), 3, (7, 6, 5)),
        ((5, 6, 7, 2), 3, (7, 6, 5, 2)),
        ((5, 6, 7, 1, 3), 3, (7, 6, 5, 3)),
        ((5, 6, 7, 1, 1), 3, (7, 6, 5)),
        ((1, 6, 7), 3, (7, 6, 1)),
    ],
)
def test_nifti_of_other_axes(
    tmp_path: Path, shape: tuple[int, ...], dims: int, wanted: tuple[int, ...]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    raster = same_head(write_nifti(tmp_path / "a.nii", array))
    assert (raster.dims, raster.pixels.shape) == (dims, wanted)
    if len(wanted) > dims:
        last = raster.pixels[..., 1]
        along = array.reshape(*array.shape[:3], -1)[..., 1]
        np.testing.assert_array_equal(last, along.transpose(2, 1, 0).squeeze())


@pytest.mark.parametrize("shape", [(5, 6, 7, 17), (5, 6, 7, 2, 2), (5,)])
def test_nifti_of_times_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros(shape, np.float32))
    for read in (decode, probe):
        with pytest.raises(InputError, match=r"a.nii holds an array of shape .* 16 channels, would work"):
            read(Source(path))


def test_scaled_values_come_as_float32(tmp_path: Path) -> None:
    image = nib.Nifti1Image(XYZ, np.eye(4))
    image.header.set_slope_inter(0.5, 3.0)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    stored = nib.load(path)
    assert stored.dataobj.slope == 0.5
    raster = same_head(path)
    assert raster.pixels.dtype == np.float32
    np.testing.assert_allclose(raster.pixels, stored.get_fdata().transpose(2, 1, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)]
)
def test_units_become_mm(tmp_path: Path, unit: str, factor: float) -> None:
    raster = same_head(write_nifti(tmp_path / "a.nii", XYZ, unit=unit))
    np.testing.assert_allclose(raster.spacing, np.multiply(SPACING, factor), rtol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(raster.affine[:3, :3], axis=0), np.multiply(SPACING, factor), rtol=1e-6
    )


def test_a_header_without_a_place_in_the_world_has_no_affine(tmp_path: Path) -> None:
    image = nib.Nifti1Image(XYZ, None)
    image.header.set_zooms((0.5, 1.0, 2.0))
    nib.save(image, tmp_path / "a.nii")
    raster = same_head(tmp_path / "a.nii")
    assert raster.affine is None
    assert raster.spacing == SPACING


@pytest.mark.parametrize(("names", "alpha"), [("RGB", False), ("RGBA", True)])
def test_nifti_colours(tmp_path: Path, names: str, alpha: bool) -> None:
    colours = np.zeros((5, 6, 7), [(name, "u1") for name in names])
    for number, name in enumerate(names):
        colours[name] = XYZ % 50 + number
    raster = same_head(write_nifti(tmp_path / "a.nii", colours))
    assert raster.alpha == alpha
    np.testing.assert_array_equal(raster.pixels, np.stack([ZYX % 50 + c for c in range(3)], -1))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("part", [0.0, 0.05, 0.6, 0.95])
def test_truncated_nifti(tmp_path: Path, name: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 20)).astype(np.uint8)
    path = write_nifti(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(
        InputError, match=rf"{name} (cannot be read as {name[2:].upper()} .*corrupt|is empty)"
    ) as caught:
        decode(Source(path))
    assert "\n" not in str(caught.value)


def test_a_gzip_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"this is no image, whatever its name says" * 20))
    for read in (decode, probe):
        with pytest.raises(InputError, match=r"a.nii.gz cannot be read as NII.GZ"):
            read(Source(tmp_path / "a.nii.gz"))


# ------------------------------------------------------------------ NRRD and MHA


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_itk_formats(tmp_path: Path, name: str, dtype: str) -> None:
    raster = same_head(write_itk(tmp_path / name, ZYX.astype(dtype)))
    np.testing.assert_array_equal(raster.pixels, ZYX.astype(dtype))
    assert raster.dims == 3
    assert raster.spacing == SPACING
    # x runs along LPS y, y along LPS −x; the origin in RAS is (-3, 4, 5)
    np.testing.assert_allclose(raster.affine @ [0, 0, 0, 1], [-3, 4, 5, 1])
    np.testing.assert_allclose(raster.affine @ [3, 0, 0, 1], [-3, 4, 5 + 3 * 2.0, 1])
    np.testing.assert_allclose(raster.affine @ [0, 3, 0, 1], [-3 + 3 * 1.0, 4, 5, 1])
    np.testing.assert_allclose(raster.affine @ [0, 0, 3, 1], [-3, 4 - 3 * 0.5, 5, 1])


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_itk_channels_images_and_flat_volumes(tmp_path: Path, name: str) -> None:
    two = np.stack([ZYX, ZYX + 1], -1)
    path = tmp_path / name
    np.testing.assert_array_equal(same_head(write_itk(path, two, vector=True)).pixels, two)
    assert count_channels(Source(path)) == 2
    for array, wanted in ((ZYX[0], ZYX[0]), (ZYX[:1], ZYX[0])):
        raster = same_head(write_itk(path, array))
        assert raster.dims == 2
        np.testing.assert_array_equal(raster.pixels, wanted)
    raster = same_head(write_itk(path, two[:1], vector=True))
    np.testing.assert_array_equal(raster.pixels, two[0])


def test_itk_axes_of_channels(tmp_path: Path) -> None:
    four = sitk.GetImageFromArray(np.stack([ZYX, ZYX + 1]), isVector=False)
    assert four.GetDimension() == 4
    for name in ("a.mha", "a.nrrd"):
        sitk.WriteImage(four, str(tmp_path / name))
        np.testing.assert_array_equal(same_head(tmp_path / name).pixels, np.stack([ZYX, ZYX + 1], -1))
    head = "NRRD0004\ntype: uint8\ndimension: 4\nsizes: 2 5 6 7\nencoding: raw\n"
    head += "kinds: list domain domain domain\n"
    listed = np.stack([ZYX, ZYX + 1], -1).astype(np.uint8)
    (tmp_path / "list.nrrd").write_bytes(f"{head}\n".encode() + listed.tobytes())
    np.testing.assert_array_equal(same_head(tmp_path / "list.nrrd").pixels, listed)
    many = sitk.GetImageFromArray(np.zeros((17, 5, 6, 7), np.uint8), isVector=False)
    sitk.WriteImage(many, str(tmp_path / "times.mha"))
    with pytest.raises(InputError, match=r"times.mha holds an array of 4 axes of lengths \(7, 6, 5, 17\)"):
        probe(Source(tmp_path / "times.mha"))


def test_arrays_do_not_hang_on_their_file(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", XYZ)
    pixels = decode(Source(path)).pixels
    path.write_bytes(b"")
    np.testing.assert_array_equal(pixels, ZYX)


def test_itk_and_nifti_agree_on_a_place(tmp_path: Path) -> None:
    """SimpleITK reads the NIfTI and writes NRRD and MHA: all three are the same to us."""
    nifti = decode(Source(write_nifti(tmp_path / "a.nii", XYZ)))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / name))
        other = decode(Source(tmp_path / name))
        np.testing.assert_array_equal(other.pixels, nifti.pixels)
        np.testing.assert_allclose(other.affine, nifti.affine, atol=1e-5)
        np.testing.assert_allclose(other.spacing, nifti.spacing, rtol=1e-6)


def test_nrrd_units_and_what_it_does_not_say(tmp_path: Path) -> None:
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 6 7\nencoding: raw\n"
    pixels = ZYX.astype(np.uint8)
    (tmp_path / "plain.nrrd").write_bytes(f"{head}\n".encode() + pixels.tobytes())
    raster = same_head(tmp_path / "plain.nrrd")
    np.testing.assert_array_equal(raster.pixels, pixels)
    assert (raster.spacing, raster.affine) == (None, None)
    more = (
        'space dimension: 3\nspace directions: (400,0,0) (0,500,0) (0,0,600)\nspace units: "um" "um" "um"\n'
    )
    (tmp_path / "units.nrrd").write_bytes(f"{head}{more}\n".encode() + pixels.tobytes())
    np.testing.assert_allclose(same_head(tmp_path / "units.nrrd").spacing, (0.6, 0.5, 0.4))
    (tmp_path / "spaced.nrrd").write_bytes(f"{head}spacings: 1 2 3\n\n".encode() + pixels.tobytes())
    assert same_head(tmp_path / "spaced.nrrd").spacing == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
def test_itk_files_that_are_broken(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_itk(tmp_path / name, np.random.default_rng(0).integers(0, 255, (20, 20, 20), np.uint8))
    data = path if path.suffix in (".nrrd", ".mha") else tmp_path / "a.raw"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(
        InputError, match=rf"{name} cannot be read as {name[2:].upper()} .*it may be corrupt"
    ) as caught:
        decode(Source(path))
    assert "\n" not in str(caught.value)
    path.write_bytes(b"this is no image at all")
    with pytest.raises(InputError, match=rf"{name} cannot be read"):
        decode(Source(path))


# ------------------------------------------------------------------ endings


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.nii.gz", ("a", ".nii.gz")), ("b/a.b.NII.gz", ("a.b", ".nii.gz")), ("a.nii", ("a", ".nii")),
        ("a.ome.zarr", ("a", ".ome.zarr")), ("a.zarr", ("a", ".zarr")), ("a.b.tif", ("a.b", ".tif")),
        ("a.TIF", ("a", ".tif")), ("a", ("a", "")), ("a.tar.gz", ("a.tar", ".gz")),
    ],
)  # fmt: skip
def test_endings(name: str, wanted: tuple[str, str]) -> None:
    assert (stem(name), ending(name)) == wanted
    assert (stem(Path(name)), ending(Path(name))) == wanted


def test_every_ending_is_its_own() -> None:
    assert all(ending(f"a{each}") == each and stem(f"a{each}") == "a" for each in ENDINGS)


# ------------------------------------------------------------------ the way back


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (4, 3), (0, 0)])
@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
def test_nifti_keeps_its_place_bit_for_bit(
    tmp_path: Path, kind: Callable[..., nib.Nifti1Image], codes: tuple[int, int], name: str
) -> None:
    image = kind(XYZ, affine((1.7, 0.9, 0.37), turn=7.0))
    image.header.set_xyzt_units("micron")
    image.header["descrip"] = b"scanner"
    image.set_qform(affine((1.7, 0.9, 0.37), turn=7.0), codes[0])
    image.set_sform(affine((1.6, 0.8, 0.36), turn=9.0) if codes[1] else None, codes[1])
    nib.save(image, tmp_path / "like.nii.gz")
    like = nib.load(tmp_path / "like.nii.gz")
    probability = np.linspace(0, 1, ZYX.size, dtype=np.float32).reshape(ZYX.shape)
    write_like(tmp_path / name, probability, tmp_path / "like.nii.gz")
    out = nib.load(tmp_path / name)
    assert type(out) is type(like)
    for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        np.testing.assert_array_equal(out.header[field], like.header[field])
    for field in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "pixdim"):
        assert out.header[field].tobytes() == like.header[field].tobytes()
    assert out.affine.tobytes() == like.affine.tobytes()
    np.testing.assert_array_equal(np.asanyarray(out.dataobj), probability.transpose(2, 1, 0))
    assert out.get_data_dtype() == np.float32


@pytest.mark.parametrize("like", ["like.nii.gz", "like.nrrd", "like.mha", "like.mhd", "like.npy"])
@pytest.mark.parametrize(
    ("shape", "channels"), [((7, 6, 5), None), ((7, 6, 5), 3), ((7, 6, 5), 1), ((6, 5), None), ((6, 5), 2)]
)
def test_what_is_written_is_read_again(
    tmp_path: Path, like: str, shape: tuple[int, ...], channels: int | None
) -> None:
    source = tmp_path / like
    base = np.zeros(shape, np.int16)
    if like == "like.npy":
        np.save(source, np.zeros(tuple(n + 20 for n in shape)))
        shape = tuple(n + 20 for n in shape)
    elif like == "like.nii.gz":
        write_nifti(source, base.T)
    else:
        write_itk(source, base)
    leading = () if channels is None else (channels,)
    array = np.random.default_rng(0).random((*leading, *shape), np.float32)
    wanted = array if channels is None else np.moveaxis(array, 0, -1) if channels > 1 else array[0]
    old = decode(Source(source))
    for name in ("out.nii.gz", "out.nrrd", "out.mha"):
        write_like(tmp_path / name, array, source)
        raster = same_head(tmp_path / name)
        np.testing.assert_array_equal(raster.pixels, wanted)
        if old.affine is not None:
            np.testing.assert_allclose(raster.affine, old.affine, atol=1e-5)
            np.testing.assert_allclose(raster.spacing, old.spacing, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64"]
)
def test_numbers_of_any_type_are_written(tmp_path: Path, dtype: str) -> None:
    like = write_nifti(tmp_path / "like.nii", XYZ)
    array = (ZYX % 2).astype(dtype)
    for kind in (".nii.gz", ".nrrd", ".mha"):
        write_like(tmp_path / f"out{kind}", array, like)
        read = decode(Source(tmp_path / f"out{kind}")).pixels
        np.testing.assert_array_equal(read, array)
        assert read.dtype == {"bool": "uint8", "float16": "float32"}.get(dtype, dtype)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"like.nii", "out.nii.gz", "out.nrrd", "out.mha"}


def test_results_have_the_format_of_their_image(tmp_path: Path) -> None:
    wanted = {
        "a.nii": ".nii.gz",
        "a.nii.gz": ".nii.gz",
        "a.nhdr": ".nrrd",
        "a.MHD": ".mha",
        "a.zarr": ".nii.gz",
    }
    assert {name: result_ending(Path(name)) for name in wanted} == wanted
    like = write_nifti(tmp_path / "like.nii", XYZ)
    with pytest.raises(InputError, match=r"out.png cannot be written as .png: .nii.gz, .nrrd or .mha would"):
        write_like(tmp_path / "out.png", ZYX, like)
