"""Read files of weights that other programs wrote; nothing in them is ever executed."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pliant.core.weights import CheckpointError

__all__ = ["WeightsFile", "read"]

# Where training scripts put the averaged (EMA) weights, and where the plain ones: torchvision's script, which the
# ADN authors' is made from, and timm's.
AVERAGED = ("model_ema", "state_dict_ema")
PLAIN = ("model", "state_dict")
# What wrappers for training put before every name.
PREFIXES = ("module.", "_orig_mod.")
# Counts of a wrapper that belong to no network.
BOOKKEEPING = ("n_averaged",)
# Names that a library gave to its tensors in earlier versions, and gives them now.
RENAMED = (
    (r"(encoder_layer_\d+\.mlp)\.linear_1\.", r"\1.0."),  # torchvision's ViT
    (r"(encoder_layer_\d+\.mlp)\.linear_2\.", r"\1.3."),
)


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds.

    Attributes:
        path: the file.
        tensors: weights by name, without prefixes and bookkeeping.
        entry: which entry of the file they are; none = the file is nothing but weights.
        hints: texts that may name the architecture: what the file says, what lies beside it, its own name.
    """

    path: Path
    tensors: dict[str, Tensor]
    entry: str | None
    hints: tuple[str, ...]


def read(path: Path, ema: bool | None) -> WeightsFile:
    """Read the weights of a `.safetensors` file, or of one that `torch.save` wrote.

    Args:
        path: the file.
        ema: take the averaged weights (True), the plain ones (False), or the averaged ones where the file has
            them (None).

    Raises:
        CheckpointError: truncated, corrupt, holds other things than weights, or not the weights asked for.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no weights: it is {_kind(content)}, expected tensors by name")
    entry = _entry(path, content, ema)
    weights: Any = content if entry is None else content[entry]
    tensors = _weights(path, weights)
    hints = (content.get("arch"), _written_beside(path), path.stem)
    return WeightsFile(path, tensors, entry, tuple(hint for hint in hints if isinstance(hint, str)))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated, corrupt or no safetensors file ({error})") from None


def _read_torch(path: Path) -> Any:
    # The options that a training script was called with are in most checkpoints, and are plain values.
    with open(path, "rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # what a damaged file makes the reader raise has no bounds
            forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
            if forbidden:
                raise CheckpointError(
                    f"{path} holds more than weights and plain values: {forbidden[1]}; such a file could execute "
                    "anything, and is refused. Save its state_dict() alone"
                ) from None
            raise CheckpointError(f"{path} is truncated, corrupt or not written by torch.save") from None


def _entry(path: Path, content: Mapping[str, Any], ema: bool | None) -> str | None:
    averaged = next((entry for entry in AVERAGED if isinstance(content.get(entry), Mapping)), None)
    plain = next((entry for entry in PLAIN if isinstance(content.get(entry), Mapping)), None)
    if ema and averaged is None:
        raise CheckpointError(f"{path} holds no averaged weights: none of {', '.join(AVERAGED)} is in it")
    if ema is False and plain is None and averaged is not None:
        raise CheckpointError(f"{path} holds averaged weights alone ({averaged}); load it without ema=False")
    return plain if ema is False else averaged or plain


def _weights(path: Path, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    kept = {str(name): tensor for name, tensor in tensors.items() if name not in BOOKKEEPING}
    others = [f"{name} is {_kind(value)}" for name, value in kept.items() if not isinstance(value, Tensor)]
    if others:
        known = ", ".join((*AVERAGED, *PLAIN))
        raise CheckpointError(
            f"{path} is no state dict, and has none as {known}: {'; '.join(others[:3])}, expected tensors"
        )
    while prefix := next((p for p in PREFIXES if kept and all(name.startswith(p) for name in kept)), None):
        kept = {name.removeprefix(prefix): tensor for name, tensor in kept.items()}
    return {_present(name): tensor for name, tensor in kept.items()}


def _present(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _written_beside(path: Path) -> str | None:
    """The architecture in the `config.json` that timm's files on the Hub come with."""
    try:
        config = json.loads((path.parent / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return config.get("architecture") if isinstance(config, Mapping) else None


def _kind(value: object) -> str:
    return "empty" if value == {} else f"a {type(value).__name__}"
