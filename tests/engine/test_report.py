"""The page of a run: whole, true, offline, unbreakable by names; and what it says of runs in any state."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from support import fast, write_pair

import engine
from engine import calibrate, checkpoint, decision, evaluate, lock, report, thresholds_file, train
from engine.calibration import Predicted
from engine.config import RunConfig, resolve
from engine.disk import append_line
from engine.errors import InputError
from engine.figures import page
from engine.figures.cases import Panel
from engine.figures.colours import FALSE_ALARM, MISSED, rgb
from engine.figures.overlay import errors
from engine.record import Progress, RunReader, RunWriter
from engine.report_page import cases, markup, pictures, words
from engine.report_page.evaluation import read_evaluation, threshold_curves
from engine.report_page.findings import read_findings
from engine.report_page.growth import predicted
from engine.report_page.settings import settings, written
from engine.thresholds_file import ClassEntry, Entry, named_rule
from engine.trained import Trained

ROOT = Path(engine.__file__).parents[1]
LIMIT = 5_000_000
"""Bytes that a usual page may have."""
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


@dataclass
class Read(HTMLParser):
    """A page as a strict reader sees it."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    cells: list[list[list[str]]] = field(default_factory=list)
    """Of each table its rows, of each row its cells' texts."""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.faults.append(f"an attribute of {tag} is given twice")
        self.tags.append((tag, dict(attrs)))
        if tag not in markup.VOID:
            self.open.append(tag)
        if tag == "table":
            self.cells.append([])
        if tag == "tr":
            self.cells[-1].append([])
        if tag in ("td", "th"):
            self.cells[-1][-1].append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> ends nothing, in line {self.getpos()[0]}")

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, first: str) -> list[list[str]]:
        """The rows of the table whose first row begins with a text."""
        return next(rows for rows in self.cells if rows[0][0] == first)


def read(path: Path) -> Read:
    page = Read()
    page.feed(path.read_text("utf-8"))
    page.close()
    return page


def check(page: Read) -> None:
    """All that holds of every page."""
    assert page.faults == []
    assert page.open == []
    assert page.tags[0] == ("html", {"lang": "en"})
    names = Counter(name for name, _ in page.tags)
    assert names["h1"] == names["main"] == names["title"] == 1
    # Nothing is fetched, and nothing runs.
    assert not set(names) & {"script", "link", "iframe", "object", "embed", "form", "base", "svg", "video"}
    for name, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes), name
        for key in ("src", "href", "srcset", "data", "poster", "action"):
            value = attributes.get(key) or "data:"
            assert value.startswith(("data:", "#")), f"{name} {key}={value[:60]}"
        assert "url(" not in (attributes.get("style") or "")
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'" in policy["content"]
    assert "script-src" not in policy["content"]
    # Images say what they show; tables have headers; headings leave no step out.
    for image in page.all("img"):
        assert image["src"].startswith("data:image/")
        assert len(image["alt"]) > 8
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    assert names["caption"] == names["table"]
    levels = [int(name[1]) for name, _ in page.tags if name in HEADINGS]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert all(attributes["aria-labelledby"] in ids for attributes in page.all("section"))
    assert all(len(set(map(len, rows))) == 1 for rows in page.cells)


def make(run: Path, *flags: str) -> Read:
    assert report.main([str(run), *flags]) == 0
    path = run / "report" / "report.html"
    assert path.stat().st_size < LIMIT
    page = read(path)
    check(page)
    return page


