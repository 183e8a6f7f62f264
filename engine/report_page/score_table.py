"""Results: the test table, in the mean and per image."""

from collections.abc import Sequence

from engine import tables
from engine.report_page.evaluation import NOT_CLASSES, Evaluation
from engine.report_page.findings import Findings
from engine.report_page.markup import Child, Markup, code, element, facts, folded, joined, note, prose, table
from engine.report_page.words import NONE, command, counted, listed
from engine.tables import METRICS

MEANINGS = {
    "dice": "2 × found / (true + predicted): overlap, 100 % at best",
    "cldice": "the same of centre lines: is each branch found, whatever its width",
    "jaccard": "found / (true or predicted)",
    "fnr": "share of the true pixels that were missed",
    "fpr": "share of the background that was falsely found",
    "precision": "share of the predicted pixels that are true",
    "recall": "share of the true pixels that were found (sensitivity)",
    "lesion_recall": "share of the separate structures of which a pixel was found, over all images",
    "nll": "mean of −ln p of what is true, per pixel: 0 at best, high where it is sure and wrong",
    "brier": "mean of (truth − p)², 0 at best",
    "ece": "how far p is from how often it is right, on average over pixels; 0 at best",
}
"""What a score says, in a few words."""


def section(findings: Findings, scores: Evaluation) -> Markup:
    """What was scored and how, the means, the images."""
    return joined(
        outdated(findings, scores),
        no_test(scores),
        element("p", _how(findings, scores)),
        means(findings, scores),
        _skipped(scores),
        element("p", _interval(findings), class_="faint"),
        lesions(scores),
        time(scores),
        folded(f"Each of the {counted(len(scores.images()), 'image')}", per_image(findings, scores)),
    )


def _how(findings: Findings, scores: Evaluation) -> str:
    said = scores.summary
    size = {"native": "at the images' own size", "trained": "at the size that the network saw"}
    images = counted(int(said["images"]), f"{scores.split} image")
    return (
        f"{images}, scored {size.get(said['size'], said['size'])}; "
        f"decision: {said['decision']}; checkpoint {said['checkpoint']}, of epoch {said['epoch']}."
    )


def outdated(findings: Findings, scores: Evaluation) -> Markup | None:
    """A warning where the run has gone on since it was scored."""
    history = findings.history
    if history is None:
        return None
    now = {"best": history.best, "last": int(history.number[-1])}.get(str(scores.summary["checkpoint"]))
    if now in (None, 0, scores.summary["epoch"]):
        return None
    return note(
        f"These scores are of epoch {scores.summary['epoch']}; the run has gone on since, and its "
        f"{scores.summary['checkpoint']} checkpoint is now of epoch {now}. ",
        code(command("report", "--evaluate", findings.root)),
        " scores it anew.",
        kind="warning",
    )


def no_test(scores: Evaluation) -> Markup | None:
    """A warning where scored images chose the threshold by which they were scored."""
    chose = scores.summary.get("chose_threshold")
    if not chose:
        return None
    return note(
        f"T was chosen on {len(chose)} of these {counted(len(scores.images()), f'{scores.split} image')} "
        f"({listed(chose)}): their scores are no test of T, nor of what it promises.",
        kind="warning",
    )


def _interval(findings: Findings) -> str:
    grouped = findings.info["dataset"].get("grouped")
    whose = " It takes images as independent; those of one patient are not." if grouped else ""
    return f"± is half of the 95 % interval of the mean over images (Student's t).{whose}"


