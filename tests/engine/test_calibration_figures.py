"""Reliability diagrams and curves over the threshold: what is drawn where, one series and many."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from engine import metrics
from engine.errors import InputError
from engine.figures import Reliability, ThresholdCurve, colours, reliability_diagram, save, threshold_curves
from engine.figures.series import pooled
from engine.thresholds import Curve, rates

SCORES = ("recall", "precision", "dice")
T = np.arange(1, 20) / 20


def probabilities(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.random(4000)
    return p, rng.random(4000) < p**2


def reliability(seed: int = 0) -> Reliability:
    p, y = probabilities(seed)
    made = metrics.reliability(torch.from_numpy(p)[None, None], torch.from_numpy(y)[None, None])
    return Reliability(*(field[0, 0].numpy() for field in made))


def curve(seed: int = 0) -> ThresholdCurve:
    made = Curve.of(*probabilities(seed))
    each = [rates(made.counts(float(t))) for t in T]
    means = {name: np.array([getattr(rate, name) for rate in each]) for name in SCORES}
    return ThresholdCurve(T, means, {name: np.full(19, 0.05) for name in SCORES})


def entries(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def drawn(figure: Figure) -> None:
    """Lays out without a warning, which would fail the test."""
    figure.canvas.draw()


def test_bins_lie_at_their_mean_p_and_their_share_of_true_pixels() -> None:
    bins = Reliability(np.array([8, 0, 4]), np.array([0.8, 0, 3.4]), np.array([1, 0, 3]))
    figure = reliability_diagram({"vessel": bins}, "Test images")
    drawn(figure)
    above, below = figure.axes
    diagonal, line = above.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    np.testing.assert_allclose(line.get_xydata(), [[0.1, 1 / 8], [0.85, 3 / 4]])
    (stairs,) = below.patches
    values, edges, _ = stairs.get_data()
    np.testing.assert_allclose(values, [8 / 12, np.nan, 4 / 12])
    np.testing.assert_allclose(edges, [0, 1 / 3, 2 / 3, 1])
    assert bins.ece == pytest.approx((0.2 + 0.4) / 12)
    assert entries(figure) == ["vessel, ECE 0.0500", "calibrated"]
    assert figure.get_suptitle() == "Test images"


def test_the_ece_is_the_metrics() -> None:
    p, y = (torch.from_numpy(a)[None, None] for a in probabilities(1))
    assert reliability(1).ece == pytest.approx(metrics.ece(p, y).item())


def test_bins_pool_by_adding_and_come_from_json() -> None:
    first, second = reliability(1), reliability(2)
    both = pooled([first, second])
    assert both.count.sum() == 8000
    np.testing.assert_allclose(both.confidence, first.confidence + second.confidence)
    content = {name: getattr(both, name).tolist() for name in ("count", "confidence", "truth")}
    again = Reliability.of(content)
    assert again.ece == both.ece
    with pytest.raises(InputError, match="no truth"):
        Reliability.of({"count": [1], "confidence": [0.5]})
    with pytest.raises(InputError, match="have 1 and 2 and 1 values"):
        Reliability.of({"count": [1], "confidence": [0.5, 1], "truth": [0]})


def test_bins_without_any_pixel() -> None:
    empty = Reliability(np.zeros(15, int), np.zeros(15), np.zeros(15, int))
    figure = reliability_diagram({"absent": empty, "there": reliability()})
    drawn(figure)
    assert entries(figure)[0] == "absent, ECE undefined"


def test_one_series_shows_three_scores_in_one_panel() -> None:
    figure = threshold_curves({"vessel": curve()}, "Test images")
    drawn(figure)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "vessel"
    assert entries(figure) == ["recall", "precision", "Dice", "95 % interval"]
    assert [line.get_color() for line in axes.lines] == [colours.MISSED, colours.FALSE_ALARM, colours.INK]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), T)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), curve().means["recall"])
    assert len(axes.collections) == 3
    assert axes.get_ylim() == axes.get_xlim() == (0, 1)


def test_several_series_lie_over_each_other_in_a_panel_for_each_score() -> None:
    series = {f"loss {number}": curve(number) for number in range(8)}
    figure = threshold_curves(series)
    drawn(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Recall", "Precision", "Dice"]
    for axes, score in zip(figure.axes, SCORES, strict=True):
        for line, made in zip(axes.lines, series.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), made.means[score])
    assert entries(figure) == [*series, "95 % interval"]
    diagram = reliability_diagram({label: reliability(number) for number, label in enumerate(series)})
    drawn(diagram)
    for lines in (figure.axes[0].lines, diagram.axes[0].lines[1:]):
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 8


def test_a_band_is_the_interval_within_0_and_1() -> None:
    figure = threshold_curves({"a": curve(1), "b": curve(2)})
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    recall = curve(1).means["recall"]
    assert band.min() == pytest.approx(max(recall.min() - 0.05, 0))
    assert band.max() == pytest.approx(min(recall.max() + 0.05, 1))


def test_undefined_scores_are_gaps() -> None:
    made = curve()
    made.means["precision"][-3:] = np.nan
    made.margins["precision"][-5:] = np.nan
    figure = threshold_curves({"vessel": made})
    drawn(figure)
    assert np.isnan(figure.axes[0].lines[1].get_ydata()).sum() == 3


def test_long_names_keep_their_ends_and_stay_apart() -> None:
    names = [f"unified focal, asymmetric, γ = 0.1, δ = 0.6, λ = 0.5, seed {n}" for n in (1, 2)]
    figure = threshold_curves({name: curve(number) for number, name in enumerate(names)})
    drawn(figure)
    first, second, _ = entries(figure)
    assert first.endswith("seed 1")
    assert second.endswith("seed 2")


def test_no_series_is_refused(tmp_path) -> None:
    for draw in (reliability_diagram, threshold_curves):
        with pytest.raises(InputError, match="no series to draw"):
            draw({})
    save(threshold_curves({"vessel": curve()}), tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 5000
