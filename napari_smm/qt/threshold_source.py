"""What the Threshold dock moves T on: the watched run, or a layer of probabilities."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from engine.errors import InputError
from engine.figures import colours
from engine.thresholds import Curve
from napari_smm import decisions
from napari_smm.candidates import known, predicted
from napari_smm.decisions import Channel, Named
from napari_smm.feed import Snapshot, fitting
from napari_smm.layers import MARK, LayerSpec, Role, View, mark, two_colours
from napari_smm.masks import Space
from napari_smm.placement import Transform, spacing_of
from napari_smm.planes import plane_in_view
from napari_smm.promising import Thresholded
from napari_smm.qt.jobs import Ended, Jobs
from napari_smm.qt.target_layers import TargetLayers, placed
from napari_smm.qt.workbench import Workbench
from napari_smm.readout import Subject
from napari_smm.targets import MOST_PIXELS, Index, Target, check

SPLITS = {"train": "training", "val": "validation"}
"""What people call the splits."""

REST_MILLISECONDS = 300
"""Stillness after which the truth is compared with what was counted."""

Made = tuple[Any, dict[str, Any], dict[str, Any]]
"""Of a layer: its data, transform, and the other arguments."""
OutlineJob = Callable[[Ended], Made]
Kept = tuple[Any, dict[str, Any], str]
"""Of a Labels layer: its data, transform and name."""


class ThresholdSource(QObject):
    """Probabilities with their classes, a threshold for each, and what is known of them."""

    changed = Signal()
    """What is in view, or what is known of it, is something else; T too."""
    shown = Signal()
    """There may be other layers."""
    refused = Signal(str)
    """Why no threshold can be tried on it after all, in a sentence."""

    classes: tuple[str, ...] = ()
    """Names of the classes."""
    cls = 0
    """Number of the one in view."""

    @property
    def threshold(self) -> float:
        """T of the class in view."""
        raise NotImplementedError

    @property
    def colour(self) -> int:
        """Number of the class that the prediction has the colour of."""
        return self.cls

    @property
    def ready(self) -> bool:
        """Whether there is something to keep or save."""
        raise NotImplementedError

    def set_threshold(self, threshold: float) -> None:
        """Move T of the class in view by hand, kept within 0…1."""
        raise NotImplementedError

    def threshold_of(self, cls: int) -> float:
        """T of a class."""
        raise NotImplementedError

    def set_thresholds(self, thresholds: Mapping[int, float]) -> None:
        """Move T of some classes, exactly: 0…1, or inf, which predicts nothing."""
        raise NotImplementedError

    def thresholded(self) -> Thresholded | None:
        """What is in view, as far as a promise depends on it; None where nothing is."""
        raise NotImplementedError

    def subject(self) -> Subject:
        """What rates can be shown of."""
        raise NotImplementedError

    def layer(self, role: Role) -> Any | None:
        """The layer that shows a role."""
        raise NotImplementedError

    def outline_key(self) -> object | None:
        """Equal for equal outlines; None where there is nothing to draw it of."""
        raise NotImplementedError

    def outline_job(self) -> OutlineJob | None:
        """What finds the outline in view."""
        raise NotImplementedError

    def keep_job(self) -> Callable[[Ended], Kept] | None:
        """What decides on labels for the image in view."""
        raise NotImplementedError

    def masks(self, *, own: bool) -> Named:
        """Names and makers of all masks; with `own` also of each class's own mask."""
        raise NotImplementedError

    def spaces(self, named: Named) -> Mapping[str, Space]:
        """Where masks lie, by their names."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError


class LiveSource(ThresholdSource):
    """The watched run, whose layers follow the session on their own."""

    def __init__(self, bench: Workbench, parent: QObject) -> None:
        """Follow a workbench's session."""
        super().__init__(parent)
        self._bench = bench
        self._session = bench.session
        self._session.watched.connect(self._on_changed)
        self._session.updated.connect(self._on_changed)
        self._session.viewed.connect(self._on_changed)

    def close(self) -> None:
        """Let go of the session."""
        self._session.watched.disconnect(self._on_changed)
        self._session.updated.disconnect(self._on_changed)
        self._session.viewed.disconnect(self._on_changed)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the run's classes."""
        snapshot = self._session.snapshot
        return tuple(snapshot.run.classes) if snapshot is not None else ()

    @property
    def cls(self) -> int:
        """The class in view."""
        return self._session.view.cls

    @property
    def threshold(self) -> float:
        """T of the class in view."""
        return self._session.view.threshold

    @property
    def ready(self) -> bool:
        """Whether there is an epoch of a watched image."""
        return self._in_view() is not None

    def set_threshold(self, threshold: float) -> None:
        """Move T of the class in view."""
        self._session.set_threshold(threshold)

    def threshold_of(self, cls: int) -> float:
        """T of a class."""
        return self._session.view.thresholds.get(cls, 0.5)

    def set_thresholds(self, thresholds: Mapping[int, float]) -> None:
        """Move T of some classes."""
        _require_thresholds(thresholds)
        self._session.set_view(thresholds={**self._session.view.thresholds, **thresholds})

    def thresholded(self) -> Thresholded | None:
        """The image in view, in the epoch in view."""
        found = self._in_view()
        root = self._session.root
        if found is None or root is None:
            return None
        snapshot, view = found
        item, epoch = snapshot.run.items[view.item], self._session.epoch
        where = (root, snapshot.run.generation, view.item, epoch)
        return Thresholded(where, self.classes, view.cls, None, item.split, root, epoch)

    def subject(self) -> Subject:
        """The image in view and those of its split; unknown until the worker has counted for the view."""
        found = self._in_view()
        if found is None:
            watched = self._session.root is not None
            return Subject(None, (), note="The first epoch is yet to come." if watched else "")
        snapshot, view = found
        split = snapshot.run.items[view.item].split
        count = sum(item.split == split for item in snapshot.run.items)
        volumes = len(snapshot.run.items[view.item].shape) > 2
        title = f"{count} {SPLITS.get(split, split)} {'volumes' if volumes else 'images'}"
        this = "This volume" if volumes else "This image"
        has = (snapshot.view.item, snapshot.view.cls, snapshot.epoch)
        if has != (view.item, view.cls, self._session.epoch) or view.item not in snapshot.curves:
            return Subject(None, None if count > 1 else (), this, title)
        several = tuple(snapshot.curves.values()) if count > 1 else ()
        return Subject(snapshot.curves[view.item], several, this, title)

    def layer(self, role: Role) -> Any | None:
        """The run's layer of a role."""
        known = mark(self._session.root, role)[MARK]
        return next((layer for layer in self._bench.viewer.layers if layer.metadata.get(MARK) == known), None)

    def outline_key(self) -> object | None:
        """Run, image, class, T and epoch."""
        found = self._in_view()
        if found is None:
            return None
        snapshot, view = found
        run = (self._session.root, snapshot.run.generation)
        return *run, view.item, view.cls, view.threshold, self._session.epoch

    def outline_job(self) -> OutlineJob | None:
        """Finds the outline of the class in view."""
        found = self._in_view()
        if found is None:
            return None
        drawn = partial(decisions.drawn, found[0].run, found[1], self._session.epoch)
        metadata = mark(self._session.root, "outline")
        return lambda ended: _parts(drawn(ended), metadata)

    def keep_job(self) -> Callable[[Ended], Kept] | None:
        """Labels of the image in view, in the epoch in view."""
        found = self._in_view()
        if found is None:
            return None
        snapshot, view = found
        epoch, item = self._session.epoch, snapshot.run.items[view.item]
        name = f"labels from prediction · {item.name} · epoch {epoch}"
        return lambda ended: (*decisions.kept(snapshot.run, view, epoch, ended), name)

    def masks(self, *, own: bool) -> Named:
        """Of all watched images, in the epoch in view."""
        found = self._in_view()
        return [] if found is None else decisions.run_masks(found[0].run, found[1], self._session.epoch, own)

    def spaces(self, named: Named) -> Mapping[str, Space]:
        """Where the watched images lie."""
        found = self._in_view()
        return {} if found is None else decisions.run_spaces(found[0].run, named)

    def _in_view(self) -> tuple[Snapshot, View] | None:
        """The newest snapshot, and the view within it; None before the first epoch."""
        snapshot = self._session.snapshot
        if snapshot is None or not snapshot.run.items or not snapshot.run.epochs:
            return None
        return snapshot, fitting(self._session.view, snapshot.run)

    def _on_changed(self, _: object = None) -> None:
        self.changed.emit()


