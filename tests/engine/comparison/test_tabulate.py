"""The tables: known ones letter by letter, what is bold and marked, and a round trip."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import compared, make_run, make_runs
from scipy import stats

from engine.comparison import sheet
from engine.comparison.results import collect
from engine.comparison.significance import judge
from engine.comparison.tabulate import interval, long, table, write
from engine.tables import to_csv

NAN = np.nan


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def line(text: str, start: str) -> str:
    (found,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return found


def spread_over(comparison: Any, values: dict[str, list[float]], metric: str = "dice") -> None:
    """A run a cell whose only image scores the method's value of the seed."""
    for cell in comparison.cells:
        make_run(cell, {metric: [values[cell.method][comparison.seeds.index(cell.seed)]]})


def test_mean_and_standard_deviation_over_seeds_in_percent(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("U-Net", "SMMv1"), seeds=[0, 1, 2], metrics=["dice", "fnr"], test="welch",
        ours=["SMMv1"], published={"demo": {"unet": {"SMMv1": {"dice": "80.64 ± 1.30*"}}}},
        about="Published: a paper,\nits Table 2.",
    )  # fmt: skip
    values = {"U-Net": [0.5, 0.52, 0.54], "SMMv1": [0.6, 0.61, 0.62]}
    spread_over(made, values)
    p = stats.ttest_ind(values["SMMv1"], values["U-Net"], equal_var=False, alternative="greater").pvalue
    assert f"{p:.2g}" == "0.0032"
    text = write(made, collect(made), tmp_path / "tables")
    assert text == (tmp_path / "tables" / "table.txt").read_text("utf-8")
    assert text == (
        "Made up\n"
        "\n"
        "method           DSC ↑ (%)       FNR ↓ (%)  seeds\n"
        "───────────  ──────────────  ─────────────  ─────\n"
        "demo, 1 test image\n"
        "U-Net         52.00 ± 2.00   •50.00 ± 0.00      3\n"
        "SMMv1        •61.00 ± 1.00*  •50.00 ± 0.00      3\n"
        "  published   80.64 ± 1.30*              –\n"
        "───────────  ──────────────  ─────────────  ─────\n"
        "• the best of its data set, by the digits printed.\n"
        "Mean ± standard deviation (n − 1) over seeds of the means over test images; test\n"
        "  images at native size, decision p ≥ 0.5, weights last.\n"
        "* p < 0.05, one-sided Welch t-test over the seeds' means, best of SMMv1 against\n"
        "  the strongest baseline; not corrected for the number of tests.\n"
        "p of demo: DSC of SMMv1 against U-Net 0.0032; FNR of SMMv1 against U-Net not\n"
        "  tested, as the seeds do not differ.\n"
        "published: as the paper prints it.\n"
        "Published: a paper, its Table 2.\n"
    )


def test_mean_and_interval_over_images_from_zero_to_one(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("DSC", "DSC++"), seeds=[0, 1], metrics=["dice", "nll", "inference_ms"],
        spread="interval", percent=False, test="wilcoxon", ours=["DSC++"], against="DSC",
    )  # fmt: skip
    images = np.linspace(0.4, 0.8, 20)
    for cell in made.cells:
        shift = 0.01 if cell.seed else -0.01
        better = 0.5 if cell.method == "DSC++" else 0
        make_run(cell, {"dice": images + shift, "nll": images + shift - better}, milliseconds=6 + cell.seed)
    text = write(made, collect(made), tmp_path)
    half = stats.t.ppf(0.975, 19) * images.std(ddof=1) / np.sqrt(20)
    assert f"0.600 ({0.6 - half:.3f}–{0.6 + half:.3f})" in line(text, "DSC ")
    assert f"•0.100 ({0.1 - half:.3f}–{0.1 + half:.3f})*" in line(text, "DSC++")
    assert line(text, "DSC++").endswith("6.50      2"), "a time has no interval over images"
    assert "Mean (95 % interval by Student's t) over test images, each averaged over seeds" in text
    assert "p of demo: DSC of DSC++ 1; NLL of DSC++ 6.3e-08." in text
    assert "DSC ↑ " in text, "no percent"
    assert "ms an image: median of an image, on a CPU, 32 × 48 px." in text


def test_the_best_is_judged_by_what_is_printed_and_ties_are_all_bold(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("a", "b", "c", "d"), metrics=["dice", "fpr"])
    values = {"a": 0.60001, "b": 0.60004, "c": 0.60006, "d": 0.5}
    for cell in made.cells:
        make_run(cell, {"dice": [values[cell.method]], "fpr": [values[cell.method]]})
    rows = table(made, collect(made), ())["demo"]
    assert [row.entries[0].printed for row in rows] == ["60.00", "60.00", "60.01", "50.00"]
    assert [row.entries[0].best for row in rows] == [False, False, True, False]
    assert [row.entries[1].best for row in rows] == [False, False, False, True], "less is better"
    made = compared(tmp_path / "out", methods=("a", "b"))
    for cell in made.cells:
        make_run(cell, {"dice": [values[cell.method]]})
    rows = table(made, collect(made), ())["demo"]
    assert [row.entries[0].best for row in rows] == [True, True]


