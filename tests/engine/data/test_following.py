"""What is seen of a folder that is followed: whole and right masks, each version once."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from saved import bring, disc, save, settle

from engine.data import annotated, following
from engine.data.dataset import Dataset
from engine.data.following import Change, Live, with_cases
from engine.data.specs import Data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """12 images, of which some are in each split; masks of 0 and 1, and nothing else is known."""
    for number in range(12):
        bring(tmp_path, f"p{number // 2}_{number:02d}", number)
    return tmp_path


def opened(root: Path, **settings: object) -> tuple[Dataset, Live]:
    dataset = Dataset.open(Data(root=str(root), **settings))
    return dataset, Live.of(dataset)


def names(changes: list[Change]) -> list[str]:
    return [change.case.name for change in changes]


def test_nothing_is_seen_where_nothing_changed(root: Path) -> None:
    dataset, live = opened(root)
    assert live.changes(dataset, 1) == ([], [])
    assert live.changes(dataset, 2) == ([], [])


def test_a_corrected_mask_is_seen_once_with_what_is_in_it(root: Path) -> None:
    dataset, live = opened(root)
    name, val = dataset.names()["train"][2], dataset.names()["val"][0]
    save(root, name, disc(10, 20))
    save(root, val, disc(12, 22))
    changes, said = live.changes(dataset, 1)
    assert said == []
    assert [(each.case.name, each.part, each.new) for each in changes] == [
        (name, "train", False), (val, "val", False)
    ]  # fmt: skip
    np.testing.assert_array_equal(changes[0].sample.labels, disc(10, 20))
    assert live.changes(dataset, 2) == ([], [])
    save(root, name, disc(11, 20))
    assert names(live.changes(dataset, 3)[0]) == [name]


def test_masks_of_test_and_calib_are_never_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, live = opened(root)
    for part in ("calib", "test"):
        for name in dataset.names()[part]:
            save(root, name, disc(10, 20))
    read: list[str] = []
    monkeypatch.setattr(following, "read_sample", lambda case, _: read.append(case.name))
    assert dataset.names()["test"]
    assert live.changes(dataset, 1) == ([], [])
    assert read == []


def test_what_was_just_saved_waits(root: Path) -> None:
    dataset, live = opened(root)
    name = dataset.names()["train"][0]
    path = save(root, name, disc(10, 20), age=0)
    assert live.changes(dataset, 1) == ([], [])
    settle(path)
    assert names(live.changes(dataset, 2)[0]) == [name]


def test_a_clock_that_is_ahead_does_not_hold_a_mask_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, live = opened(root)
    name = dataset.names()["train"][0]
    save(root, name, disc(10, 20), age=-3600)
    assert live.changes(dataset, 1) == ([], [])
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.0)  # as if it had been waited for
    assert names(live.changes(dataset, 2)[0]) == [name]


def test_half_a_file_waits_and_is_refused_if_it_stays_so(root: Path) -> None:
    dataset, live = opened(root)
    name = dataset.names()["train"][0]
    whole = save(root, name, disc(10, 20)).read_bytes()
    path = root / "masks" / f"{name}.png"
    path.write_bytes(whole[: len(whole) // 2])
    settle(path)
    assert live.changes(dataset, 1) == ([], [])
    path.write_bytes(whole)  # the rest of it
    settle(path)
    assert names(live.changes(dataset, 2)[0]) == [name]
    path.write_bytes(whole[: len(whole) // 2])
    settle(path)
    assert live.changes(dataset, 3) == ([], [])
    changes, (message,) = live.changes(dataset, 4)
    assert changes == []
    assert message.startswith(f"the mask of {name} was not taken up: {path} cannot be read as PNG")
    assert live.changes(dataset, 5) == ([], [])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (disc(10, 20)[:30], "is 30 × 48 px (height × width) but the image"),
        (disc(10, 20) * 7, "holds mask value 7, which no class names"),
        (np.tile(np.arange(3, dtype=np.uint8), (40, 48, 1)), "holds colours or 3 differing channels"),
    ],
)  # fmt: skip
def test_what_is_wrong_for_good_is_refused_once_and_looked_at_again_when_it_changes(
    mask: np.ndarray, words: str, root: Path
) -> None:
    dataset, live = opened(root)
    name = dataset.names()["train"][3]
    path = save(root, name, mask)
    changes, (message,) = live.changes(dataset, 1)
    assert changes == []
    assert message.startswith(f"the mask of {name} was not taken up: ")
    assert str(path) in message
    assert words in message
    assert live.changes(dataset, 2) == ([], [])
    save(root, name, disc(10, 20))
    assert names(live.changes(dataset, 3)[0]) == [name]


def test_nan_in_a_mask_is_refused(tmp_path: Path) -> None:
    for folder in ("raw", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        np.save(tmp_path / "raw" / f"{number}.npy", np.full((8, 16), number, np.uint8))
        np.save(tmp_path / "labels" / f"{number}.npy", (disc(3, 3, (8, 16)) * 1.0))
    dataset, live = opened(tmp_path, images="raw/{id}.npy", masks="labels/{id}.npy")
    path = tmp_path / "labels" / "1.npy"
    np.save(path, np.full((8, 16), np.nan))
    settle(path)
    settle(tmp_path / "raw" / "1.npy")
    changes, (message,) = live.changes(dataset, 1)
    assert changes == []
    assert "1.npy holds mask values that are no whole numbers" in message


def test_new_images_join_the_split_of_their_layout_or_group(root: Path) -> None:
    dataset, live = opened(root, group=r"(p\d+)_")
    groups = {part: dataset.cases(part)[0].group for part in dataset.splits if dataset.splits[part]}
    assert set(groups) >= {"train", "val", "test"}
    for part, group in groups.items():
        bring(root, f"{group}_new_{part}", 30)
    bring(root, "p77_new", 31)
    changes, said = live.changes(dataset, 1)
    assert said == []
    assert {(each.case.name, each.part) for each in changes} == {
        (f"{groups['train']}_new_train", "train"), (f"{groups['val']}_new_val", "val"), ("p77_new", "train")
    }  # fmt: skip
    assert all(each.new for each in changes)
    grown = with_cases(dataset, [(each.case, each.part) for each in changes])
    assert grown.names()["val"][-1] == f"{groups['val']}_new_val"
    assert live.changes(grown, 2) == ([], [])


def test_an_image_without_its_mask_yet_is_told_of_only_if_it_stays_so(root: Path) -> None:
    dataset, live = opened(root)
    bring(root, "later", 30)
    mask = root / "masks" / "later.png"
    content = mask.read_bytes()
    mask.unlink()
    assert live.changes(dataset, 1) == ([], [])
    (message,) = live.changes(dataset, 2)[1]
    assert message.startswith("new images cannot be taken up: 1 image (images/later.png)")
    mask.write_bytes(content)
    settle(mask)
    assert names(live.changes(dataset, 3)[0]) == ["later"]


def test_of_new_images_the_image_too_must_be_whole(root: Path) -> None:
    dataset, live = opened(root)
    bring(root, "new", 30)
    image = root / "images" / "new.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    settle(image)
    assert live.changes(dataset, 1) == ([], [])
    image.write_bytes(whole)
    settle(image)
    assert names(live.changes(dataset, 2)[0]) == ["new"]


def test_a_volume_does_not_join_images(tmp_path: Path) -> None:
    for folder in ("raw", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        np.save(tmp_path / "raw" / f"{number}.npy", np.full((32, 40), number, np.uint8))
        np.save(tmp_path / "labels" / f"{number}.npy", disc(3, 3, (32, 40)))
    dataset, live = opened(tmp_path, images="raw/{id}.npy", masks="labels/{id}.npy")
    for folder, array in (
        ("raw", np.ones((32, 32, 40), np.uint8)),
        ("labels", np.ones((32, 32, 40), np.uint8)),
    ):
        np.save(tmp_path / folder / "deep.npy", array)
        settle(tmp_path / folder / "deep.npy")
    changes, (message,) = live.changes(dataset, 1)
    assert changes == []
    assert message.endswith("deep.npy is a volume, and the run began with images, which are what could join.")


def test_a_mask_that_goes_and_a_folder_that_fails_end_nothing(root: Path) -> None:
    dataset, live = opened(root)
    (root / "masks" / f"{dataset.names()['train'][0]}.png").unlink()
    assert live.changes(dataset, 1) == ([], [])
    shutil.rmtree(root / "masks")
    live.changes(dataset, 2)
    (message,) = live.changes(dataset, 3)[1]
    assert message.startswith("new images cannot be taken up: ")
    assert live.changes(dataset, 4) == ([], [])


def test_images_that_would_be_mixed_up_are_left_out(tmp_path: Path) -> None:
    for name in ("x/a", "x/b", "y/a", "y/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / f"{name}.png")
        settle(tmp_path / f"{name}.png")
    for name in ("x/a", "x/b"):
        paint(tmp_path, f"{name}.png", disc(10, 10, (24, 32)))
    dataset, live = opened(tmp_path)
    assert dataset.names()["train"] == ["a", "b"]
    paint(tmp_path, "y/c.png", disc(9, 9, (24, 32)))
    (change,) = live.changes(dataset, 1)[0]
    assert change.case.name == "c"
    paint(tmp_path, "y/a.png", disc(9, 9, (24, 32)))
    changes, (message,) = live.changes(with_cases(dataset, [(change.case, "train")]), 2)
    assert changes == []
    assert message.startswith(f"{tmp_path / 'y' / 'a.png'} is left out: there is another image of the name a")


def test_new_classes_are_told_of_and_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / f"{name}.png")
        settle(tmp_path / f"{name}.png")
    paint(tmp_path, "a.png", disc(10, 10, (24, 32)))
    dataset, live = opened(tmp_path)
    annotated.write_classes(
        tmp_path,
        [annotated.AnnotationClass("cell", 1, "#e69f00"), annotated.AnnotationClass("debris", 2, "#56b4e9")],
    )
    paint(tmp_path, "b.png", disc(10, 10, (24, 32)) * 2)
    changes, (classes, value) = live.changes(dataset, 1)
    assert changes == []
    assert "are others than when the run began, which goes on with cell" in classes
    assert "holds mask value 2, which no class names (0 background, 1 cell, 255 ignore)" in value


def test_masks_that_change_while_they_are_read_wait(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, live = opened(root)
    name = dataset.names()["train"][0]
    path = save(root, name, disc(10, 20))
    read = following.read_sample

    def read_and_save(case: object, dataset: Dataset) -> object:
        found = read(case, dataset)  # type: ignore[arg-type]
        settle(path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(following, "read_sample", read_and_save)
        assert live.changes(dataset, 1) == ([], [])
    assert names(live.changes(dataset, 2)[0]) == [name]


def test_an_annotated_folder_is_followed_as_any_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (24, 32), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        settle(tmp_path / f"{name}.png")
    painted = paint(tmp_path, "a.png", disc(10, 10, (24, 32)))
    dataset, live = opened(tmp_path)
    assert dataset.found.layout == "annotation"
    assert live.changes(dataset, 1) == ([], [])
    half = np.full((24, 32), 255, np.uint8)
    half[:, :10] = disc(5, 5, (24, 32))[:, :10]
    paint(tmp_path, "b.png", half)
    paint(tmp_path, "a.png", disc(12, 12, (24, 32)))
    changes, said = live.changes(dataset, 2)
    assert said == []
    assert [(each.case.name, each.new) for each in changes] == [("a", False), ("b", True)]
    np.testing.assert_array_equal(changes[1].sample.labels, half)
    assert painted.exists()


def paint(root: Path, image: str, labels: np.ndarray) -> Path:
    """Save a mask as the workbench does."""
    if not annotated.is_annotated(root):
        annotated.write_classes(root, [annotated.AnnotationClass("cell", 1, "#e69f00")])
    path = root / annotated.save(root, image, labels, origin="drawn", status="started").mask
    settle(path)
    return path


def test_looking_costs_little(root: Path) -> None:
    dataset, live = opened(root)
    live.changes(dataset, 1)
    start = time.process_time()
    for epoch in range(20):
        live.changes(dataset, epoch)
    assert (time.process_time() - start) / 20 < 0.02
