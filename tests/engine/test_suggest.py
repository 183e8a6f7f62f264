"""Suggesting what to annotate next: which images, by what, what is written, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from volumes import SHAPE, write_volumes

from engine import calibrate, checkpoint, suggest, suggestions_file
from engine.data import annotated
from engine.data.annotated import AnnotationClass
from engine.errors import InputError
from engine.record import RunReader
from engine.suggestion import Seen
from engine.suggestion.misses import misses
from engine.suggestion.uncertainty import uncertain
from engine.suggestions_file import Suggestions
from engine.trained import Trained


@pytest.fixture
def plain(vessels: Path, tmp_path: Path) -> Path:
    """A folder of 6 images without masks."""
    root = tmp_path / "plain"
    root.mkdir()
    for path in sorted((vessels / "images").iterdir())[:6]:
        shutil.copy(path, root)
    return root


def suggested(run: Path, folder: Path, *flags: str) -> Suggestions:
    assert suggest.main([str(run), str(folder), "--device=cpu", *flags]) == 0
    found = suggestions_file.read(folder / "annotation" / "suggestions.json")
    assert found is not None
    return found


def refused(run: Path, folder: Path, *flags: str) -> str:
    with pytest.raises(InputError) as said:
        suggest.main([str(run), str(folder), "--device=cpu", *flags])
    return str(said.value)


def paint(root: Path, name: str, status: str) -> None:
    annotated.save(root, name, np.zeros((40, 48), np.uint8), status=status, origin="drawn")


def test_a_plain_folder_is_ranked_by_the_runs_own_probabilities(finished: Path, plain: Path) -> None:
    found = suggested(finished, plain, "--order", "uncertain")
    trained = Trained.open(finished, device="cpu")
    scores = {}
    for path in plain.glob("*.png"):
        p = trained.probability(np.asarray(Image.open(path))[..., None])
        scores[path.name] = uncertain(Seen.cut(path.name, p, (0.5,), trained.classes)).score
    assert [each.image for each in found.images] == sorted(scores, key=scores.__getitem__, reverse=True)
    assert [each.score for each in found.images] == sorted(scores.values(), reverse=True)
    assert (found.run, found.order, found.seed) == (str(finished.resolve()), "uncertain", None)
    assert found.epoch == trained.epoch
    for each in found.images:
        assert "unsure about" in each.reason
        for place in each.places:
            assert all(0 <= a < b <= n for (a, b), n in zip(place.box, (40, 48), strict=True))


def test_the_default_spreads_and_names_what_looks_alike(
    finished: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = suggested(finished, plain)
    assert found.order == suggestions_file.DEFAULT
    assert len(found.images) == 6
    assert "looks like" in found.images[0].reason
    shown = capsys.readouterr().out
    assert all(f"v{number:02d}.png" in shown for number in range(6))
    assert "6 of 6 images suggested" in shown


def test_what_is_done_in_an_annotated_folder_is_not_suggested(finished: Path, plain: Path) -> None:
    annotated.write_classes(plain, [AnnotationClass("vessel", 1, "#e69f00")])
    paint(plain, "v00.png", "done")
    paint(plain, "v01.png", "reviewed")
    paint(plain, "v02.png", "started")
    found = suggested(finished, plain)
    assert {each.image for each in found.images} == {f"v0{number}.png" for number in (2, 3, 4, 5)}
    for number in range(2, 6):
        paint(plain, f"v0{number}.png", "done")
    before = (plain / "annotation" / "suggestions.json").read_bytes()
    assert "all 6 images" in refused(finished, plain)
    assert (plain / "annotation" / "suggestions.json").read_bytes() == before


def test_places_are_looked_for_where_nothing_is_painted_yet(finished: Path, plain: Path) -> None:
    annotated.write_classes(plain, [AnnotationClass("vessel", 1, "#e69f00")])
    before = {each.image: each for each in suggested(finished, plain, "--order", "uncertain").images}
    labels = np.full((40, 48), 255, np.uint8)
    labels[:, :40] = 0
    annotated.save(plain, "v00.png", labels, status="started")
    after = {each.image: each for each in suggested(finished, plain, "--order", "uncertain").images}
    assert after["v01.png"] == before["v01.png"].model_copy(update={"rank": after["v01.png"].rank})
    assert after["v00.png"].score == before["v00.png"].score
    assert after["v00.png"].places[0].score < before["v00.png"].places[0].score
    (place,) = after["v00.png"].places
    assert place.box[1] == (16, 48)  # as far to the right as it goes
    annotated.save(plain, "v00.png", np.zeros((40, 48), np.uint8))
    painted = {each.image: each for each in suggested(finished, plain, "--order", "uncertain").images}
    assert painted["v00.png"].places == ()


def test_of_a_data_set_only_what_the_run_has_not_seen(finished: Path, vessels: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(vessels, tmp_path / "set"))
    found = suggested(finished, root, "--order", "misses")
    splits = RunReader(finished).info()["splits"]
    unseen = {f"images/{name}.png" for part in ("calib", "test") for name in splits[part]}
    assert {each.image for each in found.images} == unseen
    (root / "masks" / "v07.png").unlink()
    found = suggested(finished, root, "--order", "misses")
    assert [each.image for each in found.images] == ["images/v07.png"]
    only = tmp_path / "seen"
    for name in splits["train"]:
        for part in ("images", "masks"):
            (only / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(vessels / part / f"{name}.png", only / part)
    assert "trained or validated on them" in refused(finished, only)


def test_what_cannot_be_read_is_named_and_left_out(
    finished: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plain / "v03.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9, 2), np.uint8), "LA").save(plain / "v04.png")
    found = suggested(finished, plain)
    assert {each.image for each in found.images} == {"v00.png", "v01.png", "v02.png", "v04.png", "v05.png"}
    assert "left out: v03.png:" in capsys.readouterr().out
    annotated.write_classes(plain, [AnnotationClass("vessel", 1, "#e69f00")])
    paint(plain, "v05.png", "started")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(plain / "annotation" / "masks" / "v05.png")
    found = suggested(finished, plain)
    assert {each.image for each in found.images} == {"v00.png", "v01.png", "v02.png", "v04.png"}
    assert "5 × 5 px and its image 40 × 48 px" in capsys.readouterr().out


def test_an_image_of_other_channels_is_refused_in_one_sentence(
    finished: Path, plain: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "a.npy", np.zeros((40, 48, 5), np.float32))
    message = refused(finished, other)
    assert "none of 1 image" in message
    assert "5 channels" in message


def test_orders_beside_each_other_a_seed_a_limit_and_another_file(
    finished: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "next" / "list.json"
    flags = ["--order", "random", "errors", "--seed=7", "--limit=2", f"--out={out}", "--device=cpu"]
    assert suggest.main([str(finished), str(plain), *flags]) == 0
    found = suggestions_file.read(out)
    assert found is not None
    assert (found.order, found.seed, len(found.images)) == ("random", 7, 2)
    assert not (plain / "annotation").exists()
    assert all(not each.places for each in found.images)
    shown = capsys.readouterr().out
    assert "2 of 6 images suggested" in shown
    assert "errors" in shown
    again = tmp_path / "again.json"
    assert suggest.main([str(finished), str(plain), *flags[:-2], f"--out={again}"]) == 0
    assert json.loads(out.read_text())["images"] == json.loads(again.read_text())["images"]


def test_the_runs_calibrated_threshold_decides(
    trained_run: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate.main([str(trained_run), "--rule", "recall", "--wanted=0.95", "--split=val", "--device=cpu"])
    found = suggested(trained_run, plain, "--order", "misses")
    assert "by recall" in capsys.readouterr().out
    trained = Trained.open(trained_run, device="cpu")
    given = suggest.decide(trained, None)
    assert given.entry is not None
    first = found.images[0]
    p = trained.probability(np.asarray(Image.open(plain / first.image))[..., None])
    score = misses(Seen.cut("", p, given.entry.thresholds, trained.classes)).score
    assert first.score == pytest.approx(score)
    half = suggested(trained_run, plain, "--order", "misses", "--threshold=0.5")
    assert [each.score for each in half.images] != [each.score for each in found.images]


def test_volumes(finished3d: Path, tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "volumes")
    shutil.rmtree(next(path for path in root.iterdir() if "label" in path.name or "mask" in path.name))
    found = suggested(finished3d, root)
    assert len(found.images) >= 3
    for each in found.images:
        for place in each.places:
            assert all(0 <= a < b <= n for (a, b), n in zip(place.box, SHAPE, strict=True))


def test_a_network_that_gives_nan_is_refused(trained_run: Path, plain: Path) -> None:
    path = trained_run / "checkpoints" / "best"
    state = checkpoint.load(path)
    for tensor in state["model"].values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    checkpoint.save(path, state)
    assert "gives NaN" in refused(trained_run, plain)


def test_misuse_is_one_sentence(finished: Path, plain: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        "does not exist": refused(finished, tmp_path / "nowhere"),
        "is a file": refused(finished, plain / "v00.png"),
        "there is no image": refused(finished, empty),
        "known are varied, errors, uncertain, misses, random": refused(finished, plain, "--order", "best"),
        "--seed goes with": refused(finished, plain, "--order", "errors", "--seed=1"),
        "--seed -1": refused(finished, plain, "--order", "random", "--seed=-1"),
        "--limit 0": refused(finished, plain, "--limit=0"),
        "no checkpoint": refused(finished, plain, "--checkpoint=middle"),
        "--threshold 2": refused(finished, plain, "--threshold=2"),
        "run.json": refused(tmp_path / "empty", plain),
    }
    for words, message in cases.items():
        assert words in message, message
        assert "\n" not in message
    assert not (plain / "annotation").exists()
