"""The grid of a comparison: data sets × networks × methods × seeds, each a run. Imports no torch."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import tomli_w

from engine.comparison import settings
from engine.comparison.settings import File
from engine.config import Layer, RunConfig, read_preset, resolve
from engine.errors import InputError, unknown

SHARED = ("root", "layout", "images", "masks", "valid", "group", "classes", "rest", "split", "split_seed")
"""Settings of `data` that decide which pixels are compared, and so are one for a data set."""
OF_FILES = ("layout", "images", "masks", "valid", "group", "classes", "rest")
"""Settings of `data` that say how a folder's files are read; the generated set has its own."""
LONGEST_NAME = 80
WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
)


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        data: name of the data set.
        network: name of the network.
        method: name of the method.
        seed: training.seed.
        config: the run's settings.
        folder: the run directory, absolute: OUT/runs/<data>/<network>/<method>/seed-<n>.
    """

    data: str
    network: str
    method: str
    seed: int
    config: RunConfig
    folder: Path

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.data} · {self.network} · {self.method} · seed {self.seed}"


@dataclass(frozen=True)
class Comparison:
    """What is compared and how; :class:`engine.comparison.settings.File` describes what the file says.

    Attributes:
        title: what is compared.
        about: where published numbers come from, and what differs here.
        out: folder of the runs, tables and figures, absolute.
        seeds: values of training.seed.
        size: "native" or "trained", the size at which test images are scored.
        checkpoint: "best" or "last"; None for best where there is a val split, else last.
        metrics: columns of the tables, names of engine.tables.COLUMNS.
        percent: whether shares are printed in percent, else from 0 to 1.
        spread: "std" over seeds or 95 % "interval" over test images, each averaged over seeds.
        test: "none", "welch" or "wilcoxon".
        ours: methods that are tested against the others, the baselines.
        against: each of ours → its baseline in the Wilcoxon test; empty without such a test.
        figures: names of the figures to draw.
        published: (data, network, method) → metric → the number as printed.
        data: names of the data sets, in the file's order, those without a folder left out.
        networks: names of the networks, in order.
        methods: names of the methods, in order.
        cells: every run, by seed, then data set, network and method, so that a table of all methods is
            there as soon as it can be.
        notes: what the user should know, a sentence each.
        document: the file's content with what was given beside it, as TOML that makes the same cells.
    """

    title: str
    about: str
    out: Path
    seeds: tuple[int, ...]
    size: Literal["native", "trained"]
    checkpoint: Literal["best", "last"] | None
    metrics: tuple[str, ...]
    percent: bool
    spread: Literal["std", "interval"]
    test: Literal["none", "welch", "wilcoxon"]
    ours: tuple[str, ...]
    against: Mapping[str, str]
    figures: tuple[settings.Figure, ...]
    published: Mapping[tuple[str, str, str], Mapping[str, str]]
    data: tuple[str, ...]
    networks: tuple[str, ...]
    methods: tuple[str, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    document: str


def load(
    path: Path,
    out: Path,
    *,
    roots: Sequence[str] = (),
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Comparison:
    """Read a comparison file and resolve the settings of every run.

    Args:
        path: the TOML file.
        out: folder for the runs, tables and figures.
        roots: folders of data sets, "NAME=FOLDER", or "FOLDER" where there is but one data set.
        only: names of data sets, networks and methods: of each kind that is named, only those.
        seeds: only these of the file's.
        flags: nested settings that win over the file's.

    Raises:
        InputError: anything in the file or beside it that cannot be used, as one sentence.
    """
    source, out = f"file {path}", out.expanduser().resolve()
    document = amended(settings.read(path), source, roots, flags or {})
    file = settings.check(document, source)
    _refuse_reserved(file, source)
    layers = _Layers(file, source)
    usual = layers.config(next(iter(file.data)), next(iter(file.methods)))[0].model.name
    axes = {
        "data set": tuple(file.data),
        "network": tuple(file.networks) or (usual,),
        "method": tuple(file.methods),
    }
    published = _published(file, axes["network"], source)
    kept = _kept(only, axes)
    kept["data set"], notes = _located(file, layers, kept["data set"], source)
    numbers = _chosen_seeds(file.seeds, seeds)
    cells, dropped = _multiply(layers, out, kept, numbers)
    test, ours, against = _tested(file, kept["method"])
    return Comparison(
        title=file.title,
        about=file.about,
        out=out,
        seeds=numbers,
        size=file.size,
        checkpoint=None if file.checkpoint == "auto" else file.checkpoint,
        metrics=file.metrics,
        percent=file.percent,
        spread=file.spread,
        test=test,
        ours=ours,
        against=against,
        figures=file.figures,
        published={place: published[place] for place in published if _in(place, kept)},
        data=kept["data set"],
        networks=kept["network"],
        methods=kept["method"],
        cells=cells,
        notes=(*notes, *dropped),
        document=tomli_w.dumps(document),
    )


def _in(place: Sequence[str], kept: Mapping[str, Sequence[str]]) -> bool:
    return all(name in names for name, names in zip(place, kept.values(), strict=True))


def _published(
    file: File, networks: Sequence[str], source: str
) -> dict[tuple[str, str, str], Mapping[str, str]]:
    """(data, network, method) → metric → the number as printed."""
    found: dict[tuple[str, str, str], Mapping[str, str]] = {}
    for data, by_network in file.published.items():
        for network, by_method in by_network.items():
            if network not in networks:
                error = unknown("network", network, networks, of=f" in [published.{data}]")
                raise InputError(f"{source}: {error}")
            for method, numbers in by_method.items():
                found[data, network, method] = numbers
    return found


def _tested(
    file: File, methods: Sequence[str]
) -> tuple[Literal["none", "welch", "wilcoxon"], tuple[str, ...], dict[str, str]]:
    """The test, our methods and the Wilcoxon baseline of each among the methods that are kept."""
    ours = tuple(name for name in file.ours if name in methods)
    baselines = [name for name in methods if name not in file.ours]
    if not ours or not baselines or file.test == "none":
        return "none", ours, {}
    if file.test == "welch":
        return file.test, ours, {}
    if isinstance(file.against, dict):
        pairs = {name: file.against[name] for name in ours if file.against[name] in baselines}
    else:
        pairs = dict.fromkeys(ours, file.against if file.against in baselines else baselines[0])
    return ("wilcoxon", ours, pairs) if pairs else ("none", ours, {})


def amended(
    document: dict[str, Any], source: str, roots: Sequence[str], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """The file's content with the folders and settings that were given beside it, and folders absolute.

    Raises:
        InputError: the file's own content cannot be used, a folder is for no data set of it, or a flag is a
            key of the file.
    """
    settings.check(document, source)
    for key in flags:
        if key in File.model_fields and key not in RunConfig.model_fields:
            raise InputError(
                f"--{key} cannot be given as a flag: it is no setting of a run but a key of the comparison; "
                f"write it in {source}."
            )
    data = {name: {**values} for name, values in document["data"].items()}
    given = dict(_named_root(text, data) for text in roots)
    for name, values in data.items():
        root = given.get(name, _group(values, "data").get("root"))
        if isinstance(root, str):
            own = _group(values, "data")
            if given.get(name) == "demo":
                own = {key: value for key, value in own.items() if key not in OF_FILES}
            values["data"] = {**own, "root": _absolute(root)}
    new = {**document, "data": data}
    if flags:
        below = document.get("overrides", {})
        new["overrides"] = {**below, **flags}
        for group in flags:
            if isinstance(flags[group], Mapping):
                new["overrides"][group] = {**_group(below, group), **flags[group]}
    return new


def _group(values: Mapping[str, Any], group: str) -> dict[str, Any]:
    """A group's settings; none if what stands there is no group, which is refused when it is resolved."""
    found = values.get(group, {})
    return dict(found) if isinstance(found, Mapping) else {}


