"""`pliant export`: one sub-network as a file that runs without pliant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pliant.cli.measure import augment_of, load_data_of
from pliant.cli.networks import load_run, table_path
from pliant.cli.show import note

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file of other people.")],
    file: Annotated[Path, typer.Argument(help="What to write: a name that ends in .onnx or .pt2.")],
    subnet: Annotated[str | None, typer.Option(help="Such as TTFF; default: the super-net.")] = None,
    batch: Annotated[int | None, typer.Option(help="A fixed batch size; default: any.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a side; default: as trained.")] = None,
    recalibrate: Annotated[
        int,
        typer.Option(help="As in `pliant measure`: take norm statistics anew, from so many training images."),
    ] = 0,
    data: Annotated[
        str | None,
        typer.Option(help="With --recalibrate: which images; default: what the run was trained on."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which network a checkpoint file is of; or FILE.py:FUNCTION of a run of your own network."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Write one sub-network as a file and keep it only if its own runtime agrees with PyTorch."""
    import json as json_

    from pliant.export import export as write

    if data is not None and not recalibrate:
        raise ValueError(
            f"--data {data}: only --recalibrate needs images; add it with their number, or leave --data out"
        )
    network, info = load_run(run, model)
    batches, statistics = None, _Statistics()
    if recalibrate:
        batches, statistics = _taken_anew(run, network, subnet, recalibrate, data, info)
    info = info | _measured(run, network, subnet, statistics)
    written = write(network, file, subnet=subnet, batch=batch, image_size=image_size, recalibrate_on=batches, info=info)
    print(json_.dumps(written.to_dict(), indent=2) if json else written)


@dataclass(frozen=True)
class _Statistics:
    """Where norm statistics of a sub-network that was not trained come from: the training, or `images` of `data`."""

    images: int = 0
    data: str | None = None

    def __str__(self) -> str:
        if not self.images:
            return "the norm statistics of the training"
        return f"norm statistics from {self.images} training images of {self.data}"


def _taken_anew(
    run: Path, model: nn.Module, subnet: str | None, count: int, data: str | None, info: Mapping[str, Any]
) -> tuple[Iterator[Tensor] | None, _Statistics]:
    """Return the images that `pliant measure --recalibrate` takes, or say why none are needed."""
    from pliant.recalibrate import training_images, why_not

    reason = why_not(model, "largest" if subnet is None else subnet)
    if reason:
        note(f"--recalibrate changes nothing: {reason}.")
        return None, _Statistics()
    images = load_data_of(run, data, info)
    return training_images(images, count, augment_of(run))(), _Statistics(count, images.name)


def _measured(run: Path, model: nn.Module, subnet: str | None, statistics: _Statistics) -> dict[str, Any]:
    """Return the row of the table of this very network, if it was measured; the file then carries it."""
    from pliant.core.adaptive import AdaptiveModule
    from pliant.measure.fingerprint import fingerprint
    from pliant.measure.table import Table
    from pliant.recalibrate import why_not

    path = table_path(run)
    if not path.is_file():
        return {}
    table = Table.load(path)
    if table.info.get("fingerprint") != fingerprint(model):
        return {}
    if not isinstance(model, AdaptiveModule):
        return table.rows[0]
    chosen = str(model.space.parse(subnet or "largest"))
    row = next((row for row in table.rows if row["subnet"] == chosen), {})
    count = table.info.get("recalibrated_on", 0)
    measured = _Statistics(count, table.info.get("data")) if count else _Statistics()
    if "acc1" not in row or measured == statistics or why_not(model, chosen):
        return row
    note(
        f"{path} has the accuracy of {chosen} with {measured}; this file has {statistics}, and does not carry that "
        f"accuracy. For one and the same network, {_remedy(measured, statistics)}."
    )
    return {key: value for key, value in row.items() if not key.startswith("acc")}


def _remedy(measured: _Statistics, exported: _Statistics) -> str:
    if not measured.images:
        return f"measure it with --recalibrate {exported.images}"
    if measured.images == exported.images:
        return f"name those images of {measured.data} with --data"
    return f"export it with --recalibrate {measured.images}"
