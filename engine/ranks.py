"""Several processes that train one network, as `torchrun` starts them: which images each has, and what they
tell each other.

Image i of a split belongs to slot i mod batch, and a process has every slot that is its rank modulo the
number of processes. That number divides the batch, so image i belongs to rank i mod processes. A process that
is alone sends nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.errors import InputError, RefusedError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another, which may be decoding many images, before it gives up."""


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train together.

    Attributes:
        rank: 0…size-1.
        size: number of processes.
        local: rank among those of this host.
        local_size: number of those of this host.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the run directory and speaks to the user."""
        return self.rank == 0

    def has(self, number: int) -> bool:
        """Whether image `number` of a split is this process's."""
        return number % self.size == self.rank

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of what all images of a split have."""
        return items[self.rank :: self.size]

    def place(self, number: int) -> int:
        """Where this process keeps an image that it has."""
        return number // self.size

    def numbers(self, places: Tensor) -> Tensor:
        """Numbers of images in their split, int64, by where this process keeps them."""
        return places if self.alone else places * self.size + self.rank

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over the processes, on its device; in place of it."""
        if not self.alone:
            dist.all_reduce(x)
        return x

    def any(self, flag: bool) -> bool:
        """Whether any process says so. All come to the same answer."""
        if self.alone:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def everyone(self, value: T) -> list[T]:
        """What each process says, in order of rank; small things."""
        if self.alone:
            return [value]
        said: list[Any] = [None] * self.size
        dist.all_gather_object(said, value)
        return said

    def told(self, say: Callable[[], T]) -> T:
        """What the first process says; if it refuses, or cannot read or write, RefusedError on the others."""
        if self.alone:
            return say()
        said: list[Any] = [None, ""]
        error: InputError | OSError | None = None
        if self.first:
            try:
                said[0] = say()
            except (InputError, OSError) as refusal:
                error, said[1] = refusal, str(refusal)
        dist.broadcast_object_list(said)
        if error is not None:
            raise error
        if said[1]:
            raise RefusedError(said[1])
        value: T = said[0]
        return value

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What one process refuses in the block, or cannot read or write, ends all; in it, processes must not
        wait for each other.

        Raises:
            InputError: on the first process, what the lowest rank that refused said.
            OSError: on the first process, its own.
            RefusedError: on the others.
        """
        refusal: InputError | OSError | None = None
        try:
            yield
        except (InputError, OSError) as error:
            if self.alone:
                raise
            refusal = error
        said = [text for text in self.everyone(str(refusal) if refusal is not None else "") if text]
        if said and self.first:
            raise refusal if refusal is not None else InputError(said[0])
        if said:
            raise RefusedError(said[0])

    def merged(self, mine: Sequence[T]) -> list[T]:
        """On the first process, what the images of a split have, in their order; else nothing.

        Args:
            mine: of those images that this process has, in their order.
        """
        if self.alone:
            return list(mine)
        parts: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(list(mine), parts)
        return [] if parts is None else self._dealt(parts)

    def of_all(self, mine: Sequence[T]) -> list[T]:
        """The same on every process; small things."""
        return self._dealt(self.everyone(mine))

    def _dealt(self, parts: Sequence[Sequence[T]]) -> list[T]:
        """What was dealt to the processes one by one, in its order."""
        return [parts[number % self.size][number // self.size] for number in range(sum(map(len, parts)))]

    def whole(self, bits: Tensor, lengths: Sequence[int]) -> Tensor:
        """On the first process, packed masks of all images in their order, on the CPU; else its own.

        Args:
            bits: uint8 (C, bytes of this process's images).
            lengths: bytes of every image of the split.
        """
        if self.alone:
            return bits
        mine = bits.cpu().contiguous()
        if not self.first:
            dist.send(mine, 0)
            return bits
        whole = torch.empty((len(mine), sum(lengths)), dtype=torch.uint8)
        places = torch.split(whole, list(lengths), dim=1)
        for rank in range(self.size):
            theirs = list(lengths[rank :: self.size])
            part = mine
            if rank:
                part = torch.empty((len(mine), sum(theirs)), dtype=torch.uint8)
                dist.recv(part, rank)
            for place, piece in zip(places[rank :: self.size], torch.split(part, theirs, dim=1), strict=True):
                place.copy_(piece)
        return whole

    def part(self, bits: Tensor, lengths: Sequence[int]) -> Tensor:
        """This process's packed masks, from the first's of all images; the others need give no more than the
        number of classes, (C, 0). Arguments as of :meth:`whole`."""
        if self.alone:
            return bits
        if not self.first:
            mine = torch.empty((len(bits), sum(self.own(list(lengths)))), dtype=torch.uint8)
            dist.recv(mine, 0)
            return mine
        pieces = torch.split(bits, list(lengths), dim=1)
        for rank in range(1, self.size):
            dist.send(torch.cat(pieces[rank :: self.size], dim=1), rank)
        return torch.cat(pieces[:: self.size], dim=1)

    def alike(self, network: nn.Module) -> None:
        """Give all processes the first one's weights and buffers."""
        if not self.alone:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, 0)

    @contextmanager
    def summing(self) -> Iterator[None]:
        """For a block, :func:`together` adds up over the processes; all must come to the same calls."""
        global _SUMMING
        before, _SUMMING = _SUMMING, not self.alone
        try:
            yield
        finally:
            _SUMMING = before


