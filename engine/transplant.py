"""Weights of one network put into another of the same kind, whose head may mean other classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engine.head import Head, channels
from engine.models.specs import Network

Shapes = dict[str, tuple[int, ...]]
"""Name → shape of each tensor of a network's state."""


@dataclass(frozen=True)
class Meaning:
    """What the output channels of a network mean.

    Attributes:
        head: of the network.
        classes: names of its C foreground classes, in order.
    """

    head: Head
    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Output channels."""
        return channels(self.head, len(self.classes))

    def place(self, name: str) -> int:
        """The output channel of a class."""
        return self.classes.index(name) + (self.head == "softmax")


class _Weightless(TorchFunctionMode):
    """Makes tensors that modules keep without memory for their values.

    A whole constructor under ``torch.device("meta")`` would fail where it computes with numbers, as Swin
    transformers do.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones) and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


def empty_network(model: Network, image_channels: int, outputs: int, dims: int) -> nn.Module:
    """A network whose tensors have shapes and no values; it takes no memory, and no random number."""
    with _Weightless():
        network: nn.Module = model.from_scratch().of_dims(dims).bind()(image_channels, outputs)
    return network


def shapes(model: Network, image_channels: int, outputs: int, dims: int) -> Shapes:
    """Shapes of a network's state."""
    state = empty_network(model, image_channels, outputs, dims).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def head_keys(model: Network, image_channels: int, outputs: int, dims: int) -> tuple[str, ...]:
    """Names of the tensors whose shape follows from the number of outputs: the head's weights and bias.

    In all of them the outputs lie along the first axis, and belong to one layer that is linear, the last:
    what :func:`rows` does is right for no other.
    """
    one, more = (shapes(model, image_channels, count, dims) for count in (outputs, outputs + 1))
    keys = tuple(key for key, shape in one.items() if more[key] != shape)
    assert len({key.rpartition(".")[0] for key in keys}) == 1, keys
    assert all(more[key] == (outputs + 1, *one[key][1:]) for key in keys), keys
    return keys


def first_difference(
    mine: Network, theirs: Network, image_channels: int, outputs: int, dims: int
) -> str | None:
    """The first setting in which a network differs from another so that its weights have other shapes.

    Args:
        mine: the network that is to take weights.
        theirs: that whose weights they are.
        image_channels, outputs, dims: of both.

    Returns:
        Name of the setting of ``mine``; None if none alone does.
    """
    if type(mine) is not type(theirs):
        return "name"
    fitting = shapes(theirs, image_channels, outputs, dims)
    for key in type(mine).model_fields:
        value = getattr(mine, key)
        if key == "weights" or value == getattr(theirs, key):
            continue
        if shapes(theirs.model_copy(update={key: value}), image_channels, outputs, dims) != fitting:
            return key
    return None


def transplanted(
    learned: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    keys: Sequence[str],
    old: Meaning,
    new: Meaning,
) -> dict[str, Tensor]:
    """The state of a network that starts from another's: its weights and statistics, and a head that fits.

    Args:
        learned: the state of the network to start from.
        fresh: the state of a new one.
        keys: of the head, by :func:`head_keys`.
        old, new: what their output channels mean.
    """
    heads = {key: rows(learned[key], fresh[key], old, new) for key in keys}
    return {**learned, **heads}


def rows(learned: Tensor, fresh: Tensor, old: Meaning, new: Meaning) -> Tensor:
    """A tensor of a head, (outputs, …), for other classes.

    A class of the same name keeps its row; other classes start as in a fresh network. So in a sigmoid head,
    whose classes know nothing of each other, p of a kept class stays as it was. A softmax head keeps the odds
    p_c / p_background of each kept class, and so p where no class is new or gone. From one to the other:

    - sigmoid to softmax: z becomes softmax of [0, z], the background's row is 0. Odds against background
      stay, and p where there is one class.
    - softmax to sigmoid: z_c - z_background. Again odds against background, p_c / p_background, become
      p / (1 - p), and p stays where there is one class.

    Args:
        learned: of the network to start from; a weight or a bias.
        fresh: of a new one; gives dtype and device.
        old, new: what the rows mean.
    """
    made = fresh.clone()
    learned = learned.to(fresh)
    if new.head == "softmax":
        made[0] = learned[0] if old.head == "softmax" else 0
    for name in new.classes:
        if name not in old.classes:
            continue
        row = learned[old.place(name)]
        if (old.head, new.head) == ("softmax", "sigmoid"):
            row = row - learned[0]
        made[new.place(name)] = row
    return made
