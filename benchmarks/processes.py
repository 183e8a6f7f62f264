"""Training throughput of several processes together, over that of one.

    python benchmarks/processes.py [--processes 1 2] [--images 32] [--side 128] [--base-width 16] [--epochs 4]

Each number of processes trains the same run (U-Net with instance norm, SMM v2, batch of four or as many
images as there are processes) by `torchrun -m engine.train`, in turns. On a CPU they share the machine's
cores. Seconds are of an epoch, the first left out, from the run's own record. Beside it, how long the one
message with all gradients takes, by itself.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import measured
import torch
import torch.distributed as dist

from engine.data.demo import write_demo
from engine.device import find_device
from engine.models.unet import UNet
from engine.ranks import Gradients, joined


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured.options(parser)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--base-width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if "RANK" in os.environ:
        message(options.base_width)
        return
    device = find_device(options.device)
    seconds: dict[int, list[float]] = {size: [] for size in options.processes}
    with TemporaryDirectory() as folder:
        root = write_demo(Path(folder) / "images", images=options.images, size=options.side)
        for number in range(options.rounds):
            for size in options.processes:
                out = Path(folder) / f"{size}-{number}"
                torchrun(size, ["-m", "engine.train", *settings(root, out, options)])
                lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
                epochs = [line["seconds"]["epoch"] for line in lines if line["event"] == "epoch"]
                seconds[size].append(median(epochs[1:]))
    first = seconds[options.processes[0]]
    rows = []
    for size, times in seconds.items():
        spent = torchrun(size, [__file__, f"--base-width={options.base_width}"]) if size > 1 else "0"
        rows.append([
            size, options.images / median(times), measured.ratio(first, times),
            measured.ratio(first, times) / ideal(size / options.processes[0], device), float(spent) * 1e3,
        ])  # fmt: skip
    table = measured.Table(
        "processes",
        f"U-Net of base width {options.base_width}, instance norm, SMM v2, {options.images} images of "
        f"{options.side}², batch {batch(options)}",
        ["processes", "images/s", "× of the first", "of what would be ideal", "gradients' message, ms"],
        rows,
        "" if device.type == "cuda" else "The processes share the cores, so 1 × is what is ideal here.",
    )
    measured.report(
        "processes", device, [table], keep=options.keep, about=(__doc__ or "").partition("\n\n")[0]
    )


def ideal(more: float, device: torch.device) -> float:
    """How many times as fast so many times as many processes can be: on a CPU they share its cores."""
    return more if device.type == "cuda" else 1.0


def batch(options: argparse.Namespace) -> int:
    """Images in a step: four, or as many as there are processes."""
    return max(4, *options.processes)


def settings(root: Path, out: Path, options: argparse.Namespace) -> list[str]:
    return [
        f"--data.root={root}", f"--out={out}", "--data.split=[1,0,0,0]", "--model.norm=instance", "--quiet",
        f"--model.base_width={options.base_width}", f"--training.epochs={options.epochs}",
        f"--training.batch_size={batch(options)}", f"--training.device={options.device}",
        "--watch.train=0", "--watch.val=0", "--modulation.warmup=0",
    ]  # fmt: skip


def torchrun(size: int, arguments: list[str]) -> str:
    """Start processes, which share the cores, and wait for them: what they print, its last word."""
    threads = max(1, (os.cpu_count() or 1) // size)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    done = subprocess.run(
        [*command, *arguments], env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return (done.stdout.split() or [""])[-1]


def message(base_width: int) -> None:
    """Print the seconds that it takes to add the gradients of the network up, as one of several processes."""
    with joined() as ranks:
        device = torch.device("cuda", ranks.local) if torch.cuda.is_available() else torch.device("cpu")
        network = UNet(1, 1, base_width=base_width, norm="instance").to(device)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        gradients, times = Gradients(network, ranks), []
        for _ in range(20):
            dist.barrier()
            measured.wait(device)
            started = perf_counter()
            gradients.sum()
            measured.wait(device)
            times.append(perf_counter() - started)
        if ranks.first:
            print(median(times[5:]))


if __name__ == "__main__":
    main()
