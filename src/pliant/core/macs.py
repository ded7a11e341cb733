"""Multiply-accumulates of one image or text, and active parameters.

MACs are those of convolutions, linear layers and attention products; norms, activations, pooling and
additions are not counted, as is usual. PyTorch's own FLOP counter does the work (a MAC is two of its FLOPs);
here it learns the fused operators that it passes over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from pliant.core.errors import first_line
from pliant.core.inputs import InputSpec, arguments_of, input_spec, placed, run_on

__all__ = ["count_gmacs", "count_macs", "count_params_m"]

Shape = Sequence[int]
_aten = torch.ops.aten


def count_gmacs(network: nn.Module, inputs: int | InputSpec) -> float:
    """Count the multiply-accumulates of one input, in 10^9.

    The network is run on PyTorch's meta device, which computes shapes and no values: a large network costs
    milliseconds and no memory. One that cannot run there (its path depends on values) is run as it is.

    Args:
        network: a plain network, in eval mode.
        inputs: what it takes; or height and width of square images in pixels, of a network for text the number of
            tokens.

    Raises:
        ValueError: the image size is not a positive whole number, or the network does not take such inputs.
    """
    if not isinstance(inputs, InputSpec):
        if not isinstance(inputs, int) or isinstance(inputs, bool) or inputs < 1:
            raise ValueError(f"image_size={inputs!r}: allowed are whole numbers from 1 on")
        inputs = input_spec(network, inputs)
    try:
        return count_macs(lambda: _run_on_meta(network, inputs)) / 1e9
    except Exception:  # its path depends on values, or it does not take such inputs
        return count_macs(lambda: _run_as_it_is(network, inputs)) / 1e9


def count_macs(run: Callable[[], object]) -> int:
    """Call `run` without gradients and count the multiply-accumulates of what it ran."""
    counter = FlopCounterMode(display=False, custom_mapping=_FUSED)
    with torch.no_grad(), counter:
        run()
    return counter.get_total_flops() // 2


def count_params_m(network: nn.Module) -> float:
    """Count the parameters of a network in 10^6, those that are used twice once."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def _run_on_meta(network: nn.Module, inputs: InputSpec) -> None:
    """Run `network` over stand-ins that have a shape and no memory; it stays as it is itself."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    stand_ins: dict[str, Tensor] = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    dtype = next(network.parameters()).dtype
    args, kwargs = arguments_of(inputs.empty(1, dtype=dtype, device="meta"))
    torch.func.functional_call(network, stand_ins, args, kwargs)


def _run_as_it_is(network: nn.Module, inputs: InputSpec) -> None:
    parameter = next(network.parameters())
    example = placed(inputs.random(1, torch.Generator().manual_seed(0)), parameter.device, parameter.dtype)
    try:
        run_on(network, example)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, it does not take this
        raise ValueError(
            f"image_size, example: this {type(network).__name__} does not take {inputs} ({type(error).__name__}: "
            f"{first_line(error)}); pass another image_size=, or example=, one input"
        ) from error


def _attention_flops(query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    # Grouped queries share keys and values between heads: as many products as if each head had its own.
    batch, heads = query[0], query[1]
    return sdpa_flop_count(query, (batch, heads, *key[2:]), (batch, heads, *value[2:]))


def _projected_attention_flops(query: Shape, key: Shape, embed_dim: int, heads: int) -> int:
    """Count multi-head attention with its four projections; shapes `[batch, tokens, channels]`."""
    (batch, queries, _), keys = query, key[1]
    projections = 2 * batch * embed_dim * embed_dim * (2 * queries + 2 * keys)
    products = 2 * 2 * batch * queries * keys * embed_dim
    return projections + products


def _multi_head_flops(
    query: Shape, key: Shape, value: Shape, embed_dim: int, heads: int, *args: Any, **kwargs: Any
) -> int:
    return _projected_attention_flops(query, key, embed_dim, heads)


def _encoder_layer_flops(src: Shape, embed_dim: int, heads: int, *args: Any, **kwargs: Any) -> int:
    ffn_up = args[_FFN_UP - 3] if len(args) > _FFN_UP - 3 else kwargs["ffn_weight_1"]
    return _projected_attention_flops(src, src, embed_dim, heads) + 2 * 2 * prod(src[:2]) * prod(ffn_up)


def _vector_flops(matrix: Shape, *args: Any, **kwargs: Any) -> int:
    return 2 * prod(matrix)


def _vector_sum_flops(_added: Shape, matrix: Shape, *args: Any, **kwargs: Any) -> int:
    return 2 * prod(matrix)


# Position of `ffn_weight_1` among the arguments of the fused encoder layer.
_FFN_UP = 14

# Fused operators that torch.utils.flop_counter does not know; it hands over shapes in place of tensors.
_FUSED: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    _aten._scaled_dot_product_fused_attention_overrideable: _attention_flops,
    _aten._native_multi_head_attention: _multi_head_flops,
    _aten._transformer_encoder_layer_fwd: _encoder_layer_flops,
    _aten.mv: _vector_flops,
    _aten.addmv: _vector_sum_flops,
}
