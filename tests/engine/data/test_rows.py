"""Boxes of images that are stored in chunks: those of the image as it is read whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.rows import open_rows, rows_of
from engine.data.stored import open_stored
from engine.errors import InputError


def pixels(shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def ome(path: Path, image: Any, axes: str, **more: Any) -> Path:
    """An OME-Zarr 0.5 image of two resolutions, with 2 µm along every axis of space."""
    scales = [[1 if axis in "ct" else step for axis in axes] for step in (2.0, 4.0)]
    kinds = {"t": "time", "c": "channel"}
    units = [{"unit": "micrometer"} if axis in "zyx" else {} for axis in axes]
    multiscale = {
        "axes": [
            {"name": axis, "type": kinds.get(axis, "space"), **unit}
            for axis, unit in zip(axes, units, strict=True)
        ],
        "datasets": [
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for level, scale in enumerate(scales)
        ],
    }
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}})
    group.create_array("0", data=image, **more)
    half = tuple(slice(None) if axis in "ct" else slice(None, None, 2) for axis in axes)
    group.create_array("1", data=image[half])
    return path


def require_boxes(rows: Any, image: Any) -> None:
    """Any box, and all lines together, are the image's (*S, channels)."""
    assert rows.shape == image.shape
    rng = np.random.default_rng(1)
    for _ in range(5):
        ends = [sorted(rng.choice(length + 1, 2, replace=False)) for length in image.shape[:-1]]
        box = tuple(slice(int(a), int(b)) for a, b in ends)
        found = rows.box(box)
        assert found.dtype == rows.dtype
        np.testing.assert_array_equal(found, image[box])
    bands = list(rows.bands())
    assert all(band.shape[1:] == image.shape[-2:] for band in bands)
    np.testing.assert_array_equal(np.concatenate(bands).reshape(image.shape), image)


