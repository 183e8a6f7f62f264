"""Remarks: what stands below a table, so that nobody takes its numbers for what they are not."""

from collections.abc import Sequence

from engine.comparison.grid import Cell, Comparison
from engine.comparison.reports import TIME
from engine.comparison.results import Group, Results
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
    notes += _times(comparison, results)
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
    baselines = dict.fromkeys(comparison.against.values())
    against = next(iter(baselines)) if len(baselines) == 1 else "the method that each is named with"
    how = TESTS[comparison.test].format(ours=_listed(comparison.ours), against=against)
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
        by_metric = {v.metric: [w for w in made if w.metric == v.metric] for v in made}
        said = [
            f"{COLUMNS[metric].title} of {', '.join(_sentence(comparison, v) for v in tested)}"
            for metric, tested in by_metric.items()
        ]
        notes.append(f"p of {place}: {'; '.join(said)}.")
    return notes


def _sentence(comparison: Comparison, verdict: Verdict) -> str:
    alike = len(set(comparison.against.values())) == 1
    against = "" if alike else f" against {verdict.against}"
    said = f"not tested, as {verdict.reason}" if verdict.reason else probability(verdict.p)
    return f"{verdict.method}{against} {said}"


def probability(p: float) -> str:
    """A p value with two digits that count."""
    return f"{p:.2g}"


def _times(comparison: Comparison, results: Results) -> list[str]:
    """Where inference was timed, and at what size: times of two machines are not to be compared."""
    if TIME not in comparison.metrics:
        return []
    timed = [run.report["inference"] for group in results.groups for run in group.runs]
    places = sorted({f"{made['device_name']}, {made['height']} × {made['width']} px" for made in timed})
    return [f"{COLUMNS[TIME].title}: median of an image, on {' / '.join(places)}."] if timed else []


def _undefined(comparison: Comparison, results: Results) -> list[str]:
    """How many predictions have no value of a metric, such as those of images where a class is absent."""
    notes = []
    for data, groups in results.sets.items():
        entries = [
            f"{COLUMNS[metric].title} of {_row(comparison, group)} in {count} of "
            f"{len(group.images) * len(group.runs)}"
            for metric in comparison.metrics
            for group in groups
            if (count := group.undefined(metric))
        ]
        if entries:
            notes.append(f"Left out of {data}, as not defined for all predictions: {', '.join(entries)}.")
    return notes


def _missing(comparison: Comparison, results: Results) -> list[str]:
    """Cells without results, those of a row together."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell, reason in results.missing:
        data = f"{cell.data} · " if len(comparison.data) > 1 else ""
        found.setdefault((data + _row(comparison, cell), reason), []).append(str(cell.seed))
    parts = [
        f"{place}, seed{'s' * (len(seeds) > 1)} {_listed(seeds)} ({reason})"
        for (place, reason), seeds in found.items()
    ]
    return [f"Missing: {'; '.join(parts)}."] if parts else []


def names(comparison: Comparison) -> list[str]:
    """What tells rows of a data set apart: "network" and "method", but not what is always the same."""
    kinds = ["network"] if len(comparison.networks) > 1 else []
    return kinds + (["method"] if len(comparison.methods) > 1 or not kinds else [])


def _row(comparison: Comparison, place: Group | Cell) -> str:
    return " · ".join(getattr(place, kind) for kind in names(comparison))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
