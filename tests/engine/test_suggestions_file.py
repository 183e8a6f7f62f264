"""suggestions.json: round trip, what is refused, and that a viewer can read it without torch."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine import suggestions_file
from engine.errors import InputError
from engine.suggestions_file import ImageEntry, PlaceEntry, Suggestions

MADE = Suggestions(
    run="/runs/a", checkpoint="best", epoch=12, order="errors", seed=None,
    time=datetime(2026, 11, 21, 17, 30, tzinfo=UTC),
    images=(
        ImageEntry(
            image="plate 1/ä.png", rank=1, score=0.25, reason="unsure about 4 % of the pixels",
            places=(PlaceEntry(box=((0, 64), (32, 96)), score=0.125, reason="unsure about 31 %"),),
        ),
        ImageEntry(image="a_0000.tif;a_0001.tif", rank=2, score=0.25, reason="unsure about 3 %"),
    ),
)  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = suggestions_file.path_of(tmp_path)
    assert suggestions_file.read(path) is None
    suggestions_file.write(path, MADE)
    assert suggestions_file.read(path) == MADE
    assert [item.name for item in path.parent.iterdir()] == ["suggestions.json"]
    assert MADE.images[0].places[0].slices == (slice(0, 64), slice(32, 96))
    content = json.loads(path.read_text("utf-8"))
    assert list(content) == ["format", "run", "checkpoint", "epoch", "order", "seed", "time", "images"]
    assert content["images"][0]["places"][0]["box"] == [[0, 64], [32, 96]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "has format 2"),
        ({"order": 3}, "order cannot be used"),
        ({"images": [{"image": "a", "rank": 2, "score": 1, "reason": ""}]}, "ranks should be 1, 2, 3"),
        ({"images": [{"image": "../a", "rank": 1, "score": 1, "reason": ""}]}, "below the folder"),
        ({"images": [{"image": "/a", "rank": 1, "score": 1, "reason": ""}]}, "below the folder"),
        ({"images": [{"image": "a", "rank": 1, "score": -1, "reason": ""}]}, "images.0.score"),
        (
            {"images": [{"image": "a", "rank": k, "score": 1, "reason": ""} for k in (1, 2)]},
            "each image should be there once",
        ),
        (
            {
                "images": [
                    {
                        "image": "a", "rank": 1, "score": 1, "reason": "",
                        "places": [{"box": [[5, 5], [0, 9]], "score": 1, "reason": ""}],
                    }
                ]
            },
            "each side should end after it begins",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "suggestions.json"
    path.write_text(json.dumps({**MADE.model_dump(mode="json"), **change}), "utf-8")
    with pytest.raises(InputError) as said:
        suggestions_file.read(path)
    assert words in str(said.value)
    assert "run python -m engine.suggest again" in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"format": 1}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suggestions.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match="again"):
        suggestions_file.read(path)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        suggestions_file.write(tmp_path / "file" / "suggestions.json", MADE)
    assert (tmp_path / "file").read_text() == "x"


def test_orders_by_name() -> None:
    assert suggestions_file.named_order("random", 5).settings() == {"seed": 5}
    assert suggestions_file.named_order("errors", 5).model_dump()["name"] == "errors"
    assert suggestions_file.DEFAULT in suggestions_file.ORDERS
    with pytest.raises(InputError, match="did you mean 'errors'"):
        suggestions_file.named_order("error")


def test_reading_and_ranking_load_no_torch() -> None:
    code = "import sys, engine.suggestions_file, engine.suggestion; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
