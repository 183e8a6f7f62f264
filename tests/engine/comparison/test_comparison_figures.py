"""The figures of a comparison: what is drawn of runs by hand, and pictures of real ones."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from made_results import bins, compared, make_run, make_runs
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from skimage.color import rgb2lab
from support import FAST

from engine import evaluate, flags, train
from engine.comparison.examples import examples, representative
from engine.comparison.figures import FIGURES, draw, reliability, threshold_curve
from engine.comparison.grid import Comparison, load
from engine.comparison.results import Group, Results, collect
from engine.comparison.training_curves import course, training_curves
from engine.figures.colours import FALSE_ALARM, LINES, MISSED
from engine.figures.epochs import read_history
from engine.figures.page import WIDE
from engine.figures.strokes import SOLID, band_opacity, stroke
from engine.record import RunReader
from engine.tables import to_csv

NAN = np.nan
EVERY = ("curves", "thresholds", "reliability", "panels")


def drawn(figure: Figure) -> Any:
    """The figure as pixels, uint8 (H, W, 4); whatever warns fails."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]


def entries(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes if axes.axison]


# Training curves


def test_a_course_is_the_mean_and_the_extremes_of_the_seeds_that_are_there() -> None:
    made = course(
        [
            (np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, NAN, 4.0])),
            (np.array([1.0, 2.0]), np.array([3.0, NAN])),
        ]
    )
    np.testing.assert_array_equal(made.epochs, [1, 2, 3, 4])
    np.testing.assert_array_equal(made.mean, [2, 2, NAN, 4])
    np.testing.assert_array_equal(made.low, [1, 2, NAN, 4])
    np.testing.assert_array_equal(made.high, [3, 2, NAN, 4])
    assert made.whole == 2


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_mean_lies_within_the_band(runs: list[list[float]]) -> None:
    made = course([(np.arange(1.0, len(values) + 1), np.array(values)) for values in runs])
    assert len(made.epochs) == max(map(len, runs))
    assert made.whole == min(map(len, runs))
    assert (made.low <= made.mean + 1e-9).all()
    assert (made.mean <= made.high + 1e-9).all()
    assert made.high[0] == max(values[0] for values in runs)


def test_curves_show_what_the_runs_recorded(tiny: Comparison) -> None:
    groups = collect(tiny).groups
    figure = training_curves(tiny, groups, "vessels")
    drawn(figure)
    assert titles(figure) == ["Training loss", "Validation Dice", "Training recall"]
    assert figure.get_suptitle() == "vessels: mean over 2 seeds, bands from the lowest to the highest"
    assert entries(figure) == ["Dice", "CE (1 of 2 seeds)"]
    histories = [read_history(RunReader(run.cell.folder)) for run in groups[0].runs]
    loss = figure.axes[0]
    (whole,) = [line for line in loss.lines if to_rgb(line.get_color()) == to_rgb(LINES[0]) and
                line.get_linestyle() == "-"]  # fmt: skip
    np.testing.assert_allclose(whole.get_ydata(), np.mean([h.loss for h in histories], axis=0))
    np.testing.assert_array_equal(whole.get_xdata(), [1, 2, 3])
    corners = loss.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(min(h.loss.min() for h in histories))
    assert corners.max() == pytest.approx(max(h.loss.max() for h in histories))


def test_seeds_that_ended_early_leave_a_dotted_line(tiny: Comparison) -> None:
    dice, ce = collect(tiny).groups
    mixed = replace(dice, runs=(dice.runs[0], ce.runs[0]))
    figure = training_curves(tiny, [mixed], "vessels")
    drawn(figure)
    assert entries(figure) == ["Dice", "some seeds have ended"]
    solid, dotted = (
        next(line for line in figure.axes[0].lines if line.get_linestyle() == kind) for kind in ("-", ":")
    )
    assert solid.get_xdata().tolist() == [1, 2]
    assert dotted.get_xdata().tolist() == [2, 3]


# Strokes


def test_no_two_of_sixteen_lines_look_alike() -> None:
    made = [stroke(number) for number in range(16)]
    assert len({(style["color"], str(style["linestyle"])) for style in made}) == 16
    assert len({style["color"] for style in made[:8]}) == 8
    assert {style["linestyle"] for style in made[:4]} == {"-"}