def pixels(source: str) -> np.ndarray:
    """Of an image in a page."""
    return np.asarray(Image.open(io.BytesIO(b64decode(source.partition(",")[2]))).convert("RGB"))


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.fixture(scope="module")
def scored(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has been scored and has a page; not to be written into."""
    root = Path(shutil.copytree(finished, tmp_path_factory.mktemp("scored") / "vessels"))
    assert evaluate.main([str(root), "--device=cpu", "--no-figures"]) == 0
    assert report.main([str(root), "--device=cpu"]) == 0
    return root


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    """A copy of it for a test that writes into it."""
    return Path(shutil.copytree(scored, tmp_path / "run"))


@pytest.fixture
def bare(run: Path) -> Path:
    """The same without watched images, of which a page is made more quickly."""
    shutil.rmtree(run / "watched")
    return run


@pytest.fixture
def eventless(bare: Path) -> Path:
    """The same whose events are lost: scores, and no epoch."""
    (bare / "events.jsonl").unlink()
    return bare


@pytest.fixture
def begun(eventless: Path) -> Path:
    """A run as it is before its first epoch, of which a page is made at once."""
    for name in ("test.csv", "test.json", "test-thresholds.csv"):
        (eventless / "report" / name).unlink()
    return eventless


# A whole page


def test_a_page_is_whole_and_asks_for_nothing(scored: Path) -> None:
    path = scored / "report" / "report.html"
    page = read(path)
    check(page)
    assert path.stat().st_size < LIMIT
    assert not re.search(r"url\(|@import|https?:|//[a-z]", page_without_images(path))
    sections = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert sections == ["results", "cases", "calibration", "training", "growth", "notes", "settings", "run"]
    kinds = Counter(image["src"].partition(";")[0] for image in page.all("img"))
    assert kinds["data:image/svg+xml"] == 3  # curves, reliability, thresholds
    assert kinds["data:image/jpeg"] >= 5


def page_without_images(path: Path) -> str:
    return re.sub(r"data:image/[^\"]*", "", path.read_text("utf-8"))


def test_the_page_says_what_the_run_is(scored: Path) -> None:
    page, info = read(scored / "report" / "report.html"), RunReader(scored).info()
    splits = page.table("split")
    assert {row[0]: row[2] for row in splits[1:]} == {
        part: str(len(names)) for part, names in info["splits"].items()
    }
    for said in (
        info["dataset"]["root"], info["device_name"], f"torch {info['libraries']['torch']}",
        f"engine {info['engine']}", f"{info['parameters']:,}", "finished, 6 of 6 epochs", "all epochs done",
        "SMM v2", info["dataset"]["fingerprint"][:16], *info["splits"]["test"],
    ):  # fmt: skip
        assert said in page.text
    assert "--training.epochs=6" in page.text or "engine.train" in page.text  # the command


def test_the_tables_hold_the_numbers_of_the_evaluation(scored: Path) -> None:
    page = read(scored / "report" / "report.html")
    saved = json.loads((scored / "report" / "test.json").read_text())
    with (scored / "report" / "test.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["class"] != "background"]
    means = {row[0]: row[2] for row in page.table("score")[1:]}
    dice, nll = saved["scores"]["mean"]["dice"], saved["scores"]["mean"]["nll"]
    assert means["DSC ↑, %"] == f"{100 * dice['value']:.2f} ± {100 * dice['margin']:.2f}"
    assert means["NLL ↓, nats"] == f"{nll['value']:.4f} ± {nll['margin']:.4f}"
    assert len(means) == 11
    images = page.table("image")
    worst_first = sorted(rows, key=lambda row: float(row["dice"]))
    assert [row[0] for row in images[1:]] == [row["image"] for row in worst_first]
    column = images[0].index("recall ↑, %")
    recalls = [float(row["recall"]) for row in worst_first]
    assert [row[column] for row in images[1:]] == [f"{100 * recall:.1f}" for recall in recalls]
    found, total = (sum(int(row[name]) for row in rows) for name in ("lesions_detected", "lesions"))
    assert f"{found} of {total}, pooled" in page.text
    bins = saved["reliability"]["foreground"]["count"]
    assert [row[1] for row in page.table("p")[1:]] == [f"{count:,}" for count in bins]


def test_the_worst_image_comes_first_with_its_misses(scored: Path) -> None:
    page = read(scored / "report" / "report.html")
    ranked = read_evaluation(scored, "test").ranked()
    text = page.text
    assert f"Worst: {ranked[0]}" in text
    assert f"Best: {ranked[-1]}" in text
    assert text.index(f"Worst: {ranked[0]}") < text.index(f"Best: {ranked[-1]}")
    (shown,) = (i for i in page.all("img") if i["alt"].startswith(f"Errors in {ranked[0]}: "))
    missed, false = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) px", shown["alt"]))
    seen = pixels(shown["src"]).astype(int)
    for colour, count in ((MISSED, missed), (FALSE_ALARM, false)):
        there = np.abs(seen - 255 * rgb(colour)).max(axis=2) <= 2
        assert there.sum() == 5**2 * count  # 48 px are enlarged five times
    with (scored / "report" / "test.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r["image"] == ranked[0] and r["class"] != "background")
    true = missed / float(row["fnr"])
    assert float(row["recall"]) == pytest.approx((true - missed) / true)


def test_settings_that_differ_come_first(scored: Path) -> None:
    page = read(scored / "report" / "report.html")
    first, every = (rows for rows in page.cells if rows[0][0] == "setting")
    assert {row[0] for row in first[1:]} == {
        "data.root", "data.patch", "model.base_width", "model.depth", "training.threads", "training.device",
        "training.epochs", "optimizer.lr",
    }  # fmt: skip
    assert dict(row[:2] for row in first)["optimizer.lr"] == "0.01"
    assert len(every) - 1 == sum(len(type(part).model_fields) for _, part in RunConfig())
    config = resolve([])[0]
    assert [setting.name for setting in settings(config) if setting.differs] == []


def test_another_part_is_compared_with_its_own_defaults(scored: Path) -> None:
    from engine.config import Layer

    given = {"modulation": {"name": "none"}, "optimizer": {"name": "sgd", "lr": 0.1}}
    changed = {s.name: s for s in settings(resolve([Layer("flags", given)])[0]) if s.differs}
    assert changed["modulation.name"].default == "smm_v2"
    assert changed["optimizer.name"].default == "adam"
    # The usual loss of plain training is no choice of the user's.
    assert set(changed) <= {"modulation.name", "optimizer.name", "optimizer.lr"}
    assert written({"a": [1, 2.0], "b": True, "c": None}) == "{a = [1, 2], b = true, c = not set}"


def test_a_second_page_scores_nothing_again_and_loads_no_torch(eventless: Path) -> None:
    before = (eventless / "report" / "test.json").read_bytes()
    Image.new("RGB", (3, 4)).save(eventless / "report" / "panels.png")
    code = (
        "import sys; from engine import report; code = report.main([sys.argv[1], '--no-evaluate']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, eventless], cwd=ROOT, check=True, capture_output=True
    )
    page = read(eventless / "report" / "report.html")
    check(page)
    assert "As the newest evaluation drew it." in page.text
    assert (eventless / "report" / "test.json").read_bytes() == before


# Names that try to break it


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_cannot_break_the_page(bare: Path, tmp_path: Path) -> None:
    nasty = '"><script>alert(1)<img src=x onerror=alert(2)> $\\frac$ `a` &amp;'
    root = Path(shutil.copytree(bare, tmp_path / nasty))

    def rename(info):
        info["dataset"]["classes"] = [nasty]
        info["dataset"]["root"] = f"/data/{nasty}\udcff\x00"
        info["host"] = nasty
        info["command"].append(nasty)
        info["splits"]["train"][0] = nasty

    edit(root / "run.json", rename)
    append_line(root / "events.jsonl", json.dumps({"event": "warning", "time": NOW, "message": nasty}))
    for name in ("test.csv", "test-thresholds.csv"):
        text = (
            (root / "report" / name)
            .read_text("utf-8")
            .replace("foreground", '"' + nasty.replace('"', '""') + '"')
        )
        (root / "report" / name).write_text(text, "utf-8")
    edit(root / "report" / "test.json", lambda content: relabel(content, nasty))
    page = make(root, "--no-evaluate")
    assert page.text.count(nasty) >= 6
    assert f"/data/{nasty}\ufffd\ufffd" in page.text


NOW = "2026-01-02T03:04:05.000+00:00"


def relabel(content, name: str) -> None:
    for part in ("scores", "lesions", "reliability"):
        content[part][name] = content[part].pop("foreground")


@given(st.text(), st.text())
def test_any_text_comes_back_as_it_was(text: str, value: str) -> None:
    page = Read()
    page.feed(markup.element("p", text, title=value))
    page.close()
    assert page.faults == page.open == []
    ((tag, attributes),) = page.tags
    assert tag == "p"
    assert page.text == markup.UNPRINTABLE.sub("\ufffd", text).replace("\r\n", "\r\n")
    assert attributes == {"title": markup.UNPRINTABLE.sub("\ufffd", value)}
    markup.element("p", text).encode("utf-8")


# Runs in any state


def test_a_run_without_an_epoch(begun: Path) -> None:
    run = begun
    page = make(run)
    assert "No epoch is finished" in page.text
    assert "The run has not begun." in page.text
    started = {"event": "started", "time": NOW, "pid": 1, "host": "here", "epochs": 6}
    append_line(run / "events.jsonl", json.dumps(started))
    page = make(run)
    assert "ended without a word" in page.text
    assert f"engine.train --resume {run}" in page.text
    failed = {"event": "failed", "time": NOW, "epoch": 1, "message": "no <room>", "traceback": "Trace <x>"}
    append_line(run / "events.jsonl", json.dumps(failed))
    page = make(run)
    assert "The run failed. no <room>." in page.text
    assert "Trace <x>" in page.text


def test_a_run_that_goes_on_is_not_scored(run: Path) -> None:
    shutil.rmtree(run / "report")
    cut_events(run, after=1)
    held = lock.take(run)
    try:
        page = make(run)
    finally:
        lock.free(run, held)
    assert not (run / "report" / "test.json").exists()
    assert "still going on" in page.text
    assert "1 of 6 epochs" in page.text
    assert f"engine.report --evaluate {run}" in page.text
    assert page.table("epoch")[1][0] == "1 (best)"


def cut_events(run: Path, *, after: int) -> None:
    """Leave of a run's events those until the end of an epoch."""
    lines = (run / "events.jsonl").read_text("utf-8").splitlines()
    last = next(
        i for i, line in enumerate(lines) if '"event": "epoch"' in line and f'"epoch": {after},' in line
    )
    (run / "events.jsonl").write_text("\n".join(lines[: last + 1]) + "\n", "utf-8")


def test_scores_of_an_earlier_epoch_are_called_so(bare: Path) -> None:
    run = bare
    edit(run / "report" / "test.json", lambda content: content.update(epoch=99))
    page = make(run, "--device=cpu")
    assert "These scores are of epoch 99; the run has gone on since" in page.text
    assert "could not be predicted again" in page.text
    assert f"engine.report --evaluate {run}" in page.text


def test_an_older_evaluation_lacks_calibration_and_says_so(bare: Path) -> None:
    run = bare

    def strip(content):
        for key in ("reliability", "lesions", "inference"):
            del content[key]
        for entries in content["scores"].values():
            for name in ("lesion_recall", "nll", "brier", "ece"):
                del entries[name]

    edit(run / "report" / "test.json", strip)
    (run / "report" / "test-thresholds.csv").unlink()
    page = make(run, "--no-evaluate")
    assert "measured no calibration" in page.text
    assert len(page.table("score")) == 1 + 7


def test_unreadable_scores_and_settings_are_said(eventless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = eventless
    (run / "report" / "test.json").write_text('{"scores": ', "utf-8")
    config = run / "config.toml"
    config.write_text(config.read_text("utf-8").replace("[loss]", "[loss]\nmystery = 3"), "utf-8")
    page = make(run, "--no-evaluate")
    assert "cannot be read (JSONDecodeError" in page.text
    assert "of another version of the program: unknown setting 'loss.mystery'" in page.text
    assert ["loss.mystery", "3"] in page.table("setting")
    assert capsys.readouterr().err.count("note: ") == 2
    config.unlink()
    assert "config.toml cannot be read" in make(run, "--no-evaluate").text


def test_images_that_are_gone_leave_the_tables(bare: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3, 4)).save(bare / "report" / "panels.png")
    config = bare / "config.toml"
    moved = re.sub(r'root = ".*"', f'root = "{tmp_path / "gone"}"', config.read_text("utf-8"))
    config.write_text(moved, "utf-8")
    events = (bare / "events.jsonl").rename(tmp_path / "events.jsonl")  # no curves are drawn without them
    page = make(bare, "--device=cpu")
    assert "could not be predicted again" in page.text
    assert "As the newest evaluation drew it." in page.text
    assert len(page.table("score")) == 12
    events.rename(bare / "events.jsonl")
    why = report.score(read_findings(bare), True, "cpu")
    assert why.startswith("The test images could not be scored: ")
    assert str(tmp_path / "gone") in why


def test_changed_masks_are_noticed(eventless: Path) -> None:
    run = eventless
    with (run / "report" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["dice"] = "0.123"
    with (run / "report" / "test.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "do not have the Dice of the table" in make(run, "--device=cpu").text


def test_a_run_of_one_epoch_without_validation_and_test(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--data.split=[1,0,0,0]", "--training.epochs=1", "--watch.train=0", "--modulation.name=none"]
    train.main(["--data.root", str(vessels), "--out", str(out), *fast(*flags)])
    page = make(out)
    assert "The run has no test images" in page.text
    assert "engine.evaluate" in page.text
    assert "--split train" in page.text
    assert "there is no val and no test split" in page.text  # the run's own warning
    assert "the run watched none" in page.text
    assert "plain training" in page.text
    assert page.table("epoch")[1][0] == "1"


def test_three_exclusive_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for number in range(12):
        mask = np.zeros((32, 40), np.uint8)
        for label in (1, 2, 3) if number else (1, 2):
            row, column = rng.integers(0, 24, 2)
            mask[row : row + 8, column : column + 10] = label
        write_pair(
            tmp_path / "data",
            f"i{number:02d}",
            (60 * mask + rng.integers(0, 30, mask.shape)).astype(np.uint8),
            mask,
        )
    out = tmp_path / "run"
    flags = [
        "--modulation.name=smm_v1",
        "--training.epochs=2",
        "--data.size=32",
        "--watch.train=1",
        "--watch.val=0",
    ]
    train.main(["--data.root", str(tmp_path / "data"), "--out", str(out), *fast(*flags)])
    page = make(out, "--device=cpu")
    assert page.table("score")[0][1:] == [
        "mean of classes", "class_1", "class_2", "class_3", "background", "mean with background"
    ]  # fmt: skip
    assert "decision: argmax over background and classes" in page.text
    assert sum("Truth of" in image["alt"] for image in page.all("img")) == 2


# Thresholds


WHOLE = {
    "n": 20, "kept": 17, "expected": (15, 20), "fnr": 0.0432, "interval": (-0.01, 0.081),
    "precision": 0.712, "precision_at_half": 0.8,
}  # fmt: skip
"""What a test split of 20 images shows."""


def calibrated(
    run: Path, name: str, test: dict | None = None, *, n: int = 12, left_out: int = 0,
    classes=("foreground",), together: bool = False, threshold: float = 0.25, made: str = NOW,
    words: str = "In at least 90 % of new images it holds.", of: Predicted | None = None,
    source: str = "calib split",
) -> None:  # fmt: skip
    """Add what a rule chose to a run's thresholds.json."""
    each = ClassEntry(threshold=threshold, n=n, left_out=left_out, words=words, test=test or {})
    data = {"source": source, "images": n + left_out, "unit": "image", "names": ["a", "b"],
            "fingerprint": "f00d"}  # fmt: skip
    predicted = of or Trained.open(run, "best", "cpu").predicted()
    thresholds_file.write(
        run, Entry(named_rule(name), together, dict.fromkeys(classes, each), predicted, data, made)
    )


def sections(page: Read) -> list[str | None]:
    return [attributes["aria-labelledby"] for attributes in page.all("section")]


def test_thresholds_with_a_guarantee_and_without_stand_apart(begun: Path) -> None:
    calibrated(begun, "precision", words="No guarantee: <b>nothing</b>.", threshold=0.5)
    calibrated(begun, "cls", WHOLE, left_out=2)
    page = make(begun, "--no-evaluate")
    assert sections(page)[:3] == ["results", "thresholds", "training"]
    promised, chosen = (rows for rows in page.cells if rows[0][0] == "rule")
    assert promised == [
        ["rule", "settings", "class", "what is promised", "what the test split showed", "T", "n", "left out"],
        [
            "cls", "ε = 10 %, α = 10 %", "foreground", "In at least 90 % of new images it holds.",
            "kept in 17 of 20 test images; in 95 % of test splits it is 15 to 20; missed: 4.3 % on average "
            "over 20 test images (95 % interval 0.0 % to 8.1 %); precision: 71.2 %, and 80.0 % at T = 0.5",
            "0.25", "12 images", "2",
        ],
    ]  # fmt: skip
    assert chosen[1] == [
        "precision", "wanted = 90 %", "foreground", "No guarantee: <b>nothing</b>.", "0.5", "12 images"
    ]  # fmt: skip
    text = page.text
    assert text.index("With a guarantee") < text.index("In at least 90 %")
    assert text.index("In at least 90 %") < text.index("Chosen on validation images, no guarantee")
    assert text.index("Chosen on validation images, no guarantee") < text.index("No guarantee: <b>")
    assert "--threshold precision" in text  # how it is used
    assert "There is no figure of cls" in text
    assert "f00d" in text


def test_only_what_is_there_is_shown(begun: Path) -> None:
    assert "thresholds" not in sections(make(begun, "--no-evaluate"))
    calibrated(begun, "dice", words="No guarantee: it is the best.")
    text = make(begun, "--no-evaluate").text
    assert "Chosen on validation images" in text
    assert "With a guarantee" not in text
    (begun / "thresholds.json").unlink()
    calibrated(begun, "crc", {"n": 1, "fnr": 0.25, "interval": (float("nan"), float("nan"))})
    page = make(begun, "--no-evaluate")
    assert "Chosen on validation images" not in page.text
    row = page.table("rule")[1]
    assert row[4] == "missed: 25.0 % on average over 1 test image"
    assert row[1] == "α = 10 %"


def test_fewer_kept_than_expected_and_infinite_thresholds_are_said(begun: Path) -> None:
    calibrated(begun, "cls", {**WHOLE, "kept": 14}, threshold=float("inf"))
    calibrated(begun, "conditional", {**WHOLE, "expected": (20, 20), "kept": 20, "precision": None})
    cls, conditional = make(begun, "--no-evaluate").table("rule")[1:]
    assert "it is 15 to 20, so these are fewer than the promise lets expect; missed" in cls[4]
    assert cls[5] == "∞"
    assert conditional[1] == "ε = 10 %, α = 10 %, δ = 10 %"
    assert conditional[4].startswith("kept in 20 of 20 test images; in 95 % of test splits it is 20; missed")
    assert "precision" not in conditional[4]


def test_classes_have_a_row_each_or_one_together(begun: Path) -> None:
    calibrated(begun, "cls", classes=("cell", "vessel"))
    calibrated(begun, "crc", classes=("cell", "vessel"), together=True)
    rows = make(begun, "--no-evaluate").table("rule")[1:]
    assert [(row[0], row[2], row[4]) for row in rows] == [
        ("cls", "cell", "–"), ("cls", "vessel", "–"), ("crc", "all together", "–")
    ]  # fmt: skip


def test_a_threshold_of_other_weights_promises_nothing(begun: Path) -> None:
    calibrated(begun, "cls", WHOLE)
    calibrated(begun, "dice", words="No guarantee: it is the best.")
    Image.new("RGB", (30, 20)).save(begun / "report" / "guarantee-cls.png")
    page = make(begun, "--no-evaluate")
    assert "does not hold any more" not in page.text
    assert f"python -m engine.predict {begun} IMAGES --threshold cls" in page.text
    # The same epoch, and the last digit of one weight.
    state = checkpoint.load(begun / "checkpoints" / "best")
    first = next(name for name, tensor in state["model"].items() if tensor.is_floating_point())
    state["model"][first] = torch.nextafter(state["model"][first], torch.tensor(2.0))
    checkpoint.save(begun / "checkpoints" / "best", state)
    page = make(begun, "--no-evaluate")
    with pytest.raises(InputError, match="no longer fits") as refused:
        decision.decide(Trained.open(begun, device="cpu"), "cls")
    assert f"The threshold by cls does not hold any more, and promises nothing: {refused.value}" in page.text
    assert "The threshold by dice does not hold any more" in page.text
    assert page.table("rule")[1][3] == "nothing any more: see the warning"
    assert "In at least 90 %" not in page.text
    assert "--threshold cls" not in page.text
    assert not page.all("img")
    (begun / "checkpoints" / "best").unlink()
    assert "has no checkpoint best" in make(begun, "--no-evaluate").text


def test_a_threshold_made_in_another_way_is_used_in_that_way(begun: Path) -> None:
    calibrated(begun, "cls", of=Trained.open(begun, "last", "cpu").tiled(64).predicted())
    text = make(begun, "--no-evaluate").text
    assert "does not hold any more" not in text
    assert f"engine.predict {begun} IMAGES --threshold cls --checkpoint last --tile 64" in text
    assert "evaluate cannot use it" in text


def test_test_images_that_chose_t_are_told_apart_from_a_test(begun: Path) -> None:
    calibrated(begun, "cls", source="test split")
    assert make(begun, "--no-evaluate").table("rule")[1][4] == (
        "nothing: the test images chose T, so none is left to test it"
    )


def test_images_that_chose_their_threshold_are_warned_of(bare: Path) -> None:
    path = bare / "report" / "test.json"
    names = RunReader(bare).info()["splits"]["test"]
    assert "no test of T" not in make(bare, "--no-evaluate").text
    edit(path, lambda content: content.update(chose_threshold=names[:2]))
    text = make(bare, "--no-evaluate").text
    assert f"T was chosen on 2 of these {len(names)} test images ({names[0]}, {names[1]})" in text


def test_thresholds_of_a_run_that_still_trains_are_of_an_epoch(begun: Path) -> None:
    calibrated(begun, "cls")
    assert "still trains" not in make(begun, "--no-evaluate").text
    epoch = thresholds_file.read(begun)["cls"].predicted.epoch
    trainer = RunWriter.reopen(begun, Progress())
    try:
        text = make(begun, "--no-evaluate").text
    finally:
        trainer.release()
    assert f"The run still trains: the thresholds belong to the weights of best after epoch {epoch}" in text


def test_the_worst_part_of_a_unit_is_named(begun: Path) -> None:
    calibrated(begun, "crc", {"n": 3, "fnr": 0.25}, classes=("cell", "vessel"), together=True)
    row = make(begun, "--no-evaluate").table("rule")[1]
    assert row[4] == "missed: 25.0 % of each image's worst class on average over 3 test images"


def test_a_figure_is_in_the_page_unless_it_is_of_an_earlier_calibration(begun: Path) -> None:
    file = begun / "report" / "guarantee-cls.png"
    Image.new("RGB", (30, 20), (1, 2, 3)).save(file)
    calibrated(begun, "cls", WHOLE)
    (shown,) = (image for image in make(begun, "--no-evaluate").all("img"))
    assert pixels(shown["src"]).shape == (20, 30, 3)
    assert "T = 0.25. In at least 90 %" in shown["alt"]
    os.utime(file, (0, 1_000_000_000))
    page = make(begun, "--no-evaluate")
    assert not page.all("img")
    assert "is of an earlier calibration" in page.text


@pytest.mark.parametrize("change", ["half", "format", "test"])
def test_damaged_thresholds_are_said_and_the_rest_is_shown(
    begun: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated(begun, "cls", WHOLE)
    path = begun / "thresholds.json"
    content = json.loads(path.read_text("utf-8"))
    if change == "test":
        del content["rules"]["cls"]["classes"]["foreground"]["test"]["expected"]
    else:
        content["format"] = 99
    text = json.dumps(content)
    path.write_text(text[:100] if change == "half" else text, "utf-8")
    page = make(begun, "--no-evaluate")
    expected = {"half": "cannot be read", "format": "has format 99", "test": "cannot be shown (KeyError"}
    assert expected[change] in page.text
    assert "settings" in sections(page)
    assert f"{path} " in capsys.readouterr().err


def test_images_scored_by_a_rule_are_shown_by_it(bare: Path) -> None:
    asked = [str(bare), "--device=cpu", "--rule=cls", "--epsilon=0.3"]
    assert calibrate.main([*asked, "--alpha=0.5"]) == 0
    by_rule = ["--threshold=cls", "--device=cpu", "--no-figures"]
    assert evaluate.main([str(bare), *by_rule]) == 0
    page = make(bare, "--device=cpu")
    assert "by cls (epsilon 0.3, alpha 0.5)" in page.text
    assert "do not have the Dice of the table" not in page.text
    assert any(image["alt"].startswith("Errors in ") for image in page.all("img"))
    (row,) = page.table("rule")[1:]
    assert row[1:3] == ["ε = 30 %, α = 50 %", "foreground"]
    entry = thresholds_file.read(bare)["cls"].classes["foreground"]
    assert row[3] == entry.words
    assert row[5] == f"{entry.threshold:.6g}"
    assert f"kept in {entry.test['kept']} of {entry.test['n']} test images" in row[4]
    assert any("Calibration by cls" in image["alt"] for image in page.all("img"))
    # Another T by the same rule: the pictures would be others than the scores.
    assert calibrate.main([*asked, "--alpha=0.4", "--no-figures"]) == 0
    text = make(bare, "--device=cpu").text
    assert "the rule chose p ≥" in text
    assert "--threshold cls" in text


# Refusals


def test_what_is_no_run_is_refused_in_a_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run directory"):
        report.main([str(run), str(tmp_path)])
    with pytest.raises(InputError, match="no run directory"):
        report.main([str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="one page and 2 runs"):
        report.main([str(run), str(run), "--out", str(tmp_path / "a.html")])
    with pytest.raises(InputError, match="is a folder"):
        report.main([str(run), "--out", str(tmp_path)])
    with pytest.raises(InputError, match="'gpu' is no device"):
        report.main([str(run), "--device", "gpu"])
    with pytest.raises(InputError, match="not allowed with"):
        report.main([str(run), "--evaluate", "--no-evaluate"])
    with (run / "events.jsonl").open("ab") as file:
        file.write(b"no json\n")
    with pytest.raises(InputError, match=r"events\.jsonl cannot be read"):
        report.main([str(run)])


def test_a_page_elsewhere(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (begun / "report" / "report.html").unlink()
    out = tmp_path / "new" / "page.html"
    assert report.main([str(begun), "--no-evaluate", "--out", str(out)]) == 0
    check(read(out))
    assert not (begun / "report" / "report.html").exists()
    assert capsys.readouterr().out.startswith(f"{out} (")


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file sizes")
def test_a_full_disk_leaves_the_page_that_was_there(begun: Path) -> None:
    import resource

    before = (begun / "report" / "report.html").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            report.main([str(begun), "--no-evaluate"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (begun / "report" / "report.html").read_bytes() == before
    assert not list((begun / "report").glob(".*"))


# Parts


def test_a_single_missed_pixel_keeps_its_colour() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (300, 300, 3), dtype=np.uint8)
    truth = np.zeros((1, 300, 300), bool)
    truth[0, 40, 50] = True
    prediction = np.zeros_like(truth)
    prediction[0, 90, 10] = True
    shown = pixels(pictures.overlay(errors(image, truth, prediction), 300)).astype(int)
    assert np.abs(shown[40, 50] - 255 * rgb(MISSED)).max() <= 2
    assert np.abs(shown[90, 10] - 255 * rgb(FALSE_ALARM)).max() <= 2
    large = pixels(pictures.overlay(errors(image, truth, prediction), 150)).astype(int)
    assert large.shape == (150, 150, 3)
    red = large[..., 0] - large[..., 2]
    assert np.unravel_index(red.argmax(), red.shape) == (20, 25)


def test_some_of_each_end_are_chosen_and_none_twice() -> None:
    for count in range(12):
        chosen = cases.choose([f"i{n}" for n in range(count)])
        names = [case.name for case in chosen]
        assert len(set(names)) == len(names) == min(count, 6)
        assert names == sorted(names, key=lambda name: int(name[1:]))
    assert [case.rank for case in cases.choose("abcdefgh")] == [
        "worst", "second worst", "third worst", "median", "second best", "best"
    ]  # fmt: skip
    assert cases.choose("a") == [cases.Ranked("a", "worst")]


def test_the_enlarged_part_holds_most_misses() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random((1, 500, 400)) < 0.001
    truth[0, 300:340, 350:400] = True
    found = np.zeros_like(truth)
    box, reason = cases.part(Panel("x", truth[0], truth, found))
    assert reason == "where most is missed"
    best = max(
        truth[0, top : top + cases.PART, left : left + cases.PART].sum()
        for top in range(0, 341, 4)
        for left in range(0, 241, 4)
    )
    assert truth[0][box].shape == (cases.PART, cases.PART)
    assert truth[0][box].sum() >= best - 3
    assert cases.part(Panel("x", truth[0], found, truth))[1] == "where most is falsely found"
    small = np.zeros((1, 20, 30), bool)
    assert cases.densest(small[0]) == (slice(0, 20), slice(0, 30))


def test_exclusive_classes_take_the_most_probable() -> None:
    p = np.array([[[0.5, 0.3, 0.1]], [[0.4, 0.3, 0.2]]], np.float32)
    assert predicted(p, "softmax").tolist() == [[[True, False, False]], [[False, False, False]]]
    assert predicted(p, "sigmoid").tolist() == [[[True, False, False]], [[False, False, False]]]


def test_scores_over_the_threshold_are_means_over_images() -> None:
    rows = [
        {"class": "a", "image": image, "threshold": t, "dice": d, "precision": "", "recall": "1"}
        for image, t, d in (("x", "0.1", "0.2"), ("y", "0.1", "0.4"), ("x", "0.2", ""), ("y", "0.2", "0.5"))
    ]
    curve = threshold_curves(rows)["a"]
    assert curve.thresholds.tolist() == [0.1, 0.2]
    assert curve.means["dice"].tolist() == pytest.approx([0.3, 0.5])
    assert np.isnan(curve.means["precision"]).all()


def test_times_leave_out_the_pause_before_a_resume(begun: Path) -> None:
    events = [
        {"event": "started", "time": "2026-01-01T00:00:00+00:00", "host": "h"},
        {"event": "stopped", "time": "2026-01-01T00:01:00+00:00", "epoch": 1, "reason": "SIGINT"},
        {"event": "started", "time": "2026-01-02T00:00:00+00:00", "host": "h", "resumed_after": 1},
        {"event": "finished", "time": "2026-01-02T00:00:30+00:00", "epoch": 1, "reason": "epochs"},
    ]
    text = "".join(json.dumps(event) + "\n" for event in events)
    (begun / "events.jsonl").write_text(text, "utf-8")
    assert read_findings(begun).seconds() == 90
    page = make(begun, "--no-evaluate")
    assert "1 min 30 s, in 2 sittings" in page.text
    assert "resumed after epoch 1 on h" in page.text
    assert "stopped after epoch 1 (SIGINT)" in page.text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.1234, "0.12 s"),
        (9.94, "9.9 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_words() -> None:
    assert words.counted(1, "image") == "1 image"
    assert words.counted(12000, "class", "classes") == "12,000 classes"
    assert words.percent(float("nan")) == words.number(None) == "–"
    assert words.percent(0.12345) == "12.3 %"
    assert words.listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert words.command("train", "a b") == "python -m engine.train 'a b'"
    assert words.size(10) == "1 kB"
    assert words.size(2_340_000) == "2.3 MB"


def test_a_dollar_sign_in_a_name_is_no_formula_and_equal_figures_are_equal() -> None:
    def draw() -> Figure:
        figure = page.page(2, 2, "$\\frac$")
        axes = figure.subplots()
        axes.plot([1, 10], [1e-6, 1], label="$x_$")
        axes.set_yscale("log")
        axes.legend()
        return figure

    drawn = pictures.lines(draw)
    assert drawn == pictures.lines(draw)
    svg = b64decode(drawn.partition(",")[2]).decode()
    assert "<!-- $\\frac$ -->" in svg
    assert "mathdefault{10^{-6}}" in svg  # a comment beside what is drawn as a formula
    assert svg.count("<!-- $") == svg.count("mathdefault") + 2
    assert pixels(pictures.painted(draw)).shape[2] == 3


def test_prose_marks_code() -> None:
    assert markup.prose("a `b` <c>") == "a <code>b</code> &lt;c&gt;"
    assert markup.prose("one ` alone") == "one ` alone"
    assert markup.joined(["a", ["<", None, 3]], markup.Markup("<b>")) == "a&lt;3<b>"


def test_a_run_of_a_comparison_is_called_by_its_place_in_the_grid(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "out" / "runs" / "eyes" / "U-Net" / "DSC++" / "seed-0"
    shutil.copytree(finished, run)
    assert read_findings(run).name == "seed-0", "no comparison's folder"
    (tmp_path / "out" / "comparison.toml").touch()
    assert read_findings(run).name == "eyes · U-Net · DSC++ · seed-0"
