"""The MSDNets of the papers, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pliant.models.msdnet.network import MSDNet

__all__ = ["PRESETS"]

_CIFAR = {"cifar10": 10, "cifar100": 100}
_imagenet = partial(
    MSDNet,
    5,
    mode="even",
    channels=32,
    growth=16,
    widening=(1, 2, 4, 4),
    bottleneck=(1, 2, 4, 4),
    num_classes=1000,
    large_images=True,
)

PRESETS: dict[str, Callable[..., MSDNet]] = {
    **{
        f"msdnet_{data}_k{exits}": partial(MSDNet, exits, num_classes=classes)
        for data, classes in _CIFAR.items()
        for exits in range(4, 9)
    },
    "msdnet_cifar100_even": partial(MSDNet, 7, base=4, step=2, mode="even", num_classes=100),
    **{f"msdnet_imagenet_step{step}": partial(_imagenet, base=step, step=step) for step in (4, 6, 7)},
}
"""`_kN`: N exits, steps of 1, 2, 3, ... layers (IMTA, section 4.1). `_even`: the setting for anytime prediction of the
MSDNet paper, section 5.2. `_stepN`: five exits, N layers before each."""