def test_one_value_is_not_the_best_of_anything(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("a", "b"))
    make_run(made.cells[0], {"dice": [0.5]})
    rows = table(made, collect(made), ())["demo"]
    assert [row.entries[0].best for row in rows] == [False, False]
    assert [row.entries[0].printed for row in rows] == ["50.00", "–"]


def test_missing_cells_and_undefined_scores_are_said(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("a", "b", "c"), seeds=[0, 1, 2], metrics=["dice", "precision"])
    for cell in made.cells:
        if cell.method == "a" or (cell.method == "b" and cell.seed != 1):
            make_run(cell, {"dice": [0.5, 0.5], "precision": [NAN if cell.seed else 0.4, NAN]})
    text = write(made, collect(made), tmp_path)
    assert re.search(r"^a +•50\.00 ± 0\.00 +•40\.00 +3$", text, re.MULTILINE), "one seed has no spread"
    assert re.search(r"^b +•50\.00 ± 0\.00 +•40\.00 +2 of 3$", text, re.MULTILINE)
    assert re.search(r"^c +– +– +0 of 3$", text, re.MULTILINE)
    said = text.replace("\n  ", " ")
    assert "Left out of demo, as not defined for all predictions: precision of a in 5 of 6, " in said
    assert "precision of b in 3 of 4." in said
    assert "Missing: b, seed 1 (no run); c, seeds 0, 1 and 2 (no run)." in said


def test_a_comparison_without_any_run_has_a_table_of_dashes(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0, 1], metrics=["dice", "lesion_recall"], test="welch", ours=["B"],
                    spread="interval")  # fmt: skip
    text = write(made, collect(made), tmp_path)
    assert re.search(r"^A +– +– +0 of 2$", text, re.MULTILINE)
    assert "demo, nothing scored yet" in text
    assert "the best" not in text, "nothing is"
    assert len(rows_of(tmp_path / "table.csv")) == 4


def test_columns_of_names_are_what_tells_rows_apart(tmp_path: Path) -> None:
    def head(**more: Any) -> list[str]:
        made = compared(tmp_path, **more)
        return write(made, collect(made), tmp_path).splitlines()[2].split("  ")

    assert head()[0].strip() == "method"
    assert head(methods=("A",))[0].strip() == "method"
    networks = {"U-Net": {}, "FPN": {}}
    assert head(methods=("A",), networks=networks)[0].strip() == "network"
    assert [cell for cell in head(networks=networks) if cell][:2] == ["network", "method"]


def test_networks_are_tested_on_their_own_and_bold_over_the_data_set(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("A", "B"), seeds=[0, 1], networks={"one": {}, "two": {}}, test="welch", ours=["B"]
    )
    for cell in made.cells:
        value = 0.5 + 0.1 * (cell.method == "B") + 0.2 * (cell.network == "two") + 0.001 * cell.seed
        make_run(cell, {"dice": [value]})
    text = write(made, collect(made), tmp_path)
    assert text.count("•") == 2, "one number, and the note"
    assert text.count("*") == 3, "a mark for each network, and the note"
    assert "p of demo, one:" in text
    assert "p of demo, two:" in text


def test_pooled_lesions_are_a_share_of_all_with_an_interval_over_images(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("A",), metrics=["lesion_recall"], spread="interval")
    rng = np.random.default_rng(1)
    total = rng.integers(0, 9, 60)
    found = rng.binomial(total, 0.7)
    make_run(made.cells[0], {"lesions_detected": found, "lesions": total})
    (group,) = collect(made).groups
    share, half, count = interval(group, "lesion_recall")
    assert share == pytest.approx(found.sum() / total.sum())
    assert count == (total > 0).sum()
    with_any = total > 0
    f, t = found[with_any], total[with_any]
    without = (f.sum() - f) / (t.sum() - t)
    jackknife = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    assert half == pytest.approx(stats.t.ppf(0.975, count - 1) * jackknife, rel=0.05)


def test_all_lesions_found_have_no_interval(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("A",), metrics=["lesion_recall"], spread="interval")
    make_run(made.cells[0], {"lesions_detected": [2, 3, 4], "lesions": [2, 3, 4]})
    text = write(made, collect(made), tmp_path)
    assert re.search(r"^A +100\.00 +1$", text, re.MULTILINE)
    assert "lesion recall: pooled over all images and classes." in text


def test_one_lesion_image_and_none_at_all(tmp_path: Path) -> None:
    made = compared(tmp_path, metrics=["lesion_recall"], spread="interval")
    make_run(made.cells[0], {"lesions_detected": [1, 0], "lesions": [2, 0]})
    make_run(made.cells[1], {"lesions_detected": [0, 0], "lesions": [0, 0]})
    first, second = (interval(group, "lesion_recall") for group in collect(made).groups)
    assert (first[0], first[2]) == (0.5, 1)
    assert math.isnan(first[1])
    assert math.isnan(second[0])


