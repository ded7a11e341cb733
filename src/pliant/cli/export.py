"""`pliant export`: one sub-network as a file that runs without pliant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pliant.cli.networks import load_run, table_path

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file of other people.")],
    file: Annotated[Path, typer.Argument(help="What to write: a name that ends in .onnx or .pt2.")],
    subnet: Annotated[str | None, typer.Option(help="Such as TTFF; default: the super-net.")] = None,
    batch: Annotated[int | None, typer.Option(help="A fixed batch size; default: any.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a side; default: as trained.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which network a checkpoint file is of; or FILE.py:FUNCTION of a run of your own network."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Write one sub-network as a file and keep it only if its own runtime agrees with PyTorch."""
    import json as json_

    from pliant.export import export as write

    network, info = load_run(run, model)
    info = info | _measured(run, network, subnet)
    written = write(network, file, subnet=subnet, batch=batch, image_size=image_size, info=info)
    print(json_.dumps(written.to_dict(), indent=2) if json else written)


def _measured(run: Path, model: nn.Module, subnet: str | None) -> dict[str, Any]:
    """Return the row of the table of this very network, if it was measured; the file then carries it."""
    from pliant.core.adaptive import AdaptiveModule
    from pliant.measure.fingerprint import fingerprint
    from pliant.measure.table import Table

    path = table_path(run)
    if not path.is_file():
        return {}
    table = Table.load(path)
    if table.info.get("fingerprint") != fingerprint(model):
        return {}
    if not isinstance(model, AdaptiveModule):
        return table.rows[0]
    chosen = str(model.space.parse(subnet or "largest"))
    return next((row for row in table.rows if row["subnet"] == chosen), {})
