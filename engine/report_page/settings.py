"""Settings: what a run was told, those that differ from the defaults first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from engine.config import RunConfig
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, code, element, folded, joined, note, prose, table
from engine.report_page.words import command
from engine.schema import choices
from engine.spec import Spec


@dataclass(frozen=True)
class Setting:
    """One setting of a run.

    Attributes:
        name: "group.key".
        value, default: as they are.
        unit: of both, or "".
        help: what it does; `backticks` mark code.
    """

    name: str
    value: Any
    default: Any
    unit: str
    help: str

    @property
    def differs(self) -> bool:
        """Whether it is other than the default."""
        return bool(self.value != self.default)


def settings(config: RunConfig) -> list[Setting]:
    """All settings in the order of the config."""
    return [setting for group in RunConfig.model_fields for setting in _group(config, group)]


def _group(config: RunConfig, group: str) -> list[Setting]:
    part: Spec = getattr(config, group)
    usual = _usual(config, group)
    found: list[Setting] = []
    for key, field in type(part).model_fields.items():
        if key == "name" and choices(RunConfig, group):
            about = " ".join((type(part).__doc__ or "").split())
            found.insert(0, Setting(f"{group}.name", getattr(part, key), getattr(usual, key), "", about))
            continue
        # A default belongs to the chosen part: dropping "lr" of another optimiser is no difference.
        same = type(part) is type(usual)
        default = getattr(usual, key) if same else field.get_default(call_default_factory=True)
        about = " ".join((field.description or "").split())
        found.append(Setting(f"{group}.{key}", getattr(part, key), default, _unit(field), about))
    return found


def _usual(config: RunConfig, group: str) -> Any:
    """What a group is if nothing is said of it; the usual loss depends on the other settings."""
    if group == "loss":
        return RunConfig.model_validate(config.model_dump(exclude={"loss"})).loss
    return RunConfig.model_fields[group].default


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit") or "") if isinstance(extra, dict) else ""


def written(value: Any) -> str:
    """A value as the settings file writes it."""
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {written(inner)}' for key, inner in value.items())}}}"
    return str(value)


def section(findings: Findings) -> Markup:
    """The settings; as they are written where this version does not know them."""
    again = element(
        "p", "The same run again: ", code(command("train", "--config", findings.root / "config.toml")), "."
    )
    if findings.config is None:
        return joined(
            note(findings.refusal, kind="warning"),
            _as_written(findings.settings) if findings.settings else None,
        )
    every = settings(findings.config)
    changed = [setting for setting in every if setting.differs]
    if changed:
        first = _table(f"Settings that differ from the defaults ({len(changed)} of {len(every)})", changed)
    else:
        first = element("p", "All settings are the defaults.")
    return joined(first, folded(f"All {len(every)} settings", _table("All settings", every)), again)


def _table(caption: str, rows: list[Setting]) -> Markup:
    titles = ["setting", "value", "default", "what it does"]
    return table(caption, titles, [_row(setting) for setting in rows], words=len(titles))


def _row(setting: Setting) -> list[Child]:
    value = _value(setting.value, setting.unit)
    return [
        code(setting.name),
        element("strong", value) if setting.differs else value,
        _value(setting.default, setting.unit),
        prose(setting.help),
    ]


def _value(value: Any, unit: str) -> str:
    text = written(value)
    return f"{text} {unit}" if unit and value is not None else text


def _as_written(values: Mapping[str, Any]) -> Markup:
    rows: list[list[Child]] = [
        [code(f"{group}.{key}"), written(value)]
        for group, given in values.items()
        for key, value in (given.items() if isinstance(given, Mapping) else [("", given)])
    ]
    return table("Settings as they are written", ["setting", "value"], rows, words=2)
