"""What a run starts from, if not from random weights: an earlier run, and what that one has seen.

``training.init`` names the run. Its weights are copied by name, the head is adapted by the classes' names
(:mod:`engine.transplant`), and no image that it learned from may test the new run: images keep their split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from engine import checkpoint, fingerprint
from engine.config import Layer, RunConfig, read_file, resolve
from engine.data.dataset import Dataset
from engine.data.layouts import Case
from engine.data.pairs import some
from engine.data.read import read_spaced
from engine.data.rows import Rows, open_case, rows_of
from engine.data.split import SPLITS, split
from engine.data.stored import open_stored
from engine.errors import InputError
from engine.record import RunReader
from engine.schema import kinds
from engine.transplant import Meaning, empty_network, first_difference, head_keys, shapes, transplanted

SEEN: tuple[Literal["train", "val"], ...] = ("train", "val")
"""Splits whose images a run has seen: it learned from them, or they chose its best checkpoint."""
AS_SEEN = ("size", "spacing", "normalization")
"""Settings of `data` that decide, with the channels, how a network sees an image."""
CALLED = {1: "gray", 3: "rgb"}
"""Channels → the ``data.color`` that gives them."""


@dataclass(frozen=True)
class Parent:
    """An earlier run whose weights another starts from.

    Attributes:
        root: the run directory, absolute.
        file: the checkpoint.
        config: the run's settings.
        info: its run.json.
    """

    root: Path
    file: Path
    config: RunConfig
    info: Mapping[str, Any]

    @classmethod
    def open(cls, given: str) -> "Parent":
        """The run that ``training.init`` names; the weights are not read yet.

        Args:
            given: a run directory, of which ``best`` is taken where it has a val split, else ``last``; or a
                file in its folder ``checkpoints``.

        Raises:
            InputError: no run, no checkpoint yet, or settings that this version does not know.
        """
        path = Path(given).expanduser().resolve()
        ways = "a run directory, or a file in its folder checkpoints, would work"
        if not path.exists():
            raise InputError(f"training.init {given} does not exist: {ways}.")
        if path.is_file() and path.parent.name != "checkpoints":
            raise InputError(f"training.init {given} is a file that belongs to no run: {ways}.")
        root = path.parents[1] if path.is_file() else path
        if not (root / "run.json").is_file():
            raise InputError(f"training.init {given} is no run, as {root} has no run.json: {ways}.")
        info = RunReader(root).info()
        config, _ = resolve([read_file(root / "config.toml")])
        if path.is_file():
            return cls(root, path, config, info)
        usual = ["best", "last"] if info["splits"]["val"] else ["last"]
        there = [file for name in usual if (file := root / "checkpoints" / name).is_file()]
        if not there:
            raise InputError(
                f"training.init {given} is a run without a checkpoint: one that has finished an epoch would "
                "work."
            )
        return cls(root, there[0], config, info)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its foreground classes."""
        return tuple(self.info["dataset"]["classes"])

    @property
    def channels(self) -> int:
        """Channels that its images have."""
        return int(self.info["dataset"]["channels"])

    @property
    def dims(self) -> int:
        """Axes of its images: 2, or 3 for volumes."""
        return int(self.info["dataset"].get("dims", 2))

    @property
    def meaning(self) -> Meaning:
        """What its network's output channels mean."""
        return Meaning(self.config.head(len(self.classes)), self.classes)


@dataclass(frozen=True)
class Origin:
    """What a network started from.

    Attributes:
        run: the run directory.
        checkpoint: name of the file.
        epoch: after which its weights were saved.
        weights: their fingerprint, by :func:`engine.fingerprint.weights`.
        kept: classes whose part of the head was taken over.
        new: classes that start afresh.
        gone: classes that there are no longer.
        digests: "train" and "val" → digests of all images that the run, and those that it started from
            itself, have seen.
    """

    run: Path
    checkpoint: str
    epoch: int
    weights: str
    kept: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]
    digests: Mapping[str, frozenset[str]]

    @property
    def remark(self) -> str:
        """What the user should know, a sentence."""
        where = f"training starts from {self.run} ({self.checkpoint}, epoch {self.epoch})"
        changes = (("new", self.new), ("no longer there", self.gone))
        said = [
            f"{', '.join(names)} {'are' if names[1:] else 'is'} {what}" for what, names in changes if names
        ]
        return (
            f"{where}; of the classes {' and '.join(said)}." if said else f"{where}, with the same classes."
        )

    def record(self) -> dict[str, Any]:
        """What run.json says under ``init``."""
        return {
            "run": str(self.run),
            "checkpoint": self.checkpoint,
            "epoch": self.epoch,
            "weights": self.weights,
            "kept": list(self.kept),
            "new": list(self.new),
            "digests": {part: sorted(self.digests[part]) for part in SEEN},
        }


