"""What confidence buys: policies found on validation images, and what each of them costs and gives on test images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import as_adaptive
from pliant.core.fingerprint import fingerprint
from pliant.core.macs import count_macs
from pliant.core.modes import evaluating
from pliant.core.subnet import SubNet
from pliant.measure.candidates import model_name
from pliant.measure.environment import describe_environment, device_name
from pliant.measure.examples import note_examples
from pliant.measure.one_by_one import (
    Batches,
    batches_of,
    refuse_conditions,
    refuse_other_classes,
    time_one_by_one,
)
from pliant.measure.paper import paper_rows
from pliant.measure.policy_table import PolicyTable
from pliant.measure.timing import Progress
from pliant.policy.certainty import confidence_of, refuse_unknown_measure
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.fit import anytime_rows, budgeted_row, budgets_between, fit_policies
from pliant.policy.runner import all_logits, passes_of, predict
from pliant.policy.thresholds import average_cost, refuse_budgets, refuse_costs

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["cumulative_gmacs", "find_policies", "measure_policies", "usual_subnets"]

NO_IMAGES = "the validation set is empty; hold out some images"


def usual_subnets(model: nn.Module) -> list[str]:
    """Return what a policy usually chooses among: all exits; of a model without exits, its smallest and its largest.

    Raises:
        ValueError: the model has no sub-networks.
    """
    space = as_adaptive(model, "measure").space
    exits = [str(space.parse(f"exit={number}")) for number in range(1, len(space.exit_stages) + 1)]
    return exits or [str(space.smallest), str(space.largest)]


def cumulative_gmacs(model: nn.Module, subnets: Sequence[str | SubNet], image: Tensor) -> list[float]:
    """Count what an image costs that each sub-network answers, 10^9 multiply-accumulates.

    That is everything that `pliant.predict` ran for it before: the classifiers of earlier exits among `subnets`, and
    passes of other depths.

    Args:
        model: adaptive.
        subnets: in the order in which they are tried.
        image: one, `[1, ...]`, on the device of the model.
    """
    spent, gmacs = 0.0, []
    with evaluating(model):
        for together in passes_of(model, subnets):
            for index, subnet in enumerate(together):
                run = partial(model, image, subnet=subnet)
                if index:
                    run = partial(_run_by, model, image, together[:index], subnet)
                gmacs.append(spent + count_macs(run) / 1e9)
            spent = gmacs[-1]
    return gmacs


def _run_by(model: nn.Module, image: Tensor, exits: Sequence[SubNet], subnet: SubNet) -> None:
    """Run an image that leaves at none of `exits` to `subnet`."""

    def stay(exit_number: int, logits: Tensor) -> Tensor:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)

    numbers = [before.exit for before in exits if before.exit]
    as_adaptive(model, "measure").leave_early(image, decide=stay, at=numbers, subnet=subnet)


def find_policies(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    budgets: int | Sequence[float] = 5,
    subnets: Sequence[str | SubNet] | None = None,
    measure: str = "max_softmax",
    calibrate: bool = False,
    batch_size: int = 256,
) -> list[ConfidencePolicy]:
    """Find policies for budgets, from a model and images that it was not trained on.

    Args:
        model: adaptive.
        images: what the model takes, `[inputs, ...]`, on any device.
        labels: class of each, int64 `[inputs]`.
        budgets: averages of 10^9 multiply-accumulates for an image; or how many, evenly spaced between what the first
            sub-network costs and what the last does.
        subnets: in the order in which they are tried; none = see `usual_subnets`.
        measure: of confidence: `max_softmax`, `entropy` or `margin`.
        calibrate: find a temperature for each sub-network first.
        batch_size: images in a pass.

    Raises:
        ValueError: images of one class or none at all, sub-networks that the model does not have or whose costs do
            not rise, an unknown measure, or a budget below what the first sub-network costs.
    """
    if not len(labels):
        raise ValueError(NO_IMAGES)
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return _find(model, images[:1], pairs, budgets, subnets, measure, calibrate)


def measure_policies(
    model: nn.Module,
    data: ImageData,
    *,
    budgets: int | Sequence[float] = 5,
    subnets: Sequence[str | SubNet] | None = None,
    measure: str = "max_softmax",
    calibrate: bool = False,
    name: str | None = None,
    eval_batch_size: int = 256,
    threads: int | None = None,
    rounds: int = 100,
    warmup: int = 3,
    on_progress: Progress = lambda what, done, total: None,
) -> PolicyTable:
    """Find policies on the validation images, and measure them on the test images.

    Args:
        model: adaptive, on the device and in the type in which it is measured.
        data: of which the validation part alone decides, and the test part alone is reported on.
        budgets: see `find_policies`.
        subnets: likewise.
        measure: likewise.
        calibrate: likewise.
        name: what the model is called; none = the name that makes it.
        eval_batch_size: images in a pass that measures accuracy.
        threads: CPU threads of the timed passes; none = as many as PyTorch uses now.
        rounds: how many test images are timed, one by one, from all over the test part; 0 = none.
        warmup: images before that, not recorded.
        on_progress: called with what is being measured, how much is done, of how much.

    Raises:
        ValueError: as `find_policies`; data without a test part, or with another number of classes than the network.
    """
    refuse_conditions(rounds=rounds, warmup=warmup, threads=threads)
    if data.test is None:
        raise ValueError(
            f"{data.name} has no test part: thresholds are found on the validation part, and cannot be "
            "measured on the images that they were found on"
        )
    refuse_other_classes(model, data)
    if not len(data.val):
        raise ValueError(NO_IMAGES)
    parameter = next(model.parameters())
    example, _ = next(iter(data.val.batches(1, dtype=parameter.dtype)))
    validation = batches_of(model, data.val, eval_batch_size, "validation", on_progress)
    policies = _find(model, example, validation, budgets, subnets, measure, calibrate)
    names, costs = policies[0].subnets, policies[0].costs
    logits, labels = _answers(model, names, batches_of(model, data.test, eval_batch_size, "test", on_progress))
    rows = [budgeted_row(policy, logits, labels) for policy in policies]
    info: dict[str, Any] = {"model": name or model_name(model), "fingerprint": policies[0].fingerprint}
    info |= {"measure": measure, "calibrated": calibrate, "subnets": list(names), "cumulative_gmacs": list(costs)}
    info |= {"data": data.name, "image_size": data.image_size, "split": "test", "images": len(labels)}
    info |= {"found_on": "val", "found_on_images": len(data.val)}
    if rounds:
        calls = {str(place): partial(_run, model, policy) for place, policy in enumerate(policies)}
        latencies, conditions = time_one_by_one(
            model, calls, data.test, threads=threads, rounds=rounds, warmup=warmup, on_progress=on_progress
        )
        for place, row in enumerate(rows):
            row |= latencies[str(place)]
        info |= conditions
    info |= {"batch_size": 1, "dtype": str(parameter.dtype).removeprefix("torch.")}
    info |= {"device": device_name(parameter.device)} | describe_environment()
    anytime = anytime_rows(logits, labels, subnets=names, costs=costs)
    _add_paper_gmacs(rows, anytime, model, data.image_size)
    # Of one policy alone, so that the file stays small: in the middle of the sweep, where all sub-networks answer.
    middle = len(policies) // 2
    examples = _examples(policies[middle], logits, labels, data)
    return PolicyTable(rows, anytime, policies, info, [{"row": middle, **example} for example in examples])


def _find(
    model: nn.Module,
    example: Tensor,
    batches: Batches,
    budgets: int | Sequence[float],
    subnets: Sequence[str | SubNet] | None,
    measure: str,
    calibrate: bool,
) -> list[ConfidencePolicy]:
    names = [str(one) for together in passes_of(model, subnets or usual_subnets(model)) for one in together]
    # Refused here, not after the minutes that the answers may take.
    refuse_unknown_measure(measure)
    costs = cumulative_gmacs(model, names, example.to(next(model.parameters()).device))
    refuse_costs(costs, names)
    wanted = budgets_between(costs, budgets) if isinstance(budgets, int) else budgets
    refuse_budgets(wanted, costs, names[0])
    logits, labels = _answers(model, names, batches)
    return fit_policies(
        logits,
        labels,
        subnets=names,
        costs=costs,
        budgets=wanted,
        measure=measure,
        calibrate=calibrate,
        fingerprint=fingerprint(model),
    )


def _answers(model: nn.Module, subnets: Sequence[str], batches: Batches) -> tuple[Tensor, Tensor]:
    """Return what every sub-network answers, float32 `[sub-networks, inputs, classes]`, and the labels; on the CPU."""
    device = next(model.parameters()).device
    logits, labels = [], []
    for images, classes in batches:
        logits.append(all_logits(model, images.to(device), subnets).to("cpu", torch.float32))
        labels.append(classes.cpu())
    return torch.cat(logits, dim=1), torch.cat(labels)


def _add_paper_gmacs(
    rows: list[dict[str, Any]], anytime: list[dict[str, Any]], model: nn.Module, image_size: int
) -> None:
    """Add what the paper counts, where the network has one that counts in a way of its own."""
    counted = paper_rows(model, [row["subnet"] for row in anytime], image_size)
    costs = {one["subnet"]: row["paper_gmacs"] for one, row in zip(anytime, counted, strict=True) if row}
    for row in anytime if costs else ():
        row["paper_gmacs"] = costs[row["subnet"]]
    for row in rows if costs else ():
        row["paper_gmacs"] = average_cost(list(row["shares"].values()), [costs[name] for name in row["shares"]])


def _run(model: nn.Module, policy: ConfidencePolicy, image: Tensor) -> object:
    return predict(model, image, policy)


def _examples(policy: ConfidencePolicy, logits: Tensor, labels: Tensor, data: ImageData) -> list[dict[str, Any]]:
    """Note which test images each sub-network answers; `logits` of every one, `[sub-networks, images, classes]`."""
    assert data.test is not None
    answers, chosen = policy.apply(logits)
    certainties = torch.empty(len(labels))
    for place in range(len(policy.subnets)):
        own = chosen == place
        temperature = policy.temperatures[place] if policy.temperatures else 1.0
        certainties[own] = confidence_of(answers[own], policy.measure, temperature)
    return note_examples(policy.subnets, chosen, answers.argmax(dim=1), certainties, labels, data, data.test)
