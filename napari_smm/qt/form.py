"""The settings form: a run's config, drawn from its specs, with a widget for each setting.

Nothing about a setting is written down here: its widget comes from its type; its help, range, unit
and place come from its field. Whether the fields make a config is judged by the config alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from qtpy.QtCore import QEvent, QSize, QTimer, Signal
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from engine.config import Layer, RunConfig, explain, read_file, read_preset, resolve, to_toml
from engine.disk import replace_text
from engine.errors import InputError
from engine.schema import spec_types
from napari_smm.qt.complaints import complaints
from napari_smm.qt.page import Complaint, GroupPage, readable
from napari_smm.qt.scrolling_page import ScrollingPage
from napari_smm.qt.section import Section

WIDTH, HEIGHT = 380, 480
"""Pixels that the form asks for at the most. With more room it takes what it needs."""
PATIENCE = 120
"""Milliseconds after an edit until the settings are judged, so that half a number is not refused."""

SOURCE = ("root", "layout", "images", "masks", "valid", "group", "classes", "rest")
"""Settings of ``data`` that say where the data are and what their values mean. A preset, which is about
the method, leaves them alone unless it brings data of its own."""

STYLE = """
QLineEdit, QComboBox, QAbstractSpinBox { min-height: 17px; padding: 1px 6px; }
QAbstractSpinBox { min-width: 84px; padding: 1px 3px; }
QAbstractSpinBox[narrow="true"] { min-width: 24px; padding: 1px 3px; }
QAbstractSpinBox QLineEdit { min-height: 0px; padding: 0px; }
QPushButton { padding: 1px 6px; }
QScrollArea { border: 0px; padding: 0px; }
QLabel[complaint="true"] { border: 0px; border-left: 3px solid #D55E00; padding: 1px 6px; }
"""


class SettingsForm(QWidget):
    """Edits a :class:`~engine.config.RunConfig`. One group is open at a time.

    The loss has no "usual" entry, because a config always holds a certain loss. While it is the one
    that the config would choose by itself, it follows the method: choosing another modulation
    brings that method's usual loss. A loss that was chosen or changed by hand stays.
    """

    changed = Signal()
    """The settings have changed: once for each edit, and once for each ``set_value``."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._quiet = False
        self._told: dict[str, str] = {}
        self._pages: dict[str, GroupPage] = {}
        self._sections: dict[str, Section] = {}
        self._scrolls: dict[str, ScrollingPage] = {}
        self._follows = {
            group: True for group, field in RunConfig.model_fields.items() if field.default_factory
        }
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(PATIENCE)
        self._pause.timeout.connect(self._judge)
        self.setStyleSheet(STYLE)
        self._build()
        self.set_value(RunConfig())

    def value(self) -> RunConfig:
        """The config. Raises InputError with one sentence where the fields do not make one."""
        values, unreadable = self._read()
        for place, sentence in unreadable.items():
            raise InputError(f"{place}: {sentence}")
        try:
            return RunConfig.model_validate(values)
        except ValidationError as error:
            raise InputError(explain(error, values)) from None

    def set_value(self, config: RunConfig) -> None:
        """Show a config. ``changed`` is emitted once, at the end."""
        self._quiet = True
        try:
            for group, page in self._pages.items():
                page.set_value(getattr(config, group))
        finally:
            self._quiet = False
        for group in self._follows:
            self._follows[group] = self._usual(group) == getattr(config, group)
        self._told.clear()
        self._pause.stop()
        self._judge()
        self.changed.emit()

    def load_preset(self, name: str) -> None:
        """Show a preset over the defaults.

        Where the data are and what their values mean (SOURCE) stays, unless the preset names a root: it
        then brings its own data. Everything else is the preset's, or the default.

        Raises:
            InputError: no preset of that name, or one of the settings to be kept cannot be read.
        """
        preset = read_preset(name)
        layers = [preset]
        if "root" not in preset.values.get("data", {}):
            values, unreadable = self._pages["data"].read()
            for key in SOURCE:
                if key in unreadable:
                    raise InputError(f"data.{key}: {unreadable[key]}")
            kept = {key: values[key] for key in SOURCE if values[key] is not None}
            layers.insert(0, Layer("form", {"data": kept}))
        self.set_value(resolve(layers)[0])

    def load(self, path: Path) -> None:
        """Show a settings file over the defaults. Raises InputError where it is none."""
        self.set_value(resolve([read_file(path)])[0])

    def save(self, path: Path) -> None:
        """Write a settings file, every setting spelled out, in one step.

        Raises:
            InputError: the fields make no config, or the file cannot be written.
        """
        text = to_toml(self.value())
        try:
            replace_text(path, text)
        except OSError as error:
            raise InputError(f"the settings cannot be written to {path} ({error.strerror}).") from None

    def set_locked(self, locked: bool) -> None:
        """Whether the settings can be edited. They can be looked through all the same."""
        for page in self._pages.values():
            page.set_locked(locked)

    def show_error(self, place: str, message: str) -> None:
        """Show a sentence beside a setting, and unfold what hides it.

        It stays until that setting, or another of its group if the place is a group, is edited.

        Args:
            place: ``group.key``, a group, or "" for the settings as a whole.
            message: the sentence.
        """
        self._told[place] = message
        self._judge()
        self._reveal(place)

    def clear_errors(self) -> None:
        """Take away what ``show_error`` showed. What makes the fields no config stays marked."""
        self._told.clear()
        self._judge()

    def check(self) -> bool:
        """Judge the settings now; unfold the first that cannot be used. Whether they make a config."""
        found = self._judge()
        if found:
            self._reveal(next(iter(found)))
        return not found

    def open_group(self, group: str) -> None:
        """Unfold a group, and with it fold the others."""
        self._sections[group].set_open(True)

    def sizeHint(self) -> QSize:  # noqa: N802
        """What the open group needs, within WIDTH × HEIGHT."""
        return super().sizeHint().boundedTo(QSize(WIDTH, HEIGHT))

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Align the labels once their font is known."""
        self._align()
        super().showEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802
        """Align the labels anew in another theme or font."""
        super().changeEvent(event)
        looks = (QEvent.Type.StyleChange, QEvent.Type.FontChange)
        if event is not None and event.type() in looks and self.isVisible():
            self._align()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802
        """Judge what is pending, so that no timer runs for a form that cannot be seen."""
        if self._pause.isActive():
            self._pause.stop()
            self._judge()
        super().hideEvent(event)

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        self._complaint = Complaint("")
        column.addWidget(self._complaint)
        for group, field in RunConfig.model_fields.items():
            page = GroupPage(group)
            scroll = ScrollingPage(page)
            section = Section(readable(group).capitalize(), scroll)
            section.setObjectName(f"section-{group}")
            if len(spec_types(field)) == 1:
                section.setToolTip(spec_types(field)[0].__doc__ or "")
            self._pages[group], self._sections[group], self._scrolls[group] = page, section, scroll
            column.addWidget(section)
            page.edited.connect(self._notice)
            section.toggled.connect(self._fold)
        column.addStretch()
        self._sections[next(iter(self._sections))].set_open(True)

    def _align(self) -> None:
        """Give all groups' labels one column, as wide as the widest label in the font of now."""
        sample = self._pages[next(iter(self._pages))].label()
        sample.ensurePolished()
        advance = sample.fontMetrics().horizontalAdvance
        around = sample.sizeHint().width() - advance(sample.text())
        specs = [spec for field in RunConfig.model_fields.values() for spec in spec_types(field)]
        width = around + max(advance(readable(key)) for spec in specs for key in spec.model_fields)
        for page in self._pages.values():
            page.set_label_width(width)

    def _read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Group → settings as they stand, and place → why for what cannot be read."""
        values: dict[str, Any] = {}
        unreadable: dict[str, str] = {}
        for group, page in self._pages.items():
            values[group], reasons = page.read()
            unreadable |= {f"{group}.{key}": reason for key, reason in reasons.items()}
        return values, unreadable

    def _notice(self, place: str) -> None:
        """A setting has been edited."""
        if self._quiet:
            return
        group = place.partition(".")[0]
        for told in (place, group, ""):
            self._told.pop(told, None)
        self._follow(group)
        self._pause.start()
        self.changed.emit()

    def _follow(self, edited: str) -> None:
        """Let groups that follow the others do so; one that is edited follows if it is the usual one."""
        for group in self._follows:
            usual = self._usual(group)
            if edited == group:
                values = self._pages[group].read()[0]
                self._follows[group] = usual is not None and values == dict(usual)
            elif self._follows[group] and usual is not None:
                self._quiet = True
                try:
                    self._pages[group].set_value(usual)
                finally:
                    self._quiet = False

    def _usual(self, group: str) -> Any:
        """What the config itself would choose for a group; None while the others make no config."""
        values = self._read()[0]
        del values[group]
        try:
            return getattr(RunConfig.model_validate(values), group)
        except ValidationError:
            return None

    def _judge(self) -> dict[str, str]:
        """Mark all that cannot be used, beside it and at its group, and say what each group holds."""
        found = complaints(*self._read())
        shown = self._told | found
        for group, page in self._pages.items():
            own = _within(group, shown)
            page.complain(own)
            self._sections[group].set_warning(next(iter(own.values()), ""))
            self._sections[group].set_summary(page.summary())
        general = [text for place, text in shown.items() if place.partition(".")[0] not in self._pages]
        self._complaint.say(next(iter(general), ""))
        return found

    def _reveal(self, place: str) -> None:
        group, _, key = place.partition(".")
        if group in self._pages:
            self._sections[group].set_open(True)
            self._scrolls[group].bring(self._pages[group].reveal(key))

    def _fold(self, opened: bool) -> None:
        """Only one group is open at a time."""
        unfolded = self.sender()
        if opened:
            for section in self._sections.values():
                if section is not unfolded:
                    section.set_open(False)
        self.updateGeometry()


def _within(group: str, sentences: Mapping[str, str]) -> dict[str, str]:
    """Key → sentence of one group; the group's own under ""."""
    split = [(place.partition("."), sentence) for place, sentence in sentences.items()]
    return {key: sentence for (found, _, key), sentence in split if found == group}
