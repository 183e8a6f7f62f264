"""The settings of one group of the config, as rows of a label and a field."""

import html
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

from pydantic.fields import FieldInfo
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from engine.config import RunConfig
from engine.errors import InputError
from engine.schema import choices, spec_types
from engine.spec import Spec
from napari_smm.qt.complaints import UNREADABLE
from napari_smm.qt.fields import (
    ChoiceField,
    Field,
    FolderField,
    OptionalField,
    RunField,
    SuggestField,
    WeightsField,
    field_for,
    in_a_row,
    range_words,
)
from napari_smm.qt.section import FaintLabel, Section

DEVICES = {
    "auto": "CUDA, then MPS, then CPU",
    "cpu": "The processor",
    "cuda": "An NVIDIA GPU; cuda:1 is the second one",
    "mps": "The GPU of an Apple computer",
}


def layouts() -> dict[str, str]:
    """Names of the folder layouts and what they are, without loading what reads them."""
    known = tomllib.loads(files("engine.data").joinpath("layouts.toml").read_text("utf-8"))["layout"]
    own = {"auto": "Recognised by itself", "patterns": "The patterns of images and masks below"}
    return own | {layout["name"]: layout["title"] for layout in known}


SPECIAL: Mapping[str, Callable[[], Field]] = {
    "data.root": lambda: FolderField("a folder, or demo"),
    "model.weights": lambda: OptionalField(WeightsField("resnet50-….pth")),
    "training.init": lambda: OptionalField(RunField("a run directory")),
    "data.layout": lambda: SuggestField(layouts),
    "training.device": lambda: SuggestField(lambda: DEVICES),
}
"""Texts for which a bare line is not the best widget."""


class Row:
    """One setting: label, field, unit, and below them a sentence if it cannot be used."""

    def __init__(self, place: str, label: str, field: Field, about: str, unit: str = "") -> None:
        self.place = place
        """``group.key``."""
        self.label = QLabel(label)
        self.field = field
        self.complaint: Complaint | None = None
        """The sentence, made when there is first something to say."""
        self._unit = FaintLabel(unit) if unit else None
        self.label.setBuddy(field)
        self.label.setToolTip(about)
        field.setToolTip(about)
        field.setAccessibleName(label)

    def place_in(self, grid: QGridLayout) -> None:
        """Add the widgets as the grid's next rows: one for the field, one for the sentence."""
        line = grid.rowCount()
        grid.addWidget(self.label, line, 0)
        if self._unit is not None and isinstance(self.field, OptionalField):
            self.field.add_unit(self._unit)
        unit = [] if self._unit is None or isinstance(self.field, OptionalField) else [self._unit]
        grid.addLayout(in_a_row(self.field, *unit, growing=self.field), line, 1)
        self._grid, self._line = grid, line + 1
        grid.setRowMinimumHeight(self._line, 0)  # so that the grid counts the line before it is needed

    def complain(self, sentence: str) -> None:
        """Show a sentence below the field; an empty one takes it away."""
        if self.complaint is None:
            if not sentence:
                return
            self.complaint = Complaint(self.place)
            self._grid.addWidget(self.complaint, self._line, 0, 1, 2)
        self.complaint.say(sentence)

    def name(self, name: str) -> None:
        """Give the field the name by which it is found; the empty one while another has it."""
        self.field.setObjectName(name)


