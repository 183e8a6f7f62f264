"""The list of runs without its window."""

import json
import shutil
import socket
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import tomli_w
from runs import MadeRun

from engine.record import FORMAT
from napari_smm import launch
from napari_smm.launch import RunEntry
from napari_smm.reattach import newest_living
from napari_smm.run_list import Row, RunFinder, best_epoch, cells, is_run, status_words

ZONE = timezone(timedelta(hours=2))


def begun(path: Path, day: int = 1, how: str = "finished", **given: object) -> Path:
    """A run of 2 of 4 epochs that began on a day of May 2026 and ended somehow."""
    run = MadeRun(path, [], epochs=4).train(2)
    settings = {"training": {"epochs": 4}, "data": {"root": "/data/eyes"}, "modulation": {"name": "smm_v1"}}
    run.writer.write_text("config.toml", tomli_w.dumps(settings))
    if how == "crashed":
        run.crash()
    elif how == "running":
        pass
    else:
        run.end(how, **given)
    date_events(path, day)
    return path


def date_events(path: Path, day: int) -> None:
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    lines[0]["time"] = f"2026-05-{day:02d}T10:00:00.000+00:00"
    (path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_runs_come_newest_first_each_once_from_everywhere(home: Path, tmp_path: Path) -> None:
    own = begun(home / "runs" / "own", 2)
    kept = begun(tmp_path / "server" / "eyes" / "kept", 3)
    watched = begun(tmp_path / "elsewhere" / "watched", 1)
    beside = begun(tmp_path / "elsewhere" / "beside", 4)
    launch.remember(tmp_path / "server")
    (tmp_path / "alias").symlink_to(watched)
    found = RunFinder().look(watched=tmp_path / "elsewhere" / "watched")
    assert [row.path for row in found.rows] == [beside, kept, own, watched]
    assert [row.watched for row in found.rows] == [False, False, False, True]
    assert [row.folder for row in found.rows] == [None, tmp_path / "server", None, None]
    assert found.looked_in == (home / "runs", tmp_path / "server", watched.parent)
    assert found.problem == ""
    assert found.details is None
    through_a_link = RunFinder().look(watched=tmp_path / "alias").rows
    assert [row.path.resolve() for row in through_a_link if row.watched] == [watched]


def test_a_remembered_folder_can_always_be_seen_and_so_forgotten(home: Path, tmp_path: Path) -> None:
    for name in ("empty", "gone"):
        (tmp_path / name).mkdir()
        launch.remember(tmp_path / name)
    (tmp_path / "gone").rmdir()
    rows = {row.path.name: row for row in RunFinder().look().rows}
    assert {name: (row.folder, row.empty) for name, row in rows.items()} == {
        "empty": (tmp_path / "empty", True),
        "gone": (tmp_path / "gone", False),
    }
    assert status_words(rows["empty"]) == "– No runs"
    assert status_words(rows["gone"]) == "? Unreadable"
    assert not any(row.can_watch or row.can_stop or row.can_resume for row in rows.values())
    details = RunFinder().look(selected=tmp_path / "empty").details
    assert details is not None
    assert details.explanation.startswith(f"there is no run in {tmp_path / 'empty'} yet")


def test_a_run_in_the_workbench_s_own_folder_is_not_to_be_forgotten(home: Path) -> None:
    run = begun(home / "runs" / "own")
    launch.remember(run)
    assert [row.folder for row in RunFinder().look().rows] == [None]


@pytest.mark.parametrize(
    ("how", "words", "stop", "resume"),
    [
        ("finished", "✔ Finished", False, False),
        ("stopped", "■ Stopped", False, True),
        ("failed", "✖ Failed", False, True),
        ("crashed", "⚠ Crashed", False, True),
        ("running", "▶ Running", True, False),
    ],
)
def test_status_says_what_can_be_done(home: Path, how: str, words: str, stop: bool, resume: bool) -> None:
    given = {"failed": {"message": "the disk is full.", "traceback": ""}}.get(how, {"reason": "epochs"})
    begun(home / "runs" / "run", how=how, **given)
    (row,) = RunFinder().look().rows
    assert (status_words(row), row.can_watch, row.can_stop, row.can_resume) == (words, True, stop, resume)
    if how == "running":
        (row.path / "stop").touch()
        (stopping,) = RunFinder().look().rows
        assert (status_words(stopping), stopping.can_stop) == ("◑ Stopping…", False)


def test_a_directory_that_waits_for_its_trainer_can_be_watched_only(home: Path) -> None:
    folder = home / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("training.epochs = 3")
    (folder / "log.txt").touch()
    (row,) = RunFinder().look().rows
    assert (status_words(row), row.can_watch, row.can_stop, row.can_resume) == (
        "◌ Waiting", True, False, False
    )  # fmt: skip
    (folder / "log.txt").write_text("error: there is no image in /data.\n")
    found = RunFinder().look(selected=folder)
    assert status_words(found.rows[0]) == "✖ Failed"
    assert not found.rows[0].can_resume
    assert found.details is not None
    assert found.details.explanation == "there is no image in /data."


def test_details_explain_an_early_end(home: Path) -> None:
    crashed = begun(home / "runs" / "crashed", how="crashed")
    (crashed / "log.txt").write_text("\n".join(f"line {number}" for number in range(30)))
    failed = begun(home / "runs" / "failed", how="failed", message="the loss is nan.", traceback="…")
    finder = RunFinder()
    told = finder.look(selected=crashed).details
    assert told is not None
    assert "without a word" in told.explanation
    assert told.log == tuple(f"line {number}" for number in range(22, 30))
    assert told.best == (1, 0.5)
    told = finder.look(selected=failed).details
    assert told is not None
    assert told.explanation == "the loss is nan."


def test_details_follow_a_run_that_goes_on(home: Path) -> None:
    run = MadeRun(home / "runs" / "run", [], epochs=4, classes=("a", "b")).train(1)
    finder = RunFinder()
    first = finder.look(selected=run.root).details
    run.writer.warn("the images are small.")
    run.epoch(2, best=True, validation={"loss": 1.0, "dice": [0.9, None]})
    run.writer.release()
    second = finder.look(selected=run.root).details
    assert first is not None
    assert second is not None
    assert (first.best, first.warnings) == ((1, 0.5), ())
    assert (second.best, second.warnings) == ((2, 0.9), ("the images are small.",))


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": FORMAT + 1}), "\x00\xff"])
def test_a_broken_run_is_listed_with_the_reason(home: Path, content: str) -> None:
    broken = begun(home / "runs" / "broken")
    (broken / "run.json").write_text(content)
    whole = begun(home / "runs" / "whole", 2)
    found = RunFinder().look(selected=broken)
    assert [(row.path, row.can_watch) for row in found.rows] == [(whole, True), (broken, False)]
    assert found.details is not None
    assert str(broken) in found.details.explanation


def test_broken_events_are_said_of_the_selected_run_and_spoil_no_other(home: Path) -> None:
    broken = begun(home / "runs" / "broken")
    text = (broken / "events.jsonl").read_text()
    (broken / "events.jsonl").write_text(text.replace('"event": "epoch"', '"event": "epoch" oops', 1))
    found = RunFinder().look(selected=broken)
    assert found.details is not None
    assert "cannot be read" in found.details.explanation


def test_a_run_that_vanishes_leaves_the_list(home: Path) -> None:
    run = begun(home / "runs" / "run")
    finder = RunFinder()
    assert finder.look(selected=run).details is not None
    shutil.rmtree(run)
    found = finder.look(watched=run, selected=run)
    assert (found.rows, found.details) == ((), None)


def test_a_broken_memory_of_folders_is_said_and_the_rest_is_listed(home: Path) -> None:
    begun(home / "runs" / "run")
    (home / "remembered.json").write_text("{")
    found = RunFinder().look()
    assert len(found.rows) == 1
    assert "remembered.json cannot be read" in found.problem


def test_a_trainer_on_its_way_counts(home: Path) -> None:
    class OnItsWay:
        pid, started = 2**22 - 2, time.time()

        def poll(self) -> None:
            return None

    crashed = begun(home / "runs" / "run", how="crashed")
    (row,) = RunFinder().look(processes={crashed: OnItsWay()}).rows  # type: ignore[dict-item]
    assert (row.entry.status, row.can_resume) == ("waiting", False)


def test_cells_tell_the_start_in_the_user_s_own_time() -> None:
    now = datetime(2026, 5, 3, 0, 30, tzinfo=ZONE)

    def started(*moment: int) -> str:
        entry = RunEntry(
            Path("/r/one"), "finished", datetime(*moment, tzinfo=ZONE), "eyes", "smm_v1", "h", 2, 4
        )
        assert cells(Row(entry), now)[:5] == ("one", "✔ Finished", "2 / 4", "eyes", "smm_v1")
        return cells(Row(entry, watched=True), now)[5]

    assert started(2026, 5, 3, 0, 10) == "00:10"
    assert started(2026, 5, 2, 23, 59) == f"2 {datetime(2026, 5, 2):%b}"
    assert started(2025, 5, 3, 0, 10) == f"3 {datetime(2026, 5, 2):%b} 2025"
    assert cells(Row(RunEntry(Path("/r/one"), problem="…"), watched=True), now) == (
        "● one", "? Unreadable", "", "", "", ""
    )  # fmt: skip


def test_the_best_epoch_needs_a_score() -> None:
    assert best_epoch([]) is None
    assert best_epoch([{"epoch": 1, "best": True, "validation": None}]) is None
    scores = {"dice": [None, 0.4, 0.6]}
    assert best_epoch([{"epoch": 3, "best": True, "validation": scores}]) == (3, 0.5)


def test_a_run_directory_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    assert not is_run(tmp_path / "nowhere")
    assert is_run(begun(tmp_path / "begun"))
    (tmp_path / "config.toml").touch()
    assert not is_run(tmp_path)
    (tmp_path / "log.txt").touch()
    assert is_run(tmp_path)


def elsewhere(path: Path) -> Path:
    """Make a made run look as if another machine trained in it."""
    (path / "lock").write_text(json.dumps({"host": "far.away", "pid": 1, "started": 1.0}))
    (path / "heartbeat").write_text("{}")
    return path


def test_the_newest_living_run_is_found_and_one_of_this_machine_first(home: Path, tmp_path: Path) -> None:
    runs = home / "runs"
    assert newest_living([runs]) is None
    begun(runs / "finished", 9)
    begun(runs / "crashed", 8, how="crashed")
    assert newest_living([runs]) is None
    far = elsewhere(begun(tmp_path / "server" / "far", 7))
    assert newest_living([runs, tmp_path / "server"]) == far
    old = begun(runs / "old", 2, how="running")
    new = begun(runs / "new", 3, how="running")
    assert json.loads((old / "lock").read_text())["host"] == socket.gethostname()
    assert newest_living(iter([runs, tmp_path / "server"])) == new
