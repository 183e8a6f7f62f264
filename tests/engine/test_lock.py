import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import engine
from engine import lock
from engine.errors import InputError
from engine.lock import SILENT_SECONDS, Lock

ROOT = Path(engine.__file__).parents[1]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, and is not asked for its exit code until the end."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def write(root: Path, held: Lock) -> None:
    (root / "lock").write_text(json.dumps(vars(held)), "utf-8")


def grow_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_taken_read_and_freed(tmp_path: Path) -> None:
    assert lock.read(tmp_path) is None
    mine = lock.take(tmp_path)
    assert mine.pid == os.getpid()
    assert lock.read(tmp_path) == lock.holder(tmp_path) == mine
    lock.free(tmp_path, mine)
    assert lock.holder(tmp_path) is None


def test_who_holds_it_is_said_to_the_next_even_in_the_same_process(tmp_path: Path) -> None:
    lock.take(tmp_path)
    with pytest.raises(InputError, match=f"in use by process {os.getpid()} on {socket.gethostname()}: wait"):
        lock.take(tmp_path)


def test_a_lock_that_another_took_meanwhile_is_not_freed(tmp_path: Path) -> None:
    mine = lock.take(tmp_path)
    other = Lock("elsewhere", 1, 0.0)
    write(tmp_path, other)
    lock.free(tmp_path, mine)
    assert lock.read(tmp_path) == other


def test_a_living_process_of_this_host_holds_it_a_killed_one_does_not(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    held = Lock(socket.gethostname(), sleeper.pid, psutil.Process(sleeper.pid).create_time())
    write(tmp_path, held)
    grow_old(tmp_path / "lock", 10 * SILENT_SECONDS)  # on its own host a process may be silent
    assert lock.holder(tmp_path) == held
    sleeper.kill()
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    # Dead, but its parent has not asked yet, as a viewer that launched it may never do.
    assert lock.holder(tmp_path) is None
    sleeper.wait()
    assert lock.holder(tmp_path) is None


def test_another_process_with_the_same_pid_does_not_hold_it(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    started = psutil.Process(sleeper.pid).create_time()
    write(tmp_path, Lock(socket.gethostname(), sleeper.pid, started - 100))
    assert lock.holder(tmp_path) is None


def test_a_process_of_another_host_holds_it_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    # The pid is this process's, which says nothing about the other host.
    held = Lock("elsewhere", os.getpid(), psutil.Process().create_time())
    write(tmp_path, held)
    assert lock.holder(tmp_path) == held  # just taken, no heartbeat yet
    grow_old(tmp_path / "lock", SILENT_SECONDS + 5)
    assert lock.holder(tmp_path) is None
    (tmp_path / "heartbeat").touch()
    assert lock.holder(tmp_path) == held
    with pytest.raises(InputError, match="on elsewhere"):
        lock.take(tmp_path)
    grow_old(tmp_path / "heartbeat", SILENT_SECONDS + 5)
    assert lock.holder(tmp_path) is None
    assert lock.silence(tmp_path) == pytest.approx(SILENT_SECONDS + 5, abs=2)
    lock.take(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"host": "a"}', '{"host": "a", "pid": 1, "started": 0, "x": 1}']
)
def test_a_damaged_lock_holds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    assert lock.holder(tmp_path) is None
    lock.take(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot be written: permission is denied"):
            lock.take(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_of_many_that_find_a_dead_lock_at_once_one_takes_it(tmp_path: Path) -> None:
    # In rounds, since a gap of microseconds is not hit every time.
    code = """
import sys, time
from pathlib import Path
from engine import lock
from engine.errors import InputError
print("ready", flush=True)
for line in sys.stdin:
    root, start = line.split()
    while time.time() < float(start):
        pass
    try:
        lock.take(Path(root))
        print("taken", flush=True)
    except InputError as error:
        print(error, flush=True)
"""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for _ in range(4)
    ]  # fmt: skip
    try:
        said = [(other.stdin, other.stdout) for other in others if other.stdin and other.stdout]
        assert [answer.readline() for _, answer in said] == ["ready\n"] * 4
        for number in range(20):
            root = tmp_path / str(number)
            root.mkdir()
            write(root, Lock(socket.gethostname(), 2**22 + 1, 1.0))
            start = time.time() + 0.05
            for ask, _ in said:
                ask.write(f"{root} {start}\n")
            answers = [answer.readline() for _, answer in said]
            assert answers.count("taken\n") == 1
            taken = others[answers.index("taken\n")].pid
            assert sum(f"in use by process {taken} " in answer for answer in answers) == 3
    finally:
        for other in others:
            other.communicate(timeout=30)
