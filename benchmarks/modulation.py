"""What Supervised Mask Modulation costs: its share of an epoch, and how fast its masks move.

Epochs of plain training, SMM v1 and SMM v2 in turns: the same U-Net on the same images, nothing watched.
Modulation is on from the first epoch, and SMM v2 reads, grows and records masks in every one, its dearest
case. Then what modulation does to masks, each piece alone: bytes that must be read and written at the least,
a second, against a copy of a large buffer on the same device, in the same run.

    python benchmarks/modulation.py [--side 256] [--images 12] [--rounds 5] [--only epochs masks] [--keep]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from measured import Table, Target, in_turns, options, ratio, report

from engine.bits import PackedMasks, Window
from engine.config import Layer, resolve
from engine.data.demo import write_demo
from engine.data.turns import turn, unturn
from engine.device import arithmetic, find_device
from engine.flags import parse
from engine.loop import fit
from engine.modulation.dilation import dilate
from engine.prepare import prepare

METHODS = {
    "plain": ("none", "auto"),
    "SMM v1, source train": ("smm_v1", "train"),
    "SMM v2, source train": ("smm_v2", "train"),
    "SMM v2, source pass": ("smm_v2", "pass"),
}
MOST = {"cpu": 5.0, "cuda": 3.0}
"""Added to an epoch with source train, in %."""
BYTE = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--images", type=int, help="in an epoch; by default 12 on a CPU, else 256")
    parser.add_argument("--base-width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--masks", type=int, help="images of masks that are moved; 64, on a GPU 1024")
    parser.add_argument("--only", nargs="+", choices=["epochs", "masks"], default=["epochs", "masks"])
    options(parser)
    asked = parser.parse_args()
    device = find_device(asked.device)
    cpu = device.type == "cpu"
    tables, targets = [], []
    if "epochs" in asked.only:
        images = asked.images or (12 if cpu else 256)
        seconds = epochs(asked.side, images, asked.base_width, asked.rounds, device)
        tables.append(added(seconds, f"batch 4 of {asked.side}², base width {asked.base_width}", images))
        for name in ("SMM v1, source train", "SMM v2, source train"):
            more = 100 * (ratio(seconds[name], seconds["plain"]) - 1)
            most = MOST.get(device.type)
            targets.append(Target(f"{name}: added to an epoch", more, most=most, unit="%"))
    if "masks" in asked.only:
        table, shares = moved(asked.masks or (64 if cpu else 1024), asked.side, 4 * asked.rounds, device)
        tables.append(table)
        if not cpu:
            targets += [Target(f"{name}: of copy bandwidth", x, 50.0, unit="%") for name, x in shares.items()]
    report("modulation", device, tables, targets, keep=asked.keep, about=(__doc__ or "").split("    py")[0])


def epochs(side: int, images: int, width: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of epochs of each method."""
    with TemporaryDirectory() as folder:
        root = write_demo(Path(folder) / "images", images=images, size=side)
        ways = {name: method(root, side, width, rounds, device, *METHODS[name]) for name in METHODS}
        with arithmetic(None, deterministic=True):
            return in_turns(ways, rounds, device)


def method(
    root: Path, side: int, width: int, rounds: int, device: torch.device, name: str, source: str
) -> Callable[[], object]:
    """What runs an epoch of a method."""
    modulated = [] if name == "none" else ["--modulation.warmup=0", f"--modulation.source={source}"]
    flags = [
        f"--data.root={root}", f"--data.size={side}", "--data.split=[1,0,0,0]", f"--modulation.name={name}",
        *modulated, f"--model.base_width={width}", "--training.batch_size=4",
        f"--training.epochs={rounds + 2}", f"--training.device={device}", "--watch.train=0", "--watch.val=0",
    ]  # fmt: skip
    config, _ = resolve([Layer("benchmark", parse(flags))])
    ready = prepare(config)
    if name == "smm_v2":
        ready.modulation.grown = True  # as after an epoch that found everything missed
        ready.modulation.in_force.bits.copy_(ready.train.truth.bits)
    run = fit(config, ready)
    return lambda: next(run)


def added(seconds: dict[str, list[float]], what: str, images: int) -> Table:
    """Epochs of each method, and what it adds to a plain one."""
    rows: list[list[str | float]] = [
        [name, median(values), 100 * (ratio(values, seconds["plain"]) - 1)]
        for name, values in seconds.items()
    ]
    return Table(
        "modulation-epochs",
        f"Epochs of {images} images, U-Net, {what}",
        ["", "s", "added, %"],
        rows,
        "What is added is the median of the rounds' ratios. Source pass predicts every image once more after "
        "the epoch, which is needed only where images are rotated, zoomed or deformed.",
    )


def moved(images: int, side: int, rounds: int, device: torch.device) -> tuple[Table, dict[str, float]]:
    """Bytes a second of each piece, and its share of the device's copy bandwidth in %.

    Args:
        images: masks at once, many enough that their bytes take longer than asking for them.
        side: of the masks.
        rounds: how often each piece is timed.
        device: where they are.
    """
    shapes = torch.full((images, 2), side)
    packed = PackedMasks(shapes, 1, device)
    window = Window(torch.arange(images), torch.zeros((images, 2), dtype=torch.int64), (side, side))
    masks = torch.rand((images, 1, side, side), device=device) < 0.1
    codes = (torch.arange(images) % BYTE).to(device)
    packed.write(window, masks)
    pixels = masks.numel()
    large = torch.empty(1 << (26 if device.type == "cpu" else 30), dtype=torch.uint8, device=device)
    other = torch.empty_like(large)
    pieces: dict[str, tuple[Callable[[], object], float, str]] = {
        "a copy of a large buffer": (lambda: other.copy_(large), 2 * large.numel(), "1 + 1 a byte"),
        "a copy of the masks": (masks.clone, 2 * pixels, "1 + 1 a pixel"),
        "packing and writing": (lambda: packed.write(window, masks), 9 / 8 * pixels, "1 + ⅛"),
        "reading and unpacking": (lambda: packed.read(window), 9 / 8 * pixels, "⅛ + 1"),
        "dilating, radius 2": (lambda: dilate(masks), 2 * pixels, "1 + 1"),
        "turning": (lambda: turn(masks, codes), 2 * pixels, "1 + 1"),
        "turning back": (lambda: unturn(masks, codes), 2 * pixels, "1 + 1"),
    }
    seconds = in_turns({name: run for name, (run, _, _) in pieces.items()}, rounds, device)
    speed = {name: pieces[name][1] / median(values) for name, values in seconds.items()}
    copy = speed["a copy of a large buffer"]
    rows: list[list[str | float]] = [
        [name, needed, 1e3 * median(seconds[name]), speed[name] / 1e9, 100 * speed[name] / copy]
        for name, (_, _, needed) in pieces.items()
    ]
    table = Table(
        "modulation-bytes",
        f"Bytes that modulation moves: masks of {images} images of {side}²",
        ["", "bytes read + written", "ms", "GB/s", "% of the copy"],
        rows,
        "Bytes that must be read and written at least: a byte a pixel of masks, a bit where they are packed.",
    )
    return table, {name: 100 * value / copy for name, value in list(speed.items())[2:]}


if __name__ == "__main__":
    main()
