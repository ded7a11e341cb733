"""What is measured: each sub-network of an adaptive model, or a plain network by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule, as_adaptive, every_subnet
from pliant.core.subnet import SubNet
from pliant.core.surgery import own_parts_
from pliant.create import identify
from pliant.extract import extract, original
from pliant.recalibrate import recalibrated, why_not

__all__ = ["Candidate", "chosen_subnets", "find_candidates", "model_name", "ship_"]


@dataclass(frozen=True)
class Candidate:
    """One row to be.

    Attributes:
        name: the sub-network, or what a plain network is called.
        model: the model that was given, or the recalibrated network.
        run: images to logits through that model: `model(x, subnet=...)`.
        network: the plain network that would be shipped; its tensors are the model's own, or after `ship_` copies.
    """

    name: str
    model: nn.Module
    run: Callable[[Tensor], Tensor]
    network: nn.Module


def find_candidates(
    model: nn.Module,
    subnets: Sequence[str | SubNet] | None,
    name: str,
    recalibrate_on: Iterable[Tensor] | None = None,
) -> list[Candidate]:
    """List what is to be measured, smallest first.

    Args:
        model: adaptive or plain.
        subnets: which sub-networks; none = all.
        name: what to call a plain network.
        recalibrate_on: training images, in batches that can be begun again, with which the norm statistics of every
            sub-network that was not trained are taken anew; none = they stay.

    Raises:
        ValueError: an unknown sub-network, too many, or sub-networks asked of a plain network.
    """
    if not isinstance(model, AdaptiveModule) and subnets is None:
        return [Candidate(name, model, run=model, network=model)]
    model = as_adaptive(model, "measure")
    candidates = []
    for subnet in chosen_subnets(model, subnets):
        if recalibrate_on is not None and not why_not(model, subnet):
            network = recalibrated(model, subnet, recalibrate_on)
            candidates.append(Candidate(str(subnet), network, run=network, network=network))
        else:
            network, run = extract(model, subnet, share=True), partial(model, subnet=str(subnet))
            candidates.append(Candidate(str(subnet), model, run=run, network=network))
    return candidates


def chosen_subnets(model: AdaptiveModule, subnets: Iterable[str | SubNet] | None) -> Sequence[SubNet]:
    """Return the sub-networks that are named, each once, smallest first; none = all.

    Raises:
        ValueError: an unknown one, an empty list, or all of a model that has more than `MOST_LISTED`.
    """
    if subnets is None:
        way_out = "name some: subnets=model.subnets.evenly_spaced(16), or --subnet smallest --subnet largest"
        return every_subnet(model, "subnets", way_out)
    wanted = {model.space.parse(subnet) for subnet in subnets}
    if not wanted:
        raise ValueError(f"subnets: got no sub-network to measure, expected some of {model.subnets}")
    return sorted(wanted, key=model.space.place)


def ship_(candidates: Iterable[Candidate]) -> None:
    """Let the networks have their weights as they would ship, before they are timed.

    Those of a narrow one are parts of wider weights, which do not lie together: every pass would take time for that,
    and the whole weights would count as its memory.
    """
    made: dict[Any, Tensor] = {}
    for candidate in candidates:
        if candidate.network is not candidate.model:
            own_parts_(candidate.network, made)


def model_name(model: nn.Module) -> str:
    """Return the name that makes a model of this structure, such as `torchvision:resnet50`, or its class."""
    plain = original(model) if isinstance(model, AdaptiveModule) else model
    source = identify(plain)
    return source.name if source else type(plain).__name__
