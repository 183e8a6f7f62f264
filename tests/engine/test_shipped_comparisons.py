"""The comparison files of the papers' tables: what they say, and an epoch of each on miniatures."""

import math
import re
from pathlib import Path
from typing import Any

import miniatures
import pytest

import engine
from engine import evaluate, timing, train
from engine.comparison import grid, results, settings, tabulate
from engine.comparison.grid import Cell, Comparison
from engine.comparison.settings import File
from engine.config import to_toml
from engine.errors import InputError

FOLDER = Path(engine.__file__).parent / "comparisons"
NAMES = (
    "dsc-figure4", "dsc-table3", "dsc-table4", "dsc-table5", "semantic-fpn-table1", "smm-table2",
)  # fmt: skip
TINY: dict[str, Any] = {
    "data": {"size": [32, 32]},
    "model": {"base_width": 4},
    "training": {"epochs": 1, "batch_size": 8, "threads": 1, "device": "cpu"},
    "watch": {"train": 0, "val": 0},
}
"""Settings with which a run takes a fraction of a second."""


def read(name: str) -> File:
    path = FOLDER / f"{name}.toml"
    return settings.check(settings.read(path), f"file {path}")


def layouts(name: str) -> dict[str, str]:
    """Data set → its layout."""
    return {data: values["data"]["layout"] for data, values in read(name).data.items()}


@pytest.fixture(scope="session")
def miniature_roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layout → the folder of its miniature."""
    root = tmp_path_factory.mktemp("miniatures")
    for layout, write in miniatures.WRITERS.items():
        write(root / layout)
    return {layout: root / layout for layout in miniatures.WRITERS}


def load(name: str, roots: dict[str, Path], out: Path, flags: dict[str, Any] | None = None) -> Comparison:
    """The comparison with every data set's miniature as the only thing filled in."""
    given = [f"{data}={roots[layout]}" for data, layout in layouts(name).items()]
    return grid.load(FOLDER / f"{name}.toml", out, roots=given, flags=flags or {})


def published(name: str) -> dict[tuple[str, str, str], str]:
    """(data set, network and method, metric) → number as printed."""
    return {
        (data, f"{network}, {method}", metric): number
        for data, networks in read(name).published.items()
        for network, methods in networks.items()
        for method, numbers in methods.items()
        for metric, number in numbers.items()
    }


def test_every_file_is_named_here() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_the_only_thing_to_fill_in(
    name: str, miniature_roots: dict[str, Path], tmp_path: Path
) -> None:
    file = read(name)
    assert all(values["data"]["root"] == "" for values in file.data.values())
    with pytest.raises(InputError, match=r"no folder is known of .*fill in data\.root"):
        grid.load(FOLDER / f"{name}.toml", tmp_path)
    comparison = load(name, miniature_roots, tmp_path)
    assert comparison.notes == ()
    assert comparison.data == tuple(file.data)
    assert len(comparison.cells) == len(file.seeds) * len(file.data) * len(file.networks) * len(file.methods)


@pytest.mark.parametrize("name", NAMES)
def test_it_cites_its_paper(name: str) -> None:
    assert read(name).about.startswith("Published")
    comment = "".join(
        line for line in (FOLDER / f"{name}.toml").read_text("utf-8").splitlines() if line.startswith("#")
    )
    assert re.search(r"Balancing the False|Yeung et al\.|Vaona", comment)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dsc-figure4"])
def test_every_published_number_stands_beside_ours(name: str) -> None:
    file = read(name)
    asked = {
        (data, f"{network}, {method}", metric)
        for data in file.data
        for network in file.networks
        for method in file.methods
        for metric in file.metrics
    }
    assert set(published(name)) == asked
    number = r"\d+\.\d+( ± \d+\.\d+\*?| \(\d\.\d{3}-\d\.\d{3}\))"
    assert all(re.fullmatch(number, value) for value in published(name).values())


def test_the_dsc_tables_agree_where_the_paper_prints_a_run_twice() -> None:
    third, fourth = published("dsc-table3"), published("dsc-table4")
    for gamma, loss in {"1.0": "DSC", "2.0": "DSC++"}.items():
        for metric in ("nll", "brier", "dice", "jaccard"):
            assert third["DRIVE", f"U-Net, {gamma}", metric] == fourth["DRIVE", f"U-Net, {loss}", metric]


def test_the_mean_of_an_interval_lies_in_its_middle() -> None:
    for name in ("dsc-table3", "dsc-table4", "dsc-table5"):
        for value in published(name).values():
            mean, low, high = map(float, re.findall(r"\d\.\d{3}", value))
            assert abs((low + high) / 2 - mean) <= 0.001 + 1e-9, value


def test_smm_table_2(miniature_roots: dict[str, Path], tmp_path: Path) -> None:
    comparison = load("smm-table2", miniature_roots, tmp_path)
    assert comparison.seeds == (0, 1, 2, 3, 4)
    assert (comparison.spread, comparison.test, comparison.size) == ("std", "welch", "trained")
    assert (comparison.checkpoint, comparison.ours) == ("last", ("SMMv1", "SMMv2"))
    configs = {(cell.data, cell.method): cell.config for cell in comparison.cells}
    sizes = {data: config.data.size for (data, _), config in configs.items()}
    assert sizes == {"BoMBR": (512, 512), "DRIVE": (512, 512), "Cracks": (224, 224), "Drone": (512, 512)}
    trained = {method: (config.modulation.name, config.loss.name) for (_, method), config in configs.items()}
    assert trained == {
        "Vanilla U-Net": ("none", "dice_ce"),
        "U-Net + SRL": ("none", "skeleton_recall"),
        "U-Net + BL": ("none", "boundary"),
        "SMMv1": ("smm_v1", "dice_ce"),
        "SMMv2": ("smm_v2", "dice_bce"),
    }
    assert {config.model.base_width for config in configs.values()} == {64}


