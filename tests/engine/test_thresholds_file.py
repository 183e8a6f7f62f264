"""thresholds.json and calibration.npz: several writers, full disks, changes by hand."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine import calibration, thresholds_file
from engine.calibration import Calibration, Predicted
from engine.errors import InputError
from engine.thresholds import gather
from engine.thresholds_file import ClassEntry, Entry, named_rule

ROOT = Path(engine.__file__).parents[1]
MADE = Predicted("best", 6, "abc", {"tile": 64})


def entry(rule: str = "cls", threshold: float = 0.25, made: str = "0", words: str = "In 90 % …") -> Entry:
    each = ClassEntry(threshold=threshold, n=12, left_out=0, words=words)
    data = {"source": "calib split", "images": 12, "unit": "image"}
    return Entry(named_rule(rule), False, {"vessel": each}, MADE, data, made)


def images(count: int = 3, source: str = "calib split") -> Calibration:
    rng = np.random.default_rng(0)
    values = [[np.sort(rng.random(50, np.float32))] for _ in range(count)]
    return Calibration(gather([f"i{n}" for n in range(count)], ["vessel"], values), MADE, source)


WRITES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_thresholds_file import entry, images, thresholds_file
run, rule = Path(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    thresholds_file.write(run, entry(rule, made=str(number)), images(source=rule))
    kept = thresholds_file.read(run)[rule].made
    assert kept == str(number), (rule, number, kept)
"""


def test_of_several_processes_that_calibrate_at_once_none_loses_an_entry(tmp_path: Path) -> None:
    rules = ("cls", "conditional", "crc")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITES, str(Path(__file__).parent), str(tmp_path), rule], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rule in rules
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # They all begin at once.
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert said == [""] * len(rules)
    assert {name: each.made for name, each in thresholds_file.read(tmp_path).items()} == dict.fromkeys(
        rules, "39"
    )
    kept = calibration.read(tmp_path)
    assert kept is not None
    assert kept.source in rules
    assert {path.name for path in tmp_path.iterdir()} == {"thresholds.json", "calibration.npz", "lock.guard"}


def test_what_a_killed_process_was_writing_goes_with_the_next_writing(tmp_path: Path) -> None:
    for name in (".thresholds.json.ab12.new", ".calibration.npz.cd34.new", ".config.toml.new"):
        (tmp_path / name).write_text("half")
    thresholds_file.write(tmp_path, entry())
    assert {path.name for path in tmp_path.glob(".*")} == {".config.toml.new"}


