"""Training throughput: images a second of the engine, and of the loops that a user would write instead.

U-Net on RGB images in batches of 4, Dice + cross-entropy, Adam; the same files, first weights, changes of
the images and probabilities in each way (see plain_loops.py). Whole epochs in turns, no validation, nothing
watched.

    plain       all changes: mirrors, quarter turns, rotation, zoom, elastic, brightness, contrast;
                against a newcomer's loop of PyTorch and MONAI, and the same loop tuned
    SMM v1, v2  mirrors, quarter turns, brightness and contrast, so that misses can be those of the training
                pass itself (modulation.source auto then takes train); masks are read, grown and recorded in
                every epoch; against the SMM authors' way: masks as files, a pass after each epoch, dilation
                image by image with scikit-image, on the tuned loop

Then the shares of network, data and modulation in a step of the engine (see step_shares.py).

    python benchmarks/training.py [--sides 256] [--ways plain newcomer tuned] [--rounds 3] [--keep]
"""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measured import Table, Target, in_turns, options, ratio, report
from PIL import Image
from plain_loops import Authors, Task, Tuned, newcomer
from step_shares import shares

from engine.config import Layer, RunConfig, resolve
from engine.data.demo import demo_pair
from engine.data.specs import Augment
from engine.device import arithmetic, find_device
from engine.flags import parse
from engine.loop import fit
from engine.models.unet import UNet
from engine.prepare import Prepared, prepare

