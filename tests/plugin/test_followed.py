"""A run that took masks up: the layers of each epoch show the truth that it had, and images that joined."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from runs import MadeRun, epoch_event, probabilities, watched_item

from engine.data.journal import took_up
from engine.record import RunReader
from napari_smm.decisions import run_masks, run_spaces
from napari_smm.feed import Feed
from napari_smm.frames import Frames, open_items
from napari_smm.layers import ABOVE, BELOW, THRESHOLDED, TRUTH, LayerSpec, View, layers
from napari_smm.status import display
from napari_smm.watch import RunWatcher


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "run", [watched_item("a"), watched_item("b", "val")], epochs=6).train(2)


def other_truth(run: MadeRun) -> np.ndarray:
    return np.roll(run.items[0].truth, 6, axis=2)


def correct(run: MadeRun, epoch: int) -> np.ndarray:
    """The first image has another mask from an epoch on, of which a part counts nowhere."""
    truth = other_truth(run)
    valid = np.ones(truth.shape[1:], np.bool_)
    valid[:, 28:] = False
    run.writer.write_truth(0, epoch, replace(run.items[0], truth=truth & valid, valid=valid))
    run.writer.event("followed", epoch=epoch, images=[{"name": "a", "split": "train", "new": False}])
    return truth & valid


def join(run: MadeRun, epoch: int) -> None:
    """An image joins from an epoch on, in which the run goes on to write it too."""
    item = watched_item("new", size=(10, 12), first=epoch)
    run.writer.watch([item], run.epochs)
    run.items = (*run.items, item)
    run.probability.append(probabilities(run.epochs, 1, (10, 12), 9))
    run.modulated.append(np.repeat(item.truth[None], run.epochs, axis=0))
    run.writer.event("followed", epoch=epoch, images=[{"name": "new", "split": "train", "new": True}])


def specs(feed: Feed, view: View | None = None) -> dict[str, LayerSpec]:
    return {spec.role: spec for spec in feed.snapshot(view or View()).layers}


def test_the_layers_show_another_truth_an_epoch_later(run: MadeRun) -> None:
    feed = Feed(run.root)
    before = specs(feed)
    np.testing.assert_array_equal(before["truth"].data, run.items[0].truth[0])
    truth = correct(run, 3)
    np.testing.assert_array_equal(specs(feed)["truth"].data, run.items[0].truth[0])  # epoch 3 is yet to come
    run.epoch(3)
    after = specs(feed)
    assert after["truth"].key != before["truth"].key
    np.testing.assert_array_equal(after["truth"].data, truth[0])
    p = run.probability[0][:3, 0].astype(np.float32)
    for epoch, right in ((1, run.items[0].truth), (2, run.items[0].truth), (3, truth)):
        shown = {role: np.asarray(after[role].data[epoch - 1]) for role in THRESHOLDED}
        valid = np.ones((24, 32), np.bool_) if epoch < 3 else np.arange(32) < np.full((24, 1), 28)
        passed = p[epoch - 1] >= 0.5
        np.testing.assert_array_equal(shown["prediction"] >= 0.5, passed & valid)
        np.testing.assert_array_equal(shown["false positives"] >= 0.5, passed & valid & ~right[0])
        np.testing.assert_array_equal(shown["false negatives"] < 0.5, ~passed & valid & right[0])
        modulated = np.asarray(after["modulated mask"].data[epoch - 1])
        np.testing.assert_array_equal(modulated == TRUTH, run.modulated[0][epoch - 1, 0] & right[0])


def test_going_back_shows_the_truth_of_then(run: MadeRun) -> None:
    truth = correct(run, 3)
    run.epoch(3)
    run.epoch(4)
    feed = Feed(run.root)  # opened late
    for epoch, right in ((2, run.items[0].truth[0]), (3, truth[0]), (4, truth[0])):
        found = specs(feed, View(epoch=epoch, follow=False))
        np.testing.assert_array_equal(found["truth"].data, right)
    for epoch, right in ((2, run.items[0].truth[0]), (3, truth[0])):
        counted = feed.snapshot(View(epoch=epoch, follow=False)).curves[0].counts(0.5)
        valid = np.arange(32) < (32 if epoch < 3 else 28)
        passed = (run.probability[0][epoch - 1, 0] >= 0.5) & valid
        assert (counted.tp, counted.fp, counted.fn) == (
            (passed & right).sum(), (passed & ~right).sum(), (~passed & right).sum()
        )  # fmt: skip


def test_the_dock_says_what_was_taken_up(run: MadeRun) -> None:
    correct(run, 3)
    run.epoch(3)
    assert display(RunWatcher(run.root).poll()).detail == "Epoch 3 took up 1 mask (a)."
    run.end()
    assert display(RunWatcher(run.root).poll()).detail == ""
    assert took_up(list("abcdefg")) == "took up 7 masks (a, b, c, d, e and 2 more)"


def test_an_image_that_joins_appears_and_is_empty_before(run: MadeRun) -> None:
    feed = Feed(run.root)
    assert [item.name for item in feed.snapshot(View()).run.items] == ["a", "b"]
    join(run, 3)
    run.epoch(3)
    snapshot = feed.snapshot(View(item=2))
    assert [(item.name, item.first) for item in snapshot.run.items] == [("a", 1), ("b", 1), ("new", 3)]
    found = {spec.role: spec for spec in snapshot.layers}
    np.testing.assert_array_equal(found["truth"].data, run.items[2].truth[0])
    p = np.asarray(found["prediction"].data)
    assert (p[:2] == BELOW).all()
    np.testing.assert_array_equal(p[2], run.probability[2][2, 0].astype(np.float32))
    assert (np.asarray(found["false negatives"].data)[:2] == ABOVE).all()
    assert not np.asarray(found["modulated mask"].data)[:2].any()
    assert set(snapshot.curves) == {0, 2}
    early = feed.snapshot(View(item=0, epoch=2, follow=False))
    assert set(early.curves) == {0}
    assert feed.snapshot(View(item=2, epoch=2, follow=False)).curves == {}
    assert [name for name, _ in run_masks(early.run, View(), 2)] == ["a_mask", "b_mask"]
    named = run_masks(snapshot.run, View(), 3, own=True)
    assert list(run_spaces(snapshot.run, named)) == [name for name, _ in named]


def test_what_was_read_before_is_not_read_again(run: MadeRun) -> None:
    feed = Feed(run.root)
    first = feed.snapshot(View()).run
    correct(run, 3)
    join(run, 3)
    run.epoch(3)
    later = feed.snapshot(View()).run
    assert later.items[0].image is first.items[0].image
    assert later.frames is first.frames


def test_a_resumed_run_forgets_what_it_had_not_finished(run: MadeRun) -> None:
    run.epoch(3)
    correct(run, 4)
    join(run, 4)
    feed = Feed(run.root)
    assert len(feed.snapshot(View()).run.items) == 3
    run.crash()
    items = run.items[:2]
    again = MadeRun(run.root, (), epochs=6, resumed_after=3)
    again.writer.forget_after(3)
    again.writer.watch(items, 6)
    again.writer.event("epoch", **epoch_event(4, 6))
    snapshot = feed.snapshot(View())
    assert [item.name for item in snapshot.run.items] == ["a", "b"]
    found = {spec.role: spec for spec in layers(snapshot.run, View())}
    np.testing.assert_array_equal(found["truth"].data, run.items[0].truth[0])
    again.writer.release()


def test_a_reader_that_knows_no_versions_still_opens_the_run(run: MadeRun) -> None:
    correct(run, 3)
    run.epoch(3)
    (group, _) = RunReader(run.root).watched()
    assert isinstance(group["truth"], zarr.Array)
    np.testing.assert_array_equal(group["truth"], run.items[0].truth)
    assert group["probability"].shape == (6, 1, 24, 32)


def test_frames_of_versions_are_kept_and_cannot_be_written_to(run: MadeRun) -> None:
    correct(run, 3)
    frames = Frames(open_items(run.root))
    assert frames.truth(0, 2) is frames.items[0].truth
    assert frames.truth(0, 3) is frames.truth(0, 5)
    with pytest.raises(ValueError, match="read-only"):
        frames.valid(0, 4)[:] = False
