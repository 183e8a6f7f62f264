"""Workers for many jobs at once, through dask.distributed: those of this machine, or a scheduler's.

Those of this machine are for comparisons, whose workers do nothing but start processes and wait for them:
they are threads of this process, so there is no port that a stranger could reach, and nothing to leave
behind.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, Scheduler, SpecCluster, Worker

from engine.errors import InputError

CONNECT_SECONDS = 10
QUIET = {
    # The web servers of scheduler and workers cannot be left out, but have nothing to show.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.diagnostics.nvml": False,
    "distributed.admin.log-format": "%(name)s: %(message)s",
}


@contextmanager
def local(workers: int) -> Iterator[Client]:
    """Workers numbered from 0 on this machine, each for one run at a time."""
    page = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch, dask.config.set(QUIET):
        worker = {"protocol": "inproc://", "nthreads": 1, "memory_limit": 0, "local_directory": scratch}
        with (
            SpecCluster(
                scheduler={"cls": Scheduler, "options": {"protocol": "inproc://", **page}},
                workers={
                    number: {"cls": Worker, "options": {**worker, **page, "name": number}}
                    for number in range(workers)
                },
                silence_logs=40,
            ) as cluster,
            # Nothing else in this process is to be computed by the cluster.
            Client(cluster, set_as_default=False) as client,
            client.as_current(),
        ):
            yield client


@contextmanager
def remote(address: str) -> Iterator[Client]:
    """A cluster's workers, by its scheduler's address such as tcp://node7:8786.

    Raises:
        InputError: no scheduler answers there.
    """
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"no scheduler answers at {address} ({reason}): start one with `dask scheduler`, and give the "
            "address that it prints, such as tcp://node7:8786."
        ) from None
    with client, client.as_current():
        yield client


def shares(workers: int | None) -> tuple[dict[str, str], ...]:
    """Environment of each worker's processes on this machine.

    With CUDA devices there is a worker for each, which sees that one alone; more workers take turns on
    them. Without, there is one that has the whole processor; several divide its threads.

    Args:
        workers: how many; None for one a CUDA device, or one.
    """
    devices = _cuda_devices()
    count = workers or max(1, len(devices))
    threads = {"OMP_NUM_THREADS": str(max(1, _threads() // count))} if count > 1 else {}
    return tuple(
        {**threads, **({"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {})}
        for number in range(count)
    )


def _cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def _threads() -> int:
    """Threads that there are to divide: the user's own limit, or the processor's."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit():
        return int(limit)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