def _named_root(text: str, data: Mapping[str, Any]) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if equals and name in data:
        return name, folder
    # A folder may have = in its name.
    if len(data) == 1 and (not equals or Path(text).expanduser().is_dir()):
        return next(iter(data)), text
    if equals:
        raise unknown("data set", name, data, of=" in --root")
    raise InputError(
        f"--root {text} does not say which data set it is of: --root NAME=FOLDER would, with one of "
        f"{', '.join(data)}."
    )


def _absolute(folder: str) -> str:
    return folder if folder in ("", "demo") else str(Path(folder).expanduser().resolve())


def _refuse_reserved(file: File, source: str) -> None:
    """Refuse settings that the grid itself sets."""
    places = {
        "settings": file.settings,
        "overrides": file.overrides,
        **{f"data.{name}": values for name, values in file.data.items()},
        **{f"networks.{name}": values for name, values in file.networks.items()},
        **{f"methods.{name}": values for name, values in file.methods.items()},
    }
    for place, values in places.items():
        if "seed" in _group(values, "training"):
            raise InputError(
                f"{source}, [{place}]: training.seed is set by the comparison's seeds: name it there."
            )
        if "root" in _group(values, "data") and not place.startswith("data."):
            raise InputError(
                f"{source}, [{place}]: data.root belongs to a data set: write it in [data.NAME], or give "
                "--root NAME=FOLDER."
            )


