"""The figure of a calibration: what it draws and says, in every corner, with no two texts over each other."""

import itertools
import math
from collections.abc import Callable

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from engine import figures
from engine.errors import InputError
from engine.figures import GuaranteeRow, colours, guarantee, guarantees
from engine.figures.verdicts import count_kept, of_calibration, of_cost, of_test
from engine.thresholds import Curve, Units, kept_band, kept_chance, mean_bound, mean_interval, mean_rates
from engine.thresholds.specs import Cls, Conditional, Crc

Rule = Cls | Conditional | Crc


def units(count: int, seed: int = 0, voxels: int = 30, power: float = 0.5) -> Units:
    """Units of one image each, float32, some easier than others."""
    rng = np.random.default_rng(seed)
    made = rng.random((count, voxels)) ** (power * rng.uniform(0.2, 1, (count, 1)))
    return Units(tuple((np.sort(values.astype(np.float32)),) for values in made))


def curves(count: int, seed: int = 0) -> list[Curve]:
    rng = np.random.default_rng(seed)
    pairs = [(rng.random(300).astype(np.float32), rng.random(300)) for _ in range(count)]
    return [Curve.of(p, chance < p**2) for p, chance in pairs]


def row(
    rule: Rule, n: int = 30, m: int | None = 12, *, images: int = 5, title: str = "vessel", **more: object
) -> GuaranteeRow:
    calibration = units(n)
    test = None if m is None else units(m, seed=1)
    given = {"test": test, "curves": curves(images), "lesion": title, **more}
    return GuaranteeRow(title, rule, rule.bind()(calibration), calibration, **given)


def panels(figure: Figure) -> tuple[Axes, Axes, Axes]:
    """The three of a figure with one row."""
    _, calibration, test, cost = figure.axes
    return calibration, test, cost


def said(axes: Axes) -> list[str]:
    return [" ".join(text.get_text().split()) for text in axes.texts]


def labelled(axes: Axes, label: str) -> np.ndarray:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line.get_xydata()


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for made in figure.legends for text in made.get_texts()]


def test_the_kth_critical_threshold_is_marked() -> None:
    made = row(Cls(epsilon=0.2, alpha=0.25))
    figure = guarantee([made], "Retina")
    axes, _, _ = panels(figure)
    critical = np.sort(made.units.critical(0.2))
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([np.arange(1, 31), critical], axis=1))
    # ⌊0.25 · 31⌋ = 7
    assert labelled(axes, "chosen T").tolist() == [[7, critical[6]]]
    assert axes.lines[1].get_xdata() == [7.75, 7.75]
    assert "α (n + 1) = 7.75" in said(axes)
    assert f"T = {critical[6]:.4g}, the 7th lowest of 30 critical thresholds." in said(axes)
    assert axes.get_xlabel() == "calibration images, by rank"
    assert axes.get_ylabel() == "critical threshold λ"
    assert figure.get_suptitle() == "Retina"
    heading = said(figure.axes[0])
    assert heading[0] == "vessel"
    assert heading[1].startswith(
        "In at least 75 % of new images with a vessel from the same source, at most 20 %"
    )


def test_the_test_split_is_held_against_the_band() -> None:
    made = row(Cls(epsilon=0.2, alpha=0.25))
    _, axes, _ = panels(guarantee([made]))
    fnr = np.sort(made.test.fnr(made.choice.threshold))
    steps = labelled(axes, "test images with this FNR or less")
    np.testing.assert_array_equal(steps[1:-1, 0], fnr)
    np.testing.assert_allclose(steps[:, 1], [*np.arange(13) / 12, 1])
    kept = int((fnr <= 0.2).sum())
    low, high = kept_band(30, 7, 12)
    assert labelled(axes, "share that keeps ε").tolist() == [[0.2, kept / 12]]
    np.testing.assert_allclose(
        labelled(axes, "share kept in 95 % of splits"), [[0.2, low / 12], [0.2, high / 12]]
    )
    assert f"Kept in {kept} of 12; 95 % of splits give {low} to {high}." in said(axes)
    assert {"ε", "1 − α"} <= set(said(axes))


def test_what_is_expected_is_seen_behind_what_is_found() -> None:
    """Pixels of the band and its ends, however narrow it is, that the diamond in its middle leaves free."""
    for made in (row(Cls(epsilon=0.2, alpha=0.1), m=4), row(Cls(epsilon=0.2, alpha=0.01), n=200, m=3)):
        count = count_kept(made, made.test.fnr(made.choice.threshold))
        assert count.kept == count.high
        figure = guarantee([made])
        axes = panels(figure)[1]
        figure.canvas.draw()
        place = axes.transData.transform((0.2, count.kept / count.of))
        x, y = int(place[0]), int(figure.bbox.height - place[1])
        shown = np.asarray(figure.canvas.buffer_rgba())[y - 4 : y + 4, x - 30 : x + 30, :3].astype(int)
        ours = np.abs(shown - 255 * np.array(matplotlib.colors.to_rgb(guarantees.CHOSEN))).sum(2) < 90
        # The diamond ends some pixels from its middle; the end of the band reaches further to both sides.
        scale = figure.dpi / 72
        wide = np.flatnonzero(ours.any(0)) - 30
        assert wide.min() < -5 * scale
        assert wide.max() > 5 * scale


