"""Contract 5. Gradient checkpointing changes no gradient: what is computed again belongs to the pass it was part of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pliant
from pliant.core import passes
from pliant.core.inputs import logits_of
from pliant.plans import build_plan

LIBRARIES = ("own", "timm ViT", "timm ResNet", "transformers ViT", "transformers Swin", "transformers Llama")
LABELS = torch.tensor([0, 3, 9])

# Torch says so of passes under no_grad, and of inputs that are images.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


def switch_on(model: nn.Module, library: str, *, use_reentrant: bool) -> None:
    """Use the library's own switch."""
    if library == "own":
        model.checkpointing = {"use_reentrant": use_reentrant}  # type: ignore[assignment]
    elif library.startswith("timm"):
        from timm.layers import set_reentrant_ckpt

        set_reentrant_ckpt(use_reentrant)
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    else:
        model.activation_checkpointing_enable({"use_reentrant": use_reentrant})  # type: ignore[operator]


@pytest.fixture(autouse=True)
def timm_as_it_was():
    from timm.layers import set_reentrant_ckpt, use_reentrant_ckpt

    before = use_reentrant_ckpt()
    yield
    set_reentrant_ckpt(before)


def joint(model, x, *, features):
    labels = x.clone() if not x.is_floating_point() else LABELS
    pliant.Objective(model, build_plan("adn", model.space, features=features))(x, labels).backward()


def sequential(model, x, *, features):
    labels = x.clone() if not x.is_floating_point() else LABELS
    pliant.Objective(model, build_plan("adn", model.space, features=features)).backward(x, labels)


def own_loop(model, x, *, features):
    """Several passes at once, the super-net in between and one of them without gradients."""
    options = {"features": True} if features else {}

    def value(subnet):
        output = model(x, subnet=subnet, **options)
        output, stages = output if features else (output, [])
        return logits_of(output).square().sum() + sum((stage.sin().sum() for stage in stages), torch.zeros(()))

    loss = value("smallest") + value(None)
    with torch.no_grad():
        value(model.subnets[1])
    loss = loss + value(model.subnets[1]).sin() + value("largest")
    loss.backward()


def gradients(model: nn.Module, way: Callable[..., None], x: Tensor, *, features: bool) -> dict[str, Tensor | None]:
    torch.manual_seed(3)  # stochastic depth
    model.zero_grad(set_to_none=True)
    way(model, x, features=features)
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def assert_same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None, f"{name} learned"
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10, msg=f"gradient of {name}")


@pytest.mark.parametrize(
    ("library", "use_reentrant"),
    [(library, use) for library in LIBRARIES for use in (False, True) if (library, use) != ("transformers Swin", True)],
)
def test_gradients_are_those_without_checkpointing(library, use_reentrant, make, inputs):
    model = make(library).double().train()
    x = inputs(library)
    x = x.double() if x.is_floating_point() else x
    thrifty = copy.deepcopy(model)
    switch_on(thrifty, library, use_reentrant=use_reentrant)
    computed_again = count_norms_computed_again(thrifty)
    for way in (joint, sequential, own_loop):
        # A stage's output within a reentrant checkpoint has no gradient: refused, below.
        expected = gradients(model, way, x, features=not use_reentrant)
        assert_same(gradients(thrifty, way, x, features=not use_reentrant), expected)
    assert len(computed_again) > 20


def count_norms_computed_again(model) -> list[str]:
    """Not blocks: transformers runs `forward` of a block again, without its hooks."""
    calls = []
    for stage in model.anatomy.stages:
        for path in (norm for block in stage.blocks for norm in block.norms):
            model.get_submodule(path).register_forward_pre_hook(
                lambda module, args, path=path: calls.append(path) if torch._C._current_graph_task_id() != -1 else None
            )
    return calls


def test_checkpoints_of_blocks_within_those_of_stages_are_refused_if_reentrant(make, inputs):
    """The Swin of transformers has them."""
    model, x = make("transformers Swin").train(), inputs("transformers Swin")
    switch_on(model, "transformers Swin", use_reentrant=True)
    with pytest.raises(ValueError, match="checkpoint within a checkpoint with use_reentrant=True"):
        joint(model, x, features=False)


def test_features_within_a_reentrant_checkpoint_are_refused(make, inputs):
    model = make("own").train()
    switch_on(model, "own", use_reentrant=True)
    with pytest.raises(ValueError, match=r"the output of stage 1 has no gradient.*set use_reentrant=False"):
        model(inputs("own"), features=True)
    # Where nothing is to be differentiated nothing is missing.
    with torch.no_grad():
        assert len(model(inputs("own"), features=True)[1]) == len(model.anatomy.stages)


def test_a_checkpoint_within_a_checkpoint(make, inputs):
    model, x = make("own").train(), inputs("own")
    expected = gradients(model, lambda model, x, **_: model(x, subnet="smallest").sum().backward(), x, features=False)

    def twice(use_reentrant):
        x.requires_grad_()
        switch_on(model, "own", use_reentrant=use_reentrant)
        checkpoint(model, x, subnet="smallest", use_reentrant=False).sum().backward()

    assert_same(gradients(model, lambda *_, **__: twice(False), x, features=False), expected)
    assert_same(gradients(model, lambda *_, **__: twice(True), x, features=False), expected)

    switch_on(model, "own", use_reentrant=False)
    for _ in range(2):  # it is refused again, and does no lasting harm
        loss = checkpoint(lambda x: model(x, subnet="smallest"), x, use_reentrant=True).sum()
        with pytest.raises(ValueError, match="checkpoint within a checkpoint with use_reentrant=True"):
            loss.backward()
    assert_same(gradients(model, lambda *_, **__: twice(False), x, features=False), expected)


