"""Runs as processes of their own: started, watched, stopped, killed, resumed and found again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import fast, write_pair

import engine
from engine import flags, lock
from engine.config import Layer, RunConfig, resolve
from engine.errors import InputError
from engine.record import FORMAT, Progress, RunReader, RunWriter
from napari_smm import launch
from napari_smm.launch import (
    Process,
    RunEntry,
    failure,
    find_runs,
    forget,
    log_tail,
    new_run_folder,
    remember,
    remembered,
    request_stop,
    resume,
    running_here,
    runs_folder,
    start,
    status_of,
)

ROOT = Path(engine.__file__).parents[1]


def config(root: str = "demo", *settings: str) -> RunConfig:
    """Settings of a run whose epochs take a fraction of a second."""
    given = [flag for flag in fast(*settings) if flag != "--quiet"]
    return resolve([Layer("test", flags.parse([f"--data.root={root}", *given]))])[0]


@pytest.fixture
def few(tmp_path: Path) -> str:
    """Three images of 32 × 32 px with masks."""
    rng = np.random.default_rng(1)
    for number in range(3):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 6 + number : 12 + number] = 255
        write_pair(
            tmp_path / "few", f"i{number}", (rng.random((32, 32)) * 99 + mask / 2).astype(np.uint8), mask
        )
    return str(tmp_path / "few")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    monkeypatch.setenv("NAPARI_SMM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A path for a run directory; the trainer in it does not outlive the test."""
    folder = tmp_path / "runs" / "run"
    yield folder
    held = lock.holder(folder) if folder.is_dir() else None
    if held is not None:
        os.kill(held.pid, signal.SIGKILL)


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is true, and return it."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not come true in {seconds} s")


def epochs(run: Path) -> int:
    return len(RunReader(run).epochs())


def ended(process: Process) -> bool:
    return process.poll() is not None


# Real trainers


