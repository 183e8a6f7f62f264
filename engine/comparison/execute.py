"""One cell, from nothing to its scores, in processes of its own. Runs on whatever machine a worker is on.

Each step is a command that a user could have typed, so that a run of a comparison is a run like any
other, memory and devices are clean for the next one, and what crashes takes nothing else with it.
Imports no torch.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.comparison.state import Scoring, scores, state
from engine.disk import replace_text
from engine.record import RunReader

POLL_SECONDS = 0.2
LOG_BYTES = 65536
"""Of a long log so much is read, from its end."""
UNTESTED = (
    "it has no test images to score: give data.split a last share above 0 (the data set needs 10 images, or "
    "a test split of its own)."
)


@dataclass(frozen=True)
class Job:
    """What a worker must know of a cell.

    Attributes:
        folder: the run directory, absolute, on a disk that all workers see.
        config: its settings as TOML.
        device: training.device.
        scoring: how its test images are scored.
        order: file through which all jobs are told to end, "stop" (what is trained is saved) or "kill".
        environment: variables for the processes of each worker of this machine, by the worker's number;
            empty for workers elsewhere, which have their own.
    """

    folder: Path
    config: str
    device: str
    scoring: Scoring
    order: Path
    environment: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "done" with scores, "stopped" by order, or "failed" for a reason, one sentence."""

    kind: Literal["done", "stopped", "failed"]
    reason: str = ""


def execute(job: Job) -> Outcome:
    """Train or resume what is missing of a run, then score it.

    A run that another process trains is waited for.
    """
    # The folder of the order is the comparison's, which is there before any job.
    if not job.order.parent.is_dir():
        return Outcome(
            "failed",
            f"the worker on {socket.gethostname()} does not see {job.order.parent}: the machines of a "
            "cluster need a disk in common.",
        )
    while (now := state(job.folder)) != "finished":
        if _order(job):
            return Outcome("stopped")
        if now == "running":
            time.sleep(POLL_SECONDS)
            continue
        trained = _train(job, now)
        if trained.kind != "done":
            return trained
    return _score(job)


def _train(job: Job, now: str) -> Outcome:
    if _untested(job):
        return Outcome("failed", UNTESTED)
    if now == "unfinished":
        command = ["engine.train", "--resume", str(job.folder), "--quiet"]
    else:
        job.folder.mkdir(parents=True, exist_ok=True)
        # Of an order to a run that was refused.
        (job.folder / "stop").unlink(missing_ok=True)
        replace_text(job.folder / "config.toml", job.config)
        path = str(job.folder)
        command = ["engine.train", "--config", f"{path}/config.toml", "--out", path, "--quiet"]
    code, log = _command(command, job)
    now = state(job.folder)
    if now == "finished":
        return Outcome("done")
    if _untested(job):
        return Outcome("failed", UNTESTED)
    if _order(job):
        return Outcome("stopped")
    if now == "running":
        # Another process was quicker to take the directory.
        return Outcome("done")
    if code == 0:
        last = RunReader(job.folder).events()[-1]
        return Outcome(
            "failed",
            f"it was stopped after epoch {last['epoch']} ({last['reason']}); compare again to go on.",
        )
    return Outcome("failed", _reason(code, log, job))


def _score(job: Job) -> Outcome:
    if scores(job.folder, job.scoring) is not None:
        return Outcome("done")
    if _order(job):
        return Outcome("stopped")
    if _untested(job):
        return Outcome("failed", UNTESTED)
    command = ["engine.evaluate", str(job.folder), "--size", job.scoring.size, "--device", job.device]
    checkpoint = ["--checkpoint", job.scoring.checkpoint] if job.scoring.checkpoint else []
    code, log = _command([*command, *checkpoint, "--no-figures"], job)
    if code != 0:
        return Outcome("stopped") if _order(job) else Outcome("failed", _reason(code, log, job))
    if scores(job.folder, job.scoring) is None:
        raise RuntimeError(f"the report of {job.folder} is not what engine.evaluate was asked for")
    return Outcome("done")


def _command(command: Sequence[str], job: Job) -> tuple[int, str]:
    """Run a command of the engine. Returns its exit code and what it printed, which log.txt keeps."""
    with (job.folder / "log.txt").open("ab") as log:
        start = log.tell()
        # A session of its own: Ctrl-C on the terminal is for the comparison, which passes an order on.
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env=_environment(job), start_new_session=True,
        )  # fmt: skip
        try:
            code = attend(process, job)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    with (job.folder / "log.txt").open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(start, end - LOG_BYTES))
        return code, log.read().decode("utf-8", "replace")


def attend(process: "subprocess.Popen[bytes]", job: Job) -> int:
    """Wait for a process, and pass on an order to end; one without test images is told to end, too."""
    told = ""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_SECONDS)
        order = _order(job) or ("stop" if _untested(job) else "")
        if order == told:
            continue
        told = order
        if order == "kill":
            process.kill()
        elif os.name == "nt":
            # There is no signal that a process could answer; a trainer looks for this file.
            (job.folder / "stop").touch()
        else:
            process.terminate()


def _untested(job: Job) -> bool:
    """Whether the run has begun, and turned out to have no test images."""
    return (job.folder / "run.json").is_file() and not RunReader(job.folder).info()["splits"]["test"]


def _order(job: Job) -> str:
    try:
        return job.order.read_text("utf-8")
    except FileNotFoundError:
        return ""


def _environment(job: Job) -> dict[str, str]:
    if not job.environment:
        return dict(os.environ)
    from distributed import get_worker

    # A cluster of this machine numbers its workers.
    own = job.environment[int(get_worker().name)]
    return {**os.environ, **own}


def _reason(code: int, log: str, job: Job) -> str:
    """Why a process ended early: its last words, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}."
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    refusals = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = (refusals or lines or [""])[-1]
    if not said:
        return f"its process ended with exit code {code}."
    return said if refusals else f"{said} (the whole of it is in {job.folder / 'log.txt'})"
