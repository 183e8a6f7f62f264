"""Processes that train together: the same losses, batches, masks and weights as one has."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from forked import exit_codes, start_together, together, trains, trains_saying
from sharing import SPLITS, batch, differentiates, gradients, losses, refuses
from skimage.io import imread, imsave
from support import events, write_pair

from engine import checkpoint
from engine.bits import BYTE
from engine.config import Layer, resolve
from engine.data.store import frame_shape
from engine.errors import InputError
from engine.flags import parse
from engine.initial import open_dataset
from engine.losses.guides import Guides
from engine.losses.masked import apart
from engine.losses.objective import build
from engine.prepare import require_shares
from engine.ranks import ALONE, Ranks
from engine.record import RunReader

SETTINGS = [
    "--model.base_width=4", "--model.depth=2", "--training.batch_size=4", "--training.device=cpu",
    "--training.threads=1",
    "--optimizer.name=sgd", "--optimizer.lr=0.05", "--watch.train=3", "--watch.val=2", "--quiet",
]  # fmt: skip
INSTANCE, THREE, CROPS = "--model.norm=instance", "--training.epochs=3", "--data.patch=32"
METHODS = {
    "smm_v2": ["--modulation.name=smm_v2", "--modulation.warmup=0.3", CROPS],
    "smm_v1 by a pass": [
        "--modulation.name=smm_v1", "--modulation.warmup=0.3", "--modulation.source=pass", CROPS,
    ],
    "plain, cropped, pooled": [
        "--modulation.name=none", "--loss.name=dice", "--loss.batch=true", "--data.patch=16",
        "--data.patches_per_image=3",
    ],
}  # fmt: skip


def test_every_loss_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    whole = gradients(range(4))
    for size, images in SPLITS.items():
        out = tmp_path / str(size)
        out.mkdir()
        assert together(size, differentiates, out) == [0] * size
        parts = [torch.load(out / f"{rank}.pt") for rank in range(size)]
        for name, (loss, gradient) in whole.items():
            for mine, part in zip(images, parts, strict=True):
                torch.testing.assert_close(part[name][0], loss, msg=lambda text, name=name: f"{name}: {text}")
                torch.testing.assert_close(
                    part[name][1], gradient[mine], rtol=1e-4, atol=1e-7,
                    msg=lambda text, name=name: f"{name}: {text}",
                )  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
def test_every_loss_of_images_apart_is_that_of_each_alone(masked: bool) -> None:
    for name, part, head in losses():
        objective = build(part, head, 2)
        logits, truth, valid, *maps = batch(head, masked)
        with apart():
            each = objective(logits, truth, valid, Guides(*maps, 3))
        for number in range(4):
            one = slice(number, number + 1)
            own = [None if x is None else x[one] for x in (logits, truth, valid, *maps)]
            alone = objective(*own[:3], Guides(*own[3:], 3))
            torch.testing.assert_close(each[number], alone, msg=lambda text, name=name: f"{name}: {text}")


def test_what_one_process_refuses_all_refuse(tmp_path: Path) -> None:
    assert together(3, refuses, tmp_path) == [0, 0, 0]
    first, second, third = (ast.literal_eval((tmp_path / f"{n}.txt").read_text()) for n in range(3))
    assert first[:4] == ["first", True, False, [f"image {number}" for number in range(5)]]
    assert second[:4] == third[:4] == ["first", True, False, []]
    assert first[4:] == [("InputError", "the second cannot read this"), ("InputError", "0 cannot read this")]
    silent = [("RefusedError", "the second cannot read this"), ("RefusedError", "0 cannot read this")]
    assert second[4:] == third[4:] == silent


@pytest.fixture(scope="module", params=METHODS)
def runs(
    request: pytest.FixtureRequest, vessels: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Number of processes → the run that they trained together."""
    root = tmp_path_factory.mktemp("together")
    made = {}
    for size in (1, 2, 4):
        made[size] = root / f"{size}"
        command = [f"--data.root={vessels}", *SETTINGS, INSTANCE, THREE, *METHODS[request.param]]
        assert together(size, trains, [*command, f"--out={made[size]}"]) == [0] * size
    return made


@pytest.mark.parametrize("size", [2, 4])
def test_they_train_what_one_process_would(runs: dict[int, Path], size: int) -> None:
    one, several = (checkpoint.load(runs[n] / "checkpoints" / "last") for n in (1, size))
    for name, weights in one["model"].items():
        torch.testing.assert_close(several["model"][name], weights, rtol=1e-5, atol=1e-6, msg=name)
    assert_same_numbers(one["record"], several["record"])
    for key in ("recalls", "slopes"):
        np.testing.assert_allclose(several["modulation"][key], one["modulation"][key], rtol=0, atol=1e-6)
    mine, theirs = ([event for event in events(runs[n]) if event["event"] == "epoch"] for n in (1, size))
    for a, b in zip(mine, theirs, strict=True):
        assert_same_numbers(a, b)


