"""Memory and time of a streamed prediction, for images of several sizes, each in a process of its own.

python benchmarks/streaming.py [--sizes 4000x4000 12000x4000 12000x12000] [--tile 1024] [--keep]

Memory is what the process grows by, at its highest, from when it begins to read the image.
"""

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import measured
import numpy as np
import psutil
import torch
import zarr

from engine.config import RunConfig
from engine.data.rows import open_rows
from engine.data.specs import Data
from engine.infer import Predictor
from engine.models.unet import UNet
from engine.streaming import Progress, write
from engine.trained import Trained


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured.options(parser)
    parser.add_argument("--sizes", nargs="+", default=["4000x4000", "12000x4000", "12000x12000"])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--method", default="zscore")
    parser.add_argument("--dtype", default="uint8")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    rows = []
    for size in options.sizes:
        more = [f"--{name}={getattr(options, name)}" for name in ("tile", "method", "dtype")]
        command = [sys.executable, __file__, "--one", "--sizes", size, *more]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    table = measured.Table(
        "streaming", f"A streamed prediction, tiles of {options.tile}, {options.method}",
        ("image", "MiB", "result MiB", "grown by MiB", "above MiB", "s"), rows,
    )  # fmt: skip
    measured.report("streaming", torch.device("cpu"), [table], keep=options.keep)


def measure(options: argparse.Namespace) -> list[str | float]:
    """One size, in this process: its row of the table."""
    height, width = map(int, options.sizes[0].split("x"))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root / "image.zarr", height, width, options.dtype)
        trained = tiny(options.tile, options.method)
        # The network's own buffers, and the libraries that load with the first use.
        trained.probability(np.zeros((options.tile, options.tile, 1), np.uint8))
        process = psutil.Process()
        before = highest = process.memory_info().rss
        ended = threading.Event()

        def look() -> None:
            nonlocal highest
            while not ended.is_set():
                highest = max(highest, process.memory_info().rss)
                sleep(0.002)

        thread = threading.Thread(target=look)
        thread.start()
        started = perf_counter()
        progress = Progress(root)
        write(trained, open_rows(root / "image.zarr", 1), root, progress)
        seconds = perf_counter() - started
        ended.set()
        thread.join()
        image, result = (height * width * size / 2**20 for size in (np.dtype(options.dtype).itemsize, 4))
        grown = (highest - before) / 2**20
        return [f"{height} × {width} {options.dtype}", image, result, grown, before / 2**20, seconds]


def tiny(tile: int, method: str) -> Trained:
    """A network that takes next to no time, so that all else shows."""
    torch.manual_seed(0)
    predictor = Predictor(
        UNet(1, 1, base_width=4, depth=2), "sigmoid", torch.device("cpu"), None, tile, 0.25
    )  # fmt: skip
    info = {"dataset": {"channels": 1, "dims": 2}}
    return Trained(
        Path("run"), RunConfig(data=Data(normalization=method)), info, ("x",), predictor, 1, "last"
    )


def generate(path: Path, height: int, width: int, dtype: str) -> None:
    """Noise as a zarr array in chunks of 512 × 512."""
    array = zarr.create_array(store=path, shape=(height, width), chunks=(512, 512), dtype=dtype)
    rng = np.random.default_rng(0)
    for top in range(0, height, 512):
        rows = rng.integers(0, 256, (min(512, height - top), width), dtype=np.uint8)
        array[top : top + 512] = rows.astype(dtype)


if __name__ == "__main__":
    main()