LAUNCHER = """
import sys, time
from pathlib import Path
from engine.config import RunConfig
from napari_smm.launch import start
process = start(RunConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_run_outlives_whoever_started_it_and_stops_when_asked(run: Path, few: str) -> None:
    settings = config(few, "--training.epochs=5000", "--watch.train=0")
    command = [sys.executable, "-c", LAUNCHER, settings.model_dump_json(), str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as launcher:
        try:
            assert launcher.stdout is not None
            pid = int(launcher.stdout.readline())
            until(lambda: epochs(run))
            assert os.getsid(pid) != os.getsid(launcher.pid)
        finally:
            launcher.kill()
    done = epochs(run)
    until(lambda: epochs(run) > done + 2)
    assert status_of(run) == "running"
    assert running_here([run.parent]) == [run]
    request_stop(run)
    assert status_of(run) in ("stopping", "stopped")
    until(lambda: status_of(run) == "stopped")
    assert running_here([run.parent]) == []
    assert RunReader(run).events()[-1]["reason"] == "stop file"


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_killed_run_has_crashed_leaves_no_zombie_and_can_be_resumed(run: Path, few: str) -> None:
    process = start(config(few, "--training.epochs=15"), run)
    assert status_of(run, process) == "waiting"
    until(lambda: epochs(run))
    assert status_of(run, process) == "running"
    with pytest.raises(InputError, match="in use by process"):
        resume(run)
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: RunReader(run).status() == "crashed", 5)
    until(lambda: not psutil.pid_exists(process.pid), 5)
    assert process.poll() == -signal.SIGKILL
    assert status_of(run, process) == "crashed"
    [entry] = find_runs(run)
    assert (entry.status, entry.data, entry.method, entry.epochs) == ("crashed", "few", "smm_v2", 15)
    assert 1 <= entry.epoch < 15

    # What a user has put into the directory must not take the place of the trainer's modules.
    (run / "torch.py").write_text("raise SystemExit(77)")
    again = resume(run)
    assert status_of(run, again) == "waiting", "a new trainer is on its way"
    until(lambda: ended(again))
    assert status_of(run, again) == "finished"
    assert again.poll() == 0
    assert [event["epoch"] for event in RunReader(run).epochs()] == list(range(1, 16))
    with pytest.raises(InputError, match="has finished"):
        resume(run)


def test_data_that_are_refused_fail_the_run_with_the_reason(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What lies in the folder from which napari was opened must not take the place of the engine.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("engine.py", "torch.py"):
        (elsewhere / name).write_text("raise SystemExit(77)")
    (elsewhere / "images").mkdir()
    (elsewhere / "images" / "a.png").write_text("no image")
    monkeypatch.chdir(elsewhere)
    process = start(config("images"), run)
    until(lambda: ended(process))
    assert process.poll() == 2
    assert status_of(run, process) == status_of(run) == "failed"
    assert failure(run).startswith(f"no pairs of image and mask in {elsewhere / 'images'}")
    assert log_tail(run)[-1] == f"error: {failure(run)}"
    assert find_runs(run)[0].status == "failed"


def test_a_trainer_that_cannot_even_begin_does_not_wait_for_ever(
    run: Path, few: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start(config(few), run)
    until(lambda: ended(process))
    assert RunReader(run).status() == "waiting"
    assert status_of(run, process) == "failed"
    assert status_of(run) == "failed", "a window that comes later sees it too"
    assert failure(run) == "ImportError: libcudart is gone"
    assert find_runs(run.parent)[0].status == "failed"
    # The directory can be used again, and an old wish to stop is no longer one.
    request_stop(run)
    again = start(config(few), run)
    assert not (run / "stop").exists()
    assert status_of(run, again) == "waiting"
    until(lambda: ended(again))


def test_a_resume_that_does_not_begin_has_failed_though_the_run_had_stopped(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = held_run(run)
    writer.event("stopped", epoch=1, reason="stop file")
    writer.release()
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    time.sleep(0.01)
    process = resume(run)
    until(lambda: ended(process))
    assert status_of(run) == "stopped"
    assert status_of(run, process) == "failed"
    assert failure(run) == "ImportError: libcudart is gone"


# Directories


def held_run(run: Path, count: int = 1, *, dice: float | None = 0.5) -> RunWriter:
    """A run of which some epochs are done, held by this process."""
    run.parent.mkdir(parents=True, exist_ok=True)
    writer = RunWriter.create(run, Progress())
    writer.write_text("config.toml", '[data]\nroot = "C:\\\\scans\\\\eyes"\n[modulation]\nname = "smm_v1"\n')
    writer.write_json("run.json", {"format": FORMAT, "host": "lab", "splits": {"train": ["a"] * 100}})
    writer.event("started", pid=1, host="lab", epochs=1000)
    for number in range(1, count + 1):
        validation = {"loss": 1.0, "dice": [dice, None], "recall": [0.1], "precision": [0.2], "skipped": [0]}
        lines = [
            {"event": "checkpoint", "time": "2026-01-01T00:00:00+00:00", "epoch": number, "files": ["last"]},
            {
                "event": "epoch", "time": "2026-01-01T00:00:00+00:00", "epoch": number, "epochs": 1000,
                "loss": 0.25, "best": number == 1, "last": "", "validation": validation if dice else None,
                "seconds": {"epoch": 1.0, "note": "started"}, "updated": True,
            },
        ]  # fmt: skip
        with (run / "events.jsonl").open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
    return writer


def test_a_list_of_runs_says_what_each_is_newest_first(tmp_path: Path) -> None:
    for name, ending in (("one", "finished"), ("two", "failed"), ("three", None)):
        writer = held_run(tmp_path / name, 3)
        if ending:
            writer.event(ending, epoch=3, message="out of memory")
        writer.release()
        if not ending:
            (tmp_path / name / "lock").write_text(json.dumps({"host": "x", "pid": 1, "started": 0}))
            os.utime(tmp_path / name / "lock", (0, 0))
            os.utime(tmp_path / name / "heartbeat", (0, 0))
    held = held_run(tmp_path / "group" / "four", 2, dice=None)
    (tmp_path / "five").mkdir()
    (tmp_path / "five" / "config.toml").write_text("[training]\nepochs = 7\n")
    (tmp_path / "five" / "log.txt").touch()
    found = find_runs(tmp_path)
    held.release()
    summary = {e.name: (e.status, e.epoch, e.epochs, e.dice) for e in found}
    assert summary == {
        "one": ("finished", 3, 1000, 0.5),
        "two": ("failed", 3, 1000, 0.5),
        "three": ("crashed", 3, 1000, 0.5),
        "four": ("running", 2, 1000, None),
        "five": ("waiting", 0, 7, None),
    }
    assert [entry.name for entry in found] == ["five", "four", "three", "two", "one"]
    four = found[1]
    assert (four.data, four.method, four.host, four.problem) == ("eyes", "smm_v1", "lab", "")
    assert failure(tmp_path / "two") == "out of memory"


def test_a_list_is_kept_up_to_date(run: Path) -> None:
    writer = held_run(run, 2)
    assert find_runs(run)[0].epoch == 2
    writer.event("epoch", epoch=3, epochs=1000, best=True, validation={"dice": [0.75]})
    [entry] = find_runs(run)
    assert (entry.epoch, entry.dice, entry.status) == (3, 0.75, "running")
    (run / "stop").touch()
    assert find_runs(run)[0].status == "stopping"
    (run / "stop").unlink()
    writer.event("finished", epoch=3, reason="all epochs")
    writer.release()
    assert find_runs(run)[0].status == "finished"
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "sta')
    assert find_runs(run)[0].status == "finished", "a half-written line waits"


def test_a_folder_is_looked_into_so_deep_and_every_run_is_there_once(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c" / "run"
    held_run(deep).release()
    held_run(deep / "inside").release()
    held_run(tmp_path / ".hidden").release()
    (tmp_path / "link").symlink_to(deep, target_is_directory=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.toml").touch()
    assert [entry.path for entry in find_runs(tmp_path, deep, deep.parent)] == [tmp_path / "link"]
    (tmp_path / "link").unlink()
    assert find_runs(tmp_path) == []
    assert [entry.path for entry in find_runs(tmp_path, depth=4)] == [deep]
    assert [entry.path for entry in find_runs(deep, depth=0)] == [deep]
    assert find_runs(deep.parent, depth=0) == []


BROKEN: dict[str, tuple[str, bytes]] = {
    "format": ("run.json", b'{"format": 99}'),
    "json": ("run.json", b"{"),
    "list": ("run.json", b"[]"),
    "toml": ("config.toml", b"= ="),
    "settings": ("config.toml", b"data = 3"),
    "events": ("events.jsonl", b"\x00\x01\x02\n"),
    "event": ("events.jsonl", b'{"event": "started", "time"\n'),
    "time": ("events.jsonl", b'{"event": "started", "epochs": 3}\n'),
    "type": ("events.jsonl", b'{"event": "started", "time": 7, "epochs": 3}\n'),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_run_that_cannot_be_read_is_listed_with_the_reason(tmp_path: Path, what: str) -> None:
    held_run(tmp_path / "good").release()
    held_run(tmp_path / "bad").release()
    name, content = BROKEN[what]
    (tmp_path / "bad" / name).write_bytes(content)
    found = {entry.name: entry for entry in find_runs(tmp_path)}
    assert found["good"].problem == ""
    bad = found["bad"]
    assert (bad.status, bad.epoch) == (None, 0)
    assert "bad" in bad.problem
    assert "\n" not in bad.problem


@given(st.binary(max_size=200))
def test_any_bytes_as_events_are_listed(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "events.jsonl").write_bytes(content)
    [entry] = find_runs(folder)
    assert (entry.status is None) == bool(entry.problem)


def test_a_folder_that_is_gone_is_listed_but_for_the_windows_own(tmp_path: Path) -> None:
    gone = tmp_path / "server"
    assert find_runs(runs_folder()) == []
    [entry] = find_runs(runs_folder(), gone)
    assert entry == RunEntry(gone, problem=f"{gone} cannot be looked into (No such file or directory).")


def test_a_list_of_long_runs_costs_milliseconds(tmp_path: Path) -> None:
    for number in range(4):
        held_run(tmp_path / f"run{number}", 1000).release()
    assert (tmp_path / "run0" / "events.jsonl").stat().st_size > 350_000

    def seconds(cold: bool) -> float:
        if cold:
            for cached in (launch._read_events, launch._read_config, launch._read_info):
                cached.cache_clear()
        began = time.perf_counter()
        assert all(entry.epoch == 1000 for entry in find_runs(tmp_path))
        return time.perf_counter() - began

    assert min(seconds(cold=True) for _ in range(5)) / 4 < 0.010
    assert min(seconds(cold=False) for _ in range(5)) / 4 < 0.005


# Starting


def test_a_new_directory_has_a_name_that_is_not_taken(tmp_path: Path) -> None:
    settings = config(str(tmp_path / "cells"))
    first = new_run_folder(settings, tmp_path)
    assert first.parent == tmp_path
    assert first.name.endswith("-cells-smm_v2")
    first.mkdir()
    second = new_run_folder(settings, tmp_path)
    assert second != first
    long = new_run_folder(config(str(tmp_path / ("x" * 250))), tmp_path)
    long.mkdir()


def test_a_directory_that_is_used_is_refused_and_left_alone(run: Path, few: str, tmp_path: Path) -> None:
    held_run(run).release()
    before = {item.name: item.read_bytes() for item in run.iterdir() if item.is_file()}
    with pytest.raises(InputError, match="holds a run"):
        start(config(few), run)
    assert {item.name: item.read_bytes() for item in run.iterdir() if item.is_file()} == before
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="file"):
            start(config(few), path)
    held = RunWriter.create(tmp_path / "held", Progress())
    with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        start(config(few), tmp_path / "held")
    held.release()
    with pytest.raises(InputError, match=r"data\.root is empty"):
        start(config(""), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_a_run_is_resumed_stopped_or_asked(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="run directory"):
            resume(folder)
    with pytest.raises(InputError, match="cannot be stopped from here"):
        request_stop(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run directory"):
        status_of(tmp_path / "nowhere")


def test_the_engine_is_found_whether_it_is_installed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["one", "two"]))
    monkeypatch.setattr(launch.sysconfig, "get_path", lambda name: "/site")
    assert launch.environment()["PYTHONPATH"] == os.pathsep.join([str(ROOT), "one", "two"])
    monkeypatch.setattr(launch.sysconfig, "get_path", lambda name: str(ROOT))
    assert launch.environment()["PYTHONPATH"] == os.pathsep.join(["one", "two"])


# Logs


def test_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    assert log_tail(tmp_path) == []
    (tmp_path / "log.txt").write_bytes(b"x" * 200_000 + b"\nfirst \xff\nsecond\n")
    assert log_tail(tmp_path) == ["first \ufffd", "second"]
    assert log_tail(tmp_path, 1) == ["second"]
    assert log_tail(tmp_path, 0) == []
    assert failure(tmp_path) == "the trainer ended without a word."


@pytest.mark.parametrize(
    ("log", "given_up"),
    [
        ("", False),
        ("note: flags: model.name = 'unet' replaces\n", False),
        ("error: no room on the disk\n", True),
        ("Traceback (most recent call last):\n  File\nzlib.error: x\n", False),
        ("Traceback (most recent call last):\n  File\nmodule.SomeError: x\n\n", True),
        ("Traceback (most recent call last):\n  File\nMemoryError\n", True),
        ("/usr/bin/python3: No module named engine\n", True),
        ("error: once\nnote: tried again\n", False),
    ],
)
def test_last_words_tell_a_trainer_that_gave_up_from_one_to_come(
    tmp_path: Path, log: str, given_up: bool
) -> None:
    (tmp_path / "config.toml").touch()
    (tmp_path / "log.txt").write_text(log)
    assert status_of(tmp_path) == ("failed" if given_up else "waiting")


# Remembering


def test_folders_are_remembered_once_each_and_forgotten(tmp_path: Path, own_home: Path) -> None:
    assert remembered() == []
    for name in ("b", "a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        remember(tmp_path / name)
    assert remembered() == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InputError, match="no folder"):
        remember(tmp_path / "nowhere")
    (tmp_path / "a").rmdir()
    assert remembered() == [tmp_path / "a", tmp_path / "b"], "a server may come back"
    forget(tmp_path / "a")
    assert remembered() == [tmp_path / "b"]


def test_windows_that_remember_at_once_lose_nothing(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        folder.mkdir()
    threads = [Thread(target=remember, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(remembered()) == set(folders)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"folders": 3}', '{"folders": [3]}'])
def test_a_broken_memory_is_refused_in_one_sentence(own_home: Path, content: str) -> None:
    own_home.mkdir()
    (own_home / "remembered.json").write_text(content)
    with pytest.raises(InputError, match=r"remembered\.json cannot be read.*delete it"):
        remembered()


# The viewer's process


def test_starting_and_annotating_load_no_torch_and_no_window() -> None:
    code = (
        "import sys, napari_smm.launch, napari_smm.annotation, napari_smm.placement\n"
        "print([n for n in ('torch', 'napari', 'qtpy', 'PyQt5', 'PyQt6', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
