"""What every benchmark does alike: takes turns, says on what it ran, prints its tables and keeps them."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from engine.device import device_name

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "zarr", "monai", "mapie", "napari", "pyqt6")


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        title: a line.
        columns: their heads, with units.
        rows: a cell each, text or number.
        note: what must be known to read it.
        name: by which the page of results finds it, such as to plot it.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    note: str = ""

    def markdown(self) -> str:
        """Title, table and note as Markdown."""
        heads = f"| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}"
        lines = [f"| {' | '.join(shown(cell) for cell in row)} |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", heads, *lines, *(["", self.note] if self.note else [])])


@dataclass(frozen=True)
class Target:
    """What was to be reached, and what was.

    Attributes:
        what: and against what.
        measured: the figure.
        least, most: its bounds; one of them may be None.
        unit: such as "×", "%" or "s".
    """

    what: str
    measured: float
    least: float | None = None
    most: float | None = None
    unit: str = "×"
    met: bool = field(init=False)

    def __post_init__(self) -> None:
        low = self.least is None or self.measured >= self.least
        object.__setattr__(self, "met", low and (self.most is None or self.measured <= self.most))


def options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all benchmarks have."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--keep", action="store_true", help="keep the results in benchmarks/results")


def in_turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of each way, a list of `rounds` each, after `warm` rounds that do not count.

    Each way takes each place in turn, so that a slow minute of the machine falls on all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(warm + rounds):
        first = number % len(names)
        for name in [*names, *names][first : first + len(names)]:
            wait(device)
            started = perf_counter()
            ways[name]()
            wait(device)
            if number >= warm:
                seconds[name].append(perf_counter() - started)
    return seconds


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times as fast the second is: the median of the rounds' ratios."""
    return median(a / b for a, b in zip(slower, faster, strict=True))


def shown(cell: str | float) -> str:
    """A cell as text: numbers with three digits that count."""
    if isinstance(cell, str | int):
        return str(cell)
    if cell != cell or cell in (float("inf"), float("-inf")):
        return "–"
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def report(
    name: str, device: torch.device, tables: Sequence[Table], targets: Sequence[Target] = (),
    *, keep: bool = False, about: str = "",
) -> None:  # fmt: skip
    """Print what was measured, and keep it in ``results/DATE-NAME-DEVICE.json`` if asked.

    Args:
        name: of the benchmark.
        device: on which it ran.
        tables: results.
        targets: what was to be reached.
        keep: whether to write the file.
        about: what was done, for the page of results.
    """
    result = {
        "benchmark": name,
        "about": about,
        "command": " ".join(["python", *map(str, sys.argv)]),
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "commit": commit(),
        "machine": machine(device),
        "versions": dict(versions()),
        "tables": [asdict(table) for table in tables],
        "targets": [asdict(target) for target in targets],
    }
    print("\n\n".join(table.markdown() for table in tables))
    for target in targets:
        bound = f"≥ {target.least:g}" if target.least is not None else f"≤ {target.most:g}"
        sign = "reached" if target.met else "NOT reached"
        print(f"{target.what}: {shown(target.measured)} {target.unit}, target {bound}: {sign}")
    print("; ".join(f"{key} {value}" for key, value in machine(device).items()))
    if keep:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{datetime.now():%Y-%m-%d}-{name}-{label(device_name(device))}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"kept in {path}")


def label(name: object) -> str:
    """A name as a part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")


def machine(device: torch.device) -> dict[str, str | int | float]:
    """The device's name, and the machine around it."""
    return {
        "device": device_name(device),
        "kind": device.type,
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> Iterator[tuple[str, str]]:
    """Those of the libraries that are there."""
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def commit() -> str:
    """The commit that is measured, with a "+" where files differ from it; "" outside a repository."""
    here = Path(__file__).parent
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True, check=False
    )
    return said.stdout.strip()
