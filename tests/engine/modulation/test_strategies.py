"""Modulation against Algorithms 2, 3 and 4 written out in plain numpy, epoch by epoch."""

from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isnan, nan
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine.bits import Window
from engine.modulation.specs import Modulation, NoModulation, SMMv1, SMMv2

PARTS = get_args(get_args(Modulation)[0])


def grown(truth: np.ndarray, missed: np.ndarray, valid: np.ndarray, radius: int) -> np.ndarray:
    """Algorithm 1 on bool (C, H, W): a miss reaches as far as `radius` steps along the axes."""
    out = truth.copy()
    for c in range(len(truth)):
        if missed[c].any():
            out[c] |= (ndimage.distance_transform_cdt(~missed[c], metric="taxicab") <= radius) & valid
    return out


@dataclass
class Expected:
    """What the paper wants of one epoch."""

    masks: list[np.ndarray] | None  # what the modulated loss sees, (C, H, W) an image; None: no such loss
    recall: float
    slope: float
    gamma: float
    updated: bool
    added: list[int]


@dataclass(frozen=True)
class Visit:
    """A window of an image, what the model says there, and where that counts."""

    image: int
    corner: tuple[int, int]
    prediction: np.ndarray  # bool (C, h, w)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        (y, x), (h, w) = self.corner, self.prediction.shape[1:]
        return slice(None), slice(y, y + h), slice(x, x + w)


