"""Masks that are saved while training goes on: taken up at the next epoch, kept, repeated, resumed."""

import json
import os
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import events, fast, write_pair

from engine import checkpoint, train
from engine.data.demo import demo_pair
from engine.errors import InputError
from engine.loop import Epoch
from engine.record import RunReader, read_truth, truth_epochs

OLD = 10.0
"""Seconds before now at which files were changed that are taken up at once."""
MOMENTS = count()


def settle(path: Path, age: float = OLD) -> None:
    """Make a file look as if it had been saved some time ago, each time at another one."""
    moment = time.time_ns() - int(age * 1e9) + next(MOMENTS)
    os.utime(path, ns=(moment, moment))


def pair(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask, uint8 (40, 48)."""
    image, truth = demo_pair(number, size=64, seed=3)
    return image[:40, :48], truth[:40, :48].astype(np.uint8)


def save(root: Path, name: str, number: int, mask: np.ndarray | None = None) -> None:
    """Save image and mask, the mask 0 and 1."""
    image, truth = pair(number)
    write_pair(root, name, image, truth if mask is None else mask)
    for folder in ("images", "masks"):
        settle(root / folder / f"{name}.png")


def correct(root: Path, name: str, mask: np.ndarray) -> None:
    """Save another mask."""
    path = root / "masks" / f"{name}.png"
    Image.fromarray(mask).save(path)
    settle(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """12 images."""
    for number in range(12):
        save(tmp_path / "data", f"v{number:02d}", number)
    return tmp_path / "data"


def disc(row: int, column: int) -> np.ndarray:
    """A mask of one disc, uint8 (40, 48)."""
    y, x = np.ogrid[:40, :48]
    return (((y - row) ** 2 + (x - column) ** 2) < 60).astype(np.uint8)


def between(monkeypatch: pytest.MonkeyPatch, does: dict[int, Callable[[], object]]) -> None:
    """Do something after an epoch is recorded and before the next begins."""
    recorded = train.save

    def save_and_do(writer: Any, epoch: Epoch, config: Any) -> None:
        recorded(writer, epoch, config)
        does.get(epoch.number, lambda: None)()

    monkeypatch.setattr(train, "save", save_and_do)


def start(root: Path, out: Path, *settings: str) -> None:
    given = ["--data.follow", "--training.epochs=6", *settings]
    assert train.main(["--data.root", str(root), "--out", str(out), *fast(*given)]) == 0


def state(run: Path) -> dict[str, Any]:
    return checkpoint.load(run / "checkpoints" / "last")


def assert_same(one: Path, other: Path) -> None:
    """Weights, masks of modulation, watched arrays and all epochs of two runs are equal."""
    first, second = state(one), state(other)
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    for key, value in first["modulation"].items():
        same = torch.equal(value, second["modulation"][key]) if torch.is_tensor(value) else None
        assert same or same is None
    said = [
        [event for event in events(run) if event["event"] in ("epoch", "followed")] for run in (one, other)
    ]
    assert said[0] == said[1]
    mine, theirs = RunReader(one).watched(), RunReader(other).watched()
    assert [dict(group.attrs) for group in mine] == [dict(group.attrs) for group in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert sorted(a.array_keys()) == sorted(b.array_keys())
        for array in a.array_keys():
            np.testing.assert_array_equal(a[array][:], b[array][:])
    a, b = RunReader(one).info(), RunReader(other).info()
    assert (a["splits"], a["digests"], a["dataset"]) == (b["splits"], b["digests"], b["dataset"])


def take_part(monkeypatch: pytest.MonkeyPatch, root: Path, info: Callable[[], dict[str, Any]]) -> None:
    """Someone who corrects a training and a validation mask, and paints new images, as training goes on."""

    def first() -> None:
        splits = info()["splits"]
        correct(root, splits["train"][1], disc(20, 20))
        correct(root, splits["val"][0], disc(15, 30))
        correct(root, splits["test"][0], disc(15, 30))

    def third() -> None:
        save(root, "w00", 20)
        image, truth = demo_pair(21, size=80, seed=3)
        write_pair(
            root, "w01", image[:70, :56], np.where(disc_of(70, 56), 255, truth[:70, :56]).astype(np.uint8)
        )
        for folder in ("images", "masks"):
            settle(root / folder / "w01.png")
        correct(root, info()["splits"]["train"][1], disc(5, 5))

    between(monkeypatch, {1: first, 3: third})


def disc_of(height: int, width: int) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    return (y - 20) ** 2 + (x - 20) ** 2 < 40


IGNORING = "--data.classes={ vessel = [1], ignore = [255] }"


@pytest.mark.parametrize("method", ["none", "smm_v1", "smm_v2"])
def test_a_run_that_took_masks_up_can_be_repeated_to_the_bit(
    method: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live"
    settings = [f"--modulation.name={method}", IGNORING, "--data.patch=64"]
    with monkeypatch.context() as patch:
        take_part(patch, root, lambda: RunReader(live).info())
        start(root, live, *settings)
    followed = [event for event in events(live) if event["event"] == "followed"]
    assert [(event["epoch"], len(event["images"])) for event in followed] == [(2, 2), (4, 3)]
    assert [image["new"] for image in followed[1]["images"]] == [False, True, True]
    info = RunReader(live).info()
    assert info["splits"]["train"][-2:] == ["w00", "w01"]
    assert list(info["digests"]["train"]) == info["splits"]["train"]
    assert info["dataset"]["images"] == 14
    shutil.rmtree(root / "masks")  # no mask is needed any more
    again = tmp_path / "again"
    start(root, again, *settings, f"--data.replay={live}")
    assert_same(live, again)
