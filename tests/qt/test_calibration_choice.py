"""What a threshold is calibrated on, chosen in a real viewer: a run's own calibration, or open layers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QComboBox, QTreeWidget, QVBoxLayout
from runs import MadeRun, watched_item

from engine import calibration
from engine.calibration import Calibration, Predicted
from engine.thresholds import gather
from napari_smm import calibrating
from napari_smm.calibrating import Basis
from napari_smm.layers import MARK
from napari_smm.qt.calibration_choice import OPEN, RUN, CalibrationChoice
from napari_smm.qt.calibration_list import GROUP, IMAGE, PLANES, TRUTH
from napari_smm.qt.dock import Dock
from napari_smm.qt.jobs import Jobs

PATIENCE = 20_000
"""Milliseconds that a busy machine may take for what is done in threads."""
SHAPE = (24, 32)


class Host(Dock):
    """A dock with nothing but the choice."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self.jobs = Jobs(self.session, self)
        self.choice = CalibrationChoice(viewer, self.session, self.jobs, self)
        column = QVBoxLayout(self)
        column.addWidget(self.choice)
        column.addStretch(1)
        self.told: list[tuple[Basis | None, bool, str]] = []
        self.choice.changed.connect(self.hear)

    def hear(self) -> None:
        self.told.append((self.choice.basis, self.choice.busy, self.choice.words))

    def leave(self) -> None:
        self.choice.leave()
        self.jobs.close()


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def host(viewer: Any, home: Path) -> Iterator[Host]:
    made = Host(viewer)
    viewer.window.add_dock_widget(made, name="Threshold")
    yield made
    made.shut()


def predict(viewer: Any, name: str, shape: tuple[int, ...] = SHAPE, p: Any = None, **given: Any) -> Any:
    """Add the layer of a prediction."""
    meaning = {
        "run": "/runs/a", "role": "probability", "kind": "prediction", "classes": ["lesion"], "class": 0,
        "of": 1, "checkpoint": "best", "epoch": 7, "folder": f"/p/{name}", "weights": "abc",
        "path": {"tile": 512}, **given,
    }  # fmt: skip
    data = np.random.default_rng(len(name)).random(shape, dtype=np.float32) if p is None else p
    return viewer.add_image(data, name=f"probability · {name}", metadata={MARK: meaning}, rgb=False)


def label(viewer: Any, name: str, shape: tuple[int, ...] = SHAPE, y: Any = None) -> Any:
    data = (
        (np.random.default_rng(sum(map(ord, name))).random(shape) > 0.8).astype(np.uint8) if y is None else y
    )
    return viewer.add_labels(data, name=name)


def known(qtbot: QtBot, host: Host) -> Basis:
    """Wait until all is read and counted."""

    def there() -> None:
        choice = host.choice
        assert not any(timer.isActive() for timer in (choice._settle, choice._rest))
        assert not host.jobs.busy
        assert choice.basis is not None, choice.words

    qtbot.waitUntil(there, timeout=PATIENCE)
    found = host.choice.basis
    assert found is not None
    return found


def said(qtbot: QtBot, host: Host, words: str) -> None:
    """Wait until something is said."""
    qtbot.waitUntil(lambda: words in host.choice.words, timeout=PATIENCE)
    assert host.choice.basis is None


def open_layers(qtbot: QtBot, host: Host) -> QTreeWidget:
    host.choice.what.setCurrentIndex(OPEN)
    tree = host.findChild(QTreeWidget, "threshold-calibration-images")
    assert tree is not None
    return tree


def rows(tree: QTreeWidget) -> dict[str, Any]:
    return {(item := tree.topLevelItem(at)).text(IMAGE): item for at in range(tree.topLevelItemCount())}


def ticked(tree: QTreeWidget) -> set[str]:
    return {name for name, item in rows(tree).items() if item.checkState(IMAGE) == Qt.CheckState.Checked}


def tick(qtbot: QtBot, tree: QTreeWidget, name: str) -> None:
    """Click the box of a row."""
    box = tree.visualItemRect(rows(tree)[name])
    qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(box.left() + 9, box.center().y()))


def lesion(p: Any, y: Any) -> np.ndarray:
    return np.sort(np.asarray(p.data)[np.asarray(y.data) > 0])


def calibrated(root: Path, count: int = 3, source: str = "calib split", **given: Any) -> None:
    root.mkdir(exist_ok=True)
    values = [[np.sort(np.random.default_rng(n).random(5 + n, dtype=np.float32))] for n in range(count)]
    lesions = gather([f"i{n}" for n in range(count)], ["lesion"], values, given.pop("groups", None))
    calibration.write(root, Calibration(lesions, Predicted("best", 7, "abc", {}), source, **given))


