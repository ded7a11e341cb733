"""Do two networks with equal weights compute the same? Both run on one input, and all their modules are compared.

Outputs alone would not do: a classifier that starts from zeros answers zeros whatever comes before it, and a layer
scale of 1e-6 hides a block. So what every module returns is sampled, in the order of the calls, and compared relative
to its own size. Equal code gives equal numbers, bit for bit; the tolerance is for networks that differ in rounding
alone, such as those with two implementations of attention.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from pliant.core.adaptive import AdaptiveModule
from pliant.core.errors import first_line
from pliant.core.inputs import InputSpec, input_spec, placed
from pliant.core.modes import undisturbed
from pliant.core.subnet import SubNet
from pliant.readers.tracing import fresh_arguments, tensors_in

__all__ = ["Unproven", "difference"]

# How far apart results may be that differ in rounding alone, relative to the largest of them. Two implementations of
# attention differ by 1e-6, 3e-3 and 2e-2 in float32, float16 and bfloat16, at the end of 12 layers and inside of them.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TOLERANCE_ON_CUDA = 2e-3  # of float32, whose products may be TF32
# Of what lies inside of a network rounding makes a larger part than of its output.
INSIDE = 2
# Smaller values inside of a network count as rounding of larger ones.
LEAST_SCALE = 1e-5
# So many values of every output of a module are compared.
SAMPLES = 512
# Of a batch that a model was adapted with, so many inputs are enough.
BATCH = 2
# Where nobody knows the size: sides of images, the quick ones before the large ones; tokens, and steps of a signal.
IMAGE_SIZES = (32, 28, 64, 48, 96, 128, 224, 256, 16, 8)
LENGTHS = (128, 16, 4)
LENGTH_ANYWHERE = 8
# Tables of no more entries hold kinds of tokens, not tokens.
FEW_KINDS = 16


class Unproven(Exception):
    """Two networks cannot be compared, and neither of them is to blame; the message says why."""


@dataclass(frozen=True)
class _Pass:
    """What a network returned, and samples of what every call of a module in it returned, in order."""

    outputs: list[Tensor]
    calls: list[list[Tensor]]


def difference(
    model: nn.Module, again: nn.Module, subnets: Sequence[SubNet | None], *, size: int | None, example: Any = None
) -> str | None:
    """Say where two networks with the same weights compute something else; none if they do not.

    Args:
        model: runs in eval mode, and keeps no trace of it.
        again: the other, on the same device.
        subnets: which sub-networks are compared; none = what a call without a sub-network runs.
        size: pixels of a side, or tokens, of what `model` takes; none = several are tried.
        example: one input of `model`; none = one is made by what its first layers are.

    Raises:
        Unproven: no input could be made that `model` takes, what it returns says nothing, or memory is short.
        ValueError: `model` fails on the example.
    """
    with warnings.catch_warnings(), _eager(model):
        warnings.simplefilter("ignore")
        try:
            given, expected = _first_pass(model, subnets[0], size, example)
            for subnet in subnets:
                expected = expected if subnet == subnets[0] else _next_pass(model, given, subnet)
                found = _compared(expected, again, given, subnet)
                if found:
                    return found + (f" in {subnet}" if subnet else "")
        except torch.OutOfMemoryError as error:
            raise Unproven(f"memory is short ({first_line(error)})") from None
    return None


def _eager(model: nn.Module) -> AbstractContextManager[Any]:
    """Run without compiling, where something in the model would be compiled now."""
    compiled = any(getattr(module, "_compiled_call_impl", None) or _is_wrapper(module) for module in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _is_wrapper(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules


def _first_pass(model: nn.Module, subnet: SubNet | None, size: int | None, example: Any) -> tuple[Any, _Pass]:
    """Find an input that the model takes; return it and the pass of it."""
    if example is not None:
        given = _placed(example, model)
        try:
            expected = _run(model, given, subnet)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(f"example: this {type(model).__name__} fails on it ({_told(error)})") from None
        return given, _meaningful(expected)
    failure: Exception | None = None
    for candidate, dtype in itertools.product(_candidates(model, size), _dtypes(model)):
        try:
            given = _placed(candidate, model, dtype)
            expected = _run(model, given, subnet)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever it is, the network does not take this
            failure = failure or error
            continue
        return given, _meaningful(expected)
    assert failure is not None
    raise Unproven(f"no input was found that this {type(model).__name__} takes ({_told(failure)})")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _next_pass(model: nn.Module, given: Any, subnet: SubNet | None) -> _Pass:
    try:
        return _run(model, given, subnet)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of the network that is saved, whatever that is worth
        raise Unproven(f"its sub-network {subnet} fails on an input ({_told(error)})") from None


def _meaningful(result: _Pass) -> _Pass:
    if not any(tensor.numel() for tensor in result.outputs):
        raise Unproven("what it returns holds no tensors")
    if not any(tensor.isfinite().any() for tensor in result.outputs):
        raise Unproven("its output is not finite")
    return result


def _candidates(model: nn.Module, size: int | None) -> Iterator[Any]:
    """Inputs that the model may take, the likeliest first, always the same random numbers."""
    if isinstance(model, AdaptiveModule) and model.example_spec is not None:
        known = InputSpec(model.example_spec)
        for batch in (BATCH, None):
            yield known.random(batch, torch.Generator().manual_seed(0))
    sizes = () if size is None else (size,)
    if input_spec(model, 1).vocabulary:
        yield from _texts(model, sizes)
        return
    specs = [*_first_layer(model, sizes), *(input_spec(model, tried) for tried in (*sizes, *IMAGE_SIZES))]
    for spec in dict.fromkeys(specs):
        yield spec.random(1, torch.Generator().manual_seed(0))


def _texts(model: nn.Module, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Tokens. On other devices than a CPU none are tried that might not be taken: a wrong index ends their context."""
    lengths, vocabulary = (*sizes, *LENGTHS), input_spec(model, 1).vocabulary
    if _device(model).type != "cpu":
        sizes_of_tables = [part.num_embeddings for part in model.modules() if isinstance(part, nn.Embedding)]
        vocabulary = min((size for size in sizes_of_tables if size > FEW_KINDS), default=min(sizes_of_tables))
        lengths = (LENGTH_ANYWHERE,)
    for length in dict.fromkeys(lengths):
        yield InputSpec.of((length,), vocabulary).random(1, torch.Generator().manual_seed(0))


