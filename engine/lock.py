"""The lock of a run directory: which process trains in it, and whether that process still lives."""

import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from engine.disk import replace_text
from engine.errors import InputError

SILENT_SECONDS = 60.0
"""A trainer on another host is taken for dead when its last sign of life is older."""

GUARD = "lock.guard"
"""Empty file that a process locks with the system's own means while it looks at `lock` and takes it,
so that of several that find a dead trainer's lock only one replaces it; or while it adds to
`thresholds.json`. It stays."""


@dataclass(frozen=True)
class Lock:
    """Who trains in a directory.

    Attributes:
        host: name of the machine.
        pid: number of the process there.
        started: the process's start in seconds since 1970, which tells a reused pid apart.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def mine(cls) -> "Lock":
        """This process's."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def alive(self) -> bool | None:
        """Whether the process runs; None if it is on another host and cannot be asked."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            # A killed process whose parent has not asked for its exit code stays as a zombie. Start
            # times of one process, read by two, can lie a second apart: they are counted from the
            # boot, whose time the system corrects.
            return bool(
                abs(process.create_time() - self.started) < 2 and process.status() != psutil.STATUS_ZOMBIE
            )
        except (psutil.NoSuchProcess, ValueError):
            return False


def read(root: Path) -> Lock | None:
    """The lock that is in a directory, of a living process or a dead one; None without one."""
    try:
        return Lock(**json.loads((root / "lock").read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # It is written in one piece, so what is no lock comes from a disk that lost it.
        return Lock(socket.gethostname(), -1, 0.0)


def holder(root: Path) -> Lock | None:
    """The living process that trains in a directory; None if there is none.

    The pid is asked on its own host only. From another host, what counts is the age of the
    heartbeat, or of the lock itself before the first heartbeat.
    """
    lock = read(root)
    if lock is None:
        return None
    alive = lock.alive()
    if alive is None:
        alive = silence(root) < SILENT_SECONDS
    return lock if alive else None


def silence(root: Path) -> float:
    """Seconds since a trainer's last sign of life; infinity without one."""
    signs = []
    for name in ("heartbeat", "lock"):
        try:
            signs.append((root / name).stat().st_mtime)
        except FileNotFoundError:
            continue
    return time.time() - max(signs) if signs else math.inf


def take(root: Path) -> Lock:
    """Take a directory for this process.

    Raises:
        InputError: a living process holds it, or nothing can be written there.
    """
    mine = Lock.mine()
    try:
        with one_at_a_time(root):
            other = holder(root)
            if other is None:
                replace_text(root / "lock", json.dumps(vars(mine)))
    except PermissionError:
        raise InputError(f"the run directory {root} cannot be written: permission is denied.") from None
    if other is None:
        # Where the file system has no locks of its own, another process may have come in between.
        now = read(root)
        other = now if now != mine else None
    if other is not None:
        raise InputError(
            f"the run directory {root} is in use by process {other.pid} on {other.host}: "
            "wait for it, stop it, or give another directory."
        )
    return mine


def free(root: Path, lock: Lock) -> None:
    """Let go of a directory, unless another process has taken it since."""
    if read(root) == lock:
        (root / "lock").unlink(missing_ok=True)


@contextmanager
def one_at_a_time(root: Path) -> Iterator[bool]:
    """Hold the guard of a directory: of several processes or threads one after the other is in the block.

    It is the system's own lock, which ends with its process, and meant for moments. Yields whether it is
    held: a file system without locks lets all in.
    """
    guard = FileLock(root / GUARD)
    try:
        guard.acquire()
    except NotImplementedError:  # the file system has no locks: go on without
        yield False
        return
    try:
        yield True
    finally:
        guard.release()
