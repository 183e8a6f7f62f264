"""Where watched crops of volumes lie in the world."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from engine.data.decode import Head
from engine.record import WatchedItem, allocate
from engine.watch import _affine

AFFINE = np.array([[0.1, 0.2, -0.5, 30.0], [0.0, 1.0, 0.1, -20.0], [2.0, 0.0, 0.05, 8.0], [0, 0, 0, 1]])
SPACING = (2.0, 1.0, 0.5)


def head(affine: np.ndarray | None = AFFINE, dims: int = 3) -> Head:
    return Head((8, 10, 12)[3 - dims :], 1, dims, np.dtype(np.float32), SPACING[3 - dims :], affine)


def test_a_crop_of_a_volume_lies_where_its_voxels_were() -> None:
    made = _affine(head(), SPACING, (3, 0, 4))
    assert made is not None
    for index in ((0, 0, 0), (2, 5, 1)):
        whole = np.add(index, (3, 0, 4))
        np.testing.assert_allclose(made @ (*index, 1), AFFINE @ (*whole, 1), rtol=1e-12)


def test_a_resampled_volume_covers_the_same_part_of_the_world() -> None:
    made = _affine(head(), (1.0, 2.0, 0.5), (0, 0, 0))
    assert made is not None
    # The first corner of the first voxel, and the last of 16 × 5 × 12 voxels that were 8 × 10 × 12.
    for corner, own in (((-0.5,) * 3, (-0.5,) * 3), ((15.5, 4.5, 11.5), (7.5, 9.5, 11.5))):
        np.testing.assert_allclose(made @ (*corner, 1), AFFINE @ (*own, 1), rtol=1e-12)


def test_of_an_image_z_is_0() -> None:
    made = _affine(head(dims=2), (1.0, 1.0), (2, 3))
    assert made is not None
    np.testing.assert_allclose(made @ (0, 1, 1, 1), AFFINE @ (0, 3, 4, 1), rtol=1e-12)


def test_what_no_file_says_is_not_written(tmp_path: Path) -> None:
    assert _affine(head(None), SPACING, (0, 0, 0)) is None
    shape = (4, 6, 8)
    for name, affine in (("without", None), ("with", AFFINE)):
        item = WatchedItem(
            "v", "val", np.zeros((*shape, 1)), np.ones((1, *shape), bool), np.ones(shape, bool), (0,) * 3,
            SPACING, affine,
        )  # fmt: skip
        allocate(tmp_path / name, item, 2)
    assert "affine" not in zarr.open_group(tmp_path / "without").attrs
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "with").attrs["affine"], AFFINE)
    assert list(zarr.open_group(tmp_path / "with").attrs["scale"]) == pytest.approx(SPACING)
