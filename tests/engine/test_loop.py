"""The loop as a generator: resuming, stopping, early stopping, the extra pass."""

import dataclasses
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import Layer, RunConfig, resolve
from engine.flags import parse
from engine.loop import CHECK_STEPS, Batch, DivergedError, Epoch, behind_best, check_finite, fit
from engine.losses.boundary import signed_distance
from engine.losses.topology import tubed_skeleton
from engine.prepare import misses_from, prepare
from engine.record import Progress


def config(root: Path, *flags: str) -> RunConfig:
    common = [
        f"--data.root={root}", "--data.patch=32", "--model.base_width=4", "--model.depth=2",
        "--training.epochs=5",
        "--training.threads=1", "--training.device=cpu", "--watch.train=1", "--watch.val=1",
    ]  # fmt: skip
    given = parse([*common, *flags]) if not flags else parse(common)
    return resolve([Layer("test", given), Layer("variant", parse(list(flags)))])[0]


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a trip through a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_equal(one: Epoch, other: Epoch) -> None:
    for field in dataclasses.fields(Epoch):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "watched":
            for (p, mask), (q, other_mask) in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(p, q)
                np.testing.assert_array_equal(mask, other_mask)
        elif field.name == "state":
            a, b = mine(), theirs()
            assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])
        elif field.name != "seconds":
            np.testing.assert_equal(mine, theirs)


