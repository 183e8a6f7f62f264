"""Writing an exported file: beside its place, tried on real images, and only then in its place."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from engine.disk import replace_text
from engine.errors import InputError
from engine.exported.agreement import TOLERANCE, Check, agreement, largest
from engine.exported.graph import Graph
from engine.outputs import replacing
from engine.record import plain
from engine.trained import Trained


class Kind(Protocol):
    """A kind of file: a module that writes and runs it."""

    def write(self, path: Path, graph: Graph, description: Mapping[str, Any]) -> None:
        """Write it."""

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        """Run it."""

    def runtime(self) -> str:
        """What runs it."""


@dataclass(frozen=True)
class Written:
    """A file that agrees with its run.

    Attributes:
        path: of the file; its description and checks are in PATH.json.
        checks: what it was compared on.
        runtime: what ran it.
    """

    path: Path
    checks: Sequence[Check]
    runtime: str

    @property
    def words(self) -> str:
        """How well it agrees, for the user."""
        return (
            f"{self.path}: probabilities equal the run's to within {largest(self.checks):.1g} on real images "
            f"({len(self.checks)} compared, {TOLERANCE:g} allowed, {self.runtime})"
        )


def write_checked(
    path: Path, kind: Kind, trained: Trained, graph: Graph, description: Mapping[str, Any],
    images: Iterable[tuple[str, Tensor]],
) -> Written:  # fmt: skip
    """Write a file and PATH.json, which says what is in it and how far it agrees with the run.

    Raises:
        InputError: it does not agree; then neither file is there.
    """
    with replacing(path) as new:
        kind.write(new, graph, description)
        checks = agreement(trained, kind.runner(new), images, path.name)
        beside = {
            "file": path.name,
            "sha256": sha256(new.read_bytes()).hexdigest(),
            **description,
            "agreement": agreed(checks, kind.runtime()),
        }
        replace_text(
            path.with_name(f"{path.name}.json"), json.dumps(beside, indent=2, ensure_ascii=False) + "\n"
        )
    return Written(path, checks, kind.runtime())


def agreed(checks: Sequence[Check], runtime: str, allowed: float = TOLERANCE) -> Any:
    """Comparisons as JSON can hold them."""
    return plain(
        {
            "largest_difference": largest(checks),
            "allowed": allowed,
            "with": runtime,
            "images": [vars(check) for check in checks],
        }
    )


def free(path: Path, overwrite: bool) -> Path:
    """A path that may be written.

    Raises:
        InputError: it is there already, or its folder is not.
    """
    path = path.expanduser()
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: give another name, or --overwrite.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into: make it first.")
    return path
