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
from engine.data.store import resized, seen
from engine.device import find_device
from engine.errors import InputError
from engine.head import labels
from engine.infer import Predictor
from engine.prepare import build_network
from engine.record import RunReader

Threshold = float | Sequence[float] | None
"""T of all classes, or of each; None is 0.5, or argmax over background and exclusive classes."""
PATH = 1
"""Version of the arithmetic from an image to its probabilities; raised when a digit can change."""


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
    """

    root: Path
    config: RunConfig
    info: dict[str, Any]
    classes: tuple[str, ...]
    predictor: Predictor
    epoch: int
    file: str

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
        here = find_device(device)
        state = checkpoint.load(file)
        network = build_network(config, info["dataset"]["channels"], len(classes), here, pretrained=False)
        try:
            network.load_state_dict(state["model"])
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"the checkpoint {file} does not fit the network of {root} ({reason})."
            ) from None
        network.eval()
        prediction = config.prediction
        predictor = Predictor(
            network, config.head(len(classes)), here, None, prediction.tile, prediction.overlap
        )  # fmt: skip
        return cls(root, config, info, classes, predictor, int(state["epoch"]), file.name)

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
            "data.normalization": data.normalization,
            "size": "native" if data.size is None else size,
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
        """The split in which an image of the same pixels was trained or validated on.

        None if in neither, or if the run is too old to know (:attr:`knows_images`).

        Args:
            digest: of the decoded image, by :func:`engine.fingerprint.image`.
        """
        known = self.info.get("digests", {})
        parts: tuple[Literal["train", "val"], ...] = ("train", "val")
        return next((part for part in parts if digest in known.get(part, {}).values()), None)

    def as_seen(self, image: NDArray[Any]) -> torch.Tensor:
        """What the network is given for an image (H, W, channels): normalised, float32 (1, channels, H, W),
        resized if the settings say so, on the CPU."""
        data = self.config.data
        frame, scale, shift = seen(image, data)
        return _tensor(normalised(frame, scale, shift, data.normalization))

    def probability(self, image: NDArray[Any], *, native: bool = True) -> NDArray[np.float32]:
        """Foreground probabilities of one image, bit for bit those of :meth:`probabilities`.

        Args:
            image: (H, W, channels) as read, any real dtype.
            native: at the image's own size, else at the size that the network saw.

        Returns:
            float32 (C, H, W) in [0, 1].

        Raises:
            InputError: the image is not finite.
        """
        parts = list(self.probabilities(rows_of(image), native=native))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def probabilities(
        self, rows: Rows, ticked: Callable[[], None] = lambda: None, *, native: bool = True
    ) -> Iterator[NDArray[np.float32]]:
        """Foreground probabilities of an image that need not fit in memory, a few rows at a time.

        On one machine a bit of them depends on the image alone, not on how it is read. Runs with
        ``data.size`` take the image as a whole.

        Args:
            rows: the image.
            ticked: called after each tile.
            native: at the image's own size, else at the size that the network saw.

        Yields:
            float32 (C, rows, W) in [0, 1], from top to bottom.
        """
        data, top = self.config.data, white(rows.dtype)
        if data.size is None:
            for p in self._tile_rows(rows, top, ticked):
                yield _clipped(p)
            return
        shape = rows.shape[:2]
        small = rows_of(resized(rows.read(0, shape[0]), data.size, labels=False))
        # Resizing turns all but uint8 into float32: what is white, the file's own kind says.
        p = torch.cat(list(self._tile_rows(small, top, ticked)), dim=2)
        if native and p.shape[2:] != shape:
            p = F.interpolate(p, size=shape, mode="bilinear", align_corners=False)
        yield _clipped(p)

    def _tile_rows(self, rows: Rows, top: float, ticked: Callable[[], None]) -> Iterator[torch.Tensor]:
        """The same of an image as the network sees it, float32 (1, C, rows, W)."""
        method = self.config.data.normalization
        scale, shift = affine_of(rows.bands, rows.shape, rows.dtype, method, top=top)

        def read(first: int, last: int) -> torch.Tensor:
            return _tensor(normalised(rows.read(first, last), scale, shift, method))

        return self.predictor.rows(read, rows.shape[:2], ticked)

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
            return np.asarray(self.label_map(p) == np.arange(1, len(p) + 1)[:, None, None])
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
    """(rows, W, channels) → (1, channels, rows, W), lying in memory as it is written here: convolutions of
    what lies otherwise add up in another order."""
    return torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)[None]


def _clipped(p: torch.Tensor) -> NDArray[np.float32]:
    """(1, C, rows, W) → (C, rows, W). Resizing rounds, and may leave 0…1 by the last bit."""
    return np.asarray(p[0].clamp_(0, 1).numpy())