def test_ties_at_t_are_said_to_keep_more() -> None:
    level = np.float32(0.75)
    calibration = Units(tuple((np.array([value], np.float32),) for value in [0.1, *[level] * 7, 0.9, 0.95]))
    tests = Units(((np.array([level]),),) * 12)
    rule = Cls(epsilon=0, alpha=0.4)
    made = GuaranteeRow("vessel", rule, rule.bind()(calibration), calibration, tests)
    assert made.choice.threshold == level
    assert made.tied == 6
    assert of_calibration(made) == "T = 0.75, the 4th lowest of 10 critical thresholds; 6 others equal it."
    assert of_test(made).endswith("More than 1 − α = 60 %, as those that tie at T are kept.")
    # Of 60 one other equals T, which explains nothing.
    few = Units(tuple((np.array([0.5 if at < 2 else 0.5 + at / 200], np.float32),) for at in range(60)))
    rule = Cls(epsilon=0, alpha=0.02)
    low = GuaranteeRow("vessel", rule, rule.bind()(few), few, tests)
    assert low.tied == 1
    assert "tie" not in of_test(low)
    bound = Crc(alpha=0.4)
    made = GuaranteeRow("vessel", bound, bound.bind()(calibration), calibration, tests)
    # At T one of ten is missed, above it eight: (1 + 1) / 11 and (8 + 1) / 11.
    assert of_calibration(made) == (
        "T = 0.75, the highest whose bound is at most α = 0.4: 0.18 at T, 0.82 above it."
    )
    smooth = row(Cls(epsilon=0.2, alpha=0.25))
    assert smooth.tied == 0
    assert "tie" not in of_test(smooth)
    assert row(Cls(alpha=1)).tied == row(Cls(alpha=0.01), n=7).tied == row(Crc()).tied == 0


def test_counted_empty_units_are_said_in_the_heading() -> None:
    heading = said(guarantee([row(Cls(), count_empty=True)]).axes[0])[1]
    assert heading.startswith("In at least 90 % of new images from the same source")
    assert "Images without a vessel count as kept." in heading


def test_too_few_kept_are_said_with_their_chance_and_shown_in_another_colour() -> None:
    hard = units(12, seed=1, power=4)
    made = row(Cls(epsilon=0.1, alpha=0.1), test=hard)
    count = count_kept(made, hard.fnr(made.choice.threshold))
    assert count.short
    assert count.chance == kept_chance(30, 3, 12, count.kept) < 0.025
    figure = guarantee([made])
    _, axes, _ = panels(figure)
    assert any("Chance of so few: below 0.01 %." in text for text in said(axes))
    assert "share that keeps ε: too few" in legend(figure)
    (mark,) = [line for line in axes.lines if line.get_label() == "share that keeps ε: too few"]
    assert mark.get_markeredgecolor() == colours.MISSED


def test_chances_of_a_shortfall_are_numbers() -> None:
    # n = 1, k = 1: none of 79 kept has a chance of 1 / 80.
    high = Units(((np.array([0.9], np.float32),),))
    low = Units(((np.array([0.1], np.float32),),) * 79)
    rule = Cls(epsilon=0, alpha=0.5)
    text = of_test(GuaranteeRow("vessel", rule, rule.bind()(high), high, low))
    assert text == "Kept in 0 of 79; 95 % of splits give 2 to 77. Chance of so few: 1.25 %."


@pytest.mark.parametrize("rule", [Cls(epsilon=0.2, alpha=0.25), Crc(alpha=0.2), Cls(epsilon=0, alpha=0.05)])
def test_precision_and_recall_are_exact_at_each_point(rule: Rule) -> None:
    made = row(rule)
    chosen = made.choice.threshold
    _, _, axes = panels(guarantee([made]))
    precision, recall = labelled(axes, "precision"), labelled(axes, "recall")
    assert {0.5, chosen} <= set(precision[:, 0])
    for number, threshold in enumerate(precision[:, 0]):
        rates, _ = mean_rates(made.curves, float(threshold))
        np.testing.assert_allclose(precision[number, 1], rates.precision, rtol=1e-12)
        np.testing.assert_allclose(recall[number, 1], rates.recall, rtol=1e-12)
    ours, usual = mean_rates(made.curves, chosen)[0], mean_rates(made.curves, 0.5)[0]
    assert said(axes)[-1].startswith(
        f"Precision {ours.precision:.2f} instead of {usual.precision:.2f} at T = 0.5; "
        f"recall {ours.recall:.2f} instead of {usual.recall:.2f}."
    )
    assert {"T", "0.5"} <= set(said(axes))


