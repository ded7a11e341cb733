"""Put exits into a network at the places that its anatomy names, and take one of them out as a plain network."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from pliant.core.anatomy import Anatomy, Block, Truncatable
from pliant.core.inputs import input_spec
from pliant.core.statistics import LateReset
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.surgery import names_of
from pliant.core.switch import Switch
from pliant.exits.config import Exits
from pliant.exits.modules import Classifier, Collaborating, EarlyExit, ExitPoint, Removed

__all__ = [
    "Ending",
    "Place",
    "adapt_",
    "added_names",
    "bake_",
    "exit_stages",
    "places",
    "refuse_unfit",
    "remove_",
    "unmake_",
]


@dataclass(frozen=True)
class Place:
    """Where an exit stands, the network's own end excepted.

    Attributes:
        block: the block at whose end it is.
        stage: the number of its stage, counted from 1.
        channels: of its features.
        channel_dim: where the channels are in them.
    """

    block: Block
    stage: int
    channels: int
    channel_dim: int


def places(anatomy: Anatomy, config: Exits) -> tuple[Place, ...]:
    """Return where the exits stand, from the input to the output, without the network's own end.

    Raises:
        ValueError: a place that the network does not have or that is its own end, a network without a classifier,
            or one that brings its exits although `at` is given.
    """
    if anatomy.answers_by not in ("input", "token"):
        raise ValueError(
            f"adapt_: got pliant.Exits, but the head of this {anatomy.family} answers by {anatomy.answers_by}; exits "
            "are for heads that answer once for each input or token"
        )
    if not anatomy.num_classes:
        raise ValueError(f"exits need classes, and this {anatomy.family} has no classifier")
    every = [
        Place(block, number, stage.channels, stage.channel_dim)
        for number, stage in enumerate(anatomy.stages, start=1)
        for block in stage.blocks
    ]
    if any(place.block.exit for place in every):
        if config.at is not None:
            raise ValueError(
                f"Exits.at: got {list(config.at)}, but this {anatomy.family} brings its exits; leave it out"
            )
        return tuple(place for place in every if place.block.exit)
    ends = every if _is_column(anatomy) else [_end(every, stage.blocks[-1]) for stage in anatomy.stages]
    if config.at is None:
        chosen = _quarters(ends) if _is_column(anatomy) else ends[:-1]
        if not chosen:
            raise ValueError(
                f"this {anatomy.family} has one block or stage: there is no place for an exit before its end"
            )
        return tuple(chosen)
    asked = [_at(anatomy, place, ends, every) for place in config.at]
    return tuple(place for place in every if place in asked)


def _is_column(anatomy: Anatomy) -> bool:
    """Whether blocks are counted, because there are no stages, nor groups that another wing has made."""
    return anatomy.columnar and len(anatomy.stages) == 1


def _end(every: Sequence[Place], block: Block) -> Place:
    return next(place for place in every if place.block is block)


def _quarters(column: Sequence[Place]) -> list[Place]:
    numbers = {math.ceil(len(column) * quarter / 4) for quarter in (1, 2, 3)}
    return [column[number - 1] for number in sorted(numbers) if number < len(column)]


def _at(anatomy: Anatomy, place: int | str, ends: Sequence[Place], every: Sequence[Place]) -> Place:
    what = "blocks" if _is_column(anatomy) else "stages"
    if isinstance(place, int):
        if place >= len(ends):
            raise ValueError(
                f"Exits.at: got {place}, but this {anatomy.family} has {len(ends)} {what}, and the last exit is its "
                f"own classifier; allowed are 1 to {len(ends) - 1}, or paths of blocks"
            )
        return ends[place - 1]
    found = [one for one in every if one.block.path == place]
    if not found or found[0] is every[-1]:
        why = "is the network's own end" if found else "is no block"
        first, last = every[0].block.path, every[-2].block.path if len(every) > 1 else ""
        raise ValueError(
            f"Exits.at: {place!r} {why} of this {anatomy.family}; allowed are paths of blocks such as {first!r} to "
            f"{last!r}, or numbers of {what}"
        )
    return found[0]


def exit_stages(anatomy: Anatomy, config: Exits) -> tuple[int, ...]:
    """Return for each exit how many stages lead to it; the last is the network's own classifier."""
    return (*(place.stage for place in places(anatomy, config)), len(anatomy.stages))