class Complaint(QLabel):
    """A sentence that says what is wrong: wrapped, marked at its left edge, hidden while it is empty."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(f"complaint-{name.replace('.', '-')}".rstrip("-"))
        self.setProperty("complaint", True)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.hide()

    def say(self, sentence: str) -> None:
        """Show a sentence; an empty one hides the label."""
        self.setText(sentence)
        self.setVisible(bool(sentence))

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """A line: how high it really is depends on the width, and Qt would guess a narrow one."""
        return QSize(0, self.fontMetrics().height())


class SpecPage(QWidget):
    """All settings of one spec, the advanced ones folded away below the others."""

    edited = Signal(str)
    """``group.key`` of a setting whose value has changed."""

    def __init__(self, group: str, spec: type[Spec]) -> None:
        super().__init__()
        self.spec = spec
        self.rows: dict[str, Row] = {}
        """Key → row."""
        self.advanced: Section | None = None
        """The fold, where there are advanced settings."""
        self._advanced_keys = {key for key, field in _settings(spec) if _extra(field, "advanced")}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        plain, folded = _grid(), _grid()
        self._grids = (plain, folded)
        column.addLayout(plain)
        for key, field in _settings(spec):
            row = _row(f"{group}.{key}", field)
            row.place_in(folded if key in self._advanced_keys else plain)
            row.field.edited.connect(self._notice)
            self.rows[key] = row
        if self._advanced_keys:
            self.advanced = Section("Advanced", inner=True)
            self.advanced.content.setLayout(folded)
            column.addWidget(self.advanced)

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Key → value, UNREADABLE where a text cannot be read; and key → why for those."""
        values: dict[str, Any] = {}
        unreadable: dict[str, str] = {}
        for key, row in self.rows.items():
            try:
                values[key] = row.field.value()
            except InputError as error:
                values[key], unreadable[key] = UNREADABLE, str(error)
        return values, unreadable

    def set_value(self, spec: Spec) -> None:
        """Show the settings of a spec of this page's type."""
        for key, row in self.rows.items():
            row.field.set_value(getattr(spec, key))

    def set_locked(self, locked: bool) -> None:
        """Whether the fields can be edited; what is folded can be unfolded all the same."""
        for row in self.rows.values():
            row.field.setEnabled(not locked)

    def set_label_width(self, width: int) -> None:
        """Pixels of the labels' column, so that it can be the same as in other pages."""
        for grid in self._grids:
            grid.setColumnMinimumWidth(0, width)

    def complain(self, sentences: Mapping[str, str]) -> None:
        """Show each row's sentence, and a mark at the fold if one is inside it."""
        for key, row in self.rows.items():
            row.complain(sentences.get(key, ""))
        if self.advanced is not None:
            folded = [sentences[key] for key in sentences if key in self._advanced_keys]
            self.advanced.set_warning(folded[0] if folded else "")

    def reveal(self, key: str) -> None:
        """Open the fold if the setting is inside it."""
        if self.advanced is not None and key in self._advanced_keys:
            self.advanced.set_open(True)

    def _notice(self) -> None:
        # By the sender, for a lambda for each field would keep the page alive after its end.
        edited = self.sender()
        for row in self.rows.values():
            if row.field is edited:
                self.edited.emit(row.place)


