"""The training loop, from the first batch to the last epoch, in the order in which things happen."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.bits import BYTE
from engine.config import RunConfig
from engine.data import augment
from engine.data.images import Images
from engine.data.loader import Loader
from engine.data.store import Frames
from engine.device import arithmetic
from engine.errors import InputError, RefusedError
from engine.follow import TakenUp, take_up
from engine.head import Head, channels, foreground
from engine.losses.guides import Guides
from engine.modulation.strategies import Trend
from engine.prepare import Prepared, last_channels, misses_from, prepare
from engine.ranks import ALONE, Gradients, Ranks
from engine.record import Progress
from engine.validate import Validation, validate, whole
from engine.watch import gathered

CHECK_STEPS = 32
"""The loss is looked at for NaN so often; each look waits for the device."""


class DivergedError(InputError):
    """The loss is no longer finite."""


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
        state: makes the state from which training can go on, for a checkpoint. Its tensors are those
            in use, not copies: save or copy them before the next epoch is asked for.
        last: whether no epoch follows, and why: "", "epochs" or "early stopping".
        taken: the masks that were taken up at its beginning, or None (`data.follow`).
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
    taken: TakenUp | None = None


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
        prepared: from :func:`prepare`, made here if None. It is used up. To resume a run that takes up masks
            as it goes, give what :func:`engine.follow.restored` makes of it. Of several processes that train
            together each prepares its own and goes through all epochs; those of the first are whole.
        resume: the state of an :class:`Epoch`, to go on after it. It is used up too.
        progress: is kept up to date; when its ``stop`` is set, the loop ends at the next batch
            and drops the epoch it is in.

    Raises:
        InputError: images, masks or settings that cannot be used, before the first epoch.
        DivergedError: the loss is no longer finite; names the epoch and the batch's images.
    """
    settings = config.training
    progress = progress if progress is not None else Progress()
    ready = prepared if prepared is not None else prepare(config, pretrained=resume is None)
    network, modulation, device, dtype = ready.network, ready.modulation, ready.device, ready.dtype
    ranks, gradients = ready.ranks, Gradients(network, ready.ranks)
    head = ready.predictor.head
    from_pass = modulation.records and misses_from(config) == "pass"
    cut = getattr(config.modulation, "threshold", 0.5)
    with arithmetic(settings.threads, settings.deterministic, settings.compile):
        forward = torch.compile(network) if settings.compile else network
        optimizer = config.optimizer.bind()(network.parameters())
        scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        schedule = config.schedule.bind()
        monitored: list[float] = []
        best_score = -math.inf
        first = 1
        if resume is not None:
            # Taken out of the state, which the caller may keep, so that nothing is held twice.
            network.load_state_dict(resume.pop("model"))
            optimizer.load_state_dict(resume.pop("optimizer"))
            scaler.load_state_dict(resume.pop("scaler"))
            modulation.restore(masks_of(resume.pop("modulation"), ready.loader, ranks.part))
            monitored, best_score = list(resume["monitored"]), resume["best_score"]
            first = resume["epoch"] + 1

        for number in range(first, settings.epochs + 1):
            started = time.perf_counter()
            taken = None
            if ready.following is not None:
                ready, taken = take_up(ready, config, number)
            progress.epoch, progress.step, progress.steps = number, 0, ready.loader.steps
            progress.note = taken.words if taken is not None else ""
            lr = schedule(optimizer.defaults["lr"], number, settings.epochs, behind_best(monitored))
            for group in optimizer.param_groups:
                group["lr"] = lr
            # For dropout, which differs between processes.
            torch.manual_seed((settings.seed * 1_000_003 + number + ranks.rank * 0x9E3779B97F4A7C15) % 2**63)
            network.train()
            modulation.begin(number)
            masks = [item.modulated(modulation) for item in ready.watched]
            losses: list[Tensor] = []
            seen: list[Tensor] = []

            for frames in ready.loader.epoch(number):
                if stopped(progress, ranks):
                    return
                grown = modulation.target(frames.window, frames.truth, frames.valid)
                if grown is not None:
                    modulation.seen(grown, frames.truth)
                batch = Batch.augmented(frames, grown, config, number, ranks)
                optimizer.zero_grad(set_to_none=True)
                # Batch norms that wait for each other tell sums in float32, those of no image too.
                with torch.autocast(device.type, dtype) if dtype and len(batch.image) else nullcontext():
                    logits = forward(batch.image) if batch.sees(network) else no_logits(batch, head)
                plain = partial(ready.objective, guides=batch.guides)
                with ranks.summing():
                    loss = modulation.loss(
                        plain, ready.elevated, logits, batch.truth, batch.grown, batch.valid
                    )
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                gradients.sum()
                if settings.clip_gradient is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip_gradient)
                scaler.step(optimizer)
                scaler.update()

                losses.append(loss.detach())
                seen.append(frames.window.ids)
                if len(losses) % CHECK_STEPS == 0:
                    check_finite(losses, seen, ready.train, number, ranks)
                if not from_pass:
                    prediction = foreground(logits.detach(), head) >= cut
                    modulation.count(prediction, batch.truth, batch.valid)
                    if modulation.records:
                        modulation.record(frames.window, batch.misses(prediction))
                progress.step += 1

            check_finite(losses, seen, ready.train, number, ranks)
            trained = time.perf_counter()
            if from_pass:
                for frames in whole(ready.train, ready):
                    if progress.stop:
                        break
                    prediction = ready.predictor.probability(frames.image) >= cut
                    modulation.count(prediction, frames.truth, frames.valid)
                    modulation.record(frames.window, missed(prediction, frames.truth, frames.valid))
                if stopped(progress, ranks):
                    return
            trend = modulation.end()
            passed = time.perf_counter()
            validation = validate(ready, progress) if ready.validated else None
            if stopped(progress, ranks):
                return
            validated = time.perf_counter()
            probabilities = [item.probability(ready.predictor) for item in ready.watched]
            watched = gathered(ready.watched, list(zip(probabilities, masks, strict=True)), ranks)
            kept = masks_of(modulation.state(), ready.loader, ranks.whole)

            windows = ready.loader.batches.to(device)
            mean_loss = float((torch.stack(losses) * windows).sum() / windows.sum())
            monitored.append(mean_loss if validation is None else validation.loss)
            score = math.nan if validation is None else validation.score
            best = score > best_score
            best_score = max(best_score, score) if not math.isnan(score) else best_score
            last = "epochs" if number == settings.epochs else ""
            if settings.early_stopping is not None and behind_best(monitored)[-1] >= settings.early_stopping:
                last = last or "early stopping"

            def state(
                number: int = number, best_score: float = best_score, kept: dict[str, Any] = kept
            ) -> dict[str, Any]:
                return {
                    "epoch": number,
                    "model": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                    "modulation": kept,
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
                watched=watched,
                state=state,
                last=last,
                taken=taken,
            )
            if last:
                return


