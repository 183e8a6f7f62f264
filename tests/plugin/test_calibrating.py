"""Calibration images of the Threshold dock: which layers can be ones, and what is read of them."""

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image, Labels

from engine import calibration
from engine.calibration import Calibration, Predicted
from engine.errors import InputError
from engine.thresholds import Curve, gather, lesion_probabilities
from engine.thresholds.specs import Cls
from napari_smm import calibrating, targets
from napari_smm.calibrating import (
    Annotated,
    RunCalibration,
    annotated,
    basis,
    counted,
    counting,
    from_run,
    gathered,
    look,
    read_all,
    reading,
)
from napari_smm.candidates import UNNAMED, Candidate, candidates, clash, differs, predicted
from napari_smm.decisions import DroppedError
from napari_smm.layers import MARK, mark

RNG = np.random.default_rng(0)
PATH = {"precision": "float32", "tile": 512}
PREDICTED = Predicted("best", 7, "abc", PATH)


def never() -> bool:
    return False


def meaning(**given: Any) -> dict[str, Any]:
    """Metadata of a prediction's layer."""
    known = {
        "run": "/runs/a", "role": "probability", "kind": "prediction", "classes": ["lesion"], "class": 0,
        "of": 1, "checkpoint": "best", "epoch": 7, "folder": "/p/1", "weights": "abc", "path": PATH,
    }  # fmt: skip
    return {MARK: {**known, **given}}


def image(name: str, *shape: int, p: Any = None, **given: Any) -> Image:
    """A layer of probabilities; of a prediction if something is said of it."""
    data = RNG.random(shape or (6, 7), dtype=np.float32) if p is None else p
    return Image(
        data, name=name, rgb=False, metadata=meaning(**given) if given else {}, contrast_limits=(0, 1)
    )


def labels(name: str, *shape: int, y: Any = None) -> Labels:
    return Labels((RNG.random(shape or (6, 7)) > 0.6).astype(np.uint8) if y is None else y, name=name)


def only(*layers: Any) -> Candidate:
    (found,) = candidates(layers)
    return found


def chosen(*layers: Any, planes: bool = False, groups: tuple[str, ...] = ()) -> list[Annotated]:
    """All candidates among some layers, each with its likeliest truth."""
    found = candidates(layers)
    named = [*groups, *[""] * len(found)]
    return [annotated(c, c.truth, planes, group) for c, group in zip(found, named, strict=False)]


