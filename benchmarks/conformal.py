"""Speed and memory of thresholds with a guarantee.

    python benchmarks/conformal.py [--rounds 5] [--only mapie volume moves]

mapie: calibrating 50 images of 256² with 5 to 10 % lesion, from their arrays p and y, by this project's CRC
and CLS, and by MAPIE's grid-based risk control. MAPIE is no part of this project: python -m pip install
mapie, or to leave the environment alone, pip install --target FOLDER mapie and PYTHONPATH=FOLDER.
volume: lesion probabilities and critical threshold of a volume of 512³ float32, in a process of its own.
moves: what the sliders for ε and α cost, with 50 and with 1000 calibration images.

Seconds are of the processor, of one thread, and of the clock: on a machine that others use they differ.
"""

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engine.spec import Part
from engine.thresholds import Choice, Units, attainable, gather, lesion_probabilities, mean_bound
from engine.thresholds.conformal import critical_of
from engine.thresholds.specs import Cls, Conditional, Crc

ALPHA = 0.1
MEBI = 2**20
Images = list[tuple[NDArray[np.float32], NDArray[np.bool_]]]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS, help="parts to measure")
    parser.add_argument("--side", type=int, default=512, help="length of the volume's sides (default: 512)")
    parser.add_argument("--share", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.share is not None:
        print(json.dumps(one_volume(options.side, options.share, options.rounds)))
        return
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    for part in options.only:
        PARTS[part](options)


def against_mapie(options: argparse.Namespace) -> None:
    """Ours and MAPIE's in turns, from the same arrays."""
    try:
        from mapie.risk_control import SemanticSegmentationController
    except ImportError:
        raise SystemExit(
            "mapie is missing: python -m pip install mapie, or --only volume moves for the rest"
        ) from None
    images = synthetic(50, 256)

    def mapie() -> float:
        # Image by image, as it recommends for high-dimensional data: it then needs a fiftieth of the memory.
        controller = SemanticSegmentationController(
            lambda p: p, risk="recall", method="crc", target_level=1 - ALPHA
        )
        for p, y in images:
            controller.compute_risks(p[None, None], y[None, None])
        controller.compute_best_predict_param()
        return float(controller.best_predict_param[0])

    rules = {"MAPIE, CRC on its grid of 100": mapie, "CRC": ours(images, Crc(alpha=ALPHA))}
    rules["CLS"] = ours(images, Cls(epsilon=0.1, alpha=ALPHA))
    answers = {name: run() for name, run in rules.items()}
    grid, exact = answers["MAPIE, CRC on its grid of 100"], answers["CRC"]
    # MAPIE predicts p > λ, so the last λ of its grid that will do lies below ours, and less than a step.
    if not 0 < exact - grid <= 0.01 + 1e-9:
        raise SystemExit(f"MAPIE answers {grid}, and CRC {exact}: they should differ by less than 0.01")
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in rules}
    for _ in range(options.rounds):
        for name, run in rules.items():
            taken[name] += timed(run, 1 if run is mapie else 9)
    print(
        f"\n50 images of 256², α = {ALPHA:g}, arrays to threshold; median, {options.rounds} rounds in turns"
    )
    first = medians(taken["MAPIE, CRC on its grid of 100"])
    for name, seconds in taken.items():
        processor, clock = medians(seconds)
        print(
            f"{name:<32}T = {answers[name]:.6f}{1e3 * processor:10.2f} ms processor"
            f"{1e3 * clock:10.2f} ms clock{first[0] / processor:8.0f} ×{first[1] / clock:6.0f} × as fast"
        )


def volumes(options: argparse.Namespace) -> None:
    """Lesion probabilities and critical threshold of one large volume, of two shares of lesion."""
    print(
        f"\n{options.side}³ float32, lesion probabilities and critical threshold; median of {options.rounds}"
    )
    for share in (0.01, 0.1):
        command = [sys.executable, __file__, f"--share={share}", f"--side={options.side}"]
        done = subprocess.run(
            [*command, f"--rounds={options.rounds}"], check=True, capture_output=True, text=True
        )
        figures = json.loads(done.stdout)
        print(
            f"{100 * figures['share']:.1f} % lesion: {figures['processor']:.3f} s processor, "
            f"{figures['clock']:.3f} s clock; one copy of the lesion voxels is {figures['copy']:.1f} MiB, "
            f"allocated {figures['allocated']:.2f} MiB, process grown by {figures['grown']:.2f} MiB"
        )


