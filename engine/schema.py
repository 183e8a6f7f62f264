"""Looking into specs: the members of a registry, and the spec that a setting belongs to.

The help, the error messages and the form in the window are all drawn from here.
"""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from engine.spec import Part, Spec


def spec_types(field: FieldInfo) -> tuple[type[Spec], ...]:
    """The specs that a field can hold: several for a registry, none for a plain value."""
    return _specs(field.annotation)


def _specs(annotation: Any) -> tuple[type[Spec], ...]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return (annotation,)
    if get_origin(annotation) is Annotated:
        return _specs(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(spec for member in get_args(annotation) for spec in _specs(member))
    return ()


def choices(owner: type[Spec], field: str) -> dict[str, type[Part]]:
    """Name → spec for the registry in a field; empty if the field is not a registry."""
    members = spec_types(owner.model_fields[field])
    return {member.model_fields["name"].default: member for member in members if issubclass(member, Part)}


def kinds(owner: type[Spec], group: str, key: str) -> set[type]:
    """Plain types that the setting ``group.key`` takes; empty if there is no such setting.

    Where several members of a registry have it, those of all of them.
    """
    members = spec_types(owner.model_fields[group]) if group in owner.model_fields else ()
    fields = [member.model_fields[key] for member in members if key in member.model_fields]
    return {kind for field in fields for kind in _kinds(field.annotation)}


def _kinds(annotation: Any) -> set[type]:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {type(member) for member in members}
    if origin in (Union, UnionType):
        return {kind for member in members for kind in _kinds(member)}
    if origin is Annotated:
        return _kinds(members[0])
    return {origin or annotation}


def spec_at(owner: type[Spec], location: tuple[int | str, ...]) -> tuple[str, type[Spec]]:
    """Dotted setting name for a pydantic error location, and the spec that holds the setting.

    A registry's chosen name, which pydantic puts into the location, is left out of the dotted name.
    """
    dotted: list[str] = []
    spec, rest = owner, list(location)
    while rest:
        key = rest.pop(0)
        if isinstance(key, int):
            continue
        dotted.append(key)
        field = spec.model_fields.get(key)
        if field is None:
            break
        members = spec_types(field)
        if not members:
            break
        named = choices(spec, key)
        if rest and isinstance(rest[0], str) and rest[0] in named and len(members) > 1:
            spec = named[str(rest.pop(0))]
        elif rest:
            spec = members[0]
    return ".".join(dotted), spec
