"""Every network of the registry at a size that a test has time for."""

from typing import Any

import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.models.specs import Network, able
from engine.schema import choices

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"base_width": 4, "depth": 2},
    "segnet": {"base_width": 4},
    "semantic_fpn": {"base_width": 4, "pyramid_width": 8},
    "attention_unet": {"base_width": 4, "depth": 2},
    "unet_plus_plus": {"base_width": 2},
    "segresnet": {"base_width": 8, "depth": 2},
    "swin_unetr": {"base_width": 12},
}
"""Settings that make each network small. A new network joins the tests by its line here."""
NAMES = list(choices(RunConfig, "model"))
IN_3D = [name for name, part in choices(RunConfig, "model").items() if 3 in able(part)]


def spec(name: str, **settings: Any) -> Network:
    """A network's settings, small where nothing else is said."""
    part = choices(RunConfig, "model")[name]
    made = part.model_validate({**SMALL[name], **settings})
    assert isinstance(made, Network)
    return made


def build(name: str, inputs: int = 1, outputs: int = 1, seed: int = 0, **settings: Any) -> nn.Module:
    """A small network with the starting weights of a seed."""
    torch.manual_seed(seed)
    network: nn.Module = spec(name, **settings).bind()(inputs, outputs)
    return network


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(network: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in network.parameters())
