"""Let the leading channels of a network run alone, as many as a width says, and turn that back into a plain network."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, ChannelGroup, Cut
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.switch import Switch
from pliant.width.config import Width
from pliant.width.modules import Number, Part, Sliced

__all__ = ["adapt_", "bake_", "changed_paths", "subnet_space"]

# Of a head: a width is written with few digits.
TOLERANCE = 0.05
USUAL_CHOICES = (0.25, 0.5, 0.75, 1.0)
# All are known by name, so that switching costs nothing.
MOST_WIDTHS = 1_000
STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"


def subnet_space(anatomy: Anatomy, config: Width) -> SubNetSpace:
    """Return the sub-networks that this config gives.

    Raises:
        ValueError: a choice leaves a group without channels or with a part of a head; there are too many; or choices
            are given for a network that brings its widths.
    """
    stages = len(_width_stages(anatomy))
    if anatomy.widths:
        if config.choices is not None or config.per_stage:
            raise ValueError(
                f"Width.choices: got {list(config.choices or ())}, but this {anatomy.family} brings its widths; leave "
                "choices and per_stage out"
            )
        return SubNetSpace(widths=anatomy.widths)
    shares = _shares(anatomy, config)
    for group in anatomy.channels:
        _kept(group, shares, config.divisor)
    choices = tuple(shares)
    if not config.per_stage:
        return SubNetSpace(widths=tuple((width,) * stages for width in choices))
    if len(choices) ** stages > MOST_WIDTHS:
        raise ValueError(
            f"Width: {len(choices)} choices for each of {stages} stages are {len(choices) ** stages} widths, allowed "
            f"are {MOST_WIDTHS}; take fewer choices, or per_stage=False"
        )
    return SubNetSpace(
        widths=tuple(sorted(itertools.product(choices, repeat=stages), key=lambda width: (sum(width), width)))
    )


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
            f"Width.choices: {width} leaves {exact:g} of the {heads.units} heads of {heads.cuts[0].path!r}; allowed "
            "are shares that leave whole ones"
        )
    return round(exact)


def _is_of_heads(group: ChannelGroup) -> bool:
    return _has_channels_together(group) and not any(cut.name == "groups" for cut in group.cuts)


def _has_channels_together(group: ChannelGroup) -> bool:
    """Whether units are heads, or groups of a convolution."""
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
            raise ValueError(
                f"Width.choices: {width} leaves none of the {group.units} channels of {group.cuts[0].path!r}"
            )
    return kept


def _nearest_multiple(exact: float, units: int, divisor: int) -> int:
    if divisor == 1:
        return int(exact + 1e-6)
    return min(units, max(divisor, int(exact + divisor / 2) // divisor * divisor))


def changed_paths(anatomy: Anatomy, copies: Mapping[str, str] | None = None) -> list[str]:
    """Paths of all modules that `adapt_` will change.

    Args:
        anatomy: of the network.
        copies: where another wing keeps the copy of a norm, by the norm's path.
    """
    return list(dict.fromkeys(cut.path for group in anatomy.channels for cut in _cuts(group, copies or {})))


def _cuts(group: ChannelGroup, copies: Mapping[str, str]) -> list[Cut]:
    copied = [dataclasses.replace(cut, path=copies[cut.path]) for cut in group.cuts if cut.path in copies]
    return [*group.cuts, *copied]


def adapt_(model: nn.Module, anatomy: Anatomy, config: Width, switch: Switch, copies: Mapping[str, str]) -> None:
    """Slice every module that has channels, in place. See `changed_paths` for `copies`."""
    places, shares = _width_stages(anatomy), _shares(anatomy, config)
    parts: dict[str, dict[str, list[Part]]] = defaultdict(lambda: defaultdict(list))
    numbers: dict[str, dict[str, Number]] = defaultdict(dict)
    for group in anatomy.channels:
        stage, kept = places[group.stage], _kept(group, shares, config.divisor)
        for cut in _cuts(group, copies):
            if cut.dim is None:
                numbers[cut.path][cut.name] = _number(model, cut, stage, kept)
            else:
                sizes = {width: units * cut.per_unit for width, units in kept.items()}
                part = Part(cut.dim, cut.parts, group.units * cut.per_unit, stage, sizes)
                parts[cut.path][cut.name].append(part)
    for path in changed_paths(anatomy, copies):
        module, shrinking = model.get_submodule(path), parts[path]
        own = _own_tensors(module, shrinking, config)
        Sliced.make_(module, switch, shrinking | {name: [] for name in own if name not in shrinking}, numbers[path])
        if own:
            assert isinstance(module, Sliced)
            part = next(iter(shrinking.values()))[0]
            module.add_own_(own, part.stage, [width for width, kept in part.kept.items() if kept < part.size])


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


def bake_(model: nn.Module, anatomy: Anatomy, subnet: SubNet, copies: Mapping[str, str]) -> None:
    """Leave in `model` only what `subnet` runs, as plain modules, in place. See `changed_paths` for `copies`."""
    for path in changed_paths(anatomy, copies):
        module = model.get_submodule(path)
        assert isinstance(module, Sliced)
        module.bake(subnet.width)
