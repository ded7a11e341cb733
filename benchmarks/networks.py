"""Networks with random weights whose answers can be compared: neither zero nor vanishing."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import pliant
from pliant.core.adaptive import AdaptiveModule

__all__ = ["adapted"]

PASSES = 2
BATCH = 16


def adapted(name: str, config: pliant.Depth | pliant.Width, image_size: int) -> AdaptiveModule:
    """Create a network and adapt it, with norm statistics of its own random weights.

    Without these the signal of a deep network vanishes before its last layer, and every file of it would be equal to
    every other; for the same reason a last layer that begins at zero gets random weights.
    """
    torch.manual_seed(0)
    plain = pliant.create_model(name)
    for module in plain.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.trunc_normal_(module.weight, std=0.02)
    model = pliant.adapt_(plain, config)
    assert isinstance(model, AdaptiveModule)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = None  # a plain mean over the passes
        norm.reset_running_stats()
    trained = model.subnets if isinstance(config, pliant.Width) else (model.space.largest, model.space.smallest)
    model.train()
    with torch.no_grad():
        for subnet in trained:
            for _ in range(PASSES if norms else 0):
                model(torch.randn(BATCH, 3, image_size, image_size), subnet=subnet)
    return model.eval()