def added_names(anatomy: Anatomy, config: Exits) -> dict[str, set[str]]:
    """Return the path of every module that `adapt_` will change, with the names that it gets."""
    names: dict[str, set[str]] = {}
    for place in places(anatomy, config):
        brought = place.block.exit
        names[place.block.path] = names_of(ExitPoint, *(() if brought else ("exit",)))
        names |= {brought: set()} if brought else {}
    if config.collaboration != "none":
        names[anatomy.head] = names_of(Collaborating, "collaboration")
    return names


def refuse_unfit(model: nn.Module, anatomy: Anatomy, config: Exits) -> None:
    """Refuse what the anatomy does not tell.

    Raises:
        ValueError: a language model; exits are to collaborate and the network has no linear layer at its end; or
            convolutions lack feature maps.
    """
    if input_spec(model, 1).vocabulary == anatomy.num_classes:
        raise ValueError(
            f"this {anatomy.family} answers for every token; exits are for networks with one answer an input"
        )
    if anatomy.answers_by == "token":
        _refuse_unfit_tokens(anatomy, config)
    head = model.get_submodule(anatomy.head)
    if config.collaboration != "none" and not isinstance(head, nn.Linear):
        raise ValueError(
            f"Exits.collaboration: {config.collaboration!r} needs classifiers that end in a linear layer, but that of "
            f"this {anatomy.family}, {anatomy.head!r}, is a {type(head).__name__}"
        )
    for place in places(anatomy, config):
        if not place.channels:
            raise ValueError(
                f"Exits: how many channels block {place.block.path!r} returns is not known: it has no plain "
                "convolution or linear layer, as after quantization; adapt the network first"
            )
        if config.classifier == "convolutions" and place.channel_dim != 1:
            raise ValueError(
                f"Exits.classifier: 'convolutions' needs feature maps, which this {anatomy.family} has not"
            )


def _refuse_unfit_tokens(anatomy: Anatomy, config: Exits) -> None:
    if not anatomy.columnar and len(anatomy.stages) > 1:
        raise ValueError(
            f"adapt_: got pliant.Exits, but the head of this {anatomy.family} answers by token, and its stages may "
            "differ in their number of tokens; exits by token are for one column of equal blocks"
        )
    for name, value in (("classifier", config.classifier), ("collaboration", config.collaboration)):
        if value in ("convolutions", "concatenate"):
            raise ValueError(f"Exits.{name}: got {value!r}, which is not for heads that answer by token")


def adapt_(model: nn.Module, anatomy: Anatomy, config: Exits, switch: Switch) -> None:
    """Add classifiers and let passes end there, in place."""
    found = places(anatomy, config)
    for number, place in enumerate(found, start=1):
        block = model.get_submodule(place.block.path)
        if not place.block.exit:
            block.add_module("exit", _classifier(model, place, anatomy, config))
        ExitPoint.make_(block, switch, number, brought=bool(place.block.exit), equilibrium=config.equilibrium)
        LateReset.make_(block.get_submodule("exit"), switch)
    if config.collaboration != "none":
        paths = [*(f"{place.block.path}.exit.linear" for place in found), anatomy.head]
        for number, path in enumerate(paths[1:], start=1):
            linear = model.get_submodule(path)
            assert isinstance(linear, nn.Linear)
            Collaborating.make_(linear, switch, number, config.collaboration)


def _classifier(model: nn.Module, place: Place, anatomy: Anatomy, config: Exits) -> Classifier:
    convolutions = config.classifier == "convolutions"
    made = Classifier(
        place.channels,
        anatomy.num_classes,
        channel_dim=place.channel_dim,
        convolutions=convolutions,
        by_token=anatomy.answers_by == "token",
    )
    parameter = next(model.parameters())
    return made.to(parameter.device, parameter.dtype).train(model.training)


@dataclass(frozen=True)
class Ending:
    """What is left of the exits while the rest of a network becomes plain: references, since paths may change.

    Attributes:
        blocks: for each exit that is needed, the last block that runs before it.
        classifiers: theirs.
        last: the exit at which every pass will end.
        is_own: whether that is the network's own end.
        brought: whether the network brought its exits.
    """

    blocks: tuple[nn.Module, ...]
    classifiers: tuple[nn.Module, ...]
    last: int
    is_own: bool
    brought: bool