@pytest.mark.both_bindings
def test_annotated_predictions_are_ticked_and_read(qtbot: QtBot, host: Host, viewer: Any) -> None:
    p = {name: predict(viewer, name) for name in ("cell 1", "cell 2", "cell 3")}
    y = {name: label(viewer, f"{name} mask") for name in p}
    viewer.add_image(np.random.default_rng(0).random(SHAPE), name="cell 4")  # from elsewhere, and no labels
    host.choice.set_current(p["cell 1"])
    assert host.choice.list.isHidden()
    tree = open_layers(qtbot, host)
    assert not tree.isHidden()
    assert list(rows(tree)) == ["cell 4", "cell 3", "cell 2", "cell 1"]  # as in napari's own list
    assert ticked(tree) == {"cell 2", "cell 3"}  # not the one that is thresholded
    assert host.choice.busy
    assert host.choice.words
    found = known(qtbot, host)
    assert not host.choice.busy
    assert not host.choice.words
    assert (found.source, found.unit, found.lesions.classes) == ("2 open images", "image", ("lesion",))
    assert found.predicted == Predicted("best", 7, "abc", {"tile": 512})
    for name, (values,) in zip(("cell 3", "cell 2"), found.lesions.values, strict=True):
        np.testing.assert_array_equal(values, lesion(p[name], y[name]))
    assert len(found.curves[0]) == 2
    tick(qtbot, tree, "cell 1")
    assert host.choice.basis is None
    assert len(known(qtbot, host).lesions.names) == 3
    # What is thresholded changes nothing any more: the user has chosen.
    host.choice.set_current(p["cell 2"])
    assert len(known(qtbot, host).lesions.names) == 3
    host.choice.list.none.click()
    said(qtbot, host, "No image is ticked")
    host.choice.list.all.click()
    assert ticked(tree) == {"cell 1", "cell 2", "cell 3"}
    known(qtbot, host)
    assert all(told != later for told, later in zip(host.told, host.told[1:], strict=False))


def test_another_truth_may_be_chosen(qtbot: QtBot, host: Host, viewer: Any) -> None:
    p, other = predict(viewer, "a"), label(viewer, "another hand")
    own = label(viewer, "a")
    tree = open_layers(qtbot, host)
    tick(qtbot, tree, "a")
    np.testing.assert_array_equal(known(qtbot, host).lesions.values[0][0], lesion(p, own))
    box = tree.itemWidget(rows(tree)["a"], TRUTH)
    assert isinstance(box, QComboBox)
    assert [box.itemText(at) for at in range(box.count())] == ["a", "another hand"]
    box.setCurrentIndex(1)
    np.testing.assert_array_equal(known(qtbot, host).lesions.values[0][0], lesion(p, other))
    # A truth that is gone is not replaced by what may be another image's.
    viewer.layers.remove(other)
    said(qtbot, host, "No image is ticked")
    assert rows(tree)["a"].text(TRUTH) == "a"


@pytest.mark.both_bindings
def test_what_cannot_be_used_is_grey_and_says_why(qtbot: QtBot, host: Host, viewer: Any) -> None:
    tree = open_layers(qtbot, host)
    said(qtbot, host, "No annotated prediction is open")
    predict(viewer, "seen", split="train")
    predict(viewer, "good", split=None)
    predict(viewer, "other network", weights="def")
    predict(viewer, "other class", classes=["ring"])
    predict(viewer, "bare", (8, 9))
    for name in ("seen", "good", "other network", "other class"):
        label(viewer, f"{name} mask")
    qtbot.waitUntil(lambda: len(rows(tree)) == 5, timeout=PATIENCE)
    tick(qtbot, tree, "good")
    known(qtbot, host)
    tick(qtbot, tree, "seen")  # in vain
    tick(qtbot, tree, "other network")
    briefs = {
        "seen": "trained on", "other network": "other network", "other class": "other classes",
        "bare": "no labels",
    }  # fmt: skip
    for name, brief in briefs.items():
        item = rows(tree)[name]
        assert item.text(TRUTH) == brief
        assert tree.itemWidget(item, TRUTH) is None  # it would lie over the words
        assert not item.flags() & Qt.ItemFlag.ItemIsEnabled
        assert "would work" in item.toolTip(IMAGE) or "such as" in item.toolTip(IMAGE)
    assert ticked(tree) == {"good"}
    tick(qtbot, tree, "good")
    said(qtbot, host, "No image is ticked")
    tick(qtbot, tree, "other network")
    assert known(qtbot, host).predicted.weights == "def"  # type: ignore[union-attr]