def losses(name: str, roots: dict[str, Path], out: Path) -> dict[str, dict[str, Any]]:
    """Method → its loss's settings but for the smoothing."""
    cells = load(name, roots, out).cells
    return {cell.method: cell.config.loss.model_dump(exclude={"smooth"}) for cell in cells}


def test_dsc_table_3_is_a_grid_over_gamma(miniature_roots: dict[str, Path], tmp_path: Path) -> None:
    found = losses("dsc-table3", miniature_roots, tmp_path)
    assert list(found) == [f"{half / 2:.1f}" for half in range(1, 11)]
    assert all(loss["name"] == "dsc_plus_plus" for loss in found.values())
    assert {method: loss["gamma"] for method, loss in found.items()} == {name: float(name) for name in found}


def test_dsc_table_4_has_the_papers_sizes_and_losses(
    miniature_roots: dict[str, Path], tmp_path: Path
) -> None:
    comparison = load("dsc-table4", miniature_roots, tmp_path)
    assert {cell.data: cell.config.data.size for cell in comparison.cells} == {
        "DRIVE": (512, 512), "BUS2017": (128, 128), "2018DSB": (256, 256), "ISIC2018": (512, 512),
        "CVC-ClinicDB": (288, 384),
    }  # fmt: skip
    found = losses("dsc-table4", miniature_roots, tmp_path)
    assert {method: loss["name"] for method, loss in found.items()} == {
        "DSC": "dice", "CE": "cross_entropy", "DSC++": "dsc_plus_plus"
    }  # fmt: skip
    assert (comparison.spread, comparison.test) == ("interval", "wilcoxon")
    assert comparison.against["DSC++"] == "DSC"


def test_dsc_table_5_has_the_papers_settings(miniature_roots: dict[str, Path], tmp_path: Path) -> None:
    comparison = load("dsc-table5", miniature_roots, tmp_path)
    assert comparison.against == {f"{method}++": method for method in comparison.methods[::2]}
    found = losses("dsc-table5", miniature_roots, tmp_path)
    known = {
        "Tversky": {"name": "tversky", "alpha": 0.3, "beta": 0.7},
        "Focal Tversky": {"name": "focal_tversky", "alpha": 0.3, "beta": 0.7, "exponent": 0.75},
        "Combo": {"name": "combo", "alpha": 0.5, "beta": 0.5},
        "Unified Focal": {"name": "unified_focal", "lam": 0.5, "delta": 0.6, "gamma": 0.1},
    }
    for method, plain in known.items():
        assert found[method].items() >= plain.items()
        focal = "gamma_pp" if method == "Unified Focal" else "gamma"
        more = {"name": f"{plain['name']}_plus_plus", focal: 2.0}
        assert found[f"{method}++"] == found[method] | more


def test_dsc_figure_4_draws_thresholds(miniature_roots: dict[str, Path], tmp_path: Path) -> None:
    comparison = load("dsc-figure4", miniature_roots, tmp_path)
    assert "thresholds" in comparison.figures
    assert comparison.methods == ("DSC", "DSC++")


def test_semantic_fpn_table_1(miniature_roots: dict[str, Path], tmp_path: Path) -> None:
    comparison = load("semantic-fpn-table1", miniature_roots, tmp_path)
    assert len(comparison.seeds) == 5
    models = {cell.network: cell.config.model for cell in comparison.cells}
    assert {network: model.name for network, model in models.items()} == {
        "U-Net": "unet", "SemanticFPN": "semantic_fpn"
    }  # fmt: skip
    assert all(model.dropout == 0.1 for model in models.values())
    assert {(cell.config.loss.name, cell.config.data.size) for cell in comparison.cells} == {
        ("dice_focal", (256, 256))
    }


def run_once(cell: Cell, comparison: Comparison) -> None:
    """Train and score a cell by the commands that a comparison starts, but in this process."""
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.toml").write_text(to_toml(cell.config), "utf-8")
    run = str(cell.folder)
    assert train.main(["--config", f"{run}/config.toml", "--out", run, "--quiet"]) == 0
    checkpoint = ["--checkpoint", comparison.checkpoint] if comparison.checkpoint else []
    scoring = ["--size", comparison.size, "--device", "cpu", "--no-figures", *checkpoint]
    assert evaluate.main([run, *scoring]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_epoch_on_miniatures(
    name: str, miniature_roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "PASSES", 1)
    monkeypatch.setattr(timing, "WARM_UP", 0)
    comparison = load(name, miniature_roots, tmp_path, TINY)
    first = [cell for cell in comparison.cells if cell.seed == comparison.seeds[0]]
    for cell in first:
        run_once(cell, comparison)
    found = results.collect(comparison)
    assert {cell.seed for cell, _ in found.missing} == set(comparison.seeds[1:])
    text = tabulate.write(comparison, found, tmp_path)
    for data, rows in tabulate.table(comparison, found, []).items():
        assert [row.group.method for row in rows] == [cell.method for cell in first if cell.data == data]
        for entry in (entry for row in rows for entry in row.entries):
            assert not math.isnan(entry.value) or entry.undefined
    for number in published(name).values():
        assert number in text
