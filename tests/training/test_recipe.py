"""Recipes are validated on creation, and every error says what to write instead."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peewit.errors import PeewitError, UsageError
from peewit.training.recipe import FREE_TO_CHANGE, PRESETS, Recipe


def test_tutorial_recipe_has_the_settings_of_the_tutorial() -> None:
    recipe = Recipe.preset("tutorial")
    assert (recipe.model, recipe.optimizer, recipe.lr) == ("tutorial", "adam", 1e-3)
    assert (recipe.batch_size, recipe.epochs) == (32, 10)
    assert all(preset.name == name for name, preset in PRESETS.items())


def test_fast_recipes_are_validated() -> None:
    fast, best = Recipe.preset("fast"), Recipe.preset("best")
    assert (fast.model, fast.optimizer, fast.schedule, fast.tta) == (
        "fast-l",
        "muon",
        "linear",
        True,
    )
    assert (Recipe().calibrate, fast.calibrate, best.calibrate) == (False, True, True)
    assert {best.optimizer, best.flip} == {"muon", "alternating"}
    assert best.epochs > fast.epochs
    with pytest.raises(UsageError, match="image_size is 7: the model fast-l needs at least 8"):
        fast.replace(image_size=7)


def test_only_muon_drops_the_last_smaller_batch() -> None:
    assert [Recipe(batch_size=10).steps(images) for images in (9, 10, 11)] == [1, 1, 2]
    fast = Recipe.preset("fast", batch_size=10)
    assert [fast.steps(images) for images in (9, 10, 19, 20)] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"epochs": 1.5}, r"epochs is 1\.5: it must be a whole number"),
        ({"epochs": True}, "epochs is True: it must be a whole number"),
        ({"epochs": "ten"}, "epochs is 'ten': it must be a whole number"),
        (
            {"epochs": None},
            "no length; give epochs, minutes or",
        ),
        ({"batch_size": -1}, "batch_size is -1: it must be at least 1"),
        ({"lr": -0.1}, r"lr is -0\.1: it must be more than 0"),
        ({"lr": 0}, r"lr is 0\.0: it must be more than 0"),
        ({"lr": float("nan")}, "lr is nan: it must be a finite number"),
        ({"lr": float("inf")}, "lr is inf: it must be a finite number"),
        ({"lr": 10**400}, "it must be a finite number"),
        ({"seed": -1}, r"seed is -1: it must be from 0 to 2\*\*63 - 1"),
        ({"threads": 0}, "threads is 0: it must be at least 1"),
        ({"validate_on": "train"}, "validate_on is 'train': it must be 'holdout' or 'test'"),
        ({"validation_fraction": 1}, r"validation_fraction is 1\.0: it must be more than 0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd': it must be 'adam'"),
        ({"optimizer": "muon"}, "tutorial cannot be trained with muon: .* fast .*; use adam"),
        ({"schedule": "cosine"}, "schedule is 'cosine': it must be 'constant' or 'linear'"),
        ({"label_smoothing": 1}, r"label_smoothing is 1\.0: it must be at least 0 and less than 1"),
        ({"flip": True}, "flip is True: it must be 'none' or 'alternating' or 'random'"),
        ({"translate": -1}, "translate is -1: it must be at least 0"),
        ({"cutout": -1}, "cutout is -1: it must be at least 0"),
        ({"tta": 1}, "tta is 1: it must be true or false"),
        ({"normalize": "yes"}, "normalize is 'yes': it must be true or false"),
        ({"precision": "float16"}, "precision is 'float16': it must be 'float32' or 'bfloat16'"),
        ({"minutes": 0}, r"minutes is 0\.0: it must be more than 0"),
        ({"model": "resnet"}, "there is no model 'resnet'; choose one of: .*tutorial"),
        ({"image_size": 21}, "image_size is 21: the model tutorial needs at least 22"),
        ({"checkpoint_minutes": -1}, r"checkpoint_minutes is -1\.0: it must be at least 0"),
        ({"name": " "}, "name is ' ': it must be a name"),
        ({"epoch": 3}, "a recipe has no field 'epoch'; did you mean epochs?"),
        ({"colour": 3}, "a recipe has no field 'colour'; it has name, model, start, epochs"),
    ],
)
def test_invalid_values_are_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Recipe.preset("tutorial", **changes)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"there is no recipe 'tutorail'; choose one of .*tutorial"
    ):
        Recipe.preset("tutorail")


def test_integers_are_accepted_as_floats() -> None:
    assert isinstance(Recipe(lr=1).lr, float)


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = Recipe.preset("fast", name="mine: the größte", lr=1e-5, threads=3, minutes=0.5)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("budget", [{"minutes": 5}, {"until_accuracy": 0.8}])
def test_budget_replaces_epochs(tmp_path: Path, budget: dict[str, float]) -> None:
    recipe = Recipe(epochs=3, **budget)
    assert recipe.epochs is recipe.to_dict()["epochs"] is None
    assert not recipe.by_epochs
    # earlier recipes kept a meaningless number of epochs
    (name, value), *_ = budget.items()
    (tmp_path / "old.yaml").write_text(f"epochs: 8\n{name}: {value}\n")
    assert Recipe.from_yaml(tmp_path / "old.yaml").epochs is None
    again = recipe.budgeted(epochs=4)
    assert (again.epochs, again.minutes, again.until_accuracy) == (4, None, None)


def test_yaml_keeps_defaults_and_names_the_recipe_after_the_file(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("minutes: 2e1\nlr: 1e-4  # texts in YAML 1.1\n")
    recipe = Recipe.from_yaml(str(tmp_path / "quick.yaml"))
    assert recipe == Recipe(name="quick", minutes=20.0, lr=1e-4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch: 2", "cannot use the recipe .*r.yaml: a recipe has no field 'epoch'; did you mean"),
        ("epochs: two", "cannot use the recipe .*r.yaml: epochs is 'two': it must be a whole"),
        ("lr: fast", "cannot use the recipe .*r.yaml: lr is 'fast': it must be a number"),
        ("lr: .nan", "lr is nan: it must be a finite number"),
        ("name: 3", "name is 3: it must be a text"),
        ("3: 4", "a recipe has no field '3'"),
        ("epochs: 'x", "cannot read the recipe .*r.yaml: it is not YAML; see line 1"),
        ("lr: 1\nepochs: [1", "a list or mapping is not a value of a recipe; see line 2"),
        ("epochs: 3\n---\nlr: 4", "it is not YAML; see line 2"),
        ("epochs: \x00", "it is not YAML"),
        (
            "a: !!python/object/apply:os.system ['true']",
            r"a tag \(!\) is not allowed; see line",
        ),
        ("lr: 1\nepochs: !!int x", r"a tag \(!\) is not allowed; see line 2"),
        ("epochs: &a 3", r"an anchor \(&\) is not allowed; see line 1"),
        ("epochs: *a", r"an alias \(\*\) is not allowed; see line 1"),
        ("<<: {epochs: 3}", "a list or mapping is not a value"),
        ("lr: 1\nepochs: 2001-13-45", "'2001-13-45' is not a value; see line 2"),
        ("epochs: 0x_", "'0x_' is not a value; see line 1"),
        ("epochs: =", "'=' is not a value; see line 1"),
        ("lr: 2001-01-01t00:00:00+99:99", "is not a value; see line 1"),
        ("epochs: " + "9" * 5000, r"'9+\.\.\. is not a value; see line 1"),
        ("epochs: 0x" + "f" * 5000, r"'0xf+\.\.\. is not a value; see line 1"),
        ("epochs: 99999999999999999999", r"epochs is 9+: it must be less than 2\*\*63"),
        ("epochs: " + "x" * 5000, r"epochs is 'x{38}\.\.\.: it must be a whole number"),
        ('name: "\\ud800"', "name is .*: it must be a name"),
        ("", "it is not a mapping of fields to values; write one per line"),
        ("- epochs", "it is not a mapping of fields to values"),
        ("epochs: 2\nlr: 1.0\nepochs: 3", "r.yaml: epochs appears twice, on lines 1 and 3"),
        ("a: " + "[" * 1500, "a list or mapping is not a value"),
    ],
)
def test_invalid_yaml_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        Recipe.from_yaml(tmp_path / "r.yaml")


def test_aliases_that_stand_for_gigabytes_are_refused_at_once(tmp_path: Path) -> None:
    text = "epochs: &a0 [z]"
    for depth in range(40):  # 10**40 values
        text = f"epochs: &a{depth + 1} [{text.removeprefix('epochs: ')}{f', *a{depth}' * 9}]"
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"an anchor \(&\) is not allowed; see line 1"):
        Recipe.from_yaml(tmp_path / "r.yaml")


def test_only_the_start_of_a_large_file_is_read(tmp_path: Path) -> None:
    with (tmp_path / "r.yaml").open("wb") as file:
        file.truncate(10**12)  # sparse: it takes no room on the disk
    with pytest.raises(PeewitError, match=r"r\.yaml: it is larger than 64 kB"):
        Recipe.from_yaml(tmp_path / "r.yaml")


def test_what_is_no_text_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="it is not YAML"):
        Recipe.from_yaml(tmp_path / "r.yaml")


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=r"cannot read the recipe .*none\.yaml: no such file"):
        Recipe.from_yaml(tmp_path / "none.yaml")


def test_every_field_has_a_help_text() -> None:
    for field in dataclasses.fields(Recipe):
        assert field.metadata["help"], field.name
        assert "\n" not in field.metadata["help"]
    assert {field.name for field in dataclasses.fields(Recipe)} >= FREE_TO_CHANGE


def test_recipe_does_not_import_pytorch() -> None:
    code = "import sys, peewit.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_auto_and_zero_values_are_handled_with_a_budget() -> None:
    five = Recipe.preset("fast", minutes=5)
    assert five.budgeted(minutes=3).minutes == 3
    assert Recipe(model="auto", optimizer="adam", epochs=2).budgeted(minutes=3).model == "auto"
    for name in ("minutes", "until_accuracy"):
        with pytest.raises(UsageError, match=f"epochs and {name} are both given"):
            Recipe().budgeted(**{"epochs": 5, name: 0})
        with pytest.raises(UsageError, match=f"{name} is 0"):
            Recipe().budgeted(**{name: 0})
