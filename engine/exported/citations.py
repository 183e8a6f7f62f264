"""The papers of what a run used, for whoever cites a package."""

from dataclasses import dataclass

from engine.config import RunConfig


@dataclass(frozen=True)
class Paper:
    """A paper: in words, and its DOI; "" where it has none."""

    text: str
    doi: str = ""


NETWORKS = {
    "unet": Paper(
        "Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation. "
        "MICCAI 2015", "10.1007/978-3-319-24574-4_28",
    ),
    "segnet": Paper(
        "Badrinarayanan, Kendall, Cipolla: SegNet: a deep convolutional encoder-decoder architecture for "
        "image segmentation. TPAMI 39, 2017", "10.1109/TPAMI.2016.2644615",
    ),
    "semantic_fpn": Paper(
        "Lin et al.: Feature pyramid networks for object detection. CVPR 2017", "10.1109/CVPR.2017.106",
    ),
    "attention_unet": Paper(
        "Oktay et al.: Attention U-Net: learning where to look for the pancreas. MIDL 2018",
        "10.48550/arXiv.1804.03999",
    ),
    "unet_plus_plus": Paper(
        "Zhou et al.: UNet++: a nested U-Net architecture for medical image segmentation. DLMIA 2018",
        "10.1007/978-3-030-00889-5_1",
    ),
    "segresnet": Paper(
        "Myronenko: 3D MRI brain tumor segmentation using autoencoder regularization. BrainLes 2018",
        "10.1007/978-3-030-11726-9_28",
    ),
    "swin_unetr": Paper(
        "Hatamizadeh et al.: Swin UNETR: Swin transformers for semantic segmentation of brain tumors in MRI "
        "images. BrainLes 2021", "10.1007/978-3-031-08999-2_22",
    ),
}  # fmt: skip
"""By ``model.name``."""
SMM = Paper(
    "Balancing the false positive-negative trade-off to enhance image segmentation (supervised mask "
    "modulation). Anonymous, under review"
)
PLUS_PLUS = Paper(
    "Yeung et al.: Calibrating the Dice loss to handle neural network overconfidence for biomedical image "
    "segmentation. J. Digit. Imaging 36, 2023", "10.1007/s10278-022-00735-3",
)  # fmt: skip
LOSSES = {
    "unified_focal": Paper(
        "Yeung et al.: Unified focal loss: generalising Dice and cross entropy-based losses to handle class "
        "imbalanced medical image segmentation. 2021", "10.48550/arXiv.2102.04525",
    ),
    "tversky": Paper(
        "Salehi, Erdogmus, Gholipour: Tversky loss function for image segmentation using 3D fully "
        "convolutional deep networks. MLMI 2017", "10.48550/arXiv.1706.05721",
    ),
    "boundary": Paper(
        "Kervadec et al.: Boundary loss for highly unbalanced segmentation. MIDL 2019",
        "10.48550/arXiv.1812.07032",
    ),
    "skeleton_recall": Paper(
        "Kirchhoff et al.: Skeleton recall loss for connectivity conserving and resource efficient "
        "segmentation of thin tubular structures. ECCV 2024", "10.48550/arXiv.2404.03010",
    ),
    "cldice": Paper(
        "Shit et al.: clDice: a novel topology-preserving loss function for tubular structure segmentation. "
        "CVPR 2021", "10.48550/arXiv.2003.07311",
    ),
    "focal": Paper(
        "Lin et al.: Focal loss for dense object detection. ICCV 2017", "10.48550/arXiv.1708.02002",
    ),
}  # fmt: skip
"""By a part of ``loss.name``; the first that fits."""
RULES = {
    "cls": Paper(
        "Tan et al.: Conformal lesion segmentation for 3D medical images. 2025", "10.48550/arXiv.2510.17897"
    ),
    "crc": Paper("Angelopoulos et al.: Conformal risk control. 2022", "10.48550/arXiv.2208.02814"),
}
"""By the rule of a threshold."""


def papers(config: RunConfig, rules: tuple[str, ...] = ()) -> list[Paper]:
    """The papers of a run's network, modulation and loss, and of the rules of its thresholds."""
    found = [NETWORKS[config.model.name]] if config.model.name in NETWORKS else []
    if config.modulation.name != "none":
        found.append(SMM)
    if "plus_plus" in config.loss.name:
        found.append(PLUS_PLUS)
    else:
        found += [paper for part, paper in LOSSES.items() if part in config.loss.name][:1]
    return found + [RULES[rule] for rule in rules if rule in RULES]
