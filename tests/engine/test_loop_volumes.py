"""The loop on volumes: every loss, modulation in the volumes' own frame, resuming, spacing, learning."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from volumes import SPACING, write_volumes

from engine.config import Layer, RunConfig, resolve
from engine.errors import InputError
from engine.flags import parse
from engine.loop import fit
from engine.prepare import prepare
from engine.schema import choices


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"), 4, (10, 16, 18))


def config(root: Path, *flags: str) -> RunConfig:
    common = [
        f"--data.root={root}", "--data.patch=[8,16,16]", "--model.base_width=2", "--model.depth=1",
        "--training.epochs=2", "--training.batch_size=3", "--training.threads=1", "--training.device=cpu",
        "--watch.train=1", "--optimizer.lr=0.01",
    ]  # fmt: skip
    return resolve([Layer("test", parse(common)), Layer("variant", parse(list(flags)))])[0]


@pytest.mark.parametrize("name", choices(RunConfig, "loss"))
def test_every_loss_trains_on_volumes(name: str, root: Path) -> None:
    needs_one = name in ("cross_entropy", "dice_ce")  # exclusive classes, which SMM v2 has not
    flags = [f"--loss.name={name}", f"--modulation.name={'smm_v1' if needs_one else 'smm_v2'}"]
    for epoch in fit(config(root, *flags)):
        assert math.isfinite(epoch.loss)
        assert 0 <= epoch.trend.recall <= 1


RESUMED = {
    "v1 on some crops": ["--modulation.name=smm_v1", "--data.patches_per_image=1", "--data.foreground=0.7"],
    "v2 by a pass": ["--augment.rotation=20", "--augment.probability=0.9", "--augment.elastic_alpha=[5,9]",
                     "--augment.contrast=[0.7,1.4]", "--model.norm=instance"],
    "distances": ["--loss.name=boundary", "--modulation.name=none", "--data.spacing=[1.5,1,1]"],
}  # fmt: skip


@pytest.mark.parametrize("variant", RESUMED)
def test_resuming_changes_nothing_in_three_dimensions(variant: str, root: Path) -> None:
    settings = config(root, "--training.epochs=4", *RESUMED[variant])
    whole = []
    for epoch in fit(settings):
        whole.append((epoch.loss, epoch.trend.recall))
        if epoch.number == 2:
            file = io.BytesIO()
            torch.save(epoch.state(), file)
        last = {key: value.clone() for key, value in epoch.state()["model"].items()}
    file.seek(0)
    again = []
    for epoch in fit(settings, resume=torch.load(file, weights_only=True)):
        again.append((epoch.loss, epoch.trend.recall))
        weights: dict[str, Any] = epoch.state()["model"]
    assert again == whole[2:]
    assert all(torch.equal(weights[key], last[key]) for key in last)


def test_a_voxel_that_is_not_visited_keeps_its_last_observation(root: Path) -> None:
    settings = config(root, "--modulation.name=smm_v2", "--data.patches_per_image=1", "--data.patch=[4,8,8]")
    ready = prepare(settings)
    before: list[torch.Tensor] | None = None
    changed = 0
    for epoch in fit(settings, ready):
        frames = [ready.train.whole([number]) for number in range(len(ready.train))]
        after = [ready.modulation.observed.read(each)[0].clone() for each in frames]
        visited = [torch.zeros(each.shape[1:], dtype=torch.bool) for each in after]
        for batch in ready.loader.epoch(epoch.number):
            for number, corner in zip(batch.window.ids, batch.window.corner.tolist(), strict=True):
                box = tuple(slice(a, a + n) for a, n in zip(corner, batch.window.size, strict=True))
                visited[number][box] = True
        for number, seen in enumerate(visited):
            assert 0 < seen.sum() < seen.numel()
            if before is not None:
                assert torch.equal(after[number][:, ~seen], before[number][:, ~seen])
                changed += int((after[number] != before[number]).sum())
        before = after
    assert changed > 0


def test_masks_grow_by_two_voxels_along_each_axis_whatever_the_spacing(root: Path) -> None:
    ready = prepare(config(root, "--modulation.name=smm_v1"))
    modulation = ready.modulation
    window = ready.train.whole([0])
    truth = torch.zeros((1, 2, *window.size), dtype=torch.bool)
    misses = truth.clone()
    misses[0, 1, 4, 8, 8] = True
    modulation.record(window, misses)
    modulation.begin(2)
    modulation.end()
    modulation.begin(3)
    grown = modulation.target(window, truth, None)
    assert grown is not None
    assert grown.sum() == 25
    assert not grown[0, 0].any()
    for axis in range(3):
        along = grown[0, 1].sum(dim=[other for other in range(3) if other != axis])
        assert int((along > 0).sum()) == 5


def test_a_run_learns_blobs(root: Path) -> None:
    settings = config(
        root, "--training.epochs=6", "--training.batch_size=1", "--optimizer.lr=0.03", "--augment.flip=0",
        "--augment.quarter_turn=0", "--modulation.name=none", "--data.patch=[16,16,24]",
    )  # fmt: skip
    ready = prepare(settings)
    assert ready.watched[0].scale == SPACING
    losses = [epoch.loss for epoch in fit(settings, ready)]
    assert losses[-1] < 0.75 * losses[0]


def test_settings_for_images_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"data\.patch has 2 numbers, 32, 32, but these are volumes: 3 are"):
        prepare(config(root, "--data.patch=32"))
    with pytest.raises(InputError, match=r"images of a run have 3 dimensions: model\.name unet, .* would"):
        prepare(config(root, "--model.name=segnet"))
    with pytest.raises(InputError, match=r"data\.spacing = .* cannot be used|only one of them is needed"):
        config(root, "--data.spacing=[1,1,1]", "--data.size=[16,16,16]")