def _first_layer(model: nn.Module, sizes: Sequence[int]) -> Iterator[InputSpec]:
    """What a network takes whose first layer is not one of images."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first: nn.Module | None = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if isinstance(first, nn.Linear):
        yield InputSpec.of((first.in_features,))
        yield from (InputSpec.of((length, first.in_features)) for length in LENGTHS)
    elif isinstance(first, nn.Conv1d):
        yield from (InputSpec.of((first.in_channels, length)) for length in (*sizes, *LENGTHS))
    elif isinstance(first, nn.Conv3d):
        yield from (InputSpec.of((first.in_channels, 8, side, side)) for side in (*sizes, 112, 32, 16))


def _dtypes(model: nn.Module) -> list[torch.dtype]:
    """The floating point types of the weights, the first one's first."""
    found = [tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()]
    return list(dict.fromkeys(found)) or [torch.get_default_dtype()]


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _placed(example: Any, model: nn.Module, dtype: torch.dtype | None = None) -> Any:
    """An example on the device of the model, as `arguments_of` takes it, its floating point numbers of one type."""
    args, kwargs = fresh_arguments(example)
    return placed(args or kwargs, _device(model), dtype)


def _run(network: nn.Module, given: Any, subnet: SubNet | None) -> _Pass:
    """Run a network, from the same random numbers each time, and leave no trace of it."""
    here, calls = threading.get_ident(), []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == here:
            calls.append([_sample(tensor) for tensor in tensors_in(output)])

    args, kwargs = fresh_arguments(given)
    # For all modules of the process, since hooks on the model's own would be seen by libraries that look for them.
    handle = register_module_forward_hook(note)
    try:
        with undisturbed(network):
            output = network(*args, **kwargs) if subnet is None else network(*args, subnet=subnet, **kwargs)
    finally:
        handle.remove()
    return _Pass([tensor.detach().clone() for tensor in tensors_in(output)], calls)


def _sample(tensor: Tensor) -> Tensor:
    """Evenly spaced values of a tensor, copied: layers that work in place may overwrite it."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLES)].clone()


def _compared(expected: _Pass, again: nn.Module, given: Any, subnet: SubNet | None) -> str | None:
    try:
        found = _run(again, given, subnet)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the same input was taken by the network that is saved
        return f"fails with {_told(error)}"
    if _shapes(found.outputs) != _shapes(expected.outputs):
        return f"returns {_shapes(found.outputs)}, expected {_shapes(expected.outputs)}"
    pairs = list(zip(found.outputs, expected.outputs, strict=True))
    off = max(_off(one, other) / _tolerance(other) for one, other in pairs)
    if off > 1:
        return f"gives another output, off by {max(_off(*pair) for pair in pairs):.1%} of the largest value"
    if [_shapes(call) for call in found.calls] != [_shapes(call) for call in expected.calls]:
        return None  # another way to the same output
    inside = [pair for calls in zip(found.calls, expected.calls, strict=True) for pair in zip(*calls, strict=True)]
    off = max((_off(*pair, LEAST_SCALE) / (INSIDE * _tolerance(pair[1])) for pair in inside), default=0.0)
    return "computes something else inside, which these weights hide from its output" if off > 1 else None


def _shapes(tensors: Sequence[Tensor]) -> list[list[int]]:
    return [list(tensor.shape) for tensor in tensors]


def _tolerance(tensor: Tensor) -> float:
    if tensor.is_cuda and tensor.dtype == torch.float32:
        return TOLERANCE_ON_CUDA
    return TOLERANCES.get(tensor.dtype, TOLERANCES[torch.float32])


def _off(one: Tensor, other: Tensor, least: float = 0.0) -> float:
    """The largest difference, relative to the largest of `other`; infinite where not the same values are finite."""
    if torch.equal(one, other):
        return 0.0
    one, other = one.double(), other.double()
    finite = other.isfinite()
    if not torch.equal(finite, one.isfinite()):
        return float("inf")
    one, other = one[finite], other[finite]
    if torch.equal(one, other):
        return 0.0
    return ((one - other).abs().max() / other.abs().max().clamp(min=max(least, 1e-30))).item()
