"""Modulated masks of a batch against the per-image `skimage.morphology.dilation` that they replace.

python benchmarks/dilation.py [--size 512] [--batch 4]
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import torch
from skimage.morphology import diamond, dilation

from engine.data.demo import demo_pair
from engine.modulation import miss_aware_mask


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    truth = np.stack([demo_pair(number, size=options.size)[1] for number in range(options.batch)])
    prediction = truth & (np.random.default_rng(0).random(truth.shape) < 0.7)
    batch = torch.from_numpy(truth)[:, None], torch.from_numpy(prediction)[:, None]
    footprint = diamond(2)

    def one_by_one() -> np.ndarray:
        return np.stack([y | dilation(y & ~p, footprint) for y, p in zip(truth, prediction, strict=True)])

    def at_once() -> torch.Tensor:
        return miss_aware_mask(*batch)

    np.testing.assert_array_equal(one_by_one(), at_once()[:, 0].numpy())
    seconds: dict[str, list[float]] = {"skimage": [], "engine": []}
    for _ in range(options.rounds):
        for name, run in (("skimage", one_by_one), ("engine", at_once)):
            started = perf_counter()
            run()
            seconds[name].append(perf_counter() - started)
    ours, theirs = median(seconds["engine"]), median(seconds["skimage"])
    print(f"{options.batch} masks of {options.size}², {torch.get_num_threads()} threads, radius 2")
    print(f"skimage.morphology.dilation, image by image  {1e3 * theirs:8.2f} ms")
    print(f"engine.modulation.miss_aware_mask            {1e3 * ours:8.2f} ms   {theirs / ours:.1f} × faster")


if __name__ == "__main__":
    main()
