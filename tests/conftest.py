"""Settings of all tests."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from ready import ready_python

# The same examples in every run of CI, so that it says the same of the same code; new ones at every desk.
# Without a deadline for an example: on a busy machine any of them may take long.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_configure(config: pytest.Config) -> None:
    """Before napari and pytest-qt are loaded, which read these variables once."""
    folder = tempfile.TemporaryDirectory(prefix="napari-smm-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["NAPARI_CONFIG"] = str(Path(folder.name) / "settings.yaml")
    if "QT_API" in os.environ:
        os.environ["PYTEST_QT_API"] = os.environ["QT_API"]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The workbench's folder, of this test only: where it puts data sets and runs."""
    folder = tmp_path / "napari-smm-home"
    monkeypatch.setenv("NAPARI_SMM_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def ready() -> Iterator[str]:
    """A Python that has torch at once."""
    with ready_python() as path:
        yield path


@pytest.fixture
def quick(ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started as `sys.executable -m engine.…` has torch at once."""
    monkeypatch.setattr(sys, "executable", ready)
