"""Runs a network without values and follows its channels: which dimensions of which weights are the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pliant.core.anatomy import Anatomy
from pliant.core.inputs import InputSpec, run_on
from pliant.readers.channels.labels import Dimension, Reason, Shape, fix, fresh
from pliant.readers.channels.operation import Operation
from pliant.readers.channels.operators import dimensions_of_outputs
from pliant.readers.tracing import tensors_in

__all__ = ["Followed", "Running", "example_of", "follow", "layers_running", "run"]

# Two images, so that the batch is no dimension of one entry, which a network may take out.
BATCH = 2


@dataclass
class Followed:
    """What was seen while a network ran.

    Attributes:
        shapes: tells the dimensions of a parameter or a buffer.
        made: path of the layer and dimension of its output, in order of execution.
        starts: for each stage, how many of `made` came before its first block; none where it did not run.
        streams: for each stage, the dimensions of what it ends in; none where it did not run.
    """

    shapes: dict[int, Shape]
    made: list[tuple[str, Dimension]] = field(default_factory=list)
    starts: list[int | None] = field(default_factory=list)
    streams: list[Shape | None] = field(default_factory=list)

    def labels(self, tensor: Tensor) -> Shape:
        """Return the dimensions of a parameter or a buffer."""
        return self.shapes[id(tensor)]


def example_of(network: nn.Module, inputs: InputSpec) -> Any:
    """Return what a network on the meta device takes, two of it."""
    dtype = next((tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()), torch.float32)
    return inputs.empty(BATCH, device="meta", dtype=dtype)


def run(network: nn.Module, example: Any, running: Running) -> list[Tensor]:
    """Run a network in whose `running` block this is; return the tensors in what it returns.

    Raises:
        ValueError: it fails, and where.
    """
    try:
        with torch.no_grad():
            return tensors_in(run_on(network, example))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{running.layer} fails with {type(error).__name__}: {first}") from error


class Running:
    """Which layers are running, the innermost last."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    @property
    def path(self) -> str:
        """Path of the innermost; empty for the network itself."""
        return self.paths[-1] if self.paths else ""

    @property
    def layer(self) -> str:
        """Its name in messages."""
        return f"'{self.path}'" if self.path else "its own forward"


@contextmanager
def layers_running(network: nn.Module) -> Iterator[Running]:
    """Yield which layers are running, as long as the network runs in this block."""
    running = Running()
    handles = []
    for path, module in network.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda module, args, path=path: running.paths.append(path)),
            module.register_forward_hook(lambda module, args, output: (running.paths.pop(), None)[1]),
        ]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


class _Following(TorchDispatchMode):
    """Sees every operator and passes the labels of its inputs on."""

    def __init__(self, followed: Followed, running: Running) -> None:
        super().__init__()
        self.followed = followed
        self.running = running
        self.shapes = followed.shapes
        self.weights = frozenset(followed.shapes)
        self.alive: list[Tensor] = []  # without memory; a tensor that is gone could give its id to another

    def known(self, tensor: Tensor) -> Shape:
        """Return the dimensions of a tensor; what came from nowhere must stay as it is."""
        if id(tensor) not in self.shapes:
            self.note(tensor, fresh(tensor.shape, Reason("they meet a tensor that is no parameter of the network")))
        return self.shapes[id(tensor)]

    def note(self, tensor: Tensor, shape: Shape) -> None:
        """Remember the dimensions of a tensor."""
        self.shapes[id(tensor)] = shape
        self.alive.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and follow the labels through it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        if outputs:
            schema = func._schema
            values = {
                argument.name: args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value)
                for place, argument in enumerate(schema.arguments)
            }
            name = schema.name.partition("::")[2]
            call = Operation(
                name=name if name.startswith("__") else name.removesuffix("_"),
                values=values,
                outputs=outputs,
                where=self.running.layer,
                known=self.known,
                is_weight=lambda tensor: id(tensor) in self.weights,
                made=lambda dimension: self.followed.made.append((self.running.path, dimension)),
            )
            for tensor, shape in zip(outputs, dimensions_of_outputs(call, func), strict=True):
                self.note(tensor, shape)
        return result


def follow(network: nn.Module, anatomy: Anatomy, inputs: InputSpec) -> Followed:
    """Run a network from `without_values` and follow its channels.

    Raises:
        ValueError: it fails without values.
    """
    tensors = [*network.parameters(), *network.buffers()]
    followed = Followed({id(tensor): fresh(tensor.shape) for tensor in tensors})
    followed.starts = [None] * len(anatomy.stages)
    followed.streams = [None] * len(anatomy.stages)
    with layers_running(network) as running:
        following = _Following(followed, running)
        example = example_of(network, inputs)
        for tensor in tensors_in(example):
            following.note(tensor, fresh(tensor.shape, Reason("they are the network's input")))
        with _watched(network, anatomy, followed, following), following:
            outputs = run(network, example, running)
        reason = Reason("they are the network's output")
        for tensor in outputs:
            for dimension in following.known(tensor):
                fix(dimension, reason)
    return followed


@contextmanager
def _watched(network: nn.Module, anatomy: Anatomy, followed: Followed, following: _Following) -> Iterator[None]:
    """Note when stages begin and in which channels they end."""
    handles = []
    for number, stage in enumerate(anatomy.stages):

        def begin(module: nn.Module, args: Any, number: int = number) -> None:
            if followed.starts[number] is None:
                followed.starts[number] = len(followed.made)

        def end(module: nn.Module, args: Any, output: Any, number: int = number) -> None:
            tensors = tensors_in(output)
            if tensors:
                followed.streams[number] = following.known(tensors[0])

        handles.append(network.get_submodule(stage.blocks[0].path).register_forward_pre_hook(begin))
        handles.append(network.get_submodule(stage.blocks[-1].path).register_forward_hook(end))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
