"""What the paper of a network counts for a sub-network, beside what runs of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.subnet import SubNet
from pliant.extract import original
from pliant.models.msdnet import MSDNet, paper_counts, steps_of

__all__ = ["paper_rows"]


def paper_rows(model: nn.Module, subnets: Sequence[str | SubNet], image_size: int | None) -> list[dict[str, float]]:
    """Count sub-networks as the paper of their network does, to be compared with what it prints.

    The papers of MSDNet and IMTA count ReLUs, pools and all earlier classifiers; `gmacs` is what runs. The layers that
    exits got for collaboration are in neither paper's figures. Other networks have no convention of their own.

    Args:
        model: any; adapted with exits, and an MSDNet, if there is something to count.
        subnets: of the model.
        image_size: height and width in pixels; none = the network takes no image.

    Returns:
        For each sub-network `paper_gmacs` and `paper_params_m`, in 10^9 and 10^6; empty for other networks.
    """
    if image_size is None or not isinstance(model, AdaptiveModule) or not model.space.exit_stages:
        return [{} for _ in subnets]
    network = original(model)
    if not isinstance(network, MSDNet) or not all(step.has_exit for step in steps_of(network)):
        return [{} for _ in subnets]
    counts = paper_counts(network, image_size)
    rows = []
    for subnet in subnets:
        exit_number = model.space.parse(subnet).exit
        assert exit_number is not None
        gmacs, params_m = counts[exit_number - 1]
        rows.append({"paper_gmacs": gmacs, "paper_params_m": params_m})
    return rows
