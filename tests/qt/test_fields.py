"""The widgets of single settings: what they show, read, step and refuse."""

import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Le
from hypothesis import given
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent, QWheelEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QVBoxLayout, QWidget

from engine.data.specs import Augment, Data
from engine.errors import InputError
from napari_smm.qt.fields import (
    ChoiceField,
    Field,
    FolderField,
    Limits,
    NumberField,
    NumbersField,
    OptionalField,
    RowField,
    RunField,
    SuggestField,
    SwitchField,
    TableField,
    TextField,
    WeightsField,
    field_for,
    inline_table,
    limits_of,
    range_words,
    stepped_integer,
    stepped_number,
)

TEXTS = st.text(st.characters(codec="utf-8"))
SHARE = Limits(ge=0, le=1)
NO_ONE = Limits(ge=0, lt=1)
POSITIVE = Limits(gt=0)


def counted(field: Field) -> list[None]:
    """A list that grows with each ``edited``."""
    edits: list[None] = []
    field.edited.connect(lambda: edits.append(None))
    return edits


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator[Callable[[Any], Any]]:
    """Shows a field in a window of its own, below another widget that has the focus."""
    windows: list[QWidget] = []

    def show(field: QWidget) -> QWidget:
        window, other = QWidget(), TextField()
        windows.append(window)
        column = QVBoxLayout(window)
        column.addWidget(other)
        column.addWidget(field)
        qtbot.addWidget(window)
        window.show()
        qtbot.waitExposed(window)
        window.activateWindow()
        focus(qtbot, other)
        return field

    yield show
    windows.clear()


def focus(qtbot: QtBot, field: QWidget) -> None:
    field.setFocus()
    qtbot.waitUntil(field.hasFocus)


def wheel(field: QWidget) -> bool:
    """Turn the wheel a notch up over a widget; whether it kept the event."""
    centre = QPointF(field.rect().center())
    event = QWheelEvent(
        centre, QPointF(field.mapToGlobal(field.rect().center())), QPoint(), QPoint(0, 120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    event.setAccepted(True)
    QApplication.sendEvent(field, event)
    return bool(event.isAccepted())


# Steps


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("value", "steps", "limits", "unit", "found"),
    [
        (0.001, 1, POSITIVE, "", 0.002),
        (0.001, -1, POSITIVE, "", 0.0009),
        (0.001, 10, POSITIVE, "", 0.02),
        (0.009, 1, POSITIVE, "", 0.01),
        (0.5, 1, SHARE, "", 0.6),
        (0.15, 1, SHARE, "", 0.16),
        (0.15, -1, SHARE, "", 0.14),
        (1.0, 1, SHARE, "", 1.0),
        (0.0, -1, SHARE, "", 0.0),
        (0.0, 1, SHARE, "", 0.1),
        (0.95, 10, SHARE, "", 1.0),
        (0.9, 1, NO_ONE, "", 0.91),
        (0.999, 1, NO_ONE, "", 0.9991),
        (0.0, 1, Limits(ge=0, le=180), "°", 10.0),
        (0.0, 1, Limits(ge=0), "", 1e-4),
        (0.0, 1, Limits(), "px", 1.0),
        (0.0, -1, Limits(), "px", -1.0),
        (-1.0, 1, Limits(), "", -0.9),
        (-1.0, -1, Limits(), "", -2.0),
        (0.123456, 1, POSITIVE, "", 0.13),
        (0.123456, -1, POSITIVE, "", 0.12),
        (9.0, 1, POSITIVE, "", 10.0),
        (13.0, 1, POSITIVE, "", 14.0),
        (5.0, 1, SHARE, "", 5.0),  # outside already: it stays, and is refused as it is
        (1.7e308, 10, POSITIVE, "", 1.791e308),
    ],
)  # fmt: skip
def test_a_step_moves_the_last_digit_within_the_range(
    value: float, steps: int, limits: Limits, unit: str, found: float
) -> None:
    assert stepped_number(value, steps, limits, unit) == found


@given(
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(-10, 10).filter(bool),
    st.sampled_from([SHARE, NO_ONE, POSITIVE, Limits()]),
)
def test_a_step_goes_its_way_and_never_out_of_the_range(value: float, steps: int, limits: Limits) -> None:
    found = stepped_number(value, steps, limits)
    assert limits.hold(found)
    assert (found - value) * steps >= 0


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("value", "steps", "limits", "found"),
    [
        (4, 1, Limits(ge=1), 5),
        (1, -1, Limits(ge=1), 1),
        (15, 10, Limits(ge=2, le=20), 20),
        (256, 1, Limits(ge=8, le=65536), 264),
        (100, 1, Limits(ge=8, le=65536), 104),
        (100, -1, Limits(ge=8, le=65536), 96),
        (8, -1, Limits(ge=8, le=65536), 8),
        (1024, -1, Limits(ge=32), 992),
        (10**30, 1, Limits(ge=0), 10**30 + 1),
        (0, -1, Limits(), -1),
        (3, -5, Limits(gt=0), 1),
        (3, 5, Limits(lt=6), 5),
    ],
)
def test_a_whole_number_steps_by_one_and_a_length_by_multiples(
    value: int, steps: int, limits: Limits, found: int
) -> None:
    assert stepped_integer(value, steps, limits) == found


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(), ""),
        (Limits(ge=8, le=65536), "from 8 to 65536"),
        (Limits(ge=1), "from 1 up"),
        (Limits(gt=0), "above 0"),
        (Limits(gt=0, lt=1), "above 0, below 1"),
        (Limits(ge=0, lt=1), "from 0, below 1"),
        (Limits(le=0.9), "to 0.9"),
    ],
)
def test_a_range_in_words(limits: Limits, words: str) -> None:
    assert limits.words() == words


