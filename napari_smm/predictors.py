"""The runs that can predict an image. No torch, no Qt."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.record import RunReader
from napari_smm import launch
from napari_smm.planes import PlaneSource
from napari_smm.status import SYMBOLS

CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class RunChoice:
    """A run that can predict.

    Attributes:
        path: the run directory.
        words: what a list says of it.
        checkpoints: those that it has, best first; at least one.
        channels: of the images that it was trained on.
        dims: 2 if they were images, 3 if volumes.
    """

    path: Path
    words: str
    checkpoints: tuple[str, ...]
    channels: int
    dims: int = 2


def offered_runs(watched: Path | None = None) -> list[RunChoice]:
    """The runs that have a checkpoint, newest first: of the workbench, remembered ones, and the watched one.

    Raises:
        InputError: the file of the remembered folders is broken.
    """
    folders = [launch.runs_folder(), *launch.remembered(), *([watched] if watched else [])]
    choices = []
    for entry in launch.find_runs(*folders):
        found = checkpoints(entry.path)
        if entry.status is None or not found:
            continue
        words = f"{SYMBOLS[entry.status]} {entry.name} · epoch {entry.epoch} of {entry.epochs}"
        choices.append(
            RunChoice(entry.path, words, tuple(found), run_channels(entry.path), run_dims(entry.path))
        )
    return choices


def require_fitting(run: Path, source: PlaneSource, checkpoint: str | None = None) -> None:
    """Raise InputError if a run cannot predict an image."""
    found, channels = checkpoints(run), run_channels(run)
    if not found or (checkpoint is not None and checkpoint not in found):
        raise InputError(
            f"the run {run.name} has no checkpoint{f' {checkpoint}' if found else ' yet'}: "
            f"{' or '.join(found) if found else 'a run that has trained for an epoch'} would work."
        )
    if run_dims(run) != source.dims:
        kinds = {2: "images", 3: "volumes"}
        raise InputError(
            f"the run {run.name} was trained on {kinds[run_dims(run)]}, and {source.name!r} was to be "
            f"predicted as {kinds[source.dims]}: choosing the run anew would work."
        )
    # What reads an image's own files knows better how many channels are in them.
    shown = not source.files or source.leading
    if shown and channels != source.channels and {channels, source.channels} != {1, 3}:
        raise InputError(
            f"the run {run.name} was trained on images of {channels} channels, and {source.name!r} has "
            f"{source.channels}: python -m engine.predict takes such images from files."
        )


def note(channels: int, source: PlaneSource) -> str:
    """What is done to an image that the user may not expect, for a run of so many channels; "" if nothing.

    As for files, gray images become colour and colour images gray where the run needs it.
    """
    parts = ["Alpha is left out."] if source.alpha else []
    if channels == 3 and source.channels == 1:
        parts.append("The run was trained on RGB: the gray of the image stands for all three channels.")
    if channels == 1 and source.channels == 3:
        parts.append("The run was trained on gray images: it sees the luminance of the image.")
    return " ".join(parts)


def run_dims(run: Path) -> int:
    """Axes of space of a run's images: 2, or 3 of volumes. Raises InputError if it is no run."""
    return int(RunReader(run).info()["dataset"].get("dims", 2))


def checkpoints(run: Path) -> list[str]:
    """Names of the checkpoints that a run has, best first."""
    return [name for name in CHECKPOINTS if (run / "checkpoints" / name).is_file()]


def run_channels(run: Path) -> int:
    """Channels of a run's images. Raises InputError if it is no run."""
    return int(RunReader(run).info()["dataset"]["channels"])
