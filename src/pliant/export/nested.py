"""Turn a graph that computes every answer into one that stops at the first that is sure: conditions within conditions.

```
what answer 1 needs
If confidence 1 >= threshold 1
then answer 1
else what answer 2 needs and is not computed yet
     If confidence 2 >= threshold 2
     then answer 2
     else ...
```

It needs `onnx_ir`, which comes with `onnxscript`, and is therefore imported where a file is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy
import onnx_ir as ir

from pliant.export.onnx import EXIT, threshold_name
from pliant.runtime.session import OUTPUT

__all__ = ["nest_"]


@dataclass(frozen=True)
class _Step:
    """What is computed between two conditions.

    Attributes:
        number: of the sub-network that answers here, counted from 1.
        logits: what it answers.
        confidence: how sure it is; none at the last, which answers in any case.
        nodes: what no step before computes.
        initializers: weights that no step before uses.
    """

    number: int
    logits: ir.Value
    confidence: ir.Value | None
    nodes: list[ir.Node]
    initializers: list[ir.Value]


def nest_(model: ir.Model, numbers: Sequence[int], thresholds: Sequence[float]) -> None:
    """Let a graph stop at the first sure answer, in place.

    Weights go into the branch that uses them, since ONNX Runtime arranges those of a convolution for the processor only
    where they lie in the same graph. Those that several branches use lie in the outermost of them, once.

    Args:
        model: whose outputs are logits `[1, classes]` and confidence `[1]` of every sub-network in turn, of the last
            one the logits alone.
        numbers: of these sub-networks, counted from 1: what the output `exit` says.
        thresholds: of all but the last.
    """
    graph = model.graph
    steps = _divide(graph, numbers)
    graph.outputs.clear()
    graph.remove(list(graph))
    for name in list(graph.initializers):
        del graph.initializers[name]
    for number, threshold in zip(numbers, thresholds, strict=False):
        graph.initializers.add(_constant(threshold_name(number), numpy.float32(threshold)))
    nodes, outputs = _chain(steps, graph)
    for initializer in steps[0].initializers:
        graph.initializers.add(initializer)
    graph.extend(nodes)
    graph.outputs.extend(outputs)
    for value, name in zip(outputs, (OUTPUT, EXIT), strict=True):
        value.name = name


def _divide(graph: ir.Graph, numbers: Sequence[int]) -> list[_Step]:
    """Give every node and every weight to the first step that needs it; what none needs is left out."""
    outputs: list[ir.Value | None] = [*graph.outputs, None]
    pairs = list(zip(outputs[::2], outputs[1::2], strict=True))
    taken: dict[ir.Node, int] = {}
    weights: dict[ir.Value, int] = {}
    for step, pair in enumerate(pairs):
        waiting = [value for value in pair if value is not None]
        while waiting:
            value = waiting.pop()
            if value.is_initializer():
                weights.setdefault(value, step)
            node = value.producer()
            if node is not None and node not in taken:
                taken[node] = step
                waiting.extend(_reads(node))
    steps = []
    for step, (number, (logits, confidence)) in enumerate(zip(numbers, pairs, strict=True)):
        assert logits is not None
        nodes = [node for node in graph if taken.get(node) == step]
        own = [value for value, first in weights.items() if first == step]
        steps.append(_Step(number, logits, confidence, nodes, own))
    return steps


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the nodes of its branches read, if it has any."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _reads(inner)


def _chain(steps: Sequence[_Step], graph: ir.Graph) -> tuple[list[ir.Node], tuple[ir.Value, ir.Value]]:
    """Return the nodes of the outermost graph, the conditions behind each other inside, and its two outputs."""
    last = steps[-1]
    answer, outputs = _answer(last)
    nodes = [*last.nodes, *answer]
    for step, behind in reversed(list(pairwise(steps))):
        assert step.confidence is not None
        number = step.number
        then_nodes, then_outputs = _answer(step)
        branches = {
            "then_branch": ir.Graph([], then_outputs, nodes=then_nodes, name=f"answer of {number}"),
            "else_branch": ir.Graph([], outputs, nodes=nodes, initializers=behind.initializers, name=f"after {number}"),
        }
        threshold = graph.initializers[threshold_name(number)]
        compared = ir.node("GreaterOrEqual", [step.confidence, threshold], name=f"sure/{number}")
        # A condition is one number, which some runtimes want without a dimension.
        single = ir.node("Squeeze", compared.outputs, name=f"leaves/{number}")
        outputs = _outputs(step, "first_sure")
        chosen = ir.node("If", single.outputs, branches, outputs=outputs, name=f"stops/{number}")
        for node, kind in ((compared, "sure"), (single, "leaves")):
            node.outputs[0].name = f"{kind}/{number}"
        nodes = [*step.nodes, compared, single, chosen]
    return nodes, outputs


def _answer(step: _Step) -> tuple[list[ir.Node], tuple[ir.Value, ir.Value]]:
    """Return nodes that hand on what a step answers: a branch can only return what it computes itself."""
    outputs = _outputs(step, "answer")
    number = ir.tensor(numpy.array([step.number], dtype=numpy.int64))
    nodes = [
        ir.node("Identity", [step.logits], outputs=outputs[:1], name=f"answer/{step.number}"),
        ir.node("Constant", [], {"value": number}, outputs=outputs[1:], name=f"exit/{step.number}"),
    ]
    return nodes, outputs


def _outputs(step: _Step, kind: str) -> tuple[ir.Value, ir.Value]:
    # Names with a slash, as no other value has one, since names of branches must differ from those around them.
    logits = ir.Value(name=f"{kind}/logits/{step.number}", type=step.logits.type, shape=step.logits.shape)
    exit_type = ir.TensorType(ir.DataType.INT64)
    return logits, ir.Value(name=f"{kind}/exit/{step.number}", type=exit_type, shape=ir.Shape([1]))


def _constant(name: str, value: numpy.float32) -> ir.Value:
    tensor = ir.tensor(numpy.array(value, dtype=numpy.float32), name=name)
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]), const_value=tensor)
