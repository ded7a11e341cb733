"""`pliant measure`: a table of all sub-networks of a run, on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pliant.cli.exported import RUNTIME_NAMES, is_exported, measure_exported
from pliant.cli.gate import show_gate
from pliant.cli.networks import load_run, write_table
from pliant.cli.policies import show_policies
from pliant.cli.show import headline, note, progress_bar, show

if TYPE_CHECKING:
    from torch import nn

    from pliant.data import Augment, ImageData
    from pliant.measure.table import Table

__all__ = ["measure"]

_MUCH = 2
"""Points by which untrained sub-networks of a well-trained network do not fall."""
_ENOUGH = 5120
"""Images for norm statistics: as many as the figures in docs/results.md took."""


class Part(StrEnum):
    """Which part of the data accuracy is measured on."""

    test = "test"
    val = "val"


class Dtype(StrEnum):
    """What the network computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class PolicyKind(StrEnum):
    """What chooses the sub-network, image by image."""

    confidence = "confidence"
    gate = "gate"


class Confidence(StrEnum):
    """How sure an answer is: by its largest probability, its entropy, or its lead over the second."""

    max_softmax = "max_softmax"
    entropy = "entropy"
    margin = "margin"


def measure(
    run: Annotated[
        Path, typer.Argument(help="A run folder, a checkpoint file of other people, or a file of pliant export.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10, cifar100, a folder or an archive; default: what the run was trained on."),
    ] = None,
    split: Annotated[Part, typer.Option(help="Accuracy on which part of the data.")] = Part.test,
    batch_size: Annotated[int, typer.Option(help="Images in a pass that is timed.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads in a pass that is timed; default: all.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="What the network computes in.")] = Dtype.float32,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    rounds: Annotated[int | None, typer.Option(help="How often each sub-network is timed; default: 100.")] = None,
    budget_seconds: Annotated[
        float | None, typer.Option(help="Time all for so long together, as often as fits; instead of --rounds.")
    ] = None,
    energy: Annotated[bool, typer.Option(help="Measure energy where it can be read: 2 s a sub-network.")] = True,
    meter: Annotated[
        str | None,
        typer.Option(help="FILE.py:FUNCTION that returns joules since some start; default: the machine's counters."),
    ] = None,
    runtime: Annotated[str | None, typer.Option(help=f"Of an exported file: what runs it, of {RUNTIME_NAMES}")] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Of an exported file: others to measure with it, named one by one.")
    ] = None,
    recalibrate: Annotated[
        int, typer.Option(help="Take norm statistics of untrained sub-networks anew, from so many training images.")
    ] = 0,
    policy: Annotated[
        PolicyKind | None,
        typer.Option(
            help="Instead of all sub-networks: policies for budgets, by which the first that is sure answers an image "
            "(confidence); or the network's own gate, which chooses the width (gate)."
        ),
    ] = None,
    budgets: Annotated[
        int | None,
        typer.Option(help="With --policy: how many, from what the first costs to what the last does; 5."),
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="With --policy: an average of GMACs an image, named one by one; instead of --budgets."),
    ] = None,
    confidence: Annotated[
        Confidence | None, typer.Option(help="With --policy confidence: sure by what; max_softmax.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="With --policy confidence: find a temperature for each.")
    ] = False,
    subnet: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these sub-networks, named one by one; of an exported file only they are loaded. With --policy "
            "confidence: what is tried, in order; default: all exits."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which network a checkpoint file is of; or FILE.py:FUNCTION of a run of your own network."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Measure all sub-networks, or a policy: accuracy, latency, energy; writes table.json, policies.json, gate.json."""
    from pliant.core.adaptive import AdaptiveModule
    from pliant.measure.candidates import chosen_subnets
    from pliant.measure.run import measure as measure_all
    from pliant.own import find
    from pliant.recalibrate import why_not

    if policy is None:
        _refuse("needs --policy", budgets=budgets, budget=budget)
    if policy is not PolicyKind.confidence:
        _refuse("needs --policy confidence", confidence=confidence, calibrate=calibrate)
    if policy is PolicyKind.gate:
        _refuse("does not go with --policy gate, which chooses among those it has learned", subnet=subnet)
    if budget:
        _refuse("is how many, --budget which: give one of them", budgets=budgets)
    if policy is not None:
        others = {"recalibrate": recalibrate, "split": split is Part.val, "batch-size": batch_size != 1}
        others |= {"budget-seconds": budget_seconds, "no-energy": not energy, "meter": meter}
        _refuse("does not go with --policy, which times single images of the test part", **others)
        rounds = 100 if rounds is None else rounds
        if rounds < 1:
            raise ValueError(f"rounds={rounds}: allowed are whole numbers from 1 on")
    if not energy:
        _refuse("does not go with --no-energy", meter=meter)
    if is_exported(run):
        of_networks = {"policy": policy, "recalibrate": recalibrate, "model": model, "device": device != "cpu"}
        _refuse("is for networks, not for exported files", **of_networks, dtype=dtype is not Dtype.float32)
        how = {
            "split": split.value,
            "batch_size": batch_size,
            "threads": threads,
            "rounds": rounds,
            "budget_seconds": budget_seconds,
            "energy": energy,
            "meter": None if meter is None else find(meter),
        }
        measure_exported(run, data, runtime=runtime, subnets=subnet, beside=beside or (), as_json=json, **how)
        return
    _refuse("is for exported files, such as net.onnx", runtime=runtime, beside=beside)
    network, info = load_run(run, model)
    if policy is not None:
        _place_(network, device, dtype)
        how = {"name": info["model"], "threads": threads, "rounds": rounds, "as_json": json}
        how |= {"budgets": budget or (5 if budgets is None else budgets)}
        if policy is PolicyKind.gate:
            show_gate(run, network, load_data_of(run, data, info), **how)
            return
        show_policies(
            run,
            network,
            load_data_of(run, data, info),
            confidence=(confidence or Confidence.max_softmax).value,
            calibrate=calibrate,
            subnets=subnet or (),
            **how,
        )
        return
    if isinstance(network, AdaptiveModule):
        chosen_subnets(network, subnet)  # refused before data is loaded
    reason = why_not(network) if recalibrate else ""
    if reason:
        note(f"--recalibrate changes nothing: {reason}.")
    images = _images_of(run, network, data, info)
    if images is None and recalibrate:
        raise ValueError("--recalibrate: it takes training images; name the data with --data")
    with progress_bar() as on_progress:
        table = measure_all(
            network,
            images,
            subnets=subnet,
            example=info["example"] if images is None else None,
            split=split.value,
            batch_size=batch_size,
            threads=threads,
            dtype=dtype.value,
            device=device,
            energy=energy,
            meter=None if meter is None else find(meter),
            rounds=rounds,
            budget_seconds=budget_seconds,
            recalibrate=recalibrate,
            augment=augment_of(run) if recalibrate else None,
            name=info["only"] or info["model"],
            on_progress=on_progress,
        )
    table.info["model"] = info["model"]
    path = write_table(table, run)
    show(table.rows, as_json=json, title=headline(table.info))
    if "no_energy" in table.info:
        note(f"No energy: {table.info['no_energy']}.")
    fallen = _fallen(table, network, recalibrated=bool(info.get("recalibrated")))
    if fallen and images is not None:
        note(
            f"{', '.join(fallen)}: less accurate than the trained ones by more than {_MUCH} points. They run with norm "
            f"statistics of others: try --recalibrate {min(_ENOUGH, len(images.train))}, here and with pliant export."
        )
    reported = run if run.is_dir() else path
    note(f"Written to {path}. Next: pliant pick {run} --latency-ms ..., or pliant report {reported}")


def _images_of(run: Path, network: nn.Module, data: str | None, info: Mapping[str, Any]) -> ImageData | None:
    """Load the images of a run; none where nobody names any, and it is known what the network takes.

    Raises:
        ValueError: nobody names any, and that is not known; or as `load_data_of`.
    """
    from pliant.core.taken import inputs_of

    known = inputs_of(network, example=info["example"])
    if data is None and not (run / "recipe.yaml").is_file() and known is not None:
        note("No accuracy: no data was named with --data.")
        return None
    return load_data_of(run, data, info)


def _place_(network: nn.Module, device: str, dtype: Dtype) -> None:
    import torch

    from pliant.measure.environment import resolve_device

    network.to(resolve_device(device), getattr(torch, dtype.value))


def _refuse(why: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None and value is not False and value != 0:
            raise ValueError(f"--{name} {why}")


def _fallen(table: Table, model: nn.Module, *, recalibrated: bool) -> list[str]:
    """The untrained sub-networks that new norm statistics are likely to help; `recalibrated` models keep some."""
    from pliant.core.adaptive import as_adaptive
    from pliant.recalibrate import why_not, with_own_statistics

    if "recalibrated_on" in table.info or why_not(model):
        return []
    accuracies = {row["subnet"]: row["acc1"] for row in table.rows if "acc1" in row}
    own = set(map(str, with_own_statistics(as_adaptive(model, "measure"), "measure"))) if recalibrated else set()
    untrained = [subnet for subnet in accuracies if not why_not(model, subnet)]
    trained = [accuracies[subnet] for subnet in accuracies if subnet not in untrained]
    behind = [subnet for subnet in untrained if trained and accuracies[subnet] < min(trained) - _MUCH]
    return [subnet for subnet in behind if subnet not in own]


def load_data_of(run: Path, spec: str | None, info: Mapping[str, Any]) -> ImageData:
    """Load images as the run saw them: at its size, normalised as they were, the same ones held out for validation.

    Raises:
        ValueError: no data is named, neither here nor by the run, or its classes are others.
    """
    from pliant.data import load_data
    from pliant.train.recipe import Recipe

    options: dict[str, Any] = {"image_size": info.get("image_size")} | data_options(run)
    if (run / "recipe.yaml").is_file():
        spec = spec or Recipe.load(run / "recipe.yaml").data.source
    if spec is None:
        raise ValueError(f"{run} does not say what it was trained on: name the data with --data")
    images = load_data(spec, **options)
    if not {"class_names", "mean", "std"} <= set(info):
        return images
    return images.as_trained_on(info["class_names"], info["mean"], info["std"])


def data_options(run: Path) -> dict[str, Any]:
    """Return how a run loaded its images, beside their size, in the words of `load_data`."""
    from pliant.train.recipe import Recipe

    if not (run / "recipe.yaml").is_file():
        return {}
    recipe = Recipe.load(run / "recipe.yaml")
    held_out = {"val_fraction": recipe.data.val_fraction, "seed": recipe.seed}
    seen = {"resize": recipe.data.resize, "interpolation": recipe.data.interpolation, "white": recipe.data.white}
    return held_out | seen


def augment_of(run: Path) -> Augment | None:
    """Return how the run varied its training images; none where it has no recipe."""
    from pliant.train.recipe import Recipe

    recipe = run / "recipe.yaml"
    return Recipe.load(recipe).data.augment if recipe.is_file() else None
