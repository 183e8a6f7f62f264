"""A streamed prediction goes on where it was ended, here or on a cluster, to the very same bits."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from distributed import LocalCluster
from forked import forked, predicts_until_file, streams_without_room, works

from engine import checkpoint, lock, predict, tiles
from engine.config import RunConfig
from engine.data.rows import open_rows, rows_of
from engine.errors import InputError
from engine.infer import Predictor
from engine.models.unet import UNet
from engine.streamed import pyramid
from engine.streamed.farm import split
from engine.streamed.progress import CancelledError, Progress
from engine.streamed.ranges import tiles_of
from engine.streamed.state import spans_of
from engine.streaming import stream, write
from engine.trained import Trained

CPU = torch.device("cpu")
forks = pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")


def network(dims: int, classes: int = 1, **data: Any) -> Trained:
    """A run's network with weights by chance."""
    torch.manual_seed(0)
    model = UNet(1, classes + (classes > 1), base_width=4, depth=2, spatial_dims=dims)
    predictor = Predictor(model, "softmax" if classes > 1 else "sigmoid", CPU, None, 32, 0.25)
    names = tuple(f"class{number}" for number in range(classes))
    config = RunConfig.model_validate({"data": data})
    info = {"dataset": {"channels": 1, "dims": dims}}
    return Trained(Path("run"), config, info, names, predictor, 1, "last")


