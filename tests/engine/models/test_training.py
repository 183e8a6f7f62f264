"""Every network trains an epoch with every modulation."""

from pathlib import Path

import pytest
from networks import NAMES, SMALL
from support import FAST

from engine import train
from engine.config import RunConfig
from engine.record import RunReader
from engine.schema import choices
from engine.trained import Trained

FEWER = {
    "data.split": "[0.2, 0.1, 0.0, 0.7]",
    "training.batch_size": "2",
    "watch.train": "1",
    "watch.val": "0",
    "training.epochs": "1",
}


@pytest.mark.parametrize("modulation", list(choices(RunConfig, "modulation")))
@pytest.mark.parametrize("name", NAMES)
def test_an_epoch(name: str, modulation: str, vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shared = [flag for flag in FAST if not flag.startswith("--model.")]
    settings = {
        **FEWER,
        "model.name": name,
        **{f"model.{key}": value for key, value in SMALL[name].items()},
        "modulation.name": modulation,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    assert train.main(["--data.root", str(vessels), "--out", str(out), *shared, *flags]) == 0
    (epoch,) = RunReader(out).epochs()
    assert epoch["loss"] is not None
    assert 0 <= epoch["recall"] <= 1
    assert epoch["validation"]["loss"] > -2
    run = Trained.open(out, device="cpu")
    assert run.config.model.name == name
    assert run.info["parameters"] == sum(p.numel() for p in run.predictor.network.parameters())
