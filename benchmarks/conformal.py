"""Speed and memory of thresholds with a guarantee.

    python benchmarks/conformal.py [--rounds 5] [--only mapie volume moves] [--keep]

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
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from statistics import median
from time import perf_counter, process_time
from typing import Any

import measured
import numpy as np
import torch
from measured import Table, Target
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engine.spec import Part
from engine.thresholds import Choice, Units, attainable, gather, lesion_probabilities, mean_bound
from engine.thresholds.conformal import critical_of
from engine.thresholds.specs import Cls, Conditional, Crc

ALPHA = 0.1
MEBI = 2**20
MAPIE = "MAPIE, CRC on its grid of 100"
Images = list[tuple[NDArray[np.float32], NDArray[np.bool_]]]
Measured = tuple[Table, list[Target]]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured.options(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS, help="parts to measure")
    parser.add_argument("--side", type=int, default=512, help="length of the volume's sides (default: 512)")
    parser.add_argument("--share", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.share is not None:
        print(json.dumps(one_volume(options.side, options.share, options.rounds)))
        return
    tables: list[Table] = []
    targets: list[Target] = []
    for part in options.only:
        table, found = PARTS[part](options)
        tables.append(table)
        targets += found
    measured.report(
        "conformal", torch.device("cpu"), tables, targets, keep=options.keep,
        about="Thresholds with a guarantee, from arrays of p and y",
    )  # fmt: skip


def against_mapie(options: argparse.Namespace) -> Measured:
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

    rules = {MAPIE: mapie, "CRC": ours(images, Crc(alpha=ALPHA))}
    rules["CLS"] = ours(images, Cls(epsilon=0.1, alpha=ALPHA))
    answers = {name: run() for name, run in rules.items()}
    grid, exact = answers[MAPIE], answers["CRC"]
    # MAPIE predicts p > λ, so the last λ of its grid that will do lies below ours, and less than a step.
    if not 0 < exact - grid <= 0.01 + 1e-9:
        raise SystemExit(f"MAPIE answers {grid}, and CRC {exact}: they should differ by less than 0.01")
    taken: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in rules}

    def turn(name: str) -> None:
        taken[name].append(timed(rules[name], 1 if name == MAPIE else 9))

    ways = {name: partial(turn, name) for name in rules}
    measured.in_turns(ways, options.rounds, torch.device("cpu"), warm=0)
    slower = [list(seconds) for seconds in zip(*map(medians, taken[MAPIE]), strict=True)]
    rows: list[list[str | float]] = []
    for name, each in taken.items():
        both = [list(seconds) for seconds in zip(*map(medians, each), strict=True)]
        faster = [measured.ratio(a, b) for a, b in zip(slower, both, strict=True)]
        rows.append([name, answers[name], *(1e3 * median(seconds) for seconds in both), *faster])
        if name == "CRC":
            target = Target("calibration by CRC, against MAPIE, by the processor", faster[0], 100.0)
    table = Table(
        "conformal-mapie", f"Calibrating 50 images of 256², 5 to 10 % lesion, α = {ALPHA:g}, from p, y to T",
        ("", "T", "ms processor", "ms clock", "× by the processor", "× by the clock"), rows,
        f"{options.rounds} rounds in turns, each of 9 calls, of MAPIE 1. MAPIE {version('mapie')} "
        "image by image; its T lies less than a step of its grid below the exact one. It has no CLS.",
    )  # fmt: skip
    return table, [target]


def volumes(options: argparse.Namespace) -> Measured:
    """Lesion probabilities and critical threshold of one large volume, of two shares of lesion."""
    rows = []
    for share in (0.01, 0.1):
        command = [sys.executable, __file__, f"--share={share}", f"--side={options.side}"]
        done = subprocess.run(
            [*command, f"--rounds={options.rounds}"], check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout)
        names = ("processor", "clock", "copy", "allocated", "grown")
        rows.append([100 * found["share"], *(found[name] for name in names)])
    table = Table(
        "conformal-volume", f"A volume of {options.side}³ float32, up to its critical threshold",
        ("% lesion", "s processor", "s clock", "MiB of the lesion voxels", "MiB allocated", "grown by MiB"),
        rows, f"Median of {options.rounds}; a process of its own.",
    )  # fmt: skip
    return table, []


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


def moves(options: argparse.Namespace) -> Measured:
    """Moving ε, or α for CRC, over calibration images of about 4000 lesion pixels each."""
    rows = []
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
            rows.append([n, name, median(threshold), max(threshold), median(curve), max(curve)])
    table = Table(
        "conformal-moves", "One move of a slider, in ms of the processor",
        ("images", "rule", "T", "at most", "what is attainable, or the bound", "at most"), rows,
        f"Median and largest of {20 * options.rounds}.",
    )  # fmt: skip
    return table, []


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


PARTS: dict[str, Callable[[argparse.Namespace], Measured]] = {
    "mapie": against_mapie,
    "volume": volumes,
    "moves": moves,
}

if __name__ == "__main__":
    main()
