"""Scores of one image, and of many together: a network of one weight, counts by hand, calibration, time."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine import metrics
from engine.config import RunConfig
from engine.data.specs import Data
from engine.data.store import IGNORED, Sample
from engine.errors import InputError
from engine.head import Head
from engine.infer import Predictor
from engine.results import image_rows, threshold_rows
from engine.scores import THRESHOLDS, Scored, predict, score
from engine.summary import commonest_frame, summarise
from engine.tables import METRICS
from engine.timing import PASSES, Timing, inference_time
from engine.trained import Trained

CPU = torch.device("cpu")


def trained(
    head: Head = "sigmoid", classes: tuple[str, ...] = ("lesion",), *, tile: int = 64, **data: Any
) -> Trained:
    """A run whose logits are multiples of the image's intensity, a different one for each class."""
    network = nn.Conv2d(1, len(classes) + (head == "softmax"), 1)
    with torch.no_grad():
        weights = torch.linspace(-2, 2, network.weight.shape[0] + 1)[1:]
        network.weight.copy_(3 * weights.view(-1, 1, 1, 1))
        network.bias.copy_(weights / 2)
    config = RunConfig(data=Data(normalization="zscore", **data))
    return Trained(
        Path("run"), config, {}, classes, Predictor(network, head, CPU, None, tile, 0.25), 3, "last"
    )


