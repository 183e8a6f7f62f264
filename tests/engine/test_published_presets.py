"""The presets of the DSC++ paper and of the comparison of U-Net and Semantic FPN (definitions, §8)."""

import pytest
import torch

from engine.config import Layer, RunConfig, presets, read_preset, resolve
from engine.data.layouts import Case
from engine.data.split import split
from engine.optim import linear


def preset(name: str, **flags: dict[str, object]) -> RunConfig:
    config, notes = resolve([read_preset(name), Layer("flags", flags)])
    assert notes == []
    return config


@pytest.mark.parametrize("name", ["dsc++", "semantic-fpn"])
def test_its_first_line_describes_it_on_the_command_line(name: str) -> None:
    assert presets()[name].count(",") >= 3
    assert len(presets()[name]) < 110


def test_dsc_plus_plus() -> None:
    config = preset("dsc++")
    assert config.model.model_dump() == {
        "name": "unet", "base_width": 32, "depth": 4, "norm": "instance", "dropout": 0.0,
        "initialization": "xavier", "spatial_dims": None,
    }  # fmt: skip
    assert config.modulation.name == "none"
    assert (config.loss.name, config.loss.gamma) == ("dsc_plus_plus", 2.0)
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.1)
    assert config.schedule.model_dump() == {"name": "plateau", "factor": 0.1, "patience": 25}
    training = config.training
    assert (training.batch_size, training.epochs, training.early_stopping) == (1, 500, 50)


def test_dsc_plus_plus_augments_each_with_a_probability_of_15_percent() -> None:
    assert preset("dsc++").augment.model_dump() == {
        "flip": 0.15, "quarter_turn": 0.0, "probability": 0.15, "rotation": 15.0, "scale": (0.85, 1.25),
        "elastic_alpha": (0.0, 900.0), "elastic_sigma": (9.0, 13.0), "brightness": (0.5, 2.0),
        "contrast": (1.0, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("images", "train", "val", "test"),
    [(163, 104, 26, 33), (670, 428, 108, 134), (612, 392, 98, 122)],
    ids=["BUS2017", "2018DSB", "CVC-ClinicDB"],
)
def test_dsc_plus_plus_splits_as_its_table_1(images: int, train: int, val: int, test: int) -> None:
    cases = [Case(str(number), (), (), group=str(number)) for number in range(images)]
    parts = split(cases, preset("dsc++").data.split, seed=0)
    assert len(parts["calib"]) == 0
    # The paper rounds twice: first to 80 and 20 %, then the 80 % likewise.
    for name, expected in {"train": train, "val": val, "test": test}.items():
        assert abs(len(parts[name]) - expected) <= 1


def test_dsc_plus_plus_keeps_the_test_images_of_drive() -> None:
    cases = [Case(str(n), (), (), group=str(n), split="train" if n < 20 else "test") for n in range(40)]
    parts = split(cases, preset("dsc++").data.split, seed=0)
    assert {name: len(indices) for name, indices in parts.items()} == {
        "train": 16, "val": 4, "calib": 0, "test": 20
    }  # fmt: skip


def test_dsc_plus_plus_starts_from_xaviers_weights() -> None:
    torch.manual_seed(0)
    network = preset("dsc++", model={"base_width": 4, "depth": 1}).model.bind()(3, 1)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(module.weight)
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert bound / 2 < module.weight.abs().max().item() <= bound
            assert module.bias is None or not module.bias.any()


def test_semantic_fpn() -> None:
    config = preset("semantic-fpn")
    assert (config.data.size, config.data.color) == ((256, 256), "rgb")
    assert config.data.split == (0.7, 0.15, 0.0, 0.15)
    assert (config.model.name, config.model.dropout, config.model.weights) == ("semantic_fpn", 0.1, None)
    assert config.modulation.name == "none"
    assert config.loss.name == "dice_focal"
    assert (config.optimizer.name, config.optimizer.lr) == ("adam", 1e-4)
    assert (config.training.batch_size, config.training.epochs) == (8, 80)
    assert (config.augment.flip, config.augment.quarter_turn, config.augment.resamples) == (0, 0, False)


def test_semantic_fpn_decays_its_rate_to_1e_5() -> None:
    config = preset("semantic-fpn")
    assert config.schedule.model_dump() == {"name": "linear", "final_lr": 1e-5}
    rates = [linear(config.optimizer.lr, epoch, 80, [], final_lr=1e-5) for epoch in (1, 41, 81)]
    assert rates == pytest.approx([1e-4, 5.5e-5, 1e-5])


def test_the_u_net_beside_semantic_fpn_takes_the_rest_of_its_preset() -> None:
    config, notes = resolve([read_preset("semantic-fpn"), Layer("flags", {"model": {"name": "unet"}})])
    assert config.model.name == "unet"
    assert config.loss.name == "dice_focal"
    assert len(notes) == 1
    assert "dropout" in notes[0]