class GroupPage(QWidget):
    """A group of the config: one spec's settings, or the choice of a part and that part's settings.

    Every part that has been chosen once keeps what was typed into it.
    """

    edited = Signal(str)
    """``group.key`` of a setting whose value has changed; ``group.name`` for the choice itself."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group
        self.parts = choices(RunConfig, group)
        """Name → spec of the registry; empty for a plain group."""
        self.choice: ChoiceField | None = None
        """The names, where there is a choice."""
        self._label_width = 0
        self._locked = False
        self._pages: dict[str, SpecPage] = {}
        self._complaint = Complaint(group)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(8, 2, 6, 6)
        self._column.setSpacing(3)
        self._column.addWidget(self._complaint)
        if self.parts:
            self._add_choice()
        self._column.addStretch(1)
        self._shown = self._page(self.choice.value() if self.choice else "")

    @property
    def rows(self) -> dict[str, Row]:
        """Key → row of what is shown, the choice included."""
        return ({"name": self._choice_row} if self.choice else {}) | self._shown.rows

    def read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Key → value, UNREADABLE where a text cannot be read; and key → why for those."""
        values, unreadable = self._shown.read()
        return ({"name": self.choice.value()} if self.choice else {}) | values, unreadable

    def set_value(self, spec: Spec) -> None:
        """Show the settings of a spec. Other parts of the registry go back to their defaults."""
        name = getattr(spec, "name", "")
        if self.choice is not None:
            self.choice.set_value(name)
        for other, page in self._pages.items():
            if other != name:
                page.set_value(self.parts[other]())
        self._page(name).set_value(spec)

    def set_locked(self, locked: bool) -> None:
        """Whether the settings can be edited."""
        self._locked = locked
        if self.choice is not None:
            self.choice.setEnabled(not locked)
        for page in self._pages.values():
            page.set_locked(locked)

    def set_label_width(self, width: int) -> None:
        """Pixels of the labels' column, so that it can be the same in all groups."""
        self._label_width = width
        if self.choice is not None:
            self._choice_grid.setColumnMinimumWidth(0, width)
        for page in self._pages.values():
            page.set_label_width(width)

    def label(self) -> QLabel:
        """Any label of a setting, for its font."""
        return next(iter(self.rows.values())).label

    def complain(self, sentences: Mapping[str, str]) -> None:
        """Show sentences beside their settings: key → sentence, "" for the group as a whole."""
        self._shown.complain(sentences)
        if self.choice is not None:
            self._choice_row.complain(sentences.get("name", ""))
        elsewhere = [sentence for key, sentence in sentences.items() if key not in self.rows]
        self._complaint.say(next(iter(elsewhere), ""))

    def reveal(self, key: str) -> QWidget:
        """Unfold what hides a setting, and return what shows it."""
        self._shown.reveal(key)
        row = self.rows.get(key)
        return self._complaint if row is None else row.complaint or row.field

    def summary(self) -> str:
        """The chosen part, and the settings that are not the default, in a few words."""
        values, unreadable = self.read()
        name = values.pop("name", None)
        usual = self._shown.spec()
        words = [f"{name}"] if name is not None else []
        for key, value in values.items():
            if key not in unreadable and value != getattr(usual, key):
                words.append(f"{readable(key)} {_short(value)}")
        return " · ".join(words)

    def _add_choice(self) -> None:
        helps = {name: _tooltip(part.__doc__ or "") for name, part in self.parts.items()}
        self.choice = ChoiceField(list(self.parts), helps)
        self._choice_row = Row(f"{self.group}.name", readable(self.group), self.choice, "")
        self._choice_row.name(f"setting-{self.group}-name")
        self._choice_grid = _grid()
        self._choice_row.place_in(self._choice_grid)
        self._column.addLayout(self._choice_grid)
        self.choice.edited.connect(self._choose)

    def _page(self, name: str) -> SpecPage:
        """The page of a part, made when it is first wanted."""
        if name not in self._pages:
            spec = self.parts[name] if self.parts else spec_types(RunConfig.model_fields[self.group])[0]
            page = SpecPage(self.group, spec)
            page.set_value(spec())
            page.set_locked(self._locked)
            page.set_label_width(self._label_width)
            page.edited.connect(self.edited)
            self._column.insertWidget(self._column.count() - 1, page)
            self._pages[name] = page
            self._show(page)
        return self._pages[name]

    def _choose(self) -> None:
        assert self.choice is not None
        self._show(self._page(self.choice.value()))
        self.edited.emit(f"{self.group}.name")

    def _show(self, shown: SpecPage) -> None:
        self._shown = shown
        for page in self._pages.values():
            page.setVisible(page is shown)
            for key, row in page.rows.items():
                row.name(f"setting-{self.group}-{key}" if page is shown else "")
        if self.choice is not None:
            about = _tooltip(shown.spec.__doc__ or "")
            self.choice.setToolTip(about)
            self._choice_row.label.setToolTip(about)


def readable(key: str) -> str:
    """A setting's name as a label."""
    return key.replace("_", " ")


def _settings(spec: type[Spec]) -> Iterator[tuple[str, FieldInfo]]:
    return ((key, field) for key, field in spec.model_fields.items() if key != "name")


def _grid() -> QGridLayout:
    grid = QGridLayout()
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setHorizontalSpacing(8)
    grid.setVerticalSpacing(2)
    grid.setColumnStretch(1, 1)
    return grid


def _row(place: str, field: FieldInfo) -> Row:
    unit = str(_extra(field, "unit") or "")
    widget = SPECIAL[place]() if place in SPECIAL else field_for(field.annotation, field.metadata, unit)
    about = _tooltip(
        field.description or "",
        " ".join(filter(None, [range_words(widget), unit])),
        f"default: {_short(field.default, whole=True)}",
    )
    return Row(place, readable(place.rpartition(".")[2]), widget, about, unit)


def _extra(field: FieldInfo, key: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


def _tooltip(about: str, *facts: str) -> str:
    """Help as rich text, which wraps, with `code` as such, and facts in a line of their own."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(" ".join(about.split()), quote=False))
    lines = [text, html.escape(" · ".join(filter(None, facts)), quote=False)]
    return f"<qt>{'<br>'.join(filter(None, lines))}</qt>"


def _short(value: Any, *, whole: bool = False) -> str:
    """A value in a few words; ``whole`` keeps all of a text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ", ".join(_short(member) for member in value)
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or value == "":
        return "not set"
    text = str(value)
    return text if whole or len(text) <= 24 else f"…{text[-23:]}"
