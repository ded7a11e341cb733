"""`pliant export`: one sub-network, or all of them, as a file that runs without pliant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pliant.cli.exported import RUNTIME_NAMES
from pliant.cli.measure import augment_of, data_options, load_data_of
from pliant.cli.networks import load_run, table_path
from pliant.cli.show import note

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pliant.measure.table import Table
    from pliant.policy.confidence import ConfidencePolicy

__all__ = ["export"]


class Mode(StrEnum):
    """How a switchable file stores its weights."""

    fast = "fast"
    compact = "compact"


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file of other people.")],
    file: Annotated[Path, typer.Argument(help="What to write: a name that ends in .onnx, .pt2 or .pte.")],
    runtime: Annotated[
        str | None, typer.Option(help=f"What the file is for, and is checked in, of {RUNTIME_NAMES}")
    ] = None,
    subnet: Annotated[str | None, typer.Option(help="Such as TTFF; default: the super-net.")] = None,
    batch: Annotated[int | None, typer.Option(help="A fixed batch size; default: any.")] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="The file stops at the first answer that is sure enough: a policy, or the policies.json of a run. Or "
            "the network's own gate chooses: 'gate', or with a budget the gate.json of a run."
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Which policy of several: that of the largest budget within so many GMACs an image."),
    ] = None,
    switchable: Annotated[
        bool, typer.Option("--switchable", help="One file with all sub-networks; which one runs is an input.")
    ] = False,
    mode: Annotated[
        Mode | None,
        typer.Option(help="With --switchable: fast in any runtime, or compact, with all weights stored once; fast."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a side; default: as trained.")] = None,
    recalibrate: Annotated[
        int,
        typer.Option(help="As in `pliant measure`: take norm statistics anew, from so many training images."),
    ] = 0,
    int8: Annotated[
        int, typer.Option(help="Quantize to int8, with ranges from so many training images, such as 512.")
    ] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(help="How far outputs may differ, 1e-4; with --int8 the share of other answers, 0.2."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="With --recalibrate or --int8: which images; default: what the run was trained on."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which network a checkpoint file is of; or FILE.py:FUNCTION of a run of your own network."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Write one sub-network, all, or a policy, as a file and keep it only if its own runtime agrees with PyTorch."""
    import json as json_

    from pliant.export import export as write

    if data is not None and not recalibrate and not int8:
        raise ValueError(
            f"--data {data}: only --recalibrate and --int8 need images; add one with their number, or leave --data out"
        )
    if budget is not None and policy is None:
        raise ValueError(f"--budget {budget:g}: it chooses among policies; add --policy with their file")
    if mode is not None and not switchable:
        raise ValueError(f"--mode {mode.value}: it is how a switchable file is stored; add --switchable")
    if policy and recalibrate:
        raise ValueError("--recalibrate: not with --policy, which was found for the norm statistics of the run")
    if switchable and recalibrate:
        raise ValueError("--recalibrate: not with --switchable, whose sub-networks share norm statistics")
    chosen, known = _chosen_policy(policy, budget) if policy else (None, {})
    network, info = load_run(run, model)
    if "offsets" in known:
        _spend_(network, known)
    batches, statistics = None, _Statistics()
    if recalibrate:
        batches, statistics = _taken_anew(run, network, subnet, recalibrate, data, info)
    if switchable:
        info = info | _all_measured(run, network)
    else:
        info = info | (known if chosen else _measured(run, network, subnet, statistics))
    info = info | {"data_options": data_options(run) or None}
    written = write(
        network,
        file,
        runtime=runtime,
        subnet=subnet,
        batch=batch,
        policy=chosen,
        switchable=(mode or Mode.fast).value if switchable else None,
        image_size=image_size,
        example=info["example"],
        recalibrate_on=batches,
        calibrate_on=_calibration(run, data, info, image_size, int8) if int8 else None,
        tolerance=tolerance,
        info=info,
    )
    print(json_.dumps(written.to_dict(), indent=2) if json else written)


def _chosen_policy(path: Path, budget: float | None) -> tuple[ConfidencePolicy | Literal["gate"], dict[str, Any]]:
    """Return a policy, and what is known of it: its own file holds one, that of `pliant measure` one a budget."""
    from pliant.measure.policy_table import PolicyTable
    from pliant.policy.confidence import ConfidencePolicy

    if str(path) == "gate":
        if budget is not None:
            raise ValueError(f"--budget {budget:g}: budgets stand in the gate.json of a run; name it with --policy")
        return "gate", {}
    keys = _keys(path)
    if {"gated", "static"} <= keys:
        return "gate", _gate_within(path, budget)
    if "policies" not in keys:
        policy = ConfidencePolicy.load(path)
        if budget is not None:
            raise ValueError(f"--budget {budget:g}: {path} holds one policy; leave --budget out")
        return policy, {} if policy.expected_cost is None else {"gmacs": policy.expected_cost}
    table = PolicyTable.load(path)
    known = {row["budget"]: (policy, row) for policy, row in zip(table.policies, table.rows, strict=True)}
    return known[_largest_within(path, known, budget)]