ALL = Augment(
    rotation=15, scale=(0.85, 1.25), elastic_alpha=(0, 900), brightness=(0.8, 1.25), contrast=(0.8, 1.25)
)
"""Of the DSC++ preset, but for brightness, with every change at its probability of 0.15."""
UNDONE = Augment(brightness=ALL.brightness, contrast=ALL.contrast)
"""What can be undone exactly, and brightness and contrast, which move nothing."""
OURS = {"plain": "none", "v1": "smm_v1", "v2": "smm_v2"}
AGAINST = {"newcomer": "plain", "tuned": "plain", "authors_v1": "v1", "authors_v2": "v2"}
WORDS = {
    "plain": "engine, plain",
    "newcomer": "PyTorch and MONAI, as a newcomer writes it",
    "tuned": "PyTorch and MONAI, tuned",
    "v1": "engine, SMM v1",
    "authors_v1": "SMM v1 as its authors tell it",
    "v2": "engine, SMM v2",
    "authors_v2": "SMM v2 as its authors tell it",
}
LEAST = {"cpu": {"newcomer": 1.3, "tuned": 1.05}, "cuda": {"newcomer": 3.0, "tuned": 1.5}}
DRAWN = 16  # different images in a set; larger sets repeat them
TINT = (1.0, 0.7, 0.4)  # of the images, so that the channels differ


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--ways", nargs="+", choices=list(WORDS), default=list(WORDS))
    parser.add_argument("--images", type=int, help="in an epoch; by default what suits device and side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--base-width", type=int, default=32)
    parser.add_argument("--workers", type=int, help="of the tuned loops; by default 2 on a CPU, else up to 8")
    options(parser)
    asked = parser.parse_args()
    device = find_device(asked.device)
    tables, targets = [], []
    for side in asked.sides:
        with TemporaryDirectory() as folder:
            count = asked.images or suitable(device, side)
            root = write_set(Path(folder) / "set", count, side)
            torch.manual_seed(0)
            task = Task(
                root=root, batch=asked.batch, base_width=asked.base_width,
                weights=UNet(3, 1, base_width=asked.base_width).state_dict(), augment=ALL, device=device,
                workers=suitable_workers(device) if asked.workers is None else asked.workers,
            )  # fmt: skip
            seconds = timed(task, side, asked.ways, asked.rounds)
            tables.append(throughput(task, side, count, seconds))
            targets += reached(task, side, seconds)
            steps = -(-count // asked.batch)
            step = median(seconds["v2"]) / steps if "v2" in seconds else None
            if step is not None:
                tables.append(parts(task, side, step, asked.rounds))
    name = "training" if "plain" in asked.ways else "training-smm"
    report(name, device, tables, targets, keep=asked.keep, about=(__doc__ or "").split("    python")[0])


def suitable(device: torch.device, side: int) -> int:
    """Images in an epoch: a CPU takes a second for one of 256², a GPU milliseconds."""
    if device.type == "cpu":
        return 12 if side <= 256 else 8
    return 256 if side <= 256 else 128


def suitable_workers(device: torch.device) -> int:
    """On a CPU workers take what the network needs."""
    return 2 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def write_set(root: Path, count: int, side: int) -> Path:
    """Generated RGB images and masks as PNG files."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        name = f"{number:04}.png"
        if number >= DRAWN:
            for kind in ("images", "masks"):
                shutil.copyfile(root / kind / f"{number % DRAWN:04}.png", root / kind / name)
            continue
        image, truth = demo_pair(number, size=side)
        Image.fromarray((image[..., None] * np.array(TINT)).astype(np.uint8)).save(root / "images" / name)
        Image.fromarray(truth.astype(np.uint8) * 255).save(root / "masks" / name)
    return root


def timed(task: Task, side: int, ways: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of epochs of each way."""
    with TemporaryDirectory() as folder:
        running = {name: way(name, task, side, Path(folder), rounds) for name in ways}
        return in_turns(running, rounds, task.device)


def throughput(task: Task, side: int, images: int, seconds: Mapping[str, list[float]]) -> Table:
    """Images a second of each way, and how many times as fast the engine is."""
    rows: list[list[str | float]] = []
    for name, values in seconds.items():
        each = [images / value for value in values]
        rows.append([WORDS[name], median(each), min(each), max(each), times(name, seconds)])
    return Table(
        f"training-{side}",
        f"Training, U-Net of base width {task.base_width}, batch {task.batch} of {side}²",
        ["", "images/s", "slowest", "fastest", "engine is … × as fast"],
        rows,
        f"{images} images an epoch; ratios are the median of those of each round. {task.workers} workers in "
        "the tuned loops, 2 in the newcomer's.",
    )


def times(name: str, seconds: Mapping[str, list[float]]) -> float:
    """How many times as fast the engine is as a way; NaN if it is the engine, or was not asked for."""
    ours = AGAINST.get(name, "")
    return ratio(seconds[name], seconds[ours]) if ours in seconds else float("nan")


def reached(task: Task, side: int, seconds: Mapping[str, list[float]]) -> list[Target]:
    """The ratios against what they should be."""
    least = LEAST.get(task.device.type, {})
    ratios = {name: times(name, seconds) for name in seconds}
    return [
        Target(f"training at {side}² against {WORDS[name]}", value, least.get(name, 1.0))
        for name, value in ratios.items()
        if not isnan(value)
    ]


def way(name: str, task: Task, side: int, folder: Path, rounds: int) -> Callable[[], object]:
    """What runs an epoch of a way, with the switches of torch as it wants them."""
    if name in OURS:
        return ours(name, task, side, rounds)
    if name == "newcomer":
        run = newcomer(task)
    elif name == "tuned":
        run = Tuned(task).epoch
    else:
        exact = replace(task, augment=UNDONE)
        run = Authors(exact, 1 if name == "authors_v1" else 2, folder / name).epoch

    def epoch() -> None:
        with switches(benchmark=name != "newcomer"):
            run()

    return epoch


@contextmanager
def switches(benchmark: bool) -> Iterator[None]:
    """For a loop that is not the engine's, torch as it is by default, or with cuDNN's search.

    And memory as the C library has it, of which :func:`engine.device.arithmetic` would keep more.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark
    torch.set_deterministic_debug_mode("default")
    cudnn.deterministic, cudnn.benchmark = False, benchmark
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def ours(name: str, task: Task, side: int, rounds: int) -> Callable[[], object]:
    """An epoch of the engine."""
    config, ready = made(name, task, side, rounds + 2)
    run = fit(config, ready)

    def epoch() -> None:
        # What the loop sets for as long as it lasts is set back after each epoch.
        with arithmetic(None, config.training.deterministic):
            next(run)

    return epoch


def made(name: str, task: Task, side: int, epochs: int) -> tuple[RunConfig, Prepared]:
    """A run of the engine, and what it trains; modulation as it is at its dearest."""
    augment = ALL if name == "plain" else UNDONE
    changed = [f"--augment.{key}={flag(value)}" for key, value in augment.model_dump().items()]
    method = [] if name == "plain" else ["--modulation.warmup=0"]
    flags = [
        f"--data.root={task.root}", f"--data.size={side}", "--data.split=[1,0,0,0]", *changed,
        f"--model.base_width={task.base_width}", f"--modulation.name={OURS[name]}", *method,
        f"--training.epochs={epochs}", f"--training.batch_size={task.batch}",
        f"--training.device={task.device}", "--watch.train=0", "--watch.val=0",
    ]  # fmt: skip
    config, _ = resolve([Layer("benchmark", parse(flags))])
    ready = prepare(config)
    ready.network.load_state_dict(dict(task.weights))
    if name == "v2":
        ready.modulation.grown = True  # as after an epoch that found everything missed
        ready.modulation.in_force.bits.copy_(ready.train.truth.bits)
    return config, ready


def flag(value: Any) -> str:
    """A setting as it is given on the command line."""
    return str(list(value)) if isinstance(value, list | tuple) else str(value)


def parts(task: Task, side: int, seconds: float, rounds: int) -> Table:
    """The table of shares, of the seconds of a step of SMM v2."""
    config, ready = made("v2", task, side, 4)
    more = config.model_copy(update={"augment": ALL})
    title = f"A step of SMM v2, U-Net of base width {task.base_width}, batch {task.batch} of {side}²"
    return shares(f"shares-{side}", title, config, ready, seconds, more, rounds)


if __name__ == "__main__":
    main()
