"""One widget for each type of setting, all with ``value()``, ``set_value()`` and ``edited``.

:func:`field_for` goes down a setting's type and returns the widget for it. A widget never
changes what was typed: what cannot be read raises where it is asked for, and what is out of range
is left to the config to refuse. So every value that a config can hold comes back as it was put in, bit
for bit, which ready-made spin boxes (32-bit numbers, fixed decimals) do not offer.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QDropEvent, QWheelEvent
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from engine.errors import InputError
from napari_smm.qt.section import FaintLabel

NOT_SET = "not set"
NUMBER_WIDTH, MEMBER_WIDTH = 132, 64
"""Most pixels of a number, and of one that is a tuple's member."""
GREEDY = 1000
"""Stretch of a widget that takes all room before the empty end of its row gets any."""
COARSE = 8
"""An integer whose least value is at least this steps by that value, for then it is a length in
pixels, of which multiples are wanted."""


@dataclass(frozen=True)
class Limits:
    """The range of a number; None where it is open."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def words(self) -> str:
        """The range in words, such as "from 0 to 1" or "above 0"; empty where all numbers are in it."""
        if self.ge is not None and self.le is not None:
            return f"from {self.ge:.15g} to {self.le:.15g}"
        ends = {"from": self.ge, "above": self.gt, "to": self.le, "below": self.lt}
        found = [f"{word} {end:.15g}" for word, end in ends.items() if end is not None]
        # "from 8" alone would leave the reader waiting for the other end.
        return f"{found[0]} up" if len(found) == 1 and self.ge is not None else ", ".join(found)


def limits_of(metadata: Iterable[Any]) -> Limits:
    """The limits among the metadata of a field or of an annotated type."""
    ends = {
        name: getattr(entry, name)
        for entry in metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(entry, name, None) is not None
    }
    return Limits(**ends)


def stepped_integer(value: int, steps: int, limits: Limits) -> int:
    """The number that so many steps up or down lead to, held in its range."""
    least = limits.ge if limits.ge is not None else (limits.gt + 1 if limits.gt is not None else None)
    most = limits.le if limits.le is not None else (limits.lt - 1 if limits.lt is not None else None)
    step = int(least) if least is not None and least >= COARSE else 1
    # Onto the next multiple, so that 100 steps to 104 where lengths are multiples of 8.
    grid = value // step if steps > 0 else -(-value // step)
    found = (grid + steps) * step
    if most is not None:
        found = min(found, int(most))
    return max(found, int(least)) if least is not None else found


def stepped_number(value: float, steps: int, limits: Limits, unit: str = "") -> float:
    """The number that so many steps up or down lead to: each moves the last digit that is shown.

    So 0.001 steps to 0.002 and, down, to 0.0009. Of more than two digits the second moves. A
    step that would leave the range is made smaller, or stops at an end that belongs to the range.
    """
    for _ in range(abs(steps)):
        value = _one_step(value, 1 if steps > 0 else -1, limits, unit)
    return value


def _one_step(value: float, way: int, limits: Limits, unit: str) -> float:
    if not math.isfinite(value):
        return value
    exact = Decimal(repr(value)).normalize()
    place = _place(exact, way, limits, unit)
    for smaller in range(3):
        step = Decimal(1).scaleb(place - smaller)
        grid = exact / step
        whole = grid.to_integral_value("ROUND_FLOOR" if way > 0 else "ROUND_CEILING")
        found = float((whole + way) * step)
        if limits.hold(found) and math.isfinite(found):
            return found
        end = limits.le if way > 0 else limits.ge
        if end is not None and limits.hold(value):
            return float(end)
    return value


def _place(exact: Decimal, way: int, limits: Limits, unit: str) -> int:
    """Decimal exponent of a step."""
    if not exact:
        ends = [abs(end) for end in (limits.le, limits.lt) if end]
        if ends:
            return math.floor(math.log10(ends[0])) - 1
        return 0 if unit else -4
    digits, exponent = exact.as_tuple().digits, int(exact.as_tuple().exponent)
    place = max(exponent, exact.adjusted() - 1)
    shrinks = (way > 0) == (exact < 0)
    return place - 1 if shrinks and len(digits) == 1 and digits[0] == 1 else place


class NumberField(QAbstractSpinBox):
    """A whole or a decimal number, exactly as it is written; arrow keys and buttons step it."""

    edited = Signal()

    def __init__(self, kind: type[int] | type[float], limits: Limits, unit: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.limits = limits
        self._unit = unit
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMaximumWidth(NUMBER_WIDTH)
        self.setAccelerated(True)
        self.line = QLineEdit()
        """What is typed into."""
        self.setLineEdit(self.line)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.line.textChanged.connect(self._notice)

    def value(self) -> int | float:
        """The number. Raises InputError with a sentence where the text is none."""
        text = self.line.text().strip()
        try:
            return self.kind(text)
        except ValueError:
            found = f"{text!r} is not a number that can be used" if text else "no number is given"
            wanted = "a whole number" if self.kind is int else "a number such as 0.001 or 1e-3"
            if self.limits.words():
                wanted += f", {self.limits.words()},"
            raise InputError(f"{found}: {wanted} is needed.") from None

    def set_value(self, value: int | float) -> None:
        """Show a number with all its digits."""
        self.line.setText(repr(self.kind(value)))
        self.line.setCursorPosition(0)  # of a long number the first digits say most

    def stepBy(self, steps: int) -> None:  # noqa: N802
        """Step up or down; from a text that is no number, to the least number or 0."""
        try:
            start = self.value()
        except InputError:
            self.set_value(self.limits.ge or 0)
        else:
            if isinstance(start, int):
                self.set_value(stepped_integer(start, steps, self.limits))
            else:
                self.set_value(stepped_number(start, steps, self.limits, self._unit))
        self.selectAll()

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:  # noqa: N802
        """Both ways: at an end of the range a step stays where it is."""
        flags = QAbstractSpinBox.StepEnabledFlag
        return flags.StepUpEnabled | flags.StepDownEnabled

    def wheelEvent(self, event: QWheelEvent | None) -> None:  # noqa: N802
        """Step only with the focus, so that scrolling past changes nothing."""
        if self.hasFocus():
            super().wheelEvent(event)
        elif event is not None:
            event.ignore()

    def _notice(self, text: str) -> None:
        self.edited.emit()


class ChoiceField(QComboBox):
    """One of several values. ``helps`` are tooltips of entries."""

    edited = Signal()

    def __init__(self, values: Sequence[Any], helps: Mapping[Any, str] | None = None) -> None:
        super().__init__()
        self._values = list(values)
        for row, value in enumerate(self._values):
            self.addItem(str(value))
            self.setItemData(row, (helps or {}).get(value), Qt.ItemDataRole.ToolTipRole)
        _calm(self)
        self.currentIndexChanged.connect(self._notice)

    def value(self) -> Any:
        """The chosen value."""
        return self._values[self.currentIndex()]

    def set_value(self, value: Any) -> None:
        """Choose a value. Raises ValueError where it is not among the choices."""
        self.setCurrentIndex(self._values.index(value))

    def wheelEvent(self, event: QWheelEvent | None) -> None:  # noqa: N802
        """Choose only with the focus, so that scrolling past changes nothing."""
        if self.hasFocus():
            super().wheelEvent(event)
        elif event is not None:
            event.ignore()

    def _notice(self, index: int) -> None:
        self.edited.emit()


class SuggestField(QComboBox):
    """Any text, with some offered. ``offered`` gives text → tooltip when the list is first opened."""

    edited = Signal()

    def __init__(self, offered: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._offered: Callable[[], Mapping[str, str]] | None = offered
        self._kept = ("", "")
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setCompleter(None)
        _calm(self)
        self.editTextChanged.connect(self._notice)

    def value(self) -> str:
        """The text."""
        return str(_unchanged(self._kept, self.currentText()))

    def set_value(self, value: str) -> None:
        """Show a text."""
        self.setCurrentIndex(self.findText(value))
        self.setEditText(value)
        self._kept = (value, self.currentText())

    def showPopup(self) -> None:  # noqa: N802
        """Fill the list when it is wanted first: reading it takes time that few need."""
        self.offer()
        super().showPopup()

    def offer(self) -> None:
        """Fill the list. The text stays."""
        if self._offered is None:
            return
        text, offered, self._offered = self.currentText(), self._offered(), None
        was_blocked = self.blockSignals(True)
        for row, (name, about) in enumerate(offered.items()):
            self.addItem(name)
            self.setItemData(row, about, Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(self.findText(text))
        self.setEditText(text)
        self.blockSignals(was_blocked)

    def wheelEvent(self, event: QWheelEvent | None) -> None:  # noqa: N802
        """Choose only with the focus, so that scrolling past changes nothing."""
        if self.hasFocus():
            super().wheelEvent(event)
        elif event is not None:
            event.ignore()

    def _notice(self, text: str) -> None:
        self.edited.emit()


class SwitchField(QCheckBox):
    """True or false."""

    edited = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.toggled.connect(self._notice)

    def value(self) -> bool:
        """Whether it is checked."""
        return bool(self.isChecked())

    def set_value(self, value: bool) -> None:
        """Check or uncheck."""
        self.setChecked(value)

    def _notice(self, checked: bool) -> None:
        self.edited.emit()


class TextField(QLineEdit):
    """A text. One that a line cannot show, such as two lines, is kept as it is until it is edited."""

    edited = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[Any, str] = ("", "")
        self.textChanged.connect(self._notice)

    def value(self) -> Any:
        """The text."""
        return _unchanged(self._kept, self.text())

    def set_value(self, value: Any) -> None:
        """Show a text, from its beginning."""
        self.setText(self.shown(value))
        self.setCursorPosition(0)
        self._kept = (value, self.text())

    def shown(self, value: Any) -> str:
        """The text for a value."""
        return str(value)

    def _notice(self, text: str) -> None:
        self.edited.emit()


class NumbersField(TextField):
    """As many numbers as images have axes, with commas between them; one stands for two of it."""

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText("such as 256, 256")
        self.setMaximumWidth(4 * MEMBER_WIDTH)

    def shown(self, value: Any) -> str:
        """The text for numbers."""
        return value if isinstance(value, str) else ", ".join(map(repr, value))


class TableField(TextField):
    """Names with values for each, ``dict[str, list[int | str]]``, written as an inline TOML table."""

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText("{nucleus = [1, 2]}")

    def value(self) -> Any:
        """The table. Raises InputError where the text is no TOML table."""
        text = self.text()
        if text == self._kept[1]:
            return self._kept[0]
        try:
            found = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found = None
        if not isinstance(found, dict):
            given = f"{text!r} is not a TOML table" if text.strip() else "no table is given"
            raise InputError(f'{given}: {{nucleus = [1, 2], debris = ["#ff0000"]}} would be one.')
        return found

    def shown(self, value: Any) -> str:
        """The table on one line."""
        return inline_table(value)


def inline_table(table: Mapping[str, Sequence[int | str]]) -> str:
    """TOML of a table on one line, such as ``{nucleus = [1, 2], debris = ["#ff0000"]}``."""
    entries = (f"{_key(name)} = [{', '.join(map(_entry, values))}]" for name, values in table.items())
    return f"{{{', '.join(entries)}}}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _entry(value: int | str) -> str:
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for DEL, which only TOML escapes."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class PathField(TextField):
    """A path, typed or dropped, of which the end is shown where it is too long."""

    def set_value(self, value: Any) -> None:
        """Show a path."""
        super().set_value(value)
        self.setCursorPosition(len(self.text()))

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802
        """Take the path of what is dropped, not its address."""
        dropped = event.mimeData() if event is not None else None
        paths = [url.toLocalFile() for url in dropped.urls() if url.isLocalFile()] if dropped else []
        if paths and event is not None:
            self.setText(paths[0])
            event.acceptProposedAction()
        else:
            super().dropEvent(event)


class FolderField(QWidget):
    """A folder's path as text: typed, dropped or chosen with a button."""

    edited = Signal()

    def __init__(self, placeholder: str = "") -> None:
        super().__init__()
        self.path = PathField()
        """The text."""
        self.path.setPlaceholderText(placeholder)
        self.browse = QPushButton("Browse…")
        """The button."""
        self.browse.setAutoDefault(False)
        self.browse.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.browse.clicked.connect(self._browse)
        self.path.edited.connect(self._notice)
        self.setFocusProxy(self.path)
        self.setLayout(in_a_row(self.path, self.browse, growing=self.path))

    def value(self) -> str:
        """The path as it was typed."""
        return str(self.path.value())

    def set_value(self, value: str) -> None:
        """Show a path."""
        self.path.set_value(value)

    def choose(self) -> str:
        """Ask for a path; "" if none is chosen."""
        return QFileDialog.getExistingDirectory(self, "Folder of images and masks", self.value())

    def _browse(self) -> None:
        if chosen := self.choose():
            self.path.setText(chosen)

    def _notice(self) -> None:
        self.edited.emit()


