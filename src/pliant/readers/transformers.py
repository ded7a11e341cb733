"""Reads the networks of Hugging Face transformers, and puts their configs right when blocks are taken out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pliant.core.anatomy import Anatomy, Stage
from pliant.core.weights import shapes
from pliant.readers.parts import child_paths, find_norms, read_blocks, read_stage

__all__ = ["COLUMNS", "STAGES", "answers_by", "read", "settle_", "stated_task"]

# Model type -> path of the list of blocks in the model without its head.
COLUMNS = {
    "vit": "layers",
    "deit": "layers",
    "dinov2": "encoder.layer",
    "dinov2_with_registers": "encoder.layer",
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "gpt2": "h",
    "llama": "layers",
    "mistral": "layers",
    "qwen2": "layers",
    "qwen3": "layers",
}

# How the class of a model ends whose head answers something else than once for each input, and by what it answers.
HEADS = {
    "ForTokenClassification": "token",
    "ForMultipleChoice": "choice",
    "ForQuestionAnswering": "span",
    "ForPreTraining": "pre-training task",
    "DoubleHeadsModel": "token and choice",
    "ForSemanticSegmentation": "pixel",
    "ForUniversalSegmentation": "pixel",
    "ForObjectDetection": "object",
}

# What the entries of a config that count channels or heads have in their names.
CHANNELS = ("hidden_size", "intermediate_size", "embed_dim", "_heads")


def read(model: nn.Module) -> Anatomy | None:
    """Return the anatomy of a network of `COLUMNS` or `STAGES`; none for anything else."""
    if not isinstance(model, PreTrainedModel):
        return None
    kind = model.config.model_type
    if kind not in COLUMNS and kind not in STAGES:
        return None
    body = _body(model)
    if kind in COLUMNS and isinstance(model, BackboneMixin):
        raise ValueError(
            f"adapt_: got a {type(model).__name__}, whose feature maps are outputs of layers by their number, which "
            "changes when layers are skipped and taken out; adapt a model that returns its last layer, or a backbone "
            "with stages, such as ResNetBackbone"
        )
    if kind in COLUMNS:
        path = body + COLUMNS[kind]
        stages: tuple[Stage, ...] = (read_stage(model, path, read_blocks(model, path), channel_dim=-1),)
    else:
        stages = STAGES[kind](model, body)
    head, num_classes = _head(model, body)
    return Anatomy(
        family=f"transformers {type(model).__name__}",
        stages=stages,
        head=head,
        num_classes=num_classes,
        columnar=kind in COLUMNS,
    )


def answers_by(model: nn.Module) -> str:
    """Return for what the head of a model answers, see `Anatomy`, by the name of its class; empty = unknown."""
    names = [base.__name__ for base in type(model).__mro__]
    return next((what for end, what in HEADS.items() if any(name.endswith(end) for name in names)), "")


def stated_task(model: nn.Module) -> str | None:
    """Return the task that transformers computes the loss of a model by; see `pliant.readers.stated_task`."""
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if any(base.__name__ in causal for base in type(model).__mro__):
        return "causal-lm"  # the labels are the tokens, and every position predicts the next
    config = getattr(model, "config", None)
    problem, num_labels = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
    if problem == "regression" or (problem is None and num_labels == 1):
        raise ValueError(
            f"task: this {type(model).__name__} is for regression, by its config (problem_type={problem!r}, num_labels="
            f"{num_labels}), which Objective does not train; for yes or no by one logit, give task='binary'"
        )
    return "multilabel" if problem == "multi_label_classification" else None


def _body(model: PreTrainedModel) -> str:
    """The path, with a dot behind it, of the model without its head; empty where it has none."""
    prefix = model.base_model_prefix
    return f"{prefix}." if prefix in dict(model.named_children()) else ""


def _head(model: nn.Module, body: str) -> tuple[str, int]:
    linear = [
        (path, module.out_features)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and body and not path.startswith(body)
    ]
    return linear[-1] if linear else ("", 0)


def _resnet(model: nn.Module, body: str) -> tuple[Stage, ...]:
    def keeps_shape(block: nn.Module) -> bool:
        return isinstance(block.shortcut, nn.Identity)

    paths = [f"{path}.layers" for path in child_paths(model, f"{body}encoder.stages")]
    return tuple(read_stage(model, path, read_blocks(model, path, keeps_shape, ("shortcut",))) for path in paths)


def _convnext(model: nn.Module, body: str) -> tuple[Stage, ...]:
    return tuple(
        read_stage(
            model,
            f"{path}.layers",
            read_blocks(model, f"{path}.layers"),
            norms=find_norms(model, f"{path}.downsampling_layer"),
        )
        for path in child_paths(model, f"{body}encoder.stages")
    )


def _swin(model: nn.Module, body: str) -> tuple[Stage, ...]:
    """The patch merging lies at the end of a stage; its norm follows the stage behind it."""
    stages: list[Stage] = []
    merging: tuple[str, ...] = ()
    for path in child_paths(model, f"{body}encoder.layers"):
        # A block returns its attention weights too.
        blocks = tuple(dataclasses.replace(b, outputs=2) for b in read_blocks(model, f"{path}.blocks"))
        stages.append(read_stage(model, f"{path}.blocks", blocks, norms=merging, channel_dim=-1))
        last = model.get_submodule(path).downsample is None
        merging = () if last else find_norms(model, f"{path}.downsample")
    return tuple(stages)


STAGES: dict[str, Callable[[nn.Module, str], tuple[Stage, ...]]] = {
    "resnet": _resnet,
    "convnext": _convnext,
    "convnextv2": _convnext,
    "swin": _swin,
    "swinv2": _swin,
}


def settle_(model: nn.Module, anatomy: Anatomy) -> None:
    """Let the config, and the numbers that blocks bear, agree with the blocks and channels that are left, in place.

    The config says how many blocks the library makes, and of how many channels; the number of a block says which entry
    of a key-value cache is its own.
    """
    assert isinstance(model, PreTrainedModel)
    config: Any = model.config
    containers = [model.get_submodule(path) for path in dict.fromkeys(stage.path for stage in anatomy.stages)]
    if anatomy.columnar:
        (column,) = containers
        config.num_hidden_layers = len(column)  # type: ignore[arg-type]
        kept = [_renumber_(block, number) for number, block in enumerate(column)]  # type: ignore[arg-type]
        if getattr(config, "layer_types", None) is not None and None not in kept:
            config.layer_types = [config.layer_types[number] for number in kept]
    else:
        config.depths = [len(container) for container in containers]  # type: ignore[arg-type]
    if anatomy.channels:
        _settle_channels_(model, anatomy)


def _settle_channels_(model: PreTrainedModel, anatomy: Anatomy) -> None:
    """Let the config say how many channels and heads are left, where it then makes this very network."""
    left = _left_of(model, anatomy)
    config: Any = copy.deepcopy(model.config)
    for name, value in model.config.to_dict().items():
        if any(word in name for word in CHANNELS):
            if isinstance(value, list):
                setattr(config, name, [left.get(size, size) for size in value])
            elif isinstance(value, int):
                setattr(config, name, left.get(value, value))
    try:
        with torch.device("meta"):
            made = type(model)(config)
    except ValueError:  # it makes no network at all
        return
    if shapes(made.state_dict()) == shapes(model.state_dict()):
        vars(model.config).update(vars(config))


def _left_of(model: PreTrainedModel, anatomy: Anatomy) -> dict[int, int]:
    """Return how many channels, or heads, there are where there were so many."""
    found: dict[int, set[int]] = {}
    for group in anatomy.channels:
        for cut in group.cuts:
            try:
                tensor = getattr(model.get_submodule(cut.path), cut.name)
            except AttributeError:  # of a block that was taken out
                continue
            if cut.dim is not None:
                units = tensor.shape[cut.dim] // (cut.parts * cut.per_unit)
                for size in (1, cut.per_unit):
                    found.setdefault(group.units * size, set()).add(units * size)
    return {before: after.pop() for before, after in found.items() if len(after) == 1}


def _renumber_(block: nn.Module, number: int) -> int | None:
    """Give a block its new number and return its old one; None where it has none."""
    before = None
    for module in block.modules():
        attributes = vars(module)
        if isinstance(attributes.get("layer_idx"), int):
            before, attributes["layer_idx"] = attributes["layer_idx"], number
    return before
