"""The papers' tests: against scipy's other forms, counting by hand, and who is tested against whom."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import compared, make_run, make_runs
from scipy import stats

from engine.comparison.results import collect
from engine.comparison.significance import Verdict, judge, rank_sum, welch
from engine.comparison.tabulate import write

scores = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 4))
many = st.lists(scores, min_size=2, max_size=12).map(np.array)


def test_welch_by_hand() -> None:
    ours, baseline = np.array([0.7, 0.8, 0.9]), np.array([0.5, 0.7])
    # Means 0.8 and 0.6, variances 0.01 and 0.02, so t = 0.2 / sqrt(0.01 / 3 + 0.02 / 2).
    error = 0.01 / 3 + 0.02 / 2
    freedom = error**2 / ((0.01 / 3) ** 2 / 2 + (0.02 / 2) ** 2 / 1)
    p, reason = welch(ours, baseline, more=True)
    assert p == pytest.approx(stats.t.sf(0.2 / np.sqrt(error), freedom))
    assert reason == ""


@given(many, many)
def test_welch_is_scipys_and_one_sided(ours: Any, baseline: Any) -> None:
    p, reason = welch(ours, baseline, more=True)
    opposite, _ = welch(ours, baseline, more=False)
    if np.ptp(ours) == 0 and np.ptp(baseline) == 0:
        assert np.isnan(p)
        assert reason == "the seeds do not differ"
        return
    assert p + opposite == pytest.approx(1)
    if np.ptp(ours) and np.ptp(baseline):
        assert p == pytest.approx(
            stats.ttest_ind(ours, baseline, equal_var=False, alternative="greater").pvalue
        )


def test_welch_needs_two_seeds_a_side_and_leaves_nan_out() -> None:
    two = np.array([0.1, 0.2])
    for ours, baseline in ((two[:1], two), (two, two[:1]), (np.array([0.5, np.nan]), two)):
        p, reason = welch(ours, baseline, more=True)
        assert np.isnan(p)
        assert "two seeds a method are needed" in reason
    with_nan = np.array([0.1, np.nan, 0.2])
    assert welch(with_nan, two + 1, more=False) == welch(two, two + 1, more=False)


def test_the_dsc_plus_plus_papers_smallest_p_comes_out() -> None:
    """20 images of DRIVE, all of one loss better than all of the other: 6e-8 in its section III-B."""
    p, _ = rank_sum(np.linspace(0.02, 0.06, 20), np.linspace(0.1, 0.3, 20))
    assert f"{p:.0e}" == "6e-08"


def test_rank_sum_of_few_images_counts_all_orders() -> None:
    ours, baseline = np.array([0.9, 0.8, 0.5]), np.array([0.1, 0.2, 0.6, 0.3])
    ranks = stats.rankdata(np.concatenate([ours, baseline]))
    middle = 3 * (3 + 4 + 1) / 2
    distance = abs(ranks[:3].sum() - middle)
    every = [abs(sum(chosen) - middle) >= distance - 1e-9 for chosen in combinations(range(1, 8), 3)]
    assert rank_sum(ours, baseline)[0] == pytest.approx(np.mean(every))


@given(st.lists(scores, min_size=22, max_size=40, unique=True).map(np.array), st.integers(9, 13))
def test_rank_sum_of_many_images_is_scipys_other_form(values: Any, cut: int) -> None:
    p, _ = rank_sum(values[:cut], values[cut:])
    assert p == pytest.approx(stats.ranksums(values[:cut], values[cut:]).pvalue)


@given(many, many)
def test_rank_sum_is_two_sided_and_a_probability(ours: Any, baseline: Any) -> None:
    p, reason = rank_sum(ours, baseline)
    assert reason == ""
    assert 0 <= p <= 1
    assert p == pytest.approx(rank_sum(baseline, ours)[0])
    assert rank_sum(ours, ours)[0] == pytest.approx(1)


def test_rank_sum_corrects_for_ties() -> None:
    ours, baseline = np.array([1.0] * 6 + [0.5] * 4), np.array([0.5] * 7 + [0.0] * 3)
    both = np.concatenate([ours, baseline])
    ranks = stats.rankdata(both)
    _, ties = np.unique(both, return_counts=True)
    variance = 10 * 10 / 12 * (21 - (ties**3 - ties).sum() / (20 * 19))
    z = (ranks[:10].sum() - 10 * 21 / 2) / np.sqrt(variance)
    assert rank_sum(ours, baseline)[0] == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_rank_sum_without_differences_or_images() -> None:
    same = np.full(10, 0.5)
    assert rank_sum(same, same) == (1.0, "")
    p, reason = rank_sum(np.array([0.5, np.nan]), same)
    assert np.isnan(p)
    assert reason == "two images a method are needed, and there are 1 and 10"


def test_a_verdict_without_a_test_is_not_significant() -> None:
    assert not Verdict("d", "n", "dice", "A", "B", np.nan, "why").significant
    assert Verdict("d", "n", "dice", "A", "B", 0.049).significant
    assert not Verdict("d", "n", "dice", "A", "B", 0.05).significant


def seeded(**means: float) -> Any:
    """Scores that differ a little by seed, around a mean of each method; FNR is 1 - Dice."""

    def of(cell: Any) -> dict[str, Any]:
        value = means[cell.method] + 0.001 * cell.seed
        return {"dice": [value, value], "fnr": [1 - value, 1 - value]}

    return of


def test_the_best_of_ours_meets_the_strongest_baseline_metric_by_metric(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("plain", "strong", "v1", "v2"), seeds=[0, 1, 2], metrics=["dice", "fnr"],
        test="welch", ours=["v1", "v2"],
    )  # fmt: skip
    make_runs(made, seeded(plain=0.6, strong=0.65, v1=0.7, v2=0.68))
    verdicts = judge(made, collect(made))
    assert [(v.metric, v.method, v.against) for v in verdicts] == [
        ("dice", "v1", "strong"),
        ("fnr", "v1", "strong"),
    ]
    assert all(v.significant for v in verdicts), "less FNR is better, too"


def test_ours_being_worse_is_never_significant(tmp_path: Path) -> None:
    made = compared(
        tmp_path, seeds=[0, 1, 2], metrics=["dice", "fnr", "inference_ms"], test="welch", ours=["B"]
    )
    make_runs(made, seeded(A=0.9, B=0.3))
    verdicts = judge(made, collect(made))
    assert [v.metric for v in verdicts] == ["dice", "fnr"], "times are not tested"
    assert all(v.p > 0.99 for v in verdicts)


def test_one_seed_is_no_test_and_a_method_without_runs_takes_no_part(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("A", "B", "C"), seeds=[0, 1], test="welch", ours=["B"])
    for cell in made.cells:
        if cell.method == "A" or (cell.method == "B" and cell.seed == 0):
            make_run(cell, {"dice": [0.5]})
    (verdict,) = judge(made, collect(made))
    assert (verdict.method, verdict.against) == ("B", "A")
    assert np.isnan(verdict.p)
    assert verdict.reason == "two seeds a method are needed, and there are 1 and 2"


def test_nothing_defined_is_no_verdict(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0, 1], test="welch", ours=["B"])
    make_runs(made, lambda cell: {"dice": [np.nan, np.nan]})
    assert judge(made, collect(made)) == []


def test_each_of_ours_meets_the_baseline_over_images_within_its_network(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("DSC", "CE", "DSC++"), seeds=[0, 1], test="wilcoxon", ours=["DSC++", "CE"],
        against="DSC", networks={"wide": {}, "narrow": {}},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = {cell.folder: rng.random(10) + (cell.method == "DSC++") for cell in made.cells}
    make_runs(made, lambda cell: {"dice": drawn[cell.folder]})
    verdicts = judge(made, collect(made))
    assert [(v.network, v.method, v.against) for v in verdicts] == [
        (network, method, "DSC") for network in ("wide", "narrow") for method in ("CE", "DSC++")
    ]
    means = {
        (cell.network, cell.method): np.mean(
            [drawn[other.folder] for other in made.cells
             if (other.network, other.method) == (cell.network, cell.method)], axis=0
        )
        for cell in made.cells
    }  # fmt: skip
    for verdict in verdicts:
        ours, base = means[verdict.network, verdict.method], means[verdict.network, "DSC"]
        assert verdict.p == pytest.approx(stats.ranksums(ours, base).pvalue)
    assert [v.significant for v in verdicts if v.method == "DSC++"] == [True, True]


def test_each_of_ours_can_have_a_baseline_of_its_own(tmp_path: Path) -> None:
    made = compared(
        tmp_path, methods=("T", "T++", "C", "C++"), seeds=[0], test="wilcoxon", ours=["T++", "C++"],
        against={"T++": "T", "C++": "C"},
    )  # fmt: skip
    make_runs(made, lambda cell: {"dice": np.arange(8.0) + 10 * (cell.method in ("T++", "C"))})
    verdicts = judge(made, collect(made))
    assert [(v.method, v.against) for v in verdicts] == [("T++", "T"), ("C++", "C")]
    alike = stats.mannwhitneyu(np.arange(8.0) + 10, np.arange(8.0), method="exact").pvalue
    assert [v.p for v in verdicts] == pytest.approx([alike, alike])
    text = write(made, collect(made), tmp_path / "tables")
    assert "T++ against T " in text
    assert "C++ against C " in text


def test_no_test_asked_for_is_no_verdict(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0, 1])
    make_runs(made, seeded(A=0.5, B=0.9))
    assert judge(made, collect(made)) == []
