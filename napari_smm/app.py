"""The command `napari-smm`: napari with the docks of the workbench."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import engine
from engine.errors import InputError
from napari_smm.reader import get_reader

PLUGIN = "napari-smm"
DOCKS = ("Train", "Annotate", "Threshold", "Runs")
"""Names in the manifest; the first one is on top."""
BINDINGS = ("PyQt6", "PyQt5", "PySide6")
INSTALL = "pip install 'napari-smm[pyqt6]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Open the workbench and stay until it is closed.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        0, or 2 when no window can be opened or a path does not exist.
    """
    options = parser().parse_args(argv)
    try:
        refuse_missing(options.paths)
        require_window()
        napari = load_napari()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    viewer = napari.Viewer()
    open_docks(viewer)
    open_paths(viewer, options.paths)
    napari.run(gui_exceptions=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser(
        prog=PLUGIN,
        description="Open napari with the docks Train, Annotate, Threshold and Runs.",
        epilog="Runs go on when the window is closed, if so wished, and are found again by the dock Runs. "
        "Training without a window: python -m engine.train --help",
    )
    made.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="run directory, image or annotated folder"
    )
    made.add_argument("--version", action="version", version=f"{PLUGIN} {engine.__version__}")
    return made


def refuse_missing(paths: Sequence[Path]) -> None:
    """Raise InputError for the first path that does not exist."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: give run directories or images.")


def require_window() -> None:
    """Raise InputError where napari, a Qt binding or a display is missing."""
    if find_spec("napari") is None:
        raise InputError(f"napari is not installed, which the workbench opens in: {INSTALL}")
    if not any(find_spec(name) for name in BINDINGS):
        raise InputError(f"no Qt binding is installed, which napari draws its window with: {INSTALL}")
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in displays):
        # Qt would abort the process.
        raise InputError(
            "there is no display ($DISPLAY is not set): start napari-smm on a desktop or over `ssh -X`; "
            "`python -m engine.train` trains without one."
        )


def load_napari() -> Any:
    """The module napari with its window. Raises InputError where a library that Qt needs is missing."""
    import napari

    try:
        import napari.qt
    except ImportError as error:
        raise InputError(
            f"napari's window does not load ({error}): on Debian, `make install` adds what is missing."
        ) from error
    return napari


def open_docks(viewer: Any) -> None:
    """Add the docks to a viewer at the right, one behind the other."""
    from napari.qt import get_qapp

    added = [viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)[0] for name in DOCKS]
    get_qapp().processEvents()  # Qt raises a tab only once it has laid the tabs out
    added[0].raise_()


def open_paths(viewer: Any, paths: Sequence[Path]) -> None:
    """Watch runs, open images, go on annotating folders; what cannot be opened is said in the window."""
    from napari.utils.notifications import notification_manager

    for path in paths:
        try:
            if is_annotated_folder(path):
                from napari_smm.qt.dock import bring_dock

                bring_dock(viewer, "Annotate").open_folder(path)
            else:
                viewer.open(path, plugin=reader_for(path))
        except Exception as error:  # anything that a reader of napari may raise
            notification_manager.receive_error(type(error), error, error.__traceback__)


def is_annotated_folder(path: Path) -> bool:
    """Whether a path is a folder of images that someone has begun to annotate."""
    # What decodes images takes a while to load.
    from engine.data.annotated import is_annotated

    return path.is_dir() and is_annotated(path)


def reader_for(path: Path) -> str | None:
    """The plugin that opens a path; None lets napari choose."""
    # Several plugins read folders, and napari's own `open` refuses to choose between them.
    if not path.is_dir():
        return None
    return PLUGIN if get_reader(str(path)) else "napari"
