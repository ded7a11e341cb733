"""Norm statistics for sub-networks that were not trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.core.adaptive import AdaptiveModule
from pliant.core.subnet import SubNet
from pliant.core.wrapped import refuse_wrapped
from pliant.extract import extract

if TYPE_CHECKING:
    from pliant.data import Augment, ImageData

__all__ = ["recalibrate_", "recalibrated", "training_images", "why_not"]

_BATCH = 128


def recalibrated(model: nn.Module, subnet: str | SubNet, batches: Iterable[Tensor]) -> nn.Module:
    """Extract a sub-network whose batch norms have the statistics of its own activations.

    An untrained sub-network runs with statistics that the super-net and the base-net left; its own
    differ. They are averaged over all batches alike (no decay), with the weights untouched. A network
    without batch norms has no such statistics and is extracted as it is.

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
    recalibrate_(network, batches)
    return network.eval()


@torch.no_grad()
def recalibrate_(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Give the batch norms of a plain network the statistics of its own activations, in place and in eval mode.

    Returns:
        How many images that took; 0 where there are no batch norms.

    Raises:
        ValueError: no batches.
    """
    norms = _norms(network)
    network.eval()
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    seen = 0
    for images in batches:
        network(images)
        seen += len(images)
    if not seen:
        raise ValueError("recalibrated: no batches were given")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return seen


def why_not(model: nn.Module, subnet: str | SubNet | None = None) -> str:
    """Say why the norm statistics of a sub-network, or of all, stay as they are; empty where they can be taken anew.

    The super-net and the base-net are trained; so are those that run the same parts and only end earlier.

    Raises:
        ValueError: the model has no such sub-network.
    """
    if not isinstance(model, AdaptiveModule):
        return f"this {type(model).__name__} has no sub-networks that were left untrained"
    chosen = None if subnet is None else model.space.parse(subnet)
    if not _norms(model):
        return f"this {type(model).__name__} has no batch norms, so there are no statistics to take anew"
    trained = [(end.depth, end.width) for end in (model.space.largest, model.space.smallest)]
    if chosen is not None and (chosen.depth, chosen.width) in trained:
        return f"{chosen} was trained and keeps the statistics of its training"
    return ""


def training_images(
    data: ImageData | None,
    count: int,
    augment: Augment | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Iterator[Tensor]]:
    """Return what gives the same `count` training images, in batches, each time it is called.

    So every sub-network, and the file of one, has the statistics of the same images, varied in the same way.

    Raises:
        ValueError: no data, or not so many training images.
    """
    if data is None:
        raise ValueError("recalibrate needs data: the norm statistics come from its training images")
    if not 0 < count <= len(data.train):
        raise ValueError(f"recalibrate={count}: allowed are 0 to {len(data.train)}, the training images of {data.name}")
    # About equal batches, as all count alike.
    batches = ceil(count / _BATCH)
    batch_size = ceil(count / batches)

    def of_one_epoch() -> Iterator[Tensor]:
        left = count
        every = data.train.batches(batch_size, device=device, dtype=dtype, shuffle=True, augment=augment)
        for images, _ in islice(every, batches):
            yield images[:left]
            left -= len(images)

    return of_one_epoch


def _norms(network: nn.Module) -> list[_BatchNorm]:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if norm.track_running_stats]
