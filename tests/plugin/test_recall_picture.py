"""The recall-slope plot as pixels: what stands where, and what an epoch hides."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_epochs import event, modulated, plain, smm

from engine.errors import InputError
from engine.figures.epochs import History
from napari_smm.recall_picture import LEAST, SIZE, Picture, Pixels, draw
from napari_smm.sheet import DARK, LIGHT, rgba

UPDATES = {4, 6, 7}


@pytest.fixture(scope="module")
def picture() -> Picture:
    return draw(smm(10, 10, UPDATES))


def coloured(pixels: Pixels, colour: str) -> np.ndarray:
    """Where pixels (…, 4) are of a colour: bool (…)."""
    return (pixels == rgba(colour)).all(axis=-1)


def measured(picture: Picture) -> np.ndarray:
    """Where something that was measured is drawn: bool (h, w)."""
    return (picture.full != picture.bare).any(axis=2)


@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("size", [SIZE, (240, 300), (500, 400), (801, 1203)])
def test_a_picture_has_the_size_and_the_ground_asked_for(size: tuple[int, int], dark: bool) -> None:
    picture = draw(smm(5, 10), size, dark=dark)
    for pixels in (picture.full, picture.bare, picture.at(3)):
        assert pixels.shape == (*size, 4)
        assert pixels.dtype == np.uint8
        assert (pixels[..., 3] == 255).all()
        assert pixels[0, 0].tolist() == rgba((DARK if dark else LIGHT).ground).tolist()


def test_epochs_stand_evenly_within_the_panels(picture: Picture) -> None:
    steps = np.diff(picture.column)
    assert steps.min() > 0
    assert np.ptp(steps) <= 1
    where = np.flatnonzero(measured(picture).any(axis=0))
    assert abs(where.min() - picture.column[0]) <= 1
    assert abs(where.max() - picture.column[-1]) <= 1


def test_what_was_measured_stays_within_the_panels(picture: Picture) -> None:
    inside = np.zeros(SIZE, dtype=bool)
    for top, bottom in picture.panels:
        inside[top : bottom + 1] = True
    assert not (measured(picture) & ~inside).any()
    assert len(picture.panels) == 2
    assert all(measured(picture)[top:bottom].any() for top, bottom in picture.panels)


@pytest.mark.parametrize("epoch", range(1, 11))
def test_nothing_measured_is_seen_right_of_the_epoch(picture: Picture, epoch: int) -> None:
    shown, column = picture.at(epoch), picture.column[epoch - 1]
    np.testing.assert_array_equal(shown[:, column + 1 :], picture.bare[:, column + 1 :])
    hidden = measured(picture)[:, column + 1 :]
    assert hidden.any() == (epoch < 10)


@pytest.mark.parametrize("epoch", range(1, 11))
def test_a_line_stands_at_the_epoch_in_every_panel(picture: Picture, epoch: int) -> None:
    shown, column = picture.at(epoch), picture.column[epoch - 1]
    line = coloured(shown[:, column], DARK.faint) | measured(picture)[:, column]
    for top, bottom in picture.panels:
        assert line[top:bottom].all()
    assert not line[: picture.panels[0][0] - 1].any()


def test_left_of_the_line_all_that_was_measured_is_seen(picture: Picture) -> None:
    left = slice(None), slice(0, picture.column[6] - 1)
    there = measured(picture)[left]
    np.testing.assert_array_equal(picture.at(7)[left][there], picture.full[left][there])


def test_marks_stand_at_the_epochs_that_updated(picture: Picture) -> None:
    """A triangle on the axis above and a dot on the slope below."""
    for top, bottom in picture.panels:
        orange = coloured(picture.full[top:bottom], DARK.added).any(axis=0)
        found = {
            int(picture.number[np.abs(picture.column - column).argmin()]) for column in np.flatnonzero(orange)
        }
        assert found == UPDATES
    assert not coloured(draw(smm(10, 10)).full, DARK.added).any()


def test_the_recall_stands_at_its_height() -> None:
    """Recall 0.25 in every epoch: halfway between 0.2 and 0.3, the limits of its axis."""
    history = History.of([event(n, 8, recall=0.25) for n in range(1, 9)])
    picture = draw(history)
    ((top, bottom),) = picture.panels
    rows = np.flatnonzero(measured(picture)[:, picture.column[3]])
    assert rows.mean() == pytest.approx((top + bottom - 1) / 2, abs=1)


def test_the_fitted_line_is_that_of_the_epoch_in_view(picture: Picture) -> None:
    """Recall rises evenly here, so that every fit lies on the recalls; a longer one from epoch to epoch."""
    for row in (2, 5, 9):
        (left, start), (right, end) = picture.fits[row]
        assert left == pytest.approx(picture.column[0], abs=1)
        assert right == pytest.approx(picture.column[row], abs=1)
        for x, y in ((left, start), (right, end)):
            column = measured(picture)[:, round(x)]
            top, bottom = picture.panels[0]
            line = top + np.flatnonzero(column[top:bottom])
            assert abs(line - y).min() < 2
    assert np.isnan(picture.fits[0]).all()


def test_a_fit_that_differs_from_the_recalls_is_drawn() -> None:
    records = [
        modulated(n, 9) | {"recall": 0.5 + 0.05 * (-1) ** n, "slope": 0.0 if n > 1 else None}
        for n in range(1, 10)
    ]
    picture = draw(History.of(records, queue=5))
    shown = picture.at(9)
    (left, start), (_, end) = picture.fits[8]
    assert start == pytest.approx(end)
    middle = round((picture.column[4] + picture.column[5]) / 2) + 4
    changed = (shown != picture.full).any(axis=2)
    assert changed[round(start) - 1 : round(start) + 1, middle].any()
    assert not changed[:, : round(left) - 1].any()
    assert picture.column[4] == pytest.approx(left, abs=1)


def test_epochs_that_were_not_run() -> None:
    picture = draw(smm(6, 20))
    np.testing.assert_array_equal(picture.at(17), picture.at(6))
    np.testing.assert_array_equal(picture.at(0), picture.bare)
    np.testing.assert_array_equal(picture.at(-3), picture.bare)


def test_a_picture_is_not_changed_by_looking_at_it(picture: Picture) -> None:
    full, bare = picture.full.copy(), picture.bare.copy()
    picture.at(5)[:] = 0
    np.testing.assert_array_equal(picture.full, full)
    np.testing.assert_array_equal(picture.bare, bare)


def test_the_axis_runs_to_the_configured_epoch() -> None:
    early, late = draw(smm(5, 40)), draw(smm(40, 40))
    np.testing.assert_array_equal(early.column, late.column[:5])
    assert early.column.max() < SIZE[1] / 3


def test_the_warm_up_is_shaded(picture: Picture) -> None:
    top, _ = picture.panels[0]
    row = coloured(picture.bare[top + 3], DARK.shade)
    assert row[picture.column[0] : picture.column[1]].all()
    assert not row[picture.column[2] :].any()
    unshaded = draw(plain(10, 10))
    ((top, _),) = unshaded.panels
    assert not coloured(unshaded.bare[top + 3], DARK.shade).any()


def test_plain_training_has_one_panel_and_a_legend_of_one() -> None:
    picture = draw(plain(10, 10))
    assert len(picture.panels) == 1
    assert not coloured(picture.full, DARK.measured).any()
    assert not coloured(picture.full, DARK.added).any()
    right_of_a_word = picture.full[: picture.panels[0][0] - 4, SIZE[1] // 2 :]
    assert coloured(right_of_a_word, DARK.ground).all()


def test_a_history_without_an_epoch_is_a_plot_without_lines() -> None:
    picture = draw(History.of([]))
    np.testing.assert_array_equal(picture.full, picture.bare)
    np.testing.assert_array_equal(picture.at(1), picture.bare)


def test_one_epoch_is_a_dot() -> None:
    picture = draw(smm(1, 1))
    dot = measured(picture)
    assert 5 < dot.sum() < 100
    assert dot[:, picture.column[0]].any()
    assert picture.at(1).shape == (*SIZE, 4)


def test_what_was_not_measured_is_a_gap() -> None:
    records = [event(n, 9, recall=None if n == 5 else 0.3) for n in range(1, 10)]
    picture = draw(History.of(records))
    drawn = measured(picture)
    assert not drawn[:, picture.column[3] + 2 : picture.column[5] - 1].any()
    assert drawn[:, picture.column[2]].any()
    assert drawn[:, picture.column[6]].any()


def test_a_run_in_which_nothing_is_defined() -> None:
    records = [event(n, 4, recall=None, loss=None, validation=None) for n in range(1, 5)]
    picture = draw(History.of(records))
    np.testing.assert_array_equal(picture.full, picture.bare)
    assert picture.at(2).shape == (*SIZE, 4)


numbers = st.none() | st.floats(-1, 1) | st.just("inf")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.none() | st.floats(0, 1), numbers, numbers, st.booleans()), max_size=12))
def test_any_history_can_be_drawn(rows: list[tuple]) -> None:
    records = [
        event(n, 12, recall=recall, slope=slope, gamma=gamma, updated=updated, warmup=n < 3)
        for n, (recall, slope, gamma, updated) in enumerate(rows, start=1)
    ]
    picture = draw(History.of(records), (120, 160))
    for epoch in range(14):
        assert picture.at(epoch).shape == (120, 160, 4)


def test_threads_draw_the_same() -> None:
    histories = [smm(n, 30, UPDATES) for n in (10, 20, 30)]
    alone = [draw(history).full for history in histories]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda history: draw(history).full, histories * 3))
    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pictures_too_small_to_read_are_refused() -> None:
    with pytest.raises(InputError, match=f"at least {LEAST}"):
        draw(smm(3, 3), (LEAST - 1, 300))


def test_scrubbing_through_hundreds_of_epochs_is_quick() -> None:
    """2 ms an epoch is promised; ten times that here, for machines that do other things beside."""
    picture = draw(smm(500, 1000, range(200, 500), warmup=200))
    begun = time.perf_counter()
    for epoch in range(1, 501):
        picture.at(epoch)
    assert (time.perf_counter() - begun) / 500 < 0.02


def test_a_steep_fit_stays_within_its_panel(picture: Picture) -> None:
    steep = picture.fits.copy()
    steep[9] = [[picture.column[3], 5000.0], [picture.column[9], -5000.0]]
    shown = replace(picture, fits=steep).at(9 + 1)
    top, bottom = picture.panels[0]
    changed = (shown != replace(picture, fits=np.full_like(steep, np.nan)).at(10)).any(axis=2)
    assert changed.any()
    assert not changed[:top].any()
    assert not changed[bottom:].any()
