"""Predictions with real processes: what they give, where it lies, and how they end. No window."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate, cycle, islice
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import PIL.Image
import psutil
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels
from support import FAST, write_pair

from engine.errors import InputError
from napari_smm import launch, planes, predicted
from napari_smm.layers import MARK
from napari_smm.placement import Transform
from napari_smm.planes import PlaneSource, plane_in_view, plane_source, row_bands, stored_plane, write_plane
from napari_smm.predicted import PredictedArrays, PredictedPlane, layers, open_plane
from napari_smm.prediction import (
    Prediction,
    PredictionState,
    batch_size,
    display,
    epitaph,
    folder_name,
    start,
)
from napari_smm.predictors import note, offered_runs
from napari_smm.targets import Target, offered

PATIENCE = 90.0
"""Seconds that a process may take to start on a busy machine."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def gray_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 epochs on gray images of 32 × 32 px, one class, with a best epoch."""
    root = tmp_path_factory.mktemp("gray")
    rng = np.random.default_rng(0)
    for number in range(12):
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 9, 4:20] = 1
        write_pair(root / "data", f"g{number}", rng.integers(0, 90, (32, 32), np.uint8) + 120 * mask, mask)
    return trained(root, "gray")


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 epochs on RGB images of 32 × 32 px, two classes, with tiles of 64 px."""
    root = tmp_path_factory.mktemp("colour")
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 9, 4:20], mask[20:30, number : number + 12] = 1, 2
        image = rng.integers(0, 60, (32, 32, 3))
        image[..., 0] += 120 * (mask == 1)
        image[..., 2] += 120 * (mask == 2)
        write_pair(root / "data", f"c{number}", image.astype(np.uint8), mask)
    return trained(root, "colour", "--prediction.tile=64")


def trained(root: Path, name: str, *more: str) -> Path:
    from engine import train  # by which torch is loaded, as nothing of the plugin does

    out = root / "runs" / name
    command = ["--data.root", str(root / "data"), "--out", str(out), "--training.epochs=2"]
    assert train.main([*command, *FAST, *more]) == 0
    assert (out / "checkpoints" / "last").is_file()  # a signal ends a training early, and well
    return out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_SMM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def picture(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(2, 20, shape).clip(0, 200)
    values[..., : shape[-1] // 2, :] += 50
    return values.astype(dtype)


def large(side: int) -> np.ndarray:
    """A picture that takes seconds to predict: a smaller one over and over."""
    return np.tile(picture((500, 500)), (side // 500, side // 500))


def source_of(data: Any, **given: Any) -> PlaneSource:
    return plane_source(Image(data, name="mine", **given))


def ended(prediction: Prediction) -> PredictionState:
    assert prediction.wait(PATIENCE), prediction.poll()
    return prediction.poll()


def finished(prediction: Prediction) -> PredictedArrays:
    state = ended(prediction)
    assert (state.state, state.message) == ("finished", "")
    return prediction.result()


def expected(run: Path, image: np.ndarray, checkpoint: str | None = None) -> np.ndarray:
    """What `Trained.probability` says in this process, (C, H, W)."""
    from engine.trained import Trained

    return Trained.open(run, checkpoint, device="cpu").probability(image)


def children() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "engine.predict" in child.cmdline()]


def waited(for_what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := for_what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found
    return found


def equal_to(found: Any, wanted: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(found), wanted)


# What is predicted


@pytest.mark.usefixtures("quick")
def test_an_array_in_memory(gray_run: Path, home: Path) -> None:
    image = picture((90, 70))
    seen: list[PredictionState] = []
    prediction = start(gray_run, source_of(image))
    while not prediction.poll().ended:
        seen.append(prediction.poll())
        time.sleep(0.01)
    found = finished(prediction)
    (level,) = found.levels(0)
    equal_to(level, expected(gray_run, image[..., None])[0])
    assert (found.classes, found.checkpoint, found.epoch > 0) == (("foreground",), "best", True)
    states = list(dict.fromkeys(state.state for state in seen))
    assert states == [name for name in ("reading", "starting", "running", "finishing") if name in states]
    assert "starting" in states
    # The copy of the image is gone, and what was predicted is kept below the workbench's folder.
    assert prediction.out.parent == home / "predictions"
    assert sorted(path.name for path in prediction.out.iterdir()) == ["log.txt", "plane"]
    assert children() == []


@pytest.mark.usefixtures("quick")
def test_a_stack_with_a_plane_that_the_run_was_trained_on(gray_run: Path) -> None:
    info = json.loads((gray_run / "run.json").read_text("utf-8"))
    file = gray_run.parents[1] / "data" / "images" / f"{info['splits']['train'][0]}.png"
    known = np.asarray(PIL.Image.open(file))
    found = finished(start(gray_run, source_of(np.stack([picture(known.shape), known]))))
    assert {plane: made.split for plane, made in found.planes.items()} == {(0,): None, (1,): "train"}
    (shown,) = layers(found, gray_run)
    meaning = shown.arguments["metadata"][MARK]
    assert meaning["split"] == "train"
    assert (meaning["path"]["tile"], meaning["path"]["data.size"]) == (1024, None)
    assert len(meaning["weights"]) == 64


@pytest.mark.usefixtures("quick")
def test_a_pyramid_of_doubles_by_the_last_checkpoint(gray_run: Path) -> None:
    image = picture((90, 70), np.float64) / 255
    layer = Image([image, image[::2, ::2]], name="mine", multiscale=True)
    found = finished(start(gray_run, plane_source(layer), checkpoint="last"))
    wanted = expected(gray_run, image[..., None].astype(np.float32), "last")
    equal_to(found.levels(0)[0], wanted[0])
    assert found.checkpoint == "last"


@pytest.mark.usefixtures("quick")
def test_zarr_on_disk_is_read_where_it_is(
    colour_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture((60, 150, 3))
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    group.create_array("inner/image", data=image, chunks=(20, 50, 3))
    source = source_of(group["inner/image"], rgb=True)
    assert stored_plane(source) == tmp_path / "group.zarr" / "inner" / "image"
    monkeypatch.setattr("napari_smm.prediction.write_plane", None)  # is not called
    found = finished(start(colour_run, source))
    wanted = expected(colour_run, image)
    assert len(wanted) == len(found.classes) == 2
    for number in range(2):
        equal_to(found.levels(number)[0], wanted[number])


@pytest.mark.usefixtures("quick")
def test_a_stack_of_colour_with_alpha(colour_run: Path) -> None:
    image = picture((3, 40, 90, 4))
    lazy = dask.array.from_array(image, chunks=(1, 17, 90, 4))
    found = finished(start(colour_run, source_of(lazy, rgb=True)))
    for cls in range(2):
        (level,) = found.levels(cls)
        assert level.shape == (3, 40, 90)
        for number in range(3):
            wanted = expected(colour_run, image[number, ..., :3])
            equal_to(level[number], wanted[cls])


@pytest.mark.usefixtures("quick")
def test_one_plane_of_a_gray_stack_by_a_run_on_colour(colour_run: Path) -> None:
    image = picture((2, 3, 40, 90), np.uint16)
    layer = Image(image, name="mine", scale=(2, 3, 1, 1), translate=(5, 6, 7, 8))
    found = finished(start(colour_run, plane_source(layer, (1, 2))))
    wanted = expected(colour_run, np.repeat(image[1, 2, ..., None], 3, axis=2))
    (level,) = found.levels(1)
    assert level.shape == (1, 1, 40, 90)
    equal_to(level[0, 0], wanted[1])
    shown = [Image(made.data, **made.arguments) for made in layers(found, colour_run)]
    for made in shown:
        np.testing.assert_allclose(made.data_to_world((0, 0, 3, 4)), layer.data_to_world((1, 2, 3, 4)))
    assert [made.visible for made in shown] == [True, False]
    assert [made.metadata[MARK]["classes"] for made in shown] == [[name] for name in found.classes]
    assert shown[0].name == f"probability · mine · {found.classes[0]}"
    # The Threshold dock takes each, and knows which class it is.
    tried = [Target.of_layers(made, None) for made in shown if offered(made)]
    assert [(target.number, target.several, target.class_axis) for target in tried] == [
        (0, True, None),
        (1, True, None),
    ]


@pytest.mark.usefixtures("quick")
def test_colour_becomes_gray_as_for_files(gray_run: Path) -> None:
    image = picture((40, 50, 3))
    found = finished(start(gray_run, source_of(image, rgb=True)))
    luminance = np.rint(image @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    equal_to(found.levels(0)[0], expected(gray_run, luminance[..., None])[0])


# How it ends


def test_a_cancel_in_the_middle(gray_run: Path) -> None:
    prediction = start(gray_run, source_of(large(4000)))
    waited(lambda: prediction.poll().state == "running" and prediction.poll().done)
    (process,) = children()
    prediction.cancel()
    assert prediction.poll().state == "cancelling"
    assert process.is_running()
    state = ended(prediction)
    assert state.state == "cancelled"
    assert 0 < state.done < state.total
    assert not process.is_running()
    assert not prediction.out.exists()
    with pytest.raises(InputError, match="has not finished"):
        prediction.result()


def test_a_cancel_while_the_image_is_read(gray_run: Path) -> None:
    class Slow:
        shape, dtype, ndim = (20_000, 20_000), np.dtype(np.uint8), 2

        def __getitem__(self, key: Any) -> np.ndarray:
            time.sleep(0.05)
            return np.zeros(self.shape, np.uint8)[key[-1]]

    source = PlaneSource(Slow(), False, "slow", ((),), Transform.identity(2))
    prediction = start(gray_run, source)
    state = waited(lambda: prediction.poll() if prediction.poll().done else None)
    assert (state.state, state.total) == ("reading", 20_000)
    prediction.cancel()
    assert ended(prediction).state == "cancelled"
    assert children() == []
    assert not prediction.out.exists()


def test_a_process_that_does_not_listen_is_killed(gray_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_smm.prediction.PATIENCE_SECONDS", (0.2, 0.6))
    prediction = start(gray_run, source_of(large(3000)))
    waited(lambda: prediction.poll().state == "running")
    (process,) = children()
    process.suspend()
    prediction.cancel()
    assert ended(prediction).state == "cancelled"
    assert not process.is_running()


def test_a_killed_process_has_failed(gray_run: Path) -> None:
    prediction = start(gray_run, source_of(large(3000)))
    waited(lambda: prediction.poll().state == "running" and prediction.poll().done)
    (process,) = children()
    with (prediction.out / "log.txt").open("a") as log:
        log.write("Killed by hand\n\n")
    process.send_signal(signal.SIGKILL)
    state = ended(prediction)
    assert state.state == "failed"
    assert "signal 9" in state.message
    assert state.message.endswith("its last words were: Killed by hand")
    # The log is kept, and nothing that looks like a result.
    assert [path.name for path in prediction.out.iterdir()] == ["log.txt"]


@pytest.mark.usefixtures("quick")
def test_what_the_engine_refuses_is_said_in_its_words(gray_run: Path) -> None:
    image = picture((30, 40), np.float32)
    image[3, 4] = np.nan
    state = ended(start(gray_run, source_of(image)))
    assert state.state == "failed"
    assert state.message.startswith("the image 'mine' (pixels 0 to")
    assert "NaN" in state.message


def test_an_image_that_cannot_be_read_has_failed(gray_run: Path) -> None:
    def broken(block: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("no lens")

    lazy = dask.array.zeros((30, 40), dtype=np.uint8).map_blocks(broken, meta=np.empty((0, 0), np.uint8))
    state = ended(start(gray_run, PlaneSource(lazy, False, "mine", ((),), Transform.identity(2))))
    assert state.state == "failed"
    assert "'mine' cannot be read in rows 0 to 29 (no lens)" in state.message
    assert children() == []


def test_it_ends_with_python(gray_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time, psutil, numpy as np; from pathlib import Path\n"
        "from napari_smm.placement import Transform; from napari_smm.planes import PlaneSource\n"
        "from napari_smm.prediction import start\n"
        "source = PlaneSource(np.zeros((5000, 5000), np.uint8), False, 'x', ((),), Transform.identity(2))\n"
        "prediction = start(Path(sys.argv[1]), source, Path(sys.argv[2]))\n"
        "while not psutil.Process().children(): time.sleep(0.02)\n"
        "print(psutil.Process().children()[0].pid)\n"
        "assert 'torch' not in sys.modules\n"
        "assert not any(name.startswith(('qtpy', 'PyQt', 'napari.')) for name in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(gray_run), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    assert not psutil.pid_exists(int(done.stdout))
    assert not (tmp_path / "out").exists()


# What is refused, and said


@pytest.mark.parametrize(
    ("data", "given", "said"),
    [
        (np.zeros((4, 5), bool), {}, "as a mask does"),
        (np.zeros((4, 5, 3), np.uint8), {"rgb": False}, "looks like colour"),
    ],
)
def test_images_that_cannot_be_predicted(data: np.ndarray, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        source_of(data, **given)


def test_numbers_that_are_not_real() -> None:
    with pytest.raises(InputError, match="such as its absolute value, would work"):
        PlaneSource(np.zeros((4, 5), complex), False, "mine", ((),), Transform.identity(2))


def test_layers_that_are_no_images() -> None:
    with pytest.raises(InputError, match="Labels layer 'painted' is no image"):
        plane_source(Labels(np.zeros((4, 5), np.uint8), name="painted"))
    with pytest.raises(InputError, match="no image is chosen"):
        plane_source(None)


def test_runs_that_cannot_predict(gray_run: Path, tmp_path: Path) -> None:
    source = source_of(picture((9, 9)))
    with pytest.raises(InputError, match="no run directory"):
        start(tmp_path / "nothing", source)
    run = tmp_path / "run"
    run.mkdir()
    info = (gray_run / "run.json").read_text("utf-8")
    (run / "run.json").write_text(info)
    with pytest.raises(InputError, match="no checkpoint yet"):
        start(run, source)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last").touch()
    with pytest.raises(InputError, match="no checkpoint best: last would work"):
        start(run, source, checkpoint="best")
    (run / "run.json").write_text(info.replace('"channels": 1', '"channels": 2'))
    with pytest.raises(InputError, match="2 channels, and 'mine' has 1"):
        start(run, source)
    assert not (tmp_path / "home" / "predictions").exists()


def test_a_folder_that_is_taken(gray_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "out"):
        with pytest.raises(InputError, match="cannot be made"):
            start(gray_run, source_of(picture((9, 9))), out)


def test_what_is_done_to_an_image_is_said() -> None:
    gray, colour = source_of(picture((9, 9))), source_of(picture((9, 9, 4)), rgb=True)
    assert note(1, gray) == ""
    assert "all three channels" in note(3, gray)
    assert note(3, colour) == "Alpha is left out."
    assert "luminance" in note(1, colour)


def test_the_runs_that_are_offered(gray_run: Path, colour_run: Path, home: Path) -> None:
    launch.remember(gray_run.parent)
    choices = offered_runs(watched=colour_run)
    assert {choice.path for choice in choices} == {gray_run, colour_run}
    assert [choice.channels for choice in choices] == [3, 1]
    assert choices[0].path == colour_run  # the newest
    assert choices[0].words == "✔ colour · epoch 2 of 2"
    assert [choice.checkpoints for choice in choices] == [("last",), ("best", "last")]


# Parts


@settings(deadline=None)
@given(
    height=st.integers(1, 5000),
    row_bytes=st.integers(1, 2**22),
    together=st.lists(st.integers(1, 900), min_size=1, max_size=6),
)
def test_bands_cover_an_image_and_cut_nothing(height: int, row_bytes: int, together: list[int]) -> None:
    bands = list(row_bands(height, row_bytes, together))
    assert [first for first, _ in bands] == [0, *(last for _, last in bands[:-1])]
    assert bands[-1][1] == height
    edges = set(accumulate(islice(cycle(together), height))) | {0, height}
    assert {edge for band in bands for edge in band} <= edges
    for first, last in bands:
        assert last - first <= max(together) or (last - first - max(together)) * row_bytes < planes.BAND_BYTES


def test_no_more_than_a_band_is_read(tmp_path: Path) -> None:
    read: list[int] = []

    class Watched:
        """10 GB of uint16 stored in pieces of 300 rows."""

        shape, chunks, dtype, ndim = (2, 2000, 20_000), (1, 300, 20_000), np.dtype(np.uint16), 3

        def __getitem__(self, key: Any) -> np.ndarray:
            plane, rows = key
            read.append(rows.stop - rows.start)
            return np.full((rows.stop - rows.start, self.shape[2]), plane, np.uint16)

    source = PlaneSource(Watched(), False, "x", ((1,),), Transform.identity(3))
    reports: list[tuple[int, int]] = []
    write_plane(source, (1,), tmp_path / "x.zarr", lambda done, total: reports.append((done, total)))
    assert set(read[:-1]) == {600}
    assert sum(read) == 2000
    assert [done for done, _ in reports] == [0, *accumulate(read)]
    array = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert (array.shape, array.dtype) == ((2000, 20_000), np.uint16)
    assert array[1999, 19_999] == 1


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("f8", "f4"), ("f2", "f4"), (">f4", "f4"), (">u2", "u2"), ("i4", "i4"), ("u1", "u1"), ("i8", "i8")],
)
def test_numbers_are_stored_as_they_are_but_for_floats(dtype: str, stored: str, tmp_path: Path) -> None:
    image = picture((20, 30), dtype)
    write_plane(source_of(image), (), tmp_path / "x.zarr", lambda done, total: None)
    found = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert found.dtype == np.dtype(stored)
    np.testing.assert_array_equal(found[:], image.astype(found.dtype))


def test_the_plane_that_a_viewer_shows() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(
        picture((3, 4, 20, 30)), scale=(1, 2, 0.5, 0.5), translate=(10, 0, 0, 0), units=("um",) * 4
    )
    # From now on the sliders count in nanometres, and reach beyond the first layer.
    viewer.add_image(picture((5, 5, 5)), units=("nm",) * 3, translate=(9000, 0, 0))
    assert str(viewer.layers.extent.units[0]) == "nanometer"
    viewer.dims.set_point(0, 12_000)
    viewer.dims.set_point(1, 2_100)
    assert plane_in_view(layer, viewer) == (2, 1)
    viewer.dims.set_point(1, 7_900)
    with pytest.raises(InputError, match="outside"):
        plane_in_view(layer, viewer)
    viewer.dims.set_point(1, 0)
    viewer.dims.ndisplay = 3
    with pytest.raises(InputError, match="last two axes"):
        plane_in_view(layer, viewer)
    viewer.dims.ndisplay = 2
    viewer.dims.order = (2, 3, 0, 1)
    with pytest.raises(InputError, match="last two axes"):
        plane_in_view(layer, viewer)
    flat = viewer.add_image(picture((20, 30)))
    assert plane_in_view(flat, viewer) == ()


def test_rgb_planes_are_counted_without_their_colours() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(picture((4, 20, 30, 3)), rgb=True)
    viewer.dims.set_point(0, 3)
    assert plane_in_view(layer, viewer) == (3,)
    assert plane_source(layer).planes == ((0,), (1,), (2,), (3,))


@given(seed=st.integers(0, 10_000), ndim=st.integers(2, 4), whole=st.booleans())
@settings(deadline=None, max_examples=25)
@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning")  # by napari
def test_a_result_lies_on_its_image(seed: int, ndim: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 4, ndim - 2), 6, 8)
    affine = np.eye(ndim + 1)
    affine[:-1] += rng.normal(0, 0.2, (ndim, ndim + 1))
    turn = 30 if ndim == 2 else np.linalg.qr(rng.normal(size=(ndim, ndim)))[0]
    layer = Image(
        np.zeros(shape, np.uint8), name="mine", scale=rng.uniform(0.2, 4, ndim),
        translate=rng.normal(0, 9, ndim), rotate=turn,
        shear=rng.normal(0, 0.3, ndim * (ndim - 1) // 2), affine=affine, units=("um",) * ndim,
        axis_labels=list("tzyx"[-ndim:]),
    )  # fmt: skip
    plane = tuple(int(rng.integers(length)) for length in shape[:-2])
    source = plane_source(layer, None if whole else plane)
    result = PredictedPlane((np.zeros((1, 6, 8), np.float32),), ("a",), Path("r"), "last", 1)
    made = dict.fromkeys(source.planes, result)
    (arguments,) = layers(PredictedArrays(made, source, Path("f")), Path("run"))
    shown = Image(arguments.data, **arguments.arguments)
    first = plane if shown.data.shape == layer.data.shape else (0,) * (ndim - 2)
    for pixel in ((0, 0), (5, 7)):
        np.testing.assert_allclose(
            shown.data_to_world((*first, *pixel)), layer.data_to_world((*plane, *pixel)), atol=1e-9
        )
    assert (shown.units, shown.axis_labels) == (layer.units, layer.axis_labels)
    assert shown.contrast_limits == [0, 1]


def write_result(folder: Path, shape: tuple[int, ...], levels: int = 1) -> np.ndarray:
    """A folder as the engine writes it. Returns the largest array."""
    p = np.random.default_rng(0).random(shape, np.float32)
    for number in range(levels):
        name = f"probability_{number}" if number else "probability"
        zarr.create_array(store=folder / name, data=p[:, :: 2**number, :: 2**number])
    names = ["probability", *(f"probability_{number}" for number in range(1, levels))]
    meta = (
        f'{{"format": 1, "run": "/r", "checkpoint": "best", "epoch": 3, "classes": ["a", "b"], '
        f'"levels": {names!r}}}'
    )
    (folder / "meta.json").write_text(meta.replace("'", '"'))
    return p


def test_small_results_are_held_in_memory_and_large_ones_are_not(tmp_path: Path) -> None:
    p = write_result(tmp_path, (2, 2000, 3000), levels=2)
    small = open_plane(tmp_path)
    assert [level.shape for level in small.levels] == [(2, 2000, 3000), (2, 1000, 1500), (2, 500, 750)]
    assert [type(level).__name__ for level in small.levels] == ["Array", "ndarray", "ndarray"]
    expected_mean = p[1, :4:2, :4:2].mean()
    assert small.levels[2][1, 0, 0] == pytest.approx(expected_mean, abs=1e-6)
    tight = open_plane(tmp_path, room=500_000)
    assert [level.shape[1:] for level in tight.levels] == [(2000, 3000), (1000, 1500), (125, 188)]
    found = PredictedArrays({(): tight}, source_of(np.zeros((2000, 3000), np.uint8)), tmp_path)
    np.testing.assert_array_equal(found.levels(1)[0][100:200, 7], p[1, 100:200, 7])


def test_a_single_small_result_is_one_array(tmp_path: Path) -> None:
    p = write_result(tmp_path, (2, 40, 30))
    (level,) = open_plane(tmp_path).levels
    np.testing.assert_array_equal(level, p)
    (level,) = open_plane(tmp_path, room=100).levels
    assert isinstance(level, zarr.Array)


def test_what_predicted_is_read_where_it_is_said(tmp_path: Path) -> None:
    write_result(tmp_path, (2, 40, 30))
    old = open_plane(tmp_path)
    assert (old.weights, old.path, old.split) == (None, None, None)
    meta = json.loads((tmp_path / "meta.json").read_text("utf-8"))
    said = {"weights": "abc", "path": {"tile": 64, "data.size": [8, 8]}, "split": "val"}
    (tmp_path / "meta.json").write_text(json.dumps({**meta, **said}))
    new = open_plane(tmp_path)
    assert (new.weights, new.path, new.split) == ("abc", {"tile": 64, "data.size": [8, 8]}, "val")
    source = source_of(np.zeros((40, 30), np.uint8))
    for plane, expected in ((old, dict.fromkeys(said)), (new, said)):
        for arguments in layers(PredictedArrays({(): plane}, source, tmp_path), Path("run")):
            meaning = arguments.arguments["metadata"][MARK]
            assert {name: meaning[name] for name in said} == expected
            assert (meaning["checkpoint"], meaning["epoch"]) == ("best", 3)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [((None, "val", "train"), "train"), ((None, "val", "val"), "val"), ((None, None, None), None)],
)
def test_a_stack_is_known_by_the_plane_that_was_seen_most(splits: Any, expected: str | None) -> None:
    array = (np.zeros((1, 8, 9), np.float32),)
    planes = {
        (number,): PredictedPlane(array, ("a",), Path("r"), "last", 1, "abc", {}, split)
        for number, split in enumerate(splits)
    }
    source = source_of(np.zeros((3, 8, 9), np.uint8))
    (made,) = layers(PredictedArrays(planes, source, Path("f")), Path("run"))
    assert made.arguments["metadata"][MARK]["split"] == expected


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "levels": ["no"]}'])
def test_a_broken_result_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(InputError):
        open_plane(tmp_path)


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(deadline=None)
def test_halves_are_means(shape: tuple[int, int]) -> None:
    p = np.random.default_rng(0).random((2, *shape), np.float32)
    half = predicted.halved(p)
    assert half.shape == (2, -(-shape[0] // 2), -(-shape[1] // 2))
    for row, column in np.ndindex(half.shape[1:]):
        block = p[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(half[:, row, column], block.mean((1, 2)), rtol=1e-5)


def test_planes_are_given_to_a_process_by_the_gigabyte() -> None:
    def size(shape: tuple[int, ...], dtype: Any) -> int:
        image = np.broadcast_to(np.zeros((), dtype), shape)
        return batch_size(PlaneSource(image, False, "x", (), Transform.identity(3)))

    assert size((900, 100, 100), np.uint8) == 100
    assert size((9, 2**14, 2**14), np.uint8) == 4
    assert size((9, 2**14, 2**14), np.float64) == 1
    assert size((9, 2**16, 2**16), np.uint8) == 1


def test_names_of_folders_sort_as_the_planes_do() -> None:
    source = PlaneSource(np.zeros((3, 11, 4, 5)), False, "x", (), Transform.identity(4))
    assert folder_name(source, (2, 7)) == "plane_2_07"
    names = [folder_name(source, plane) for plane in np.ndindex(3, 11)]
    assert names == sorted(names)
    assert folder_name(PlaneSource(np.zeros((4, 5)), False, "x", (), Transform.identity(2)), ()) == "plane"


def test_states_in_words() -> None:
    def words(state: Any, **given: Any) -> str:
        return display(PredictionState(state, **given)).status

    assert display(None).can_start
    assert words("running", done=11, total=64) == "▶ Predicting… · tile 12 of 64"
    assert words("running", done=11, total=64, plane=2, planes=5) == "▶ Predicting… · plane 2 of 5"
    assert words("cancelling", done=3, total=9) == "◑ Cancelling…"
    shown = display(PredictionState("running", 16, 64, seconds_left=75.2))
    assert (shown.done, shown.time_left) == (0.25, "1 min 15 s left")
    assert (shown.can_start, shown.can_stop) == (False, True)
    failed = display(PredictionState("failed", 16, 64, message="no"))
    assert (failed.status, failed.detail) == ("✖ Failed", "no")
    assert (failed.can_start, failed.can_stop) == (True, False)
    assert display(PredictionState("starting")).done is None


@pytest.mark.parametrize(
    ("code", "log", "said"),
    [
        (-9, [], "killed by signal 9, as happens when memory runs out; it had said nothing"),
        (1, ["Traceback", "ValueError: x", " "], "ended with code 1; its last words were: ValueError: x"),
        (0, ["predicted"], "ended with code 0; its last words were: predicted"),
    ],
)
def test_why_a_process_ended(code: int, log: list[str], said: str) -> None:
    assert epitaph(code, log).endswith(said)
