"""`extract`: one sub-network as a plain module that knows nothing of pliant."""

from __future__ import annotations

import copy

from torch import nn

from pliant import readers
from pliant.core.adaptive import AdaptiveModule, StageEnd
from pliant.core.subnet import SubNet
from pliant.core.surgery import shared_copy
from pliant.core.wrapped import refuse_wrapped
from pliant.depth import transform as depth
from pliant.depth.config import Depth

__all__ = ["extract"]


def extract(model: nn.Module, subnet: str | SubNet, share: bool = False) -> nn.Module:
    """Return one sub-network as a module of the library's own class, with the library's own keys.

    Args:
        model: an adapted model; it is not changed.
        subnet: which sub-network.
        share: use the model's own tensors, copying none: the network follows when the model is trained
            on, and several can be served side by side at no memory.

    Raises:
        ValueError: the model is not adapted, is wrapped, or has no such sub-network.
    """
    refuse_wrapped(model, "extract")
    if not isinstance(model, AdaptiveModule):
        raise ValueError(f"extract: this {type(model).__name__} has no sub-networks; adapt it first with pliant.adapt_")
    chosen = model.space.parse(subnet)
    plain = shared_copy(model)
    adaptation = plain._adaptation
    AdaptiveModule.unmake_(plain)
    for stage in adaptation.anatomy.stages:
        StageEnd.unmake_(plain.get_submodule(stage.blocks[-1].path))
    for config in adaptation.configs:
        assert isinstance(config, Depth)
        depth.bake_(plain, adaptation.anatomy, config, chosen)
    readers.settle_(plain, adaptation.anatomy)
    return plain if share else copy.deepcopy(plain)
