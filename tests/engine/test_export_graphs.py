"""Every network as an ONNX file: of any size and batch, it gives what the network gives."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from exports import untrained
from networks import IN_3D, NAMES, draw

from engine.exported import onnx_file
from engine.exported.description import description
from engine.exported.graph import AXES, FIXED, Graph, Portable

SIZES = ((2, (40, 52, 24)), (1, (33, 70, 17)), (1, (1, 3, 40)))


@pytest.mark.parametrize(
    ("name", "dims"), [*((name, 2) for name in NAMES), *((name, 3) for name in IN_3D if name not in FIXED)]
)
def test_an_onnx_file_gives_what_its_network_gives(name: str, dims: int, tmp_path: Path) -> None:
    classes = ("cell", "debris")
    trained = untrained(tmp_path, name, classes=classes, dims=dims, data={"patch": [40] * dims})
    graph = Graph.of(trained)
    onnx_file.write(tmp_path / "a.onnx", graph, description(trained, graph))
    run = onnx_file.runner(tmp_path / "a.onnx")
    for batch, sides in SIZES:
        image = draw(batch, 1, *(graph.fixed or sides[:dims]))
        expected = trained.predictor.probability(image)
        torch.testing.assert_close(run(image), expected, rtol=0, atol=2e-5)
        # Values that are all alike would show nothing.
        assert expected.max() - expected.min() > 5e-4


def test_what_a_file_says_of_its_axes_and_itself(tmp_path: Path) -> None:
    trained = untrained(tmp_path, dims=3, channels=2, classes=("a", "b"), data={"normalization": "unit"})
    graph = Graph.of(trained)
    told = description(trained, graph)
    onnx_file.write(tmp_path / "a.onnx", graph, told)
    model = onnx.load(tmp_path / "a.onnx")
    image, p = (value.type.tensor_type.shape.dim for value in (model.graph.input[0], model.graph.output[0]))
    assert [side.dim_param or side.dim_value for side in image] == ["batch", 2, *AXES[3]]
    assert [side.dim_param or side.dim_value for side in p] == ["batch", 2, *AXES[3]]
    inside = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert inside == told
    assert inside["classes"] == ["a", "b"]
    assert inside["head"]["name"] == "softmax"
    assert inside["normalization"]["how"].startswith("of each image and channel: (x - least)")
    assert inside["input"]["sizes"] == "any"
    assert inside["run"]["epoch"] == 3
    assert inside["thresholds"] == []


def test_a_network_of_one_size_says_so(tmp_path: Path) -> None:
    trained = untrained(tmp_path, "swin_unetr", data={"patch": [40, 72]})
    graph = Graph.of(trained)
    assert graph.fixed == (64, 96)
    assert description(trained, graph)["input"]["sizes"] == [64, 96]
    assert graph.free == {0: "batch"}


@pytest.mark.parametrize("sides", [(1, 1), (7, 9), (8, 12), (21, 33)])
def test_padding_in_a_graph_is_the_network_s_own(sides: tuple[int, int], tmp_path: Path) -> None:
    trained = untrained(tmp_path)
    portable, image = Portable(trained.predictor.network, "sigmoid"), draw(2, 1, *sides)
    with torch.no_grad():
        expected = trained.predictor.network(image).sigmoid()
        torch.testing.assert_close(portable(image), expected, rtol=0, atol=1e-6)
