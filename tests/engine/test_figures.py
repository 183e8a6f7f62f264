"""Figures: what a colour means where, what stands beside it, and runs of every kind."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from engine.errors import InputError
from engine.figures import Panel, colours, curves, masks, panels, save
from engine.figures.cases import dice
from engine.figures.growth import changes, evenly, read_growth
from engine.figures.history import UPDATED, read_history
from engine.figures.overlay import backdrop, classes, confusion, errors, growth, picture
from engine.record import FORMAT, Progress, RunReader, RunWriter, WatchedItem

EMPTY = {"loss": None, "dice": [None], "recall": [None], "precision": [None], "skipped": [3]}


def epoch(number, epochs, **changed):
    scores = {"loss": 0.5, "dice": [number / epochs], "recall": [0.6], "precision": [0.4], "skipped": [0]}
    record = {
        "epoch": number, "epochs": epochs, "loss": 1 / number, "lr": 0.1, "recall": number / (2 * epochs),
        "slope": 1 / (2 * epochs) if number > 1 else None, "gamma": None, "updated": False, "warmup": False,
        "added": [0], "validation": scores, "best": True, "seconds": {"epoch": 1.0},
    }  # fmt: skip
    return record | changed


def modulated(number, epochs, updates):
    """An epoch of SMM v2 with a warm-up of two epochs."""
    return epoch(
        number, epochs, gamma=0.1 if number >= 2 else None, updated=number in updates, warmup=number <= 2,
        added=[10 * number if number > 3 else 0],
    )  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    def make(records, names=("vessel",), items=(), grown=(), config=None):
        """A run directory; grown[i] are the modulated masks of all items in epoch i + 1."""
        writer = RunWriter.create(tmp_path / "run", Progress())
        try:
            writer.write_json("run.json", {"format": FORMAT, "dataset": {"classes": list(names)}})
            if config:
                writer.write_text("config.toml", config)
            writer.watch(items, len(records))
            for number, of_items in enumerate(grown, start=1):
                writer.write_watched(number, [np.zeros(m.shape) for m in of_items], of_items)
            for record in records:
                writer.event("epoch", **record)
        finally:
            writer.release()
        return RunReader(writer.root)

    return make


def drawn(figure):
    """The figure as pixels, uint8 (H, W, 4); whatever warns fails."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def panel(figure, title):
    found = [axes for axes in figure.axes if title in (axes.get_title(), axes.get_title(loc="left"))]
    assert len(found) == 1, [axes.get_title(loc="left") for axes in figure.axes]
    return found[0]


def entries(owner):
    """Labels of the legends of a figure or of axes."""
    legends = owner.legends if hasattr(owner, "legends") else [owner.get_legend()]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def marks(axes):
    return [artist for artist in axes.lines if artist.get_gid() == UPDATED]


def mask(*pixels, shape=(8, 10)):
    made = np.zeros(shape, dtype=bool)
    for pixel in pixels:
        made[pixel] = True
    return made


def assert_colour(pixel, colour):
    np.testing.assert_allclose(pixel, to_rgb(colour), atol=1e-6)


# Pixels


def test_every_error_has_its_colour():
    truth = np.stack([mask((1, 1), (2, 2), (3, 3), (7, 9)), mask((5, 5))])
    prediction = np.stack([mask((1, 1), (4, 4), (7, 9)), mask((3, 3), (5, 5))])
    valid = ~mask((7, 9))
    shown = errors(np.full((8, 10, 1), 7, np.uint16), truth, prediction, valid)
    assert_colour(shown[1, 1], colours.CORRECT)
    assert_colour(shown[5, 5], colours.CORRECT)
    assert_colour(shown[2, 2], colours.MISSED)
    assert_colour(shown[4, 4], colours.FALSE_ALARM)
    assert_colour(shown[3, 3], colours.CONFUSED)
    assert_colour(shown[7, 9], colours.IGNORED)
    assert_colour(shown[0, 0], "black")