@pytest.mark.parametrize("most", [1 << 22, 700, 1])
@pytest.mark.parametrize("shape", [(57, 43, 1), (40, 30, 3), (20, 23, 31, 1), (18, 9, 21, 2)])
def test_zarr_in_memory_or_on_disk(
    shape: tuple[int, ...], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.rows.MOST_VALUES", most)
    image = pixels(shape, np.uint16)
    zarr.create_array(store=tmp_path / "x.zarr", data=image, chunks=(7, *[10] * (len(shape) - 2), shape[-1]))
    rows = open_rows(tmp_path / "x.zarr", shape[-1], axes="zyxc" if len(shape) == 4 else "yxc")
    require_boxes(rows, image)
    require_boxes(rows_of(image), image)
    assert (rows_of(image).chunks, rows.chunks) == (None, (7, *[10] * (len(shape) - 2)))


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3), st.integers(1, 3), st.integers(1, 5),
    st.integers(1, 200),
)  # fmt: skip
def test_lines_of_any_image_in_any_chunks(shape: list[int], channels: int, chunk: int, most: int) -> None:
    image = pixels((*shape, channels), np.float32)
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(store=store, data=image, chunks=(chunk,) * image.ndim)
    from engine.data import rows as module
    from engine.data.axes import Arrangement
    from engine.data.stored import _of_array

    order = Arrangement(tuple(range(image.ndim)), len(shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_VALUES", most)
        rows = module._of_stored(_of_array(Path("x"), array, order, None), lambda: None)
        bands = list(rows.bands())
        np.testing.assert_array_equal(np.concatenate(bands).reshape(image.shape), image)
        assert max(band.size for band in bands) <= max(most, shape[-1] * channels)


@pytest.mark.parametrize(
    ("axes", "shape", "channels"),
    [
        ("yx", (60, 50), False), ("cyx", (3, 60, 50), True), ("zyx", (9, 40, 50), False),
        ("tczyx", (1, 2, 9, 20, 30), True), ("czyx", (1, 9, 20, 30), True),
    ],
)  # fmt: skip
def test_ome_zarr_at_its_highest_resolution(
    axes: str, shape: tuple[int, ...], channels: bool, tmp_path: Path
) -> None:
    stored = pixels(shape)
    image = stored[0] if axes[0] == "t" else stored
    image = image[..., None] if not channels else np.moveaxis(image, 0, -1)
    rows = open_rows(ome(tmp_path / "x.ome.zarr", stored, axes, chunks=(7,) * len(shape)), image.shape[-1])
    require_boxes(rows, image)
    assert rows.spacing == pytest.approx([0.002] * (image.ndim - 1))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("shape", "more"),
    [
        ((100, 90), {}), ((100, 90, 3), {"photometric": "rgb"}),
        ((100, 90, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ((3, 100, 90), {"photometric": "rgb", "planarconfig": "separate"}),
        ((20, 64, 90), {"photometric": "minisblack"}),
        ((20, 2, 64, 90), {"photometric": "minisblack", "metadata": {"axes": "ZCYX"}}),
        ((20, 64, 90), {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)}),
    ],
)  # fmt: skip
def test_tiled_tiff_is_what_it_is_when_it_is_read_whole(
    shape: tuple[int, ...], more: dict[str, Any], compression: Any, tmp_path: Path
) -> None:
    path = tmp_path / "x.tif"
    ends = {"tile": (16, 32), "compression": compression, **more}
    tifffile.imwrite(path, pixels(shape, np.uint16), **ends)
    stored = open_stored(path)
    assert stored is not None
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(
        whole,
        pixels(shape, np.uint16),
        **{key: more[key] for key in more if key not in ("tile", "volumetric")},
    )
    channels = stored.shape[-1]
    rows, plain = open_rows(path, channels), open_rows(whole, channels)
    assert plain.chunks is None
    require_boxes(rows, plain.read(0, plain.shape[0]))


def test_jpeg_tiles_of_a_slide_are_decoded_as_tifffile_does(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    image = np.kron(pixels((8, 8, 3)), np.ones((32, 32, 1), np.uint8))
    with tifffile.TiffWriter(path) as file:
        file.write(image, tile=(64, 64), photometric="rgb", compression="jpeg", subifds=1)
        file.write(image[::2, ::2], tile=(64, 64), photometric="rgb", compression="jpeg", subfiletype=1)
    rows = open_rows(path, 3)
    assert rows.chunks == (64, 64)
    require_boxes(rows, tifffile.imread(path))


@pytest.mark.parametrize("more", [{"photometric": "miniswhite"}, {"photometric": "palette"}])
def test_tiff_whose_values_are_no_intensities_is_read_whole(more: dict[str, Any], tmp_path: Path) -> None:
    if more["photometric"] == "palette":
        more = {**more, "colormap": pixels((3, 256), np.uint16)}
    image = pixels((64, 80))
    tifffile.imwrite(tmp_path / "x.tif", image, tile=(16, 16), **more)
    assert open_stored(tmp_path / "x.tif") is None
    assert open_rows(tmp_path / "x.tif", 1).shape == (64, 80, 1)


def test_what_is_read_is_what_a_box_needs(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    zarr.create_array(store=path, data=pixels((80, 80)), chunks=(20, 20))
    for chunk in path.glob("c/*/*"):
        if (chunk.parent.name, chunk.name) != ("1", "2"):
            chunk.write_bytes(b"no zstd")
    rows = open_rows(path, 1)
    assert rows.box((slice(20, 40), slice(40, 60))).shape == (20, 20, 1)
    with pytest.raises(InputError, match="cannot be read as zarr"):
        rows.box((slice(20, 41), slice(40, 60)))


def test_a_broken_tile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, pixels((64, 64)), tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[5]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\\0" * 20)
    with pytest.raises(InputError, match=r"x.tif cannot be read as TIFF"):
        open_rows(path, 1).box((slice(0, 64), slice(0, 64)))
