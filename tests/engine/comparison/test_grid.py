"""Comparison files: what they say, what is refused, and which run lies where."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from engine.comparison.grid import Comparison, folder_names, load
from engine.errors import InputError

SMALL: dict[str, Any] = {
    "title": "Two losses",
    "data": {"demo": {"data": {"root": "demo"}}},
    "methods": {"Dice": {"loss": {"name": "dice"}}, "CE": {"loss": {"name": "binary_cross_entropy"}}},
}
"""The shortest sensible comparison."""


def loaded(folder: Path, content: dict[str, Any] | str, **given: Any) -> Comparison:
    file = folder / "it.toml"
    file.write_text(content if isinstance(content, str) else tomli_w.dumps(content), "utf-8")
    return load(file, folder / "out", **given)


def test_the_grid_is_the_product_by_seed_first(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        {
            **SMALL,
            "seeds": [3, 0],
            "networks": {"U-Net": {"model": {"name": "unet"}}, "narrow": {"model": {"base_width": 8}}},
        },
    )
    assert [(cell.seed, cell.network, cell.method) for cell in made.cells] == [
        (3, "U-Net", "Dice"), (3, "U-Net", "CE"), (3, "narrow", "Dice"), (3, "narrow", "CE"),
        (0, "U-Net", "Dice"), (0, "U-Net", "CE"), (0, "narrow", "Dice"), (0, "narrow", "CE"),
    ]  # fmt: skip
    cell = made.cells[2]
    assert cell.folder == (tmp_path / "out/runs/demo/narrow/Dice/seed-3").resolve()
    assert cell.name == "demo · narrow · Dice · seed 3"
    assert cell.config.training.seed == 3
    assert (cell.config.model.base_width, cell.config.loss.name) == (8, "dice")
    assert {cell.config.data.split_seed for cell in made.cells} == {0}, "seeds share the split"
    assert len({cell.folder for cell in made.cells}) == len(made.cells)


def test_defaults_ask_for_nothing_special(tmp_path: Path) -> None:
    made = loaded(tmp_path, SMALL)
    assert (made.seeds, made.size, made.checkpoint, made.spread, made.test, made.against) == (
        (0,), "native", None, "std", "none", {}
    )  # fmt: skip
    assert made.networks == ("unet",)
    assert made.metrics == ("dice",)
    assert made.figures == ("curves", "thresholds", "reliability", "panels")
    assert made.notes == ()


def test_settings_merge_from_the_preset_up_to_the_flags(tmp_path: Path) -> None:
    def epochs(**more: Any) -> int:
        layers: dict[str, Any] = {
            "preset": "smm", "settings": {}, "data": {"a": {"data": {"root": "demo"}}},
            "networks": {"n": {}}, "methods": {"m": {}},
        }  # fmt: skip
        flags: dict[str, Any] = {}
        for place, value in more.items():
            setting = {"training": {"epochs": value}}
            if place == "flags":
                flags = setting
            elif place in ("settings", "overrides"):
                layers[place] = setting
            else:
                (name,) = layers[place]
                layers[place] = {name: {**layers[place][name], **setting}}
        (cell,) = loaded(tmp_path, {"title": "t", **layers}, flags=flags).cells
        assert cell.config.optimizer.name == "sgd"
        return cell.config.training.epochs

    given: dict[str, int] = {}
    assert epochs() == 100
    for number, place in enumerate(("settings", "data", "networks", "methods", "overrides", "flags"), 2):
        given[place] = number
        assert epochs(**given) == number


def test_a_part_that_is_replaced_is_said(tmp_path: Path) -> None:
    content = {**SMALL, "preset": "smm", "methods": {"m": {"optimizer": {"name": "adam", "lr": 0.1}}}}
    (note,) = loaded(tmp_path, content).notes
    assert "[methods.m]: optimizer.name = 'adam' replaces 'sgd'; dropped its settings momentum" in note


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"metric": ["dice"]}, "unknown key 'metric' .did you mean 'metrics'.*: known are title"),
    "no title": ({"title": ""}, "title = '' cannot be used"),
    "title": ({"title": 3}, "title = 3 cannot be used"),
    "preset": ({"preset": "smn"}, "unknown preset 'smn'"),
    "seeds": ({"seeds": 3}, "seeds = 3 cannot be used"),
    "no seeds": ({"seeds": []}, "seeds"),
    "seed below 0": ({"seeds": [0, -1]}, "seeds = -1 cannot be used"),
    "seed twice": ({"seeds": [1, 1]}, "seeds: 1 stands there twice"),
    "size": ({"size": "small"}, "size = 'small' cannot be used: input should be 'native' or 'trained'"),
    "checkpoint": ({"checkpoint": "first"}, "checkpoint = 'first'"),
    "metric": ({"metrics": ["dic"]}, "metrics: unknown metric 'dic' .did you mean 'dice'"),
    "spread": ({"spread": "sem"}, "spread = 'sem'.*'std' or 'interval'"),
    "percent": ({"percent": "some"}, "percent = 'some'"),
    "test": ({"test": "t"}, "test = 't'.*'none', 'welch' or 'wilcoxon'"),
    "test without ours": ({"test": "welch"}, "needs `ours` to name some of the methods"),
    "only ours": ({"test": "welch", "ours": ["Dice", "CE"]}, "leave some as baselines"),
    "ours": ({"ours": ["dice"]}, "unknown method 'dice' in ours.*known are Dice, CE"),
    "against": ({"against": "x"}, "unknown method 'x' in against"),
    "against for some": (
        {"ours": ["CE"], "against": {"Dice": "Dice"}},
        r"against names \['Dice'\], which must be those of `ours`: see to 'CE'",
    ),
    "against ours": ({"ours": ["CE"], "against": "CE"}, "against = 'CE' is one of `ours`"),
    "figure": ({"figures": ["bars"]}, "figures = 'bars'.*'curves'"),
    "no data": ({"data": {}}, "data"),
    "data": ({"data": ["demo"]}, "data = .* cannot be used"),
    "methods": ({"methods": 1}, "methods = 1 cannot be used"),
    "method": ({"methods": {"Dice": "dice"}}, r"methods.Dice = 'dice' cannot be used"),
    "setting": (
        {"methods": {"Dice": {"loss": {"name": "dice", "gama": 2}}}},
        r"\[methods.Dice\]: unknown setting 'loss.gama'",
    ),
    "group": ({"settings": {"losses": {}}}, r"\[settings\]: unknown setting 'losses'"),
    "no group": ({"settings": {"training": 3}}, r"\[settings\].*training needs its settings by name"),
    "range": (
        {"networks": {"a": {"model": {"depth": 0}}}},
        r"\[networks.a\]: model.*depth = 0 cannot be used",
    ),
    "seed of a run": ({"settings": {"training": {"seed": 1}}}, r"\[settings\]: training.seed is set by"),
    "root of all": ({"settings": {"data": {"root": "demo"}}}, r"data.root belongs to a data set"),
    "no folder": ({"data": {"a": {"data": {"root": "/no/where"}}}}, r"\[data.a\]: there is no folder"),
    "other images": (
        {"methods": {"a": {}, "b": {"data": {"split_seed": 1}}}},
        "data.split_seed is 1 for demo · unet · b · seed 0 and 0 for demo · unet · a",
    ),
    "published data": ({"published": {"x": {}}}, "unknown data set 'x' in .published."),
    "published network": ({"published": {"demo": {"U-Net": {}}}}, "unknown network 'U-Net'.*known are unet"),
    "published method": ({"published": {"demo": {"unet": {"x": {}}}}}, "unknown method 'x'"),
    "published metric": (
        {"published": {"demo": {"unet": {"CE": {"recall": "0.9"}}}}},
        "unknown metric 'recall'.*known are dice",
    ),
    "published number": ({"published": {"demo": {"unet": {"CE": {"dice": 0.9}}}}}, "dice = 0.9"),
    "same folder": ({"methods": {"a b": {}, "A-b": {}}}, "'a b' and 'A-b' would share the folder"),
    "no letter": ({"methods": {"++": {}}}, "needs a letter or a digit"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    more, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as refusal:
        loaded(tmp_path, {**SMALL, **more})
    text = str(refusal.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["title", "data", "methods"])
def test_what_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{missing}.* is missing"):
        loaded(tmp_path, {key: value for key, value in SMALL.items() if key != missing})


def test_a_file_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not TOML"):
        loaded(tmp_path, "title = ")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "none.toml", tmp_path)


SEVERAL: dict[str, Any] = {
    **SMALL,
    "data": {"A": {"data": {"root": ""}}, "B": {"data": {"size": 64}}, "C": {"data": {"root": "demo"}}},
}


def test_data_sets_without_a_folder_are_left_out_and_named(tmp_path: Path) -> None:
    made = loaded(tmp_path, SEVERAL)
    assert made.data == ("C",)
    assert [note.partition(" ")[0] for note in made.notes] == ["A", "B"]
    assert "--root A=FOLDER" in made.notes[0]
    assert loaded(tmp_path, SEVERAL, only=["C"]).notes == (), "nobody asked for the others"


def test_folders_are_given_by_name(tmp_path: Path) -> None:
    made = loaded(tmp_path, SEVERAL, roots=[f"A={tmp_path}", "B=demo"])
    assert made.data == ("A", "B", "C")
    roots = {cell.data: cell.config.data.root for cell in made.cells}
    assert roots == {"A": str(tmp_path.resolve()), "B": "demo", "C": "demo"}
    assert {cell.config.data.size for cell in made.cells if cell.data == "B"} == {(64, 64)}
    with pytest.raises(InputError, match="unknown data set 'X' in --root"):
        loaded(tmp_path, SEVERAL, roots=["X=demo"])
    with pytest.raises(InputError, match="--root NAME=FOLDER would, with one of A, B, C"):
        loaded(tmp_path, SEVERAL, roots=["demo"])
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        loaded(tmp_path, SEVERAL, roots=[f"A={tmp_path / 'nowhere'}"])


def test_the_generated_set_stands_in_for_any_folder(tmp_path: Path) -> None:
    retina = {"root": "", "layout": "drive", "size": 64, "classes": {"vein": [3]}, "group": "a"}
    content = {**SMALL, "data": {"A": {"data": retina}}}
    data = loaded(tmp_path, content, roots=["demo"]).cells[0].config.data
    assert (data.root, data.layout, data.classes, data.group) == ("demo", "auto", None, None)
    assert data.size == (64, 64)
    other = loaded(tmp_path, content, roots=[str(tmp_path)]).cells[0].config.data
    assert (other.layout, other.group) == ("drive", "a")


def test_one_data_set_needs_no_name_for_its_folder(tmp_path: Path) -> None:
    single = {**SMALL, "data": {"A": {"data": {"root": ""}}}}
    with pytest.raises(InputError, match=r"no folder is known of A: fill in data.root in \[data.A\]"):
        loaded(tmp_path, single)
    odd = tmp_path / "x=y"
    odd.mkdir()
    assert loaded(tmp_path, single, roots=[str(odd)]).cells[0].config.data.root == str(odd.resolve())
    with pytest.raises(InputError, match="unknown data set 'B' in --root: known are A"):
        loaded(tmp_path, single, roots=["B=demo"])


def test_a_key_of_the_file_is_no_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--metrics cannot be given as a flag.*write it in file .*it\.toml"):
        loaded(tmp_path, SMALL, flags={"metrics": "recall"})
    made = loaded(tmp_path, SMALL, flags={"data": {"size": 64}})
    assert made.cells[0].config.data.size == (64, 64), "`data` is a group of settings, too"


def test_only_keeps_what_is_named_of_each_kind(tmp_path: Path) -> None:
    tested = {**SEVERAL, "test": "wilcoxon", "ours": ["CE"], "seeds": [0, 1, 2]}
    assert loaded(tmp_path, tested).against == {"CE": "Dice"}
    made = loaded(tmp_path, tested, only=["CE", "C"], seeds=[2, 0])
    assert {(cell.data, cell.method, cell.seed) for cell in made.cells} == {("C", "CE", 0), ("C", "CE", 2)}
    assert (made.test, made.ours, made.against) == ("none", ("CE",), {}), "no baseline is left"
    paired = {**tested, "methods": {**SEVERAL["methods"], "D": {}}, "ours": ["CE", "D"]}
    paired |= {"against": {"CE": "Dice", "D": "Dice"}}
    assert loaded(tmp_path, paired).against == {"CE": "Dice", "D": "Dice"}
    assert loaded(tmp_path, paired, only=["D", "Dice"]).against == {"D": "Dice"}
    with pytest.raises(InputError, match="unknown name 'DICE' in --only"):
        loaded(tmp_path, tested, only=["DICE"])
    with pytest.raises(InputError, match="unknown seed '7' in --seeds: known are 0, 1, 2"):
        loaded(tmp_path, tested, seeds=[7])


def test_published_numbers_are_text_by_place(tmp_path: Path) -> None:
    content = {
        **SEVERAL,
        "published": {"C": {"unet": {"CE": {"dice": "0.8 (0.7-0.9)"}}}, "A": {"unet": {"CE": {"dice": "1"}}}},
    }
    made = loaded(tmp_path, content)
    assert made.published == {("C", "unet", "CE"): {"dice": "0.8 (0.7-0.9)"}}


def test_the_kept_document_makes_the_same_cells(tmp_path: Path) -> None:
    flags = {"training": {"epochs": 3}, "model": {"base_width": 8}}
    made = loaded(tmp_path, SEVERAL, roots=["A=demo"], flags=flags)
    again = loaded(tmp_path, made.document)
    assert again.cells == made.cells
    assert tomllib.loads(again.document) == tomllib.loads(made.document)
    other = loaded(tmp_path, made.document, flags={"training": {"epochs": 4}})
    assert {(c.config.training.epochs, c.config.model.base_width) for c in other.cells} == {(4, 8)}


def test_folders_in_the_kept_document_hold_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eyes").mkdir()
    monkeypatch.chdir(tmp_path)
    made = loaded(tmp_path, {**SMALL, "data": {"A": {"data": {"root": "eyes"}}}})
    monkeypatch.chdir("/")
    assert loaded(tmp_path, made.document).cells == made.cells


@given(st.text(min_size=1, max_size=200))
def test_folder_names_are_safe_everywhere(name: str) -> None:
    try:
        (folder,) = folder_names("method", [name]).values()
    except InputError:
        assert not any(character.isalnum() for character in name)
        return
    assert not set(folder) & set('<>:"/\\|?* \n\0')
    assert folder not in (".", "..")
    assert not folder.startswith((".", "-"))
    assert not folder.endswith((".", "-"))
    assert len(folder.encode()) <= 81
    assert folder_names("method", [folder]) == {folder: folder}, "a safe name stays as it is"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("DSC++", "DSC++"), ("U-Net (32)", "U-Net--32"), ("γ = 0.5", "γ---0.5"), ("nul", "_nul"),
     ("../x", "x"), ("a/b", "a-b")],
)  # fmt: skip
def test_folder_names(name: str, folder: str) -> None:
    assert folder_names("method", [name]) == {name: folder}
