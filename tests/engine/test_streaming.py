"""Streamed prediction: what the whole image gives, in a folder that others can watch and end."""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from engine import fingerprint, lock, predict
from engine.config import RunConfig
from engine.data.rows import Rows, open_rows
from engine.data.specs import Data
from engine.errors import InputError
from engine.infer import Predictor
from engine.models.unet import UNet
from engine.streamed.progress import CancelledError, Progress
from engine.streaming import reported, require_memory, stream
from engine.trained import Part, Trained

CPU = torch.device("cpu")
METHODS = get_args(Data.model_fields["normalization"].annotation)


def network(channels: int = 1, classes: int = 1, tile: int = 64, norm: Any = "batch", **data: Any) -> Trained:
    """A run's network with weights by chance."""
    torch.manual_seed(0)
    outputs = classes + (classes > 1)
    head: Any = "softmax" if classes > 1 else "sigmoid"
    model = UNet(channels, outputs, base_width=4, depth=2, norm=norm)
    with torch.no_grad():  # as sure of itself as a trained one, so that differences show
        model.head.weight.mul_(60)
        model.head.bias.zero_()
    info = {"dataset": {"channels": channels}}
    names = tuple(f"class{number}" for number in range(classes))
    predictor = Predictor(model, head, CPU, None, tile, 0.25)
    return Trained(Path("run"), RunConfig(data=Data(**data)), info, names, predictor, 1, "last")


