"""The comparing command: what is run, resumed, kept and refused, here and on a cluster, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
from distributed import LocalCluster
from runs import MadeRun
from support import FAST

from engine import cluster, compare, evaluate, flags, train
from engine.comparison import shipped
from engine.comparison.execute import Job, Outcome, attend, execute
from engine.comparison.grid import Cell, Comparison, load
from engine.comparison.progress import Following, GridBar
from engine.comparison.state import Scoring, difference, refuse_another, scores, state
from engine.config import to_toml
from engine.errors import InputError
from engine.record import Progress, RunReader


def content(root: Path, **more: Any) -> dict[str, Any]:
    """Two losses on the vessels for two epochs."""
    settings = flags.parse([flag for flag in FAST if flag != "--quiet"])
    settings["training"]["epochs"] = 2
    settings |= {"modulation": {"name": "none"}, "watch": {"train": 0, "val": 1}}
    return {
        "title": "Two losses",
        "seeds": [0, 1],
        "metrics": ["dice", "nll"],
        "figures": ["curves"],
        "settings": settings,
        "data": {"vessels": {"data": {"root": str(root)}}},
        "methods": {"Dice": {"loss": {"name": "dice"}}, "CE": {"loss": {"name": "binary_cross_entropy"}}},
        **more,
    }


def written(folder: Path, root: Path, **more: Any) -> Path:
    """The comparison's file."""
    file = folder / "two.toml"
    file.write_text(tomli_w.dumps(content(root, **more)), "utf-8")
    return file


def trained(cell: Cell) -> None:
    """Train a cell in this process, which is quicker than another."""
    config = cell.folder.parent / "given.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(to_toml(cell.config), "utf-8")
    assert train.main(["--config", str(config), "--out", str(cell.folder), "--quiet"]) == 0
    config.unlink()


