"""What is wrong with settings that are being edited, and beside which of them to say so. No Qt."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from engine.config import RunConfig, explain
from engine.schema import spec_at, spec_types

UNREADABLE = object()
"""Stands for a text that could not be read: no setting takes it."""


def complaints(values: Mapping[str, Any], unreadable: Mapping[str, str]) -> dict[str, str]:
    """Place → sentence for all that keeps settings from being a config; empty if they are one.

    A place is ``group.key``, a group where no setting of it is to blame alone, or "" for them all.

    Args:
        values: group → setting → value, with UNREADABLE for what could not be read.
        unreadable: the place of each of those, and why.
    """
    found: dict[str, str] = dict(unreadable)
    try:
        RunConfig.model_validate(values)
    except ValidationError as error:
        for single in _one_by_one(error):
            sentence = explain(single, values)
            for place in places(single.errors(include_url=False)[0]["loc"], sentence):
                found.setdefault(place, sentence)
    return found


def _one_by_one(error: ValidationError) -> list[ValidationError]:
    """An error for each thing that is wrong, for a sentence each."""
    return [
        ValidationError.from_exception_data(
            error.title,
            [
                InitErrorDetails(
                    type=one["type"], loc=one["loc"], input=one["input"], ctx=dict(one.get("ctx", {}))
                )
            ],
        )
        for one in error.errors(include_url=False)
        if one["type"] != "default_factory_not_called"
    ]


def places(location: tuple[int | str, ...], sentence: str) -> list[str]:
    """The settings to blame: that at pydantic's location, or else those which the sentence names.

    A rule of a whole group, or of the config, has no setting as its location.
    """
    place = spec_at(RunConfig, location)[0]
    if "." in place or (place and place not in RunConfig.model_fields):
        return [place]
    if place:
        words = re.findall(r"\w+", sentence.removeprefix(place))
        specs = spec_types(RunConfig.model_fields[place])
        keys = dict.fromkeys(key for spec in specs for key in spec.model_fields if key != "name")
        return [f"{place}.{key}" for key in keys if key in words] or [place]
    dotted = re.findall(r"\b(\w+)\.(\w+)\b", sentence)
    return [".".join(pair) for pair in dotted if spec_at(RunConfig, pair)[0] == ".".join(pair)] or [""]
