"""A way around a fault of oneDNN in the backward pass of strided 1x1 convolutions with few input channels.

To compute the gradient of such a weight from channels-last tensors, oneDNN copies the positions that the stride reads
into a workspace of `positions * channels` numbers, but advances in it by whole vectors. With fewer channels than a
vector holds (8 with AVX2, 16 with AVX-512) it writes past the end: other tensors are overwritten, the process dies, or
threads overwrite each other's part and the gradient is wrong without a word. Whether the weight is a slice of a larger
one makes no difference. Seen in PyTorch 2.14.1 (oneDNN 3.12.0), float32 and bfloat16, results/strided_pointwise.json:

- AVX2: 64 images `[4, 16, 16]` to 8 channels, stride 2: the process dies with one thread; with two, gradients are wrong
  by up to 1.3 times the largest value.
- AVX-512: 4 images `[12, 112, 112]` to 24 channels, stride 2: segmentation fault; correct for images of 16 pixels.

Reported as https://github.com/uxlfoundation/oneDNN/issues/6035. Without a stride that code is not reached: the
positions are taken first, by an average over windows of one, and a 1x1 convolution of stride 1 follows. This is the
same function up to rounding; oneDNN would have made the same copy. Passes without gradients are left as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pliant.core.surgery import demote, mix_in

__all__ = ["StridedPointwise"]

# Channels in the longest vector of any x86 processor: 16 float32 in 512 bits.
VECTOR = 16


class StridedPointwise(nn.Module):
    """A strided 1x1 convolution that is differentiated without a stride where it has few input channels."""

    @staticmethod
    def make_(module: nn.Module, fewest_channels: int | None = None) -> bool:
        """Change `module`, in place, if it is a convolution that the fault can reach.

        Args:
            module: any.
            fewest_channels: with which it will ever run; none = its input channels.

        Returns:
            Whether it was changed.
        """
        reached = (
            isinstance(module, nn.Conv1d | nn.Conv2d)
            and not isinstance(module, StridedPointwise)
            and not is_parametrized(module)  # torch takes a class in front of ours for its own
            and set(module.kernel_size) == {1}
            and max(module.stride) > 1
            and module.groups == 1
            and (fewest_channels or module.in_channels) < VECTOR
            and (module.padding == "valid" or set(module.padding) == {0})
        )
        if reached:
            mix_in(module, StridedPointwise, "Pointwise")
        return reached

    @staticmethod
    def unmake_(module: nn.Module) -> None:
        """Undo `make_`, if it changed `module`."""
        if isinstance(module, StridedPointwise):
            demote(module, StridedPointwise)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        convolution: Any = self
        stride = convolution.stride
        channels = x.shape[-1 - len(stride)]
        if channels >= VECTOR or x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        pool = F.avg_pool1d if len(stride) == 1 else F.avg_pool2d
        convolution.stride = (1,) * len(stride)
        try:
            return super().forward(pool(x, 1, stride))
        finally:
            convolution.stride = stride
