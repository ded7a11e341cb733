"""Weights of narrow sub-networks as parts of the whole network's, so that a file has them once.

ONNX Runtime cuts them when it loads the file, since they depend on no input, and runs the narrow network as if its
weights had been stored.

It needs `onnx_ir`, which comes with `onnxscript`, and is therefore imported where a file is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy
import onnx_ir as ir

__all__ = ["cut_weights_"]

# Queries, keys and values lie in one tensor, and patch merging joins four neighbours.
_PARTS = (1, 2, 3, 4)
# Bytes that are not worth the operators.
_SMALL = 1024


def cut_weights_(graph: ir.Graph, whole: ir.Graph) -> None:
    """Let a graph cut its weights out of those of the same names in another one, where they are leading parts of them.

    The graph gets initializers equal to the whole ones, in place; tensors that are no parts stay as they are.
    """
    first = next(iter(graph))
    for name, weight in list(graph.initializers.items()):
        other = whole.initializers.get(name)
        part = weight.const_value
        if other is None or other.const_value is None or part is None or part.nbytes <= _SMALL:
            continue
        if part.shape == other.const_value.shape:
            continue
        parts = _parts(part.numpy(), other.const_value.numpy())
        if parts is None:
            continue
        source = ir.Value(name=f"{name}/whole", type=other.type, shape=other.shape, const_value=other.const_value)
        graph.initializers.add(source)
        nodes, added = _cut(source, part.numpy().shape, parts, name)
        for value in added:
            graph.initializers.add(value)
        graph.insert_before(first, nodes)
        ir.convenience.replace_all_uses_with(weight, nodes[-1].outputs[0])
        del graph.initializers[name]


def _split(shape: Sequence[int], parts: Sequence[int]) -> list[int]:
    return [size for whole, count in zip(shape, parts, strict=True) for size in (count, whole // count)]


def _parts(part: numpy.ndarray, whole: numpy.ndarray) -> tuple[int, ...] | None:
    """Return into how many parts each dimension is split, whose leading entries make up `part`; none = it is none."""
    if part.ndim != whole.ndim or part.dtype != whole.dtype:
        return None
    tried = [
        [1] if size == all_ else [n for n in _PARTS if size % n == 0 and all_ % n == 0]
        for size, all_ in zip(part.shape, whole.shape, strict=True)
    ]
    for parts in itertools.product(*tried):
        kept = tuple(slice(size) for size in _split(part.shape, parts))
        if numpy.array_equal(whole.reshape(_split(whole.shape, parts))[kept].reshape(part.shape), part):
            return parts
    return None


def _cut(
    source: ir.Value, shape: Sequence[int], parts: Sequence[int], name: str
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the operators that cut a weight, and the numbers that they read."""
    numbers: list[ir.Value] = []

    def number(kind: str, values: Sequence[int]) -> ir.Value:
        tensor = ir.tensor(numpy.array(values, dtype=numpy.int64), name=f"{name}/{kind}")
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(values)]), const_value=tensor
        )
        numbers.append(value)
        return value

    assert source.shape is not None
    split, kept = _split(source.shape.numpy(), parts), _split(shape, parts)
    steps = (
        ("Reshape", [number("split", split)]),
        ("Slice", [number("starts", [0] * len(kept)), number("ends", kept), number("axes", range(len(kept)))]),
        ("Reshape", [number("shape", shape)]),
    )
    nodes: list[ir.Node] = []
    value = source
    for place, (kind, read) in enumerate(steps):
        nodes.append(ir.node(kind, [value, *read], name=f"{name}/cut{place}"))
        value = nodes[-1].outputs[0]
        value.name, value.type = f"{name}/cut{place}", source.type
    return nodes, numbers
