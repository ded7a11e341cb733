"""`Recipe`: everything that decides what a training run computes, as one file of YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from pliant.core.config import Config
from pliant.train.settings import Adapt, Data, Ema, Model, Optimizer, PlanChoice, Schedule

__all__ = ["Adapt", "Data", "Ema", "Model", "Optimizer", "PlanChoice", "Recipe", "Schedule"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """One training run as data; the same recipe on the same machine gives the same network.

    Attributes:
        model: which network.
        data: what to train on.
        epochs: passes over the training images.
        adapt: how the network is made adaptive; none = it is trained as it is.
        only: text of one sub-network to train on its own, as a plain network, for comparison; empty = all.
        plan: the training objective. A plain network learns from the labels alone, whatever stands here.
        optimizer: which, and with what.
        schedule: of the learning rate.
        batch_size: images a step, in all processes together.
        seed: of everything random.
        precision: 32, or `bf16` for automatic mixed precision.
        ema: moving average of the weights, or none.
        clip_norm: limit of the gradient's norm, or none.
        label_smoothing: in [0, 1).
        channels_last: memory layout of images and weights.
        compile: run the network through `torch.compile`.
        backward: `joint`, or `sequential` (less memory, same gradients).
        sync_batchnorm: batch statistics over all processes (CUDA only).
        validate_every: epochs between two validations; the last epoch is always validated.
    """

    model: Model
    data: Data
    epochs: int
    adapt: Adapt | None = field(default_factory=Adapt)
    only: str = ""
    plan: PlanChoice = field(default_factory=PlanChoice)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    batch_size: int = 128
    seed: int = 0
    precision: Literal[32, "bf16"] = 32
    ema: Ema | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    channels_last: bool = False
    compile: bool = False
    backward: Literal["joint", "sequential"] = "joint"
    sync_batchnorm: bool = False
    validate_every: int = 1

    def validate(self) -> None:
        """Check what the fields say together."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("validate_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Recipe.{name}: got {getattr(self, name)}, expected at least {least}")
        if self.only and self.adapt is None:
            raise ValueError(f"Recipe.only: got {self.only!r}, but 'adapt' is none: there are no sub-networks")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"Recipe.clip_norm: got {self.clip_norm}, expected more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Recipe.label_smoothing: got {self.label_smoothing}, expected a fraction in [0, 1)")
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(f"Schedule.warmup_epochs: got {self.schedule.warmup_epochs}, expected less than epochs")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a recipe from a YAML file.

        Raises:
            ValueError: there is no such file, it is not YAML, or a field is unknown or wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"cannot read the recipe {os.fspath(path)}: {reason}") from None
        try:
            return cls.from_yaml(text)
        except ValueError as error:
            raise ValueError(f"recipe {os.fspath(path)}: {error}") from None

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read a recipe from YAML text; raises ValueError as `load` does."""
        try:
            tree = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
        return cls.from_dict(tree)

    def to_yaml(self) -> str:
        """Return the recipe with all its fields as YAML text; `from_yaml` reads it."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110)

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The fields in which two recipes differ, by path (`optimizer.lr`): this one's value, the other's."""
        return _differences(self.to_dict(), other.to_dict())


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found |= _differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            found[prefix + name] = (mine, theirs)
    return found


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also takes `1e-4` (without a point) as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
