"""What all commands share: one sentence for what a user did wrong, and how a run is found."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from engine.disk import is_disk_full
from engine.errors import InputError, RefusedError

FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
"""A file where a folder should be, or a folder where a file should, or a name that the disk does not take."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are InputErrors, and whose flags are never abbreviated."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(
            prog=f"python -m engine.{prog}", description=description, usage=usage, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help says what there is.")


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command and exit: 0 done, 2 refused with one sentence, 130 interrupted, 1 anything else.

    SIGTERM, with which batch systems end a process, interrupts as Ctrl-C does: nothing is left behind.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except RefusedError:
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough; Python's own flush at the end must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.errno in FORBIDDEN:
            print(
                f"error: {error.filename or 'a file'} cannot be read or written ({error.strerror}): "
                "change its permissions, or give another path.",
                file=sys.stderr,
            )
            sys.exit(2)
        if error.errno in IN_THE_WAY:
            print(
                f"error: {error.filename or 'a file'} cannot be used as a path here ({error.strerror}): "
                "give another.",
                file=sys.stderr,
            )
            sys.exit(2)
        if not is_disk_full(error):
            raise
        print(
            f"error: the disk is full ({error}): what was saved before is whole; "
            "free some space and go on with --resume.",
            file=sys.stderr,
        )
        code = 2
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def existing(path: str) -> Path:
    """A path given by the user that must exist."""
    found = Path(path).expanduser()
    if not found.exists():
        raise InputError(f"{path} does not exist.")
    return found
