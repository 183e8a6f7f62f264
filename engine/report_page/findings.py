"""Findings: all that a run directory says of its run, read once, whatever of it is there."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Layer, RunConfig, resolve
from engine.errors import InputError
from engine.figures.epochs import History, queue_of
from engine.record import RunReader, Status
from engine.report_page.words import span

COMPARISON = "comparison.toml"
"""What the folder of a comparison holds, with its runs in runs/DATA/NETWORK/METHOD/seed-N."""


@dataclass(frozen=True)
class Findings:
    """A run as its directory shows it.

    Attributes:
        reader: of the run directory.
        info: its run.json.
        status: what the run is doing.
        events: all of them, in order.
        epochs: the events of finished epochs, each epoch once.
        history: of the finished epochs; None if there is none.
        settings: config.toml as it was written; empty if there is none.
        config: the same, validated; None where this version cannot.
        refusal: why not, one sentence, or "".
    """

    reader: RunReader
    info: dict[str, Any]
    status: Status
    events: Sequence[Mapping[str, Any]]
    epochs: Sequence[Mapping[str, Any]]
    history: History | None
    settings: Mapping[str, Any]
    config: RunConfig | None
    refusal: str = ""

    @property
    def root(self) -> Path:
        """The run directory."""
        return self.reader.root

    @property
    def name(self) -> str:
        """Of the run directory; of a run of a comparison also data set, network and method."""
        root = self.root.resolve()
        above = root.parents
        compared = len(above) > 4 and above[3].name == "runs" and (above[4] / COMPARISON).is_file()
        return " · ".join(root.parts[-4:]) if compared else root.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C foreground classes."""
        return tuple(str(name) for name in self.info["dataset"]["classes"])

    @property
    def splits(self) -> dict[str, list[str]]:
        """Split → names of its images."""
        return {part: [str(name) for name in names] for part, names in self.info["splits"].items()}

    def chosen(self, group: str) -> str:
        """The name that a part was given in the settings, such as "unet" for "model"; "" if it has none."""
        return str(self.settings.get(group, {}).get("name", ""))

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """The events of a kind, in order."""
        return [event for event in self.events if event["event"] == kind]

    def seconds(self) -> float:
        """Time that the trainer's processes took, without the pauses between them; until the last event."""
        total, began, last = 0.0, "", ""
        for event in self.events:
            if event["event"] == "started":
                total += span(began, last) if began else 0.0
                began = event["time"]
            last = event["time"]
        return total + (span(began, last) if began else 0.0)


def read_findings(root: Path) -> Findings:
    """Read a run directory, of a run in any state.

    Raises:
        InputError: no run directory, or one that this version cannot read.
    """
    reader = RunReader(root)
    info = reader.info()
    status = reader.status()
    events = reader.events()
    epochs = reader.epochs()
    history = None
    if epochs:
        history = History.of(epochs, [str(name) for name in info["dataset"]["classes"]], queue_of(reader))
    settings, config, refusal = read_settings(root / "config.toml")
    return Findings(reader, info, status, events, epochs, history, settings, config, refusal)


def read_settings(path: Path) -> tuple[dict[str, Any], RunConfig | None, str]:
    """A run's settings as written and as validated, and why they could not be, one sentence or ""."""
    try:
        written = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        return {}, None, f"The settings file {path.name} cannot be read ({error})."
    try:
        return written, resolve([Layer(f"file {path}", written)])[0], ""
    except InputError as error:
        return written, None, f"The settings are of another version of the program: {error}"
