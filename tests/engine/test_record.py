import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import engine
from engine.errors import InputError
from engine.lock import SILENT_SECONDS
from engine.record import FORMAT, HEARTBEAT_SECONDS, Progress, RunReader, RunWriter, WatchedItem, plain

ROOT = Path(engine.__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def writer(run: Path) -> Iterator[RunWriter]:
    held = RunWriter.create(run, Progress())
    yield held
    held.release()


def begin(writer: RunWriter) -> None:
    """What a trainer writes before its first epoch."""
    writer.write_text("config.toml", "[training]\n")
    writer.write_json("run.json", {"format": FORMAT})
    writer.event("started")


def until(true: Callable[[], bool], seconds: float = 5) -> float:
    """Wait until something is true; the seconds that it took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "it never came true"
        time.sleep(0.01)
    return time.monotonic() - start


def kinds(run: Path) -> list[str]:
    return [event["event"] for event in RunReader(run).events()]


# Events


def test_events_append_in_order_each_with_its_time(writer: RunWriter) -> None:
    for number in (1, 2):
        writer.event("epoch", epoch=number, loss=0.5)
    first, second = RunReader(writer.root).events()
    assert (first["event"], first["epoch"], first["loss"]) == ("epoch", 1, 0.5)
    assert second["epoch"] == 2
    assert first["time"] <= second["time"]
    assert first["time"].endswith("+00:00")


def test_poll_gives_each_event_once(writer: RunWriter) -> None:
    reader = RunReader(writer.root)
    assert reader.poll() == []
    writer.event("started")
    assert [event["event"] for event in reader.poll()] == ["started"]
    assert reader.poll() == []
    writer.event("finished")
    assert [event["event"] for event in reader.poll()] == ["finished"]


def test_a_half_written_line_waits_until_it_is_whole(writer: RunWriter) -> None:
    writer.event("started")
    reader = RunReader(writer.root)
    line = b'{"event": "epoch", "epoch": 1}\n'
    with (writer.root / "events.jsonl").open("ab", buffering=0) as file:
        file.write(line[:12])
        assert [event["event"] for event in reader.poll()] == ["started"]
        assert reader.poll() == []
        file.write(line[12:])
    assert reader.poll() == [{"event": "epoch", "epoch": 1}]


@pytest.mark.parametrize("line", [b"garbage", b"5", b"{}", b"\xff\x00", b'["event"]'])
def test_a_line_that_is_no_event_is_refused_by_name(writer: RunWriter, line: bytes) -> None:
    writer.event("started")
    with (writer.root / "events.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InputError, match=r"events\.jsonl cannot be read.* is no event"):
        RunReader(writer.root).status()


def test_reopening_cuts_a_half_written_line(run: Path) -> None:
    writer = RunWriter.create(run, Progress())
    begin(writer)
    writer.release()
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "epo')
    again = RunWriter.reopen(run, Progress())
    again.event("stopped")
    again.release()
    assert kinds(run) == ["started", "stopped"]


def test_reopening_leaves_nothing_half_written(run: Path) -> None:
    writer = RunWriter.create(run, Progress())
    writer.write_json("run.json", {"format": FORMAT})
    writer.release()
    (run / "events.jsonl").write_bytes(b'{"event": "star')
    (run / "checkpoints").mkdir()
    for unfinished in (run / ".run.json.new", run / "checkpoints" / ".best.new"):
        unfinished.write_bytes(b"half")
    RunWriter.reopen(run, Progress()).release()
    assert not list(run.rglob(".*"))
    assert (run / "events.jsonl").read_bytes() == b""


def test_a_reader_notices_that_the_events_began_anew(run: Path) -> None:
    # A run that was refused before its run.json is started anew in the same directory.
    with pytest.raises(InputError, match="no pairs"), RunWriter.create(run, Progress()).recorded():
        raise InputError("no pairs were found.")
    reader = RunReader(run)
    assert [event["message"] for event in reader.poll()] == ["no pairs were found."]
    again = RunWriter.create(run, Progress())
    assert reader.poll() == []
    again.event("started")
    assert [event["event"] for event in reader.poll()] == ["started"]
    again.release()


def test_the_later_line_of_an_epoch_counts(writer: RunWriter) -> None:
    for number, loss in ((1, 0.9), (2, 0.8), (3, 0.7), (2, 0.5)):
        writer.event("epoch", epoch=number, loss=loss)
    found = [(event["epoch"], event["loss"]) for event in RunReader(writer.root).epochs()]
    assert found == [(1, 0.9), (2, 0.5), (3, 0.7)]


def test_numbers_that_json_lacks(writer: RunWriter) -> None:
    writer.event("epoch", loss=math.nan, dice=(0.5, math.nan), best=-math.inf, worst=np.float32(math.inf))
    (event,) = RunReader(writer.root).events()
    assert event["loss"] is None
    assert event["dice"] == [0.5, None]
    assert (event["best"], event["worst"]) == ("-inf", "inf")


def test_plain_turns_numpys_types_and_paths_into_jsons() -> None:
    found = plain(
        {
            "whole": np.int64(3),
            "yes": np.bool_(True),
            "array": np.array([[1.0, np.nan]]),
            "path": Path("a") / "b",
            "nothing": None,
            1: True,
        }
    )
    assert found == {
        "whole": 3, "yes": True, "array": [[1.0, None]], "path": str(Path("a/b")), "nothing": None, "1": True
    }  # fmt: skip
    assert [type(found[key]) for key in ("whole", "yes", "1")] == [int, bool, bool]


def test_a_warning_is_said_once_in_a_run_also_after_reopening(run: Path) -> None:
    writer = RunWriter.create(run, Progress())
    begin(writer)
    assert writer.warn("no groups")
    assert not writer.warn("no groups")
    writer.release()
    again = RunWriter.reopen(run, Progress())
    assert not again.warn("no groups")
    assert again.warn("another")
    again.release()
    assert kinds(run) == ["started", "warning", "warning"]


def test_what_ends_a_run_early_is_its_last_event(run: Path) -> None:
    writer = RunWriter.create(run, Progress(epoch=3))
    begin(writer)
    with pytest.raises(ZeroDivisionError), writer.recorded():
        print(1 / 0)
    event = RunReader(run).events()[-1]
    assert (event["event"], event["epoch"], event["message"]) == ("failed", 3, "division by zero")
    assert event["traceback"].startswith("Traceback (most recent call last)")
    assert "ZeroDivisionError" in event["traceback"]
    assert not (run / "lock").exists()


def test_a_mistake_of_the_users_has_no_traceback(run: Path) -> None:
    with pytest.raises(InputError), RunWriter.create(run, Progress()).recorded():
        raise InputError("the loss is not finite.")
    event = RunReader(run).events()[-1]
    assert (event["event"], event["message"], event["traceback"]) == ("failed", "the loss is not finite.", "")


# Taking a directory


@pytest.mark.parametrize("left", [[], ["config.toml", "log.txt"], ["stop"], [".DS_Store"]])
def test_create_takes_what_is_new_or_holds_what_a_viewer_left(run: Path, left: list[str]) -> None:
    if left:
        run.mkdir()
    for name in left:
        (run / name).write_text("viewer\n")
    RunWriter.create(run, Progress()).release()
    assert all((run / name).read_text() == "viewer\n" for name in left)


def test_create_makes_the_folders_above(tmp_path: Path) -> None:
    RunWriter.create(tmp_path / "a" / "b" / "run", Progress()).release()


def test_create_refuses_what_is_used_and_leaves_it_alone(tmp_path: Path) -> None:
    used, foreign, file = tmp_path / "used", tmp_path / "foreign", tmp_path / "file"
    writer = RunWriter.create(used, Progress())
    begin(writer)
    writer.release()
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    file.touch()
    before = sorted(tmp_path.rglob("*"))
    for place, why in (
        (used, "holds a run: continue it with --resume, or give another --out."),
        (foreign, "is not empty: give another --out."),
        (file, "cannot be made: a file is in the way."),
        (file / "run", "cannot be made: a file is in the way."),
        (tmp_path / ("long" * 100), "cannot be made (File name too long): give another --out."),
    ):
        with pytest.raises(InputError) as refused:
            RunWriter.create(place, Progress())
        assert str(refused.value) == f"the output directory {place} {why}"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_in_use_is_refused_both_ways(writer: RunWriter) -> None:
    with pytest.raises(InputError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
        RunWriter.create(writer.root, Progress())
    begin(writer)
    with pytest.raises(InputError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
        RunWriter.reopen(writer.root, Progress())
    writer.event("epoch", epoch=1)  # the one that holds it goes on
    assert kinds(writer.root) == ["started", "epoch"]


def test_reopen_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds no run that could be resumed \(there is no run\.json in it\)"
    ):
        RunWriter.reopen(tmp_path, Progress())
    assert list(tmp_path.iterdir()) == []


def test_of_several_trainers_started_at_once_on_a_crashed_run_one_goes_on(run: Path) -> None:
    first = RunWriter.create(run, Progress())
    begin(first)
    first.release()
    (run / "lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": 1.0}))
    code = """
import sys
from pathlib import Path
from engine.errors import InputError
from engine.record import Progress, RunWriter
print("ready", flush=True)
sys.stdin.readline()
try:
    writer = RunWriter.reopen(Path(sys.argv[1]), Progress())
    writer.event("started")
    print("taken", flush=True)
    sys.stdin.readline()
    writer.event("finished")
    writer.release()
except InputError as error:
    print(error, flush=True)
"""
    trainers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(run)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        said = [(one.stdin, one.stdout) for one in trainers if one.stdin and one.stdout]
        assert [answer.readline() for _, answer in said] == ["ready\n"] * 3
        for ask, _ in said:
            ask.write("go\n")
        answers = [answer.readline() for _, answer in said]
        assert RunReader(run).status() == "running"
    finally:
        for one in trainers:
            one.communicate("end\n", timeout=30)
    assert answers.count("taken\n") == 1
    assert sum("in use by process" in answer for answer in answers) == 2
    assert kinds(run) == ["started", "started", "finished"]
    assert RunReader(run).status() == "finished"


# The thread


def test_a_stop_file_stops_within_a_second(writer: RunWriter) -> None:
    assert not writer.progress.stop
    (writer.root / "stop").touch()
    assert until(lambda: writer.progress.stop) < 1
    assert writer.progress.reason == "stop file"


def test_an_old_stop_file_does_not_stop_what_is_resumed(run: Path) -> None:
    writer = RunWriter.create(run, Progress())
    begin(writer)
    (run / "stop").touch()
    until(lambda: writer.progress.stop)
    writer.event("stopped")
    writer.release()
    again = RunWriter.reopen(run, Progress())
    time.sleep(0.4)
    assert not again.progress.stop
    assert not (run / "stop").exists()
    again.release()


def test_the_heartbeat_is_there_at_once_and_says_where_training_is(writer: RunWriter) -> None:
    beat = json.loads((writer.root / "heartbeat").read_text())
    assert beat.pop("time") == pytest.approx(time.time(), abs=5)
    assert beat == {"epoch": 0, "step": 0, "steps": 0}
    writer.progress.epoch, writer.progress.step, writer.progress.steps = 3, 7, 9
    writer.beat()
    beat = json.loads((writer.root / "heartbeat").read_text())
    assert (beat["epoch"], beat["step"], beat["steps"]) == (3, 7, 9)


def test_the_heart_beats_by_itself(writer: RunWriter) -> None:
    writer.progress.epoch = 4
    heartbeat = writer.root / "heartbeat"
    until(lambda: json.loads(heartbeat.read_text())["epoch"] == 4, seconds=HEARTBEAT_SECONDS + 3)


def test_release_ends_the_thread_frees_the_lock_and_leaves_nothing_half(run: Path) -> None:
    before = threading.active_count()
    writer = RunWriter.create(run, Progress())
    begin(writer)
    assert threading.active_count() == before + 1
    writer.release()
    assert threading.active_count() == before
    assert {item.name for item in run.iterdir()} == {
        "config.toml", "run.json", "events.jsonl", "heartbeat", "lock.guard"
    }  # fmt: skip


def test_a_directory_that_is_gone_does_not_end_the_training(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "run", Progress())
    (tmp_path / "run").rename(tmp_path / "moved")
    time.sleep(0.4)
    (tmp_path / "moved").rename(tmp_path / "run")
    (tmp_path / "run" / "stop").touch()
    until(lambda: writer.progress.stop)
    writer.release()


# Status


TRAINER = """
import sys, time
from pathlib import Path
from engine.record import FORMAT, Progress, RunWriter
writer = RunWriter.create(Path(sys.argv[1]), Progress())
writer.write_json("run.json", {"format": FORMAT})
writer.event("started")
print("training", flush=True)
time.sleep(60)
"""


@pytest.fixture
def trainer(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in a directory, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    yield process
    process.kill()
    process.communicate()


def test_waiting_until_a_trainer_comes(run: Path) -> None:
    run.mkdir()
    (run / "config.toml").touch()
    assert RunReader(run).status() == "waiting"


def test_running_then_stopping_then_crashed(run: Path, trainer: subprocess.Popen[str]) -> None:
    reader = RunReader(run)
    assert reader.status() == "running"
    (run / "stop").touch()
    assert reader.status() == "stopping"
    trainer.kill()
    until(lambda: psutil.Process(trainer.pid).status() == psutil.STATUS_ZOMBIE)
    assert reader.status() == "crashed"  # though nobody has asked for its exit code
    trainer.wait()
    assert reader.status() == "crashed"
    RunWriter.reopen(run, Progress()).release()  # and it can be resumed


def test_another_process_with_the_trainers_pid_is_not_the_trainer(
    run: Path, trainer: subprocess.Popen[str]
) -> None:
    held = json.loads((run / "lock").read_text())
    (run / "lock").write_text(json.dumps({**held, "started": held["started"] - 100}))
    assert RunReader(run).status() == "crashed"


@pytest.mark.parametrize("ending", ["stopped", "failed", "finished"])
def test_an_ending_is_the_status_once_the_directory_is_free(run: Path, ending: str) -> None:
    writer = RunWriter.create(run, Progress())
    begin(writer)
    writer.event(ending)
    writer.event("warning", message="said after it")
    assert RunReader(run).status() == "running"
    writer.release()
    (run / "stop").touch()
    assert RunReader(run).status() == ending
    # What resumes the run is running, also before it has said so.
    again = RunWriter.reopen(run, Progress())
    assert RunReader(run).status() == "running"
    again.event("started")
    (run / "lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": 1.0}))
    assert RunReader(run).status() == "crashed"
    again.release()


def test_on_another_host_the_heartbeat_tells(run: Path) -> None:
    writer = RunWriter.create(run, Progress())
    begin(writer)
    writer.release()
    (run / "lock").write_text(json.dumps({"host": "elsewhere", "pid": os.getpid(), "started": 1.0}))
    assert RunReader(run).status() == "running"
    then = time.time() - SILENT_SECONDS - 5
    for name in ("lock", "heartbeat"):
        os.utime(run / name, (then, then))
    assert RunReader(run).status() == "crashed"
    (run / "heartbeat").touch()
    assert RunReader(run).status() == "running"


# run.json


def test_info_is_run_json(writer: RunWriter) -> None:
    reader = RunReader(writer.root)
    with pytest.raises(InputError, match=r"is no run directory \(there is no run\.json in it\)"):
        reader.info()
    writer.write_json("run.json", {"format": FORMAT, "seed": 3, "where": Path("x"), "nan": math.nan})
    assert reader.info() == {"format": FORMAT, "seed": 3, "where": "x", "nan": None}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", r"run\.json cannot be read"),
        ('{"format": 99}', f"has format 99, and this version reads format {FORMAT}"),
        ("{}", "has format None"),
        ("[]", "has format None"),
    ],
)
def test_another_format_is_refused(run: Path, content: str, why: str) -> None:
    run.mkdir()
    (run / "run.json").write_text(content)
    with pytest.raises(InputError, match=why):
        RunReader(run).info()


def test_a_reader_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run directory"):
        RunReader(tmp_path / "none")


# Watched images


def item(name: str = "01L", classes: int = 2, size: tuple[int, int] = (6, 8)) -> WatchedItem:
    return WatchedItem(
        name=name, split="train", image=np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3),
        truth=np.arange(classes * size[0] * size[1]).reshape(classes, *size) % 3 == 0,
        valid=np.ones(size, bool), origin=(4, 0), scale=(2.0, 1.5),
    )  # fmt: skip


def test_what_is_watched_is_allocated_once_with_a_chunk_an_epoch(writer: RunWriter) -> None:
    writer.watch([item(), item("02R", size=(3, 5))], epochs=4)
    first, second = RunReader(writer.root).watched()
    assert dict(first.attrs) == {
        "name": "01L", "split": "train", "origin": [4, 0], "scale": [2.0, 1.5], "epochs": 4
    }  # fmt: skip
    assert np.array_equal(first["image"][:], item().image)
    assert np.array_equal(first["truth"][:], item().truth)
    assert first["valid"][:].all()
    for name, dtype in (("probability", "float16"), ("modulated", "bool")):
        assert first[name].shape == (4, 2, 6, 8)
        assert first[name].chunks == (1, 2, 6, 8)
        assert first[name].dtype == dtype
        assert not first[name][:].any()
        assert second[name].shape == (4, 2, 3, 5)
    assert {path.name for path in (writer.root / "watched").iterdir()} == {"00", "01"}


def test_a_reader_that_is_open_already_sees_a_new_epoch(writer: RunWriter) -> None:
    writer.watch([item()], epochs=3)
    (group,) = RunReader(writer.root).watched()
    array, mask = group["probability"], group["modulated"]
    assert not array[1].any()
    p = np.linspace(0, 1, 96, dtype=np.float32).reshape(2, 6, 8)
    writer.write_watched(2, [p], [p > 0.5])
    assert np.array_equal(array[1], p.astype(np.float16))
    assert np.array_equal(mask[1], p > 0.5)
    assert not array[0].any()  # epochs that were not run stay empty
    assert not array[2].any()
    assert len(list((writer.root / "watched" / "00" / "probability").glob("c.*.0.0.0"))) == 1


def test_watching_goes_on_after_reopening_with_what_is_there(run: Path) -> None:
    writer = RunWriter.create(run, Progress())
    begin(writer)
    writer.watch([item()], epochs=3)
    ones = np.ones((2, 6, 8), np.float32)
    writer.write_watched(1, [ones], [ones > 0])
    writer.release()
    (run / "watched" / "00").rename(run / "watched" / ".new")  # killed while it was allocated
    (run / "watched" / ".new" / "modulated" / "zarr.json").unlink()
    assert RunReader(run).watched() == []
    again = RunWriter.reopen(run, Progress())
    again.watch([item()], epochs=3)
    again.write_watched(2, [ones], [ones > 0])
    again.release()
    once_more = RunWriter.reopen(run, Progress())
    once_more.watch([item()], epochs=3)
    once_more.write_watched(3, [ones], [ones > 0])
    once_more.release()
    (group,) = RunReader(run).watched()
    assert [bool(epoch.all()) for epoch in group["probability"][:]] == [False, True, True]


def test_without_watched_images_there_are_none(writer: RunWriter) -> None:
    writer.watch([], epochs=3)
    writer.write_watched(1, [], [])
    assert RunReader(writer.root).watched() == []
