from collections.abc import Callable
from pathlib import Path

import pytest

from pliant.core.subnet import SubNetSpace
from pliant.depth.plan import DEFAULT_PLAN
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]
EXITS = {"depth": None, "exits": {}}
COLLABORATING = {"depth": None, "exits": {"collaboration": "linear"}}
CONVOLUTIONS = {"depth": None, "exits": {"classifier": "convolutions"}}
PRETRAINED = {"name": "torchvision:resnet18", "pretrained": True}
SMALL = {"model": {"name": "pliant:resnet20"}, "data": {"source": "digits"}, "epochs": 10}


def test_a_recipe_says_little_and_means_all() -> None:
    recipe = Recipe.from_dict(SMALL)
    assert recipe.plan.name == DEFAULT_PLAN
    assert recipe.adapt is not None
    assert recipe.data.val_fraction == 0.1


def test_yaml_there_and_back(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(
        plan={"name": "adn", "alpha": 0.25, "top_k": None},
        ema={"decay": 0.99, "every": 4},
        schedule={"name": "step", "milestones": [1]},
        precision="bf16",
        adapt={"depth": {"mandatory": [1, 2, 2]}},
    )
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    again = Recipe.load(tmp_path / "recipe.yaml")
    assert again == recipe
    assert again.plan.options == {"alpha": 0.25, "top_k": None}
    assert again.schedule.milestones == (1,)


def test_numbers_as_people_write_them() -> None:
    text = (
        "model: {name: 'pliant:resnet20'}\ndata: {source: digits}\nepochs: 3\noptimizer: {weight_decay: 5e-4, lr: 1E-1}"
    )
    recipe = Recipe.from_yaml(text)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.lr) == (5e-4, 0.1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 3}, ["'epoch'", "epochs", "batch_size"]),
        ({"optimizer": {"rate": 1}}, ["Optimizer", "'rate'", "lr"]),
        ({"optimizer": {"name": "lion"}}, ["Optimizer.name", "'lion'", "'sgd', 'adamw'"]),
        ({"optimizer": {"lr": "high"}}, ["Optimizer.lr", "'high'"]),
        ({"optimizer": {"lr": -1}}, ["Optimizer.lr", "-1"]),
        ({"optimizer": {"no_decay": ["heads"]}}, ["Optimizer.no_decay", "'heads'", "'vectors', 'embeddings'"]),
        ({"optimizer": {"momentum": 0.0, "nesterov": True}}, ["nesterov", "momentum"]),
        ({"schedule": {"name": "cosine", "milestones": [3]}}, ["milestones", "'cosine'"]),
        ({"schedule": {"name": "step", "milestones": [6, 3]}}, ["milestones", "[6, 3]"]),
        ({"schedule": {"name": "one_cycle", "warmup_epochs": 1}}, ["warmup_epochs", "'one_cycle'", "rise"]),
        ({"schedule": {"warmup_epochs": 2}}, ["warmup_epochs", "2", "epochs"]),
        ({"plan": {"name": "magic"}}, ["plan 'magic'", "adn"]),
        ({"plan": {"name": "adn", "beta": 1}}, ["plan 'adn'", "'beta'", "alpha"]),
        ({"plan": {"name": "adn", "alpha": "half"}}, ["plan 'adn'"]),
        ({"plan": "adn"}, ["Recipe.plan", "'adn'", "a mapping of name, options"]),
        ({"data": {"source": "digits", "augment": {"zoom": 2}}}, ["Augment", "'zoom'", "mixup"]),
        ({"data": {"source": "digits", "val_fraction": 1.0}}, ["val_fraction", "1.0"]),
        ({"data": {"source": "digits", "image_size": 64, "resize": 63}}, ["Data.resize", "63", "64"]),
        ({"data": {"source": "digits", "interpolation": "best"}}, ["interpolation", "'best'", "'bilinear', 'bicubic'"]),
        ({"data": {"source": "digits", "white": 0}}, ["Data.white", "0"]),
        ({"data": {"source": "digits", "augment": {"crop": 0}}}, ["Augment.crop", "0"]),
        ({"model": {"name": "pliant:resnet20", "options": {"num_classes": 3}}}, ["num_classes"]),
        ({"model": {"name": "a:b", "pretrained": True, "start_from": "x"}}, ["start_from", "'x'", "pretrained"]),
        ({"model": {"name": "a:b", "start_from": ""}}, ["start_from"]),
        ({"adapt": None, "only": "TTT"}, ["only", "'TTT'", "adapt"]),
        ({"precision": 16}, ["precision", "16", "32", "'bf16'"]),
        ({"ema": {"decay": 1.0}}, ["Ema.decay", "1.0"]),
        ({"epochs": 0}, ["epochs", "0", "at least 1"]),
        ({"clip_norm": 0}, ["clip_norm", "0"]),
        ({"label_smoothing": 1}, ["label_smoothing", "1"]),
        ({"class_weights": [1, -1]}, ["class_weights", "[1.0, -1.0]"]),
        ({"backward": "sideways"}, ["backward", "'sideways'", "'joint', 'sequential'"]),
        ({"learns": "heads"}, ["Recipe.learns", "'heads'", "'all', 'classifiers'"]),
        ({"learns": "classifiers"}, ["Recipe.learns", "'classifiers'", "'adapt.exits' is none"]),
        ({"learns": "classifiers", "adapt": None}, ["Recipe.learns", "'adapt.exits' is none"]),
        ({"learns": "classifiers", "adapt": EXITS}, ["Recipe.learns", "random weights", "model.start_from", "'then'"]),
        ({"learns": "classifiers", "adapt": EXITS, "only": "exit=1"}, ["Recipe.learns", "'only' is 'exit=1'"]),
        ({"learns": "classifiers", "adapt": CONVOLUTIONS, "model": PRETRAINED}, ["Recipe.learns", "'linear'"]),
        ({"teacher": "frozen"}, ["Recipe.teacher", "'frozen'", "trained before", "model.start_from", "'then'"]),
        ({"teacher": "frozen", "model": PRETRAINED}, ["Recipe.teacher", "'frozen'"]),
        ({"then": [{"learns": "classifiers"}]}, ["Phase", "'epochs' is missing"]),
        ({"then": [{"epochs": 0}]}, ["phase 2", "epochs", "0"]),
        ({"then": [{"epochs": 1, "learns": "classifiers"}]}, ["phase 2", "Recipe.learns", "'adapt.exits' is none"]),
        ({"then": [{"epochs": 1, "adapt": {"exits": {}}}]}, ["phase 2", "adapt.exits was None", "may change"]),
        ({"adapt": EXITS, "then": [{"epochs": 1, "adapt": {}}]}, ["phase 2", "adapt.depth was None"]),
        (
            {"adapt": EXITS, "then": [{"epochs": 1, "adapt": {"depth": None, "exits": {"at": [1]}}}]},
            ["phase 2", "adapt.exits.at was None, is [1]", "exits.equilibrium", "exits.collaboration"],
        ),
        (
            {"adapt": COLLABORATING, "then": [{"epochs": 1, "adapt": EXITS}]},
            ["phase 2", "adapt.exits.collaboration was 'linear', is 'none'"],
        ),
        ({"only": "TTT", "then": [{"epochs": 1}]}, ["Recipe.then", "'only' is 'TTT'", "[]"]),
        ({"version": 99}, ["99", "newer"]),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_in_one_line(tiny: Tiny, changes: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        tiny(**changes)
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["epochs: [1, 2", "- just\n- a list", "", "a: !!python/object/apply:os.getcwd []"])
def test_a_file_that_is_no_recipe_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.yaml") as refusal:
        Recipe.load(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the recipe .*none\.yaml: No such file"):
        Recipe.load(tmp_path / "none.yaml")


def test_differences_name_the_fields_and_both_values(tiny: Tiny) -> None:
    one = tiny()
    assert one.differences(tiny()) == {}
    other = tiny(ema={"decay": 0.9}, plan={"name": "adn", "alpha": 0.3}, optimizer={"lr": 0.05, "betas": [0.8, 0.9]})
    assert one.differences(other) == {
        "plan.name": ("adn-sum", "adn"),
        "plan.features": (True, None),
        "plan.alpha": (None, 0.3),
        "optimizer.betas": ([0.9, 0.999], [0.8, 0.9]),
        "ema": (None, {"version": 1, "decay": 0.9, "every": 1, "rescale": False}),
    }


def test_stages_that_were_counted_from_the_first_are_listed(tiny: Tiny) -> None:
    """Recipes of version 1 had a number of stages, which a recipe without a version does not."""
    plan = {"name": "adn", "stages": 2}
    assert tiny(plan=plan | {"version": 1}) == tiny(plan={"name": "adn", "stages": [1, 2]})
    assert tiny(plan={"version": 1, "name": "adn", "stages": None}).plan.options == {"stages": None}
    with pytest.raises(ValueError, match="stages: got 2, expected a list"):
        tiny(plan=plan)


@pytest.mark.parametrize("kind", [Recipe.from_yaml, lambda text: Recipe.from_yaml(Recipe.from_yaml(text).to_yaml())])
def test_a_recipe_says_which_stages_are_compared(kind: Callable[[str], Recipe]) -> None:
    recipe = kind("{model: {name: x}, data: {source: y}, epochs: 1, plan: {name: adn, stages: [2, 3, 4]}}")
    terms = recipe.plan.build(SubNetSpace((1, 1, 1, 1))).terms
    assert [term.stages for term in terms if term.on == "features"] == [(2, 3, 4)]
