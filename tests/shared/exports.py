"""Runs that were never trained, for tests of what is made of runs."""

from pathlib import Path
from typing import Any

import torch
from networks import SMALL

from engine.config import Layer, resolve
from engine.infer import Predictor
from engine.prepare import build_network
from engine.trained import Trained


def untrained(
    root: Path,
    name: str = "unet",
    *,
    channels: int = 1,
    classes: tuple[str, ...] = ("cell",),
    dims: int = 2,
    **settings: dict[str, Any],
) -> Trained:
    """A run with the starting weights of a small network; settings are groups of a config."""
    given = {"modulation": {"name": "none"}, **settings, "model": {"name": name, **SMALL[name]}}
    config, _ = resolve([Layer("test", given)])
    network = build_network(config, channels, len(classes), torch.device("cpu"), dims).eval()
    tile = config.prediction.tile_of(dims)
    predictor = Predictor(network, config.head(len(classes)), torch.device("cpu"), None, tile, 0.25)
    info = {
        "engine": "0.1.0",
        "splits": {},
        "dataset": {"classes": list(classes), "channels": channels, "dims": dims, "fingerprint": "none"},
    }
    root.mkdir(parents=True, exist_ok=True)
    return Trained(root, config, info, classes, predictor, 3, "last")
