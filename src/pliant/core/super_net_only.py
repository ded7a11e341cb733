"""Regularisation that acts in the super-net's passes only."""

from __future__ import annotations

from torch import Tensor, nn

from pliant.core.surgery import demote, mix_in
from pliant.core.switch import Switch

__all__ = ["SuperNetOnly"]


class SuperNetOnly(nn.Module):
    """Stochastic depth or dropout that passes its input on in all sub-networks but the super-net.

    A smaller network learns what the super-net does on the same images, and needs all of what it has: the base-net of
    ADN keeps all its blocks (paper, section 4, and released code), and DS-MBNet drops features in its largest network
    alone (released code).
    """

    _pliant_switch: Switch

    @staticmethod
    def make_(module: nn.Module, switch: Switch) -> None:
        """Let `module` act in the super-net only, in place."""
        mix_in(module, SuperNetOnly, "SuperNet", switch=switch)

    @staticmethod
    def unmake_(module: nn.Module) -> None:
        """Undo `make_`."""
        demote(module, SuperNetOnly)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` to the same shape: parts of it dropped at random, or nothing."""
        return super().forward(x) if self._pliant_switch.at_largest else x
