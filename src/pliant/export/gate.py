"""A file whose gate chooses the width of what lies behind it; the other widths do not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule, as_adaptive
from pliant.core.inputs import InputSpec, logits_of
from pliant.core.subnet import SubNet
from pliant.export.onnx import open_onnx, runtime_name, save_onnx, to_onnx
from pliant.export.prepare import Order, beside, describe, for_inference
from pliant.export.program import trace
from pliant.export.report import ExportReport
from pliant.export.verify import ExportError, largest_difference, tried
from pliant.runtime.session import OUTPUT
from pliant.width.gates import gate_of

if TYPE_CHECKING:
    import onnx_ir
    import onnxruntime

__all__ = ["ROUTE", "export_gate"]

ROUTE = "route"
SCORES = "scores"
# Random images on which the gate's own choices are compared.
TRIED = 16


def export_gate(model: nn.Module, order: Order) -> ExportReport:
    """Write the file.

    Raises:
        ExportError: another format than ONNX, another batch size than 1, or a route that differs from eager.
        ValueError: a model without a gate.
    """
    _refuse_unfit(model, order)
    adapted = for_inference(as_adaptive(model, "export"))
    inputs = order.inputs(adapted)
    graph_model = _with_every_route(adapted, inputs)
    routes = [str(route) for route in adapted.routes]
    metadata = describe(inputs, 1, order.info) | {"routes": routes}
    with beside(order.target) as written:
        # First with the route as an input, since random images may never take some of them.
        save_onnx(graph_model, written, metadata)
        difference = _difference_of_routes(open_onnx(written), adapted, inputs, order)
        _let_the_gate_choose_(graph_model)
        save_onnx(graph_model, written, metadata)
        _compare_choices(open_onnx(written), adapted, inputs, order)
    return order.done(
        inputs, difference=difference, runtime=runtime_name(), role="gate", subnets=tuple(routes), batch=1
    )


def _refuse_unfit(model: nn.Module, order: Order) -> None:
    if order.target.suffix.lower() != ".onnx":
        raise ExportError(f"{order.target}: a file with a gate has to be ONNX; name it .onnx")
    if order.runtime.name != "onnxruntime":
        raise ExportError(f"runtime: a file with a gate is run by onnxruntime alone, not by {order.runtime.name}")
    if order.batch not in (None, 1):
        raise ExportError(
            f"batch: got {order.batch}, but a file with a gate takes one input at a time, since a condition is one "
            "for a batch; leave batch out"
        )
    gate_of(as_adaptive(model, "export"))


def _with_every_route(adapted: AdaptiveModule, inputs: InputSpec) -> onnx_ir.Model:
    """Return a graph with an input `route`, int64 `[1]`, and all weights once; `scores` are computed beside."""
    import onnx_ir as ir

    from pliant.export.choices import Choice, computed, merged

    models = []
    for route in adapted.routes:
        network = _Route(adapted, route)
        if inputs.only is None:
            raise ExportError(f"example: a gate reads one tensor, and this {type(adapted).__name__} takes {inputs}")
        tried(network, inputs, type(adapted).__name__)
        program = trace(network, inputs, 1, type(adapted).__name__)
        models.append(to_onnx(program, [OUTPUT, SCORES], inputs=list(inputs.named), fold_norms=False))
    route_value = ir.Value(name=ROUTE, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    nodes, conditions = [], []
    for number in range(len(models) - 1):
        nodes += computed("Equal", route_value, number, f"{ROUTE}{number}")
        conditions.append(nodes[-1].outputs[0])
    graph = merged([model.graph for model in models], [Choice(0, conditions, "answer")], weights_once=True)
    graph.inputs.append(route_value)
    graph.extend(nodes)
    graph.sort()
    graph.outputs[0].name = OUTPUT
    return ir.Model(graph, ir_version=models[-1].ir_version)


def _let_the_gate_choose_(model: onnx_ir.Model) -> None:
    """Put the best score in the place of the input `route`, and give it away beside the logits."""
    import onnx_ir as ir

    graph = model.graph
    scores = next(value for node in graph for value in node.outputs if value.name == SCORES)
    given = graph.inputs.pop()
    best = ir.node("ArgMax", [scores], {"axis": 1, "keepdims": 0}, name=ROUTE)
    chosen = best.outputs[0]
    chosen.type, chosen.shape = given.type, given.shape
    ir.convenience.replace_all_uses_with(given, chosen)
    given.name, chosen.name = f"{ROUTE}/given", ROUTE
    graph.append(best)
    graph.outputs.append(chosen)
    graph.sort()


class _Route(nn.Module):
    """A route of a model, which returns what the gate makes of the input too."""

    def __init__(self, model: AdaptiveModule, route: SubNet) -> None:
        super().__init__()
        self.model = model
        self.route = route

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Map one input to logits `[1, classes]` and scores `[1, routes]`."""
        logits, features = self.model.seen_by_gate(inputs, self.route)
        return logits, gate_of(self.model).scores(features)


def _difference_of_routes(
    session: onnxruntime.InferenceSession, adapted: AdaptiveModule, inputs: InputSpec, order: Order
) -> float:
    """Run every route of the file, and return the largest difference from eager PyTorch."""
    given = session.get_inputs()[0].name
    found = []
    for number, route in enumerate(adapted.routes):
        chosen = {ROUTE: numpy.array([number])}

        def run(example: Tensor, chosen: Mapping[str, Any] = chosen) -> Tensor:
            return torch.from_numpy(session.run([OUTPUT], {given: example.numpy(), **chosen})[0])

        def eager(example: Tensor, route: SubNet = route) -> Tensor:
            return logits_of(adapted(example, subnet=route))

        found.append((largest_difference(eager, run, inputs, (1,)), str(route)))
        if not found[-1][0] <= order.tolerance:
            raise ExportError(
                f"{order.target}: not written, because its route {route} differs from eager PyTorch by "
                f"{found[-1][0]:.2e} in {runtime_name()} (allowed: {order.tolerance:.0e})"
            )
    return max(found)[0]


def _compare_choices(
    session: onnxruntime.InferenceSession, adapted: AdaptiveModule, inputs: InputSpec, order: Order
) -> None:
    """Refuse a file whose gate chooses otherwise than the model's; two scores that are as good as equal may do that."""
    given = session.get_inputs()[0].name
    generator = torch.Generator().manual_seed(0)
    for _ in range(TRIED):
        example = inputs.random(1, generator)
        with torch.no_grad():
            _, features = adapted.seen_by_gate(example)
            scores = gate_of(adapted).scores(features)[0]
        place = int(numpy.asarray(session.run([ROUTE], {given: example.numpy()})[0])[0])
        if scores.max() - scores[place] > order.tolerance * max(1.0, float(scores.abs().max())):
            raise ExportError(
                f"{order.target}: not written, because its gate chooses {adapted.routes[place]} where eager PyTorch "
                f"chooses {adapted.routes[int(scores.argmax())]}"
            )
