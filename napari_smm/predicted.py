"""What a prediction gave: arrays on disk or in memory, and the layers that show them. No Qt, no napari."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from engine.errors import InputError
from napari_smm.annotation import Plane
from napari_smm.layers import MARK
from napari_smm.lazy import LazyStack
from napari_smm.placement import derived_transform
from napari_smm.planes import PlaneSource

FORMAT = 1
"""Version of the folder's meta.json that is understood."""
KEPT_BYTES = 2**28
"""Results up to this size are held in memory, where they are shown at once."""
SMALLEST = 1024
"""Copies are made until their longer side is no longer than this, in pixels, and held in memory: napari
draws the smallest whenever all of the image is in view."""
LEAST = 128
"""Of the planes of a large stack the copies are smaller yet, but not smaller than this."""


@dataclass(frozen=True)
class PredictedPlane:
    """The probabilities of one plane or volume.

    Attributes:
        levels: zarr or numpy arrays float32 (C, *S), in [0, 1], each of half the size of the one before,
            but of a volume along its long axes only.
        classes: names of the C foreground classes.
        run: the run directory.
        checkpoint: the file's name.
        epoch: after which its weights were saved.
        weights: their fingerprint; None in what older versions predicted, as for the next two.
        path: settings that decide on the digits of a probability: name → value.
        split: of the run that has an image of the same pixels, "train" or "val"; None if neither has, or
            the run is too old to know.
    """

    levels: tuple[Any, ...]
    classes: tuple[str, ...]
    run: Path
    checkpoint: str
    epoch: int
    weights: str | None = None
    path: Mapping[str, Any] | None = None
    split: str | None = None


@dataclass(frozen=True)
class PredictedArrays:
    """The probabilities of an image's planes or volumes.

    Attributes:
        planes: by their indices among the image's leading axes.
        source: the image.
        folder: where they are kept.
    """

    planes: Mapping[Plane, PredictedPlane]
    source: PlaneSource
    folder: Path

    @property
    def first(self) -> PredictedPlane:
        """Any plane: run, checkpoint, weights, path and classes are the same for all."""
        return next(iter(self.planes.values()))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C foreground classes."""
        return self.first.classes

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint."""
        return self.first.checkpoint

    @property
    def epoch(self) -> int:
        """After which the weights were saved."""
        return self.first.epoch

    @property
    def split(self) -> str | None:
        """ "train" if any plane was trained on, else "val" if any was validated on, else None."""
        splits = {plane.split for plane in self.planes.values()}
        return next((split for split in ("train", "val") if split in splits), None)

    def levels(self, cls: int) -> list[Any]:
        """One class as napari shows it.

        Args:
            cls: number of the class, 0 … C - 1.

        Returns:
            Arrays float32 (*leading, *S), each of half the size of the one before; leading axes are
            those of the image where all its planes were predicted, else of length 1.
        """
        return [self._level(cls, number) for number in range(len(self.first.levels))]

    def _level(self, cls: int, number: int) -> Any:
        lengths = self.source.leading if self.whole else (1,) * len(self.source.leading)
        if not lengths and isinstance(self.first.levels[number], np.ndarray):
            return self.first.levels[number][cls]

        def frame(index: tuple[int, ...]) -> Any:
            plane = index if self.whole else self.source.planes[0]
            return OneClass(self.planes[plane].levels[number], cls)

        return LazyStack(frame, lengths, self.first.levels[number].shape[1:], np.float32)

    @property
    def whole(self) -> bool:
        """Whether these are all planes or volumes of the image."""
        return len(self.planes) == math.prod(self.source.leading)


@dataclass(frozen=True)
class OneClass:
    """A class of an array (C, *S), read no further than it is indexed."""

    array: Any
    cls: int

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self.array[(self.cls, *key)])


@dataclass(frozen=True)
class LayerArguments:
    """An Image layer to be added.

    Attributes:
        data: an array, or with `multiscale` a list of them.
        arguments: of napari's add_image.
    """

    data: Any
    arguments: Mapping[str, Any]


