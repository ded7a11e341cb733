"""`pliant describe`: the sub-networks of a model, without training and without data."""

from __future__ import annotations

from typing import Annotated

import typer

from pliant.cli.networks import named_or_loaded
from pliant.cli.show import show

__all__ = ["describe"]


def describe(
    model_or_run: Annotated[str, typer.Argument(help="A model such as torchvision:resnet50, or a run folder.")],
    image_size: Annotated[
        int | None, typer.Option(help="Pixels of a side; default: what the model is made for.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """List the sub-networks of a model with parameters and MACs: no training, no data."""
    from pliant.measure.describe import describe as tabulate

    model, usual = named_or_loaded(model_or_run)
    size = usual if image_size is None else image_size
    table = tabulate(model, size, name=model_or_run)
    adapted = {"adapted_params_m": table.info["total_params_m"]}
    total = f"{adapted['adapted_params_m']:.2f} M parameters"
    title = f"{model_or_run}: {len(table.rows)} sub-networks in {total}, {size} px images"
    show([row | adapted for row in table.rows], as_json=json, title=title, hide=adapted)
