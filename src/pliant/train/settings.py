"""The parts of a recipe: network, data, plan, optimizer, schedule, moving average."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pliant.core.config import Config
from pliant.core.plan import Plan
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.data import Augment, Interpolation
from pliant.depth.config import Depth
from pliant.depth.plan import DEFAULT_PLAN
from pliant.exits.config import Exits
from pliant.plans import build_plan
from pliant.width.config import Width

__all__ = [
    "Adapt",
    "Data",
    "Ema",
    "Learns",
    "Model",
    "Optimizer",
    "Phase",
    "PlanChoice",
    "Schedule",
    "Teacher",
    "Views",
]

Learns = Literal["all", "classifiers", "gates"]
Teacher = Literal["live", "ema", "frozen"]
Views = Literal[1, 2]


@dataclass(frozen=True, kw_only=True)
class Model(Config):
    """Which network to train.

    Attributes:
        name: `torchvision:resnet50`, `timm:resnet50d`, `pliant:resnet20`, ...
        pretrained: start from the library's weights.
        start_from: start from the weights of a network that was trained before: a run folder, or any file that
            `pliant.load` takes; none = from random weights. Both sets of a skip-aware norm start from a plain norm.
        options: passed on to the library's own constructor. The number of classes comes from the data.
    """

    name: str
    pretrained: bool = False
    start_from: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Refuse two starts, and a number of classes: the data says it."""
        if self.start_from is not None and self.pretrained:
            raise ValueError(f"Model.start_from: got {self.start_from!r}, but 'pretrained' is true: there is one start")
        if self.start_from == "":
            raise ValueError("Model.start_from: got '', expected the path of a run folder or a file")
        if "num_classes" in self.options:
            raise ValueError("Model.options: 'num_classes' is not allowed here, it comes from the data")


@dataclass(frozen=True, kw_only=True)
class Adapt(Config):
    """How the network is made adaptive.

    Attributes:
        depth: options of `pliant.Depth`; none = its depth stays.
        exits: options of `pliant.Exits`; none = it gets no exits.
        width: options of `pliant.Width`; none = its width stays.
    """

    depth: Depth | None = field(default_factory=Depth)
    exits: Exits | None = None
    width: Width | None = None

    def validate(self) -> None:
        """Refuse to adapt in no way at all."""
        if not self.configs:
            raise ValueError(
                "Adapt: neither 'depth' nor 'exits' nor 'width'; for a plain network leave 'adapt' itself empty"
            )

    @property
    def configs(self) -> tuple[Config, ...]:
        """What `pliant.adapt_` takes."""
        return tuple(config for config in (self.depth, self.exits, self.width) if config is not None)


# Has all axes, so that every plan can be built for it.
ANY_SPACE = SubNetSpace(
    (1,), (1, 1), tuple((number / 100,) for number in range(1, 101)), routes=(SubNet(width=(0.01,)),)
)


@dataclass(frozen=True, kw_only=True)
class PlanChoice(Config):
    """Which training objective, by name; further keys are the options of that plan.

    Attributes:
        name: a plan of `pliant.plans`, or two joined by a plus: `adn+exits`.
        options: its options. In YAML they stand next to the name.
    """

    version: ClassVar[int] = 2

    name: str = DEFAULT_PLAN
    options: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Refuse unknown plans and options, whatever the network."""
        self.build(ANY_SPACE)

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
        options = {key: value for key, value in data.items() if key not in known}
        if known.get("version") == 1:
            known, options = known | {"version": cls.version}, _of_version_1(options)
        return super().from_dict(known | {"options": options})


def _of_version_1(options: dict[str, Any]) -> dict[str, Any]:
    """Version 1 counted the stages of the term on features from the first; since then they are listed."""
    count = options.get("stages")
    return options | {"stages": list(range(1, count + 1))} if isinstance(count, int) else options


@dataclass(frozen=True, kw_only=True)
class Data(Config):
    """What to train on.

    Attributes:
        source: `digits`, `cifar10`, `cifar100`, the path of a folder of class folders or of an archive of one.
        image_size: pixels of a side; none = what the source says.
        resize: of large images: the shorter side is scaled to so many pixels before the middle is cut out for
            validation and test; none = 256/224 of the image size.
        interpolation: how large images are scaled and turned: `bilinear` or `bicubic`.
        white: the value of white in files of 32-bit integers, signed 16-bit integers or floats, which do not state it;
            none = a usual one that fits the values.
        val_fraction: share of the training images held out for validation.
        augment: fields of `pliant.data.Augment`.
    """

    source: str
    image_size: int | None = None
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    white: float | None = None
    val_fraction: float = 0.1
    augment: Augment = field(default_factory=Augment)

    def validate(self) -> None:
        """Check the ranges."""
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"Data.val_fraction: got {self.val_fraction}, expected a fraction in [0, 1)")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"Data.image_size: got {self.image_size}, expected at least 1")
        if self.white is not None and not 0 < self.white < float("inf"):
            raise ValueError(f"Data.white: got {self.white}, expected a number above 0")
        if self.resize is not None and self.resize < (self.image_size or 1):
            least = f"the image size, {self.image_size}" if self.image_size else "1"
            raise ValueError(f"Data.resize: got {self.resize}, expected at least {least}")


@dataclass(frozen=True, kw_only=True)
class Optimizer(Config):
    """One of torch's optimizers.

    Attributes:
        name: `sgd` or `adamw`.
        lr: the highest learning rate; the schedule scales it.
        momentum: of sgd.
        nesterov: of sgd.
        weight_decay: of all parameters but those of `no_decay`.
        no_decay: kinds of parameters that do not decay: `vectors` (norms, biases and layer scales: all of one
            dimension) and `embeddings` (class tokens, embeddings of positions, tables of relative positions).
        betas: of adamw.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    no_decay: tuple[Literal["vectors", "embeddings"], ...] = ("vectors",)
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
class Phase(Config):
    """A further phase of a training, which starts from the network of the one before.

    What is left out stays as in the phase before. What is given takes its place as a whole: in an optimizer that says
    its `lr` alone, all else has its default.

    Attributes:
        epochs: passes over the training images.
        adapt: as in the recipe. Between adaptive phases only `exits.equilibrium`, and `exits.collaboration` where there
            was none, can change.
        plan: as in the recipe.
        optimizer: as in the recipe; a new one, without the momentum of the phase before.
        schedule: as in the recipe; it begins anew.
        batch_size: as in the recipe.
        learns: as in the recipe.
        teacher: as in the recipe; `frozen` is the network of the phase before.
        views: as in the recipe.
        recalibrate: as in the recipe; at the end of each phase.
    """

    epochs: int
    adapt: Adapt | None = None
    plan: PlanChoice | None = None
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    batch_size: int | None = None
    learns: Learns | None = None
    teacher: Teacher | None = None
    views: Views | None = None
    recalibrate: int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that are given, by name."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in given.items() if value is not None}