# Numbers


@given(st.floats(allow_nan=False))
def test_a_number_field_gives_back_every_float_bit_for_bit(qapp: QApplication, value: float) -> None:
    field = NumberField(float, Limits())
    field.set_value(value)
    found = field.value()
    assert isinstance(found, float)
    assert (found, math.copysign(1, found)) == (value, math.copysign(1, value))


@given(st.integers())
def test_a_number_field_gives_back_every_integer(qapp: QApplication, value: int) -> None:
    field = NumberField(int, Limits())
    field.set_value(value)
    found = field.value()
    assert (found, type(found)) == (value, int)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), (" .5 ", 0.5), ("7", 7.0), ("-2E2", -200.0)])
def test_a_number_is_read_as_people_write_it(
    qtbot: QtBot, shown: Callable[[Any], Any], text: str, value: float
) -> None:
    field = shown(NumberField(float, Limits()))
    edits = counted(field)
    focus(qtbot, field)
    field.selectAll()
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert field.value() == value
    assert field.line.text() == text  # neither Enter nor leaving rewrites it
    assert len(edits) == len(text)


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (int, "abc", "'abc' is not a number that can be used: a whole number, from 1 up, is needed."),
        (int, "2.5", "'2.5' is not a number that can be used: a whole number, from 1 up, is needed."),
        (float, "0,5", "'0,5' is not a number that can be used: a number such as 0.001 or 1e-3, "
         "from 1 up, is needed."),
        (int, " ", "no number is given: a whole number, from 1 up, is needed."),
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused_in_one_sentence(
    qtbot: QtBot, kind: type[int] | type[float], text: str, sentence: str
) -> None:
    field = NumberField(kind, Limits(ge=1))
    qtbot.addWidget(field)
    field.line.setText(text)
    with pytest.raises(InputError) as refused:
        field.value()
    assert str(refused.value) == sentence


@pytest.mark.both_bindings
def test_arrow_keys_step_a_number_once_each(qtbot: QtBot, shown: Callable[[Any], Any]) -> None:
    field = shown(NumberField(float, POSITIVE))
    field.set_value(0.001)
    edits = counted(field)
    focus(qtbot, field)
    qtbot.keyClick(field, Qt.Key.Key_Up)
    assert field.value() == 0.002
    qtbot.keyClick(field, Qt.Key.Key_Down)
    qtbot.keyClick(field, Qt.Key.Key_Down)
    assert field.value() == 0.0009
    assert len(edits) == 3
    field.line.setText("no number")
    qtbot.keyClick(field, Qt.Key.Key_Up)
    assert field.value() == 0


# The wheel


@pytest.mark.both_bindings
@pytest.mark.parametrize("kind", ["number", "choice", "suggest"])
def test_the_wheel_changes_only_what_has_the_focus(
    qtbot: QtBot, shown: Callable[[Any], Any], kind: str
) -> None:
    makers = {
        "number": lambda: NumberField(int, Limits()),
        "choice": lambda: ChoiceField(["a", "b"]),
        "suggest": lambda: SuggestField(lambda: {"a": "", "b": ""}),
    }
    field = shown(makers[kind]())
    before = {"number": 5, "choice": "b", "suggest": "b"}[kind]
    if isinstance(field, SuggestField):
        field.offer()
    field.set_value(before)
    assert not wheel(field)  # left to what scrolls the page
    assert field.value() == before
    focus(qtbot, field)
    assert field.value() == before
    wheel(field)
    assert field.value() == {"number": 6, "choice": "a", "suggest": "a"}[kind]


