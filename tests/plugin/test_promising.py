"""What a rule says of what is in view: T, the promise, and why there is none."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calibration import Predicted
from engine.thresholds import Curve, attainable, gather, mean_bound, mean_rates
from engine.thresholds.specs import BestDice, Cls, Conditional, Crc, WantedPrecision
from napari_smm.calibrating import Basis
from napari_smm.promising import Answer, Thresholded, answer

MADE = Predicted("best", 7, "abc", {"tile": 512})
ON = Thresholded("layer", ("vessel",), 0, MADE, run=Path("/runs/a"))


def basis(n: int = 28, classes: tuple[str, ...] = ("vessel",), groups: list[str] | None = None) -> Basis:
    """Annotated images of 20 × 20 px, each with a lesion of every class."""
    rng = np.random.default_rng(n)
    p = rng.random((n, len(classes), 20, 20), dtype=np.float32)
    y = rng.random(p.shape) < 0.2
    p[y] = p[y] ** 0.25
    names = [f"image {number}" for number in range(n)]
    values = [[np.sort(p[i, c][y[i, c]]) for c in range(len(classes))] for i in range(n)]
    curves = tuple(tuple(Curve.of(p[i, c], y[i, c]) for i in range(n)) for c in range(len(classes)))
    return Basis(gather(names, classes, values, groups), curves, MADE, f"{n} open images", "image")


BASIS = basis()
UNITS = BASIS.lesions.units(0)


def test_a_promise_is_the_rules_own_with_its_words() -> None:
    for rule, words in (
        (
            Cls(epsilon=0.2, alpha=0.1),
            "In at least 90 % of new images with a vessel from the same source, at most 20 % of the",
        ),
        (Conditional(epsilon=0.2, alpha=0.2, delta=0.1), "With 90 % confidence in this calibration: in at"),
        (
            Crc(alpha=0.25),
            "On average over new images with a vessel from the same source, at most 25 % of the vessel is",
        ),
    ):
        found = answer(rule, BASIS, ON, together=False)
        assert found.threshold == rule.bind()(UNITS).threshold
        assert (found.state, found.guaranteed, found.notes) == ("promise", True, ())
        assert words in found.words
        assert "Calibrated on 28 images." in found.words
        assert found.attainable is not None
        assert found.attainable.n == 28


def test_a_class_that_is_only_foreground_is_called_the_lesion() -> None:
    on = replace(ON, classes=("foreground",))
    found = answer(
        Cls(), replace(BASIS, lesions=replace(BASIS.lesions, classes=("foreground",))), on, together=False
    )
    assert "at most 10 % of the lesion is missed" in found.words


@settings(max_examples=60)
@given(st.floats(0, 1), st.floats(0.001, 0.999), st.sampled_from([None, 0.05, 0.5]), st.floats(0, 1))
def test_what_lies_on_the_curve_and_above_is_attained_at_t(
    epsilon: float, alpha: float, delta: float | None, other: float
) -> None:
    """Whether the rule at another (ε, α) answers with T or more is what the curve says of that place."""

    def at(e: float, a: float) -> Cls | Conditional:
        return Cls(epsilon=e, alpha=a) if delta is None else Conditional(epsilon=e, alpha=a, delta=delta)

    found = answer(at(epsilon, 0.3), BASIS, ON, together=False)
    assert found.threshold is not None
    assert found.attainable is not None
    shown = found.attainable
    assert (shown.over, shown.point) == ("epsilon", (epsilon, 0.3))
    assert shown.x[0] == 0
    assert (np.diff(shown.x) > 0).all()
    assert (np.diff(shown.y) <= 0).all()
    assert shown.y.min() >= shown.least
    least = shown.y[shown.x.searchsorted(other, side="right") - 1]
    if abs(alpha - least) > 1e-9:
        assert (at(other, alpha).bind()(UNITS).threshold >= found.threshold) == (alpha > least)


def test_the_curve_of_the_mean() -> None:
    found = answer(Crc(alpha=0.25), BASIS, ON, together=False)
    assert found.threshold is not None
    assert found.attainable is not None
    shown = found.attainable
    assert shown.over == "threshold"
    assert shown.point == (found.threshold, mean_bound(UNITS, found.threshold))
    assert shown.point[1] <= 0.25
    assert shown.least == shown.y[0] == 1 / 29
    for place in (0, 20, 57, 100):
        assert shown.y[place] == pytest.approx(mean_bound(UNITS, float(shown.x[place])))


def test_too_few_images_say_which_number_would_do() -> None:
    few = basis(6)
    for rule, needed in ((Cls(), 9), (Crc(), 9), (Conditional(), 22)):
        found = answer(rule, few, ON, together=False)
        assert (found.state, found.threshold) == ("short", 0.0)
        assert f"needs at least {needed} calibration images" in found.words
        assert "there are 6" in found.words
        assert found.attainable is not None
        # The point lies below what so many images allow.
        assert (found.attainable.point[1] < found.attainable.least) or isinstance(rule, Crc)
    assert answer(Conditional(), basis(22), ON, together=False).guaranteed


def test_a_share_of_one_promises_nothing_and_predicts_nothing() -> None:
    for rule in (Cls(epsilon=1), Cls(alpha=1), Crc(alpha=1)):
        found = answer(rule, BASIS, ON, together=False)
        assert (found.state, found.threshold) == ("short", math.inf)
        assert "T is ∞: nothing is predicted." in found.notes
    zero = replace(BASIS, lesions=gather(list("abc"), ("vessel",), [[np.zeros(5, np.float32)]] * 3))
    found = answer(Cls(alpha=0.5), zero, ON, together=False)
    assert (found.guaranteed, found.threshold) == (True, 0.0)
    assert "T is 0: everything is predicted." in found.notes


@pytest.mark.parametrize("rule", [Cls(), Crc(), BestDice()])
def test_probabilities_of_something_else_are_refused(rule: Cls | Crc | BestDice) -> None:
    for other, reason in (
        (replace(MADE, weights="xyz", checkpoint="last", epoch=40), "these are last's after epoch 40"),
        (replace(MADE, path={"tile": 256}), "tile 512, and here it is 256"),
    ):
        found = answer(rule, BASIS, replace(ON, predicted=other), together=False)
        assert (found.state, found.threshold, found.attainable) == ("refused", None, None)
        assert reason in found.words
        assert f"python -m engine.calibrate {Path('/runs/a')} --rule cls" in found.words
        assert f"--checkpoint {other.checkpoint}" in found.words


def test_watched_images_are_not_what_is_promised_about() -> None:
    watched = Thresholded("run", ("vessel",), 0, None, "train", Path("/runs/a"), epoch=7)
    found = answer(Cls(), BASIS, watched, together=False)
    assert found.guaranteed
    assert found.notes == (
        "The promise is about new images predicted with best, not about this one: the run was trained on it.",
    )
    other = answer(Cls(), BASIS, replace(watched, epoch=6), together=False)
    assert (other.state, other.threshold) == ("refused", None)
    assert "epoch 7 would work" in other.words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "train"}, "not about this one: the run was trained on it"),
        ({"split": "val"}, "not about this one: the run chose its checkpoint by it"),
        ({"name": "image 3"}, "not about this one: it is one of the images that T is chosen on"),
        ({"predicted": None}, "they must come from best after epoch 7"),
    ],
)
def test_what_has_to_be_known_is_said_beside_the_promise(changes: dict[str, object], said: str) -> None:
    found = answer(Cls(), BASIS, replace(ON, **changes), together=False)  # type: ignore[arg-type]
    assert found.guaranteed
    assert len(found.notes) == 1
    assert said in found.notes[0]


def test_of_unknown_calibration_images_the_user_must_be_sure() -> None:
    unknown = replace(BASIS, predicted=None, notes=("3 images without lesion are left out.",))
    found = answer(Cls(), unknown, ON, together=False)
    assert found.notes == (
        "Be sure that the network was never trained on the annotated images.",
        "3 images without lesion are left out.",
    )


def test_classes_are_known_by_their_names() -> None:
    two = basis(classes=("core", "ring"))
    on = replace(ON, classes=("core", "ring"), cls=1)
    ring = answer(Cls(), two, on, together=False)
    assert ring.threshold == Cls().bind()(two.lesions.units(1)).threshold
    assert "of the ring is missed" in ring.words
    assert "each class's own mask" in ring.notes[-1]
    core = Cls().bind()(two.lesions.units(0)).threshold
    assert ring.thresholds == {0: core, 1: ring.threshold}
    best = answer(BestDice(), two, on, together=False)
    assert best.thresholds == {cls: BestDice().bind()(two.curves[cls]).threshold for cls in (0, 1)}
    swapped = answer(Cls(), two, replace(on, classes=("ring", "core"), cls=0), together=False)
    assert swapped.threshold == ring.threshold
    all_at_once = answer(Cls(), two, on, together=True)
    assert all_at_once.threshold == Cls().bind()(two.lesions.units(None)).threshold
    assert "of each class" in all_at_once.words
    assert all_at_once.thresholds == dict.fromkeys((0, 1), all_at_once.threshold)
    for wrong in (on, replace(ON, classes=("other",)), replace(on, classes=("core", "edge"))):
        found = answer(Cls(), BASIS if wrong is on else two, wrong, together=False)
        assert (found.state, found.threshold, found.thresholds) == ("refused", None, {})
        assert "annotated images of the same classes would work" in found.words
    assert answer(Cls(), BASIS, replace(ON, classes=("foreground",)), together=False).guaranteed


def test_a_class_that_too_few_images_have_is_told_beside_the_other_s_promise() -> None:
    full = basis(classes=("core", "ring")).lesions
    values = [(core, ring if number < 3 else ring[:0]) for number, (core, ring) in enumerate(full.values)]
    few = gather(full.names, full.classes, values)
    two = replace(basis(classes=("core", "ring")), lesions=few)
    found = answer(Cls(), two, replace(ON, classes=("core", "ring")), together=False)
    assert found.guaranteed
    assert found.thresholds[1] == 0
    assert found.notes[-1] == "Of ring nothing is promised: 3 calibration images with it, and its T is 0."


def test_an_older_prediction_is_refused_where_its_checkpoint_is_known_to_be_another() -> None:
    older = replace(ON, predicted=None, saved=(MADE.checkpoint, MADE.epoch))
    assert "Nothing is known of how" in answer(Cls(), BASIS, older, together=False).notes[-1]
    for saved in (("last", MADE.epoch), (MADE.checkpoint, MADE.epoch + 1)):
        found = answer(Cls(), BASIS, replace(older, saved=saved), together=False)
        assert (found.state, found.threshold) == ("refused", None)
        assert f"with {saved[0]} after epoch {saved[1]}" in found.words
        assert f"--checkpoint {saved[0]}" in found.words


def test_groups_are_what_the_promise_counts() -> None:
    grouped = replace(basis(28, groups=[str(number // 2) for number in range(28)]), unit="group")
    found = answer(Cls(), grouped, ON, together=False)
    assert "Calibrated on 14 groups." in found.words
    assert "new groups" in found.words


def test_without_a_guarantee_that_is_said_first() -> None:
    curves = BASIS.curves[0]
    for rule in (BestDice(), WantedPrecision(wanted=0.4)):
        found = answer(rule, BASIS, ON, together=False)
        assert (found.state, found.guaranteed, found.attainable) == ("wish", False, None)
        assert found.words.startswith("No guarantee")
        assert found.threshold == rule.bind()(curves).threshold
    trained = answer(BestDice(), BASIS, replace(ON, split="train"), together=False)
    assert trained.notes == ("New images may come off worse than this one: the run was trained on it.",)
    best = answer(BestDice(), BASIS, ON, together=False)
    assert best.threshold is not None
    assert f"{mean_rates(curves, best.threshold)[0].dice:.3f}" in best.words


def test_without_images_nothing_is_promised() -> None:
    none = replace(BASIS, curves=())
    for found, state, said in (
        (
            answer(Cls(), None, ON, together=False, why="No image is ticked."),
            "refused",
            "No image is ticked.",
        ),
        (answer(Cls(), None, ON, together=False), "refused", "No promise. Annotated images are needed"),
        (answer(Cls(), None, ON, together=False, busy=True), "waiting", "being read"),
        (answer(BestDice(), none, ON, together=False), "waiting", "being counted"),
        (
            answer(BestDice(), replace(none, no_curves="too many."), ON, together=False),
            "refused",
            "Too many.",
        ),
    ):
        assert isinstance(found, Answer)
        assert (found.state, found.threshold, found.attainable) == (state, None, None)
        assert said in found.words


def test_t_0_attains_whatever_the_number_of_images_allows() -> None:
    epsilon, alpha = attainable(UNITS, 0.0)
    assert epsilon.tolist() == [0.0]
    assert alpha.tolist() == [1 / 29]
