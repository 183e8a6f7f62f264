"""Numbers and times as words, with their units."""

import math
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

NONE = "–"
"""Stands where there is no number."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """1 image, 2 images, 12,000 images."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share 0…1 in percent."""
    return NONE if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def number(value: float | None, form: str = ".4g") -> str:
    """A number, or a dash where it is not defined."""
    return NONE if value is None or not math.isfinite(value) else format(value, form)


def duration(seconds: float) -> str:
    """Seconds as people say them, to the two largest units."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    while parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def moment(stamp: str) -> str:
    """An event's time, to the minute."""
    return f"{datetime.fromisoformat(stamp):%Y-%m-%d %H:%M %Z}".strip()


def span(first: str, last: str) -> float:
    """Seconds between two events' times."""
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)) / timedelta(seconds=1)


def size(count: int) -> str:
    """Bytes with a unit."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count, 1000) / 1e3:.0f} kB"


def command(name: str, *arguments: str | Path) -> str:
    """A command of the engine as it is typed."""
    return shlex.join(["python", "-m", f"engine.{name}", *map(str, arguments)])


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row; of many the first few and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
