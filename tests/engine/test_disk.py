import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine.disk import append_line, is_disk_full, replace_text, replacing

ROOT = Path(engine.__file__).parents[1]


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_a_text_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for text in ("first\n", "β = 0.1\n"):
        replace_text(file, text)
        assert file.read_bytes() == text.encode("utf-8")
    assert names(tmp_path) == {"config.toml"}


def test_a_writing_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    replace_text(file, "old")
    with pytest.raises(TypeError), replacing(file) as half:
        half.writelines([b"ne", "w"])  # type: ignore[list-item]
    assert file.read_text() == "old"
    assert names(tmp_path) == {"config.toml"}


def test_what_a_killed_writing_left_is_used_up_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from engine.disk import replacing\n"
        "with replacing(Path(sys.argv[1])) as file: file.write(b'half'); file.flush(); os._exit(9)"
    )
    file = tmp_path / "config.toml"
    replace_text(file, "old")
    killed = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, check=False)
    assert killed.returncode == 9
    assert file.read_text() == "old"
    assert len(names(tmp_path)) == 2
    replace_text(file, "new")
    assert names(tmp_path) == {"config.toml"}


def test_several_can_write_one_file_apart_and_the_last_to_end_well_stays(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    with replacing(file, apart=True) as first:
        first.write(b"first")
        replace_text(file, "second", apart=True)
        assert file.read_text() == "second"
        assert len(names(tmp_path)) == 2
    assert file.read_text() == "first"
    assert names(tmp_path) == {"thresholds.json"}


def test_lines_append(tmp_path: Path) -> None:
    for line in ("one", "zwölf"):
        append_line(tmp_path / "events", line)
    assert (tmp_path / "events").read_text("utf-8") == "one\nzwölf\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a process's files")
def test_on_a_full_disk_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    # Past the limit the system writes what still fits, then refuses: just what a full disk does.
    code = """
import json, resource, sys
from pathlib import Path
from engine.disk import append_line, replace_text
events, text = Path(sys.argv[1], "events"), Path(sys.argv[1], "text")
replace_text(text, "old")
append_line(events, "x" * 900)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
refused = []
for write in (lambda: append_line(events, "y" * 500), lambda: replace_text(text, "z" * 2000)):
    try:
        write()
    except OSError as error:
        refused.append(error.errno)
append_line(events, "short")
print(json.dumps(refused))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == [errno.EFBIG, errno.EFBIG]
    assert (tmp_path / "events").read_text() == "x" * 900 + "\nshort\n"
    assert (tmp_path / "text").read_text() == "old"
    assert names(tmp_path) == {"events", "text"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_told_from_other_errors_also_behind_another_error() -> None:
    with pytest.raises(OSError) as full, open("/dev/full", "wb", buffering=0) as file:  # noqa: PT011
        file.write(b"x")
    assert is_disk_full(full.value)
    behind = RuntimeError("the writer failed")
    behind.__context__ = full.value
    assert is_disk_full(behind)
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(PermissionError(errno.EACCES, "no"))
    assert not is_disk_full(RuntimeError("no"))
