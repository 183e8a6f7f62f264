"""A Python that has torch at once: its commands `-m engine.…` are forked from a process that has loaded it.

For tests of what comes of commands that the code under test starts as `sys.executable -m engine.…`, which
saves each of them seconds; tests of how processes begin, and of killing them, start those that users do.

This file is both ends. The one that is started hands its arguments, folder, environment and streams over,
passes signals on, and ends as the other does. It imports nothing but the standard library.
"""

import json
import os
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

COMMANDS = ("engine.train", "engine.evaluate", "engine.predict", "engine.suggest")
LENGTH = struct.Struct("!i")
ROOT = Path(__file__).parents[2]


@contextmanager
def ready_python() -> Iterator[str]:
    """Path of the executable, until the end of the context."""
    if not hasattr(os, "pidfd_open"):  # which Linux alone has
        yield sys.executable
        return
    with tempfile.TemporaryDirectory(prefix="ready-") as folder:
        address, path = f"{folder}/socket", Path(folder) / "python"
        words = [sys.executable, "-SE", __file__, sys.executable, address]
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)
        alive = subprocess.Popen(
            [sys.executable, __file__, "serve", address], stdin=subprocess.PIPE, cwd=ROOT,
            start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert alive.wait() == 0  # it listens, and goes on as nobody's child
        yield str(path)
        assert alive.stdin is not None
        alive.stdin.close()


# The process that has torch


def serve(address: str) -> None:
    """Listen, load torch, and fork a process for each command until whoever started it has gone."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    if os.fork():
        os._exit(0)
    for name in COMMANDS:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for a command is not waited for
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        asked, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            os._exit(follow(asked))
        asked.close()


def follow(asked: socket.socket) -> int:
    """Run a command in a process of its own, tell its number and its end; end it with whoever asked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(asked, LENGTH.size, 3)
    words, folder, environment = json.loads(received(asked, LENGTH.unpack(message)[0]))
    pid = os.fork()
    if pid == 0:
        asked.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os._exit(obey(words, folder, environment))
    for stream in streams:
        os.close(stream)
    asked.sendall(LENGTH.pack(pid))
    ended = os.pidfd_open(pid)
    if ended not in select.select([asked, ended], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    with suppress(BrokenPipeError):
        asked.sendall(LENGTH.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    return 0


def obey(words: Sequence[str], folder: str, environment: dict[str, str]) -> int:
    """Do what `python -m WORDS` does. Returns the exit code."""
    from engine.command import run

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = words
    sys.stdout.reconfigure(line_buffering=True)
    code: object = 0
    try:
        run(import_module(words[0]).main)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


# The process that is started


def ask(python: str, address: str, words: Sequence[str]) -> None:
    """Have a command run, and end as it ends; anything else is left to the usual Python."""
    command = [word for word in words[:2] if word != "-P"]
    if command[:1] != ["-m"] or words[words.index("-m") + 1] not in COMMANDS:
        os.execv(python, [python, *words])
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        order = json.dumps([words[words.index("-m") + 1 :], os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(server, [LENGTH.pack(len(order))], [0, 1, 2])
        server.sendall(order)
        (pid,) = LENGTH.unpack(received(server, LENGTH.size))

        def pass_on(number: int, _: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        (code,) = LENGTH.unpack(received(server, LENGTH.size))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def received(end: socket.socket, count: int) -> bytes:
    """So many bytes."""
    parts = b""
    while len(parts) < count:
        part = end.recv(count - len(parts))
        if not part:
            raise EOFError("the process that has torch is gone")
        parts += part
    return parts


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[1], sys.argv[2], sys.argv[3:])
