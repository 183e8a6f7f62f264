"""TIFF stacks, NPY, MATLAB, zarr and OME-Zarr: which axis is which, and how large voxels are."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from engine.data.axes import arrange
from engine.data.decode import Source, decode, probe
from engine.data.raster import Raster
from engine.errors import InputError

ZYX = np.arange(20 * 24 * 28, dtype=np.uint16).reshape(20, 24, 28)
TWO = np.stack([ZYX, ZYX + 1], -1)
"""(z, y, x, channels)"""
UM = 1e-3


def same_head(path: Path, axes: str | None = None) -> Raster:
    """Decode a file, and check that its header told the same."""
    raster, head = decode(Source(path, axes=axes)), probe(Source(path), axes)
    assert (raster.shape, raster.channels, raster.dims) == (head.shape, head.channels, head.dims)
    assert (raster.pixels.dtype, raster.spacing, raster.affine) == (head.dtype, head.spacing, head.affine)
    return raster


def order(letters: str) -> np.ndarray:
    """TWO, or its first channel, with its axes in the order of letters."""
    array = TWO if "c" in letters else ZYX
    return array.transpose(["zyxc".index(letter) for letter in letters])


# ------------------------------------------------------------------ axes


@pytest.mark.parametrize("letters", ["".join(each) for each in permutations("zyxc")])
def test_named_axes_may_have_any_order(letters: str) -> None:
    arranged = arrange(order(letters).shape, Path("a"), letters.upper())
    assert arranged.dims == 3
    np.testing.assert_array_equal(arranged.of(order(letters)), TWO)
    assert arranged.shape(order(letters).shape) == TWO.shape


@given(st.permutations("tzyxc"), st.sets(st.sampled_from("tzc")))
def test_axes_of_length_1_are_left_out(letters: list[str], single: set[str]) -> None:
    lengths = {letter: 1 if letter in single | {"t"} else 2 + n for n, letter in enumerate("tzyxc")}
    array = np.random.default_rng(0).random([lengths[letter] for letter in letters])
    arranged = arrange(array.shape, Path("a"), "".join(letters))
    kept = [letter for letter in "zyxc" if letter not in single]
    wanted = np.einsum(f"{''.join(letters)}->{''.join(kept)}", array)
    np.testing.assert_array_equal(arranged.of(array), wanted)
    assert arranged.dims == (2 if "z" in single else 3)


@pytest.mark.parametrize(
    ("shape", "wanted", "dims"),
    [
        ((20, 24), (20, 24), 2),
        ((20, 24, 28), (20, 24, 28), 3),  # no axis is short enough to be channels
        ((20, 24, 16), (20, 24, 16), 2),
        ((16, 24, 28), (24, 28, 16), 2),
        ((17, 24, 28), (17, 24, 28), 3),
        ((1, 20, 24, 28), (20, 24, 28), 3),
        ((20, 24, 28, 1), (20, 24, 28), 3),
        ((2, 20, 24, 28), (20, 24, 28, 2), 3),
        ((20, 24, 28, 3), (20, 24, 28, 3), 3),
        ((1, 1, 24, 28), (24, 28), 2),
        ((4, 1, 24), (1, 24, 4), 2),
    ],
)
def test_lengths_decide_where_nothing_is_named(
    shape: tuple[int, ...], wanted: tuple[int, ...], dims: int
) -> None:
    arranged = arrange(shape, Path("a"))
    assert (arranged.of(np.zeros(shape)).shape, arranged.dims) == (wanted, dims)


@pytest.mark.parametrize("letters", ["zyx", "zyxc", "czyx", "zcyx"])
def test_data_axes_name_what_a_file_does_not(tmp_path: Path, letters: str) -> None:
    np.save(tmp_path / "a.npy", order(letters)[:, :10])  # ten rows would be taken for channels
    places = [letters.index(each) for each in "zyxc" if each in letters]
    wanted = np.moveaxis(order(letters)[:, :10], places, range(len(letters)))
    raster = same_head(tmp_path / "a.npy", letters)
    assert raster.dims == 3
    np.testing.assert_array_equal(raster.pixels, wanted)


def test_data_axes_of_images_with_channels_fit_masks_without(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", ZYX[:12])
    raster = same_head(tmp_path / "m.npy", "zyxc")
    assert raster.dims == 3
    np.testing.assert_array_equal(raster.pixels, ZYX[:12])
    np.save(tmp_path / "m.npy", ZYX[None, :12])
    np.testing.assert_array_equal(same_head(tmp_path / "m.npy", "zyx").pixels, ZYX[:12])
    np.save(tmp_path / "m.npy", ZYX[0])
    assert same_head(tmp_path / "m.npy", "zyxc").dims == 2


def test_axes_that_cannot_be() -> None:
    with pytest.raises(
        InputError, match=r"shape \(20, 24, 28, 30\), whose axes data.axes 'zyx' does not name"
    ):
        arrange((20, 24, 28, 30), Path("a"), given="zyx")
    for shape in ((20, 24, 28, 30), (20, 24, 28, 30, 3), (7,), ()):
        with pytest.raises(InputError, match="neither an image nor a volume: height and width"):
            arrange(shape, Path("a"))
    for named in ("ZXC", "MZYX", "ZYXZ", "SCYX"):
        with pytest.raises(InputError, match=rf"\(axes {named}\), neither an image nor a volume"):
            arrange((20,) * len(named), Path("a"), named)


# ------------------------------------------------------------------ TIFF


@pytest.mark.parametrize("letters", ["ZYX", "ZCYX"])
def test_imagej_stacks(tmp_path: Path, letters: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, order(letters.lower()), imagej=True, resolution=(2.0, 4.0),
        metadata={"axes": letters, "spacing": 3.0, "unit": "um"},
    )  # fmt: skip
    raster = same_head(path)
    assert raster.dims == 3
    np.testing.assert_array_equal(raster.pixels, order("zyxc" if "C" in letters else "zyx"))
    np.testing.assert_allclose(raster.spacing, (3 * UM, 0.25 * UM, 0.5 * UM))


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [("\\u00B5m", UM), ("micron", UM), ("mm", 1.0), ("nm", 1e-6), ("pixel", None), (None, None)],
)
def test_imagej_units(tmp_path: Path, unit: str | None, wanted: float | None) -> None:
    metadata: dict[str, Any] = {"axes": "ZYX", "spacing": 2.0} | ({"unit": unit} if unit else {})
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True, resolution=(1.0, 1.0), metadata=metadata)
    spacing = same_head(tmp_path / "a.tif").spacing
    if wanted is None:
        assert spacing is None
    else:
        np.testing.assert_allclose(spacing, (2 * wanted, wanted, wanted))


def test_ome_tiff(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", order("czyx"), metadata={"axes": "CZYX", **sizes})
    raster = same_head(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(raster.pixels, TWO)
    np.testing.assert_allclose(raster.spacing, (2 * UM, 0.25 * UM, 0.5 * UM))
    tifffile.imwrite(tmp_path / "b.ome.tif", ZYX[0], metadata={"axes": "YX", **sizes})
    np.testing.assert_allclose(same_head(tmp_path / "b.ome.tif").spacing, (0.25 * UM, 0.5 * UM))
    tifffile.imwrite(tmp_path / "c.ome.tif", ZYX, metadata={"axes": "ZYX"})
    assert same_head(tmp_path / "c.ome.tif").spacing is None


def test_pages_are_a_stack_however_they_were_written(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "shaped.tif", ZYX)
    tifffile.imwrite(tmp_path / "plain.tif", ZYX, metadata=None)
    for name, metadata in (("pages.tif", None), ("series.tif", {})):
        with tifffile.TiffWriter(tmp_path / name) as file:
            for page in ZYX:
                file.write(page, contiguous=False, metadata=metadata)
    for path in tmp_path.iterdir():
        raster = same_head(path)
        assert raster.dims == 3
        np.testing.assert_array_equal(raster.pixels, ZYX)
    rgb = np.random.default_rng(0).integers(0, 255, (5, 24, 28, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    raster = same_head(tmp_path / "rgb.tif")
    assert raster.dims == 3
    np.testing.assert_array_equal(raster.pixels, rgb)


def test_few_pages_are_channels_unless_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ZYX[:9], metadata=None)
    assert same_head(tmp_path / "a.tif").dims == 2
    np.testing.assert_array_equal(same_head(tmp_path / "a.tif", "zyx").pixels, ZYX[:9])
    tifffile.imwrite(tmp_path / "z.tif", ZYX[:9], imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(same_head(tmp_path / "z.tif").pixels, ZYX[:9])
    tifffile.imwrite(tmp_path / "c.tif", ZYX[:9], imagej=True, metadata={"axes": "CYX"})
    assert same_head(tmp_path / "c.tif", "zyx").dims == 2  # the file says so


def test_time_is_refused_or_read_as_depth(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(
        InputError, match=r'20 points\), which is not read: .*data.axes = "zyx" would read time'
    ):
        decode(Source(tmp_path / "a.tif"))
    np.testing.assert_array_equal(same_head(tmp_path / "a.tif", "zyx").pixels, ZYX)
    movie = np.zeros((3, 5, 24, 28), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", movie, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(
        InputError, match=r"time \(3 points\), which is not read: a file for each time would work\.$"
    ):
        probe(Source(tmp_path / "b.tif"))
    tifffile.imwrite(tmp_path / "c.tif", movie[:1], imagej=True, metadata={"axes": "TZYX"})
    assert same_head(tmp_path / "c.tif").shape == (5, 24, 28)


def test_a_flat_stack_is_an_image_and_white_may_be_0(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ZYX[:1], imagej=True, metadata={"axes": "ZYX"})
    assert same_head(tmp_path / "a.tif").dims == 2
    low = (ZYX % 200).astype(np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", low, photometric="miniswhite", metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(same_head(tmp_path / "b.tif").pixels, 255 - low)


def test_a_stacks_palette_is_not_its_colours(tmp_path: Path) -> None:
    colormap = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    low = (ZYX % 200).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", low, imagej=True, colormap=colormap, metadata={"axes": "ZYX"})
    raster = same_head(tmp_path / "a.tif")
    assert (raster.palette, raster.channels) == (None, 1)
    np.testing.assert_array_equal(raster.pixels, low)


def test_truncated_stack(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ZYX, metadata={"axes": "ZYX"})
    path = tmp_path / "a.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a.tif cannot be read as TIF"):
        decode(Source(path))


# ------------------------------------------------------------------ MATLAB


def test_matlab_stacks_slices_along_the_third_axis(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"scan": order("yxz")})
    np.testing.assert_array_equal(same_head(tmp_path / "a.mat").pixels, ZYX)
    scipy.io.savemat(tmp_path / "b.mat", {"scan": order("yxz")[..., :9]})
    assert same_head(tmp_path / "b.mat").dims == 2
    scipy.io.savemat(tmp_path / "c.mat", {"scan": ZYX[:9]})
    np.testing.assert_array_equal(same_head(tmp_path / "c.mat", "zyx").pixels, ZYX[:9])


# ------------------------------------------------------------------ zarr


def put_ome(
    path: Path,
    array: np.ndarray,
    letters: str,
    unit: str | None,
    version: str,
    *,
    more: dict[str, Any] | None = None,
) -> Path:
    """An OME-Zarr of two levels: voxels of 4, 2, 1 units, and all of it doubled."""
    kinds = dict.fromkeys("zyx", "space") | {"c": "channel", "t": "time"}
    axes = [
        {"name": letter, "type": kinds[letter]} | ({"unit": unit} if unit and letter in "zyx" else {})
        for letter in letters
    ]
    scale = [{"z": 4.0, "y": 2.0, "x": 1.0}.get(letter, 1.0) for letter in letters]
    transforms = [{"type": "scale", "scale": scale}]
    described = {
        "axes": axes,
        "datasets": [{"path": f"s{level}", "coordinateTransformations": transforms} for level in range(2)],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0] * len(letters)}],
    } | (more or {})
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.create_group(path, zarr_format=zarr_format)
    attributes = {"multiscales": [{**described, "version": version} if version == "0.4" else described]}
    group.attrs.update(attributes if version == "0.4" else {"ome": {**attributes, "version": version}})
    chunks = tuple(max(1, length // 2) for length in array.shape)
    for level in range(2):
        data = array if level == 0 else array[..., ::2]
        group.create_array(f"s{level}", shape=data.shape, dtype=data.dtype, chunks=chunks)[...] = data
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("letters", ["zyx", "czyx", "tczyx", "yx", "cyx", "tyx"])
def test_ome_zarr(tmp_path: Path, version: str, letters: str) -> None:
    wanted = (TWO if "c" in letters else ZYX)[... if "z" in letters else 0]
    array = np.moveaxis(wanted, -1, 0) if "c" in letters else wanted
    array = array[None] if "t" in letters else array
    raster = same_head(put_ome(tmp_path / "a.ome.zarr", array, letters, "micrometer", version))
    np.testing.assert_array_equal(raster.pixels, wanted)
    assert raster.dims == (3 if "z" in letters else 2)
    np.testing.assert_allclose(raster.spacing, np.array([8, 4, 2])[-raster.dims :] * UM)


@pytest.mark.parametrize(("unit", "factor"), [("nanometer", 1e-6), ("millimeter", 1.0), (None, None)])
def test_ome_zarr_units(tmp_path: Path, unit: str | None, factor: float | None) -> None:
    spacing = same_head(put_ome(tmp_path / "a.zarr", ZYX, "zyx", unit, "0.5")).spacing
    if factor is None:
        assert spacing is None
    else:
        np.testing.assert_allclose(spacing, np.array([8, 4, 2]) * factor)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays(tmp_path: Path, zarr_format: Any) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=ZYX[:12], zarr_format=zarr_format, chunks=(5, 10, 28))
    assert same_head(path).dims == 2
    raster = same_head(path, "zyx")
    np.testing.assert_array_equal(raster.pixels, ZYX[:12])
    assert raster.spacing is None


@pytest.mark.parametrize("names", [("z", "y", "x", "c"), ("depth", "height", "width", "channel")])
def test_zarr_3_may_name_its_axes(tmp_path: Path, names: tuple[str, ...]) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=TWO[:9], zarr_format=3, dimension_names=names)
    np.testing.assert_array_equal(same_head(tmp_path / "a.zarr").pixels, TWO[:9])


def test_a_converters_box_around_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_group(path, zarr_format=2, attributes={"bioformats2raw.layout": 3})
    put_ome(path / "0", ZYX, "zyx", "micrometer", "0.4")
    np.testing.assert_array_equal(same_head(path).pixels, ZYX)
    put_ome(path / "1", ZYX, "zyx", "micrometer", "0.4")
    with pytest.raises(InputError, match=r"a.zarr holds 2 images, and it is unclear which is meant"):
        probe(Source(path))


def test_zarrs_that_are_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.create_group(path)
    group.create_array("weights", data=np.zeros(4))
    group.create_array("bias", data=np.zeros(4))
    says = r"a.zarr is a zarr that is not an image, .* multiscales \(in it: bias, weights\): an array, or"
    for read in (decode, probe):
        with pytest.raises(InputError, match=says):
            read(Source(path))
    group.attrs.update({"ome": {"plate": {}}})
    with pytest.raises(InputError, match=r"a.zarr is a plate of many images"):
        probe(Source(path))
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(InputError, match=r"b.zarr is not a zarr that can be read: a folder with zarr.json"):
        decode(Source(tmp_path / "b.zarr"))
    movie = put_ome(tmp_path / "t.zarr", ZYX[:, None], "tzyx", None, "0.5")
    with pytest.raises(InputError, match=r"t.zarr has an axis of time \(20 points\)"):
        probe(Source(movie))
    zarr.create_array(tmp_path / "n.zarr", data=np.zeros((20, 20, 20, 20, 20), np.uint8))
    with pytest.raises(InputError, match=r"n.zarr holds an array of shape .*neither an image nor a volume"):
        probe(Source(tmp_path / "n.zarr"))


def test_zarrs_that_are_broken(tmp_path: Path) -> None:
    path = put_ome(tmp_path / "a.zarr", ZYX, "zyx", None, "0.5")
    chunk = next(file for file in (path / "s0").rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputError, match=r"a.zarr cannot be read as ZARR .*it may be corrupt"):
        decode(Source(path))
    head = path / "zarr.json"
    head.write_text(head.read_text()[:50])
    with pytest.raises(InputError, match=r"a.zarr cannot be read as zarr .*it may be corrupt"):
        probe(Source(path))
    lost = put_ome(tmp_path / "b.zarr", ZYX, "zyx", None, "0.5", more={"datasets": [{"path": "gone"}]})
    with pytest.raises(InputError, match=r"b.zarr has multiscales that are not OME-Zarr's"):
        probe(Source(lost))
    described = json.loads((lost / "zarr.json").read_text())
    described["attributes"]["ome"]["multiscales"] *= 2
    (lost / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"b.zarr holds 2 images"):
        probe(Source(lost))
