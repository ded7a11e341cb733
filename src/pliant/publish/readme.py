"""The README of a repository: a model card in the Hub's words, written from what was measured and saved."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pliant.checkpoint import LIBRARY, example_of
from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import TensorSpec
from pliant.core.taken import inputs_of
from pliant.create import usual_image_size
from pliant.measure.table import Table

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

__all__ = ["readme"]

COLUMNS = ("subnet", "gmacs", "params_m", "acc1", "latency_ms", "latency_ms_p95")

# What the Hub calls data sets that we call by a shorter name. Others have no page there that we could name.
_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
_CHOICES = {"depth": "depth", "exits": "exit", "width": "width"}


def readme(
    repository: str, card: Mapping[str, Any], network: nn.Module, table: Table | None, dtype: torch.dtype
) -> str:
    """Return the text of the README; what was not measured is absent, and the license is left to its author.

    Args:
        repository: `USER/NAME`, from where the README says the network is loaded.
        card: what the saved network says of itself.
        network: itself.
        table: what was measured of it, if anything was.
        dtype: of its weights as they are saved, which `pliant.load` gives back.
    """
    from huggingface_hub import ModelCard

    text = ModelCard.from_template(
        _metadata(repository, card, table),
        template_str=files("pliant.publish").joinpath("readme.md.jinja").read_text(encoding="utf-8"),
        title=repository.partition("/")[2],
        what=_what(card, network),
        adaptive=isinstance(network, AdaptiveModule),
        table=table.markdown(COLUMNS) if table else "",
        circumstances=_circumstances(table) if table else "",
        load=_load(repository, card),
        run=_run(card, network, dtype),
        hints=_hints(card, network, dtype),
    ).content
    return text.rstrip() + "\n"


def _metadata(repository: str, card: Mapping[str, Any], table: Table | None) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    info = card["info"]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=str(_DATASETS.get(table.info["data"], table.info["data"])),
            dataset_name=table.info["data"],
            dataset_split=table.info["split"],
            metric_type="accuracy",
            metric_name=f"top-1 accuracy of {row['subnet']} in %",
            metric_value=round(row["acc1"], 2),
        )
        for row in (table.rows if table else ())
        if table and "acc1" in row
    ]
    trained_on = _DATASETS.get(info.get("data"))
    return ModelCardData(
        library_name=LIBRARY,
        tags=[LIBRARY, "dynamic-neural-networks", *(f"adaptive-{axis}" for axis in card["adapt"])],
        pipeline_tag="image-classification" if "class_names" in info else None,
        datasets=[trained_on] if trained_on else None,
        metrics=["accuracy"] if results else None,
        model_name=repository.partition("/")[2] if results else None,
        eval_results=results or None,
    )


def _what(card: Mapping[str, Any], network: nn.Module) -> str:
    info = card["info"]
    name = f"`{card['model']['name']}`" if card["model"] else "a network of its author's own"
    if isinstance(network, AdaptiveModule):
        chosen = [_CHOICES[axis] for axis in card["adapt"]]
        verb = "is" if len(chosen) == 1 else "are"
        text = (
            f"{network.space.num_subnets} sub-networks in one set of weights, made from {name} with pliant. "
            f"Its {' and '.join(chosen)} {verb} chosen at run time, by name or for a budget"
            + (", or input by input by its gate." if network.routes else ".")
        )
    elif card["only"]:
        text = f"A plain network: the sub-network `{card['only']}` of {name}, made with pliant."
    else:
        text = f"A plain network: {name}, trained with pliant."
    if {"data", "class_names", "image_size"} <= set(info):
        size, classes = info["image_size"], len(info["class_names"])
        text += f" It was trained on {info['data']}: {classes} classes, images of {size} x {size} pixels."
    return text


def _circumstances(table: Table) -> str:
    """Say of every quantity in the table where it comes from."""
    info, columns, lines = table.info, table.columns, []
    if "acc1" in columns:
        lines.append(f"Accuracy: on the {info['split']} part of {info['data']}, {info['images']} images.")
    if info.get("recalibrated_on") and any("acc1" not in row for row in table.rows):
        lines.append(
            "Where it is missing, it was measured with norm statistics taken anew "
            f"(`pliant measure --recalibrate {info['recalibrated_on']}`), and these weights have those of the training."
        )
    if "latency_ms" in columns:
        threads = f"{info['threads']} thread{'s' if info['threads'] > 1 else ''}"
        lines.append(
            f"Latency: the median of {info['rounds']} passes of a batch of {info['batch_size']} in {info['dtype']} on "
            f"{info['device']}, {info['cpu']}, {threads}; other machines differ: `pliant measure` times them."
        )
    versions = info["versions"]
    lines.append(f"Measured on {info['date'][:10]} with pliant {versions['pliant']} and PyTorch {versions['torch']}.")
    return "\n".join(lines)


def _load(repository: str, card: Mapping[str, Any]) -> str:
    # Code is run only where a person names it.
    own = card["model"]["name"] if card["model"] else None
    if own is None:
        return f'pliant.load("hf:{repository}", model=network)  # a new network of its author\'s own kind'
    argument = f', model="{own}"' if own.rpartition(":")[0].endswith(".py") else ""
    return f'pliant.load("hf:{repository}"{argument})'


def _run(card: Mapping[str, Any], network: nn.Module, dtype: torch.dtype) -> str:
    usual = card["info"].get("image_size") or usual_image_size(network)
    inputs = inputs_of(network, example=example_of(card), usual=usual)
    given = ["x"] if inputs is None else _arguments(inputs.example, dtype)
    given += [f'subnet="{network.space.smallest}"'] if isinstance(network, AdaptiveModule) else []
    return f"model({', '.join(given)})"


def _arguments(example: Any, dtype: torch.dtype) -> list[str]:
    """Return the arguments of a call with one input like an example, as Python."""
    if isinstance(example, dict):
        return [f"{name}={_value(value, dtype)}" for name, value in example.items()]
    return [_value(value, dtype) for value in (example if isinstance(example, tuple) else (example,))]


def _value(value: Any, dtype: torch.dtype) -> str:
    if not isinstance(value, TensorSpec):
        return repr(value)
    shape = ", ".join(map(str, (1, *value.shape[1:])))
    if value.is_floating:
        typed = "" if dtype == torch.float32 else f", dtype={dtype}"
        return f"torch.randn({shape}{typed})"
    least = f"{value.least}, " if value.least else ""
    return f"torch.randint({least}{value.most + 1}, ({shape}{',' if len(value.shape) == 1 else ''}))"


def _hints(card: Mapping[str, Any], network: nn.Module, dtype: torch.dtype) -> str:
    info, hints = card["info"], []
    if dtype != torch.float32:
        name = str(dtype).removeprefix("torch.")
        hints.append(f"The weights are {name}; `pliant.load(..., dtype=torch.float32)` gives them in float32.")
    if isinstance(network, AdaptiveModule):
        hints.append(
            "`model.subnets` names all sub-networks, and without `subnet` the largest runs; "
            "`pliant.extract(model, subnet)` makes one a plain network."
        )
        if network.routes:
            hints.append(
                '`logits, places = pliant.predict(model, x, policy="gate")` lets the gate choose for every input; '
                "`places` are those of its choices in `model.routes`."
            )
    if {"mean", "std"} <= set(info):
        mean, std = (", ".join(f"{value:.4g}" for value in info[key]) for key in ("mean", "std"))
        hints.append(f"Images are RGB between 0 and 1, minus ({mean}), divided by ({std}).")
    if "class_names" in info:
        hints.append("`config.json` has the names of the classes.")
    return "\n".join(hints)
