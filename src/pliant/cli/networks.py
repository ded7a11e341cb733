"""The network that a command is given: a run folder or a model's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_run", "named_or_loaded", "usual_image_size"]


def load_run(run: Path) -> tuple[nn.Module, Mapping[str, Any]]:
    """Load the network of a run folder and what was written down with it, such as `image_size`.

    Raises:
        FileNotFoundError: no such folder, or nothing was trained in it.
    """
    from pliant.checkpoint import load, read_info

    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder; train one with `pliant train --recipe ... --out {run}`")
    return load(run), read_info(run)["info"]


def named_or_loaded(model_or_run: str) -> tuple[nn.Module, int]:
    """Return an adaptive model and its image size, from a run folder or from a name.

    Raises:
        ValueError: neither a folder nor the name of a model that can be adapted.
    """
    from pliant.adapt import adapt_
    from pliant.create import create_model
    from pliant.depth.config import Depth

    if Path(model_or_run).is_dir():
        model, info = load_run(Path(model_or_run))
        return model, info.get("image_size") or usual_image_size(model)
    if ":" not in model_or_run:
        raise ValueError(f"{model_or_run}: neither a run folder nor a model such as torchvision:resnet50")
    model = adapt_(create_model(model_or_run), Depth())
    return model, usual_image_size(model)


def usual_image_size(model: nn.Module) -> int:
    """Return the image size in pixels that a model was made for: timm writes it down, ours are for CIFAR."""
    written_down = getattr(model, "pretrained_cfg", None)
    if isinstance(written_down, Mapping) and written_down.get("input_size"):
        return written_down["input_size"][-1]
    own = any(cls.__module__.startswith("pliant.models") for cls in type(model).__mro__)
    return 32 if own else 224