def test_classes_have_rows_of_their_own_in_markdown_and_csv(tmp_path: Path) -> None:
    made = compared(tmp_path, metrics=["dice", "inference_ms"])
    for cell in made.cells:
        best = cell.method == "B"
        make_run(cell, {"dice": [[0.2, 0.4 + 0.2 * best], [0.4, NAN]]}, classes=("roof", "road"))
    write(made, collect(made), tmp_path)
    rows = {(row["method"], row["class"], row["metric"]): row for row in rows_of(tmp_path / "table.csv")}
    assert float(rows["A", "mean", "dice"]["value"]) == pytest.approx(0.35)
    assert float(rows["A", "roof", "dice"]["value"]) == pytest.approx(0.3)
    assert float(rows["B", "road", "dice"]["value"]) == pytest.approx(0.6)
    assert rows["B", "road", "dice"]["undefined"] == "1"
    assert rows["B", "road", "dice"]["best"] == "1"
    assert ("A", "roof", "inference_ms") not in rows
    document = (tmp_path / "table.md").read_text("utf-8")
    assert "### Made up: by class" in document
    assert "| **demo, road** |" in document
    assert "| B | **60.00** | 1 |" in document
    assert "Of an image with several classes" in document


# CSV

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip)


@given(data=st.data())
def test_csv_is_read_back_as_it_was(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Values to the last bit, names and published numbers whatever is in them."""
    shown = Csv.shown(tmp_path_factory)
    rows = long(shown.comparison, shown.rows)
    for row in rows:
        for column in ("data", "network", "method", "class", "published"):
            row[column] = data.draw(names)
        for column in ("value", "low", "high", "p"):
            row[column] = data.draw(st.floats(allow_infinity=False))
    file = tmp_path_factory.getbasetemp() / "round.csv"
    file.write_text(to_csv(rows), "utf-8", newline="")
    back = rows_of(file)
    assert len(back) == len(rows)
    for row, read in zip(rows, back, strict=True):
        assert list(read) == list(row)
        for column, value in row.items():
            if isinstance(value, float):
                got = float(read[column]) if read[column] else NAN
                assert got == value or (math.isnan(got) and math.isnan(value))
            else:
                assert read[column] == str(value)


class Csv:
    """The rows of one small comparison, made once."""

    made: "Csv | None" = None

    def __init__(self, folder: Path) -> None:
        self.comparison = compared(folder, seeds=[0, 1], metrics=["dice", "nll"], test="welch", ours=["B"])
        make_runs(self.comparison, lambda cell: {"dice": [0.5, NAN], "nll": [0.1 * cell.seed, 0.3]})
        results = collect(self.comparison)
        self.rows = table(self.comparison, results, judge(self.comparison, results))["demo"]

    @classmethod
    def shown(cls, factory: pytest.TempPathFactory) -> "Csv":
        cls.made = cls.made or cls(factory.mktemp("csv"))
        return cls.made


def test_csv_says_all_that_the_table_says(tmp_path: Path) -> None:
    made = compared(
        tmp_path, seeds=[0, 1], metrics=["dice"], test="welch", ours=["B"],
        published={"demo": {"unet": {"A": {"dice": "50,1 ± 2"}}}},
    )  # fmt: skip
    spread_over(made, {"A": [0.5, 0.6], "B": [0.8, 0.9]})
    write(made, collect(made), tmp_path)
    first, second = rows_of(tmp_path / "table.csv")
    assert float(first["value"]) == pytest.approx(0.55), "never in percent"
    half = 0.1 / np.sqrt(2)
    assert (float(first["low"]), float(first["high"])) == (
        pytest.approx(0.55 - half),
        pytest.approx(0.55 + half),
    )
    assert (first["spread"], first["n"], first["seeds"], first["images"]) == ("std", "2", "2", "1")
    assert (first["published"], second["published"]) == ("50,1 ± 2", "")
    assert (first["p"], first["test"], first["significant"]) == ("", "", "")
    assert (second["test"], second["against"]) == ("welch", "A")
    p = stats.ttest_ind([0.8, 0.9], [0.5, 0.6], equal_var=False, alternative="greater").pvalue
    assert float(second["p"]) == pytest.approx(p)
    assert second["significant"] == str(int(p < 0.05))


def test_wide_names_are_aligned(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("細胞", "plain name", "é\u0301"))
    make_runs(made, lambda cell: {"dice": [0.5]})
    text = write(made, collect(made), tmp_path)
    rows = text.splitlines()[5:8]
    assert [sheet.width(row[: row.index("•")]) for row in rows] == [
        len("plain name") + 2 + len("DSC ↑ (%)") - len("•50.00")
    ] * 3
