"""What to annotate next: the list by hand, and rankings by real processes, also cancelled and failed."""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from runs import MadeRun, watched_item
from support import FAST, write_pair

from engine import suggestions_file
from engine.data import annotated
from engine.errors import InputError
from engine.suggestions_file import ORDERS, ImageEntry, PlaceEntry, Suggestions
from napari_smm import suggesting
from napari_smm.suggesting import (
    RankingState,
    checkpoint_epoch,
    display,
    following,
    rows,
    staleness,
    start,
    titles,
)

PATIENCE = 90.0
"""Seconds that a process may take to start on a busy machine."""


def suggestions(*names: str, run: str = "RUN", epoch: int = 3, checkpoint: str = "last") -> Suggestions:
    images = [
        ImageEntry(
            image=name, rank=rank, score=1 / rank, reason=f"reason {rank}",
            places=(PlaceEntry(box=((0, 4), (2, 6)), score=0.5, reason="there"),),
        )
        for rank, name in enumerate(names, start=1)
    ]  # fmt: skip
    return Suggestions(
        run=run,
        checkpoint=checkpoint,
        epoch=epoch,
        order="uncertain",
        time=datetime.now(UTC),
        images=tuple(images),
    )


def test_the_list_by_hand() -> None:
    found = suggestions("a.png", "gone.png", "b.png", "c.png")
    queue = rows(found, ["b.png", "c.png", "a.png", "d.png"], {"b.png": "done", "a.png": "started"})
    assert [(row.image, row.entry.rank, row.annotated) for row in queue] == [
        ("a.png", 1, False), ("b.png", 3, True), ("c.png", 4, False)
    ]  # fmt: skip
    assert [round(row.share, 2) for row in queue] == [1, 0.33, 0.25]
    assert queue[0].places[0].slices == (slice(0, 4), slice(2, 6))
    assert rows(None, ["a.png"], {}) == []
    level = found.model_copy(
        update={"images": tuple(each.model_copy(update={"score": 0.0}) for each in found.images)}
    )
    assert {row.share for row in rows(level, ["a.png", "b.png"], {})} == {0.0}


def test_the_next_of_the_list() -> None:
    queue = rows(suggestions("a", "b", "c", "d"), list("abcde"), {"b": "reviewed"})
    assert following(queue, "a") == "c"
    assert following(queue, "c") == "d"
    assert following(queue, "d") is None
    # From an image that is not in the list, and from none, to the top.
    assert following(queue, "e") == following(queue, None) == "a"
    assert following(queue, "c", -1) == "b"
    assert following(queue, "a", -1) is following(queue, "e", -1) is None
    assert following([], "a") is None


def test_an_order_that_is_no_longer_the_newest(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "first", [watched_item("a")]).train(2)
    assert checkpoint_epoch(made.root, "last") == 2
    assert checkpoint_epoch(made.root, "best") == 1
    assert checkpoint_epoch(tmp_path / "nothing", "last") == 0
    of = str(made.root)
    assert staleness(suggestions("a", run=of, epoch=2), made.root) == ""
    assert staleness(suggestions("a", run=of, epoch=1, checkpoint="best"), made.root) == ""
    made.epoch(3)
    assert staleness(suggestions("a", run=of, epoch=2), made.root) == (
        "This order is by epoch 2 of first, which has come to epoch 3."
    )
    made.end()
    second = MadeRun(tmp_path / "second", [watched_item("a")]).train(1).end().root
    assert staleness(suggestions("a", run=of, epoch=3), second) == "This order is by first; second is newer."
    assert staleness(suggestions("a", run=of, epoch=3), None) == ""


def test_the_orders_are_the_engines() -> None:
    found = titles()
    assert set(found) == set(ORDERS)
    assert next(iter(found)) == suggestions_file.DEFAULT
    assert "random" in found


def test_the_words() -> None:
    assert display(None).status == ""
    assert display(RankingState("starting")).status == "Starting…"
    running = display(RankingState("running", 2, 8))
    assert (running.status, running.done, running.can_stop) == ("▶ Looking at image 3 of 8", 0.25, True)
    assert not display(RankingState("cancelling")).can_stop
    failed = display(RankingState("failed", message="why"))
    assert (failed.status, failed.detail, failed.can_start) == ("✖ Failed", "why", True)


# Real processes


@pytest.fixture(scope="session")
def disc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 epochs on gray images of 32 × 32 px."""
    from engine import train  # by which torch is loaded, as nothing of the plugin does

    root = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    for number in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 9, 4:20] = 1
        write_pair(root / "data", f"g{number}", rng.integers(0, 90, (32, 32), np.uint8) + 120 * mask, mask)
    command = ["--data.root", str(root / "data"), "--out", str(root / "run"), "--training.epochs=2"]
    assert train.main([*command, *FAST]) == 0
    return root / "run"


def folder(root: Path, count: int = 4, side: int = 48) -> Path:
    rng = np.random.default_rng(1)
    root.mkdir()
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (side, side), np.uint8)).save(root / f"{number}.png")
    return root


def waited(for_what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := for_what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found
    return found


def ended(ranking: suggesting.Ranking) -> RankingState:
    waited(lambda: ranking.poll().ended)
    return ranking.poll()


@pytest.mark.usefixtures("quick")
def test_a_ranking(disc_run: Path, tmp_path: Path, home: Path) -> None:
    images = folder(tmp_path / "images")
    annotated.save(images, "2.png", np.zeros((48, 48), np.uint8), status="done")
    ranking = start(disc_run, images, "uncertain")
    assert ended(ranking) == RankingState("finished", 3, 3)
    found = suggestions_file.read(suggestions_file.path_of(images))
    assert found is not None
    assert sorted(row.image for row in rows(found, ["0.png", "1.png", "2.png", "3.png"], {})) == [
        "0.png", "1.png", "3.png"
    ]  # fmt: skip
    assert staleness(found, disc_run) == ""
    assert (found.run, found.order, found.epoch) == (str(disc_run), "uncertain", 2)
    assert list(home.iterdir()) == []  # nothing is left of the process


@pytest.mark.usefixtures("quick")
def test_a_ranking_that_cannot_be(disc_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="order"):
        start(disc_run, tmp_path, "no order")
    with pytest.raises(InputError, match="no run directory"):
        start(tmp_path / "nothing", tmp_path, "random")
    empty = tmp_path / "empty"
    empty.mkdir()
    state = ended(start(disc_run, empty, "random"))
    assert state.state == "failed"
    assert str(empty) in state.message
    assert not state.message.startswith("error")


def test_a_ranking_that_is_cancelled(disc_run: Path, tmp_path: Path, home: Path) -> None:
    images = folder(tmp_path / "images", count=8)
    annotated.write_classes(images, [annotated.AnnotationClass("nucleus", 1, "#e69f00")])
    path = suggestions_file.path_of(images)
    suggestions_file.write(path, suggestions("0.png"))
    before = json.loads(path.read_text("utf-8"))
    ranking = start(disc_run, images, "uncertain")
    ranking.cancel()
    assert ranking.poll().state in ("cancelling", "cancelled")
    assert ended(ranking).state == "cancelled"
    assert json.loads(path.read_text("utf-8")) == before
    # One that is killed says so, and one that is closed leaves nothing.
    ranking = start(disc_run, images, "uncertain")
    os.kill(ranking._popen.pid, signal.SIGKILL)
    assert "was killed by signal 9; it said nothing" in ended(ranking).message
    ranking = start(disc_run, images, "uncertain")
    ranking.close()
    assert not psutil.pid_exists(ranking._popen.pid)
    assert list(home.iterdir()) == []
