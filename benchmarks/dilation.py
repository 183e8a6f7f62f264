"""Modulated masks of a batch against the per-image `skimage.morphology.dilation` that they replace.

    python benchmarks/dilation.py [--sides 256 512] [--batch 4] [--rounds 30] [--keep]

scikit-image runs on the CPU; on a GPU the time to bring predictions there and masks back is not counted.
"""

import argparse
from statistics import median

import numpy as np
import torch
from measured import Table, Target, in_turns, options, ratio, report
from numpy.typing import NDArray
from skimage.morphology import diamond, dilation

from engine.data.demo import demo_pair
from engine.device import find_device
from engine.modulation import miss_aware_mask


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    options(parser)
    asked = parser.parse_args()
    device = find_device(asked.device)
    rows: list[list[str | float]] = []
    targets = []
    for side in asked.sides:
        truth = np.stack([demo_pair(number, size=side)[1] for number in range(asked.batch)])
        theirs, ours = timed(truth, device, asked.rounds)
        times = ratio(theirs, ours)
        rows.append([f"{side}²", 1e3 * median(theirs), 1e3 * median(ours), times])
        targets.append(Target(f"modulated masks of {side}² against scikit-image", times, 1.0))
    table = Table(
        "dilation",
        f"Modulated masks of {asked.batch} images, radius 2",
        ["", "skimage.morphology.dilation, ms", "engine.modulation.miss_aware_mask, ms", "× as fast"],
        rows,
    )
    report("dilation", device, [table], targets, keep=asked.keep, about=(__doc__ or "").split("    py")[0])


def timed(truth: NDArray[np.bool_], device: torch.device, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both for truths (B, h, w) of which predictions miss 30 %."""
    prediction = truth & (np.random.default_rng(0).random(truth.shape) < 0.7)
    batch = [torch.from_numpy(x)[:, None].to(device) for x in (truth, prediction)]
    footprint = diamond(2)

    def one_by_one() -> NDArray[np.bool_]:
        return np.stack([y | dilation(y & ~p, footprint) for y, p in zip(truth, prediction, strict=True)])

    def at_once() -> torch.Tensor:
        return miss_aware_mask(*batch)

    np.testing.assert_array_equal(one_by_one(), at_once()[:, 0].cpu().numpy())
    seconds = in_turns({"theirs": one_by_one, "ours": at_once}, rounds, device)
    return seconds["theirs"], seconds["ours"]


if __name__ == "__main__":
    main()