def test_lines_of_one_pattern_differ_under_every_colour_blindness() -> None:
    """Viénot's, Brettel's and Mollon's projections of protanopes and deuteranopes, on linear light;
    distances in CIELAB."""
    linear = np.array([np.array(to_rgb(colour)) ** 2.2 for colour in LINES])
    views = {
        "normal": np.eye(3),
        "protanopia": np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]]),
        "deuteranopia": np.array([[0.2927, 0.7073, 0], [0.2927, 0.7073, 0], [-0.0223, 0.0223, 1]]),
    }
    for kind, matrix in views.items():
        seen = rgb2lab(np.clip(linear @ matrix.T, 0, 1)[None] ** (1 / 2.2))[0]
        for start in (0, SOLID):
            apart = [np.linalg.norm(a - b) for a, b in combinations(seen[start : start + SOLID], 2)]
            assert min(apart) > 40, (kind, start)
        assert seen[:, 0].max() < 75, "all are seen on white"
    assert not {MISSED, FALSE_ALARM} & set(LINES)


def test_bands_fade_where_there_are_many() -> None:
    opacities = [band_opacity(count) for count in range(1, 12)]
    assert opacities == sorted(opacities, reverse=True)
    assert all(count * opacity <= 0.55 for count, opacity in enumerate(opacities, start=1))


# Thresholds and reliability


def made_thresholds(comparison: Comparison, scores: dict[str, Any]) -> None:
    for cell in comparison.cells:
        rows = [
            {"image": f"i{number}", "class": "vessel", "threshold": level,
             **{name: values[number][place] + 0.1 * cell.seed for name, values in scores.items()}}
            for number in range(2)
            for place, level in enumerate((0.05, 0.95))
        ]  # fmt: skip
        (cell.folder / "report" / "test-thresholds.csv").write_text(to_csv(rows), "utf-8")


def test_threshold_curves_are_means_of_images_averaged_over_seeds(tmp_path: Path) -> None:
    made = compared(tmp_path, seeds=[0, 1])
    make_runs(made, lambda cell: {"dice": [0.5, 0.5]})
    made_thresholds(made, {"dice": [[0.2, 0.4], [0.4, 0.4]], "precision": [[0.5, NAN], [0.7, NAN]],
                           "recall": [[0.9, 0.1], [0.9, 0.3]]})  # fmt: skip
    groups = collect(made).groups
    curve = threshold_curve(groups[0])
    np.testing.assert_allclose(curve.thresholds, [0.05, 0.95])
    np.testing.assert_allclose(curve.means["dice"], [0.35, 0.45])
    np.testing.assert_allclose(curve.means["precision"], [0.65, NAN])
    half = 12.706204736 * np.std([0.2, 0.4], ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(curve.margins["dice"], [half, 0], atol=1e-8)
    figure = FIGURES["thresholds"](made, groups, "demo")
    drawn(figure)
    assert figure.get_suptitle() == "demo: 2 test images"
    lines = [line for axes in figure.axes for line in axes.lines]
    assert {to_rgb(line.get_color()) for line in lines} == {to_rgb(LINES[0]), to_rgb(LINES[1])}


def test_reliability_adds_the_pixels_of_all_seeds_and_classes(tmp_path: Path) -> None:
    made = compared(tmp_path, methods=("A", "B", "C"), seeds=[0, 1])
    for cell in made.cells:
        if cell.method == "B":
            continue
        make_run(cell, {"dice": [0.5, 0.5]}, classes=("roof", "road"))
    results = collect(made)
    present = [group for group in results.groups if group.runs]
    for group in present:
        for run in group.runs:
            right = 0.7 if group.method == "A" else 0.5
            run.report["reliability"].update(roof=bins(0.7, right, 300), road=bins(0.1, 0.1, 100))  # type: ignore[attr-defined]
    figure = reliability(made, present, "demo")
    drawn(figure)
    assert entries(figure) == ["A, ECE 0.0000", "C, ECE 0.1500", "calibrated"]
    line = next(line for line in figure.axes[0].lines if to_rgb(line.get_color()) == to_rgb(LINES[2]))
    np.testing.assert_allclose(line.get_xdata(), [0.1, 0.7])
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.5])


# Example images


def test_the_worst_the_median_and_the_best_by_the_mean_of_methods() -> None:
    dice = np.array([[0.9, 0.1, 0.5, NAN, 0.3], [0.7, 0.5, NAN, NAN, 0.2]])
    assert representative(dice) == [4, 2, 0]
    assert representative(dice[:, :2]) == [1, 0]
    assert representative(dice[:, :1]) == [0]
    assert representative(np.full((2, 3), NAN)) == [0]


