"""nnU-Net's dataset.json: class names, versions 1 and 2."""

import json
from pathlib import Path
from typing import Any

from engine.data.decode import ENDINGS
from engine.errors import InputError


def read_classes(path: Path) -> dict[str, list[int | str]] | None:
    """Class → mask values, with ``background`` and ``ignore`` under those names; None without the file.

    Version 1 maps value to name, version 2 name to value or, for regions, to a list of values.

    Raises:
        InputError: not nnU-Net's JSON, a format that is not read, or regions that overlap.
    """
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        classes = _table(description["labels"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not nnU-Net's description of a data set ({type(error).__name__}: {error}): "
            '"labels": {"background": 0, "vessel": 1} has to be in it.'
        ) from error
    ending = str(description.get("file_ending", ".png")).lower()
    if ending not in ENDINGS:
        raise InputError(
            f"{path} gives the file_ending {ending!r}, which is not read: known are {', '.join(ENDINGS)}."
        )
    _refuse_overlap(path, classes)
    return classes


def _table(labels: dict[str, Any]) -> dict[str, list[int | str]]:
    if all(key.isdigit() for key in labels):  # version 1
        table: dict[str, list[int | str]] = {}
        for value, name in labels.items():
            table.setdefault(str(name), []).append(int(value))
        return table
    return {
        name: [int(value) for value in (values if isinstance(values, list) else [values])]
        for name, values in labels.items()
    }


def _refuse_overlap(path: Path, classes: dict[str, list[int | str]]) -> None:
    owner: dict[int | str, str] = {}
    for name, values in classes.items():
        for value in values:
            if value in owner:
                raise InputError(
                    f"{path} describes regions that overlap ({owner[value]} and {name} both hold {value}): "
                    "data.classes with each value in one class would work."
                )
            owner[value] = name
