"""`pliant describe`: the sub-networks of a model, without training and without data."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pliant.cli.networks import named_or_loaded
from pliant.cli.show import show

__all__ = ["describe"]


def describe(
    model_or_run: Annotated[
        str,
        typer.Argument(
            help="A model such as torchvision:resnet50, a run folder, or a checkpoint file of the ADN authors, "
            "torchvision or timm."
        ),
    ],
    image_size: Annotated[
        int | None, typer.Option(help="Pixels of a side, or tokens of a text; default: what the model is made for.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which network a checkpoint file is of; or FILE.py:FUNCTION of a run of your own network."),
    ] = None,
    ema: Annotated[
        bool | None,
        typer.Option(help="Of a checkpoint file, the averaged weights or not; default: where there are any."),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(help="In which ways: depth, exits, width, or some joined by a plus; default: what is usual."),
    ] = None,
    subnet: Annotated[
        list[str] | None,
        typer.Option(help="Only these sub-networks, named one by one; default: all, or 8 of more than 256."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """List the sub-networks of a model with parameters and MACs: no training, no data."""
    from pliant.measure.describe import describe as tabulate

    network = named_or_loaded(model_or_run, image_size=image_size, model=model, ema=ema, axes=axes)
    table = tabulate(network.model, example=network.inputs, name=model_or_run, subnets=subnet)
    for_all = {"adapted_params_m": table.info["total_params_m"], **network.found}
    total = f"{for_all['adapted_params_m']:.2f} M parameters"
    count = table.info.get("num_subnets", len(table.rows))
    title = f"{model_or_run}: {_found(network.found)}{count} sub-networks in {total}, {network.inputs}"
    title = "\n".join([title, *(f"  {line}" for line in table.info["stages"])])
    for_all["stages"] = table.info["stages"]
    if len(table.rows) < count:
        for_all["num_subnets"] = count
        if subnet is None:
            title += f"\n{len(table.rows)} of {count}, evenly spaced from the smallest to the largest; others: --subnet"
    show([row | for_all for row in table.rows], as_json=json, title=title, hide=for_all)


def _found(found: dict[str, Any]) -> str:
    """Say what a checkpoint file was found to be."""
    if not found:
        return ""
    classes = f", {found['num_classes']} classes" if "num_classes" in found else ""
    return f"{found['model']}, checkpoint of {found['checkpoint']} ({found['weights']}){classes}; "
