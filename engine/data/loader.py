"""The loader: which windows an epoch visits, and in which order."""

from collections.abc import Iterator
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread
from typing import TypeVar

import torch
from torch import Tensor

from engine.bits import BYTE, Window
from engine.data.chance import Stream, order, uniforms
from engine.data.images import Images
from engine.data.store import Frames

T = TypeVar("T")


@dataclass(frozen=True)
class Loader:
    """The training windows of a store: whole frames where they have the window's size, else crops.

    In an epoch each image is covered by as many crops as fit side by side, on a grid that lies
    elsewhere in each epoch, so no pixel is visited twice; `limit` takes a random part of them, in which
    those that hold a class are as frequent as `foreground` says.

    Attributes:
        store: the training images.
        size: (H, W) or (D, H, W) of a window.
        batch: windows in a step; the last step takes what is left.
        limit: crops from an image in an epoch at the most, or None.
        foreground: where `limit` leaves crops out, the share of those taken that shall hold a class.
        seed: of the run.
        device: where batches are wanted.
    """

    store: Images
    size: tuple[int, ...]
    batch: int
    limit: int | None
    seed: int
    device: torch.device
    foreground: float = 0.0

    @property
    def _fitting(self) -> Tensor:
        """int64 (N, D): windows that fit side by side along each axis, one where the image is smaller."""
        return (self.store.shapes.cpu() // torch.tensor(self.size)).clamp(min=1)

    @property
    def windows(self) -> int:
        """Windows in an epoch."""
        return int(self._counts.sum())

    @property
    def _counts(self) -> Tensor:
        counts = self._fitting.prod(dim=1)
        return counts if self.limit is None else counts.clamp(max=self.limit)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.windows // self.batch)

    @property
    def revisits(self) -> bool:
        """Whether some image gives several windows an epoch."""
        return bool((self._counts > 1).any())

    def epoch(self, epoch: int) -> Iterator[Frames]:
        """The batches of epoch 1…E. They depend on seed and epoch alone."""
        ids, slots, corners = self._plan(epoch)
        shuffled = order(self.seed, epoch, len(ids))

        def batches() -> Iterator[Frames]:
            for start in range(0, len(shuffled), self.batch):
                chosen = shuffled[start : start + self.batch]
                window = Window(ids[chosen], corners[chosen], self.size)
                yield self.store.read(window, slots[chosen], self.device)

        # Reading ahead pays where pixels come from a file or go to another device.
        elsewhere = self.store.device.type != self.device.type or self.store.mapped
        return ahead(batches()) if elsewhere else batches()

    def _plan(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image, slot in its grid and corner of each window of the epoch, ordered by image."""
        counts = self._fitting.prod(dim=1)
        ids = torch.repeat_interleave(torch.arange(len(counts)), counts)
        slots = torch.arange(len(ids)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        corners = self._grid(epoch)[ids] + self._cells(ids, slots) * torch.tensor(self.size)
        if self.limit is None or not bool((counts > self.limit).any()):
            return ids, slots, corners
        rank = uniforms(self.seed, epoch, ids, slots + 1, 1, Stream.CROP)[:, 0]
        if self.foreground:
            rank = rank - self._promoted(epoch, ids, corners, rank)
        kept = places(ids, rank) < self.limit
        return ids[kept], slots[kept], corners[kept]

    def _promoted(self, epoch: int, ids: Tensor, corners: Tensor, rank: Tensor) -> Tensor:
        """float64 (windows,): 1 for those that go before all others of their image, as they hold a class."""
        assert self.limit is not None
        images = torch.arange(len(self.store))
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

    def _grid(self, epoch: int) -> Tensor:
        """int64 (N, D): where the grid of each image begins in an epoch."""
        fitting, shapes = self._fitting, self.store.shapes.cpu()
        images, axes = torch.arange(len(shapes)), len(self.size)
        place = uniforms(self.seed, epoch, images, torch.zeros_like(images), axes, Stream.CROP)
        slack = (shapes - fitting * torch.tensor(self.size)).clamp(min=0)
        # Drawn from beyond both ends and clamped, so that the border, where few grids lie, is seen often.
        # Rounded to the nearest place, so that both ends are as likely.
        beyond = torch.tensor(self.size) / 4
        start = (place * (slack + 2 * beyond) - beyond).clamp(min=0).minimum(slack)
        unit = torch.tensor([*[1] * (axes - 1), BYTE])
        return (start / unit).round().long() * unit

    def _cells(self, ids: Tensor, slots: Tensor) -> Tensor:
        """int64 (windows, D): the place of each window in its image's grid."""
        fitting, cells = self._fitting[ids], []
        for axis in reversed(range(len(self.size))):
            cells.append(slots % fitting[:, axis])
            slots = slots // fitting[:, axis]
        return torch.stack(cells[::-1], dim=1)


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
