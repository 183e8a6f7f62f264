"""A run's epochs as columns: what a plot is made from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_epochs import event, modulated, plain, smm

import engine
from engine.figures.epochs import History, class_mean, read_history, slope_limits, tenth_limits
from engine.record import FORMAT, Progress, RunReader, RunWriter

ROOT = Path(engine.__file__).parents[1]


def test_every_field_of_an_event_has_its_column() -> None:
    scores = {
        "loss": 0.4,
        "dice": [0.5, None],
        "recall": [0.6, 1],
        "precision": [None, 0.7],
        "skipped": [0, 3],
    }
    first = event(1, 9, loss=2.5, lr=0.1, recall=None, added=[0, 0], validation=None, best=False)
    second = event(
        2, 9, loss="inf", lr=0.05, recall=0.25, slope=0.125, gamma=0.5, updated=True, warmup=True,
        added=[3, 4], validation=scores, best=True,
    )  # fmt: skip
    history = History.of([first, second], ["vein", "artery"], queue=4)
    assert history.number.tolist() == [1, 2]
    assert (history.epochs, history.queue, history.classes, history.best) == (9, 4, ("vein", "artery"), 2)
    np.testing.assert_array_equal(history.loss, [2.5, np.inf])
    np.testing.assert_array_equal(history.lr, [0.1, 0.05])
    np.testing.assert_array_equal(history.recall, [np.nan, 0.25])
    np.testing.assert_array_equal(history.slope, [np.nan, 0.125])
    np.testing.assert_array_equal(history.gamma, [np.nan, 0.5])
    np.testing.assert_array_equal(history.added, [[0, 0], [3, 4]])
    np.testing.assert_array_equal(history.validation_loss, [np.nan, 0.4])
    np.testing.assert_array_equal(history.dice, [[np.nan, np.nan], [0.5, np.nan]])
    np.testing.assert_array_equal(history.validation_recall, [[np.nan, np.nan], [0.6, 1]])
    np.testing.assert_array_equal(history.precision, [[np.nan, np.nan], [np.nan, 0.7]])
    assert history.updated.tolist() == history.warmup.tolist() == [False, True]


def test_classes_without_names_are_numbered() -> None:
    assert plain(2, 4).classes == ("class 1",)
    assert History.of([event(1, 2, added=[0, 0, 0], validation=None)]).classes == (
        "class 1",
        "class 2",
        "class 3",
    )
    assert plain(2, 4).dice.shape == (2, 1)


def test_a_run_without_an_epoch_has_an_empty_history() -> None:
    history = History.of([], ["vessel"])
    assert history.number.shape == (0,)
    assert history.dice.shape == history.added.shape == (0, 1)
    assert (history.epochs, history.best, history.validated, history.modulated) == (0, 0, False, False)


def test_a_history_is_what_the_run_directory_holds(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "run", Progress())
    try:
        writer.write_json("run.json", {"format": FORMAT, "dataset": {"classes": ["vessel"]}})
        writer.write_text("config.toml", "[modulation]\nqueue = 4\n")
        for number in range(1, 6):
            writer.event("epoch", **modulated(number, 5, {4}))
    finally:
        writer.release()
    read = read_history(RunReader(writer.root))
    made = History.of(RunReader(writer.root).epochs(), ["vessel"], 4)
    assert read.queue == 4
    assert read.updated.tolist() == [False, False, False, True, False]
    for name in ("number", "loss", "recall", "slope", "gamma", "dice", "added", "warmup"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name), err_msg=name)


@pytest.mark.parametrize("epoch", [0, 1, 4, 7, 99])
def test_until_an_epoch_is_the_history_that_stood_then(epoch: int) -> None:
    records = [modulated(n, 7, {3, 5}) | {"best": n in (1, 3, 6)} for n in range(1, 8)]
    then = History.of(records).until(epoch)
    known = History.of(records[:epoch])
    for name in ("number", "loss", "slope", "gamma", "updated", "dice", "leading", "validation_loss"):
        np.testing.assert_array_equal(
            getattr(then, name), getattr(known, name).reshape(getattr(then, name).shape)
        )
    assert then.best == known.best
    assert then.epochs == 7


def test_the_best_epoch_is_the_last_that_led() -> None:
    records = [event(n, 6, best=n in (1, 2, 5)) for n in range(1, 7)]
    assert [History.of(records).until(n).best for n in range(7)] == [0, 1, 2, 2, 2, 5, 5]
    assert History.of([event(1, 2, validation=None, best=True)]).best == 0


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=30),
    st.integers(2, 15),
)
def test_the_fitted_line_is_the_least_squares_line(recalls: list[float], queue: int) -> None:
    last = np.array(recalls[-queue:])
    x = np.arange(len(recalls) - len(last) + 1, len(recalls) + 1)
    slope, start = np.polyfit(x, last, 1)
    records = [event(n, 99, recall=r, slope=float(slope)) for n, r in enumerate(recalls, start=1)]
    ends, heights = History.of(records, queue=queue).fit(len(recalls) - 1)
    assert ends.tolist() == [x[0], x[-1]]
    np.testing.assert_allclose(heights, start + slope * ends, atol=1e-9)


def test_without_a_slope_there_is_no_fitted_line() -> None:
    assert np.isnan(plain(5, 5).fit(4)[1]).all()
    assert np.isnan(History.of([event(1, 2, recall=None, slope=0.5)]).fit(0)[1]).all()


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=20))
def test_limits_at_tenths_hold_all_scores(values: list[float]) -> None:
    low, high = tenth_limits(np.array(values))
    seen = [value for value in values if value == value]
    assert 0 <= low < high <= 1.01
    assert all(low <= value <= high for value in seen)
    assert low * 10 == pytest.approx(round(low * 10))


def test_limits_at_tenths_are_close() -> None:
    assert tenth_limits(np.array([0.41, 0.58, np.nan])) == (0.4, 0.6)
    assert tenth_limits(np.array([0.7])) == pytest.approx((0.6, 0.8))
    assert tenth_limits(np.array([np.nan])) == (0, 1)
    assert tenth_limits(np.array([1.0])) == pytest.approx((0.9, 1.01))


def test_slope_limits_hold_slopes_and_thresholds() -> None:
    history = smm(9, 10)
    low, high = slope_limits(history)
    assert low < 0 < np.nanmax(history.slope) < high
    assert np.nanmax(history.gamma) < high


def test_the_mean_over_classes_skips_what_is_undefined() -> None:
    values = np.array([[0.2, 0.4], [np.nan, 0.5], [np.nan, np.nan]])
    np.testing.assert_allclose(class_mean(values), [0.3, 0.5, np.nan])


def test_a_history_and_its_colours_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, engine.figures.epochs, engine.figures.colours, napari_smm.sheet;"
        "print([n for n in ('torch', 'matplotlib', 'qtpy', 'napari') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
