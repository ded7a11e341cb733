"""Checkpoint files of other people: the ADN authors', torchvision's and timm's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pliant.adapt import adapt_
from pliant.core.config import Config
from pliant.core.weights import CheckpointError, first_three, shapes
from pliant.create import ModelSource, blueprint
from pliant.foreign import authors, libraries
from pliant.foreign.files import WeightsFile, read

__all__ = ["Foreign", "recognise"]


@dataclass(frozen=True)
class Foreign:
    """What a checkpoint file was found to be.

    Attributes:
        origin: who made it: `ADN authors`, or the library whose network it is.
        source: how to make the network.
        configs: how the authors adapted it; empty for a library's.
        entry: which entry of the file the weights are, such as `model_ema`; none = all of it.
        tensors: the weights, by the names that they have in pliant.
    """

    origin: str
    source: ModelSource
    configs: tuple[Config, ...]
    entry: str | None
    tensors: dict[str, Tensor]

    def load(self) -> nn.Module:
        """Make the network, adapted if it was, on the CPU and in eval mode."""
        model = self.source.create()
        if self.configs:
            model = adapt_(model, *self.configs)
        # What `recognise` lets a file leave out, counts of batches and tied weights, is as in a new network.
        model.load_state_dict({**model.state_dict(), **self.tensors})
        return model.eval()


def recognise(
    path: str | os.PathLike[str], *, model: str | ModelSource | None = None, ema: bool | None = None
) -> Foreign:
    """Find out what a checkpoint file is, by the names and shapes of its tensors.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote.
        model: which network it is, such as `timm:resnet50d`; needed where several fit.
        ema: the averaged weights (True), the plain ones (False), or the averaged ones where there are any (None).

    Raises:
        CheckpointError: not a file of weights alone, or of no known network; names the first three tensors that
            do not fit.
    """
    file = read(Path(path), ema)
    said = ModelSource(name=model) if isinstance(model, str) else model
    if authors.has_second_sets(file.tensors):
        return _of_the_authors(file, said)
    source = libraries.recognise(file, said)
    return Foreign(source.name.partition(":")[0], source, (), file.entry, file.tensors)


def _of_the_authors(file: WeightsFile, said: ModelSource | None) -> Foreign:
    given = shapes(file.tensors)
    known = [published for published in authors.PUBLISHED if said is None or published.name == said.name]
    nearest: tuple[int, str] | None = None
    for published in known:
        options = published.options | (said.options if said else {})
        source = ModelSource(name=published.name, num_classes=libraries.count_classes(given), options=options)
        model = blueprint(source)
        assert model is not None
        fitting = libraries.resized(source, model, given)
        if fitting != source:
            model = blueprint(fitting)
            assert model is not None
        theirs = published.their_names(adapt_(model, published.config).state_dict())
        problems = libraries.problems_of(model, given, theirs)
        if not problems:
            ours = {their: our for our, their in theirs.items()}
            tensors = {ours[name]: tensor for name, tensor in file.tensors.items()}
            return Foreign("ADN authors", fitting, (published.config,), file.entry, tensors)
        if nearest is None or len(problems) < nearest[0]:
            nearest = len(problems), f"the nearest is {published.name}, where {first_three(problems)}"
    names = ", ".join(published.name for published in authors.PUBLISHED)
    what = nearest[1] if nearest else f"they published no {said.name if said else 'such network'}"
    raise CheckpointError(
        f"{file.path} has second norm sets as the ADN authors' checkpoints have, but is none of theirs: {what}; "
        f"known are {names}"
    )