@dataclass(frozen=True)
class Batch:
    """A batch as the network sees it: augmented, everything on the device.

    Attributes:
        image: float32 (B, channels, *S).
        truth, grown: bool (B, C, *S); grown is None where the loss sees the truth.
        valid: bool (B, 1, *S) or None.
        draw: what happened to each image.
        guides: of the truth, for the losses that ask for them.
    """

    image: Tensor
    truth: Tensor
    grown: Tensor | None
    valid: Tensor | None
    draw: augment.Draw
    guides: Guides

    @classmethod
    def augmented(
        cls, frames: Frames, grown: Tensor | None, config: RunConfig, epoch: int, ranks: Ranks = ALONE
    ) -> "Batch":
        """Augment frames; image and all masks go through one sampling grid together."""
        draw = augment.draw(
            config.augment, config.training.seed, epoch, ranks.numbers(frames.window.ids), frames.visits,
            frames.window.size, frames.image.device,
        )  # fmt: skip
        masks = [mask for mask in (frames.truth, grown, frames.valid, frames.tube) if mask is not None]
        image, moved, inside = augment.apply(draw, frames.image, torch.cat(masks, dim=1), frames.zero)
        parts = list(torch.split(moved, [mask.shape[1] for mask in masks], dim=1))
        truth = parts.pop(0)
        seen = parts.pop(0) if grown is not None else None
        valid = parts.pop(0) if frames.valid is not None else None
        tube = parts.pop(0) if frames.tube is not None else None
        distance = None if frames.distance is None else augment.move(draw, frames.distance)
        if draw.resampled:
            valid = inside if valid is None else valid & inside
        if config.training.channels_last:
            image = image.contiguous(memory_format=last_channels(image.ndim - 2))
        return cls(image, truth, seen, valid, draw, Guides(tube, distance, epoch))

    def sees(self, network: nn.Module) -> bool:
        """Whether the network has something to do: an image, or batch norms that wait for it."""
        return len(self.image) > 0 or any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())

    def misses(self, prediction: Tensor) -> Tensor:
        """This batch's false negatives, bool (B, C, *S), back in the images' own frames."""
        return augment.undo(self.draw, missed(prediction, self.truth, self.valid))


