"""Memory of a streamed prediction as the image grows, and tiled prediction against MONAI's sliding window.

python benchmarks/tiled_prediction.py memory [--sides 4000 16000 32000] [--tile 1024] [--folder DIR]
python benchmarks/tiled_prediction.py monai [--rounds 2]

Each measurement has a process of its own. Memory is what the process's resident size is above that before
it begins to read the image, at its highest, as the system counts it (VmHWM; Linux).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import torch
import zarr
from monai.inferers import sliding_window_inference

from engine.config import RunConfig
from engine.data.rows import open_rows
from engine.infer import Predictor
from engine.models.unet import UNet
from engine.prepare import last_channels
from engine.streamed.progress import Progress
from engine.streaming import give_memory_back, write
from engine.trained import Trained

IMAGES = {"2D": ((4000, 4000), 1024), "3D": ((182, 218, 182), 128)}
"""Shape and tile of what is predicted in turns with MONAI."""
OVERLAP = 0.25
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["memory", "monai", "one"])
    parser.add_argument("--sides", nargs="+", type=int, default=[4000, 16000, 32000])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for images and predictions")
    parser.add_argument("--only", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    parser.add_argument("--one", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if options.what == "one":
        given = json.loads(options.one)
        print(json.dumps(globals()[given.pop("measure")](**given)))
    elif options.what == "memory":
        for side in options.sides:
            with TemporaryDirectory(dir=options.folder) as folder:
                found = apart(measure="streamed", side=side, tile=options.tile, folder=folder)
            print(
                f"{side:>6} ²: {found['grown']:6.0f} MiB above {found['before']:.0f} MiB, image "
                f"{found['image']:.0f} MiB, result {found['result']:.0f} MiB, {found['tiles']} tiles, "
                f"{found['seconds']:.0f} s ({found['rate']:.1f} Mpx/s)", flush=True,
            )  # fmt: skip
    else:
        for kind in options.only:
            against_monai(kind, options.rounds)


def apart(**given: Any) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "one", f"--one={json.dumps(given)}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of some work, and MiB by which it made the process grow at its highest."""
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now
    started = perf_counter()
    work()
    seconds = perf_counter() - started
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    highest = int(line.split()[1]) * 1024
    return {"seconds": seconds, "grown": (highest - before) / 2**20, "before": before / 2**20}


def network(dims: int, width: int, depth: int, tile: int) -> Trained:
    """An untrained U-Net as a run has it."""
    torch.manual_seed(0)
    norm = "batch" if depth > 1 else "none"
    model = UNet(1, 1, base_width=width, depth=depth, norm=norm, spatial_dims=dims).eval()
    model = model.to(memory_format=last_channels(dims))  # type: ignore[call-overload]
    predictor = Predictor(model, "sigmoid", CPU, None, tile, OVERLAP)
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
    found = measured(lambda: write(trained, open_rows(image, 1), out, Progress(out)))
    pixels = side * side
    return {
        **found, "image": pixels / 2**20, "result": 4 * pixels / 2**20,
        "tiles": trained.predictor.count((side, side)), "rate": pixels / 1e6 / found["seconds"],
    }  # fmt: skip


def against_monai(kind: str, rounds: int) -> None:
    """Time both in turns, and say how they compare."""
    shape, tile = IMAGES[kind]
    found: dict[str, list[dict[str, float]]] = {"ours": [], "monai": []}
    for number in range(rounds):
        for name in sorted(found, reverse=bool(number % 2)):
            found[name].append(apart(measure=name, kind=kind))
    print(f"{kind}: {' × '.join(map(str, shape))}, tiles of {tile}, base width 8")
    for name, each in found.items():
        seconds = median(one["seconds"] for one in each)
        print(
            f"  {name:<6}{seconds:8.1f} s ({prod(shape) / 1e6 / seconds:.2f} Mpx/s), "
            f"{median(one['grown'] for one in each):6.0f} MiB"
        )
    pairs = zip(found["ours"], found["monai"], strict=True)
    ratios = [theirs["seconds"] / mine["seconds"] for mine, theirs in pairs]
    print(f"  {median(ratios):.2f} × as fast ({', '.join(f'{ratio:.2f}' for ratio in ratios)})", flush=True)


def of_noise(kind: str) -> tuple[Any, Trained]:
    shape, tile = IMAGES[kind]
    image = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8)
    return image, network(len(shape), 8, 4, tile)


def ours(kind: str) -> dict[str, float]:
    """From the image as it is read to its probabilities, in memory."""
    image, trained = of_noise(kind)
    return measured(lambda: trained.probability(image))


def monai(kind: str) -> dict[str, float]:
    """The same by MONAI."""
    image, trained = of_noise(kind)
    shape, tile = IMAGES[kind]

    def work() -> Any:
        with torch.no_grad():
            logits = sliding_window_inference(
                trained.as_seen(image), (tile,) * len(shape), 1, trained.predictor.network, OVERLAP,
                mode="gaussian", sigma_scale=0.125,
            )  # fmt: skip
            return logits.sigmoid()[0].numpy()

    return measured(work)


if __name__ == "__main__":
    main()