def picture(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> Any:
    """Intensities as of a microscope, with blobs in them."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2, 20, shape).clip(0, 255)
    values[shape[0] // 4 : shape[0] // 2, : shape[1] // 3] += 90
    if np.dtype(dtype).kind == "f":
        return (values / 255).astype(dtype)
    return (values * (200 if np.dtype(dtype).itemsize > 1 else 0.7)).astype(dtype)


def large(side: int = 1500) -> Any:
    """A picture that takes seconds to predict: a smaller one over and over."""
    return np.tile(picture((500, 500)), (side // 500, side // 500))


def stored(path: Path, image: Any, chunks: tuple[int, ...] | None = None) -> Path:
    """An image as a zarr array."""
    zarr.create_array(store=path, data=image, chunks=chunks or "auto")
    return path


def streamed(trained: Trained, rows: Rows, part: Part | None = None) -> Any:
    """All blocks of a prediction in their places; NaN where none came."""
    whole = np.full((len(trained.classes), *rows.shape[:-1]), np.nan, np.float32)
    for box, p in trained.probabilities(rows, part=part):
        assert np.isnan(whole[(slice(None), *box)]).all()  # each comes once
        whole[(slice(None), *box)] = p
    return whole


def state(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "progress.json").read_text("utf-8"))
    return content


DTYPES = (np.uint8, np.uint16, np.float32)
SHAPES = (((97, 115), (60, 50)), ((160, 40), (40, 160)))
KINDS = [
    (method, 3 if method == "imagenet" else 1 + (row + column) % 3, dtype, 1 + (row + column) % 2)
    for row, method in enumerate(METHODS)
    for column, dtype in enumerate(DTYPES)
]
"""Each normalisation with each kind of number, and with 1, 2 and 3 channels and 1 and 2 classes."""


@pytest.mark.parametrize(("method", "channels", "dtype", "classes"), KINDS)
def test_gives_what_the_whole_image_gives(
    method: str, channels: int, dtype: Any, classes: int, tmp_path: Path
) -> None:
    trained = network(channels, classes, normalization=method)
    for number, shape in enumerate(SHAPES[channels % 2]):
        image = picture((*shape, channels), dtype)
        rows = open_rows(stored(tmp_path / f"{number}.zarr", image, (37, 50, channels)), channels)
        found = streamed(trained, rows)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, trained.probability(image))
        assert np.ptp(found) > 0.1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6, 0.9])
def test_with_any_overlap_of_tiles(overlap: float, tmp_path: Path) -> None:
    trained = network(tile=32, norm="instance")
    trained = replace(trained, predictor=replace(trained.predictor, overlap=overlap))
    image = picture((71, 60, 1))
    rows = open_rows(stored(tmp_path / "x.zarr", image), 1)
    found = streamed(trained, rows)
    np.testing.assert_array_equal(found, trained.probability(image))


@pytest.mark.parametrize("tile", [32, 64])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_runs_that_resize_give_the_images_own_size(dtype: Any, tile: int, tmp_path: Path) -> None:
    trained = network(3, 2, tile, size=(48, 56))
    for number, shape in enumerate([(90, 120), (48, 56)]):
        image = picture((*shape, 3), dtype)
        rows = open_rows(stored(tmp_path / f"{number}.zarr", image, (16, 16, 3)), 3)
        found = streamed(trained, rows)
        np.testing.assert_array_equal(found, trained.probability(image))


@pytest.mark.parametrize(
    ("method", "dtype"),
    [("zscore", np.uint16), ("zscore", np.float32), ("percentile", np.uint8), ("percentile", np.float32)],
)
def test_how_an_image_is_stored_changes_no_bit(
    method: str, dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = network(2, normalization=method)
    image = picture((100, 83, 2), dtype)
    whole = trained.probability(image)
    monkeypatch.setattr("engine.data.rows.MOST_VALUES", 83 * 2 * 20)
    for number, chunks in enumerate([(1, 83, 2), (7, 40, 1), (100, 83, 2)]):
        rows = open_rows(stored(tmp_path / f"{number}.zarr", image, chunks), 2)
        np.testing.assert_array_equal(streamed(trained, rows), whole)
    for lying in (np.asfortranarray(image), np.moveaxis(np.moveaxis(image, -1, 0).copy(), 0, -1)):
        np.testing.assert_array_equal(trained.probability(lying), whole)


@pytest.mark.parametrize("method", ["zscore", "percentile", "unit"])
def test_no_more_is_read_at_once_than_a_tile_or_a_band(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture((300, 200, 1), np.float32)
    rows = open_rows(stored(tmp_path / "x.zarr", image, (50, 40, 1)), 1)
    reads: list[int] = []

    def box(sides: Any) -> Any:
        reads.append(math.prod(side.stop - side.start for side in sides))
        return rows.box(sides)

    monkeypatch.setattr("engine.data.rows.MOST_VALUES", 5000)  # as if an image of this width were wide
    trained = network(normalization=method)
    found = streamed(trained, replace(rows, box=box))
    np.testing.assert_array_equal(found, trained.probability(image))
    tiles = trained.predictor.count((300, 200))
    assert reads[-tiles:] == [64 * 64] * tiles
    passes = reads[:-tiles]
    assert sum(passes) == 2 * 300 * 200
    assert max(passes) <= 5000


def test_the_command_writes_array_progress_and_meta(finished: Path, tmp_path: Path) -> None:
    image = picture((600, 1100))
    out = tmp_path / "out"
    path = stored(tmp_path / "x.zarr", image, (128, 128))
    command = [str(finished), str(path), "--stream", str(out), "--tile=512", "--device=cpu"]
    assert predict.main(command) == 0
    array = zarr.open_array(out / "probability", mode="r")
    assert array.metadata.zarr_format == 3
    assert (array.shape, array.chunks, array.dtype) == ((1, 600, 1100), (1, 512, 512), np.float32)
    trained = Trained.open(finished, device="cpu").tiled(512)
    np.testing.assert_array_equal(array[:], trained.probability(image[..., None]))
    assert state(out) == {"state": "finished", "done": 6, "tiles": 6, "message": ""}
    assert json.loads((out / "meta.json").read_text("utf-8")) == {
        "format": 1, "run": str(finished.resolve()), "checkpoint": trained.file, "epoch": trained.epoch,
        "digest": fingerprint.image(image[..., None]), "dims": 2, "spacing": None,
        "weights": fingerprint.weights(trained.predictor.network), "path": trained.predicted().path,
        "image": str(path), "split": None, "classes": list(trained.classes), "head": "sigmoid",
        "shape": [1, 600, 1100], "dtype": "float32", "levels": ["probability"],
    }  # fmt: skip
    assert trained.predicted().path["tile"] == 512
    assert sorted(item.name for item in out.iterdir()) == [
        "lock.guard", "meta.json", "probability", "progress.json", "zarr.json"
    ]  # fmt: skip


def test_a_file_gives_what_its_array_gives(finished: Path, vessels: Path, tmp_path: Path) -> None:
    image = vessels / "images" / "v00.png"
    assert stream(finished, image, tmp_path / "out", device="cpu")
    assert predict.main([str(finished), str(image), "--out", str(tmp_path / "p"), "--device=cpu"]) == 0
    found = zarr.open_array(tmp_path / "out" / "probability", mode="r")[:]
    np.testing.assert_array_equal(found[0], tifffile.imread(tmp_path / "p" / "v00_probability.tif").squeeze())


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_an_image_that_was_trained_on_is_known_however_it_is_stored(
    part: str, finished: Path, vessels: Path, tmp_path: Path
) -> None:
    name = Trained.open(finished, device="cpu").info["splits"][part][0]
    file = vessels / "images" / f"{name}.png"
    pixels = np.asarray(Image.open(file))
    other = pixels.copy()
    other[-1, -1] ^= 1
    images = {
        "file": file, "array": stored(tmp_path / "a.zarr", pixels, (7, 9)),
        "colour": stored(tmp_path / "c.zarr", np.stack([pixels] * 3, axis=-1), (16, 16, 3)),
        "another": stored(tmp_path / "b.zarr", other),
    }  # fmt: skip
    for kind, image in images.items():
        assert stream(finished, image, tmp_path / kind, device="cpu")
        meta = json.loads((tmp_path / kind / "meta.json").read_text("utf-8"))
        assert meta["split"] == (None if kind == "another" or part == "test" else part)


def test_runs_of_older_versions_do_not_know_their_images(
    trained_run: Path, vessels: Path, tmp_path: Path
) -> None:
    info = json.loads((trained_run / "run.json").read_text("utf-8"))
    (digest, *_), name = info.pop("digests")["train"].values(), info["splits"]["train"][0]
    assert Trained.open(trained_run, device="cpu").seen_in(digest) == "train"
    (trained_run / "run.json").write_text(json.dumps(info))
    trained = Trained.open(trained_run, device="cpu")
    assert not trained.knows_images
    assert trained.seen_in(digest) is None
    assert stream(trained_run, vessels / "images" / f"{name}.png", tmp_path / "out", device="cpu")
    assert json.loads((tmp_path / "out" / "meta.json").read_text("utf-8"))["split"] is None


def when(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """A thread that acts once a condition holds."""

    def wait() -> None:
        end = time.monotonic() + 60
        while not condition() and time.monotonic() < end:
            time.sleep(0.001)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_the_tile_after_a_cancel_is_the_last(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    progress.begin(9)
    progress.tick()
    (tmp_path / "cancel").touch()
    with pytest.raises(CancelledError):
        progress.tick()
    progress.end("cancelled")
    assert state(tmp_path) == {"state": "cancelled", "done": 2, "tiles": 9, "message": ""}


def test_progress_is_written_at_most_four_times_a_second(tmp_path: Path) -> None:
    started = time.monotonic()
    progress = Progress(tmp_path)
    progress.begin(10**6)
    file, versions = tmp_path / "progress.json", set()
    while time.monotonic() < started + 1.1:
        progress.tick()
        time.sleep(0.001)
        versions.add(file.stat().st_mtime_ns)
    assert 2 <= len(versions) <= 1 + 4 * (time.monotonic() - started)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_become_those_of_the_run_as_for_files(channels: int, tmp_path: Path) -> None:
    colour, gray = picture((200, 90, 3)), picture((200, 90))
    for name, image in (("colour", colour), ("gray as colour", np.stack([gray] * 3, 2)), ("gray", gray)):
        np.save(tmp_path / f"{name}.npy", image)
        of_file = open_rows(tmp_path / f"{name}.npy", channels)
        rows = open_rows(stored(tmp_path / f"{name}.zarr", image, (64, 32, 3)[: image.ndim]), channels)
        assert rows.shape == of_file.shape == (200, 90, channels)
        assert rows.dtype == of_file.dtype == np.uint8
        np.testing.assert_array_equal(rows.read(3, 150), of_file.read(3, 150))
        np.testing.assert_array_equal(np.concatenate(list(rows.bands())), of_file.read(0, 200))


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("bool", "uint8"),
        (">u2", "uint16"),
        ("int32", "float32"),
        ("float64", "float32"),
        ("float16", "float32"),
    ],
)
def test_every_kind_of_number_is_taken_as_from_files(dtype: str, kind: str, tmp_path: Path) -> None:
    image = (picture((40, 30), np.float64) * 3).astype(dtype)
    np.save(tmp_path / "x.npy", image)
    rows = open_rows(stored(tmp_path / "x.zarr", image, (16, 16)), 1)
    assert rows.dtype == np.dtype(kind)
    found = np.concatenate(list(rows.bands()))
    assert found.dtype == np.dtype(kind)
    np.testing.assert_array_equal(found, open_rows(tmp_path / "x.npy", 1).read(0, 40))


def test_arrays_of_zarr_2_and_with_shards(tmp_path: Path) -> None:
    image = picture((100, 70))
    zarr.create_array(store=tmp_path / "2", data=image, chunks=(30, 30), zarr_format=2)
    zarr.create_array(store=tmp_path / "s", data=image, chunks=(10, 10), shards=(40, 40))
    for name, chunk in (("2", 30), ("s", 40)):
        rows = open_rows(tmp_path / name, 1)
        assert rows.chunks == (chunk, chunk)
        np.testing.assert_array_equal(rows.read(7, 93)[..., 0], image[7:93])


def test_a_cancel_ends_it_within_a_tile(finished: Path, tmp_path: Path) -> None:
    path = stored(tmp_path / "x.zarr", large(), (500, 500))
    out = tmp_path / "out"

    def begun() -> bool:
        return (out / "progress.json").exists() and state(out)["done"] > 0

    at: list[int] = []

    def cancel() -> None:
        at.append(state(out)["done"])
        (out / "cancel").touch()

    thread = when(begun, cancel)
    command = [str(finished), str(path), "--stream", str(out), "--tile=64", "--device=cpu"]
    assert predict.main(command) == 130
    thread.join()
    found = state(out)
    assert found["state"] == "cancelled"
    assert 0 < at[0] <= found["done"] < found["tiles"] == 31 * 31
    assert not (out / "meta.json").exists()
    assert lock.holder(out) is None
    # It goes again, the cancel of before forgotten.
    with pytest.raises(InputError, match="--overwrite"):
        predict.main(command)
    small = stored(tmp_path / "y.zarr", picture((50, 60)))
    assert predict.main([str(finished), str(small), "--stream", str(out), "--overwrite"]) == 0
    assert state(out)["state"] == "finished"
    assert zarr.open_array(out / "probability", mode="r").shape == (1, 50, 60)
    assert not (out / "cancel").exists()


def test_several_images_go_into_folders_of_their_names(finished: Path, tmp_path: Path) -> None:
    shapes = {"a": (60, 50), "b": (40, 70), "c": (9, 9)}
    images = {name: picture(shape, seed=number) for number, (name, shape) in enumerate(shapes.items())}
    paths = [str(stored(tmp_path / f"{name}.zarr", image)) for name, image in images.items()]
    command = [str(finished), *paths, "--device=cpu", "--stream"]
    assert predict.main([*command, str(tmp_path / "out")]) == 0
    trained = Trained.open(finished, device="cpu")
    for name, image in images.items():
        found = zarr.open_array(tmp_path / "out" / name / "probability", mode="r")[:]
        np.testing.assert_array_equal(found, trained.probability(image[..., None]))
    # A cancel ends it, and what would have come after it.
    (tmp_path / "again" / "b").mkdir(parents=True)
    (tmp_path / "again" / "b" / "cancel").touch()
    assert predict.main([*command, str(tmp_path / "again")]) == 130
    assert state(tmp_path / "again" / "a")["state"] == "finished"
    assert state(tmp_path / "again" / "b")["state"] == "cancelled"
    assert not (tmp_path / "again" / "c").exists()


def test_a_cancel_from_before_the_start_counts(finished: Path, tmp_path: Path) -> None:
    path, out = stored(tmp_path / "x.zarr", picture((50, 60))), tmp_path / "out"
    out.mkdir()
    (out / "cancel").touch()
    (out / "log.txt").touch()
    assert not stream(finished, path, out, device="cpu")
    assert state(out)["state"] == "cancelled"
    later = time.time() + 5  # after the last sign of the earlier prediction: meant for the next
    os.utime(out / "cancel", (later, later))
    assert not stream(finished, path, out, device="cpu", overwrite=True)
    assert (out / "log.txt").exists()


def test_ctrl_c_cancels(finished: Path, tmp_path: Path) -> None:
    path, out = stored(tmp_path / "x.zarr", large(), (500, 500)), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.predict", finished, path, "--stream", out, "--tile=64"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    when(
        lambda: ((out / "progress.json").exists() and state(out)["done"] > 0) or process.poll() is not None,
        lambda: None,
    ).join()
    assert lock.holder(out) is not None
    with pytest.raises(InputError, match=f"in use by process {process.pid}"):
        stream(finished, path, out, overwrite=True)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "interrupted\n")
    assert state(out)["state"] == "cancelled"
    assert lock.holder(out) is None


def test_progress_is_whole_and_never_goes_back(finished: Path, tmp_path: Path) -> None:
    path, out = stored(tmp_path / "x.zarr", picture((700, 700)), (100, 100)), tmp_path / "out"
    seen: list[dict[str, Any]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            if (out / "progress.json").exists():
                seen.append(state(out))
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert stream(finished, path, out, device="cpu", tile=64)
    finally:
        ended.set()
        thread.join()
    assert {entry["state"] for entry in seen} <= {"running", "finished"}
    assert seen[0] == {"state": "running", "done": 0, "tiles": 0, "message": ""}
    done = [entry["done"] for entry in seen]
    assert done == sorted(done)
    assert state(out) == {"state": "finished", "done": 225, "tiles": 225, "message": ""}


def refused(tmp_path: Path, finished: Path, case: str) -> tuple[Path, Path]:
    """Run and image of a case."""
    nan = picture((200, 30), np.float32)
    nan[150, 3] = np.nan
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "group").create_array("0", data=picture((9, 9)))
    shapes = {"volume": (20, 60, 50), "stack": (5, 60, 50), "line": (60,), "5d": (2, 2, 2, 9, 9)}
    if case in shapes:
        return finished, stored(tmp_path / "x.zarr", np.zeros(shapes[case], np.uint8))
    if case == "nan":
        return finished, stored(tmp_path / "x.zarr", nan)
    path = stored(tmp_path / "x.zarr", picture((60, 50, 2)))
    if case == "complex":
        return finished, stored(tmp_path / "c.zarr", np.zeros((9, 9), np.complex64))
    if case == "corrupt":
        path = stored(tmp_path / "b.zarr", picture((60, 50)))
        next(path.glob("c/*/*")).write_bytes(b"no zstd")
    if case == "broken":
        (path / "zarr.json").write_text("{")
    named = {"none": "none.zarr", "folder": "folder", "group": "group", "corrupt": "b.zarr"}
    run = tmp_path / "folder" if case == "no run" else finished
    return run, tmp_path / named.get(case, "x.zarr")


SENTENCES = {
    "stack": "has 5 channels where 1 are needed", "volume": "has 3 axes of space, and the run .* of 2",
    "line": r"shape \(60,\)", "5d": r"\(2, 2, 2, 9, 9\)", "channels": "has 2 channels where 1 are needed",
    "nan": r"x.zarr \(pixels 0 to 199 × 0 to 29\) holds 1 pixels that are NaN",
    "none": "none.zarr does not exist", "folder": "folder is not a zarr",
    "group": "is a zarr that is not an image",
    "corrupt": "b.zarr cannot be read as zarr", "broken": "x.zarr cannot be read as zarr",
    "complex": "complex64", "no run": "is no run directory",
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_what_cannot_be_predicted_is_refused_in_one_sentence(
    case: str, finished: Path, tmp_path: Path
) -> None:
    run, image = refused(tmp_path, finished, case)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=SENTENCES[case]) as refusal:
        predict.main([str(run), str(image), "--stream", str(out)])
    assert "\n" not in str(refusal.value)
    assert state(out)["state"] == "failed"
    assert state(out)["message"] == str(refusal.value)
    assert lock.holder(out) is None


def test_what_nobody_foresaw_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), reported(tmp_path):
        raise RuntimeError("CUDA out of memory\nand more")
    assert state(tmp_path) == {"state": "failed", "done": 0, "tiles": 0, "message": "CUDA out of memory"}


def test_flags_that_do_not_go_together_are_refused(finished: Path, tmp_path: Path) -> None:
    image, out = str(stored(tmp_path / "x.zarr", picture((9, 9)))), str(tmp_path / "out")
    for more, said in (
        (["--threshold=0.4"], "--threshold goes"), (["--out", out], "--out goes"), ([image], "both be"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            predict.main([str(finished), image, *more, "--stream", out])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_someone_else_is_left_alone(trained_run: Path, tmp_path: Path) -> None:
    image = stored(tmp_path / "x.zarr", picture((9, 9)))
    before = sorted(trained_run.rglob("*"))
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds something else"):
            stream(trained_run, image, trained_run, overwrite=overwrite)
    assert sorted(trained_run.rglob("*")) == before
    for name in ("12", "probability_of_rain", "probability.tif"):
        (tmp_path / "mixed" / name).mkdir(parents=True)
        with pytest.raises(InputError, match="holds something else"):
            stream(trained_run, image, tmp_path / "mixed", overwrite=True)
        (tmp_path / "mixed" / name).rmdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file is in the way"):
        stream(trained_run, image, tmp_path / "file")


def test_an_image_too_large_for_a_run_that_resizes_is_refused_at_once(tmp_path: Path) -> None:
    zarr.create_array(store=tmp_path / "x.zarr", shape=(10**6, 10**6), chunks=(512, 512), dtype="uint8")
    rows = open_rows(tmp_path / "x.zarr", 1)
    with pytest.raises(InputError, match=r"needs about 15\d{3}\.\d GiB of memory.*without data.size"):
        require_memory(network(size=(64, 64)), rows, free=2**40)
    # Tile by tile it is no matter of memory.
    require_memory(network(), rows, free=2**32)
    with pytest.raises(InputError, match="smaller --tile or smaller chunks"):
        require_memory(network(tile=10**5), rows, free=2**32)


def test_one_chunk_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    zarr.create_array(store=tmp_path / "x.zarr", shape=(10**5, 10**5), chunks=(10**5, 10**5), dtype="uint8")
    with pytest.raises(InputError, match="smaller chunks"):
        require_memory(network(), open_rows(tmp_path / "x.zarr", 1), free=2**33)


def test_freed_buffers_are_given_back_where_the_c_library_can() -> None:
    code = "from engine.streaming import give_memory_back; print(give_memory_back())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(platform.libc_ver()[0] == "glibc")
