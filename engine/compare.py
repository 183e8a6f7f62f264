"""Compare methods as papers do: data sets × networks × methods × seeds, from one file to its tables.

usage: python -m engine.compare FILE [--root [NAME=]FOLDER …] [--out DIR] [--SETTING=VALUE …]
       python -m engine.compare --list

FILE says what is compared. It is a TOML file of your own, the name of a published comparison that comes
along (--list), or the --out folder of an earlier comparison, to go on with it. Each cell of the grid is
a run like any other. What is missing is trained, what was stopped or crashed is resumed, what is there
already is kept; then all test images are scored, and tables and figures are made of what there is.

  --root [NAME=]FOLDER …  folder of a data set whose data.root is empty in FILE; NAME where there are
                          several. A data set without a folder is left out. `demo` is a generated set.
  --out DIR               runs, tables and figures; comparisons/NAME-OF-FILE if not given
  --only NAME …           only these data sets, networks or methods; of a kind not named, all
  --seeds N …             only these of the file's seeds
  --SETTING=VALUE         settings of all runs, over those of FILE, as in python -m engine.train --help
  --workers N             runs at once; one for each CUDA device, or one, if not given
  --scheduler ADDRESS     use the workers of a dask.distributed cluster, such as tcp://node7:8786; DIR and
                          the data must be on a disk that all its machines see
  --dry-run               list the runs and what would be done, and stop
  --tables                train nothing: tables and figures of what there is
  --list                  list the comparisons that come along, and stop
  --quiet                 no progress

Examples:
  python -m engine.compare smm-table2 --root DRIVE=~/drive --dry-run
  python -m engine.compare dsc-table4 --root DRIVE=~/drive --only DRIVE
  python -m engine.compare mine.toml --training.epochs=2 --out try
  python -m engine.compare comparisons/mine --workers 4

A file of your own, in its shortest form:

  title = "Dice against cross-entropy"
  seeds = [0, 1, 2]
  metrics = ["dice", "recall"]
  test = "welch"
  ours = ["Dice"]
  [settings]
  modulation.name = "none"
  [data.retina]
  data.root = "~/chasedb1"
  data.size = 256
  [methods.Dice]
  loss.name = "dice"
  [methods.CE]
  loss.name = "binary_cross_entropy"

Ctrl-C ends all runs cleanly; the same command goes on with them.
"""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from distributed import Client, Future, wait

from engine import cluster, flags
from engine.command import Parser, run
from engine.comparison import shipped
from engine.comparison.execute import Job, Outcome, execute
from engine.comparison.grid import Cell, Comparison, load
from engine.comparison.progress import GridBar
from engine.comparison.state import Scoring, refuse_another, scores, state
from engine.config import to_toml
from engine.disk import replace_text
from engine.errors import InputError