@dataclass(frozen=True)
class Scene:
    """Images, and the visits of each epoch in batches: `epochs[t - 1][batch]`."""

    truth: list[np.ndarray]  # bool (C, H, W)
    valid: list[np.ndarray]  # bool (H, W)
    epochs: list[list[list[Visit]]]
    crops: bool

    @classmethod
    def random(cls, seed: int, epochs: int, classes: int, crops: bool, empty: bool = False) -> "Scene":
        """Three images; visits of whole images, or of some of the crops of each."""
        rng = np.random.default_rng(seed)
        shapes = [(12, 24), (14, 24), (12, 32)] if crops else [(12, 24)] * 3
        size = (6, 8) if crops else (12, 24)
        valid = [rng.random(shape) < 0.9 for shape in shapes]
        share = 0 if empty else 0.15
        truth = [
            (rng.random((classes, *shape)) < share) & inside
            for shape, inside in zip(shapes, valid, strict=True)
        ]
        plan = []
        for epoch in range(epochs):
            found = 0.6 - 0.3 * np.cos(9 * epoch / epochs)  # up and down, so that β crosses γ
            visits = []
            for image, shape in enumerate(shapes):
                start = (rng.integers(0, shape[0] % size[0] + 1), 0)
                grid = [
                    (int(start[0] + y * size[0]), x * size[1])
                    for y in range((shape[0] - start[0]) // size[0])
                    for x in range(shape[1] // size[1])
                ]
                kept = rng.permutation(len(grid))[: 3 if crops else 1]
                for corner in (grid[number] for number in kept):
                    visits.append(Visit(image, corner, rng.random((classes, *size)) < found))
            order = rng.permutation(len(visits))
            plan.append([[visits[n] for n in order[a : a + 2]] for a in range(0, len(order), 2)])
        return cls(truth, valid, plan, crops)


def line(values: list[float]) -> float:
    """Equation 2 in exact arithmetic, so that a tie of β and γ is a tie."""
    x, y = [Fraction(value) for value in values], range(len(values))
    mean_x, mean_y = sum(x) / len(x), Fraction(sum(y), len(y))
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return float(covariance / sum((b - mean_y) ** 2 for b in y))


def reference(part: SMMv1 | SMMv2, scene: Scene) -> list[Expected]:
    """Algorithms 2 (v1), 3 and 4 (v2) with dense arrays and loops, after definitions of the paper."""
    epochs = len(scene.epochs)
    warmup = 0 if epochs == 1 else ceil(epochs / 5)
    classes = len(scene.truth[0])
    observed = [np.zeros_like(truth) for truth in scene.truth]  # the last word on each pixel
    masks = [truth.copy() for truth in scene.truth]
    length = part.queue if isinstance(part, SMMv2) else 15
    recalls: list[float] = []
    slopes: list[float] = []
    out = []
    for t in range(1, epochs + 1):
        modulated = t > warmup
        seen = [mask.copy() for mask in masks] if modulated else None
        added, hit, positive = [0] * classes, 0, 0
        for visit in (visit for batch in scene.epochs[t - 1] for visit in batch):
            truth = scene.truth[visit.image][visit.box]
            inside = scene.valid[visit.image][visit.box[1:]]
            for c in range(classes):
                added[c] += int((masks[visit.image][visit.box][c] & ~truth[c])[inside].sum())
                hit += int((truth[c] & visit.prediction[c] & inside).sum())
                positive += int((truth[c] & inside).sum())
            observed[visit.image][visit.box] = truth & ~visit.prediction & inside
        recalls.append(hit / positive if positive else nan)
        last = recalls[-length:]
        slopes.append(line(last) if len(last) > 1 and positive else nan)
        gamma, rebuild = nan, modulated and t < epochs
        if isinstance(part, SMMv2) and t >= warmup:
            defined = [slope for slope in slopes[:warmup] if not isnan(slope)]
            start = sum(defined) / len(defined) if defined else 0.0
            gamma = start * (epochs - t) / (epochs - warmup)
            rebuild = rebuild and slopes[-1] < gamma
        elif isinstance(part, SMMv2):
            rebuild = False
        if rebuild:
            masks = [
                grown(truth, missed, valid, part.radius)
                for truth, missed, valid in zip(scene.truth, observed, scene.valid, strict=True)
            ]
        out.append(Expected(seen, recalls[-1], slopes[-1], gamma, rebuild, added))
    return out


def built(part: Any, scene: Scene) -> Any:
    shapes = torch.tensor([truth.shape[1:] for truth in scene.truth])
    return part.bind()(
        epochs=len(scene.epochs),
        shapes=shapes,
        classes=len(scene.truth[0]),
        device=torch.device("cpu"),
        revisits=scene.crops,
    )


def run_epoch(strategy: Any, scene: Scene, epoch: int, expected: Expected | None = None) -> Any:
    """One epoch as the loop runs it; the masks that each batch sees are held against the expected ones."""
    strategy.begin(epoch)
    for batch in scene.epochs[epoch - 1]:
        ids, corners = [visit.image for visit in batch], [visit.corner for visit in batch]
        window = Window(torch.tensor(ids), torch.tensor(corners), batch[0].prediction.shape[1:])
        truth = torch.from_numpy(np.stack([scene.truth[v.image][v.box] for v in batch]))
        valid = torch.from_numpy(np.stack([scene.valid[v.image][v.box[1:]] for v in batch]))[:, None]
        prediction = torch.from_numpy(np.stack([visit.prediction for visit in batch]))
        target = strategy.target(window, truth, valid)
        if target is not None:
            strategy.seen(target, truth)
        if expected is not None:
            shown = truth if target is None else target
            masks = scene.truth if expected.masks is None else expected.masks
            wanted = np.stack([masks[visit.image][visit.box] for visit in batch])
            np.testing.assert_array_equal(shown.numpy(), wanted, err_msg=f"epoch {epoch}")
        strategy.count(prediction, truth, valid)
        strategy.record(window, truth & ~prediction & valid)
    return strategy.end()


def check(trend: Any, expected: Expected) -> None:
    assert trend.recall == pytest.approx(expected.recall, abs=1e-12, nan_ok=True)
    assert trend.slope == pytest.approx(expected.slope, abs=1e-12, nan_ok=True)
    assert trend.gamma == pytest.approx(expected.gamma, abs=1e-12, nan_ok=True)
    assert trend.updated == expected.updated
    assert list(trend.added) == expected.added


@pytest.mark.parametrize("crops", [False, True], ids=["whole", "crops"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("epochs", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("part", [SMMv1(), SMMv1(radius=1), SMMv2(), SMMv2(queue=3, radius=3)], ids=str)
def test_follows_the_paper(part, epochs, classes, crops):
    scene = Scene.random(epochs, epochs, classes, crops)
    strategy = built(part, scene)
    expected = reference(part, scene)
    for epoch in range(1, epochs + 1):
        trend = run_epoch(strategy, scene, epoch, expected[epoch - 1])
        check(trend, expected[epoch - 1])
        assert trend.warmup == (epochs > 1 and epoch <= ceil(epochs / 5))
    if epochs >= 12:  # the scene says something: masks were grown, and v2 both updated and kept
        updates = [e.updated for e in expected[ceil(epochs / 5) : -1]]
        assert any(updates)
        assert all(updates) == isinstance(part, SMMv1)
        assert sum(expected[-1].added) > 0


@pytest.mark.parametrize("crops", [False, True], ids=["whole", "crops"])
@pytest.mark.parametrize("stop", [1, 2, 3, 7, 11])
@pytest.mark.parametrize("part", [NoModulation(), SMMv1(), SMMv2(queue=2)], ids=lambda part: part.name)
def test_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(part, stop, crops):
    scene = Scene.random(3, 12, 2, crops)
    if isinstance(part, SMMv2):  # after epoch 11 the masks in force are not those last observed
        assert [e.updated for e in reference(part, scene)[9:11]] == [True, False]
    first = built(part, scene)
    for epoch in range(1, stop + 1):
        run_epoch(first, scene, epoch)
    second = built(part, scene)
    state = deepcopy(first.state())
    second.restore(state)
    if "observed" in state:  # a large data set's masks are not held twice
        assert second.observed.bits is state["observed"]
    for epoch in range(stop + 1, 13):
        assert repr(run_epoch(first, scene, epoch)) == repr(run_epoch(second, scene, epoch))
        whole = [
            Window(torch.tensor([n]), torch.zeros((1, 2), dtype=torch.int64), t.shape[1:])
            for n, t in enumerate(scene.truth)
        ]
        for window, truth in zip(whole, scene.truth, strict=True):
            masks = [s.target(window, torch.from_numpy(truth[None]), None) for s in (first, second)]
            assert (masks[0] is None) == (masks[1] is None)
            assert masks[0] is None or torch.equal(*masks)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_without_positives_recall_is_undefined_and_nothing_grows(part):
    scene = Scene.random(0, 10, 2, crops=False, empty=True)
    strategy = built(part(), scene)
    for epoch in range(1, 11):
        trend = run_epoch(strategy, scene, epoch)
        assert isnan(trend.recall)
        assert isnan(trend.slope)
        assert trend.updated == (part is SMMv1 and 2 < epoch < 10)
        assert trend.added == (0, 0)
        assert bool(trend.warning) == (part is SMMv2 and epoch == 2)


def test_an_epoch_without_positives_leaves_the_masks_of_v2():
    scene = Scene.random(1, 10, 1, crops=False)
    blank = Scene.random(1, 10, 1, crops=False, empty=True)
    strategy = built(SMMv2(), scene)
    trends = [run_epoch(strategy, scene if epoch != 6 else blank, epoch) for epoch in range(1, 11)]
    assert isnan(trends[5].recall)
    assert not trends[5].updated


class Told:
    """A strategy fed recalls and nothing else: one image of 1000 positives."""

    def __init__(self, part: Any, epochs: int) -> None:
        self.strategy = part.bind()(
            epochs=epochs, shapes=torch.tensor([[10, 104]]), classes=1, device=torch.device("cpu")
        )

    def epoch(self, number: int, recall: float) -> Any:
        self.strategy.begin(number)
        truth = torch.ones((1, 1, 1, 1000), dtype=torch.bool)
        self.strategy.count(torch.arange(1000).view(truth.shape) < round(1000 * recall), truth, None)
        return self.strategy.end()


def test_v2_worked_by_hand():
    told = Told(SMMv2(queue=3), epochs=10)
    recalls = [0.1, 0.3, 0.45, 0.5, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4]
    trends = [told.epoch(number, recall) for number, recall in enumerate(recalls, start=1)]
    slopes = [nan, 0.2, 0.175, 0.1, 0.125, 0.1, 0, -0.05, -0.1, -0.1]
    gammas = [nan, 0.2, 0.175, 0.15, 0.125, 0.1, 0.075, 0.05, 0.025, 0]
    assert [t.slope for t in trends] == pytest.approx(slopes, abs=1e-12, nan_ok=True)
    assert [t.gamma for t in trends] == pytest.approx(gammas, abs=1e-12, nan_ok=True)
    updated = [t.updated for t in trends]
    assert updated[:2] == [False, False]  # warm-up, where nothing is decided
    assert updated[3]  # 0.1 < 0.15
    assert updated[6:] == [True, True, True, False]  # after the last epoch there is nothing to decide
    assert not any(t.warning for t in trends)


def test_v2_updates_only_strictly_below_the_threshold():
    told = Told(SMMv2(), epochs=10)
    trends = [told.epoch(number, 0.5) for number in range(1, 11)]
    assert [t.slope for t in trends[1:]] == [0] * 9
    assert [t.gamma for t in trends[1:]] == [0] * 9
    assert not any(t.updated for t in trends)


@pytest.mark.parametrize(("epochs", "warned"), [(1, 1), (2, 1), (5, 1), (6, None), (50, None)])
def test_v2_says_when_the_warmup_gives_no_slope(epochs, warned):
    told = Told(SMMv2(), epochs)
    trends = [told.epoch(number, 0.5) for number in range(1, epochs + 1)]
    assert [number for number, trend in enumerate(trends, start=1) if trend.warning] == (
        [warned] if warned else []
    )
    assert trends[-1].gamma == 0


def test_a_warmup_of_nothing_or_of_everything():
    trends = [Told(SMMv2(warmup=0), 4).epoch(1, 0.5), Told(SMMv2(warmup=1), 4).epoch(1, 0.5)]
    assert [trend.warmup for trend in trends] == [False, True]
    assert trends[0].gamma == 0
    assert isnan(trends[1].gamma)


def test_crops_do_not_see_the_misses_of_their_own_epoch():
    # The right crop's border looks into the left crop, which was just visited.
    part, shape = SMMv1(warmup=0), (4, 16)
    strategy = part.bind()(
        epochs=9, shapes=torch.tensor([shape]), classes=1, device=torch.device("cpu"), revisits=True
    )
    left, right = (Window(torch.tensor([0]), torch.tensor([[0, x]]), (4, 8)) for x in (0, 8))
    blank, missed = torch.zeros((1, 1, 4, 8), dtype=torch.bool), torch.ones((1, 1, 4, 8), dtype=torch.bool)
    for epoch in (1, 2):
        strategy.begin(epoch)
        strategy.record(left, missed)
        assert not strategy.target(right, blank, None).any()
        if epoch == 1:
            strategy.record(left, blank)
        strategy.end()
    strategy.begin(3)
    assert strategy.target(right, blank, None).sum() == 4 * 2  # two pixels across the border in each row


def mean(logits: torch.Tensor, masks: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    return (logits * masks).sum()


def hundredfold(logits: torch.Tensor, masks: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    return 100 * (logits * masks).sum()


@pytest.mark.parametrize(
    ("part", "plain", "modulated"),
    [(NoModulation(), 3, 3), (SMMv1(), 3, 3 + 500), (SMMv1(weight=0.5), 3, 3 + 250), (SMMv2(), 3, 5)],
    ids=str,
)
def test_which_masks_which_loss_sees(part, plain, modulated):
    strategy = built(part, Scene.random(0, 5, 1, crops=False))
    truth = (torch.arange(8) < 3).view(1, 1, 1, 8)
    wider = (torch.arange(8) < 5).view(1, 1, 1, 8)
    logits = torch.ones(1, 1, 1, 8)
    assert strategy.loss(mean, hundredfold, logits, truth, None, None) == plain
    assert strategy.loss(mean, hundredfold, logits, truth, wider, None) == modulated


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_bits_kept_for_each_pixel(part):
    images = {
        revisits: part().bind()(
            epochs=5,
            shapes=torch.tensor([[16, 16]] * 3),
            classes=2,
            device=torch.device("cpu"),
            revisits=revisits,
        )
        for revisits in (False, True)
    }
    wanted = {NoModulation: (0, 0), SMMv1: (1, 2), SMMv2: (2, 2)}[part]
    for strategy, bits in zip(images.values(), wanted, strict=True):
        packed = {id(x): x.bits.nbytes for x in vars(strategy).values() if hasattr(x, "bits")}
        assert sum(packed.values()) == bits * 2 * 3 * 16 * 16 // 8


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_member_of_the_registry_trains_on_the_truth_in_its_first_epoch(part):
    scene = Scene.random(5, 8, 2, crops=False)
    strategy = built(part(), scene)
    trend = run_epoch(strategy, scene, 1)
    assert 0 < trend.recall < 1
    assert isnan(trend.slope)
    assert trend.added == (0, 0)
    assert not trend.updated
    assert part().name == part.model_fields["name"].default


# Images whose truth changes, and images that join


@pytest.mark.parametrize("crops", [False, True])
@pytest.mark.parametrize("part", [SMMv1(), SMMv2()])
def test_a_new_truth_starts_without_misses_and_others_keep_theirs(part: Any, crops: bool) -> None:
    shapes = torch.tensor([(8, 16), (12, 24), (6, 8)])
    rng = torch.Generator().manual_seed(3)
    strategy = part.bind()(epochs=20, shapes=shapes, classes=2, device=torch.device("cpu"), revisits=crops)
    truth = [torch.rand((1, 2, *shape), generator=rng) < 0.3 for shape in [*shapes.tolist(), (10, 16)]]

    def window(image: int) -> Window:
        return Window(torch.tensor([image]), torch.tensor([[0, 0]]), tuple(truth[image].shape[2:]))

    def seen(images: int) -> list[torch.Tensor | None]:
        return [strategy.target(window(image), truth[image], None) for image in range(images)]

    recalls = [0.3, 0.9, 0.9, 0.95, 0.2, 0.1]  # rising, so that γ > 0, then falling
    for epoch, recall in enumerate(recalls, 1):
        strategy.begin(epoch)
        for image in range(3):
            prediction = torch.rand(truth[image].shape, generator=rng) < recall
            strategy.count(prediction, truth[image], None)
            strategy.record(window(image), truth[image] & ~prediction)
        strategy.end()
    strategy.begin(7)
    before = seen(3)
    assert all(mask is not None and (mask & ~own).any() for mask, own in zip(before, truth, strict=False))
    history = strategy.state()["recalls"]
    strategy.take_up(torch.cat([shapes, torch.tensor([(10, 16)])]), [1], True)
    after = seen(4)
    for image in (0, 2):
        assert torch.equal(after[image], before[image])
    for image in (1, 3):
        assert torch.equal(after[image], truth[image])
    assert strategy.state()["recalls"] == history
    again = part.bind()(
        epochs=20, shapes=torch.cat([shapes, torch.tensor([(10, 16)])]), classes=2,
        device=torch.device("cpu"), revisits=True,
    )  # fmt: skip
    again.restore(deepcopy(strategy.state()))
    again.begin(7)
    strategy = again
    assert all(torch.equal(one, other) for one, other in zip(seen(4), after, strict=True))


def test_with_crops_what_is_seen_in_an_epoch_stays_when_a_larger_image_joins() -> None:
    # Where images came whole, misses could be replaced as they were read; with crops they cannot.
    shapes = torch.tensor([(8, 16)])
    strategy = SMMv1().bind()(epochs=10, shapes=shapes, classes=1, device=torch.device("cpu"))
    truth = torch.ones((1, 1, 8, 16), dtype=torch.bool)
    strategy.begin(4)
    strategy.take_up(torch.tensor([(8, 16), (16, 32)]), [], True)
    window = Window(torch.tensor([0]), torch.tensor([[0, 0]]), (8, 16))
    empty = torch.zeros_like(truth)
    strategy.record(window, truth)
    assert torch.equal(strategy.target(window, empty, None), empty)
