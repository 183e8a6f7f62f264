"""What a user would write instead of the engine's loop: PyTorch and MONAI, and the SMM authors' way.

All train the same network from the same weights on the same files, with the same changes of the images
at the same probabilities, the same loss and Adam.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import CacheDataset
from monai.data import Dataset as Cases
from monai.losses import DiceCELoss
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Rand2DElasticd,
    RandFlipd,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandZoomd,
    ScaleIntensityd,
)
from PIL import Image
from skimage.morphology import diamond, dilation
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.data.specs import Augment
from engine.device import find_precision
from engine.losses.sensitivity import elevated_sensitivity
from engine.models.unet import UNet
from engine.modulation import recall_slope

KEYS = ("image", "mask")


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        root: folder with ``images/NNN.png`` and ``masks/NNN.png``, all of one size.
        batch: images in a step.
        base_width: of the U-Net.
        weights: its first ones.
        augment: changes of the images.
        device: on which to train.
        workers: processes that read and change images for the loops that are tuned.
    """

    root: Path
    batch: int
    base_width: int
    weights: Mapping[str, Tensor]
    augment: Augment
    device: torch.device
    workers: int

    def network(self) -> UNet:
        """The network with its first weights, on the device."""
        network = UNet(3, 1, base_width=self.base_width)
        network.load_state_dict(self.weights)
        return network.to(self.device)

    def files(self) -> list[dict[str, str]]:
        """Image and mask of each case."""
        images = sorted((self.root / "images").iterdir())
        return [{"image": str(path), "mask": str(self.root / "masks" / path.name)} for path in images]


