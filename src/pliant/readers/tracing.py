"""What every module of a network took and gave in one example forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pliant.core.inputs import arguments_of

__all__ = ["Call", "fresh_arguments", "record", "tensors_in"]


@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        path: the module's path in the network.
        module: the module.
        parent: the call that it happened in; none for the network itself.
        args: its positional arguments; the first one of a block is the residual stream.
        kwargs: its keyword arguments.
        output: what it returned.
    """

    path: str
    module: nn.Module
    parent: Call | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = field(default=None)

    @property
    def stream(self) -> Tensor | None:
        """The residual stream that came in; none where the first argument is no floating point tensor."""
        return _floating(self.args[0]) if self.args else None

    @property
    def result(self) -> Tensor | None:
        """The residual stream that went out: the output, or the first of several."""
        several = type(self.output) in (tuple, list) and len(self.output) > 1
        return _floating(self.output[0] if several else self.output)

    @property
    def outputs(self) -> int:
        """How many values were returned."""
        return len(self.output) if type(self.output) in (tuple, list) else 1

    @property
    def kind(self) -> type[nn.Module]:
        """The class of the module."""
        return type(self.module)

    def within(self, other: Call) -> bool:
        """Whether this call happened in another one."""
        parent = self.parent
        while parent is not None and parent is not other:
            parent = parent.parent
        return parent is other


def _floating(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) and value.is_floating_point() else None


def fresh_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Do as `core.inputs.arguments_of`, with copies: a network may change its input in place, and it is needed again.

    Raises:
        ValueError: as `arguments_of`.
    """
    return tree_map_only(Tensor, Tensor.clone, arguments_of(example))


def record(model: nn.Module, example: Any) -> tuple[list[Call], Any]:
    """Run a network once; return all calls in the order in which they began, and the output.

    Raises:
        ValueError: the network fails on the example.
    """
    args, kwargs = fresh_arguments(example)
    paths = {module: path for path, module in model.named_modules()}
    calls: list[Call] = []
    stack: list[Call | None] = [None]

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call(paths[module], module, stack[-1], args, kwargs)
        calls.append(call)
        stack.append(call)

    def end(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = stack.pop()
        assert call is not None and call.module is module
        call.output = output

    hooks = [module.register_forward_pre_hook(begin, with_kwargs=True) for module in paths]
    hooks += [module.register_forward_hook(end, with_kwargs=True) for module in paths]
    try:
        output = model(*args, **kwargs)
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors_in([*args, *kwargs.values()]))
        raise ValueError(
            f"no reader knows this {type(model).__name__}, and it fails on the example {shapes} with "
            f"{type(error).__name__}: {reason[0]}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return calls, output


def tensors_in(output: Any) -> list[Tensor]:
    """Return all tensors in what a network returned, however it is wrapped."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return [tensor for part in output for tensor in tensors_in(part)]
    return []
