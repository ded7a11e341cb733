"""Optimizer and learning-rate schedule of a recipe, all of them torch's own."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, lr_scheduler
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import LRScheduler

from pliant.train.recipe import Optimizer, Schedule

_EMBEDDING = re.compile(r"token$|^pos_embed|^position_embedding|^relative_position_bias")

__all__ = ["build_optimizer", "build_schedule"]


def build_optimizer(model: nn.Module, config: Optimizer) -> TorchOptimizer:
    """Make the optimizer of all parameters that learn; those that the config names do not decay."""
    embeddings = _embeddings(model)
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "vectors" if parameter.ndim <= 1 else "embeddings" if name in embeddings else "weights"
            (others if kind in config.no_decay else decaying).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    # Not fused: torch's fused SGD cannot take up parameters that get their first gradient later than others.
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def _embeddings(model: nn.Module) -> set[str]:
    """Names of the parameters that are looked up or added to tokens, as torchvision, timm and transformers call them.

    timm's models name their own, in a method that its optimizers ask.
    """
    found = {name for name, _ in model.named_parameters() if _EMBEDDING.search(name.rpartition(".")[2])}
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            found.add(f"{path}.weight")
        if hasattr(module, "no_weight_decay"):
            found |= {f"{path}.{name}".lstrip(".") for name in module.no_weight_decay()}  # type: ignore[operator]
    return found


def build_schedule(optimizer: TorchOptimizer, config: Schedule, *, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """Make the schedule, to be moved on after every step."""
    steps = epochs * steps_per_epoch
    if config.name == "one_cycle":
        # Momentum stays as the recipe says: cycling it too would make the recipe's value a lie.
        peaks = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=config.rise, cycle_momentum=False)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.name == "cosine":
        # The last step, not the one after it, has the final rate.
        main = lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup_steps - 1), eta_min=config.final_lr)
    else:
        milestones = [epoch * steps_per_epoch - warmup_steps for epoch in config.milestones]
        main = lr_scheduler.MultiStepLR(optimizer, milestones, gamma=config.gamma)
    if not warmup_steps:
        return main
    rise = lr_scheduler.LinearLR(optimizer, start_factor=config.warmup_start, total_iters=warmup_steps)
    return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup_steps])
