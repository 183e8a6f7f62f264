"""What a watcher says of a run at each moment of its life."""

import json
from pathlib import Path

import pytest
from runs import MadeRun, watched_item

from engine.errors import InputError
from engine.record import RunReader
from napari_smm.watch import Beat, RunState, RunWatcher, same_run


def test_the_life_of_a_run(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    watcher = RunWatcher(root)
    assert watcher.poll().status == "waiting"
    run = MadeRun(root, [watched_item("a")], epochs=3)
    state = watcher.poll()
    assert (state.status, state.newest, state.total, state.classes) == ("running", 0, 3, ("vessel",))
    assert state.started
    run.epoch(1)
    run.epoch(2)
    state = watcher.poll()
    assert [event["epoch"] for event in state.epochs] == [1, 2]
    assert state.seconds_left == pytest.approx(2.0)
    (root / "stop").touch()
    assert watcher.poll().status == "stopping"
    run.end("stopped", reason="stop file")
    state = watcher.poll()
    assert (state.status, state.message, state.alive) == ("stopped", "stop file", False)


def test_a_late_watcher_knows_the_past(tmp_path: Path) -> None:
    MadeRun(tmp_path / "run", epochs=4).train().end()
    state = RunWatcher(tmp_path / "run").poll()
    assert (state.status, state.newest, state.done) == ("finished", 4, 1.0)


def test_a_trainer_that_is_gone_has_crashed(tmp_path: Path) -> None:
    MadeRun(tmp_path / "run", epochs=4).train(2).crash()
    state = RunWatcher(tmp_path / "run").poll()
    assert (state.status, state.newest) == ("crashed", 2)


def test_a_failure_says_why_until_the_run_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "run"
    MadeRun(root, epochs=4).train(2).end("failed", message="the disk is full.")
    watcher = RunWatcher(root)
    assert watcher.poll().message == "the disk is full."
    again = MadeRun(root, epochs=4, resumed_after=2)
    state = watcher.poll()
    assert (state.status, state.message, state.resumed) == ("running", "", 1)
    again.writer.release()


def test_the_later_line_of_an_epoch_counts(tmp_path: Path) -> None:
    root = tmp_path / "run"
    run = MadeRun(root, epochs=4)
    run.epoch(1)
    run.epoch(2, loss=7.0)
    watcher = RunWatcher(root)
    assert watcher.poll().epochs[-1]["loss"] == 7.0
    run.epoch(2, loss=3.0)
    state = watcher.poll()
    assert [event["loss"] for event in state.epochs] == [1.0, 3.0]
    assert list(state.epochs) == RunReader(root).epochs()
    run.end()


def test_a_half_written_line_is_left_for_later(tmp_path: Path) -> None:
    root = tmp_path / "run"
    run = MadeRun(root, epochs=4)
    watcher = RunWatcher(root)
    watcher.poll()
    line = json.dumps({"event": "warning", "message": "look out"})
    with (root / "events.jsonl").open("a") as file:
        file.write(line[:9])
        file.flush()
        assert watcher.poll().warnings == ()
        file.write(line[9:] + "\n")
    assert watcher.poll().warnings == ("look out",)
    run.end()


def test_a_run_that_was_begun_anew_is_read_anew(tmp_path: Path) -> None:
    root = tmp_path / "run"
    run = MadeRun(root, epochs=4)
    run.writer.event("warning", message="of the refused run, which is longer than what comes next")
    watcher = RunWatcher(root)
    assert watcher.poll().warnings
    (root / "events.jsonl").write_text(json.dumps({"event": "started", "epochs": 9}) + "\n")
    state = watcher.poll()
    assert (state.warnings, state.total) == ((), 9)
    run.writer.release()


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "run"
    MadeRun(root).end()
    (root / "run.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="has format 99, and this version reads format 1"):
        RunWatcher(root).poll()


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run directory"):
        RunWatcher(tmp_path / "none")


def test_a_broken_heartbeat_is_no_heartbeat(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run", epochs=4)
    (tmp_path / "run" / "heartbeat").write_text("{")
    assert RunWatcher(tmp_path / "run").poll().beat == Beat()
    run.end()


@pytest.mark.parametrize(
    ("newest", "beat", "done"),
    [
        (0, Beat(1, 5, 10), 0.125),
        (2, Beat(3, 0, 10), 0.5),
        (2, Beat(2, 9, 10), 0.5),
        (4, Beat(4, 1, 10), 1.0),
    ],
)
def test_the_share_done_counts_the_steps_of_the_current_epoch(newest: int, beat: Beat, done: float) -> None:
    epochs = tuple({"epoch": number + 1, "seconds": {"epoch": 1.0}} for number in range(newest))
    assert RunState(Path(), epochs=epochs, total=4, beat=beat).done == pytest.approx(done)


def test_one_run_by_two_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert same_run(tmp_path / "run", tmp_path / "link")
    assert not same_run(tmp_path / "run", tmp_path)
    assert not same_run(None, None)