def missed(prediction: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    """Valid false negatives, bool (B, C, *S)."""
    misses = truth & ~prediction
    return misses if valid is None else misses & valid


def check_finite(
    losses: Sequence[Tensor], seen: Sequence[Tensor], train: Images, epoch: int, ranks: Ranks = ALONE
) -> None:
    """Raise DivergedError for the first loss since the last check that is not finite, with its images."""
    first = (len(losses) - 1) // CHECK_STEPS * CHECK_STEPS
    finite = torch.isfinite(torch.stack(list(losses[first:]))).tolist()
    if all(finite):
        return
    step = first + finite.index(False)  # the same on all processes, as the loss is
    mine = [train.names[place] for place in seen[step].tolist()]
    names = ", ".join(name for names in ranks.everyone(mine) for name in names)
    if not ranks.first:
        raise RefusedError("the loss is not finite")
    raise DivergedError(
        f"the loss was {losses[step].item()} in epoch {epoch}, step {step + 1} (images {names}): "
        "lower optimizer.lr, or set training.clip_gradient to 1."
    )


def stopped(progress: Progress, ranks: Ranks) -> bool:
    """Whether the run shall end now: one process that is told so is enough, and all get the same answer."""
    if not ranks.any(progress.stop):
        return False
    if not ranks.alone:
        progress.reason = next((reason for reason in ranks.everyone(progress.reason) if reason), "")
        progress.stop = True
    return True


def no_logits(batch: Batch, head: Head) -> Tensor:
    """Logits of a batch without an image, (0, channels, *S)."""
    outputs = channels(head, batch.truth.shape[1])
    return batch.image.new_zeros((0, outputs, *batch.image.shape[2:]), requires_grad=True)


def masks_of(
    state: dict[str, Any], loader: Loader, change: Callable[[Tensor, Sequence[int]], Tensor]
) -> dict[str, Any]:
    """A modulation's state with its packed masks changed: to those of all images, or of this process's."""
    lengths = (loader.frames.prod(dim=1) // BYTE).tolist()
    return {key: change(x, lengths) if isinstance(x, Tensor) else x for key, x in state.items()}


def behind_best(monitored: Sequence[float]) -> list[int]:
    """For each epoch, how many epochs lie between it and the best monitored loss until then."""
    best, since, behind = math.inf, 0, []
    for loss in monitored:
        since = 0 if loss < best else since + 1
        best = min(best, loss)
        behind.append(since)
    return behind
