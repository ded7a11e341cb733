"""A file that answers by a policy: with the first sub-network that is sure enough, and nothing behind it runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule, as_adaptive, num_classes_of
from pliant.core.fingerprint import fingerprint
from pliant.core.inputs import logits_of, run_on
from pliant.core.subnet import SubNet
from pliant.export.onnx import runtime_name, write_onnx
from pliant.export.paths import Stop, check_stops
from pliant.export.prepare import Order, beside, describe, for_inference
from pliant.export.program import trace
from pliant.export.report import ExportReport
from pliant.export.verify import ExportError, tried
from pliant.policy.certainty import unchecked_confidence
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.runner import passes_of

__all__ = ["export_policy"]


def export_policy(model: nn.Module, policy: ConfidencePolicy, order: Order) -> ExportReport:
    """Write the file.

    Raises:
        ExportError: another format than ONNX, another batch size than 1, or a path that differs from eager.
        ValueError: a model without sub-networks or without one of the policy's, or another number of classes or other
            weights than the policy was found for.
    """
    from pliant.export.nested import nest_

    _refuse_unfit(model, policy, order)
    adapted = for_inference(as_adaptive(model, "export"))
    inputs = order.inputs(adapted)
    stops = _stops(policy)

    def eager(example: Any, subnet: str) -> Tensor:
        return logits_of(run_on(adapted, example, subnet=subnet))

    tried(partial(eager, subnet=stops[0].subnet), inputs, stops[0].subnet)
    program = trace(_Answers(adapted, stops, policy.measure), inputs, 1, type(model).__name__)
    outputs = [f"{kind}_{stop.number}" for stop in stops for kind in ("logits", "confidence")][:-1]
    metadata = describe(inputs, 1, order.info) | {"policy": policy.to_dict()}
    numbers, thresholds = [stop.number for stop in stops], [stop.threshold for stop in stops[:-1]]
    with beside(order.target) as written:
        write_onnx(program, written, metadata, outputs=outputs, arrange=lambda graph: nest_(graph, numbers, thresholds))
        try:
            difference = check_stops(written, stops, eager, inputs, policy.measure, order.tolerance)
        except ExportError as error:
            raise ExportError(f"{order.target}: not written, because {error}") from error
    subnets = tuple(stop.subnet for stop in stops)
    return order.done(inputs, difference=difference, runtime=runtime_name(), role="policy", subnets=subnets, batch=1)


def _refuse_unfit(model: nn.Module, policy: ConfidencePolicy, order: Order) -> None:
    if order.target.suffix.lower() != ".onnx":
        raise ExportError(
            f"{order.target}: a file with a policy has to be ONNX, because as a PyTorch program it can take longer "
            "than the network run to its end; name it .onnx"
        )
    if order.runtime.name != "onnxruntime":
        raise ExportError(f"runtime: a file with a policy is run by onnxruntime alone, not by {order.runtime.name}")
    if order.batch not in (None, 1):
        raise ExportError(
            f"batch: got {order.batch}, but a file with a policy takes one input at a time, since a condition is one "
            "for a batch; leave batch out"
        )
    adapted = as_adaptive(model, "export")
    passes_of(adapted, policy.subnets)
    policy.check(num_classes=num_classes_of(adapted), fingerprint=fingerprint(model))


def _stops(policy: ConfidencePolicy) -> list[Stop]:
    """Return the sub-networks that can answer: not those where nobody leaves, nor those behind one where all do."""
    temperatures = policy.temperatures or (1.0,) * len(policy.subnets)
    stops = []
    for number, subnet in enumerate(policy.subnets, start=1):
        threshold = policy.thresholds[number - 1]
        if threshold < math.inf:
            stops.append(Stop(number, subnet, threshold, temperatures[number - 1]))
        if threshold == -math.inf:
            break
    return stops


class _Answers(nn.Module):
    """A model that returns what every stop says and how sure it is, of the last what it says alone."""

    def __init__(self, model: AdaptiveModule, stops: Sequence[Stop], measure: str) -> None:
        super().__init__()
        self.model = model
        self.stops = stops
        self.measure = measure
        self.passes = passes_of(model, [stop.subnet for stop in stops])

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Map one input to logits `[1, classes]` and confidence `[1]` in turn."""
        answers = [logits for together in self.passes for logits in self._run(together, *args, **kwargs)]
        returned: list[Tensor] = []
        for stop, logits in zip(self.stops, answers, strict=True):
            returned += [logits, unchecked_confidence(logits, self.measure, stop.temperature)]
        return tuple(returned[:-1])

    def _run(self, together: Sequence[SubNet], *args: Any, **kwargs: Any) -> list[Tensor]:
        count = len(self.model.space.exit_stages)
        if not count:
            return [logits_of(self.model(*args, subnet=together[0], **kwargs))]
        # To the network's own end, although nobody may ask for it: a pass that ends before leaves by an exception,
        # which the tracer loses its place over. What nobody needs is left out of the file anyway.
        exits = self.model(*args, subnet=dataclasses.replace(together[-1], exit=count), exits=True, **kwargs)
        return [exits[subnet.exit - 1] for subnet in together if subnet.exit is not None]
