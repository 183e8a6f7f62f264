"""How time and memory grow with the number of images: 10² to 10⁵ of 64 × 64 pixels, RGB, with masks.

python benchmarks/growth.py [--counts 100 1000 10000] [--caches memory disk] [--folder FOLDER] [--keep]

A U-Net of base width 4 and two stages is trained with SMM v2 for three epochs on 4/5 of the images, and
validated on the others, by what `python -m engine.train` does, in a process of its own for each number of
images and each place where decoded images are kept (`data.cache`). Its start is told apart: opening (files,
layout, classes, splits, headers), decoding, and run.json. Memory is the process's resident size above that of
a process with a batch of images, with and without the pages of mapped files, which the system can take back.

On a CPU `device` is the same as `memory`, and is left out. `none` is for images that are stored in chunks
(benchmarks/lazy_training.py). 100000 images take 0.9 GB of disk, and a few minutes a cache on two cores.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from types import ModuleType
from typing import Any

import numpy as np
import torch
from measured import Table, Target, options, report
from PIL import Image

from engine.config import Layer, RunConfig, resolve
from engine.device import find_device

SIDE = 64
BATCH = 64
EPOCHS = 3
FLOOR = BATCH
"""Images of the process whose memory is taken from that of the others."""
SHARD = 1000
"""Images that one process of the pool writes at a time."""
MOST_SLOPE = 1.05
MEMORY = ("resident", "own", "peak", "peak own")


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", nargs="+", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--caches", nargs="+", choices=("memory", "device", "disk"))
    parser.add_argument("--folder", type=Path, help="where images are made, or are already, and stay")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; its own choice if not given")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "CACHE"), help=argparse.SUPPRESS)
    options(parser)
    given = parser.parse_args()
    device = find_device(given.device)
    if given.one is not None:
        print(json.dumps(one(Path(given.one[0]), given.one[1], device, given.threads)))
        return
    if not Path("/proc/self/status").exists():
        raise SystemExit("memory is read from /proc: this benchmark needs Linux.")
    caches = given.caches or ["memory", *(["device"] if device.type != "cpu" else []), "disk"]
    if device.type == "cpu" and "device" in caches:
        raise SystemExit("on a CPU the cache `device` is the same as `memory`: leave it out.")
    counts = sorted(given.counts)
    with folder_of(given.folder) as folder:
        for count in (FLOOR, *counts):
            images(folder, max(counts), count)
        measured = {}
        for cache in caches:
            floor = in_process(folder / str(FLOOR), cache, device, given.threads)
            for count in counts:
                measured[cache, count] = above(
                    in_process(folder / str(count), cache, device, given.threads), floor
                )
                print(f"{cache}, {count} images: {said(measured[cache, count])}", file=sys.stderr)
    tables = [epochs_table(measured, counts), start_table(measured, counts), slopes_table(measured, counts)]
    report(
        "growth",
        device,
        tables,
        targets(measured, counts, device),
        keep=given.keep,
        about=(__doc__ or "").strip(),
    )


# Images


@contextmanager
def folder_of(given: Path | None) -> Iterator[Path]:
    """The folder of the images: the given one, or one that goes when it is not needed any more."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def images(folder: Path, most: int, count: int) -> None:
    """Make the largest set, and those of fewer images as links to its first ones, unless they are there."""
    whole = folder / str(max(most, FLOOR))
    if not whole.exists():
        unfinished = folder / "unfinished"
        for name in ("images", "masks"):
            (unfinished / name).mkdir(parents=True, exist_ok=True)
        total = int(whole.name)
        began = time.perf_counter()
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(write, unfinished, total), range(0, total, SHARD)))
        unfinished.rename(whole)
        print(f"{total} images made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    part = folder / str(count)
    if not part.exists():
        for name in ("images", "masks"):
            (part / name).mkdir(parents=True)
            for number in range(count):
                file = f"{number:06d}.png"
                os.link(whole / name / file, part / name / file)


def write(folder: Path, total: int, first: int) -> None:
    """Some of the images and masks: a bright disc on noise, and where it is."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    for number in range(first, min(first + SHARD, total)):
        rng = np.random.default_rng(number)
        row, column, radius = rng.uniform((8, 8, 4), (SIDE - 8, SIDE - 8, 14))
        disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        noise = rng.integers(64, 96, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels = noise + np.array([64, 32, 0], np.uint8) * disc[..., None]
        name = f"{number:06d}.png"
        Image.fromarray(pixels).save(folder / "images" / name, compress_level=1)
        Image.fromarray(disc.astype(np.uint8) * np.uint8(255)).save(folder / "masks" / name, compress_level=1)


# One measurement, in its process


def one(root: Path, cache: str, device: torch.device, threads: int | None) -> dict[str, Any]:
    """Train as `python -m engine.train` does. Returns seconds and bytes of every part."""
    from engine import train

    values: dict[str, Any] = {
        "data": {"root": str(root), "cache": cache, "split": [0.8, 0.2, 0, 0]},
        "model": {"name": "unet", "base_width": 4, "depth": 2},
        "modulation": {"name": "smm_v2", "warmup": 0.34},
        "training": {"epochs": EPOCHS, "batch_size": BATCH, "device": str(device), "threads": threads},
        "watch": {"train": 0, "val": 0},
    }
    config: RunConfig = resolve([Layer("benchmark", values)])[0]
    marks = Marks(train, ("open_dataset", "prepare", "follow", "save"))
    with tempfile.TemporaryDirectory(dir=root.parent) as folder, Sampler() as sampler:
        out = Path(folder) / "run"
        train.start(config, out, quiet=True)
        lines = (json.loads(line) for line in (out / "events.jsonl").read_text().splitlines())
        inside = [line["seconds"] for line in lines if line["event"] == "epoch"]
        ends = [*marks.of("follow begins"), *marks.of("save ends")]
        epochs = [
            {**between(end, begin), **begin.memory, "saving": between(begin, saved)["wall"], **seconds}
            for end, begin, saved, seconds in zip(
                ends, marks.of("save begins"), marks.of("save ends"), inside, strict=False
            )
        ]
        return {
            "opening": between(*marks.of("open_dataset begins"), *marks.of("open_dataset ends")),
            "decoding": between(*marks.of("prepare begins"), *marks.of("prepare ends")),
            "describing": between(*marks.of("prepare ends"), *marks.of("follow begins")),
            "loaded": marks.of("follow begins")[0].memory,
            "epochs": epochs,
            "peak": sampler.peak,
            "run_json": (out / "run.json").stat().st_size,
            "checkpoint": (out / "checkpoints" / "last").stat().st_size,
            "device_memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        }


@dataclass(frozen=True)
class Mark:
    """A moment of a run.

    Attributes:
        what: began or ended.
        wall, processor: seconds of the clock, and of this process's work.
        memory: bytes, see :func:`memory`.
    """

    what: str
    wall: float
    processor: float
    memory: dict[str, int]


class Marks:
    """Takes note when functions of a module begin and end."""

    def __init__(self, module: ModuleType, names: Sequence[str]) -> None:
        self._marks: list[Mark] = []
        for name in names:
            setattr(module, name, self._marked(name, getattr(module, name)))

    def of(self, what: str) -> list[Mark]:
        """The moments of a kind, such as "save ends"."""
        return [mark for mark in self._marks if mark.what == what]

    def _marked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._add(f"{name} begins")
            found = function(*arguments, **named)
            self._add(f"{name} ends")
            return found

        return call

    def _add(self, what: str) -> None:
        self._marks.append(Mark(what, time.perf_counter(), time.process_time(), memory()))


def between(first: Mark, last: Mark) -> dict[str, float]:
    """Seconds from one moment to another."""
    return {"wall": last.wall - first.wall, "processor": last.processor - first.processor}


def memory() -> dict[str, int]:
    """Bytes of this process that are resident: all of them, and without pages of files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    kept = {words[0]: int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
    return {"resident": kept["VmRSS:"], "own": kept["RssAnon:"]}


class Sampler:
    """Looks fifty times a second at how much memory there is in use, and keeps the most."""

    def __init__(self) -> None:
        self.peak = memory()
        self._ended = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = {name: max(self.peak[name], now) for name, now in memory().items()}


def in_process(root: Path, cache: str, device: torch.device, threads: int | None) -> dict[str, Any]:
    """What :func:`one` says, in a process of its own."""
    command = [sys.executable, __file__, "--one", str(root), cache, "--device", str(device)]
    command += [] if threads is None else ["--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# What becomes of it


def above(found: dict[str, Any], floor: dict[str, Any]) -> dict[str, float]:
    """The figures of a measurement; of memory, what lies above that of another."""
    last, first = found["epochs"][-1], floor["epochs"][-1]
    figures = {
        "opening": found["opening"]["wall"],
        "decoding": found["decoding"]["wall"],
        "describing": found["describing"]["wall"],
        "start processor": sum(found[part]["processor"] for part in ("opening", "decoding", "describing")),
        "first epoch": found["epochs"][0]["wall"],
        "epoch": median(epoch["wall"] for epoch in found["epochs"][1:]),
        "epoch processor": median(epoch["processor"] for epoch in found["epochs"][1:]),
        "validation": median(epoch["validation"] for epoch in found["epochs"][1:]),
        "saving": median(epoch["saving"] for epoch in found["epochs"]),
        "resident": last["resident"] - first["resident"],
        "own": last["own"] - first["own"],
        "loaded": found["loaded"]["resident"] - floor["loaded"]["resident"],
        "peak": found["peak"]["resident"] - floor["peak"]["resident"],
        "peak own": found["peak"]["own"] - floor["peak"]["own"],
        "grown": last["own"] - found["epochs"][0]["own"],
        "device": found["device_memory"] - floor["device_memory"],
        "run.json": found["run_json"],
        "checkpoint": found["checkpoint"],
    }
    return {**figures, "start": figures["opening"] + figures["decoding"] + figures["describing"]}


def said(figures: dict[str, float]) -> str:
    """In a line, while one waits."""
    return (
        f"start {figures['start']:.2f} s, epoch {figures['epoch']:.2f} s, "
        f"{figures['resident'] / 1e6:.0f} MB, peak {figures['peak'] / 1e6:.0f} MB"
    )


Measured = dict[tuple[str, int], dict[str, float]]


def epochs_table(measured: Measured, counts: Sequence[int]) -> Table:
    """Time and memory of an epoch."""
    rows = [
        (
            cache, count, found["epoch"], found["epoch processor"], 1e3 * found["epoch"] / count,
            found["validation"], found["saving"], found["resident"] / 1e6, found["own"] / 1e6,
            found["peak"] / 1e6, found["peak own"] / 1e6, found["own"] / count / 1e3, found["grown"] / 1e6,
            found["device"] / 1e6,
        )
        for (cache, count), found in in_order(measured, counts)
    ]  # fmt: skip
    columns = (
        "kept in", "images", "epoch s", "processor s", "ms an image", "of it validation s", "saving s",
        "memory MB", "without files MB", "peak MB", "peak without files MB", "without files kB an image",
        "more after the last epoch than after the first MB", "GPU memory MB",
    )  # fmt: skip
    note = (
        f"Median of epochs 2 to {EPOCHS}; {SIDE} × {SIDE} RGB, 12.3 kB an image; memory in the last epoch, "
        f"above that of a process with {FLOOR} images."
    )
    return Table("epoch_by_images", "An epoch, by the number of images", columns, rows, note)


def start_table(measured: Measured, counts: Sequence[int]) -> Table:
    """Time from the settings to the first step."""
    rows = [
        (
            cache, count, found["opening"], found["decoding"], found["describing"], found["start"],
            1e3 * found["start"] / count, found["start processor"], found["first epoch"],
            found["run.json"] / 1e6, found["checkpoint"] / 1e6,
        )
        for (cache, count), found in in_order(measured, counts)
    ]  # fmt: skip
    columns = (
        "kept in", "images", "opening s", "decoding s", "run.json s", "together s", "ms an image",
        "processor s", "first epoch s", "run.json MB", "checkpoint MB",
    )  # fmt: skip
    return Table("start_by_images", "The start, by the number of images", columns, rows)


def slopes_table(measured: Measured, counts: Sequence[int]) -> Table:
    """How steeply time and memory grow, on logarithmic axes."""
    names = ("start", "start processor", "epoch", "epoch processor", "resident", "peak", "own")
    rows = [
        (cache, f"{few} to {many}", *(slope(measured, cache, few, many, name) for name in names))
        for cache in caches_in(measured)
        for few, many in pairwise(counts)
    ]
    columns = (
        "kept in", "images", "start", "its processor time", "epoch", "its processor time", "memory",
        "peak", "without files",
    )  # fmt: skip
    note = (
        "1 is growth in proportion; constant costs make it less. Memory of a few hundred images "
        "lies within what a process's own varies by: there is no slope where it is less than 10 MB."
    )
    return Table("slopes_by_images", "Slopes between numbers of images", columns, rows, note)


def slope(measured: Measured, cache: str, few: int, many: int, name: str) -> float:
    """Of a figure on logarithmic axes; NaN where it is too small to tell."""
    first, last = measured[cache, few][name], measured[cache, many][name]
    least = 1e7 if name in MEMORY else 0.0
    return math.log(last / first) / math.log(many / few) if min(first, last) > least else math.nan


def targets(measured: Measured, counts: Sequence[int], device: torch.device) -> list[Target]:
    """Growth in proportion at the most, between the two largest numbers of images.

    On a CPU it is the processor's time that counts, which is the same beside other work.
    """
    if len(counts) < 2:
        return []
    few, many = counts[-2:]
    kind = " processor" if device.type == "cpu" else ""
    found = {
        f"slope of {word}, {cache}, {few} to {many} images": slope(measured, cache, few, many, name)
        for cache in caches_in(measured)
        for name, word in (
            (f"epoch{kind}", f"{kind} time an epoch".strip()),
            (f"start{kind}", f"{kind} time to start".strip()),
            ("peak", "memory at most"),
        )
    }
    return [
        Target(what, value, most=MOST_SLOPE, unit="")
        for what, value in found.items()
        if not math.isnan(value)
    ]


def caches_in(measured: Measured) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(cache for cache, _ in measured))


def in_order(measured: Measured, counts: Sequence[int]) -> Iterator[tuple[tuple[str, int], dict[str, float]]]:
    """By cache, then by the number of images."""
    for cache in caches_in(measured):
        for count in counts:
            yield (cache, count), measured[cache, count]


if __name__ == "__main__":
    main()
