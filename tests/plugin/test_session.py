"""Sessions: what is watched, and the view of it. Ticked by hand instead of by a clock."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import MadeRun, watched_item

from engine import metrics
from engine.errors import InputError
from engine.thresholds.curves import rates
from napari_smm.feed import Snapshot
from napari_smm.layers import View
from napari_smm.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[MadeRun]:
    items = [watched_item("a", classes=2), watched_item("b", classes=2), watched_item("c", "val", (9, 8), 2)]
    made = MadeRun(tmp_path / "run", items, epochs=6, classes=("core", "ring")).train(3)
    yield made
    made.writer.release()


def until(session: Session, condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        session.tick(time.monotonic())
        time.sleep(0.005)


def ready(session: Session) -> Snapshot:
    until(session, lambda: session.snapshot)
    assert session.snapshot is not None
    return session.snapshot


def test_watching_gives_the_past_and_then_each_epoch(session: Session, run: MadeRun) -> None:
    seen: list[int] = []
    session.updated.connect(lambda snapshot: seen.append(snapshot.run.epochs))
    session.watch(run.root)
    ready(session)
    assert session.epoch == 3
    run.epoch(4)
    until(session, lambda: session.epoch == 4)
    assert seen[0] == 3
    assert seen == sorted(seen)


def test_counts_are_those_of_the_engine(session: Session, run: MadeRun) -> None:
    session.watch(run.root)
    ready(session)
    session.set_view(cls=1)
    session.show_epoch(2)
    until(session, lambda: session.snapshot.epoch == 2 and session.snapshot.view.cls == 1)
    curves = session.snapshot.curves
    assert set(curves) == {0, 1}  # the other training image, and not the validation image
    for number, curve in curves.items():
        p = torch.from_numpy(run.probability[number][1, 1:2].astype(np.float32))[None]
        truth = torch.from_numpy(run.items[number].truth[1:2])[None]
        for threshold in (0.1, 0.5, 0.93):
            counts = metrics.confusion(p >= threshold, truth)
            found = rates(curve.counts(threshold))
            assert found.dice == pytest.approx(float(metrics.dice(counts)), nan_ok=True)
            assert found.recall == pytest.approx(float(metrics.recall(counts)), nan_ok=True)


def test_following_ends_where_the_user_looks_back(session: Session, run: MadeRun) -> None:
    session.watch(run.root)
    ready(session)
    session.step_epoch(-1)
    assert (session.epoch, session.view.follow) == (2, False)
    run.epoch(4)
    until(session, lambda: session.snapshot.run.epochs == 4)
    assert session.epoch == 2
    session.show_epoch(99)
    assert (session.epoch, session.view.follow) == (4, True)
    run.epoch(5)
    until(session, lambda: session.epoch == 5)


def test_images_go_round(session: Session, run: MadeRun) -> None:
    session.step_item(1)
    assert session.view.item == 0  # nothing is watched yet
    session.watch(run.root)
    ready(session)
    session.step_item(-1)
    assert session.view.item == 2
    until(session, lambda: session.snapshot.view.item == 2)
    assert session.snapshot.item.name == "c"
    assert set(session.snapshot.curves) == {2}
    session.step_item(1)
    assert session.view.item == 0


def test_a_moved_threshold_reads_nothing(session: Session, run: MadeRun) -> None:
    session.watch(run.root)
    ready(session)
    seen: list[View] = []
    session.viewed.connect(seen.append)
    session.set_threshold(0.25)
    session.set_threshold(0.25)
    assert [view.threshold for view in seen] == [0.25]
    assert not session._asked_anew()


def test_what_cannot_be_read_is_said_and_tried_again(session: Session, run: MadeRun) -> None:
    identity = (run.root / "run.json").read_text()
    (run.root / "run.json").write_text('{"format": 99}')
    said: list[str] = []
    session.failed.connect(said.append)
    session.watch(run.root)
    until(session, lambda: said)
    assert "has format 99" in said[0]
    (run.root / "run.json").write_text(identity)
    ready(session)


def test_another_run_replaces_the_first(session: Session, run: MadeRun, tmp_path: Path) -> None:
    other = MadeRun(tmp_path / "other", [watched_item("z")]).train(1).end()
    roots: list[Path | None] = []
    session.watched.connect(roots.append)
    session.watch(run.root)
    session.set_threshold(0.9)
    session.watch(other.root)
    assert session.snapshot is None
    assert session.view == View()
    assert ready(session).item.name == "z"
    session.leave()
    assert roots == [run.root, other.root, None]


def test_a_missing_run_leaves_the_watched_one(session: Session, run: MadeRun, tmp_path: Path) -> None:
    session.watch(run.root)
    with pytest.raises(InputError, match="there is no run directory"):
        session.watch(tmp_path / "none")
    assert session.root == run.root


def test_a_resumed_run_is_read_anew(session: Session, run: MadeRun) -> None:
    session.watch(run.root)
    before = ready(session).run.frames.probability(0, 3)
    run.end("stopped", reason="stop file")
    again = MadeRun(run.root, run.items, epochs=6, classes=run.classes, resumed_after=2)
    again.probability = [1 - p for p in run.probability]
    again.epoch(3)
    until(session, lambda: session.snapshot.run.generation == 1 and session.snapshot.state.alive)
    np.testing.assert_allclose(session.snapshot.run.frames.probability(0, 3), 1 - before, atol=1e-3)
    again.writer.release()


def test_closing_ends_the_threads(run: MadeRun) -> None:
    import threading

    before = threading.active_count()
    session = Session()
    session.watch(run.root)
    ready(session)
    assert session.run(lambda: 7).result() == 7
    assert threading.active_count() > before
    session.close()
    assert threading.active_count() == before
