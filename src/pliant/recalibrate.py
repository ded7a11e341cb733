"""Norm statistics taken anew: of one sub-network that is taken out, or of all widths, kept in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.axes import Axes
from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import images_alone
from pliant.core.modes import evaluating
from pliant.core.subnet import SubNet
from pliant.core.wrapped import refuse_wrapped
from pliant.extract import extract

if TYPE_CHECKING:
    from pliant.data import Augment, ImageData, Split

__all__ = ["recalibrate_", "recalibrated", "training_images", "why_not", "with_own_statistics"]

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
    network = extract(model, subnet).eval()
    if _norms(network):
        recalibrate_(network, batches)
    return network


@torch.no_grad()
def recalibrate_(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    done: int = 0,
    on_progress: Callable[[str, int, int], object] = lambda subnet, done, total: None,
) -> int:
    """Recompute the BatchNorm statistics of a model in place, and put it in eval mode; no weight changes.

    A plain network gets those of its own activations. An adapted one gets every set that it has: of the largest and of
    the smallest depth, for which skip-aware norms have a set each; of each width, as slimmable networks do after the
    training; and of the norms of all exits. So it does what `torch.optim.swa_utils.update_bn` does for a plain network
    after its weights were averaged. All batches count alike (no decay). Statistics that several sub-networks share,
    such as those of the stem, are averaged over these.

    Args:
        model: a plain network or an adapted one, whose norms have a set for each width if it has widths.
            Sub-networks without a set of their own are for `recalibrated`.
        batches: as in `recalibrated`. Gone through once for each set, so a list, or what else can be begun again.
        done: how much an interrupted call had done, as `on_progress` was told: what it left in the model is kept.
        on_progress: called after each sub-network with its name, how many are done, and of how many.

    Returns:
        From how many images each has its statistics.

    Raises:
        ValueError: no batches, batches of something else than one tensor, or that cannot be begun again; statistics
            that are not finite; a wrapped model, one without batch norms, or whose widths or
            depths share one set of statistics. Where it fails, the model keeps what it had.
    """
    refuse_wrapped(model, "recalibrate_")
    if not isinstance(model, AdaptiveModule) and any(isinstance(part, AdaptiveModule) for part in model.modules()):
        raise ValueError(
            f"recalibrate_: got a {type(model).__name__} around an adapted model, expected the adapted model itself"
        )
    norms = _norms(model)
    _refuse_without(norms, model, "recalibrate_")
    passes = with_own_statistics(model, "recalibrate_") if isinstance(model, AdaptiveModule) else [None]
    if len(passes) > 1 and isinstance(batches, Iterator):
        raise ValueError(
            f"recalibrate_: got batches that end after one of {len(passes)} sub-networks, expected a list, or what "
            "else can be begun again"
        )
    seen = 0
    with _kept_if_it_fails(norms), evaluating(model), _averaging(norms):
        for number, subnet in enumerate(passes[done:], start=done + 1):
            seen = 0
            for images in batches:
                images = images_alone(images, "recalibrate_")
                if number == 1 and not seen:
                    _forget_(norms)
                _run(model, images, subnet)
                seen += len(images)
            if not seen:
                raise ValueError("recalibrate_: no batches were given")
            if not all(statistics.isfinite().all() for statistics in _statistics(norms)):
                raise ValueError("recalibrate_: these batches give statistics that are not finite (NaN or infinity)")
            on_progress(str(subnet or "all"), number, len(passes))
    model.eval()
    return seen


def _run(model: nn.Module, images: Tensor, subnet: SubNet | None) -> None:
    """Run all norms of a sub-network, those of its exits included."""
    if subnet is None:
        model(images)
    else:
        model(images, subnet=subnet, exits=subnet.exit is not None)


def with_own_statistics(model: AdaptiveModule, caller: str) -> list[SubNet]:
    """Return the sub-networks whose statistics the norms keep: of every width, at the largest and the smallest depth.

    Exits end there too, but those of the last one's pass are computed on its way.

    Raises:
        ValueError: all widths or depths share one set; `caller` is who needs them.
    """
    _refuse_without(_norms(model), model, caller)
    axes = Axes.of(model.configs)
    shared = "all widths (norms='shared')" if axes.width and axes.width.norms == "shared" else ""
    shared = "all depths (skip_aware_norms=False)" if axes.depth and not axes.depth.skip_aware_norms else shared
    if shared:
        raise ValueError(
            f"{caller}: this {type(model).__name__} has one set of norms for {shared}, so there is nothing to keep "
            "statistics of a sub-network in; extract it with them: pliant.recalibrated(model, subnet, batches)"
        )
    return list(model.space.with_own_norms)


def _refuse_without(norms: list[_BatchNorm], model: nn.Module, caller: str) -> None:
    if not norms:
        raise ValueError(
            f"{caller}: this {type(model).__name__} has no batch norms, so there are no statistics to take"
        )


@contextmanager
def _kept_if_it_fails(norms: list[_BatchNorm]) -> Iterator[None]:
    """Give norms their statistics back where what happens meanwhile fails."""
    before = [(statistics, statistics.clone()) for statistics in _statistics(norms)]
    try:
        yield
    except Exception:  # an interruption leaves what is done, to go on from
        for statistics, kept in before:
            statistics.copy_(kept)
        raise


@contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let norms take the plain average of what comes by, while all else is as at inference."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _forget_(norms: list[_BatchNorm]) -> None:
    """Begin all averages anew: a norm that has counted no batch takes the first as it is."""
    for statistics in _statistics(norms):
        statistics.zero_()


def _statistics(norms: list[_BatchNorm]) -> Iterator[Tensor]:
    return (statistics for norm in norms for statistics in norm.buffers())


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
) -> Iterable[Tensor]:
    """Return `count` training images, in batches, the same each time that one goes through them.

    So every sub-network, and the file of one, has the statistics of the same images, varied in the same way.

    Raises:
        ValueError: no data, or not so many training images.
    """
    if data is None:
        raise ValueError("recalibrate needs data: the norm statistics come from its training images")
    if not 0 < count <= len(data.train):
        raise ValueError(f"recalibrate={count}: allowed are 0 to {len(data.train)}, the training images of {data.name}")
    return _TrainingImages(data.train, count, augment, device, dtype)


@dataclass(frozen=True)
class _TrainingImages:
    split: Split
    count: int
    augment: Augment | None
    device: torch.device | str
    dtype: torch.dtype

    def __iter__(self) -> Iterator[Tensor]:
        # About equal batches, as all count alike.
        batches = ceil(self.count / _BATCH)
        batch_size = ceil(self.count / batches)
        left = self.count
        every = self.split.batches(batch_size, device=self.device, dtype=self.dtype, shuffle=True, augment=self.augment)
        for images, _ in islice(every, batches):
            yield images[:left]
            left -= len(images)


def _norms(network: nn.Module) -> list[_BatchNorm]:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if norm.track_running_stats]
