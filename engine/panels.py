"""Panels: images of a run, predicted as they are scored, ready for figures."""

from collections.abc import Iterator, Sequence

from engine.data.dataset import Dataset
from engine.data.decode import probe
from engine.data.store import Sample, resized
from engine.figures.cases import Panel
from engine.figures.views import Affine, view
from engine.scores import predict
from engine.trained import Threshold, Trained


def shown(
    trained: Trained, dataset: Dataset, indices: Sequence[int], *, native: bool, threshold: Threshold = None,
    by_truth: bool = False,
) -> Iterator[Panel]:  # fmt: skip
    """Some images of a data set with truth and prediction, one in memory at a time; of volumes a slice.

    Args:
        trained: the run.
        dataset: of the run.
        indices: of the images in ``dataset.found.cases``.
        native: at the images' own size, else at the size that the network saw.
        threshold: how probabilities become masks.
        by_truth: whether the truth alone chooses the slice, so that it is one for several runs.

    Raises:
        InputError: as :func:`engine.scores.predict`.
    """
    for index, sample in zip(indices, dataset.some(indices), strict=True):
        affine = probe(dataset.found.cases[index].images[0]).affine if sample.labels.ndim == 3 else None
        yield _panel(trained, sample, affine, native, threshold, by_truth)


def _panel(
    trained: Trained, sample: Sample, affine: Affine | None, native: bool, threshold: Threshold,
    by_truth: bool,
) -> Panel:  # fmt: skip
    made = predict(trained, sample, native, threshold)
    found = made.masks & made.valid
    native_size, size = sample.labels.shape, made.valid.shape
    image = sample.image if size == native_size else resized(sample.image, size, labels=False)
    seen = None
    if made.truth.ndim == 4:
        spacing = sample.spacing and tuple(
            each * a / b for each, a, b in zip(sample.spacing, native_size, size, strict=True)
        )
        seen = view(made.truth, None if by_truth else found, made.valid, spacing, affine)
    return Panel.of(sample.name, image, made.truth, found, made.valid, seen)
