"""The command line: flags to settings, and the help as documentation, both drawn from the specs.

A flag is a line of the settings file: ``--loss.name=dice`` is ``loss.name = "dice"``. Values are TOML
where they parse as TOML (``0.1``, ``[1, 2]``, ``true``, ``{ nucleus = [1, 2] }``) and text where not.
"""

import shutil
import textwrap
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from engine.errors import InputError
from engine.schema import choices, spec_types
from engine.spec import Spec


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Nested settings of ``--group.setting=value``, ``--group.setting value`` or, for true, ``--group.setting``.

    Raises:
        InputError: an argument that is no flag, or a flag given twice.
    """
    settings: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or len(flag) < 3:
            raise InputError(f"{flag!r} is not a setting: settings look like --training.epochs=50.")
        name, equals, text = flag[2:].partition("=")
        if not equals:
            text = rest.pop(0) if rest and not _is_flag(rest[0]) else "true"
        group, _, key = name.replace("-", "_").partition(".")
        if not key:
            settings[group] = value(text)
            continue
        inner = settings.setdefault(group, {})
        if not isinstance(inner, dict) or key in inner:
            raise InputError(f"--{name} is given twice.")
        inner[key] = value(text)
    return settings


def _is_flag(text: str) -> bool:
    return text.startswith("--")


def value(text: str) -> Any:
    """A flag's text as a TOML value, or as it is where it is not TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def describe(config: type[Spec], width: int | None = None) -> str:
    """Documentation of every setting, group by group, wrapped to the terminal."""
    width = width or min(shutil.get_terminal_size().columns, 110)
    return "\n\n".join(
        _group(group, field, config, width) for group, field in config.model_fields.items()
    )


def _group(group: str, field: FieldInfo, config: type[Spec], width: int) -> str:
    named = choices(config, group)
    if not named:
        (spec,) = spec_types(field)
        return "\n".join([_title(group, spec, width), *_settings(group, spec, width)])
    usual = getattr(field.default, "name", None)
    default = f"default: {usual}" if usual else "default: dice_bce with SMM v2 or overlapping classes, else dice_ce"
    lines = [f"{group}: one of {', '.join(named)}  [{default}]", f"  --{group}.name=NAME"]
    for name, spec in named.items():
        lines += [_wrap(f"{name}: {_doc(spec)}", width, "  ", "      "), *_settings(group, spec, width, "    ")]
    return "\n".join(lines)


def _title(group: str, spec: type[Spec], width: int) -> str:
    return _wrap(f"{group}: {_doc(spec)}", width, "", "    ")


def _settings(group: str, spec: type[Spec], width: int, indent: str = "  ") -> Iterable[str]:
    fields = [(key, field) for key, field in spec.model_fields.items() if key != "name"]
    for key, field in sorted(fields, key=lambda item: _extra(item[1], "advanced") is True):
        yield f"{indent}--{group}.{key}={_kind(field)}"
        about = " ".join((field.description or "").split())
        yield _wrap(f"{about}  [{_default(field)}]", width, indent + "      ", indent + "      ")


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
    options = [option for option in get_args(field.annotation) if option is not type(None)]
    annotation = options[0] if type(None) in get_args(field.annotation) else field.annotation
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    simple = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "true|false"}
    words = simple.get(annotation) if isinstance(annotation, type) else None
    if words is None:
        words = "{NAME = [VALUES]}" if get_origin(annotation) is dict else _numbers(annotation)
    return " ".join(filter(None, [words, _range(field.metadata), _extra(field, "unit")]))


def _numbers(annotation: Any) -> str:
    members = [member for member in get_args(annotation) if member is not type(None)]
    if members and get_origin(members[0]) is tuple:
        members = list(get_args(members[0]))
    return "[" + ", ".join("N" for _ in members) + "]"


def _range(metadata: Sequence[Any]) -> str:
    words = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    limits = [(words[type(limit)], limit) for limit in metadata if type(limit) in words]
    return ", ".join(f"{sign} {getattr(limit, name):g}" for (sign, name), limit in limits)


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default == "":
        return "not set"
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, bool):
        return f"default: {str(default).lower()}"
    if isinstance(default, tuple):
        return f"default: [{', '.join(map(str, default))}]"
    return f"default: {default}"