def open_plane(folder: Path, room: int = KEPT_BYTES) -> PredictedPlane:
    """Open what the engine wrote for one plane. What is small, or soon drawn, is read into memory.

    Args:
        folder: of the plane.
        room: bytes of memory for each array of this plane.

    Raises:
        InputError: nothing whole is there, or of another version.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        if meta["format"] != FORMAT:
            raise InputError(f"{folder} has format {meta['format']}, and this version reads format {FORMAT}.")
        arrays = [zarr.open_array(folder / name, mode="r") for name in meta["levels"]]
        return PredictedPlane(
            levels=_at_hand(arrays, room),
            classes=tuple(meta["classes"]),
            run=Path(meta["run"]),
            checkpoint=str(meta["checkpoint"]),
            epoch=int(meta["epoch"]),
            weights=meta.get("weights"),
            path=meta.get("path"),
            split=meta.get("split"),
        )
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"the prediction in {folder} cannot be read ({type(error).__name__}: {error}): predict it again."
        ) from error


def _at_hand(arrays: "Sequence[zarr.Array[Any]]", room: int) -> tuple[Any, ...]:
    """The arrays, what fits into `room` bytes of memory read into it, and smaller copies that fit."""
    if len(arrays) == 1 and arrays[0].nbytes <= room:
        return (np.asarray(arrays[0][:]),)
    levels: list[Any] = list(arrays)
    # The engine's own copies of volumes are small enough for graphics cards.
    if max(arrays[-1].shape[1:]) <= SMALLEST or arrays[-1].ndim > 3:
        return tuple(levels)
    last = np.asarray(arrays[-1][:])
    if last.nbytes <= room:
        levels[-1] = last
    while max(last.shape[1:]) > SMALLEST or (last.nbytes > room and max(last.shape[1:]) > LEAST):
        last = halved(last)
        if last.nbytes <= room:
            levels.append(last)
    return tuple(levels)


def halved(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 × 2 pixels, (C, H, W) → (C, ⌈H/2⌉, ⌈W/2⌉); an odd end is repeated."""
    _, height, width = p.shape
    even = np.pad(p, [(0, 0), (0, height % 2), (0, width % 2)], mode="edge")
    rows = even[:, ::2] + even[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / np.float32(4))


def layers(found: PredictedArrays, run: Path) -> list[LayerArguments]:
    """The layers of a prediction, the first class first: only that one is visible.

    Each class is a layer of its own, with the axes of its image: a class axis in front would be the
    same slider as the epochs of a run that is watched.

    Args:
        found: what the prediction gave.
        run: as the session names the run's directory.
    """
    several = len(found.classes) > 1
    made = []
    for cls, name in enumerate(found.classes):
        levels = found.levels(cls)
        multiscale = len(levels) > 1
        meaning = {
            "run": str(run),
            "role": "probability",
            "kind": "prediction",
            "classes": [name],
            "class": cls,
            "of": len(found.classes),
            "checkpoint": found.checkpoint,
            "epoch": found.epoch,
            "weights": found.first.weights,
            "path": found.first.path,
            "split": found.split,
            "folder": str(found.folder),
            "dims": found.source.dims,
        }
        arguments = {
            "name": f"probability · {found.source.name}{f' · {name}' if several else ''}",
            "metadata": {**found.source.metadata, MARK: meaning},
            "rgb": False,
            "multiscale": multiscale,
            "contrast_limits": (0.0, 1.0),
            "colormap": "viridis",
            "blending": "translucent",
            "opacity": 0.7,
            "interpolation2d": "nearest",
            "rendering": "mip",
            "visible": cls == 0,
            **place(found),
        }
        made.append(LayerArguments(levels if multiscale else levels[0], arguments))
    return made


def place(found: PredictedArrays) -> dict[str, Any]:
    """Transform arguments by which a prediction lies on its image."""
    way = found.source.transform
    first = () if found.whole else found.source.planes[0]
    origin = (*first, *(0,) * (way.ndim - len(first)))
    behind_epoch = derived_transform(way, origin=origin, scale_factor=(1,) * way.ndim)
    return {name: _without_first(value) for name, value in behind_epoch.items()}


def _without_first(value: Any) -> Any:
    return value[1:, 1:] if isinstance(value, np.ndarray) and value.ndim == 2 else value[1:]
