"""What a data set says of itself before training."""

from pathlib import Path

import numpy as np
import pytest
from support import write_pair

from engine import train
from engine.data.dataset import Dataset
from engine.data.specs import Data
from engine.record import RunReader


def write_images(root: Path, count: int, channels: int = 3) -> Path:
    """Write noise of 16 × 16 px with a square as the mask."""
    rng = np.random.default_rng(1)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 4:9] = 1
    for number in range(count):
        write_pair(root, f"i{number}", rng.integers(0, 255, (16, 16, channels)).astype(np.uint8), mask)
    return root


def test_a_dropped_alpha_channel_is_said_once_for_all_images(tmp_path: Path) -> None:
    dataset = Dataset.open(Data(root=str(write_images(tmp_path, 4, channels=4))))
    for _ in range(2):  # images of mixed kinds are read twice
        list(dataset.samples("train"))
    assert dataset.channels == 3
    assert dataset.remarks()[0] == "an alpha channel was dropped: 4 images (i0, i1, i2, …)."


def test_images_without_alpha_leave_no_note(tmp_path: Path) -> None:
    dataset = Dataset.open(Data(root=str(write_images(tmp_path, 2))))
    list(dataset.samples("train"))
    assert not any("alpha" in remark for remark in dataset.remarks())


@pytest.mark.parametrize(
    ("count", "share", "sentence"),
    [
        (
            1,
            (0.6, 0.15, 0.1, 0.15),
            "there is no val and no test split (1 image; under 10 none are split off), so the last "
            "checkpoint is the one used and evaluate needs --split train.",
        ),
        (
            10,
            (0.6, 0.0, 0.1, 0.3),
            "there is no val split (10 images), so the last checkpoint is the one used.",
        ),
    ],
)
def test_a_missing_split_is_said_with_what_follows(
    tmp_path: Path, count: int, share: tuple[float, float, float, float], sentence: str
) -> None:
    dataset = Dataset.open(Data(root=str(write_images(tmp_path, count)), split=share))
    assert dataset.remarks()[-1] == sentence


def test_groups_are_asked_for_only_where_images_are_divided(tmp_path: Path) -> None:
    few = Dataset.open(Data(root=str(write_images(tmp_path / "few", 5))))
    many = Dataset.open(Data(root=str(write_images(tmp_path / "many", 12))))
    assert not any("data.group" in remark for remark in few.remarks())
    assert any("data.group" in remark for remark in many.remarks())


def test_the_note_reaches_the_run_and_the_user_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "rgba", 4, channels=4)
    command = [
        "--data.root", str(root), "--out", str(tmp_path / "run"), "--quiet", "--training.epochs=1",
        "--training.device=cpu", "--model.base_width=4", "--model.depth=1",
    ]  # fmt: skip
    assert train.main(command) == 0
    warnings = [e["message"] for e in RunReader(tmp_path / "run").events() if e["event"] == "warning"]
    assert sum("alpha" in message for message in warnings) == 1
    assert capsys.readouterr().err.count("alpha channel") == 1
