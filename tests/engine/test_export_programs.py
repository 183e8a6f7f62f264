"""Networks as programs of torch.export: of any size and batch, they give what the networks give."""

import json
from pathlib import Path

import pytest
import torch
from exports import untrained
from networks import NAMES, draw

from engine.exported import program_file
from engine.exported.description import description
from engine.exported.graph import Graph

SIZES = ((2, (40, 52, 24)), (1, (33, 70, 17)), (1, (1, 3, 40)))


@pytest.mark.parametrize(("name", "dims"), [*((name, 2) for name in NAMES), ("unet", 3)])
def test_a_program_gives_what_its_network_gives(name: str, dims: int, tmp_path: Path) -> None:
    trained = untrained(tmp_path, name, classes=("cell", "debris"), dims=dims, data={"patch": [40] * dims})
    graph, path = Graph.of(trained), tmp_path / "a.pt2"
    told = description(trained, graph)
    program_file.write(path, graph, told)
    run = program_file.runner(path)
    for batch, sides in SIZES:
        image = draw(batch, 1, *(graph.fixed or sides[:dims]))
        torch.testing.assert_close(run(image), trained.predictor.probability(image), rtol=0, atol=2e-5)
    inside = {program_file.METADATA: ""}
    torch.export.load(path, extra_files=inside)
    assert json.loads(inside[program_file.METADATA]) == told
