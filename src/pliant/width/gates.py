"""The double-headed gate of DS-Net, and the block at whose end it stands.

Letters of shapes: B batch, C channels, F features, R routes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pliant.core.stream import averaged, stream_of
from pliant.core.surgery import demote, mix_in
from pliant.core.switch import Switch

__all__ = ["KEPT", "Attending", "DoubleHeadedGate", "GatePoint", "gate_of"]

# The child of a plain network's block that is left of its gate; blocks have children called `attention` themselves.
KEPT = "channel_attention"


class DoubleHeadedGate(nn.Module):
    """Looks at the average of the channels: one head scales them, the other chooses a route (DS-Net, section 3.3).

    The first is an attention over channels, `1 + tanh`, whose weights begin at zero: it begins as the identity. It
    belongs to every pass. The second, the slicing head, takes part where the gate is asked alone. Both read the same
    features.

    `offsets` are added to the scores of the routes: zeros, until a budget is set (`pliant.budget_gate_`). Both are
    float32, whatever the network computes in: a budget is a matter of their small differences.

    Args:
        channels: C, of the whole network.
        routes: R.
        attention: whether there is the first head.
        channel_dim: which dimension the channels are: 1 in `[B, C, H, W]`, -1 in `[B, T, C]`.
    """

    REDUCTION = 4  # C / F, as published
    FEWEST = 32  # features: a quarter of a small network's channels says too little of an image

    def __init__(self, channels: int, routes: int, *, attention: bool, channel_dim: int) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        features = max(self.FEWEST, channels // self.REDUCTION)
        self.reduce = nn.Linear(channels, features)
        self.expand = nn.Linear(features, channels) if attention else None
        if self.expand is not None:
            nn.init.zeros_(self.expand.weight)
            nn.init.zeros_(self.expand.bias)
        self.choose = nn.Linear(features, routes, bias=False)
        self.offsets: Tensor
        self.register_buffer("offsets", torch.zeros(routes))

    def features(self, stream: Tensor) -> Tensor:
        """Map the output of a block to `[B, F]`."""
        return self.reduce(averaged(stream, self.channel_dim)).relu()

    def raw_scores(self, features: Tensor) -> Tensor:
        """Map features to the scores of the routes before any offsets, float32 `[B, R]`."""
        return F.linear(features.float(), self.choose.weight.float())

    def scores(self, features: Tensor) -> Tensor:
        """Map features to the scores of the routes, float32 `[B, R]`, of which the best is taken."""
        return self.raw_scores(features) + self.offsets

    def attend(self, stream: Tensor, features: Tensor) -> Tensor:
        """Scale the channels of the output of a block."""
        if self.expand is None:
            return stream
        scales = 1 + torch.tanh(self.expand(features))
        shape = [scales.shape[0]] + [1] * (stream.dim() - 1)
        shape[self.channel_dim] = scales.shape[1]
        return stream * scales.view(shape)

    def forward(self, stream: Tensor) -> Tensor:
        """Scale the channels of the output of a block."""
        return self.attend(stream, self.features(stream))

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        before = self._buffers.get("offsets")
        super()._apply(*args, **kwargs)
        if before is not None and self.offsets.dtype != before.dtype:
            self.offsets = before.to(self.offsets.device)
        return self


class GatePoint(nn.Module):
    """A block at whose end a gate stands: the child `gate`."""

    _pliant_gate_switch: Switch

    @staticmethod
    def make_(block: nn.Module, switch: Switch) -> None:
        """Let `block`, which has a child `gate`, ask it, in place."""
        mix_in(block, GatePoint, "GatePoint", gate_switch=switch)

    @staticmethod
    def unmake_(block: nn.Module, *, attends: bool) -> None:
        """Undo `make_`; with `attends` its attention stays."""
        demote(block, GatePoint)
        gate: Any = block._modules.pop("gate")
        if attends and gate.expand is not None:
            del gate.choose, gate.offsets
            block.add_module(KEPT, gate)
            mix_in(block, Attending, "Attending")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block and its gate; where the gate is asked, the rest of the pass runs what it chose."""
        output = super().forward(*args, **kwargs)
        gate_pass = self._pliant_gate_switch.gate_pass
        if gate_pass is not None and gate_pass.takes_up:
            return gate_pass.taken_up()
        gate: Any = self._modules["gate"]
        stream = stream_of(output)
        features = gate.features(stream)
        output = _with_stream(output, gate.attend(stream, features))
        return output if gate_pass is None else gate_pass.divide(features, gate.scores(features), output)


class Attending(nn.Module):
    """A block of a plain network that keeps the attention of its gate: the child `channel_attention`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block and scale its channels."""
        output = super().forward(*args, **kwargs)
        attention: Any = self._modules[KEPT]
        return _with_stream(output, attention(stream_of(output)))


def gate_of(model: nn.Module) -> DoubleHeadedGate:
    """Return the gate of a model.

    Raises:
        ValueError: it has none.
    """
    gate = next((module for module in model.modules() if isinstance(module, DoubleHeadedGate)), None)
    if gate is None or not isinstance(gate.choose, nn.Linear):
        raise ValueError(f"this {type(model).__name__} has no gate; adapt it with pliant.Width(gate=pliant.Gate())")
    return gate


def _with_stream(output: Any, stream: Tensor) -> Any:
    return (stream, *output[1:]) if isinstance(output, tuple) else stream
