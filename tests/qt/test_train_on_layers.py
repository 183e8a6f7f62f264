"""The entry under Layers → Segment that opens the Train dock on the selected layers."""

from collections.abc import Callable
from typing import Any

import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from runs import watched_item

from engine.errors import InputError
from napari_smm.layers import mark
from napari_smm.menu import PLUGIN, image_and_labels, train_on_layers
from napari_smm.qt.train_dock import TrainDock

STACK = np.zeros((3, 16, 20), np.uint8)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    made = make_napari_viewer(show=True)
    assert PLUGIN in npe2.PluginManager.instance(), "the plugin is not installed: make install"
    return made


@pytest.fixture
def model() -> Any:
    """A viewer without a window."""
    return ViewerModel()


def add_layers(viewer: Any) -> dict[str, Any]:
    """A stack and a colour image, each with labels, and a labels layer of a run above them all."""
    made = {
        "stack": viewer.add_image(STACK, name="stack"),
        "labels": viewer.add_labels(STACK.copy(), name="labels"),
        "photo": viewer.add_image(np.zeros((16, 20, 3), np.uint8), name="photo", rgb=True),
        "masks": viewer.add_labels(np.zeros((16, 20), np.uint8), name="masks"),
        "lonely": viewer.add_image(np.zeros((5, 5)), name="lonely"),
    }
    truth = watched_item("a", size=(16, 20)).truth[0].astype(np.uint8)
    made["truth"] = viewer.add_labels(truth, name="truth", metadata=mark("/runs/one", "truth"))
    return made


@pytest.mark.parametrize(
    ("selected", "image", "labels"),
    [
        (["stack"], "stack", "labels"),
        (["photo"], "photo", "masks"),
        (["masks"], "photo", "masks"),
        (["stack", "masks"], "stack", "masks"),
        (["lonely"], "lonely", None),
        (["photo", "truth"], "photo", "masks"),
        (["stack", "photo"], "photo", "masks"),
    ],
)
def test_the_labels_are_those_of_the_image(
    model: Any, selected: list[str], image: str, labels: str | None
) -> None:
    layers = add_layers(model)
    model.layers.selection = {layers[name] for name in selected}
    found = image_and_labels(model)
    assert found[0] is layers[image]
    assert found[1] is (None if labels is None else layers[labels])


@pytest.mark.parametrize("selected", [[], ["truth"]])
def test_without_an_image_the_user_is_told_what_to_select(model: Any, selected: list[str]) -> None:
    layers = add_layers(model)
    model.layers.selection = {layers[name] for name in selected}
    with pytest.raises(InputError, match="no Image layer is selected: select the one to train on"):
        train_on_layers(model)


def test_the_dock_is_opened_once_with_the_layers_chosen(viewer: Any) -> None:
    layers = add_layers(viewer)
    viewer.layers.selection = {layers["stack"]}
    train_on_layers(viewer)
    (dock,) = viewer.window._qt_window.findChildren(TrainDock)
    assert dock.isVisible()
    assert dock.source.source() == "layers"
    assert dock.source.image.layer() is layers["stack"]
    assert dock.source.labels.layer() is layers["labels"]
    viewer.layers.selection = {layers["photo"]}
    train_on_layers(viewer)
    assert viewer.window._qt_window.findChildren(TrainDock) == [dock]
    assert dock.source.image.layer() is layers["photo"]
    assert dock.source.labels.layer() is layers["masks"]
    dock.shut()


def test_the_menu_s_entry_is_given_the_viewer(viewer: Any) -> None:
    from napari._app_model import get_app_model

    layers = add_layers(viewer)
    viewer.layers.selection = {layers["stack"]}
    get_app_model().commands.execute_command(f"{PLUGIN}.train_on_layers").result()
    (dock,) = viewer.window._qt_window.findChildren(TrainDock)
    assert dock.source.image.layer() is layers["stack"]
    dock.shut()
