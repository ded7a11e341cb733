"""What a gate buys: which route it chooses for which test images, and what that costs beside every width alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import as_adaptive
from pliant.core.fingerprint import fingerprint
from pliant.core.inputs import logits_of
from pliant.core.macs import count_gmacs, count_macs
from pliant.core.modes import evaluating
from pliant.measure.candidates import Candidate, find_candidates, model_name
from pliant.measure.environment import describe_environment, device_name
from pliant.measure.examples import note_examples
from pliant.measure.gate_table import GateTable, equal_accuracy
from pliant.measure.one_by_one import (
    Batches,
    Progress,
    batches_of,
    refuse_conditions,
    refuse_other_classes,
    time_one_by_one,
)
from pliant.policy.certainty import confidence_of
from pliant.policy.runner import predict
from pliant.width.gates import gate_of

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["measure_gate", "route_gmacs"]

GATE = "gate"
"""What the row of the gated network is called."""


def route_gmacs(model: nn.Module, image: Tensor) -> list[float]:
    """Count what an image costs that the gate sends each way, the gate's own included, 10^9 multiply-accumulates.

    Args:
        model: with a gate.
        image: one, `[1, ...]`, on the device of the model.

    Raises:
        ValueError: the model has no gate.
    """
    chooses = gate_of(model).choose.weight.numel()
    routes = as_adaptive(model, "measure").routes
    with evaluating(model):
        return [(count_macs(partial(model, image, subnet=route)) + chooses) / 1e9 for route in routes]


def measure_gate(
    model: nn.Module,
    data: ImageData,
    *,
    name: str | None = None,
    eval_batch_size: int = 256,
    threads: int | None = None,
    rounds: int = 100,
    warmup: int = 3,
    on_progress: Progress = lambda what, done, total: None,
) -> GateTable:
    """Let the gate choose for every test image, and measure every width alone on the same images.

    Latency is that of `pliant.predict(model, image, policy="gate")`, and of the extracted sub-networks, which take
    turns with it on the same images.

    Args:
        model: with a gate, on the device and in the type in which it is measured.
        data: whose test part is measured on.
        name: what the model is called; none = the name that makes it.
        eval_batch_size: images in a pass that measures accuracy.
        threads: CPU threads of the timed passes; none = as many as PyTorch uses now.
        rounds: how many test images are timed, one by one, from all over the test part; 0 = none.
        warmup: images before that, not recorded.
        on_progress: called with what is being measured, how much is done, of how much.

    Raises:
        ValueError: a model without a gate, data without test images, or with another number of classes than the
            network, or answers that are not finite.
    """
    refuse_conditions(rounds=rounds, warmup=warmup, threads=threads)
    gate_of(model)
    if data.test is None or not len(data.test):
        raise ValueError(f"{data.name} has no test part: a gate is measured on images that nobody learned or chose by")
    refuse_other_classes(model, data)
    parameter = next(model.parameters())
    routes = [str(route) for route in as_adaptive(model, "measure").routes]
    info: dict[str, Any] = {"model": name or model_name(model), "fingerprint": fingerprint(model), "routes": routes}
    info |= {"data": data.name, "image_size": data.image_size, "split": "test", "images": len(data.test)}
    candidates = find_candidates(model, None, info["model"])
    example, _ = next(iter(data.test.batches(1, device=parameter.device, dtype=parameter.dtype)))
    with evaluating(model):
        answers = _Answers(model, candidates, batches_of(model, data.test, eval_batch_size, "test", on_progress))
        shares = answers.shares(routes)
        gmacs = sum(shares[route] * cost for route, cost in zip(routes, route_gmacs(model, example), strict=True))
        gated: dict[str, Any] = {"subnet": GATE, "gmacs": gmacs, "acc1": answers.acc1(), "shares": shares}
        static: list[dict[str, Any]] = [
            {"subnet": one.name, "gmacs": count_gmacs(one.network, data.image_size), "acc1": answers.static[one.name]}
            for one in candidates
        ]
        if rounds:
            calls = {GATE: partial(predict, model, policy=GATE), **{one.name: one.network for one in candidates}}
            latencies, conditions = time_one_by_one(
                model, calls, data.test, threads=threads, rounds=rounds, warmup=warmup, on_progress=on_progress
            )
            for row in (gated, *static):
                row |= latencies[row["subnet"]]
            info |= conditions
    info |= {"batch_size": 1, "dtype": str(parameter.dtype).removeprefix("torch.")}
    info |= {"device": device_name(parameter.device)} | describe_environment()
    return GateTable(
        gated=gated,
        static=static,
        classes=answers.by_class(routes, data.class_names),
        equal_accuracy=equal_accuracy(gated, static),
        info=info,
        examples=note_examples(
            routes, answers.chosen, answers.predicted, answers.certainties, answers.labels, data, data.test
        ),
    )


class _Answers:
    """What the gated network answered to N images and which way they went; on the CPU.

    Attributes:
        chosen: for each image, the place of its route, int64 `[N]`.
        predicted: the class that it answered, int64 `[N]`.
        certainties: how sure it was, by its largest probability, `[N]`.
        labels: class of each image, int64 `[N]`.
        static: by sub-network, the accuracy in percent if it answers all images.
    """

    def __init__(self, model: nn.Module, candidates: Sequence[Candidate], batches: Batches) -> None:
        parts: list[tuple[Tensor, ...]] = []
        right = dict.fromkeys((one.name for one in candidates), 0)
        for images, labels in batches:
            logits, chosen = predict(model, images, policy=GATE)
            parts.append(tuple(part.cpu() for part in (chosen, logits.argmax(1), confidence_of(logits), labels)))
            with torch.no_grad():
                for one in candidates:
                    right[one.name] += int((logits_of(one.run(images)).argmax(1) == labels).sum())
        self.chosen, self.predicted, self.certainties, self.labels = map(torch.cat, zip(*parts, strict=True))
        self.static = {name: 100 * count / len(self.labels) for name, count in right.items()}

    def acc1(self, which: Tensor | None = None) -> float:
        """Return the accuracy in percent; on the images where `which` is true, `[N]`; none = all."""
        right = self.predicted == self.labels
        right = right if which is None else right[which]
        return 100 * int(right.sum()) / len(right)

    def shares(self, routes: Sequence[str], which: Tensor | None = None) -> dict[str, float]:
        """Return which part of these images took each route."""
        chosen = self.chosen if which is None else self.chosen[which]
        return dict(zip(routes, (chosen.bincount(minlength=len(routes)) / len(chosen)).tolist(), strict=True))

    def by_class(self, routes: Sequence[str], class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row for every class of which there are images."""
        own = ((name, self.labels == label) for label, name in enumerate(class_names))
        return [
            {"label": name, "images": int(which.sum()), "shares": self.shares(routes, which), "acc1": self.acc1(which)}
            for name, which in own
            if which.any()
        ]
