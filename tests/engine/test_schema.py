import pytest

from engine.config import RunConfig
from engine.losses.specs import Dice, DiceCrossEntropy
from engine.models.specs import UNet
from engine.schema import choices, kinds, spec_at, spec_types
from engine.spec import Part

REGISTRIES = {
    "model": {
        "unet",
        "segnet",
        "semantic_fpn",
        "attention_unet",
        "unet_plus_plus",
        "segresnet",
        "swin_unetr",
    },
    "modulation": {"none", "smm_v1", "smm_v2"},
    "loss": {
        "dice",
        "cross_entropy",
        "binary_cross_entropy",
        "elevated_sensitivity",
        "dice_ce",
        "dice_bce",
    },
    "optimizer": {"sgd", "adam", "adamw"},
    "schedule": {"constant", "linear", "polynomial", "cosine", "plateau"},
}
PARTS = [
    pytest.param(part, id=f"{group}-{name}")
    for group in REGISTRIES
    for name, part in choices(RunConfig, group).items()
]


@pytest.mark.parametrize("group", REGISTRIES)
def test_a_registry_offers_at_least_the_published_parts(group: str) -> None:
    assert set(choices(RunConfig, group)) >= REGISTRIES[group]


def test_a_plain_group_is_no_registry() -> None:
    assert choices(RunConfig, "training") == {}
    assert [spec.__name__ for spec in spec_types(RunConfig.model_fields["training"])] == ["Training"]


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_of_every_part_has_a_help_text_and_a_default(part: type[Part]) -> None:
    assert part.__doc__
    assert part()  # all settings have defaults
    for key, field in part.model_fields.items():
        assert key == "name" or field.description, key


@pytest.mark.parametrize("part", PARTS)
def test_what_may_be_none_is_none_by_default(part: type[Part]) -> None:
    # TOML has no null: a setting that is None is left out of the file, and must come back as None.
    for field in part.model_fields.values():
        if type(None) in getattr(field.annotation, "__args__", ()):
            assert field.default is None


@pytest.mark.parametrize("group", ["data", "augment", "training", "prediction", "watch"])
def test_what_may_be_none_in_a_plain_group_is_none_by_default(group: str) -> None:
    (spec,) = spec_types(RunConfig.model_fields[group])
    for key, field in spec.model_fields.items():
        assert field.description, key
        if type(None) in kinds(RunConfig, group, key):
            assert field.default is None, key


@pytest.mark.parametrize(
    ("location", "dotted", "spec"),
    [
        (("training", "epochs"), "training.epochs", "Training"),
        (("training", "nope"), "training.nope", "Training"),
        (("loss", "dice_ce", "ce_weight"), "loss.ce_weight", DiceCrossEntropy.__name__),
        (("loss", "dice", "smooth"), "loss.smooth", Dice.__name__),
        (("model", "depth"), "model.depth", UNet.__name__),
        (("data", "size", 1), "data.size", "Data"),
        (("nope",), "nope", "RunConfig"),
        ((), "", "RunConfig"),
    ],
)
def test_an_error_location_is_the_name_that_a_user_writes(
    location: tuple[int | str, ...], dotted: str, spec: str
) -> None:
    found, holder = spec_at(RunConfig, location)
    assert (found, holder.__name__) == (dotted, spec)


@pytest.mark.parametrize(
    ("group", "key", "types"),
    [
        ("training", "epochs", {int}),
        ("training", "clip_gradient", {float, type(None)}),
        ("training", "precision", {str}),
        ("data", "images", {str, type(None)}),
        ("data", "classes", {dict, type(None)}),
        ("data", "size", {tuple, type(None)}),
        ("augment", "flip", {float}),
        ("loss", "smooth", {float}),
        ("optimizer", "nesterov", {bool}),
        ("loss", "name", {str}),
        ("loss", "nope", set()),
        ("nope", "name", set()),
    ],
)
def test_kinds_are_the_types_a_setting_takes(group: str, key: str, types: set[type]) -> None:
    assert kinds(RunConfig, group, key) == types
