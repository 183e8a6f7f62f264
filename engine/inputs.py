"""Inputs: what a user gives a trained run to predict → images, of one file each or one for each channel."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.command import existing
from engine.data.decode import ENDINGS, Head, Source, ending, probe, stem
from engine.data.layouts import Case
from engine.data.patterns import PLACEHOLDER, UNTIED, pattern
from engine.errors import InputError
from engine.tables import extent

CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")
"""nnU-Net's names: case_0000, case_0001."""
JOINTS = (",", "+")
"""What stands between the files of one image on the command line."""


@dataclass(frozen=True)
class Wanted:
    """What a run's images are.

    Attributes:
        root: the run directory, for messages.
        channels: of each image.
        dims: 2 for images, 3 for volumes.
        axes: ``data.axes`` of the run.
        patterns: of the files of one image, one for each channel, where the run's settings have several.
    """

    root: Path
    channels: int
    dims: int = 2
    axes: str | None = None
    patterns: tuple[str, ...] = ()

    def kind(self) -> str:
        """In words, such as "volumes of 2 channels"."""
        noun = "images" if self.dims == 2 else "volumes"
        return f"{noun} of {self.channels} channel{'s' * (self.channels != 1)}"

    def example(self, suffix: str) -> str:
        """The files of an image, as they would be given, and what else would work."""
        if self.channels == 1:
            return "such images" if self.dims == 2 else "such volumes"
        if self.patterns:
            shown = JOINTS[0].join(pattern.replace("{id}", "NAME") for pattern in self.patterns)
            return f"{shown}, or the folder that holds them,"
        shown = JOINTS[0].join(f"NAME_{number:04d}{suffix}" for number in range(self.channels))
        return f"one file with all, or a file for each channel, joined by commas ({shown}) or in a folder,"


@dataclass(frozen=True)
class Input:
    """One image to predict.

    Attributes:
        name: what its results are called.
        files: one, or one for each channel, in their order.
    """

    name: str
    files: tuple[Path, ...]

    def case(self, axes: str | None = None) -> Case:
        """As it is read."""
        return Case(name=self.name, images=tuple(Source(file, axes=axes) for file in self.files), masks=())

    @property
    def words(self) -> str:
        """For messages."""
        return " with ".join(map(str, self.files))


def gather(given: Sequence[str], wanted: Wanted) -> list[Input]:
    """The images among paths from the command line, each once.

    A path is a file; files of one image joined by commas or plus signs; or a folder. A folder is gone
    through: where a run takes several channels, files NAME_0000, NAME_0001 … are one image, and so are files
    of one name in the folders that the run's patterns name; all others are an image each.

    Raises:
        InputError: nothing there, another number of channels, or images for a run of volumes.
    """
    found = [image for text in given for image in _listed(text, wanted)]
    unique = list(dict.fromkeys(found))
    for image in unique:
        check(image, wanted)
    return unique


def check(image: Input, wanted: Wanted) -> None:
    """Refuse, by its header, what the run cannot take.

    Raises:
        InputError: dimensions or channels are others than the run's.
    """
    heads = [probe(source) for source in image.case(wanted.axes).images]
    for file, head in zip(image.files, heads, strict=True):
        if head.dims != wanted.dims:
            raise _other_dimension(file, head, wanted)
    count = sum(head.channels for head in heads)
    # Gray and colour become each other when a single file is read.
    if count == wanted.channels or (len(heads) == 1 and {count, wanted.channels} == {1, 3}):
        return
    files = f" in {len(heads)} files" if len(heads) > 1 else ""
    raise InputError(
        f"{image.words} has {count} channel{'s' * (count != 1)}{files}, and the run {wanted.root} was "
        f"trained on {wanted.kind()}: {wanted.example(ending(image.files[0]))} would work."
    )


def _other_dimension(file: Path, head: Head, wanted: Wanted) -> InputError:
    kinds = {2: "2D images", 3: "volumes"}
    it = f"a {'volume' if head.dims == 3 else '2D image'} of {extent(head.shape)}"
    return InputError(
        f"{file} is {it}, and the run {wanted.root} was trained on {kinds[wanted.dims]}: it takes those, and "
        f"{kinds[head.dims]} need a run trained on such."
    )


def _listed(text: str, wanted: Wanted) -> list[Input]:
    """The images that one argument names."""
    path = Path(text).expanduser()
    if not path.exists():
        joined = next((text.split(joint) for joint in JOINTS if joint in text), [])
        files = [existing(part.strip()) for part in joined if part.strip()]
        if not files:
            existing(text)
        folder = next((file for file in files if is_folder(file)), None)
        if folder is not None:
            raise InputError(f"{folder} is a folder: of images in several files, each file has to be named.")
        return [Input(_common([stem(file) for file in files]), tuple(files))]
    if not is_folder(path):
        return [Input(stem(path), (path,))]
    files = [path / name for name in images_in(path)]
    images = _by_pattern(path, wanted) or _by_channel(files, wanted) or [Input(stem(f), (f,)) for f in files]
    if not images:
        raise InputError(
            f"the folder {path} holds no images: files ending in {', '.join(sorted(ENDINGS))} are."
        )
    return images


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of images, not an image that is stored as one, as zarr is."""
    return path.is_dir() and ending(path) not in ENDINGS


def images_in(folder: Path) -> list[str]:
    """Names of the images in a folder, in order."""
    return sorted(
        item.name for item in folder.iterdir()
        if ending(item) in ENDINGS and not item.name.startswith(".") and not is_folder(item)
    )  # fmt: skip


def _common(stems: Sequence[str]) -> str:
    """The name of an image in several files: without nnU-Net's numbers, where all have them."""
    matches = [CHANNEL.fullmatch(each) for each in stems]
    ids = {match["id"] for match in matches if match is not None}
    return ids.pop() if len(ids) == 1 and all(matches) else stems[0]


def _by_channel(files: Sequence[Path], wanted: Wanted) -> list[Input]:
    """Images by nnU-Net's names, if all files have them; none for runs of one channel, or other names."""
    matches = [CHANNEL.fullmatch(stem(file)) for file in files]
    if wanted.channels == 1 or not all(matches):
        return []
    groups: dict[str, list[tuple[str, Path]]] = {}
    for file, match in zip(files, matches, strict=True):
        assert match is not None
        groups.setdefault(match["id"], []).append((match["channel"], file))
    return [Input(name, tuple(file for _, file in sorted(group))) for name, group in groups.items()]


def _by_pattern(root: Path, wanted: Wanted) -> list[Input]:
    """Images by the run's own patterns below a folder, if they tell several files of an image apart."""
    if len(wanted.patterns) < 2 and not any("{channel}" in text for text in wanted.patterns):
        return []
    # {id}_t1 before {id}, which fits the same names: what says most comes first.
    ordered = sorted(
        enumerate(pattern(text, {}) for text in wanted.patterns),
        key=lambda pair: -len(PLACEHOLDER.sub("", pair[1].text)),
    )
    groups: dict[str, list[tuple[int, str, Path]]] = {}
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and ending(name) not in ENDINGS]
        for name in names:
            file = Path(folder) / name
            for number, each in ordered:
                pieces = each.match(file.relative_to(root).as_posix())
                if pieces is not None:
                    called = "_".join(pieces[part] for part in sorted(pieces) if part not in UNTIED)
                    groups.setdefault(called, []).append((number, pieces.get("channel", ""), file))
                    break
    return [Input(name, tuple(file for *_, file in sorted(groups[name]))) for name in sorted(groups)]