def assert_same_numbers(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("epoch", "updated", "warmup", "added", "best", "lr"):
        assert other[name] == one[name], name
    for name in ("loss", "recall", "slope", "gamma"):
        if one[name] is None or other[name] is None:
            assert one[name] is other[name], name
        else:
            assert other[name] == pytest.approx(one[name], abs=1e-6), name
    for name, values in one["validation"].items():
        assert other["validation"][name] == pytest.approx(values, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("size", [2, 4])
def test_they_watch_the_same_images(runs: dict[int, Path], size: int) -> None:
    one, several = (RunReader(runs[n]).info() for n in (1, size))
    for name in ("splits", "digests", "dataset", "parameters", "steps"):
        assert several[name] == one[name]
    assert (one["processes"], several["processes"]) == (1, size)
    items = sorted(path.name for path in (runs[1] / "watched").iterdir())
    assert items == sorted(path.name for path in (runs[size] / "watched").iterdir())
    for item in items:
        mine, theirs = (zarr.open_group(runs[n] / "watched" / item, mode="r") for n in (1, size))
        assert mine.attrs["name"] == theirs.attrs["name"]
        for name in ("image", "truth", "valid"):
            np.testing.assert_array_equal(mine[name][:], theirs[name][:])
        p, q = mine["probability"][:], theirs["probability"][:]
        np.testing.assert_allclose(q.astype(float), p.astype(float), atol=2e-3)  # float16, rounded
        differs = mine["modulated"][:] != theirs["modulated"][:]
        assert differs.sum() <= (abs(p.astype(float) - 0.5) < 1e-3).sum()


def test_masks_differ_only_where_a_probability_lies_at_the_threshold(
    runs: dict[int, Path], vessels: Path
) -> None:
    one, several = (checkpoint.load(runs[n] / "checkpoints" / "last")["modulation"] for n in (1, 4))
    if "observed" not in one:
        assert "observed" not in several
        return
    frames = frame_shape((40, 48))
    assert one["observed"].shape == (1, 12 * frames[0] * frames[1] // BYTE)
    for name in ("observed", "in_force"):
        if name in one:
            assert int((one[name] != several[name]).sum()) == 0, name
    assert one["observed"].any()


def test_a_stop_anywhere_stops_all_and_another_number_goes_on(vessels: Path, tmp_path: Path) -> None:
    settings = [f"--data.root={vessels}", *SETTINGS, INSTANCE, *METHODS["smm_v2"], "--training.epochs=8"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert together(1, trains, [*settings, "--out", str(whole)]) == [0]
    processes = start_together(4, trains, [*settings, "--out", str(cut)])
    deadline = time.monotonic() + 100
    while not (cut / "checkpoints" / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (cut / "checkpoints" / "last").exists()
    assert processes[2].pid is not None
    os.kill(processes[2].pid, signal.SIGTERM)
    assert exit_codes(processes) == [0] * 4
    *_, last = events(cut)
    assert (last["event"], last["reason"]) == ("stopped", "SIGTERM")
    assert 1 <= last["epoch"] < 8
    assert together(2, trains, ["--resume", str(cut), "--quiet"]) == [0, 0]
    assert RunReader(cut).status() == "finished"
    one, other = (checkpoint.load(run / "checkpoints" / "last") for run in (whole, cut))
    for name, weights in one["model"].items():
        torch.testing.assert_close(other["model"][name], weights, rtol=1e-3, atol=1e-4, msg=name)
    np.testing.assert_allclose(other["modulation"]["recalls"], one["modulation"]["recalls"], atol=1e-3)


def test_images_of_another_kind_or_without_a_class_in_one_part_only(tmp_path: Path) -> None:
    """What one process has of the images alone must not decide how it treats them."""
    rng = np.random.default_rng(3)
    images = tmp_path / "images"
    for number in range(12):
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 8 : 8 + number] = 255 * (number % 2)  # the even ones, the first process's, have none
        image = (rng.integers(0, 60, mask.shape) + mask // 4).astype(np.uint8)
        write_pair(images, f"{number:02d}", image, mask)
        if number == 3:
            imsave(images / "images" / "03.png", image.astype(np.uint16) * 200, check_contrast=False)
    settings = [
        f"--data.root={images}", *SETTINGS, INSTANCE, THREE, "--data.cache=disk", "--data.split=[1,0,0,0]",
        "--modulation.warmup=0.3",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert together(1, trains, [*settings, f"--out={one}"]) == [0]
    assert together(2, trains, [*settings, f"--out={two}"]) == [0, 0]
    first, second = (checkpoint.load(run / "checkpoints" / "last") for run in (one, two))
    for name, weights in first["model"].items():
        torch.testing.assert_close(second["model"][name], weights, rtol=1e-5, atol=1e-6, msg=name)
    assert torch.equal(first["modulation"]["observed"], second["modulation"]["observed"])
    notes = [[event["message"] for event in events(run) if event["event"] == "warning"] for run in (one, two)]
    assert notes[0] == notes[1] != []
    assert not list(two.glob("cache/**/*.pixels"))


def test_images_that_stay_in_their_files_and_one_to_validate(vessels: Path, tmp_path: Path) -> None:
    """Each process keeps the misses of its images in a file of its own; one has nothing to validate."""
    root = tmp_path / "tiled"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for path in sorted((vessels / kind).iterdir())[:11]:
            tifffile.imwrite(root / kind / f"{path.stem}.tif", imread(path), tile=(16, 16))
    settings = [
        f"--data.root={root}", *SETTINGS, INSTANCE, THREE, "--data.cache=none", "--data.patch=24",
        "--data.split=[0.91,0.09,0,0]", "--modulation.warmup=0",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    assert together(1, trains, [*settings, f"--out={one}"]) == [0]
    assert together(2, trains, [*settings, f"--out={two}"]) == [0, 0]
    assert len(RunReader(two).info()["splits"]["val"]) == 1
    first, second = (checkpoint.load(run / "checkpoints" / "last") for run in (one, two))
    assert_same_numbers(first["record"], second["record"])
    assert torch.equal(first["modulation"]["observed"], second["modulation"]["observed"])
    assert first["modulation"]["observed"].any()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--optimizer.weight_decay=1e30"],
            r"error: the loss was nan in epoch \d, step \d \(images (v\d\d(, )?)+\)",
        ),
        (["--resume=nowhere", "--out=somewhere"], r"error: --resume goes on with the run's own settings"),
        (["--no.such=1"], r"error: unknown setting"),
    ],
)
def test_a_refusal_of_all_is_said_once(vessels: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    settings = flags if "--resume" in flags[0] else [f"--data.root={vessels}", *SETTINGS, INSTANCE, *flags]
    given = [*settings, *([] if "--resume" in flags[0] else [f"--out={tmp_path / 'run'}"])]
    assert together(2, trains_saying, tmp_path / "said", given) == [2, 2]
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if not line.startswith("note:")]
    assert len(lines) == 1
    assert re.match(said, lines[0])


def test_an_image_that_another_process_cannot_read_is_said_by_the_first(
    vessels: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "run"
    copytree(vessels, images)
    damaged = sorted((images / "images").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:200])
    settings = [f"--data.root={images}", *SETTINGS, INSTANCE, "--data.split=[1,0,0,0]", f"--out={out}"]
    assert together(2, trains_saying, tmp_path / "said", settings) == [2, 2]
    (said,) = [line for line in (tmp_path / "said").read_text().splitlines() if "notice" not in line]
    assert said.startswith(f"error: {damaged} cannot be read as PNG")
    assert not out.exists()


def test_torchrun_and_a_sentence_that_is_said_once(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "engine.train", f"--data.root={vessels}", *SETTINGS, "--model.norm=batch", f"--out={out}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert said == [
        "error: the network unet has batch norm, which 2 processes on CPUs cannot compute together: "
        "model.norm = instance, or one process, would work."
    ]
    assert "train.py" not in done.stderr  # torchrun's own traceback is all there is
    assert not out.exists()


@pytest.mark.parametrize(
    ("size", "flags", "said"),
    [
        (3, [], r"batch_size 4 cannot be shared by 3 processes: 3, or 2 processes, would work"),
        (5, ["--training.batch_size=2"], r"batch_size 2 cannot be shared by 5 processes: 5, or 2 processes"),
        (16, ["--training.batch_size=16"], r"16 processes, but only 12 training images"),
        (2, ["--data.follow=true"], r"data.follow takes masks up in one process, and there are 2"),
    ],
)
def test_what_cannot_be_shared_is_refused(vessels: Path, size: int, flags: list[str], said: str) -> None:
    config, _ = resolve([Layer("images", parse([f"--data.root={vessels}"])), Layer("flags", parse(flags))])
    dataset = open_dataset(config)
    require_shares(config, dataset, ALONE)
    with pytest.raises(InputError, match=said):
        require_shares(config, dataset, Ranks(0, size))
