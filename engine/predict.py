"""Predict images or volumes with a trained run: probability maps and masks at each image's own size.

Each IMAGE is a file, or a folder whose images are all predicted. For NAME.png it writes
NAME_probability.tif (float32, one page a class) and NAME_mask.png; a mask of a TIFF is a TIFF. Masks
of one class are 0 and 255, of several 0 … C. Resolution and calibration are carried over. A --threshold
that promises something of several classes also gives each class its own mask, NAME_mask_CLASS.png.

Results of a volume have its format: of NAME.nii.gz they are NAME_probability.nii.gz and NAME_mask.nii.gz on
the same voxels (affine, sform and qform kept), of NRRD they are NRRD, of MHA and MHD they are MHA, of a TIFF
stack TIFF stacks with its spacing, of NPY, MATLAB and zarr NPY (D, H, W; probability C, D, H, W). Masks of
medical files are 0 and 1 instead of 0 and 255.

Where a run takes several channels from a file each, the files of one IMAGE are joined by commas or plus
signs, in the order of training: t1/NAME.nii.gz,flair/NAME.nii.gz. In a folder, files NAME_0000, NAME_0001 …
are the channels of NAME, and so are files that the run's own data.images finds below it.

With --stream OUT, one IMAGE, which may be a zarr array, an OME-Zarr image or a tiled TIFF that does not fit
in memory, is predicted tile row by tile row into the OME-Zarr image OUT: its arrays probability (float32,
class × S), smaller copies probability_1, probability_2 …, and meta.json. Meanwhile OUT/progress.json says
how far it is, and creating a file OUT/cancel ends it. --resume goes on with one that was cancelled, killed
or failed, to the same bits. --scheduler ADDRESS predicts on the workers of a dask.distributed cluster, which
must see RUN, IMAGE and OUT under the same paths. Several images are predicted one after the other into
OUT/NAME1, OUT/NAME2 … .
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine import decision
from engine.command import Parser, run
from engine.data.decode import ending, probe, stem
from engine.data.read import read_image
from engine.decision import Decision
from engine.errors import InputError
from engine.inputs import Input, Wanted, gather
from engine.outputs import MEDICAL, plan, write_mask, write_probability
from engine.streaming import give_memory_back, stream
from engine.threshold_use import said
from engine.thresholds_file import Entry
from engine.trained import Trained


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.predict``."""
    parser = Parser("predict", __doc__ or "")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files or folders; a file a channel: FILE,FILE"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (default: RUN/predictions)")
    parser.add_argument("--threshold", metavar="T|RULE", help=decision.HELP)
    parser.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument(
        "--tile", type=int, help="longest side predicted at once, px or voxels (default: the run's)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument("--stream", type=Path, metavar="OUT", help="predict images of any size into a folder")
    parser.add_argument("--resume", action="store_true", help="go on with what --stream began")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="predict on a dask cluster (--stream)")
    options = parser.parse_args(arguments)
    options.threshold = decision.given(options.threshold)
    if options.tile is not None and options.tile < 32:
        raise InputError(f"--tile {options.tile} is too small: 32 or more would work.")
    if options.stream is not None:
        return predict_stream(options)
    for flag in ("resume", "scheduler"):
        if getattr(options, flag):
            raise InputError(f"--{flag} goes with --stream OUT: give it too, or leave --{flag} out.")
    trained = Trained.open(options.run, options.checkpoint, options.device).tiled(options.tile)
    decided = decision.decide(trained, options.threshold)
    out = options.out or options.run / "predictions"
    # Labels give a pixel to one class, so a promise about each class needs each class's own mask.
    own = trained.classes if decided.guarantees and len(trained.classes) > 1 else ()
    jobs = plan(gather(options.images, wanted(trained)), trained.dims, out, options.overwrite, own)
    out.mkdir(parents=True, exist_ok=True)
    noun = "image" if trained.dims == 2 else "volume"
    for image, results in tqdm(jobs.items(), unit=noun, desc="predict"):
        p, like = predict(trained, image), image.case(trained.config.data.axes).images[0]
        write_probability(results[0], p, like, trained.classes)
        white = 1 if ending(results[1]) in MEDICAL else 255
        for target, mask in zip(results[1:], masks(trained, p, decided, own, white), strict=True):
            write_mask(target, mask, like)
    print(f"{len(jobs)} {noun}{'s' * (len(jobs) != 1)} predicted into {out} ({decided.words})")
    if decided.entry is not None:
        say(decided.entry, out, own)
    return 0


def say(entry: Entry, out: Path, own: Sequence[str]) -> None:
    """Print what is promised of the masks, or that nothing is."""
    for words in said(entry):
        print(words)
    if own:
        print(f"The promises are about each class's own mask, {out / 'NAME_mask_CLASS'}, not about labels.")


def wanted(trained: Trained) -> Wanted:
    """What a run takes."""
    data = trained.config.data
    patterns = tuple(text.strip() for text in (data.images or "").split(";") if text.strip())
    return Wanted(trained.root, trained.channels, trained.dims, data.axes, patterns)


def masks(
    trained: Trained, p: NDArray[np.float32], decided: Decision, own: Sequence[str], white: int = 255
) -> list[NDArray[np.uint8]]:
    """The mask uint8 (*S) of an image, and behind it, where wanted, each class's own, 0 and `white`."""
    label = trained.label_map(p, decided.threshold)
    if len(trained.classes) == 1:
        return [label * np.uint8(white)]
    each = trained.masks(p, decided.threshold).astype(np.uint8) * np.uint8(white) if own else ()
    return [label, *each]


def predict_stream(options: Namespace) -> int:
    """Predict with ``--stream``. Returns the exit code, 130 after a cancel as after Ctrl-C."""
    for flag in ("out", "threshold"):
        if getattr(options, flag) is not None:
            raise InputError(
                f"--{flag} goes with masks and TIFF files, and --stream writes probabilities as zarr: "
                "leave one of the two out."
            )
    give_memory_back()
    for out, image in streamed(options.images, options.stream).items():
        done = stream(
            options.run, image, out, checkpoint=options.checkpoint, device=options.device,
            tile=options.tile, overwrite=options.overwrite, resume=options.resume,
            scheduler=options.scheduler,
        )  # fmt: skip
        print(f"predicted into {out}" if done else "cancelled")
        if not done:
            return 130
    return 0


def streamed(given: Sequence[str], out: Path) -> dict[Path, Path]:
    """Folder → image: `out` itself for one image, else a folder in it of each image's name.

    Raises:
        InputError: two images of one name.
    """
    images = [Path(path).expanduser() for path in given]
    if len(images) == 1:
        return {out: images[0]}
    folders: dict[Path, Path] = {}
    for image in images:
        folder = out / stem(image)
        if folder in folders:
            raise InputError(
                f"{folders[folder]} and {image} would both be predicted into {folder}: "
                "predict them one after the other, each with its own --stream."
            )
        folders[folder] = image
    return folders


def predict(trained: Trained, image: Input) -> NDArray[np.float32]:
    """Probabilities float32 (C, *S) of an image."""
    case = image.case(trained.config.data.axes)
    return trained.probability(read_image(case, trained.channels), spacing=probe(case.images[0]).spacing)


if __name__ == "__main__":
    run(main)