@pytest.fixture(scope="module")
def begun(vessels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of seed 0: of Dice with its scores, of CE without."""
    folder = tmp_path_factory.mktemp("begun")
    dice, ce = load(written(folder, vessels, seeds=[0]), folder / "out").cells
    trained(dice)
    trained(ce)
    assert evaluate.main([str(dice.folder), "--no-figures", "--device=cpu"]) == 0
    return folder / "out"


@pytest.mark.usefixtures("quick")
def test_what_is_missing_is_run_what_broke_is_resumed_what_is_there_is_kept(
    begun: Path, vessels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    shutil.copytree(begun, out)
    command = [str(written(tmp_path, vessels)), "--out", str(out)]
    whole, other, broken, absent = load(Path(command[0]), out).cells
    assert evaluate.main([str(other.folder), "--no-figures", "--device=cpu"]) == 0
    with monkeypatch.context() as early:
        # As a stop file would at once.
        early.setattr(train, "Progress", lambda: Progress(stop=True, reason="early"))
        trained(broken)
    before = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert compare.main([*command, "--dry-run"]) == 0
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()[1:5]] == [
        "nothing", "nothing", "resume", "train"
    ]  # fmt: skip
    assert state(absent.folder) == "absent", "a dry run does nothing"

    threads = set(threading.enumerate())
    assert compare.main([*command, "--workers=2"]) == 0
    said = capsys.readouterr().out
    for cell in (whole, other, broken, absent):
        assert scores(cell.folder, Scoring("native", None, ("dice", "nll"))) is not None
        assert f"{cell.name}: Dice" in said or cell in (whole, other)
        assert RunReader(cell.folder).info()["splits"] == RunReader(whole.folder).info()["splits"]
    assert "4 of 4 done" in said
    assert "DSC ↑" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is there is not touched"
    assert [event["event"] for event in RunReader(broken.folder).events()].count("started") == 2
    assert {path.name for path in (out / "tables").iterdir()} >= {"table.txt", "table.md", "table.csv"}
    assert list((out / "figures").rglob("curves.png"))
    left = [thread.name for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    assert not [name for name in left if not name.startswith(("Dask-Offload", "zarr_io", "asyncio_", "tqdm"))]
    assert sorted(path.name for path in out.iterdir()) == ["comparison.toml", "figures", "runs", "tables"]

    # The folder says all of it, and going on finds nothing to do.
    again = load(out / "comparison.toml", out)
    assert again.cells == load(Path(command[0]), out).cells
    assert compare.carry_out(again) == {}
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("quick")
def test_a_cell_that_fails_on_a_cluster_stops_no_other(
    begun: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(begun, out)
    methods = {
        "Dice": {"loss": {"name": "dice"}},
        "wild": {"loss": {"name": "dice"}, "optimizer": {"name": "sgd", "lr": 1e30}},
        "CE": {"loss": {"name": "binary_cross_entropy"}},
    }
    command = [str(written(tmp_path, vessels, seeds=[0], methods=methods, figures=[])), "--out", str(out)]
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
        dashboard_address="127.0.0.1:0", memory_limit=0,
    ) as workers:  # fmt: skip
        assert compare.main([*command, "--scheduler", workers.scheduler_address]) == 1
    said = capsys.readouterr()
    assert "CE · seed 0: Dice" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: vessels · unet · wild · seed 0: ")
    assert "epoch 1, step" in line
    assert "Traceback" not in said.err
    table = (out / "tables" / "table.txt").read_text()
    assert all(method in table for method in methods)
    assert compare.main([*command, "--tables", "--only", "Dice"]) == 0


def test_a_run_without_test_images_is_said(
    vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, vessels, seeds=[0], figures=[])
    command = [str(file), "--out", str(tmp_path / "out"), "--only", "CE", "--data.split=[0.8,0.2,0,0]"]
    (cell,) = load(
        file, tmp_path / "out", only=["CE"], flags=flags.parse(["--data.split=[0.8,0.2,0,0]"])
    ).cells
    trained(cell)
    assert compare.main(command) == 1
    assert "it has no test images to score: give data.split" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_a_run_that_cannot_be_scored_is_not_trained_to_its_end(vessels: Path, tmp_path: Path) -> None:
    given = flags.parse(["--data.split=[0.8,0.2,0,0]", "--training.epochs=400"])
    made = load(written(tmp_path, vessels, seeds=[0]), tmp_path / "out", flags=given)
    made.out.mkdir()
    wanted = job(made.cells[0], made, made.out / "order")
    outcome = execute(wanted)
    assert (outcome.kind, outcome.reason[:28]) == ("failed", "it has no test images to sco")
    before = RunReader(made.cells[0].folder).events()
    assert "finished" not in [event["event"] for event in before]
    assert execute(wanted) == outcome
    assert RunReader(made.cells[0].folder).events() == before, "nor is it begun again"


def test_another_run_in_the_place_is_refused_by_its_first_other_setting(
    begun: Path, vessels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(begun, out)
    file = written(tmp_path, vessels)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for setting, message in {
        "--training.epochs=3": "trained with training.epochs = 2, and vessels · unet · Dice · seed 0 has 3",
        "--optimizer.name=sgd": "optimizer.name = 'adam', and .* has 'sgd'",
        "--data.split_seed=4": "data.split_seed = 0, and .* has 4",
    }.items():
        with pytest.raises(InputError, match=message):
            compare.main([str(file), "--out", str(out), setting])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for cell in load(file, out, flags=flags.parse(["--training.device=cuda", "--training.threads=7"])).cells:
        refuse_another(cell)  # where it runs makes no other run of it


def test_the_difference_of_configs_is_named(vessels: Path, tmp_path: Path) -> None:
    dice, ce, *_ = load(written(tmp_path, vessels), tmp_path).cells
    assert difference(dice.config, dice.config) is None
    assert difference(dice.config, ce.config) == ("loss.name", "dice", "binary_cross_entropy")


def test_scores_hold_for_what_was_asked_only(begun: Path, vessels: Path, tmp_path: Path) -> None:
    (dice, ce) = load(written(tmp_path, vessels, seeds=[0]), tmp_path / "out").cells
    shutil.copytree(begun, tmp_path / "out")
    usual = Scoring("native", None, ("dice", "inference_ms"))
    assert scores(dice.folder, usual) is not None
    assert scores(dice.folder, Scoring("native", "best", ("dice",))) is not None
    assert scores(ce.folder, usual) is None
    assert scores(dice.folder, Scoring("trained", None, ("dice",))) is None
    assert scores(dice.folder, Scoring("native", "last", ("dice",))) is None
    assert scores(dice.folder, Scoring("native", None, ("dice", "beauty"))) is None
    report = dice.folder / "report" / "test.json"
    text = report.read_text()
    report.write_text(json.dumps({**json.loads(text), "decision": "p ≥ 0.3"}))
    assert scores(dice.folder, usual) is None
    report.write_text(text[:100])
    assert scores(dice.folder, usual) is None
    report.write_text(text)
    (dice.folder / "checkpoints" / "best").touch()
    assert scores(dice.folder, usual) is not None or report.stat().st_mtime < time.time()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere", "http://x:1"])
def test_a_scheduler_that_does_not_answer(
    address: str, begun: Path, vessels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    shutil.copytree(begun, tmp_path / "out")
    command = [str(written(tmp_path, vessels)), "--out", str(tmp_path / "out"), "--scheduler", address]
    with pytest.raises(InputError, match=f"no scheduler answers at {address}") as refusal:
        compare.main(command)
    assert "\n" not in str(refusal.value)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C interrupts, also where whoever started the tests has it ignored, as `nohup … &` does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_an_interrupt_saves_what_is_trained(
    vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = flags.parse(["--training.epochs=400"])
    file = written(tmp_path, vessels)
    made = load(file, tmp_path / "out", flags=long)
    run = made.cells[0].folder
    children: set[psutil.Process] = set()
    before = set(psutil.Process().children())

    def interrupt() -> None:
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up and not (run.is_dir() and RunReader(run).epochs()):
            time.sleep(0.02)
        children.update(set(psutil.Process().children(recursive=True)) - before)
        os.kill(os.getpid(), signal.SIGINT)

    hand = threading.Thread(target=interrupt)
    hand.start()
    with pytest.raises(KeyboardInterrupt):
        compare.main([str(file), "--out", str(tmp_path / "out"), "--training.epochs=400"])
    hand.join()
    assert f"python -m engine.compare {made.out}\n" in capsys.readouterr().err
    reader = RunReader(run)
    assert reader.status() == "stopped"
    assert reader.events()[-1]["epoch"] == reader.epochs()[-1]["epoch"]
    assert children
    assert not [child for child in children if child.is_running()]
    assert not list(made.out.glob(".order*"))
    assert {state(cell.folder) for cell in made.cells[1:]} == {"absent"}, "what waited did not begin"
    assert compare.main([str(made.out), "--dry-run"]) == 0, "the folder has the settings it began with"
    assert "Dice · seed 0: resume" in capsys.readouterr().out


def job(cell: Cell, comparison: Comparison, order: Path) -> Job:
    return Job(cell.folder, to_toml(cell.config), "cpu", Scoring.of(comparison), order)


def test_a_job_that_begins_after_the_order_to_end_does_nothing(vessels: Path, tmp_path: Path) -> None:
    made = load(written(tmp_path, vessels), tmp_path / "out")
    order = tmp_path / "order"
    order.write_text("stop")
    assert execute(job(made.cells[0], made, order)) == Outcome("stopped")
    assert not (tmp_path / "out").exists()


def test_a_worker_that_does_not_see_the_folder_says_so(vessels: Path, tmp_path: Path) -> None:
    made = load(written(tmp_path, vessels), tmp_path / "out")
    outcome = execute(job(made.cells[0], made, tmp_path / "elsewhere" / "order"))
    assert outcome.kind == "failed"
    assert "does not see" in outcome.reason


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
"""A process that does not end when it is asked to."""


def test_an_order_to_kill_is_passed_on(vessels: Path, tmp_path: Path) -> None:
    made = load(written(tmp_path, vessels), tmp_path / "out")
    order = tmp_path / "order"
    process = subprocess.Popen([sys.executable, "-S", "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == b"ready\n"
        codes: list[int] = []
        thread = threading.Thread(
            target=lambda: codes.append(attend(process, job(made.cells[0], made, order)))
        )
        thread.start()
        order.write_text("stop")
        thread.join(timeout=1)
        assert not codes
        order.write_text("kill")
        thread.join(timeout=30)
    assert codes == [-signal.SIGKILL]


def test_a_run_that_another_process_trains_is_waited_for(begun: Path, vessels: Path, tmp_path: Path) -> None:
    made = load(written(tmp_path, vessels, seeds=[0]), tmp_path / "out")
    cell = made.cells[0]
    held = MadeRun(cell.folder, epochs=2).train(1)
    assert state(cell.folder) == "running"
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(execute(job(cell, made, tmp_path / "order"))))
    thread.start()
    time.sleep(0.5)
    assert not outcomes
    held.epoch(2)
    held.end()
    thread.join(timeout=30)
    assert outcomes[0].reason.startswith("it has no test images"), "it went on to score the run"


def test_progress_is_read_from_the_run_directory(vessels: Path, tmp_path: Path) -> None:
    made = load(written(tmp_path, vessels), tmp_path / "out", flags=flags.parse(["--training.epochs=5"]))
    name = made.cells[0].name
    following = Following(made.cells[0])
    assert (following.look(), following.total, following.doing) == (0, 5, "")
    held = MadeRun(made.cells[0].folder, epochs=5).train(2)
    assert (following.look(), following.doing) == (2, f"{name} 2/5")
    held.progress.epoch, held.progress.step, held.progress.steps = 3, 1, 4
    held.writer.beat()
    assert (following.look(), following.doing) == (2.25, f"{name} 2/5")
    held.end("stopped", reason="x")
    assert (following.look(), following.doing) == (2.25, "")
    MadeRun(made.cells[0].folder, epochs=5, resumed_after=2).train(5).end()
    assert (following.look(), following.doing) == (5, f"{name} scoring")
    following.ended = True
    assert following.doing == ""


def test_the_bar_names_what_is_running(
    vessels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = load(written(tmp_path, vessels), tmp_path / "out")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    runs = [MadeRun(cell.folder, epochs=2).train(1) for cell in made.cells[:3]]
    with GridBar(made.cells, [made.cells[3].folder], Scoring.of(made), quiet=False) as bar:
        bar.update()
        bar.end(made.cells[2], Outcome("failed", "why"))
    for run in runs:
        run.end("stopped", reason="x")
    said = capsys.readouterr()
    assert "62%" in said.err
    assert "vessels · unet · Dice · seed 0 1/2, vessels · unet · CE · seed 0 1/2, and 1 more" in said.err
    assert "Dice · seed 1: failed (1 of 4 done): why" in said.out + said.err


@pytest.mark.parametrize(
    ("devices", "workers", "expected"),
    [
        ([], None, [{}]),
        ([], 3, [{"OMP_NUM_THREADS": "4"}] * 3),
        (["0"], None, [{"CUDA_VISIBLE_DEVICES": "0"}]),
        (
            ["2", "5"],
            None,
            [{"OMP_NUM_THREADS": "6", "CUDA_VISIBLE_DEVICES": device} for device in ("2", "5")],
        ),
        (
            ["0", "1"],
            3,
            [{"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": device} for device in ("0", "1", "0")],
        ),
    ],
)
def test_workers_of_this_machine_share_it(
    devices: list[str], workers: int | None, expected: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_cuda_devices", lambda: devices)
    monkeypatch.setenv("OMP_NUM_THREADS", "12")
    assert list(cluster.shares(workers)) == expected


def test_a_file_is_found_by_path_name_or_folder(begun: Path, vessels: Path, tmp_path: Path) -> None:
    file = written(tmp_path, vessels)
    assert shipped.find(str(file)) == (file, Path("comparisons") / "two")
    assert shipped.find("smm-table2")[1] == Path("comparisons") / "smm-table2"
    assert shipped.find("smm-table2")[0].is_file()
    with pytest.raises(InputError, match=r"unknown comparison 'smm-tabel2' .did you mean 'smm-table2'"):
        shipped.find("smm-tabel2")
    with pytest.raises(InputError, match=r"there is no comparison file .*none.toml"):
        shipped.find(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match=r"holds no comparison"):
        shipped.find(str(tmp_path))


REFUSED = {
    "": "nothing to compare",
    "FILE --workers=0": "--workers 0 cannot be used",
    "FILE --workers=2 --scheduler=tcp://a:1": "a --scheduler has its own",
    "FILE --only tree": "unknown name 'tree' in --only",
    "FILE --seeds 9": "unknown seed '9'",
    "FILE --loss.gama=1": r"\[overrides\] or a flag: unknown setting 'loss.gama'",
    "FILE --training.seed=3": "training.seed is set by the comparison's seeds",
    "FILE --data.root=x": "--root NAME=FOLDER",
    "FILE extra": "'extra' is not a setting",
    "FILE --root nowhere": "there is no folder .*nowhere",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_used_is_refused(arguments: str, vessels: Path, tmp_path: Path) -> None:
    file = written(tmp_path, vessels)
    words = [str(file) if word == "FILE" else word for word in arguments.split()]
    with pytest.raises(InputError, match=REFUSED[arguments]) as refusal:
        compare.main([*words, "--out", str(tmp_path / "out")] if words else [])
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_help_and_list_read_like_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--root", "--scheduler", "smm-table2", "[methods.Dice]", "Ctrl-C"):
        assert word in text
    assert compare.main(["--list"]) == 0
    assert "smm-table2" in capsys.readouterr().out


def test_the_example_of_the_help_is_a_comparison(vessels: Path, tmp_path: Path) -> None:
    manual = compare.__doc__ or ""
    start = manual.index('  title = "Dice against')
    lines = manual[start : manual.index("Ctrl-C ends")].splitlines()
    file = tmp_path / "it.toml"
    file.write_text("\n".join(line.removeprefix("  ") for line in lines), "utf-8")
    made = load(file, tmp_path / "out", roots=[str(vessels)])
    assert (len(made.cells), made.test, made.ours) == (6, "welch", ("Dice",))