def test_second_derivatives(make, inputs):
    model, x = make("own").train().double(), inputs("own").double().requires_grad_()

    def penalty(model, x, **_):
        (slope,) = torch.autograd.grad(model(x, subnet="smallest").sum(), x, create_graph=True)
        (slope.square().sum() + model(x).sum()).backward()

    expected = gradients(model, penalty, x, features=False)
    switch_on(model, "own", use_reentrant=False)
    assert_same(gradients(model, penalty, x, features=False), expected)


def test_blocks_called_outside_of_a_pass_are_the_super_net_s(make, inputs):
    model, x = make("timm ViT").train().double(), inputs("timm ViT").double()

    def parts(model, x, **_):
        torch.manual_seed(3)
        loss = model(x, subnet="smallest").sum() + model.forward_features(x).square().sum()
        (loss + model(x, subnet="smallest").sum()).backward()

    expected = gradients(model, parts, x, features=False)
    switch_on(model, "timm ViT", use_reentrant=False)
    assert_same(gradients(model, parts, x, features=False), expected)


def test_a_pass_that_is_differentiated_too_late_is_refused(make, inputs, monkeypatch):
    monkeypatch.setattr(passes, "REMEMBERED", 8)
    model, x = make("own").train(), inputs("own")
    switch_on(model, "own", use_reentrant=False)
    first, *others = [model(x, subnet="smallest").sum() for _ in range(8)]
    others[-1].backward()
    with pytest.raises(ValueError, match="pass is forgotten"):
        first.backward()


def in_a_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def test_forward_and_backward_in_different_threads(make, inputs):
    model, x = make("own").train(), inputs("own")

    def loss():
        return model(x, subnet="smallest").sum() + model(x).square().sum()

    def elsewhere(forward, backward):
        model.zero_grad()
        backward(forward(loss).backward)
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    def here(function):
        return function()

    expected = elsewhere(here, here)
    switch_on(model, "own", use_reentrant=False)
    assert_same(elsewhere(here, in_a_thread), expected)
    assert_same(elsewhere(in_a_thread, here), expected)
    assert_same(elsewhere(here, here), expected)


def test_under_autocast(make, inputs):
    model, x = make("timm ViT").train(), inputs("timm ViT")
    for module in model.modules():  # a rounding error is not to decide what is dropped
        if type(module).__name__.endswith("DropPath"):
            module.drop_prob = 0.0

    def mixed(model, x, **_):
        objective = pliant.Objective(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(x, LABELS)
        loss.backward()

    expected = gradients(model, mixed, x, features=True)
    switch_on(model, "timm ViT", use_reentrant=False)
    assert_same(gradients(model, mixed, x, features=True), expected)


def test_batch_statistics_are_collected_twice_as_in_the_plain_network(make, inputs):
    """Torch runs a batch norm twice there, which the page says; both sets of norms do what one does elsewhere."""
    model, x = make("timm ResNet").train(), inputs("timm ResNet")
    switch_on(model, "timm ResNet", use_reentrant=False)
    plain = pliant.extract(model, "smallest").train()
    model(x, subnet="smallest").sum().backward()
    plain(x).sum().backward()
    adapted = pliant.extract(model, "smallest").state_dict()
    assert adapted["layer1.0.bn1.num_batches_tracked"] == 2
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(adapted[name], tensor, msg=name)


def test_a_backward_pass_that_fails_leaves_nothing_behind(make, inputs):
    """Also for a pass that was made before and is differentiated afterwards."""
    model, x = make("own"), inputs("own")
    switch_on(model, "own", use_reentrant=False)
    model.zero_grad(set_to_none=True)
    model(x, subnet="smallest").square().sum().backward()
    expected = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    waiting = model(x, subnet="smallest").square().sum()

    def fail(gradient: Tensor) -> None:
        raise RuntimeError("on purpose")

    hook = model.inp.weight.register_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        model(x).square().sum().backward()
    hook.remove()
    for loss in (waiting, model(x, subnet="smallest").square().sum()):
        model.zero_grad(set_to_none=True)
        loss.backward()
        assert_same({name: p.grad for name, p in model.named_parameters()}, expected)


@pytest.mark.parametrize("library", ["own", "timm ViT", "timm ResNet"])
@pytest.mark.parametrize("equilibrium", ["none", "all"])
def test_exits_within_a_checkpoint(library, equilibrium, make, inputs):
    """Also where the exit, and so the end of the pass, is inside of what is checkpointed."""
    model, x = make(library, adapted=False).train(), inputs(library)
    pliant.adapt_(model, pliant.Exits(equilibrium=equilibrium))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    checkpointed = copy.deepcopy(model)
    switch_on(checkpointed, library, use_reentrant=False)

    def loss(network, subnet):
        torch.manual_seed(3)  # stochastic depth
        if subnet == "all":
            return sum((logits.square().sum() for logits in network(x, exits=True)), torch.zeros(()))
        return network(x, subnet=subnet).square().sum()

    subnets = ("all", *map(str, model.subnets))
    waiting = [loss(checkpointed, subnet) for subnet in subnets]
    for subnet, checkpointed_loss in zip(subnets, waiting, strict=True):
        found = []
        for network, value in ((model, loss(model, subnet)), (checkpointed, checkpointed_loss)):
            network.zero_grad(set_to_none=True)
            value.backward()
            found.append({name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()})
        assert_same(found[1], found[0])
