"""What is painted on a folder's images reaches the disk: when, whence, and what happens if it cannot."""

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import annotated
from engine.data.annotated import UNLABELLED, AnnotationClass
from engine.errors import InputError
from napari_smm.annotating import LONGEST, REST, RETRY, Annotator, Saving, earlier, users_of

SIZE = (12, 16)


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of three images."""
    folder = tmp_path / "images of mine"
    folder.mkdir()
    for name in "abc":
        iio.imwrite(folder / f"{name}.png", np.full(SIZE, 40, np.uint8))
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def annotator(root: Path, clock: Clock) -> Iterator[Annotator]:
    made = Annotator("ada", clock)
    made.open(root)
    yield made
    made.close()


def said(annotator: Annotator) -> list[tuple[str, Any]]:
    """All that is emitted from now on."""
    heard: list[tuple[str, Any]] = []
    for name in ("moved", "changed", "saved", "failed"):
        getattr(annotator, name).connect(_hear(heard, name))
    annotator.opened.connect(lambda: heard.append(("opened", None)))
    return heard


def _hear(heard: list[tuple[str, Any]], name: str) -> Callable[[Any], None]:
    return lambda given: heard.append((name, given))


def until_rest(annotator: Annotator, clock: Clock) -> None:
    """Tick, without the clock going on, until the worker has nothing left that is due."""
    deadline = time.monotonic() + 30
    annotator.tick(clock.now)
    while annotator._order is not None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
        annotator.tick(clock.now)


def stroke(annotator: Annotator, image: str, row: int, value: int = 1) -> None:
    annotator.labels(image)[row] = value
    annotator.touched(image)


def on_disk(root: Path, image: str) -> np.ndarray | None:
    entry = annotated.read_entry(root, image)
    return annotated.read_mask(root / entry.mask) if entry.mask else None


def rows(root: Path) -> dict[str, dict[str, str]]:
    with (root / "annotation" / "images.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_opening_and_looking_writes_nothing(annotator: Annotator, root: Path) -> None:
    heard = said(annotator)
    annotator.go("b.png")
    labels = annotator.labels("b.png")
    assert (labels == UNLABELLED).all()
    assert (labels.shape, labels.dtype) == (SIZE, np.uint8)
    assert annotator.labels("b.png") is labels
    annotator.tick(1e9)
    assert annotator.images == ("a.png", "b.png", "c.png")
    assert [each.name for each in annotator.classes] == ["foreground"]
    assert annotator.entry("b.png").status == "untouched"
    assert annotator.saving == Saving()
    assert heard == [("moved", "b.png")]
    assert not (root / "annotation").exists()


def test_a_stroke_is_saved_a_second_after_the_hand_rests(
    annotator: Annotator, root: Path, clock: Clock
) -> None:
    heard = said(annotator)
    stroke(annotator, "b.png", 3)
    assert annotator.entry("b.png").status == "started"
    assert heard == [("changed", "b.png")]
    clock.now += REST - 0.01
    until_rest(annotator, clock)
    assert on_disk(root, "b.png") is None
    assert annotator.saving.busy
    clock.now += 0.02
    until_rest(annotator, clock)
    np.testing.assert_array_equal(on_disk(root, "b.png"), annotator.labels("b.png"))
    entry = annotator.entry("b.png")
    read = annotated.read_entry(root, "b.png")
    assert replace(entry, labelled=read.labelled) == read
    assert (entry.status, entry.origin, entry.annotator) == ("started", "drawn", "ada")
    assert entry.labelled == pytest.approx(1 / SIZE[0], rel=1e-5)
    assert annotator.saving == Saving(False, clock.now, "")
    assert heard[-1] == ("saved", "b.png")
    assert annotated.read_set(root).classes == annotator.classes


def test_who_never_rests_is_saved_all_the_same(annotator: Annotator, root: Path, clock: Clock) -> None:
    began = clock.now
    while on_disk(root, "a.png") is None:
        stroke(annotator, "a.png", int(clock.now) % SIZE[0], value=int(clock.now * 10) % 2)
        clock.now += REST / 2
        until_rest(annotator, clock)
    assert clock.now - began == pytest.approx(LONGEST, abs=REST)


def test_what_is_painted_while_it_is_saved_is_saved_next(
    annotator: Annotator, root: Path, clock: Clock
) -> None:
    stroke(annotator, "a.png", 0)
    clock.now += REST
    annotator.tick(clock.now)  # the worker has a copy from here on
    stroke(annotator, "a.png", 1, value=0)
    until_rest(annotator, clock)
    first = on_disk(root, "a.png")
    assert first is not None
    assert (first[0] == 1).all()
    assert (first[1] == UNLABELLED).all()
    assert annotator.unsaved("a.png")
    clock.now += REST
    until_rest(annotator, clock)
    np.testing.assert_array_equal(on_disk(root, "a.png"), annotator.labels("a.png"))
    assert not annotator.unsaved("a.png")


def test_where_a_mask_came_from_is_kept(annotator: Annotator, root: Path) -> None:
    whence = {"run": "r1", "checkpoint": "best", "epoch": "7", "threshold": "0.5"}
    proposed = np.zeros(SIZE, np.uint8)
    proposed[2:5] = 1
    annotator.propose("a.png", proposed, **whence)
    assert annotator.flush()
    assert {key: rows(root)["a.png"][key] for key in ("origin", "status", *whence)} == {
        "origin": "predicted", "status": "started", **whence,
    }  # fmt: skip
    np.testing.assert_array_equal(annotator.labels("a.png"), proposed)
    assert annotator.labels("a.png") is not proposed
    stroke(annotator, "a.png", 9)
    assert annotator.flush()
    assert {key: rows(root)["a.png"][key] for key in ("origin", *whence)} == {"origin": "corrected", **whence}
    # A mask that was there, painted over, stays one that was there: no run had a part in it.
    annotator.imported("b.png", proposed)
    stroke(annotator, "b.png", 9)
    assert annotator.flush()
    assert (rows(root)["b.png"]["origin"], rows(root)["b.png"]["status"]) == ("imported", "done")
    for wrong in (proposed[:-1], proposed.astype(np.int32)):
        with pytest.raises(InputError, match=r"uint8 of the image's shape \(12, 16\) would work"):
            annotator.propose("c.png", wrong, **whence)
    assert not annotator.saving.busy


def test_a_proposal_makes_a_version_of_what_was_there(annotator: Annotator, root: Path) -> None:
    stroke(annotator, "a.png", 0)
    annotator.flush()
    mine = annotator.labels("a.png").copy()
    whole = np.ones(SIZE, np.uint8)
    annotator.propose("a.png", whole, run="r", checkpoint="last", epoch="1", threshold="0.5")
    annotator.flush()
    ((version, share),) = earlier(root, annotator.entry("a.png"))
    np.testing.assert_array_equal(annotated.read_mask(version.path), mine)
    assert share == pytest.approx(1 / SIZE[0])
    assert earlier(root, annotator.entry("a.png"), lambda: True) == []


def test_a_status_is_saved_at_once_with_or_without_labels(
    annotator: Annotator, root: Path, clock: Clock
) -> None:
    annotator.set_status("a.png", "reviewed")
    stroke(annotator, "b.png", 4)
    annotator.set_status("b.png", "done")
    assert annotator.count(("done", "reviewed")) == 2
    assert annotator.count(("untouched",)) == 1
    for _ in range(2):
        until_rest(annotator, clock)
    found = rows(root)
    assert (found["a.png"]["status"], found["a.png"]["mask"]) == ("reviewed", "")
    assert (found["b.png"]["status"], found["b.png"]["labelled"]) == ("done", "0.0833333")


def test_what_cannot_be_saved_is_kept_and_tried_again(
    annotator: Annotator, root: Path, clock: Clock, tmp_path: Path
) -> None:
    iio.imwrite(tmp_path / "other.png", np.zeros((4, 5), np.uint8))
    (root / "annotation").write_text("in the way")
    heard = said(annotator)
    stroke(annotator, "a.png", 0)
    clock.now += REST
    until_rest(annotator, clock)
    ((_, sentence),) = [each for each in heard if each[0] == "failed"]
    assert "annotations cannot be written to" in sentence
    assert annotator.saving.words(clock.now) == f"⚠ not saved: {sentence}"
    assert not annotator.flush()
    assert (annotator.labels("a.png")[0] == 1).all()
    with pytest.raises(InputError, match="has work that is not saved"):
        annotator.open(tmp_path)
    # Again with the next stroke,
    stroke(annotator, "a.png", 1)
    failures = sum(name == "failed" for name, _ in heard)
    clock.now += REST
    until_rest(annotator, clock)
    assert sum(name == "failed" for name, _ in heard) == failures + 1
    # or after a while.
    (root / "annotation").unlink()
    clock.now += RETRY - 1
    until_rest(annotator, clock)
    assert annotator.unsaved("a.png")
    clock.now += 1.5
    until_rest(annotator, clock)
    np.testing.assert_array_equal(on_disk(root, "a.png"), annotator.labels("a.png"))
    assert annotated.read_entry(root, "a.png").status == "started"
    assert annotator.saving.words(clock.now + 75) == "✔ saved 1 min ago"


def test_labels_that_are_let_go_stay_until_they_are_saved(
    annotator: Annotator, root: Path, clock: Clock
) -> None:
    stroke(annotator, "a.png", 0)
    annotator.release("a.png")
    assert annotator.holds("a.png")
    annotator.hurry("a.png")
    until_rest(annotator, clock)
    assert not annotator.holds("a.png")
    assert (annotator.labels("a.png")[0] == 1).all()
    annotator.release("a.png")
    assert not annotator.holds("a.png")


def test_another_folder_and_the_end_save_what_is_there(
    annotator: Annotator, root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    iio.imwrite(other / "z.png", np.zeros((4, 5), np.uint8))
    stroke(annotator, "c.png", 2)
    annotator.open(other)
    assert on_disk(root, "c.png") is not None
    assert (annotator.images, annotator.current) == (("z.png",), None)
    with pytest.raises(InputError, match=r"c\.png is none of the 1 images"):
        annotator.labels("c.png")
    stroke(annotator, "z.png", 2)
    assert annotator.close()
    assert on_disk(other, "z.png") is not None


def test_classes_are_those_of_the_folder(annotator: Annotator, root: Path) -> None:
    heard = said(annotator)
    wanted = (AnnotationClass("nucleus", 1, "#e69f00"), AnnotationClass("debris", 7, "#56b4e9"))
    annotator.set_classes(wanted)
    assert heard == [("opened", None)]
    again = Annotator()
    again.open(root)
    assert again.classes == wanted
    with pytest.raises(InputError, match="gives the name 'nucleus' to two classes"):
        annotator.set_classes((*wanted, AnnotationClass("nucleus", 3, "#000000")))
    assert annotator.classes == wanted
    stroke(annotator, "a.png", 1, value=7)
    annotator.flush()
    entries = [annotator.entry(image) for image in annotator.images]
    assert users_of(root, entries, 7) == ["a.png"]
    assert users_of(root, entries, 1) == []


def test_a_mask_of_another_size_is_refused(annotator: Annotator, root: Path) -> None:
    stroke(annotator, "a.png", 1)
    annotator.close()
    iio.imwrite(root / "a.png", np.zeros((5, 5), np.uint8))
    again = Annotator()
    again.open(root)
    with pytest.raises(InputError, match=r"has shape \(12, 16\) but its image has \(5, 5\)"):
        again.labels("a.png")


ACTS = st.one_of(
    st.tuples(st.sampled_from("ab"), st.integers(0, SIZE[0] - 1), st.sampled_from([0, 1, UNLABELLED])),
    st.sampled_from([0.1, 0.7, 3.0]),
    st.sampled_from(["done", "release"]),
)


@settings(max_examples=25)
@given(st.lists(ACTS, max_size=12))
def test_whatever_the_hand_does_the_disk_has_it_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, acts: list[Any]
) -> None:
    root, clock = tmp_path_factory.mktemp("any"), Clock()
    for name in "ab":
        iio.imwrite(root / f"{name}.png", np.zeros(SIZE, np.uint8))
    annotator = Annotator("", clock)
    annotator.open(root)
    wanted = {f"{name}.png": np.full(SIZE, UNLABELLED, np.uint8) for name in "ab"}
    for act in acts:
        if isinstance(act, tuple):
            name, row, value = act
            stroke(annotator, f"{name}.png", row, value)
            wanted[f"{name}.png"][row] = value
        elif isinstance(act, float):
            clock.now += act
            annotator.tick(clock.now)
        elif act == "done":
            annotator.set_status("a.png", "done")
        else:
            annotator.release("b.png")
    assert annotator.close()
    for image, labels in wanted.items():
        found = on_disk(root, image)
        if found is None:
            assert (labels == UNLABELLED).all()
        else:
            np.testing.assert_array_equal(found, labels)
            shared = (labels != UNLABELLED).mean()
            assert annotated.read_entry(root, image).labelled == pytest.approx(shared, abs=1e-5)
