"""The loader: which windows an epoch visits, and in which order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from queue import Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.bits import BYTE, Window
from engine.data.chance import Stream, bits, uniforms
from engine.data.images import Images
from engine.data.store import Frames
from engine.ranks import ALONE, Ranks

T = TypeVar("T")


@dataclass(frozen=True)
class Loader:
    """The training windows of a store: whole frames where they have the window's size, else crops.

    In an epoch each image is covered by as many crops as fit side by side, on a grid that lies
    elsewhere in each epoch, so no pixel is visited twice; `limit` takes a random part of them, in which
    those that hold a class are as frequent as `foreground` says.

    Image i belongs to slot i mod batch, its windows too. A step takes a window of each slot; where slots have
    run dry, others give more, so that only the last step is smaller. Within its slot a window comes at
    random. So a batch does not depend on how many processes share the slots (:class:`engine.ranks.Ranks`).

    Attributes:
        store: the training images that this process has.
        size: (H, W) or (D, H, W) of a window.
        batch: windows in a step, of all processes together; the last step takes what is left.
        limit: crops from an image in an epoch at the most, or None.
        foreground: where `limit` leaves crops out, the share of those taken that shall hold a class.
        seed: of the run.
        device: where batches are wanted.
        ranks: the processes that share the images.
        shapes: int64 (N, D), frames of all training images; None if this process has them all.
    """

    store: Images
    size: tuple[int, ...]
    batch: int
    limit: int | None
    seed: int
    device: torch.device
    foreground: float = 0.0
    ranks: Ranks = ALONE
    shapes: Tensor | None = None

    def _fitting(self, shapes: Tensor) -> Tensor:
        """int64 (N, D): windows that fit side by side along each axis, one where the image is smaller."""
        return (shapes.cpu() // torch.tensor(self.size)).clamp(min=1)

    @property
    def frames(self) -> Tensor:
        """int64 (N, D) on the CPU, frames of all training images."""
        return self.store.shapes.cpu() if self.shapes is None else self.shapes

    @cached_property
    def _counts(self) -> Tensor:
        """int64 (N,): windows in an epoch of each image, those of other processes too."""
        counts = self._fitting(self.frames).prod(dim=1)
        return counts if self.limit is None else counts.clamp(max=self.limit)

    @property
    def windows(self) -> int:
        """Windows in an epoch."""
        return int(self._counts.sum())

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.windows // self.batch)

    @property
    def revisits(self) -> bool:
        """Whether some image gives several windows an epoch."""
        return bool((self._counts > 1).any())

    @cached_property
    def _dealt(self) -> Tensor:
        """int64 (steps, batch): windows that each slot gives in each step; the same in every epoch."""
        slots = torch.arange(len(self._counts)) % self.batch
        held = torch.zeros(self.batch, dtype=torch.int64).index_add_(0, slots, self._counts)
        return torch.from_numpy(deal(held.numpy(), self.batch))

    @property
    def batches(self) -> Tensor:
        """int64 (steps,): windows in each step, those of other processes too."""
        return self._dealt.sum(dim=1)

    def epoch(self, epoch: int) -> Iterator[Frames]:
        """The batches of epoch 1…E, of which other processes have their part. They depend on seed and epoch
        alone. A batch has no image where all of it is others'."""
        ids, cells, corners = self._plan(epoch)
        given = self._dealt[:, self.ranks.rank :: self.ranks.size]
        order = self._order(epoch, ids, cells, given)
        ends = given.sum(dim=1).cumsum(0).tolist()

        def batches() -> Iterator[Frames]:
            for start, end in zip([0, *ends], ends, strict=False):
                chosen = order[start:end]
                window = Window(ids[chosen], corners[chosen], self.size)
                yield self.store.read(window, cells[chosen], self.device)

        # Reading ahead pays where pixels come from a file or go to another device.
        elsewhere = self.store.device.type != self.device.type or self.store.mapped
        return ahead(batches()) if elsewhere else batches()

    def _order(self, epoch: int, ids: Tensor, cells: Tensor, given: Tensor) -> Tensor:
        """int64 (windows,): this process's windows, one batch behind the other.

        Args:
            epoch: 1…E.
            ids, cells: of the windows.
            given: int64 (steps, own slots), windows that each of its slots gives in each step.
        """
        numbers = self.ranks.numbers(ids)
        chance = bits(self.seed, epoch, numbers, cells, 1, Stream.ORDER)[:, 0].argsort(stable=True)
        # The windows slot by slot, each slot's in random order, and the places that each slot has, in theirs.
        windows = chance[(numbers[chance] % self.batch).argsort(stable=True)]
        slots = torch.arange(given.shape[1]).repeat(len(given)).repeat_interleave(given.flatten())
        return torch.empty_like(windows).index_copy_(0, slots.argsort(stable=True), windows)

    def _plan(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Place of the image, cell of its grid and corner of each own window, ordered by image."""
        fitting = self._fitting(self.store.shapes)
        counts = fitting.prod(dim=1)
        ids = torch.repeat_interleave(torch.arange(len(counts)), counts)
        cells = torch.arange(len(ids)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        corners = self._grid(epoch, fitting)[ids] + along_axes(cells, fitting[ids]) * torch.tensor(self.size)
        if self.limit is None or not bool((counts > self.limit).any()):
            return ids, cells, corners
        rank = uniforms(self.seed, epoch, self.ranks.numbers(ids), cells + 1, 1, Stream.CROP)[:, 0]
        if self.foreground:
            rank = rank - self._promoted(epoch, ids, corners, rank)
        kept = places(ids, rank) < self.limit
        return ids[kept], cells[kept], corners[kept]

    def _promoted(self, epoch: int, ids: Tensor, corners: Tensor, rank: Tensor) -> Tensor:
        """float64 (windows,): 1 for those that go before all others of their image, as they hold a class."""
        assert self.limit is not None
        images = self.ranks.numbers(torch.arange(len(self.store)))
        # As many as the share says; whether what is left of one makes another is drawn for each image.
        rest = uniforms(self.seed, epoch, images, torch.zeros_like(images), 4, Stream.CROP)[:, 3]
        wanted = (self.limit * self.foreground + rest).floor()
        held = self.store.may_hold(ids, corners, self.size)
        asked = torch.zeros_like(held)
        while True:  # only those that would go first are asked for certain, which may mean reading a file
            first = held & (places(ids, torch.where(held, rank, rank + 1)) < wanted[ids])
            unsure = first & ~asked
            if not bool(unsure.any()):
                return first.double()
            held[unsure] = self.store.holds(ids[unsure], corners[unsure], self.size)
            asked |= unsure

    def _grid(self, epoch: int, fitting: Tensor) -> Tensor:
        """int64 (N, D): where the grid of each image begins in an epoch."""
        shapes = self.store.shapes.cpu()
        images, axes = self.ranks.numbers(torch.arange(len(shapes))), len(self.size)
        place = uniforms(self.seed, epoch, images, torch.zeros_like(images), axes, Stream.CROP)
        slack = (shapes - fitting * torch.tensor(self.size)).clamp(min=0)
        # Drawn from beyond both ends and clamped, so that the border, where few grids lie, is seen often.
        # Rounded to the nearest place, so that both ends are as likely.
        beyond = torch.tensor(self.size) / 4
        start = (place * (slack + 2 * beyond) - beyond).clamp(min=0).minimum(slack)
        unit = torch.tensor([*[1] * (axes - 1), BYTE])
        return (start / unit).round().long() * unit


def along_axes(cells: Tensor, fitting: Tensor) -> Tensor:
    """int64 (windows, D): the place of each window in its image's grid, of (windows, D) cells."""
    found = []
    for axis in reversed(range(fitting.shape[1])):
        found.append(cells % fitting[:, axis])
        cells = cells // fitting[:, axis]
    return torch.stack(found[::-1], dim=1)


def deal(held: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """How many windows each slot gives in each step: one, and the fullest slots more where others are empty.

    Args:
        held: int64 (slots,), windows of each slot.
        batch: windows in a step, the last of which takes what is left.

    Returns:
        int64 (steps, slots).
    """
    left = held.copy()
    common = int(left.min()) if len(left) == batch else 0
    steps = [np.ones((common, len(left)), np.int64)]
    left -= common
    while left.any():
        taken = (left > 0).astype(np.int64)
        while taken.sum() < min(batch, left.sum()):
            taken[(left - taken).argmax()] += 1
        steps.append(taken[None])
        left -= taken
    return np.concatenate(steps)


def places(ids: Tensor, rank: Tensor) -> Tensor:
    """Place of each window among those of its image, int64 (windows,), 0 for the lowest rank.

    Args:
        ids: int64 (windows,), ascending.
        rank: float64 (windows,), in [-1, 2); equal ones in their order.
    """
    counts = torch.bincount(ids)
    by_image = torch.argsort(rank + 3 * ids, stable=True)
    place = torch.empty_like(ids)
    place[by_image] = torch.arange(len(ids)) - (counts.cumsum(0) - counts)[ids[by_image]]
    return place


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items, prepared by a thread up to `depth` in advance. Errors surface where they would have."""
    queue: Queue[tuple[str, T | BaseException | None]] = Queue(depth)
    done = Event()

    def work() -> None:
        try:
            for item in items:
                queue.put(("item", item))
                if done.is_set():
                    return
            queue.put(("end", None))
        except BaseException as error:
            queue.put(("error", error))

    thread = Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = queue.get()
            if kind == "error":
                assert isinstance(item, BaseException)
                raise item
            if kind == "end":
                return
            yield item  # type: ignore[misc]
    finally:
        done.set()
        while thread.is_alive():
            while not queue.empty():
                queue.get_nowait()
            thread.join(timeout=0.01)
