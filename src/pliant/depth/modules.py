"""What the depth wing mixes into blocks and norms. Both ask the model's switch, and hold no state of their own."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from pliant.core.statistics import LateReset
from pliant.core.surgery import demote, mix_in, move_hooks, takes
from pliant.core.switch import Switch

__all__ = ["NormsCalled", "SkipAwareNorm", "SkippableBlock"]


class SkippableBlock(nn.Module):
    """A residual block that returns its input while its stage skips."""

    _pliant_switch: Switch
    _pliant_stage: int
    _pliant_stream: str
    _pliant_more_outputs: tuple[None, ...]

    @staticmethod
    def make_(block: nn.Module, switch: Switch, stage: int, outputs: int = 1) -> None:
        """Make `block`, which returns so many values, skippable, in place."""
        stream = next(iter(takes(block)), "input")
        more = (None,) * (outputs - 1)
        mix_in(block, SkippableBlock, "Skippable", switch=switch, stage=stage, stream=stream, more_outputs=more)

    @staticmethod
    def unmake_(block: nn.Module) -> None:
        """Undo `make_`."""
        demote(block, SkippableBlock)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block, or nothing at all."""
        if self._pliant_switch.skips(self._pliant_stage):
            x = args[0] if args else kwargs[self._pliant_stream]
            return (x, *self._pliant_more_outputs) if self._pliant_more_outputs else x
        return super().forward(*args, **kwargs)


class NormsCalled(nn.Module):
    """Keeps torch's own transformer layers from computing with the weights of their norms without calling them.

    They do so in eval mode, on a faster path; there a second set of the norm would never be used.
    """

    @staticmethod
    def make_(layer: nn.TransformerEncoderLayer) -> None:
        """Let `layer` call its norms always, in place."""
        mix_in(layer, NormsCalled, "NormsCalled")

    @staticmethod
    def unmake_(layer: nn.TransformerEncoderLayer) -> None:
        """Undo `make_`."""
        demote(layer, NormsCalled)

    @property
    def activation_relu_or_gelu(self) -> int:
        """The number of an activation that the faster path does not know."""
        return 0


class SkipAwareNorm(nn.Module):
    """A norm with a second set of parameters and statistics, used while its stage skips.

    The first set keeps the norm's own keys (`bn1.weight`); the second is the child `skip`
    (`bn1.skip.weight`). A checkpoint without the second set loads into both.
    """

    _pliant_switch: Switch
    _pliant_stage: int
    skip: nn.Module

    @staticmethod
    def make_(norm: nn.Module, switch: Switch, stage: int) -> None:
        """Give `norm` a second set that starts as a copy of the first, in place."""
        skip = copy.deepcopy(norm)
        move_hooks(skip, None)  # those of the norm run around both sets
        LateReset.make_(skip, switch)
        mix_in(norm, SkipAwareNorm, "SkipAware", switch=switch, stage=stage)
        norm.add_module("skip", skip)

    def bake(self, *, skips: bool) -> nn.Module:
        """Return the plain norm that runs for this choice."""
        skip = self.skip
        del self.skip
        LateReset.unmake_(skip)
        if skips:
            move_hooks(self, skip)
        demote(self, SkipAwareNorm)
        return skip if skips else self

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        skip = self._modules.get("skip")
        # What is set of a norm, such as `eps`, is set of both; each has tensors of its own.
        if skip is not None and name not in ("forward", "skip") and not name.startswith("_"):
            if isinstance(value, nn.Module):
                setattr(skip, name, copy.deepcopy(value))
            elif not isinstance(value, Tensor) and name not in self._parameters and name not in self._buffers:
                setattr(skip, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Normalise with the set that the running sub-network uses."""
        if self._pliant_switch.skips(self._pliant_stage):
            # Not `self.skip`: torch finds that by a slow way, which small networks feel.
            return self._modules["skip"](*args, **kwargs)  # type: ignore[misc]
        return super().forward(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = self.skip.state_dict()
        # Of a part of a checkpoint, another part has the second set.
        for name in names if all(prefix + name in state_dict for name in names) else ():
            own = prefix + name
            if (second := f"{prefix}skip.{name}") not in state_dict:
                # A copy: with `assign=True` the module takes the tensor itself.
                state_dict[second] = state_dict[own].detach().clone()
        super()._load_from_state_dict(state_dict, prefix, *args)