VARIANTS = {
    "plain": ["--modulation.name=none", "--schedule.name=cosine", "--optimizer.name=sgd"],
    "v1": ["--modulation.name=smm_v1", "--schedule.name=plateau", "--schedule.patience=1"],
    "v2": ["--modulation.name=smm_v2", "--optimizer.name=adamw", "--schedule.name=polynomial"],
    "v2 by a pass": ["--augment.rotation=20", "--augment.probability=0.9", "--augment.elastic_alpha=[10,50]",
                     "--augment.brightness=[0.5,2]", "--augment.scale=[0.8,1.25]"],
    "dropout, clipping": ["--model.dropout=0.3", "--training.clip_gradient=0.5", "--schedule.name=constant"],
    "resized, instance norm": ["--data.size=[32,36]", "--model.norm=instance", "--training.batch_size=5"],
    "tubes, SMM v2": ["--loss.name=skeleton_recall", "--modulation.name=smm_v2", "--augment.rotation=20"],
    "distances": ["--loss.name=boundary", "--loss.schedule=rebalance", "--modulation.name=smm_v1"],
    "half": ["--training.precision=bfloat16", "--modulation.name=smm_v1"],
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_resuming_after_any_epoch_changes_nothing(variant: str, vessels: Path) -> None:
    settings = config(vessels, *VARIANTS[variant])
    whole: list[Epoch] = []
    states: list[dict[str, Any]] = []
    frozen: list[Epoch] = []
    for epoch in fit(settings):
        states.append(stored(epoch.state()))
        weights = {key: value.clone() for key, value in epoch.state()["model"].items()}
        frozen.append(dataclasses.replace(epoch, state=lambda weights=weights: {"model": weights}))
        whole.append(epoch)
    assert [epoch.number for epoch in whole] == [1, 2, 3, 4, 5]
    for done in (1, 3):
        for again in fit(settings, resume=states[done - 1]):
            assert_equal(frozen[again.number - 1], again)
        assert again.number == 5


@pytest.mark.parametrize("method", ["smm_v1", "smm_v2"])
def test_masks_grow_only_after_the_warm_up_and_around_misses(method: str, vessels: Path) -> None:
    settings = config(vessels, f"--modulation.name={method}", "--training.epochs=10", "--optimizer.lr=0.02")
    ready = prepare(settings)
    truth = ready.watched[0].record().truth
    epochs = list(fit(settings, ready))
    assert [epoch.trend.warmup for epoch in epochs] == [True] * 2 + [False] * 8
    for epoch in epochs:
        mask = epoch.watched[0][1]
        assert (mask & truth).sum() == truth.sum(), "modulation only adds"
        if epoch.number <= 3:
            np.testing.assert_array_equal(mask, truth)
            assert epoch.trend.added == (0,)
    if method == "smm_v1":
        assert all(epoch.trend.added[0] > 0 for epoch in epochs[4:])
    for before, epoch in pairwise(epochs):
        if method == "smm_v2" and not before.trend.updated:
            np.testing.assert_array_equal(before.watched[0][1], epoch.watched[0][1])


def test_watched_masks_of_validation_are_never_modulated(vessels: Path) -> None:
    settings = config(vessels, "--modulation.name=smm_v1", "--training.epochs=4")
    ready = prepare(settings)
    truth = ready.watched[1].record().truth
    assert ready.watched[1].split == "val"
    for epoch in fit(settings, ready):
        np.testing.assert_array_equal(epoch.watched[1][1], truth)


def test_a_stop_ends_at_the_next_batch_and_drops_the_epoch(vessels: Path) -> None:
    progress = Progress()
    numbers = []
    for epoch in fit(config(vessels), progress=progress):
        numbers.append(epoch.number)
        if epoch.number == 2:
            progress.stop = True
    assert numbers == [1, 2]
    assert (progress.epoch, progress.step) == (3, 0)


def test_early_stopping_ends_after_patience_and_says_why(vessels: Path) -> None:
    settings = config(
        vessels, "--training.epochs=50", "--training.early_stopping=2", "--optimizer.name=sgd",
        "--optimizer.lr=1e-30", "--augment.flip=0", "--augment.quarter_turn=0", "--model.norm=none",
    )  # fmt: skip
    epochs = list(fit(settings))
    assert [epoch.last for epoch in epochs] == ["", "", "early stopping"]


def test_epochs_behind_the_best() -> None:
    assert behind_best([3.0, 2.0, 2.5, 2.0, 1.0]) == [0, 0, 1, 2, 0]
    assert behind_best([]) == []


def test_misses_come_from_training_where_augmentation_can_be_undone(vessels: Path) -> None:
    assert misses_from(config(vessels)) == "train"
    assert misses_from(config(vessels, "--augment.rotation=5")) == "pass"
    assert misses_from(config(vessels, "--augment.rotation=5", "--augment.probability=0")) == "train"
    assert misses_from(config(vessels, "--modulation.source=pass")) == "pass"


def test_the_best_epoch_is_the_one_of_highest_validation_dice(vessels: Path) -> None:
    epochs = list(fit(config(vessels, "--training.epochs=8", "--optimizer.lr=0.02")))
    scores = [epoch.validation.score for epoch in epochs if epoch.validation is not None]
    flagged = [epoch.number for epoch in epochs if epoch.best]
    assert flagged[-1] == 1 + int(np.nanargmax(scores))


def test_a_loss_that_is_not_finite_is_found_where_it_first_was(vessels: Path) -> None:
    train = prepare(config(vessels)).train
    losses = [torch.tensor(1.0)] * (CHECK_STEPS + 3)
    seen = [torch.tensor([step % 4]) for step in range(len(losses))]
    check_finite(losses, seen, train, 7)
    losses[CHECK_STEPS + 1] = torch.tensor(float("nan"))
    step = CHECK_STEPS + 2
    with pytest.raises(DivergedError, match=rf"nan in epoch 7, step {step} \(images {train.names[1]}\)"):
        check_finite(losses, seen, train, 7)


def test_a_state_that_was_taken_up_holds_no_tensors(vessels: Path) -> None:
    settings = config(vessels, "--training.epochs=2")
    state = stored(next(fit(settings)).state())
    next(fit(settings, resume=state))
    assert not {"model", "optimizer", "modulation"} & set(state)


def test_the_guides_of_a_loss_go_where_the_truth_goes(vessels: Path) -> None:
    """Maps that say where the truth is still say so after every change of a batch."""
    settings = config(
        vessels, "--loss.name=boundary", "--augment.rotation=25", "--augment.probability=0.7",
        "--augment.elastic_alpha=[10,80]", "--training.batch_size=8",
    )  # fmt: skip
    ready = prepare(settings)
    resampled, inner = 0, 0
    for frames in ready.loader.epoch(1):
        known = dataclasses.replace(
            frames, tube=frames.truth & (frames.window.ids % 2 == 0)[:, None, None, None],
            distance=frames.truth.float(),
        )  # fmt: skip
        batch = Batch.augmented(known, None, settings, 1)
        assert batch.guides.tube is not None
        assert batch.guides.distance is not None
        even = (frames.window.ids % 2 == 0)[:, None, None, None]
        assert torch.equal(batch.guides.tube, batch.truth & even)
        # Bilinear, and so equal where the truth does not change among the four neighbours.
        exact = torch.isin(batch.guides.distance, torch.tensor([0.0, 1.0])) & batch.valid
        assert torch.equal(batch.guides.distance[exact] == 1, batch.truth[exact])
        resampled += len(batch.draw.rows)
        inner += int((~exact & batch.valid).sum())
        assert batch.guides.epoch == 1
    assert resampled
    assert inner


def test_tubes_and_distances_are_of_the_original_truth(vessels: Path) -> None:
    for loss, guide in (("skeleton_recall", "tube"), ("boundary", "distance"), ("dice", "")):
        ready = prepare(config(vessels, f"--loss.name={loss}"))
        for store in (ready.train, ready.val):
            assert store is not None
            assert {name for name in ("tube", "distance") if getattr(store, name) is not None} == {guide} - {
                ""
            }
            frames = store.read(store.whole([0]), torch.zeros(1, dtype=torch.int64), ready.device)
            truth = frames.truth[0, 0].numpy()
            if guide == "tube":
                np.testing.assert_array_equal(frames.tube[0, 0], tubed_skeleton(truth))
            if guide == "distance":
                expected = signed_distance(truth)
                np.testing.assert_allclose(frames.distance[0, 0], expected, rtol=1e-3)
