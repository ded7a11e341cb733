"""Sizes of an MSDNet by the counting of its papers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pliant.core.inputs import input_spec
from pliant.core.weightless import without_values
from pliant.models.msdnet.network import MSDNet, steps_of

__all__ = ["paper_counts"]


def paper_counts(model: MSDNet, image_size: int) -> list[tuple[float, float]]:
    """Count operations and parameters up to each exit as the papers do (IMTA, Table 1).

    One image runs through the whole network. To an exit belong all layers before it, also those scales of them that
    only later exits read, and all classifiers up to its own. Operations are the multiply-accumulates of convolutions
    (bias not counted), one for every input of a ReLU, the size of the window for every output of a pooling, and
    weights and biases of linear layers. Norms count as parameters alone.

    What one exit costs by itself is `count_gmacs(model.truncated(number), image_size)` of `pliant.core.macs`.

    Args:
        model: with all its exits.
        image_size: height and width in pixels.

    Returns:
        For each exit `(cumulative_gmacs, cumulative_params_m)`, in 10^9 and 10^6.

    Raises:
        ValueError: a truncated network, whose earlier exits are gone.
    """
    missing = [str(number) for number, step in enumerate(steps_of(model), start=1) if not step.has_exit]
    if missing:
        raise ValueError(f"paper_counts: this MSDNet has no exit {', '.join(missing)}, which counts for the later ones")
    network = without_values(model)
    image = input_spec(network, image_size).empty(1, device="meta", dtype=next(network.parameters()).dtype)
    with torch.no_grad(), _counting(network) as operations:
        scales = network.stem(image)
        for step in steps_of(network):
            scales = step(scales)
            step.exit(scales)
    counts = []
    for parts in _up_to_each_exit(network):
        modules = {module for part in parts for module in part.modules()}
        parameters = sum(tensor.numel() for part in parts for tensor in part.parameters())
        counts.append((sum(operations[module] for module in modules) / 1e9, parameters / 1e6))
    return counts


def _up_to_each_exit(network: MSDNet) -> Iterator[list[nn.Module]]:
    """Yield for each exit all that lies before it in the papers' figures, its classifier included."""
    diagonals = [list(diagonal.children()) for step in steps_of(network) for diagonal in step.diagonals]
    coarsest = len(network.stem) - 1
    exits, layers = [], 0
    for step in steps_of(network):
        exits.append(step.exit)
        layers += len(step.diagonals)
        before = [
            part
            for number, parts in enumerate(diagonals, start=1)
            for scale, part in enumerate(parts, start=coarsest + 1 - len(parts))
            if number - (coarsest - scale) <= layers
        ]
        yield [network.stem, *before, *exits]


@contextmanager
def _counting(network: nn.Module) -> Iterator[Counter[nn.Module]]:
    """Yield how many operations each layer has done that ran in this block."""
    operations = Counter[nn.Module]()

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        operations[module] += _operations(module, inputs[0], output)

    handles = [module.register_forward_hook(count) for module in network.modules() if not list(module.children())]
    try:
        yield operations
    finally:
        for handle in handles:
            handle.remove()


def _operations(module: nn.Module, x: Tensor, output: Tensor) -> int:
    match module:
        case nn.Conv2d():
            return output.numel() * module.weight[0].numel()
        case nn.ReLU():
            return x.numel()
        case nn.MaxPool2d():
            assert isinstance(module.kernel_size, int)
            return output.numel() * module.kernel_size**2
        case nn.AdaptiveAvgPool2d():
            return x.numel()
        case nn.Linear():
            return module.weight.numel() + module.bias.numel()
    return 0
