"""Three tiny runs of a comparison of two methods by two seeds, scored: one is missing."""

from pathlib import Path

import pytest
import tomli_w
from support import FAST

from engine import evaluate, flags, train
from engine.comparison.grid import Comparison, load


@pytest.fixture(scope="session")
def tiny(vessels: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Dice by seeds 0 and 1, cross-entropy by seed 0 for one epoch less; not to be written into."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = flags.parse([flag for flag in FAST if flag != "--quiet"])
    settings["training"]["epochs"] = 3
    document = {
        "title": "Tiny", "seeds": [0, 1], "size": "trained", "spread": "std",
        "metrics": ["dice", "cldice", "nll", "lesion_recall", "inference_ms"],
        "settings": settings | {"modulation": {"name": "none"}, "watch": {"train": 0, "val": 0}},
        "data": {"vessels": {"data": {"root": str(vessels), "size": [32, 40]}}},
        "methods": {
            "Dice": {"loss": {"name": "dice"}},
            "CE": {"loss": {"name": "binary_cross_entropy"}, "training": {"epochs": 2}},
        },
    }  # fmt: skip
    (folder / "tiny.toml").write_text(tomli_w.dumps(document), "utf-8")
    made = load(folder / "tiny.toml", folder / "out")
    for cell in made.cells[:3]:
        assert train.start(cell.config, cell.folder, quiet=True) == 0
    runs = [str(cell.folder) for cell in made.cells[:3]]
    assert evaluate.main([*runs, "--size=trained", "--no-figures", "--device=cpu"]) == 0
    return made
