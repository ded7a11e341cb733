"""What a gate buys: which route it chooses for which test images, and what that costs beside every width alone.

Letters of shapes: N images, R routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import as_adaptive
from pliant.core.fingerprint import fingerprint
from pliant.core.inputs import images_alone
from pliant.core.macs import count_gmacs, count_macs
from pliant.core.modes import evaluating
from pliant.measure.candidates import find_candidates, model_name, ship_
from pliant.measure.environment import describe_environment, device_name
from pliant.measure.gate_choices import GATE, Answers, scores_of
from pliant.measure.gate_table import GateTable, equal_accuracy
from pliant.measure.one_by_one import (
    batches_of,
    refuse_conditions,
    refuse_other_classes,
    time_one_by_one,
)
from pliant.measure.timing import Progress
from pliant.policy.fit import budgets_between
from pliant.policy.prices import Priced, find_prices
from pliant.policy.runner import predict
from pliant.policy.thresholds import refuse_budgets
from pliant.width.gates import gate_of

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["budget_gate_", "measure_gate", "route_gmacs"]

_ALL_ALIKE = 0.99
"""The share of images above which a gate sends all of them the same way, as good as."""


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


def budget_gate_(model: nn.Module, batches: Iterable[Tensor], gmacs: float) -> dict[str, Any]:
    """Let a gate spend so much on an image, on average: offsets are added to its scores, in place.

    They are the negative price of what each route costs, and the price is the lowest at which these images keep to the
    budget. The offsets are part of the weights from then on: `save`, `export` and `predict` have them.

    Args:
        model: with a gate.
        batches: of images that nobody trained on, `[batch, ...]`.
        gmacs: what one may cost on average, 10^9 multiply-accumulates.

    Returns:
        Of these images `gmacs`, the average of one, `shares`, which take each route, and the `offsets`.

    Raises:
        ValueError: a model without a gate, no images, something else than images, or a budget below what the narrowest
            route costs.
    """
    gate, routes = gate_of(model), [str(route) for route in as_adaptive(model, "budget_gate_").routes]
    parameter, seen, costs = next(model.parameters()), [], []
    for images in batches:
        images = images_alone(images, "budget_gate_").to(parameter.device, parameter.dtype)
        costs = costs or route_gmacs(model, images[:1])
        refuse_budgets([gmacs], costs, routes[0])
        seen.append(scores_of(model, images))
    if not seen:
        raise ValueError("budget_gate_: no images; a budget is found on images that nobody trained on")
    (found,) = find_prices(torch.cat(seen), costs, [gmacs], routes=routes)
    gate.offsets.copy_(gate.offsets.new_tensor(found.offsets))
    shares = dict(zip(routes, found.shares, strict=True))
    return {"gmacs": found.cost, "shares": shares, "offsets": list(found.offsets)}


def measure_gate(
    model: nn.Module,
    data: ImageData,
    *,
    budgets: int | Sequence[float] = 5,
    name: str | None = None,
    eval_batch_size: int = 256,
    threads: int | None = None,
    rounds: int = 100,
    warmup: int = 3,
    on_progress: Progress = lambda what, done, total: None,
) -> GateTable:
    """Let the gate choose for every test image, and measure every width alone on the same images.

    First it chooses as the model has it, and then with a budget, for which the validation images say at which price it
    is spent, see `budget_gate_`. The model itself keeps its offsets. Classes and examples are of its own choices, or
    where those are all alike, of the budget in the middle.

    Latency is that of `pliant.predict(model, image, policy="gate")`, and of the extracted sub-networks, which take
    turns with it on the same images.

    Args:
        model: with a gate, on the device and in the type in which it is measured.
        data: whose test part is measured on, and on whose validation part budgets are found.
        budgets: averages of 10^9 multiply-accumulates for an image; or how many, evenly spaced between what the
            narrowest route costs and what the widest does; 0 = none.
        name: what the model is called; none = the name that makes it.
        eval_batch_size: images in a pass that measures accuracy.
        threads: CPU threads of the timed passes; none = as many as PyTorch uses now.
        rounds: how many test images are timed, one by one, from all over the test part; 0 = none.
        warmup: images before that, not recorded.
        on_progress: called with what is being measured, how much is done, of how much.

    Raises:
        ValueError: a model without a gate, data without test images, without validation images where there are
            budgets, or with another number of classes than the network, a budget below what the narrowest route
            costs, or answers that are not finite.
    """
    refuse_conditions(rounds=rounds, warmup=warmup, threads=threads)
    gate = gate_of(model)
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
        costs = route_gmacs(model, example)
        wanted = budgets_between(costs, budgets + 2)[1:-1] if isinstance(budgets, int) else [*budgets]
        refuse_budgets(wanted, costs, routes[0])
        found: list[Priced] = []
        if wanted:
            if not len(data.val):
                raise ValueError(
                    f"{data.name} has no validation part, on which budgets are found; ask for none of them"
                )
            info |= {"found_on": "val", "found_on_images": len(data.val)}
            validation = batches_of(model, data.val, eval_batch_size, "validation", on_progress)
            scores = torch.cat([scores_of(model, images) for images, _ in validation])
            found = find_prices(scores, costs, wanted, routes=routes)
        answers = Answers(model, candidates, batches_of(model, data.test, eval_batch_size, "test", on_progress))
        gated = answers.row(tuple(gate.offsets.tolist()), costs)
        spent = [{**answers.row(one.offsets, costs), "budget": gmacs} for gmacs, one in zip(wanted, found, strict=True)]
        static: list[dict[str, Any]] = [
            {"subnet": one.name, "gmacs": count_gmacs(one.network, data.image_size), "acc1": answers.accuracy(one.name)}
            for one in candidates
        ]
        if rounds:
            ship_(candidates)
            gates = {f"{GATE} {place}": row for place, row in enumerate((gated, *spent))}
            calls: dict[str, Any] = {key: partial(_predict_with, model, row["offsets"]) for key, row in gates.items()}
            calls |= {one.name: one.network for one in candidates}
            how: dict[str, Any] = {"threads": threads, "rounds": rounds, "warmup": warmup, "on_progress": on_progress}
            latencies, conditions = time_one_by_one(model, calls, data.test, **how)
            for key, row in (gates | {row["subnet"]: row for row in static}).items():
                row |= latencies[key]
            info |= conditions | {"latency_of": "extracted"}
    shown = _telling(gated, spent)
    if "budget" in shown:
        info["shown_budget"] = shown["budget"]
    choice = answers.choice(shown["offsets"])
    info |= {"batch_size": 1, "dtype": str(parameter.dtype).removeprefix("torch.")}
    info |= {"device": device_name(parameter.device)} | describe_environment()
    return GateTable(
        gated=gated | {"equal_accuracy": equal_accuracy(gated, static)},
        budgets=[row | {"equal_accuracy": equal_accuracy(row, static)} for row in spent],
        static=static,
        classes=choice.by_class(data.class_names),
        info=info,
        examples=choice.examples(data, data.test),
    )


def _telling(gated: dict[str, Any], spent: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row whose choices are worth a look: the gate's own, or where they are alike, of a middle budget."""
    return spent[len(spent) // 2] if spent and max(gated["shares"].values()) > _ALL_ALIKE else gated


def _predict_with(model: nn.Module, offsets: Sequence[float], images: Tensor) -> tuple[Tensor, Tensor]:
    """Let the gate choose with these offsets, and leave it as it was."""
    gate = gate_of(model)
    own = gate.offsets
    gate.offsets = own.new_tensor(offsets)
    try:
        return predict(model, images, policy=GATE)
    finally:
        gate.offsets = own
