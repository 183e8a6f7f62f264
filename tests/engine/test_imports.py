"""What a viewer needs of the engine, it can have without torch; and the engine never has a window."""

import json
import subprocess
import sys
from pathlib import Path

import engine

ROOT = Path(engine.__file__).parents[1]
LIGHT = [
    *(f"engine.{name}" for name in ("config", "spec", "schema", "flags", "record", "lock", "disk", "head")),
    *("engine.errors", "engine.optim", "engine.modulation.recall_trend", "engine.thresholds"),
    "engine.figures.verdicts",
    *(f"engine.{file.parent.name}.specs" for file in sorted(ROOT.glob("engine/*/specs.py"))),
]
HEAVY = ("torch", "napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "matplotlib")
LATER = ("torch._dynamo", "h5py", "scipy.io", "nibabel", "SimpleITK", "dask", "pandas")
"""What takes its time to load, and only some images or commands need."""


def loaded(code: str) -> set[str]:
    """Which of the heavy packages are loaded after some code, in a process of its own."""
    ask = f"import sys, json\n{code}\nprint(json.dumps([n for n in {HEAVY + LATER!r} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ask], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout))


def test_what_a_viewer_needs_loads_no_torch() -> None:
    assert len(LIGHT) >= 15
    assert loaded(f"import {', '.join(LIGHT)}; from engine.modulation import recall_slope") == set()


def test_the_help_and_a_resolved_config_load_no_torch() -> None:
    assert (
        loaded("from engine import flags, config; flags.describe(); config.to_toml(config.resolve([])[0])")
        == set()
    )


def test_training_loads_no_window_and_nothing_that_it_may_not_need() -> None:
    assert loaded("import engine.loop, engine.train") == {"torch"}


def test_a_step_of_training_does_not_load_torchs_compiler() -> None:
    step = (
        "import torch; from engine.device import arithmetic; from engine.optim import Adam\n"
        "x = torch.ones(3, requires_grad=True)\n"
        "with arithmetic(None, True):\n"
        "    optimizer = Adam().bind()([x]); optimizer.zero_grad(); x.sum().backward(); optimizer.step()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
    )
    assert loaded(step) == {"torch"}
