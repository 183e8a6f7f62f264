"""Colours that can be read, on whatever ground a window has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.figures import colours
from napari_smm.sheet import CONTRAST, DARK, LIGHT, Sheet, contrast, is_dark, rgba

NAPARI = {"#262930": True, "#23242B": True, "#EFEBE9": False, "#EBE7E6": False, "#FFFFFF": False}
"""Grounds of napari's themes, and whether they are dark."""
anything = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06X}")


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize(("ground", "dark"), NAPARI.items())
def test_lines_and_words_can_be_read_on_napari_s_grounds(ground: str, dark: bool) -> None:
    sheet = Sheet.on(ground)
    assert is_dark(ground) is dark
    assert contrast(sheet.ink, ground) > 10
    assert contrast(sheet.measured, ground) >= CONTRAST
    assert contrast(sheet.faint, ground) >= CONTRAST
    assert contrast(sheet.ink, sheet.shade) > 7
    assert 1.1 < contrast(sheet.shade, ground) < 1.8


@given(anything, anything)
def test_any_colour_becomes_readable_on_any_ground_that_ink_is(colour: str, ground: str) -> None:
    sheet = Sheet.on(ground)
    made = sheet.readable(colour)
    assert contrast(made, ground) >= min(CONTRAST, contrast(sheet.ink, ground))


def test_colours_that_can_be_read_stay_as_they_are() -> None:
    assert LIGHT.readable(colours.VALIDATION) == colours.VALIDATION
    assert DARK.readable(colours.CLASSES[0]) == colours.CLASSES[0]
    assert DARK.readable(colours.CLASSES[3]) != colours.CLASSES[3]


def test_printed_figures_and_light_windows_agree() -> None:
    assert (LIGHT.ink, LIGHT.measured, LIGHT.added) == (colours.INK, colours.VALIDATION, colours.ADDED)


def test_colours_as_pixels() -> None:
    assert rgba("#E69F00").tolist() == [0xE6, 0x9F, 0, 255]
