"""Starting from an earlier run: its weights, its settings, and none of its training images in a test."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import FAST, events
from volumes import write_volumes

from engine import evaluate, train
from engine.config import Layer, RunConfig, read_preset, resolve
from engine.data.dataset import Dataset
from engine.errors import InputError
from engine.initial import Parent, begin, by_group, inherited, open_dataset, seen
from engine.prepare import build_network, prepare
from engine.report_page import overview
from engine.report_page.findings import read_findings
from engine.trained import Trained

QUICK = [flag for flag in FAST if "model" not in flag]
"""Fast settings without a network, which comes from the run to start from."""
Splits = dict[str, set[str]]


def config_of(run: Path, root: Path, **groups: dict[str, Any]) -> RunConfig:
    """The settings of `--init RUN --data.root ROOT`, with others over them."""
    flags = {**groups, "training": {"init": str(run), "device": "cpu", **groups.get("training", {})}}
    flags["data"] = {"root": str(root), **groups.get("data", {})}
    return resolve([inherited(str(run))[0], Layer("flags", flags)])[0]


def divided(config: RunConfig) -> Splits:
    return {part: set(names) for part, names in open_dataset(config).names().items()}


def info_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    return found


def change_info(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    info = info_of(run)
    change(info)
    (run / "run.json").write_text(json.dumps(info), "utf-8")


def copied(vessels: Path, to: Path, names: list[str], called: str = "other-{}") -> list[str]:
    """Images and masks under other names; returns these."""
    for name in names:
        for part in ("images", "masks"):
            (to / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(vessels / part / f"{name}.png", to / part / f"{called.format(name)}.png")
    return [called.format(name) for name in names]


@pytest.fixture(scope="module")
def child(finished: Path, vessels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an epoch that started from the finished one; not to be written into."""
    out = tmp_path_factory.mktemp("children") / "child"
    assert train.main(["--init", str(finished), "--data.root", str(vessels), "--out", str(out),
                       "--training.epochs=1", "--data.normalization=unit", *QUICK]) == 0  # fmt: skip
    return out


