"""Checkpoints: written so that a crash at any moment leaves the last one whole.

They hold tensors and plain values only, so that loading one executes no pickled code.
"""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from engine.disk import replacing
from engine.errors import InputError

FORMAT = 1
"""Version of the checkpoint's content."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in the place of the one that may be there, in one step.

    Raises:
        OSError: the disk is full or not writable. A checkpoint that was there stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as file:
            torch.save({**state, "format": FORMAT}, file)
    except RuntimeError as error:
        # torch's zip writer covers what the disk said with an error of its own.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: Path, *, in_file: Collection[str] = ()) -> dict[str, Any]:
    """Read a checkpoint into memory; those who take it up move what they need to their device.

    Args:
        path: of the checkpoint.
        in_file: entries whose tensors stay in the file, mapped into memory, and are read where they are
            used. Let go of them before the checkpoint is replaced.

    Raises:
        InputError: no file, not a checkpoint, or one of another format version.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=bool(in_file))
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}; the run has not finished an epoch yet.") from None
    except UnpicklingError:
        raise InputError(
            f"{path} is no checkpoint of this program: one in a run's folder checkpoints, such as best, "
            "would work."
        ) from None
    except Exception as error:  # a damaged file can fail anywhere in the reader
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(".: ")
        raise InputError(f"the checkpoint {path} cannot be read; it may be damaged ({reason}).") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint of format {FORMAT}, the one that this version reads.")
    if in_file:
        return {key: value if key in in_file else deepcopy(value) for key, value in state.items()}
    return state