def test_confusion_counts_each_pixel_once():
    rng = np.random.default_rng(0)
    truth, prediction = rng.random((2, 3, 20, 30)) < 0.4
    valid = rng.random((20, 30)) < 0.8
    parts = np.stack(confusion(truth, prediction, valid))
    assert parts.sum(axis=0).max() == 1
    assert not parts[:, ~valid].any()
    assert np.array_equal(parts.any(axis=0), (truth | prediction).any(axis=0) & valid)


def test_added_pixels_differ_from_the_truth():
    truth, grown = mask((2, 2), (6, 6)), mask((2, 2), (2, 3), (7, 9))
    shown = growth(np.zeros((8, 10)), truth, grown, ~mask((7, 9)))
    assert_colour(shown[2, 2], colours.CORRECT)
    assert_colour(shown[6, 6], colours.CORRECT)
    assert_colour(shown[2, 3], colours.ADDED)
    assert_colour(shown[7, 9], colours.IGNORED)


def test_classes_have_their_colours_and_mix_where_they_overlap():
    shown = classes(np.stack([mask((1, 1), (2, 2)), mask((2, 2), (3, 3))]))
    assert_colour(shown[1, 1], colours.CLASSES[0])
    assert_colour(shown[3, 3], colours.CLASSES[1])
    np.testing.assert_allclose(shown[2, 2], (shown[1, 1] + shown[3, 3]) / 2, atol=1e-6)
    assert_colour(classes(mask((1, 1))[None])[1, 1], colours.CORRECT)


def test_colours_that_mean_different_things_differ_in_gray():
    def lightness(colour):
        return float(np.dot(to_rgb(colour), [0.299, 0.587, 0.114]))

    levels = sorted(lightness(c) for c in (colours.MISSED, colours.FALSE_ALARM, colours.CORRECT))
    assert min(np.diff(levels)) > 0.12
    brightest = backdrop(np.array([[0.0, 1.0]]))
    assert brightest.max() < levels[0] - 0.12
    every = [colours.MISSED, colours.FALSE_ALARM, colours.CORRECT, colours.CONFUSED, colours.ADDED]
    every += [*colours.CLASSES, colours.VALIDATION, colours.IGNORED]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, bool])
def test_gray_images_are_gray_and_use_the_whole_range(dtype):
    image = np.linspace(0, 1 if dtype in (np.float32, bool) else 120, 2000).reshape(40, 50, 1).astype(dtype)
    shown = picture(image)
    assert shown.shape == (40, 50, 3)
    assert shown.dtype == np.float32
    assert (shown[..., 0] == shown[..., 1]).all()
    assert (shown[..., 0] == shown[..., 2]).all()
    assert (shown.min(), shown.max()) == (0, 1)
    assert np.array_equal(shown, picture(image[..., 0]))


def test_contrast_ignores_a_hot_pixel_and_what_is_not_valid():
    image = np.linspace(100, 200, 2000).reshape(40, 50)
    plain = picture(image)
    image[0, 0] = 60000
    np.testing.assert_allclose(picture(image)[1:], plain[1:], atol=0.02)
    image[:, 25:] = 1e9
    left = np.zeros((40, 50), dtype=bool)
    left[:, :25] = True
    assert np.ptp(picture(image, left)[1:, :25]) > 0.9


def test_colour_images_keep_their_colours():
    image = np.random.default_rng(0).integers(0, 200, (6, 7, 3), dtype=np.uint8)
    np.testing.assert_allclose(picture(image), image / np.float32(255), atol=1e-6)
    deep = picture(image.astype(np.uint16) * 20)
    assert np.array_equal(deep[0, 0].argsort(), image[0, 0].argsort())
    two = picture(image[..., :2])
    assert np.array_equal(two[..., 0], two[..., 2])
    assert picture(np.dstack([image, image])).shape == (6, 7, 3)


@pytest.mark.parametrize("value", [0, 7.0])
def test_constant_images_are_black(value):
    assert not picture(np.full((4, 5, 1), value)).any()


# Curves