FILLS = """
import errno, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_thresholds_file import entry, images, thresholds_file
words, count = "x" * int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    thresholds_file.write(Path(sys.argv[2]), entry(words=words), images(count))
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a process's files")
@pytest.mark.parametrize(("words", "count"), [(9, 100), (4000, 1)])
def test_where_one_file_has_no_room_both_stay_as_they_were(tmp_path: Path, words: int, count: int) -> None:
    thresholds_file.write(tmp_path, entry(), images(2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    asked = [sys.executable, "-c", FILLS, str(Path(__file__).parent), str(tmp_path), str(words), str(count)]
    done = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "EFBIG\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_images_that_cannot_be_joined_by_their_entry_do_not_replace_those_that_are_there(
    tmp_path: Path,
) -> None:
    thresholds_file.write(tmp_path, entry(), images(2))
    (tmp_path / "thresholds.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        thresholds_file.write(tmp_path, entry(), images(3))
    kept = calibration.read(tmp_path)
    assert kept is not None
    assert len(kept.lesions.names) == 2


def changed(path: Path, place: str, value: Any) -> str:
    """What reading says once the value at a place such as "classes.vessel.n" of cls is another."""
    content = json.loads(path.read_text("utf-8"))
    table = content["rules"]["cls"]
    *tables, last = place.split(".")
    for name in tables:
        table = table[name]
    if value is None:
        del table[last]
    else:
        table[last] = value
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError) as refused:
        thresholds_file.read(path.parent)
    return str(refused.value)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("classes.vessel.threshold", 5, 'has 5 as rules.cls.classes.vessel.threshold, but it should be a '
         'number from 0 to 1, or "inf"'),
        ("classes.vessel.threshold", -0.1, "-0.1 as rules.cls.classes.vessel.threshold, but it should be"),
        ("classes.vessel.threshold", "nan", 'from 0 to 1, or "inf"'),
        ("classes.vessel.threshold", "high",
         'has "high" as rules.cls.classes.vessel.threshold, but input should be a valid number'),
        ("classes.vessel.words", None, "lacks rules.cls.classes.vessel.words"),
        ("classes", {}, "has {} as rules.cls.classes, but dictionary should have at least 1 item"),
        ("rule.alpha", 3, "has 3 as rules.cls.rule.alpha, but input should be less than or equal to 1"),
        ("rule.name", "cld", "as rules.cls.rule, but input tag 'cld'"),
        ("rule", {"name": "crc", "alpha": 0.1}, "has an entry of the rule crc as rules.cls"),
        ("weights", "abc" * 50, "as rules.cls.weights, but input should be"),
        ("data.unit", None, "lacks rules.cls.data.unit"),
    ],
)  # fmt: skip
def test_what_was_changed_by_hand_is_refused_by_its_field(
    tmp_path: Path, place: str, value: Any, said: str
) -> None:
    thresholds_file.write(tmp_path, entry())
    message = changed(tmp_path / "thresholds.json", place, value)
    assert said in message
    assert message.startswith(str(tmp_path / "thresholds.json"))
    assert message.endswith("move the file away and calibrate again.")
    assert "validation error" not in message
    assert "_Entry" not in message
    assert len(message) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("threshold", [0.0, 1.0, math.inf])
def test_the_ends_of_the_range_are_thresholds(tmp_path: Path, threshold: float) -> None:
    thresholds_file.write(tmp_path, entry(threshold=threshold))
    assert thresholds_file.read(tmp_path)["cls"].thresholds == (threshold,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read ("), ("[1]", 'no table "rules"'), ('{"rules": []}', 'no table "rules"'),
        ('{"format": 9, "rules": {}}', "has format 9"),
        ('{"format": 1, "rules": {"cls": 3}}', "has 3 as rules.cls"),
    ],
)  # fmt: skip
def test_damage_is_noticed_before_images_are_predicted(tmp_path: Path, content: str, said: str) -> None:
    thresholds_file.check(tmp_path)
    (tmp_path / "thresholds.json").write_text(content, "utf-8")
    with pytest.raises(InputError) as refused:
        thresholds_file.check(tmp_path)
    assert said in str(refused.value)


def test_a_folder_in_which_nothing_can_be_written_is_noticed_before(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("no folder")
    thresholds_file.check(tmp_path, tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"nothing can be written in .*report \("):
        thresholds_file.check(tmp_path, tmp_path / "report")
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_run_is_noticed_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"nothing can be written in .*Permission denied"):
            thresholds_file.check(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_other_weights_of_the_same_epoch_are_told_from_those_of_another() -> None:
    again = MADE.differs(replace(MADE, weights="def"))
    assert again == "it was made with other weights, though these are also best's after epoch 6"
    assert "after epoch 6, and these are best's after epoch 9" in MADE.differs(
        replace(MADE, weights="def", epoch=9)
    )


def test_per_cent_are_told_from_shares() -> None:
    for value, hint in ((10.0, "so 10 % is 0.1"), (2.5, "so 2.5 % is 0.025")):
        with pytest.raises(InputError, match=f"--alpha {value} cannot be used: .*; shares are meant, {hint}"):
            named_rule("cls", {"alpha": value})
    with pytest.raises(InputError) as refused:
        named_rule("cls", {"alpha": -0.1})
    assert "%" not in str(refused.value)
