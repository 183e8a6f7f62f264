"""The command napari-smm before it has a window: what it refuses, in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

import engine
from napari_smm import app


def test_version_and_help_load_neither_napari_nor_qt() -> None:
    for option, text in (("--version", f"napari-smm {engine.__version__}"), ("--help", "run directory")):
        code = (
            "import atexit, sys; from napari_smm.app import main;"
            "atexit.register(lambda: print([n for n in ('napari', 'qtpy', 'torch') if n in sys.modules]));"
            f"main([{option!r}])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert text in done.stdout
        assert done.stdout.endswith("[]\n")


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([str(tmp_path), str(tmp_path / "nothing.tif")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'nothing.tif'} does not exist: give run directories or images.\n"
    )


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [(app.BINDINGS, "no Qt binding is installed"), (("napari",), "napari is not installed")],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    gone: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in gone:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    assert app.main([]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "pip install 'napari-smm[pyqt6]'" in said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_without_a_display_the_command_says_so_and_qt_does_not_abort_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert app.main([]) == 2
    assert "there is no display" in capsys.readouterr().err


def test_who_opens_a_path(tmp_path: Path) -> None:
    run, folder, image = tmp_path / "run", tmp_path / "stack", tmp_path / "image.tif"
    for made in (run, folder):
        made.mkdir()
    for name in ("run.json", "events.jsonl"):
        (run / name).touch()
    image.touch()
    assert [app.reader_for(path) for path in (run, folder, image)] == ["napari-smm", "napari", None]
