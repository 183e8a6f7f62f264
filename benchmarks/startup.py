"""Seconds from the command to the first optimiser step, on the embedded set.

    python benchmarks/startup.py [--rounds 7] [--threads N]

Processes in turns: one that imports torch, and two that do what `python -m engine.train --preset demo` does
up to the first step of its optimiser, with which they end; one of them writes the embedded set first, as on
the first day. The clock starts before the process does. What counts is the difference, round by round.

The engine is as it is: torch itself calls back after an optimiser's step, and the parts' functions are timed
from outside.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

TARGET = 5.0
PARTS = {
    "imports": "imports beyond torch",
    "embedded set": "write the embedded set, or find it",
    "folder": "find layout, classes and splits",
    "images": "decode the images",
    "network": "build the network",
    "run directory": "open the run directory, its arrays for watched images",
    "step": "from the first batch to the end of the first step",
    "rest": "settings and all else",
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's, of the processes that are measured")
    import measured  # here, as the processes that are measured read this file too

    from engine.device import find_device

    measured.options(parser)
    given = parser.parse_args()
    device = find_device(given.device)
    spent: dict[str, list[dict[str, float]]] = {"train": [], "train, first day": []}
    environment = dict(os.environ)
    if given.threads is not None:
        environment["OMP_NUM_THREADS"] = str(given.threads)

    def imports() -> None:
        code = "import torch, os; os._exit(0)"
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    def trains(way: str, cache: Path | None = None) -> None:
        with TemporaryDirectory() as folder:
            out, home = Path(folder) / "run", cache or Path(folder)
            command = [sys.executable, __file__, "--until-first-step", str(out), str(given.device)]
            done = subprocess.run(
                command, env={**environment, "XDG_CACHE_HOME": str(home)}, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        spent[way].append(json.loads(done.stdout.splitlines()[-1]))

    with TemporaryDirectory() as cache:
        ways = {
            "import torch": imports,
            "train": lambda: trains("train", Path(cache)),
            "train, first day": lambda: trains("train, first day"),
        }
        taken = measured.in_turns(ways, given.rounds, device)
    torch = taken.pop("import torch")
    beyond = {way: [a - b for a, b in zip(seconds, torch, strict=True)] for way, seconds in taken.items()}
    totals: list[list[str | float]] = [["import torch", median(torch), max(torch), "–", "–"]]
    totals += [[way, median(taken[way]), max(taken[way]), median(s), max(s)] for way, s in beyond.items()]
    parts = {way: each[-given.rounds :] for way, each in spent.items()}
    rows = [[about, *(median(one[name] for one in each) for each in parts.values())]
            for name, about in PARTS.items()]  # fmt: skip
    measured.report(
        "startup", device,
        [
            measured.Table(
                "startup", "From the command to the first optimiser step",
                ("process", "median s", "longest s", "beyond torch, median s", "beyond torch, longest s"),
                totals, f"{given.rounds} rounds in turns.",
            ),
            measured.Table(
                "startup-parts", "Where the time beyond torch goes", ("part", "s", "s on the first day"), rows
            ),
        ],
        [
            measured.Target(
                "first optimiser step, beyond importing torch", median(beyond["train"]), most=TARGET, unit="s"
            )
        ],
        keep=given.keep, about="python -m engine.train --preset demo, up to its first optimiser step",
    )  # fmt: skip


def until_first_step(out: str, device: str) -> None:
    """Train up to the first step, print the seconds of each part as JSON, and end."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    spent = dict.fromkeys(PARTS, 0.0)
    began = time.perf_counter()
    from engine import prepare, train
    from engine.data import dataset
    from engine.record import RunWriter

    spent["imports"] = time.perf_counter() - began

    inside: list[str] = []

    def timed(holder: Any, name: str, part: str) -> None:
        """Count a function's seconds for a part, and for no part in which it is called."""
        plain = getattr(holder, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            inside.append(part)
            try:
                return plain(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - started
                spent[part] += seconds
                inside.pop()
                if inside:
                    spent[inside[-1]] -= seconds

        setattr(holder, name, run)

    timed(dataset, "write_demo", "embedded set")
    timed(train, "open_dataset", "folder")
    timed(prepare, "load", "images")
    timed(prepare, "build_network", "network")
    timed(RunWriter, "create", "run directory")
    timed(RunWriter, "watch", "run directory")
    first: list[float] = []
    fit = train.fit

    def begin(*args: Any, **kwargs: Any) -> Any:
        first.append(time.perf_counter())
        return fit(*args, **kwargs)

    train.fit = begin

    def end(*_: Any) -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        now = time.perf_counter()
        spent["step"] = now - first[0]
        spent["rest"] = now - began - sum(spent.values())
        print(json.dumps(spent), flush=True)
        os._exit(0)

    register_optimizer_step_post_hook(end)
    train.main(["--preset", "demo", "--out", out, "--quiet", f"--training.device={device}"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--until-first-step"]:
        until_first_step(*sys.argv[2:])
    else:
        main()
