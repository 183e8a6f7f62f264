"""The training loop, from the first image to the last epoch, in the order in which things happen."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine import metrics
from engine.bits import Window
from engine.config import RunConfig
from engine.data import augment, store
from engine.data.dataset import Dataset
from engine.data.loader import Loader
from engine.data.store import Frames, Store
from engine.device import arithmetic, find_device, find_precision
from engine.errors import InputError
from engine.head import channels, foreground
from engine.infer import Predictor
from engine.losses import objective as objectives
from engine.losses.specs import ElevatedSensitivity
from engine.modulation.strategies import NoModulation, Trend
from engine.record import Progress, WatchedItem

CHECK_STEPS = 32
"""The loss is looked at for NaN so often; each look waits for the device."""


class Diverged(InputError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class Validation:
    """Scores of the validation images after an epoch.

    Attributes:
        loss: the configured loss on the original masks.
        dice, recall, precision: of each class, mean over the images where it is defined, else NaN.
        skipped: for each class, images whose Dice is not defined.
    """

    loss: float
    dice: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    skipped: tuple[int, ...]

    @property
    def score(self) -> float:
        """Mean foreground Dice, by which the best checkpoint is chosen; NaN if no class has one."""
        defined = [value for value in self.dice if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought.

    Attributes:
        number: 1…E.
        loss: mean training loss over its windows.
        lr: learning rate.
        trend: recall, slope, γ, updates.
        validation: None without a val split.
        best: whether this is the best epoch so far.
        seconds: of the epoch, and of these for validation, the extra pass and the watched images.
        watched: for each watched item (C, *S) probability after the epoch, and the mask that the loss saw.
        state: makes the state from which training can go on, for a checkpoint.
        last: whether no epoch follows, and why: "", "epochs" or "early stopping".
    """

    number: int
    loss: float
    lr: float
    trend: Trend
    validation: Validation | None
    best: bool
    seconds: dict[str, float]
    watched: list[tuple[NDArray[Any], NDArray[np.bool_]]]
    state: Callable[[], dict[str, Any]]
    last: str = ""


@dataclass(frozen=True)
class Prepared:
    """All that training needs, decoded, checked and on its device: what :func:`prepare` makes.

    Attributes:
        train, val: images; no val store without a val split.
        network: with its starting weights.
        objective: the configured loss; ``elevated`` is SMM v1's.
        modulation: the strategy, which knows nothing yet.
        loader: of the training images.
        predictor: predicts with the network as it is at the moment.
        watched: images that are kept for every epoch.
        dtype: of autocast, or None.
    """

    train: Store
    val: Store | None
    network: nn.Module
    objective: objectives.Objective
    elevated: objectives.Objective
    modulation: NoModulation
    loader: Loader
    predictor: Predictor
    watched: "list[Watched]"
    dtype: torch.dtype | None
    device: torch.device


def prepare(config: RunConfig, dataset: Dataset | None = None, cache: Path | None = None) -> Prepared:
    """Decode the images and build the network. Whatever the user got wrong is refused here.

    Args:
        config: the run.
        dataset: the images; found from ``config.data`` if None.
        cache: folder for a memory-mapped store, where the images don't fit in memory.

    Raises:
        InputError: images, masks or settings that cannot be used.
    """
    settings = config.training
    device = find_device(settings.device)
    dtype = find_precision(settings.precision, device)
    dataset = dataset if dataset is not None else Dataset.open(config.data)
    classes = len(dataset.classes.names)
    head = config.head(classes)
    objectives.check(config.loss, head, classes)
    misses_from(config)
    train, val = load(config, dataset, device, cache)
    network = build_network(config, dataset.channels, classes, device)
    # No larger than the largest image, so that small images are not mostly padding.
    largest = train.shapes.amax(dim=0).tolist()
    window = (min(config.data.window[0], largest[0]), min(config.data.window[1], largest[1]))
    loader = Loader(
        train, window, settings.batch_size, config.data.patches_per_image, settings.seed, device
    )  # fmt: skip
    return Prepared(
        train=train,
        val=val,
        network=network,
        objective=objectives.build(config.loss, head, classes),
        elevated=objectives.build(ElevatedSensitivity(), head, classes),
        modulation=config.modulation.bind()(
            epochs=settings.epochs, shapes=train.shapes.cpu(), classes=classes, device=train.device,
            revisits=loader.revisits,
        ),
        loader=loader,
        predictor=Predictor(
            network, head, device, dtype, config.prediction.tile, config.prediction.overlap
        ),
        watched=watch(config, train, val, dataset),
        dtype=dtype,
        device=device,
    )  # fmt: skip


