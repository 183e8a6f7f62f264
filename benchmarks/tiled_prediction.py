"""Tiled prediction against MONAI's sliding window, and memory of a streamed prediction as the image grows.

    python benchmarks/tiled_prediction.py [--only 2D 3D] [--rounds 4] [--width 16] [--device cuda] [--keep]
    python benchmarks/tiled_prediction.py --memory [--sides 4000 16000 32000] [--tile 1024] [--folder DIR]

Against MONAI: one U-Net, one image, the same tiles, weights, float32 arithmetic and memory format, from the
normalised image to probabilities. Each measurement has a process of its own, in turns. Both results are
compared pixel by pixel, and the script stops if they differ by more than 1e-5.

On a CPU both are measured once more with a C library that keeps freed buffers of any size, which says what
new pages cost. On a GPU, MONAI has the image and the sums in memory once, as it must for large ones, and once
on the GPU.

Memory is what the process's resident size is above that before the prediction begins, at its highest, as the
system counts it (VmHWM; Linux).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from types import MappingProxyType
from typing import Any

import measured
import numpy as np
import psutil
import torch
import zarr
from monai.inferers import sliding_window_inference

from engine.config import RunConfig
from engine.data.rows import open_rows
from engine.device import find_device, full_precision
from engine.infer import Predictor, gaussian
from engine.models.unet import UNet
from engine.prepare import last_channels
from engine.streamed.progress import Progress
from engine.streaming import give_memory_back, write
from engine.trained import Trained

IMAGES = {"2D": ((2560, 2560), 1024), "3D": ((168, 168, 96), 96)}
"""Shape and tile; so that MONAI's tiles, which end with the image, lie as evenly as ours."""
OVERLAP = 0.25
CPU = torch.device("cpu")
CLOSE = 1e-5
WAYS = {
    "cpu": {"ours": "ours", "MONAI": "monai", "ours, buffers kept": "ours", "MONAI, buffers kept": "monai"},
    "cuda": {"ours": "ours", "MONAI, sums in memory": "monai", "MONAI, all on the GPU": "monai there"},
}
AGAINST = {"cpu": ("MONAI",), "cuda": ("MONAI, sums in memory", "MONAI, all on the GPU")}
LEAST = {"cpu": 0.98, "cuda": 1.5}
KEPT = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}
"""Has the C library keep buffers of any size for the next; else it gives those above 32 MiB back at once."""
COLUMNS = (
    "", "s", "processor s", "ours is × as fast", "by the processor", "grown by MiB", "differs by at most",
)  # fmt: skip
ABOUT = "The same tiles, weights, network and arithmetic, by this engine and by sliding_window_inference"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured.options(parser)
    parser.add_argument("--memory", action="store_true", help="of a streamed prediction, instead")
    parser.add_argument("--sides", nargs="+", type=int, default=[4000, 16000, 32000])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="for images and predictions")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--width", type=int, default=16, help="base width of the U-Net")
    parser.add_argument("--only", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        one = json.loads(given.one)
        print(json.dumps(globals()[one.pop("measure")](**one)))
    elif given.memory:
        grows(given)
    else:
        against_monai(given)


def grows(given: argparse.Namespace) -> None:
    """Memory of streamed predictions of several sizes."""
    rows: list[list[str | float]] = []
    for side in given.sides:
        with TemporaryDirectory(dir=given.folder) as folder:
            found = apart(measure="streamed", side=side, tile=given.tile, folder=folder)
        rows.append(
            [f"{side}²", *(found[name] for name in ("image", "result", "tiles", "grown", "seconds", "rate"))]
        )
    table = measured.Table(
        "streamed-memory", "Memory of a streamed prediction",
        ("image", "MiB", "result MiB", "tiles", "grown by MiB", "s", "Mpx/s"), rows,
        f"Noise uint8, tiles of {given.tile}, a U-Net of base width 2 and depth 1.",
    )  # fmt: skip
    measured.report("streamed-memory", CPU, [table], keep=given.keep)


def against_monai(given: argparse.Namespace) -> None:
    """Time both in turns, and say how they compare."""
    device = find_device(given.device)
    tables, targets = [], []
    for kind in given.only:
        found, differs = turns(kind, device, given.rounds, given.width)
        clock, processor, grown = (
            {name: [one[unit] for one in each] for name, each in found.items()}
            for unit in ("seconds", "processor", "grown")
        )
        rows: list[list[str | float]] = []
        for name in found:
            faster = [measured.ratio(times[name], times["ours"]) for times in (clock, processor)]
            seconds = [median(clock[name]), median(processor[name])]
            rows.append([name, *seconds, *faster, median(grown[name]), differs[name]])
        shape, tile = IMAGES[kind]
        tables.append(
            measured.Table(
                f"tiled-{kind}",
                f"{kind}: {' × '.join(map(str, shape))}, tiles of {tile}, U-Net of base width {given.width}",
                COLUMNS, rows,
                f"{found['ours'][0]['tiles']:.0f} tiles, {given.rounds} rounds in turns, float32.",
            )
        )  # fmt: skip
        for name in AGAINST[device.type]:
            faster = [measured.ratio(times[name], times["ours"]) for times in (clock, processor)]
            targets.append(measured.Target(f"{kind}, against {name}", faster[0], LEAST[device.type]))
            if device.type == "cpu":
                what = f"{kind}, against {name}, by the processor's time"
                targets.append(measured.Target(what, faster[1], LEAST[device.type]))
                share = 100 * median(grown["ours"]) / median(grown[name])
                targets.append(measured.Target(f"{kind}, memory, of {name}'s", share, most=100, unit="%"))
    measured.report("tiled-prediction", device, tables, targets, keep=given.keep, about=ABOUT)


def turns(
    kind: str, device: torch.device, rounds: int, width: int
) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    """What each way took in each round, and by how much its result differs from ours at most."""
    ways = WAYS[device.type]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in ways}

        def turn(name: str) -> None:
            which = {"kind": kind, "way": ways[name], "width": width, "device": str(device)}
            kept = KEPT if name.endswith("kept") else {}
            found[name].append(apart(kept, measure="predicted", out=str(files[name]), **which))

        measured.in_turns({name: partial(turn, name) for name in ways}, rounds, device, warm=0)
        results = {name: np.load(file) for name, file in files.items()}
    differs = {name: float(np.abs(p - results["ours"]).max()) for name, p in results.items()}
    if not max(differs.values()) <= CLOSE:
        raise SystemExit(f"the results differ: {differs}")
    return found, differs