def test_a_run_says_what_it_started_from(
    child: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Trained.open(child, device="cpu").config
    parent = Trained.open(finished, device="cpu")
    assert config.model == parent.config.model
    assert config.training.init == str(finished.resolve())
    assert config.data.normalization == "unit"  # given, and so not that of the other run
    init, was = info_of(child)["init"], info_of(finished)
    assert init["run"] == str(finished.resolve())
    assert (init["checkpoint"], init["epoch"]) == ("best", parent.epoch)
    assert init["weights"] == parent.predicted().weights
    assert (init["kept"], init["new"]) == (["foreground"], [])
    assert init["digests"] == {part: sorted(was["digests"][part].values()) for part in ("train", "val")}
    assert info_of(child)["splits"] == was["splits"]
    said = [event["message"] for event in events(child) if event["event"] == "warning"]
    assert (
        f"training starts from {finished.resolve()} (best, epoch {parent.epoch}), with the same classes."
        in said
    )
    assert info_of(finished)["init"] is None


def test_predictions_before_the_first_step_are_the_other_runs(finished: Path, vessels: Path) -> None:
    ready = prepare(config_of(finished, vessels))
    image = torch.randn(2, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    theirs = Trained.open(finished, device="cpu").predictor.probability(image)
    assert torch.equal(ready.predictor.probability(image), theirs)
    assert theirs.std() > 0.01


def test_settings_are_taken_over_below_those_that_are_given(finished: Path) -> None:
    layer, note = inherited(str(finished))
    assert "the network (unet) and data.normalization zscore, data.color gray" in note
    config, _ = resolve([read_preset("few"), layer])
    assert config.model == Parent.open(str(finished)).config.model
    assert config.augment == resolve([read_preset("few")])[0].augment
    config, _ = resolve([Layer("preset", {"data": {"size": [64, 64]}}), layer])
    assert config.data.size is None  # as there, whatever a preset says
    config, _ = resolve([layer, Layer("flags", {"data": {"size": [64, 64], "color": "rgb"}})])
    assert (config.data.size, config.data.color) == ((64, 64), "rgb")


def test_relative_paths_become_absolute(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.parent)
    config, _ = resolve([Layer("flags", {"training": {"init": finished.name}})])
    assert config.located().training.init == str(finished.resolve())
    assert resolve([Layer("flags", {"training": {"init": ""}})])[0].training.init is None


def test_one_of_its_checkpoints_can_be_named(finished: Path, vessels: Path) -> None:
    config = config_of(finished / "checkpoints" / "last", vessels)
    dataset = open_dataset(config)
    origin = begin(build_network(config, 1, 1, torch.device("cpu")), config, dataset)
    assert origin is not None
    assert (origin.run, origin.checkpoint, origin.epoch) == (finished.resolve(), "last", 6)


def test_the_head_is_adapted_by_names(finished: Path, vessels: Path) -> None:
    """One class becomes two exclusive ones: the odds of the old one against background stay."""
    config = config_of(
        finished, vessels, modulation={"name": "none"},
        data={"classes": {"new": [3], "foreground": [255]}},
    )  # fmt: skip
    ready = prepare(config)
    assert ready.origin is not None
    assert (ready.origin.kept, ready.origin.new) == (("foreground",), ("new",))
    assert "of the classes new is new." in ready.origin.remark
    image = torch.randn(1, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    p, before = (
        ready.predictor.probability(image),
        Trained.open(finished, device="cpu").predictor.probability(image),
    )
    odds = p[:, 1] / (1 - p.sum(1))
    torch.testing.assert_close(odds, (before / (1 - before))[:, 0], rtol=1e-3, atol=1e-5)


# What is refused.


def refused(run: Path, root: Path, **groups: dict[str, Any]) -> str:
    config = resolve([Layer("flags", {**groups, "data": {"root": str(root), **groups.get("data", {})}})])[0]
    training = config.training.model_copy(update={"init": str(run), "device": "cpu"})
    with pytest.raises(InputError) as refusal:
        prepare(config.model_copy(update={"training": training}))
    return str(refusal.value)


def test_what_is_no_run_is_refused(finished: Path, vessels: Path, tmp_path: Path) -> None:
    ways = "a run directory, or a file in its folder checkpoints, would work."
    assert refused(tmp_path / "none", vessels) == f"training.init {tmp_path / 'none'} does not exist: {ways}"
    assert "has no run.json" in refused(vessels, vessels)
    file = tmp_path / "weights.pth"
    file.write_bytes(b"x")
    assert "is a file that belongs to no run" in refused(file, vessels)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    damaged = run / "checkpoints" / "best"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    assert f"the checkpoint {damaged} cannot be read" in refused(run, vessels)
    shutil.rmtree(run / "checkpoints")
    assert refused(run, vessels) == (
        f"training.init {run} is a run without a checkpoint: one that has finished an epoch would work."
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"name": "segnet", "base_width": 4}, "name is segnet, and the run {} was trained with unet"),
        ({"base_width": 8, "depth": 2}, "base_width is 8, and the run {} was trained with 4"),
        ({"base_width": 4, "depth": 3, "dropout": 0.5}, "depth is 3, and the run {} was trained with 2"),
        (
            {"base_width": 4, "depth": 2, "norm": "none"},
            "norm is none, and the run {} was trained with batch",
        ),
    ],
)
def test_another_network_is_refused_by_its_first_difference(
    model: dict[str, Any], said: str, finished: Path, vessels: Path
) -> None:
    message = refused(finished, vessels, model=model)
    assert message.startswith(f"training.init: model.{said.format(finished.resolve())}: model.")
    assert "is needed, which --init takes over where nothing else is given." in message


def test_other_images_are_refused(finished: Path, vessels: Path, organs: Path, tmp_path: Path) -> None:
    model = {"base_width": 4, "depth": 2}
    message = refused(finished, organs, model=model)
    assert "was trained on images of 1 channel, and these have 3: data.color gray would work." in message
    prepare(config_of(finished, organs))  # whose colour is taken over
    volumes = write_volumes(tmp_path / "volumes")
    assert "was trained on images of 2 dimensions, and these have 3" in refused(
        finished, volumes, model=model
    )


