"""What an exported file says of itself: how images go in, and what comes out."""

from datetime import UTC, datetime
from typing import Any

import engine
from engine import thresholds_file
from engine.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from engine.exported.graph import AXES, INPUT, OUTPUT, Graph
from engine.record import plain
from engine.trained import Trained

FORMAT = 1
"""Version of the description."""
HOW = {
    "zscore": "of each image and channel: (x - mean) / deviation, over all pixels; 0 if it is constant",
    "unit": "of each image and channel: (x - least) / (most - least), over all pixels; 0 if it is constant",
    "percentile": "of each image and channel: (x - P1) / (P99 - P1), percentiles over all pixels (least and "
    "most where both are one value), then clipped to 0…1",
    "imagenet": "(x / white - mean) / deviation; white is 255 for uint8, 65535 for uint16, 1 for fractions",
}  # fmt: skip
"""How images are normalised, by ``data.normalization``."""
DECISION = {
    "sigmoid": "classes may overlap, or there is one: each class's mask is p >= T",
    "softmax": "classes exclude each other: the label is the class of largest p among those with p >= T; "
    "without a T, the largest of all p and of 1 - sum(p), which is the background's",
}


def description(trained: Trained, graph: Graph) -> dict[str, Any]:
    """All that is needed to use the graph, and where it comes from, as JSON can hold it."""
    data = trained.config.data
    axes = ", ".join(("batch", "channel", *AXES[trained.dims]))
    constants = {"mean": IMAGENET_MEAN, "deviation": IMAGENET_STD} if data.normalization == "imagenet" else {}
    thresholds, left_out = calibrated(trained)
    found = {
        "format": FORMAT,
        "made_by": f"napari-smm {engine.__version__}",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {
            "name": trained.root.resolve().name,
            "checkpoint": trained.file,
            "epoch": trained.epoch,
            "weights": trained.predicted().weights,
            "data": trained.info["dataset"].get("fingerprint"),
            "engine": trained.info.get("engine"),
        },
        "network": trained.config.model.from_scratch().model_dump(mode="json", exclude_none=True),
        "input": {
            "name": INPUT,
            "axes": axes,
            "dtype": "float32",
            "channels": trained.channels,
            "sizes": list(graph.fixed) if graph.fixed else "any",
            "padded_inside_to_multiples_of": None if graph.fixed else graph.module.multiple,
            "batch": "any",
        },
        "output": {
            "name": OUTPUT,
            "axes": axes,
            "dtype": "float32",
            "meaning": "foreground probabilities, 0…1",
        },
        "classes": list(trained.classes),
        "head": {
            "name": trained.predictor.head, "inside": True, "decision": DECISION[trained.predictor.head],
        },
        "normalization": {
            "name": data.normalization, "inside": False, "how": HOW[data.normalization], **constants,
        },
        "resized": _resized(trained),
        "tiles": {"longest_side": trained.predictor.tile, "overlap": trained.predictor.overlap},
        "thresholds": thresholds,
        "thresholds_left_out": left_out,
    }  # fmt: skip
    made: dict[str, Any] = plain(found)
    return made


def calibrated(trained: Trained) -> tuple[list[dict[str, Any]], list[str]]:
    """What the run's calibrations chose for these very weights, and why others are left out, in sentences."""
    kept, left_out = [], []
    for name, entry in thresholds_file.read(trained.root).items():
        reasons = [entry.predicted.differs(trained.predicted(size)) for size in ("native", "trained")]
        if all(reasons):
            left_out.append(f"the threshold by {name} is left out, as {reasons[0]}.")
            continue
        kept.append(
            {
                "rule": entry.settings,
                "guarantee": entry.guarantees,
                "together": entry.together,
                "classes": {
                    each: {"threshold": found.threshold, "promise": found.words}
                    for each, found in entry.classes.items()
                },
                "made": entry.made,
            }
        )
    return kept, left_out


def _resized(trained: Trained) -> dict[str, Any] | None:
    """How images are resized before they are normalised; None where they are not."""
    data = trained.config.data
    if data.size is not None:
        return {"inside": False, "to_pixels": list(data.size)}
    if data.spacing is not None:
        return {"inside": False, "to_mm": list(data.spacing)}
    return None