def test_images_without_a_prediction_are_left_out_and_counted() -> None:
    empty = Curve.of(np.full(9, 0.3, np.float32), np.arange(9) < 4)
    made = row(Crc(alpha=0.7), curves=[*curves(3), empty])
    assert made.choice.threshold > 0.3
    assert of_cost(made).endswith(". Nothing is predicted in 1 instead of 1 of 4.")
    _, _, axes = panels(guarantee([made]))
    precision = labelled(axes, "precision")
    assert np.isfinite(precision[precision[:, 0] < 0.9]).all()
    assert of_cost(row(Cls(alpha=0.01), curves=[empty])) == (
        "Precision 0.44, recall 1.00; at T = 0.5 nothing is predicted."
    )


def test_crc_shows_its_bound_and_the_mean() -> None:
    made = row(Crc(alpha=0.2))
    chosen, fnr = made.choice.threshold, made.test.fnr(made.choice.threshold)
    figure = guarantee([made])
    calibration, test, _ = panels(figure)
    bound = calibration.lines[0].get_xydata()
    for threshold, value in bound[::20]:
        assert value == mean_bound(made.units, float(threshold))
    at = int(np.searchsorted(bound[:, 0], chosen))
    assert bound[at, 1] <= 0.2 < bound[at + 1, 1]
    assert bound[at + 1, 0] == np.nextafter(chosen, 2)
    assert labelled(calibration, "chosen T").tolist() == [[chosen, mean_bound(made.units, chosen)]]
    low, high = mean_interval(fnr)
    # Upright from end to end: the mean has no height.
    np.testing.assert_allclose(labelled(test, "mean FNR"), [[fnr.mean(), 0], [fnr.mean(), 1]])
    (band,) = [patch for patch in test.patches if patch.get_label() == "its 95 % interval"]
    corners = band.get_window_extent().transformed(test.transData.inverted())
    np.testing.assert_allclose([corners.x0, corners.x1, corners.y0, corners.y1], [low, high, 0, 1], atol=1e-9)
    interval = f"95 % interval {low:.2g} to {high:.2g}"
    assert f"Mean FNR of 12: {fnr.mean():.2g} ({interval}); promised is α = 0.2." in said(test)
    assert "A single image may miss more." in said(figure.axes[0])[1]


def test_too_few_calibration_images_say_how_many_are_needed() -> None:
    for rule in (Cls(alpha=0.02), Crc(alpha=0.02)):
        made = row(rule, n=7)
        assert of_calibration(made) == "T = 0: 49 images needed, 7 there."
        assert of_test(made).endswith(": T = 0 misses nothing.")
        figure = guarantee([made])
        calibration, _, cost = panels(figure)
        assert "chosen T" not in legend(figure)
        assert {"95 % of splits", "its 95 % interval"}.isdisjoint(legend(figure))
        assert cost.lines[-1].get_xdata() == [0, 0]
        assert "T = 0: 49 images needed, 7 there." in said(calibration)
    assert of_calibration(row(Cls(alpha=0))) == "T = 0: no number of images would do."
    assert of_calibration(row(Conditional(alpha=0.1, delta=0.05), n=7)) == "T = 0: 29 images needed, 7 there."


def test_an_infinite_threshold_promises_nothing() -> None:
    for rule in (Cls(alpha=1), Cls(epsilon=1), Crc(alpha=1)):
        made = row(rule)
        assert math.isinf(made.choice.threshold)
        assert of_calibration(made) == "T = ∞, which predicts nothing: everything may be missed."
        assert of_test(made).endswith(": T = ∞ promises nothing.")
        assert of_cost(made).startswith("Nothing is predicted. At T = 0.5: precision 0.")
        figure = guarantee([made])
        assert "T" not in said(panels(figure)[2])
    ranks = panels(guarantee([row(Cls(epsilon=1))]))[0]
    assert len(labelled(ranks, "λ = ∞: everything may be missed")) == 30


def test_what_is_not_there_is_said_instead_of_drawn() -> None:
    figure = guarantee([row(Cls(), m=None, images=0, unit="patient")])
    _, test, cost = panels(figure)
    assert said(test) == ["There are no test patients."]
    assert said(cost) == ["There are no test patients to count precision on."]
    assert (test.axison, cost.axison) == (False, False)
    assert legend(figure) == ["chosen T"]
    empty = row(Cls(), m=0, images=0)
    assert of_test(empty) == "No test image has a vessel."
    assert of_cost(empty) == "Precision and recall were not counted."
    nothing = GuaranteeRow("vessel", Cls(), Cls().bind()(Units(())), Units((), 3), None)
    assert said(panels(guarantee([nothing]))[0])[-1] == "T = 0: 9 images needed, 0 there."


