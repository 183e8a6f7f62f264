"""The training command from folder to run directory: results, refusals, stopping and resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import forked, trains, trains_until_write
from PIL import Image
from support import FAST, events, fast, write_pair

from engine import checkpoint, fingerprint, train
from engine.errors import InputError
from engine.record import RunReader


def start(root: Path, out: Path, *settings: str) -> int:
    return train.main(["--data.root", str(root), "--out", str(out), *fast(*settings)])


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / name)["model"]


def assert_same_run(one: Path, other: Path) -> None:
    def lines(run: Path) -> list[dict]:
        return [event for event in events(run) if event["event"] != "started"]

    assert lines(one) == lines(other)
    for name in ("last", "best"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    for mine, theirs in zip(RunReader(one).watched(), RunReader(other).watched(), strict=True):
        for array in ("probability", "modulated"):
            np.testing.assert_array_equal(mine[array][:], theirs[array][:])


def test_the_run_directory_says_everything(finished: Path, vessels: Path) -> None:
    info = json.loads((finished / "run.json").read_text())
    assert info["dataset"]["images"] == 20
    assert info["dataset"]["classes"]
    assert {part: len(names) for part, names in info["splits"].items()} == {
        "train": 12, "val": 3, "calib": 2, "test": 3
    }  # fmt: skip
    config = tomllib.loads((finished / "config.toml").read_text())
    assert config["data"]["root"] == str(vessels)
    reader = RunReader(finished)
    assert reader.status() == "finished"
    assert [epoch["epoch"] for epoch in reader.epochs()] == [1, 2, 3, 4, 5, 6]
    assert [event["event"] for event in reader.events()][-1] == "finished"
    assert sorted(item.name for item in (finished / "checkpoints").iterdir()) == ["best", "last"]
    assert not (finished / "lock").exists()
    kept = reader.watched()
    assert [group.attrs["split"] for group in kept] == ["train"] * 4 + ["val"] * 2
    assert kept[0]["probability"].shape == (6, 1, 40, 48)
    assert kept[0]["image"].shape == (40, 48, 1)


def test_the_run_knows_its_images_again(finished: Path, vessels: Path) -> None:
    info = RunReader(finished).info()
    assert set(info["digests"]) == {"train", "val"}
    for part, digests in info["digests"].items():
        assert list(digests) == info["splits"][part]
        for name, digest in digests.items():
            pixels = np.asarray(Image.open(vessels / "images" / f"{name}.png"))
            assert digest == fingerprint.image(pixels[..., None])


def test_it_learns(vessels: Path, tmp_path: Path) -> None:
    assert start(vessels, tmp_path / "run", "--training.epochs=20", "--watch.train=0", "--watch.val=0") == 0
    epochs = RunReader(tmp_path / "run").epochs()
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]
    assert epochs[-1]["validation"]["dice"][0] > 0.3


def test_a_seeded_run_is_identical_twice_and_another_seed_differs(vessels: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        start(vessels, tmp_path / name, "--training.epochs=2", f"--training.seed={seed}")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert events(tmp_path / "a") != events(tmp_path / "c")


def test_the_resolved_config_reruns_the_run(finished: Path, tmp_path: Path) -> None:
    assert (
        train.main(["--config", str(finished / "config.toml"), "--out", str(tmp_path / "again"), "--quiet"])
        == 0
    )
    assert_same_run(finished, tmp_path / "again")


@pytest.mark.parametrize("write", [9, 14, 17, 18, 19, 20, 21, 30])
def test_killed_at_any_write_and_resumed_equals_uninterrupted(
    write: int, finished: Path, vessels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed = forked(
        trains_until_write, write, [f"--data.root={vessels}", f"--out={out}", *fast("--training.epochs=6")]
    )
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert RunReader(out).status() == "crashed"
    assert train.main(["--resume", str(out), "--quiet"]) == 0
    assert RunReader(out).status() == "finished"
    assert_same_run(finished, out)
    assert not list(out.rglob(".*")), "no temporary file is left behind"


def test_a_stop_file_ends_a_run_cleanly_and_it_can_go_on(
    finished: Path, vessels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = launch(vessels, out, "--training.epochs=400")
    wait_for_epoch(out, 2)
    assert RunReader(out).status() == "running"
    with pytest.raises(InputError, match=f"in use by process {process.pid}"):
        train.main(["--resume", str(out), "--quiet"])
    (out / "stop").touch()
    process.join(60)
    assert process.exitcode == 0
    reader = RunReader(out)
    assert reader.status() == "stopped"
    done = reader.epochs()[-1]["epoch"]
    assert checkpoint.load(out / "checkpoints" / "last")["epoch"] == done
    assert reader.events()[-1]["epoch"] == done


def test_an_interrupt_ends_a_run_cleanly(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = launch(vessels, out, "--training.epochs=400")
    wait_for_epoch(out, 1)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 0
    assert RunReader(out).events()[-1]["reason"] == "SIGINT"
    assert not (out / "lock").exists()


def launch(root: Path, out: Path, *settings: str) -> BaseProcess:
    return forked(trains, ["--data.root", str(root), "--out", str(out), *fast(*settings)])


def wait_for_epoch(run: Path, number: int, seconds: float = 120) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if run.is_dir() and any(epoch["epoch"] >= number for epoch in RunReader(run).epochs()):
            return
        time.sleep(0.02)
    raise AssertionError(f"no epoch {number} in {run} after {seconds} s")


def test_two_runs_never_write_one_directory(finished: Path, vessels: Path) -> None:
    before = (finished / "events.jsonl").read_bytes()
    with pytest.raises(InputError, match="holds a run"):
        start(vessels, finished)
    assert (finished / "events.jsonl").read_bytes() == before


def test_a_finished_run_is_not_resumed(finished: Path) -> None:
    with pytest.raises(InputError, match="has finished"):
        train.main(["--resume", str(finished)])


def test_settings_beside_resume_are_refused(finished: Path) -> None:
    with pytest.raises(InputError, match="own settings"):
        train.main(["--resume", str(finished), "--training.epochs=9"])


def test_changed_images_are_noticed_at_resume(vessels: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(vessels, root)
    forked(trains_until_write, 14, [f"--data.root={root}", f"--out={out}", *FAST]).join()
    write_pair(root, "v00", np.zeros((40, 48), np.uint8), np.ones((40, 48), np.uint8))
    with pytest.raises(InputError, match="have changed since the run began"):
        train.main(["--resume", str(out), "--quiet"])


def broken(root: Path, what: str) -> None:
    """Spoil a copy of the data set in one way."""
    image, mask = root / "images" / "v03.png", root / "masks" / "v03.png"
    if what == "no mask":
        mask.unlink()
    elif what == "no image":
        image.unlink()
    elif what == "sizes":
        Image.fromarray(np.zeros((40, 47), np.uint8)).save(mask)
    elif what == "values":
        Image.fromarray(np.full((40, 48), 77, np.uint8)).save(mask)
    elif what == "corrupt":
        image.write_bytes(image.read_bytes()[:60])
    elif what == "empty file":
        image.write_bytes(b"")
    elif what == "all empty":
        for path in (root / "masks").iterdir():
            Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    elif what == "nan":
        image.unlink()
        np.save(root / "images" / "v03.npy", np.full((40, 48), np.nan, np.float32))
    elif what == "no pairs":
        shutil.rmtree(root / "images")
        shutil.rmtree(root / "masks")
        (root / "readme.txt").write_text("nothing here")


BROKEN = {
    "no mask": "v03", "no image": "v03", "sizes": "40 × 47", "values": "77", "corrupt": "v03.png",
    "empty file": "v03.png", "all empty": "empty", "nan": "NaN", "no pairs": "images",
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_bad_data_is_refused_before_training_and_leaves_nothing(
    what: str, vessels: Path, tmp_path: Path
) -> None:
    root, out = tmp_path / "data", tmp_path / "runs" / "run"
    shutil.copytree(vessels, root)
    broken(root, what)
    with pytest.raises(InputError, match=BROKEN[what]) as refusal:
        start(root, out)
    assert "\n" not in str(refusal.value)
    assert not out.exists()


REFUSED = {
    "--loss.gama=3": "known are loss.name",
    "--preset=smn": "known are demo, dsc",
    "--training.device=tpu": "auto, cpu, cuda",
    "--modulation.source=train --augment.rotation=10": "modulation.source pass or auto",
    "--data.layout=drivee": "drive",
    "nonsense": "is not a setting",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_bad_settings_are_refused_with_what_would_work(flags: str, vessels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[flags]):
        start(vessels, tmp_path / "run", *flags.split())
    assert not (tmp_path / "run").exists()


def test_a_command_prints_one_sentence_and_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.train", "--data.root", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_loss_that_is_not_finite_fails_the_run_and_names_the_images(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match=r"epoch \d+, step \d+ \(images v\d\d"):
        start(vessels, out, "--optimizer.name=sgd", "--optimizer.lr=1e30", "--training.epochs=4")
    reader = RunReader(out)
    assert reader.status() == "failed"
    assert "v" in reader.events()[-1]["message"]
    assert not (out / "lock").exists()


def test_a_full_disk_is_refused_before_training(vessels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no room on the disk"):
        start(vessels, tmp_path / "run", "--training.epochs=2000000000")


def test_an_exclusive_loss_is_refused_with_overlapping_masks(organs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dice_ce.*dice_bce"):
        start(organs, tmp_path / "run", "--modulation.name=smm_v2", "--loss.name=dice_ce")


@pytest.mark.parametrize("method", ["none", "smm_v1", "smm_v2"])
def test_several_classes(method: str, organs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert start(organs, out, f"--modulation.name={method}", "--training.epochs=3") == 0
    info = RunReader(out).info()
    assert info["head"] == ("sigmoid" if method == "smm_v2" else "softmax")
    assert len(RunReader(out).epochs()[-1]["validation"]["dice"]) == 2


def test_data_on_disk_trains_to_the_same_weights_as_in_memory(vessels: Path, tmp_path: Path) -> None:
    for name in ("memory", "disk"):
        start(vessels, tmp_path / name, "--training.epochs=2", f"--data.cache={name}")
    assert (tmp_path / "disk" / "cache").is_dir()
    assert_same_run(tmp_path / "memory", tmp_path / "disk")


def test_help_and_layouts_read_like_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--resume RUN", "--data.root", "smm_v2", "demo", "--training.epochs", "default"):
        assert word in text
    assert train.main(["--layouts"]) == 0
    listed = capsys.readouterr().out
    for layout in ("nnunet", "drive", "isic"):
        assert layout in listed.lower()
