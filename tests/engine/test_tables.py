"""Tables: means and pooled shares with their intervals, and how they are printed."""

import numpy as np
import pytest
from scipy import stats

from engine import metrics, tables
from engine.tables import METRICS, Mean


def test_means_leave_out_what_is_not_defined_and_count_it() -> None:
    entry = tables.mean(np.array([0.5, np.nan, 0.7, 0.9]))
    assert (entry.value, entry.count, entry.skipped) == (pytest.approx(0.7), 3, 1)
    assert entry.margin == pytest.approx(4.302652729911275 * 0.2 / np.sqrt(3))
    assert np.isnan(tables.mean(np.array([np.nan])).value)
    assert tables.percent(tables.mean(np.array([0.25]))) == "25.00"


@pytest.mark.parametrize(("detected", "total"), [(0, 1), (1, 1), (0, 30), (9, 16), (40, 40), (700, 1000)])
def test_a_pooled_share_has_wilsons_interval(detected: int, total: int) -> None:
    entry = tables.rate(detected, total, count=5, skipped=2)
    interval = stats.binomtest(detected, total).proportion_ci(0.95, method="wilson")
    assert entry.value == detected / total
    assert entry.margin == pytest.approx((interval.high - interval.low) / 2)
    assert (entry.count, entry.skipped) == (5, 2)


def test_a_share_of_nothing_is_not_defined() -> None:
    entry = tables.rate(0, 0, count=0, skipped=3)
    assert np.isnan([entry.value, entry.margin]).all()
    assert tables.cell("lesion_recall", entry) == "–"


def test_shares_are_printed_in_percent_and_calibration_as_it_is() -> None:
    entry = Mean(0.04137, 0.00351, 8, 0)
    assert tables.cell("dice", entry) == "4.14 ± 0.35"
    assert tables.cell("nll", entry) == tables.cell("brier", entry) == "0.0414 ± 0.0035"
    assert tables.cell("ece", Mean(0.04137, np.nan, 1, 0)) == "0.0414"
    assert METRICS["fnr"].heading == "FNR ↓"
    assert METRICS["lesion_recall"].heading == "lesion recall ↑"


def test_every_score_is_a_metric() -> None:
    assert set(METRICS) <= set(metrics.__all__)
    assert set(METRICS) >= tables.POOLED


def test_a_table_is_aligned() -> None:
    assert tables.text(["run", "DSC"], [["a", "1.00"], ["long", "20.00"]]).splitlines() == [
        "run     DSC", "────  ─────", "a      1.00", "long  20.00"
    ]  # fmt: skip


def test_nan_is_left_empty_in_csv() -> None:
    assert tables.to_csv([{"a": np.nan, "b": 1.5}, {"a": 2, "b": ""}]) == "a,b\n,1.5\n2,\n"
