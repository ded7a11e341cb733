"""What people do to a model, before or after `adapt_`, and what every sub-network computes then.

One line in `OPERATIONS` is one row of the table in docs/composition.md, which `benchmarks/composition.py` writes from
`outcome`: `right` was compared number by number, a refusal is quoted. Whatever else happens fails a test.
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pliant
from pliant.create import ModelSource

__all__ = ["AXES", "FAMILIES", "MOMENTS", "OPERATIONS", "RIGHT", "Operation", "outcome"]

RIGHT = "right"
MOMENTS = ("before", "after")
FAMILIES = ("ResNet", "ViT")
AXES: dict[str, Callable[[], Any]] = {
    "depth": pliant.Depth,
    "exits": pliant.Exits,
    "width": lambda: pliant.Width(norms="private"),
}
VIT = ModelSource(
    name="timm:vit_tiny_patch16_224",
    num_classes=10,
    options=dict(img_size=32, patch_size=8, embed_dim=48, num_heads=4, depth=4),
)
LABELS = torch.tensor([0, 3, 9])
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}

Model = Any


class Wrong(AssertionError):
    """A sub-network computed something else than it should."""


def plain(family: str) -> Model:
    """Make a small network with random weights of which none is constant."""
    torch.manual_seed(0)
    if family == "ResNet":
        network = pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection")
    else:
        network = VIT.create()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * torch.rand(tensor.shape, generator=generator))
                if tensor.dim() == 1:
                    tensor.add_(0.05 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def adapted(network: Model, axis: str) -> Model:
    """Adapt a network; what was added differs from what it was copied from, as after a training."""
    torch.manual_seed(2)
    model = pliant.adapt_(network, AXES[axis]())
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if any(part in name for part in (".skip.", ".widths.")) and tensor.is_floating_point():
                tensor.add_(0.1)
    return model.eval()


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def answers(network: Model, subnets: list[str]) -> dict[str, Tensor]:
    with torch.no_grad():
        return {subnet: network(images(), subnet=subnet).float() for subnet in subnets}


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if (value is None) != (found[name] is None):
            raise Wrong(f"{name}: only one of them is there")
        if value is not None and not torch.allclose(found[name], value, **TOLERANCE):
            raise Wrong(f"{name} differs by {(found[name] - value).abs().max():.1e}")


def names(model: Model) -> list[str]:
    return [str(subnet) for subnet in model.subnets]


@dataclass(frozen=True)
class Operation:
    """One thing that people do to a model.

    Attributes:
        name: as in the table.
        check: of a family, an axis and a moment; raises `Wrong`, or a ValueError of pliant's.
        families: for which it is meant.
    """

    name: str
    check: Callable[[str, str, str], None]
    families: tuple[str, ...] = FAMILIES
    slow: bool = False


def outcome(operation: Operation, family: str, axis: str, moment: str) -> str:
    """Return `right`, or the one line with which pliant refuses.

    Raises:
        Wrong: a sub-network computed something else.
        Exception: of whatever library; neither is to happen.
    """
    return outcome_of(lambda: operation.check(family, axis, moment))


def outcome_of(action: Callable[[], object]) -> str:
    """Do as `outcome`, of anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action()
        except ValueError as error:
            if "\n" in str(error):
                raise Wrong(f"a refusal of several lines: {error}") from error
            return str(error)
    return RIGHT


def consistent(model: Model, full: Model) -> dict[str, Tensor]:
    """Compare what sub-networks compute with what is extracted, and the largest one with the original."""
    found = answers(model, names(model))
    with torch.no_grad():
        compare({"full": model(images()).float()}, {"full": full(images()).float()})
        compare(found, {subnet: pliant.extract(model, subnet)(images()).float() for subnet in found})
    for one, other in itertools.pairwise(found):
        if torch.equal(found[one], found[other]):
            raise Wrong(f"{one} computes the same as {other}")
    return found


def changing(apply: Callable[[Model], Model], *, extracts: bool = True) -> Callable[[str, str, str], None]:
    """Check an operation that changes what a network computes: afterwards is as if it had been before."""

    def check(family: str, axis: str, moment: str) -> None:
        full = apply(plain(family))
        if moment == "before":
            consistent(adapted(apply(plain(family)), axis), full)
            return
        model = apply(adapted(plain(family), axis))
        if extracts:
            consistent(model, full)
        if outcome_of(lambda: adapted(apply(plain(family)), axis)) == RIGHT:
            compare(answers(model, names(model)), answers(adapted(apply(plain(family)), axis), names(model)))

    return check


