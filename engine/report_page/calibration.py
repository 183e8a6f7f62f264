"""Calibration: whether p says how often it is right, and what another threshold would bring."""

from engine import figures, tables
from engine.figures.series import ThresholdCurve
from engine.report_page import pictures
from engine.report_page.evaluation import Evaluation
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, code, element, folded, joined, note, table
from engine.report_page.words import NONE, command, percent
from engine.tables import METRICS

SCORES = ("nll", "brier", "ece")


def section(findings: Findings, scores: Evaluation) -> Markup:
    """Scores of the probabilities, the reliability diagram, and recall and precision over T."""
    if not scores.reliability and not scores.over_t:
        return note(
            "These scores come from an older version, which measured no calibration: ",
            code(command("report", "--evaluate", findings.root)),
            " scores the images anew.",
        )
    return joined(
        _numbers(findings, scores),
        _reliability(scores) if scores.reliability else None,
        _over_t(scores) if scores.over_t else None,
    )


def _numbers(findings: Findings, scores: Evaluation) -> Markup:
    """The three scores in words."""
    found = [(METRICS[name].title, name, scores.entry("mean", name)) for name in SCORES]
    said = [f"{title} {tables.cell(name, entry)}" for title, name, entry in found if entry is not None]
    which = "" if len(findings.classes) == 1 else ", in the mean of the classes"
    return element(
        "p",
        f"{'; '.join(said)}{which} (NLL in nats a pixel; ± half of the 95 % interval over images). ",
        "All count every pixel, so that where the background is large they are low for any network: "
        "compare them between runs on the same images.",
    )


def _reliability(scores: Evaluation) -> Markup:
    drawn = pictures.lines(lambda: figures.reliability_diagram(scores.reliability))
    parts = [
        f"{label}: ECE {bins.ece:.4f} of all pixels together" for label, bins in scores.reliability.items()
    ]
    return joined(
        element("h3", "Reliability"),
        pictures.shown(
            drawn,
            f"Reliability diagram. {'; '.join(parts)}. The numbers are in the table below.",
            "On the diagonal p is right: of the pixels with p = 0.8 four in five are true. Below it p "
            "is too high, above it too low. Lower panel: how many pixels have that p. The ECE in it is of "
            "all images' pixels together, that of the table a mean over images.",
            kind="plot half",
        ),
        folded("Reliability as a table", [_bins(scores, label) for label in scores.reliability]),
    )


def _bins(scores: Evaluation, label: str) -> Markup:
    bins = scores.reliability[label]
    count = len(bins.count)
    rows: list[list[Child]] = [
        [
            f"{place / count:.3f}–{(place + 1) / count:.3f}",
            f"{pixels:,}",
            f"{confidence / pixels:.4f}" if pixels else NONE,
            f"{true / pixels:.4f}" if pixels else NONE,
        ]
        for place, (pixels, confidence, true) in enumerate(
            zip(bins.count.tolist(), bins.confidence.tolist(), bins.truth.tolist(), strict=True)
        )
    ]
    return table(label, ["p", "pixels", "mean p", "share of true pixels"], rows)


def _over_t(scores: Evaluation) -> Markup:
    drawn = pictures.lines(lambda: figures.threshold_curves(scores.over_t))
    return joined(
        element("h3", "Recall, precision and Dice over the threshold T"),
        pictures.shown(
            drawn,
            f"{' '.join(_extremes(label, curve) for label, curve in scores.over_t.items())} "
            "The numbers are in the table below.",
            "Means over images, with bands of 95 % intervals. Flat lines mean that the choice of T matters "
            "little; a long slope of recall means that misses can be traded for false alarms by T alone. "
            "A T that is chosen by these images is too good for them: choose it on others.",
            kind="plot" if len(scores.over_t) > 1 else "plot half",
        ),
        folded("The same as a table", [_thresholds(label, curve) for label, curve in scores.over_t.items()]),
    )


def _extremes(label: str, curve: ThresholdCurve) -> str:
    """What a curve shows, at its first and last threshold."""
    first, last = (float(curve.thresholds[place]) for place in (0, -1))
    parts = [
        f"{METRICS[name].title} from {percent(float(values[0]))} to {percent(float(values[-1]))}"
        for name, values in curve.means.items()
    ]
    return f"{label}: from T = {first:g} to {last:g}, {', '.join(parts)}."


def _thresholds(label: str, curve: ThresholdCurve) -> Markup:
    rows: list[list[Child]] = [
        [f"{threshold:g}", *(percent(float(curve.means[name][place])) for name in curve.means)]
        for place, threshold in enumerate(curve.thresholds.tolist())
    ]
    return table(label, ["T", *(METRICS[name].title for name in curve.means)], rows)
