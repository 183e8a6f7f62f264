"""Remarks: what stands below a table, so that nobody takes its numbers for what they are not."""

from collections.abc import Sequence

from engine.comparison.grid import Comparison
from engine.comparison.reports import TIME
from engine.comparison.results import Results
from engine.comparison.significance import Verdict
from engine.tables import COLUMNS, POOLED

TESTS = {
    "welch": "one-sided Welch t-test over the seeds' means, best of {ours} against the strongest baseline",
    "wilcoxon": "two-sided Wilcoxon rank-sum test over test images, averaged over seeds, against {against}",
}


def remarks(comparison: Comparison, results: Results, verdicts: Sequence[Verdict]) -> list[str]:
    """What the numbers are, how they were tested, where some are not defined or missing."""
    several = any(len(group.classes) > 1 for group in results.groups)
    notes = [_numbers(comparison, results), *_tests(comparison, verdicts)]
    if several:
        notes.append("Of an image with several classes, the mean over those that are defined there.")
    pooled = [COLUMNS[metric].title for metric in comparison.metrics if metric in POOLED]
    if pooled:
        notes.append(f"{', '.join(pooled)}: pooled over all images and classes.")
    notes += _undefined(comparison, results)
    notes += _missing(comparison, results)
    if comparison.published:
        notes.append("published: as the paper prints it.")
    about = " ".join(comparison.about.split())
    return [note for note in [*notes, about] if note]


def _numbers(comparison: Comparison, results: Results) -> str:
    """What stands in the table, and how it was scored."""
    if comparison.spread == "std":
        kind = "Mean ± standard deviation (n − 1) over seeds of the means over test images"
    else:
        kind = "Mean (95 % interval by Student's t) over test images, each averaged over seeds"
        if TIME in comparison.metrics:
            kind += f", but for {COLUMNS[TIME].title}, a mean over seeds"
    reports = [run.report for group in results.groups for run in group.runs]
    decisions = sorted({str(report["decision"]) for report in reports if "decision" in report})
    weights = sorted({str(report["checkpoint"]) for report in reports if "checkpoint" in report})
    how = [f"test images at {comparison.size} size"]
    how += [f"decision {' / '.join(decisions)}"] if decisions else []
    how += [f"weights {' / '.join(weights)}"] if weights else []
    return f"{kind}; {', '.join(how)}."


def _tests(comparison: Comparison, verdicts: Sequence[Verdict]) -> list[str]:
    """The test in words, and every p value."""
    if comparison.test == "none" or not verdicts:
        return []
    how = TESTS[comparison.test].format(ours=_listed(comparison.ours), against=comparison.against)
    notes = [f"* p < 0.05, {how}; not corrected for the number of tests."]
    pairs: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        pairs.setdefault((verdict.data, verdict.network), []).append(verdict)
    for (data, network), made in pairs.items():
        place = data if len(comparison.networks) == 1 else f"{data}, {network}"
        reasons = {verdict.reason for verdict in made}
        if len(reasons) == 1 and "" not in reasons:
            notes.append(f"{place}: not tested, as {reasons.pop()}.")
            continue
        notes.append(f"{place}: {'; '.join(_sentence(comparison, verdict) for verdict in made)}.")
    return notes


def _sentence(comparison: Comparison, verdict: Verdict) -> str:
    who = verdict.method
    if comparison.test == "welch":
        who += f" against {verdict.against}"
    said = f"not tested, as {verdict.reason}" if verdict.reason else f"p = {probability(verdict.p)}"
    return f"{COLUMNS[verdict.metric].title}, {who}: {said}"


def probability(p: float) -> str:
    """A p value with two digits that count."""
    return f"{p:.2g}"


def _undefined(comparison: Comparison, results: Results) -> list[str]:
    """How many predictions have no value of a metric, such as those of images where a class is absent."""
    notes = []
    for group in results.groups:
        count = len(group.images) * len(group.runs)
        entries = [
            f"{COLUMNS[metric].title} {missing}"
            for metric in comparison.metrics
            if (missing := group.undefined(metric))
        ]
        if entries:
            notes.append(
                f"{' · '.join(_place(comparison, group.place))}: not defined, and left out, of {count} "
                f"predictions: {', '.join(entries)}."
            )
    return notes


def _missing(comparison: Comparison, results: Results) -> list[str]:
    """Cells without results, those of a row together."""
    found: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for cell, reason in results.missing:
        place = _place(comparison, (cell.data, cell.network, cell.method))
        found.setdefault((place, reason), []).append(cell.seed)
    parts = [
        f"{' · '.join(place)}, seed{'s' * (len(seeds) > 1)} {_listed(list(map(str, seeds)))} ({reason})"
        for (place, reason), seeds in found.items()
    ]
    return [f"Missing: {'; '.join(parts)}."] if parts else []


def _place(comparison: Comparison, place: tuple[str, str, str]) -> tuple[str, ...]:
    """Data set, network and method, without what is the same in all rows."""
    many = (len(comparison.data) > 1, len(comparison.networks) > 1, True)
    return tuple(name for name, kept in zip(place, many, strict=True) if kept)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
