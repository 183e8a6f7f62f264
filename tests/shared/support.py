"""What several test files share: fast settings, writing pairs, reading events."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FAST = (
    "--quiet", "--data.patch=32", "--model.base_width=4", "--model.depth=2", "--training.threads=1",
    "--training.device=cpu", "--optimizer.lr=0.01",
)  # fmt: skip
"""Settings that make a training step take milliseconds."""


def fast(*settings: str) -> list[str]:
    """FAST, with settings of its own where a test gives them."""
    given = {setting.partition("=")[0] for setting in settings}
    return [*(flag for flag in FAST if flag.partition("=")[0] not in given), *settings]


MOMENTS = frozenset({"time", "pid", "host", "seconds", "resumed_after"})
"""What may differ between the events of two equal runs."""


def write_pair(root: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """Write images/name.png and masks/name.png."""
    for folder, array in (("images", image), ("masks", mask)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / folder / f"{name}.png")


def events(run: Path) -> list[dict[str, Any]]:
    """A run's events without what may differ between equal runs."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in MOMENTS} for line in lines]
