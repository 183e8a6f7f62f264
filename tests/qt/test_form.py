"""The settings form: config → form → config for every part, and what it does with what is no config."""

import gc
import math
import re
import tomllib
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from napari.qt import get_stylesheet
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pytestqt.qtbot import QtBot
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QApplication, QComboBox, QLabel, QLineEdit, QScrollArea, QVBoxLayout, QWidget

from engine.config import Layer, RunConfig, presets, read_preset, resolve, to_toml
from engine.data.layouts import known
from engine.errors import InputError
from engine.schema import choices, spec_types
from engine.spec import Spec
from napari_smm.qt.complaints import UNREADABLE, complaints
from napari_smm.qt.fields import (
    ChoiceField,
    FolderField,
    Limits,
    NumberField,
    OptionalField,
    SuggestField,
    limits_of,
)
from napari_smm.qt.form import HEIGHT, PATIENCE, WIDTH, SettingsForm
from napari_smm.qt.page import layouts
from napari_smm.qt.section import WARNING, Section

GROUPS = tuple(RunConfig.model_fields)
SPECS = [
    pytest.param(group, spec, id=f"{group}-{spec.__name__}")
    for group, field in RunConfig.model_fields.items()
    for spec in spec_types(field)
]
SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
TEXTS = st.text(st.characters(codec="utf-8"))


@pytest.fixture
def hidden(qtbot: QtBot) -> SettingsForm:
    """A form that is never shown. Where it takes many values, none may colour the next."""
    form = SettingsForm()
    qtbot.addWidget(form)
    return form


@pytest.fixture
def form(qtbot: QtBot) -> SettingsForm:
    """A form of its own, shown at the size that a dock gives it."""
    form = SettingsForm()
    qtbot.addWidget(form)
    form.resize(WIDTH, 640)
    form.show()
    qtbot.waitExposed(form)
    return form


def config_of(**groups: dict[str, Any]) -> RunConfig:
    return resolve([Layer("flags", groups)])[0]


def exact(config: RunConfig) -> str:
    """A text that differs wherever two configs do: floats to the bit, -0.0, 1 and 1.0, True and 1."""
    return repr(config.model_dump())


def field(form: QWidget, group: str, key: str) -> Any:
    """The one widget of a setting."""
    found = form.findChildren(QWidget, f"setting-{group}-{key}")
    assert len(found) == 1, f"{group}.{key}: {found}"
    return found[0]


def section(form: QWidget, group: str) -> Section:
    found: Section = form.findChild(Section, f"section-{group}")
    return found


def sentence(form: QWidget, place: str) -> str:
    """What is said beside a setting; empty where nothing can be seen."""
    found = form.findChildren(QLabel, f"complaint-{place.replace('.', '-')}".rstrip("-"))
    return "".join(label.text() for label in found if not label.isHidden())


def judged(qtbot: QtBot, form: SettingsForm) -> None:
    """Wait until what was edited last has been judged."""
    timer = form.findChildren(QTimer, options=Qt.FindChildOption.FindDirectChildrenOnly)[0]
    qtbot.waitUntil(lambda: not timer.isActive(), timeout=5 * PATIENCE)


