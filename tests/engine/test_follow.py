"""Masks that are saved while training goes on: taken up at the next epoch, kept, repeated, resumed."""

import errno
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from saved import bring, disc, save, settle
from support import events, fast

from engine import checkpoint, train
from engine.config import Layer, resolve
from engine.data import journal
from engine.data.dataset import Dataset
from engine.errors import InputError
from engine.flags import parse
from engine.follow import TakenUp
from engine.loop import Epoch, fit
from engine.record import RunReader, first_epoch, read_truth, truth_epochs

METHODS = ("smm_v1", "smm_v2")
CRASHES = (("smm_v1", "checkpoint"), ("smm_v2", "page"), ("smm_v2", "line"))
"""Method, and the moment of the third epoch at which the disk is full."""
SETTINGS = (
    "--training.epochs=4", "--data.patch=64", "--data.classes={ vessel = [1], ignore = [255] }",
    "--watch.train=2", "--watch.val=1", "--watch.followed=2", "--training.batch_size=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of 40 × 48 px; not to be written into."""
    root = tmp_path_factory.mktemp("began")
    for number in range(12):
        bring(root, f"v{number:02d}", number)
    return root


def fresh(began: Path, root: Path) -> Path:
    """The images as they were in the beginning, at a place of their own."""
    shutil.rmtree(root, ignore_errors=True)
    return Path(shutil.copytree(began, root))


@pytest.fixture
def root(began: Path, tmp_path: Path) -> Path:
    return fresh(began, tmp_path / "data")


@pytest.fixture(scope="module", params=METHODS)
def live(request: pytest.FixtureRequest, began: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that took masks up at epochs 2 and 3, beside its folder `data`; not to be written into."""
    folder = tmp_path_factory.mktemp(request.param)
    root, out = fresh(began, folder / "data"), folder / "live"
    with pytest.MonkeyPatch.context() as patch:
        someone_paints(patch, root, out)
        start(root, out, "--data.follow", f"--modulation.name={request.param}")
    return out


def start(root: Path, out: Path, *settings: str) -> None:
    given = {flag.partition("=")[0]: flag for flag in (*SETTINGS, *settings)}
    assert train.main(["--data.root", str(root), "--out", str(out), *fast(*given.values())]) == 0


def between(patch: pytest.MonkeyPatch, does: dict[int, Callable[[], object]]) -> None:
    """Do something after an epoch is recorded and before the next begins."""
    record = train.save

    def record_and_do(writer: Any, epoch: Epoch, config: Any) -> None:
        record(writer, epoch, config)
        does.get(epoch.number, lambda: None)()

    patch.setattr(train, "save", record_and_do)


def someone_paints(patch: pytest.MonkeyPatch, root: Path, out: Path) -> None:
    """Someone corrects masks of train, val and test, and paints two new images, as training goes on."""

    def first() -> None:
        splits = RunReader(out).info()["splits"]
        for part, place in (("train", 1), ("val", 0), ("test", 0)):
            save(root, splits[part][place], disc(20, 20))

    def second() -> None:
        bring(root, "w00", 20)
        bring(root, "w01", 21, (70, 56))  # larger than all before, and half of it unlabelled
        half = disc(30, 40, (70, 56))
        half[:, :30] = 255
        save(root, "w01", half)
        save(root, RunReader(out).info()["splits"]["train"][1], disc(5, 5))

    between(patch, {1: first, 2: second})


def assert_same(one: Path, other: Path) -> None:
    """Weights, masks of modulation, watched arrays and all epochs of two runs are equal."""
    first, second = (checkpoint.load(run / "checkpoints" / "last") for run in (one, other))
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    for key, value in first["modulation"].items():
        if torch.is_tensor(value):
            assert torch.equal(value, second["modulation"][key])
    kinds = ("epoch", "followed", "checkpoint")
    mine, theirs = ([event for event in events(run) if event["event"] in kinds] for run in (one, other))
    assert mine == theirs
    for a, b in zip(RunReader(one).watched(), RunReader(other).watched(), strict=True):
        assert dict(a.attrs) == dict(b.attrs)
        assert sorted(a.array_keys()) == sorted(b.array_keys())
        for array in a.array_keys():
            np.testing.assert_array_equal(a[array][:], b[array][:])
    a, b = RunReader(one).info(), RunReader(other).info()
    assert (a["splits"], a["digests"], a["dataset"]["images"]) == (
        b["splits"], b["digests"], b["dataset"]["images"]
    )  # fmt: skip


def test_a_run_says_what_it_took_up_and_what_it_is_trained_on(live: Path) -> None:
    info = RunReader(live).info()
    followed = [event for event in events(live) if event["event"] == "followed"]
    corrected, val = info["splits"]["train"][1], info["splits"]["val"][0]
    said = [
        (event["epoch"], [(image["name"], image["split"], image["new"]) for image in event["images"]])
        for event in followed
    ]
    assert said == [
        (2, [(corrected, "train", False), (val, "val", False)]),
        (3, [(corrected, "train", False), ("w00", "train", True), ("w01", "train", True)]),
    ]
    assert info["splits"]["train"][-2:] == ["w00", "w01"]
    assert list(info["digests"]["train"]) == info["splits"]["train"]
    assert info["dataset"]["images"] == 14
    config, _ = resolve([Layer("", parse([f"--data.root={live.parent / 'data'}", SETTINGS[2]]))])
    assert Dataset.open(config.data, info["splits"]).names() == info["splits"]  # as evaluate opens it


def test_each_epoch_keeps_the_truth_that_it_had(live: Path) -> None:
    names = RunReader(live).info()["splits"]["train"]
    kept = {str(group.attrs["name"]): group for group in RunReader(live).watched()}
    corrected = kept[names[1]]
    assert truth_epochs(corrected) == [1, 2, 3]
    began = np.asarray(corrected["truth"])
    for epoch, truth in ((1, began), (2, disc(20, 20)), (3, disc(5, 5)), (4, disc(5, 5))):
        np.testing.assert_array_equal(read_truth(corrected, epoch)[0], np.reshape(truth, (1, 40, 48)))
    assert truth_epochs(kept[names[0]]) == [1]
    new = kept["w01"]
    assert first_epoch(new) == 3
    truth, valid = read_truth(new, 4)
    np.testing.assert_array_equal(valid, np.arange(56) >= np.full((70, 1), 30))
    np.testing.assert_array_equal(truth[0], valid & (disc(30, 40, (70, 56)) == 1))
    assert not np.asarray(new["probability"][:2]).any()
    assert np.asarray(new["probability"][2:]).any(axis=(1, 2, 3)).all()


def test_a_new_truth_begins_without_misses(live: Path) -> None:
    # The mask that the loss saw in the epoch that took it up is the new truth itself.
    for group in RunReader(live).watched():
        for epoch in truth_epochs(group):
            if epoch > 1:
                np.testing.assert_array_equal(
                    group["modulated"][epoch - 1], read_truth(group, epoch)[0], str(group.attrs["name"])
                )


def test_it_can_be_repeated_to_the_bit_without_any_mask(live: Path, tmp_path: Path) -> None:
    shutil.copytree(live.parent / "data" / "images", tmp_path / "data" / "images")
    again = tmp_path / "again"
    given = ["--config", str(live / "config.toml"), "--out", str(again), "--quiet"]
    flags = [f"--data.root={tmp_path / 'data'}", f"--data.replay={live}"]
    if live.parent.name.startswith("smm_v2"):  # not in one go
        with pytest.MonkeyPatch.context() as patch:
            fail_in_epoch_3(patch, "checkpoint")
            with pytest.raises(OSError, match="No space left"):
                train.main([*given, *flags])
        given, flags = ["--resume", str(again), "--quiet"], []
    assert train.main([*given, *flags]) == 0
    assert_same(live, again)
    pages = sorted(path.name for path in (again / "followed").iterdir())
    assert pages == ["0000.npz", "0002.npz", "0003.npz"]


@pytest.mark.parametrize(("live", "where"), CRASHES, indirect=["live"])
def test_a_crash_anywhere_in_an_epoch_that_takes_up_changes_nothing(
    where: str, live: Path, began: Path, tmp_path: Path
) -> None:
    root, out = fresh(began, tmp_path / "data"), tmp_path / "run"
    method = tomllib.loads((live / "config.toml").read_text())["modulation"]["name"]
    with pytest.MonkeyPatch.context() as patch:
        someone_paints(patch, root, out)
        fail_in_epoch_3(patch, where)
        with pytest.raises(OSError, match="No space left"):
            start(root, out, "--data.follow", f"--modulation.name={method}")
    assert RunReader(out).status() == "failed"
    assert train.main(["--resume", str(out), "--quiet"]) == 0
    assert_same(live, out)


def fail_in_epoch_3(patch: pytest.MonkeyPatch, where: str) -> None:
    """The disk is full at one moment of the third epoch."""
    moments = {
        "page": (journal, "write_page"), "checkpoint": (checkpoint, "save"), "line": (train, "announce"),
    }  # fmt: skip
    module, name = moments[where]
    usual, keep = getattr(module, name), train.keep
    reached: list[TakenUp] = []

    def failing(*given: Any, **named: Any) -> Any:
        if any(taken.epoch == 3 for taken in reached):
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(*given, **named)

    def noting(writer: Any, taken: TakenUp, *more: Any) -> None:
        reached.append(taken)
        keep(writer, taken, *more)

    patch.setattr(module, name, failing)
    patch.setattr(train, "keep", noting)


def test_following_a_folder_in_which_nothing_happens_changes_nothing(root: Path, tmp_path: Path) -> None:
    for name, more in (("plain", []), ("following", ["--data.follow=true"])):
        start(root, tmp_path / name, "--training.epochs=2", *more)
    assert_same(tmp_path / "plain", tmp_path / "following")


def test_what_is_wrong_is_told_and_training_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    bad, good = "v00", "v01"

    def third(name: str, mask: np.ndarray) -> None:
        save(root, name, mask)

    def first() -> None:
        third(good, disc(9, 9))
        third(bad, disc(9, 9) * 9)

    between(monkeypatch, {1: first, 2: lambda: third(bad, disc(8, 8) * 9)})
    start(root, out, "--data.follow", "--training.epochs=3", "--data.split=[1,0,0,0]")
    warnings = [event["message"] for event in events(out) if event["event"] == "warning"]
    refused = [message for message in warnings if "holds mask value 9, which no class names" in message]
    assert len(refused) == 2  # once for each version
    assert refused[0].startswith(f"the mask of {bad} was not taken up: ")
    assert [event["epoch"] for event in events(out) if event["event"] == "followed"] == [2]
    assert f"epoch 2 took up 1 mask ({good})" in capsys.readouterr().out


def test_another_kind_of_pixels_joins_by_reading_all_once_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def deep() -> None:
        bring(root, "deep", 40)
        path = root / "images" / "deep.png"
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 200).save(path)
        settle(path)
        (root / "masks" / "v03.png").write_bytes(b"lost")  # what training has of it is enough

    between(monkeypatch, {1: deep})
    start(root, out, "--data.follow", "--training.epochs=2", "--modulation.name=smm_v1")
    assert RunReader(out).info()["splits"]["train"][-1] == "deep"
    new = RunReader(out).watched()[-1]
    assert first_epoch(new) == 2
    assert np.asarray(new["probability"][1]).any()


def test_an_image_that_is_another_one_now_is_refused(live: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(live.parent / "data", tmp_path / "data"))
    name = RunReader(live).info()["splits"]["train"][2]
    image = root / "images" / f"{name}.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    words = rf"{name}\.png is another one than when .*live was trained.*put it back"
    with pytest.raises(InputError, match=words):
        start(root, tmp_path / "again", f"--data.replay={live}")


def test_an_image_that_changes_under_training_keeps_its_mask(root: Path) -> None:
    config, _ = resolve([Layer("", parse([f"--data.root={root}", "--data.follow", *fast(*SETTINGS)[1:]]))])
    epochs = fit(config)
    next(epochs)
    bring(root, "v04", 77)
    taken = next(epochs).taken
    assert taken is not None
    assert taken.entries == ()
    assert "v04.png is another one than training has" in taken.said[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--data.follow", "--data.cache=none"],
            r"data\.follow needs the images in memory, and data\.cache is none",
        ),
        (
            ["--data.follow", "--data.cache=disk"],
            r"data\.follow needs the images in memory, and data\.cache is disk",
        ),
        (["--data.replay=."], "is no run that took masks up as it went"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    flags: list[str], words: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        start(root, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_masks_of_another_size_are_not_repeated(live: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.size is \(32, 32\), and the masks in .* with None"):
        start(live.parent / "data", tmp_path / "run", f"--data.replay={live}", "--data.size=32")