def test_examples_show_each_methods_misses_with_its_dice(tiny: Comparison) -> None:
    groups = collect(tiny).groups
    figure = examples(tiny, groups, "vessels")
    drawn(figure)
    assert titles(figure)[:4] == ["image", "truth", "Dice", "CE"]
    assert figure.get_suptitle() == "vessels: worst, median and best test image, seed 0"
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == 4 * min(len(groups[0].images), 3)
    assert entries(figure) == ["foreground, true positive", "false negative", "false positive"]
    chosen = representative(np.stack([group.over_images("dice") for group in groups]))
    for row, place in enumerate(chosen):
        image, truth, *methods = shown[4 * row : 4 * row + 4]
        assert image.get_xlabel() == groups[0].images[place]
        truth_pixels = np.asarray(truth.images[0].get_array())
        assert truth_pixels.shape[:2] == (32, 40), "at the size that was scored"
        foreground = truth_pixels.max(axis=2) > 0.5
        for axes, group in zip(methods, groups, strict=True):
            run = group.runs[0]
            assert axes.get_xlabel() == f"Dice {run.per_image('dice')[place]:.3f}"
            pixels = np.asarray(axes.images[0].get_array())
            missed = np.isclose(pixels, to_rgb(MISSED), atol=1e-3).all(axis=2)
            assert missed.sum() / foreground.sum() == pytest.approx(run.per_image("fnr")[place])
            assert not (missed & ~foreground).any()


@pytest.mark.parametrize("count", [1, 5, 6])
def test_many_methods_go_below_each_other(tiny: Comparison, count: int) -> None:
    group = collect(tiny).groups[0]
    methods = tuple(f"method {number}" for number in range(count))
    comparison = replace(tiny, methods=methods)
    groups = [replace(group, method=name) for name in methods]
    figure = examples(comparison, groups, "vessels")
    assert [title for title in titles(figure) if title.startswith("method")][:count] == list(methods)
    columns = max(axes.get_subplotspec().get_gridspec().ncols for axes in figure.axes)
    assert columns == {1: 3, 5: 7, 6: 5}[count]
    drawn(figure)
    assert figure.get_figwidth() <= WIDE


def test_classes_are_named_and_their_dice_is_a_mean(organs: Path, tmp_path: Path) -> None:
    settings = flags.parse([flag for flag in FAST if flag != "--quiet"])
    settings["training"]["epochs"] = 1
    document = {
        "title": "Organs", "settings": settings | {"watch": {"train": 0, "val": 0}},
        "data": {"organs": {"data": {"root": str(organs)}}}, "methods": {"plain": {}},
    }  # fmt: skip
    (tmp_path / "organs.toml").write_text(tomli_w.dumps(document), "utf-8")
    made = load(tmp_path / "organs.toml", tmp_path / "out", flags={"modulation": {"name": "none"}})
    (cell,) = made.cells
    assert train.start(cell.config, cell.folder, quiet=True) == 0
    assert evaluate.main([str(cell.folder), "--no-figures", "--device=cpu"]) == 0
    written = draw(made, collect(made), tmp_path / "figures")
    assert [path.stem for path in written] == list(EVERY)
    figure = examples(made, collect(made).groups, "organs")
    assert {*collect(made).groups[0].classes} <= {*entries(figure)}
    assert figure.get_suptitle() == "organs: worst and best test image, seed 0"
    assert all("mean Dice" in axes.get_xlabel() for axes in figure.axes[2::3] if axes.axison)


# All of them


def test_every_figure_is_written_into_a_folder_of_its_data_set_and_network(
    tiny: Comparison, tmp_path: Path
) -> None:
    written = draw(tiny, collect(tiny), tmp_path)
    assert written == [tmp_path / "vessels" / tiny.networks[0] / f"{name}.png" for name in EVERY]
    for path in written:
        with Image.open(path) as image:
            width, height = image.size
            assert 300 < width < 1700, path
            assert 300 < height < 1700, path


def test_only_what_is_asked_for_is_drawn_and_nothing_of_nothing(tiny: Comparison, tmp_path: Path) -> None:
    results = collect(tiny)
    assert [path.name for path in draw(replace(tiny, figures=("curves",)), results, tmp_path)] == [
        "curves.png"
    ]
    empty = Results(tuple(Group(*group.place, ()) for group in results.groups), ())
    assert draw(tiny, empty, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_method_without_runs_is_left_out_and_the_others_keep_their_strokes(
    tiny: Comparison, tmp_path: Path
) -> None:
    dice, ce = collect(tiny).groups
    results = Results((replace(dice, runs=()), ce), ())
    assert len(draw(tiny, results, tmp_path)) == len(EVERY)
    figure = training_curves(tiny, [ce], "vessels")
    assert {to_rgb(line.get_color()) for line in figure.axes[0].lines} == {to_rgb(LINES[1])}
