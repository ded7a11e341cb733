"""What a gate chooses for N images, by whichever offsets, and what all widths answer to them.

Letters of shapes: N images, R routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import as_adaptive
from pliant.core.inputs import logits_of
from pliant.core.modes import evaluating
from pliant.measure.candidates import Candidate
from pliant.measure.examples import note_examples
from pliant.measure.one_by_one import Batches
from pliant.policy.certainty import confidence_of
from pliant.policy.thresholds import average_cost
from pliant.width.gates import gate_of

if TYPE_CHECKING:
    from pliant.data import ImageData, Split

__all__ = ["GATE", "Answers", "Choice", "scores_of"]

GATE = "gate"
"""What the row of the gated network is called."""


def scores_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return what the gate makes of images before any offsets, float32 `[N, R]`; on the CPU."""
    with evaluating(model), torch.no_grad():
        _, features = as_adaptive(model, "measure").seen_by_gate(images)
        return gate_of(model).raw_scores(features).cpu()


class Answers:
    """What the gate makes of N images, and what all widths answer to them; on the CPU.

    Attributes:
        scores: of the gate, before any offsets, `[N, R]`.
        labels: class of each image, int64 `[N]`.
        predicted: by sub-network, the class that it answers, int64 `[N]`.
        certainties: by sub-network, how sure it is, by its largest probability, `[N]`.
    """

    def __init__(self, model: nn.Module, candidates: Sequence[Candidate], batches: Batches) -> None:
        self._routes = [str(route) for route in as_adaptive(model, "measure").routes]
        parts: list[tuple[Tensor, ...]] = []
        for images, labels in batches:
            with torch.no_grad():
                logits = [logits_of(one.run(images)) for one in candidates]
            found = torch.stack([one.argmax(1) for one in logits], 1), torch.stack(list(map(confidence_of, logits)), 1)
            parts.append((*(part.cpu() for part in (*found, labels)), scores_of(model, images)))
        predicted, certainties, self.labels, self.scores = map(torch.cat, zip(*parts, strict=True))
        names = [one.name for one in candidates]
        self.predicted = dict(zip(names, predicted.unbind(1), strict=True))
        self.certainties = dict(zip(names, certainties.unbind(1), strict=True))

    def accuracy(self, subnet: str) -> float:
        """Return the accuracy of a sub-network that answers all images, in percent."""
        return _percent(self.predicted[subnet] == self.labels)

    def row(self, offsets: Sequence[float], costs: Sequence[float]) -> dict[str, Any]:
        """Return what the gate gives with these offsets; `costs` are of the routes."""
        choice = self.choice(offsets)
        row: dict[str, Any] = {"subnet": GATE, "gmacs": average_cost([*choice.shares().values()], costs)}
        return row | {"acc1": _percent(choice.right), "shares": choice.shares(), "offsets": [*offsets]}

    def choice(self, offsets: Sequence[float]) -> Choice:
        """Let the gate choose with these offsets."""
        chosen = (self.scores + torch.tensor(offsets)).argmax(1)

        def of_chosen(values: Mapping[str, Tensor]) -> Tensor:
            return torch.stack([values[route] for route in self._routes], dim=1).gather(1, chosen[:, None]).squeeze(1)

        return Choice(self._routes, chosen, of_chosen(self.predicted), of_chosen(self.certainties), self.labels)


@dataclass(frozen=True)
class Choice:
    """Where a gate sends N images, and what they are answered there.

    Attributes:
        routes: the sub-networks that it chooses among.
        chosen: for each image, the place of its route, int64 `[N]`.
        predicted: the class that it answers, int64 `[N]`.
        certainties: how sure it is, by its largest probability, `[N]`.
        labels: class of each image, int64 `[N]`.
    """

    routes: Sequence[str]
    chosen: Tensor
    predicted: Tensor
    certainties: Tensor
    labels: Tensor

    @property
    def right(self) -> Tensor:
        """Which images are answered rightly, `[N]`."""
        return self.predicted == self.labels

    def shares(self, which: Tensor | None = None) -> dict[str, float]:
        """Return which part of the images, or of these of them, takes each route."""
        chosen = self.chosen if which is None else self.chosen[which]
        counts = chosen.bincount(minlength=len(self.routes))
        return dict(zip(self.routes, (counts / len(chosen)).tolist(), strict=True))

    def by_class(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row for every class of which there are images: where they go, and how many are right."""
        own = ((name, self.labels == label) for label, name in enumerate(class_names))
        return [
            {"label": name, "images": int(which.sum())}
            | {"shares": self.shares(which), "acc1": _percent(self.right[which])}
            for name, which in own
            if which.any()
        ]

    def examples(self, data: ImageData, split: Split) -> list[dict[str, Any]]:
        """Note some images of each route."""
        return note_examples(self.routes, self.chosen, self.predicted, self.certainties, self.labels, data, split)


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)
