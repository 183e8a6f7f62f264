"""Calibrating runs: thresholds against a brute force, files, what is printed, what is refused."""

import errno
import json
import math
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support import FAST, write_pair

from engine import calibrate, calibration, checkpoint, evaluate, fingerprint, predict, thresholds_file, train
from engine.data.demo import demo_pair
from engine.errors import InputError
from engine.record import RunReader
from engine.thresholds import cls_threshold, crc_threshold, critical_threshold
from engine.thresholds_file import RULES
from engine.trained import Trained

MUCH = "--data.split=[0.3, 0.1, 0.4, 0.2]"
"""Leaves 8 of 20 images for calibration: enough for α = 0.2, which needs 4."""


@pytest.fixture(scope="session")
def vessels_run(vessels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that left 8 images for calibration; not to be written into."""
    out = tmp_path_factory.mktemp("calibrate") / "vessels"
    arguments = ["--data.root", str(vessels), "--out", str(out), "--training.epochs=3", MUCH, *FAST]
    assert train.main(arguments) == 0
    return out


@pytest.fixture(scope="session")
def organs_run(organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two exclusive classes, with 5 images for calibration; not to be written into."""
    out = tmp_path_factory.mktemp("calibrate") / "organs"
    arguments = ["--data.root", str(organs), "--out", str(out), "--training.epochs=3", *FAST]
    assert train.main([*arguments, MUCH, "--modulation.name=none"]) == 0
    return out


@pytest.fixture
def run(vessels_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(vessels_run, tmp_path / "run"))


@pytest.fixture
def two(organs_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(organs_run, tmp_path / "two"))


def lesions(run: Path, root: Path, split: str, cls: int = 1) -> list[np.ndarray]:
    """Lesion probabilities of a split's images, from the files."""
    trained = Trained.open(run, device="cpu")
    found = []
    for name in RunReader(run).info()["splits"][split]:
        image = np.asarray(Image.open(root / "images" / f"{name}.png"))
        truth = np.asarray(Image.open(root / "masks" / f"{name}.png"))
        truth = truth > 0 if truth.max() > 2 else truth == cls
        p = trained.probability(image if image.ndim == 3 else image[..., None])
        found.append(p[cls - 1][truth])
    return found


def saved(run: Path, rule: str) -> dict:
    return json.loads((run / "thresholds.json").read_text("utf-8"))["rules"][rule]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as raised:
        call()
    return str(raised.value)


def new_images(folder: Path, count: int, seed: int = 11) -> Path:
    for number in range(count):
        image, truth = demo_pair(number, size=64, seed=seed)
        write_pair(folder, f"n{number:02d}", image[:40, :48], truth[:40, :48].astype(np.uint8) * 255)
    return folder


def test_the_threshold_is_that_of_the_rule_and_of_masks(
    run: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main([str(run), "--rule", "cls", "--epsilon", "0.1", "--alpha", "0.2"]) == 0
    printed = capsys.readouterr().out
    each = lesions(run, vessels, "calib")
    threshold = cls_threshold([critical_threshold(values, 0.1) for values in each], 0.2)
    assert 0 < threshold < 1
    assert threshold == np.float32(threshold)
    entry = saved(run, "cls")
    assert entry["guarantee"] is True
    assert entry["rule"] == {"name": "cls", "epsilon": 0.1, "alpha": 0.2}
    found = entry["classes"]["foreground"]
    assert found["threshold"] == threshold
    assert (found["n"], found["left_out"], found["details"]["rank"], found["details"]["needed"]) == (
        8,
        0,
        1,
        4,
    )
    assert "in at least 80 % of new images" in found["words"].lower()
    assert "of the lesion is missed" in found["words"]
    assert "at most 10 %" in found["words"]
    assert found["words"] in " ".join(printed.split())
    assert "--threshold cls" in printed

    # What the test split shows is what counting gives.
    shares = [float((values < threshold).sum()) / values.size for values in lesions(run, vessels, "test")]
    assert found["test"]["n"] == len(shares) == 4
    assert found["test"]["kept"] == sum(share <= 0.1 for share in shares)
    assert found["test"]["fnr"] == pytest.approx(np.mean(shares))
    assert (run / "report" / "guarantee-cls.png").stat().st_size > 10_000

    # predict and evaluate decide by it, exactly.
    new = new_images(tmp_path / "new", 1) / "images" / "n00.png"
    out = tmp_path / "out"
    assert predict.main([str(run), str(new), "--out", str(out), "--threshold", "cls"]) == 0
    assert found["words"] in capsys.readouterr().out
    p = np.squeeze(tifffile.imread(out / "n00_probability.tif"))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "n00_mask.png")) > 0, p >= threshold)
    assert evaluate.main([str(run), "--threshold", "cls", "--no-figures"]) == 0
    report = json.loads((run / "report" / "test.json").read_text("utf-8"))
    assert "cls (epsilon 0.1, alpha 0.2)" in report["decision"]
    assert report["scores"]["mean"]["fnr"]["value"] == pytest.approx(np.mean(shares))
    assert report["scores"]["mean"]["precision"]["value"] == pytest.approx(found["test"]["precision"])


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_chosen_kept_and_used(
    rule: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alpha = ["--alpha", "0.3"] if "alpha" in RULES[rule].model_fields else []
    assert calibrate.main([str(run), "--rule", rule, *alpha, "--no-figures"]) == 0
    printed = capsys.readouterr().out
    entry = thresholds_file.read(run)[rule]
    assert entry.rule.name == rule
    assert entry.guarantees == (rule in ("cls", "conditional", "crc"))
    assert ("No guarantee" in printed) != entry.guarantees
    assert (run / "calibration.npz").exists() == entry.guarantees
    new = new_images(tmp_path / "new", 1) / "images"
    assert predict.main([str(run), str(new), "--out", str(tmp_path / "out"), "--threshold", rule]) == 0
    assert f"by {rule}" in capsys.readouterr().out


def test_crc_is_that_of_all_images(run: Path, vessels: Path) -> None:
    assert calibrate.main([str(run), "--rule", "crc", "--alpha", "0.25", "--no-figures"]) == 0
    found = saved(run, "crc")["classes"]["foreground"]
    assert found["threshold"] == crc_threshold(lesions(run, vessels, "calib"), 0.25) > 0
    assert "on average" in found["words"].lower()


def test_promises_are_compared_by_their_name_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = ["--epsilon", "0.1", "--alpha", "0.25", "--delta", "0.3", "--no-figures"]
    for rule, unused in (("cls", {"delta"}), ("crc", {"epsilon", "delta"}), ("conditional", set())):
        assert calibrate.main([str(run), "--rule", rule, *shares]) == 0
        printed = capsys.readouterr().out
        for name in ("epsilon", "alpha", "delta"):
            assert (f"has no {name}" in printed) == (name in unused)
    assert saved(run, "crc")["rule"] == {"name": "crc", "alpha": 0.25}


def test_what_the_window_reads_gives_the_same_threshold(run: Path, vessels: Path) -> None:
    assert calibrate.main([str(run), "--rule", "conditional", "--alpha", "0.4", "--no-figures"]) == 0
    kept = calibration.read(run)
    assert kept is not None
    for stored, own in zip(kept.lesions.values, lesions(run, vessels, "calib"), strict=True):
        np.testing.assert_array_equal(stored[0], np.sort(own))
    entry = thresholds_file.read(run)["conditional"]
    assert entry.rule.bind()(kept.lesions.units(0)).threshold == entry.thresholds[0]
    assert kept.predicted == entry.predicted
    assert kept.predicted.differs(Trained.open(run, device="cpu").predicted()) == ""


def test_the_wish_for_recall_is_met_by_evaluating_the_same_images(run: Path) -> None:
    assert calibrate.main([str(run), "--rule", "recall", "--wanted", "0.8"]) == 0
    assert evaluate.main([str(run), "--threshold", "recall", "--split", "val", "--no-figures"]) == 0
    report = json.loads((run / "report" / "val.json").read_text("utf-8"))
    entry = saved(run, "recall")
    reached = report["scores"]["mean"]["recall"]["value"]
    assert reached >= 0.8
    assert reached == pytest.approx(entry["classes"]["foreground"]["details"]["recall"])
    assert entry["guarantee"] is False
    assert entry["data"]["source"] == "val split"


def test_too_few_images_change_nothing_and_say_how_many_would_do(run: Path, two: Path) -> None:
    asked = [str(run), "--rule", "cls", "--no-figures"]
    assert calibrate.main([*asked, "--alpha", "0.2"]) == 0
    files = [run / "thresholds.json", run / "calibration.npz"]
    before = [file.read_bytes() for file in files]
    said = refused(lambda: calibrate.main(asked))
    assert "cls (epsilon 0.1, alpha 0.1) needs 9 calibration images with a lesion" in said
    assert "the calib split has 8: --data FOLDER with as many, or --alpha 0.1112 with these" in said
    assert [file.read_bytes() for file in files] == before
    said = refused(lambda: calibrate.main([*asked[:2], "conditional", "--delta", "0.05"]))
    assert "needs 29 calibration images" in said
    alpha = said.partition("--alpha ")[2].partition(" ")[0]
    assert "no number" in refused(lambda: calibrate.main([*asked, "--alpha", "0"]))
    # What is said to do does, and not much less.
    for asks in (["cls", "--alpha", "0.1112"], ["conditional", "--delta", "0.05", "--alpha", alpha]):
        assert calibrate.main([*asked[:2], *asks, "--no-figures"]) == 0
        asks[-1] = str(float(asks[-1]) - 2e-4)
        assert "needs" in refused(lambda asks=asks: calibrate.main([*asked[:2], *asks]))
    # Of several classes one is enough to refuse.
    said = refused(lambda: calibrate.main([str(two), "--rule", "crc", "--alpha", "0.1"]))
    assert re.search(r"needs 9 .* has 5 for the class \w+: ", said)


def test_a_promise_of_nothing_predicts_nothing(run: Path, tmp_path: Path) -> None:
    assert (
        calibrate.main([str(run), "--rule", "cls", "--epsilon", "1", "--no-figures", "--alpha", "0.2"]) == 0
    )
    assert saved(run, "cls")["classes"]["foreground"]["threshold"] == "inf"
    assert thresholds_file.read(run)["cls"].thresholds == (math.inf,)
    new = new_images(tmp_path / "new", 1) / "images"
    assert predict.main([str(run), str(new), "--out", str(tmp_path / "out"), "--threshold", "cls"]) == 0
    assert not np.asarray(Image.open(tmp_path / "out" / "n00_mask.png")).any()


def test_images_without_lesion_are_left_out_unless_they_are_wanted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_images(tmp_path / "new", 5)
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(folder / "masks" / "n03.png")
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--data", str(folder), "--no-figures"]
    assert calibrate.main(asked) == 0
    assert "1 of 5 images has no lesion and is left out." in capsys.readouterr().out
    found = saved(run, "cls")["classes"]["foreground"]
    assert (found["n"], found["left_out"]) == (4, 1)
    assert saved(run, "cls")["data"]["source"] == str(folder)
    assert calibrate.main([*asked, "--count-empty"]) == 0
    found = saved(run, "cls")["classes"]["foreground"]
    assert (found["n"], found["left_out"]) == (5, 0)


def test_groups_are_one_unit_each(run: Path, tmp_path: Path) -> None:
    folder = new_images(tmp_path / "new", 8)
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--data", str(folder), "--no-figures"]
    one = [*asked, "--group", r"n(\d)[0-9]"]
    assert "needs 4 calibration groups with a lesion" in refused(lambda: calibrate.main(one))
    assert calibrate.main([*one, "--alpha", "0.5"]) == 0
    grouped = saved(run, "cls")
    assert (grouped["data"]["unit"], grouped["classes"]["foreground"]["n"]) == ("group", 1)
    # Two by two: of each pair the smaller critical threshold counts.
    (folder / "index.csv").write_text("stem,patient\n" + "".join(f"n{i:02d},p{i // 2}\n" for i in range(8)))
    assert calibrate.main(asked) == 0
    paired = saved(run, "cls")
    assert (paired["data"]["unit"], paired["classes"]["foreground"]["n"]) == ("group", 4)
    kept = calibration.read(run)
    assert kept is not None
    critical = [critical_threshold(image[0], 0.1) for image in kept.lesions.values]
    pairs = [min(critical[i], critical[i + 1]) for i in range(0, 8, 2)]
    assert paired["classes"]["foreground"]["threshold"] == cls_threshold(pairs, 0.2)
    assert calibrate.main([*asked, "--unit", "image"]) == 0
    assert saved(run, "cls")["classes"]["foreground"]["n"] == 8


def test_several_classes_have_a_threshold_each_or_one_together(
    two: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(two), "--rule", "cls", "--alpha", "0.25"]
    assert calibrate.main(asked) == 0
    each = [lesions(two, organs, "calib", cls) for cls in (1, 2)]
    critical = [[critical_threshold(values, 0.1) for values in per] for per in each]
    entry = thresholds_file.read(two)["cls"]
    assert entry.thresholds == tuple(cls_threshold(per, 0.25) for per in critical)
    assert not entry.together
    image = str(organs / "images" / f"{RunReader(two).info()['splits']['test'][0]}.png")
    assert predict.main([str(two), image, "--out", str(tmp_path / "out"), "--threshold", "cls"]) == 0
    p = tifffile.imread(next((tmp_path / "out").glob("*_probability.tif")))
    for number, (name, threshold) in enumerate(zip(entry.classes, entry.thresholds, strict=True)):
        own = next((tmp_path / "out").glob(f"*_mask_{name}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(own)) == 255, p[number] >= threshold)
    assert "own mask" in capsys.readouterr().out

    assert calibrate.main([*asked, "--together"]) == 0
    entry = thresholds_file.read(two)["cls"]
    assert entry.together
    assert set(entry.thresholds) == {cls_threshold(np.min(critical, axis=0), 0.25)}


def test_other_rules_stay_and_a_damaged_file_is_left_as_it_is(run: Path) -> None:
    assert calibrate.main([str(run), "--rule", "dice"]) == 0
    assert calibrate.main([str(run), "--rule", "precision", "--wanted", "0.5"]) == 0
    assert set(thresholds_file.read(run)) == {"dice", "precision"}
    path = run / "thresholds.json"
    half = path.read_text("utf-8")[:200]
    path.write_text(half, "utf-8")
    for command in (
        lambda: calibrate.main([str(run), "--rule", "dice"]),
        lambda: evaluate.main([str(run), "--threshold", "dice"]),
    ):
        with pytest.raises(InputError, match=r"thresholds\.json cannot be read .* move it away"):
            command()
    assert path.read_text("utf-8") == half


def test_a_calibration_that_no_longer_fits_is_refused(run: Path, tmp_path: Path) -> None:
    new = str(new_images(tmp_path / "new", 1) / "images")
    with pytest.raises(InputError, match=r"has no threshold by the rule cls: python -m engine\.calibrate"):
        evaluate.main([str(run), "--threshold", "cls"])
    assert calibrate.main([str(run), "--rule", "cls", "--alpha", "0.2", "--no-figures"]) == 0
    out = ["--out", str(tmp_path / "out"), "--threshold", "cls"]
    with pytest.raises(InputError, match=r"no longer fits .*tile"):
        predict.main([str(run), new, *out, "--tile", "64"])
    state = checkpoint.load(run / "checkpoints" / "best")
    weights = state["model"]
    first = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[first] = torch.nextafter(weights[first], torch.tensor(2.0))
    checkpoint.save(run / "checkpoints" / "best", state)
    with pytest.raises(InputError, match=r"no longer fits .*weights"):
        predict.main([str(run), new, *out])
    assert not (tmp_path / "out").exists()


def test_images_that_were_trained_on_are_refused(run: Path, vessels: Path, tmp_path: Path) -> None:
    info = RunReader(run).info()["splits"]
    for part, words in (("train", "trained on"), ("val", "validated on")):
        folder = new_images(tmp_path / part, 4)
        # Under another name, and in another format.
        Image.open(vessels / "images" / f"{info[part][0]}.png").save(folder / "images" / "n02.png")
        with pytest.raises(InputError, match=rf"n02 of .* was {words}.*never seen"):
            calibrate.main([str(run), "--rule", "cls", "--data", str(folder)])
    with pytest.raises(InputError, match=r"validated on|trained on"):
        calibrate.main([str(run), "--rule", "crc", "--data", str(vessels)])
    assert not (run / "thresholds.json").exists()


def test_a_copy_in_another_type_is_known_again(run: Path, vessels: Path, tmp_path: Path) -> None:
    name = RunReader(run).info()["splits"]["train"][0]
    pixels = np.asarray(Image.open(vessels / "images" / f"{name}.png"))
    for ending, kind in (("npy", np.float32), ("tif", np.uint16)):
        folder = new_images(tmp_path / ending, 4)
        (folder / "images" / "n02.png").unlink()
        if ending == "npy":
            np.save(folder / "images" / "n02.npy", pixels.astype(kind))
        else:
            tifffile.imwrite(folder / "images" / "n02.tif", pixels.astype(kind))
        with pytest.raises(InputError, match=r"n02 of .* was trained on"):
            calibrate.main([str(run), "--rule", "cls", "--data", str(folder)])


def test_runs_that_know_no_pixels_know_names_and_older_runs_their_own_digests(
    run: Path, vessels: Path, tmp_path: Path
) -> None:
    info = json.loads((run / "run.json").read_text("utf-8"))
    train, val = (info["splits"][part][0] for part in ("train", "val"))
    folder = new_images(tmp_path / "new", 4)
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--data", str(folder), "--no-figures"]
    for kind in ("images", "masks"):
        (folder / kind / "n02.png").rename(folder / kind / f"{train}.png")
    # The name alone says nothing where the pixels are known.
    assert calibrate.main(asked) == 0
    # An older run's digests are of the type that its files had.
    wide = np.asarray(Image.open(folder / "images" / f"{train}.png")).astype(np.uint16)
    (folder / "images" / f"{train}.png").unlink()
    tifffile.imwrite(folder / "images" / f"{train}.tif", wide)
    older = sha256(f"<u2 {(*wide.shape, 1)}\n".encode() + wide.tobytes()).hexdigest()
    assert older != fingerprint.image(wide[..., None])
    info["digests"]["train"][train] = older
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    assert f"{train} of {folder} is an image that the run {run} was trained on" in refused(
        lambda: calibrate.main(asked)
    )
    # The oldest have none.
    del info["digests"]
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    assert f"{train} of {folder} is an image" in refused(lambda: calibrate.main(asked))
    for path in [*folder.glob(f"*/{train}.*")]:
        path.rename(path.with_stem(val))
    assert f"{val} of {folder} is an image that the run {run} was validated on" in refused(
        lambda: calibrate.main(asked)
    )
    for path in [*folder.glob(f"*/{val}.*")]:
        path.rename(path.with_stem("other"))
    assert calibrate.main(asked) == 0


def moved(run: Path, vessels: Path, root: Path) -> Path:
    """The run's data in another place, where they can be changed."""
    shutil.copytree(vessels, root)
    path = run / "config.toml"
    path.write_text(path.read_text("utf-8").replace(json.dumps(str(vessels)), json.dumps(str(root))), "utf-8")
    return root


def test_without_the_runs_own_images_a_folder_calibrates_and_nothing_tests(
    run: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = moved(run, vessels, tmp_path / "moved")
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--no-figures"]
    folder = new_images(tmp_path / "new", 4)
    assert calibrate.main([*asked, "--data", str(folder)]) == 0
    assert saved(run, "cls")["classes"]["foreground"]["test"]["n"] == 4
    shutil.rmtree(root)
    assert "does not exist" in refused(lambda: calibrate.main(asked))
    capsys.readouterr()
    assert calibrate.main([*asked, "--data", str(folder)]) == 0
    assert "the test split is left out: " in capsys.readouterr().out
    found = saved(run, "cls")["classes"]["foreground"]
    assert (found["n"], found["test"]) == (4, {})


def test_an_image_counts_once_whatever_it_is_called(
    run: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_images(tmp_path / "new", 5)
    for kind in ("images", "masks"):
        shutil.copy(folder / kind / "n01.png", folder / kind / "n07.png")
    wide = np.asarray(Image.open(folder / "images" / "n03.png")).astype(np.uint16)
    tifffile.imwrite(folder / "images" / "n08.tif", wide)
    shutil.copy(folder / "masks" / "n03.png", folder / "masks" / "n08.png")
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--no-figures"]
    assert calibrate.main([*asked, "--data", str(folder)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"2 images (n07 is n01, n08 is n03) of {folder} left out: the same image counts once." in printed
    assert saved(run, "cls")["classes"]["foreground"]["n"] == 5
    assert saved(run, "cls")["data"]["names"] == ["n00", "n01", "n02", "n03", "n04"]
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(folder / "masks" / "n07.png")
    said = refused(lambda: calibrate.main([*asked, "--data", str(folder)]))
    assert f"n01 and n07 of {folder} are the same image with different masks" in said

    # The run's own splits, too.
    root = moved(run, vessels, tmp_path / "moved")
    first, second = RunReader(run).info()["splits"]["calib"][:2]
    for kind in ("images", "masks"):
        shutil.copy(root / kind / f"{first}.png", root / kind / f"{second}.png")
    assert calibrate.main(asked) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"1 image ({second} is {first}) of the calib split left out" in printed
    assert saved(run, "cls")["classes"]["foreground"]["n"] == 7


def test_groups_that_were_trained_on_do_not_calibrate(
    run: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, info = (run / "config.toml").read_text("utf-8"), RunReader(run).info()
    (run / "config.toml").write_text(config.replace("[data]\n", "[data]\ngroup = 'v(\\d\\d)'\n", 1), "utf-8")
    info["dataset"]["grouped"] = True
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    folder = new_images(tmp_path / "new", 20)
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--data", str(folder), "--no-figures"]
    # Patients 00 to 19 of two images: the run has seen 12 of them.
    for kind in ("images", "masks"):
        for number in range(20):
            (folder / kind / f"n{number:02d}.png").rename(folder / kind / f"p{number:02d}-2.png")
    seen = {name[1:] for part in ("train", "val") for name in info["splits"][part]}
    said = refused(lambda: calibrate.main(asked))
    assert "the run's data.group 'v(" in said
    assert "fits 0 of 20 images" in said
    assert "--group REGEX is for another folder" in said
    assert calibrate.main([*asked, "--group", r"p(\d\d)"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    some = ", ".join(sorted(seen)[:3])
    assert f"{len(seen)} groups ({some}, …) of {folder} left out: the run was trained or validated" in printed
    data = saved(run, "cls")["data"]
    assert data["names"] == [f"p{n:02d}-2" for n in range(20) if f"{n:02d}" not in seen]
    # Names of their own, or none.
    assert calibrate.main([*asked, "--group", r"(p\d\d)"]) == 0
    assert saved(run, "cls")["data"]["images"] == 20
    capsys.readouterr()
    assert calibrate.main([*asked, "--group", ""]) == 0
    assert "nothing says which in" in capsys.readouterr().out
    assert saved(run, "cls")["data"]["images"] == 20
    some = sorted(seen)[0]
    for path in folder.glob("*/*.png"):
        if path.stem != f"p{some}-2":
            path.unlink()
    said = refused(lambda: calibrate.main([*asked, "--group", r"p(\d\d)"]))
    assert "all images" in said
    assert f"1 group ({some})" in said
    # What cannot be told is said.
    moved(run, vessels, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    capsys.readouterr()
    assert calibrate.main([*asked, "--group", r"p(\d\d)", "--alpha", "0.5"]) == 0
    assert "were trained on cannot be told" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("colour", [True, False])
def test_a_folder_is_read_with_the_runs_channels(
    colour: bool, run: Path, two: Path, vessels: Path, organs: Path, tmp_path: Path
) -> None:
    its = two if colour else run
    folder, rng = tmp_path / "new", np.random.default_rng(0)
    for number in range(4):
        # Gray for the run of colour images, and the other way round.
        image = rng.integers(0, 255, (32, 32) if colour else (32, 32, 3)).astype(np.uint8)
        mask = rng.integers(0, 3 if colour else 2, (32, 32)).astype(np.uint8)
        write_pair(folder, f"n{number}", image, mask)
    asked = ["--rule", "cls", "--alpha", "0.5", "--data", str(folder), "--no-figures"]
    assert calibrate.main([str(its), *asked]) == 0
    kept, out = calibration.read(its), tmp_path / "out"
    assert kept is not None
    assert predict.main([str(its), str(folder / "images"), "--out", str(out)]) == 0
    for name, values in zip(kept.lesions.names, kept.lesions.values, strict=True):
        p = tifffile.imread(out / f"{name}_probability.tif").reshape(-1, 32, 32)
        truth = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        for cls, own in enumerate(values):
            np.testing.assert_array_equal(own, np.sort(p[cls][truth == cls + 1]))


def test_what_cannot_be_kept_is_noticed_before_images_are_looked_for(run: Path) -> None:
    asked = [str(run), "--rule", "cls", "--data", str(run / "nowhere")]
    assert "nowhere" in refused(lambda: calibrate.main(asked))
    shutil.rmtree(run / "report", ignore_errors=True)
    (run / "report").write_text("in the way")
    assert "nothing can be written in" in refused(lambda: calibrate.main(asked))
    (run / "thresholds.json").write_text("{", "utf-8")
    assert "thresholds.json cannot be read" in refused(lambda: calibrate.main(asked))


def test_a_full_disk_is_no_reason_to_resume(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError) as said, calibrate.room(tmp_path, ["thresholds.json"]):
        raise full
    assert "thresholds.json are written and whole, and only the figure is not" in str(said.value)
    with pytest.raises(PermissionError), calibrate.room(tmp_path, []):
        raise PermissionError(errno.EACCES, "no")


def test_test_images_that_calibrate_do_not_test(run: Path, vessels: Path, tmp_path: Path) -> None:
    splits = RunReader(run).info()["splits"]
    folder = tmp_path / "both"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for name in [*splits["calib"], *splits["test"][:1]]:
            shutil.copy(vessels / kind / f"{name}.png", folder / kind)
    asked = [str(run), "--rule", "cls", "--alpha", "0.2", "--data", str(folder), "--no-figures"]
    assert calibrate.main(asked) == 0
    found = saved(run, "cls")["classes"]["foreground"]
    assert (found["n"], found["test"]["n"]) == (9, len(splits["test"]) - 1)


def test_misuse_is_one_sentence(run: Path, two: Path, finished: Path, vessels: Path, organs: Path) -> None:
    def asked(*flags: str, of: Path = run) -> str:
        return refused(lambda: calibrate.main([str(of), *flags]))

    assert "--wanted is no setting of the rule cls: it goes with precision or recall" in asked(
        "--rule", "cls", "--wanted", "0.9"
    )
    assert "--epsilon is no setting of the rule dice" in asked("--rule", "dice", "--epsilon", "0.1")
    assert "--epsilon 2.0 cannot be used" in asked("--rule", "cls", "--epsilon", "2")
    assert "cannot be used" in asked("--rule", "cls", "--alpha", "nan")
    assert "makes none" in asked("--rule", "dice", "--unit", "group")
    assert "not for the rule" in asked("--rule", "recall", "--split", "test")
    assert "validation images chose" in asked("--rule", "cls", "--split", "val")
    assert "leave one of the two out" in asked("--rule", "cls", "--split", "test", "--data", str(vessels))
    assert "classes" in asked("--rule", "cls", "--data", str(vessels), of=two)
    assert "nowhere" in asked("--rule", "cls", "--data", str(run / "nowhere"))
    assert "--data '' names no folder" in asked("--rule", "cls", "--data", "")
    for group, words in (("(", "is no regular expression"), ("x", "has 0 groups"), ("(x)", "fits 0 of 20")):
        said = asked("--rule", "cls", "--data", str(vessels), "--group", group)
        assert f"--group {group!r} {words}" in said
        assert "data." not in said
    assert "--data" in asked("--rule", "cls", "--data", str(run / "run.json"))
    assert "unknown --layout 'mine'" in asked("--rule", "cls", "--data", str(vessels), "--layout", "mine")
    assert "so 10 % is 0.1" in asked("--rule", "cls", "--alpha", "10")
    assert "such as its calib split" in asked("--rule", "cls", "--data", str(vessels))
    # 20 images leave 2 for calib by default; a run of fewer has none.
    info = json.loads((run / "run.json").read_text("utf-8"))
    info["splits"]["train"] += info["splits"].pop("calib")
    info["splits"]["calib"] = []
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    sentence = asked("--rule", "cls")
    assert "has no calib images" in sentence
    assert "--data FOLDER" in sentence
    said = asked("--rule", "cls", "--data", str(vessels))
    assert said.endswith("images that the run has never seen.")
    for text in ("0.5.1", "2", "clss"):
        assert "--threshold" in refused(lambda t=text: evaluate.main([str(run), "--threshold", t]))
