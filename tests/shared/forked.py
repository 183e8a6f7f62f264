"""Processes that have torch at once: forked from one that has loaded it, which saves each of them seconds.

For tests of how a process ends, not of how it begins; those that start one as users do are elsewhere.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def forked(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function of this module with some arguments."""
    context = multiprocessing.get_context("forkserver")
    # An optimiser loads the second with its first group of parameters.
    context.set_forkserver_preload(["engine.train", "torch._dynamo"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def trains(arguments: Sequence[str]) -> None:
    """What `python -m engine.train` does."""
    from engine import train
    from engine.command import run

    sys.argv[1:] = arguments
    run(train.main)


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