# config → form → config


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Values of a setting, from its type and limits alone, their ends included."""
    origin, members = get_origin(annotation), get_args(annotation)
    limits = limits_of(metadata)
    if origin is Annotated:
        inner = [entry.metadata if isinstance(entry, FieldInfo) else [entry] for entry in members[1:]]
        return values(members[0], [*metadata, *(limit for entries in inner for limit in entries)])
    if origin is Literal:
        return st.sampled_from(members)
    if origin is tuple:
        return st.tuples(*(values(member, []) for member in members))
    if origin is dict:
        return st.dictionaries(TEXTS, st.lists(st.integers() | TEXTS, max_size=3), max_size=3)
    if members:  # X | None
        return st.one_of(values(m, metadata) if m is not type(None) else st.none() for m in members)
    plain = {bool: st.booleans(), str: TEXTS, int: integers(limits), float: floats(limits)}
    return plain[annotation]


def integers(limits: Limits) -> st.SearchStrategy[int]:
    least, most = (None if end is None else int(end) for end in (limits.ge, limits.le))
    ends = st.sampled_from([end for end in (least, most, 2**31 + (least or 0)) if end is not None])
    return ends.filter(limits.hold) | st.integers(least, most)


def floats(limits: Limits) -> st.SearchStrategy[float]:
    least = limits.ge if limits.ge is not None else limits.gt
    most = limits.le if limits.le is not None else limits.lt
    return st.floats(
        least, most, allow_nan=False, allow_infinity=False,
        exclude_min=limits.gt is not None, exclude_max=limits.lt is not None,
    )  # fmt: skip


LENGTH = st.integers(1, 8192).map(lambda number: 8 * number)
INTERVAL = st.tuples(st.floats(0.1, 9), st.floats(9, 1e300))
RULED = {
    ("data", "patch"): st.none() | st.tuples(LENGTH, LENGTH) | st.tuples(LENGTH, LENGTH, LENGTH),
    ("data", "size"): st.none() | st.tuples(LENGTH, LENGTH) | st.tuples(LENGTH, LENGTH, LENGTH),
    ("data", "spacing"): st.none(),
    ("data", "axes"): st.none() | st.sampled_from(["zyx", "cyx"]),
    ("data", "split"): st.tuples(st.floats(0.1, 0.3), st.floats(0, 0.3), st.floats(0, 0.3)).map(
        lambda three: (*three, 1 - sum(three))
    ),
    **{("augment", key): INTERVAL for key in ("scale", "elastic_alpha", "elastic_sigma")},
    **{("augment", key): INTERVAL for key in ("brightness", "contrast")},
}
"""Settings that have a rule beside type and limits."""


def given_values(group: str, spec: type[Spec]) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a spec that hold its own rules."""

    def holds(settings: dict[str, Any]) -> bool:
        try:
            spec.model_validate(settings)
        except ValidationError:
            return False
        return True

    keys = {
        key: st.just(inner.default)
        if key == "name"
        else RULED[group, key]
        if (group, key) in RULED
        else values(inner.annotation, inner.metadata)
        for key, inner in spec.model_fields.items()
    }
    return st.fixed_dictionaries(keys).filter(holds)


def usable(groups: dict[str, Any]) -> bool:
    exclusive = groups["modulation"]["name"] == "smm_v2" and groups["training"]["head"] == "exclusive"
    two_starts = groups["training"]["init"] and groups["model"].get("weights") is not None
    return not (exclusive or two_starts)


CONFIGS = (
    st.fixed_dictionaries(
        {
            group: st.one_of(given_values(group, spec) for spec in spec_types(field))
            for group, field in RunConfig.model_fields.items()
        }
    )
    .filter(usable)
    .map(RunConfig.model_validate)
)


@pytest.mark.parametrize(("group", "spec"), SPECS)
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_every_part_comes_back_whatever_its_settings(
    hidden: SettingsForm, group: str, spec: type[Spec], data: st.DataObject
) -> None:
    given_group = data.draw(given_values(group, spec))
    if given_group.get("head") == "exclusive":
        given_group["head"] = "auto"
    config = RunConfig.model_validate({group: given_group})
    hidden.set_value(config)
    assert exact(hidden.value()) == exact(config)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(config=CONFIGS)
def test_any_config_comes_back(hidden: SettingsForm, config: RunConfig) -> None:
    hidden.set_value(config)
    assert exact(hidden.value()) == exact(config)


@pytest.mark.parametrize("name", [None, *presets()])
def test_the_defaults_and_every_preset_come_back(hidden: SettingsForm, name: str | None) -> None:
    config = resolve([read_preset(name)] if name else [])[0]
    hidden.set_value(config)
    assert exact(hidden.value()) == exact(config)
    assert hidden.check()


@pytest.mark.parametrize(("group", "spec"), SPECS)
def test_every_setting_has_one_named_widget_with_its_help(
    hidden: SettingsForm, group: str, spec: type[Spec]
) -> None:
    default = spec().model_dump()
    hidden.set_value(config_of(**{group: {"name": default["name"]} if "name" in default else {}}))
    for key, info in spec.model_fields.items():
        if key == "name" and not choices(RunConfig, group):
            continue
        widget = field(hidden, group, key)
        help_text = spec.__doc__ if key == "name" else info.description
        words = " ".join((help_text or "").split()).replace("`", "")
        assert words[:40] in re.sub("<[^>]+>", "", widget.toolTip()).replace("&amp;", "&").replace(
            "&gt;", ">"
        )
        assert widget.accessibleName()


