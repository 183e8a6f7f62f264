"""What is read of a comparison's runs: values by hand, what is missing, what cannot be compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import compared, make_run, make_runs

from engine.comparison.grid import Cell
from engine.comparison.results import Group, collect, over_thresholds
from engine.comparison.state import Scoring, scores
from engine.errors import InputError
from engine.tables import to_csv

NAN = np.nan


def group(results: Any, method: str) -> Group:
    return next(group for group in results.groups if group.method == method)


def test_scores_are_means_over_the_classes_that_are_defined_then_over_images(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0])
    scores = {"dice": [[0.2, 0.4], [0.6, NAN], [NAN, NAN]]}
    make_runs(made, lambda cell: scores, classes=("roof", "road"))
    run = group(collect(made), "A").runs[0]
    assert run.images == ("i0", "i1", "i2")
    assert run.classes == ("roof", "road"), "the background is no class of interest"
    np.testing.assert_allclose(run.per_image("dice"), [0.3, 0.6, NAN])
    np.testing.assert_allclose(run.per_image("dice", "road"), [0.4, NAN, NAN])
    assert run.value("dice") == pytest.approx(0.45)
    assert run.value("dice", "roof") == pytest.approx(0.4)
    assert run.value("inference_ms") == 5.0
    assert np.isnan(run.per_image("inference_ms")).all()


def test_lesions_are_pooled_over_images_and_classes(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0, 1])
    counts = {
        0: {"lesions_detected": [[1, 0], [8, 0], [0, 0]], "lesions": [[1, 1], [8, 2], [0, 0]]},
        1: {"lesions_detected": [[0, 1], [8, 2], [0, 0]], "lesions": [[1, 1], [8, 2], [0, 0]]},
    }
    make_runs(made, lambda cell: counts[cell.seed], classes=("roof", "road"))
    found = group(collect(made), "A")
    np.testing.assert_allclose(found.over_seeds("lesion_recall"), [9 / 12, 11 / 12])
    np.testing.assert_allclose(found.over_seeds("lesion_recall", "road"), [0, 1])
    np.testing.assert_allclose(found.over_images("lesion_recall"), [0.5, 0.9, NAN])
    assert found.undefined("lesion_recall") == 2, "an image without lesions, by two seeds"


def test_images_are_averaged_over_the_seeds_that_have_a_value(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0, 1, 2])
    values = {0: [0.1, NAN, NAN], 1: [0.3, 0.5, NAN], 2: [0.8, 0.7, NAN]}
    make_runs(made, lambda cell: {"precision": values[cell.seed]})
    found = group(collect(made), "B")
    np.testing.assert_allclose(found.over_images("precision"), [0.4, 0.6, NAN])
    np.testing.assert_allclose(found.over_seeds("precision"), [0.1, 0.4, 0.75])
    assert found.undefined("precision") == 4
    assert found.undefined("dice") == 0


def test_what_is_missing_is_listed_with_its_reason(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("A", "B", "C", "D"), seeds=[5, 2])
    cells = {(cell.method, cell.seed): cell for cell in made.cells}
    for method in "ABC":
        make_run(cells[method, 2], {"dice": [0.5]})
    make_run(cells["A", 5], {"dice": [0.5]}, size="trained")
    make_run(cells["B", 5], {"dice": [0.5]}, ended="failed")
    (cells["C", 5].folder / "report").mkdir(parents=True)
    make_run(cells["D", 2], {"dice": [0.5]})
    (cells["D", 2].folder / "report" / "test.json").unlink()
    results = collect(made)
    assert [(cell.method, cell.seed, reason) for cell, reason in results.missing] == [
        ("A", 5, "scored in another way"), ("B", 5, "not finished"), ("C", 5, "no run"), ("D", 5, "no run"),
        ("D", 2, "not scored"),
    ]  # fmt: skip
    assert [len(group.runs) for group in results.groups] == [1, 1, 1, 0]
    assert group(results, "D").images == ()
    assert group(results, "D").over_images("dice").shape == (0,)


def test_groups_stand_in_the_files_order_and_runs_in_that_of_the_seeds(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("Z", "A"), seeds=[7, 1], networks={"wide": {}, "narrow": {}},
        data={name: {"data": {"root": "demo"}} for name in ("two", "one")},
    )  # fmt: skip
    make_runs(made, lambda cell: {"dice": [0.5, 0.6]})
    results = collect(made)
    assert [group.place for group in results.groups] == [
        (data, network, method)
        for data in ("two", "one")
        for network in ("wide", "narrow")
        for method in ("Z", "A")
    ]
    assert [run.cell.seed for run in results.groups[0].runs] == [7, 1]
    assert list(results.sets) == ["two", "one"]
    assert [len(groups) for groups in results.sets.values()] == [4, 4]
    assert list(results.pairs)[1] == ("two", "narrow")
    assert results.missing == ()


def test_images_in_another_order_are_put_in_one(tmp_path: Path) -> None:
    made = compared(tmp_path)
    first, second = made.cells
    make_run(first, {"dice": [0.1, 0.2, 0.3]}, images=("a", "b", "c"))
    make_run(second, {"dice": [0.9, 0.7, 0.8]}, images=("c", "a", "b"))
    found = group(collect(made), "B")
    assert found.images == ("a", "b", "c")
    np.testing.assert_allclose(found.over_images("dice"), [0.7, 0.8, 0.9])


def test_other_test_images_are_refused_and_named(tmp_path: Path) -> None:
    made = compared(tmp_path)
    first, second = made.cells
    make_run(first, {"dice": [0.1] * 6}, images="abcdef")
    make_run(second, {"dice": [0.1] * 2}, images=["a", "new"])
    with pytest.raises(InputError) as caught:
        collect(made)
    said = str(caught.value)
    assert "test images of demo differ" in said
    assert f"{second.name} alone has new" in said
    assert f"{first.name} alone has b, c, d and 2 more" in said
    assert str(second.folder) in said


def test_other_images_of_another_data_set_are_no_matter(tmp_path: Path) -> None:
    made = compared(tmp_path, data={name: {"data": {"root": "demo"}} for name in ("one", "two")})
    for cell in made.cells:
        make_run(cell, {"dice": [0.1] * 2}, images=[f"{cell.data} 1", f"{cell.data} 2"])
    assert collect(made).groups[-1].images == ("two 1", "two 2")


def test_other_classes_are_refused(tmp_path: Path) -> None:
    made = compared(tmp_path)
    make_run(made.cells[0], {"dice": [0.1]}, classes=("roof",))
    make_run(made.cells[1], {"dice": [0.1]}, classes=("road",))
    with pytest.raises(InputError, match=r"classes of .* · B · seed 0 are road, and those of .* roof"):
        collect(made)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no columns image and class"),
        ("name,value\na,1\n", "no columns image and class"),
        ("image,class,dice\na,vessel,high\n", "could not convert"),
        ("image,class,dice\na,vessel,0.5\na,vessel,0.6\n", "a row for each of image × class"),
        ("image,class,dice\na,roof,0.5\na,road,0.5\nb,roof,0.6\n", "a row for each of image × class"),
        ("image,class,dice\na,vessel\n", "a row is cut off"),
        ("image,class,dice\na\n", "a row is cut off"),
    ],
)
def test_a_broken_report_is_refused_and_says_what_would_work(
    tmp_path: Path, content: str, reason: str
) -> None:
    made = compared(tmp_path)
    make_runs(made, lambda cell: {"dice": [0.5]})
    file = made.cells[0].folder / "report" / "test.csv"
    file.write_text(content, "utf-8")
    with pytest.raises(InputError, match=f"{reason}.*score the run anew") as caught:
        collect(made)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", ["test.json", "test.csv", "test-thresholds.csv"])
def test_a_report_that_lacks_a_file_is_none(tmp_path: Path, name: str) -> None:
    made = compared(tmp_path)
    make_runs(made, lambda cell: {"dice": [0.5]})
    assert scores(made.cells[0].folder, Scoring.of(made)) is not None
    (made.cells[0].folder / "report" / name).unlink()
    assert scores(made.cells[0].folder, Scoring.of(made)) is None


@pytest.mark.parametrize(
    "content", ["", "{", "5", "null", "[]", "{}", '{"scores": 1}', '{"scores": {"mean": 1}}']
)
def test_a_broken_report_is_none(tmp_path: Path, content: str) -> None:
    made = compared(tmp_path)
    make_runs(made, lambda cell: {"dice": [0.5]})
    (made.cells[0].folder / "report" / "test.json").write_text(content, "utf-8")
    assert scores(made.cells[0].folder, Scoring.of(made)) is None


def test_a_metric_that_the_report_lacks_is_named(tmp_path: Path) -> None:
    made = compared(tmp_path)
    make_runs(made, lambda cell: {"dice": [0.5]})
    with pytest.raises(InputError, match=r"has no sharpness: score the run anew"):
        collect(made).groups[0].over_seeds("sharpness")


def threshold_rows(cell: Cell, scores: dict[tuple[str, str, float], float]) -> None:
    rows = [
        {"image": image, "class": label, "threshold": level, "dice": value, "precision": NAN, "recall": 1.0}
        for (image, label, level), value in scores.items()
    ]
    (cell.folder / "report" / "test-thresholds.csv").write_text(to_csv(rows), "utf-8")


def test_scores_over_thresholds_are_averaged_over_classes_and_seeds(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("A",), seeds=[0, 1])
    make_runs(made, lambda cell: {"dice": [0.5, 0.5]}, classes=("roof", "road"))
    for cell in made.cells:
        threshold_rows(
            cell,
            {
                (image, label, level): level + 0.1 * cell.seed + (0.2 if label == "road" else 0)
                for level in (0.5, 0.05)
                for image in ("i1", "i0")
                for label in ("roof", "road")
            },
        )
    levels, scores = over_thresholds(collect(made).groups[0])
    np.testing.assert_allclose(levels, [0.05, 0.5])
    np.testing.assert_allclose(scores["dice"], [[0.2, 0.65]] * 2)
    assert np.isnan(scores["precision"]).all()
    assert (scores["recall"] == 1).all()
    threshold_rows(made.cells[1], {(i, c, 0.3): 0.5 for i in ("i0", "i1") for c in ("roof", "road")})
    with pytest.raises(InputError, match="thresholds of another run"):
        over_thresholds(collect(made).groups[0])
    group = collect(made).groups[0]
    (made.cells[1].folder / "report" / "test-thresholds.csv").unlink()
    with pytest.raises(InputError, match=r"test-thresholds\.csv cannot be read \(No such file"):
        over_thresholds(group)


def test_a_real_runs_values_are_those_of_its_own_report(tiny: Any) -> None:
    results = collect(tiny)
    run = results.groups[0].runs[0]
    report = json.loads((run.cell.folder / "report" / "test.json").read_text("utf-8"))
    for metric in ("dice", "cldice", "fnr", "precision", "nll", "brier", "ece", "lesion_recall"):
        entry = report["scores"]["mean"][metric]
        assert run.value(metric) == pytest.approx(entry["value"], nan_ok=True), metric
        assert int(np.isnan(run.per_image(metric)).sum()) == entry["skipped"], metric
    assert run.value("inference_ms") == report["inference"]["median_ms"]
