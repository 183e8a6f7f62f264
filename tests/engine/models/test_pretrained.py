"""Starting weights of a user's file: the public format, wrappers, gray images, wrong files, moved files."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import draw
from support import FAST
from torch import Tensor

from engine import train
from engine.config import Layer, RunConfig, read_file, resolve
from engine.data.demo import demo_pair
from engine.errors import InputError
from engine.models import pretrained
from engine.models.resnet import ResNet50
from engine.models.semantic_fpn import SemanticFPN
from engine.models.specs import SemanticFPN as Settings
from engine.prepare import build_network
from engine.record import RunReader
from engine.trained import Trained

PUBLIC = {
    key: tuple(map(int, numbers))
    for key, *numbers in map(
        str.split, Path(__file__).with_name("resnet50_keys.txt").read_text("utf-8").splitlines()
    )
}
"""Keys and shapes of the public ImageNet checkpoint of ResNet-50, without its classifier."""
WIDTH = 2
"""Of a trunk that has the same keys and is quick to write."""
State = dict[str, Tensor]


def small(inputs: int = 3) -> ResNet50:
    torch.manual_seed(0)
    return ResNet50(inputs, WIDTH)


@pytest.fixture
def state() -> State:
    """A state dictionary with the classifier, all of its numbers random and no two tensors alike."""
    made = {
        key: torch.tensor(number) if not value.ndim else draw(*value.shape, seed=number).abs()
        for number, (key, value) in enumerate(small().state_dict().items())
    }
    return {**made, "fc.weight": draw(10, 64), "fc.bias": draw(10)}


def saved(content: Any, folder: Path, **how: Any) -> str:
    file = folder / "weights.pth"
    torch.save(content, file, **how)
    return str(file)


def assert_loaded(trunk: ResNet50, expected: State) -> None:
    for key, value in trunk.state_dict().items():
        if key in expected:
            assert torch.equal(value, expected[key]), key


def refusal(file: str, trunk: ResNet50 | None = None) -> str:
    """Why a file is refused; nothing of the network may have changed."""
    trunk = trunk if trunk is not None else small()
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    with pytest.raises(InputError) as error:
        pretrained.load(trunk, file)
    assert all(torch.equal(before[key], value) for key, value in trunk.state_dict().items())
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert "would work" in message or "torch.save" in message
    return message.replace(file, "FILE")


# What loads


def test_the_keys_are_the_public_ones() -> None:
    assert len(PUBLIC) == 318
    counted = [key for key in PUBLIC if not key.endswith(("_mean", "_var", "_tracked"))]
    assert len(counted) == 159
    numbers = sum(int(np.prod(PUBLIC[key])) for key in counted)
    assert numbers == 23_508_032
    assert numbers + 2048 * 1000 + 1000 == 25_557_032  # as is said of the public network with its classifier
    with torch.device("meta"):
        trunk = ResNet50(3)
    assert {key: tuple(value.shape) for key, value in trunk.state_dict().items()} == PUBLIC


def test_a_file_of_the_public_format_and_size_loads(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    content = {
        key: torch.rand(shape, generator=generator) if shape else torch.tensor(7)
        for key, shape in {**PUBLIC, "fc.weight": (1000, 2048), "fc.bias": (1000,)}.items()
    }
    file = saved(content, tmp_path)
    net = SemanticFPN(3, 1, weights=file)
    Path(file).unlink()  # 100 MB
    assert_loaded(net.trunk, content)
    assert net.trunk.bn1.num_batches_tracked == 7


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


FORMS: dict[str, Callable[[State], Any]] = {
    "as it is": lambda state: state,
    "without its classifier": lambda state: {k: v for k, v in state.items() if not k.startswith("fc.")},
    "without counters": without_counters,
    "of a network on many devices": lambda state: {f"module.{k}": v for k, v in state.items()},
    "wrapped": lambda state: {"epoch": 90, "state_dict": state, "best": 0.76},
    "wrapped, of many devices": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "wrapped as a model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "in half precision": lambda state: {k: v.half() if v.ndim else v for k, v in state.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False])  # torch wrote other files before 1.6
def test_files_of_every_usual_form_load(form: str, zipped: bool, state: State, tmp_path: Path) -> None:
    trunk = small()
    content = FORMS[form](state)
    pretrained.load(trunk, saved(content, tmp_path, _use_new_zipfile_serialization=zipped))
    half = form == "in half precision"
    expected = {k: v.half().float() for k, v in state.items() if v.ndim} if half else state
    assert_loaded(trunk, without_counters(expected))
    counted = 0 if form == "without counters" else state["bn1.num_batches_tracked"]
    assert trunk.bn1.num_batches_tracked == counted


def test_for_gray_images_the_colours_are_summed(state: State, tmp_path: Path) -> None:
    gray, colour = small(1), small(3)
    file = saved(state, tmp_path)
    pretrained.load(gray, file)
    pretrained.load(colour, file)
    image = draw(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(gray.conv1(image), colour.conv1(image.expand(-1, 3, -1, -1)))
    assert_loaded(gray, {key: value for key, value in state.items() if key != "conv1.weight"})


def test_a_home_folder_is_found(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(state, tmp_path)
    trunk = small()
    pretrained.load(trunk, "~/weights.pth")
    assert_loaded(trunk, state)


# What is refused


def test_no_file(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "none.pth")).startswith("model.weights: there is no file FILE;")
    assert refusal(str(tmp_path)).startswith("model.weights: there is no file FILE;")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut", b"\x80\x02}q\x00."])
def test_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    assert refusal(str(file)).startswith("model.weights FILE is no file of weights, or a damaged one")


def test_a_cut_file(state: State, tmp_path: Path) -> None:
    file = Path(saved(state, tmp_path))
    file.write_bytes(file.read_bytes()[:-3000])
    assert "is no file of weights, or a damaged one" in refusal(str(file))


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="no file that nobody can read")
def test_a_file_that_cannot_be_read() -> None:
    message = "model.weights FILE cannot be read (Input/output error): a ResNet-50 checkpoint would work."
    assert refusal("/proc/self/mem") == message


class Planted:
    """Touches a file when it is unpickled by a careless reader."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_executed(zipped: bool, state: State, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    file = saved({**state, "extra": Planted(trap)}, tmp_path, _use_new_zipfile_serialization=zipped)
    assert "holds Python objects" in refusal(file)
    assert not trap.exists()
    file = saved(small(), tmp_path, _use_new_zipfile_serialization=zipped)  # a whole network, as some save it
    assert "save the network's state_dict() alone" in refusal(file)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([torch.zeros(2)], "holds a list"),
        (torch.zeros(2), "holds a Tensor"),
        ({}, "holds an empty dictionary"),
        ({"state_dict": {}}, "holds an empty dictionary"),
        ({"epoch": 3, "weights": {"a": torch.zeros(1)}}, "holds 'epoch', which is of type int and not"),
        ({1: torch.zeros(2)}, "holds 1, which is of type Tensor and not a named tensor"),
    ],
)
def test_no_state_dictionary(content: Any, what: str, tmp_path: Path) -> None:
    assert what in refusal(saved(content, tmp_path))


