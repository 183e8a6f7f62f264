"""The network as one graph from normalised images to foreground probabilities."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.head import Head, foreground
from engine.trained import Trained

LEAST = 2
"""Multiples to which an image is padded at least, as :func:`engine.models.padding.pad` does."""
FIXED = frozenset({"swin_unetr"})
"""Networks whose graph holds for one size alone. Swin's windows, and which patches of a shifted one belong
together, are reckoned in Python from the size, and so become constants."""
INPUT, OUTPUT = "image", "probability"
AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}


class Portable(nn.Module):
    """A network with its padding and its head: normalised images to foreground probabilities.

    It pads as the network itself does, by arithmetic that stays in a graph: the network's own is a branch on
    the size, and would be that of one size for ever.

    Args:
        network: one of the registry, in evaluation mode; a copy of it is taken, on the CPU.
        head: what its logits mean.
    """

    def __init__(self, network: nn.Module, head: Head) -> None:
        super().__init__()
        self.multiple = cast(int, network.multiple)
        self.head = head
        plain: Any = deepcopy(network).cpu()
        self.network = plain.to(memory_format=torch.contiguous_format)
        self.network.multiple = 0
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Foreground probabilities float32 (B, C, *S) of normalised images float32 (B, channels, *S)."""
        padded = image
        for axis, size in enumerate(image.shape[2:], start=2):
            padded = padded.index_select(axis, _padded(size, self.multiple))
        logits = self.network(padded)
        for axis, size in enumerate(image.shape[2:], start=2):
            logits = logits.narrow(axis, 0, size)
        return foreground(logits, self.head)


def _padded(size: int, multiple: int) -> Tensor:
    """Places along an axis of a size after padding: int64, the last one over again at the end."""
    # In a trace sizes are tensors.
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        last = torch.as_tensor(size)
        whole: Any = torch.clamp((last + multiple - 1) // multiple, min=LEAST) * multiple
        return torch.minimum(torch.arange(whole), last - 1)
    blocks: Any = torch.sym_max(LEAST, (size + multiple - 1) // multiple)  # type: ignore[no-untyped-call]
    if isinstance(blocks, torch.SymInt):
        # A number of its own, so that the sizes of all maps are plain multiples of it: what a maximum would
        # make of them, no algebra could tell to be equal where maps meet.
        blocks = torch.full((), cast(int, blocks), dtype=torch.int64).item()
        torch._check(blocks >= LEAST)  # type: ignore[no-untyped-call]
        torch._check(blocks * multiple >= size)  # type: ignore[no-untyped-call]
    return torch.arange(blocks * multiple).clamp(max=size - 1)


@dataclass(frozen=True)
class Graph:
    """What is exported.

    Attributes:
        module: the whole way from normalised images to probabilities.
        channels: of the images.
        dims: length of S.
        fixed: the only S that the graph takes; None for any.
    """

    module: Portable
    channels: int
    dims: int
    fixed: tuple[int, ...] | None

    @classmethod
    def of(cls, trained: Trained) -> "Graph":
        """The graph of a run. Where only one size can be, it is that of what training saw."""
        module = Portable(trained.predictor.network, trained.predictor.head)
        fixed = None
        if trained.config.model.name in FIXED:
            window = trained.config.data.window(trained.dims)
            fixed = tuple(max(LEAST, -(-size // module.multiple)) * module.multiple for size in window)
        return cls(module, trained.channels, trained.dims, fixed)

    @property
    def example(self) -> Tensor:
        """Images to follow through the network, of unequal sides that need padding."""
        sides = self.fixed or tuple(LEAST * self.module.multiple + 1 + 2 * axis for axis in range(self.dims))
        return torch.randn((2, self.channels, *sides), generator=torch.Generator().manual_seed(0))

    @property
    def free(self) -> dict[int, str]:
        """Axes of any length → their names: batch, and those of S."""
        names = {0: "batch"}
        if self.fixed is None:
            names |= dict(enumerate(AXES[self.dims], start=2))
        return names