class WeightsField(FolderField):
    """A file of weights: typed, dropped or chosen with a button."""

    def choose(self) -> str:
        """Ask for a file; "" if none is chosen."""
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Weights to start from", self.value(), "PyTorch (*.pth *.pt);;All files (*)"
        )
        return chosen


class RunField(FolderField):
    """A run directory: typed, dropped or chosen with a button."""

    def choose(self) -> str:
        """Ask for a folder; "" if none is chosen."""
        return QFileDialog.getExistingDirectory(self, "Run to start from", self.value())


class RowField(QWidget):
    """A tuple of fixed length: its members' widgets side by side."""

    edited = Signal()

    def __init__(self, members: "Sequence[Field]") -> None:
        super().__init__()
        self.members = tuple(members)
        """The widgets, in order."""
        for member in self.members:
            if isinstance(member, NumberField):
                # Three or four of them have no room for buttons; the arrow keys step all the same.
                member.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
                member.setProperty("narrow", True)
                member.setMaximumWidth(MEMBER_WIDTH)
            member.edited.connect(self._notice)
        self.setFocusProxy(self.members[0])
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for member in self.members:
            row.addWidget(member)
        self.setMaximumWidth(sum(member.maximumWidth() + 4 for member in self.members) - 4)

    def value(self) -> tuple[Any, ...]:
        """The tuple. Raises InputError where a member does."""
        return tuple(member.value() for member in self.members)

    def set_value(self, value: Sequence[Any]) -> None:
        """Show a tuple of the same length."""
        for member, inner in zip(self.members, value, strict=True):
            member.set_value(inner)

    def _notice(self) -> None:
        self.edited.emit()