@pytest.mark.parametrize(("group", "spec"), SPECS)
def test_what_is_shown_can_be_typed_anew(hidden: SettingsForm, group: str, spec: type[Spec]) -> None:
    # The texts, not just the values kept behind them, say what the setting is.
    name = spec.model_fields["name"].default if "name" in spec.model_fields else None
    config = config_of(
        **{group: {"name": name} if name else {}},
        **({} if group == "data" else {"data": {}}),
    )
    if group == "data":
        config = config_of(
            data={"root": "/eyes", "classes": {"a b": [1, "#ff0000"]}, "size": (64, 72), "images": "{id}.tif"}
        )
    hidden.set_value(config)
    for key in spec.model_fields:
        if key == "name":
            continue
        widget = field(hidden, group, key)
        lines = [widget] if isinstance(widget, QLineEdit) else widget.findChildren(QLineEdit)
        for line in lines:
            text = line.text()
            line.setText(text + "1")
            line.setText(text)
    assert exact(hidden.value()) == exact(config)


def test_a_value_is_announced_once_and_not_while_it_is_being_set(hidden: SettingsForm) -> None:
    form = hidden
    seen: list[str] = []
    form.changed.connect(lambda: seen.append(exact(form.value())))
    config = resolve([read_preset("smm"), Layer("x", {"data": {"size": 64}, "loss": {"name": "dice"}})])[0]
    form.set_value(config)
    assert seen == [exact(config)]


# Edits


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("group", "key", "edit", "value"),
    [
        ("training", "epochs", lambda widget: widget.line.setText("7"), 7),
        ("training", "epochs", lambda widget: widget.stepUp(), 101),
        ("optimizer", "lr", lambda widget: widget.line.setText("1e-5"), 1e-5),
        ("training", "precision", lambda widget: widget.setCurrentText("bfloat16"), "bfloat16"),
        ("training", "device", lambda widget: widget.setEditText("cuda:1"), "cuda:1"),
        ("training", "compile", lambda widget: widget.click(), True),
        ("data", "root", lambda widget: widget.path.setText("demo"), "demo"),
        ("data", "split", lambda widget: widget.members[0].line.setText("0.60"), (0.6, 0.15, 0.1, 0.15)),
        ("data", "images", lambda widget: widget.given.click(), ""),
    ],
)
def test_an_edit_is_told_once_and_is_in_the_value(
    form: SettingsForm, group: str, key: str, edit: Any, value: Any
) -> None:
    told: list[None] = []
    form.changed.connect(lambda: told.append(None))
    edit(field(form, group, key))
    assert getattr(getattr(form.value(), group), key) == value
    assert len(told) == 1


def test_another_part_brings_its_settings_and_switching_back_what_was_typed(form: SettingsForm) -> None:
    told: list[None] = []
    form.changed.connect(lambda: told.append(None))
    form.open_group("optimizer")
    field(form, "optimizer", "lr").line.setText("0.25")
    choice = field(form, "optimizer", "name")
    choice.setCurrentText("sgd")
    assert form.value().optimizer.model_dump() == {
        "name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0
    }  # fmt: skip
    assert field(form, "optimizer", "momentum").isVisible()
    choice.setCurrentText("adam")
    assert form.value().optimizer.model_dump()["lr"] == 0.25
    assert not form.findChildren(QWidget, "setting-optimizer-momentum")
    assert len(told) == 3
    choice.setCurrentText("sgd")
    field(form, "optimizer", "momentum").line.setText("0.5")
    form.set_value(RunConfig())
    choice.setCurrentText("sgd")
    assert form.value().optimizer.model_dump()["momentum"] == 0.9  # a new value starts afresh