def test_curves_of_a_modulated_run(make_run):
    updates = {4, 6, 7}
    run = make_run([modulated(n, 10, updates) for n in range(1, 11)], config="[modulation]\nqueue = 4\n")
    figure = curves(run)
    drawn(figure)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["Loss", "Validation scores", "Training recall"]
    assert titles[3:] == ["Learning rate", "Pixels added to masks", "Recall slope"]
    labels = {axes.get_title(loc="left"): axes.get_ylabel() for axes in figure.axes}
    assert labels["Recall slope"] == "slope (1/epoch)"
    assert labels["Training recall"] == "recall (0–1)"
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "", "epoch", "epoch", "epoch"]
    assert entries(panel(figure, "Loss")) == ["training", "validation"]
    assert entries(panel(figure, "Validation scores")) == ["Dice", "recall", "precision", "best (epoch 10)"]
    assert entries(panel(figure, "Training recall")) == ["recall", "slope β (4 epochs)"]
    assert entries(panel(figure, "Recall slope")) == ["slope β", "threshold γ"]
    assert entries(figure) == ["warm-up", "masks updated after the epoch (3 of 10)"]


def test_updates_are_marked_where_they_happened(make_run):
    updates = {4, 6, 7}
    figure = curves(make_run([modulated(n, 10, updates) for n in range(1, 11)]))
    ticks = {float(mark.get_xdata()[0]) for mark in marks(panel(figure, "Training recall"))}
    (dots,) = marks(panel(figure, "Recall slope"))
    assert ticks == updates
    assert set(dots.get_xdata()) == updates
    assert np.allclose(dots.get_ydata(), 1 / 20)


def test_the_warm_up_is_shaded_in_every_panel(make_run):
    figure = curves(make_run([modulated(n, 10, ()) for n in range(1, 11)]))
    for axes in figure.axes:
        (shade,) = axes.patches
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == (0.5, 2.5)


def test_the_fitted_line_has_the_recorded_slope_and_passes_through_the_recalls(make_run):
    run = make_run([epoch(n, 10) for n in range(1, 11)], config="[modulation]\nqueue = 4\n")
    fit = line(panel(curves(run), "Training recall"), "slope β (4 epochs)")
    x, y = fit.get_xdata(), fit.get_ydata()
    np.testing.assert_allclose(x, [7, 10])
    np.testing.assert_allclose(y, x / 20)


def test_values_stand_at_their_epochs(make_run):
    axes = panel(curves(make_run([epoch(n, 4) for n in range(1, 5)])), "Loss")
    np.testing.assert_allclose(line(axes, "training").get_xydata(), [[n, 1 / n] for n in range(1, 5)])


def test_plain_training_without_validation(make_run):
    figure = curves(make_run([epoch(n, 5, validation=None, best=False) for n in range(1, 6)]))
    drawn(figure)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Loss", "Training recall", "Learning rate", "Recall slope"]
    assert entries(panel(figure, "Recall slope")) == ["slope β"]
    assert not figure.legends


def test_one_epoch_is_a_dot(make_run):
    figure = curves(make_run([epoch(1, 1, recall=None)]))
    drawn(figure)
    dots = [mark for mark in panel(figure, "Loss").lines if mark.get_marker() == "."]
    assert [dot.get_xdata().tolist() for dot in dots] == [[1], [1]]
    axes = panel(figure, "Recall slope")
    left, right = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [1]


def test_what_was_not_measured_is_a_gap(make_run):
    records = [epoch(n, 9) for n in range(1, 10)]
    records[4] = epoch(5, 9, recall=None, slope=None, validation=EMPTY)
    figure = curves(make_run(records))
    drawn(figure)
    for title, label in (
        ("Training recall", "recall"),
        ("Validation scores", "Dice"),
        ("Loss", "validation"),
    ):
        assert np.flatnonzero(np.isnan(line(panel(figure, title), label).get_ydata())).tolist() == [4]


def test_a_run_in_which_nothing_is_defined(make_run):
    nothing = {"loss": 1.0, "recall": None, "slope": None, "validation": EMPTY}
    drawn(curves(make_run([epoch(n, 3, **nothing) for n in range(1, 4)])))


