"""Three scribbled images with the preset `few`: a run without a val split, from first step to report."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import events, write_pair

from engine import calibrate, evaluate, report, train
from engine.config import read_preset, resolve
from engine.data.demo import demo_pair
from engine.errors import InputError
from engine.trained import Trained


@pytest.fixture(scope="module")
def scribbled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 gray images of 64 × 64, a tenth of each labelled: 0, 1, and 255 elsewhere."""
    root, rng = tmp_path_factory.mktemp("scribbled"), np.random.default_rng(0)
    for number in range(3):
        image, truth = demo_pair(number, size=64, seed=3)
        labels = np.where(rng.random(truth.shape) < 0.1, truth, 255).astype(np.uint8)
        write_pair(root, f"s{number}", image, labels)
    return root


@pytest.fixture(scope="module")
def run(scribbled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "few"
    given = ["--data.classes={ line = [1] }", "--data.rest=ignore", "--model.base_width=4", "--model.depth=2"]
    given += ["--training.epochs=3", "--training.early_stopping=3", "--training.threads=1", "--quiet"]
    assert train.main(["--preset", "few", "--data.root", str(scribbled), "--out", str(out), *given]) == 0
    return out


def test_the_preset_holds_what_it_says() -> None:
    config, notes = resolve([read_preset("few")])
    assert notes == []
    assert config.data.patch is not None
    assert config.augment.resamples
    assert config.data.foreground >= 0.5
    assert config.modulation.name == "none"  # so that augmentation that resamples costs no pass more


def test_without_a_val_split_the_last_checkpoint_is_the_one(run: Path) -> None:
    info = json.loads((run / "run.json").read_text("utf-8"))
    assert info["splits"] == {"train": ["s0", "s1", "s2"], "val": [], "calib": [], "test": []}
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last"]
    trained = Trained.open(run, device="cpu")
    assert (trained.file, trained.epoch) == ("last", 3)
    epochs = [event for event in events(run) if event["event"] == "epoch"]
    assert [epoch["best"] for epoch in epochs] == [False] * 3
    assert all(epoch["validation"] is None and np.isfinite(epoch["loss"]) for epoch in epochs)
    said = [event["message"] for event in events(run) if event["event"] == "warning"]
    assert any("under 10 none are split off" in message for message in said)


def test_commands_say_what_they_need(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = [str(run), "--device=cpu"]
    with pytest.raises(InputError, match="has no test images: try --split train"):
        evaluate.main([*own, "--no-figures"])
    with pytest.raises(InputError, match="has no calib images"):
        calibrate.main([*own, "--rule=cls", "--epsilon=0.1", "--alpha=0.1"])
    assert evaluate.main([*own, "--split=train", "--no-figures"]) == 0
    scored = json.loads((run / "report" / "train.json").read_text("utf-8"))
    assert (scored["checkpoint"], scored["images"]) == ("last", 3)
    assert report.main(own) == 0
    page = next((run / "report").glob("*.html")).read_text("utf-8")
    assert "none: the last checkpoint counts" in page


def test_a_run_on_more_images_starts_from_it_and_keeps_its_images(
    run: Path, scribbled: Path, tmp_path: Path
) -> None:
    """The three stay in train when there are enough to hold some back."""
    for number in range(12):
        image, truth = demo_pair(number, size=64, seed=3)
        write_pair(tmp_path / "more", f"t{number:02d}", image, truth.astype(np.uint8))
    given = ["--data.classes={ line = [1] }", "--training.epochs=1", "--training.threads=1", "--quiet"]
    out = tmp_path / "run"
    given += ["--data.root", str(tmp_path / "more"), "--out", str(out)]
    assert train.main(["--preset", "few", "--init", str(run), *given]) == 0
    info = json.loads((out / "run.json").read_text("utf-8"))
    assert {"t00", "t01", "t02"} <= set(info["splits"]["train"])
    assert info["splits"]["test"]
    assert (info["init"]["checkpoint"], info["init"]["kept"]) == ("last", ["line"])
    assert Trained.open(out, device="cpu").config.model == Trained.open(run, device="cpu").config.model
