"""Norm statistics for sub-networks that were not trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.core.subnet import SubNet
from pliant.core.wrapped import refuse_wrapped
from pliant.extract import extract

__all__ = ["recalibrated"]


@torch.no_grad()
def recalibrated(model: nn.Module, subnet: str | SubNet, batches: Iterable[Tensor]) -> nn.Module:
    """Extract a sub-network whose batch norms have the statistics of its own activations.

    An untrained sub-network runs with statistics that the super-net and the base-net left; its own
    differ. They are averaged over all batches alike (no decay), with the weights untouched.

    Args:
        model: an adapted model; it is not changed.
        subnet: which sub-network.
        batches: images `[batch, channels, height, width]`, of the training data, varied as in the training, on
            the model's device. Plain images have other statistics: without the black borders of padded crops, a
            ResNet-20 for CIFAR-10 lost 7 points.

    Raises:
        ValueError: no batches, or a wrapped model.
    """
    refuse_wrapped(model, "recalibrated")
    network = extract(model, subnet)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    seen = 0
    for images in batches:
        network(images)
        seen += 1
    if not seen:
        raise ValueError("recalibrated: no batches were given")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
