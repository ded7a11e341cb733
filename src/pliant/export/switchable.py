"""One file for many sub-networks: which one runs is an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule, as_adaptive, every_subnet
from pliant.core.inputs import InputSpec, logits_of, run_on
from pliant.core.macs import count_gmacs, count_params_m
from pliant.core.stream import stream_of
from pliant.core.subnet import SubNet
from pliant.export.onnx import save_onnx, to_onnx
from pliant.export.prepare import Order, beside, describe, for_inference
from pliant.export.program import trace
from pliant.export.report import ExportReport
from pliant.export.verify import TRIED_BATCHES, ExportError, largest_difference, reopened, runs, tried
from pliant.extract import extract
from pliant.runtime import ExportedFile
from pliant.runtime.session import OUTPUT

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Mode", "export_switchable"]

Mode = Literal["fast", "compact"]

MOST_WIDTHS = 16
"""So many branches are worth a file."""


def export_switchable(model: nn.Module, mode: Mode, order: Order) -> ExportReport:
    """Write the file.

    Raises:
        ExportError: another format than ONNX, a model without depths or widths, or with both or with exits, or a
            sub-network that differs from eager.
        ValueError: a model without sub-networks.
    """
    _refuse_unfit(model, mode, order)
    adapted = for_inference(as_adaptive(model, "export"))
    inputs = order.inputs(adapted)
    rows = _rows(adapted, inputs, order.info.get("table", ()))
    metadata = describe(inputs, order.batch, order.info) | {"mode": mode, "subnets": rows}
    written_model = (_depths if adapted.space.skippable_blocks else _widths)(adapted, inputs, order.batch, mode)
    with beside(order.target) as written:
        save_onnx(written_model, written, metadata)
        file = reopened(written, order.runtime)
        version = file.session.version
        differences = _differences(file, adapted, inputs, order.batch)
        del file  # some systems do not move a file that is still mapped
        subnet, difference = max(differences, key=lambda found: found[1])
        if not difference <= order.tolerance:
            raise ExportError(
                f"{order.target}: not written, because its sub-network {subnet} differs from eager PyTorch by "
                f"{difference:.2e} in {version} (allowed: {order.tolerance:.0e})"
            )
    subnets = tuple(row["subnet"] for row in rows)
    return order.done(inputs, difference=difference, runtime=version, role="switchable", subnets=subnets)


def _refuse_unfit(model: nn.Module, mode: Mode, order: Order) -> None:
    if not order.runtime.switches:
        raise ExportError(
            f"{order.target}: {order.runtime.title} runs no switchable files, which have to be ONNX; name it .onnx, or "
            "write one file for each sub-network"
        )
    if mode not in get_args(Mode):
        raise ExportError(f"switchable: got {mode!r}, expected {' or '.join(get_args(Mode))}")
    adapted = as_adaptive(model, "export")
    space = adapted.space
    axes = list(space.largest.texts)
    if axes not in (["depth"], ["width"]):
        hint = "; a file with exits is made with policy=" if "exit" in axes else ""
        raise ExportError(f"switchable: a file switches depth or width, and this model has {' and '.join(axes)}{hint}")
    if len(space.widths) > MOST_WIDTHS:
        raise ExportError(
            f"switchable: this model has {len(space.widths)} widths, and a file has a branch for each, {MOST_WIDTHS} "
            "at most; adapt it with fewer choices"
        )
    try:
        every_subnet(adapted, "switchable", "export one with subnet= or --subnet, or adapt the model with fewer groups")
    except ValueError as error:  # each is run and compared before the file is kept
        raise ExportError(str(error)) from None


def _rows(adapted: AdaptiveModule, inputs: InputSpec, table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the file says of each sub-network: its text, its input, its costs, and what was measured."""
    measured = {row["subnet"]: row for row in table}
    rows = []
    for number, subnet in enumerate(adapted.subnets):
        network = extract(adapted, subnet, share=True)
        switch = {"skip": list(subnet.depth)} if subnet.depth else {"width": number}
        costs = {"gmacs": count_gmacs(network, inputs), "params_m": count_params_m(network)}
        rows.append({"subnet": str(subnet), **switch, **costs, **measured.get(str(subnet), {})})
    return rows


