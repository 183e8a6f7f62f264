"""The test table: numbers against a count by hand, files, refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import fast, write_pair

from engine import evaluate, tables, train
from engine.errors import InputError
from engine.record import RunReader
from engine.trained import Trained


def test_the_table_is_what_counting_pixels_gives(
    trained_run: Path, vessels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained_run), "--no-figures"]) == 0
    trained = Trained.open(trained_run, device="cpu")
    names = RunReader(trained_run).info()["splits"]["test"]
    dice, fnr = [], []
    for name in names:
        image = np.asarray(Image.open(vessels / "images" / f"{name}.png"))
        truth = np.asarray(Image.open(vessels / "masks" / f"{name}.png")) > 0
        found = trained.probability(image[..., None])[0] >= 0.5
        dice.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
        fnr.append((truth & ~found).sum() / truth.sum())
    with (trained_run / "report" / "test.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["class"] != "background"]
    assert [row["image"] for row in rows] == names
    np.testing.assert_allclose([float(row["dice"]) for row in rows], dice, rtol=1e-12)
    np.testing.assert_allclose([float(row["fnr"]) for row in rows], fnr, rtol=1e-12)
    saved = json.loads((trained_run / "report" / "test.json").read_text())
    assert saved["scores"]["mean"]["dice"]["value"] == pytest.approx(np.mean(dice))
    assert saved["scores"]["mean"]["dice"]["count"] == len(names)
    assert saved["decision"] == "p ≥ 0.5"
    assert f"{100 * np.mean(dice):.2f}" in capsys.readouterr().out


def test_several_runs_are_one_table_with_figures(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained_run), str(trained_run), "--split=val"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(trained_run.name) for line in lines) == 2
    assert {path.name for path in (trained_run / "report").iterdir()} >= {
        "curves.png", "masks.png", "panels.png", "val.csv", "val.json"
    }  # fmt: skip


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
    with (out / "report" / "test.csv").open() as file:
        before = file.read()
    # Truth outside the field of view is turned around; no number may move.
    for path in (tmp_path / "data" / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[16:] = 255 - mask[16:]
        Image.fromarray(mask).save(path)
    evaluate.main([str(out), "--no-figures"])
    assert (out / "report" / "test.csv").read_text() == before


def test_a_split_without_images_is_refused_with_one_that_has_some(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    split = "--data.split=[0.8,0.2,0,0]"
    train.main(["--data.root", str(vessels), "--out", str(out), *fast(split, "--training.epochs=1")])
    with pytest.raises(InputError, match="no test images: try --split train"):
        evaluate.main([str(out)])


def test_means_leave_out_what_is_not_defined_and_count_it() -> None:
    entry = tables.mean(np.array([0.5, np.nan, 0.7, 0.9]))
    assert (entry.value, entry.count, entry.skipped) == (pytest.approx(0.7), 3, 1)
    assert entry.margin == pytest.approx(4.302652729911275 * 0.2 / np.sqrt(3))
    assert np.isnan(tables.mean(np.array([np.nan])).value)
    assert tables.percent(tables.mean(np.array([0.25]))) == "25.00"


def test_a_table_is_aligned() -> None:
    assert tables.text(["run", "DSC"], [["a", "1.00"], ["long", "20.00"]]).splitlines() == [
        "run     DSC", "────  ─────", "a      1.00", "long  20.00"
    ]  # fmt: skip