def test_the_loss_follows_the_method_until_it_is_chosen(form: SettingsForm) -> None:
    method, loss = field(form, "modulation", "name"), field(form, "loss", "name")
    told: list[str] = []
    form.changed.connect(lambda: told.append(form.value().loss.name))
    method.setCurrentText("none")
    method.setCurrentText("smm_v2")
    method.setCurrentText("smm_v1")
    field(form, "training", "head").setCurrentText("multilabel")
    assert told == ["dice_ce", "dice_bce", "dice_ce", "dice_bce"]
    loss.setCurrentText("dice")
    method.setCurrentText("none")
    assert form.value().loss.name == "dice"
    loss.setCurrentText("dice_bce")  # the usual one again
    field(form, "training", "head").setCurrentText("auto")
    assert form.value().loss.name == "dice_ce"
    field(form, "loss", "ce_weight").line.setText("2")
    method.setCurrentText("smm_v2")
    assert form.value().loss.model_dump() == {"name": "dice_ce", "dice_weight": 1.0, "ce_weight": 2.0}


def test_a_loss_that_was_set_otherwise_does_not_follow(form: SettingsForm) -> None:
    form.set_value(config_of(loss={"name": "dice_ce"}))
    field(form, "modulation", "name").setCurrentText("none")
    field(form, "modulation", "name").setCurrentText("smm_v2")
    assert form.value().loss.name == "dice_ce"


def test_the_loss_follows_once_a_mistake_elsewhere_is_mended(form: SettingsForm) -> None:
    field(form, "training", "epochs").line.setText("")
    field(form, "modulation", "name").setCurrentText("none")
    field(form, "training", "epochs").line.setText("5")
    assert form.value().loss.name == "dice_ce"


@pytest.mark.both_bindings
def test_lists_of_offers_name_what_the_engine_knows(form: SettingsForm) -> None:
    layout, device = field(form, "data", "layout"), field(form, "training", "device")
    assert isinstance(layout, SuggestField)
    layout.offer()
    device.offer()
    assert set(layouts()) == {"auto", *(layout.name for layout in known())}
    assert {layout.itemText(row) for row in range(layout.count())} == set(layouts())
    assert [device.itemText(row) for row in range(device.count())] == ["auto", "cpu", "cuda", "mps"]
    assert isinstance(field(form, "data", "root"), FolderField)


# What cannot be used


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("group", "key", "text", "start"),
    [
        ("training", "epochs", "0", "training.epochs = 0 cannot be used: "),
        ("training", "epochs", "many", "'many' is not a number that can be used: a whole number, from 1 up"),
        ("optimizer", "lr", "1e999", "optimizer.lr = inf cannot be used: "),
        ("optimizer", "lr", "0", "optimizer.lr = 0.0 cannot be used: input should be greater than 0"),
        ("prediction", "overlap", "0.95", "prediction.overlap = 0.95 cannot be used: "),
    ],
)
def test_a_number_that_cannot_be_used_is_answered_beside_it_and_stays_as_typed(
    qtbot: QtBot, form: SettingsForm, group: str, key: str, text: str, start: str
) -> None:
    widget = field(form, group, key)
    before = widget.line.text()
    widget.line.setText(text)
    assert sentence(form, f"{group}.{key}") == ""  # not before the hand rests
    judged(qtbot, form)
    assert sentence(form, f"{group}.{key}").startswith(start)
    assert widget.line.text() == text
    assert WARNING in section(form, group).header.text()
    with pytest.raises(InputError) as refused:
        form.value()
    assert start in str(refused.value)
    assert str(refused.value).startswith(f"{group}.{key}")
    widget.line.setText(before)
    judged(qtbot, form)
    assert sentence(form, f"{group}.{key}") == ""
    assert WARNING not in section(form, group).header.text()
    assert form.value() == RunConfig()


def test_every_mistake_has_its_own_sentence(qtbot: QtBot, form: SettingsForm) -> None:
    field(form, "training", "epochs").line.setText("0")
    field(form, "training", "batch_size").line.setText("x")
    field(form, "data", "split").members[0].line.setText("0.7")
    field(form, "data", "patch").given.setChecked(True)
    field(form, "data", "patch").inner.setText("100, 256")
    field(form, "data", "classes").given.setChecked(True)
    field(form, "data", "classes").inner.setText("{a = [1.5]}")
    judged(qtbot, form)
    assert "greater than or equal to 1" in sentence(form, "training.epochs")
    assert "'x' is not a number" in sentence(form, "training.batch_size")
    assert "add up to 1" in sentence(form, "data.split")
    assert "multiples of 8" in sentence(form, "data.patch")
    assert "valid integer" in sentence(form, "data.classes")
    assert "more cannot be used" not in sentence(form, "data.split")
    assert not form.check()