def test_what_turns_out_wrong_is_said_and_can_be_left_out(qtbot: QtBot, host: Host, viewer: Any) -> None:
    logits = viewer.add_image(np.full(SHAPE, -3.0), name="logits")
    viewer.add_image(np.full(SHAPE, 0.5), name="fine")
    label(viewer, "logits mask")
    label(viewer, "fine mask")
    tree = open_layers(qtbot, host)
    qtbot.waitUntil(lambda: len(rows(tree)) == 2, timeout=PATIENCE)
    assert not ticked(tree)  # nothing is known of them
    host.choice.list.all.click()
    said(qtbot, host, "The layer 'logits' holds -3.0, which is no probability")
    tick(qtbot, tree, "logits")
    assert known(qtbot, host).lesions.names == ("fine",)
    tick(qtbot, tree, "logits")
    said(qtbot, host, "holds -3.0")
    logits.data = np.full(SHAPE, 0.25)
    found = known(qtbot, host)
    assert set(found.lesions.names) == {"fine", "logits"}
    assert "Nothing is known of how these probabilities were predicted" in found.notes[0]


def test_what_is_painted_counts(qtbot: QtBot, host: Host, viewer: Any) -> None:
    p, y = predict(viewer, "a"), label(viewer, "a", y=np.zeros(SHAPE, np.uint8))
    tree = open_layers(qtbot, host)
    tick(qtbot, tree, "a")
    said(qtbot, host, "No lesion is labelled in 1 image")
    y.brush_size = 7
    y.paint((10, 10), 1)
    first = known(qtbot, host)
    for change in (lambda: y.paint((20, 20), 1), y.undo, y.redo):
        change()
        qtbot.waitUntil(
            lambda: (
                host.choice.basis is not None
                and np.array_equal(host.choice.basis.lesions.values[0][0], lesion(p, y))
            ),
            timeout=PATIENCE,
        )
    assert known(qtbot, host) is not first
    last = known(qtbot, host)
    y.refresh()  # drawn anew, and nothing else
    assert host.choice._rest.isActive()
    assert known(qtbot, host) is last
    y.data = np.ones(SHAPE, np.uint8)
    qtbot.waitUntil(lambda: known(qtbot, host).lesions.values[0][0].size == p.data.size, timeout=PATIENCE)


def test_both_classes_and_the_planes_of_a_stack(qtbot: QtBot, host: Host, viewer: Any) -> None:
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 3, *SHAPE), dtype=np.float32), rng.integers(0, 3, (3, *SHAPE), dtype=np.uint8)
    layers = [
        predict(viewer, f"x · {name}", p=p[cls], classes=[name], of=2, folder="/p/x", **{"class": cls})
        for cls, name in enumerate(("core", "ring"))
    ]
    label(viewer, "x", y=y)
    tree = open_layers(qtbot, host)
    assert list(rows(tree)) == ["x"]
    tick(qtbot, tree, "x")
    found = known(qtbot, host)
    assert (found.unit, found.source, found.lesions.classes) == ("volume", "1 open volume", ("core", "ring"))
    for cls in range(2):
        np.testing.assert_array_equal(found.lesions.values[0][cls], np.sort(p[cls][y == cls + 1]))
    stack_is = host.choice.list.stack_is
    assert stack_is.isVisible()
    stack_is.setCurrentIndex(stack_is.findText(PLANES))
    found = known(qtbot, host)
    assert (found.unit, len(found.lesions.names), len(found.curves[1])) == ("image", 3, 3)
    for plane in range(3):
        np.testing.assert_array_equal(found.lesions.values[plane][1], np.sort(p[1, plane][y[plane] == 2]))
    # Without one of its layers it is another prediction, which nothing was said of.
    viewer.layers.remove(layers[1])
    said(qtbot, host, "No image is ticked")
    assert list(rows(tree)) == ["x · core"]
    assert not stack_is.isHidden()


def test_groups_are_one_unit_and_many_pixels_are_counted_later(
    qtbot: QtBot, host: Host, viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "SOON", 1)
    for name in "abc":
        predict(viewer, name)
        label(viewer, name)
    tree = open_layers(qtbot, host)
    qtbot.waitUntil(lambda: len(rows(tree)) == 3, timeout=PATIENCE)
    host.choice.list.all.click()
    assert known(qtbot, host).unit == "image"
    assert [len(basis.curves) for basis, _, _ in host.told if basis is not None] == [0, 1]
    host.choice.list.grouped.click()
    for name in "ac":
        rows(tree)[name].setText(GROUP, "patient 1")
    found = known(qtbot, host)
    assert (found.unit, found.lesions.groups) == ("group", ("patient 1", "probability · b", "patient 1"))
    host.choice.list.grouped.click()
    assert known(qtbot, host).unit == "image"