def apart(environment: Mapping[str, str] = MappingProxyType({}), /, **given: Any) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, f"--one={json.dumps(given)}"]
    said = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def measured_here(work: Callable[[], Any], device: torch.device = CPU) -> dict[str, float]:
    """Seconds of some work, and MiB by which it made the process grow at its highest."""
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now
    started, worked = perf_counter(), process_time()
    work()
    measured.wait(device)
    seconds, processor = perf_counter() - started, process_time() - worked
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    highest = int(line.split()[1]) * 1024
    return {
        "seconds": seconds, "processor": processor,
        "grown": (highest - before) / 2**20, "before": before / 2**20,
    }  # fmt: skip


def network(dims: int, width: int, depth: int, tile: int, device: torch.device = CPU) -> Trained:
    """An untrained U-Net as a run has it."""
    torch.manual_seed(0)
    norm = "batch" if depth > 1 else "none"
    model = UNet(1, 1, base_width=width, depth=depth, norm=norm, spatial_dims=dims).eval()
    model = model.to(device).to(memory_format=last_channels(dims))  # type: ignore[call-overload]
    predictor = Predictor(model, "sigmoid", device, None, tile, OVERLAP)
    info = {"dataset": {"channels": 1, "dims": dims}}
    return Trained(Path("run"), RunConfig(), info, ("x",), predictor, 1, "last")


def streamed(side: int, tile: int, folder: str) -> dict[str, float]:
    """A streamed prediction of noise, uint8 (side, side), by a network that takes next to no time."""
    image, out = Path(folder) / "image.zarr", Path(folder) / "out"
    out.mkdir()
    array = zarr.create_array(store=image, shape=(side, side), chunks=(512, 512), dtype="uint8")
    rng = np.random.default_rng(0)
    row = np.tile(rng.integers(0, 256, (512, 512), dtype=np.uint8), (1, -(-side // 512)))[:, :side]
    for top in range(0, side, 512):
        array[top : top + 512] = row[: side - top]
    del row
    trained = network(2, 2, 1, tile)
    give_memory_back()  # as the command does
    found = measured_here(lambda: write(trained, open_rows(image, 1), out, Progress(out)))
    pixels = side * side
    return {
        **found, "image": pixels / 2**20, "result": 4 * pixels / 2**20,
        "tiles": trained.predictor.count((side, side)), "rate": pixels / 1e6 / found["seconds"],
    }  # fmt: skip


def predicted(kind: str, way: str, width: int, device: str, out: str) -> dict[str, float]:
    """One prediction of noise in this process, after a first tile, whose result is written to `out`."""
    shape, tile = IMAGES[kind]
    there = torch.device(device)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8)
    trained = network(len(shape), width, 4, tile, there)
    # The libraries that load with the first use, and on a GPU its own start.
    trained.probability(image[tuple(slice(32) for _ in shape)])
    results: list[Any] = []

    def work() -> None:
        if way.startswith("ours"):
            results.append(trained.probability(image))
        else:
            results.append(by_monai(trained, image, tile, there if way == "monai there" else CPU))

    found = measured_here(work, there)
    np.save(out, results[0])
    return {**found, "tiles": trained.predictor.count(shape)}


def by_monai(trained: Trained, image: Any, tile: int, sums: torch.device) -> Any:
    """Probabilities float32 (C, *S) by MONAI, with image and sums on a device."""
    predictor, sizes = trained.predictor, (tile,) * (image.ndim - 1)
    with torch.no_grad(), full_precision():
        logits = sliding_window_inference(
            trained.as_seen(image).to(sums), sizes, 1, predictor.network, OVERLAP, mode="gaussian",
            sw_device=predictor.device, device=sums,
            roi_weight_map=gaussian(list(sizes), predictor.device),
        )  # fmt: skip
        return logits.sigmoid()[0].cpu().numpy()


if __name__ == "__main__":
    main()