@pytest.mark.both_bindings
def test_a_rule_between_settings_is_said_beside_those_it_names(qtbot: QtBot, form: SettingsForm) -> None:
    field(form, "training", "head").setCurrentText("exclusive")
    judged(qtbot, form)
    said = sentence(form, "training.head")
    assert said.startswith("training.head is exclusive, but smm_v2")
    assert sentence(form, "modulation.name") == said
    assert section(form, "data").is_open()  # nothing jumps under the hand
    assert not form.check()
    assert section(form, "training").is_open()
    field(form, "modulation", "name").setCurrentText("smm_v1")
    judged(qtbot, form)
    assert sentence(form, "training.head") == sentence(form, "modulation.name") == ""


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("groups", "marked"),
    [
        ({"augment": {"scale": (2.0, 1.0)}}, {"augment.scale"}),
        ({"optimizer": {"name": "sgd", "nesterov": True, "momentum": 0.0}},
         {"optimizer.nesterov", "optimizer.momentum"}),
        ({"training": {"head": "exclusive"}}, {"training.head", "modulation.name"}),
        ({"optimizer": {"name": "adam", "betas": (0.9, 1.0)}}, {"optimizer.betas"}),
        ({"loss": {"name": "dice_bce", "dice_weight": -1.0}}, {"loss.dice_weight"}),
        ({"data": {"size": (8, 4), "patch": (100, 8)}}, {"data.size", "data.patch"}),
        ({"paper": {}}, {"paper"}),
    ],
)  # fmt: skip
def test_the_settings_to_blame(groups: dict[str, Any], marked: set[str]) -> None:
    values = RunConfig().model_dump()
    for group, given_group in groups.items():
        values[group] = given_group if "name" in given_group else values.get(group, {}) | given_group
    found = complaints(values, {})
    assert set(found) == marked
    assert all(text.endswith(".") and "\n" not in text for text in found.values())


def test_what_could_not_be_read_is_answered_in_its_own_words_only() -> None:
    values = RunConfig().model_dump()
    values["training"]["epochs"] = UNREADABLE
    assert complaints(values, {"training.epochs": "no."}) == {"training.epochs": "no."}


def test_an_error_from_elsewhere_unfolds_its_field_and_stays_until_it_is_edited(
    qtbot: QtBot, form: SettingsForm
) -> None:
    form.open_group("watch")
    form.show_error("data.cache", "There is no room on this disk.")
    assert section(form, "data").is_open()
    assert not section(form, "watch").is_open()
    qtbot.waitUntil(lambda: not field(form, "data", "cache").visibleRegion().isEmpty())
    assert sentence(form, "data.cache") == "There is no room on this disk."
    field(form, "training", "epochs").line.setText("5")
    judged(qtbot, form)
    assert sentence(form, "data.cache") != ""
    field(form, "data", "cache").setCurrentText("memory")
    judged(qtbot, form)
    assert sentence(form, "data.cache") == ""


@pytest.mark.parametrize("place", ["data", "optimizer.momentum", "", "elsewhere.key"])
def test_an_error_of_no_shown_setting_is_said_at_its_group_or_above_all(
    form: SettingsForm, place: str
) -> None:
    form.show_error(place, "No.")
    group = place.partition(".")[0]
    assert sentence(form, group if group in GROUPS else "") == "No."
    labels = [label for label in form.findChildren(QLabel) if label.text() == "No."]
    assert [label.isVisible() for label in labels] == [True]
    form.clear_errors()
    assert not labels[0].isVisible()


@pytest.mark.both_bindings
def test_what_an_error_clears_is_not_a_mistake_of_the_users(qtbot: QtBot, form: SettingsForm) -> None:
    field(form, "training", "epochs").line.setText("0")
    form.show_error("data.root", "No.")
    form.clear_errors()
    assert sentence(form, "data.root") == ""
    assert sentence(form, "training.epochs") != ""
    form.set_value(RunConfig())
    assert sentence(form, "training.epochs") == ""


# Files and presets