class LayerSource(ThresholdSource):
    """A layer of probabilities, and perhaps its truth, with layers of its own that show the decision."""

    gone = Signal()
    """The layer was deleted."""

    def __init__(
        self,
        viewer: Any,
        jobs: Jobs,
        layer: Any,
        truth: Any | None,
        thresholds: dict[tuple[Any, int], float],
        parent: QObject,
    ) -> None:
        """Look at the plane in view, and add the layers if it holds probabilities.

        Args:
            viewer: napari's.
            jobs: of the dock.
            layer: Image layer of probabilities.
            truth: Labels layer of its shape, or None.
            thresholds: T of each layer and class that was changed; is written to.
            parent: Qt's.

        Raises:
            InputError: the layers cannot be used, as far as shows without reading them.
        """
        super().__init__(parent)
        self._viewer, self._jobs, self._layer, self._truth = viewer, jobs, layer, truth
        self._thresholds = thresholds
        self._target = Target.of_layers(layer, truth)
        self._shown: TargetLayers | None = None
        self._curve: Curve | None = None
        self._several: tuple[Curve, ...] | None = ()
        self._note = ""
        self._cls = 0
        self._place: Index | None = None
        self._version = 0
        self._stamp = 0
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MILLISECONDS)
        self._rest.timeout.connect(self._look_again)
        self._find_plane()
        viewer.dims.events.current_step.connect(self._on_step)
        viewer.dims.events.order.connect(self._on_step)
        viewer.dims.events.ndisplay.connect(self._on_step)
        if truth is not None:
            truth.events.set_data.connect(self._on_drawn)
        self._count()

    def close(self) -> None:
        """Let go of viewer and layers, and remove those that were added."""
        dims = self._viewer.dims.events
        for event in (dims.current_step, dims.order, dims.ndisplay):
            event.disconnect(self._on_step)
        self._leave_truth()
        for kind in ("plane", "planes", "check", "stamp"):
            self._jobs.drop(kind)
        if self._shown is not None:
            self._shown.close()
            self._shown = None

    def _leave_truth(self) -> None:
        self._rest.stop()
        if self._truth is not None:
            self._truth.events.set_data.disconnect(self._on_drawn)
            self._truth = None

    @property
    def target(self) -> Target:
        """What T is tried on."""
        return self._shown.target if self._shown is not None else self._target

    @property
    def name(self) -> str:
        """Name of the layer; of one that has siblings, without the class."""
        name = str(self._layer.name)
        return name.removesuffix(f" · {self.classes[self.cls]}") if len(self.siblings) > 1 else name

    @property
    def siblings(self) -> list[Any]:
        """The layers of the classes, if each has one of its own; else the layer alone."""
        return decisions.class_layers(self._viewer.layers, self._layer)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        layers = self.siblings
        if len(layers) > 1:
            return tuple(str(layer.metadata[MARK]["classes"][0]) for layer in layers)
        return tuple(name or "foreground" for name in self.target.classes)

    @property
    def cls(self) -> int:
        """The class in view."""
        layers = self.siblings
        return layers.index(self._layer) if len(layers) > 1 else self._cls

    @property
    def colour(self) -> int:
        """As that of the class in the run."""
        return self.target.number + self._cls

    @property
    def threshold(self) -> float:
        """T of the class in view."""
        return self._thresholds.get((self._layer.unique_id, self._cls), 0.5)

    @property
    def ready(self) -> bool:
        """Whether a plane is in view that holds probabilities."""
        return self._shown is not None and self._place is not None

    def set_threshold(self, threshold: float) -> None:
        """Move T of the class in view."""
        self.set_thresholds({self.cls: min(1.0, max(0.0, float(threshold)))})

    def threshold_of(self, cls: int) -> float:
        """T of a class."""
        return self._thresholds.get(self._key(cls), 0.5)

    def set_thresholds(self, thresholds: Mapping[int, float]) -> None:
        """Move T of some classes."""
        _require_thresholds(thresholds)
        self._thresholds.update({self._key(cls): threshold for cls, threshold in thresholds.items()})
        if self._shown is not None:
            self._shown.set_threshold(self.threshold)
        self.changed.emit()

    def _key(self, cls: int) -> tuple[Any, int]:
        """By which T of a class is kept: each has a layer of its own, or all have this one."""
        layers = self.siblings
        return (layers[cls].unique_id, 0) if len(layers) > 1 else (self._layer.unique_id, cls)

    def thresholded(self) -> Thresholded | None:
        """The layer, and what is known of how it was predicted."""
        meaning = known(self._layer)
        saved = None
        if "checkpoint" in meaning and "epoch" in meaning:
            saved = str(meaning["checkpoint"]), int(meaning["epoch"])
        return Thresholded(
            where=self._layer.unique_id,
            classes=self.classes,
            cls=self.cls,
            predicted=predicted(self._layer),
            split=str(meaning.get("split") or ""),
            run=Path(meaning["run"]) if "run" in meaning else None,
            name=self.name,
            saved=saved,
        )

    def set_class(self, cls: int) -> None:
        """Look at another class of a layer that has several."""
        if cls == self._cls:
            return
        self._cls = cls
        if self._shown is not None:
            self._shown.set_class(cls)
            self._shown.set_threshold(self.threshold)
        self._forget()

    def subject(self) -> Subject:
        """The plane in view and all planes."""
        planes, part = len(self.target.planes), self.target.part
        title = f"This {part}" if planes > 1 or part == "volume" else "This image"
        truth = self.target.truth is not None
        note = self._note or ("" if truth else "With a truth there would be rates.")
        return Subject(self._curve, self._several, title, f"{planes} {part}s", truth, note)

    def layer(self, role: Role) -> Any | None:
        """Layers that were added, the probabilities themselves, and the truth."""
        if role == "probability":
            return self._layer
        if role == "truth":
            return self._truth
        return self._shown.layer(role) if self._shown is not None else None

    def outline_key(self) -> object | None:
        """Data, class, T, plane and place."""
        if not self.ready:
            return None
        where = Transform.of_layer(self._layer)
        return self._layer.unique_id, self._version, self._cls, self.threshold, self._place, where

    def outline_job(self) -> OutlineJob | None:
        """Finds the outline of the class in view."""
        if self._place is None or not self.ready:
            return None
        target = self.target
        job = partial(decisions.plane_outline, target, self._cls, self._place, self.threshold)
        place = placed(self._layer, target)
        look = {
            "name": f"outline · {target.name}",
            "metadata": {MARK: {"role": "outline", "target": target.name}},
            "contrast_limits": (0.0, 1.0),
            "colormap": two_colours(None, colours.CONFUSED, "outline"),
            "blending": "translucent",
            "interpolation2d": "nearest",
            "interpolation3d": "nearest",
            "rendering": "mip",
        }
        return lambda ended: (job(ended), place, look)

    def keep_job(self) -> Callable[[Ended], Kept] | None:
        """Labels of the plane in view."""
        if self._place is None or not self.ready:
            return None
        channels, thresholds = self._channels()
        job = partial(decisions.kept_plane, channels, self._place, thresholds)
        place = placed(self._layer, self.target)
        name = f"labels from prediction · {self.name}"
        return lambda ended: (job(ended), place, name)

    def masks(self, *, own: bool) -> Named:
        """Of all planes."""
        return decisions.plane_masks(self.name, *self._channels(), self.classes if own else ())

    def spaces(self, named: Named) -> Mapping[str, Space]:
        """All where the layer lies, and where the file of its image says that it does."""
        about, dims = self._layer.metadata, self.target.dims
        spacing = spacing_of(Transform.of_layer(self._layer), dims)
        file = Path(about["file"]) if dims == 3 and "file" in about else None
        affine = np.asarray(about["affine"], np.float64) if dims == 3 and "affine" in about else None
        return {name: Space(spacing, affine, file) for name, _ in named}

    def _channels(self) -> tuple[list[Channel], list[float]]:
        """All classes, with T of each."""
        layers = self.siblings
        if len(layers) > 1:
            channels = [(Target.of_layers(layer, None), 0) for layer in layers]
        else:
            channels = [(self.target, cls) for cls in range(len(self.target.classes))]
        return channels, [self.threshold_of(cls) for cls in range(len(channels))]

    # An undone stroke is told only by napari drawing the truth anew, as it does for much else

    def _on_drawn(self, event: Any = None) -> None:
        self._rest.start()

    def _look_again(self) -> None:
        if self._place is not None and self._curve is not None:
            self._jobs.ask("stamp", partial(decisions.stamp, self.target, self._place), self._take_stamp)

    def _take_stamp(self, stamp: int) -> None:
        if self._shown is not None and self._curve is not None and stamp != self._stamp:
            self._shown.show_painted()

    # Counting, the newest wish first

    def _find_plane(self) -> None:
        if self._layer not in self._viewer.layers:
            self._place = None  # it is being deleted
            return
        try:
            index = plane_in_view(self._layer, self._viewer, self.target.dims)
        except InputError as error:
            self._place, self._note = None, str(error)
        else:
            self._place, self._note = index[self.target.class_axis is not None :], ""

    def _on_step(self, event: Any = None) -> None:
        before = self._place, self._note
        self._find_plane()
        if (self._place, self._note) != before:
            self._curve = None
            self._count_plane()
            self.changed.emit()

    def _forget(self) -> None:
        """Class or data are others."""
        self._version += 1
        if self.target.truth is None:
            self._leave_truth()
            self.shown.emit()
        self._curve = None
        self._find_plane()
        self._count()
        self.changed.emit()

    def _count(self) -> None:
        self._several = ()
        self._jobs.drop("planes")
        self._count_plane()
        if self._shown is not None:
            self._count_all()

    def _count_plane(self) -> None:
        self._jobs.drop("plane")
        if self._place is not None:
            job = partial(decisions.counted, self.target, self._cls, self._place)
            self._jobs.ask("plane", job, self._take_plane)

    def _count_all(self) -> None:
        if self.target.truth is not None and len(self.target.planes) > 1:
            self._several = None
            self._jobs.ask("planes", partial(decisions.counted_all, self.target, self._cls), self._take_all)

    def _take_plane(self, counts: tuple[Curve | str, int]) -> None:
        found, self._stamp = counts
        self._curve, self._note = (None, found) if isinstance(found, str) else (found, "")
        if self._shown is None:
            self._show()
        self.changed.emit()

    def _take_all(self, found: tuple[Curve, ...]) -> None:
        self._several = found
        self.changed.emit()

    def _show(self) -> None:
        """Add the layers: what is in view are probabilities. The rest is looked through behind it."""
        self._shown = TargetLayers(
            self._viewer, self._layer, self._truth, self._cls, self.threshold, parent=self
        )
        self._shown.changed.connect(self._forget)
        self._shown.gone.connect(self._on_gone)
        self.shown.emit()
        self._count_all()
        if self._layer.ndim > 2 and self._pixels() <= MOST_PIXELS:
            layer = self._layer
            self._jobs.ask("check", lambda ended: check(layer), self._take_check)

    def _take_check(self, reason: str) -> None:
        if reason:
            self.refused.emit(reason)

    def _on_gone(self) -> None:
        self._shown = None
        self.gone.emit()

    def _pixels(self) -> int:
        total = 1
        for length in self._layer.data[0].shape if self._layer.multiscale else self._layer.data.shape:
            total *= int(length)
        return total


def _parts(spec: LayerSpec, metadata: dict[str, Any]) -> Made:
    others = {name: value for name, value in spec.arguments().items() if name not in spec.place}
    return spec.data, dict(spec.place), {**others, "metadata": metadata}


def _require_thresholds(thresholds: Mapping[int, float]) -> None:
    """Raise InputError for a threshold that is NaN, below 0, or above 1 and not inf."""
    for threshold in thresholds.values():
        if not (0 <= threshold <= 1 or threshold == math.inf):
            raise InputError(f"the threshold {threshold} is no probability: 0 to 1, or inf, would work.")
