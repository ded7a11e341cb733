"""Finds which channels of a network must agree, so that leading slices of all its weights make a smaller network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, ChannelGroup, Cut
from pliant.core.inputs import InputSpec, input_spec
from pliant.core.weightless import without_values
from pliant.readers.channels.following import Followed, example_of, follow, layers_running, run
from pliant.readers.channels.labels import Dimension, Label, Reason, Shape, fix, leaves, product, unite
from pliant.readers.channels.numbers import agreements_of, numbers_of

__all__ = ["channel_groups"]


def channel_groups(model: nn.Module, anatomy: Anatomy, inputs: int | InputSpec) -> tuple[ChannelGroup, ...]:
    """Return the groups of channels that can be cut, in order of execution; each is cut as a whole.

    A copy of the network runs once without values, and every operator says what becomes of the channels that go into
    it. What is found is tried: the copy is cut and runs again. Weights that are tied are named once for each module
    that has them.

    Args:
        model: a network that is not adapted.
        anatomy: what a reader found in it.
        inputs: what it takes; or height and width of square images in pixels, or the number of tokens.

    Raises:
        ValueError: the channels that a stage ends in cannot be cut, and why; or the network does not run without
            values, or does not run with fewer channels.
    """
    inputs = input_spec(model, inputs) if isinstance(inputs, int) else inputs
    network = without_values(model)
    try:
        followed = follow(network, anatomy, inputs)
    except ValueError as error:
        raise ValueError(f"{anatomy.family}: its channels cannot be followed: {error}") from error
    _agree(network, followed)
    places = _places(network, followed)
    _keep_one_label(places.values())
    groups = _groups(anatomy, followed, places)
    _refuse_stuck(anatomy, followed, groups)
    _try(network, anatomy, inputs, [group for _, group in groups])
    return tuple(group for _, group in groups)


def _agree(network: nn.Module, followed: Followed) -> None:
    for path, module in network.named_modules():
        for one, other in agreements_of(module, followed.labels):
            unite(one, other, Reason(f"'{path}' divides them into heads differently", (one, other)))


def _places(network: nn.Module, followed: Followed) -> dict[tuple[str, str, int | None], Dimension]:
    """Return all that may shrink, by path, name and dimension (none: a number), with the labels of each."""
    places: dict[tuple[str, str, int | None], Dimension] = {}
    for path, module in network.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            for dim, dimension in enumerate(followed.labels(tensor)):
                places[path, name, dim] = dimension
        for name, dimension in numbers_of(module, followed.labels).items():
            if dimension is None:
                reason = Reason(f"{name} of '{path}' does not count them")
                for labels in [labels for _, tensor in own for labels in followed.labels(tensor)]:
                    fix(labels, reason)
            else:
                places[path, name, None] = dimension
    return places


def _keep_one_label(dimensions: Iterable[Dimension]) -> None:
    """Let every dimension be cut in one way alone: of several free labels the largest stays free.

    A small one is more often a number that the network counts on, such as the halves that it shuffles.
    """
    for dimension in dimensions:
        free = [label for label in leaves(dimension) if label.reason is None]
        if len(set(free)) < len(free):
            fix(free, Reason("they occur twice in one dimension", (dimension,)))
        elif free:
            free.remove(max(free, key=lambda label: label.size))
            fix(free, Reason("they lie beside others that can be cut", (dimension,)))


def _groups(
    anatomy: Anatomy, followed: Followed, places: Mapping[tuple[str, str, int | None], Dimension]
) -> list[tuple[Label, ChannelGroup]]:
    """Put together what each free label of a layer's output is to be cut with."""
    cuts: dict[Label, list[Cut]] = {}
    for (path, name, dim), dimension in places.items():
        labels = leaves(dimension)
        for index, label in enumerate(labels):
            if label.reason is None:
                sizes = {"parts": product(labels[:index]), "per_unit": product(labels[index + 1 :])}
                cuts.setdefault(label, []).append(Cut(path=path, name=name, dim=dim, **sizes))
    makers: dict[Label, set[int]] = {}
    for number, (path, dimension) in enumerate(followed.made):
        for label in leaves(dimension):
            if label in cuts:
                makers.setdefault(label, set()).add(_stage_of(anatomy, followed, path, number))
    first = _linked(makers.values(), len(anatomy.stages))
    groups = []
    for label, stages in makers.items():
        streams = tuple(index for index, shape in enumerate(followed.streams) if shape and _flows(label, shape))
        group = ChannelGroup(units=label.size, stage=first[min(stages)], cuts=tuple(cuts[label]), streams=streams)
        groups.append((label, group))
    return groups


