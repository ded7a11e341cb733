"""Whether a block hands its input on, so that it can be skipped: found out by silencing its layers.

A residual block computes `x + f(x)`. With all weights of a copy set to zero nothing is left of `f`, and out comes
`x`, perhaps through a last activation or norm. A block without a shortcut gives a constant.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from pliant.readers.tracing import Call

__all__ = ["keeps_input", "keeps_shape", "mixes_channels", "shortcut_norms"]

# The usual activations, ReLU, ReLU6, GELU, SiLU, Hardswish, Softplus, leave what lies here as it is, or nearly.
LOWEST, HIGHEST = 3.5, 5.5
TOLERANCE = 0.05


def mixes_channels(module: nn.Module) -> bool:
    """Whether a module has a matrix or a kernel of its own or inside: without one there is nothing to save."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


def keeps_shape(call: Call) -> bool:
    """Whether the residual stream left a module as it came in: one tensor of the same shape and type."""
    x, out = call.stream, call.result
    return x is not None and out is not None and x.shape == out.shape and x.dtype == out.dtype


def keeps_input(call: Call) -> bool:
    """Whether a module is a residual block of which only the input is left when its weights are zero.

    Scales, which are vectors, are once zero and once one: a norm at the end of a branch ends it with the first,
    and a norm behind the addition passes the input with the second.
    """
    if not keeps_shape(call) or not mixes_channels(call.module):
        return False
    for scale in (0.0, 1.0):
        x = _noise(call, seed=0)
        out = _run(_silenced(call.module, scale), call, x)
        if out is not None and out.shape == x.shape and _is_handed_on(x.float(), out.float()):
            return True
    return False


def _is_handed_on(x: Tensor, out: Tensor) -> bool:
    def near(expected: Tensor) -> bool:
        return torch.isclose(out, expected, rtol=TOLERANCE, atol=TOLERANCE).all().item() is True

    if near(x):
        return True
    # Behind a layer norm, or an RMS norm, over the channels, or over all but the batch.
    for dims in ((1,), (-1,), tuple(range(1, x.dim()))):
        if math.prod(x.shape[dim] for dim in dims) < 3:
            continue  # too few for a norm of them to be told from a constant
        centred = x - x.mean(dims, keepdim=True)
        if any(near(part / part.square().mean(dims, keepdim=True).add(1e-5).sqrt()) for part in (centred, x)):
            return True
    return False


def shortcut_norms(call: Call, is_norm: Callable[[nn.Module], bool]) -> tuple[set[str], bool]:
    """Find the norms on the shortcut of a block that changes the shape of its input.

    One layer after the other is switched on while the rest is silenced. If the output then follows the input, the
    layer lies on the shortcut, and with it the norms that it feeds.

    Returns:
        Names of the norms within the block, and whether the block has a shortcut at all.
    """
    always, found = _norms_reached(call, None, is_norm)
    norms: set[str] = set()
    for name, module in _silenced(call.module, 1.0).named_modules():
        if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)):
            reached, follows = _norms_reached(call, name, is_norm)
            if follows:
                found = True
                norms |= reached - always
    return norms, found


def _norms_reached(call: Call, active: str | None, is_norm: Callable[[nn.Module], bool]) -> tuple[set[str], bool]:
    """With only the layer `active` switched on: which norms' inputs, and does the output, follow the input."""
    block = _silenced(call.module, 1.0)
    if active is not None:
        for parameter in block.get_submodule(active).parameters(recurse=False):
            # A mean, so that neither zeros from the initialisation nor signs can cancel what comes in.
            parameter.fill_(1 / parameter[0].numel() if parameter.dim() > 1 else 0.0)
    seen: list[dict[str, Tensor]] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, args: seen[-1].update({name: args[0].clone()})

    for name, module in block.named_modules():
        if is_norm(module):
            module.register_forward_pre_hook(watch(name))
    outputs = []
    for seed in (0, 1):
        seen.append({})
        outputs.append(_run(block, call, _noise(call, seed)))
    one, other = seen
    reached = {name for name in one if name in other and _differ(one[name], other[name])}
    return reached, outputs[0] is not None and outputs[1] is not None and _differ(outputs[0], outputs[1])


def _differ(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)


def _silenced(block: nn.Module, scale: float) -> nn.Module:
    """Copy a block with all weights and biases zero, all scales `scale`, and fresh norm statistics."""
    silent = copy.deepcopy(block)
    for module in list(silent.modules()):
        if parametrize.is_parametrized(module):
            _settle_parametrized_(module)
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
    for name, parameter in silent.named_parameters():
        parameter.fill_(scale if _is_scale(name, parameter) else 0.0)
    return silent


def _settle_parametrized_(module: nn.Module) -> None:
    """Turn what is computed from other parameters into parameters: a weight norm of zeros would be 0 / 0.

    torch's own `remove_parametrizations` also changes the class, which a copy shares with its original.
    """
    values = {name: getattr(module, name).clone() for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _is_scale(name: str, parameter: Tensor) -> bool:
    last = name.rpartition(".")[2]
    return parameter.dim() <= 1 and "bias" not in last and "beta" not in last


def _noise(call: Call, seed: int) -> Tensor:
    x = call.stream
    assert x is not None
    values = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    return (LOWEST + (HIGHEST - LOWEST) * values).to(x)


def _run(block: nn.Module, call: Call, x: Tensor) -> Tensor | None:
    """Run a silenced block on other values of the residual stream; none if it does not bear that."""
    try:
        output = block(x.clone(), *call.args[1:], **call.kwargs)
    except Exception:
        # Zeros are not what it was made for: then nothing is known of it, and it stays as it is.
        return None
    return Call(call.path, block, None, (), {}, output).result
