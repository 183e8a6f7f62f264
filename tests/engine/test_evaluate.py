"""The test tables: numbers against a count by hand, files, what is printed, refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label
from support import fast, write_pair

from engine import evaluate, train
from engine.errors import InputError
from engine.figures import Reliability
from engine.record import RunReader
from engine.tables import METRICS
from engine.trained import Trained


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_counting_pixels_gives(
    trained_run: Path, vessels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained_run), "--no-figures"]) == 0
    trained = Trained.open(trained_run, device="cpu")
    names = RunReader(trained_run).info()["splits"]["test"]
    expected: dict[str, list[float]] = {
        name: [] for name in ("dice", "fnr", "brier", "nll", "lesions", "lesions_detected")
    }
    for name in names:
        image = np.asarray(Image.open(vessels / "images" / f"{name}.png"))
        truth = np.asarray(Image.open(vessels / "masks" / f"{name}.png")) > 0
        p = trained.probability(image[..., None])[0].astype(np.float64)
        found, component = p >= 0.5, label(truth, connectivity=2)
        expected["dice"].append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
        expected["fnr"].append((truth & ~found).sum() / truth.sum())
        expected["brier"].append(((p - truth) ** 2).mean())
        expected["nll"].append(-np.log(np.where(truth, p, 1 - p).clip(1e-7)).mean())
        expected["lesions"].append(component.max())
        expected["lesions_detected"].append(len(np.unique(component[found & truth])))
    rows = [row for row in read_rows(trained_run / "report" / "test.csv") if row["class"] != "background"]
    assert [row["image"] for row in rows] == names
    for name, values in expected.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-9)
    saved = json.loads((trained_run / "report" / "test.json").read_text("utf-8"))
    dice = saved["scores"]["mean"]["dice"]
    assert dice["value"] == pytest.approx(np.mean(expected["dice"]))
    assert dice["count"] == len(names)
    lesions = saved["lesions"]["foreground"]
    assert lesions == {"detected": sum(expected["lesions_detected"]), "total": sum(expected["lesions"])}
    found = saved["scores"]["mean"]["lesion_recall"]["value"]
    assert found == lesions["detected"] / lesions["total"]
    assert saved["decision"] == "p ≥ 0.5"
    printed = capsys.readouterr().out
    assert f"{100 * np.mean(expected['dice']):.2f}" in printed
    assert f"{np.mean(expected['nll']):.4f}" in printed


def test_the_json_file_has_what_the_manual_says(trained_run: Path) -> None:
    assert evaluate.main([str(trained_run), "--no-figures"]) == 0
    saved = json.loads((trained_run / "report" / "test.json").read_text("utf-8"))
    assert list(saved) == [
        "split", "size", "decision", "checkpoint", "epoch", "images", "scores", "lesions", "reliability",
        "inference",
    ]  # fmt: skip
    for entries in saved["scores"].values():
        assert list(entries) == list(METRICS)
        for entry in entries.values():
            assert list(entry) == ["value", "margin", "count", "skipped"]
            assert entry["count"] + entry["skipped"] == saved["images"]
    made = Reliability.of(saved["reliability"]["foreground"])
    assert made.count.shape == (15,)
    assert made.count.sum() == saved["images"] * 40 * 48
    assert (made.truth <= made.count).all()
    assert 0 <= made.ece <= saved["scores"]["foreground"]["ece"]["value"] + 1e-12
    time = saved["inference"]
    assert list(time) == [
        "median_ms", "repeats", "images", "depth", "height", "width", "device", "device_name", "threads"
    ]  # fmt: skip
    assert (time["depth"], time["height"], time["width"], time["device"]) == (None, 40, 48, "cpu")
    assert time["median_ms"] > 0


def test_over_the_threshold_stand_the_tables_of_each_threshold(trained_run: Path) -> None:
    evaluate.main([str(trained_run), "--no-figures", "--threshold=0.35"])
    report = trained_run / "report"
    rows = read_rows(report / "test-thresholds.csv")
    assert list(rows[0]) == ["image", "class", "threshold", "dice", "precision", "recall"]
    assert [float(row["threshold"]) for row in rows[:19]] == [round(0.05 * n, 2) for n in range(1, 20)]
    assert {row["class"] for row in rows} == {"foreground"}
    at = [row for row in rows if float(row["threshold"]) == 0.35]
    images = [row for row in read_rows(report / "test.csv") if row["class"] == "foreground"]
    assert len(at) == len(images)
    for one, other in zip(at, images, strict=True):
        assert {name: one[name] for name in ("image", "dice", "precision", "recall")}.items() <= other.items()


def test_several_runs_share_tables_that_fit_a_terminal_and_have_figures(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_run.rename(trained_run.with_name("2026-01-02-030405-chasedb1-smm_v2"))
    assert evaluate.main([str(run), str(run), "--split=val"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(run.name) for line in lines) == 2 * len(evaluate.TABLES)
    assert max(map(len, lines)) <= 120
    headings = [line for line in lines if line.startswith("run ")]
    for metric in METRICS.values():
        assert sum(f" {metric.heading}" in line for line in headings) == 1
    assert headings[-1].endswith("ms an image ↓")
    assert sum(line.startswith("ms an image: batch 1, 40 × 48 px") for line in lines) in (1, 2)
    assert {path.name for path in (run / "report").iterdir()} == {
        "curves.png", "masks.png", "panels.png", "reliability.png", "thresholds.png", "val.csv",
        "val-thresholds.csv", "val.json",
    }  # fmt: skip


def test_runs_are_called_by_as_much_of_their_paths_as_tells_them_apart() -> None:
    def called(*paths: str) -> list[str]:
        return evaluate.names([Path(path) for path in paths])

    assert called("runs/a") == ["a"]
    assert called("runs/a", "more/b") == ["a", "b"]
    assert called("x/Dice/seed-0", "x/CE/seed-0", "x/CE/seed-1") == ["Dice/seed-0", "CE/seed-0", "CE/seed-1"]
    assert called("x/a", "x/a") == ["a", "a"]


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(trained_run: Path) -> None:
    for given in ("first", str(trained_run / "nowhere")):
        with pytest.raises(InputError, match=r"has no checkpoint .*: best or last would work"):
            evaluate.main([str(trained_run), "--checkpoint", given])


def test_classes_have_rows_and_the_rule_is_said(
    organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train.main(
        [
            "--data.root",
            str(organs),
            "--out",
            str(out),
            *fast("--modulation.name=smm_v1", "--training.epochs=3"),
        ]
    )
    assert evaluate.main([str(out)]) == 0
    text = capsys.readouterr().out
    assert "argmax over background and classes" in text
    saved = json.loads((out / "report" / "test.json").read_text())
    assert len(saved["scores"]) == 5  # two classes, background, mean, mean with background
    assert list(saved["lesions"]) == list(saved["reliability"]) == ["class_1", "class_2"]
    assert saved["nll_categorical"]["value"] >= max(
        saved["scores"][name]["nll"]["value"] for name in saved["lesions"]
    )
    assert {path.name for path in (out / "report").glob("*.png")} >= {"reliability.png", "thresholds.png"}
    assert evaluate.main([str(out), "--threshold=0.3", "--no-figures"]) == 0
    assert "p ≥ 0.3" in capsys.readouterr().out


def test_the_trained_size_scores_what_the_network_saw(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train.main(
        ["--data.root", str(vessels), "--out", str(out), *fast("--data.size=[24,32]", "--training.epochs=2")]
    )
    values = []
    for size in ("native", "trained"):
        evaluate.main([str(out), "--size", size, "--no-figures"])
        saved = json.loads((out / "report" / "test.json").read_text())
        assert saved["size"] == size
        values.append(saved["scores"]["mean"]["dice"]["value"])
    assert values[0] != values[1]


def saved_scores(run: Path) -> list[str]:
    """All that evaluate has written but the time it took."""
    report = json.loads((run / "report" / "test.json").read_text("utf-8"))
    tables = [(run / "report" / name).read_text("utf-8") for name in ("test.csv", "test-thresholds.csv")]
    return [*tables, json.dumps({name: part for name, part in report.items() if name != "inference"})]


def test_pixels_outside_the_field_of_view_count_nowhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(12):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 8:20] = 255
        write_pair(
            tmp_path / "data",
            f"i{number:02d}",
            (rng.integers(0, 90, (32, 32)) + mask // 2).astype(np.uint8),
            mask,
        )
        field = np.zeros((32, 32), np.uint8)
        field[:16] = 255
        (tmp_path / "data" / "fov").mkdir(exist_ok=True)
        Image.fromarray(field).save(tmp_path / "data" / "fov" / f"i{number:02d}.png")
    out = tmp_path / "run"
    patterns = ["--data.layout=patterns", "--data.images=images/{id}.png", "--data.masks=masks/{id}.png",
                "--data.valid=fov/{id}.png"]  # fmt: skip
    train.main(
        ["--data.root", str(tmp_path / "data"), "--out", str(out), *fast(*patterns, "--training.epochs=2")]
    )
    evaluate.main([str(out), "--no-figures"])
    before = saved_scores(out)
    # Truth outside the field of view is turned around; no number may move.
    for path in (tmp_path / "data" / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[16:] = 255 - mask[16:]
        Image.fromarray(mask).save(path)
    evaluate.main([str(out), "--no-figures"])
    assert saved_scores(out) == before


def test_a_split_without_images_is_refused_with_one_that_has_some(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    split = "--data.split=[0.8,0.2,0,0]"
    train.main(["--data.root", str(vessels), "--out", str(out), *fast(split, "--training.epochs=1")])
    with pytest.raises(InputError, match="no test images: try --split train"):
        evaluate.main([str(out)])