class _Layers:
    """The layers of settings of every cell, from one file."""

    def __init__(self, file: File, source: str) -> None:
        self._file = file
        self._source = source
        self._below = [read_preset(file.preset)] if file.preset else []

    def config(
        self, data: str, method: str, network: str | None = None, seed: int = 0
    ) -> tuple[RunConfig, list[str]]:
        """A cell's settings, and what was dropped on the way. Raises InputError naming the section."""
        file = self._file
        parts = {
            "[settings]": file.settings,
            f"[data.{data}]": file.data[data],
            f"[networks.{network}]": file.networks.get(network or "", {}),
            f"[methods.{method}]": file.methods[method],
            "[overrides] or a flag": file.overrides,
        }
        layers = self._below + [Layer(f"{self._source}, {place}", values) for place, values in parts.items()]
        try:
            return resolve([*layers, Layer("seeds", {"training": {"seed": seed}})])
        except InputError as error:
            raise InputError(f"{_culprit(layers)}: {error}") from None


def _culprit(layers: Sequence[Layer]) -> str:
    """Source of the layer with which the settings stop being usable."""
    for count in range(len(layers) - 1, 0, -1):
        try:
            resolve(layers[:count])
        except InputError:
            continue
        return layers[count].source
    return layers[0].source


def _located(
    file: File, layers: _Layers, names: Sequence[str], source: str
) -> tuple[tuple[str, ...], list[str]]:
    """Data sets that have a folder, and a sentence for each that has none."""
    network, method = next(iter(file.networks), None), next(iter(file.methods))
    found, notes = [], []
    for name in names:
        root = layers.config(name, method, network)[0].data.root
        if root not in ("", "demo") and not Path(root).expanduser().is_dir():
            raise InputError(f"{source}, [data.{name}]: there is no folder {root}.")
        if root:
            found.append(name)
        else:
            notes.append(
                f"{name} is left out, as its folder is not known: fill in data.root in [data.{name}], or "
                f"give --root {name}=FOLDER."
            )
    if not found:
        flag = "FOLDER" if len(file.data) == 1 else f"{names[0]}=FOLDER"
        raise InputError(
            f"{source}: no folder is known of {', '.join(names)}: fill in data.root in [data.{names[0]}], "
            f"or give --root {flag}."
        )
    return tuple(found), notes


def _kept(only: Sequence[str], axes: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Of each kind of which a name is given, only the names given."""
    known = [name for names in axes.values() for name in names]
    for name in only:
        if name not in known:
            raise unknown("name", name, known, of=" in --only")
    return {
        kind: tuple(name for name in names if name in only or not set(only) & set(names))
        for kind, names in axes.items()
    }


def _chosen_seeds(seeds: tuple[int, ...], asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked is None:
        return seeds
    for seed in asked:
        if seed not in seeds:
            raise unknown("seed", str(seed), map(str, seeds), of=" in --seeds")
    return tuple(seed for seed in seeds if seed in asked)


def _multiply(
    layers: _Layers, out: Path, kept: Mapping[str, tuple[str, ...]], seeds: Sequence[int]
) -> tuple[tuple[Cell, ...], list[str]]:
    """Every cell, and a sentence for each part whose lower settings were dropped."""
    folders = {kind: folder_names(kind, names) for kind, names in kept.items()}
    cells: list[Cell] = []
    notes: dict[str, None] = {}
    for seed, (data, network, method) in product(seeds, product(*kept.values())):
        config, dropped = layers.config(data, method, network, seed)
        config = config.located()
        names = (folders["data set"][data], folders["network"][network], folders["method"][method])
        cells.append(Cell(data, network, method, seed, config, out.joinpath("runs", *names, f"seed-{seed}")))
        notes.update(dict.fromkeys(dropped))
    _refuse_unequal_data(cells)
    return tuple(cells), list(notes)


def _refuse_unequal_data(cells: Iterable[Cell]) -> None:
    """Refuse methods or networks that change which images of a data set are compared."""
    first: dict[str, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.data, cell)
        for key in SHARED:
            mine, theirs = getattr(cell.config.data, key), getattr(other.config.data, key)
            if mine != theirs:
                raise InputError(
                    f"data.{key} is {mine!r} for {cell.name} and {theirs!r} for {other.name}: within a data "
                    "set it must be one, or different images would be compared."
                )


def folder_names(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Name → a folder's name that every file system takes.

    Raises:
        InputError: two names that differ only in what a file system does not tell apart, or a name
            without a letter or digit.
    """
    folders: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        folder = _folder_name(name)
        if not any(character.isalnum() for character in folder):
            raise InputError(f"the {kind} {name!r} needs a letter or a digit in its name.")
        other = taken.setdefault(folder.casefold(), name)
        if other != name:
            raise InputError(
                f"the {kind}s {other!r} and {name!r} would share the folder {folder!r}: give them names that "
                "differ in more than case, spaces and signs."
            )
        folders[name] = folder
    return folders


def _folder_name(name: str) -> str:
    plain = unicodedata.normalize("NFC", name)
    kept = "".join(character if character.isalnum() or character in "._+-" else "-" for character in plain)
    while len(kept.encode()) > LONGEST_NAME:
        kept = kept[:-1]
    kept = kept.strip(".-")
    return f"_{kept}" if kept.partition(".")[0].casefold() in WINDOWS_DEVICES else kept
