"""Take a trained run, or an annotated data set, elsewhere.

A run becomes one or several of
  --onnx FILE.onnx        for any program that runs ONNX, without Python or torch
  --program FILE.pt2      for torch alone (torch.export), without this package
  --bioimageio FILE.zip   a package of the bioimage.io model zoo, for Fiji, ilastik, napari and others

Each holds the network with its padding and its head: a normalised image (batch, channel, height, width; depth
before height for volumes) goes in, the foreground probability of each class comes out. How images are
normalised, the classes and the run's calibrated thresholds stand inside the file, and in FILE.json beside it.
Each file is compared with the run on real images before it gets its name; one that differs is not kept.

A data set in any layout that `python -m engine.train --layouts` lists becomes
  --nnunet OUT            a data set as nnU-Net reads it, with unlabelled pixels as its label `ignore`
How it is read can be said as in training: --data.layout=…, --data.classes=…, always with the sign =.

Examples:
  python -m engine.export runs/nuclei --onnx nuclei.onnx
  python -m engine.export runs/nuclei --bioimageio nuclei.zip --author "Ada Lovelace, Analytical Engines"
  python -m engine.export --dataset plates --nnunet nnUNet_raw --name Dataset101_Plates
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import flags
from engine.command import Parser, run
from engine.config import Layer, resolve
from engine.errors import InputError
from engine.exported import bioimageio_package, nnunet_folder, onnx_file, program_file
from engine.exported.description import description
from engine.exported.file import free, write_checked
from engine.exported.graph import Graph
from engine.exported.real_images import inputs, real_images
from engine.trained import Trained

OF_A_RUN = ("onnx", "program", "bioimageio")
ENDINGS = {"onnx": ".onnx", "program": ".pt2", "bioimageio": ".zip"}


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.export``."""
    options, settings = parse(arguments)
    if options.dataset is not None:
        return export_dataset(options, settings)
    return export_run(options)


def parse(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """The command line, and flags of data settings (``--data.…``).

    Raises:
        InputError: what cannot be used together.
    """
    parser = Parser("export", __doc__ or "")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="run directory")
    of_run = parser.add_argument_group("a run")
    of_run.add_argument("--onnx", type=Path, metavar="FILE", help="write an ONNX file")
    of_run.add_argument("--program", type=Path, metavar="FILE", help="write a program of torch.export")
    of_run.add_argument("--bioimageio", type=Path, metavar="FILE", help="write a bioimage.io package")
    of_run.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    of_run.add_argument(
        "--images", nargs="+", default=[], metavar="IMAGE",
        help="real images to compare on (default: three of the run's, test images first)",
    )  # fmt: skip
    of_run.add_argument(
        "--author", action="append", metavar="NAME[, PLACE]",
        help="of the package; once for each (default: your account's name)",
    )  # fmt: skip
    of_run.add_argument(
        "--license", default=bioimageio_package.LICENSE, metavar="SPDX",
        help=f"of the package, such as MIT or CC0-1.0 (default: {bioimageio_package.LICENSE})",
    )  # fmt: skip
    of_run.add_argument("--title", help="of the package (default: from the run's name)")
    of_data = parser.add_argument_group("a data set")
    of_data.add_argument("--dataset", metavar="FOLDER", help="images and masks")
    of_data.add_argument("--nnunet", type=Path, metavar="OUT", help="folder to make")
    of_data.add_argument("--name", help="make OUT/NAME instead; nnU-Net wants names like Dataset101_Plates")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there (not OUT)")
    options, settings = parser.parse_known_args(arguments)
    wrong = [flag for flag in settings if flag.startswith("-") and not flag.startswith("--data.")]
    if wrong or (settings and options.dataset is None):
        parser.error(f"unrecognized arguments: {' '.join(wrong or settings)}")
    _require_sense(options)
    return options, settings


def _require_sense(options: Namespace) -> None:
    asked = [name for name in OF_A_RUN if getattr(options, name) is not None]
    if options.dataset is not None:
        if options.run is not None or asked or options.nnunet is None:
            raise InputError(
                "--dataset FOLDER goes with --nnunet OUT alone: python -m engine.export --dataset FOLDER "
                "--nnunet OUT."
            )
        return
    if options.nnunet is not None or options.name is not None:
        raise InputError("--nnunet and --name go with --dataset FOLDER: give it too, or leave them out.")
    if options.run is None or not asked:
        raise InputError(
            "a run and what to make of it are needed, such as python -m engine.export RUN --onnx FILE.onnx; "
            "python -m engine.export --help says what there is."
        )
    for name in asked:
        given = getattr(options, name)
        if given.suffix.lower() != ENDINGS[name]:
            raise InputError(f"--{name} {given} needs a name that ends in {ENDINGS[name]}.")


def export_run(options: Namespace) -> int:
    """Write what is asked for of a run. Returns the exit code."""
    for name in OF_A_RUN:
        if getattr(options, name) is not None:
            free(getattr(options, name), options.overwrite)
    if options.onnx is not None:
        onnx_file.require()
    if options.bioimageio is not None:
        bioimageio_package.require()
    # On a CPU, where every file can be run to be compared.
    trained = Trained.open(options.run, options.checkpoint, "cpu")
    card = None
    if options.bioimageio is not None:
        card = bioimageio_package.Card.of(trained, options.title, options.author or (), options.license)
    images, graph = real_images(trained, options.images), Graph.of(trained)
    told = description(trained, graph)
    say(graph, told)
    for name, kind in (("onnx", onnx_file), ("program", program_file)):
        path = getattr(options, name)
        if path is not None:
            tried = inputs(trained, images, graph.fixed)
            print(write_checked(path.expanduser(), kind, trained, graph, told, tried).words)
    if card is not None:
        path = options.bioimageio.expanduser()
        print(bioimageio_package.write(path, trained, graph, told, card, images).words)
    return 0


def say(graph: Graph, told: dict[str, Any]) -> None:
    """What a user should know of the files."""
    if graph.fixed is not None:
        sides = " × ".join(map(str, graph.fixed))
        print(
            f"note: the network {told['network']['name']} can be exported for one size alone, {sides}: "
            "whoever uses the file cuts larger images into tiles of it."
        )
    if told["resized"] is not None:
        print("note: images are resized before the network sees them; whoever uses the file does that.")
    for sentence in told["thresholds_left_out"]:
        print(f"note: {sentence}")


def export_dataset(options: Namespace, settings: Sequence[str]) -> int:
    """Write a data set as nnU-Net has it. Returns the exit code."""
    given = {**flags.parse(settings).get("data", {}), "root": options.dataset}
    config, _ = resolve([Layer("flags", {"data": given})])
    out = options.nnunet.expanduser() / (options.name or "")
    print(nnunet_folder.write(out, config.data.located()).words)
    return 0


if __name__ == "__main__":
    run(main)