def test_missing_and_surplus_keys_are_named(state: State, tmp_path: Path) -> None:
    lacking = {key: value for key, value in state.items() if not key.startswith("layer4.2.")}
    message = refusal(saved(lacking, tmp_path))
    assert "lacks 15 keys (layer4.2.conv1.weight, layer4.2.bn1.weight, layer4.2.bn1.bias, …);" in message
    more = {**state, "layer3.6.conv1.weight": torch.zeros(1)}
    assert "it has the key layer3.6.conv1.weight;" in refusal(saved(more, tmp_path))
    other = {f"backbone.{key}": value for key, value in state.items()}
    message = refusal(saved(other, tmp_path))
    assert "lacks 265 keys (conv1.weight, " in message
    assert "and has 320 keys (backbone.conv1.weight, " in message
    renamed = {key.replace("downsample", "shortcut"): value for key, value in state.items()}
    assert "layer1.0.downsample.0.weight" in refusal(saved(renamed, tmp_path))


def test_wrong_shapes_are_named(state: State, tmp_path: Path) -> None:
    state["layer2.0.conv2.weight"] = torch.zeros(4, 4, 1, 1)
    message = refusal(saved(state, tmp_path))
    assert "layer2.0.conv2.weight is 4×4×1×1 there and must be 4×4×3×3" in message
    state["conv1.weight"] = torch.zeros(())
    assert "conv1.weight is a single number there" in refusal(saved(state, tmp_path))