class OptionalField(QWidget):
    """A setting that may be left out: a check box, and while it is checked the setting's own widget.

    A number that has never been set begins empty, for any number put there would be made up.
    """

    edited = Signal()

    def __init__(self, inner: "Field") -> None:
        super().__init__()
        self.inner = inner
        """The widget of the value."""
        self.given = SwitchField()
        """Whether there is a value."""
        self.given.setToolTip("Set, or leave out")
        self.given.setAccessibleName("set")
        self._missing = FaintLabel(NOT_SET)
        self._behind: QWidget | None = None
        self.inner.hide()
        self.given.edited.connect(self._give)
        self.inner.edited.connect(self._notice)
        self.setFocusProxy(self.given)
        self._row = in_a_row(self.given, self._missing, self.inner, growing=self.inner)
        self.setLayout(self._row)

    def value(self) -> Any:
        """The value, or None. Raises InputError where the inner widget does."""
        return self.inner.value() if self.given.value() else None

    def set_value(self, value: Any) -> None:
        """Show a value; None unchecks the box and leaves what the inner widget held."""
        self.given.set_value(value is not None)
        if value is not None:
            self.inner.set_value(value)

    def add_unit(self, label: QWidget) -> None:
        """Put a unit behind the value; it comes and goes with it."""
        self._behind = label
        label.setVisible(self.given.value())
        self._row.insertWidget(3, label)

    def _give(self) -> None:
        by_hand = self.given.hasFocus()
        self.inner.setVisible(self.given.value())
        self._missing.setVisible(not self.given.value())
        if self._behind is not None:
            self._behind.setVisible(self.given.value())
        if by_hand and self.given.value():
            self.inner.setFocus()
        self.edited.emit()

    def _notice(self) -> None:
        if self.given.value():
            self.edited.emit()


