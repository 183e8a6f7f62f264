"""What calibrate says, and what uses its T: commands that work, what chose T, what is left out, promises."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import fast, write_pair

from engine import calibrate, calibration, evaluate, predict, thresholds_file, train
from engine.data.demo import demo_pair
from engine.errors import InputError
from engine.record import Progress, RunReader, RunWriter

COMMANDS = {"engine.predict": predict.main, "engine.evaluate": evaluate.main}
QUICK = ("--no-figures", "--alpha", "0.5", "--device", "cpu")


@pytest.fixture(scope="module")
def organs_run(organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two classes whose network sees resized images; not to be written into."""
    out = tmp_path_factory.mktemp("words") / "organs"
    flags = fast("--data.size=32", "--data.split=[0.3, 0.1, 0.4, 0.2]", "--modulation.name=none")
    assert train.main(["--data.root", str(organs), "--out", str(out), "--training.epochs=1", *flags]) == 0
    return out


@pytest.fixture
def two(organs_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(organs_run, tmp_path / "two"))


@pytest.fixture
def one(trained_run: Path) -> Path:
    """A run of one class, in a folder whose name has to be quoted."""
    return trained_run.rename(trained_run.with_name("a run"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, its lines joined."""
    return " ".join(capsys.readouterr().out.split())


def used(printed: str) -> list[list[str]]:
    """The commands after "use it:", in words."""
    lines = printed.partition("use it:")[2].splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith("python -m")]


def try_each(printed: str, image: Path, out: Path) -> list[str]:
    """Run the printed commands. Returns their names."""
    done = []
    for number, words in enumerate(used(printed)):
        name, *arguments = words[2:]
        given = [str(image) if word == "IMAGES" else word for word in arguments]
        if name == "engine.predict":
            given += ["--out", str(out / str(number))]
        assert (
            COMMANDS[name]([*given, "--device", "cpu", *["--no-figures"] * (name == "engine.evaluate")]) == 0
        )
        done.append(name.removeprefix("engine."))
    return done


def image_of(run: Path, root: Path, split: str = "test") -> Path:
    return root / "images" / f"{RunReader(run).info()['splits'][split][0]}.png"


@pytest.mark.parametrize(
    ("rule", "flags", "work", "note"),
    [
        ("cls", (), ["predict", "evaluate"], ""),
        ("dice", ("--checkpoint", "last"), ["predict", "evaluate"], ""),
        ("cls", ("--tile", "64"), ["predict"], "evaluate cannot use it, as it predicts with the run's own"),
        ("dice", ("--tile", "64", "--checkpoint", "last"), ["predict"], "(no --tile)"),
        ("cls", ("--tile", "1024", "--size", "trained"), ["predict", "evaluate"], ""),  # as the run has it
        ("cls", ("--split", "test"), ["predict", "evaluate"], ""),
    ],
)  # fmt: skip
def test_the_commands_that_are_printed_work(
    rule: str, flags: Sequence[str], work: list[str], note: str, one: Path, vessels: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    quick = QUICK if rule == "cls" else QUICK[:1]
    assert calibrate.main([str(one), "--rule", rule, *quick, *flags]) == 0
    printed = capsys.readouterr().out
    assert note in printed
    assert ("cannot use it" in printed) == bool(note)
    assert try_each(printed, image_of(one, vessels), tmp_path / "out") == work
    if note:  # and what is not printed would not
        with pytest.raises(InputError, match="no longer fits"):
            evaluate.main([str(one), "--threshold", rule])


def test_a_threshold_for_the_trained_size_is_for_evaluate(
    two: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(two), "--rule", "cls", *QUICK, "--size", "trained"]
    assert calibrate.main(asked) == 0
    printed = capsys.readouterr().out
    assert "predict cannot use it, as it decides at the images' own size (no --size)" in printed
    image = image_of(two, organs)
    assert try_each(printed, image, tmp_path / "out") == ["evaluate"]
    with pytest.raises(InputError, match="no longer fits"):
        predict.main([str(two), str(image), "--out", str(tmp_path / "own"), "--threshold", "cls"])
    # Neither predict nor evaluate: both have to be said, and nothing is printed to be typed.
    assert calibrate.main([*asked, "--tile", "64"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("cannot use it") == 2
    assert "use it:" not in printed


def test_without_test_images_evaluate_is_not_offered(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads((one / "run.json").read_text("utf-8"))
    info["splits"]["calib"] += info["splits"]["test"]
    info["splits"]["test"] = []
    (one / "run.json").write_text(json.dumps(info), "utf-8")
    assert calibrate.main([str(one), "--rule", "cls", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert [words[2] for words in used(printed)] == ["engine.predict"]
    assert "note: evaluate has nothing to score it on: the run" in printed
    assert "There are no test images to look at." in printed
    with pytest.raises(InputError, match="has no test images"):
        evaluate.main([str(one), "--threshold", "cls"])


def test_test_images_that_chose_t_do_not_pass_for_a_test(
    one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = RunReader(one).info()["splits"]["test"]
    assert calibrate.main([str(one), "--rule", "cls", *QUICK, "--split", "test"]) == 0
    assert "The test images chose T, so none is left to test it." in said(capsys)

    def warned() -> str:
        assert evaluate.main([str(one), "--threshold", "cls", "--no-figures"]) == 0
        report = json.loads((one / "report" / "test.json").read_text("utf-8"))
        text = said(capsys)
        assert report["chose_threshold"] == (tests if "no test of T" in text else [])
        return text

    assert (
        f"warning: a run: T was chosen by cls on {len(tests)} of these test images, so the scores there"
        in (warned())
    )
    # A file that an older version wrote has names, and no digests of images.
    path = one / thresholds_file.FILE
    content = json.loads(path.read_text("utf-8"))
    del content["rules"]["cls"]["data"]["digests"]
    path.write_text(json.dumps(content), "utf-8")
    assert "no test of T" in warned()
    # Calibrated on others, nothing is to be warned of; nor by a threshold of one's own.
    assert calibrate.main([str(one), "--rule", "cls", *QUICK]) == 0
    assert "no test of T" not in warned()
    assert evaluate.main([str(one), "--threshold", "0.5", "--no-figures"]) == 0
    assert "no test of T" not in said(capsys)
    assert "chose_threshold" not in json.loads((one / "report" / "test.json").read_text("utf-8"))


def test_validation_images_that_chose_t_do_not_pass_for_a_test(
    one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main([str(one), "--rule", "dice"]) == 0
    assert evaluate.main([str(one), "--threshold", "dice", "--no-figures", "--split", "val"]) == 0
    assert "T was chosen by dice on" in said(capsys)


def test_test_images_that_calibrated_are_counted(
    one: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = RunReader(one).info()["splits"]
    folder = tmp_path / "both"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number, name in enumerate([*splits["calib"], splits["test"][0]]):
            shutil.copy(vessels / kind / f"{name}.png", folder / kind / f"n{number}.png")
    assert calibrate.main([str(one), "--rule", "cls", *QUICK, "--data", str(folder)]) == 0
    assert "1 test image left out of the test: T is calibrated on it." in said(capsys)
    # Known by its pixels, whatever it was called there.
    assert evaluate.main([str(one), "--threshold", "cls", "--no-figures"]) == 0
    assert f"T was chosen by cls on {splits['test'][0]}, so the scores there" in said(capsys)


def test_images_without_lesion_are_said_to_be_left_out_or_to_count(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    for number in range(5):
        image, truth = demo_pair(number, size=64, seed=11)
        write_pair(folder, f"n{number}", image[:40, :48], truth[:40, :48].astype(np.uint8) * 255)
    for empty in ("n1", "n3"):
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(folder / "masks" / f"{empty}.png")
    asked = [str(one), "--rule", "cls", *QUICK, "--data", str(folder)]
    assert calibrate.main(asked) == 0
    text = said(capsys)
    assert "2 of 5 images have no lesion and are left out." in text
    assert "In at least 50 % of new images with a lesion from the same source" in text
    assert calibrate.main([*asked, "--count-empty"]) == 0
    text = said(capsys)
    assert "2 of 5 images have no lesion and count as kept." in text
    assert (
        "In at least 50 % of new images from the same source, at most 10 % of the lesion is missed." in text
    )
    assert "Images without a lesion count as kept. Calibrated on 5 images." in text
    # The window always leaves them out.
    kept = calibration.read(one)
    assert kept is not None
    assert "2 of 5 images have no lesion and are left out." in kept.notes


def test_one_promise_is_printed_once_and_says_what_missed_is(
    two: Path, tmp_path: Path, organs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(two), *QUICK]
    assert calibrate.main([*asked, "--rule", "cls", "--together"]) == 0
    text = said(capsys)
    assert text.count("In at least 50 %") == text.count("all classes together:") == 1
    assert "mean share missed of each image's worst class" in text
    assert "kept in" in text
    image = str(image_of(two, organs))
    assert predict.main([str(two), image, "--out", str(tmp_path / "out"), "--threshold", "cls"]) == 0
    assert said(capsys).count("In at least 50 %") == 1
    assert calibrate.main([*asked, "--rule", "cls"]) == 0
    text = said(capsys)
    assert text.count("In at least 50 %") == 2
    assert "worst" not in text


def test_crc_has_neither_the_column_nor_the_words_of_what_is_kept(
    one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main([str(one), "--rule", "crc", *QUICK]) == 0
    text = said(capsys)
    assert "kept" not in text
    assert "band" not in text
    assert "On the test split: mean share missed; mean precision at T, and at 0.5." in text


def test_of_a_run_that_still_trains_it_is_said_to_which_weights_t_belongs(
    one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = RunWriter.reopen(one, Progress())
    try:
        assert calibrate.main([str(one), "--rule", "cls", *QUICK]) == 0
    finally:
        trainer.release()
    epoch = thresholds_file.read(one)["cls"].predicted.epoch
    text = said(capsys)
    assert (
        f"The run still trains: T belongs to the weights of best after epoch {epoch}, and is refused" in text
    )
    assert calibrate.main([str(one), "--rule", "cls", *QUICK]) == 0
    assert "still trains" not in said(capsys)
