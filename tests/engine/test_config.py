import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from engine.config import Layer, RunConfig, presets, read_file, read_preset, resolve, to_toml
from engine.errors import InputError
from engine.schema import choices, spec_types


def config_of(**groups: dict[str, Any]) -> RunConfig:
    return resolve([Layer("flags", groups)])[0]


def refusal(**groups: Any) -> str:
    with pytest.raises(InputError) as refused:
        resolve([Layer("flags", groups)])
    message = str(refused.value)
    assert message.count("\n") == 0
    assert "pydantic" not in message
    return message


def test_without_settings_everything_has_its_default() -> None:
    assert resolve([]) == (RunConfig(), [])


def test_later_layers_win_setting_by_setting(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nepochs = 7\nbatch_size = 3\n[optimizer]\nlr = 0.5\n")
    flags = Layer("flags", {"training": {"epochs": 9}})
    config, notes = resolve([read_preset("smm"), read_file(file), flags])
    assert config.training.epochs == 9  # flags
    assert config.training.batch_size == 3  # file
    assert config.optimizer.model_dump()["lr"] == 0.5  # file, over the preset's part
    assert config.optimizer.name == "sgd"  # preset
    assert config.training.seed == 0  # default
    assert notes == []


def test_a_new_name_drops_what_lower_layers_set_for_the_part_and_says_which() -> None:
    lower = Layer("file x.toml", {"optimizer": {"name": "sgd", "momentum": 0.5, "lr": 0.2}})
    config, notes = resolve([lower, Layer("flags", {"optimizer": {"name": "adam"}})])
    assert config.optimizer.model_dump()["lr"] == 1e-3
    assert notes == ["flags: optimizer.name = 'adam' replaces 'sgd'; dropped its settings lr, momentum."]


def test_a_new_name_keeps_the_settings_of_its_own_layer() -> None:
    lower = Layer("file x.toml", {"optimizer": {"name": "sgd", "lr": 0.2}})
    config, notes = resolve([lower, Layer("flags", {"optimizer": {"name": "adam", "lr": 0.3}})])
    assert config.optimizer.model_dump()["lr"] == 0.3
    assert notes == []


def test_a_new_name_replaces_a_part_that_was_set_without_a_name() -> None:
    lower = Layer("file x.toml", {"modulation": {"queue": 9}, "loss": {"bce_weight": 2.0}})
    flags = Layer("flags", {"modulation": {"name": "none"}, "loss": {"name": "dice"}})
    config, notes = resolve([lower, flags])
    assert (config.modulation.name, config.loss.name) == ("none", "dice")
    assert notes == [
        "flags: modulation.name = 'none' replaces 'smm_v2'; dropped its settings queue.",
        "flags: loss.name = 'dice' replaces 'dice_bce'; dropped its settings bce_weight.",
    ]


def test_the_same_name_again_keeps_the_lower_settings() -> None:
    lower = Layer("file x.toml", {"modulation": {"queue": 9}, "loss": {"bce_weight": 2.0}})
    flags = Layer("flags", {"modulation": {"name": "smm_v2"}, "loss": {"name": "dice_bce"}})
    config, notes = resolve([lower, flags])
    assert config.modulation.model_dump()["queue"] == 9
    assert config.loss.model_dump()["bce_weight"] == 2
    assert notes == []


def test_a_stale_setting_beside_the_name_is_refused_with_the_parts_own_settings() -> None:
    message = refusal(loss={"name": "dice", "ce_weight": 2.0})
    assert message.startswith("unknown setting 'loss.ce_weight' of loss 'dice'")
    assert message.endswith("known are loss.name, loss.include_background, loss.batch, loss.smooth.")


@pytest.mark.parametrize(
    ("groups", "given", "near"),
    [
        ({"trainig": {"epochs": 3}}, "setting 'trainig'", "training"),
        ({"training": {"epoch": 3}}, "setting 'training.epoch'", "training.epochs"),
        ({"loss": {"dice_wight": 3}}, "setting 'loss.dice_wight' of loss 'dice_bce'", "loss.dice_weight"),
        ({"loss": {"name": "dise"}}, "loss.name 'dise'", "dice"),
        ({"model": {"name": "unett"}}, "model.name 'unett'", "unet"),
        ({"schedule": {"name": "cosin"}}, "schedule.name 'cosin'", "cosine"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_answered_with_the_known_ones_and_a_near_one(
    groups: dict[str, Any], given: str, near: str
) -> None:
    message = refusal(**groups)
    assert message.startswith(f"unknown {given} (did you mean '{near}'?): known are ")
    assert near in message.partition("known are ")[2]


def test_what_resembles_nothing_gets_no_hint() -> None:
    assert "did you mean" not in refusal(loss={"name": "qqq"})


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        InputError,
        match=r"unknown preset 'sm' \(did you mean 'smm'\?\).*demo, dsc\+\+, few, semantic-fpn, smm",
    ):
        read_preset("sm")


@pytest.mark.parametrize(
    ("groups", "start"),
    [
        ({"training": {"epochs": 0}}, "training.epochs = 0 cannot be used: "),
        ({"training": {"epochs": 2.5}}, "training.epochs = 2.5 cannot be used: "),
        ({"training": {"precision": "half"}}, "training.precision = 'half' cannot be used: "),
        ({"optimizer": {"lr": 0.0}}, "optimizer.lr = 0.0 cannot be used: "),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr = nan cannot be used: "),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas = 1.0 cannot be used: "),
        ({"augment": {"flip": 1.5}}, "augment.flip = 1.5 cannot be used: "),
        ({"augment": {"scale": [2, 1]}}, "augment: scale needs two numbers, smallest first"),
        ({"data": {"patch": 100}}, "data.patch = 100 cannot be used: multiples of 8"),
        ({"data": {"split": [0.5, 0.5, 0.5, 0.5]}}, "data.split = [0.5, 0.5, 0.5, 0.5] cannot be used: "),
        ({"prediction": {"overlap": 1.0}}, "prediction.overlap = 1.0 cannot be used: "),
        ({"model": {"dropout": 1.0}}, "model.dropout = 1.0 cannot be used: "),
        ({"optimizer": {"name": "sgd", "nesterov": True, "momentum": 0}}, "optimizer: nesterov needs"),
        ({"training": {"head": "exclusive"}}, "training.head is exclusive, but smm_v2"),
        ({"training": 5}, "training needs its settings by name, such as training.epochs, not 5"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_was_given(groups: dict[str, Any], start: str) -> None:
    assert refusal(**groups).startswith(start)


def test_several_mistakes_are_counted() -> None:
    message = refusal(training={"epochs": 0, "batch_size": 0}, loss={"dice_weight": -1})
    assert message.startswith("training.epochs = 0")
    assert "more cannot be used either" in message


def test_a_mistake_in_the_method_is_not_blamed_on_the_loss() -> None:
    message = refusal(modulation={"name": "smm_v3"}, loss={"dice_weight": 2.0})
    assert message.startswith("unknown modulation.name 'smm_v3'")


@pytest.mark.parametrize(
    ("groups", "loss"),
    [
        ({}, "dice_bce"),
        ({"modulation": {"name": "smm_v2"}}, "dice_bce"),
        ({"modulation": {"name": "smm_v1"}}, "dice_ce"),
        ({"modulation": {"name": "none"}}, "dice_ce"),
        ({"modulation": {"name": "none"}, "training": {"head": "multilabel"}}, "dice_bce"),
        ({"modulation": {"name": "none"}, "loss": {"ce_weight": 2.0}}, "dice_ce"),
        ({"loss": {"dice_weight": 2.0}, "modulation": {"queue": 9}}, "dice_bce"),
        ({"modulation": {"name": "none"}, "loss": {"name": "dice"}}, "dice"),
    ],
)
def test_the_usual_loss_follows_the_method(groups: dict[str, Any], loss: str) -> None:
    assert config_of(**groups).loss.name == loss


@pytest.mark.parametrize(
    ("groups", "classes", "head"),
    [
        ({}, 1, "sigmoid"),
        ({}, 3, "sigmoid"),
        ({"modulation": {"name": "none"}}, 1, "sigmoid"),
        ({"modulation": {"name": "none"}}, 3, "softmax"),
        ({"modulation": {"name": "smm_v1"}}, 3, "softmax"),
        ({"modulation": {"name": "none"}, "training": {"head": "multilabel"}}, 3, "sigmoid"),
    ],
)
def test_classes_exclude_each_other_unless_the_method_lets_them_overlap(
    groups: dict[str, Any], classes: int, head: str
) -> None:
    assert config_of(**groups).head(classes) == head


def test_none_unsets_what_a_lower_layer_set() -> None:
    lower = Layer(
        "file x.toml", {"training": {"early_stopping": 5}, "data": {"size": [64, 64], "group": "a"}}
    )
    flags = Layer(
        "flags", {"training": {"early_stopping": "none"}, "data": {"size": "none", "group": "none"}}
    )
    config, _ = resolve([lower, flags])
    assert config.training.early_stopping is None
    assert config.data.size is None
    assert config.data.group == "none"  # a text of the user's own


def test_a_file_that_is_missing_or_no_toml_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.toml cannot be read \(No such file"):
        read_file(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    for content in (b"[training\n", b"\xff\xfe"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.toml is not TOML"):
            read_file(broken)


# Presets


@pytest.mark.parametrize("name", presets())
def test_a_preset_resolves_and_says_what_it_is(name: str) -> None:
    config, notes = resolve([read_preset(name)])
    assert config != RunConfig()
    assert notes == []
    assert len(presets()[name]) > 20


def test_the_preset_smm_is_the_papers_set_up() -> None:
    config = resolve([read_preset("smm")])[0]
    assert config.model.model_dump() == {
        "name": "unet", "base_width": 64, "depth": 4, "norm": "batch", "dropout": 0.0,
        "initialization": "default", "spatial_dims": None,
    }  # fmt: skip
    assert config.optimizer.model_dump() == {
        "name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0
    }  # fmt: skip
    assert config.schedule.model_dump() == {"name": "linear", "final_lr": 0.0}
    assert (config.training.batch_size, config.training.epochs) == (4, 100)
    assert (config.augment.flip, config.augment.quarter_turn) == (0, 0)
    assert not config.augment.resamples
    plain = resolve([read_preset("smm"), Layer("flags", {"modulation": {"name": "none"}})])[0]
    assert plain.loss.model_dump() == {"name": "dice_ce", "dice_weight": 1.0, "ce_weight": 1.0}


def test_the_preset_smm_released_is_the_authors_code() -> None:
    config = resolve([read_preset("smm-released")])[0]
    assert config.model.model_dump()["base_width"] == 32
    assert config.optimizer.name == "adam"
    assert config.optimizer.model_dump()["lr"] == 1e-5
    assert config.schedule.model_dump() == {"name": "linear", "final_lr": 0.0}
    assert (config.training.batch_size, config.training.epochs) == (2, 1000)


# TOML


def round_trip(config: RunConfig) -> RunConfig:
    return resolve([Layer("file", tomllib.loads(to_toml(config)))])[0]


@pytest.mark.parametrize("name", presets())
def test_a_preset_survives_the_file(name: str) -> None:
    config = resolve([read_preset(name)])[0]
    assert round_trip(config) == config


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in RunConfig.model_fields for name in choices(RunConfig, group)],
)
def test_every_part_survives_the_file(group: str, name: str) -> None:
    config = config_of(**{group: {"name": name}})
    assert getattr(config, group).name == name
    assert round_trip(config) == config


def test_the_file_spells_every_setting_out(tmp_path: Path) -> None:
    # Then a run's config.toml gives the same run when a later version has other defaults.
    config = config_of(data={"root": str(tmp_path), "size": 64, "classes": {"a b": [1, "#ff0000"]}})
    written = tomllib.loads(to_toml(config))
    for group in RunConfig.model_fields:
        spec = getattr(config, group)
        said = {key for key in type(spec).model_fields if getattr(spec, key) is not None}
        assert set(written[group]) == said
    assert written["data"]["size"] == [64, 64]
    assert written["data"]["classes"] == {"a b": [1, "#ff0000"]}


def test_the_root_of_a_run_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for root, found in (("eyes", tmp_path / "eyes"), ("~/eyes", tmp_path / "home" / "eyes")):
        assert config_of(data={"root": root}).data.located().root == str(found)
    assert config_of(data={"root": "demo"}).data.located().root == "demo"


def values(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Values of a setting, from its type and limits alone."""
    limits = {type(limit): limit for limit in field.metadata}
    options = [option for option in get_args(field.annotation) if option is not type(None)]
    optional = type(None) in get_args(field.annotation)
    annotation = options[0] if optional else field.annotation
    if get_origin(annotation) is Annotated:
        return st.none()  # a size; its own strategy is below
    if get_origin(annotation) is Literal:
        found: st.SearchStrategy[Any] = st.sampled_from(get_args(annotation))
    elif annotation is bool:
        found = st.booleans()
    elif annotation is int:
        found = st.integers(limits[Ge].ge, limits[Le].le if Le in limits else None)
    elif annotation is float:
        least = limits[Ge].ge if Ge in limits else limits[Gt].gt if Gt in limits else 0
        most = limits[Le].le if Le in limits else limits[Lt].lt if Lt in limits else None
        found = st.floats(
            least, most, exclude_min=Gt in limits, exclude_max=Lt in limits, allow_infinity=False
        )
    elif annotation is str:
        found = st.text(st.characters(codec="utf-8"))
    else:
        return st.just(field.default)
    return st.none() | found if optional else found


LENGTH = st.integers(8, 65536)
INTERVAL = st.tuples(st.floats(0.1, 9), st.floats(9, 99))
OWN = {
    "patch": st.none() | st.integers(1, 100).map(lambda n: (8 * n, 8)) | st.just((40, 8, 16)),
    "size": st.none() | st.tuples(LENGTH, LENGTH) | st.just((1, 8, 9)),
    "spacing": st.none(),
    "axes": st.sampled_from([None, "zyx", "yxc"]),
    "split": st.sampled_from([(0.6, 0.15, 0.1, 0.15), (1.0, 0.0, 0.0, 0.0)]),
    "classes": st.none()
    | st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.lists(st.integers(0, 255) | st.just("#00ff80"))
    ),
    "scale": INTERVAL,
    "elastic_alpha": INTERVAL,
    "brightness": INTERVAL,
    "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
}


def usable(groups: dict[str, dict[str, Any]]) -> bool:
    nesterov = groups["optimizer"].get("nesterov") and groups["optimizer"]["momentum"] == 0
    exclusive = groups["modulation"]["name"] == "smm_v2" and groups["training"]["head"] == "exclusive"
    two_starts = groups["training"]["init"] and groups["model"].get("weights") is not None
    return not (nesterov or exclusive or two_starts)


CONFIGS = (
    st.fixed_dictionaries(
        {
            group: st.one_of(
                st.fixed_dictionaries(
                    {
                        key: OWN.get(key, values(inner)) if key != "name" else st.just(inner.default)
                        for key, inner in spec.model_fields.items()
                    }
                )
                for spec in spec_types(field)
            )
            for group, field in RunConfig.model_fields.items()
        }
    )
    .filter(usable)
    .map(RunConfig.model_validate)
)


@given(CONFIGS)
def test_any_config_survives_the_file(config: RunConfig) -> None:
    assert round_trip(config) == config