def test_the_runs_own_calibration(qtbot: QtBot, host: Host, viewer: Any, tmp_path: Path) -> None:
    choice = host.choice
    assert choice.what.objectName() == "threshold-calibration"
    assert (choice.basis, choice.busy) == (None, False)
    assert "No run is watched" in choice.words
    run = MadeRun(tmp_path / "run", [watched_item("a")]).train(1).end()
    host.session.watch(run.root)
    said(qtbot, host, "has no calibration: python -m engine.calibrate")
    choice._clock.setInterval(30)
    calibrated(run.root, 28)
    found = known(qtbot, host)
    assert choice.what.itemText(RUN) == "the run's calibration (28 images)"
    assert (found.source, choice.words) == ("the run's calibration split", "")
    calibrated(run.root, 3, groups=["p", "p", "q"], unit="group")
    qtbot.waitUntil(lambda: "(3 images, 2 groups)" in choice.what.itemText(RUN), timeout=PATIENCE)
    # The run of the prediction that is thresholded counts for more.
    calibrated(tmp_path / "other", 5)
    layer = predict(viewer, "x", run=str(tmp_path / "other"))
    choice.set_current(layer)
    assert choice.basis is None
    assert len(known(qtbot, host).lesions.names) == 5
    (tmp_path / "other" / calibration.FILE).write_bytes(b"broken")
    said(qtbot, host, "cannot be read")
    choice.set_current(None)
    assert len(known(qtbot, host).lesions.names) == 3
    # While open layers count, what a run has is no matter.
    choice.what.setCurrentIndex(OPEN)
    assert choice.basis is None
    choice.what.setCurrentIndex(RUN)
    assert len(known(qtbot, host).lesions.names) == 3
    host.session.leave()
    said(qtbot, host, "No run is watched")


def test_layers_that_come_go_and_change_names(qtbot: QtBot, host: Host, viewer: Any) -> None:
    tree = open_layers(qtbot, host)
    p, y = predict(viewer, "a"), label(viewer, "a")
    host.choice.set_current(predict(viewer, "new", (8, 9)))
    qtbot.waitUntil(lambda: ticked(tree) == {"a"}, timeout=PATIENCE)
    known(qtbot, host)
    p.name = "probability · renamed"
    qtbot.waitUntil(lambda: "renamed" in rows(tree), timeout=PATIENCE)
    assert ticked(tree) == {"renamed"}
    assert known(qtbot, host).lesions.names == ("probability · renamed",)
    y.data = np.ones((5, 6), np.uint8)
    qtbot.waitUntil(lambda: rows(tree)["renamed"].text(TRUTH) == "no labels", timeout=PATIENCE)
    said(qtbot, host, "No annotated prediction is open")
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not rows(tree), timeout=PATIENCE)
    assert tree.isHidden()


@pytest.mark.both_bindings
def test_a_closed_dock_lets_go_of_everything(
    qtbot: QtBot, viewer: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = MadeRun(tmp_path / "run", [watched_item("a")]).train(1).end()
    layers = [predict(viewer, "a"), label(viewer, "a"), label(viewer, "b")]

    def listeners() -> dict[str, int]:
        groups = {"list": viewer.layers.events, **{layer.name: layer.events for layer in layers}}
        return {
            f"{name}.{event}": len(emitter.callbacks)
            for name, group in groups.items()
            for event, emitter in group.emitters.items()
        }

    before = listeners()
    for number in range(2):
        host = Host(viewer)
        frame = viewer.window.add_dock_widget(host, name="Threshold")
        session = host.session
        host.choice.set_current(layers[0])
        tree = open_layers(qtbot, host)
        tick(qtbot, tree, "a")
        known(qtbot, host)
        layers[1].refresh()
        assert listeners() != before
        if number:
            host.choice.what.setCurrentIndex(RUN)
            session.watch(run.root)
        viewer.window.remove_dock_widget(frame)
        assert len(session.watched) == 0
        left = {name: count for name, count in listeners().items() if count != before[name]}
        assert not left
        qtbot.wait(20)


def test_it_fits_the_dock(qtbot: QtBot, host: Host, viewer: Any) -> None:
    choice = host.choice
    assert choice.minimumSizeHint().width() <= 318
    assert choice.sizeHint().height() <= 40
    for number in range(3):
        predict(viewer, f"a long name of an image, with its number {number}", (4, *SHAPE))
        label(viewer, f"a long name of an image, with its number {number} mask", (4, *SHAPE))
    tree = open_layers(qtbot, host)
    for count in (3, 7):
        for number in range(3, count):
            predict(viewer, f"image {number}")
            label(viewer, f"image {number}")
        qtbot.waitUntil(lambda count=count: len(rows(tree)) == count, timeout=PATIENCE)
        qtbot.wait(20)
        assert tree.verticalScrollBar().isVisible() == (count > 5)
        assert choice.minimumSizeHint().width() <= 318
        assert choice.sizeHint().height() <= (170 if count == 3 else 220)
