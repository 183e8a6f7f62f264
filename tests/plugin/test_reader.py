"""Run directories as layers, without a window."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import MadeRun, watched_item

from engine.errors import InputError
from napari_smm.layers import MARK, View, contrast_band
from napari_smm.reader import get_reader, read_run

NAMES = [
    "image", "truth", "modulated mask", "probability", "prediction", "false positives", "false negatives",
    "recall slope",
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    items = [watched_item("a"), watched_item("b", "val")]
    return MadeRun(tmp_path / "run", items, epochs=5).train(3).end("stopped", reason="stop file")


def test_only_one_run_directory_is_read(run: MadeRun, tmp_path: Path) -> None:
    assert get_reader(str(run.root)) is read_run
    assert get_reader([str(run.root)]) is read_run
    assert get_reader([str(run.root), str(run.root)]) is None
    assert get_reader([]) is None
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(run.root / "run.json")) is None
    assert get_reader(str(tmp_path / "nowhere")) is None
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    (waiting / "run.json").touch()
    assert get_reader(str(waiting)) is None


def test_layers_are_those_of_the_newest_epoch_and_carry_their_run(run: MadeRun) -> None:
    from napari.layers import Layer

    read = read_run([str(run.root)])
    layers = {layer.name: layer for layer in (Layer.create(*data) for data in read)}
    assert list(layers) == NAMES
    for name, layer in layers.items():
        assert layer.metadata[MARK] == {"run": str(run.root), "role": name}
    np.testing.assert_array_equal(layers["image"].data, run.items[0].image[..., 0])
    np.testing.assert_array_equal(layers["truth"].data, run.items[0].truth[0])
    probability = run.probability[0][:3, 0].astype(np.float32)
    np.testing.assert_array_equal(np.asarray(layers["probability"].data), probability)
    added = run.modulated[0][:3, 0] & ~run.items[0].truth[0]
    np.testing.assert_array_equal(np.asarray(layers["modulated mask"].data) == 2, added)
    assert tuple(layers["prediction"].contrast_limits) == contrast_band(View().threshold)


def test_a_relative_path_is_marked_as_a_workbench_would_ask_for_it(
    run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.root.parent)
    assert read_run("run")[0][1]["metadata"][MARK]["run"] == str(run.root)


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_without_an_epoch_shows_image_and_truth(tmp_path: Path, epochs: int) -> None:
    run = MadeRun(tmp_path / "run", [watched_item("a")]).train(epochs) if epochs else None
    run = run or MadeRun(tmp_path / "run", [watched_item("a")])
    names = [arguments["name"] for _, arguments, _ in read_run(str(run.root))]
    run.writer.release()
    assert names == (NAMES if epochs else NAMES[:2])


def test_what_cannot_be_shown_is_said_in_a_sentence(tmp_path: Path, run: MadeRun) -> None:
    blind = MadeRun(tmp_path / "blind", []).train(1).end(reason="epochs")
    with pytest.raises(InputError, match=r"was told to watch no images, so there is nothing to show: a run"):
        read_run(str(blind.root))

    (run.root / "events.jsonl").write_text("")
    with pytest.raises(InputError, match=r"has not started yet, so there is nothing to show: watch it in"):
        read_run(str(run.root))

    info = json.loads((run.root / "run.json").read_text())
    (run.root / "run.json").write_text(json.dumps({**info, "format": 2}))
    with pytest.raises(InputError, match=r"has format 2, and this version reads format 1"):
        read_run(str(run.root))

    (run.root / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        read_run(str(run.root))

    with pytest.raises(InputError, match="2 paths were opened at once"):
        read_run([str(run.root), str(blind.root)])


def test_npe2_finds_the_reader_for_a_directory(run: MadeRun) -> None:
    import npe2

    import napari_smm

    manager = npe2.PluginManager()
    manifest = Path(napari_smm.__file__).with_name("napari.yaml")
    manager.register(npe2.PluginManifest.from_file(manifest))
    manager.activate("napari-smm")
    readers = list(manager.iter_compatible_readers([str(run.root)]))
    assert [reader.plugin_name for reader in readers] == ["napari-smm"]
    given = {"path": [str(run.root)], "stack": False, "_registry": manager.commands}
    reader = readers[0].exec(kwargs=given)
    assert len(reader([str(run.root)], stack=False)) == len(NAMES)
    assert not list(manager.iter_compatible_readers([str(run.root / "run.json")]))


def test_asking_about_a_directory_loads_next_to_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from napari_smm.reader import get_reader; assert get_reader(sys.argv[1]) is None;"
        "heavy = {'torch', 'zarr', 'numpy', 'scipy', 'matplotlib', 'napari', 'qtpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
