"""A small data set on disk, and runs of it, for the tests of the commands."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import FAST, write_pair
from volumes import volume_settings, write_volumes

from engine import train
from engine.data.demo import demo_pair

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """A folder of real data; the test is skipped where it is not at hand."""

    def folder(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"no real data at {SHARED / name}")
        return SHARED / name

    return folder


@pytest.fixture(scope="session")
def vessels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 gray images of 40 × 48 px with thin structures, masks 0 and 255."""
    root = tmp_path_factory.mktemp("vessels")
    for number in range(20):
        image, truth = demo_pair(number, size=64, seed=3)
        write_pair(root, f"v{number:02d}", image[:40, :48], truth[:40, :48].astype(np.uint8) * 255)
    return root


@pytest.fixture(scope="session")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 colour images of 32 × 32 px with two exclusive classes, masks 0, 1, 2."""
    root = tmp_path_factory.mktemp("organs")
    rng = np.random.default_rng(5)
    for number in range(12):
        mask = np.zeros((32, 32), np.uint8)
        row, column = rng.integers(2, 14, 2)
        mask[row : row + 12, column : column + 6] = 1
        mask[row : row + 12, column + 6 : column + 14] = 2
        image = rng.integers(0, 60, (32, 32, 3))
        image[..., 0] += 120 * (mask == 1)
        image[..., 1] += 120 * (mask == 2)
        write_pair(root, f"o{number:02d}", image.astype(np.uint8), mask)
    return root


@pytest.fixture(scope="session")
def blobs3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 NIfTI volumes of 16 × 20 × 24 voxels of 2 × 1 × 0.5 mm with two classes."""
    return write_volumes(tmp_path_factory.mktemp("blobs3d"))


@pytest.fixture(scope="session")
def finished3d(blobs3d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 2 epochs of SMM v2 on volumes; not to be written into."""
    out = tmp_path_factory.mktemp("runs") / "finished3d"
    assert train.main(["--data.root", str(blobs3d), "--out", str(out), *volume_settings()]) == 0
    return out


@pytest.fixture
def trained_run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of its own for a test that writes into it."""
    return Path(shutil.copytree(finished, tmp_path / "vessels-v2"))


@pytest.fixture(scope="session")
def finished(vessels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 epochs of SMM v2; not to be written into."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert train.main(["--data.root", str(vessels), "--out", str(out), "--training.epochs=6", *FAST]) == 0
    assert (out / "checkpoints" / "last").is_file()  # a signal ends a training early, and well
    return out
