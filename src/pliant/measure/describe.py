"""What can be said of a network without data and without running it for long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.fingerprint import fingerprint
from pliant.core.inputs import InputSpec
from pliant.core.macs import count_gmacs, count_params_m
from pliant.core.modes import evaluating
from pliant.core.subnet import SubNet
from pliant.core.taken import inputs_of
from pliant.measure.candidates import Candidate, find_candidates, model_name
from pliant.measure.environment import describe_environment
from pliant.measure.paper import paper_rows
from pliant.measure.table import Table
from pliant.outline import stage_lines

__all__ = ["describe", "needed_inputs", "structure_info", "structure_row"]

# Of more sub-networks than a person reads, a few are described.
MOST_DESCRIBED = 256
FEW = 8


def describe(
    model: nn.Module,
    image_size: int | None = None,
    *,
    example: Any = None,
    subnets: Sequence[str | SubNet] | None = None,
    name: str | None = None,
) -> Table:
    """Tabulate MACs and active parameters of every sub-network; no data, no training.

    Args:
        model: adaptive, or plain (then there is one row, called by its name).
        image_size: height and width of the images in pixels; of a network for text, the number of tokens. None = as the
            example is.
        example: one input, as for `adapt_`; none = the one that the model was adapted with.
        subnets: which sub-networks; none = all, or of more than 256 the smallest, the largest and 6 between them, in
            equal steps of the order of `model.subnets`.
        name: what the model is called; none = the name that makes it, such as `torchvision:resnet50`.

    Returns:
        A table with one row a sub-network, ordered as `model.subnets`: smallest first, the super-net last. `params_m`
        and `gmacs` are of the extracted network; of the exits of an MSDNet there are `paper_params_m` and
        `paper_gmacs` too, see `paper_rows`. `info["num_subnets"]` is the number of all sub-networks, of an adaptive
        model; `info["total_params_m"]` is of the whole model, and `info["stages"]` says in a line a stage where its
        blocks are, and which can be skipped.

    Raises:
        ValueError: an unknown sub-network, or an image size that is not a positive whole number, or neither that nor an
            example; or the network does not take such inputs.
    """
    inputs = needed_inputs(inputs_of(model, image_size=image_size, example=example), "describe")
    name = name or model_name(model)
    counted = {}
    if isinstance(model, AdaptiveModule):
        counted = {"num_subnets": model.space.num_subnets}
        if subnets is None and model.space.num_subnets > MOST_DESCRIBED:
            subnets = model.subnets.evenly_spaced(FEW)
    with evaluating(model):
        candidates = find_candidates(model, subnets, name)
        counted_by_paper = paper_rows(model, [candidate.name for candidate in candidates], inputs.size)
        rows = [
            structure_row(candidate, inputs) | printed
            for candidate, printed in zip(candidates, counted_by_paper, strict=True)
        ]
    return Table(rows, structure_info(model, name, inputs) | counted | describe_environment())


def needed_inputs(inputs: InputSpec | None, caller: str) -> InputSpec:
    """Return what a model takes, if it is known.

    Raises:
        ValueError: it is not; `caller` needs it.
    """
    if inputs is None:
        raise ValueError(
            f"{caller}: image_size is needed where there is no data, such as image_size=224; or pass example=, one "
            "input of the model, here or to pliant.adapt_"
        )
    return inputs


def structure_info(model: nn.Module, name: str, inputs: InputSpec) -> dict[str, Any]:
    """Return what a table says of the whole model."""
    return {
        "model": name,
        "inputs": str(inputs),
        **({} if inputs.size is None else {"image_size": inputs.size}),
        "total_params_m": count_params_m(model),
        "fingerprint": fingerprint(model),
        "stages": stage_lines(model),
    }


def structure_row(candidate: Candidate, inputs: InputSpec) -> dict[str, Any]:
    """Return the part of a row that needs neither data nor time."""
    return {
        "subnet": candidate.name,
        "gmacs": count_gmacs(candidate.network, inputs),
        "params_m": count_params_m(candidate.network),
    }