def case(shape: tuple[int, int] = (24, 30), seed: int = 0, classes: int = 1) -> Sample:
    """Intensities that follow the truth half-way, some labels ignored, a field of view."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for number in range(classes):
        labels[4 + 6 * number : 8 + 6 * number, 3:9] = labels[15:18, 6 * number + 8 : 6 * number + 12] = (
            number + 1
        )
    image = (rng.random((*shape, 1)) + 0.5 * (labels[..., None] > 0)).astype(np.float32)
    labels[0] = IGNORED
    valid = np.ones(shape, bool)
    valid[:, -3:] = False
    return Sample(f"case{seed}", image, labels, valid)


def test_all_scores_are_those_of_the_same_probabilities() -> None:
    run, sample = trained(), case()
    p = run.probability(sample.image)
    assert isinstance(sample.valid, np.ndarray)
    valid = sample.valid & (sample.labels != IGNORED)
    truth = (sample.labels == 1)[None] & valid
    made = score(run, sample, native=True, threshold=0.4)
    found, y, inside = (torch.from_numpy(a)[None] for a in (p >= np.float32(0.4), truth, valid[None]))
    probability = torch.from_numpy(p)[None]
    count = metrics.confusion(found, y, valid=inside)
    expected = {
        name: getattr(metrics, name)(count)
        for name in ("dice", "jaccard", "fnr", "fpr", "precision", "recall")
    }
    expected |= {
        name: getattr(metrics, name)(probability, y, valid=inside) for name in ("nll", "brier", "ece")
    }
    expected["cldice"] = metrics.cldice(found, y, valid=inside)
    for name, value in expected.items():
        assert made.scores[name][0] == pytest.approx(value.item(), rel=1e-12), name
    assert set(made.scores) == set(METRICS)
    assert made.lesions.tolist() == [2]
    assert made.detected.tolist() == [int(metrics.lesion_recall(found, y, valid=inside).detected)]
    assert made.bins[0].sum() == valid.sum()
    assert np.isnan(made.nll_categorical)


def test_over_the_threshold_it_is_what_each_threshold_gives() -> None:
    run, sample = trained("softmax", ("a", "b")), case(classes=2)
    made = score(run, sample, native=True, threshold=None)
    for place, threshold in enumerate(THRESHOLDS):
        one = score(run, sample, native=True, threshold=threshold)
        for name, values in made.over_t.items():
            np.testing.assert_array_equal(values[:, place], one.scores[name][:-1])
    assert THRESHOLDS[0] == 0.05
    assert THRESHOLDS[-1] == 0.95
    assert len(THRESHOLDS) == 19


def test_the_backgrounds_probability_is_what_exclusive_classes_leave() -> None:
    sample = case(classes=2)
    one = score(trained(), sample, native=True, threshold=None).scores
    for name in ("brier", "nll", "ece"):
        assert one[name][1] == pytest.approx(one[name][0], rel=1e-4)
    exclusive = score(trained("softmax", ("a", "b")), sample, native=True, threshold=None)
    both = predict(trained("softmax", ("a", "b")), sample, True, None)
    rest = 1 - both.p.astype(np.float64).sum(0)
    wrong = (rest - ~both.truth.any(0)) ** 2
    assert exclusive.scores["brier"][2] == pytest.approx(wrong[both.valid].mean(), rel=1e-5)
    right = np.where(both.truth.any(0), (both.p * both.truth).sum(0), rest)[both.valid]
    assert exclusive.nll_categorical == pytest.approx(-np.log(right).mean(), rel=1e-5)
    overlapping = score(trained("sigmoid", ("a", "b")), sample, native=True, threshold=None)
    assert np.isnan([overlapping.scores[name][2] for name in ("brier", "nll", "ece")]).all()
    assert np.isfinite([overlapping.scores[name][:2] for name in ("brier", "nll", "ece")]).all()


def test_the_trained_size_is_scored_where_the_network_saw_it() -> None:
    run, sample = trained(size=(12, 16)), case()
    assert predict(run, sample, False, None).p.shape == (1, 12, 16)
    assert predict(run, sample, True, None).p.shape == (1, 24, 30)
    assert score(run, sample, native=True, threshold=None).frame == (12, 16)
    assert score(trained(), sample, native=False, threshold=None).frame == (24, 30)


def test_a_network_that_diverged_is_named() -> None:
    run = trained()
    with torch.no_grad():
        run.predictor.network.weight.fill_(np.nan)
    with pytest.raises(InputError, match=r"run \(last, epoch 3\) gives NaN for case0.*--checkpoint"):
        score(run, case(), native=True, threshold=None)


def scored(detected: list[int], lesions: list[int], **changed: Any) -> Scored:
    """An image of two classes with made-up scores."""
    values = {name: np.array([0.2, 0.4, 0.9]) for name in METRICS}
    with np.errstate(invalid="ignore"):
        values["lesion_recall"] = np.append(np.array(detected) / lesions, np.nan)
    made: dict[str, Any] = {
        "name": "case", "scores": values, "detected": np.array(detected), "lesions": np.array(lesions),
        "over_t": {name: np.full((2, 19), 0.5) for name in ("dice", "precision", "recall")},
        "bins": np.ones((3, 2, 15)), "nll_categorical": 0.3, "frame": (8, 8),
    }  # fmt: skip
    return Scored(**made | changed)


def test_lesions_are_pooled_over_images_and_classes() -> None:
    summary = summarise([scored([1, 0], [4, 0]), scored([2, 1], [2, 1]), scored([0, 0], [0, 0])], ("a", "b"))
    means = {label: entries["lesion_recall"] for label, entries in summary.scores.items()}
    assert means["a"].value == 3 / 6  # not the mean of 1/4 and 1
    assert means["b"].value == 1
    assert means["mean"].value == means["mean with background"].value == 4 / 7
    assert (means["a"].count, means["a"].skipped) == (2, 1)
    assert (means["b"].count, means["b"].skipped) == (1, 2)
    assert np.isnan(means["background"].value)
    assert summary.lesions == {"a": (3, 6), "b": (1, 1)}
    assert summary.undefined() == "lesion recall of 1 image"


def test_other_scores_are_means_over_images() -> None:
    first, second = scored([1, 1], [1, 1]), scored([1, 1], [1, 1])
    second.scores["nll"][:] = [0.6, np.nan, np.nan]
    summary = summarise([first, second], ("a", "b"))
    assert summary.scores["a"]["nll"].value == pytest.approx(0.4)
    assert (summary.scores["b"]["nll"].value, summary.scores["b"]["nll"].skipped) == (0.4, 1)
    assert summary.scores["mean"]["nll"].value == pytest.approx((0.3 + 0.6) / 2)
    assert summary.scores["mean with background"]["nll"].value == pytest.approx((0.5 + 0.6) / 2)
    assert summary.reliability["a"].count.tolist() == [2] * 15
    assert summary.over_t["b"].means["dice"].tolist() == [0.5] * 19
    assert summary.over_t["b"].margins["dice"].tolist() == [0] * 19
    assert summary.nll_categorical is not None
    assert summary.nll_categorical.value == 0.3
    assert summarise([scored([0, 0], [1, 1], nll_categorical=np.nan)], ("a", "b")).nll_categorical is None


def test_rows_of_the_tables() -> None:
    rows = image_rows([scored([1, 0], [4, 0])], ("a", "b"))
    assert [(row["class"], row["lesions_detected"], row["lesions"]) for row in rows] == [
        ("a", 1, 4), ("b", 0, 0), ("background", "", "")
    ]  # fmt: skip
    assert list(rows[0]) == [
        "image", "class", "dice", "cldice", "jaccard", "fnr", "fpr", "precision", "recall", "lesion_recall",
        "lesions_detected", "lesions", "nll", "brier", "ece",
    ]  # fmt: skip
    over_t = threshold_rows([scored([1, 0], [4, 0])], ("a", "b"))
    assert len(over_t) == 2 * 19
    assert over_t[19] == {
        "image": "case", "class": "b", "threshold": 0.05, "dice": 0.5, "precision": 0.5, "recall": 0.5
    }  # fmt: skip


@pytest.mark.parametrize(("count", "images", "repeats"), [(1, 1, 10), (4, 4, 2), (10, 10, 1), (25, 10, 1)])
def test_few_images_are_timed_often_and_many_once(count: int, images: int, repeats: int) -> None:
    run = trained(size=(12, 16))
    timing = inference_time(run, (case(seed=number) for number in range(count)), count)
    assert (timing.images, timing.repeats, timing.height, timing.width) == (images, repeats, 12, 16)
    assert timing.images * timing.repeats <= PASSES
    assert timing.device == "cpu"
    assert timing.threads == torch.get_num_threads()
    assert 0 < timing.median_ms < 1000
    assert f"batch 1, 12 × 16 px, cpu ({timing.device_name})" in timing.words()


class Slow(nn.Module):
    """Takes a known time: the first calls each their own, then all the last one."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds[min(self.calls, len(self.seconds) - 1)])
        self.calls += 1
        return x


