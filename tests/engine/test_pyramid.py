"""The arrays of a prediction: an OME-Zarr image whose smaller copies grow with the largest."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import tiles
from engine.data.rows import open_rows
from engine.streamed import pyramid as module
from engine.streamed.pyramid import Pyramid, halved, smaller
from engine.tiles import boxes


def small_units(patch: pytest.MonkeyPatch, longest: int = 100, unit: int = 32) -> None:
    """Arrays of tests count as long."""
    patch.setattr(tiles, "UNITS", {2: unit, 3: unit // 2})
    patch.setattr(module, "LONGEST", {2: longest, 3: longest // 2})
    patch.setattr(module, "LEAST", 8)


def by_hand(p: Any, shape: tuple[int, ...]) -> Any:
    """Means over what there is, pixel by pixel."""
    factors = [1 if a == b else 2 for a, b in zip(p.shape[1:], shape, strict=True)]
    found = np.empty((len(p), *shape))
    for index in np.ndindex(shape):
        box = tuple(slice(f * i, f * i + f) for f, i in zip(factors, index, strict=True))
        found[(slice(None), *index)] = p[(slice(None), *box)].reshape(len(p), -1).mean(1, dtype=np.float64)
    return found


@pytest.mark.parametrize("order", ["down", "up", "by chance"])
@pytest.mark.parametrize("shape", [(333, 151), (150, 401), (70, 60, 75), (7, 40, 130)])
def test_smaller_copies_are_means_in_whatever_order_rows_come(
    order: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_units(monkeypatch)
    made = Pyramid.of(tmp_path, 2, shape, None)
    made.create()
    p = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    for box in boxes(shape):
        made.write(box, p[(slice(None), *box)])
    rows = list(range(made.rows()))
    order_of = {"down": rows, "up": rows[::-1], "by chance": list(np.random.default_rng(1).permutation(rows))}
    done: set[int] = set()
    for row in order_of[order]:
        done.add(int(row))
        made.follow(done, int(row), lambda: None)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "probability")[:], p)
    assert len(made.shapes) > 1
    for name, size in zip(made.names[1:], made.shapes[1:], strict=True):
        array = zarr.open_array(tmp_path / name)
        assert array.shape == (2, *size)
        p, above = array[:], p
        np.testing.assert_allclose(p, by_hand(above, size), rtol=0, atol=1e-6)


def test_copies_are_written_as_soon_as_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_units(monkeypatch, longest=60)
    made = Pyramid.of(tmp_path, 1, (200, 100), None)
    made.create()
    for box in boxes((200, 100)):
        made.write(box, np.ones((1, *tiles.extents(box)), np.float32))
    seen = []
    for row in range(made.rows()):
        made.follow(set(range(row + 1)), row, lambda: None)
        seen.append([int(zarr.open_array(tmp_path / name)[0, :, 0].sum()) for name in made.names[1:]])
    assert made.shapes == ((200, 100), (100, 50), (50, 25))
    # Rows of 32: one of the next is there with every second one, and the last with the last.
    assert seen == [[0, 0], [32, 0], [32, 0], [64, 32], [64, 32], [96, 32], [100, 50]]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_halves_are_means(shape: list[int], along: list[bool]) -> None:
    p = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    wanted = tuple(along[: len(shape)])
    half = halved(p, wanted)
    size = tuple(math.ceil(n / 2) if half else n for n, half in zip(shape, wanted, strict=True))
    assert half.shape == (2, *size)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, by_hand(p, size), rtol=0, atol=1e-6)


def test_short_axes_stay() -> None:
    assert smaller((5000, 301)) == (2500, 151)
    assert smaller((64, 65, 1)) == (64, 33, 1)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((300, 20), None), ((300, 120), (0.5, 0.25)), ((9, 80, 150), (3.0, 0.5, 0.75))]
)
def test_ome_zarr_says_where_the_pixels_are(
    shape: tuple[int, ...], spacing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_units(monkeypatch)
    made = Pyramid.of(tmp_path / "p.zarr", 2, shape, spacing)
    made.create()
    ome: Any = zarr.open_group(tmp_path / "p.zarr", mode="r").attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    names = "zyx"[-len(shape) :]
    unit = {} if spacing is None else {"unit": "millimeter"}
    space = [{"name": name, "type": "space", **unit} for name in names]
    assert image["axes"] == [{"name": "c", "type": "channel"}, *space]
    assert [each["path"] for each in image["datasets"]] == made.names
    steps = np.array(spacing or (1.0,) * len(shape))
    for level, each in enumerate(image["datasets"]):
        scale, move = each["coordinateTransformations"]
        assert (scale["type"], move["type"]) == ("scale", "translation")
        # The first pixel's own edge is where that of the largest is, at -half a pixel.
        edge = np.array(move["translation"][1:]) - np.array(scale["scale"][1:]) / 2
        np.testing.assert_allclose(edge, -steps / 2)
        size = np.array(made.shapes[level])
        assert (np.ceil(np.array(shape) * steps / scale["scale"][1:]) == size).all()
        assert (scale["scale"][0], move["translation"][0]) == (1, 0)
    # It is an image that the engine itself reads.
    rows = open_rows(tmp_path / "p.zarr", 2)
    assert (rows.shape, rows.spacing) == ((*shape, 2), spacing)