# Choices and texts


@pytest.mark.both_bindings
def test_a_choice_gives_back_the_value_and_not_its_text(qtbot: QtBot) -> None:
    field = ChoiceField([1, "1", None, True], {1: "one"})
    qtbot.addWidget(field)
    edits = counted(field)
    field.set_value("1")
    assert (field.value(), len(edits)) == ("1", 1)
    assert field.itemData(0, Qt.ItemDataRole.ToolTipRole) == "one"
    with pytest.raises(ValueError, match="not in list"):
        field.set_value("2")


@pytest.mark.both_bindings
def test_a_list_of_offers_is_read_when_it_is_wanted_and_leaves_the_text(qtbot: QtBot) -> None:
    asked: list[int] = []
    field = SuggestField(lambda: asked.append(1) or {"auto": "by itself", "cpu": "the processor"})
    qtbot.addWidget(field)
    field.set_value("cuda:1")
    edits = counted(field)
    assert (asked, field.count()) == ([], 0)
    field.offer()
    field.offer()
    assert (asked, field.count(), field.value(), edits) == ([1], 2, "cuda:1", [])
    field.setCurrentIndex(1)
    assert (field.value(), len(edits)) == ("cpu", 1)


@given(TEXTS)
def test_a_text_comes_back_even_if_a_line_cannot_show_it(qapp: QApplication, text: str) -> None:
    fields: list[Any] = [TextField(), SuggestField(dict), FolderField()]
    for field in fields:
        field.set_value(text)
        assert field.value() == text


@pytest.mark.parametrize("make", [TextField, lambda: SuggestField(dict)])
def test_what_is_typed_replaces_a_text_that_could_not_be_shown(qtbot: QtBot, make: Any) -> None:
    field = make()
    qtbot.addWidget(field)
    field.set_value("two\nlines")
    line = field if isinstance(field, TextField) else field.lineEdit()
    line.setText("one line")
    assert field.value() == "one line"
    field.set_value("")
    assert field.value() == ""


@pytest.mark.both_bindings
def test_a_folder_can_be_browsed_for_or_dropped(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    field = FolderField("a folder, or demo")
    qtbot.addWidget(field)
    edits = counted(field)
    answers = iter([str(tmp_path), ""])
    asked: list[str] = []
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda parent, title, start: asked.append(start) or next(answers)
    )
    field.set_value("before")
    field.browse.click()
    assert (field.value(), len(edits)) == (str(tmp_path), 2)
    field.browse.click()  # cancelled
    assert (field.value(), len(edits)) == (str(tmp_path), 2)
    assert asked == ["before", str(tmp_path)]
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / "eyes"))])
    field.path.dropEvent(
        QDropEvent(
            QPointF(1, 1) if hasattr(QDropEvent, "position") else QPoint(1, 1),
            Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
        )
    )  # fmt: skip
    assert field.value() == str(tmp_path / "eyes")


@pytest.mark.both_bindings
def test_a_file_of_weights_can_be_browsed_for(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    field = WeightsField("resnet50-….pth")
    qtbot.addWidget(field)
    edits = counted(field)
    answers = iter([(str(tmp_path / "r.pth"), "PyTorch (*.pth *.pt)"), ("", "")])
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *asked: next(answers))
    field.browse.click()
    assert (field.value(), len(edits)) == (str(tmp_path / "r.pth"), 1)
    field.browse.click()  # cancelled
    assert (field.value(), len(edits)) == (str(tmp_path / "r.pth"), 1)


def test_a_run_to_start_from_can_be_browsed_for(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    field = RunField("a run directory")
    qtbot.addWidget(field)
    answers = iter([str(tmp_path), ""])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *asked: next(answers))
    field.browse.click()
    field.browse.click()  # cancelled
    assert field.value() == str(tmp_path)


# Tables, tuples, options


TABLES = st.dictionaries(TEXTS, st.lists(st.integers() | TEXTS))


@pytest.mark.both_bindings
@given(TABLES)
def test_an_inline_table_is_toml_that_says_the_same(table: dict[str, list[int | str]]) -> None:
    text = inline_table(table)
    assert "\n" not in text
    found = tomllib.loads(f"value = {text}")["value"]
    assert (found, list(found)) == (table, list(table))


