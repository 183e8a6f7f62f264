"""Which images belong together: patient, eye, sequence. A group never straddles a split."""

import csv
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.data.decode import stem
from engine.data.pairs import some
from engine.errors import InputError

TABLE = "index.csv"
FILE_COLUMNS = ("image", "file", "stem", "name")
GROUP_COLUMNS = ("group", "patient", "subject", "patient_id", "subject_id", "case", "sequence", "plate")


def by_regex(paths: Sequence[str], regex: str) -> list[str] | None:
    """Group of each path (relative to the root, with ``/``) by the regex's first group.

    Returns:
        the groups, or None if the regex fits none or only some of the paths.
    """
    found = [re.search(regex, path) for path in paths]
    return [match[1] for match in found if match] if all(found) else None


def by_user_regex(paths: Sequence[str], regex: str) -> list[str]:
    """As :func:`by_regex`, for ``data.group``.

    Raises:
        InputError: not a regular expression with one group, or one that does not fit every path.
    """
    try:
        count = re.compile(regex).groups
    except re.error as error:
        raise InputError(
            f"data.group {regex!r} is no regular expression ({error}): (patient\\d+) is one."
        ) from error
    if count != 1:
        raise InputError(f"data.group {regex!r} has {count} groups in parentheses: exactly one is needed.")
    groups = by_regex(paths, regex)
    if groups is None:
        missed = [path for path in paths if not re.search(regex, path)]
        raise InputError(
            f"data.group {regex!r} fits {len(paths) - len(missed)} of {len(paths)} images, "
            f"not {missed[0]}: it has to fit every image's path below the root."
        )
    return groups


def by_table(paths: Sequence[str], root: Path) -> tuple[list[str | None], list[str]] | None:
    """Group of each path by ``index.csv`` in the root, by the first column that names groups.

    A row belongs to the image whose path, file name or stem stands in one of its file columns.

    Returns:
        a group, or None where no row fits, for each path, and notes; or None where no table names groups.

    Raises:
        InputError: the table cannot be read.
    """
    rows = _read_table(root / TABLE)
    columns = {name.strip().lower(): name for name in (rows[0] if rows else {}) if name}
    column = next((columns[name] for name in GROUP_COLUMNS if name in columns), None)
    if column is None:
        return None
    known: dict[str, set[str]] = {}
    for row in rows:
        for name in {row[columns[each]] for each in FILE_COLUMNS if each in columns} if row[column] else ():
            known.setdefault(name, set()).add(row[column].strip())
    unique = {name: next(iter(values)) for name, values in known.items() if len(values) == 1}
    found = [_look_up(path, unique) for path in paths]
    missing = [path for path, group in zip(paths, found, strict=True) if group is None]
    if len(missing) == len(paths):
        return None
    note = f"{TABLE} names no {column} for {some(missing, 'image')}: each is a group of its own."
    return found, [note] if missing else []


def _read_table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}): comma-separated UTF-8 text would work."
        ) from error


def _look_up(path: str, known: Mapping[str, str]) -> str | None:
    file = path.rpartition("/")[2]
    names = (path, file, stem(file), file.rpartition(".")[0])
    return next((known[name] for name in names if name in known), None)


def by_sequence(ids: Sequence[str], last_frames: Sequence[int]) -> list[str] | None:
    """Number of the sequence that each frame is in, from the last frame of each; None if one is beyond."""
    if not all(name.isdigit() and 1 <= int(name) <= last_frames[-1] for name in ids):
        return None
    return [f"sequence {bisect_left(last_frames, int(name)) + 1:02d}" for name in ids]
