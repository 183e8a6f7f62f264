"""Unlabelled pixels (255) through the training loop: no gradient, no recall and no score knows of them.

The images say what their masks do: their intensity is 0 on background, 100 on foreground and 255 on
unlabelled pixels. So a network that is listened to tells which of its pixels are which, also after
augmentation.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from support import write_pair
from torch import Tensor, nn

from engine.config import RunConfig
from engine.loop import fit
from engine.losses.specs import Loss
from engine.modulation.specs import Modulation
from engine.prepare import prepare

LOSSES = [part.model_fields["name"].default for part in get_args(get_args(Loss)[0])]
MODULATIONS = [part.model_fields["name"].default for part in get_args(get_args(Modulation)[0])]
UNLABELLED = 255


@pytest.fixture(scope="module")
def scribbles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of 16 × 24, two thirds of each unlabelled, in lines and in a block."""
    root, rng = tmp_path_factory.mktemp("scribbles"), np.random.default_rng(0)
    for number in range(12):
        mask = (rng.random((16, 24)) < 0.4).astype(np.uint8)
        mask[rng.random(16) < 0.5] = UNLABELLED
        mask[:, 16:] = UNLABELLED
        mask[4, :2] = 0, 1
        image = np.choose(np.minimum(mask, 2), (0, 100, 255)).astype(np.uint8)
        write_pair(root, f"s{number:02d}", image, mask)
    return root


def config_of(root: Path, loss: str, modulation: str, **groups: dict[str, Any]) -> RunConfig:
    given: dict[str, dict[str, Any]] = {
        "data": {
            "root": str(root), "classes": {"thing": [1]}, "rest": "ignore", "normalization": "unit",
            "split": [0.5, 0.5, 0, 0],
        },
        "model": {"name": "unet", "base_width": 2, "depth": 1, "norm": "none"},
        "training": {"epochs": 3, "batch_size": 6, "device": "cpu", "threads": 1, "channels_last": False},
        "modulation": {"name": modulation}, "loss": {"name": loss}, "watch": {"train": 0, "val": 0},
    }  # fmt: skip
    for group, settings in groups.items():
        given[group] = {**given.get(group, {}), **settings}
    return RunConfig.model_validate(given)


class Heard:
    """What a network was given in training, what it answered, and the gradient of its answer."""

    def __init__(self, network: nn.Module) -> None:
        self.seen: list[Tensor] = []
        self.answers: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self._hook = network.register_forward_hook(self._hear)

    def _hear(self, network: nn.Module, given: tuple[Tensor], answer: Tensor) -> None:
        if network.training:
            self.seen.append(given[0])
            self.answers.append(answer.detach())
            answer.register_hook(self.gradients.append)

    def steps(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(self.seen, self.answers, self.gradients, strict=True)


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_unlabelled_pixels_have_no_gradient(loss: str, modulation: str, scribbles: Path) -> None:
    config = config_of(scribbles, loss, modulation)
    ready = prepare(config)
    heard, learned = Heard(ready.network), 0
    for epoch in fit(config, ready):
        image = torch.cat(heard.seen)
        positive, found = (image - 100 / 255).abs() < 1e-3, torch.cat(heard.answers).sigmoid() >= 0.5
        recall = (positive & found).sum().double() / positive.sum()
        assert epoch.trend.recall == pytest.approx(float(recall), nan_ok=True)
        for given, _, gradient in heard.steps():
            beyond = given > 0.999
            assert beyond.float().mean() > 0.3
            assert (gradient[beyond] == 0).all()
            learned += int((gradient[~beyond] != 0).sum())
        heard.seen.clear(), heard.answers.clear(), heard.gradients.clear()
        if modulation != "none":  # as if everything had been missed, so that masks grow as far as they can
            ready.modulation.in_force.bits.fill_(255)  # type: ignore[attr-defined]
            ready.modulation.observed.bits.fill_(255)  # type: ignore[attr-defined]
            ready.modulation.grown = True  # type: ignore[attr-defined]
    assert learned > 0
    assert modulation == "none" or sum(epoch.trend.added) > 0


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_nor_after_augmentation_that_resamples(modulation: str, scribbles: Path) -> None:
    """Pixels that come from unlabelled ones alone."""
    moves = {"probability": 1.0, "rotation": 30.0, "scale": (0.8, 1.2), "elastic_alpha": (10.0, 50.0)}
    config = config_of(scribbles, "dice_bce", modulation, augment=moves)
    ready = prepare(config)
    heard = Heard(ready.network)
    for _ in fit(config, ready):
        for given, _, gradient in heard.steps():
            assert (given > 0.999).any()
            assert (gradient[given > 0.999] == 0).all()
            assert (gradient != 0).any()
        heard.seen.clear(), heard.answers.clear(), heard.gradients.clear()


def test_scores_of_validation_skip_them(scribbles: Path) -> None:
    """Against counts over labelled pixels, one image after the other."""
    config = config_of(scribbles, "dice_ce", "none", training={"epochs": 1})
    ready = prepare(config)
    (epoch,) = fit(config, ready)
    assert ready.val is not None
    assert epoch.validation is not None
    dice = []
    for number in range(len(ready.val)):
        (batch,) = (each for each in ready.val.batches(1) if each.ids.tolist() == [number])
        image = ready.val.read(batch, torch.zeros(1, dtype=torch.int64), ready.device).image
        p = ready.predictor.probability(image)
        positive, labelled = (image - 100 / 255).abs() < 1e-3, image < 0.999
        found = (p >= 0.5) & labelled
        total = int(found.sum() + positive.sum())
        dice.append(2 * int((found & positive).sum()) / total)
    assert epoch.validation.dice == pytest.approx((np.mean(dice),))


def test_what_lies_under_unlabelled_pixels_of_a_mask_changes_no_step(scribbles: Path, tmp_path: Path) -> None:
    """Another class there that is ignored by its table: the same weights, bit by bit."""
    other = tmp_path / "other"
    shutil.copytree(scribbles, other)
    for path in (other / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == UNLABELLED] = np.arange((mask == UNLABELLED).sum()) % 3 + 7
        Image.fromarray(mask).save(path)
    weights = []
    for root in (scribbles, other):
        config = config_of(root, "dice_bce", "smm_v2")
        ready = prepare(config)
        for _ in fit(config, ready):
            pass
        weights.append(torch.cat([p.detach().flatten() for p in ready.network.parameters()]))
    assert torch.equal(*weights)
