"""Parameters that `adapt_` added and an optimizer does not have, because it was made before.

Where an optimizer updates the first set of a norm, the whole network's set or the network's own classifier, then some
optimizer has to update the second set, those of the widths, and the classifiers of the exits.
"""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from pliant.core.adaptive import AdaptiveModule
from pliant.core.surgery import is_mixed

__all__ = ["Missed"]

ADDED = re.compile(r"\.(skip|widths|exit)\.")

# Of several optimizers, one may step less often.
STEPS = 2


class Missed:
    """Watches whether the optimizers that step in this process have what `adapt_` added to a model."""

    def __init__(self, model: AdaptiveModule) -> None:
        self._pairs = list(_pairs(model))
        self._updated: set[int] = set()  # parameters of all optimizers, by id
        self._steps = 0
        self._has_stepped = False
        hook = register_optimizer_step_post_hook(partial(_note, weakref.ref(self)))
        weakref.finalize(self, hook.remove)

    def note(self, optimizer: Optimizer) -> None:
        """Write down what an optimizer updates."""
        self._has_stepped = True
        self._updated.update(id(parameter) for group in optimizer.param_groups for parameter in group["params"])

    def check(self) -> None:
        """Compare, before a new step, with what the optimizers have updated so far.

        Raises:
            ValueError: names an added parameter that none of them has, although one has its counterpart.
        """
        self._steps += self._has_stepped
        self._has_stepped = False
        if self._steps < STEPS:
            return
        for added_name, added, name, counterpart in self._pairs:
            missed = id(counterpart) in self._updated and id(added) not in self._updated
            if missed and not _waits(added) and added.requires_grad and counterpart.requires_grad:
                raise ValueError(
                    f"Objective: the optimizer updates {name!r} but not {added_name!r}, which pliant.adapt_ added; "
                    "make the optimizer after pliant.adapt_"
                )

    def __deepcopy__(self, memo: object) -> None:
        return None  # a copied objective begins anew, with the parameters of its own model


def _waits(parameter: nn.Parameter) -> bool:
    """Whether an optimizer has a parameter that it did not update yet. Slow, and asked before an error only."""
    gc.collect()
    optimizers: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), Optimizer)]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return any(one is parameter for group in groups for one in group["params"])


def _note(missed: weakref.ref[Missed], optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    watching = missed()
    if watching is not None:
        watching.note(optimizer)


def _pairs(model: AdaptiveModule) -> Iterator[tuple[str, nn.Parameter, str, nn.Parameter]]:
    """Yield each added parameter and its counterpart in the original network, with their names."""
    parameters = dict(model.named_parameters())
    head = next((name for name in parameters if name.startswith(f"{model.anatomy.head}.")), "")
    for name, parameter in parameters.items():
        found = ADDED.search(name)
        if found is None or not is_mixed(model.get_submodule(name[: found.start()])):
            continue
        counterpart = head if found[1] == "exit" else f"{name[: found.start()]}.{name.rpartition('.')[2]}"
        if counterpart in parameters:
            yield name, parameter, counterpart, parameters[counterpart]
