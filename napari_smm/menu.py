"""What stands in napari's menus under Layers → Segment."""

from typing import Any

from napari.layers import Image, Labels
from napari.viewer import Viewer

from engine.errors import InputError
from napari_smm.layers import MARK
from napari_smm.placement import full_shape

PLUGIN = "napari-smm"
"""The plugin's name in its manifest."""


def train_on_layers(viewer: Viewer) -> None:
    """Open the Train dock with the selected Image layer and its Labels layer chosen.

    Raises:
        InputError: no Image layer is selected that could be trained on.
    """
    image, labels = image_and_labels(viewer)
    dock = open_dock(viewer, "Train")
    dock.choose_layers(image, labels)


def predict(viewer: Viewer) -> None:
    """Open the dock that predicts with a run, with the selected Image layer chosen."""
    from napari_smm.qt.predict_panel import PredictPanel

    docks = viewer.window.dock_widgets.values()
    panel = next((dock for dock in docks if isinstance(dock, PredictPanel)), None)
    if panel is None:
        panel = PredictPanel(viewer)
        # Behind the other docks: below them, a window of 800 pixels has no room for it.
        viewer.window.add_dock_widget(panel, name="Predict", area="right", tabify=True)
    panel.bring()
    chosen = _first([layer for layer in reversed(viewer.layers) if layer in viewer.layers.selection], Image)
    if chosen is not None:
        panel.choose_image(chosen)


def image_and_labels(viewer: Any) -> tuple[Image, Labels | None]:
    """The selected Image layer, and the Labels layer that is selected too or has the same shape.

    Where only a Labels layer is selected, the Image layer of its shape. Of several the topmost counts;
    layers that show a run do not.

    Raises:
        InputError: there is no such Image layer.
    """
    offered = [layer for layer in reversed(viewer.layers) if MARK not in layer.metadata]
    chosen = [layer for layer in offered if layer in viewer.layers.selection]
    image = _first(chosen, Image)
    labels = _first(chosen, Labels)
    if image is None and labels is not None:
        image = _first([layer for layer in offered if fits(layer, labels)], Image)
    if image is None:
        raise InputError(
            "no Image layer is selected: select the one to train on, with or without its Labels."
        )
    if labels is None:
        labels = _first([layer for layer in offered if fits(image, layer)], Labels)
    return image, labels


def fits(image: Any, labels: Any) -> bool:
    """Whether a layer's labels can be those of an image layer, by their shapes."""
    shape = full_shape(image)
    if shape is None:
        return False
    return full_shape(labels) == (shape[:-1] if getattr(image, "rgb", False) else shape)


def open_dock(viewer: Any, name: str) -> Any:
    """The plugin's dock of a name, opened if it is not, and brought to the front."""
    from napari_smm.qt.dock import bring_dock

    return bring_dock(viewer, name)


def _first(layers: list[Any], kind: type) -> Any | None:
    return next((layer for layer in layers if isinstance(layer, kind)), None)
