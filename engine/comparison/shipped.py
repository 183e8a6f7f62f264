"""Comparison files: those that come along, and where a name or path on the command line leads."""

from importlib.resources import files
from pathlib import Path

from engine.comparison import settings
from engine.errors import InputError, unknown

KEPT = "comparison.toml"
"""What a comparison's folder keeps of its file, with the folders and settings that were given beside it."""


def shipped() -> dict[str, Path]:
    """Name → file of each published comparison that comes along."""
    folder = Path(str(files("engine"))) / "comparisons"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def titles() -> dict[str, str]:
    """Name → title of each comparison that comes along."""
    return {
        name: settings.check(settings.read(path), f"file {path}").title for name, path in shipped().items()
    }


def find(given: str) -> tuple[Path, Path]:
    """The file that is meant, and the folder where its results usually go.

    Args:
        given: a TOML file, the folder of an earlier comparison, or the name of a shipped one.

    Raises:
        InputError: it is none of them.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        if not (path / KEPT).is_file():
            raise InputError(f"the folder {path} holds no comparison (there is no {KEPT} in it).")
        return path / KEPT, path
    if path.is_file():
        return path, Path("comparisons") / path.stem
    known = shipped()
    if given in known:
        return known[given], Path("comparisons") / given
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"there is no comparison file {path}; --list names those that come along.")
    raise unknown("comparison", given, known)
