"""Memory that mask modulation keeps for a training set.

python benchmarks/state.py [--masks 100000] [--size 256] [--classes 1] [--keep]
"""

import argparse

import measured
import psutil
import torch

from engine.modulation.specs import SMMv1, SMMv2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured.options(parser)
    parser.add_argument("--masks", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--classes", type=int, default=1)
    options = parser.parse_args()
    shapes = torch.full((options.masks, 2), options.size)
    rows = []
    for spec in (SMMv1(), SMMv2()):
        before = psutil.Process().memory_info().rss
        strategy = spec.bind()(
            epochs=10, shapes=shapes, classes=options.classes, device=torch.device("cpu"), revisits=False
        )
        # Written to, so that the system hands the memory out.
        for masks in {id(m): m for m in (strategy.observed, strategy.in_force)}.values():
            masks.bits.fill_(1)
        grown = psutil.Process().memory_info().rss - before
        rows.append([spec.name, grown / 1e9])
        del strategy, masks
    table = measured.Table(
        "modulation-state",
        f"Memory of {options.masks} masks of {options.size}², {options.classes} class(es)",
        ("modulation", "GB"), rows,
    )  # fmt: skip
    measured.report("modulation-state", torch.device("cpu"), [table], keep=options.keep)


if __name__ == "__main__":
    main()
