"""The promises on predictions of real images: nuclei in 2D, hippocampi in 3D, divided again and again."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom
from support import fast

from engine import train
from engine.thresholds.specs import Cls, Conditional, Crc

SPLITS = 300
N = 30
ERRORS = 4.0
"""Standard errors that the mean over the splits may lie below the law: once in 30 000 by chance."""


@pytest.fixture(scope="module")
def coverage() -> Iterator[ModuleType]:
    """benchmarks/coverage.py, which does the same with more images and better networks."""
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def some(source: Path, out: Path, count: int, ending: str) -> Path:
    """A folder of the first images of another that have a mask of the same name."""
    files = sorted((source / "images").glob(f"*{ending}"))[:count]
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)
        for file in files:
            shutil.copy(source / kind / file.name, out / kind)
    return out


def trained(root: Path, out: Path, *flags: str) -> Path:
    settings = fast(
        "--modulation.name=none", "--watch.train=0", "--watch.val=0", "--optimizer.lr=0.01", *flags
    )
    assert train.main(["--data.root", str(root), "--out", str(out), *settings]) == 0
    return out


def check(coverage: ModuleType, pool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Divide a pool again and again; report coverage and precision, and hold them to the law."""
    total = pool.units.n
    splits = coverage.Splits.draw(total, N, SPLITS, np.random.default_rng(0))
    lines = []
    for rule in (
        Cls(epsilon=0.2, alpha=0.1),
        Cls(epsilon=0.1, alpha=0.2),
        Conditional(epsilon=0.2, alpha=0.2),
    ):
        choices = coverage.answers(pool, rule, splits.members)
        fnr, precision = coverage.unit_rates(pool, choices)
        kept = splits.mean(fnr <= rule.epsilon)
        k, tests = choices[0].rank, total - N
        law = betabinom(tests, N + 1 - k, k)
        least = law.mean() / tests - ERRORS * law.std() / tests / np.sqrt(SPLITS)
        lines.append(f"{rule} kept {kept.mean():.3f}, precision {np.nanmean(splits.mean(precision)):.3f}")
        assert law.mean() / tests >= 1 - rule.alpha
        assert kept.mean() >= least, lines[-1]
    risk = Crc(alpha=0.2)
    fnr, precision = coverage.unit_rates(pool, coverage.answers(pool, risk, splits.members))
    missed = splits.mean(fnr)
    lines.append(f"{risk} missed {missed.mean():.3f}, precision {np.nanmean(splits.mean(precision)):.3f}")
    assert missed.mean() <= 0.2 + ERRORS * missed.std() / np.sqrt(SPLITS), lines[-1]
    with capsys.disabled():
        print(f"\n{pool.title} ({total} {pool.unit}s, {SPLITS} divisions)", *lines, sep="\n  ")


def test_nuclei(
    shared: Callable[[str], Path], coverage: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = some(shared("dsb2018"), tmp_path / "some", 100, ".png")
    run = trained(
        root, tmp_path / "run", "--data.size=64", "--data.split=[0.2, 0, 0.4, 0.4]", "--training.epochs=6"
    )
    check(coverage, coverage.gathered("dsb2018", "image", coverage.predictions(run), ("nucleus",), 0), capsys)


def test_hippocampi_in_three_dimensions(
    shared: Callable[[str], Path], coverage: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = some(shared("hippocampus3d"), tmp_path / "some", 60, ".nii.gz")
    coverage.write_slices(root, tmp_path / "slices")
    flags = [flag for flag in coverage.SLICES if not flag.startswith("--data.split")]
    run = trained(
        tmp_path / "slices",
        tmp_path / "run",
        *flags,
        "--data.split=[0.1, 0, 0.45, 0.45]",
        "--training.epochs=3",
    )
    volumes = list(coverage.stacked(coverage.predictions(run)))
    assert volumes[0][1].ndim == 4
    classes = ("anterior", "posterior")
    for title, number in (("posterior hippocampus", 1), ("both classes at once", None)):
        check(coverage, coverage.gathered(title, "volume", volumes, classes, number), capsys)
