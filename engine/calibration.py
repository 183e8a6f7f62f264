"""What a calibration leaves in a run directory for whoever moves ε and α: RUN/calibration.npz. No torch.

It holds the lesion probabilities of the calibration images, from which :mod:`engine.thresholds` reads the
threshold of any rule, and the fingerprints of what predicted them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from engine.disk import replacing
from engine.errors import InputError
from engine.thresholds import Lesions

FILE = "calibration.npz"
FORMAT = 1
"""Version of the file's content."""


@dataclass(frozen=True)
class Predicted:
    """What predicted probabilities, so that thresholds are not used on those of something else.

    Attributes:
        checkpoint: the file's name.
        epoch: after which its weights were saved.
        weights: fingerprint of the weights.
        path: settings that decide on the last digit of a probability: name → value.
    """

    checkpoint: str
    epoch: int
    weights: str
    path: Mapping[str, Any]

    def differs(self, other: "Predicted") -> str:
        """Why thresholds calibrated on these do not hold for others, as the end of a sentence; "" if they do.

        Args:
            other: what predicted the probabilities that are to be thresholded.
        """
        if self.weights != other.weights:
            if (self.checkpoint, self.epoch) == (other.checkpoint, other.epoch):
                return (
                    "it was made with other weights, though these are also "
                    f"{self.checkpoint}'s after epoch {self.epoch}"
                )
            return (
                f"it was made with the weights of {self.checkpoint} after epoch {self.epoch}, and these "
                f"are {other.checkpoint}'s after epoch {other.epoch}"
            )
        for name in sorted({*self.path, *other.path}):
            ours, theirs = (path.get(name, "not set") for path in (self.path, other.path))
            if ours != theirs:
                return f"it was made with {name} {_shown(ours)}, and here it is {_shown(theirs)}"
        return ""


@dataclass(frozen=True)
class Calibration:
    """Calibration images as the rules need them.

    Attributes:
        lesions: of the images.
        predicted: what predicted them.
        source: where they come from: "calib split", or a folder.
        unit: what a promise is about: "image" or "group".
        notes: what a user should know, a sentence each.
    """

    lesions: Lesions
    predicted: Predicted
    source: str
    unit: str = "image"
    notes: tuple[str, ...] = field(default_factory=tuple)


def write(run: Path, calibration: Calibration) -> None:
    """Write or replace RUN/calibration.npz in one step."""
    with replaced(run, calibration):
        pass


@contextmanager
def replaced(run: Path, calibration: Calibration) -> Iterator[None]:
    """Write RUN/calibration.npz whole before the block, and put it in its place if the block ends well.

    So that what is written in the block and this file are both changed, or neither.
    """
    lesions = calibration.lesions
    about = {
        "format": FORMAT,
        "names": lesions.names,
        "groups": lesions.groups,
        "classes": lesions.classes,
        "source": calibration.source,
        "unit": calibration.unit,
        "notes": calibration.notes,
        "checkpoint": calibration.predicted.checkpoint,
        "epoch": calibration.predicted.epoch,
        "weights": calibration.predicted.weights,
        "path": dict(calibration.predicted.path),
    }
    each = [values for image in lesions.values for values in image]
    lengths = np.array([values.size for values in each], np.int64).reshape(len(lesions.names), -1)
    with replacing(run / FILE, apart=True) as file:
        np.savez_compressed(
            file, about=np.array(json.dumps(about)), lengths=lengths, values=np.concatenate(each)
        )
        file.flush()
        os.fsync(file.fileno())  # here, where a full disk still leaves everything as it was
        yield


def read(run: Path) -> Calibration | None:
    """Read RUN/calibration.npz; None if the run has none.

    Raises:
        InputError: it is damaged, or of another version.
    """
    path = run / FILE
    try:
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
            lengths, values = content["lengths"], content["values"]
        if about["format"] != FORMAT:
            raise InputError(
                f"{path} has format {about['format']}, and this version reads {FORMAT}: calibrate again."
            )
        ends = lengths.cumsum()
        each = np.split(values, ends[:-1])
        classes = len(about["classes"])
        images = [tuple(each[first : first + classes]) for first in range(0, len(each), classes)]
        lesions = Lesions(
            tuple(about["names"]), tuple(about["groups"]), tuple(about["classes"]), tuple(images)
        )
        predicted = Predicted(
            str(about["checkpoint"]), int(about["epoch"]), str(about["weights"]), dict(about["path"])
        )
        return Calibration(
            lesions, predicted, str(about["source"]), str(about["unit"]), tuple(about["notes"])
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}): calibrate the run again.") from error


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict | bool) or value is None else str(value)