ALONE = Ranks()
_SUMMING = False


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Each process has the whole loss; what it depends on here is this process's part alone. The
        # gradients of the weights are added up afterwards.
        return gradient


def together(x: Tensor) -> Tensor:
    """The sum of a tensor over the processes of a training step, to be differentiated; x itself elsewhere."""
    if not _SUMMING:
        return x
    total: Tensor = _Together.apply(x)  # type: ignore[no-untyped-call]
    return total


def average(total: Tensor, count: Tensor | int) -> Tensor:
    """total / count, each summed over the processes of a training step; 0 where there is nothing.

    Args:
        total: scalar.
        count: what it is the total of; integer.
    """
    if not _SUMMING:
        return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))
    # One message for both; float64 counts every pixel.
    number = count.double() if isinstance(count, Tensor) else total.new_tensor(count, dtype=torch.float64)
    both = together(torch.stack([total.double(), number]))
    return (both[0] / both[1].detach().clamp(min=1)).to(total.dtype)


class Gradients:
    """Adds the gradients of a network up over the processes, in one message after each backward pass.

    In one piece and always in the same order, so that a run that is resumed adds up as one that was not:
    DistributedDataParallel finds its buckets anew at each start, and does not bear a process that has no
    image in a step.
    """

    def __init__(self, network: nn.Module, ranks: Ranks) -> None:
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._ranks = ranks
        self._used: list[nn.Parameter] | None = None

    def sum(self) -> None:
        """After the backward pass: each parameter's gradient becomes the sum over all processes."""
        if self._ranks.alone:
            return
        if self._used is None:
            # A process without an image in this step does not know which parameters have a gradient.
            said = self._ranks.everyone([p.grad is not None for p in self._parameters])
            self._used = [p for p, *has in zip(self._parameters, *said, strict=True) if any(has)]
        grads = []
        for parameter in self._used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grads.append(parameter.grad)
        flat = self._ranks.sum(torch.cat([grad.reshape(-1) for grad in grads]))
        for grad, total in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
            grad.copy_(total.view(grad.shape))


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` has started, for a block; alone without it.

    Raises:
        InputError: the processes do not find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    # Numbers and names go by gloo, tensors on GPUs by NCCL.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"{size} processes are to train together, but do not find each other at {where} ({reason}): "
            "start them with torchrun, on hosts that reach that address."
        ) from None
    try:
        yield Ranks(
            rank=dist.get_rank(),
            size=size,
            local=int(os.environ.get("LOCAL_RANK", "0")),
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        )
    finally:
        dist.destroy_process_group()
