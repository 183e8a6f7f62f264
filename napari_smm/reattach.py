"""Finds the run that is still going on when a workbench opens. No Qt."""

from collections.abc import Iterable
from pathlib import Path

from napari_smm.launch import find_runs, running_here


def newest_living(folders: Iterable[Path]) -> Path | None:
    """The run directory in some folders in which a process trains now; None if there is none.

    Of several, one on this machine comes before one elsewhere, and the newest before an older one.
    This looks at every run directory: let a worker do it.

    Args:
        folders: run directories, or folders that hold some, as for `launch.find_runs`.
    """
    looked = tuple(folders)
    here = running_here(looked)
    if here:
        return here[0]
    living = (entry.path for entry in find_runs(*looked) if entry.status in ("running", "stopping"))
    return next(living, None)