def _depths(adapted: AdaptiveModule, inputs: InputSpec, batch: int | None, mode: Mode) -> onnx_ir.Model:
    """Return a graph with an input `skip`, from those of the base-net and the super-net, which meet at stage ends."""
    import onnx_ir as ir

    from pliant.export.choices import Choice, computed

    space = adapted.space
    models = [
        _graph_of(_WithStages(adapted, subnet), adapted, inputs, batch, mode)
        for subnet in (space.smallest, space.largest)
    ]
    stages = len(space.skippable_blocks)
    skip = ir.Value(name="skip", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([stages]))
    nodes: list[ir.Node] = []
    choices = []
    for stage, count in enumerate(space.skippable_blocks):
        if count:
            name = f"stage{stage + 1}"
            nodes += computed("Gather", skip, stage, f"{name}/skips")
            choices.append(Choice(stage + 1, nodes[-1].outputs, name))
    return _assembled(models, choices, skip, nodes, mode)


def _widths(adapted: AdaptiveModule, inputs: InputSpec, batch: int | None, mode: Mode) -> onnx_ir.Model:
    """Return a graph with an input `width`, from those of all widths, which meet at the answer."""
    import onnx_ir as ir

    from pliant.export.choices import Choice, computed
    from pliant.export.slices import cut_weights_

    networks = [_Logits(extract(adapted, subnet, share=True)) for subnet in adapted.subnets]
    models = [_graph_of(network, adapted, inputs, batch, mode) for network in networks]
    if mode == "compact":
        for model in models[:-1]:
            cut_weights_(model.graph, models[-1].graph)
    width = ir.Value(name="width", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    nodes: list[ir.Node] = []
    conditions = []
    for number in range(len(models) - 1):
        nodes += computed("Equal", width, number, f"width{number}")
        conditions.append(nodes[-1].outputs[0])
    choices = [Choice(0, conditions, "answer")] if conditions else []
    return _assembled(models, choices, width, nodes, mode)


def _graph_of(
    network: nn.Module, adapted: AdaptiveModule, inputs: InputSpec, batch: int | None, mode: Mode
) -> onnx_ir.Model:
    outputs = tried(partial(run_on, network), inputs, type(adapted).__name__)
    program = trace(network, inputs, batch, type(adapted).__name__)
    names = [OUTPUT, *(f"end_{number}" for number in range(1, len(outputs)))]
    return to_onnx(program, names, inputs=list(inputs.named), fold_norms=mode == "fast")


def _assembled(
    models: Sequence[onnx_ir.Model],
    choices: Sequence[Any],
    switch: onnx_ir.Value,
    nodes: Sequence[onnx_ir.Node],
    mode: Mode,
) -> onnx_ir.Model:
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from pliant.export.choices import merged

    graph = merged([model.graph for model in models], choices, weights_once=mode == "compact")
    graph.inputs.append(switch)
    graph.extend(nodes)
    graph.sort()
    model = ir.Model(graph, ir_version=models[-1].ir_version)
    RemoveUnusedNodesPass()(model)
    graph.outputs[0].name = OUTPUT
    return model


class _Logits(nn.Module):
    """A network that returns a tuple of its logits and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return (logits_of(self.network(*args, **kwargs)),)


class _WithStages(nn.Module):
    """A sub-network that returns its logits and what comes out of every stage."""

    def __init__(self, model: AdaptiveModule, subnet: SubNet) -> None:
        super().__init__()
        self.model = model
        self.subnet = subnet

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        with _noted(self.model) as ends:
            logits = logits_of(self.model(*args, subnet=self.subnet, **kwargs))
        return (logits, *ends)


@contextmanager
def _noted(model: AdaptiveModule) -> Iterator[list[Tensor]]:
    """Collect what the last block of every stage returns, also where it is skipped."""
    ends: list[Tensor] = []
    blocks = [model.get_submodule(stage.blocks[-1].path) for stage in model.anatomy.stages]
    hooks = [block.register_forward_hook(lambda _, given, output: ends.append(stream_of(output))) for block in blocks]
    try:
        yield ends
    finally:
        for hook in hooks:
            hook.remove()


def _differences(
    file: ExportedFile, adapted: AdaptiveModule, inputs: InputSpec, batch: int | None
) -> list[tuple[str, float]]:
    """Run every sub-network of the file, and return how far each is from eager PyTorch."""
    found = []
    for subnet in file.subnets:

        def eager(example: Any, subnet: str = subnet) -> Tensor:
            return logits_of(run_on(adapted, example, subnet=subnet))

        batches = (batch,) if batch else TRIED_BATCHES
        found.append((subnet, largest_difference(eager, runs(file, subnet), inputs, batches)))
    return found
