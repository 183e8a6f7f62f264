"""A prediction on many machines: ranges of its rows on the workers of a dask.distributed cluster."""

import socket
import threading
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

from distributed import get_worker, wait

from engine import cluster, fingerprint, lock
from engine.data.rows import Rows, open_rows
from engine.errors import InputError
from engine.streamed.progress import SECONDS, Progress
from engine.streamed.pyramid import Pyramid
from engine.streamed.ranges import keep, tiles_of, written
from engine.streamed.state import Span, State
from engine.tiles import unit
from engine.trained import Part, Trained

STOP = ".stop"
"""File by which the workers of a cluster are told that nobody waits for them any more."""
SHARES = 4
"""Ranges for each worker, so that the slowest one does not keep the others waiting for long."""
PATIENCE = 60.0
"""Seconds that the tiles in work may take to end; workers that died never tell, and what lives ends with
the lock of the folder."""
TALL = 4
"""Tiles that a range is high at least, where there are rows enough: neighbours predict a tile each anew."""
_ALONE = threading.Lock()


@dataclass(frozen=True)
class Range:
    """What a worker must know of a range.

    Attributes:
        run: run directory.
        checkpoint: its file.
        weights: fingerprint of what must be in it.
        device: as :meth:`Trained.open`.
        tile: longest side predicted at once.
        image: its file or folder.
        part: the rows, and how the image is normalised.
        pyramid: the arrays.
        holder: who holds the prediction's folder.
        topic: name of the events by which the worker says how far it is.
    """

    run: Path
    checkpoint: Path
    weights: str
    device: str
    tile: int
    image: Path
    part: Part
    pyramid: Pyramid
    holder: lock.Lock | None
    topic: str


def predict_there(
    trained: Trained, rows: Rows, part: Part, state: State, progress: Progress, device: str, address: str
) -> None:
    """Predict all that is missing, on the workers of the cluster whose scheduler has an address.

    Raises:
        InputError: no scheduler or worker answers; or a worker sees another run or image, or none.
    """
    if trained.resizes(rows):
        raise InputError(
            f"the run {trained.root} resizes images, and so takes {rows.name} as a whole: predict it "
            "without --scheduler."
        )
    out = state.pyramid.out
    (out / STOP).unlink(missing_ok=True)  # one killed as it ended left it
    with cluster.remote(address) as client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise InputError(
                f"the scheduler at {address} has no workers: start some with `dask worker {address}`."
            )
        spans = split(state.missing(), workers, -(-TALL * trained.predictor.tile // unit(rows.shape[:-1])[0]))
        tiles = {span: tiles_of(trained, rows, span) for span in spans}
        total = max(sum(tiles.values()), tiles_of(trained, rows))
        progress.begin(total, total - sum(tiles.values()))
        common = Range(
            trained.root.resolve(), trained.path.resolve(), fingerprint.weights(trained.predictor.network),
            device, trained.predictor.tile, Path(rows.name).resolve(), part, state.pyramid,
            lock.read(out), f"prediction-{uuid.uuid4()}",
        )  # fmt: skip
        jobs = [replace(common, part=replace(part, rows=span)) for span in spans]
        heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
        client.subscribe_topic(common.topic, lambda event: heard.put(event[1]))
        futures = {client.submit(predict_range, job, pure=False): job for job in jobs}
        try:
            _follow(futures, heard, tiles, state, progress)
        except BaseException:
            (out / STOP).touch()
            with suppress(Exception):  # a scheduler that is gone has nothing to wait for
                wait(list(futures), PATIENCE)
            raise
        finally:
            (out / STOP).unlink(missing_ok=True)
            client.unsubscribe_topic(common.topic)


def split(missing: list[Span], workers: int, least: int) -> list[Span]:
    """Ranges of rows for so many workers, each of at least so many rows where there are enough for all."""
    count = sum(last - first for first, last in missing)
    each = max(1, min(-(-count // workers), max(-(-count // (SHARES * workers)), least)))
    return [(start, min(start + each, last)) for first, last in missing for start in range(first, last, each)]


def _follow(
    futures: dict[Any, Range], heard: "SimpleQueue[dict[str, Any]]", tiles: dict[Span, int], state: State,
    progress: Progress,
) -> None:  # fmt: skip
    """Take down what the workers say, until all ranges are written."""
    counted: Counter[Span] = Counter()

    def reach(span: Span, done: int) -> None:
        progress.tick(max(0, done - counted[span]))
        counted[span] = max(done, counted[span])

    left = set(futures)
    while left:
        with suppress(TimeoutError):
            wait(left, SECONDS, return_when="FIRST_COMPLETED")
        while not heard.empty():
            event = heard.get()
            reach(tuple(event["span"]), event["tiles"])
            if event["row"] is not None and event["row"] not in state.done:
                keep(event["row"], state, progress)
        for future in [future for future in left if future.done()]:
            left.remove(future)
            span = futures[future].part.rows
            assert span is not None
            if not future.result():
                progress.look()  # workers may see a `cancel` first
                raise RuntimeError(f"a worker left the rows {span[0]} to {span[1] - 1} without being told to")
            reach(span, tiles[span])
            for row in sorted(set(range(*span)) - state.done):
                keep(row, state, progress)
        progress.look()


def predict_range(job: Range) -> bool:
    """Predict a range into the arrays, on a worker. Returns whether it came to its end.

    Raises:
        InputError: the worker does not see the prediction's folder, the run or the image, or others.
    """
    out = job.pyramid.out
    if not (out / "state.json").is_file():
        raise InputError(
            f"the worker on {socket.gethostname()} does not see {out}: the machines of a cluster need a disk "
            "in common."
        )
    worker, span = get_worker(), job.part.rows
    done, said = 0, monotonic()

    def say(row: int | None = None) -> None:
        worker.log_event(job.topic, {"span": span, "tiles": done, "row": row})

    def ticked() -> None:
        nonlocal done, said
        done += 1
        if monotonic() - said >= SECONDS:
            said = monotonic()
            say()
        if _told_to_end(job):
            raise _EndedError

    # One at a time in a process, whatever the threads of the worker: each takes the memory of one.
    with _ALONE, suppress(_EndedError):
        if _told_to_end(job):
            return False
        trained = _opened(job.run, job.checkpoint, job.device, job.tile, job.weights)
        rows = open_rows(job.image, trained.channels, lambda: None, trained.config.data.axes)
        for row in written(trained, rows, job.pyramid, job.part, ticked):
            say(row)
        return True
    return False


class _EndedError(Exception):
    """Nobody waits for the range any more."""


def _told_to_end(job: Range) -> bool:
    out = job.pyramid.out
    return (out / "cancel").exists() or (out / STOP).exists() or lock.read(out) != job.holder


@lru_cache(maxsize=1)
def _opened(run: Path, checkpoint: Path, device: str, tile: int, weights: str) -> Trained:
    """The run, once for all ranges of a prediction."""
    trained = Trained.open(run, str(checkpoint), device).tiled(tile)
    if fingerprint.weights(trained.predictor.network) != weights:
        raise InputError(
            f"the worker on {socket.gethostname()} finds other weights in {checkpoint}: the machines of a "
            "cluster need a disk in common."
        )
    return trained
