"""Checkpoints: written so that a crash at any moment leaves the last one whole.

They hold tensors and plain values only, so that loading one executes no pickled code.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from engine.errors import InputError

FORMAT = 1
"""Version of the checkpoint's content."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, then rename it.

    Raises:
        OSError: the disk is full or not writable. A checkpoint that was there stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save({**state, "format": FORMAT}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch reports a full disk as a RuntimeError of its zip writer.
        if isinstance(error, RuntimeError) and "write" in str(error):
            raise OSError(f"the checkpoint {path} could not be written; is the disk full?") from error
        raise
    sync_folder(path.parent)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint onto a device.

    Raises:
        InputError: no file, not a checkpoint, or one of another format version.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}; the run has not finished an epoch yet.") from None
    except (RuntimeError, EOFError, OSError, BadZipFile, ValueError, KeyError, ImportError) as error:
        raise InputError(f"the checkpoint {path} cannot be read ({str(error).splitlines()[0]}).") from None
    except Exception as error:  # the unpickler's own error type is not public in all versions
        if type(error).__name__ != "UnpicklingError":
            raise
        raise InputError(f"{path} is no checkpoint of this program.") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint of format {FORMAT}, the one that this version reads.")
    return state


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the system lets folders be synced."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
