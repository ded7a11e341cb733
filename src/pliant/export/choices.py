"""Merge graphs of several sub-networks into one that computes whichever is asked for: conditions where they differ.

```
what all compute alike
If condition            at every point where the graphs meet again
then what the first graph computes on the way there
else what the second one does
what all compute alike, from what came out of the condition
...
```

Where the conditions go is neither listed nor guessed: whatever is not alike lies within one.

It needs `onnx_ir`, which comes with `onnxscript`, and is therefore imported where a file is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy
import onnx_ir as ir

from pliant.export.alike import Keys, operation
from pliant.export.verify import ExportError

__all__ = ["Choice", "computed", "merged"]

# Bytes of what every branch may have its own: shapes and single numbers.
_SMALL = 1024


@dataclass(frozen=True)
class Choice:
    """A point where graphs meet.

    Attributes:
        output: the value there, as an index of the graphs' outputs.
        conditions: single truth values, one for each graph but the last: the first that holds chooses its graph, and
            none the last.
        name: of the value; no other name begins with it.
    """

    output: int
    conditions: Sequence[ir.Value]
    name: str


@dataclass(frozen=True)
class _Branch:
    """What one graph computes on the way to a meeting point, up to what all compute alike; `nodes` in order."""

    nodes: list[ir.Node]
    end: ir.Value
    name: str

    def reads(self) -> set[ir.Value]:
        return _reads(self.nodes)


@dataclass
class _Scope:
    """A graph that is being written; `prefix` is what its names begin with."""

    prefix: str = ""
    around: _Scope | None = None
    nodes: list[ir.Node] = field(default_factory=list)
    weights: list[ir.Value] = field(default_factory=list)
    values: dict[int, ir.Value] = field(default_factory=dict)

    def declare(self, key: int, like: ir.Value, name: str = "") -> ir.Value:
        """Return a value of this scope, which a node computes."""
        value = ir.Value(name=name or f"{self.prefix}{like.name}", type=like.type, shape=like.shape)
        self.values[key] = value
        return value

    def hold(self, key: int, weight: ir.Value) -> ir.Value:
        """Return a weight of this scope, and put it there if it is missing."""
        if key not in self.values:
            # Of two graphs, weights of one name may differ, and each be equal to one of another name.
            same = sum(value.name == f"{self.prefix}{weight.name}" for value in self.weights)
            value = self.declare(key, weight, f"{self.prefix}{weight.name}/{key}" if same else "")
            value.const_value = weight.const_value
            self.weights.append(value)
        return self.values[key]

    def find(self, key: int) -> ir.Value:
        """Return a value of this scope or of one around it."""
        if key in self.values:
            return self.values[key]
        assert self.around is not None, "a node reads what nobody computes"
        return self.around.find(key)

    def graph(self, key: int) -> ir.Graph:
        """Return the scope as a branch that gives one value."""
        result = [self.values[key]]
        for value in (value for node in self.nodes for value in node.outputs if value not in result):
            # Whoever reads the file finds these out; of many small layers they would be a part of its size.
            value.type = value.shape = None
        return ir.Graph([], result, nodes=self.nodes, initializers=self.weights, name=self.prefix)


def merged(graphs: Sequence[ir.Graph], choices: Sequence[Choice], *, weights_once: bool) -> ir.Graph:
    """Return one graph with the first output of the given ones.

    Args:
        graphs: with equal inputs and outputs; the outputs but the first are only there to meet at.
        choices: the meeting points, in the order of computation. Where the graphs differ behind the last one, it is
            moved to where they do not any more.
        weights_once: what several branches use lies outside of them, once; else each has all it uses.

    Raises:
        ExportError: the graphs differ elsewhere than on the way to a meeting point.
    """
    ends = [[graph.outputs[choice.output] for graph in graphs] for choice in choices]
    merger = _Merger(graphs, choices, ends, weights_once)
    if not merger.is_complete:
        ends[-1] = merger.last_meeting()
        merger = _Merger(graphs, choices, ends, weights_once)
    if not merger.is_complete:
        raise ExportError("its sub-networks differ elsewhere than within their stages")
    return merger.merge()


class _Merger:
    """What `merged` does, step by step."""

    def __init__(
        self,
        graphs: Sequence[ir.Graph],
        choices: Sequence[Choice],
        ends: Sequence[Sequence[ir.Value]],
        weights_once: bool,
    ) -> None:
        self.graphs, self.choices, self.ends = graphs, choices, ends
        self.whole = graphs[-1]
        self.keys = keys = Keys()
        names = [choice.name for choice in choices]
        known = [
            keys.read(graph, {points[number]: name for points, name in zip(ends, names, strict=True)})
            for number, graph in enumerate(graphs)
        ]
        # Of nodes that compute the same, the first comes before all who use it, wherever they got it from.
        firsts: dict[tuple[int, ...], ir.Node] = {}
        for node in self.whole:
            firsts.setdefault(tuple(keys[value] for value in node.outputs), node)
        self._firsts = [*firsts.values()]
        self.end_keys = {keys[points[-1]] for points in ends}
        self.alike = set.intersection(*known)
        self.alike -= self._within()
        self.branches = self._branches()
        self.common = self._common_weights() if weights_once else frozenset()
        self.outside = _Scope()

    @property
    def is_complete(self) -> bool:
        """Whether all graphs give the same, if they do at the meeting points."""
        return self.keys[self.whole.outputs[0]] in self.alike

    def last_meeting(self) -> list[ir.Value]:
        """Return the values of the graphs behind which they compute alike, down to the first output."""
        values = [graph.outputs[0] for graph in self.graphs]
        while True:
            nodes = [value.producer() for value in values]
            if None in nodes or len({tuple(operation(node)) for node in nodes}) > 1:  # type: ignore[arg-type]
                return values
            read = list(zip(*(node.inputs for node in nodes), strict=False))  # type: ignore[union-attr]
            differ = [found for found in read if len({value and self.keys[value] for value in found}) > 1]
            if len(differ) != 1 or any(value is None or value.is_initializer() for value in differ[0]):
                return values
            values = list(differ[0])  # type: ignore[arg-type]

    def merge(self) -> ir.Graph:
        """Write the graph."""
        keys, outside, whole = self.keys, self.outside, self.whole
        inputs = [outside.declare(keys[value], value) for value in whole.inputs]
        for choice, points in zip(self.choices, self.ends, strict=True):
            outside.declare(keys[points[-1]], points[-1], choice.name)
        self._write(outside, (node for node in self._firsts if self._is_outside(node)))
        for choice, branches in zip(self.choices, self.branches, strict=True):
            self._choose(outside, choice.conditions, branches, outside.find(keys[branches[-1].end]))
        return ir.Graph(
            inputs,
            [outside.find(keys[whole.outputs[0]])],
            nodes=outside.nodes,
            initializers=outside.weights,
            opset_imports=dict(whole.opset_imports),
            name="switchable",
        )

    def _is_outside(self, node: ir.Node) -> bool:
        outputs = {self.keys[value] for value in node.outputs}
        return outputs <= self.alike and not outputs & self.end_keys

    def _branches(self) -> list[list[_Branch]]:
        return [
            [
                self._branch(graph, end, f"{choice.name}/{number}")
                for number, (graph, end) in enumerate(zip(self.graphs, points, strict=True))
            ]
            for choice, points in zip(self.choices, self.ends, strict=True)
        ]

    def _branch(self, graph: ir.Graph, end: ir.Value, name: str) -> _Branch:
        taken: set[ir.Node] = set()
        waiting = [end.producer()]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in taken:
                taken.add(node)
                waiting += [value.producer() for value in _reads([node]) if self.keys[value] not in self.alike]
        return _Branch([node for node in graph if node in taken], end, name)

    def _within(self) -> set[int]:
        """Return what is alike but used on the way to one meeting point alone.

        It goes into the branches: convolutions that are added up, such as a projection shortcut and the block beside
        it, stay together, where ONNX Runtime fuses them and keeps its own order of channels from one to the next.
        """
        users: dict[int, set[str]] = {self.keys[self.whole.outputs[0]]: {""}}
        for choice, branches in zip(self.choices, self._branches(), strict=True):
            for value in set().union(*(branch.reads() for branch in branches)):
                users.setdefault(self.keys[value], set()).add(choice.name)
        within: set[int] = set()
        for node in reversed([node for node in self._firsts if self._is_outside(node)]):
            outputs = {self.keys[value] for value in node.outputs}
            found = set().union(*(users.get(key, ()) for key in outputs))
            # A table of words is large, and nothing is gained by having it twice.
            if len(found) == 1 and "" not in found and node.op_type != "Gather":
                within |= outputs
            else:
                found = {""}
            for value in _reads([node]):
                users.setdefault(self.keys[value], set()).update(found)
        return within

    def _common_weights(self) -> frozenset[int]:
        counts: Counter[int] = Counter()
        for branch in (branch for branches in self.branches for branch in branches):
            large = {v for v in branch.reads() if v.const_value is not None and v.const_value.nbytes > _SMALL}
            counts.update({self.keys[value] for value in large})
        return frozenset(key for key, count in counts.items() if count > 1)

    def _write(self, scope: _Scope, nodes: Iterable[ir.Node]) -> None:
        """Copy nodes into a scope."""
        for node in nodes:
            inputs = [value if value is None else self._read(scope, value) for value in node.inputs]
            outputs = [scope.declare(self.keys[value], value) for value in node.outputs]
            attributes = list(node.attributes.values())
            name = f"{scope.prefix}{node.name}"
            scope.nodes.append(ir.Node(node.domain, node.op_type, inputs, attributes, outputs=outputs, name=name))

    def _read(self, scope: _Scope, value: ir.Value) -> ir.Value:
        key = self.keys[value]
        if value.is_initializer():
            return (self.outside if key in self.common else scope).hold(key, value)
        return scope.find(key)

    def _choose(
        self, scope: _Scope, conditions: Sequence[ir.Value], branches: Sequence[_Branch], result: ir.Value
    ) -> None:
        """Put a condition into a scope; where there are more branches than two, the others go into its else."""
        first, *others = branches
        key = self.keys[first.end]
        then = _Scope(f"{first.name}/", scope)
        self._write(then, first.nodes)
        if len(others) == 1:
            otherwise = _Scope(f"{others[0].name}/", scope)
            self._write(otherwise, others[0].nodes)
        else:
            otherwise = _Scope(f"{first.name}/else/", scope)
            self._choose(otherwise, conditions[1:], others, otherwise.declare(key, first.end))
        parts = {"then_branch": then.graph(key), "else_branch": otherwise.graph(key)}
        scope.nodes.append(ir.node("If", conditions[:1], parts, outputs=[result], name=first.name))


def _reads(nodes: Iterable[ir.Node]) -> set[ir.Value]:
    return {value for node in nodes for value in node.inputs if value is not None}


def computed(kind: str, read: ir.Value, number: int, name: str) -> list[ir.Node]:
    """Return nodes that compute a truth value from an input and a number; the last one's output is it."""
    constant = ir.node(
        "Constant", [], {"value": ir.tensor(numpy.array(number, dtype=numpy.int64))}, name=f"{name}/number"
    )
    value = ir.node(kind, [read, *constant.outputs], name=name)
    for node in (constant, value):
        node.outputs[0].name = node.name
    return [constant, value]
