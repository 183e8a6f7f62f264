"""Use of a chosen threshold: the commands that take it, what it says, and on which images it is no test.

No torch.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from engine.thresholds_file import Entry


def commands(
    entry: Entry, run: Path, tile: int, *, checkpoint: str | None = None, untested: str = ""
) -> tuple[list[str], list[str]]:
    """How a threshold is used, with the flags that predict as it was made.

    Args:
        entry: what the rule chose.
        run: the run directory.
        tile: of the run's settings, which commands take without a flag.
        checkpoint: the flag that is needed, if one is.
        untested: why test images cannot be scored, "" if they can.

    Returns:
        Commands as they are typed, and why another is not among them, each the beginning of a sentence's
        end: "evaluate cannot: …".
    """
    path = entry.predicted.path
    tiled, small = path.get("tile", tile) != tile, path.get("size") == "trained"
    common = ["--threshold", entry.rule.name, *(["--checkpoint", checkpoint] if checkpoint else [])]
    typed, cannot = [], []
    if small:
        cannot.append("predict cannot use it, as it decides at the images' own size (no --size)")
    else:
        typed.append(_typed("predict", run, "IMAGES", *common, *(["--tile", str(path["tile"])] * tiled)))
    if tiled:
        cannot.append("evaluate cannot use it, as it predicts with the run's own tiles (no --tile)")
    elif untested:
        cannot.append(f"evaluate has nothing to score it on: {untested}")
    else:
        typed.append(_typed("evaluate", run, *common, *(["--size", "trained"] if small else [])))
    return typed, cannot


def _typed(name: str, *arguments: str | Path) -> str:
    return shlex.join(["python", "-m", f"engine.{name}", *map(str, arguments)])


def said(entry: Entry) -> list[str]:
    """What is promised, or that nothing is: a text for each class, or one where T is for all together."""
    first = next(iter(entry.classes.values()))
    if len(entry.classes) == 1:
        return [first.words]
    if entry.together:
        return [f"all classes together: {first.words}"]
    return [f"{name}: {each.words}" for name, each in entry.classes.items()]


def worst(entry: Entry) -> str:
    """By which of its parts a unit counts as missed: "each image's worst class", "" if it has but one."""
    unit = str(entry.data["unit"])
    several = (("image", unit != "image"), ("class", entry.together and len(entry.classes) > 1))
    parts = " and ".join(name for name, yes in several if yes)
    return f"each {unit}'s worst {parts}" if parts else ""


def choosing(entry: Entry, digests: Mapping[str, str], split: str) -> list[str]:
    """Those of some images on which T was chosen, so that they do not test it.

    Args:
        entry: what the rule chose.
        digests: name of each image → :func:`engine.fingerprint.image` of it.
        split: of the run that they are.

    Returns:
        Names, in order. By pixels; by name within the split itself, for files without digests of images.
    """
    known = set(entry.data.get("digests", ()))
    if not known and entry.data["source"] == f"{split} split":
        named = set(map(str, entry.data.get("names", ())))
        return [name for name in digests if name in named]
    return [name for name, digest in digests.items() if digest in known]