def test_small_thresholds_stand_on_a_logarithmic_axis() -> None:
    small = Units(tuple((np.array([10.0**-e], np.float32),) for e in np.linspace(1, 7, 40)))
    rule = Cls(epsilon=0, alpha=0.1)
    made = GuaranteeRow("vessel", rule, rule.bind()(small), small, None, curves(2))
    ranks, _, cost = panels(guarantee([made]))
    assert made.choice.threshold == pytest.approx(10 ** -(7 - 3 * 6 / 39))
    assert (ranks.get_yscale(), cost.get_xscale()) == ("log", "log")
    assert ranks.get_ylim() == cost.get_xlim() == (1e-8, 1)
    bound = Crc(alpha=0.03)
    figure = guarantee([GuaranteeRow("vessel", bound, bound.bind()(small), small, small)])
    assert panels(figure)[0].get_xscale() == "log"


def test_ranks_are_counted_in_english() -> None:
    ranks = {1: "", 2: " 2nd", 3: " 3rd", 4: " 4th", 11: " 11th", 13: " 13th", 21: " 21st", 22: " 22nd"}
    for rank, word in ranks.items():
        made = row(Cls(alpha=(rank + 0.5) / 31))
        assert made.choice.rank == rank
        assert f", the{word} lowest of 30 critical thresholds." in of_calibration(made)
    assert "the only critical threshold" in of_calibration(row(Cls(alpha=0.5), n=1))


def test_a_promise_for_all_classes_of_a_unit() -> None:
    both = Units(tuple((unit[0], unit[0] / 2) for unit in units(30).values))
    made = GuaranteeRow("all classes", Cls(), Cls().bind()(both), both, both)
    figure = guarantee([made])
    assert "at most 10 % of each class is missed" in said(figure.axes[0])[1]


CASES: dict[str, Callable[[], list[GuaranteeRow]]] = {
    "one": lambda: [row(Cls())],
    "three": lambda: [
        row(Cls()),
        row(Crc(alpha=0.2), title="nucleus"),
        row(Cls(alpha=0.01), m=None, images=0),
    ],
    "one image": lambda: [row(Cls(alpha=0.5), n=1, m=1)],
    "one image, mean": lambda: [row(Crc(alpha=0.6), n=1, m=1)],
    "500 groups": lambda: [row(Conditional(alpha=0.1, delta=0.05), n=500, m=300, unit="group")],
    "no test": lambda: [row(Cls(), m=None, images=0)],
    "too few": lambda: [row(Cls(alpha=0.02), n=7)],
    "α 0": lambda: [row(Cls(alpha=0), n=5)],
    "ε 0": lambda: [row(Cls(epsilon=0, alpha=0.05))],
    "ε 1": lambda: [row(Cls(epsilon=1))],
    "α 1": lambda: [row(Cls(alpha=1))],
    "mean, α 1": lambda: [row(Crc(alpha=1))],
    "mean, too few": lambda: [row(Crc(alpha=0.01), m=4)],
    "T near 0.5": lambda: [row(Crc(alpha=0.37))],
    "shortfall": lambda: [row(Cls(), test=units(12, 1, power=4))],
    "long names": lambda: [row(Cls(), title="microaneurysms and haemorrhages of the left eye, " * 3)],
}


@pytest.mark.parametrize("case", CASES)
def test_texts_lie_on_the_page_and_not_over_each_other(case: str) -> None:
    figure = guarantee(CASES[case](), "Calibrated on the calib split of 2025-02-01-retina")
    figure.canvas.draw()  # lays out; a warning would fail the test
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(boxes) > 10
    width, height = figure.bbox.size
    for words, box in boxes:
        assert -1 <= box.x0 <= box.x1 <= width + 1, words
        assert -1 <= box.y0 <= box.y1 <= height + 1, words
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), (first, second)


def texts(figure: Figure) -> list[Text]:
    """All that is written, without ticks that are beyond the ends of their axis."""
    found = [text for made in figure.legends for text in made.get_texts()] + [figure._suptitle]
    for axes in figure.axes:
        found += [*axes.texts, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            found += [axis.label, *(label for at, label in ticks if low <= at <= high)]
    return [text for text in found if text.get_text()]


def test_no_row_is_refused_and_the_name_stays_the_functions(tmp_path) -> None:
    with pytest.raises(InputError, match="no threshold to draw"):
        guarantee([])
    assert figures.guarantee is guarantee
    figures.save(guarantee([row(Cls())]), tmp_path / "guarantee.png")
    assert (tmp_path / "guarantee.png").stat().st_size > 20_000
