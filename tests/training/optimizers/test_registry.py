"""The registry of optimisers agrees with the recipe, the summary and the models."""

from __future__ import annotations

import typing

import pytest

from peewit.errors import UsageError
from peewit.models.registry import MODELS, build
from peewit.models.summary import STORED
from peewit.training.optimizers import OPTIMIZERS, default_optimizer, make_optimizer
from peewit.training.recipe import Recipe


def test_every_optimizer_is_accepted_in_a_recipe_and_summarised() -> None:
    hint = typing.get_type_hints(Recipe)["optimizer"]
    assert set(typing.get_args(hint)) == set(OPTIMIZERS) == set(STORED)


def suits(name: str, model: str) -> bool:
    return OPTIMIZERS[name].suits(MODELS[model].family)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_recipe_accepts_the_models_that_an_optimizer_suits(name: str, model: str) -> None:
    info = OPTIMIZERS[name]
    if not info.suits(MODELS[model].family):
        with pytest.raises(UsageError, match=f"{model} cannot be trained with {name}"):
            Recipe(model=model, optimizer=name)
        return
    recipe = Recipe(model=model, optimizer=name, lr=None)
    assert recipe.lr == info.default_lr
    assert Recipe(model=model, optimizer=name, lr=0.5).lr == 0.5


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_trained_once(name: str, schedule: str) -> None:
    network = next(one for one in ("fast-xs", "efficientnet-lite0") if suits(name, one))
    recipe = Recipe(model=network, optimizer=name, lr=0.1, schedule=schedule)
    model = build(network, (32, 32, 3), 3, seed=0)
    optimizer = make_optimizer(model, recipe)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in trained}) == len(trained)
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    for group in optimizer.param_groups:
        assert group.get("first_lr") == (group["lr"] if schedule == "linear" else None)


def test_the_default_is_the_most_specific_optimizer() -> None:
    assert default_optimizer("fast") == "muon"
    assert default_optimizer("") == "adam"