def noise(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of tests have several rows of chunks, and smaller copies."""
    monkeypatch.setattr(tiles, "UNITS", {2: 24, 3: 16})
    monkeypatch.setattr(pyramid, "LONGEST", {2: 50, 3: 40})
    monkeypatch.setattr(pyramid, "LEAST", 8)


class Ending(Progress):
    """Is cancelled after so many tiles, or looks."""

    def __init__(self, out: Path, after: int) -> None:
        super().__init__(out)
        self.after = after
        self.ticks = 0

    def tick(self, tiles: int = 1) -> None:
        self.ticks += tiles
        super().tick(tiles)

    def look(self) -> None:
        self.after -= 1
        if self.after < 0:
            raise CancelledError


def contents(out: Path) -> dict[str, Any]:
    """All arrays of a folder."""
    names = [item.name for item in out.iterdir() if item.name.startswith("probability")]
    return {name: zarr.open_array(out / name, mode="r")[:] for name in names}


def require_equal(out: Path, expected: Path) -> None:
    found, wanted = contents(out), contents(expected)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize(("shape", "looks"), [((170, 90), (0, 11, 12, 18, 19)), ((70, 45, 20), (0, 5, 6, 7))])
def test_however_often_it_is_ended_the_result_is_the_same(
    shape: tuple[int, ...], looks: tuple[int, ...], tmp_path: Path
) -> None:
    trained, rows = network(len(shape), 2), rows_of(noise((*shape, 1)))
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    write(trained, rows, tmp_path / "whole", Progress(tmp_path / "whole"))
    np.testing.assert_array_equal(
        contents(tmp_path / "whole")["probability"], trained.probability(noise((*shape, 1)))
    )
    total, ticks, ends = tiles_of(trained, rows), [], 0
    for after in (*looks, 10**9):
        progress = Ending(tmp_path / "parts", after)
        try:
            write(trained, rows, tmp_path / "parts", progress)
        except CancelledError:
            ends += 1
        ticks.append(progress.ticks)
    assert ends >= 3
    assert ticks[-1] < total  # the last did not begin anew
    require_equal(tmp_path / "parts", tmp_path / "whole")
    metas = [json.loads((tmp_path / name / "meta.json").read_text()) for name in ("parts", "whole")]
    assert metas[0] == metas[1]
    assert not (tmp_path / "parts" / "state.json").exists()
    assert metas[0]["levels"] == ["probability", "probability_1", *metas[0]["levels"][2:]]


@pytest.mark.usefixtures("small_units")
def test_a_run_that_resizes_goes_on_too(tmp_path: Path) -> None:
    trained, rows = network(2, size=[40, 64]), rows_of(noise((130, 90, 1)))
    (tmp_path / "parts").mkdir()
    for after in (9, 10**9):
        try:
            write(trained, rows, tmp_path / "parts", Ending(tmp_path / "parts", after))
        except CancelledError:
            assert json.loads((tmp_path / "parts" / "state.json").read_text())["rows"] == [[0, 3]]
    found = contents(tmp_path / "parts")["probability"]
    np.testing.assert_array_equal(found, trained.probability(noise((130, 90, 1))))


@pytest.mark.usefixtures("small_units")
def test_a_volume_is_resampled_to_the_spacing_of_the_run_and_back(tmp_path: Path) -> None:
    trained = network(3, spacing=[2.0, 1.0, 1.0])
    rows = rows_of(noise((20, 40, 30, 1)), spacing=(2.0, 0.5, 0.5))
    assert trained.frame(rows) == (20, 20, 15)
    write(trained, rows, tmp_path, Progress(tmp_path))
    found = contents(tmp_path)["probability"]
    assert found.shape == (1, 20, 40, 30)
    np.testing.assert_array_equal(found, trained.probability(noise((20, 40, 30, 1)), spacing=(2.0, 0.5, 0.5)))
    small = trained.probability(noise((20, 40, 30, 1)), spacing=(2.0, 0.5, 0.5), native=False)
    seen = trained.as_seen(noise((20, 40, 30, 1)), (2.0, 0.5, 0.5))
    np.testing.assert_allclose(small, trained.predictor.probability(seen)[0], rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "meta.json").read_text())["spacing"] == [2.0, 0.5, 0.5]
    assert open_rows(tmp_path, 1).spacing == (2.0, 0.5, 0.5)


def long(path: Path) -> Path:
    """An image of five rows of chunks, as a zarr array."""
    zarr.create_array(store=path, data=noise((2500, 100)), chunks=(300, 100))
    return path


def rows_done(out: Path) -> int:
    if not (out / "state.json").exists():
        return 0
    return sum(last - first for first, last in json.loads((out / "state.json").read_text())["rows"])


@forks
def test_killed_in_the_middle_it_goes_on_from_what_is_there(finished: Path, tmp_path: Path) -> None:
    image, out = long(tmp_path / "x.zarr"), tmp_path / "out"
    command = [str(finished), str(image), "--tile=64", "--device=cpu", "--stream"]
    process = forked(predicts_until_file, "c/0/3/0", [*command, str(out)])
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert rows_done(out) == 3
    assert not (out / "meta.json").exists()
    assert len(list(out.rglob("*.partial"))) == 1  # the chunk that was being written
    chunk = out / "probability" / "c" / "0" / "0" / "0"
    written = chunk.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"holds a prediction.*--resume"):
        predict.main([*command, str(out)])
    assert predict.main([*command, str(out), "--resume"]) == 0
    assert chunk.stat().st_mtime_ns == written
    assert predict.main([*command, str(tmp_path / "whole")]) == 0
    require_equal(out, tmp_path / "whole")
    progress = json.loads((out / "progress.json").read_text())
    assert progress["state"] == "finished"
    assert progress["done"] == progress["tiles"]
    files = [
        {str(item.relative_to(folder)) for item in folder.rglob("*")} for folder in (out, tmp_path / "whole")
    ]
    assert files[0] == files[1]


@pytest.fixture
def ended(finished: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A run, an image, and a prediction of it that was ended after its first row of chunks."""
    image, out = tmp_path / "x.zarr", tmp_path / "out"
    zarr.create_array(store=image, data=noise((1100, 70)), chunks=(300, 70))
    trained = Trained.open(finished, device="cpu")
    out.mkdir()
    with pytest.raises(CancelledError):
        write(trained.tiled(64), open_rows(image, 1), out, Ending(out, 30))
    assert rows_done(out) == 1
    return finished, image, out


@pytest.mark.parametrize("case", ["tile", "image", "weights"])
def test_another_prediction_is_not_gone_on_with(
    case: str, ended: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run, image, out = ended
    given: dict[str, Any] = {"tile": 64, "device": "cpu", "resume": True}
    if case == "tile":
        given["tile"] = 96
    elif case == "image":
        changed = zarr.open_array(image, mode="r+")
        changed[1099, 69] = int(changed[1099, 69]) ^ 1
    else:
        state = checkpoint.load(run / "checkpoints" / "best")
        name = next(iter(state["model"]))
        state["model"][name] = torch.nextafter(state["model"][name], torch.tensor(9.0))
        checkpoint.save(tmp_path / "other", state)
        given["checkpoint"] = str(tmp_path / "other")
    said = {
        "tile": r"settings .*\(tile 64, now 96\) differ",
        "image": "the image differ",
        "weights": "the weights of the run differ",
    }  # fmt: skip
    with pytest.raises(InputError, match=f"cannot be resumed: {said[case]}") as refusal:
        stream(run, image, out, **given)
    assert "\n" not in str(refusal.value)
    assert rows_done(out) == 1
    if case == "tile":
        assert stream(run, image, out, **{**given, "tile": 64})


def test_what_is_finished_or_not_begun_may_be_resumed(ended: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run, image, out = ended
    for folder in (out, out, tmp_path / "new"):
        assert stream(run, image, folder, tile=64, device="cpu", resume=True)
    require_equal(out, tmp_path / "new")
    with pytest.raises(InputError, match="leave one of the two out"):
        stream(run, image, out, resume=True, overwrite=True)
    for flag in ("--resume", "--scheduler=tcp://a:1"):
        with pytest.raises(InputError, match="goes with --stream OUT"):
            predict.main([str(run), str(image), flag])


def test_a_cancel_from_before_does_not_end_what_is_resumed(ended: tuple[Path, Path, Path]) -> None:
    run, image, out = ended
    (out / "cancel").touch()
    later = time.time_ns() + 10**9
    os.utime(out / "state.json", ns=(later, later))
    assert stream(run, image, out, tile=64, device="cpu", resume=True)


@forks
def test_a_full_disk_is_told_and_what_was_predicted_kept(finished: Path, tmp_path: Path) -> None:
    image, out, copy = tmp_path / "x.zarr", tmp_path / "out", tmp_path / "copy"
    zarr.create_array(store=image, data=noise((1100, 70)), chunks=(300, 70))
    out.mkdir()
    hears, says = multiprocessing.Pipe(duplex=False)
    process = forked(streams_without_room, finished, image, out, copy, says)
    says.close()
    try:
        assert hears.poll(120)
        if refusal := hears.recv():
            pytest.skip(f"no disk of its own for a process: {refusal}")
        assert hears.poll(120)
        said = hears.recv()
        assert f"the disk of {out} is full: free some space and go on with --resume" in said
        assert hears.poll(120)
        assert hears.recv() is True
        process.join(60)
    finally:
        process.kill()
    state = json.loads((copy / "half" / "progress.json").read_text())
    assert state["state"] == "failed"
    assert 1 <= rows_done(copy / "half") < 3
    assert "disk" in state["message"]
    assert not list((copy / "half").rglob("*.partial"))
    assert stream(finished, image, tmp_path / "here", tile=64, device="cpu")
    require_equal(copy / "whole", tmp_path / "here")


@pytest.mark.parametrize("rows", [set(), {0}, {1, 2, 3, 7, 9, 10}, set(range(30))])
def test_rows_that_follow_each_other_are_together(rows: set[int]) -> None:
    found = list(spans_of(rows))
    assert {row for first, last in found for row in range(first, last)} == rows
    assert all(later[0] > earlier[1] for earlier, later in pairwise(found))


def test_ranges_are_enough_for_all_workers_and_not_too_low() -> None:
    assert split([(0, 100)], 2, 8) == [(row, min(row + 13, 100)) for row in range(0, 100, 13)]
    assert split([(0, 10)], 2, 8) == [(0, 5), (5, 10)]
    assert split([(0, 3), (5, 6)], 9, 8) == [(0, 1), (1, 2), (2, 3), (5, 6)]
    assert split([(0, 1000)], 1, 8)[0] == (0, 250)


def when(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """A thread that acts once a condition holds, or after two minutes, so that nothing waits forever."""

    def wait() -> None:
        end = time.monotonic() + 120
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def workers() -> Iterator[str]:
    """The address of a scheduler with two worker processes."""
    with LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=40
    ) as cluster:  # fmt: skip
        processes = [forked(works, cluster.scheduler_address) for _ in range(2)]
        try:
            cluster.wait_for_workers(2, timeout=120)
            yield cluster.scheduler_address
        finally:
            for process in processes:
                process.kill()
                process.join(60)


@forks
def test_a_cluster_gives_the_same_bits_and_can_be_ended(finished: Path, workers: str, tmp_path: Path) -> None:
    image, out = long(tmp_path / "x.zarr"), tmp_path / "out"
    command = [str(finished), str(image), "--tile=64", "--device=cpu", "--stream"]
    thread = when(lambda: rows_done(out) > 0, lambda: (out / "cancel").touch())
    assert predict.main([*command, str(out), "--scheduler", workers]) == 130
    thread.join()
    progress = json.loads((out / "progress.json").read_text())
    assert progress["state"] == "cancelled"
    assert 0 < progress["done"] < progress["tiles"]
    assert 1 <= rows_done(out) < 5
    assert lock.holder(out) is None
    assert not (out / ".stop").exists()
    (out / ".stop").touch()  # as one leaves it that is killed while it ends
    assert predict.main([*command, str(out), "--scheduler", workers, "--resume"]) == 0
    assert predict.main([*command, str(tmp_path / "here")]) == 0
    require_equal(out, tmp_path / "here")
    metas = [json.loads((folder / "meta.json").read_text()) for folder in (out, tmp_path / "here")]
    assert metas[0] == metas[1]


@forks
def test_what_a_worker_refuses_is_said(finished: Path, workers: str, tmp_path: Path) -> None:
    image = tmp_path / "x.zarr"
    zarr.create_array(store=image, data=noise((1100, 70)), chunks=(300, 70))
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        stream(finished, image, tmp_path / "out", device="cpu", scheduler="tcp://127.0.0.1:9")
    next(image.glob("c/3/*")).write_bytes(b"no zstd")
    with pytest.raises(InputError, match=r"x\.zarr cannot be read as zarr"):
        stream(finished, image, tmp_path / "other", device="cpu", scheduler=workers)
