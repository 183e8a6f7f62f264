"""A run's state in words, and what can be done about it: what the dock shows. Pure."""

from dataclasses import dataclass

from engine.data.journal import took_up
from napari_smm.watch import RunState

WORDS = {
    "waiting": "Starting…",
    "running": "Running",
    "stopping": "Stopping…",
    "stopped": "Stopped",
    "failed": "Failed",
    "finished": "Finished",
    "crashed": "Crashed",
}
SYMBOLS = {
    "waiting": "◌",
    "running": "▶",
    "stopping": "◑",
    "stopped": "■",
    "failed": "✖",
    "finished": "✔",
    "crashed": "⚠",
}
"""A shape for each status, so that none is told by colour alone."""


@dataclass(frozen=True)
class Display:
    """What is shown of a run.

    Attributes:
        status: a few words, the run's state first.
        detail: a sentence about what went wrong or has to be known, else "".
        done: share of the run that is done, 0…1; None where it cannot be said yet.
        time_left: in words, or "".
        can_start, can_stop, can_resume: which buttons do something.
    """

    status: str
    detail: str = ""
    done: float | None = 0.0
    time_left: str = ""
    can_start: bool = True
    can_stop: bool = False
    can_resume: bool = False


def display(state: RunState | None, busy: str = "", *, can_cancel: bool = False) -> Display:
    """What to show of a run.

    Args:
        state: of the watched run; None if none is watched.
        busy: what the window itself is doing to start or resume a run, such as "Writing images…".
        can_cancel: whether that can be stopped.
    """
    if busy:
        return Display(busy, done=None, can_start=False, can_stop=can_cancel)
    if state is None:
        return Display("No run is watched")
    words = [f"{SYMBOLS[state.status]} {WORDS[state.status]}"]
    if state.total and (state.newest or state.alive):
        # While a run goes on, the epoch that it is in; afterwards, how many are whole.
        number = max(state.beat.epoch, state.newest) if state.alive else state.newest
        words.append(f"epoch {min(max(number, 1), state.total)} of {state.total}")
    left = state.seconds_left if state.status == "running" else None
    ended = not state.alive and state.status != "waiting"
    return Display(
        status=" · ".join(words),
        detail=explanation(state),
        done=None if state.status == "waiting" else state.done,
        time_left="" if left is None else f"{duration(left)} left",
        can_start=ended,
        can_stop=state.status in ("running", "waiting"),
        can_resume=state.status in ("stopped", "crashed", "failed") and state.info is not None,
    )


def explanation(state: RunState) -> str:
    """Why a run ended early, or what it took up last as it goes, in a sentence; "" where there is nothing."""
    if state.status == "failed":
        return state.message or "The trainer ended without saying why; the log may tell."
    if state.status == "crashed":
        return "The trainer is gone without a word, as after a kill, a power cut or too little memory."
    if state.alive and state.followed:
        last = state.followed[-1]
        return f"Epoch {last['epoch']} {took_up([image['name'] for image in last['images']])}."
    return ""


def duration(seconds: float) -> str:
    """A time in words, in the two largest units: "2 h 5 min", "40 s"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    if not hours:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"