def means(findings: Findings, scores: Evaluation) -> Markup:
    """A row a metric, a column a class and the mean over them, and what the metrics say."""
    labels = _labels(findings.classes)
    alone = len(findings.classes) == 1
    rows: list[list[Child]] = []
    said: list[tuple[Child, Child]] = []
    for metric, shown in METRICS.items():
        entries = [scores.entry(label, metric) for label, _ in labels]
        if all(entry is None for entry in entries):
            continue
        title = f"{shown.heading}{', %' if shown.percent else ', nats' if metric == 'nll' else ''}"
        cells = [NONE if entry is None else tables.cell(metric, entry) for entry in entries]
        said.append((shown.title, MEANINGS.get(metric, "")))
        rows.append([title, *([said[-1][1]] if alone else []), *cells])
    titles = ["score", *(["what it says"] if alone else []), *(title for _, title in labels)]
    caption = f"Means over the {scores.split} images (↑ more is better, ↓ less)"
    made = table(caption, titles, rows, words=1 + alone)
    # Beside several classes there is no room for it.
    return made if alone else joined(made, folded("What the scores say", facts(said)))


def _labels(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Labels of the summary and their columns' titles. The mean of one class is that class."""
    if len(classes) == 1:
        return [("mean", classes[0]), ("background", "background")]
    every = [("mean", "mean of classes"), *((name, name) for name in classes)]
    return [*every, ("background", "background"), ("mean with background", "mean with background")]


def _skipped(scores: Evaluation) -> Markup | None:
    entries = {name: scores.entry("mean", name) for name in METRICS}
    some = [f"{METRICS[name].title} of {e.skipped}" for name, e in entries.items() if e and e.skipped]
    if not some:
        return None
    return element(
        "p", f"Not defined for some images, and left out of the means: {', '.join(some)}.", class_="faint"
    )


def lesions(scores: Evaluation) -> Markup | None:
    """How many separate structures were found, and how long an image takes."""
    found = scores.summary.get("lesions")
    if not found:
        return None
    each = [f"{label}: {entry['detected']:,} of {entry['total']:,}" for label, entry in found.items()]
    return element(
        "p",
        f"Lesions found ({'; '.join(each)}) are connected pieces of the truth of which a pixel at least was "
        "predicted, pooled over all images; the interval is Wilson's.",
    )


def time(scores: Evaluation) -> Markup | None:
    """How long an image takes."""
    said = scores.summary.get("inference")
    if not said:
        return None
    where = f"{said['device']} ({said['device_name']})"
    threads = f", {counted(said['threads'], 'thread')}" if said["device"] == "cpu" else ""
    shape = [said[axis] for axis in ("depth", "height", "width") if said.get(axis) is not None]
    return element(
        "p",
        f"Inference takes {said['median_ms']:.3g} ms an image: batch 1, {tables.extent(shape)}, "
        f"{where}{threads}, "
        f"median of {counted(said['images'] * said['repeats'], 'pass', 'passes')}.",
    )


def per_image(findings: Findings, scores: Evaluation) -> Markup:
    """A row an image and class, the worst first."""
    known = [name for name in scores.columns() if name in METRICS]
    several = len(findings.classes) > 1
    order = {name: place for place, name in enumerate(scores.ranked())}
    rows = sorted(
        (row for row in scores.rows if row["class"] not in NOT_CLASSES),
        key=lambda row: order.get(row["image"], len(order)),
    )
    titles = ["image", *(["class"] if several else [])]
    titles += [f"{METRICS[name].heading}{', %' if METRICS[name].percent else ''}" for name in known]
    cells: list[list[Child]] = [
        [row["image"], *([row["class"]] if several else []), *(_cell(name, row[name]) for name in known)]
        for row in rows
    ]
    return table("From the worst Dice to the best", titles, cells, words=1 + several)


def _cell(metric: str, text: str) -> str:
    if text == "":
        return NONE
    return f"{100 * float(text):.1f}" if METRICS[metric].percent else f"{float(text):.4f}"


def missing(findings: Findings, why: str) -> Markup:
    """What stands here where nothing was scored."""
    splits = findings.splits
    if splits.get("test"):
        return note(prose(why))
    other = next((part for part in ("val", "train") if splits.get(part)), None)
    more: Child = None
    if other is not None:
        flag = command("evaluate", findings.root, "--split", other)
        more = joined(" ", code(flag), f" scores the {other} images, which the network has been chosen by.")
        if other == "train":
            more = joined(" ", code(flag), " scores the training images, which says little.")
    return note("The run has no test images, so nothing says how it does on images that it never saw.", more)