def test_two_starts_are_refused(finished: Path, vessels: Path, tmp_path: Path) -> None:
    own = ["--data.root", str(vessels), "--out", str(tmp_path / "run")]
    with pytest.raises(InputError, match="both name a run to start from"):
        train.main(["--init", str(finished), "--training.init", str(finished), *own])
    with pytest.raises(InputError, match="only one is needed"):
        train.main(
            ["--training.init", str(finished), "--model.name=semantic_fpn", "--model.weights=a.pth", *own]
        )
    with pytest.raises(InputError, match="give no others"):
        train.main(["--resume", str(finished), "--init", str(finished)])
    assert not (tmp_path / "run").exists()


# No image that it learned from may test the new run.


def grown(vessels: Path, to: Path, more: int) -> Path:
    """The folder with images that nobody has seen."""
    shutil.copytree(vessels, to)
    for number in range(more):
        image = Image.open(vessels / "images" / "v00.png").rotate(10 + number)
        mask = Image.open(vessels / "masks" / "v00.png")
        for part, picture in (("images", image), ("masks", mask)):
            picture.save(to / part / f"w{number:02d}.png")
    return to


def test_images_of_the_same_folder_keep_their_split(finished: Path, vessels: Path, tmp_path: Path) -> None:
    root, run = grown(vessels, tmp_path / "data", 20), Path(shutil.copytree(finished, tmp_path / "run"))
    was = {part: set(names) for part, names in info_of(run)["splits"].items()}
    change_info(run, lambda info: info["dataset"].update(root=str(root)))
    for seed in range(3):
        found = divided(config_of(run, root, data={"split_seed": seed}))
        assert all(was[part] <= found[part] for part in was)
        assert {part: len(names) for part, names in found.items()} == {
            "train": 24, "val": 6, "calib": 4, "test": 6
        }  # fmt: skip


def test_copies_under_other_names_are_known_by_their_pixels(
    finished: Path, vessels: Path, tmp_path: Path
) -> None:
    was = info_of(finished)["splits"]
    root = tmp_path / "data"
    trained, validated = (set(copied(vessels, root, was[part])) for part in ("train", "val"))
    tested = set(copied(vessels, root, [*was["calib"], *was["test"]]))
    for seed in range(3):
        config = config_of(finished, root, data={"split_seed": seed})
        found = divided(config)
        assert trained <= found["train"]
        assert not validated & (found["calib"] | found["test"])
        assert found["test"] | found["calib"] <= tested
        assert found["test"]
    notes = open_dataset(config).remarks()
    assert any(
        "stay in the split of" in note and "none that it was trained on tests this run" in note
        for note in notes
    )


def test_a_group_goes_where_its_trained_image_was(finished: Path, vessels: Path, tmp_path: Path) -> None:
    was = info_of(finished)["splits"]
    root = grown(vessels, tmp_path / "data", 14)
    seen_one, unseen = was["train"][0], [f"w{number:02d}" for number in range(14)]
    patients = dict.fromkeys((seen_one, *unseen[:7]), "p1")
    rows = [
        f"images/{path.stem}.png,{patients.get(path.stem, path.stem)}" for path in (root / "images").iterdir()
    ]
    (root / "index.csv").write_text("image,patient\n" + "\n".join(rows) + "\n", "utf-8")
    config = config_of(finished, root)
    assert open_dataset(config).found.grouped
    found = divided(config)
    assert set(patients) <= found["train"]
    assert set(was["train"]) <= found["train"]


def test_train_wins_in_a_group() -> None:
    dataset = [type("Case", (), {"name": name, "group": group}) for name, group in ("ax", "bx", "cy", "dz")]
    splits = {"a": "test", "b": "train", "c": "calib"}
    assert by_group(dataset, splits) == {"x": "train", "y": "calib"}  # type: ignore[arg-type]


def test_a_layouts_own_test_split_does_not_test_what_was_trained_on(
    finished: Path, vessels: Path, tmp_path: Path
) -> None:
    was = info_of(finished)["splits"]
    copied(vessels, tmp_path / "train", [*was["train"][3:], *was["val"]], "{}")
    copied(vessels, tmp_path / "test", [*was["train"][:3], *was["test"]], "{}")
    plain = Dataset.open(RunConfig.model_validate({"data": {"root": str(tmp_path)}}).data)
    assert set(was["train"][:3]) <= set(plain.names()["test"])
    found = divided(config_of(finished, tmp_path))
    assert set(was["train"]) <= found["train"]
    assert found["test"] == set(was["test"])


