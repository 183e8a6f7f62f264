"""The command line: flags to settings, and the help as documentation, both drawn from the specs.

A flag is a line of the settings file: ``--loss.name=dice`` is ``loss.name = "dice"``. Values are TOML
where they parse as TOML (``0.1``, ``[1, 2]``, ``true``, ``{ nucleus = [1, 2] }``) and text where not.
"""

import shutil
import textwrap
import tomllib
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from engine.config import RunConfig
from engine.errors import InputError
from engine.schema import choices, kinds, spec_types
from engine.spec import Spec


def parse(arguments: Sequence[str], config: type[Spec] = RunConfig) -> dict[str, Any]:
    """Nested settings of flags, ``--group.setting=value`` or ``--group.setting value``.

    A flag without a value switches a true-or-false setting on. Hyphens may stand for underscores.

    Raises:
        InputError: an argument that is no flag, a flag without its value, or one given twice.
    """
    settings: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        path = flag.removeprefix("--").split(".")
        if not flag.startswith("--") or "" in path:
            raise InputError(
                f"{flag + equals + text!r} is not a setting: they look like --training.epochs=50."
            )
        # What lies deeper than a setting is a name of the user's own, such as a class.
        path[:2] = [name.replace("-", "_") for name in path[:2]]
        takes = kinds(config, *path) if len(path) == 2 else set()
        if not equals:
            if rest and not rest[0].startswith("--"):
                text = rest.pop(0)
            elif not takes or bool in takes:
                text = "true"
            else:
                raise InputError(f"{flag} needs a value, as in {flag}=VALUE.")
        inner = settings
        for name in path[:-1]:
            inner = inner.setdefault(name, {}) if isinstance(inner, dict) else inner
        if not isinstance(inner, dict) or path[-1] in inner:
            raise InputError(f"{flag} is given twice.")
        inner[path[-1]] = value(text, as_text=bool(takes) and takes <= {str, type(None)})
    return settings


def value(text: str, *, as_text: bool = False) -> Any:
    """A flag's text as a TOML value, or as it is where it is not TOML.

    Args:
        text: what stands behind the equals sign.
        as_text: only text is wanted, so that a folder may be called 2024 or true.
    """
    try:
        found = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    # No setting is a date, but a file can be named like one.
    wanted = isinstance(found, str) if as_text else isinstance(found, bool | int | float | str | list | dict)
    return found if wanted else text


def describe(config: type[Spec] = RunConfig, width: int | None = None) -> str:
    """Documentation of every setting, group by group, wrapped to the terminal."""
    width = width or min(shutil.get_terminal_size().columns, 110)
    about = (
        "Each is --group.setting=VALUE, the value as in a TOML file; `none` unsets a number or "
        "list that may be left out. A group with a name is a choice: the settings below a name belong "
        "to that choice alone."
    )
    groups = [_group(group, field, config, width) for group, field in config.model_fields.items()]
    return "\n\n".join([_wrap(about, width, "", ""), *groups])


def _group(group: str, field: FieldInfo, config: type[Spec], width: int) -> str:
    named = choices(config, group)
    if not named:
        (spec,) = spec_types(field)
        return "\n".join([_wrap(f"{group}: {_doc(spec)}", width, "", "    "), *_settings(group, spec, width)])
    usual = getattr(field.default, "name", None) or field.description
    title = f"{group}: one of {', '.join(named)}  [default: {usual}]"
    lines = [_wrap(title, width, "", "    "), f"  --{group}.name=NAME"]
    for name, spec in named.items():
        lines.append(_wrap(f"{name}: {_doc(spec)}", width, "  ", "      "))
        lines += _settings(group, spec, width, "    ")
    return "\n".join(lines)


def _settings(group: str, spec: type[Spec], width: int, indent: str = "  ") -> Iterable[str]:
    fields = [(key, field) for key, field in spec.model_fields.items() if key != "name"]
    for key, field in sorted(fields, key=lambda item: _extra(item[1], "advanced") is True):
        yield f"{indent}--{group}.{key}={_kind(field)}"
        about = " ".join((field.description or "").split())
        # The default stays in one piece: its spaces are put back after wrapping.
        default = _default(field).replace(" ", "\0")
        text = _wrap(f"{about}  [{default}]", width, indent + "      ", indent + "      ")
        yield text.replace("\0", " ")


def _doc(spec: type[Spec]) -> str:
    return " ".join((spec.__doc__ or "").split())


def _wrap(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _extra(field: FieldInfo, key: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


def _kind(field: FieldInfo) -> str:
    """What may stand behind the equals sign: type, range and unit in a few words."""
    annotation = _required(field.annotation)
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        members = get_args(annotation)
        words = f"[{', '.join('N' for _ in members)}]"
        if Ellipsis in members:  # as many as images have axes
            words = "[N, N] or [N, N, N]"
        limits = _range(get_args(members[0])[1].metadata) if get_origin(members[0]) is Annotated else ""
        limits = f"with N {limits}" if limits else ""
    else:
        names = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "true|false"}
        words = names.get(annotation, "{NAME = [VALUES]}")
        limits = _range(field.metadata)
    return " ".join(filter(None, [words, limits, _extra(field, "unit")]))


def _required(annotation: Any) -> Any:
    """The type of a setting without the None and the validators that may be around it."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [member for member in get_args(annotation) if member is not type(None)]
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _range(metadata: Sequence[Any]) -> str:
    limits = {type(limit): limit for limit in metadata}
    if Ge in limits and Le in limits:
        return f"from {limits[Ge].ge:g} to {limits[Le].le:g}"
    words = [(Ge, "≥", "ge"), (Gt, ">", "gt"), (Le, "≤", "le"), (Lt, "<", "lt")]
    return ", ".join(f"{sign} {getattr(limits[kind], key):g}" for kind, sign, key in words if kind in limits)


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default == "":
        return "not set"
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, bool):
        return f"default: {str(default).lower()}"
    if isinstance(default, tuple):
        return f"default: [{', '.join(f'{member:g}' for member in default)}]"
    return f"default: {default:g}" if isinstance(default, float) else f"default: {default}"