def _flows(label: Label, shape: Shape) -> bool:
    """Whether the leading entries of a dimension belong to the leading units of a label."""
    return any(leaves(dimension)[:1] == (label,) for dimension in shape)


def _stage_of(anatomy: Anatomy, followed: Followed, path: str, number: int) -> int:
    """The stage in whose blocks a layer lies; else the one that begins next, or the last."""
    for index, stage in enumerate(anatomy.stages):
        if any(f"{path}.".startswith(f"{block.path}.") for block in stage.blocks):
            return index
    later = [index for index, start in enumerate(followed.starts) if start is not None and start > number]
    return min(later, default=len(anatomy.stages) - 1)


def _linked(together: Iterable[set[int]], stages: int) -> list[int]:
    """Return for each stage the first of those that share channels with it, directly or through others."""
    first = list(range(stages))
    for linked in together:
        firsts = {first[stage] for stage in linked}
        first = [min(firsts) if stage in firsts else stage for stage in first]
    return first


def _refuse_stuck(anatomy: Anatomy, followed: Followed, groups: list[tuple[Label, ChannelGroup]]) -> None:
    """Refuse a network with a stage whose residual stream must stay, and say which layers make it so."""
    free = {label for label, _ in groups}
    for stage, shape in zip(anatomy.stages, followed.streams, strict=True):
        if shape is None:
            raise ValueError(f"{anatomy.family}: its channels cannot be followed: stage '{stage.path}' does not run")
        # Of all dimensions the channels alone can be free, whichever of them the reader took for the channels.
        if free.isdisjoint(label for dimension in shape for label in leaves(dimension)):
            dimension = shape[stage.channel_dim]
            labels = leaves(dimension)
            reason = next((label.reason for label in labels if label.reason), Reason("no layer makes them"))
            names = _names(followed, [*reason.joined, dimension])
            whose = " and ".join(names) or f"stage '{stage.path}'"
            together = " together" if len(names) > 1 else ""
            raise ValueError(f"{anatomy.family}: the channels of {whose} cannot be cut{together}: {reason.text}")


def _names(followed: Followed, dimensions: Iterable[Dimension]) -> list[str]:
    """The last layer that makes each of some dimensions; two at most."""
    names: list[str] = []
    for dimension in dimensions:
        labels = set(leaves(dimension))
        makers = [path for path, made in followed.made if not labels.isdisjoint(leaves(made))]
        if makers and f"'{makers[-1]}'" not in names:
            names.append(f"'{makers[-1]}'")
    return names[:2]


def _try(network: nn.Module, anatomy: Anatomy, inputs: InputSpec, groups: list[ChannelGroup]) -> None:
    """Cut the copy and run it: a network may count its channels in ways that nobody wrote down.

    Neighbouring groups are cut differently, so that what must agree shows.
    """
    example = example_of(network, inputs)
    with layers_running(network) as running:
        before = [tensor.shape for tensor in run(network, example, running)]
        for number, group in enumerate(groups):
            kept = max(1, group.units * (number % 3 + 1) // 4)
            for cut in group.cuts:
                _cut(network.get_submodule(cut.path), cut, group.units, kept)
        try:
            after = [tensor.shape for tensor in run(network, example, running)]
        except ValueError as error:
            raise ValueError(f"{anatomy.family}: with fewer channels {error}") from error
    for shapes in zip(before, after, strict=True):
        if shapes[0] != shapes[1]:
            said = " and ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"{anatomy.family}: with fewer channels it answers in another shape: {said}")


def _cut(module: nn.Module, cut: Cut, units: int, kept: int) -> None:
    value = getattr(module, cut.name)
    if cut.dim is None:
        size = cut.parts * kept * cut.per_unit
        setattr(module, cut.name, (size,) if isinstance(value, tuple) else size)
        return
    assert isinstance(value, Tensor)
    shape = list(value.shape)
    shape[cut.dim] = cut.parts * kept * cut.per_unit
    smaller = torch.empty(shape, dtype=value.dtype, device="meta")
    # Past `__setattr__`, which takes a parameter alone: the tensors of this copy are plain ones.
    vars(module)["_parameters" if cut.name in module._parameters else "_buffers"][cut.name] = smaller
