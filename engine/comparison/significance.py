"""Significance: whether methods differ by more than chance, by the tests of the papers.

Neither paper corrects for the number of tests that it makes, and neither is done here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.comparison.grid import Comparison
from engine.comparison.reports import TIME, Floats
from engine.comparison.results import Group, Results
from engine.tables import COLUMNS

LEVEL = 0.05
"""Below which a difference is called significant."""


@dataclass(frozen=True)
class Verdict:
    """One test, or why there was none.

    Attributes:
        data, network, metric: what was compared.
        method: the method of ours.
        against: the baseline.
        p: NaN without a test.
        reason: why there was no test, "" with one.
    """

    data: str
    network: str
    metric: str
    method: str
    against: str
    p: float
    reason: str = ""

    @property
    def significant(self) -> bool:
        """Whether p < 0.05; never without a test."""
        return self.p < LEVEL


def judge(comparison: Comparison, results: Results) -> list[Verdict]:
    """All tests of a comparison: for each data set × network and metric, within it.

    Metrics are means over foreground classes; times are not tested. Groups without runs take no part.
    """
    if comparison.test == "none":
        return []
    verdicts = []
    for groups in results.pairs.values():
        present = [group for group in groups if group.runs]
        ours = [group for group in present if group.method in comparison.ours]
        for metric in (metric for metric in comparison.metrics if metric != TIME):
            if comparison.test == "welch":
                baselines = [group for group in present if group.method not in comparison.ours]
                verdicts += _best_against_strongest(ours, baselines, metric)
            else:
                by_name = {group.method: group for group in present}
                verdicts += [
                    _against(group, by_name[base], metric)
                    for group in ours
                    if (base := comparison.against.get(group.method)) in by_name
                ]
    return verdicts


def welch(ours: Floats, baseline: Floats, *, more: bool) -> tuple[float, str]:
    """One-sided Welch t-test over the seeds' means (SMM paper, Table 2 and Appendix A).

    Args:
        ours, baseline: a score for each seed; NaN is left out.
        more: whether more is better. The alternative is that ours is better.

    Returns:
        p, and "" or why there is none: fewer than two seeds on a side, or no spread on either, of which
        the variance says nothing about chance.
    """
    ours, baseline = _defined(ours), _defined(baseline)
    if min(len(ours), len(baseline)) < 2:
        return math.nan, f"two seeds a method are needed, and there are {len(ours)} and {len(baseline)}"
    if np.ptp(ours) == 0 and np.ptp(baseline) == 0:
        return math.nan, "the seeds do not differ"
    sample = [(float(values.mean()), float(values.std(ddof=1)), len(values)) for values in (ours, baseline)]
    alternative = "greater" if more else "less"
    found = stats.ttest_ind_from_stats(*sample[0], *sample[1], equal_var=False, alternative=alternative)
    return float(found.pvalue), ""


def rank_sum(ours: Floats, baseline: Floats) -> tuple[float, str]:
    """Two-sided Wilcoxon rank-sum test over test images (DSC++ paper, II-F).

    The images are the same on both sides, and a signed-rank test would use that; the paper does not.
    Computed as Mann and Whitney's U, which is the same test, rather than by scipy's `ranksums`: exact
    where a side has at most 8 images and no two values are equal, corrected for ties elsewhere, which
    `ranksums` is not. Without a continuity correction, so that without ties and above 8 images the p value
    is that of `ranksums`, and, for 20 images against 20 that all lie lower, the paper's 6e-8.

    Args:
        ours, baseline: a score for each image, averaged over seeds; NaN is left out.

    Returns:
        p, and "" or why there is none: fewer than two images on a side.
    """
    ours, baseline = _defined(ours), _defined(baseline)
    if min(len(ours), len(baseline)) < 2:
        return math.nan, f"two images a method are needed, and there are {len(ours)} and {len(baseline)}"
    both = np.concatenate([ours, baseline])
    if np.ptp(both) == 0:
        return 1.0, ""  # of equal values the ranks have no spread to divide by
    found = stats.mannwhitneyu(ours, baseline, use_continuity=False, alternative="two-sided", method="auto")
    return float(found.pvalue), ""


def better(values: Sequence[float], more: bool) -> int | None:
    """Place of the best value, the first of equal ones; None where all are NaN."""
    places = [place for place, value in enumerate(values) if not math.isnan(value)]
    if not places:
        return None
    return (max if more else min)(places, key=lambda place: values[place])


def _best_against_strongest(ours: Sequence[Group], baselines: Sequence[Group], metric: str) -> list[Verdict]:
    more = COLUMNS[metric].more
    chosen = []
    for groups in (ours, baselines):
        means = [_defined(group.over_seeds(metric)) for group in groups]
        place = better([float(values.mean()) if len(values) else math.nan for values in means], more)
        if place is None:
            return []
        chosen.append(groups[place])
    mine, base = chosen
    p, reason = welch(mine.over_seeds(metric), base.over_seeds(metric), more=more)
    return [Verdict(mine.data, mine.network, metric, mine.method, base.method, p, reason)]


def _against(group: Group, base: Group, metric: str) -> Verdict:
    p, reason = rank_sum(group.over_images(metric), base.over_images(metric))
    return Verdict(group.data, group.network, metric, group.method, base.method, p, reason)


def _defined(values: Floats) -> Floats:
    return values[~np.isnan(values)]