def _gate_within(path: Path, budget: float | None) -> dict[str, Any]:
    """Return the row of the largest budget within this one; without one, of the gate as the network had it."""
    from pliant.measure.gate_table import GateTable

    table = GateTable.load(path)
    known = {row["budget"]: row for row in table.budgets}
    row = table.gated if budget is None else known[_largest_within(path, known, budget)]
    return row | {"fingerprint": table.info.get("fingerprint")}


def _largest_within(path: Path, known: Iterable[float], budget: float | None) -> float:
    known = sorted(known)
    budgets = ", ".join(f"{one:.4g}" for one in known)
    if budget is None and len(known) != 1:
        raise ValueError(f"{path} holds policies for budgets of {budgets} GMACs; choose one with --budget")
    # As `pliant measure` prints them, budgets are rounded: one that was copied from there means itself.
    within = [one for one in known if budget is None or one <= budget or f"{one:.4g}" == f"{budget:.4g}"]
    if not within:
        raise ValueError(f"--budget {budget:g}: {path} holds policies for budgets of {budgets} GMACs, none within")
    return max(within)


def _spend_(network: nn.Module, row: Mapping[str, Any]) -> None:
    """Let the gate of a network spend what a row of its `gate.json` says.

    Raises:
        ValueError: the row is of another network.
    """
    from pliant.core.fingerprint import fingerprint
    from pliant.width.gates import gate_of

    own = fingerprint(network)
    if row["fingerprint"] != own:
        raise ValueError(
            f"--policy: its budgets are for the network of fingerprint {row['fingerprint']}, and this one's is {own}; "
            "measure this one with: pliant measure RUN --policy gate"
        )
    gate = gate_of(network)
    gate.offsets.copy_(gate.offsets.new_tensor(row["offsets"]))


def _keys(path: Path) -> set[str]:
    """Return what a JSON file holds; nothing of one that is no JSON."""
    import json

    from pliant.core.files import read_text

    try:
        document = json.loads(read_text(path, "policy"))
    except json.JSONDecodeError:
        return set()  # whoever reads a policy says what is wrong
    return set(document) if isinstance(document, dict) else set()


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
) -> tuple[Iterable[Tensor] | None, _Statistics]:
    """Return the images that `pliant measure --recalibrate` takes, or say why none are needed."""
    from pliant.recalibrate import training_images, why_not

    reason = why_not(model, "largest" if subnet is None else subnet)
    if reason:
        note(f"--recalibrate changes nothing: {reason}.")
        return None, _Statistics()
    images = load_data_of(run, data, info)
    return training_images(images, count, augment_of(run)), _Statistics(count, images.name)


def _calibration(
    run: Path, data: str | None, info: Mapping[str, Any], image_size: int | None, count: int
) -> Iterable[Tensor]:
    """Return training images as at inference, without the training's variation."""
    from pliant.recalibrate import training_images

    images = load_data_of(run, data, dict(info) | ({"image_size": image_size} if image_size else {}))
    if not 0 < count <= len(images.train):
        raise ValueError(f"--int8 {count}: allowed are 1 to {len(images.train)}, the training images of {images.name}")
    return training_images(images, count)


def _table_of(run: Path, model: nn.Module) -> Table | None:
    """Return the table of a run, if it is of this very network."""
    from pliant.core.fingerprint import fingerprint
    from pliant.measure.table import Table

    path = table_path(run)
    if not path.is_file():
        return None
    table = Table.load(path)
    return table if table.info.get("fingerprint") == fingerprint(model) else None


# What a latency depends on, and an accuracy.
_CIRCUMSTANCES = ("device", "cpu", "threads", "batch_size", "dtype", "compiled", "data", "date")


def _all_measured(run: Path, model: nn.Module) -> dict[str, Any]:
    """Return the table of this network and its circumstances, without what was measured with other norm statistics."""
    from pliant.recalibrate import why_not

    table = _table_of(run, model)
    if table is None:
        return {}
    anew = "recalibrated_on" in table.info
    rows = [
        {key: value for key, value in row.items() if not key.startswith("acc")}
        if anew and not why_not(model, row["subnet"])
        else row
        for row in table.rows
    ]
    return {"table": rows, "measured": {key: table.info[key] for key in _CIRCUMSTANCES if key in table.info}}


def _measured(run: Path, model: nn.Module, subnet: str | None, statistics: _Statistics) -> dict[str, Any]:
    """Return the row of the table of this very network, if it was measured; the file then carries it."""
    from pliant.core.adaptive import AdaptiveModule
    from pliant.recalibrate import why_not

    table = _table_of(run, model)
    if table is None:
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
        f"{table_path(run)} has the accuracy of {chosen} with {measured}; this file has {statistics}, and does not "
        f"carry that accuracy. For one and the same network, {_remedy(measured, statistics)}."
    )
    return {key: value for key, value in row.items() if not key.startswith("acc")}


def _remedy(measured: _Statistics, exported: _Statistics) -> str:
    if not measured.images:
        return f"measure it with --recalibrate {exported.images}"
    if measured.images == exported.images:
        return f"name those images of {measured.data} with --data"
    return f"export it with --recalibrate {measured.images}"
