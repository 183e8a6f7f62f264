"""How commands end."""

import errno
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from engine.command import run

WAITS = """
import sys, time
from engine.command import run
def main(arguments):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_command_after_it_has_cleaned_up(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    said, complaint = process.communicate(timeout=60)
    assert (process.returncode, said, complaint) == (130, "cleaned up\n", "interrupted\n")


@pytest.mark.parametrize(
    ("number", "reason", "said"),
    [
        (errno.EROFS, "Read-only file system",
         "cannot be read or written (Read-only file system): change its permissions, or give another path."),
        (errno.ENOTDIR, "Not a directory", "cannot be used as a path here (Not a directory): give another."),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_used_is_one_sentence(
    number: int, reason: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: Sequence[str]) -> int:
        raise OSError(number, reason, "/mnt/cd/report")

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="2"):
            run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == f"error: /mnt/cd/report {said}\n"
