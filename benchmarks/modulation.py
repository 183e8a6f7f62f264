"""What Supervised Mask Modulation costs: epochs of SMM v1 and v2 over epochs of plain training.

The three train the same network (U-Net, base width 16) on the same images of 256², batch 4, nothing
watched, with both cores and in turns, one epoch of each after the other, so that whatever else the
machine does falls on all alike. Modulation is on from the first epoch, and SMM v2 is made to read and grow
masks in every one, which is its dearest case. Prints the median epoch of each and the ratios.

    python benchmarks/modulation.py [--images 16] [--rounds 12] [--device cpu]
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from engine.config import Layer, resolve
from engine.data.demo import write_demo
from engine.device import device_name, find_device
from engine.flags import parse
from engine.loop import Epoch, fit
from engine.prepare import prepare

METHODS = {
    "plain": ["--modulation.name=none"],
    "smm_v1": ["--modulation.name=smm_v1", "--modulation.warmup=0", "--modulation.source=train"],
    "smm_v2": ["--modulation.name=smm_v2", "--modulation.warmup=0", "--modulation.source=train"],
    "smm_v2, source pass": ["--modulation.name=smm_v2", "--modulation.warmup=0", "--modulation.source=pass"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = write_demo(Path(folder) / "images", images=options.images, size=256)
        runs = {name: start(root, flags, options) for name, flags in METHODS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        for number in range(options.rounds + 1):
            # Each method takes each place in turn.
            first = number % len(METHODS)
            for name in [*METHODS, *METHODS][first : first + len(METHODS)]:
                seconds[name].append(next(runs[name]).seconds["epoch"])
    times = {name: median(values[1:]) for name, values in seconds.items()}
    # Paired by round, so that a slow minute of the machine cancels out.
    ratios = {
        name: median(a / b for a, b in zip(values[1:], seconds["plain"][1:], strict=True))
        for name, values in seconds.items()
    }
    device = find_device(options.device)
    print(f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{options.images} images of 256², base width 16, batch 4, median of {options.rounds} epochs")
    for name in METHODS:
        print(f"{name:<22}{times[name]:8.3f} s   {ratios[name]:6.3f} × plain")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "ratios": ratios}, indent=2))


def start(root: Path, flags: list[str], options: argparse.Namespace) -> Iterator[Epoch]:
    common = [
        f"--data.root={root}", "--data.split=[1,0,0,0]", "--model.base_width=16", "--training.batch_size=4",
        f"--training.epochs={options.rounds + 2}", "--watch.train=0", "--watch.val=0",
        f"--training.device={options.device}",
    ]  # fmt: skip
    config, _ = resolve([Layer("benchmark", parse([*common, *flags]))])
    ready = prepare(config)
    if config.modulation.name == "smm_v2":
        ready.modulation.grown = True
        ready.modulation.in_force.bits.random_(0, 256)
    return fit(config, ready)


if __name__ == "__main__":
    main()
