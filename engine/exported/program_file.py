"""The graph as a file of torch.export (.pt2), and torch that runs it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.exported.graph import INPUT, Graph

METADATA = "napari-smm.json"
"""Name of the description inside the file."""


def write(path: Path, graph: Graph, description: Mapping[str, Any]) -> None:
    """Write an exported program with the description inside, which :func:`torch.export.load` gives back."""
    free: dict[int, Any] = dict.fromkeys(graph.free, torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(
            graph.module, (graph.example,), dynamic_shapes={INPUT: free},
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
    text = json.dumps(description, indent=2, ensure_ascii=False)
    torch.export.save(program, path, extra_files={METADATA: text})


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """What the file makes of images: (B, channels, *S) to (B, C, *S)."""
    module = torch.export.load(path).module()

    def run(image: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(image)
        return found

    return run


def runtime() -> str:
    """Name and version of what runs the file."""
    return f"torch {torch.__version__}"
