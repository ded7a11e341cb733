"""Let the leading channels of a network run alone, as many as a width says, and turn that back into a plain network."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pliant.core.anatomy import Anatomy, ChannelGroup, Cut
from pliant.core.pointwise import StridedPointwise
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.super_net_only import SuperNetOnly
from pliant.core.surgery import merged, names_of
from pliant.core.switch import Switch
from pliant.width.config import Gate, Width
from pliant.width.gates import KEPT, DoubleHeadedGate, GatePoint
from pliant.width.kernels import kernel_slices, shrinking_kernels
from pliant.width.modules import Number, Part, Sliced

__all__ = ["adapt_", "added_names", "bake_", "refuse_unfit", "subnet_space"]

# Of a head: a width is written with few digits.
TOLERANCE = 0.05
USUAL_CHOICES = (0.25, 0.5, 0.75, 1.0)
# Unlike depths, the widths of a space are listed.
MOST_WIDTHS = 1_000
STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"


def subnet_space(anatomy: Anatomy, config: Width) -> SubNetSpace:
    """Return the sub-networks that this config gives.

    Raises:
        ValueError: a choice leaves a group without channels or with a part of a head; there are too many; choices are
            given for a network that brings its widths; or a gate has no place or no such routes.
    """
    widths = _widths(anatomy, config)
    if config.gate is None:
        return SubNetSpace(widths=widths)
    return SubNetSpace(widths=widths, routes=_routes(widths, config.gate))


def _widths(anatomy: Anatomy, config: Width) -> tuple[tuple[float, ...], ...]:
    """What `SubNetSpace.widths` is."""
    stages = len(_width_stages(anatomy))
    behind = config.gate.behind if config.gate else 0
    if config.gate and behind >= stages:
        have = f"{stages} stages have widths of their own" if stages > 1 else "all stages have one width together"
        allowed = f"allowed are 1 to {stages - 1}" if stages > 1 else "a gate needs stages behind it"
        raise ValueError(f"Gate.behind: got {behind}, but in this {anatomy.family} {have}; {allowed}")
    if anatomy.widths:
        if config.choices is not None or config.per_stage:
            raise ValueError(
                f"Width.choices: got {list(config.choices or ())}, but this {anatomy.family} brings its widths; leave "
                "choices and per_stage out"
            )
        if len({width[:behind] for width in anatomy.widths[:-1]}) > 1:
            raise ValueError(f"Gate.behind: got {behind}, but this {anatomy.family} brings several widths up to there")
        return anatomy.widths
    shares = _shares(anatomy, config)
    kept = [_kept(group, shares, config.divisor) for group in anatomy.channels]
    choices = tuple(shares)
    for narrow, wide in itertools.pairwise(choices):
        if all(units[narrow] == units[wide] for units in kept):
            raise ValueError(
                f"Width.choices: {narrow} and {wide} leave the same channels in all layers of this {anatomy.family}; "
                "leave one of them out" + (", or take a smaller divisor" if config.divisor > 1 else "")
            )
    if config.gate:
        return (*((choices[0],) * behind + (width,) * (stages - behind) for width in choices), (1.0,) * stages)
    if not config.per_stage:
        return tuple((width,) * stages for width in choices)
    if len(choices) ** stages > MOST_WIDTHS:
        raise ValueError(
            f"Width: {len(choices)} choices for each of {stages} stages are {len(choices) ** stages} widths, allowed "
            f"are {MOST_WIDTHS}; take fewer choices, or per_stage=False"
        )
    return tuple(sorted(itertools.product(choices, repeat=stages), key=lambda width: (sum(width), width)))


def _routes(widths: tuple[tuple[float, ...], ...], gate: Gate) -> tuple[SubNet, ...]:
    """The sub-networks among which a gate chooses: all but the whole network, or those that are named."""
    behind = {width[-1]: SubNet(width=width) for width in widths[:-1]}
    unknown = [width for width in gate.routes or () if width not in behind]
    if unknown:
        raise ValueError(f"Gate.routes: got {unknown[0]}, allowed are {', '.join(map(repr, behind))}")
    return tuple(behind[width] for width in gate.routes or behind)


def _width_stages(anatomy: Anatomy) -> dict[int, int]:
    """By the index of a stage, its place among the stages that have a width: several may share one stream."""
    return {stage: place for place, stage in enumerate(sorted({group.stage for group in anatomy.channels}))}


def _shares(anatomy: Anatomy, config: Width) -> dict[float, float]:
    """By width as it is printed, which share of channels that is: of six heads, 0.33 is two.

    Raises:
        ValueError: a choice does not leave whole heads.
    """
    heads = next((group for group in anatomy.channels if _is_of_heads(group)), None)
    if heads is None:
        return {width: width for width in config.choices or USUAL_CHOICES}
    if config.choices is None:
        counts = sorted({max(1, round(width * heads.units)) for width in USUAL_CHOICES})
        return {round(count / heads.units, 2): count / heads.units for count in counts}
    return {width: _whole_heads(width, width, heads) / heads.units for width in config.choices}


def _whole_heads(width: float, share: float, heads: ChannelGroup) -> int:
    exact = share * heads.units
    if not round(exact) or abs(exact - round(exact)) > TOLERANCE:
        raise ValueError(
            f"Width.choices: {width} leaves {exact:g} of the {heads.units} heads of {_where(heads)!r}; allowed "
            "are shares that leave whole ones"
        )
    return round(exact)


def _where(group: ChannelGroup) -> str:
    """The first layer of a group; the network itself may have a tensor of it before, such as a class token."""
    return next((cut.path for cut in group.cuts if cut.path), "")


def _is_of_heads(group: ChannelGroup) -> bool:
    return _has_channels_together(group) and not any(cut.name in ("groups", "num_groups") for cut in group.cuts)


def _has_channels_together(group: ChannelGroup) -> bool:
    """Whether units are heads, or groups of a convolution or of a norm."""
    return any(cut.per_unit > 1 and cut.dim is not None for cut in group.cuts)


def _kept(group: ChannelGroup, shares: Mapping[float, float], divisor: int) -> dict[float, int]:
    """By width, how many units of a group run, see `_shares`.

    Raises:
        ValueError: none at all, or not a whole number of heads.
    """
    if group.kept:
        return dict(group.kept)
    kept = {}
    for width, share in shares.items():
        exact = share * group.units
        if _is_of_heads(group):
            kept[width] = _whole_heads(width, share, group)
        elif _has_channels_together(group):
            kept[width] = max(1, round(exact))
        else:
            kept[width] = _nearest_multiple(exact, group.units, divisor) if width < 1 else group.units
        if not kept[width]:
            raise ValueError(f"Width.choices: {width} leaves none of the {group.units} channels of {_where(group)!r}")
    return kept


def _nearest_multiple(exact: float, units: int, divisor: int) -> int:
    if divisor == 1:
        return int(exact + 1e-6)
    return min(units, max(divisor, int(exact + divisor / 2) // divisor * divisor))


def added_names(model: nn.Module, anatomy: Anatomy, config: Width) -> dict[str, set[str]]:
    """Return the path of every module of the network that `adapt_` will change, with the names that it gets."""
    names = {path: names_of(SuperNetOnly) for path in anatomy.dropout}
    for path in dict.fromkeys(cut.path for group in anatomy.channels for cut in group.cuts):
        own = config.norms != "shared" and _is_norm(model.get_submodule(path))
        # A batch norm has `reset_running_stats`, which `Sliced` extends.
        names[path] = names_of(Sliced, *(("widths",) if own else ())) - {"reset_running_stats"}
    if config.gate:
        names = merged(names, {_gate_path(anatomy, config.gate): names_of(GatePoint, "gate", KEPT)})
    return names


def refuse_unfit(model: nn.Module, anatomy: Anatomy, config: Width) -> None:
    """Refuse what cannot be cut, a gate where none can stand, and small kernels where there are no large ones.

    Raises:
        ValueError: says why.
    """
    for cut in (cut for group in anatomy.channels for cut in group.cuts if cut.dim is not None):
        _refuse_unfit_cut(model.get_submodule(cut.path), cut, config)
    if config.kernels and not any(shrinking_kernels(model, anatomy)):
        raise ValueError(
            f"Width.kernels: got true, but this {anatomy.family} has no kernel larger than 3 that can shrink; allowed "
            "is false"
        )
    if config.gate is None:
        return
    path = _gate_path(anatomy, config.gate)
    block = model.get_submodule(path)
    if isinstance(block, nn.Sequential | nn.ModuleList):
        raise ValueError(
            f"Gate.behind: {path!r}, where the gate would stand, runs all its children; take another place"
        )
    _gate_cuts(anatomy, config.gate)


def _refuse_unfit_cut(module: nn.Module, cut: Cut, config: Width) -> None:
    plain = cut.name in module._parameters or cut.name in module._buffers
    if not plain or is_parametrized(module):
        raise ValueError(
            f"a tensor of {cut.path!r} is computed from others (parametrized, or pruned), and no part of it can run "
            "alone; make it a plain one first"
        )
    if config.norms == "shared" and cut.name in STATISTICS and cut.parts > 1:
        raise ValueError(
            f"Width.norms: got 'shared', but the channels of {cut.path!r} come in {cut.parts} parts that lie apart, of "
            "which no statistics would be taken; allowed are 'statistics' and 'private'"
        )


def _gate_stage(anatomy: Anatomy, gate: Gate) -> int:
    """The index of the stage at whose end the gate stands: the last one before the widths that it chooses."""
    return sorted(_width_stages(anatomy))[gate.behind] - 1


def _gate_path(anatomy: Anatomy, gate: Gate) -> str:
    return anatomy.stages[_gate_stage(anatomy, gate)].blocks[-1].path


def _gate_cuts(anatomy: Anatomy, gate: Gate) -> tuple[ChannelGroup, list[Cut]]:
    """The channels that the gate looks at, and what of it shrinks with them.

    Raises:
        ValueError: they do not shrink.
    """
    stage = _gate_stage(anatomy, gate)
    group = next((group for group in anatomy.channels if stage in group.streams), None)
    if group is None:
        raise ValueError(
            f"Gate.behind: got {gate.behind}, but the channels at the end of stage {stage + 1} of this "
            f"{anatomy.family} do not shrink; take another place"
        )
    path, per_unit = f"{_gate_path(anatomy, gate)}.gate", anatomy.stages[stage].channels // group.units
    cuts = [("reduce", "weight", 1), ("reduce", "in_features", None)]
    if gate.attention:
        cuts += [("expand", "weight", 0), ("expand", "bias", 0), ("expand", "out_features", None)]
    return group, [Cut(path=f"{path}.{child}", name=name, dim=dim, per_unit=per_unit) for child, name, dim in cuts]


def _every_cut(anatomy: Anatomy, config: Width, copies: Mapping[str, str]) -> Iterator[tuple[ChannelGroup, list[Cut]]]:
    """Yield all groups with all that is cut with them, the copies of norms and the gate included."""
    gated = _gate_cuts(anatomy, config.gate) if config.gate else None
    for group in anatomy.channels:
        copied = [dataclasses.replace(cut, path=copies[cut.path]) for cut in group.cuts if cut.path in copies]
        yield group, [*group.cuts, *copied, *(gated[1] if gated and gated[0] is group else [])]


def adapt_(model: nn.Module, anatomy: Anatomy, config: Width, switch: Switch, copies: Mapping[str, str]) -> None:
    """Slice every module that has channels, in place, and put the gate into its place.

    Args:
        model: to be changed.
        anatomy: of it.
        config: how.
        switch: knows the widths.
        copies: where another wing keeps the copy of a norm, by the norm's path.
    """
    for path in anatomy.dropout:
        SuperNetOnly.make_(model.get_submodule(path), switch)
    if config.gate:
        _add_gate_(model, anatomy, config.gate, switch)
    places, shares = _width_stages(anatomy), _shares(anatomy, config)
    parts: dict[str, dict[str, list[Part]]] = defaultdict(lambda: defaultdict(list))
    numbers: dict[str, dict[str, Number]] = defaultdict(dict)
    paths: dict[str, None] = {}
    for group, cuts in _every_cut(anatomy, config, copies):
        stage, kept = places[group.stage], _kept(group, shares, config.divisor)
        for cut in cuts:
            paths[cut.path] = None
            if cut.dim is None:
                numbers[cut.path][cut.name] = _number(model, cut, stage, kept)
            else:
                sizes = {width: units * cut.per_unit for width, units in kept.items()}
                part = Part(cut.dim, cut.parts, group.units * cut.per_unit, stage, sizes)
                parts[cut.path][cut.name].append(part)
    for path, group in shrinking_kernels(model, anatomy) if config.kernels else ():
        kept = _kept(group, shares, config.divisor)
        centres, written = kernel_slices(model.get_submodule(path), places[group.stage], kept)
        parts[path]["weight"] += centres
        numbers[path] |= written
    for path in paths:
        module, shrinking = model.get_submodule(path), parts[path]
        own = _own_tensors(module, shrinking, config)
        read = [part.kept.values() for part in shrinking["weight"] if part.dim == 1] if "weight" in shrinking else []
        StridedPointwise.make_(module, min(map(min, read)) if read else None)
        Sliced.make_(module, switch, shrinking | {name: [] for name in own if name not in shrinking}, numbers[path])
        if own:
            assert isinstance(module, Sliced)
            part = next(iter(shrinking.values()))[0]
            # All channels of a stage behind narrower ones see other inputs than in the whole network.
            used = {widths[part.stage] for widths in switch.space.widths[:-1]}
            module.add_own_(own, part.stage, [width for width in part.kept if width in used])


def _add_gate_(model: nn.Module, anatomy: Anatomy, gate: Gate, switch: Switch) -> None:
    stage, block = anatomy.stages[_gate_stage(anatomy, gate)], model.get_submodule(_gate_path(anatomy, gate))
    like = next(model.parameters())
    module = DoubleHeadedGate(
        stage.channels, len(switch.space.routes), attention=gate.attention, channel_dim=stage.channel_dim
    )
    block.add_module("gate", module.to(like.device, like.dtype).train(block.training))
    GatePoint.make_(block, switch)


def _number(model: nn.Module, cut: Cut, stage: int, kept: Mapping[float, int]) -> Number:
    is_tuple = isinstance(getattr(model.get_submodule(cut.path), cut.name), tuple)
    values = {width: units * cut.per_unit * cut.parts for width, units in kept.items()}
    return Number(stage, {width: (value,) if is_tuple else value for width, value in values.items()})


def _own_tensors(module: nn.Module, shrinking: Collection[str], config: Width) -> list[str]:
    """Names of the tensors that a norm has for each width."""
    if config.norms == "shared" or not _is_norm(module):
        return []
    names = [name for name in shrinking if config.norms == "private" or name in STATISTICS]
    counts = isinstance(getattr(module, COUNTER, None), Tensor)
    return [*names, COUNTER] if counts and names else names


def _is_norm(module: nn.Module) -> bool:
    """Whether it scales channel by channel, or knows their statistics."""
    weight = getattr(module, "weight", None)
    return hasattr(module, "running_mean") or (isinstance(weight, Tensor) and weight.dim() == 1)


def bake_(
    model: nn.Module,
    anatomy: Anatomy,
    config: Width,
    subnet: SubNet,
    copies: Mapping[str, str],
    *,
    attends: bool = True,
) -> None:
    """Leave in `model` only what `subnet` runs, as plain modules, in place.

    Args:
        model: was changed by `adapt_`.
        anatomy: of it.
        config: with which it was.
        subnet: of the model.
        copies: as in `adapt_`.
        attends: keep the gate's attention, which belongs to every sub-network.
    """
    for path in anatomy.dropout:
        SuperNetOnly.unmake_(model.get_submodule(path))
    paths = dict.fromkeys(cut.path for _, cuts in _every_cut(anatomy, config, copies) for cut in cuts)
    for path in paths:
        module = model.get_submodule(path)
        assert isinstance(module, Sliced)
        module.bake(subnet.width)
        StridedPointwise.unmake_(module)
    if config.gate:
        GatePoint.unmake_(model.get_submodule(_gate_path(anatomy, config.gate)), attends=attends)
