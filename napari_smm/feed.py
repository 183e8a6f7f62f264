"""The worker's side of watching a run: everything slow, done once, in one thread, latest wish first."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.figures.epochs import History, queue_of
from engine.record import RunReader
from engine.thresholds.curves import Curve
from napari_smm.frames import Frames, Item, open_items
from napari_smm.layers import LayerSpec, View, WatchedRun, layers
from napari_smm.watch import RunState, RunWatcher

PICTURE = (360, 520)
"""Height and width in pixels of the recall-slope plot beside the image."""
KEPT_CURVES = 512
"""Curves that are remembered, one for each image, epoch and class."""


@dataclass(frozen=True)
class Snapshot:
    """A run and what of it was asked for, complete and unchanging.

    Attributes:
        state: of the run.
        run: what its layers are made of.
        history: its curves; None before the first epoch.
        view: what was asked for.
        epoch: in view, 1…E; 0 before the first.
        curves: exact counts at every threshold, by number of item: of the class and epoch in view,
            for the item in view and those of the same split.
        layers: of the run for the view.
    """

    state: RunState
    run: WatchedRun
    history: History | None
    view: View
    epoch: int
    curves: Mapping[int, Curve] = field(default_factory=dict)
    layers: tuple[LayerSpec, ...] = ()

    @property
    def item(self) -> Item | None:
        """The image in view; None where the run watches none."""
        return self.run.items[self.view.item] if self.run.items else None


class Feed:
    """Makes snapshots of a run. Not for two threads at once."""

    def __init__(self, root: Path) -> None:
        """Follow a run directory. Raises InputError if it does not exist."""
        self.root = root
        self._watcher = RunWatcher(root)
        self._frames: Frames | None = None
        self._curves: OrderedDict[tuple[int, int, int], Curve] = OrderedDict()
        self._drawn: tuple[int, int] | None = None
        self._picture: Any = None
        self._history: History | None = None
        self._generation = 0
        self._followed = 0

    def snapshot(self, view: View) -> Snapshot:
        """Read what is new, and prepare what the view asks for.

        Raises:
            InputError: the directory cannot be read as a run.
        """
        state = self._watcher.poll()
        if state.resumed != self._generation:
            self._generation = state.resumed
            self._curves.clear()
            if self._frames is not None:
                self._frames.update(open_items(self.root))  # images that joined may be others now, too
                self._frames.forget()
        elif self._frames is not None and len(state.followed) != self._followed:
            self._frames.update(open_items(self.root, self._frames.items))
        self._followed = len(state.followed)
        if self._frames is None and state.info is not None and state.started:
            self._frames = Frames(open_items(self.root))
        items = self._frames.items if self._frames else ()
        drawn = (state.newest, state.resumed)
        if state.epochs and drawn != self._drawn:
            self._history = History.of(state.epochs, state.classes, queue_of(RunReader(self.root)))
            from napari_smm.recall_picture import draw  # loads matplotlib: half a second, here in the worker

            self._picture = draw(self._history, PICTURE)
            self._drawn = drawn
        run = WatchedRun(
            name=str(self.root),
            items=items,
            frames=self._frames or Frames(()),
            classes=state.classes,
            epochs=state.newest,
            generation=state.resumed,
            picture=self._picture,
        )
        view = fitting(view, run)
        epoch = state.newest if view.follow or not view.epoch else view.epoch
        curves = self._measured(run, view, epoch)
        return Snapshot(state, run, self._history, view, epoch, curves, layers(run, view))

    def _measured(self, run: WatchedRun, view: View, epoch: int) -> dict[int, Curve]:
        if not run.items or epoch < max(1, run.items[view.item].first):
            return {}
        shown = run.items[view.item]
        run.frames.modulated(view.item, epoch)  # so that the window finds it in memory
        return {
            item.number: self._curve(run, item, epoch, view.cls)
            for item in run.items
            if item.split == shown.split and item.first <= epoch
        }

    def _curve(self, run: WatchedRun, item: Item, epoch: int, cls: int) -> Curve:
        key = (item.number, epoch, cls)
        if key not in self._curves:
            # The trainer kept float16: nothing is lost, and counting is then ten times as fast.
            p = run.frames.probability(item.number, epoch)[cls].astype(np.float16)
            truth, valid = run.frames.truth(item.number, epoch), run.frames.valid(item.number, epoch)
            self._curves[key] = Curve.of(p, truth[cls], valid)
        self._curves.move_to_end(key)
        while len(self._curves) > KEPT_CURVES:
            self._curves.popitem(last=False)
        return self._curves[key]


def fitting(view: View, run: WatchedRun) -> View:
    """The view with numbers that the run has."""
    return replace(
        view,
        item=min(view.item, max(0, len(run.items) - 1)),
        cls=min(view.cls, max(0, len(run.classes) - 1)),
        epoch=min(view.epoch, run.epochs),
    )