def test_a_file_brings_back_what_was_saved(form: SettingsForm, tmp_path: Path) -> None:
    config = config_of(data={"root": "/eyes", "size": 64}, optimizer={"name": "sgd", "lr": 1e-5})
    form.set_value(config)
    form.save(tmp_path / "mine.toml")
    assert (tmp_path / "mine.toml").read_text("utf-8") == to_toml(config)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
    form.set_value(RunConfig())
    form.load(tmp_path / "mine.toml")
    assert exact(form.value()) == exact(config)
    assert tomllib.loads((tmp_path / "mine.toml").read_text("utf-8"))["optimizer"]["lr"] == 1e-5


@pytest.mark.both_bindings
def test_a_file_that_cannot_be_used_changes_nothing(form: SettingsForm, tmp_path: Path) -> None:
    form.set_value(config_of(training={"epochs": 3}))
    broken = tmp_path / "broken.toml"
    broken.write_text("[training]\nepochs = 0\n", "utf-8")
    for path, words in ((tmp_path / "none.toml", "cannot be read"), (broken, "training.epochs = 0")):
        with pytest.raises(InputError, match=words):
            form.load(path)
    with pytest.raises(InputError, match=r"cannot be written to .*\(No such file"):
        form.save(tmp_path / "nowhere" / "mine.toml")
    field(form, "training", "epochs").line.setText("x")
    with pytest.raises(InputError, match=r"training\.epochs: 'x' is not"):
        form.save(tmp_path / "mine.toml")
    assert not (tmp_path / "mine.toml").exists()
    with pytest.raises(InputError, match="unknown preset"):
        form.load_preset("sm")


@pytest.mark.both_bindings
def test_a_preset_leaves_the_users_data_alone(form: SettingsForm) -> None:
    mine = {
        "root": "/eyes", "layout": "patterns", "images": "{id}.tif", "masks": "{id}.png",
        "valid": "fov/{id}.png", "group": "(p..)", "classes": {"vessel": [1]}, "rest": "ignore",
    }  # fmt: skip
    form.set_value(config_of(data={**mine, "size": 64}, training={"epochs": 3}, loss={"name": "dice"}))
    form.load_preset("smm")
    assert form.value() == resolve([read_preset("smm"), Layer("mine", {"data": mine})])[0]


def test_a_preset_with_data_of_its_own_brings_them(form: SettingsForm) -> None:
    form.set_value(config_of(data={"root": "/eyes", "layout": "patterns", "images": "a", "masks": "b"}))
    form.load_preset("demo")
    assert form.value() == resolve([read_preset("demo")])[0]


@pytest.mark.both_bindings
def test_a_preset_is_not_loaded_over_data_that_cannot_be_read(form: SettingsForm) -> None:
    field(form, "data", "classes").given.setChecked(True)
    field(form, "data", "classes").inner.setText("{a = ")
    with pytest.raises(InputError, match=r"data\.classes: '\{a = ' is not a TOML table"):
        form.load_preset("smm")
    assert field(form, "training", "epochs").value() == 100


# Sections


def test_one_group_is_open_at_a_time_and_says_what_it_holds_while_shut(form: SettingsForm) -> None:
    form.set_value(config_of(modulation={"name": "smm_v2", "radius": 3}, data={"root": "demo"}))
    assert [group for group in GROUPS if section(form, group).is_open()] == ["data"]
    assert section(form, "modulation").header.summary == "smm_v2 · radius 3"
    assert section(form, "training").header.summary == ""
    form.open_group("modulation")
    assert [group for group in GROUPS if section(form, group).is_open()] == ["modulation"]
    assert section(form, "modulation").header.summary == ""
    assert section(form, "data").header.summary == "root demo"
    section(form, "modulation").set_open(False)
    assert not any(section(form, group).is_open() for group in GROUPS)


@pytest.mark.both_bindings
def test_a_section_folds_by_key_and_by_click(qtbot: QtBot, form: SettingsForm) -> None:
    found = section(form, "loss")
    for key, opened in [
        (Qt.Key.Key_Space, True), (Qt.Key.Key_Return, False), (Qt.Key.Key_Right, True),
        (Qt.Key.Key_Right, True), (Qt.Key.Key_Left, False), (Qt.Key.Key_Enter, True),
    ]:  # fmt: skip
        qtbot.keyClick(found.header, key)
        assert found.is_open() is found.content.isVisible() is opened
    qtbot.mouseClick(found.header, Qt.MouseButton.LeftButton)
    assert not found.is_open()


