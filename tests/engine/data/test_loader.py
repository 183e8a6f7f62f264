"""The loader: which windows an epoch visits, and that reading ahead changes nothing."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.loader import Loader, ahead, deal
from engine.data.specs import Data
from engine.data.store import Sample, Store, fill
from engine.ranks import Ranks

CPU = torch.device("cpu")
MIXED = [(16, 16), (40, 72), (33, 41), (7, 100), (64, 64)]


def stored(shapes: list[tuple[int, int]], patch: tuple[int, int] = (16, 16), **more) -> Store:
    """Images whose every pixel says which image it is of."""
    samples = [
        Sample(str(n), np.full((*shape, 1), n, np.uint8), np.ones(shape, np.uint8), None)
        for n, shape in enumerate(shapes)
    ]
    return fill(samples, 1, Data(patch=patch, normalization="unit"), **{"cache": None, **more})


def loader(shapes=MIXED, *, size=(16, 16), batch=4, limit=None, seed=0, **more) -> Loader:
    return Loader(stored(shapes, size, **more), size, batch, limit, seed, CPU)


def visited(load: Loader, epoch: int) -> list[tuple[int, int, int]]:
    """Image and corner of each window of an epoch, in order."""
    frames = list(load.epoch(epoch))
    return [
        (int(i), *map(int, c)) for f in frames for i, c in zip(f.window.ids, f.window.corner, strict=True)
    ]


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (24, 8)])
@pytest.mark.parametrize("limit", [None, 1, 3])
def test_windows_lie_apart_inside_their_frames_and_cover_all_images(size, limit):
    load = loader(size=size, limit=limit)
    shapes = load.store.shapes.tolist()
    for epoch in range(1, 30):
        counts = [np.zeros(shape, int) for shape in shapes]
        windows = visited(load, epoch)
        for number, y, x in windows:
            assert x % 8 == 0
            assert min(y, x) >= 0
            for first, length, extent in zip((y, x), size, shapes[number], strict=True):
                assert first + length <= extent or (first == 0 and length > extent)
            counts[number][y : y + size[0], x : x + size[1]] += 1
        assert max(count.max() for count in counts) == 1  # no pixel is visited twice
        # An image smaller than a window is one window.
        fitting = [max(1, h // size[0]) * max(1, w // size[1]) for h, w in shapes]
        wanted = [min(n, limit or n) for n in fitting]
        assert [sum(number == n for n, _, _ in windows) for number in range(len(shapes))] == wanted
        assert len(windows) == load.windows == sum(wanted)


@pytest.mark.parametrize(("batch", "sizes"), [(4, [4, 4, 3]), (11, [11]), (16, [11]), (1, [1] * 11)])
def test_the_last_short_batch_is_kept(batch, sizes):
    load = loader([(16, 16)] * 11, batch=batch)
    assert [len(frames.image) for frames in load.epoch(1)] == sizes
    assert load.steps == len(sizes)
    assert sorted(number for number, _, _ in visited(load, 1)) == list(range(11))


def test_windows_show_their_image():
    load = loader(batch=3)
    values = load.store.scale[:, 0] * torch.arange(len(MIXED)) + load.store.shift[:, 0]
    for frames in load.epoch(1):
        inside = torch.ones_like(frames.truth) if frames.valid is None else frames.valid
        assert torch.equal(frames.truth, inside)
        image = values[frames.window.ids].view(-1, 1, 1, 1).expand(frames.image.shape)
        assert torch.equal(frames.image, image)


def test_an_epoch_depends_on_seed_and_number_alone():
    one, two = loader(limit=2, seed=5), loader(limit=2, seed=5)
    visited(one, 1)
    assert visited(one, 3) == visited(two, 3)
    assert visited(one, 3) != visited(one, 4)
    assert visited(one, 3) != visited(loader(limit=2, seed=6), 3)
    # Not the order alone: other places, and with a limit others of them.
    assert sorted(visited(one, 3)) != sorted(visited(one, 4))
    assert sorted(visited(loader(limit=2, seed=5, batch=7), 3)) == sorted(visited(two, 3))


def test_each_slot_gives_a_window_to_each_step_in_another_order_each_time():
    load = loader([(16, 16)] * 22, batch=4)
    orders = []
    for epoch in (1, 2):
        batches = [frames.window.ids.tolist() for frames in load.epoch(epoch)]
        assert [sorted(number % 4 for number in batch) for batch in batches] == [[0, 1, 2, 3]] * 5 + [[0, 1]]
        orders.append(batches)
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9))
def test_steps_are_full_and_no_slot_is_passed_over(held: list[int]) -> None:
    batch, total = len(held), sum(held)
    steps = deal(np.array(held), batch)
    assert steps.sum(axis=0).tolist() == held
    assert steps.sum(axis=1).tolist() == [min(batch, total - first) for first in range(0, total, batch)]
    left = np.array(held)
    for taken in steps:
        assert (taken[left > 0] >= 1).all()
        left = left - taken


def part(store: Store, ranks: Ranks) -> Store:
    """The images of a process, of those of :func:`stored`."""
    shapes = ranks.own(store.extents.tolist())
    numbers = ranks.own(range(len(store)))
    samples = [
        Sample(str(n), np.full((*shape, 1), n, np.uint8), np.ones(shape, np.uint8), None)
        for n, shape in zip(numbers, shapes, strict=True)
    ]
    return fill(samples, 1, Data(patch=(16, 16), normalization="unit"), None)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("limit", "share"), [(None, 0.0), (3, 0.5)])
def test_processes_have_parts_of_the_batches_that_one_process_has(size, limit, share):
    store = stored([*MIXED, (90, 90)])
    whole = Loader(store, (16, 16), 4, limit, 3, CPU, share)
    each = []
    for rank in range(size):
        ranks = Ranks(rank, size)
        load = replace(whole, store=part(store, ranks), ranks=ranks, shapes=store.shapes)
        assert (load.steps, load.windows, load.revisits) == (whole.steps, whole.windows, whole.revisits)
        assert torch.equal(load.batches, whole.batches)
        each.append([
            [(int(ranks.numbers(i)), *c.tolist(), int(v)) for i, c, v in
             zip(f.window.ids, f.window.corner, f.visits, strict=True)]
            for f in load.epoch(2)
        ])  # fmt: skip
    for step, (frames, *parts) in enumerate(zip(whole.epoch(2), *each, strict=True)):
        expected = [
            (int(i), *c.tolist(), int(v))
            for i, c, v in zip(frames.window.ids, frames.window.corner, frames.visits, strict=True)
        ]
        assert sorted(expected) == sorted(one for mine in parts for one in mine)
        assert len(expected) == int(whole.batches[step])


def test_a_step_without_an_image_of_this_process_gives_no_window():
    store = stored([(16, 16)] * 5)
    ranks = Ranks(1, 2)
    load = Loader(part(store, ranks), (16, 16), 4, None, 0, CPU, 0.0, ranks, store.shapes)
    first, second = load.epoch(1)
    assert (len(first.image), len(second.image)) == (2, 0)
    assert second.image.shape == (0, 1, 16, 16)
    assert second.truth.shape == (0, 1, 16, 16)


def test_visits_tell_the_crops_of_an_image_apart():
    for limit in (None, 2):
        frames = list(loader(limit=limit).epoch(1))
        pairs = [pair for f in frames for pair in zip(f.window.ids.tolist(), f.visits.tolist(), strict=True)]
        assert len(set(pairs)) == len(pairs)


def test_a_limit_takes_every_part_of_an_image_in_turn():
    load = loader([(32, 32)], limit=1)
    assert {window for epoch in range(1, 60) for window in visited(load, epoch)} == {
        (0, y, x) for y in (0, 16) for x in (0, 16)
    }


def test_all_borders_are_seen_as_often_as_each_other_and_often_enough():
    load = loader([(40, 40)])
    seen = np.zeros((40, 40))
    for epoch in range(1, 300):
        for _, y, x in visited(load, epoch):
            seen[y : y + 16, x : x + 16] += 1
    assert seen[20, 20] == 299
    top, bottom, left, right = (edge.mean() / 299 for edge in (seen[0], seen[-1], seen[:, 0], seen[:, -1]))
    assert top == pytest.approx(bottom, abs=0.08)
    assert left == pytest.approx(right, abs=0.08)
    assert min(top, bottom, left, right) > 0.15  # 0.09 if a grid's place were uniform


@pytest.mark.parametrize(
    ("shapes", "limit", "revisits"),
    [([(16, 16), (31, 16)], None, False), (MIXED, None, True), (MIXED, 1, False), (MIXED, 2, True)],
)
def test_says_whether_an_image_is_visited_more_than_once(shapes, limit, revisits):
    assert loader(shapes, limit=limit).revisits == revisits


def test_whole_frames_of_resized_images():
    samples = [
        Sample(str(n), np.zeros((20, 30, 1), np.uint8), np.ones((20, 30), np.uint8), None) for n in (0, 1)
    ]
    data = Data(size=(12, 20))
    load = Loader(fill(samples, 1, data, None), data.window(), 2, None, 0, CPU)
    (frames,) = load.epoch(1)
    assert frames.image.shape == (2, 1, 12, 24)
    assert frames.valid[..., :20].all()
    assert not frames.valid[..., 20:].any()


def test_reading_from_a_file_gives_the_same(tmp_path):
    here, file = loader(batch=3), loader(batch=3, cache=tmp_path / "pixels", budget=0)
    assert file.store.mapped
    for a, b in zip(here.epoch(2), file.epoch(2), strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.truth, b.truth)
        assert torch.equal(a.window.corner, b.window.corner)
    assert not reading()


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_ahead_gives_the_same_items(count):
    assert list(ahead(iter(range(count)))) == list(range(count))
    assert not reading()


def test_ahead_prepares_items_while_others_are_used_but_not_too_many():
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    stream = ahead(items(), depth=3)
    assert next(stream) == 0
    for _ in range(200):
        if len(made) == 5:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 5  # the one in use, three that wait and one for which there is no room
    assert list(stream) == list(range(1, 20))


def test_ahead_passes_an_error_on_where_it_would_have_been():
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    stream = ahead(items())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert not reading()


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_ahead_stops_when_it_is_abandoned(taken):
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            ended.set()

    stream = ahead(endless())
    for _ in range(taken):
        next(stream)
    stream.close()
    assert not reading()
    assert ended.wait(5)


def test_ahead_stops_when_its_user_fails():
    def use() -> None:
        for _ in ahead(iter(range(1000))):
            raise KeyError("in the step")

    with pytest.raises(KeyError):
        use()
    assert not reading()


VOLUMES = [(9, 20, 30), (16, 16, 16), (5, 40, 17)]


@pytest.mark.parametrize("limit", [None, 2])
def test_windows_of_volumes_lie_apart_and_cover_them(limit):
    size = (4, 8, 16)
    load = loader(VOLUMES, size=size, limit=limit)
    shapes = load.store.shapes.tolist()
    for epoch in range(1, 12):
        counts = [np.zeros(shape, int) for shape in shapes]
        for frames in load.epoch(epoch):
            assert frames.image.shape[1:] == (1, *size)
            for number, corner in zip(frames.window.ids, frames.window.corner, strict=True):
                box = tuple(slice(int(a), int(a) + n) for a, n in zip(corner, size, strict=True))
                counts[number][box] += 1
        assert max(count.max() for count in counts) == 1
        fitting = [
            int(np.prod([max(1, a // n) for a, n in zip(shape, size, strict=True)])) for shape in shapes
        ]
        wanted = [min(n, limit or n) for n in fitting]
        assert [count.sum() // np.prod(size) for count in counts] == wanted


def rare(shape: tuple[int, ...], at: list[tuple[int, ...]]) -> Sample:
    labels = np.zeros(shape, np.uint8)
    for place in at:
        labels[place] = 1
    return Sample("rare", np.zeros((*shape, 1), np.uint8), labels, None)


@pytest.mark.parametrize(("share", "held"), [(0.0, 1 / 64), (0.5, 0.5), (1.0, 1.0)])
def test_crops_that_hold_a_class_come_as_often_as_asked(share, held):
    # Of 64 cells of the grid, which never moves, one holds the lesion in each image.
    samples = [rare((32, 32, 32), [(3, 9, 30)]), rare((32, 32, 32), [(31, 0, 0)])]
    store = fill(samples, 1, Data(patch=(8, 8, 8)), None)
    load = Loader(store, (8, 8, 8), 4, 1, 3, CPU, share)
    epochs = 200
    found = [
        bool(frames.truth[row].any())
        for epoch in range(1, epochs + 1)
        for frames in load.epoch(epoch)
        for row in range(len(frames.truth))
    ]
    assert len(found) == 2 * epochs
    deviation = (held * (1 - held) / len(found)) ** 0.5
    assert abs(np.mean(found) - held) <= 4 * deviation


def test_all_of_two_crops_are_taken_from_those_that_hold_a_class_and_no_more_than_there_are():
    at = [(0, 0), (0, 20), (20, 0)]
    store = fill([rare((24, 24), at), rare((24, 24), at[:1])], 1, Data(patch=(8, 8)), None)
    load = Loader(store, (8, 8), 4, 2, 0, CPU, 1.0)
    chosen = set()
    for epoch in range(1, 20):
        held = {0: 0, 1: 0}
        for frames in load.epoch(epoch):
            for number, corner, mask in zip(
                frames.window.ids.tolist(), frames.window.corner.tolist(), frames.truth, strict=True
            ):
                held[number] += bool(mask.any())
                chosen.add((number, *corner))
        assert held == {0: 2, 1: 1}
    assert len({corner for corner in chosen if corner[0] == 0}) == 3
    assert len({corner for corner in chosen if corner[0] == 1}) == 9


def test_a_share_of_crops_changes_nothing_where_all_are_taken():
    store = stored(MIXED)
    with_share, without = (Loader(store, (16, 16), 4, None, 0, CPU, share) for share in (1.0, 0.0))
    assert visited(with_share, 3) == visited(without, 3)