def by_hand(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sort(p[y])


# Which layers


def test_a_prediction_with_labels_of_its_shape_is_a_candidate() -> None:
    p, y = image("probability · a", split=None), labels("a mask")
    found = only(p, y)
    assert (found.layers, found.truths, found.truth) == ((p,), (y,), y)
    assert found.usable
    assert found.sure
    assert (found.name, found.title) == ("probability · a", "a")
    assert (found.classes, found.shape, found.stack) == (("lesion",), (6, 7), False)


def test_what_is_no_layer_of_probabilities_is_none() -> None:
    others = [
        Image(np.zeros((6, 7), np.uint8)),
        Image(RNG.random((6, 7, 3)), rgb=True),
        Image(np.zeros((6, 7), np.float32), metadata=mark("/runs/a", "false negatives")),
        Image(np.zeros((6, 7), np.float32), metadata={MARK: {"role": "prediction", "target": "p"}}),
        labels("a"),
    ]
    assert candidates(others) == []


@pytest.mark.parametrize(
    ("layers", "brief", "said"),
    [
        (
            [image("p", split="train"), labels("p")],
            "trained on",
            "the network was trained on the image of 'p'",
        ),
        ([image("p", split="val"), labels("p")], "validated on", "was validated on the image of 'p'"),
        ([image("p"), labels("p", 6, 8)], "no labels", "no Labels layer has the shape (6, 7) of 'p'"),
        ([image("p"), Labels(np.ones((6, 7), np.uint8), metadata=mark("/r", "truth"))], "no labels", "shape"),
        (
            [
                Image(RNG.random((5, 6, 7)), name="p", metadata=mark("/r", "probability")),
                labels("p", 5, 6, 7),
            ],
            "watched",
            "in half precision",
        ),
        (
            [
                Image([np.zeros((8, 8), "f4"), np.zeros((4, 4), "f4")], name="p", contrast_limits=(0, 1)),
                labels("p", 4, 4),
            ],
            "labels too small",
            "full resolution",
        ),
    ],
)
def test_why_a_layer_cannot_be_used_is_said(layers: list[Any], brief: str, said: str) -> None:
    found = only(*layers)
    assert not found.usable
    assert not found.sure
    assert found.brief == brief
    assert said in found.reason
    assert "would work" in found.reason or "such as" in found.reason
    with pytest.raises(InputError, match="p"):
        annotated(found, layers[1], False)


def test_labels_are_those_of_the_image_by_name_and_else_the_topmost() -> None:
    stack = [image(f"probability · img {number}", split=None) for number in range(1, 12)]
    masks = [labels(f"img {number} mask") for number in range(1, 12)]
    for found in candidates([*stack, *masks]):
        assert found.truth is masks[stack.index(found.layers[0])]
        assert found.sure
        assert found.truths == tuple(reversed(masks))
    found = only(image("cell p"), first := labels("p"), labels("p by another hand"))
    assert found.truth is first  # the fewest other words
    assert found.sure
    # Names that have nothing in common say nothing.
    unknown = only(image("p"), labels("mask"), topmost := labels("my other mask"))
    assert unknown.truth is topmost
    assert not unknown.sure


def test_a_truth_that_another_image_has_as_well_is_not_sure() -> None:
    # One of two images is annotated, and nothing says which.
    assert not any(found.sure for found in candidates([image("x"), image("y"), labels("mask")]))
    x, y = reversed(candidates([image("x"), image("y"), labels("x mask")]))
    assert (x.sure, y.sure) == (True, False)
    # Two networks' predictions of the same image do not stand in each other's way.
    both = [image("probability · x", weights=weights) for weights in ("abc", "def")]
    assert all(found.sure for found in candidates([*both, labels("x")]))


def test_a_kept_decision_is_no_truth_unless_the_user_says_so() -> None:
    p, kept = image("probability · x", split=None), labels("labels from prediction · probability · x")
    found = only(p, kept)
    assert found.usable
    assert not found.sure
    assert only(p, truth := labels("something"), kept).truth is truth


def test_the_layers_of_all_classes_are_one_candidate() -> None:
    made = [
        image(f"probability · x · {name}", classes=[name], of=2, **{"class": cls})
        for cls, name in enumerate(["core", "ring"])
    ]
    other = image("probability · y · core", classes=["core"], of=2, folder="/p/2")
    found = candidates([*made, other, labels("x")])
    assert [candidate.layers for candidate in found] == [(other,), tuple(made)]
    assert found[1].classes == ("core", "ring")
    assert found[1].title == "x"
    assert clash(found[0], [found[1]])[0] == "other classes"
    assert "'probability · y · core' has the classes core" in clash(found[0], [found[1]])[1]


def test_what_predicted_a_layer_and_what_is_not_known_of_it() -> None:
    assert predicted(image("p", split=None)) == PREDICTED
    assert predicted(image("p")) is None
    assert predicted(image("p", weights="")) is None
    assert not differs(image("p", split=None), image("q"))
    assert "other weights, though these are also best's after epoch 7" in differs(
        image("p", split=None), image("q", weights="def")
    )
    assert "precision float32" in differs(
        image("p", split=None), image("q", path={**PATH, "precision": "bf16"})
    )
    # Older layers tell run, checkpoint and epoch only.
    older = [image("p", weights="", epoch=epoch) for epoch in (7, 8)]
    assert not differs(older[0], older[0])
    assert "best of /runs/a after epoch 7, and these with best of /runs/a after epoch 8" in differs(*older)


# What is read


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_images_are_read_as_they_are(dtype: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "BAND", 50)
    monkeypatch.setattr(calibrating, "ROWS", 2)
    p = RNG.random((2, 11, 9)).astype(dtype)
    y = RNG.integers(0, 4, p.shape, dtype=np.int32)
    wrap = {
        "numpy": np.asarray,
        "dask": lambda a: da.from_array(a, chunks=(4, 9)),
        "zarr": lambda a: zarr.array(a, chunks=(4, 9)),
    }[kind]
    layers = [image(f"p{n}", p=wrap(p[n])) for n in range(2)] + [
        labels(f"p{n}", y=wrap(y[n])) for n in range(2)
    ]
    found = gathered(chosen(*layers), never)
    assert found.names == found.groups == ("p1", "p0")
    assert found.classes == (UNNAMED,)
    for number, (values,) in zip((1, 0), found.values, strict=True):
        np.testing.assert_array_equal(values, by_hand(p[number], y[number] > 0))
        assert values.dtype == np.dtype(dtype).newbyteorder("=")


def test_a_stack_is_one_volume_or_as_many_images_as_it_has_planes() -> None:
    p, y = RNG.random((3, 5, 6), dtype=np.float32), RNG.random((3, 5, 6)) > 0.5
    y[1] = False
    layers = image("stack", p=p), labels("stack", y=y.astype(np.uint8))
    whole = chosen(*layers)
    found = gathered(whole, never)
    assert found.names == ("stack",)
    np.testing.assert_array_equal(found.values[0][0], by_hand(p, y))
    assert basis(whole, read_all(whole, never)).unit == "volume"
    apart = chosen(*layers, planes=True)
    found = gathered(apart, never)
    assert found.names == ("stack [0]", "stack [1]", "stack [2]")
    assert len(set(found.groups)) == 3
    for values, *pair in zip(found.values, p, y, strict=True):
        np.testing.assert_array_equal(values[0], by_hand(*pair))
    made = basis(apart, read_all(apart, never))
    assert (made.unit, made.source) == ("image", "3 open images")
    assert "1 image without lesion is left out." in made.notes


def test_classes_on_layers_of_their_own_and_on_an_axis() -> None:
    p, y = RNG.random((2, 6, 7), dtype=np.float32), RNG.integers(0, 3, (6, 7), dtype=np.uint8)
    names = ["core", "ring"]
    own = [
        image(f"probability · x · {name}", p=p[cls], classes=[name], of=2, **{"class": cls})
        for cls, name in enumerate(names)
    ]
    axis = image("x", p=p, classes=names, folder="/p/2")
    for layers in (own, [axis]):
        found = gathered(chosen(*layers, labels("x", y=y)), never)
        assert found.classes == tuple(names)
        for cls in range(2):
            np.testing.assert_array_equal(found.values[0][cls], by_hand(p[cls], y == cls + 1))


def test_groups_make_units() -> None:
    layers = [image(name) for name in "abc"] + [labels(name) for name in "abc"]
    images = chosen(*layers, groups=("left", "", "left"))
    made = basis(images, read_all(images, never))
    assert made.lesions.groups == ("left", "b", "left")
    assert (made.unit, made.source) == ("group", "3 open images in 2 groups")
    assert made.lesions.units().n == 2


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_basis_is_what_the_engine_makes_of_the_same_arrays(seed: int, planes: bool) -> None:
    rng = np.random.default_rng(seed)
    count, shape = rng.integers(1, 5), (2, 4, 5)
    p = [np.round(rng.random(shape, dtype=np.float32), 1) for _ in range(count)]
    y = [rng.random(shape) > rng.random() for _ in range(count)]
    layers = [image(f"n{n}", p=each) for n, each in enumerate(p)]
    layers += [labels(f"n{n}", y=each.astype(np.int64)) for n, each in enumerate(y)]
    images = chosen(*layers, planes=planes)[::-1]
    pairs = list(zip(p, y, strict=True))
    if planes:
        pairs = [pair for stack in pairs for pair in zip(*stack, strict=True)]
    if not any(mask.any() for _, mask in pairs):
        with pytest.raises(InputError, match="no lesion is labelled"):
            gathered(images, never)
        return
    made = reading(images, {}, frozenset(), never).basis
    assert made is not None
    names = [str(number) for number in range(len(pairs))]
    wanted = gather(names, ["lesion"], [[lesion_probabilities(*pair)] for pair in pairs])
    assert Cls(epsilon=0.25, alpha=0.5).bind()(made.lesions.units()) == Cls(epsilon=0.25, alpha=0.5).bind()(
        wanted.units()
    )
    for curve, pair in zip(made.curves[0], pairs, strict=True):
        for threshold in (0.0, 0.3, float(np.float32(0.3)), 1.0):
            assert curve.counts(threshold) == Curve.of(*pair).counts(threshold)


def test_counts_of_a_volume_of_half_precision() -> None:
    p, y = RNG.random((3, 5, 6)).astype(np.float16), RNG.random((3, 5, 6)) > 0.5
    (one,) = chosen(image("x", p=p), labels("x", y=y.astype(np.uint8)))
    (curves,) = counted(calibrating.read(one, never), never).curves or ()
    for threshold in (0.0, 0.25, float(p[0, 0, 0]), 1.0):
        assert curves[0].counts(threshold) == Curve.of(p, y).counts(threshold)


# What is refused


@pytest.mark.parametrize("value", [-0.001, 1.5, -7.0, np.nan, np.inf])
@pytest.mark.parametrize("lesion", [True, False])
def test_what_is_no_probability_is_refused_wherever_it_is(value: float, lesion: bool) -> None:
    p, y = RNG.random((6, 7), dtype=np.float32), np.zeros((6, 7), np.uint8)
    y[1, 1:3] = 1
    p[1 if lesion else 5, 2] = value
    with pytest.raises(InputError, match=f"'bad' holds {np.float32(value)}.* logits"):
        gathered(chosen(image("bad", p=p), labels("bad", y=y)), never)


def test_images_without_any_lesion_and_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no lesion is labelled in 1 image"):
        gathered(chosen(image("x"), labels("x", y=np.zeros((6, 7), np.uint8))), never)
    with pytest.raises(InputError, match="no image is chosen"):
        gathered([], never)


def test_predictions_of_different_networks_are_not_mixed() -> None:
    y = [labels("x"), labels("y")]
    for other in ({"weights": "def"}, {"path": {**PATH, "tile": 256}}, {"weights": "", "epoch": 6}):
        with pytest.raises(
            InputError, match=r"'probability · y' cannot be calibrated on together with .* x'"
        ):
            gathered(
                chosen(image("probability · x", split=None), image("probability · y", **other), *y), never
            )
    unknown = chosen(image("probability · x", split=None), image("y"), *y)
    made = basis(unknown, read_all(unknown, never))
    assert made.predicted == PREDICTED
    assert made.lesions.classes == ("lesion",)
    assert any("Nothing is known of how 1 of the 2 layers" in note for note in made.notes)


def test_an_image_is_not_counted_twice() -> None:
    twice = [image("probability · x", split=None), image("probability · x again", split=None)]
    with pytest.raises(InputError, match="'x' are chosen as the truth of both"):
        gathered(chosen(*twice, labels("x")), never)


def test_a_layer_that_cannot_be_read_is_said() -> None:
    def broken(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if block_id[0]:  # napari shows the first plane
            raise OSError("the file is gone")
        return block

    p = da.from_array(RNG.random((2, 8, 9)), chunks=(1, 8, 9))
    lazy = p.map_blocks(broken, dtype=np.float64, meta=np.empty((0, 0, 0)))
    images = chosen(image("x", p=lazy), labels("x", 2, 8, 9))
    assert reading(images, {}, frozenset(), never).words.startswith("'x' cannot be read (the file is gone)")


def test_it_ends_early() -> None:
    images = chosen(image("x"), labels("x"))
    with pytest.raises(DroppedError):
        gathered(images, lambda: True)
    with pytest.raises(DroppedError):
        counting(images, read_all(images, never), lambda: True)


# What is read again


def test_only_what_was_painted_on_is_read_again() -> None:
    layers = [image(name) for name in "ab"] + [labels(name) for name in "ab"]
    images = chosen(*layers)
    before = read_all(images, never)
    same = read_all(chosen(*layers), never, before, frozenset(before))
    assert all(same[key] is before[key] for key in before)
    layers[2].data[0, 0] = 1 - layers[2].data[0, 0]
    undoubted = read_all(images, never, before)
    assert all(undoubted[key] is before[key] for key in before)
    after = read_all(images, never, before, frozenset(before))
    assert [after[one.key] is before[one.key] for one in images] == [one.name == "b" for one in images]
    a = next(one for one in images if one.name == "a")
    np.testing.assert_array_equal(
        after[a.key].values[0][0], by_hand(np.asarray(layers[0].data), layers[2].data > 0)
    )


def test_too_many_pixels_are_not_counted_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    images = chosen(image("x"), labels("x"))
    monkeypatch.setattr(calibrating, "SOON", 41)
    found = reading(images, {}, frozenset(), never)
    assert found.basis is not None
    assert (found.basis.curves, found.basis.no_curves) == ((), "")
    later = counting(images, found.reads, never)
    assert later.basis is not None
    assert len(later.basis.curves[0]) == 1
    again = reading(images, later.reads, frozenset(later.reads), never)
    assert again.reads == later.reads
    monkeypatch.setattr(targets, "MOST_PIXELS", 41)
    said = basis(images, read_all(images, never)).no_curves
    assert said.startswith("the images have 42 pixels, too many")


# A run's own calibration


def write(root: Path, **given: Any) -> Calibration:
    values = [[np.sort(RNG.random(n, dtype=np.float32))] for n in (3, 0, 5)]
    lesions = gather(["a", "b", "c"], ["lesion"], values, given.pop("groups", None))
    made = Calibration(lesions, PREDICTED, given.pop("source", "calib split"), **given)
    calibration.write(root, made)
    return made


def test_a_runs_own_calibration_is_a_basis(tmp_path: Path) -> None:
    assert from_run(tmp_path) is None
    made = write(tmp_path, notes=("1 image left out",))
    found = from_run(tmp_path)
    assert found is not None
    assert (found.source, found.unit, found.notes) == ("the run's calibration split", "image", made.notes)
    assert found.predicted == PREDICTED
    assert found.curves == ()
    assert found.no_curves
    np.testing.assert_array_equal(found.lesions.values[2][0], made.lesions.values[2][0])
    write(tmp_path, groups=["p", "p", "q"], unit="group", source="/data/new")
    found = from_run(tmp_path)
    assert found is not None
    assert (found.source, found.unit) == ("the images of /data/new", "group")


def test_a_runs_calibration_is_read_again_when_it_is_another(tmp_path: Path) -> None:
    none = look(tmp_path, RunCalibration(), never)
    assert (none.root, none.basis, none.words) == (tmp_path, None, "")
    write(tmp_path)
    first = look(tmp_path, none, never)
    assert first.basis is not None
    assert look(tmp_path, first, never) is first
    write(tmp_path, source="/a/folder/elsewhere")
    assert look(tmp_path, first, never).basis is not first.basis
    (tmp_path / calibration.FILE).write_bytes(b"no archive")
    broken = look(tmp_path, first, never)
    assert broken.basis is None
    assert "cannot be read" in broken.words
    assert look(tmp_path / "gone", first, never).basis is None


def test_a_calibration_of_a_later_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with np.load(tmp_path / calibration.FILE) as content:
        parts = dict(content)
    about = json.loads(str(parts["about"]))
    parts["about"] = np.array(json.dumps({**about, "format": 99}))
    with (tmp_path / calibration.FILE).open("wb") as file:
        np.savez(file, **parts)
    with pytest.raises(InputError, match="has format 99"):
        from_run(tmp_path)
