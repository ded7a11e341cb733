"""`extract`: one sub-network as a plain module that knows nothing of pliant."""

from __future__ import annotations

from torch import nn

from pliant import readers
from pliant.axes import Axes
from pliant.core.adaptive import AdaptiveModule, StageEnd, to_make_plain
from pliant.core.anatomy import Anatomy
from pliant.core.subnet import SubNet
from pliant.core.surgery import own_copy, own_forward, own_parts_, shared_copy
from pliant.depth import transform as depth
from pliant.exits import transform as exits
from pliant.width import transform as width

__all__ = ["extract", "original"]


def extract(model: nn.Module, subnet: str | SubNet, share: bool = False) -> nn.Module:
    """Return one sub-network as a module of the library's own class, with the library's own keys.

    Args:
        model: an adapted model; it is not changed.
        subnet: which sub-network.
        share: use the model's own tensors, copying none: the network follows when the model is trained
            on, and several can be served side by side at no memory. The exception are tensors of a narrower network
            whose channels lie apart in the whole one, such as the weight that computes queries, keys and values
            together: no view has these, so they are copies and keep the values of now.

    Raises:
        ValueError: the model is not adapted, is wrapped, or has no such sub-network.
    """
    with own_forward(model):
        adaptive = to_make_plain(model, "extract")
        chosen = adaptive.space.parse(subnet)
        plain = shared_copy(adaptive)
    anatomy, wanted = plain.anatomy, Axes.of(plain.configs)
    AdaptiveModule.unmake_(plain)
    # The wings leave in the opposite order of their coming, so that each finds what it made.
    skipped = depth.skipped_paths(anatomy, wanted.depth, chosen) if wanted.depth else []
    ending = exits.unmake_(plain, anatomy, wanted.exits, chosen, skipped) if wanted.exits else None
    _bake_(plain, anatomy, wanted, chosen)
    if wanted.exits and ending:
        plain = exits.bake_(plain, wanted.exits, ending)
    if share:
        return plain
    copied = own_copy(plain, {})
    own_parts_(copied, {})  # the copy of a buffer that is a part of another one is a part of a copy of that one
    return copied


def original(model: AdaptiveModule) -> nn.Module:
    """Return the network that was adapted, over the same tensors: the super-net with the exits that it brought."""
    with own_forward(model):
        plain = shared_copy(to_make_plain(model, "extract"))
    anatomy, wanted = plain.anatomy, Axes.of(plain.configs)
    AdaptiveModule.unmake_(plain)
    if wanted.exits:
        exits.remove_(plain, anatomy, wanted.exits)
    _bake_(plain, anatomy, wanted, model.space.largest, attends=False)
    return plain


def _bake_(plain: nn.Module, anatomy: Anatomy, wanted: Axes, chosen: SubNet, *, attends: bool = True) -> None:
    for stage in anatomy.stages:
        StageEnd.unmake_(plain.get_submodule(stage.blocks[-1].path))
    if wanted.width:
        copies = depth.copied_norms(anatomy, wanted.depth)
        width.bake_(plain, anatomy, wanted.width, chosen, copies, attends=attends)
    if wanted.depth:
        depth.bake_(plain, anatomy, wanted.depth, chosen)
    readers.settle_(plain, anatomy)
