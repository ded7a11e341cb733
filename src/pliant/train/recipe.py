"""`Recipe`: everything that decides what a training run computes, as one file of YAML."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from pliant.core.config import Config
from pliant.train.settings import (
    Adapt,
    Data,
    Ema,
    Learns,
    Model,
    Optimizer,
    Phase,
    PlanChoice,
    Schedule,
    Teacher,
    Views,
)

__all__ = ["Adapt", "Data", "Ema", "Model", "Optimizer", "Phase", "PlanChoice", "Recipe", "Schedule", "phase_folder"]


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
        learns: `all`, or `classifiers`: only the last layer of every exit, with what it takes from the exit before
            (phase II of IMTA); or `gates`: only what chooses the width (Stage II of DS-Net), by the plan `gates`. All
            else is as at inference, its norms included, and no gradient is computed for it.
        teacher: of the plan: `live`, the network itself as it learns; `ema`, its moving average (DS-Net's in-place
            bootstrapping); or `frozen`, the network that the training started from, as it was then. The last two
            cost a forward pass more.
        views: of every image in a step, each varied in its own way: with 2, who learns from a teacher sees another one
            than the teacher, who sees the one that labels are learned from (multi-view consistency).
        optimizer: which, and with what.
        schedule: of the learning rate.
        batch_size: images a step, in all processes together.
        seed: of everything random.
        precision: 32, or `bf16` for automatic mixed precision.
        ema: moving average of the weights, or none.
        clip_norm: limit of the gradient's norm, or none.
        label_smoothing: in [0, 1).
        class_weights: factors of the loss on labels, one for each class in the order of the class names; empty = all
            count alike.
        channels_last: memory layout of images and weights.
        compile: run the network through `torch.compile`.
        backward: `joint`, or `sequential` (less memory, same gradients).
        sync_batchnorm: batch statistics over all processes (CUDA only).
        validate_every: epochs between two validations; the last epoch is always validated.
        recalibrate: after the last epoch, recompute the BatchNorm statistics from so many training images, varied as
            in the training (`pliant.recalibrate_`); 0 = they stay. Every set of norms is filled: of the largest and
            the smallest depth, of each width, of all exits.
        then: further phases, each of which starts from the network of the one before.
    """

    model: Model
    data: Data
    epochs: int
    adapt: Adapt | None = field(default_factory=Adapt)
    only: str = ""
    plan: PlanChoice = field(default_factory=PlanChoice)
    learns: Learns = "all"
    teacher: Teacher = "live"
    views: Views = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    batch_size: int = 128
    seed: int = 0
    precision: Literal[32, "bf16"] = 32
    ema: Ema | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    channels_last: bool = False
    compile: bool = False
    backward: Literal["joint", "sequential"] = "joint"
    sync_batchnorm: bool = False
    validate_every: int = 1
    recalibrate: int = 0
    then: tuple[Phase, ...] = ()

    def validate(self) -> None:
        """Check what the fields say together."""
        least_values = {"epochs": 1, "batch_size": 1, "seed": 0, "validate_every": 1, "recalibrate": 0}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(f"Recipe.{name}: got {getattr(self, name)}, expected at least {least}")
        if self.only and self.adapt is None:
            raise ValueError(f"Recipe.only: got {self.only!r}, but 'adapt' is none: there are no sub-networks")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"Recipe.clip_norm: got {self.clip_norm}, expected more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Recipe.label_smoothing: got {self.label_smoothing}, expected a fraction in [0, 1)")
        if not all(0 <= weight < math.inf for weight in self.class_weights):
            raise ValueError(f"Recipe.class_weights: got {list(self.class_weights)}, expected numbers of at least 0")
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(f"Schedule.warmup_epochs: got {self.schedule.warmup_epochs}, expected less than epochs")
        self._validate_start()
        self._validate_recalibration()
        if self.then and self.only:
            raise ValueError(
                f"Recipe.then: got {len(self.then)}, but 'only' is {self.only!r}: a sub-network alone has one phase; "
                "set 'then' to []"
            )
        self.phases  # noqa: B018 - a wrong one is refused before the first is trained

    def _validate_start(self) -> None:
        """Check that what learns, and who teaches, is there when the training starts."""
        started = self.model.start_from is not None
        if self.learns == "classifiers":
            if self.adapt is None or self.adapt.exits is None or self.only:
                why = f"'only' is {self.only!r}" if self.only else "'adapt.exits' is none"
                raise ValueError(f"Recipe.learns: got 'classifiers', but {why}: there are no exits")
            if not started and not self.model.pretrained:
                raise ValueError(
                    "Recipe.learns: got 'classifiers', but the network to put them on would have random weights; give "
                    "its checkpoint as model.start_from, or put this into a phase of 'then'"
                )
            if self.model.pretrained and self.adapt.exits.classifier == "convolutions":
                raise ValueError(
                    "Recipe.learns: got 'classifiers', but the library's weights have none for the convolutions of "
                    "adapt.exits.classifier, which would stay random; use 'linear'"
                )
        self._validate_gates()
        if self.teacher == "ema" and self.ema is None:
            raise ValueError("Recipe.teacher: got 'ema', but 'ema' is none: there is no moving average")
        if self.teacher == "frozen" and not started:
            raise ValueError(
                "Recipe.teacher: got 'frozen', but there is no network that was trained before; give its checkpoint as "
                "model.start_from, or put this into a phase of 'then'"
            )

    def _validate_gates(self) -> None:
        """Check that a gate learns by a plan for gates, in a network that was trained before."""
        if (self.learns == "gates") != (self.plan.name == "gates"):
            raise ValueError(
                f"Recipe.learns: got {self.learns!r} with plan {self.plan.name!r}; gates learn by the plan 'gates', "
                "and nothing else does"
            )
        if self.learns != "gates":
            return
        if self.views == 2:
            raise ValueError("Recipe.views: got 2, but gates learn from no teacher; set 'views' to 1 for them")
        if self.adapt is None or self.adapt.width is None or self.adapt.width.gate is None or self.only:
            why = f"'only' is {self.only!r}" if self.only else "'adapt.width.gate' is none"
            raise ValueError(f"Recipe.learns: got 'gates', but {why}: there is no gate")
        if self.model.start_from is None:
            raise ValueError(
                "Recipe.learns: got 'gates', but the network to choose widths of would have random weights; give its "
                "checkpoint as model.start_from, or put this into a phase of 'then'"
            )

    def _validate_recalibration(self) -> None:
        """Check that there is something to keep norm statistics in."""
        if not self.recalibrate:
            return
        if self.adapt is None:
            why = "'adapt' is none: a plain network keeps the statistics of its training"
        elif self.only:
            why = f"'only' is {self.only!r}: its statistics are those of its training"
        elif self.adapt.width is not None and self.adapt.width.norms == "shared":
            why = "'adapt.width.norms' is 'shared': all widths have the same statistics"
        elif self.adapt.depth is not None and not self.adapt.depth.skip_aware_norms:
            why = "'adapt.depth.skip_aware_norms' is false: all depths have the same statistics"
        else:
            return
        raise ValueError(f"Recipe.recalibrate: got {self.recalibrate}, but {why}")

    @property
    def phases(self) -> tuple[Recipe, ...]:
        """The recipes of one phase each that are run one after another.

        Each but the first has as its `model.start_from` the folder of the one before it inside of the run folder:
        `phase-1`, `phase-2`, ...
        """
        found = [self.replace(then=())] if self.then else [self]
        for number, phase in enumerate(self.then, start=2):
            before = found[-1]
            model = before.model.replace(pretrained=False, start_from=phase_folder(number - 1))
            try:
                found.append(before.replace(model=model, **phase.changes))
                _refuse_another_network(before.adapt, found[-1].adapt)
            except ValueError as error:
                raise ValueError(f"phase {number}: {error}") from None
        return tuple(found)

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


def phase_folder(number: int | str) -> str:
    """Where a phase that is not the last one is kept, inside of the run folder."""
    return f"phase-{number}"


def _refuse_another_network(before: Adapt | None, after: Adapt | None) -> None:
    """Refuse changes of `adapt` for which the network of the phase before has no weights."""
    if before is None or after is None:
        return
    for name, (old, new) in _differences(before.to_dict(), after.to_dict()).items():
        if name != "exits.equilibrium" and (name, old) != ("exits.collaboration", "none"):
            raise ValueError(
                f"adapt.{name} was {old!r}, is {new!r}, but the network of the phase before is not of that kind; only "
                "exits.equilibrium may change, and exits.collaboration where it was 'none'"
            )


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*one, *other]):
        mine, theirs = _by_number(one.get(name)), _by_number(other.get(name))
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found |= _differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            found[prefix + name] = (mine, theirs)
    return found


def _by_number(value: Any) -> Any:
    """Lists of mappings as mappings, so that what differs in one of them has a path: `then.0.epochs`."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return {str(number): item for number, item in enumerate(value)}
    return value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also takes `1e-4` (without a point) as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
