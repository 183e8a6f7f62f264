"""Networks as programs of torch.export: they give what the networks give, of any size and batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exports import untrained
from networks import NAMES, draw

from engine.exported import program_file
from engine.exported.description import description
from engine.exported.graph import Graph


def test_a_program_takes_any_size(tmp_path: Path) -> None:
    trained = untrained(tmp_path, classes=("cell", "debris"))
    graph, path = Graph.of(trained), tmp_path / "a.pt2"
    told = description(trained, graph)
    program_file.write(path, graph, told)
    run = program_file.runner(path)
    for batch, sides in ((2, (40, 52)), (1, (33, 70)), (1, (1, 3))):
        image = draw(batch, 1, *sides)
        torch.testing.assert_close(run(image), trained.predictor.probability(image), rtol=0, atol=2e-5)
    inside = {program_file.METADATA: ""}
    torch.export.load(path, extra_files=inside)
    assert json.loads(inside[program_file.METADATA]) == told


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"unet", "swin_unetr"}))
def test_every_network_of_one_size(name: str, tmp_path: Path) -> None:
    """With free sizes, algebra on them takes a core ten seconds a network, and Swin UNETR twenty with one:
    the command compares every file that it writes."""
    trained = untrained(tmp_path, name, classes=("cell", "debris"))
    graph = replace(Graph.of(trained), fixed=(33, 40))
    program_file.write(tmp_path / "a.pt2", graph, {})
    run = program_file.runner(tmp_path / "a.pt2")
    for batch in (1, 3):
        image = draw(batch, 1, *(graph.fixed or ()))
        torch.testing.assert_close(run(image), trained.predictor.probability(image), rtol=0, atol=2e-5)
