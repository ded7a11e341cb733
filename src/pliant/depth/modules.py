"""What the depth wing mixes into blocks and norms. Both ask the model's switch, and hold no state of their own."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from pliant.core.surgery import demote, mix_in
from pliant.core.switch import Switch

__all__ = ["SkipAwareNorm", "SkippableBlock"]


class SkippableBlock(nn.Module):
    """A residual block that returns its input while its stage skips."""

    _switch: Switch
    _stage: int

    @staticmethod
    def make_(block: nn.Module, switch: Switch, stage: int) -> None:
        """Make `block` skippable, in place."""
        mix_in(block, SkippableBlock, "Skippable", _switch=switch, _stage=stage)

    @staticmethod
    def unmake_(block: nn.Module) -> None:
        """Undo `make_`."""
        demote(block, SkippableBlock)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the block, or nothing at all."""
        if self._switch.skips(self._stage):
            return x
        return super().forward(x, *args, **kwargs)


class SkipAwareNorm(nn.Module):
    """A norm with a second set of parameters and statistics, used while its stage skips.

    The first set keeps the norm's own keys (`bn1.weight`); the second is the child `skip`
    (`bn1.skip.weight`). A checkpoint without the second set loads into both.
    """

    _switch: Switch
    _stage: int
    skip: nn.Module

    @staticmethod
    def make_(norm: nn.Module, switch: Switch, stage: int) -> None:
        """Give `norm` a second set that starts as a copy of the first, in place."""
        skip = copy.deepcopy(norm)
        mix_in(norm, SkipAwareNorm, "SkipAware", _switch=switch, _stage=stage)
        norm.add_module("skip", skip)

    def bake(self, *, skips: bool) -> nn.Module:
        """Return the plain norm that runs for this choice."""
        skip = self.skip
        del self.skip
        demote(self, SkipAwareNorm)
        return skip if skips else self

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Normalise with the set that the running sub-network uses."""
        if self._switch.skips(self._stage):
            # Not `self.skip`: torch finds that by a slow way, which small networks feel.
            return self._modules["skip"](x, *args, **kwargs)  # type: ignore[misc]
        return super().forward(x, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.skip.state_dict():
            own = prefix + name
            if own in state_dict:
                state_dict.setdefault(f"{prefix}skip.{name}", state_dict[own])
        super()._load_from_state_dict(state_dict, prefix, *args)