def newcomer(task: Task) -> Callable[[], None]:
    """As a tutorial has it: files read in each epoch by two workers, float32, channels first.

    Returns:
        What trains for an epoch.
    """
    pipeline = Compose([*reading(), *changes(task.augment, KEYS), EnsureTyped(KEYS)])
    loader: DataLoader[Any] = DataLoader(
        Cases(task.files(), pipeline), batch_size=task.batch, shuffle=True, num_workers=2
    )
    network, loss = task.network(), DiceCELoss(sigmoid=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def epoch() -> None:
        network.train()
        total = 0.0
        for batch in loader:
            image, mask = batch["image"].to(task.device), batch["mask"].to(task.device)
            optimizer.zero_grad()
            value = loss(network(image), mask)
            value.backward()
            optimizer.step()
            total += value.item()

    return epoch


class Tuned:
    """The same loop as someone writes it who has read the performance guides.

    Decoded images are cached, workers stay, memory is pinned, tensors carry no metadata; channels last;
    on a GPU autocast in the dtype of the engine, and cuDNN is free to look for its fastest algorithms.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.network = task.network().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.loss = DiceCELoss(sigmoid=True)
        self.dtype = find_precision("auto", task.device)
        self.scaler = torch.amp.GradScaler(task.device.type, enabled=self.dtype is torch.float16)
        self.cached = CacheDataset(
            task.files(), Compose([*reading(), EnsureTyped(KEYS, track_meta=False)]), progress=False
        )
        self.loader: DataLoader[Any] = DataLoader(
            self.changed(), batch_size=task.batch, shuffle=True, num_workers=task.workers,
            pin_memory=task.device.type == "cuda", persistent_workers=task.workers > 0,
        )  # fmt: skip

    def changed(self) -> "Dataset[Any]":
        """Cached images, changed at random."""
        return Cases(self.cached, self.pipeline(KEYS))

    def pipeline(self, keys: Sequence[str]) -> Compose:
        """Random changes, of which come plain tensors."""
        return Compose([*changes(self.task.augment, keys), EnsureTyped(keys, track_meta=False)])

    def criterion(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch."""
        loss: Tensor = self.loss(logits, self.here(batch["mask"]))
        return loss

    def here(self, x: Tensor) -> Tensor:
        """On the device."""
        return x.to(self.task.device, non_blocking=True)

    def autocast(self) -> Any:
        return torch.autocast(self.task.device.type, self.dtype) if self.dtype else nullcontext()

    def epoch(self) -> None:
        """Train for an epoch."""
        self.network.train()
        losses = []
        for batch in self.loader:
            image = self.here(batch["image"]).contiguous(memory_format=torch.channels_last)
            self.optimizer.zero_grad(set_to_none=True)
            with self.autocast():
                logits = self.network(image)
            value = self.criterion(logits.float(), batch)
            self.scaler.scale(value).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            losses.append(value.detach())
        float(torch.stack(losses).mean())


class Authors(Tuned):
    """SMM as its paper tells it (Alg. 1 to 4), on the tuned loop.

    Modulated masks are files, read in each epoch. After it, the training images are predicted once more,
    false negatives are dilated image by image on the CPU with scikit-image, and the masks are written
    anew: with v2 too, as if the slope of recall never reached γ.
    """

    def __init__(self, task: Task, version: Literal[1, 2], folder: Path) -> None:
        self.version = version
        self.masks = [folder / Path(case["mask"]).name for case in task.files()]
        self.recalls: list[float] = []
        folder.mkdir()
        for case, path in zip(task.files(), self.masks, strict=True):
            path.write_bytes(Path(case["mask"]).read_bytes())
        super().__init__(task)

    def changed(self) -> "Dataset[Any]":
        return WithMasks(self.cached, self.masks, self.pipeline((*KEYS, "grown")))

    def criterion(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        grown = self.here(batch["grown"])
        if self.version == 2:
            return self.loss(logits, grown)  # type: ignore[no-any-return]
        return super().criterion(logits, batch) + elevated_sensitivity(logits.sigmoid(), grown).mean()

    def epoch(self) -> None:
        super().epoch()
        self.network.eval()
        found = total = 0
        for start in range(0, len(self.masks), self.task.batch):
            cases = [
                self.cached[number] for number in range(len(self.masks))[start : start + self.task.batch]
            ]
            image = self.here(torch.stack([case["image"] for case in cases]))
            with torch.no_grad(), self.autocast():
                logits = self.network(image.contiguous(memory_format=torch.channels_last))
            predictions = (logits.float().sigmoid() >= 0.5).cpu().numpy()[:, 0]
            for case, prediction, path in zip(cases, predictions, self.masks[start:], strict=False):
                truth = case["mask"][0].numpy() > 0.5
                grown = truth | dilation(truth & ~prediction, diamond(2))
                Image.fromarray(grown.astype(np.uint8) * 255).save(path)
                found, total = found + int((truth & prediction).sum()), total + int(truth.sum())
        self.recalls.append(found / total)
        recall_slope(self.recalls[-15:])


class WithMasks(Dataset[Any]):
    """Cached images with masks that are read from their files each time, changed together."""

    def __init__(
        self, cached: Dataset[Any], masks: Sequence[Path], change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.cached, self.masks, self.change = cached, masks, change

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, number: int) -> dict[str, Any]:
        # As MONAI reads PNG files: columns first.
        grown = torch.from_numpy(np.array(Image.open(self.masks[number]))).T[None].float() / 255
        return self.change({**self.cached[number], "grown": grown})


def reading() -> list[Any]:
    """What happens to an image once: read, channels first, normalised."""
    return [
        LoadImaged(KEYS),
        EnsureChannelFirstd(KEYS),
        NormalizeIntensityd("image", channel_wise=True),
        ScaleIntensityd("mask"),
    ]


def changes(augment: Augment, keys: Sequence[str]) -> list[Any]:
    """MONAI's transforms for the engine's settings; masks by the nearest pixel."""
    p, modes = augment.probability, ("bilinear", *["nearest"] * (len(keys) - 1))

    def around_one(interval: tuple[float, float]) -> tuple[float, float]:
        return interval[0] - 1, interval[1] - 1

    found = [
        RandScaleIntensityd("image", factors=around_one(augment.brightness), prob=p),
        RandScaleIntensityFixedMeand("image", factors=around_one(augment.contrast), prob=p),
        RandFlipd(keys, prob=augment.flip, spatial_axis=0),
        RandFlipd(keys, prob=augment.flip, spatial_axis=1),
        RandRotate90d(keys, prob=augment.quarter_turn, max_k=3),
    ]
    if augment.resamples:
        # The deviation of the engine's displacement is about alpha / (6.1 sigma).
        strongest = augment.elastic_alpha[1] / (6.1 * sum(augment.elastic_sigma) / 2)
        found += [
            RandRotated(
                keys, range_x=math.radians(augment.rotation), prob=p, mode=modes, padding_mode="zeros"
            ),
            RandZoomd(
                keys, min_zoom=augment.scale[0], max_zoom=augment.scale[1], prob=p, mode=modes,
                padding_mode="constant",
            ),
            Rand2DElasticd(
                keys, spacing=(32, 32), magnitude_range=(0, strongest), prob=p, mode=modes,
                padding_mode="zeros",
            ),
        ]  # fmt: skip
    return found