def test_a_network_of_another_width_is_refused(state: State, tmp_path: Path) -> None:
    message = refusal(saved(state, tmp_path), ResNet50(3, 4))
    assert "conv1.weight is 2×3×7×7 there and must be 4×3×7×7" in message


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels_are_refused(channels: int, state: State, tmp_path: Path) -> None:
    message = refusal(saved(state, tmp_path), small(channels))
    assert f"is for images of 3 channels, and these have {channels}: images of 3 channels or of 1" in message


# A run


def flags(root: Path, *more: str) -> list[str]:
    shared = [flag for flag in FAST if not flag.startswith("--model.")]
    return [
        "--data.root", str(root), *shared, "--model.name=semantic_fpn", f"--model.base_width={WIDTH}",
        "--model.pyramid_width=4", "--watch.train=0", "--watch.val=0", *more,
    ]  # fmt: skip


def stopped_after(out: Path, epoch: int) -> threading.Thread:
    """Ask a run to stop as a user would, once an epoch is recorded."""

    def ask() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if (out / "events.jsonl").exists() and len(RunReader(out).epochs()) >= epoch:
                (out / "stop").touch()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_run_goes_on_and_predicts_without_the_file(
    vessels: Path, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(saved(state, tmp_path))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    asked = stopped_after(out, 1)
    given = flags(vessels, f"--model.weights={file.name}", "--training.epochs=500")
    assert train.main([*given, "--out", str(out)]) == 0
    asked.join()
    assert RunReader(out).status() == "stopped"
    config, _ = resolve([read_file(out / "config.toml")])
    assert isinstance(config.model, Settings)
    assert config.model.weights == str(file)
    monkeypatch.chdir("/")
    file.unlink()

    done = len(RunReader(out).epochs())
    asked = stopped_after(out, done + 1)
    assert train.main(["--resume", str(out), "--quiet"]) == 0
    asked.join()
    assert len(RunReader(out).epochs()) > done

    image = demo_pair(0, size=64, seed=9)[0][:40, :48, None]
    p = Trained.open(out, device="cpu").probability(image)
    assert p.shape == (1, 40, 48)
    assert np.isfinite(p).all()


def test_a_run_starts_from_the_file_and_a_resumed_one_does_not_need_it(state: State, tmp_path: Path) -> None:
    file = saved(state, tmp_path)
    config = resolved(weights=file)
    net = build_network(config, 3, 1, torch.device("cpu"))
    assert isinstance(net, SemanticFPN)
    assert_loaded(net.trunk, state)
    Path(file).unlink()
    assert isinstance(build_network(config, 3, 1, torch.device("cpu"), pretrained=False), SemanticFPN)
    with pytest.raises(InputError, match="there is no file"):
        build_network(config, 3, 1, torch.device("cpu"))


def resolved(**model: Any) -> RunConfig:
    shared = {"name": "semantic_fpn", "base_width": WIDTH, "pyramid_width": 4}
    return resolve([Layer("test", {"model": {**shared, **model}})])[0]


def test_a_wrong_file_is_refused_before_a_run_begins(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match="there is no file"):
        train.main([*flags(vessels, f"--model.weights={tmp_path}/none.pth"), "--out", str(out)])
    assert not out.exists()


def test_a_path_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, found in (("r50.pth", tmp_path / "r50.pth"), ("~/r50.pth", tmp_path / "home" / "r50.pth")):
        model = resolved(weights=given).located().model
        assert isinstance(model, Settings)
        assert model.weights == str(found)
    assert resolved().located().model == resolved().model
