"""The command export on a trained run: files, what stands beside them, and what is refused."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from exports import untrained
from PIL import Image

from engine import calibrate, export
from engine.data.dataset import Dataset
from engine.errors import InputError
from engine.exported import onnx_file
from engine.exported.agreement import TOLERANCE
from engine.exported.description import calibrated, description
from engine.exported.file import write_checked
from engine.exported.graph import Graph
from engine.exported.real_images import inputs, real_images
from engine.trained import Trained


def test_a_file_gives_the_run_s_probabilities_in_ten_lines(
    finished: Path, vessels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/export.md shows it: with numpy, Pillow and onnxruntime alone."""
    path = tmp_path / "vessels.onnx"
    assert export.main([str(finished), "--onnx", str(path)]) == 0
    session = onnxruntime.InferenceSession(path)
    properties = session.get_modelmeta().custom_metadata_map
    image = np.asarray(Image.open(vessels / "images" / "v03.png"), np.float32)[None, None]
    assert json.loads(properties["normalization"])["name"] == "zscore"
    image = (image - image.mean()) / image.std()
    (p,) = session.run(["probability"], {"image": image})

    trained = Trained.open(finished, device="cpu")
    expected = trained.probability(np.asarray(Image.open(vessels / "images" / "v03.png"))[..., None])
    np.testing.assert_allclose(p[0], expected, rtol=0, atol=1e-5)
    told = json.loads((tmp_path / "vessels.onnx.json").read_text("utf-8"))
    assert told["agreement"]["allowed"] == TOLERANCE
    assert told["agreement"]["largest_difference"] < 1e-5
    shapes = [check["shape"] for check in told["agreement"]["images"]]
    assert shapes == [[1, 1, 40, 48], [1, 1, 25, 31], [2, 1, 40, 48], [1, 1, 40, 48], [1, 1, 40, 48]]
    # Images that training never saw.
    dataset = Dataset.open(trained.config.data, trained.info["splits"])
    assert told["agreement"]["images"][0]["image"] == dataset.cases("test")[0].name
    assert {key: json.loads(value) for key, value in properties.items()}.items() <= told.items()
    assert str(path) in capsys.readouterr().out

    with pytest.raises(InputError, match=r"vessels\.onnx exists already: give another name, or --overwrite"):
        export.main([str(finished), "--onnx", str(path)])


class Wrong:
    """ONNX files of another network than the run's."""

    def __init__(self, other: Trained) -> None:
        self._graph = Graph.of(other)

    def write(self, path: Path, graph: Graph, told: Mapping[str, Any]) -> None:
        onnx_file.write(path, self._graph, told)

    runner = staticmethod(onnx_file.runner)
    runtime = staticmethod(onnx_file.runtime)


def test_a_file_that_does_not_agree_is_not_kept(finished: Path, tmp_path: Path) -> None:
    trained = Trained.open(finished, device="cpu")
    graph, images = Graph.of(trained), real_images(trained)
    told, tried = description(trained, graph), list(inputs(trained, images, None))
    other = untrained(tmp_path / "other")
    with pytest.raises(
        InputError, match=r"^a\.onnx differs from the run by up to 0\.\d+ on v\d\d, more than 0.0001"
    ):
        write_checked(tmp_path / "a.onnx", Wrong(other), trained, graph, told, tried)
    colour = untrained(tmp_path / "colour", channels=3)
    with pytest.raises(InputError, match=r"^a\.onnx cannot predict v\d\d"):
        write_checked(tmp_path / "a.onnx", Wrong(colour), trained, graph, told, tried)
    assert {path.name for path in tmp_path.iterdir()} == {"other", "colour"}


def test_thresholds_go_along_with_their_promise_and_stay_with_their_weights(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(trained_run), "--rule", "dice", "--split", "val", "--device", "cpu"]
    assert calibrate.main(command) == 0
    trained = Trained.open(trained_run, device="cpu")
    told = description(trained, Graph.of(trained))
    (entry,) = told["thresholds"]
    assert entry["rule"] == "dice"
    assert not entry["guarantee"]
    assert 0 <= entry["classes"]["foreground"]["threshold"] <= 1
    assert entry["classes"]["foreground"]["promise"]
    network = trained.predictor.network
    with torch.no_grad():
        next(network.parameters()).add_(1)
    kept, left_out = calibrated(trained)
    assert kept == []
    assert len(left_out) == 1
    assert left_out[0].startswith("the threshold by dice is left out, as it was made with other weights")


def test_images_of_its_own_where_the_run_s_are_gone(finished: Path, vessels: Path, tmp_path: Path) -> None:
    trained = Trained.open(finished, device="cpu")
    data = trained.config.data.model_copy(update={"root": str(tmp_path / "gone")})
    moved = replace(trained, config=trained.config.model_copy(update={"data": data}))
    with pytest.raises(
        InputError, match=r"cannot be had \(.*does not exist.*\): --images FILE … gives others"
    ):
        real_images(moved)
    (image,) = real_images(moved, [str(vessels / "images" / "v01.png")])
    assert image.name == "v01"
    assert image.seen(moved).shape == (1, 1, 40, 48)


def test_what_a_resized_run_is_tried_on(tmp_path: Path, vessels: Path) -> None:
    trained = untrained(tmp_path, data={"size": [24, 32]})
    (image,) = real_images(trained, [str(vessels / "images" / "v01.png")])
    whole = trained.as_seen(np.asarray(Image.open(vessels / "images" / "v01.png"))[..., None])
    torch.testing.assert_close(image.seen(trained), whole.contiguous(), rtol=0, atol=1e-6)
    told = description(trained, Graph.of(trained))
    assert told["resized"] == {"inside": False, "to_pixels": [24, 32]}


def test_pieces_for_a_graph_of_one_size(tmp_path: Path, vessels: Path) -> None:
    trained = untrained(tmp_path)
    images = real_images(trained, [str(vessels / "images" / "v01.png")])
    ((name, piece),) = inputs(trained, images, (16, 64))
    assert (name, piece.shape) == ("v01", (1, 1, 16, 64))
    assert torch.equal(piece[..., 48:], piece[..., 47:48].expand(-1, -1, -1, 16))


def test_without_a_package_a_sentence_says_which(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError) as error:
        export.main([str(finished), "--onnx", str(tmp_path / "a.onnx")])
    assert str(error.value) == (
        'ONNX files need onnx and onnxruntime, which are not installed: pip install "napari-smm[export]" '
        "brings what is missing."
    )
