"""A trained run, ready to predict: the one prediction path of predict, evaluate and calibrate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engine import checkpoint, fingerprint
from engine.calibration import Predicted
from engine.config import RunConfig, read_file, resolve
from engine.data.normalize import normalised, white
from engine.data.passes import affine_of
from engine.data.rows import Rows, rows_of
from engine.data.store import frame_of, resized
from engine.device import find_device
from engine.errors import InputError
from engine.head import labels
from engine.infer import Predictor
from engine.initial import SEEN, seen
from engine.prepare import build_network
from engine.record import RunReader
from engine.tiles import Box, boxes

Threshold = float | Sequence[float] | None
"""T of all classes, or of each; None is 0.5, or argmax over background and exclusive classes."""
PATH = 2
"""Version of the arithmetic from an image to its probabilities; raised when a digit can change."""


@dataclass(frozen=True)
class Part:
    """What is predicted of an image, and with what.

    Attributes:
        rows: the first row of blocks along the first axis, and that before which to end; None for all.
        affine: scale and shift by :meth:`Trained.affine`, where they are known already.
        scratch: folder for sums that wait; the system's for temporary files if None.
    """

    rows: tuple[int, int] | None = None
    affine: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    scratch: Path | None = None


@dataclass(frozen=True)
class Trained:
    """A run's network with the settings that it was trained with.

    Attributes:
        root: the run directory.
        config: its settings.
        info: its run.json.
        classes: names of the C foreground classes.
        predictor: in float32, so that thresholds hold wherever the run is used.
        epoch: after which the weights were saved.
        file: the checkpoint's name.
        path: where it is.
    """

    root: Path
    config: RunConfig
    info: dict[str, Any]
    classes: tuple[str, ...]
    predictor: Predictor
    epoch: int
    file: str
    path: Path = Path()

    @classmethod
    def open(cls, root: Path, weights: str | None = None, device: str = "auto") -> "Trained":
        """Load a run.

        Args:
            root: the run directory.
            weights: "best", "last" or a checkpoint's path; best where there is a val split, else last.
            device: "auto" or a device.

        Raises:
            InputError: no run, no checkpoint yet, or one that does not fit the run's network.
        """
        info = RunReader(root).info()
        config, _ = resolve([read_file(root / "config.toml")])
        file = root / "checkpoints" / (weights or ("best" if info["splits"]["val"] else "last"))
        if weights not in (None, "best", "last"):
            file = Path(str(weights)).expanduser()
        elif weights is None and not file.exists():
            # A val split on which no class is ever defined has no best epoch.
            file = file.with_name("last")
        there = [name for name in ("best", "last") if (root / "checkpoints" / name).is_file()]
        if weights is not None and there and not file.is_file():
            raise InputError(f"the run {root} has no checkpoint {weights}: {' or '.join(there)} would work.")
        classes = tuple(info["dataset"]["classes"])
        dims = int(info["dataset"].get("dims", 2))
        here = find_device(device)
        state = checkpoint.load(file)
        channels = int(info["dataset"]["channels"])
        network = build_network(config, channels, len(classes), here, dims, pretrained=False)
        try:
            network.load_state_dict(state["model"])
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"the checkpoint {file} does not fit the network of {root} ({reason})."
            ) from None
        network.eval()
        prediction = config.prediction
        tile = prediction.tile_of(dims)
        predictor = Predictor(network, config.head(len(classes)), here, None, tile, prediction.overlap)
        return cls(root, config, info, classes, predictor, int(state["epoch"]), file.name, file)

    def tiled(self, tile: int | None) -> "Trained":
        """The same with another tile length, in pixels."""
        return self if tile is None else replace(self, predictor=replace(self.predictor, tile=tile))

    @property
    def channels(self) -> int:
        """Channels that images must have."""
        return int(self.info["dataset"]["channels"])

    def predicted(self, size: Literal["native", "trained"] = "native") -> Predicted:
        """What predicts here, and how: thresholds hold only for what the same gave.

        The device is no part of it, so that what was calibrated on a server can be used on a laptop.

        Args:
            size: of the probabilities, the images' own or that which the network saw; one thing where
                images are not resized.
        """
        data, predictor = self.config.data, self.predictor
        model = self.config.model.from_scratch().model_dump(mode="json")
        path = {
            "version": PATH,
            "precision": str(predictor.dtype or "float32").removeprefix("torch."),
            "tile": predictor.tile,
            "overlap": predictor.overlap,
            "data.size": None if data.size is None else list(data.size),
            "data.spacing": None if data.spacing is None else list(data.spacing),
            "data.normalization": data.normalization,
            "size": "native" if data.size is None and data.spacing is None else size,
            "head": predictor.head,
            "classes": list(self.classes),
            "channels": self.channels,
            **{f"model.{name}": value for name, value in model.items()},
        }
        return Predicted(self.file, self.epoch, fingerprint.weights(predictor.network), path)

    @property
    def knows_images(self) -> bool:
        """Whether the run noted what its training and validation images were; older ones did not."""
        return "digests" in self.info

    def seen_in(self, digest: str) -> Literal["train", "val"] | None:
        """The split in which an image of the same pixels was trained or validated on, by the run or by those
        that it started from.

        None if in neither, or if the run is too old to know (:attr:`knows_images`).

        Args:
            digest: of the decoded image, by :func:`engine.fingerprint.image`.
        """
        known = seen(self.info)
        return next((part for part in SEEN if digest in known[part]), None)

    @property
    def dims(self) -> int:
        """Axes of S: 2 for images, 3 for volumes."""
        return int(self.info.get("dataset", {}).get("dims", 2))

    def as_seen(self, image: NDArray[Any], spacing: tuple[float, ...] | None = None) -> torch.Tensor:
        """What the network is given for an image (*S, channels): normalised, float32 (1, channels, *S),
        resized if the settings say so, on the CPU. `spacing` is in mm, along S."""
        rows = self.framed(rows_of(image, spacing=spacing))
        scale, shift = self.affine(rows, white(image.dtype))
        method = self.config.data.normalization
        return _tensor(normalised(rows.read(0, rows.shape[0]), scale, shift, method))

    def frame(self, rows: Rows) -> tuple[int, ...]:
        """Size at which the network sees an image."""
        return self._resized(rows) or rows.shape[:-1]

    def framed(self, rows: Rows) -> Rows:
        """An image as the network sees it but for its normalisation: itself, or resized, as a whole."""
        size = self._resized(rows)
        if size is None:
            return rows
        whole = rows.read(0, rows.shape[0])
        return replace(rows_of(resized(whole, size, labels=False), rows.name), before_band=rows.before_band)

    def resizes(self, rows: Rows) -> bool:
        """Whether the network sees an image at another size than its own."""
        return self._resized(rows) is not None

    def _resized(self, rows: Rows) -> tuple[int, ...] | None:
        size = frame_of(rows.shape[:-1], rows.spacing, self.config.data)
        return None if size == rows.shape[:-1] else size

    def affine(self, rows: Rows, top: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scale and shift of each channel, float32 (channels,), that normalise an image as it is seen.

        Args:
            rows: the image by :meth:`framed`.
            top: what is white in its file.
        """
        return affine_of(rows.bands, rows.shape, rows.dtype, self.config.data.normalization, top=top)

    def probability(
        self, image: NDArray[Any], *, native: bool = True, spacing: tuple[float, ...] | None = None
    ) -> NDArray[np.float32]:
        """Foreground probabilities of one image, bit for bit those of :meth:`probabilities`.

        Args:
            image: (*S, channels) as read, any real dtype.
            native: at the image's own size, else at the size that the network saw.
            spacing: mm along each axis of S, for runs with ``data.spacing``.

        Returns:
            float32 (C, *S) in [0, 1].

        Raises:
            InputError: the image is not finite.
        """
        rows = rows_of(image, spacing=spacing)
        return self._whole(self.probabilities(rows, native=native), self._given(rows, native))

    def probabilities(
        self,
        rows: Rows,
        ticked: Callable[[], None] = lambda: None,
        *,
        native: bool = True,
        part: Part | None = None,
    ) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Foreground probabilities of an image that need not fit in memory, a block at a time.

        On one machine a bit of them depends on the image alone, not on how it is read, nor on which part
        is asked for. Runs with ``data.size`` or ``data.spacing`` take the image as a whole.

        Args:
            rows: the image.
            ticked: called after each tile.
            native: at the image's own size, else at the size that the network saw.
            part: of the image; all of it if None.

        Yields:
            A box of S and its probabilities, float32 (C, *box) in [0, 1]; see
            :meth:`engine.infer.Predictor.blocks`.
        """
        part = part or Part()
        if self._resized(rows) is None:
            yield from self._tiles(rows, white(rows.dtype), ticked, part)
            return
        # Resizing turns all but uint8 into float32: what is white, the file's own kind says.
        small, top = self.framed(rows), white(rows.dtype)
        p = self._whole(self._tiles(small, top, ticked, replace(part, rows=None)), small.shape[:-1])
        shape = self._given(rows, native)
        if p.shape[1:] != shape:
            p = _enlarged(p, shape)
        for box in boxes(shape, part.rows):
            yield box, p[(slice(None), *box)]

    def _tiles(
        self, rows: Rows, top: float, ticked: Callable[[], None], part: "Part"
    ) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """The same of an image as the network sees it."""
        method = self.config.data.normalization
        scale, shift = part.affine or self.affine(rows, top)

        def read(box: Box) -> torch.Tensor:
            return _tensor(normalised(rows.box(box), scale, shift, method))

        return self.predictor.blocks(read, rows.shape[:-1], ticked, rows=part.rows, scratch=part.scratch)

    def _given(self, rows: Rows, native: bool) -> tuple[int, ...]:
        return rows.shape[:-1] if native else self.frame(rows)

    def _whole(
        self, blocks: Iterator[tuple[Box, NDArray[np.float32]]], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Blocks put together, float32 (C, *shape)."""
        whole = np.empty((len(self.classes), *shape), np.float32)
        for box, p in blocks:
            whole[(slice(None), *box)] = p
        return whole

    def rule(self, threshold: Threshold) -> str:
        """How probabilities become masks, in words."""
        if threshold is None and self.predictor.head == "softmax":
            return "argmax over background and classes"
        if isinstance(threshold, Sequence):
            if len(set(threshold)) > 1:
                each = [f"{t:g} ({name})" for t, name in zip(threshold, self.classes, strict=True)]
                return f"p ≥ {', '.join(each)}"
            threshold = threshold[0]
        return f"p ≥ {0.5 if threshold is None else threshold:g}"

    def masks(self, p: NDArray[np.float32], threshold: Threshold = None) -> NDArray[np.bool_]:
        """Masks of each class, bool (C, *S), from probabilities (C, *S), by :meth:`rule`."""
        if threshold is None and self.predictor.head == "softmax":
            return np.asarray(self.label_map(p) == np.arange(1, len(p) + 1).reshape(-1, *[1] * (p.ndim - 1)))
        each = np.asarray(0.5 if threshold is None else threshold, np.float32)
        return np.asarray(p >= each.reshape(-1, *[1] * (p.ndim - 1)))

    def label_map(self, p: NDArray[np.float32], threshold: Threshold = None) -> NDArray[np.uint8]:
        """One class a pixel, uint8 (*S), 0 background."""
        if threshold is None or isinstance(threshold, Sequence):
            thresholds = threshold
        else:
            thresholds = [threshold] * len(p)
        label = labels(torch.from_numpy(p)[None], self.predictor.head, thresholds)
        return np.asarray(label[0].numpy().astype(np.uint8))


def _tensor(values: NDArray[np.float32]) -> torch.Tensor:
    """(*S, channels) → (1, channels, *S), lying in memory in one way, as convolutions of what lies otherwise
    add up in another order: images as they are written here, volumes a channel after the other, which
    convolutions take in two thirds of the time on a CPU."""
    laid = torch.from_numpy(np.ascontiguousarray(values)).movedim(-1, 0)[None]
    return laid if values.ndim == 3 else laid.contiguous()


def _enlarged(p: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Probabilities (C, *S) at another size, linearly between pixels. That rounds, and may leave 0…1 by the
    last bit, so it is cut."""
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    found = F.interpolate(torch.from_numpy(p)[None], size=shape, mode=mode, align_corners=False)
    return np.asarray(found[0].clamp_(0, 1).numpy())
