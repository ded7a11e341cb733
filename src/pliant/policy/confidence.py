"""`ConfidencePolicy`: an input is answered by the first sub-network that is sure enough.

It works over any sub-networks in an order of rising cost: the exits of one network, or a cascade of its depths. Here
are logits and numbers alone; `pliant.predict` runs a model by it.

Letters of shapes: K sub-networks, N inputs, C classes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from pliant.core.config import Config
from pliant.core.files import read_text, write_text
from pliant.policy.certainty import confidence_of, refuse_unknown_measure

__all__ = ["ConfidencePolicy"]

_INFINITIES = {"infinity": math.inf, "-infinity": -math.inf}
"""JSON has no such numbers."""


@dataclass(frozen=True, kw_only=True)
class ConfidencePolicy(Config):
    """Which sub-network answers an input: the first whose confidence reaches its threshold.

    Made by `pliant.measure.policies.find_policies` from a model and validation images, or by
    `pliant.policy.fit.fit_policies` from logits.

    Attributes:
        subnets: texts of the sub-networks, in the order in which they are tried.
        thresholds: one a sub-network; infinity where nobody leaves. The last is minus infinity: it answers all others.
        num_classes: outputs of the network.
        measure: of confidence: `max_softmax`, `entropy` or `margin`.
        temperatures: by which the logits of each sub-network are divided before; empty = by 1.
        costs: of an input that each sub-network answers, all that was computed for it before counted, usually 10^9
            multiply-accumulates; empty = not known.
        budget: average cost of an input that was asked for, in the same unit.
        expected_cost: average cost of the validation images.
        expected_shares: of the validation images, which each sub-network answered.
        fingerprint: of the network that the thresholds were found for; empty = not known.
    """

    subnets: tuple[str, ...]
    thresholds: tuple[float, ...]
    num_classes: int
    measure: str = "max_softmax"
    temperatures: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()
    budget: float | None = None
    expected_cost: float | None = None
    expected_shares: tuple[float, ...] = ()
    fingerprint: str = ""

    def validate(self) -> None:
        """Check that there is as much of everything as there are sub-networks, and that the last answers everybody."""
        refuse_unknown_measure(self.measure)
        count = len(self.subnets)
        if not count or len(set(self.subnets)) < count:
            raise ValueError(f"ConfidencePolicy.subnets: got {list(self.subnets)}, expected one or more, each once")
        if self.num_classes < 2:
            raise ValueError(f"ConfidencePolicy.num_classes: got {self.num_classes}, expected 2 or more")
        for name in ("thresholds", "temperatures", "costs", "expected_shares"):
            values = getattr(self, name)
            if len(values) != count and (values or name == "thresholds"):
                raise ValueError(f"ConfidencePolicy.{name}: got {len(values)} numbers for {count} sub-networks")
            if any(map(math.isnan, values)):
                raise ValueError(f"ConfidencePolicy.{name}: got {list(values)}, expected numbers")
        if self.thresholds[-1] != -math.inf:
            raise ValueError(
                f"ConfidencePolicy.thresholds: the last is {self.thresholds[-1]:g}, but {self.subnets[-1]} answers all "
                "that are left; expected minus infinity"
            )
        if not all(0 < temperature < math.inf for temperature in self.temperatures):
            raise ValueError(f"ConfidencePolicy.temperatures: got {list(self.temperatures)}, expected numbers above 0")

    def decides(self, index: int, logits: Tensor) -> Tensor:
        """Say which inputs sub-network `index`, counted from 0, is to answer: `[N]` of bool.

        Args:
            index: place in `subnets`.
            logits: what it says of the inputs that none before it answered, `[N, C]`.

        Raises:
            ValueError: no such sub-network, logits of another number of classes, or logits that are not finite.
        """
        if not 0 <= index < len(self.subnets):
            raise ValueError(
                f"sub-network {index} of a policy of {len(self.subnets)}; allowed are 0 to {len(self.subnets) - 1}"
            )
        self.check(num_classes=logits.shape[-1])
        temperature = self.temperatures[index] if self.temperatures else 1.0
        # Asked at the last too: a network that says nothing finite is found out wherever its inputs leave.
        return confidence_of(logits, self.measure, temperature) >= self.thresholds[index]

    def apply(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose among answers that were all computed: what running the policy gives, the slow way.

        Args:
            logits: of every sub-network for every input, `[K, N, C]`.

        Returns:
            Logits `[N, C]`, and for each input the place of the sub-network that gives them, `[N]`.

        Raises:
            ValueError: the logits are of another number of sub-networks or classes, or not finite.
        """
        if logits.dim() != 3:
            raise ValueError(
                f"logits have the shape {list(logits.shape)}; expected are [sub-networks, inputs, classes]"
            )
        self.check(exits=len(logits), num_classes=logits.shape[2])
        sure = torch.stack([self.decides(index, answers) for index, answers in enumerate(logits)])
        chosen = sure.to(torch.uint8).argmax(dim=0)
        return logits[chosen, torch.arange(len(chosen), device=chosen.device)], chosen

    def check(
        self, *, exits: int | None = None, num_classes: int | None = None, fingerprint: str | None = None
    ) -> None:
        """Refuse to be used on something else than the policy was made for.

        Args:
            exits: how many sub-networks there are; none = do not ask.
            num_classes: likewise.
            fingerprint: of the network, as `pliant.core.fingerprint` gives it; likewise.

        Raises:
            ValueError: says what it was made for and what was given.
        """
        if exits is not None and exits != len(self.subnets):
            raise ValueError(
                f"this policy is for {len(self.subnets)} sub-networks, {self.subnets[0]} to "
                f"{self.subnets[-1]}, and not for {exits}; find one for this network"
            )
        if num_classes is not None and num_classes != self.num_classes:
            raise ValueError(
                f"this policy is for {self.num_classes} classes, and the network has {num_classes}; find "
                "one for this network"
            )
        if fingerprint is not None and self.fingerprint and fingerprint != self.fingerprint:
            raise ValueError(
                f"this policy is for the network of fingerprint {self.fingerprint}, and this one's is "
                f"{fingerprint}: other weights have other confidences; find a policy for this network"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_dict` reads it."""
        names = {value: name for name, value in _INFINITIES.items()}
        return super().to_dict() | {"thresholds": [names.get(value, value) for value in self.thresholds]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from what `to_dict` gave.

        Raises:
            ValueError: not such a mapping, or one of a newer version.
        """
        if isinstance(data, Mapping) and isinstance(data.get("thresholds"), Sequence):
            read = [_INFINITIES.get(value, value) if isinstance(value, str) else value for value in data["thresholds"]]
            data = {**data, "thresholds": read}
        return super().from_dict(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON; a file that was there stays whole until the new one is complete.

        Raises:
            ValueError: it cannot be written; names the path.
        """
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", "policy")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a policy that `save` wrote.

        Raises:
            ValueError: no such file, or no policy; names the path.
        """
        text = read_text(path, "policy")
        try:
            return cls.from_dict(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}: no policy can be read here ({error})") from None
