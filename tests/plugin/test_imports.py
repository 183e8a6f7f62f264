"""The plugin costs napari nothing at its start, and never loads torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import engine

ROOT = Path(engine.__file__).parents[1]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in ROOT.glob("napari_smm/**/*.py")
    if file.name != "__init__.py"
)


def answer(code: str) -> Any:
    """The JSON that some code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_napari_reads_at_its_start_loads_nothing_more_and_takes_under_a_tenth_of_a_second() -> None:
    loaded, seconds = answer(
        "import json, sys, time, napari, npe2; from napari.viewer import Viewer; had = set(sys.modules);"
        "began = time.process_time(); import napari_smm;"
        "npe2.PluginManifest.from_distribution('napari-smm'); took = time.process_time() - began;"
        "print(json.dumps([sorted(set(sys.modules) - had), took]))"
    )
    assert loaded == ["napari_smm"]
    assert seconds < 0.1  # of the processor: by the clock, other processes of a busy machine would count


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What is there of torch and Qt after the modules without a window, and after all of them."""
    free = [name for name in MODULES if not name.startswith("napari_smm.qt.")]
    assert len(MODULES) > len(free) > 20
    return dict(
        answer(
            "import importlib, json, sys; found = {}\n"
            "heavy = ('torch', 'monai', 'qtpy', 'PyQt5', 'PyQt6')\n"
            f"for part, names in (('free', {free!r}), ('all', {MODULES!r})):\n"
            "    for name in names: importlib.import_module(name)\n"
            "    found[part] = [name for name in heavy if name in sys.modules]\n"
            "print(json.dumps(found))"
        )
    )


def test_no_module_of_the_plugin_loads_torch(loaded: dict[str, list[str]]) -> None:
    assert "qtpy" in loaded["all"]
    assert not {"torch", "monai"} & set(loaded["all"])


def test_what_needs_no_window_loads_no_qt(loaded: dict[str, list[str]]) -> None:
    assert loaded["free"] == []
