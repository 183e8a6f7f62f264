"""Processes that have torch at once: forked from one that has loaded it, which saves each of them seconds.

For tests of how a process ends, not of how it begins; those that start one as users do are elsewhere.
"""

import asyncio
import ctypes
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def forked(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function of this module with some arguments."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.train"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def trains(arguments: Sequence[str]) -> None:
    """What `python -m engine.train` does."""
    from engine import train
    from engine.command import run

    sys.argv[1:] = arguments
    run(train.main)


def with_others(rank: int, size: int, port: int, target: Callable[..., None], *arguments: Any) -> None:
    """Call a function as one of several processes that `torchrun` would start."""
    rank_and_size = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in (rank_and_size | address).items()}
    target(*arguments)


def start_together(size: int, target: Callable[..., None], *arguments: Any) -> list[BaseProcess]:
    """Call a function in several processes that find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [forked(with_others, rank, size, port, target, *arguments) for rank in range(size)]


def exit_codes(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Of processes that end by themselves."""
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


def together(size: int, target: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Call a function in several processes that find each other, and wait for them: their exit codes."""
    return exit_codes(start_together(size, target, *arguments))


def trains_saying(said: Path, arguments: Sequence[str]) -> None:
    """Train, with what goes to standard error appended to a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    trains(arguments)


def trains_until_write(write: int, arguments: Sequence[str]) -> None:
    """Train, and die without a word at the given write to the disk."""
    left, sync = write, os.fsync

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = fsync
    trains(arguments)


def saves(path: Path, said: Any) -> None:
    """Save one checkpoint after another, and send the number of each that is there."""
    import torch

    from engine import checkpoint

    number, state = 0, torch.zeros(500_000)
    while True:
        number += 1
        checkpoint.save(path, {"epoch": number, "model": state + number})
        said.send(number)


def saves_without_room(path: Path, said: Any) -> None:
    """Save a checkpoint, then ones larger than files may be, and send the numbers of the errors."""
    import resource

    import torch

    from engine import checkpoint

    checkpoint.save(path, {"epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    refused = []
    for length in (100_000, 30_000, 24_900):  # refused in the middle, at the end, in the table of contents
        try:
            checkpoint.save(path, {"epoch": 2, "model": torch.zeros(length)})
        except OSError as error:
            refused.append(error.errno)
    said.send(refused)


def predicts(arguments: Sequence[str]) -> None:
    """What `python -m engine.predict` does."""
    from engine import predict
    from engine.command import run

    sys.argv[1:] = arguments
    run(predict.main)


def predicts_until_file(name: str, arguments: Sequence[str]) -> None:
    """Predict, and die without a word when a file whose path ends so is written but not in its place yet."""
    replace = os.replace

    def dying(there: Any, path: Any) -> None:
        if str(path).endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(there, path)

    os.replace = dying
    predicts(arguments)


def mounted(folder: Path, size: int, *, again: bool = False) -> None:
    """Put a disk of so many bytes of memory on a folder, for this process alone, or change its size.

    Raises:
        OSError: the system does not let this user.
    """
    new_namespace, new_users, private, recursive, remount = 0x20000, 0x10000000, 1 << 18, 1 << 14, 1 << 5
    libc, user = ctypes.CDLL(None, use_errno=True), os.getuid()

    def call(name: str, *values: Any) -> None:
        if getattr(libc, name)(*values):
            raise OSError(ctypes.get_errno(), f"{name} is refused")

    if not again:
        call("unshare", new_namespace | (new_users if user else 0))
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        call("mount", b"none", b"/", None, private | recursive, None)
    flags = remount if again else 0
    call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode())


def streams_without_room(run: Path, image: Path, out: Path, copy: Path, said: Any) -> None:
    """Predict onto a disk that has room for half of it, then for all; send what is refused, or why there is
    no such disk, and leave copies of the folder, half and whole."""
    from engine.errors import InputError
    from engine.streaming import stream

    try:
        mounted(out, 200_000)
    except OSError as error:
        said.send(str(error))
        return
    said.send(None)
    try:
        stream(run, image, out, tile=64, device="cpu")
    except InputError as error:
        said.send(str(error))
    shutil.copytree(out, copy / "half")
    mounted(out, 9_000_000, again=True)
    said.send(stream(run, image, out, tile=64, device="cpu", resume=True))
    shutil.copytree(out, copy / "whole")


def works(scheduler: str) -> None:
    """What `dask worker --no-nanny` does, until the scheduler goes."""
    from distributed import Worker

    from engine import cluster

    async def working() -> None:
        async with Worker(
            scheduler, nthreads=1, memory_limit=0, host="127.0.0.1", dashboard=False,
            dashboard_address="127.0.0.1:0",
        ) as worker:  # fmt: skip
            await worker.finished()

    import dask

    with dask.config.set(cluster.QUIET):
        asyncio.run(working())
