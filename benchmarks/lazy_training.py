"""Memory and time of training on one image that is read from disk, for images of several sizes.

python benchmarks/lazy_training.py [--sizes 4000 16000] [--modulation smm_v2] [--cache none]

Each image is noise with discs, uint8, in a zarr of chunks of 512 × 512, its mask beside it. Two epochs of 16
crops of 256 × 256 with a U-Net of two stages, by `python -m engine.train` in a process of its own. Memory is
the largest resident size of that process, with and without the files that were mapped into it, which the
system can take back.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import numpy as np
import psutil
import zarr

CHUNK = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[4000, 16000])
    parser.add_argument("--modulation", default="smm_v2")
    parser.add_argument("--cache", default="none")
    options = parser.parse_args()
    for side in options.sizes:
        with TemporaryDirectory() as folder:
            root = Path(folder)
            generate(root / "data", side)
            measure(root, side, options)


def generate(root: Path, side: int) -> None:
    """One image and its mask, written a row of chunks at a time."""
    rng = np.random.default_rng(0)
    arrays = []
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
        path = root / name / "a.zarr"
        arrays.append(zarr.create_array(store=path, shape=(side, side), chunks=(CHUNK,) * 2, dtype="uint8"))
    for top in range(0, side, CHUNK):
        rows, columns = np.ogrid[top : min(top + CHUNK, side), :side]
        mask = (rows % 400 - 200) ** 2 + (columns % 400 - 200) ** 2 < 60**2
        arrays[0][top : top + CHUNK] = rng.integers(0, 128, mask.shape, dtype=np.uint8) + 100 * mask
        arrays[1][top : top + CHUNK] = mask


def measure(root: Path, side: int, options: argparse.Namespace) -> None:
    """Train, and print the largest memory of the process."""
    settings = {
        "data.root": root / "data", "data.cache": options.cache, "data.patches_per_image": 16,
        "data.split": "[1,0,0,0]", "modulation.name": options.modulation, "model.base_width": 4,
        "model.depth": 2, "training.epochs": 2, "training.device": "cpu", "training.threads": 1,
        "watch.longest": 256,
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in settings.items()]
    started = perf_counter()
    command = [sys.executable, "-m", "engine.train", "--quiet", "--out", str(root / "run"), *flags]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
        process = psutil.Process(child.pid)
        most = own = 0
        while child.poll() is None:
            try:
                memory = process.memory_info()
            except psutil.NoSuchProcess:
                break
            most, own = max(most, memory.rss), max(own, memory.rss - memory.shared)
            sleep(0.005)
    if child.returncode:
        raise SystemExit(f"training ended with {child.returncode}")
    print(
        f"{side} × {side}, {options.modulation}, cache {options.cache}: at most {most / 2**20:.0f} MiB, "
        f"of them {own / 2**20:.0f} MiB without mapped files, {perf_counter() - started:.1f} s"
    )


if __name__ == "__main__":
    main()