def unmake_(model: nn.Module, anatomy: Anatomy, config: Exits, subnet: SubNet, skipped: Collection[str]) -> Ending:
    """Take all exits out of `model`, in place, and keep what `bake_` puts back for `subnet`.

    Args:
        model: a network whose other parts are still adapted.
        anatomy: of it.
        config: with which the exits were put in.
        subnet: which sub-network is wanted.
        skipped: paths of blocks that it skips; an exit behind such a block stands behind the one before.
    """
    found = places(anatomy, config)
    last = subnet.exit or len(found) + 1
    needed = range(1, last + 1) if config.collaboration != "none" else (last,)
    blocks, classifiers = [], []
    for number, place in enumerate(found, start=1):
        block = model.get_submodule(place.block.path)
        ExitPoint.unmake_(block)
        classifier = block._modules.pop("exit")
        assert classifier is not None
        LateReset.unmake_(classifier)
        if number in needed:
            blocks.append(model.get_submodule(_runs_last(anatomy, place, skipped)))
            classifiers.append(classifier)
    return Ending(tuple(blocks), tuple(classifiers), last, last > len(found), bool(found[0].block.exit))


def remove_(model: nn.Module, anatomy: Anatomy, config: Exits) -> None:
    """Undo `adapt_`, in place: the network has the exits that it brought, and no others."""
    found = places(anatomy, config)
    for place in found:
        block = model.get_submodule(place.block.path)
        ExitPoint.unmake_(block)
        LateReset.unmake_(block.get_submodule("exit"))
    for module in list(model.modules()):
        if isinstance(module, Collaborating):
            Collaborating.unmake_(module)  # type: ignore[arg-type]
    for place in found:
        if not place.block.exit:
            del model.get_submodule(place.block.path)._modules["exit"]


def _runs_last(anatomy: Anatomy, place: Place, skipped: Collection[str]) -> str:
    """Return the path of the last block up to a place that is not skipped; the first of a stage never is."""
    blocks = anatomy.stages[place.stage - 1].blocks
    before = blocks[: blocks.index(place.block) + 1]
    return next(block.path for block in reversed(before) if block.path not in skipped)


def bake_(model: nn.Module, config: Exits, ending: Ending) -> nn.Module:
    """Let a network that is plain otherwise end where it shall, and return it.

    That is the model itself, of the library's own class, where its own end answers alone or it can cut itself; else
    an `EarlyExit` around what is left of it.
    """
    chained = config.collaboration != "none"
    numbers = range(1, ending.last + 1) if chained else (ending.last,)
    points = list(zip(numbers, ending.blocks, ending.classifiers, strict=False))
    ends_itself = ending.is_own
    if isinstance(model, Truncatable):
        if not ending.is_own:
            ending.blocks[-1].add_module("exit", ending.classifiers[-1])
        paths = {module: path for path, module in model.named_modules()}
        model, ends_itself = model.truncated(ending.last), True
        points = [
            (number, model.get_submodule(paths[block]), classifier)
            for number, block, classifier in points
            if number < ending.last
        ]
    if ends_itself and not chained:
        return model
    # Not the switch of the adapted model: passes of that one are none of this network's business.
    switch = Switch(SubNetSpace(exit_stages=(1,) * ending.last), chained=True) if chained else None
    for number, block, classifier in points:
        block.add_module("exit", classifier)
        ExitPoint.make_(block, switch, number, brought=ending.brought)
    for module in model.modules():
        if isinstance(module, Collaborating) and switch is not None:
            module._pliant_switch = switch
    if not ends_itself:
        _cut_behind(model, next(path for path, module in model.named_modules() if module is ending.blocks[-1]))
    return EarlyExit(model, switch)


def _cut_behind(model: nn.Module, path: str) -> None:
    """Take out of `model` what was registered behind a block, as networks register in order of execution.

    Where one does not, the part that is missing says so when it is run.
    """
    while path:
        parent_path, _, name = path.rpartition(".")
        parent = model.get_submodule(parent_path)
        names = list(parent._modules)
        for behind in names[names.index(name) + 1 :]:
            part = parent._modules[behind]
            if isinstance(parent, nn.Sequential | nn.ModuleList):
                del parent._modules[behind]
            elif part is not None and next(part.parameters(), None) is not None:
                # What has no weights stays: it costs nothing, and rotary positions of transformers run first.
                parent._modules[behind] = Removed()
        path = parent_path