def one_volume(side: int, share: float, rounds: int) -> dict[str, float]:
    """Measure in this process: seconds, and memory in MiB."""
    rng = np.random.default_rng(0)
    y = balls(side, share, rng)
    p = np.empty(y.shape, np.float32)
    for row in p:  # in place, so that the process has never been larger than it is now
        rng.random(out=row, dtype=np.float32)

    def run() -> float:
        return critical_of(lesion_probabilities(p, y), 0.1)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    processor, clock = medians(timed(run, rounds))
    tracemalloc.start()
    run()
    allocated = tracemalloc.get_traced_memory()[1] / MEBI
    lesion = int(y.sum())
    return {
        "share": lesion / y.size, "copy": lesion * p.itemsize / MEBI, "grown": grown, "allocated": allocated,
        "processor": processor, "clock": clock,
    }  # fmt: skip


def moves(options: argparse.Namespace) -> None:
    """Moving ε, or α for CRC, over calibration images of about 4000 lesion pixels each."""
    print(f"\nOne move of a slider, in ms of the processor; median (longest) of {20 * options.rounds}")
    for n in (50, 1000):
        units = lesions(n)
        for name, rule, more in (
            ("CLS, ε", lambda share: Cls(epsilon=share, alpha=ALPHA), attainable),
            ("conditional CLS, ε", lambda share: Conditional(epsilon=share, alpha=ALPHA), attainable),
            ("CRC, α", lambda share: Crc(alpha=share), mean_bound),
        ):
            threshold, curve = [], []
            for share in np.linspace(0.05, 0.4, 20).tolist() * options.rounds:
                bound = rule(share).bind()
                began = process_time()
                choice = bound(units)
                chosen = process_time()
                more(units, choice.threshold)
                curve.append(1e3 * (process_time() - chosen))
                threshold.append(1e3 * (chosen - began))
            print(
                f"{n:>5} images, {name:<20} threshold {median(threshold):7.2f} ({max(threshold):.2f})"
                f"   {more.__name__:<11}{median(curve):7.2f} ({max(curve):.2f})"
            )


def synthetic(count: int, side: int) -> Images:
    """Images of p and y: blobs of 5 to 10 % of the image, found well or less well."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        field, noise = (smooth(rng, side, width) for width in (side / 25, side / 85))
        least = np.quantile(field, 1 - rng.uniform(0.05, 0.1))
        logits = 3 * rng.uniform(0.5, 1.5) * (field - least) + noise + 0.5 * rng.standard_normal()
        images.append(((1 / (1 + np.exp(-logits))).astype(np.float32), field >= least))
    return images


def smooth(rng: np.random.Generator, side: int, width: float) -> NDArray[np.float64]:
    """Smooth noise (side, side) of deviation 1."""
    field = gaussian_filter(rng.standard_normal((side, side)), width)
    return np.asarray(field / field.std())


def balls(side: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A mask (side, side, side) of 20 balls, about a share of the volume."""
    y = np.zeros((side,) * 3, bool)
    radius = round((share * side**3 / 20 * 0.75 / math.pi) ** (1 / 3))
    near = np.arange(-radius, radius + 1) ** 2
    ball = near[:, None, None] + near[:, None] + near <= radius**2
    # Side by side in layers, so that they hardly overlap.
    for number in range(20):
        centre = rng.integers(radius, side - radius, 3)
        centre[0] = radius + (side - 2 * radius - 1) * number // 19
        y[tuple(slice(c - radius, c + radius + 1) for c in centre)] |= ball
    return y


def lesions(count: int) -> Units:
    """Lesion probabilities of images that are found well or less well."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(count):
        logits = rng.normal(rng.normal(2, 1), 2, rng.integers(1000, 7000))
        values.append([np.sort((1 / (1 + np.exp(-logits))).astype(np.float32))])
    return gather([str(number) for number in range(count)], ["lesion"], values).units(0)


def ours(images: Images, rule: Part) -> Callable[[], float]:
    """From the arrays to the threshold."""

    def run() -> float:
        values = [[lesion_probabilities(p, y)] for p, y in images]
        names = [str(number) for number in range(len(images))]
        choice: Choice = rule.bind()(gather(names, ["lesion"], values).units(0))
        return choice.threshold

    return run


def timed(run: Callable[[], Any], times: int) -> list[tuple[float, float]]:
    """Seconds of the processor and of the clock, of each of so many calls."""
    taken = []
    for _ in range(times):
        processor, clock = process_time(), perf_counter()
        run()
        taken.append((process_time() - processor, perf_counter() - clock))
    return taken


def medians(taken: list[tuple[float, float]]) -> tuple[float, float]:
    """Median seconds of the processor and of the clock."""
    processor, clock = (median(seconds) for seconds in zip(*taken, strict=True))
    return processor, clock


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "mapie": against_mapie,
    "volume": volumes,
    "moves": moves,
}

if __name__ == "__main__":
    main()
