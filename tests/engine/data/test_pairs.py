"""Which files fit a pattern, told from their folders first."""

import random

from engine.data.layouts import known
from engine.data.pairs import Files
from engine.data.patterns import pattern

FOLDERS = (
    "", "images", "masks", "Images", "train/images", "train/masks", "valid", "imagesTr", "labelsTr",
    "training/images", "training/1st_manual", "stage1_train/a1/images", "stage1_train/a1/masks", "Original",
    "Ground Truth", "image", "brainTumorDataPublic_1", "NCCD-PF_Dataset/Images", "BUS/GT",
    "dataset/semantic_drone_dataset/training_set/images",
)  # fmt: skip
NAMES = (
    "1.png", "21_training.tif", "21_manual1.gif", "a1.png", "a1_mask.png", "Image_01L.jpg", "mask_3.png",
    "Image_01L_1stHO.png", "case_0001.nii.gz", "case.nii.gz", "7.mat", "image_3.jpg", "000123.bmp", "x.txt",
    "noending",
)  # fmt: skip


def test_files_are_told_from_their_folders_as_from_their_paths() -> None:
    every = [f"{folder}/{name}".lstrip("/") for folder in FOLDERS for name in NAMES]
    paths = random.Random(0).sample(every, len(every))
    files = Files.of(paths)
    for layout in known():
        for part in layout.part:
            for text in (*part.image, *part.mask, *part.valid):
                whole = pattern(text, layout.where)
                fitting = {place: whole.match(path) for place, path in enumerate(paths) if whole.match(path)}
                found = files.fitting(text, layout.where)
                assert found == fitting
                assert list(found) == sorted(found)
