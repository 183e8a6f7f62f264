"""A data set as nnU-Net has it: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

nnU-Net's own description of the layout:
https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

import csv
import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from engine.data import annotated, volumes
from engine.data.annotated import AnnotationSet, Entry
from engine.data.dataset import Dataset
from engine.data.decode import Source, ending, probe
from engine.data.layouts import Case
from engine.data.specs import Data
from engine.errors import InputError

IGNORED = 255
"""Of the engine's labels."""
PROVENANCE = "provenance.csv"
LEADING = ("case", "folder", "file", "label", "status", "origin")
"""Columns of provenance.csv that go first."""


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        out: the folder.
        train: images with labels for training.
        test: images with labels for testing.
        classes: names of the foreground classes.
        ignored: the value of unlabelled pixels; None where all are labelled.
        provenance: whether it is said how each mask came about.
    """

    out: Path
    train: int
    test: int
    classes: tuple[str, ...]
    ignored: int | None
    provenance: bool

    @property
    def words(self) -> str:
        """For the user."""
        unlabelled = "" if self.ignored is None else f"; {self.ignored} marks what is unlabelled"
        beside = f"; {PROVENANCE} says where each mask comes from" if self.provenance else ""
        return (
            f"{self.out}: {self.train} cases for training and {self.test} for testing, classes "
            f"{', '.join(self.classes)}{unlabelled}{beside}"
        )


def write(out: Path, data: Data) -> Converted:
    """Write a data set.

    Images of 8 bits, gray or colour, are PNG; others and those of other channels TIFF, a file a channel;
    volumes NIfTI, with the affine of their file. Labels are 0 for background, then the classes, then, where
    there are such pixels, nnU-Net's `ignore` for what is unlabelled or outside the field of view. What the
    layout has as test set goes to imagesTs and labelsTs, all else is for training: nnU-Net makes its own
    folds.

    Args:
        out: folder to make; it must not exist, or be empty.
        data: where the images are, and how they are read.

    Raises:
        InputError: a folder that is used, or whatever is wrong with the data. Then nothing is there.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already and is not empty: the name of a new folder would work.")
    dataset = Dataset.open(data)
    new = out.with_name(f".{out.name}.{token_hex(4)}.new")
    new.mkdir(parents=True)
    try:
        converted = _fill(new, out, dataset)
        if out.exists():
            out.rmdir()
        new.rename(out)
    except BaseException:
        shutil.rmtree(new)
        raise
    return converted


def _fill(folder: Path, out: Path, dataset: Dataset) -> Converted:
    kind = _kind(dataset)
    cases = dataset.found.cases
    counts = {"Tr": 0, "Ts": 0}
    ignored = len(dataset.classes.names) + 1
    any_ignored = False
    for case, sample in zip(cases, dataset.some(range(len(cases))), strict=True):
        part = "Ts" if case.split == "test" else "Tr"
        counts[part] += 1
        labels = np.where(sample.labels == IGNORED, ignored, sample.labels).astype(np.uint8)
        if sample.valid is not None:
            labels[~sample.valid] = ignored
        any_ignored = any_ignored or bool((labels == ignored).any())
        for name in (f"images{part}", f"labels{part}"):
            (folder / name).mkdir(exist_ok=True)
        for number, channel in enumerate(kind.channels_of(sample.image)):
            kind.write(folder / f"images{part}" / f"{case.name}_{number:04d}{kind.ending}", channel, case)
        kind.write(folder / f"labels{part}" / f"{case.name}{kind.ending}", labels, case)
    if not counts["Tr"]:
        raise InputError(f"{dataset.found.root} has test images alone: some to train on are needed.")
    description = _description(out.name, dataset, kind, counts["Tr"], ignored if any_ignored else None)
    (folder / "dataset.json").write_text(
        json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    provenance = _write_provenance(folder, dataset, kind)
    value = ignored if any_ignored else None
    return Converted(out, counts["Tr"], counts["Ts"], dataset.classes.names, value, provenance)


@dataclass(frozen=True)
class _Kind:
    """In which files images are written.

    Attributes:
        ending: of all files.
        colour: whether a file holds red, green and blue, as nnU-Net has it of natural images.
    """

    ending: str
    colour: bool

    def channels_of(self, image: NDArray[Any]) -> list[NDArray[Any]]:
        """The arrays of an image's files, from (*S, channels)."""
        if self.colour:
            return [image]
        return [image[..., channel] for channel in range(image.shape[-1])]

    def write(self, path: Path, array: NDArray[Any], case: Case) -> None:
        """Write (*S), or (H, W, 3) in colour, where the case lies."""
        array = np.ascontiguousarray(array)
        if self.ending == ".nii.gz":
            _write_volume(path, array, case.images[0])
        elif self.ending == ".png":
            Image.fromarray(array).save(path, format="PNG", compress_level=4)
        else:
            photometric = "rgb" if array.ndim == 3 else "minisblack"
            tifffile.imwrite(path, array, photometric=photometric, compression="zlib")


def _write_volume(path: Path, array: NDArray[Any], like: Source) -> None:
    if ending(like.path) in volumes.NIFTI:
        volumes.write_like(path, array, like.path)  # which keeps its header
    else:
        volumes.write_placed(path, array, probe(like))


def _kind(dataset: Dataset) -> _Kind:
    """The one kind that all files of a data set have."""
    if dataset.dims == 3:
        return _Kind(".nii.gz", False)
    heads = [probe(source) for case in dataset.found.cases for source in case.images]
    colour = dataset.channels == 3 and all(len(case.images) == 1 for case in dataset.found.cases)
    eight = all(head.dtype in (np.uint8, np.bool_) for head in heads)
    return _Kind(".png" if eight else ".tif", colour)


def _description(
    name: str, dataset: Dataset, kind: _Kind, training: int, ignored: int | None
) -> dict[str, Any]:
    """What dataset.json says."""
    names = ("R", "G", "B") if kind.colour else [f"channel{number}" for number in range(dataset.channels)]
    labels = {"background": 0, **{each: value for value, each in enumerate(dataset.classes.names, start=1)}}
    if ignored is not None:
        labels["ignore"] = ignored
    return {
        "name": name,
        "channel_names": {str(number): each for number, each in enumerate(names)},
        "labels": labels,
        "numTraining": training,
        "file_ending": kind.ending,
    }


def _write_provenance(folder: Path, dataset: Dataset, kind: _Kind) -> bool:
    """Write how each mask came about, where the folder of an annotated data set knows."""
    root = dataset.found.root
    if dataset.found.layout != "annotation":
        return False
    known = annotated.read_set(root)
    rows = [_row(root, case, known, kind) for case in dataset.found.cases]
    columns = [*LEADING, *(name for name in rows[0] if name not in LEADING)]
    with (folder / PROVENANCE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return True


def _row(root: Path, case: Case, known: AnnotationSet, kind: _Kind) -> dict[str, Any]:
    """What is known of a case's mask: its row of annotation/images.csv, and where it is now."""
    image = annotated.SEPARATOR.join(source.path.relative_to(root).as_posix() for source in case.images)
    entry = known.entries.get(image, Entry(image))
    part = "Ts" if case.split == "test" else "Tr"
    return {
        "case": case.name,
        "folder": f"images{part}",
        "file": entry.image,
        "label": f"labels{part}/{case.name}{kind.ending}",
        **{field.name: getattr(entry, field.name) for field in fields(Entry) if field.name != "image"},
    }
