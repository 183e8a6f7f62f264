"""Words and buttons for every state of a run."""

from pathlib import Path
from typing import Any, get_args

import pytest

from engine.record import Status
from napari_smm.status import SYMBOLS, WORDS, Display, display, duration
from napari_smm.watch import Beat, RunState


def state(status: Status, **given: Any) -> RunState:
    info = given.pop("info", {"dataset": {"classes": ["vessel"]}})
    epochs = ({"epoch": 1, "seconds": {"epoch": 30.0}}, {"epoch": 2, "seconds": {"epoch": 30.0}})
    return RunState(Path("r"), status=status, info=info, epochs=epochs, total=4, beat=Beat(3, 1, 2), **given)


@pytest.mark.parametrize("status", get_args(Status))
def test_every_status_has_a_word_and_a_symbol(status: Status) -> None:
    shown = display(state(status))
    assert shown.status.startswith(f"{SYMBOLS[status]} {WORDS[status]}")


BUTTONS = {  # start, stop, resume
    "waiting": (False, True, False),
    "running": (False, True, False),
    "stopping": (False, False, False),
    "stopped": (True, False, True),
    "failed": (True, False, True),
    "finished": (True, False, False),
    "crashed": (True, False, True),
}


@pytest.mark.parametrize("status", get_args(Status))
def test_only_buttons_that_do_something_can_be_pressed(status: Status) -> None:
    shown = display(state(status))
    assert (shown.can_start, shown.can_stop, shown.can_resume) == BUTTONS[status]


def test_a_run_that_was_refused_has_nothing_to_resume() -> None:
    assert not display(state("failed", info=None)).can_resume


def test_a_running_epoch_is_the_one_that_it_is_in() -> None:
    shown = display(state("running"))
    assert "epoch 3 of 4" in shown.status
    assert shown.done == pytest.approx(2.5 / 4)
    assert shown.time_left == "45 s left"
    assert "epoch 2 of 4" in display(state("stopped")).status


def test_what_went_wrong_is_said() -> None:
    assert display(state("failed", message="the disk is full.")).detail == "the disk is full."
    assert "gone" in display(state("crashed")).detail
    assert display(state("running")).detail == ""


def test_nothing_is_watched() -> None:
    assert display(None) == Display("No run is watched")


def test_the_window_s_own_work_comes_first() -> None:
    shown = display(state("finished"), "Writing images…", can_cancel=True)
    assert (shown.status, shown.done, shown.can_start, shown.can_stop) == (
        "Writing images…",
        None,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (600, "10 min"), (3540, "59 min"), (3599, "1 h"),
     (7500, "2 h 5 min"), (86400 * 3, "3 days"), (-1, "0 s")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