def test_several_classes_have_a_line_each_and_one_mean(make_run):
    scores = EMPTY | {"loss": 0.5, "dice": [0.9, None, 0.5], "recall": [1, 1, 1], "precision": [0, 0, 0]}
    records = [epoch(n, 4, validation=scores, added=[n, 2 * n, 0]) for n in range(1, 5)]
    figure = curves(make_run(records, names=("vein", "artery", "lesion")))
    drawn(figure)
    axes = panel(figure, "Validation scores")
    np.testing.assert_allclose(line(axes, "mean Dice").get_ydata(), 0.7)
    np.testing.assert_allclose(line(axes, "Dice, lesion").get_ydata(), 0.5)
    assert line(axes, "Dice, lesion").get_color() == colours.CLASSES[2]
    added = panel(figure, "Pixels added to masks")
    np.testing.assert_allclose(line(added, "artery").get_ydata(), [2, 4, 6, 8])
    assert entries(figure) == ["vein", "artery", "lesion", "masks updated after the epoch (0 of 4)"]


def test_several_hundred_epochs(make_run):
    records = [modulated(n, 400, range(3, 400)) | {"lr": 0.1 ** (1 + n // 100)} for n in range(1, 401)]
    run = make_run([])
    lines = [json.dumps({"event": "epoch", **record}) + "\n" for record in records]
    (run.root / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    figure = curves(run)
    drawn(figure)
    assert len(marks(panel(figure, "Training recall"))) == 397
    assert panel(figure, "Learning rate").get_yscale() == "log"


def test_an_epoch_run_again_counts_once(make_run):
    history = read_history(make_run([epoch(1, 2), epoch(2, 2, loss=9.0), epoch(2, 2, loss=0.25)]))
    assert history.number.tolist() == [1, 2]
    assert history.loss.tolist() == [1, 0.25]


def test_a_run_without_an_epoch_is_refused(make_run):
    run = make_run([])
    with pytest.raises(InputError, match="no finished epoch"):
        curves(run)


def test_words_keep_apart(make_run):
    records = [modulated(n, 60, range(10, 60)) for n in range(1, 61)]
    figure = curves(make_run(records, names=("vessel",)))
    drawn(figure)
    assert_apart(figure)


# Masks


def watched(shape=(40, 50), name="eye_01", channels=1, valid=None, classes=1):
    image = np.random.default_rng(0).integers(0, 4000, (*shape, channels), dtype=np.uint16)
    truth = np.zeros((classes, *shape), dtype=bool)
    truth[..., 20, 5:30] = True
    valid = np.ones(shape, dtype=bool) if valid is None else valid
    return WatchedItem(name, "train", image, truth, valid, (0,) * len(shape), (1.0,) * len(shape))


def grown_from(item, rows):
    """The truth with as many more rows of 25 pixels."""
    made = item.truth.copy()
    made[..., 21 : 21 + rows, 5:30] = True
    return made


def test_masks_show_the_epochs_at_which_they_changed(make_run):
    item = watched()
    steps = [0, 0, 1, 1, 3, 3, 3, 2]
    run = make_run(
        [epoch(n, 8) for n in range(1, 9)], items=[item], grown=[[grown_from(item, s)] for s in steps]
    )
    figure = masks(run)
    drawn(figure)
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "epoch 3", "epoch 5", "epoch 8"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "+25 px", "+75 px", "+50 px"]
    assert "eye_01" in figure.get_suptitle()
    assert entries(figure) == ["truth", "added by modulation"]
    shown = figure.axes[3].images[0].get_array()
    assert_colour(shown[20, 10], colours.CORRECT)
    assert_colour(shown[23, 10], colours.ADDED)
    assert shown[24, 10].max() < 0.31


def test_many_changes_are_thinned_evenly():
    assert evenly(list(range(10, 111)), 6) == [10, 30, 50, 70, 90, 110]
    assert evenly([3, 5], 6) == [3, 5]
    truth = mask((1, 1))[None]
    series = np.stack([truth, truth | mask((1, 2)), truth | mask((1, 2)), truth])
    assert changes(series, truth, [1, 2, 3, 4]) == [2, 4]
    assert changes(series, truth, [1]) == []


def test_pixels_that_are_not_valid_are_not_counted(make_run):
    valid = np.ones((40, 50), dtype=bool)
    valid[:, :10] = False
    item = watched(valid=valid)
    figure = masks(make_run([epoch(1, 1)], items=[item], grown=[[grown_from(item, 1)]]))
    assert figure.axes[2].get_xlabel() == "+20 px"
    assert entries(figure)[-1] == "not evaluated"


def test_plain_training_shows_one_mask_and_says_why(make_run):
    item = watched()
    figure = masks(make_run([epoch(n, 3) for n in (1, 2, 3)], items=[item], grown=[[item.truth]] * 3))
    drawn(figure)
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "epoch 3"]
    assert "the truth, in every epoch" in figure.get_suptitle()


def test_large_images_get_a_crop_where_most_was_added(make_run):
    item = watched(shape=(150, 220), channels=3)
    made = item.truth.copy()
    made[0, 130:140, 190:200] = True
    made[0, 21, 5] = True
    figure = masks(make_run([epoch(1, 1)], items=[item], grown=[[made]]))
    drawn(figure)
    assert len(figure.axes) == 6
    crop = figure.axes[5].images[0].get_array()
    assert crop.shape == (96, 96, 3)
    assert (np.abs(crop - to_rgb(colours.ADDED)).max(axis=2) < 1e-6).sum() == 100
    (frame,) = figure.axes[2].patches
    assert frame.get_width() == 96
    assert frame.get_x() <= 190 <= 200 <= frame.get_x() + 96


def test_every_class_that_is_there_has_a_row(make_run):
    item = watched(classes=3)
    truth = item.truth.copy()
    truth[1] = False
    item = replace(item, truth=truth)
    made = truth.copy()
    made[2, 30, :4] = True
    names = ("vein", "artery", "lesion")
    figure = masks(make_run([epoch(1, 1)], names=names, items=[item], grown=[[made]]))
    drawn(figure)
    assert [axes.get_ylabel() for axes in figure.axes] == ["vein", "", "", "lesion", "", ""]
    assert [figure.axes[i].get_xlabel() for i in (2, 5)] == ["+0 px", "+4 px"]


def test_of_a_volume_the_slice_with_most_added_is_shown(make_run):
    item = watched(shape=(5, 40, 50))
    made = item.truth.copy()
    made[0, 3, 25:30, 5:30] = True
    made[0, 1, 25, 5:30] = True
    run = make_run([epoch(1, 1)], items=[item], grown=[[made]])
    figure = masks(run)
    drawn(figure)
    assert "slice 4 of 5" in figure.get_suptitle()
    assert figure.axes[2].get_xlabel() == "+150 voxels"
    assert read_growth(run, 0, 6).image.shape == (40, 50, 1)


def test_an_item_that_is_not_there_is_refused(make_run):
    run = make_run([], items=[watched()])
    with pytest.raises(InputError, match="no watched item 1: it has 1"):
        masks(run, 1)
    with pytest.raises(InputError, match="no finished epoch"):
        masks(run)


# Panels


def case(shape=(30, 40), classes=1, channels=1, dtype=np.uint8, **changed):
    rng = np.random.default_rng(1)
    image = (rng.random((*shape, channels)) * 250).astype(dtype)
    truth = np.zeros((classes, *shape), dtype=bool)
    prediction = truth.copy()
    for number in range(classes):
        truth[number, 2 + 6 * number : 6 + 6 * number, 5:15] = True
        prediction[number, 4 + 6 * number : 8 + 6 * number, 5:15] = True
    return replace(Panel("eye_01", image, truth, prediction), **changed)


def notes(figure, row):
    return [text.get_text() for text in figure.axes[5 * row + 4].texts]


def test_a_row_shows_image_truth_prediction_and_errors(tmp_path):
    figure = panels([case(caption="the worst of all")], "Test images")
    drawn(figure)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["image", "truth", "prediction", "errors"]
    assert figure.get_suptitle() == "Test images"
    assert notes(figure, 0) == ["eye_01", "Dice 0.500\nthe worst of all"]
    assert entries(figure) == ["foreground, true positive", "false negative", "false positive"]
    shown = figure.axes[3].images[0].get_array()
    assert_colour(shown[2, 5], colours.MISSED)
    assert_colour(shown[5, 5], colours.CORRECT)
    assert_colour(shown[7, 5], colours.FALSE_ALARM)


def test_headings_stand_once_over_rows_of_any_shape():
    shapes = [(30, 40), (40, 20), (10, 60), (40, 40), (21, 33), (60, 10)]
    cases = [
        case(shape=shape, channels=3, name=f"patient_0012_visit_{n}_left") for n, shape in enumerate(shapes)
    ]
    figure = panels(cases)
    drawn(figure)
    assert sum(axes.get_title() == "errors" for axes in figure.axes) == 1
    for number, shape in enumerate(shapes):
        box = figure.axes[5 * number].get_window_extent()
        assert box.height / box.width == pytest.approx(shape[0] / shape[1], rel=0.03)
        assert notes(figure, number)[0].replace("\n", "") == f"patient_0012_visit_{number}_left"
    assert_apart(figure)


def test_several_classes():
    three = case(classes=3)
    figure = panels([three], names=("vein", "artery", "lesion"))
    drawn(figure)
    assert notes(figure, 0)[1] == "Dice\n0.500  vein\n0.500  artery\n0.500  lesion"
    labels = entries(figure)
    assert labels[:4] == ["vein", "artery", "lesion", "true positive"]
    assert "wrong class" not in labels
    prediction = three.prediction.copy()
    prediction[0, 3, 5] = False
    prediction[1, 3, 5] = True
    assert entries(panels([replace(three, prediction=prediction)]))[0] == "class 1"
    assert entries(panels([replace(three, prediction=prediction)]))[-1] == "wrong class"


def test_dice_counts_valid_pixels_and_may_be_undefined():
    one = case()
    valid = np.ones((30, 40), dtype=bool)
    valid[6:] = False
    assert dice(one.truth, one.prediction, valid) == [pytest.approx(2 * 20 / (40 + 20))]
    assert math.isnan(dice(one.truth & False, one.prediction & False)[0])
    assert dice(one.truth, one.prediction & False) == [0]
    blank = replace(one, truth=one.truth & False, prediction=one.prediction & False, valid=valid)
    figure = panels([blank])
    assert notes(figure, 0)[1] == "Dice undefined"
    assert entries(figure)[-1] == "not evaluated"


def test_no_panel_is_refused():
    with pytest.raises(InputError, match="no image to show"):
        panels([])


# Files


def test_save_writes_a_png_of_150_dpi(tmp_path):
    path = tmp_path / "report" / "panels.png"
    save(panels([case()]), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert 900 < image.width < 1150
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in (colours.CORRECT, colours.MISSED, colours.FALSE_ALARM):
        assert (pixels == np.round(np.multiply(to_rgb(colour), 255))).all(axis=1).sum() > 100


def test_neither_pyplot_nor_torch_is_loaded():
    code = (
        "import sys, engine.figures; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def assert_apart(figure):
    """No two titles, axis labels, legends or notes of a figure touch."""
    renderer = figure.canvas.get_renderer()
    boxes = []
    for axes in figure.axes:
        texts = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        ticks = [label for axis in (axes.xaxis, axes.yaxis) if axes.axison for label in axis.get_ticklabels()]
        texts += [tick for tick in ticks if tick.get_visible() and within(tick, axes)]
        boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    boxes += [("legend", legend.get_window_extent(renderer)) for legend in figure.legends]
    for index, (text, box) in enumerate(boxes):
        for other, second in boxes[:index]:
            assert not box.padded(-1).overlaps(second.padded(-1)), (text, other)


def within(tick, axes):
    """Whether a tick is shown: matplotlib keeps labels beyond the limits, too."""
    x, y = tick.get_position()
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    return left <= x <= right if y == 0 else low <= y <= high