def test_images_of_a_runs_own_ancestors_count(
    child: Path, finished: Path, vessels: Path, tmp_path: Path
) -> None:
    """The grandparent's images, where the parent learned from others."""
    was = info_of(finished)["splits"]
    run = Path(shutil.copytree(child, tmp_path / "run"))
    change_info(run, lambda info: info.update(digests={"train": {"x": "0"}, "val": {}}))
    assert len(seen(info_of(run))["train"]) == len(was["train"]) + 1
    root = tmp_path / "data"
    trained = set(copied(vessels, root, was["train"]))
    copied(vessels, root, [*was["calib"], *was["test"]])
    assert trained <= divided(config_of(run, root))["train"]
    digest = info_of(finished)["digests"]["train"][was["train"][0]]
    now = Trained.open(run, device="cpu")
    assert now.seen_in(digest) == "train"
    assert now.seen_in(info_of(finished)["digests"]["val"][was["val"][0]]) == "val"
    assert now.seen_in("0") == "train"
    assert now.seen_in("1") is None


def test_a_run_without_digests_cannot_tell_and_says_so(finished: Path, vessels: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    change_info(run, lambda info: info.pop("digests"))
    assert divided(config_of(run, vessels)) == {
        part: set(names) for part, names in info_of(run)["splits"].items()
    }
    copied(vessels, tmp_path / "data", [f"v{number:02d}" for number in range(12)])
    notes = open_dataset(config_of(run, tmp_path / "data")).remarks()
    assert any("cannot be told: it noted no digests" in note for note in notes)


def test_nothing_left_to_train_on_is_refused(finished: Path, vessels: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    every = [f"v{number:02d}" for number in range(20)]
    change_info(run, lambda info: info.update(splits={"train": [], "val": [], "calib": [], "test": every}))
    with pytest.raises(
        InputError, match="stay in the split that they have there: more images, or no training"
    ):
        open_dataset(config_of(run, vessels))


# Resuming, and what shows it.


def test_a_resumed_run_does_not_need_its_parent(
    child: Path, vessels: Path, finished: Path, tmp_path: Path
) -> None:
    parent = Path(shutil.copytree(finished, tmp_path / "parent"))
    out = tmp_path / "run"
    given = [
        "--init",
        str(parent),
        "--data.root",
        str(vessels),
        "--out",
        str(out),
        "--training.epochs=2",
        *QUICK,
    ]
    assert train.main(given) == 0
    whole = events(out)
    lines = (out / "events.jsonl").read_text("utf-8").splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if '"event": "epoch"' in line)
    shutil.rmtree(parent)
    # As a crash in the second epoch leaves it: without a checkpoint the parent would be needed.
    (out / "events.jsonl").write_text("".join(lines[: first + 1]), "utf-8")
    assert train.main(["--resume", str(out), "--quiet"]) == 0
    assert [event for event in events(out) if event["event"] == "epoch"][-1] == [
        event for event in whole if event["event"] == "epoch"
    ][-1]


def test_a_run_without_an_epoch_is_not_resumed_from_other_weights(
    child: Path, finished: Path, tmp_path: Path
) -> None:
    parent = Path(shutil.copytree(finished, tmp_path / "parent"))
    run = Path(shutil.copytree(child, tmp_path / "run"))
    settings = run / "config.toml"
    settings.write_text(settings.read_text("utf-8").replace(str(finished.resolve()), str(parent)), "utf-8")
    shutil.rmtree(run / "checkpoints")
    lines = (run / "events.jsonl").read_text("utf-8").splitlines(keepends=True)
    (run / "events.jsonl").write_text(lines[0], "utf-8")
    shutil.copy(parent / "checkpoints" / "last", parent / "checkpoints" / "best")
    change_info(run, lambda info: info["init"].update(weights="of before"))
    with pytest.raises(InputError, match="have changed since the run began"):
        train.main(["--resume", str(run), "--quiet"])


def test_what_it_started_from_stands_in_report_and_evaluation(
    child: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(child, tmp_path / "run"))
    assert evaluate.main([str(run), "--device=cpu", "--no-figures"]) == 0
    epoch = info_of(child)["init"]["epoch"]
    assert f"run: started from {finished.resolve()} (best, epoch {epoch})" in capsys.readouterr().out
    assert f"{finished.resolve()}, best of epoch {epoch}" in overview.section(read_findings(run))
