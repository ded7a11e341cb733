"""Contract 4. Two processes have the gradients of one: DistributedDataParallel and fully_shard, on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pliant

SCRIPT = f"""
import importlib.util

spec = importlib.util.spec_from_file_location("small", {str(Path(__file__).with_name("conftest.py"))!r})
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)
"""

SCRIPT += """
import copy
import warnings

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import pliant

warnings.simplefilter("error")
# A skipped block returns its input: torch warns those who would change that in place.
warnings.filterwarnings("ignore", message=".*returned a view tensor")
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()


def adapted():
    model = pliant.adapt_(small.small("own"), pliant.Depth())
    small.differ(model)
    return model.train()


generator = torch.Generator().manual_seed(4)
x, y = torch.rand(4, 6, generator=generator), torch.tensor([0, 3, 9, 1])
mine = slice(2 * rank, 2 * rank + 2)


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def compare(model, expected, what):
    for (name, parameter), (_, other) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        if other.grad is None:
            # DDP gives zeros to what no process used.
            assert parameter.grad is None or not full(parameter.grad).any(), (what, name)
        else:
            torch.testing.assert_close(full(parameter.grad), other.grad, msg=f"{what}: {name}", rtol=1e-4, atol=1e-6)


def refused(what, action):
    try:
        action()
    except ValueError as error:
        assert what in str(error), error
    else:
        raise AssertionError(f"not refused: {what}")


def alone(model, subnets=None):
    if subnets is None:
        pliant.Objective(model)(x, y).backward()
    else:
        for subnet in subnets:
            model(x, subnet=subnet).square().mean().backward()
    return model


whole_step, passes = alone(adapted()), alone(adapted(), ("TTFF", None, "TTTT"))

for checkpointing in (None, {"use_reentrant": False}):
    # The objective inside: all its passes are one pass of DDP, and leave no parameter unused.
    model = adapted()
    model.checkpointing = checkpointing
    step = DistributedDataParallel(pliant.Objective(model))
    for _ in range(2):
        step.zero_grad()
        step(x[mine], y[mine]).backward()
        compare(model, whole_step, "DDP around the objective")

    # The model inside: each pass is a pass of DDP, and leaves unused what its sub-network does not have.
    model = adapted()
    model.checkpointing = checkpointing
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    for subnet in ("TTFF", None, "TTTT"):
        parallel(x[mine], subnet=subnet).square().mean().backward()
    compare(model, passes, "DDP around the model")
refused("DistributedDataParallel(pliant.Objective(model))", lambda: pliant.Objective(parallel))
assert torch.equal(pliant.extract(parallel.module.eval(), "TTTT")(x), model(x, subnet="TTTT"))


def steps(model, step, images, labels):
    # What drawn widths leave out has no gradient, and so weight decay and momentum do not move it.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    torch.manual_seed(5)  # the draws
    idle = set()
    for _ in range(3):
        optimizer.zero_grad()
        step(images, labels).backward()
        idle |= {name for name, parameter in model.named_parameters() if parameter.grad is None}
        optimizer.step()
    return idle


def with_widths():
    torch.manual_seed(0)
    model = pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection")
    return pliant.adapt_(model, pliant.Width(choices=(0.25, 0.4, 0.5, 0.6, 0.75, 1.0), norms="private")).eval()


images = torch.rand(4, 3, 16, 16, generator=generator)
expected, model = with_widths(), with_widths()
idle = steps(expected, pliant.Objective(expected), images, y)
assert idle and steps(model, DistributedDataParallel(pliant.Objective(model)), images[mine], y[mine]) == idle
for (name, parameter), (_, other) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
    torch.testing.assert_close(parameter, other, msg=name, rtol=1e-4, atol=1e-5)

mesh = init_device_mesh("cpu", (2,))


def sharded(checkpointing=None):
    model = adapted()
    model.checkpointing = checkpointing
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


for checkpointing in (None, {"use_reentrant": False}):
    model = sharded(checkpointing)
    objective = pliant.Objective(model)
    for _ in range(2):
        model.zero_grad()
        objective(x[mine], y[mine]).backward()
        compare(model, whole_step, "fully_shard, all passes at once")
    model.zero_grad()
    objective.backward(x[mine], y[mine])
    compare(model, whole_step, "fully_shard, pass by pass")
    model.zero_grad()
    for subnet in ("TTFF", None, "TTTT"):
        model(x[mine], subnet=subnet).square().mean().backward()
    compare(model, passes, "fully_shard, a loop of one's own")

torch.optim.SGD(model.parameters(), lr=0.1).step()
model.eval()
options = StateDictOptions(full_state_dict=True, cpu_offload=True)
state = get_model_state_dict(model, options=options)
with torch.no_grad():
    outputs = {str(subnet): model(x, subnet=subnet) for subnet in model.subnets}
again = sharded().eval()
set_model_state_dict(again, dict(state) if rank == 0 else {}, options=StateDictOptions(
    full_state_dict=True, broadcast_from_rank0=True
))
with torch.no_grad():
    for subnet, output in outputs.items():
        torch.testing.assert_close(again(x, subnet=subnet), output)
if rank == 0:
    plain = adapted().eval()
    plain.load_state_dict(state)
    for subnet, output in outputs.items():
        torch.testing.assert_close(plain(x, subnet=subnet), output)
        torch.testing.assert_close(pliant.extract(plain, subnet)(x), output)


def with_exits(own_unit=None):
    torch.manual_seed(0)
    model = pliant.adapt_(small.small("own"), pliant.Exits(at=(3, 5))).train()
    if own_unit is None:
        return model
    for block in model.blocks:
        if own_unit and hasattr(block, "exit"):
            fully_shard(block.exit, mesh=mesh)
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


losses = {
    "all exits": lambda model, x: sum(logits.square().mean() for logits in model(x, exits=True)),
    "exit=1": lambda model, x: model(x, subnet="exit=1").square().mean(),
    "exit=2": lambda model, x: model(x, subnet="exit=2").square().mean(),
}
model = with_exits(own_unit=True)
for what, loss in [*losses.items(), *losses.items()]:
    plain = with_exits()
    loss(plain, x).backward()
    model.zero_grad()
    loss(model, x[mine]).backward()
    compare(model, plain, f"fully_shard, {what}")
# What a pass that ends early has gathered is given back: it is not used again after the weights have changed.
with torch.no_grad():
    model.eval()(x, subnet="exit=1")
    for parameter in model.parameters():
        parameter.mul_(1.5)
    plain = with_exits().eval()
    for parameter in plain.parameters():
        parameter.mul_(1.5)
    torch.testing.assert_close(model(x, subnet="exit=1"), plain(x, subnet="exit=1"))
together = with_exits(own_unit=False)
for loss in losses.values():
    refused("the child 'exit' of the block", lambda: loss(together, x[mine]))

refused("sharded by fully_shard, which allows no copy", lambda: pliant.extract(again, "TTTT"))
model = small.small("own")
fully_shard(model.blocks[0], mesh=mesh)
refused("sharded by fully_shard; adapt it first", lambda: pliant.adapt_(model, pliant.Depth()))
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(two_processes) -> None:
    two_processes(SCRIPT)


def test_an_objective_of_a_wrapped_model_is_refused(make):
    """It would not know of the sub-networks, and train the super-net alone."""
    with pytest.raises(
        ValueError, match=r"Sequential around an adapted model.*Sequential\(pliant\.Objective\(model\)\)"
    ):
        pliant.Objective(nn.Sequential(make("own")))
    assert pliant.Objective(torch.compile(make("own"))).plan.name == "adn-sum"
