"""Proposals and candidates: known answers by hand, against the engine's own decision, and properties."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from napari.layers import Image, Labels
from runs import MadeRun, watched_item
from scipy import ndimage

from engine import thresholds_file
from engine.calibration import Predicted
from engine.data.annotated import AnnotationClass, Entry
from engine.errors import InputError
from engine.thresholds.specs import BestDice, Cls
from napari_smm import proposing
from napari_smm.decisions import DroppedError
from napari_smm.planes import plane_source, stored_plane
from napari_smm.predicted import PredictedArrays, PredictedPlane
from napari_smm.predictors import require_fitting
from napari_smm.proposing import (
    Cut,
    candidate_layer,
    candidates,
    cut_of,
    decided,
    doubt,
    identity,
    image_source,
    offers,
    painted_only,
    propose,
    proposed,
    values_of,
)

NUCLEUS = AnnotationClass("nucleus", 1, "#e69f00")
CELL = AnnotationClass("cell", 3, "#56b4e9")
HALF = Cut((0.5,), ("nucleus",))
UNLABELLED = 255


def free(*shape: int) -> np.ndarray:
    return np.full(shape, UNLABELLED, np.uint8)


def p_of(*values: Sequence[Any]) -> np.ndarray:
    return np.array(values, np.float32)


def boxes(found: Sequence[proposing.Candidate]) -> list[tuple[tuple[int, int], ...]]:
    return [tuple((part.start, part.stop) for part in one.box) for one in found]


# The decision


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("thresholds", [True, False])
def test_the_decision_is_the_engines(classes: int, thresholds: bool) -> None:
    import torch

    from engine.head import labels

    rng = np.random.default_rng(classes)
    # Eighths, so that ties with T and with the background are many.
    p = (rng.multinomial(8, [1 / (classes + 1)] * (classes + 1), (20, 30)) / 8)[..., 1:]
    p = np.ascontiguousarray(np.moveaxis(p, -1, 0), np.float32)
    names = tuple("abc"[:classes])
    limits = (0.25, 0.5, 0.375)[:classes] if thresholds else None
    wanted = labels(torch.from_numpy(p)[None], "softmax", limits)[0].numpy()
    np.testing.assert_array_equal(decided(p, Cut(limits, names)), wanted)


def test_what_is_close_to_t() -> None:
    p = p_of([0.0, 0.2, 0.25, 0.5, 0.74, 0.75, 1.0])
    assert doubt(p, HALF).tolist() == [False, False, True, True, True, False, False]
    # Argmax of two is T = 1/2, but for the lower end.
    assert doubt(p, Cut(None, ("a",))).tolist() == [False, False, False, True, True, False, False]
    low = doubt(p_of([0.009, 0.01, 0.02, 0.5, 0.51]), Cut((0.02,), ("a",)))
    assert low.tolist() == [False, True, True, True, False]
    two = doubt(p_of([0.1, 0.6, 0.75], [0.1, 0.3, 0.2]), Cut(None, ("a", "b")))
    assert two.tolist() == [False, True, False]


def test_the_words_of_a_cut() -> None:
    assert (HALF.text, HALF.words) == ("0.5", "p ≥ 0.5")
    assert (Cut(None, ("a",)).text, Cut(None, ("a",)).words) == ("argmax", "largest probability")
    two = Cut((0.25, 0.1), ("a", "b"), "crc (alpha 0.1)")
    assert two.text == "a=0.25 b=0.1"
    assert two.words == "p ≥ 0.25 (a), 0.1 (b) by crc (alpha 0.1)"
    # The very value observed comes back.
    t = float(np.float32(0.3))
    assert np.float32(float(Cut((t,), ("a",)).text)) == np.float32(0.3)


# The proposal


def test_a_proposal_by_hand() -> None:
    p = p_of([[0.9, 0.6, 0.3], [0.1, 0.9, 0.1]])
    painted = np.array([[0, 255, 255], [1, 255, 255]], np.uint8)
    assert proposed(p, HALF, {0: 1}, painted).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert proposed(p, HALF, {0: 1}, painted, over=True).tolist() == [[1, 1, 0], [0, 1, 0]]
    assert proposed(p, HALF, {0: 1}, painted, spare=True).tolist() == [[0, 255, 255], [1, 1, 0]]
    # Background may be a class that the network does not know.
    assert proposed(p, HALF, {0: 1}, painted, whole=False).tolist() == [[0, 1, 255], [1, 1, 255]]
    # Values are the folder's own.
    assert proposed(p, HALF, {0: 3}, free(2, 3)).tolist() == [[3, 3, 0], [0, 3, 0]]


LABELS = st.sampled_from([0, 1, 2, 255])


@given(
    p=arrays(np.float32, (2, 5, 6), elements=st.floats(0, 1, width=32)),
    painted=arrays(np.uint8, (5, 6), elements=LABELS),
    t=st.tuples(st.floats(0.0625, 1, width=32), st.floats(0.0625, 1, width=32)),
    over=st.booleans(),
    spare=st.booleans(),
    whole=st.booleans(),
)
@settings(max_examples=30)
def test_nothing_painted_is_lost(p: Any, painted: Any, t: Any, over: bool, spare: bool, whole: bool) -> None:
    cut = Cut(t, ("a", "b"))
    found = proposed(p, cut, {0: 1, 1: 2}, painted, over=over, spare=spare, whole=whole)
    there = painted != UNLABELLED
    assert found.dtype == np.uint8
    if over:
        assert (found[there] != UNLABELLED).all()
    else:
        np.testing.assert_array_equal(found[there], painted[there])
    if whole and not spare:
        assert (found != UNLABELLED).all()
    # Once it is proposed, the same proposal changes nothing.
    np.testing.assert_array_equal(
        proposed(p, cut, {0: 1, 1: 2}, found, over=over, spare=spare, whole=whole), found
    )


def test_classes_are_matched_by_name() -> None:
    assert values_of(("cell", "debris", "nucleus"), [NUCLEUS, CELL]) == {0: 3, 2: 1}
    assert values_of(("foreground",), [CELL]) == {0: 3}
    assert values_of(("cell",), [AnnotationClass("foreground", 1, "#e69f00")]) == {0: 1}
    with pytest.raises(InputError, match="the run predicts vessel, and the classes here are nucleus, cell"):
        values_of(("vessel",), [NUCLEUS, CELL])
    with pytest.raises(InputError, match="none yet"):
        values_of(("vessel",), [])


# The candidates


def scene() -> np.ndarray:
    """p (1, 24, 24): a sure object, one that is left out, one that is barely taken in."""
    p = np.full((24, 24), 0.05, np.float32)
    p[2:7, 2:7] = 0.9
    p[1:8, 1] = p[1, 1:8] = 0.3  # the rim of the sure one is no candidate of its own
    p[10:14, 12:16] = 0.4
    p[11, 13] = 0.45
    p[18:20, 4:8] = 0.55
    return p[None]


def test_candidates_by_hand() -> None:
    missed, doubtful = candidates(scene(), HALF, {0: 1}, free(24, 24))
    assert (missed.kind, boxes([missed]), missed.peak, missed.size) == (
        "missed",
        [((10, 14), (12, 16))],
        (11, 13),
        16,
    )
    assert missed.words == "nucleus likely missed: left out, p up to 0.45"
    assert (doubtful.kind, boxes([doubtful]), doubtful.size) == ("doubtful", [((18, 20), (4, 8))], 8)
    assert doubtful.words == "nucleus doubtful: p no more than 0.55"
    # At a low T nothing is left out, and only what is far above it is sure.
    low = candidates(scene(), Cut((0.2,), ("nucleus",)), {0: 1}, free(24, 24))
    assert [(one.kind, one.size) for one in low] == [("doubtful", 16), ("doubtful", 8)]


def test_what_is_painted_is_no_longer_in_doubt() -> None:
    painted = free(24, 24)
    painted[10:14, 12:16] = 0  # no object, says the annotator
    painted[18:20, 4:8] = 1  # an object
    assert candidates(scene(), HALF, {0: 1}, painted) == []


def test_labels_that_contradict() -> None:
    painted = free(24, 24)
    painted[2:7, 2:7] = 0  # decided on, and painted as background
    painted[12:23, 12:23] = 1  # painted, and mostly not decided on
    found = candidates(scene(), HALF, {0: 1}, painted)
    assert [(one.kind, one.painted, one.size) for one in found] == [
        ("missed", True, 121), ("missed", False, 16), ("doubtful", True, 25), ("doubtful", False, 8)
    ]  # fmt: skip
    assert found[0].words == "nucleus likely missed: painted, but p only 0.05"
    assert found[2].words == "nucleus doubtful: painted as background, but p 0.90"


def test_outlines_need_not_agree_to_the_pixel() -> None:
    painted = np.zeros((24, 24), np.uint8)
    painted[1:8, 1:8] = 1  # a pixel more all around than is decided on
    painted[18:20, 4:8] = 1
    found = candidates(scene(), HALF, {0: 1}, painted)
    assert found == []
    painted[1:8, 1:8] = 0
    painted[3:6, 3:6] = 1  # a pixel less
    assert candidates(scene(), HALF, {0: 1}, painted) == []


def test_the_likeliest_come_first() -> None:
    p = np.full((40, 40), 0.0, np.float32)
    p[2:4, 2:4], p[10:20, 10:20], p[30:33, 30:33] = 0.45, 0.3, 0.4
    p[2:4, 30:32], p[8:10, 30:32] = 0.7, 0.52
    found = candidates(p[None], HALF, {0: 1}, free(40, 40))
    assert [(one.kind, one.size, round(one.p, 2)) for one in found] == [
        ("missed", 100, 0.3), ("missed", 9, 0.4), ("missed", 4, 0.45),
        ("doubtful", 4, 0.52), ("doubtful", 4, 0.7),
    ]  # fmt: skip


def test_candidates_of_several_classes_decided_by_argmax() -> None:
    p = np.zeros((2, 12, 12), np.float32)
    p[0, 1:4, 1:4], p[1, 1:4, 1:4] = 0.6, 0.35  # the first is decided on: the second is not missed
    p[1, 7:10, 7:10] = 0.4
    found = candidates(p, Cut(None, ("a", "b")), {0: 1, 1: 2}, free(12, 12))
    assert [(one.kind, one.cls, boxes([one])[0]) for one in found] == [
        ("missed", "b", ((7, 10), (7, 10))), ("doubtful", "a", ((1, 4), (1, 4)))
    ]  # fmt: skip
    # A class that the folder does not have is passed over.
    assert [one.cls for one in candidates(p, Cut(None, ("a", "b")), {0: 1}, free(12, 12))] == ["a"]


@given(
    p=arrays(np.float32, (1, 12, 13), elements=st.sampled_from([0.1, 0.3, 0.6, 0.9])),
    painted=arrays(np.uint8, (12, 13), elements=LABELS),
)
@settings(max_examples=25)
def test_candidates_are_where_they_say(p: Any, painted: Any) -> None:
    low, mine = p[0] >= 0.25, p[0] >= 0.5
    for one in candidates(p, HALF, {0: 1}, painted):
        whole = np.zeros(painted.shape, bool)
        whole[one.box] = one.mask
        assert whole.sum() == one.size
        assert whole[one.peak]
        assert ndimage.label(whole, np.ones((3, 3)))[1] == 1
        assert one.p == p[0][one.peak]
        if one.painted:
            assert (painted[whole] == (1 if one.kind == "missed" else 0)).all()
            assert (mine[whole] == (one.kind == "doubtful")).all()
        elif one.kind == "missed":
            assert low[whole].all()
            assert not mine[whole].any()
        else:
            assert mine[whole].all()
            assert p[0][whole].max() < 0.75


def test_volumes_have_neighbours_across_slices() -> None:
    p = np.zeros((1, 5, 12, 12), np.float32)
    p[0, 1, 2:5, 2:5], p[0, 2, 5:8, 5:8] = 0.4, 0.3
    (one,) = candidates(p, HALF, {0: 1}, free(5, 12, 12))
    assert (boxes([one])[0], one.size, one.peak) == (((1, 3), (2, 8), (2, 8)), 18, (1, 2, 2))


def test_nobody_waits_any_more() -> None:
    with pytest.raises(DroppedError):
        candidates(scene(), HALF, {0: 1}, free(24, 24), lambda: True)


# What is left to look at


def test_a_candidate_is_settled_by_painting_on_it() -> None:
    missed, doubtful = candidates(scene(), HALF, {0: 1}, free(24, 24))
    proposal = proposed(scene(), HALF, {0: 1}, free(24, 24))
    labels = proposal.copy()
    labels[0, 0] = 1
    assert not missed.is_settled(labels, proposal)
    labels[12, 14] = 1
    assert missed.is_settled(labels, proposal)
    assert not doubtful.is_settled(labels, proposal)


# All of it


def prediction(p: np.ndarray, image: np.ndarray, dims: int = 2, **given: Any) -> PredictedArrays:
    """A prediction of all planes of an image by a run of class nucleus; p is (C, *shape of the image)."""
    source = plane_source(Image(image, name="mine", scale=(2.0,) * image.ndim), dims=dims)
    planes = {
        plane: PredictedPlane(
            (np.ascontiguousarray(p[(slice(None), *plane)]),), ("nucleus",), Path("RUN"), "last", 7,
            **{"weights": "w", "path": {"head": "sigmoid"}, **given},
        )
        for plane in source.planes
    }  # fmt: skip
    return PredictedArrays(planes, source, Path("out"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return MadeRun(tmp_path / "mine", [watched_item("a")], classes=("nucleus",)).train(1).end().root


def test_a_proposal_for_an_image(run: Path) -> None:
    found = prediction(scene(), np.zeros((24, 24), np.uint8))
    labels = free(24, 24)
    labels[2:4] = 0
    made = propose(found, run, labels, [NUCLEUS])
    assert made.labels.tolist() == np.where(labels == 0, 0, scene()[0] >= 0.5).astype(np.uint8).tolist()
    assert made.changed == 24 * 24 - 2 * 24
    assert [one.kind for one in made.candidates] == ["missed", "doubtful", "doubtful"]
    assert made.whence == proposing.Whence(identity(run), "last", "7", "0.5")
    assert made.notes == ()
    # What is painted since stays, what was proposed and left alone is the new proposal's.
    better = scene()
    better[0, 10:14, 12:16] = 0.8
    labels = made.labels.copy()
    labels[20:22, 20:22] = 1
    again = propose(prediction(better, np.zeros((24, 24), np.uint8)), run, labels, [NUCLEUS], made)
    assert (again.labels[10:14, 12:16] == 1).all()
    assert (again.labels[20:22, 20:22] == 1).all()
    assert (again.labels[2:4] == 0).all()
    assert again.changed == 16
    assert (made.mixed, again.mixed) == (True, True)
    # Without the last one, all of it counts as painted.
    alone = propose(prediction(better, np.zeros((24, 24), np.uint8)), run, labels, [NUCLEUS])
    np.testing.assert_array_equal(alone.labels, labels)
    assert alone.changed == 0
    over = propose(prediction(better, np.zeros((24, 24), np.uint8)), run, labels, [NUCLEUS], over=True)
    assert (over.labels == (better[0] >= 0.5)).all()


def test_a_class_that_the_run_does_not_know(run: Path) -> None:
    found = prediction(scene(), np.zeros((24, 24), np.uint8))
    made = propose(found, run, free(24, 24), [NUCLEUS, CELL])
    assert set(np.unique(made.labels)) == {1, UNLABELLED}
    assert made.notes == ("the run does not know cell: what it takes for background stays unlabelled.",)


def test_a_volume_predicted_slice_by_slice(run: Path) -> None:
    p = np.zeros((1, 3, 24, 24), np.float32)
    p[:, 0], p[:, 2] = scene(), scene()
    found = prediction(p, np.zeros((3, 24, 24), np.uint8))
    made = propose(found, run, free(3, 24, 24), [NUCLEUS])
    np.testing.assert_array_equal(made.labels, p[0] >= 0.5)
    assert [(one.kind, one.peak[0]) for one in made.candidates] == [
        ("missed", 0), ("missed", 2), ("doubtful", 0), ("doubtful", 2)
    ]  # fmt: skip
    assert all(one.mask.ndim == 3 and made.labels[one.box].shape == one.mask.shape for one in made.candidates)
    # One plane alone leaves the others as they are.
    one = PredictedArrays({(2,): found.planes[(2,)]}, found.source, found.folder)
    part = propose(one, run, free(3, 24, 24), [NUCLEUS])
    assert (part.labels[:2] == UNLABELLED).all()
    np.testing.assert_array_equal(part.labels[2], p[0, 2] >= 0.5)
    whole = propose(prediction(p, np.zeros((3, 24, 24), np.uint8), dims=3), run, free(3, 24, 24), [NUCLEUS])
    np.testing.assert_array_equal(whole.labels, made.labels)
    assert whole.layer("missed").sum() == 2 * 16


def test_another_image(run: Path) -> None:
    found = prediction(scene(), np.zeros((24, 24), np.uint8))
    with pytest.raises(InputError, match="has shape \\(24, 24\\), and its labels have \\(24, 25\\)"):
        propose(found, run, free(24, 25), [NUCLEUS])
    with pytest.raises(DroppedError):
        propose(found, run, free(24, 24), [NUCLEUS], ended=lambda: True)


def test_only_what_nobody_touched_since_is_not_painted(run: Path) -> None:
    made = propose(prediction(scene(), np.zeros((24, 24), np.uint8)), run, free(24, 24), [NUCLEUS])
    np.testing.assert_array_equal(painted_only(made.labels, made), made.painted)
    np.testing.assert_array_equal(painted_only(made.labels, None), made.labels)
    np.testing.assert_array_equal(painted_only(free(3, 3), made), free(3, 3))


# The run


def test_what_a_run_is_called(run: Path, tmp_path: Path) -> None:
    name, digest = identity(run).split("#")
    assert name == "mine"
    assert len(digest) == 8
    moved = run.rename(tmp_path / "moved")
    assert identity(moved) == f"moved#{digest}"
    info = json.loads((moved / "run.json").read_text("utf-8"))
    # A run that follows its folder takes up images, and goes on.
    more = {"digests": {"train": {"b": "1"}}, "dataset": {**info["dataset"], "images": 2}}
    (moved / "run.json").write_text(json.dumps({**info, **more}))
    events = moved / "events.jsonl"
    events.write_text(events.read_text("utf-8") + '{"event": "epoch", "epoch": 2}\n', "utf-8")
    assert identity(moved) == f"moved#{digest}"
    # Another one by the same command began at another time.
    kept = events.read_text("utf-8")
    events.write_text(kept.replace('"time": "20', '"time": "21', 1), "utf-8")
    assert identity(moved).split("#")[1] != digest
    events.write_text(kept, "utf-8")
    (moved / "run.json").write_text(json.dumps({**info, "seed": 1}))
    assert identity(moved).split("#")[1] != digest
    with pytest.raises(InputError, match="no run directory"):
        identity(tmp_path / "nothing")


def calibrate(run: Path, rule: Any, threshold: float, made: str = "2026-01-01", **given: Any) -> None:
    entry = thresholds_file.ClassEntry(threshold=threshold, n=9, left_out=0, words="")
    predicted = Predicted("last", 7, given.get("weights", "w"), given.get("path", {"head": "sigmoid"}))
    classes = {given.get("cls", "nucleus"): entry}
    data = {"source": "calib split", "images": 9, "unit": "image"}
    thresholds_file.write(run, thresholds_file.Entry(rule, False, classes, predicted, data, made))


def test_a_calibrated_threshold_is_used(run: Path) -> None:
    plane = prediction(scene(), np.zeros((24, 24), np.uint8)).first
    assert cut_of(plane, run) == HALF
    calibrate(run, BestDice(), 0.4, made="2025-03-01")
    assert cut_of(plane, run).thresholds == (0.4,)
    calibrate(run, Cls(), 0.3)
    assert cut_of(plane, run) == Cut((0.3,), ("nucleus",), "cls (epsilon 0.1, alpha 0.1)")
    made = propose(prediction(scene(), np.zeros((24, 24), np.uint8)), run, free(24, 24), [NUCLEUS])
    assert made.whence.threshold == "0.3"
    assert (made.labels[10:14, 12:16] == 1).all()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"weights": "other"}, "other weights"),
        ({"path": {"head": "sigmoid", "tile": 64}}, "with tile 64"),
        ({"cls": "cell"}, "of the classes cell"),
        ({"threshold": np.inf}, "everything or nothing"),
        ({"threshold": 0.0}, "everything or nothing"),
    ],
)
def test_a_threshold_that_does_not_hold_here(run: Path, given: dict[str, Any], reason: str) -> None:
    plane = prediction(scene(), np.zeros((24, 24), np.uint8)).first
    calibrate(run, Cls(), **{"threshold": 0.3, **given})
    cut = cut_of(plane, run)
    assert cut.thresholds == (0.5,)
    assert cut.note.startswith("T by cls is not used: ")
    assert reason in cut.note
    softmax = prediction(scene(), np.zeros((24, 24), np.uint8), path={"head": "softmax"}).first
    assert cut_of(softmax, run).thresholds is None


def test_runs_of_the_folder_come_first(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "images"
    for name, data in (("first", str(folder)), ("second", "demo"), ("third", str(folder))):
        root = MadeRun(home / "runs" / name, [watched_item("a")], data=data).train(1).end().root
        (root / "checkpoints").mkdir()
        (root / "checkpoints" / "last").touch()
    calibrate(home / "runs" / "first", Cls(), 0.3)
    found = offers(None, folder)
    assert [offer.choice.path.name for offer in found] == ["third", "first", "second"]
    assert [offer.words for offer in found] == [
        "✔ third · epoch 1 of 5", "✔ first · epoch 1 of 5 · calibrated", "✔ second · epoch 1 of 5"
    ]  # fmt: skip
    assert [offer.choice.path.name for offer in offers(None, None)] == ["third", "second", "first"]


# The layers


def test_the_layers_of_candidates(run: Path) -> None:
    found = prediction(scene(), np.zeros((24, 24), np.uint8))
    made = propose(found, run, free(24, 24), [NUCLEUS])
    for kind, box, colour in (
        ("missed", np.s_[10:14, 12:16], (0xD5, 0x5E, 0x00)),
        ("doubtful", np.s_[18:20, 4:8], (0x56, 0xB4, 0xE9)),
    ):  # fmt: skip
        given = candidate_layer(made, kind, found)
        layer = Labels(given.data, **given.arguments)
        wanted = np.zeros((24, 24), np.uint8)
        wanted[box] = 1
        np.testing.assert_array_equal(layer.data, wanted)
        np.testing.assert_allclose(layer.get_color(1)[:3], np.array(colour) / 255, atol=1e-3)
        np.testing.assert_allclose(layer.scale, (2, 2))
        assert layer.metadata["napari-smm"]["kind"] == "candidates"


# The image


def test_an_image_is_read_from_its_own_files(tmp_path: Path, run: Path) -> None:
    layers = [Image(np.zeros((4, 5), np.uint8)), Image(np.zeros((4, 5), np.uint8))]
    source = image_source(layers, tmp_path, Entry("a/x_0.png;a/x_1.png"), None, 2)
    assert str(stored_plane(source)) == f"{tmp_path / 'a/x_0.png'},{tmp_path / 'a/x_1.png'}"
    # How many channels are in files is the engine's to say; of planes of a layer it is known here.
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last").touch()
    info = json.loads((run / "run.json").read_text("utf-8"))
    info["dataset"]["channels"] = 2
    (run / "run.json").write_text(json.dumps(info))
    require_fitting(run, source)
    stack = image_source([Image(np.zeros((3, 4, 5), np.uint8))], tmp_path, Entry("x.tif"), None, 2)
    assert (stored_plane(stack), stack.planes) == (None, ((0,), (1,), (2,)))
    with pytest.raises(InputError, match="trained on images of 2 channels"):
        require_fitting(run, stack)
    deep = [Image(np.zeros((3, 4, 5), np.uint8))] * 2
    with pytest.raises(InputError, match="a volume of 2 channels"):
        image_source(deep, tmp_path, Entry("x_0.tif;x_1.tif"), (1,), 2)
    assert image_source(deep, tmp_path, Entry("x_0.tif;x_1.tif"), None, 3).planes == ((),)
    with pytest.raises(InputError, match="is not shown: wait"):
        image_source([], tmp_path, Entry("x.tif"), None, 2)
