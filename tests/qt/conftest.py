"""A display, a finished run, and a guard that nothing is left behind, for the tests of the window."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import FAST, write_pair

from engine.data.demo import demo_pair

if TYPE_CHECKING:
    from leaks import Census
    from pytestqt.qtbot import QtBot
    from qtpy.QtWidgets import QApplication

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where there is no display."""
    if sys.platform != "linux" or os.environ.get("DISPLAY"):
        return
    # Qt's own `offscreen` has no OpenGL, which napari draws with.
    reason = "there is no display: use `make test`, or xvfb-run -a -s '-screen 0 1280x800x24' pytest tests/qt"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 64 × 64 px of the embedded set, with masks, as a folder to train on."""
    root = tmp_path_factory.mktemp("demo-set")
    for number in range(24):
        image, truth = demo_pair(number, size=64)
        write_pair(root, f"{number:03d}", image, truth.astype("uint8") * 255)
    return root


@pytest.fixture(scope="session")
def demo_run(ready: str, demo_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 epochs of SMM v2 on `demo_set`; not to be written into."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    command = [ready, "-m", "engine.train", "--data.root", str(demo_set), "--out", str(out)]
    subprocess.run([*command, "--training.epochs=6", *FAST], cwd=ROOT, check=True, timeout=120)
    return out


@pytest.fixture(autouse=True, scope="session")
def plugins_are_discovered_once() -> Iterator[None]:
    """Each viewer of a test would look through all installed packages for plugins, of which none comes."""
    from npe2 import PluginManager

    discover = PluginManager.discover

    def once(manager: PluginManager, *given: object, **named: object) -> int:
        known = bool(list(manager.iter_manifests())) and not (
            given or named.get("paths") or named.get("clear")
        )
        return 0 if known else discover(manager, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManager, "discover", once)
        yield


@pytest.fixture(scope="session")
def left_before(qapp: "QApplication") -> list["Census"]:
    """What there is between two tests."""
    import napari.qt  # noqa: F401 (what it makes for the life of the process is no leak)
    from leaks import census

    return [census()]


@pytest.fixture(autouse=True)
def nothing_is_left(
    request: pytest.FixtureRequest, qtbot: "QtBot", left_before: list["Census"]
) -> Iterator[None]:
    """Fail a test that loads torch, or leaves windows, our objects, timers, threads or processes."""
    from leaks import census, end_processes, leaks_since

    failures, had_torch = request.session.testsfailed, "torch" in sys.modules
    yield
    left = leaks_since(left_before[0])
    if left:
        end_processes(left_before[0])
        left_before[0] = census()
    if request.session.testsfailed > failures:
        return  # its traceback holds on to what the test had made
    if left:
        pytest.fail("; ".join(f"{kind} left: {', '.join(names)}" for kind, names in left.items()))
    if "torch" in sys.modules and not had_torch:
        pytest.fail("torch was loaded into the process of the viewer")
    gc.freeze()  # what stays is of the process, and need not be searched after the next test
