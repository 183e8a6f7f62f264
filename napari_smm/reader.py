"""Opens a run directory as layers, or has the open workbench watch it; opens volumes and predictions."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.errors import InputError
from napari_smm import files

LayerData = tuple[Any, ...]
"""napari's (data, arguments, kind), or (None,) where a path was opened that gives no layer."""

SIGNS = ("run.json", "events.jsonl")
"""Files by which a run directory is known."""


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """:func:`read_run` for one run directory, :func:`read_files` for what that reads, else None."""
    root = _only(path)
    if root is not None and all((root / name).is_file() for name in SIGNS):
        return read_run
    paths = [Path(each) for each in ([path] if isinstance(path, str | Path) else path)]
    return read_files if paths and all(files.kind_of(each) for each in paths) else None


def read_files(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of volumes, OME-Zarr images and predictions, see :func:`napari_smm.files.read`.

    Raises:
        InputError: one cannot be read.
    """
    paths = [path] if isinstance(path, str | Path) else path
    return [layer for each in paths for layer in files.read(Path(each).expanduser().absolute())]


def read_run(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of a run as it stands, as :class:`napari_smm.layers.View` shows it at first.

    Where a workbench is open in napari's current viewer it watches the run instead, and so adds the
    layers itself, prepared by its worker.

    Raises:
        InputError: there is nothing to show yet or at all, or the run's format is not known.
    """
    # Zarr takes a while to load, and get_reader is asked about every directory that is opened.
    from engine.record import RunReader

    root = _only(path)
    if root is None:
        raise InputError(f"{len(path)} paths were opened at once: a run directory is opened by itself.")
    root = root.expanduser().absolute()
    RunReader(root).info()
    session = watching_session()
    if session is not None:
        session.watch(root)
        return [(None,)]
    return layer_data(root)


def layer_data(root: Path) -> list[LayerData]:
    """napari's (data, arguments, kind) of a run's layers, marked so that a workbench knows them again.

    Raises:
        InputError: there is nothing to show, or the run's format is not known.
    """
    # What reads and draws a run takes a second to load.
    from napari_smm.feed import Feed
    from napari_smm.layers import View, mark

    snapshot = Feed(root).snapshot(View())
    if not snapshot.layers:
        reason = "has not started yet" if not snapshot.state.started else "was told to watch no images"
        hint = (
            "watch it in the Runs dock, where its layers appear as soon as there are any"
            if not snapshot.state.started
            else "a run whose settings watch some would work"
        )
        raise InputError(f"{root} {reason}, so there is nothing to show: {hint}.")
    return [
        (spec.data, {**spec.arguments(), "metadata": mark(root, spec.role)}, spec.kind)
        for spec in snapshot.layers
    ]


def watching_session() -> Any | None:
    """The session of the workbench in napari's current viewer; None if none is open."""
    module = sys.modules.get("napari_smm.qt.workbench")
    if module is None:
        return None
    from napari import current_viewer

    viewer = current_viewer()
    # Not module.workbench(): that one makes a workbench where there is none.
    bench = module.Workbench._open.get(id(getattr(viewer, "__wrapped__", viewer)))
    return None if bench is None else bench.session


def _only(path: str | Sequence[str]) -> Path | None:
    """The one path that was given; None if there are more, or none."""
    if isinstance(path, str | Path):
        return Path(path)
    return Path(path[0]) if len(path) == 1 else None
