"""What napari reads of the plugin is the same in the repository, when installed, and in a wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from npe2 import PluginManifest

import engine

ROOT = Path(engine.__file__).parents[1]
MANIFEST = ROOT / "napari_smm" / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(MANIFEST)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the sources, so that no build folder appears among them."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("engine", "napari_smm"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    run("-m", "pip", *build, str(copy / "dist"), str(copy), cwd=copy)
    (made,) = (copy / "dist").glob("*.whl")
    return made


def run(*arguments: str, cwd: Path, first: Path | None = None) -> str:
    """What Python prints for some arguments, with a folder before all others on its path."""
    path = {"PYTHONPATH": str(first)} if first else {}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", **path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_top_level_manifest_is_the_packaged_one() -> None:
    assert (ROOT / "napari.yaml").read_bytes() == MANIFEST.read_bytes()


def test_the_installed_manifest_is_the_packaged_one(manifest: PluginManifest) -> None:
    installed = PluginManifest.from_distribution("napari-smm")
    assert installed.contributions == manifest.contributions


def test_the_installed_manifest_is_valid_and_all_that_it_names_can_be_called(tmp_path: Path) -> None:
    run("-m", "npe2", "validate", "--imports", "napari-smm", cwd=tmp_path)
    ask = (
        "from npe2 import PluginManifest; from npe2.manifest.utils import import_python_name as load;"
        "commands = PluginManifest.from_distribution('napari-smm').contributions.commands;"
        "print([command.id for command in commands if not callable(load(command.python_name))])"
    )
    assert run("-c", ask, cwd=tmp_path).strip() == "[]"


def test_all_contributions_are_declared_commands(manifest: PluginManifest) -> None:
    given = manifest.contributions
    declared = [command.id for command in given.commands or ()]
    in_menus = [item.command for items in given.menus.values() for item in items]
    used = [part.command for part in (*given.widgets, *given.readers, *given.sample_data)] + in_menus
    assert sorted(declared) == sorted(used)
    assert list(given.menus) == ["napari/layers/segment"]


def test_docks_opened_from_a_menu_and_by_name_are_the_same(manifest: PluginManifest) -> None:
    # napari knows a dock again by this name: "Train (napari-smm)".
    assert manifest.display_name == manifest.name
    assert [widget.display_name for widget in manifest.contributions.widgets] == [
        "Train",
        "Annotate",
        "Threshold",
        "Runs",
    ]


def test_no_picture_asks_which_reader_it_wants(manifest: PluginManifest) -> None:
    (reader,) = manifest.contributions.readers
    assert reader.accepts_directories
    assert not {"*.png", "*.tif", "*.tiff", "*.jpg", "*.npy", "*.zarr"} & {*reader.filename_patterns}


def test_a_wheel_holds_the_manifest_and_its_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        lines = archive.read(entry_points).decode().split("\n")
        assert archive.read("napari_smm/napari.yaml") == MANIFEST.read_bytes()
    assert {"napari-smm = napari_smm.app:main", "napari-smm = napari_smm:napari.yaml"} <= set(lines)
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("napari_smm/**/*.py")}
    assert sources | {"napari_smm/py.typed", "engine/py.typed", "engine/presets/demo.toml"} <= set(names)
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"engine", "napari_smm"}


def test_the_manifest_in_a_wheel_is_valid(wheel: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    run("-m", "npe2", "validate", "--imports", "napari-smm", cwd=tmp_path, first=unpacked)
    ask = (
        "import napari_smm; from importlib.metadata import distribution;"
        "print(napari_smm.__file__, distribution('napari-smm').locate_file(''))"
    )
    for place in run("-c", ask, cwd=tmp_path, first=unpacked).split():
        assert Path(place).is_relative_to(unpacked)