def slow(seconds: list[float], tile: int = 64) -> tuple[Trained, Slow]:
    network = Slow(seconds)
    predictor = Predictor(network, "sigmoid", CPU, None, tile, 0.25)
    return Trained(Path(), RunConfig(data=Data()), {}, ("lesion",), predictor, 1, "last"), network


def test_the_first_passes_do_not_count() -> None:
    run, network = slow([0.2, 0.2, 0.2, 0.02])
    timing = inference_time(run, [case()] * 2, 2)
    assert 20 <= timing.median_ms < 150
    assert network.calls == 3 + 10


def test_a_large_image_is_timed_tile_by_tile() -> None:
    run, network = slow([0.0], tile=16)
    timing = inference_time(run, [case()], 1)
    assert network.calls == (3 + 10) * 2 * 3
    assert (timing.height, timing.width) == (24, 30)


def test_slow_networks_are_not_timed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.timing.SECONDS", 0.03)
    run, network = slow([0.02])
    timing = inference_time(run, [case()] * 10, 10)
    # A sleep can last longer, but not shorter.
    assert 1 <= timing.images <= 2
    assert network.calls <= 2 + 2


def test_images_of_the_commonest_size_are_timed() -> None:
    frames = [(8, 8), (9, 9), (9, 9), (8, 8), (9, 9), (7, 7)]
    assert commonest_frame([scored([0, 0], [1, 1], frame=frame) for frame in frames]) == [1, 2, 4]


def test_without_an_image_there_is_no_time() -> None:
    with pytest.raises(InputError, match="no image to time"):
        inference_time(trained(), [], 0)


def test_words_of_a_time() -> None:
    timing = Timing(1.0, 1, 1, None, 5, 6, "cuda", "A GPU", 8)
    assert timing.words() == "batch 1, 5 × 6 px, cuda (A GPU), median of 1 pass"
    volume = replace(timing, depth=4).words()
    assert volume == "batch 1, 4 × 5 × 6 voxels, cuda (A GPU), median of 1 pass"
