"""Where and in which arithmetic a network runs."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from engine.errors import InputError
from engine.ranks import ALONE, Ranks

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def find_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device of a setting; "auto" is CUDA, then MPS, then the CPU.

    Args:
        name: of the setting.
        ranks: the processes that train together: on CUDA each takes a GPU of its own.

    Raises:
        InputError: no such device on this machine, or not one for each process.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device() if ranks.alone else _own_gpu(ranks))
        return torch.device("mps" if torch.backends.mps.is_available() and ranks.alone else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"training.device {name!r} is no device: auto, cpu, cuda, cuda:1, mps are."
        ) from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise InputError(f"training.device {name!r} is not on this machine: use auto or cpu.")
    if not ranks.alone and (device.type == "mps" or device.index is not None):
        raise InputError(
            f"training.device is {name}, which {ranks.size} processes cannot share: cuda, which gives each a "
            "GPU of its own, or cpu would work."
        )
    if device.type == "cuda" and not ranks.alone:
        return torch.device("cuda", _own_gpu(ranks))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"training.device {name!r} is one of {torch.cuda.device_count()} only (cuda:0 …).")
    return device


def _own_gpu(ranks: Ranks) -> int:
    if ranks.local_size > torch.cuda.device_count():
        raise InputError(
            f"{ranks.local_size} processes are on this machine, which has {torch.cuda.device_count()} GPUs: "
            "--nproc-per-node of torchrun can be that number at most."
        )
    return ranks.local


def find_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Type for autocast, or None for float32 throughout."""
    if name == "auto":
        if device.type != "cuda":
            return None
        # Asked of this device, not of the current one; older ones only emulate bfloat16, slowly.
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    return DTYPES.get(name)


def device_name(device: torch.device) -> str:
    """The device in words, for run.json."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):  # only Linux has it, and only there is platform.processor() of no use
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def arithmetic(threads: int | None, deterministic: bool, compiled: bool = False) -> Iterator[None]:
    """Set threads, determinism and memory that is kept for a block, and set them back after it.

    Args:
        threads: of the CPU; None leaves them as they are.
        deterministic: whether the same gives the same.
        compiled: whether something is compiled inside; the compiler, which takes as long to load as torch
            itself, is told only then.
    """
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    if deterministic:
        # cuBLAS reads this when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiled:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    else:
        torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    # Else torch writes every new tensor twice; nothing here reads one before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with kept_memory():
            yield
    finally:
        torch.set_num_threads(before[0])
        if compiled:
            torch.use_deterministic_algorithms(before[1] > 0, warn_only=before[1] == 1)
        else:
            torch.set_deterministic_debug_mode(before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:4]
        torch.utils.deterministic.fill_uninitialized_memory = before[4]  # type: ignore[attr-defined]


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of malloc.h."""
KEPT = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1}
USUAL = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}
"""Bytes: what glibc comes to by itself where large buffers are freed."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """For a block, have the C library keep what is freed for the next buffer, up to 1 GiB each.

    It else gives the large buffers of each step on a CPU back to the system, which hands them out anew page
    by page, each filled with zeros. Without effect where the C library is not glibc, or an old one.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    kept = hasattr(libc, "mallopt") and all(libc.mallopt(*setting) for setting in KEPT.items())
    try:
        yield
    finally:
        if kept:
            for setting in USUAL.items():
                libc.mallopt(*setting)
            libc.malloc_trim(0)


@contextmanager
def full_precision() -> Iterator[None]:
    """For a block, float32 that is float32, and one result for one input; set back after it.

    CUDA else multiplies the float32 of convolutions, and of matrices where someone allowed it, as TF32,
    which keeps 10 bits of 23; and some of cuDNN's algorithms add up in an order of chance.
    """
    switches = _switches()
    before = [getattr(holder, name) for holder, name, _ in switches]
    try:
        for holder, name, value in switches:
            setattr(holder, name, value)
        yield
    finally:
        for (holder, name, _), value in zip(switches, before, strict=True):
            setattr(holder, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    """Where PyTorch keeps each setting, its name, and the value for full precision."""
    backends: Any = torch.backends
    cudnn = [(backends.cudnn, "deterministic", True), (backends.cudnn, "benchmark", False)]
    if hasattr(backends.cudnn, "conv"):  # from 2.9 on, where the older names may not be mixed with these
        operations = [
            getattr(part, name) for part in (backends.cudnn, backends.mkldnn) for name in ("conv", "rnn")
        ]
        operations += [backends.cuda.matmul, backends.mkldnn.matmul]
        return [*cudnn, *((operation, "fp32_precision", "ieee") for operation in operations)]
    return [*cudnn, (backends.cudnn, "allow_tf32", False), (backends.cuda.matmul, "allow_tf32", False)]
