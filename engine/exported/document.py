"""The page that goes along with a package: what it does, how it is used, what it promises and what not."""

import json
from collections.abc import Mapping
from typing import Any

from engine.exported.citations import papers
from engine.trained import Trained


def document(trained: Trained, description: Mapping[str, Any], title: str) -> str:
    """The page, as Markdown.

    Args:
        trained: the run.
        description: of its graph.
        title: of the package.
    """
    parts = [
        f"# {title}",
        _does(trained, description),
        f"## How to use it\n\n{_use(description)}",
        f"## Thresholds\n\n{_thresholds(description)}",
        f"## Validation\n\n{_validation(trained)}",
        f"## Limits\n\n{_limits(description)}",
        f"## Where it comes from\n\n{_origin(trained, description)}",
    ]
    return "\n\n".join(parts) + "\n"


def _does(trained: Trained, description: Mapping[str, Any]) -> str:
    where = "pixel of an image" if trained.dims == 2 else "voxel of a volume"
    decision = description["head"]["decision"]
    return (
        f"Gives, for each {where} of {trained.channels} channel{'s' * (trained.channels != 1)}, the "
        f"probability of {', '.join(trained.classes)}. {decision[0].upper()}{decision[1:]}."
    )


def _use(description: Mapping[str, Any]) -> str:
    norm, sizes = description["normalization"], description["input"]["sizes"]
    lines = [
        f"- Intensities are normalised before the network ({norm['name']}): {norm['how']}. Programs that "
        "read this package do it themselves.",
        f"- Sizes: {'any' if sizes == 'any' else ' × '.join(map(str, sizes)) + ' alone'}.",
    ]
    if description["resized"] is not None:
        said = json.dumps({key: value for key, value in description["resized"].items() if key != "inside"})
        lines.append(f"- Images are resized before that, which this package does not do: {said}.")
    tiles = description["tiles"]
    lines.append(
        f"- Where an image does not fit in memory: tiles of {tiles['longest_side']}, overlapping by "
        f"{tiles['overlap']:.0%}, of an image that was normalised as a whole."
    )
    return "\n".join(lines)


def _thresholds(description: Mapping[str, Any]) -> str:
    if not description["thresholds"]:
        return "None was calibrated; 0.5 is the usual one, and promises nothing."
    lines = []
    for each in description["thresholds"]:
        classes = each["classes"]
        if each["together"] and len(classes) > 1:
            classes = {"all classes together": next(iter(classes.values()))}
        for name, found in classes.items():
            lines.append(f"- {each['rule']}, {name}: T = {found['threshold']}. {found['promise']}")
    lines.append(
        "\nA promise holds for images from the source of the calibration images, predicted as they were: "
        "whole or in the same tiles, with the same normalisation."
    )
    return "\n".join(lines)


def _validation(trained: Trained) -> str:
    how = (
        "To validate it on images of your own, predict images that were annotated and not trained on, and "
        "score p >= T against them (Dice, recall, precision of each class)."
    )
    path = trained.root / "report" / "test.json"
    if not path.is_file():
        return how
    report = json.loads(path.read_text("utf-8"))
    if (report.get("checkpoint"), report.get("epoch")) != (trained.file, trained.epoch):
        return how
    rows = [
        f"| {name} | {_share(scores['dice'])} | {_share(scores['recall'])} | {_share(scores['precision'])} |"
        for name, scores in report["scores"].items()
        if name in trained.classes
    ]
    head = f"On {report['images']} images of the {report['split']} split, at {report['decision']}:\n\n"
    table = "\n".join(["| class | Dice | recall | precision |", "|---|---|---|---|", *rows])
    return f"{head}{table}\n\n{how}"


def _share(score: Mapping[str, Any]) -> str:
    value = score["value"]
    return "not defined" if value is None else f"{value:.3f}"


def _limits(description: Mapping[str, Any]) -> str:
    return (
        "It knows what its training images showed. Other stains, instruments, magnifications or species may "
        "need other weights; check it on images of your own first. It is no medical device."
    )


def _origin(trained: Trained, description: Mapping[str, Any]) -> str:
    run, config = description["run"], trained.config
    lines = [
        f"{description['made_by']}, run {run['name']}, checkpoint {run['checkpoint']} after epoch "
        f"{run['epoch']}: network {config.model.name}, loss {config.loss.name}, modulation "
        f"{config.modulation.name}.",
        "",
        *(
            f"- {paper.text}{f', https://doi.org/{paper.doi}' if paper.doi else ''}"
            for paper in papers(config, tuple(each["rule"].split()[0] for each in description["thresholds"]))
        ),
    ]
    return "\n".join(lines)
