"""The network that a command is given: a run folder or a model's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_run", "named_or_loaded"]


def load_run(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a run folder and what was written down with it, such as `image_size`.

    Besides there is `model`, the name it was made from, and `only`: which sub-network it is, for a network
    that was trained on its own.

    Raises:
        FileNotFoundError: no such folder, or nothing was trained in it.
    """
    from pliant.checkpoint import load, read_info

    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder; train one with `pliant train --recipe ... --out {run}`")
    card = read_info(run)
    return load(run), card["info"] | {"model": card["model"]["name"], "only": card["only"]}


def named_or_loaded(model_or_run: str) -> tuple[nn.Module, int]:
    """Return an adaptive model and its image size, from a run folder or from a name.

    Raises:
        ValueError: neither a folder nor the name of a model that can be adapted.
    """
    from pliant.adapt import adapt_
    from pliant.create import create_model, usual_image_size
    from pliant.depth.config import Depth

    size = None
    if Path(model_or_run).is_dir():
        model, info = load_run(Path(model_or_run))
        size = info.get("image_size")
    elif ":" in model_or_run:
        model = adapt_(create_model(model_or_run), Depth())
    else:
        raise ValueError(f"{model_or_run}: neither a run folder nor a model such as torchvision:resnet50")
    size = size or usual_image_size(model)
    assert size is not None, "every model that has a name says its image size"
    return model, size