@given(TABLES)
def test_a_table_field_gives_back_every_table(qapp: QApplication, table: dict[str, list[int | str]]) -> None:
    field = TableField()
    field.set_value(table)
    assert field.value() == table


@pytest.mark.both_bindings
def test_a_table_is_typed_as_toml(qtbot: QtBot) -> None:
    field = TableField()
    qtbot.addWidget(field)
    field.setText('{nucleus = [1, 2], "cell wall" = ["#ff0000"]}')
    assert field.value() == {"nucleus": [1, 2], "cell wall": ["#ff0000"]}
    for text, start in [
        ("{a = ", "'{a = ' is not a TOML table"),
        ("3", "'3' is not"),
        ("", "no table is given"),
    ]:
        field.setText(text)
        if not text:
            field.set_value({"a": [1]})
            field.setText("")
        with pytest.raises(InputError) as refused:
            field.value()
        assert str(refused.value).startswith(start)
        assert str(refused.value).endswith("would be one.")


@pytest.mark.both_bindings
def test_an_option_is_set_with_its_box_and_keeps_what_it_held(
    qtbot: QtBot, shown: Callable[[Any], Any]
) -> None:
    field = shown(field_for(Annotated[int, Ge(1)] | None, [Ge(1)], "epochs"))
    assert isinstance(field, OptionalField)
    edits = counted(field)
    assert field.value() is None
    assert not field.inner.isVisible()
    field.given.setChecked(True)
    assert field.inner.isVisible()
    with pytest.raises(InputError, match="no number is given"):
        field.value()  # no number is made up
    field.inner.set_value(7)
    assert (field.value(), len(edits)) == (7, 2)
    field.given.setChecked(False)
    assert (field.value(), len(edits)) == (None, 3)
    field.inner.set_value(8)  # unseen, so that nothing has been edited
    assert (field.value(), len(edits)) == (None, 3)
    field.given.setChecked(True)
    assert field.value() == 8


def test_as_many_numbers_as_images_have_axes_are_a_line(qtbot: QtBot) -> None:
    outer = field_for(Data.model_fields["patch"].annotation)
    qtbot.addWidget(outer)
    assert isinstance(outer, OptionalField)
    field = outer.inner
    assert isinstance(field, NumbersField)
    for value in [(256, 320), (32, 64, 64)]:
        field.set_value(value)
        assert field.value() == value
        assert Data(patch=field.text()).patch == value
    edits = counted(field)
    field.setText("64, 72")
    assert (field.value(), len(edits)) == ("64, 72", 1)
    assert Data(patch=field.value()).patch == (64, 72)


@pytest.mark.both_bindings
def test_a_tuple_is_a_row_of_fields_and_one_edit_is_told_once(qtbot: QtBot) -> None:
    field = field_for(Augment.model_fields["scale"].annotation)
    qtbot.addWidget(field)
    assert isinstance(field, RowField)
    field.set_value((0.5, 1.5))
    edits = counted(field)
    assert field.value() == (0.5, 1.5)
    field.members[1].stepBy(1)
    assert field.value()[0] == 0.5
    assert field.value()[1] > 1.5
    assert len(edits) == 1
    with pytest.raises(ValueError, match="shorter"):
        field.set_value((1,))


# From types to widgets


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (bool, SwitchField),
        (int, NumberField),
        (float, NumberField),
        (str, TextField),
        (Literal["a", "b"], ChoiceField),
        (tuple[float, float], RowField),
        (dict[str, list[int | str]], TableField),
        (dict[str, list[int | str]] | None, OptionalField),
        (Annotated[float, Ge(0)], NumberField),
    ],
)
def test_each_type_has_its_widget(qtbot: QtBot, annotation: Any, kind: type[Field]) -> None:
    field = field_for(annotation)
    qtbot.addWidget(field)
    assert type(field) is kind


@pytest.mark.both_bindings
@pytest.mark.parametrize("annotation", [bytes, list[int], int | str, set[int], dict[str, int]])
def test_a_type_without_a_widget_is_refused(qapp: QApplication, annotation: Any) -> None:
    with pytest.raises(TypeError, match="no widget for settings of the type"):
        field_for(annotation)


def test_limits_come_from_the_types_own_metadata(qtbot: QtBot) -> None:
    assert limits_of([Ge(0), Le(2), "else"]) == Limits(ge=0, le=2)
    for key, words in [("size", ""), ("split", "from 0 to 1"), ("layout", "")]:
        field = field_for(Data.model_fields[key].annotation)
        qtbot.addWidget(field)
        assert range_words(field) == words
