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
from pliant.core.plan import Plan
from pliant.core.subnet import SubNetSpace
from pliant.data import Augment
from pliant.depth.config import Depth
from pliant.depth.plan import DEFAULT_PLAN, build_plan

__all__ = ["Adapt", "Data", "Ema", "Model", "Optimizer", "PlanChoice", "Recipe", "Schedule"]


@dataclass(frozen=True, kw_only=True)
class Model(Config):
    """Which network to train.

    Attributes:
        name: `torchvision:resnet50`, `timm:resnet50d`, `pliant:resnet20`, ...
        pretrained: start from the library's weights.
        options: passed on to the library's own constructor. The number of classes comes from the data.
    """

    name: str
    pretrained: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Refuse a number of classes: the data says it."""
        if "num_classes" in self.options:
            raise ValueError("Model.options: 'num_classes' is not allowed here, it comes from the data")


@dataclass(frozen=True, kw_only=True)
class Adapt(Config):
    """How the network is made adaptive.

    Attributes:
        depth: options of `pliant.Depth`.
    """

    depth: Depth = field(default_factory=Depth)


@dataclass(frozen=True, kw_only=True)
class PlanChoice(Config):
    """Which training objective, by name; further keys are the options of that plan.

    Attributes:
        name: a plan of `pliant.depth.plan`.
        options: its options. In YAML they stand next to the name.
    """

    name: str = DEFAULT_PLAN
    options: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Refuse unknown plans and options, whatever the network."""
        self.build(SubNetSpace((1,)))

    def build(self, space: SubNetSpace) -> Plan:
        """Make the plan for the sub-networks of one model."""
        try:
            return build_plan(self.name, space, **self.options)
        except TypeError as error:
            raise ValueError(f"plan {self.name!r}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the options on one level."""
        return {"version": self.version, "name": self.name, **self.options}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        if not isinstance(data, Mapping):
            raise ValueError(f"{cls.__name__}: got {data!r}, expected a mapping with 'name' and options")
        known = {key: data[key] for key in ("version", "name") if key in data}
        return super().from_dict(known | {"options": {k: v for k, v in data.items() if k not in known}})


@dataclass(frozen=True, kw_only=True)
class Data(Config):
    """What to train on.

    Attributes:
        source: `digits`, `cifar10`, `cifar100`, the path of a folder of class folders or of an archive of one.
        image_size: pixels of a side; none = what the source says.
        val_fraction: share of the training images held out for validation.
        augment: fields of `pliant.data.Augment`.
    """

    source: str
    image_size: int | None = None
    val_fraction: float = 0.1
    augment: Augment = field(default_factory=Augment)

    def validate(self) -> None:
        """Check the ranges."""
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"Data.val_fraction: got {self.val_fraction}, expected a fraction in [0, 1)")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"Data.image_size: got {self.image_size}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Optimizer(Config):
    """One of torch's optimizers; norms and biases never decay.

    Attributes:
        name: `sgd` or `adamw`.
        lr: the highest learning rate; the schedule scales it.
        momentum: of sgd.
        nesterov: of sgd.
        weight_decay: on weights of two or more dimensions.
        betas: of adamw.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)

    def validate(self) -> None:
        """Check the ranges."""
        if not self.lr > 0:
            raise ValueError(f"Optimizer.lr: got {self.lr}, expected more than 0")
        if not self.weight_decay >= 0:
            raise ValueError(f"Optimizer.weight_decay: got {self.weight_decay}, expected at least 0")
        for name, value in (("momentum", self.momentum), ("betas", self.betas[0]), ("betas", self.betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"Optimizer.{name}: got {value}, expected a number in [0, 1)")
        if self.nesterov and not self.momentum:
            raise ValueError("Optimizer.nesterov: needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class Schedule(Config):
    """How the learning rate moves, in every step.

    Attributes:
        name: `step` (times `gamma` at every milestone), `cosine` (down to `final_lr`) or `one_cycle`
            (up, then down to nearly zero).
        warmup_epochs: of `step` and `cosine`: rise linearly for so long.
        warmup_start: the factor on the learning rate with which the warm-up begins.
        milestones: of `step`: epochs.
        gamma: of `step`.
        final_lr: of `cosine`.
        rise: of `one_cycle`: the fraction of the training in which the rate rises.
    """

    name: Literal["step", "cosine", "one_cycle"] = "cosine"
    warmup_epochs: float = 0.0
    warmup_start: float = 0.01
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    final_lr: float = 0.0
    rise: float = 0.3

    def validate(self) -> None:
        """Check the ranges, and that no field of another schedule is set."""
        if self.milestones and self.name != "step":
            raise ValueError(f"Schedule.milestones: belong to 'step', not to {self.name!r}")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"Schedule.milestones: got {list(self.milestones)}, expected rising epochs from 1")
        if self.warmup_epochs and self.name == "one_cycle":
            raise ValueError("Schedule.warmup_epochs: 'one_cycle' has its own, see 'rise'")
        if not self.warmup_epochs >= 0:
            raise ValueError(f"Schedule.warmup_epochs: got {self.warmup_epochs}, expected at least 0")
        if not 0 < self.warmup_start <= 1:
            raise ValueError(f"Schedule.warmup_start: got {self.warmup_start}, expected a factor in (0, 1]")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"Schedule.gamma: got {self.gamma}, expected a factor in (0, 1]")
        if not self.final_lr >= 0:
            raise ValueError(f"Schedule.final_lr: got {self.final_lr}, expected at least 0")
        if not 0 < self.rise < 1:
            raise ValueError(f"Schedule.rise: got {self.rise}, expected a fraction in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class Ema(Config):
    """A moving average of the weights, which is then what is validated and saved.

    Attributes:
        decay: share of the average that stays at an update.
        every: steps between two updates.
        rescale: multiply `1 - decay` by batch size * `every` / epochs, as torchvision's reference training does.
    """

    decay: float
    every: int = 1
    rescale: bool = False

    def validate(self) -> None:
        """Check the ranges."""
        if not 0 < self.decay < 1:
            raise ValueError(f"Ema.decay: got {self.decay}, expected a number in (0, 1)")
        if self.every < 1:
            raise ValueError(f"Ema.every: got {self.every}, expected at least 1")


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
