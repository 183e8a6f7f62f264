import multiprocessing
import pickle
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import forked, saves, saves_without_room
from torch import nn

from engine import checkpoint
from engine.errors import InputError


class Pickled:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        checkpoint.load(path)
    message = str(refused.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_training_state_comes_back_as_it_was(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network(torch.rand(1, 1, 5, 5)).sum().backward()
    optimizer.step()
    state = {
        "epoch": 3,
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "monitored": [0.5, float("nan"), float("inf")],
        "modulation": {"packed": torch.arange(9, dtype=torch.uint8), "nothing": None, "names": ("a", "b")},
    }
    path = tmp_path / "checkpoints" / "last"
    checkpoint.save(path, state)
    found = checkpoint.load(path)
    assert found.pop("format") == checkpoint.FORMAT
    assert found.keys() == state.keys()
    for key, value in network.state_dict().items():
        assert torch.equal(found["model"][key], value)
    assert torch.equal(
        found["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert [str(value) for value in found["monitored"]] == ["0.5", "nan", "inf"]
    assert torch.equal(found["modulation"]["packed"], torch.arange(9, dtype=torch.uint8))
    assert (found["modulation"]["nothing"], found["modulation"]["names"]) == (None, ("a", "b"))
    assert [item.name for item in path.parent.iterdir()] == ["last"]


def test_a_later_one_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path / "last", {"epoch": epoch})
    assert checkpoint.load(tmp_path / "last")["epoch"] == 2


def test_a_kill_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "last"
    for attempt in range(3):
        heard, said = multiprocessing.Pipe(duplex=False)
        saver = forked(saves, path, said)
        said.close()
        announced = [heard.recv()]
        time.sleep(0.013 * attempt)
        saver.kill()
        saver.join()
        with suppress(EOFError):
            while True:
                announced.append(heard.recv())
        found = checkpoint.load(path)
        # Of a checkpoint that was announced nothing is lost.
        assert found["epoch"] >= announced[-1]
        assert bool((found["model"] == found["epoch"]).all())
        assert {item.name for item in tmp_path.iterdir()} <= {"last", ".last.new"}
    checkpoint.save(path, {"epoch": 0})
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a process's files")
def test_a_full_disk_is_an_os_error_and_leaves_the_last_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "last"
    heard, said = multiprocessing.Pipe(duplex=False)
    process = forked(saves_without_room, path, said)
    process.join()
    assert process.exitcode == 0
    refused = heard.recv()
    assert len(refused) == 3
    assert None not in refused
    assert checkpoint.load(path)["epoch"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


def test_loading_executes_no_pickled_code(tmp_path: Path) -> None:
    evil, proof = tmp_path / "evil", tmp_path / "executed"
    torch.save({"format": checkpoint.FORMAT, "model": Pickled(proof)}, evil)
    assert f"{evil} is no checkpoint of this program: one in a run's folder" in refusal(evil)
    evil.write_bytes(pickle.dumps({"format": checkpoint.FORMAT, "model": Pickled(proof)}, protocol=2))
    refusal(evil)
    assert not proof.exists()


def test_no_file_means_no_epoch_yet(tmp_path: Path) -> None:
    assert "has not finished an epoch yet" in refusal(tmp_path / "last")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last").write_bytes(content)
    refusal(tmp_path / "last")


def test_a_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    refusal(tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_in_a_sentence(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last"
    checkpoint.save(path, {"model": torch.rand(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cannot be read; it may be damaged" in refusal(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last"
    for content in ({"format": 99}, {"model": torch.zeros(1)}, [1, 2], torch.zeros(3)):
        torch.save(content, path)
        assert f"no checkpoint of format {checkpoint.FORMAT}" in refusal(path)
