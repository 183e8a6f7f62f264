"""Runs on images that are read from their files: the run that they give in memory, also when it is killed."""

import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from chunked import write_chunked
from forked import forked, trains_until_write
from support import events, fast, write_pair

from engine import checkpoint, train
from engine.bits import PackedMasks, Window
from engine.config import Layer, RunConfig, resolve
from engine.data.dataset import Dataset
from engine.data.lazy import LazyStore
from engine.errors import InputError
from engine.flags import parse
from engine.modulation.strategies import NoModulation, SMMv1, SMMv2
from engine.prepare import from_files, prepare
from engine.record import RunReader

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 uint8 zarr images of two sizes and their masks, a bright square in each."""
    root = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(2)
    for number in range(10):
        image = rng.integers(0, 120, (64, 60) if number % 2 else (72, 96), dtype=np.uint8)
        mask = np.zeros(image.shape, np.uint8)
        row, column = rng.integers(2, 40, 2)
        mask[row : row + 14, column : column + 14] = 255
        image += (mask // 3).astype(np.uint8)
        write_chunked(root / "images" / f"s{number}.zarr", image, "yx", chunk=32)
        write_chunked(root / "masks" / f"s{number}.zarr", mask, "yx", chunk=32)
    return root


def settings(root: Path, out: Path, *more: str) -> list[str]:
    crops = ("--data.patches_per_image=2", "--data.foreground=0.5", "--training.batch_size=4")
    return [f"--data.root={root}", f"--out={out}", *fast("--training.epochs=4", *crops, *more)]


def config(root: Path, *more: str) -> RunConfig:
    return resolve([Layer("flags", parse([f"--data.root={root}", "--training.device=cpu", *more]))])[0]


def assert_same_run(one: Path, other: Path) -> None:
    """The same events and weights, and the same masks in the checkpoint."""
    lines = [[each for each in events(run) if each["event"] != "started"] for run in (one, other)]
    assert lines[0] == lines[1]
    states = [checkpoint.load(run / "checkpoints" / "last") for run in (one, other)]
    for part in ("model", "modulation"):
        first, second = states[0][part], states[1][part]
        assert first.keys() == second.keys()
        for key, value in first.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, second[key]), key
    for mine, theirs in zip(RunReader(one).watched(), RunReader(other).watched(), strict=True):
        for array in ("image", "truth", "probability", "modulated"):
            np.testing.assert_array_equal(mine[array][:], theirs[array][:])


@pytest.mark.parametrize("method", ["smm_v1", "smm_v2"])
def test_a_run_from_files_is_the_run_from_memory_and_goes_on_where_it_was_killed(
    method: str, slides: Path, tmp_path: Path
) -> None:
    def flags(name: str, cache: str) -> list[str]:
        return settings(slides, tmp_path / name, f"--modulation.name={method}", f"--data.cache={cache}")

    assert train.main(flags("memory", "memory")) == 0
    assert train.main(flags("files", "none")) == 0
    assert_same_run(tmp_path / "memory", tmp_path / "files")
    assert not list((tmp_path / "files" / "cache").iterdir()), "files of masks have no name"
    state = checkpoint.load(tmp_path / "files" / "checkpoints" / "last")["modulation"]
    assert state["observed"].any()
    killed = forked(trains_until_write, 14, flags("killed", "none"))
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert RunReader(tmp_path / "killed").status() == "crashed"
    assert train.main(["--resume", str(tmp_path / "killed"), "--quiet"]) == 0
    assert_same_run(tmp_path / "files", tmp_path / "killed")
    assert not list((tmp_path / "killed" / "cache").iterdir())


def test_misses_from_a_pass_and_scores_come_by_windows(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = (
        "--data.cache=none",
        "--modulation.source=pass",
        "--prediction.tile=32",
        "--modulation.name=smm_v2",
    )
    assert train.main(settings(slides, out, *more)) == 0
    epochs = RunReader(out).epochs()
    assert all(0 <= epoch["recall"] <= 1 and 0 <= epoch["validation"]["dice"][0] <= 1 for epoch in epochs)
    ready = prepare(config(slides, *more, "--data.patch=32"))
    assert isinstance(ready.val, LazyStore)
    assert any(bool((window.corner > 0).any()) for window in ready.val.batches(1))  # not all in one window


REFUSED = {
    "--loss.name=boundary": "every loss but skeleton_recall and boundary, or data.cache = disk",
    "--loss.name=skeleton_recall": "loss skeleton_recall needs maps of whole masks",
    "--data.size=64": "data.size resizes whole images",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_what_needs_whole_images_is_refused(flag: str, slides: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[flag]) as refusal:
        train.main(settings(slides, tmp_path / "run", "--data.cache=none", flag))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_files_that_are_read_whole_are_refused(vessels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png can only be read whole: zarr, OME-Zarr or a tiled TIFF"):
        train.main(settings(vessels, tmp_path / "run", "--data.cache=none"))


def test_empty_masks_are_refused(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        write_chunked(tmp_path / "data" / folder / "a.zarr", np.zeros((40, 40), np.uint8), "yx")
    with pytest.raises(InputError, match="empty"):
        train.main(
            settings(tmp_path / "data", tmp_path / "run", "--data.cache=none", "--data.classes={a = [1]}")
        )


def test_what_is_done_to_images_is_said(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (40, 48, 4), dtype=np.uint8)
    mask = np.zeros((40, 48), np.uint8)
    mask[4:20, 4:20] = 1
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "a.tif"
    tifffile.imwrite(path, colours, tile=(16, 16), photometric="rgb", extrasamples=["unassalpha"])
    write_chunked(tmp_path / "masks" / "a.tif", mask, "yx")
    wanted = config(tmp_path, "--data.cache=none")
    found = Dataset.open(wanted.data)
    ready = prepare(wanted, found)
    assert "an alpha channel was dropped: 1 image (a)." in found.remarks()
    np.testing.assert_array_equal(ready.watched[0].image, colours[..., :3])


def test_auto_takes_files_where_memory_has_no_room(slides: Path, tmp_path: Path) -> None:
    found = Dataset.open(config(slides).data)
    assert from_files(config(slides), found, budget=1000)
    assert not from_files(config(slides), found, budget=1e9)
    assert not from_files(config(slides, "--data.cache=disk"), found, budget=1000)
    # What a store in a file can do, and files cannot, is done by the store.
    assert not from_files(config(slides, "--loss.name=boundary"), found, budget=1000)
    pair = np.zeros((40, 48), np.uint8)
    pair[3:9] = 255
    write_pair(tmp_path, "a", pair, pair)
    assert not from_files(config(tmp_path), Dataset.open(config(tmp_path).data), budget=0)


def strategy(name: str, folder: Path | None) -> NoModulation:
    common = {
        "epochs": 8, "shapes": torch.tensor([[40, 48], [33, 64]]), "classes": 2, "device": CPU,
        "revisits": True, "folder": folder, "warmup": 0.2, "radius": 2, "threshold": 0.5, "source": "train",
    }  # fmt: skip
    return SMMv1(weight=1.0, **common) if name == "smm_v1" else SMMv2(queue=3, **common)


def step(modulation: NoModulation, epoch: int) -> torch.Tensor:
    """An epoch of two windows in each of two images; returns what the loss would have seen."""
    generator = torch.Generator().manual_seed(epoch)
    modulation.begin(epoch)
    seen = []
    for row in (0, 16):
        window = Window(torch.tensor([0, 1]), torch.tensor([[row, 8], [row, 16]]), (16, 24))
        truth = torch.rand((2, 2, 16, 24), generator=generator) < 0.3
        missed = truth & (torch.rand(truth.shape, generator=generator) < 0.3 + 0.1 * (epoch % 3))
        grown = modulation.target(window, truth, None)
        seen.append(truth if grown is None else grown)
        modulation.count(truth & ~missed, truth, None)
        if row or epoch % 2:  # the first window is not visited in every epoch
            modulation.record(window, missed)
    modulation.end()
    return torch.cat(seen)


@pytest.mark.parametrize("name", ["smm_v1", "smm_v2"])
def test_masks_in_files_are_those_in_memory_and_go_on_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    kept, held = strategy(name, tmp_path / "cache"), strategy(name, None)
    assert kept.disk_bytes == 2 * 2 * (40 * 48 + 33 * 64) // 8
    assert held.disk_bytes == 0
    for epoch in range(1, 9):
        assert torch.equal(step(kept, epoch), step(held, epoch))
        assert torch.equal(kept.state()["observed"], held.state()["observed"])
        checkpoint.save(tmp_path / "last", {"modulation": kept.state(), "model": {"w": torch.ones(2)}})
        state = checkpoint.load(tmp_path / "last", in_file=("modulation",))
        again = strategy(name, tmp_path / "cache")
        again.restore(state["modulation"])
        again.epoch = kept.epoch
        kept = again
        del state
    assert not list((tmp_path / "cache").iterdir())


def test_a_voxel_that_is_not_visited_keeps_its_last_observation_in_a_file(tmp_path: Path) -> None:
    masks = PackedMasks(torch.tensor([[6, 10, 16]]), 1, folder=tmp_path)
    first = Window(torch.tensor([0]), torch.tensor([[0, 2, 0]]), (4, 4, 8))
    other = Window(torch.tensor([0]), torch.tensor([[2, 2, 8]]), (4, 4, 8))
    missed = torch.rand((1, 1, 4, 4, 8), generator=torch.Generator().manual_seed(0)) < 0.5
    masks.write(first, missed)
    masks.write(other, ~missed)
    assert torch.equal(masks.read(first), missed)
    assert torch.equal(masks.read(other), ~missed)
    whole = masks.read(Window(torch.tensor([0]), torch.tensor([[0, 0, 0]]), (6, 10, 16)))
    assert int(whole.sum()) == missed.numel()
    empty = masks.empty_like()
    assert not empty.bits.any()
    assert empty.disk_bytes == masks.disk_bytes == 6 * 10 * 2
    assert not list(tmp_path.iterdir())


def test_files_of_masks_that_a_dead_process_left_are_not_taken_up(tmp_path: Path) -> None:
    # As on Windows, where the name of a mapped file stays.
    (tmp_path / "0.masks").write_bytes(b"\xff" * 12)
    assert not PackedMasks(torch.tensor([[6, 16]]), 1, folder=tmp_path).bits.any()


def test_masks_count_in_the_room_on_the_disk(slides: Path, tmp_path: Path) -> None:
    ready = prepare(config(slides, "--data.cache=none", "--modulation.name=smm_v2"), cache=tmp_path / "cache")
    assert ready.modulation.disk_bytes == 2 * int(ready.train.shapes.prod(dim=1).sum()) // 8
