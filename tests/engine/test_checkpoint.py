import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import engine
from engine import checkpoint
from engine.errors import InputError

ROOT = Path(engine.__file__).parents[1]


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
    code = """
import sys, torch
from pathlib import Path
from engine import checkpoint
number, state = 0, torch.zeros(500_000)
while True:
    number += 1
    checkpoint.save(Path(sys.argv[1]), {"epoch": number, "model": state + number})
    print(number, flush=True)
"""
    path = tmp_path / "last"
    for attempt in range(3):
        saver = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert saver.stdout is not None
        saver.stdout.readline()
        time.sleep(0.013 * attempt)
        saver.kill()
        said = saver.communicate()[0].split()
        found = checkpoint.load(path)
        # Of a checkpoint that was announced nothing is lost.
        assert found["epoch"] >= max(1, *map(int, said), 1)
        assert bool((found["model"] == found["epoch"]).all())
        assert {item.name for item in tmp_path.iterdir()} <= {"last", ".last.new"}
    checkpoint.save(path, {"epoch": 0})
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a process's files")
def test_a_full_disk_is_an_os_error_and_leaves_the_last_one_whole(tmp_path: Path) -> None:
    code = """
import json, resource, sys, torch
from pathlib import Path
from engine import checkpoint
path = Path(sys.argv[1])
checkpoint.save(path, {"epoch": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
refused = []
for length in (100_000, 30_000, 24_900):  # refused in the middle, at the end, in the table of contents
    try:
        checkpoint.save(path, {"epoch": 2, "model": torch.zeros(length)})
    except OSError as error:
        refused.append(error.errno)
print(json.dumps(refused))
"""
    path = tmp_path / "last"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert len(json.loads(done.stdout)) == 3
    assert None not in json.loads(done.stdout)
    assert checkpoint.load(path)["epoch"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


def test_loading_executes_no_pickled_code(tmp_path: Path) -> None:
    evil, proof = tmp_path / "evil", tmp_path / "executed"
    torch.save({"format": checkpoint.FORMAT, "model": Pickled(proof)}, evil)
    assert refusal(evil) == f"{evil} is no checkpoint of this program."
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