def fit(
    config: RunConfig,
    prepared: Prepared | None = None,
    *,
    resume: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Train, and yield each epoch when it is over.

    Everything random derives from the seed, the epoch and the image, so a run that is resumed
    after any epoch goes on as if it had never stopped.

    Args:
        config: the run.
        prepared: from :func:`prepare`, made here if None. It is used up.
        resume: the state of an :class:`Epoch`, to go on after it.
        progress: is kept up to date; when its ``stop`` is set, the loop ends at the next batch
            and drops the epoch it is in.

    Raises:
        InputError: images, masks or settings that cannot be used, before the first epoch.
        Diverged: the loss is no longer finite; names the epoch and the batch's images.
    """
    settings = config.training
    progress = progress if progress is not None else Progress()
    ready = prepared if prepared is not None else prepare(config)
    network, modulation, device, dtype = ready.network, ready.modulation, ready.device, ready.dtype
    head = ready.predictor.head
    from_pass = modulation.records and misses_from(config) == "pass"
    cut = getattr(config.modulation, "threshold", 0.5)
    with arithmetic(settings.threads, settings.deterministic):
        forward = torch.compile(network) if settings.compile else network
        optimizer = config.optimizer.bind()(network.parameters())
        scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        schedule = config.schedule.bind()
        monitored: list[float] = []
        best_score = -math.inf
        first = 1
        if resume is not None:
            network.load_state_dict(resume["model"])
            optimizer.load_state_dict(resume["optimizer"])
            scaler.load_state_dict(resume["scaler"])
            modulation.restore(resume["modulation"])
            monitored, best_score = list(resume["monitored"]), resume["best_score"]
            first = resume["epoch"] + 1

        progress.steps = ready.loader.steps
        for number in range(first, settings.epochs + 1):
            started = time.perf_counter()
            progress.epoch, progress.step = number, 0
            lr = schedule(optimizer.defaults["lr"], number, settings.epochs, behind_best(monitored))
            for group in optimizer.param_groups:
                group["lr"] = lr
            torch.manual_seed((settings.seed * 1_000_003 + number) % 2**63)  # for dropout
            network.train()
            modulation.begin(number)
            masks = [item.modulated(modulation) for item in ready.watched]
            losses: list[Tensor] = []
            seen: list[Tensor] = []

            for frames in ready.loader.epoch(number):
                if progress.stop:
                    return
                grown = modulation.target(frames.window, frames.truth, frames.valid)
                if grown is not None:
                    modulation.seen(grown, frames.truth)
                batch = Batch.augmented(frames, grown, config, number)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, dtype) if dtype else nullcontext():
                    logits = forward(batch.image)
                loss = modulation.loss(
                    ready.objective, ready.elevated, logits, batch.truth, batch.grown, batch.valid
                )
                scaler.scale(loss).backward()
                if settings.clip_gradient is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip_gradient)
                scaler.step(optimizer)
                scaler.update()

                losses.append(loss.detach())
                seen.append(frames.window.ids)
                if len(losses) % CHECK_STEPS == 0:
                    check_finite(losses, seen, ready.train, number)
                if not from_pass:
                    prediction = foreground(logits.detach(), head) >= cut
                    modulation.count(prediction, batch.truth, batch.valid)
                    if modulation.records:
                        modulation.record(frames.window, batch.misses(prediction))
                progress.step += 1

            check_finite(losses, seen, ready.train, number)
            trained = time.perf_counter()
            if from_pass:
                for frames in whole(ready.train, ready, config.training.batch_size):
                    if progress.stop:
                        return
                    prediction = ready.predictor.probability(frames.image) >= cut
                    modulation.count(prediction, frames.truth, frames.valid)
                    modulation.record(frames.window, missed(prediction, frames.truth, frames.valid))
            trend = modulation.end()
            passed = time.perf_counter()
            validation = validate(ready, config, progress) if ready.val is not None else None
            if progress.stop:
                return
            validated = time.perf_counter()
            probabilities = [item.probability(ready.predictor) for item in ready.watched]

            mean_loss = float((torch.stack(losses) * torch.tensor([len(i) for i in seen], device=device)).sum())
            mean_loss /= sum(len(ids) for ids in seen)
            monitored.append(mean_loss if validation is None else validation.loss)
            score = math.nan if validation is None else validation.score
            best = score > best_score
            best_score = max(best_score, score) if not math.isnan(score) else best_score
            last = "epochs" if number == settings.epochs else ""
            if settings.early_stopping is not None and behind_best(monitored)[-1] >= settings.early_stopping:
                last = last or "early stopping"

            def state(number: int = number, best_score: float = best_score) -> dict[str, Any]:
                return {
                    "epoch": number,
                    "model": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                    "modulation": modulation.state(),
                    "monitored": list(monitored),
                    "best_score": best_score,
                }

            yield Epoch(
                number=number,
                loss=mean_loss,
                lr=lr,
                trend=trend,
                validation=validation,
                best=best,
                seconds={
                    "epoch": time.perf_counter() - started,
                    "pass": passed - trained,
                    "validation": validated - passed,
                    "watched": time.perf_counter() - validated,
                },
                watched=list(zip(probabilities, masks, strict=True)),
                state=state,
                last=last,
            )
            if last:
                return


@dataclass(frozen=True)
class Batch:
    """A batch as the network sees it: augmented, everything on the device.

    Attributes:
        image: float32 (B, channels, h, w).
        truth, grown: bool (B, C, h, w); grown is None where the loss sees the truth.
        valid: bool (B, 1, h, w) or None.
        draw: what happened to each image.
    """

    image: Tensor
    truth: Tensor
    grown: Tensor | None
    valid: Tensor | None
    draw: augment.Draw

    @classmethod
    def augmented(cls, frames: Frames, grown: Tensor | None, config: RunConfig, epoch: int) -> "Batch":
        """Augment frames; image and all masks go through one sampling grid together."""
        draw = augment.draw(
            config.augment, config.training.seed, epoch, frames.window.ids, frames.visits,
            frames.window.size, frames.image.device,
        )  # fmt: skip
        masks = [frames.truth, *[mask for mask in (grown, frames.valid) if mask is not None]]
        image, moved, inside = augment.apply(draw, frames.image, torch.cat(masks, dim=1), frames.zero)
        parts = list(moved.split([mask.shape[1] for mask in masks], dim=1))
        truth = parts.pop(0)
        seen = parts.pop(0) if grown is not None else None
        valid = parts.pop() if frames.valid is not None else None
        if draw.resampled:
            valid = inside if valid is None else valid & inside
        if config.training.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return cls(image, truth, seen, valid, draw)

    def misses(self, prediction: Tensor) -> Tensor:
        """This batch's false negatives, bool (B, C, h, w), back in the images' own frames."""
        return augment.undo(self.draw, missed(prediction, self.truth, self.valid))


def missed(prediction: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    """Valid false negatives, bool (B, C, *S)."""
    misses = truth & ~prediction
    return misses if valid is None else misses & valid


def misses_from(config: RunConfig) -> str:
    """"train" or "pass": the predictions that misses and recall come from.

    Raises:
        InputError: "train" is asked for where augmentation cannot be undone.
    """
    source = getattr(config.modulation, "source", "train")
    if source == "train" and config.augment.resamples and config.modulation.name != "none":
        raise InputError(
            "modulation.source train needs augmentation that can be undone exactly (flips and quarter turns), "
            "but rotation, scale or elastic is on: use modulation.source pass or auto."
        )
    if source == "auto":
        return "pass" if config.augment.resamples else "train"
    return str(source)


def load(
    config: RunConfig, dataset: Dataset, device: torch.device, cache: Path | None
) -> tuple[Store, Store | None]:
    """Decode the training and validation images, and put them on the device where they fit."""
    train = store.fill(
        dataset.samples("train"), len(dataset.classes.names), config.data,
        None if cache is None else cache / "train.pixels",
    )  # fmt: skip
    if not train.truth.bits.any():
        raise InputError(
            f"every training mask is empty: none of the {len(train)} has a pixel of "
            f"{', '.join(dataset.classes.names)}."
        )
    val = None
    if dataset.splits["val"]:
        val = store.fill(
            dataset.samples("val"), len(dataset.classes.names), config.data,
            None if cache is None else cache / "val.pixels",
        )  # fmt: skip
    if device.type == "cpu" or config.data.cache in ("memory", "disk"):
        return train, val
    room = math.inf
    if device.type == "cuda" and config.data.cache == "auto":
        room = torch.cuda.mem_get_info(device)[0] / 2
    if train.mapped or train.nbytes + (val.nbytes if val is not None else 0) > room:
        return train, val
    return train.to(device), val.to(device) if val is not None else None


def build_network(config: RunConfig, image_channels: int, classes: int, device: torch.device) -> nn.Module:
    """The network with its starting weights, which depend on the seed alone, on the device."""
    torch.manual_seed(config.training.seed)
    outputs = channels(config.head(classes), classes)
    network: nn.Module = config.model.bind()(image_channels, outputs)
    if config.training.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def check_finite(losses: Sequence[Tensor], seen: Sequence[Tensor], train: Store, epoch: int) -> None:
    """Raise Diverged for the first loss that is not finite, with the names of its images."""
    finite = torch.isfinite(torch.stack(list(losses))).tolist()
    if all(finite):
        return
    step = finite.index(False)
    names = ", ".join(train.names[number] for number in seen[step].tolist())
    raise Diverged(
        f"the loss was {losses[step].item()} in epoch {epoch}, step {step + 1} (images {names}): "
        "lower optimizer.lr, or set training.clip_gradient to 1."
    )


def behind_best(monitored: Sequence[float]) -> list[int]:
    """For each epoch, how many epochs lie between it and the best monitored loss until then."""
    best, since, behind = math.inf, 0, []
    for loss in monitored:
        since = 0 if loss < best else since + 1
        best = min(best, loss)
        behind.append(since)
    return behind


def whole(images: Store, ready: Prepared, batch_size: int) -> Iterator[Frames]:
    """All images in whole frames, batch by batch, not augmented."""
    # Frames larger than a training window go one by one, so that memory stays what training needs.
    window = math.prod(ready.loader.size)
    for batch in images.batches(batch_size):
        fitting = max(1, window * batch_size // math.prod(batch.size))
        for start in range(0, len(batch.ids), fitting):
            part = slice(start, start + fitting)
            ids = batch.ids[part]
            yield images.read(Window(ids, batch.corner[part], batch.size), torch.zeros_like(ids), ready.device)


def validate(ready: Prepared, config: RunConfig, progress: Progress) -> Validation:
    """Score the validation images, each in its own frame, at the threshold 0.5 of every class."""
    assert ready.val is not None
    losses: list[Tensor] = []
    counts: list[metrics.Confusion] = []
    for frames in whole(ready.val, ready, config.training.batch_size):
        if progress.stop:
            break
        logits = ready.predictor.logits(frames.image)
        losses += [ready.objective(logits, frames.truth, frames.valid)] * len(logits)
        prediction = foreground(logits, ready.predictor.head) >= 0.5
        counts.append(metrics.confusion(prediction, frames.truth, valid=frames.valid))
    if progress.stop:
        return Validation(math.nan, (), (), (), ())
    count = metrics.Confusion(*(torch.cat(part) for part in zip(*counts, strict=True)))
    dice = metrics.dice(count)
    return Validation(
        loss=float(torch.stack(losses).mean()),
        dice=tuple(dice.nanmean(dim=0).tolist()),
        recall=tuple(metrics.recall(count).nanmean(dim=0).tolist()),
        precision=tuple(metrics.precision(count).nanmean(dim=0).tolist()),
        skipped=tuple(dice.isnan().sum(dim=0).tolist()),
    )


@dataclass(frozen=True)
class Watched:
    """A watched image: its frames, and the part of them that is kept."""

    frames: Frames
    split: str
    image: NDArray[Any]
    name: str
    box: tuple[slice, ...]

    def modulated(self, modulation: NoModulation) -> NDArray[np.bool_]:
        """The mask that the loss sees in the epoch that begins, bool (C, *S)."""
        grown = None
        if self.split == "train":
            grown = modulation.target(self.frames.window, self.frames.truth, self.frames.valid)
        mask = self.frames.truth if grown is None else grown
        return np.asarray(mask[0].cpu().numpy()[(..., *self.box)])

    def probability(self, predictor: Predictor) -> NDArray[Any]:
        """Foreground probability float32 (C, *S)."""
        return np.asarray(predictor.probability(self.frames.image)[0].cpu().numpy()[(..., *self.box)])

    def record(self) -> WatchedItem:
        """What the run directory keeps once."""
        valid = torch.ones_like(self.frames.truth[:, :1]) if self.frames.valid is None else self.frames.valid
        return WatchedItem(
            name=self.name,
            split=self.split,
            image=self.image[self.box],
            truth=self.frames.truth[0].cpu().numpy()[(..., *self.box)],
            valid=valid[0, 0].cpu().numpy()[self.box],
            origin=tuple(part.start for part in self.box),
        )


def watch(config: RunConfig, train: Store, val: Store | None, dataset: Dataset) -> list[Watched]:
    """The first images of train and val, whole, or a central crop of a long one."""
    items = []
    for images, split, count in ((train, "train", config.watch.train), (val, "val", config.watch.val)):
        if images is None:
            continue
        for number in range(min(count, len(images))):
            ids = torch.tensor([number])
            frames = images.read(images.whole([number]), torch.zeros_like(ids), images.device)
            extent = images.extents[number].tolist()
            kept = [min(length, config.watch.longest) for length in extent]
            starts = [(length - keep) // 2 for length, keep in zip(extent, kept, strict=True)]
            box = tuple(slice(a, a + n) for a, n in zip(starts, kept, strict=True))
            image = dataset.picture(split, number)
            items.append(Watched(frames, split, image, images.names[number], box))
    return items