Field = (
    NumberField
    | ChoiceField
    | SuggestField
    | SwitchField
    | TextField
    | FolderField
    | RowField
    | OptionalField
)
"""Any of the widgets: ``value()``, ``set_value(value)`` and the signal ``edited``."""


def field_for(annotation: Any, metadata: Iterable[Any] = (), unit: str = "") -> Field:
    """The widget for a type.

    Args:
        annotation: a setting's type, such as ``float | None``.
        metadata: what pydantic keeps beside it: limits, validators.
        unit: from which the first step of a number from 0 is guessed.

    Raises:
        TypeError: a type for which there is no widget; a spec that has one must bring it here.
    """
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [*metadata]
        for entry in members[1:]:
            inner += entry.metadata if isinstance(entry, FieldInfo) else [entry]
        return field_for(members[0], inner, unit)
    if origin in (Union, UnionType):
        rest = [member for member in members if member is not type(None)]
        if len(rest) == 1 and len(members) == 2:
            return OptionalField(field_for(rest[0], metadata, unit))
    elif origin is Literal:
        return ChoiceField(members)
    elif origin is tuple and Ellipsis in members:
        return NumbersField()
    elif origin is tuple and members:
        return RowField([field_for(member, (), unit) for member in members])
    elif annotation == dict[str, list[int | str]]:
        return TableField()
    elif annotation is bool:
        return SwitchField()
    elif annotation in (int, float):
        return NumberField(annotation, limits_of(metadata), unit)
    elif annotation is str:
        return TextField()
    raise TypeError(f"no widget for settings of the type {annotation}: add one to fields.py")


def range_words(field: Field) -> str:
    """The range of a widget's number or numbers in words; empty where there is none."""
    if isinstance(field, NumberField):
        return field.limits.words()
    if isinstance(field, OptionalField):
        return range_words(field.inner)
    return range_words(field.members[0]) if isinstance(field, RowField) else ""


def _unchanged(kept: tuple[Any, str], text: str) -> Any:
    """What was put in if the text is still what it was shown as, else the text."""
    value, shown = kept
    return value if text == shown else text


def _calm(box: QComboBox) -> None:
    """Take the focus by click or key, not by the wheel, and no more room than the form gives."""
    box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def in_a_row(*widgets: QWidget, growing: QWidget) -> QHBoxLayout:
    """Widgets side by side from the left; one of them grows to the width that it may have."""
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    for widget in widgets:
        row.addWidget(widget, GREEDY if widget is growing else 0)
    row.addStretch(1)
    return row