def keeping(apply: Callable[[Model], Model], *, extracts: bool = True) -> Callable[[str, str, str], None]:
    """Check an operation that keeps what a network computes: every sub-network computes what it did."""

    def check(family: str, axis: str, moment: str) -> None:
        if moment == "before":
            model = adapted(apply(plain(family)), axis)
            consistent(model, plain(family))
            return
        reference = adapted(plain(family), axis)
        expected = answers(reference, names(reference))
        model = apply(copy.deepcopy(reference))
        compare(answers(model, list(expected)), expected)
        if extracts:
            consistent(model, plain(family))

    return check


def gradients(model: Model, run: Callable[..., Tensor], subnets: list[str]) -> dict[str, Any]:
    """Differentiate several sub-networks at once."""
    model.zero_grad(set_to_none=True)
    sum((run(images(), subnet=subnet).square().mean() for subnet in subnets), torch.zeros(())).backward()
    return {name: None if p.grad is None else _full(p.grad).clone() for name, p in model.named_parameters()}


def _full(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def learning(apply: Callable[[Model], tuple[Model, Callable[..., Tensor]]]) -> Callable[[str, str, str], None]:
    """Check an operation around training: the gradients stay those of the plain way."""

    def check(family: str, axis: str, moment: str) -> None:
        reference = adapted(plain(family), axis)
        subnets = names(reference)
        expected = gradients(reference, reference, subnets)
        if moment == "before":
            operated, _ = apply(plain(family))
            model = adapted(operated, axis)
            run = model
        else:
            model, run = apply(adapted(plain(family), axis))
        compare(gradients(model, run, subnets), expected)

    return check


# Norms.


def group_norms(model: Model) -> Model:
    """As tools do that rebuild norms for small batches."""
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            _put(model, path, nn.GroupNorm(1, module.num_features))
    return model


def frozen(model: Model) -> Model:
    from timm.layers.norm_act import freeze_batch_norm_2d

    return freeze_batch_norm_2d(model)


def timm_sync(model: Model) -> Model:
    from timm.layers.norm_act import convert_sync_batchnorm

    return _cpu_norms(convert_sync_batchnorm(model))


def torch_sync(model: Model) -> Model:
    return _cpu_norms(nn.SyncBatchNorm.convert_sync_batchnorm(model))


def _cpu_norms(model: Model) -> Model:
    return model.eval()  # in eval mode they run on the CPU too


def fused(model: Model) -> Model:
    """Fold a batch norm into the convolution before it."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    block = model.layer1[0]
    block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
    return model


def averaged(family: str, axis: str, moment: str) -> None:
    from torch.optim.swa_utils import AveragedModel, update_bn

    if moment == "before":
        adapted(AveragedModel(plain(family)), axis)
    reference = adapted(plain(family), axis).train()
    average = AveragedModel(reference)
    average.update_parameters(reference)
    update_bn([images(), images() + 0.1], average)
    if family == "ResNet":
        pliant.recalibrate_(reference, [images(), images() + 0.1])
    subnets = names(reference)
    compare(answers(average.module.eval(), subnets), answers(reference.eval(), subnets))


# Parts.


def _put(model: Model, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _stage(model: Model) -> str:
    return "layer2" if hasattr(model, "layer2") else "blocks"


def copied_part(model: Model) -> Model:
    _put(model, _stage(model), copy.deepcopy(model.get_submodule(_stage(model))))
    return model


def new_block(model: Model) -> Model:
    source = plain("ResNet" if hasattr(model, "layer2") else "ViT")
    path = f"{_stage(model)}.1"
    _put(model, path, source.get_submodule(path))
    return model


def wrapped_block(model: Model) -> Model:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    path = f"{_stage(model)}.1"
    _put(model, path, Wrapper(model.get_submodule(path)))
    return model


def new_head(model: Model) -> Model:
    name = "fc" if hasattr(model, "fc") else "head"
    head = nn.Linear(getattr(model, name).in_features, 7)
    with torch.no_grad():
        head.weight.copy_(torch.linspace(-1, 1, head.weight.numel()).view_as(head.weight))
        head.bias.zero_()
    setattr(model, name, head)
    return model


def new_head_check(family: str, axis: str, moment: str) -> None:
    """A new classifier: the sub-networks that end in it have it, and saved folders can be read."""
    model = adapted(new_head(plain(family)), axis) if moment == "before" else new_head(adapted(plain(family), axis))
    with torch.no_grad():
        extracted = {subnet: pliant.extract(model, subnet)(images()) for subnet in names(model)}
        compare(answers(model, names(model)), extracted)
        if {logits.shape[1] for logits in extracted.values()} != {7}:
            raise Wrong("exits have other classes than the network's end")
        if moment == "after":
            compare(answers(saved(model), names(model)), extracted)


# Adapters, hooks.


def _lora(model: Model, **options: Any) -> Model:
    import peft

    targets = ["layer1.1.conv1", "layer2.2.conv2"] if hasattr(model, "layer2") else ["qkv", "fc1"]
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets, **options)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.linspace(-0.2, 0.2, parameter.numel()).view_as(parameter))
    return wrapped


def lora(model: Model) -> Model:
    return _lora(model).base_model.model.eval()


def merged_lora(model: Model) -> Model:
    return _lora(model).merge_and_unload().eval()


def saved_modules(model: Model) -> Model:
    """A stage is trained as a copy beside the original."""
    import peft

    stage = _stage(model)
    targets = ["layer1.0.conv1"] if stage == "layer2" else ["patch_embed.proj"]
    config = peft.LoraConfig(r=4, target_modules=targets, modules_to_save=[stage])
    wrapped = peft.get_peft_model(model, config)
    return wrapped.base_model.model.eval()


def accelerate_hooks(model: Model) -> Model:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for module in model.modules():
        add_hook_to_module(module, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    return model


def prepared(model: Model) -> Model:
    from accelerate import Accelerator

    return Accelerator(cpu=True).prepare(model)


def recorded(model: Model) -> Model:
    for module in model.modules():
        module.register_forward_hook(lambda module, args, output: None)
    return model


def bypassed(model: Model) -> Model:
    """A block whose forward is replaced by a function that knows nothing of the one before."""
    path = f"{_stage(model)}.1"
    model.get_submodule(path).forward = lambda x, *args, **kwargs: 0.5 * x
    return model.eval()


# Copies.


def pickled(model: Model) -> Model:
    return pickle.loads(pickle.dumps(model))


def torch_saved(model: Model) -> Model:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def saved(model: Model) -> Model:
    if not hasattr(model, "subnets"):
        return model
    with tempfile.TemporaryDirectory() as folder:
        pliant.save(model, folder, source=None if hasattr(model, "layer2") else VIT)
        return pliant.load(folder)


def state_loaded(model: Model) -> Model:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(state, assign=True)
    return model


def ema(model: Model) -> Model:
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=0.5).module


def in_bfloat16(family: str, axis: str, moment: str) -> None:
    model = adapted(plain(family).bfloat16(), axis) if moment == "before" else adapted(plain(family), axis).bfloat16()
    x = images().bfloat16()
    with torch.no_grad():
        expected = {subnet: model(x, subnet=subnet) for subnet in names(model)}
        compare({subnet: pliant.extract(model, subnet)(x) for subnet in expected}, expected)
        again = saved(model)
        if next(again.parameters()).dtype is not torch.bfloat16:
            raise Wrong("it comes back in another type")
        compare({subnet: again(x, subnet=subnet) for subnet in expected}, expected)


# Tensors of layers.


def weight_norm(model: Model) -> Model:
    layer = model.layer2[0].conv1 if hasattr(model, "layer2") else model.blocks[0].mlp.fc1
    torch.nn.utils.parametrizations.weight_norm(layer)
    return model


def pruned(model: Model) -> Model:
    from torch.nn.utils import prune

    layer = model.layer2[0].conv1 if hasattr(model, "layer2") else model.blocks[0].mlp.fc1
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.remove(layer, "weight")
    return model


def quantized(model: Model) -> Model:
    """Linear layers in int8; a width would see nothing of it."""
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def quantized_check(family: str, axis: str, moment: str) -> None:
    if moment == "before":
        consistent(adapted(quantized(plain(family)), axis), quantized(plain(family)))
        return
    model = adapted(plain(family), axis)
    expected = {}
    for subnet in names(model):
        network = quantized(pliant.extract(model, subnet))
        with torch.no_grad():
            expected[subnet] = network(images())
    compare(answers(quantized(model), list(expected)), expected)


# Compilers.


def compiled(model: Model) -> Model:
    torch._dynamo.reset()
    return torch.compile(model, backend="eager")


def exported(family: str, axis: str, moment: str) -> None:
    if moment == "before":
        adapted(torch.export.export(plain(family), (images(),)).module(), axis)
        raise Wrong("a program has no blocks")
    model = adapted(plain(family), axis)
    expected = answers(model, names(model))
    found = {}
    for subnet in expected:
        program = torch.export.export(model, (images(),), {"subnet": subnet}, strict=axis == "exits")
        found[subnet] = program.module()(images(), subnet=subnet)
    compare(found, expected)


def jit_traced(family: str, axis: str, moment: str) -> None:
    if moment == "before":
        adapted(torch.jit.trace(plain(family), images()), axis)
        raise Wrong("a traced network has no blocks")
    model = adapted(plain(family), axis)
    expected = answers(model, names(model))
    with torch.no_grad():
        found = {subnet: torch.jit.trace(pliant.extract(model, subnet), images())(images()) for subnet in expected}
    compare(found, expected)


def functional(family: str, axis: str, moment: str) -> None:
    """`torch.func.functional_call` with other parameters, as meta learning and ensembles do."""
    model = adapted(plain(family), axis)
    other = {name: parameter * 1.1 for name, parameter in model.named_parameters()}
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1.1)
        found = {s: torch.func.functional_call(model, other, images(), {"subnet": s}) for s in names(model)}
    compare(found, answers(moved, names(model)))
    compare(answers(model, names(model)), answers(adapted(plain(family), axis), names(model)))


# Training.


def checkpointed(model: Model) -> tuple[Model, Callable[..., Tensor]]:
    if hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing(True)
        return model, model
    for block in (model.layer1[1], model.layer2[1], model.layer2[2]):
        inner = block.forward
        block.forward = lambda x, inner=inner: checkpoint(inner, x, use_reentrant=False)
    return model, model


def compiled_and_checkpointed(model: Model) -> tuple[Model, Callable[..., Tensor]]:
    model, _ = checkpointed(model)
    return model, compiled(model)


@contextmanager
def process_group() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def data_parallel(family: str, axis: str, moment: str) -> None:
    """`DistributedDataParallel` around the objective: three steps with momentum, as without it."""
    with process_group():
        parallel = torch.nn.parallel.DistributedDataParallel
        if moment == "before":
            adapted(parallel(plain(family)), axis)
        trained = []
        for wrap in (lambda objective: objective, parallel):
            model = adapted(plain(family), axis)
            objective = wrap(pliant.Objective(model))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
            torch.manual_seed(5)
            for _ in range(3):
                optimizer.zero_grad()
                objective(images(), LABELS).backward()
                optimizer.step()
            trained.append({name: parameter.detach() for name, parameter in model.named_parameters()})
        compare(trained[1], trained[0])


def fully_sharded(family: str, axis: str, moment: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with process_group():
        mesh = init_device_mesh("cpu", (1,))

        def shard(model: Model) -> tuple[Model, Callable[..., Tensor]]:
            for stage in ("layer1", "layer2", "layer3", "blocks"):
                for block in getattr(model, stage, ()):
                    if hasattr(block, "exit"):
                        fully_shard(block.exit, mesh=mesh)
                    fully_shard(block, mesh=mesh)
            return fully_shard(model, mesh=mesh), model

        learning(shard)(family, axis, moment)


def other_optimizer(family: str, axis: str, moment: str) -> None:
    """An optimizer that was made before, or after."""
    network = plain(family)
    parameters = list(network.parameters())
    model = adapted(network, axis)
    optimizer = torch.optim.SGD(parameters if moment == "before" else model.parameters(), lr=0.01)
    objective = pliant.Objective(model)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(3):
        model.zero_grad()
        objective(images(), LABELS).backward()
        optimizer.step()
    still = [name for name, p in model.named_parameters() if p.grad is not None and torch.equal(p, start[name])]
    if any(".skip." in name or ".exit." in name for name in still):
        raise Wrong(f"{still[0]} did not move")


def failed_backward(family: str, axis: str, moment: str) -> None:
    model, _ = checkpointed(plain(family)) if moment == "before" else (plain(family), None)
    model = adapted(model, axis)
    if moment == "after":
        checkpointed(model)
    reference = adapted(plain(family), axis)
    expected = gradients(reference, reference, names(reference))

    def fail(gradient: Tensor) -> None:
        raise RuntimeError("on purpose")

    hook = next(iter(model.parameters())).register_hook(fail)
    try:
        gradients(model, model, names(model))
    except RuntimeError as error:
        assert "on purpose" in str(error)
    hook.remove()
    compare(gradients(model, model, names(model)), expected)


def two_threads(family: str, axis: str, moment: str) -> None:
    model = adapted(plain(family), axis)
    inside, goes_on = threading.Event(), threading.Event()

    def wait(module: nn.Module, args: Any) -> None:
        inside.set()
        goes_on.wait(10)

    hook = model.get_submodule(f"{_stage(model)}.0").register_forward_pre_hook(wait)
    thread = threading.Thread(target=lambda: answers(model, ["largest"]))
    thread.start()
    inside.wait(10)
    try:
        answers(model, names(model)[:1])
        raise Wrong("both ran")
    finally:
        goes_on.set()
        thread.join()
        hook.remove()


OPERATIONS = (
    Operation("`nn.SyncBatchNorm.convert_sync_batchnorm`", keeping(torch_sync), ("ResNet",)),
    Operation("timm's `convert_sync_batchnorm`", keeping(timm_sync), ("ResNet",)),
    Operation("timm's `freeze_batch_norm_2d`", keeping(frozen), ("ResNet",)),
    Operation("norms rebuilt as `GroupNorm`", changing(group_norms), ("ResNet",)),
    Operation("a batch norm fused into its convolution", keeping(fused), ("ResNet",)),
    Operation("`AveragedModel` and `update_bn`", averaged),
    Operation("timm's `ModelEmaV3`", keeping(ema)),
    Operation("a stage replaced by a deep copy of itself", keeping(copied_part)),
    Operation("a block replaced by a plain one", keeping(new_block)),
    Operation("a wrapper around a block", keeping(wrapped_block, extracts=False)),
    Operation("a new classifier", new_head_check),
    Operation("peft: LoRA layers", changing(lora, extracts=False)),
    Operation("peft: LoRA layers, merged", changing(merged_lora)),
    Operation("peft: `modules_to_save`", keeping(saved_modules, extracts=False)),
    Operation("accelerate: hooks on all modules", keeping(accelerate_hooks, extracts=False)),
    Operation("accelerate: `Accelerator.prepare`", keeping(prepared)),
    Operation("forward hooks on all modules", keeping(recorded)),
    Operation("a `forward` that does not call the one before", changing(bypassed)),
    Operation("`pickle`", keeping(pickled)),
    Operation("`torch.save` of the model", keeping(torch_saved)),
    Operation("`copy.deepcopy`", keeping(copy.deepcopy)),
    Operation("`pliant.save` and `pliant.load`", keeping(saved)),
    Operation("`load_state_dict(assign=True)`", keeping(state_loaded)),
    Operation("`bfloat16()`, saved and loaded", in_bfloat16),
    Operation("`channels_last`", keeping(lambda model: model.to(memory_format=torch.channels_last))),
    Operation("`weight_norm`", keeping(weight_norm)),
    Operation("pruning, made permanent", changing(pruned)),
    Operation("`quantize_dynamic`", quantized_check),
    Operation("`torch.compile`", keeping(compiled, extracts=False), slow=True),
    Operation("`torch.export`", exported, slow=True),
    Operation("`torch.jit.trace`", jit_traced),
    Operation("`torch.func.functional_call`", functional),
    Operation("gradient checkpointing", learning(checkpointed)),
    Operation("`torch.compile` and gradient checkpointing", learning(compiled_and_checkpointed), slow=True),
    Operation("`DistributedDataParallel` around `Objective`", data_parallel),
    Operation("FSDP2: `fully_shard`", fully_sharded),
    Operation("an optimizer made then", other_optimizer),
    Operation("a backward pass that raises, with checkpointing", failed_backward),
    Operation("two threads on one model", two_threads),
)