def test_a_section_is_of_use_alone(qtbot: QtBot) -> None:
    found = Section("Curves")
    qtbot.addWidget(found)
    told: list[bool] = []
    found.toggled.connect(told.append)
    QVBoxLayout(found.content).addWidget(QLabel("inside"))
    found.show()
    assert (found.is_open(), found.content.isVisible()) == (False, False)
    found.set_open(True)
    found.set_open(True)
    assert found.content.isVisible()
    found.set_open(False)
    found.set_summary("none yet")
    found.set_warning("Something is wrong.")
    assert told == [True, False]
    assert found.header.text().endswith(f"Curves  {WARNING}")
    assert found.header.toolTip() == "Something is wrong."
    found.set_warning("")
    assert (found.header.toolTip(), found.header.accessibleName()) == ("none yet", "Curves")


@pytest.mark.both_bindings
def test_tab_leads_from_a_header_to_its_fields_in_their_order(qtbot: QtBot, form: SettingsForm) -> None:
    form.activateWindow()
    section(form, "data").header.setFocus()
    qtbot.waitUntil(section(form, "data").header.hasFocus)
    visited = []
    for _ in range(30):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        focused = QApplication.focusWidget()
        visited.append(focused.mapTo(form, focused.rect().center()))
        if focused is section(form, "augment").header:
            break
    else:
        pytest.fail("Tab never reached the next header.")
    rows = [point.y() for point in visited]
    assert len(visited) >= 15
    assert all(later > earlier - 8 for earlier, later in pairwise(rows))


@pytest.mark.both_bindings
def test_locked_settings_can_be_looked_through_but_not_changed(qtbot: QtBot, form: SettingsForm) -> None:
    form.set_locked(True)
    form.open_group("optimizer")
    qtbot.keyClick(field(form, "optimizer", "lr"), Qt.Key.Key_Up)
    assert form.value() == RunConfig()
    advanced = [found for found in section(form, "optimizer").findChildren(Section) if found.isVisible()]
    qtbot.mouseClick(advanced[0].header, Qt.MouseButton.LeftButton)
    assert field(form, "optimizer", "betas").isVisible()
    assert not field(form, "optimizer", "betas").isEnabled()
    form.set_value(config_of(optimizer={"name": "sgd"}))  # a part seen for the first time
    assert not field(form, "optimizer", "momentum").isEnabled()
    form.set_locked(False)
    assert all(field(form, "optimizer", key).isEnabled() for key in ("name", "lr", "momentum", "nesterov"))


# Looks


@pytest.fixture
def docked(qtbot: QtBot) -> Callable[[str], SettingsForm]:
    """Shows a form as napari's dock would: in a parent with a theme's style, or none for ""."""
    hosts: list[QWidget] = []

    def dock(theme: str) -> SettingsForm:
        host, form = QWidget(), SettingsForm()
        hosts.append(host)
        host.setStyleSheet(get_stylesheet(theme) if theme else "")
        column = QVBoxLayout(host)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(form)
        qtbot.addWidget(host)
        host.resize(WIDTH, HEIGHT)
        host.show()
        qtbot.waitExposed(host)
        return form

    return dock


@pytest.mark.both_bindings
@pytest.mark.parametrize("theme", ["", "dark", "light"])
def test_every_group_fits_a_dock_without_scrolling(
    qtbot: QtBot, docked: Callable[[str], SettingsForm], theme: str
) -> None:
    form = docked(theme)
    for group in GROUPS:
        page = section(form, group).content
        assert isinstance(page, QScrollArea)
        for name in choices(RunConfig, group) or [None]:
            if name is not None:
                field(form, group, "name").setCurrentText(name)
            form.open_group(group)
            settled = page.viewport().size
            qtbot.waitUntil(lambda page=page, size=settled: page.widget().width() == size().width() > 300)
            qtbot.waitUntil(lambda page=page: page.height() >= page.widget().sizeHint().height() > 20)
            qtbot.waitUntil(lambda: form.layout().sizeHint().height() <= HEIGHT)
            qtbot.waitUntil(lambda page=page: not page.verticalScrollBar().isVisible())
            assert page.widget().minimumSizeHint().width() <= WIDTH
            assert form.minimumSizeHint().width() <= WIDTH
            assert form.size().width() == WIDTH
            assert form.size().height() == HEIGHT


