"""Watched images and their arrays, against what was written."""

from pathlib import Path

import numpy as np
import pytest
from runs import MadeRun, watched_item

from napari_smm.frames import Frames, open_items


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    items = [watched_item("a"), watched_item("b", "val", (10, 12), origin=(3, 4), scale=(2.0, 1.5))]
    return MadeRun(tmp_path / "run", items, epochs=3).train().end()


def test_items_are_what_the_trainer_kept(run: MadeRun) -> None:
    items = open_items(run.root)
    assert [(item.number, item.name, item.split) for item in items] == [(0, "a", "train"), (1, "b", "val")]
    for item, kept in zip(items, run.items, strict=True):
        np.testing.assert_array_equal(item.image, kept.image)
        np.testing.assert_array_equal(item.truth, kept.truth)
    assert items[1].offset == (6.0, 6.0)
    assert items[1].shape == (10, 12)


def test_a_run_of_before_scales_has_pixels_of_the_file(run: MadeRun) -> None:
    import zarr

    group = zarr.open_group(run.root / "watched" / "01", mode="r+")
    del group.attrs["scale"]
    assert open_items(run.root)[1].scale == (1.0, 1.0)


def test_frames_are_what_was_written(run: MadeRun) -> None:
    frames = Frames(open_items(run.root))
    for item in (0, 1):
        for epoch in (1, 2, 3):
            p = frames.probability(item, epoch)
            assert p.dtype == np.float32
            np.testing.assert_array_equal(p, run.probability[item][epoch - 1].astype(np.float32))
            np.testing.assert_array_equal(frames.modulated(item, epoch), run.modulated[item][epoch - 1])


def test_frames_cannot_be_written_to(run: MadeRun) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Frames(open_items(run.root)).probability(0, 1)[:] = 0


def test_memory_is_bounded_and_the_newest_use_is_kept(run: MadeRun) -> None:
    items = open_items(run.root)
    one = items[0].valid.size * 4
    frames = Frames(items, kept=2 * one)
    first = frames.probability(0, 1)
    frames.probability(0, 2)
    assert frames.probability(0, 1) is first
    frames.probability(0, 3)
    assert frames.probability(0, 1) is first
    assert not frames.has(0, 2)


def test_what_was_run_again_is_read_again(run: MadeRun) -> None:
    frames = Frames(open_items(run.root))
    before = frames.probability(0, 1)
    frames.forget()
    assert frames.probability(0, 1) is not before
