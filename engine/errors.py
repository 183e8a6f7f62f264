"""The one exception that a user, not a programmer, can cause, and its echo in other processes."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user gave cannot be used.

    Its message is one sentence that says what was wrong, what was given and
    what would work. Commands print it without a traceback and exit with 2.
    """


class RefusedError(Exception):
    """Of processes that train together the first has refused the run and says why; this one is silent."""


def unknown(kind: str, given: str, known: Iterable[str], *, of: str = "") -> InputError:
    """Error for a name that is not on a list: names the list, and the nearest entry if one is near."""
    names = list(known)
    # Compared by their last part: a shared prefix makes any two settings of a part look alike.
    ends = {name.rpartition(".")[2]: name for name in names}
    near = [ends[end] for end in get_close_matches(given.rpartition(".")[2], ends, n=1)]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return InputError(f"unknown {kind} {given!r}{of}{hint}: known are {', '.join(names) or 'none'}.")