POLL_SECONDS = 0.5
WORDS = {
    "absent": "train",
    "unfinished": "resume",
    "running": "wait for the process that trains it",
    "finished": "score",
}


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.compare``."""
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        return 0
    parser = Parser("compare", "", usage="see --help")
    parser.add_argument("file", nargs="?")
    parser.add_argument("--root", nargs="+", action="extend", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", action="extend", default=[])
    parser.add_argument("--seeds", nargs="+", action="extend", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--scheduler")
    for switch in ("--dry-run", "--tables", "--list", "--quiet"):
        parser.add_argument(switch, action="store_true")
    options, rest = parser.parse_known_args(arguments)
    if options.list:
        print("\n".join(f"{name:<22}{title}" for name, title in shipped.titles().items()))
        return 0
    if options.file is None:
        raise InputError("there is nothing to compare: give a file, or a name that --list shows.")
    if options.workers is not None and (options.workers < 1 or options.scheduler):
        raise InputError(
            f"--workers {options.workers} cannot be used: it is 1 or more, and a --scheduler has its own."
        )
    path, usual = shipped.find(options.file)
    comparison = load(
        path, options.out or usual, roots=options.root, only=options.only, seeds=options.seeds,
        flags=flags.parse(rest),
    )  # fmt: skip
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    for cell in comparison.cells:
        refuse_another(cell)
    if options.dry_run:
        print(plan(comparison))
        return 0
    failed: Mapping[str, str] = {}
    if not options.tables:
        failed = carry_out(comparison, options.workers, options.scheduler, quiet=options.quiet)
    try:
        show(comparison)
    finally:
        for name, reason in failed.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def plan(comparison: Comparison) -> str:
    """What would be done, a line a cell."""
    scoring = Scoring.of(comparison)
    lines = [
        f"{cell.name}: {'nothing' if scores(cell.folder, scoring) else WORDS[state(cell.folder)]}"
        for cell in comparison.cells
    ]
    return "\n".join([comparison.title, *lines, f"runs in {comparison.out / 'runs'}"])


def show(comparison: Comparison) -> None:
    """Write and print the tables, and draw the figures, of what there is."""
    # Here, for drawing takes seconds to load, which neither --list nor a refusal should.
    from engine.comparison import figures, results, tabulate

    found = results.collect(comparison)
    print(tabulate.write(comparison, found, comparison.out / "tables"))
    figures.draw(comparison, found, comparison.out / "figures")
    print(f"tables and figures are in {comparison.out}")


def carry_out(
    comparison: Comparison, workers: int | None = None, scheduler: str | None = None, *, quiet: bool = False
) -> dict[str, str]:
    """Bring every cell to its scores.

    Args:
        comparison: the grid.
        workers: runs at once on this machine; None for one a CUDA device, or one.
        scheduler: address of a cluster's scheduler, instead of this machine.
        quiet: no progress.

    Returns:
        The names of the cells that failed, and why, a sentence each.

    Raises:
        InputError: no scheduler answers.
        KeyboardInterrupt: by the user; what was trained is then saved.
    """
    scoring = Scoring.of(comparison)
    done = {cell.folder for cell in comparison.cells if scores(cell.folder, scoring) is not None}
    missing = [cell for cell in comparison.cells if cell.folder not in done]
    comparison.out.mkdir(parents=True, exist_ok=True)
    replace_text(comparison.out / shipped.KEPT, comparison.document)
    if not missing:
        return {}
    shares = () if scheduler else cluster.shares(workers)
    if "inference_ms" in comparison.metrics and len(shares) > 1:
        print(
            "note: inference times are measured while other runs are going on; --workers 1 would not disturb "
            "them.",
            file=sys.stderr,
        )
    order = comparison.out / f".order-{socket.gethostname()}-{os.getpid()}"
    jobs = {
        cell.folder: Job(
            cell.folder, to_toml(cell.config), cell.config.training.device, scoring, order, shares
        )
        for cell in missing
    }
    clients: AbstractContextManager[Client] = (
        cluster.remote(scheduler) if scheduler else cluster.local(min(len(shares), len(missing)))
    )
    try:
        with clients as client, GridBar(comparison.cells, done, scoring, quiet=quiet) as bar:
            futures = {client.submit(execute, jobs[cell.folder], pure=False): cell for cell in missing}
            try:
                return follow(futures, bar)
            except BaseException:
                end(futures, order)
                raise
    except KeyboardInterrupt:
        print(
            f"go on with the same command, or the whole grid: python -m engine.compare {comparison.out}",
            file=sys.stderr,
        )
        raise
    finally:
        order.unlink(missing_ok=True)


def follow(futures: Mapping[Future[Outcome], Cell], bar: GridBar) -> dict[str, str]:
    """Wait for all jobs, and show how far they are. Returns the cells that failed, and why."""
    failed = {}
    left = set(futures)
    while left:
        with suppress(TimeoutError):
            wait(left, POLL_SECONDS, return_when="FIRST_COMPLETED")
        for future in [future for future in left if future.done()]:
            left.remove(future)
            cell, outcome = futures[future], result(future)
            bar.end(cell, outcome)
            if outcome.kind != "done":
                failed[cell.name] = outcome.reason
        bar.update()
    # In the grid's order, not in that of their failing.
    return {cell.name: failed[cell.name] for cell in futures.values() if cell.name in failed}


def result(future: Future[Outcome]) -> Outcome:
    """A job's outcome, also where the job itself broke or its worker was lost."""
    error = future.exception()
    if error is not None:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    found: Outcome = future.result()
    return found


def end(futures: Mapping[Future[Outcome], Cell], order: Path) -> None:
    """Order all jobs to end, which saves what they have trained, and wait for that; at a second Ctrl-C
    they are killed, and lose the epoch that they are in."""
    print("ending the runs; once more to end them at once", file=sys.stderr)
    replace_text(order, "stop", durable=False)
    try:
        wait(list(futures))
    except KeyboardInterrupt:
        replace_text(order, "kill", durable=False)
        wait(list(futures))


if __name__ == "__main__":
    run(main)
