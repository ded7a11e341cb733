"""Which values of several graphs are alike: equal operators compute them from alike values and equal weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from pliant.export.verify import ExportError

__all__ = ["Keys", "operation"]


class Keys:
    """Numbers values, alike ones equally, within a graph and from graph to graph."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], int] = {}
        self._of: dict[ir.Value, int] = {}

    def __getitem__(self, value: ir.Value) -> int:
        """Return the number of a value."""
        return self._of[value]

    def read(self, graph: ir.Graph, ends: Mapping[ir.Value, str]) -> set[int]:
        """Number all values of a graph, and return the numbers of its inputs and of what its nodes compute.

        Args:
            graph: all values that its nodes read are its own.
            ends: values that count as alike with those of the same name, whatever computes them.

        Raises:
            ExportError: a node has a graph of its own, as a loop has.
        """
        for place, value in enumerate(graph.inputs):
            self._note(value, "input", place)
        for value in graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            self._note(value, "weight", tensor.dtype, *tensor.shape, hashlib.sha256(tensor.tobytes()).digest())
        for node in graph:
            computed = (*operation(node), *(value if value is None else self[value] for value in node.inputs))
            for place, value in enumerate(node.outputs):
                if value in ends:
                    self._note(value, "end", ends[value])
                else:
                    self._note(value, *computed, place)
        return {self[value] for value in (*graph.inputs, *(value for node in graph for value in node.outputs))}

    def _note(self, value: ir.Value, *content: object) -> None:
        self._of[value] = self._known.setdefault(content, len(self._known))


def operation(node: ir.Node) -> Iterator[object]:
    """Yield what a node does, apart from what it reads.

    Raises:
        ExportError: it has a graph of its own.
    """
    yield from (node.domain, node.op_type)
    for _, attribute in sorted(node.attributes.items()):
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            raise ExportError(f"the network has loops or conditions of its own ({node.op_type})")
        yield ir.serde.serialize_attribute(attribute).SerializeToString()
