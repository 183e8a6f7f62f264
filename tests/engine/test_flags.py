import re
from typing import Any

import pytest

from engine.config import Layer, RunConfig, resolve
from engine.errors import InputError
from engine.flags import describe, parse
from engine.schema import choices, spec_types


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], {}),
        (["--training.epochs=5"], {"training": {"epochs": 5}}),
        (["--training.epochs", "5"], {"training": {"epochs": 5}}),
        (["--training.batch-size=5"], {"training": {"batch_size": 5}}),
        (["--optimizer.lr=1e-3"], {"optimizer": {"lr": 1e-3}}),
        (["--optimizer.lr", "-1"], {"optimizer": {"lr": -1}}),
        (["--loss.name=dice", "--loss.smooth=1"], {"loss": {"name": "dice", "smooth": 1}}),
        (["--training.compile"], {"training": {"compile": True}}),
        (["--training.compile", "--training.epochs=5"], {"training": {"compile": True, "epochs": 5}}),
        (["--training.compile=false"], {"training": {"compile": False}}),
        (["--training.compile", "false"], {"training": {"compile": False}}),
        (["--data.size=[256, 320]"], {"data": {"size": [256, 320]}}),
        (["--data.size=256x320"], {"data": {"size": "256x320"}}),
        (["--data.classes={ a = [1, 2] }"], {"data": {"classes": {"a": [1, 2]}}}),
        (["--data.classes.a-b=[1]", "--data.classes.c=[3]"], {"data": {"classes": {"a-b": [1], "c": [3]}}}),
        (["--data.images=raw/{id}.tif"], {"data": {"images": "raw/{id}.tif"}}),
        (["--data.group=a=(b)"], {"data": {"group": "a=(b)"}}),
        (["--data.root="], {"data": {"root": ""}}),
        (["--loss", "dice"], {"loss": "dice"}),
    ],
)  # fmt: skip
def test_flags_are_lines_of_the_settings_file(arguments: list[str], settings: dict[str, Any]) -> None:
    assert parse(arguments) == settings


@pytest.mark.parametrize("text", ["2024", "2024-01-31", "true", "1e5", "nan", "007", "[a]", "{id}", "no # 3"])
def test_a_text_stays_the_text_that_was_typed(text: str) -> None:
    assert parse([f"--data.root={text}"]) == {"data": {"root": text}}
    assert parse(["--data.root", text]) == {"data": {"root": text}}


def test_a_text_may_be_quoted_as_in_the_file() -> None:
    assert parse(["--data.root='2024'", '--data.images="a b"']) == {"data": {"root": "2024", "images": "a b"}}


@pytest.mark.parametrize(
    "argument", ["x", "-x", "--", "--=1", "--.epochs=1", "--training.=1", "training.epochs=5"]
)
def test_what_is_no_flag_is_refused_with_an_example(argument: str) -> None:
    with pytest.raises(
        InputError, match=r"is not a setting: they look like --training\.epochs=50"
    ) as refused:
        parse([argument])
    assert str(refused.value).startswith(repr(argument))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--training.epochs=1", "--training.epochs=2"],
        ["--training.batch-size=1", "--training.batch_size=2"],
        ["--loss.smooth=1", "--loss={name='dice'}"],
        ["--loss=dice", "--loss.smooth=1"],
        ["--data.classes={a=[1]}", "--data.classes.a=[2]"],
    ],
)
def test_a_flag_given_twice_is_refused(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="is given twice"):
        parse(arguments)


@pytest.mark.parametrize("rest", [[], ["--training.seed=1"]])
def test_a_flag_without_its_value_is_refused(rest: list[str]) -> None:
    # As true it would count as the number 1.
    with pytest.raises(InputError, match=r"--training\.epochs needs a value"):
        parse(["--training.epochs", *rest])


def test_an_unknown_flag_is_left_to_the_config_which_knows_the_names() -> None:
    with pytest.raises(
        InputError, match=r"unknown setting 'training\.epoch' \(did you mean 'training\.epochs'\?\)"
    ):
        resolve([Layer("flags", parse(["--training.epoch"]))])
    with pytest.raises(InputError, match=r"unknown setting 'data\.a'"):
        resolve([Layer("flags", parse(["--data.a.b=1"]))])


def test_two_lengths_may_be_written_as_one_text_or_one_number() -> None:
    for text, size in (
        ("256x320", (256, 320)),
        ("256,320", (256, 320)),
        ("256", (256, 256)),
        ("[8, 9]", (8, 9)),
    ):
        config, _ = resolve([Layer("flags", parse([f"--data.size={text}"]))])
        assert config.data.size == size


# The help


@pytest.mark.parametrize(
    ("group", "name", "key"),
    [
        (group, spec.model_fields["name"].default if "name" in spec.model_fields else "", key)
        for group, field in RunConfig.model_fields.items()
        for spec in spec_types(field)
        for key in spec.model_fields
        if key != "name"
    ],
)
def test_the_help_has_every_setting_of_every_part_below_its_name(group: str, name: str, key: str) -> None:
    text = describe(width=80)
    section = text[re.search(rf"^{group}: ", text, re.M).start() :]  # type: ignore[union-attr]
    section = section.partition("\n\n")[0]
    if name:
        section = section[section.index(f"\n  {name}: ") :]
        others = "|".join(other for other in choices(RunConfig, group) if other != name)
        section = re.split(rf"\n  (?:{others}): ", section)[0] if others else section
    assert f"--{group}.{key}=" in section


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("--training.epochs=INTEGER ≥ 1 epochs", "Passes over the training images.  [default: 100]"),
        (
            "--augment.flip=NUMBER from 0 to 1",
            "Probability of a mirror image, for each axis.  [default: 0.5]",
        ),
        ("--augment.rotation=NUMBER from 0 to 180 °", "[default: 0]"),
        ("--model.dropout=NUMBER ≥ 0, < 1", "[default: 0]"),
        ("--training.precision=auto|float32|bfloat16|float16", "[default: auto]"),
        ("--training.compile=true|false", "[default: false]"),
        ("--training.clip_gradient=NUMBER > 0", "[not set]"),
        ("--data.patch=[N, N] or [N, N, N] with N from 1 to 65536 px", "[not set]"),
        ("--data.split=[N, N, N, N] with N from 0 to 1", "[default: [0.6, 0.15, 0.1, 0.15]]"),
        ("--data.classes={NAME = [VALUES]}", "[not set]"),
        ("--optimizer.betas=[N, N] with N ≥ 0, < 1", "[default: [0.9, 0.999]]"),
        ("--data.root=TEXT", "Folder of the images and masks"),
    ],
)
def test_the_help_says_what_a_setting_takes_and_what_it_is_without(line: str, about: str) -> None:
    entry = re.split(r"\n +--|\n\n", describe(width=80).partition(line + "\n")[2])[0]
    assert about in " ".join(entry.replace("  [", "\x00[").split()).replace("\x00", "  ")


def test_the_help_names_the_usual_choice() -> None:
    text = " ".join(describe(width=80).split())
    assert "modulation: one of none, smm_v1, smm_v2 [default: smm_v2]" in text
    assert "[default: dice_bce with SMM v2 or overlapping classes, else dice_ce]" in text


@pytest.mark.parametrize("width", [60, 80, 110])
def test_the_help_fits_the_terminal(width: int) -> None:
    too_long = [line for line in describe(width=width).splitlines() if len(line) > width]
    assert too_long == []
