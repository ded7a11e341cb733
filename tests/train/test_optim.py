import pytest
import torch
from torch import nn

from pliant.create import create_model
from pliant.train.optim import build_optimizer, build_schedule
from pliant.train.recipe import Optimizer, Schedule


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_do_not_decay(network: nn.Module, name: str) -> None:
    optimizer = build_optimizer(network, Optimizer(name=name, lr=0.1, momentum=0.0, weight_decay=0.5))  # type: ignore[arg-type]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"0.weight", "3.weight"}
    torch.testing.assert_close(network.state_dict()["0.weight"], 0.95 * before["0.weight"])


def test_which_parameters_decay_is_the_recipes_choice() -> None:
    """Norms and biases; class tokens, positions and tables too; or all decay, as in the recipes of the ADN authors."""
    vit = create_model("torchvision:vit_b_16", image_size=32)
    swin = create_model("timm:swin_tiny_patch4_window7_224", img_size=32, patch_size=2, window_size=4, embed_dim=32)

    def exempt(model: nn.Module, no_decay: tuple[str, ...]) -> set[str]:
        decaying, exempt = build_optimizer(model, Optimizer(weight_decay=0.1, no_decay=no_decay)).param_groups  # type: ignore[arg-type]
        assert (decaying["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
        found = {id(parameter) for parameter in exempt["params"]}
        assert len(found) + len(decaying["params"]) == len(list(model.parameters()))
        return {name for name, parameter in model.named_parameters() if id(parameter) in found}

    vectors = {name for name, parameter in vit.named_parameters() if parameter.ndim == 1}
    assert exempt(vit, ("vectors",)) == vectors
    assert exempt(vit, ()) == set()
    assert exempt(vit, ("embeddings",)) == {"class_token", "encoder.pos_embedding"}
    tables = {name for name in exempt(swin, ("embeddings",)) if not name.endswith("relative_position_bias_table")}
    assert tables == set()
    assert len(exempt(swin, ("embeddings",))) == 12
    language = create_model("transformers:bert", num_hidden_layers=2)
    assert "bert.embeddings.position_embeddings.weight" in exempt(language, ("embeddings",))


def test_frozen_parameters_are_left_alone(network: nn.Module) -> None:
    network[0].weight.requires_grad_(False)
    optimizer = build_optimizer(network, Optimizer())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters())) - 1


def test_nesterov_momentum_reaches_the_optimizer(network: nn.Module) -> None:
    optimizer = build_optimizer(network, Optimizer(nesterov=True, momentum=0.8))
    assert {(group["nesterov"], group["momentum"]) for group in optimizer.param_groups} == {(True, 0.8)}


def rates(network: nn.Module, schedule: Schedule, *, epochs: int, steps_per_epoch: int) -> list[float]:
    """The learning rate of every step, of all groups."""
    optimizer = build_optimizer(network, Optimizer(lr=1.0))
    moves = build_schedule(optimizer, schedule, epochs=epochs, steps_per_epoch=steps_per_epoch)
    found = []
    for _ in range(epochs * steps_per_epoch):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        found.append(first)
        optimizer.step()
        moves.step()
    return found


def test_steps_at_milestones(network: nn.Module) -> None:
    found = rates(network, Schedule(name="step", milestones=(2, 3), gamma=0.1), epochs=4, steps_per_epoch=2)
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_milestones_count_from_the_start_of_the_warm_up(network: nn.Module) -> None:
    schedule = Schedule(name="step", milestones=(2,), warmup_epochs=1, warmup_start=0.5)
    found = rates(network, schedule, epochs=3, steps_per_epoch=2)
    assert found == pytest.approx([0.5, 0.75, 1, 1, 0.1, 0.1])


def test_cosine_ends_at_its_final_rate(network: nn.Module) -> None:
    schedule = Schedule(name="cosine", warmup_epochs=1, warmup_start=0.1, final_lr=0.2)
    found = rates(network, schedule, epochs=4, steps_per_epoch=3)
    assert found[:3] == pytest.approx([0.1, 0.4, 0.7])
    assert found[3] == pytest.approx(1.0)
    assert found[7] == pytest.approx(0.6)
    assert found[-1] == pytest.approx(0.2)


def test_one_cycle_rises_and_falls_and_leaves_momentum_alone(network: nn.Module) -> None:
    found = rates(network, Schedule(name="one_cycle", rise=0.25), epochs=4, steps_per_epoch=4)
    assert found[0] == pytest.approx(1 / 25)
    assert found.index(max(found)) == 3
    assert max(found) == pytest.approx(1.0)
    assert found[-1] < 1e-5
