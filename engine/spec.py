"""Specs: frozen records of settings, and parts, which name the function that they set.

A part is a name plus the keyword arguments of one importable function. Unions of
parts are the registries: the command line, the form in the window, the saved
file and the validation all come from them, so no default, range or help text
stands twice. This module imports no torch.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """A frozen group of settings. Each field's docstring is its help text everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Part(Spec):
    """A spec that binds the settings to the function named by ``target`` ("module:function")."""

    target: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """Keyword arguments for the target: every field but ``name``."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}

    def bind(self) -> Callable[..., Any]:
        """Import the target and return it with the settings filled in."""
        return partial(import_target(self.target), **self.settings())


def import_target(target: str) -> Callable[..., Any]:
    """Import ``"package.module:function"``."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def setting(default: Any, *, unit: str = "", advanced: bool = False, **limits: Any) -> Any:
    """A field with a default and limits (``ge``, ``gt``, ``le``, ``lt``, ``min_length`` …).

    Args:
        default: the value when nothing is said.
        unit: shown behind the value in the help and in the form.
        advanced: folded away in the form, and listed last in the help.
        limits: passed on to :func:`pydantic.Field`.
    """
    return Field(default, json_schema_extra={"unit": unit, "advanced": advanced}, **limits)