def test_advanced_settings_scroll_where_there_is_no_room(qtbot: QtBot, form: SettingsForm) -> None:
    form.resize(WIDTH, HEIGHT)
    section(form, "data").findChild(Section).set_open(True)
    page = section(form, "data").content
    qtbot.waitUntil(lambda: page.verticalScrollBar().isVisible())
    assert form.height() == HEIGHT
    assert section(form, "watch").geometry().bottom() <= HEIGHT
    form.show_error("data.cache", "There is no room.")
    complaint = form.findChild(QLabel, "complaint-data-cache")
    qtbot.waitUntil(lambda: not complaint.visibleRegion().isEmpty())


def test_labels_of_all_groups_stand_in_one_column(qtbot: QtBot, form: SettingsForm) -> None:
    lefts = set()
    for group, key in [
        ("data", "root"),
        ("modulation", "name"),
        ("modulation", "radius"),
        ("training", "seed"),
    ]:
        form.open_group(group)
        widget = field(form, group, key)
        qtbot.waitUntil(lambda widget=widget: widget.isVisible() and widget.x() > 0)
        QApplication.processEvents()
        lefts.add(widget.mapTo(form, widget.rect().topLeft()).x())
    assert len(lefts) == 1


def test_a_long_sentence_is_shown_whole(qtbot: QtBot, form: SettingsForm) -> None:
    form.show_error("training.epochs", "This is what went wrong, at length. " * 6)
    label = form.findChild(QLabel, "complaint-training-epochs")
    qtbot.waitUntil(lambda: label.height() >= label.heightForWidth(label.width()) > 40)
    page = section(form, "training").content
    qtbot.waitUntil(lambda: not page.verticalScrollBar().isVisible())  # there is room in 640


def test_a_choice_has_its_parts_help(form: SettingsForm) -> None:
    loss = field(form, "loss", "name")
    assert isinstance(loss, ChoiceField)
    assert isinstance(loss, QComboBox)
    row = loss.findText("elevated_sensitivity")
    assert "SMM v1" in loss.itemData(row, Qt.ItemDataRole.ToolTipRole)
    loss.setCurrentIndex(row)
    assert "SMM v1" in loss.toolTip()
    assert isinstance(field(form, "training", "early_stopping"), OptionalField)
    lr = field(form, "optimizer", "lr")
    assert isinstance(lr, NumberField)
    assert lr.line.text() == "0.001"
    assert "above 0 · default: 0.001" in lr.toolTip().replace("&gt;", ">")


# The end


@pytest.mark.both_bindings
def test_nothing_of_a_closed_form_stays(qtbot: QtBot) -> None:
    before = len(QApplication.allWidgets())
    form = SettingsForm()
    form.show()
    qtbot.waitExposed(form)
    for group in GROUPS:
        for name in choices(RunConfig, group):
            field(form, group, "name").setCurrentText(name)
    form.show_error("training.epochs", "No.")
    field(form, "training", "epochs").line.setText("0")
    timers = form.findChildren(QTimer)
    assert any(timer.isActive() for timer in timers)
    form.close()
    assert not any(timer.isActive() for timer in timers if timer.parent() is form)
    assert "cannot be used" in sentence(form, "training.epochs")  # judged before it was hidden
    watched = weakref.ref(form)
    form.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert not isalive(form)
    assert not any(isalive(timer) for timer in timers)
    del form, timers
    gc.collect()
    assert watched() is None
    assert len(QApplication.allWidgets()) == before


def test_the_smallest_and_the_largest_float_are_shown_in_full(hidden: SettingsForm) -> None:
    for lr in (5e-324, math.nextafter(1.0, 2.0), 1.7976931348623157e308):
        hidden.set_value(config_of(optimizer={"lr": lr}))
        assert field(hidden, "optimizer", "lr").line.text() == repr(lr)


def test_every_union_of_the_config_has_a_form(hidden: SettingsForm) -> None:
    # A new group or part needs no line in the form.
    for group, info in RunConfig.model_fields.items():
        assert section(hidden, group) is not None
        members = get_args(get_args(info.annotation)[0]) if get_origin(info.annotation) is Union else ()
        assert len(choices(RunConfig, group)) >= len(members)