def inherited(given: str) -> tuple[Layer, str]:
    """Settings that a run which starts from another takes over: the network, and how it sees images.

    Args:
        given: as :meth:`Parent.open`.

    Returns:
        The settings as a layer, which later ones win over, and a sentence that says which they are.

    Raises:
        InputError: as :meth:`Parent.open`.
    """
    parent = Parent.open(given)
    config = parent.config
    data: dict[str, Any] = {key: getattr(config.data, key) for key in AS_SEEN}
    data["color"] = CALLED.get(parent.channels, config.data.color)
    model = config.model.from_scratch().model_dump()
    named = ", ".join(f"data.{key} {_words(value)}" for key, value in data.items() if value is not None)
    note = (
        f"--init {given}: the network ({model['name']}) and {named} are that run's, unless given otherwise."
    )
    return Layer(f"--init {given}", {"model": _given("model", model), "data": _given("data", data)}), note


def _given(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a layer has them: None unsets what a lower layer may have set, but for texts."""
    return {
        key: "none" if value is None else value
        for key, value in values.items()
        if value is not None or str not in kinds(RunConfig, group, key)
    }


def _words(value: Any) -> str:
    return (
        ", ".join(f"{part:g}" for part in value)
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )


def begin(network: nn.Module, config: RunConfig, dataset: Dataset) -> Origin | None:
    """Put the weights of ``training.init`` into a new network; None where the config names no run.

    Weights and the statistics of batch norm are copied, the head as :func:`engine.transplant.rows` says; the
    optimiser starts anew.

    Args:
        network: by the config, with its starting weights; on any device.
        config: the run.
        dataset: its images.

    Raises:
        InputError: no run, an unreadable checkpoint, or another network, other channels or dimensions.
    """
    if config.training.init is None:
        return None
    parent = Parent.open(config.training.init)
    # What the optimiser and the masks have there is not needed.
    state = checkpoint.load(parent.file, in_file=("optimizer", "modulation"))
    learned, old, classes = state["model"], parent.meaning, tuple(dataset.classes.names)
    check(parent, learned, config, dataset)
    new = Meaning(config.head(len(classes)), classes)
    keys = head_keys(config.model, parent.channels, new.outputs, parent.dims)
    network.load_state_dict(transplanted(learned, network.state_dict(), keys, old, new))
    whole = empty_network(config.model, parent.channels, old.outputs, parent.dims)
    whole.load_state_dict(learned, assign=True)
    return Origin(
        parent.root, parent.file.name, int(state["epoch"]), fingerprint.weights(whole),
        kept=tuple(name for name in classes if name in old.classes),
        new=tuple(name for name in classes if name not in old.classes),
        gone=tuple(name for name in old.classes if name not in classes),
        digests=seen(parent.info),
    )  # fmt: skip


def check(parent: Parent, learned: Mapping[str, Tensor], config: RunConfig, dataset: Dataset) -> None:
    """Refuse weights, a state `learned`, that do not fit.

    Raises:
        InputError: names the first difference, and what would work.
    """
    run = f"the run {parent.root}"
    if dataset.dims != parent.dims:
        kinds_of = {2: "images", 3: "volumes"}
        raise InputError(
            f"training.init: {run} was trained on {kinds_of[parent.dims]} of {parent.dims} dimensions, and "
            f"these have {dataset.dims}: a run of {kinds_of[dataset.dims]} would work."
        )
    if dataset.channels != parent.channels:
        color = CALLED.get(parent.channels) if dataset.channels in CALLED else None
        way = f"data.color {color}" if color else f"images of {parent.channels}"
        raise InputError(
            f"training.init: {run} was trained on images of {_counted(parent.channels)}, and these have "
            f"{dataset.channels}: {way} would work."
        )
    sizes = (parent.channels, parent.meaning.outputs, parent.dims)
    found = {key: tuple(tensor.shape) for key, tensor in learned.items()}
    if found == shapes(config.model, *sizes):
        return
    key = first_difference(config.model, parent.config.model, *sizes)
    if key is None:
        raise InputError(
            f"training.init: the checkpoint {parent.file} does not fit the network of {run}: another of its "
            "checkpoints may work."
        )
    theirs = getattr(parent.config.model, key)
    raise InputError(
        f"training.init: model.{key} is {getattr(config.model, key)}, and {run} was trained with {theirs}: "
        f"model.{key} {theirs} is needed, which --init takes over where nothing else is given."
    )


def _counted(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


def seen(info: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Digests of the images that a run, and the runs that it started from, have seen, by split.

    Args:
        info: run.json.
    """
    own = info.get("digests") or {}
    before = (info.get("init") or {}).get("digests") or {}
    return {part: frozenset([*own.get(part, {}).values(), *before.get(part, ())]) for part in SEEN}


def open_dataset(config: RunConfig) -> Dataset:
    """The images of a run, divided so that none that ``training.init`` has seen tests the new run.

    An image keeps the split that it had there, with all of its group: by its name, in the same folder with
    the same layout. Other images are compared by their pixels, as far as they would be held back: what was
    trained on goes to train, what was validated on to val. They are decoded for that.

    Raises:
        InputError: as :meth:`Dataset.open`, or nothing is left to train on.
    """
    dataset = Dataset.open(config.data)
    if config.training.init is None or config.data.replay is not None:  # whose splits are what they were
        return dataset
    parent = Parent.open(config.training.init)
    cases, known = dataset.found.cases, seen(parent.info)
    knows = "digests" in parent.info
    splits = named(dataset, parent.info)
    told = set(splits)
    while True:
        divided = split(cases, config.data.split, config.data.split_seed, by_group(cases, splits))
        held = [cases[index] for part in SPLITS[1:] for index in divided[part]]
        unknown = [case for case in held if case.name not in told]
        if not unknown or not knows:
            break
        for case in unknown:
            told.add(case.name)
            if part := seen_as(case, dataset.channels, known):
                splits[case.name] = part
    notes = [*dataset.found.notes, *remarks(parent.root, splits, [] if knows else unknown)]
    return replace(dataset, splits=divided, found=replace(dataset.found, notes=tuple(notes)))


def named(dataset: Dataset, info: Mapping[str, Any]) -> dict[str, str]:
    """Name → the split of an earlier run, of the images that it had: of the same folder and layout alone."""
    theirs = info["dataset"]
    if (
        Path(theirs["root"]).resolve() != dataset.found.root.resolve()
        or theirs["layout"] != dataset.found.layout
    ):
        return {}
    there = {case.name for case in dataset.found.cases}
    return {name: part for part in SPLITS for name in info["splits"].get(part, ()) if name in there}


def seen_as(case: Case, channels: int, known: Mapping[str, frozenset[str]]) -> str:
    """The split in which an image of the same pixels was seen, "" if in none."""
    rows = _rows(case, channels)
    digests = fingerprint.known_as(rows.bands(), rows.shape, rows.dtype)
    return next((part for part in SEEN if not known[part].isdisjoint(digests)), "")


def _rows(case: Case, channels: int) -> Rows:
    """An image in boxes where its files allow it, else decoded."""
    if all(open_stored(source.path, source.axes) is not None for source in case.images):
        return open_case(case, channels)
    return rows_of(read_spaced(case, channels)[0])


def by_group(cases: Sequence[Case], splits: Mapping[str, str]) -> dict[str, str]:
    """Group → the split in which all of it stays: train if one of its images was there, else val, …"""
    groups: dict[str, set[str]] = {}
    for case in cases:
        if case.name in splits:
            groups.setdefault(case.group, set()).add(splits[case.name])
    return {group: next(part for part in SPLITS if part in parts) for group, parts in groups.items()}


def remarks(run: Path, splits: Mapping[str, str], untold: Sequence[Case]) -> list[str]:
    """What becomes of images that an earlier run knows, a sentence for each kind.

    Args:
        run: its directory.
        splits: name of each → the split in which it stays.
        untold: images that are held back, of which nothing tells whether that run has seen them.
    """
    notes = []
    if splits:
        notes.append(
            f"{some(sorted(splits), 'image')} stay in the split of {run}, with all of their groups, so that "
            "none that it was trained on tests this run."
        )
    if untold:
        names = some([case.name for case in untold], "image")
        notes.append(
            f"whether {run} was trained on {names} that are held back here cannot be told: it noted no "
            "digests of its images."
        )
    return notes
