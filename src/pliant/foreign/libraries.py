"""Find the network of torchvision, timm or pliant that plain weights belong to, by names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Size, nn

from pliant.core.weights import CheckpointError, first_three, misfits, shapes, tied_names
from pliant.create import ModelSource, blueprint, image_options, usual_image_size
from pliant.foreign.files import WeightsFile
from pliant.models import MODELS

__all__ = ["count_classes", "problems_of", "recognise", "resized"]

CLASSIFIER = re.compile(r"(fc|heads?|classifier)(\.\w+)*\.weight")
# Torchvision's names and timm's of what depends on the image size, and of what divides images into patches.
POSITIONS = ("encoder.pos_embedding", "pos_embed")
PATCHES = ("conv_proj.weight", "patch_embed.proj.weight")
# Candidates of right shapes that are built and compared; those of other shapes cost little and do not count.
MOST_BUILT = 64


def count_classes(given: Mapping[str, Size]) -> int | None:
    """Return how many classes the classifier tells apart; none where there is no classifier."""
    layers = [name for name, shape in given.items() if CLASSIFIER.fullmatch(name) and len(shape) > 1]
    layers = [name for name in layers if "pre_logits" not in name]
    if not layers:
        return None
    last = max(layers, key=lambda name: ([int(part) if part.isdigit() else -1 for part in name.split(".")], name))
    return given[last][0]


def problems_of(model: nn.Module, given: Mapping[str, Size], names: Mapping[str, str] | None = None) -> list[str]:
    """Say which tensors of `model`, called by `names`, are missing in `given` or differ, and which are unknown.

    Counts of batches may be missing: old files have none, and no network needs them to run.
    """
    names = names or {}
    tied = tied_names(model)
    expected = {
        names.get(name, name): shape
        for name, shape in shapes(model.state_dict()).items()
        if names.get(name, name) in given or not (name in tied or name.endswith("num_batches_tracked"))
    }
    return misfits(expected, given)


def resized(source: ModelSource, model: nn.Module, given: Mapping[str, Size]) -> ModelSource:
    """Return how to make `model`, made by `source`, for images of the size that a file's position embeddings have."""
    sizes = image_options(model)
    expected = shapes(model.state_dict())
    name = next((name for name in POSITIONS if name in given and name in expected), None)
    patches = next((expected[key][-1] for key in PATCHES if key in expected), 0)
    if name is None or not sizes or not patches or given[name] == expected[name]:
        return source
    usual = usual_image_size(model)
    assert usual is not None
    no_image = expected[name][1] - (usual // patches) ** 2  # tokens such as the class token
    size = math.isqrt(max(given[name][1] - no_image, 0)) * patches
    options = {option: size if isinstance(value, int) else [size, size] for option, value in sizes.items()}
    return source.replace(options=source.options | options)


@dataclass(frozen=True)
class _Tried:
    """A candidate that was built: how, what it looks like, and what does not fit."""

    source: ModelSource
    structure: str
    problems: list[str]


def _try(source: ModelSource, given: Mapping[str, Size], *, only: bool) -> _Tried | None:
    """Compare one candidate, for images of its usual size or of the file's; none where `only` its shapes allow."""
    built = blueprint(source, only=given if only else None)
    if built is None:
        return None
    fitting = resized(source, built, given)
    if fitting != source:
        built = blueprint(fitting)
        assert built is not None
    return _Tried(fitting, repr(built), problems_of(built, given))


def recognise(file: WeightsFile, model: ModelSource | None) -> ModelSource:
    """Find out which network the weights of a file belong to.

    What the file is called counts first (`resnetaa50-....pth`) where its tensors fit that; then torchvision's
    networks, ours, and timm's, as far as pliant can adapt them.

    Args:
        file: the weights.
        model: which network it is said to be; none = find out.

    Raises:
        CheckpointError: they fit no network, not the one named, or several of timm's that differ.
    """
    given = shapes(file.tensors)
    num_classes = count_classes(given)
    if model is not None:
        said = _try(model.replace(num_classes=model.num_classes or num_classes), given, only=False)
        assert said is not None
        if said.problems:
            raise CheckpointError(f"{file.path} does not fit {model.name}: {first_three(said.problems)}")
        return said.source
    names = list(_candidates(given))
    for name in _hinted(names, file.hints):
        hinted = _try(ModelSource(name=name, num_classes=num_classes), given, only=True)
        if hinted is not None and not hinted.problems:
            return hinted.source
    return _search(file, names, num_classes)


def _search(file: WeightsFile, names: Iterable[str], num_classes: int | None) -> ModelSource:
    given = shapes(file.tensors)
    tried: list[_Tried] = []
    for name in names:
        result = _try(ModelSource(name=name, num_classes=num_classes), given, only=True)
        if result is None:
            continue
        if not result.problems and not name.startswith("timm:"):
            return result.source
        tried.append(result)
        if len(tried) == MOST_BUILT:
            break
    fits: dict[str, ModelSource] = {}
    for result in tried:
        if not result.problems:
            fits.setdefault(result.structure, result.source)
    if len(fits) == 1:
        return next(iter(fits.values()))
    if fits:
        known = ", ".join(source.name for source in fits.values())
        raise CheckpointError(f"{file.path} fits several networks that are not the same: {known}; {_name_it(file)}")
    if tried:
        nearest = min(tried, key=lambda result: len(result.problems))
        what = f"the nearest is {nearest.source.name}, where {first_three(nearest.problems)}"
    else:
        what = f"its names begin with {', '.join(list(given)[:3])}"
    raise CheckpointError(f"{file.path} is of no network that pliant recognises: {what}; {_name_it(file)}")


def _name_it(file: WeightsFile) -> str:
    return f"say which with pliant.load({file.path.name!r}, model=...), such as model='timm:resnet50d'"


def _hinted(names: Sequence[str], hints: Iterable[str]) -> Iterator[str]:
    """The candidates whose names occur in the hints, the longest first: `resnet50d` before `resnet50`."""
    texts = [hint.lower().replace("-", "_") for hint in hints]
    for text in texts:
        yield from sorted((name for name in names if name.partition(":")[2] in text), key=len, reverse=True)


def _candidates(given: Mapping[str, Size]) -> Iterator[str]:
    """Names of all networks that pliant can adapt, the plain ones first; of timm's those with the right ends."""
    import timm
    import torchvision

    from pliant.readers import timm as timm_reader
    from pliant.readers import torchvision as torchvision_reader

    modules = {kind.__module__ for kind in torchvision_reader.FAMILIES}
    for name in torchvision.models.list_models(module=torchvision.models):
        if torchvision.models.get_model_builder(name).__module__ in modules:
            yield f"torchvision:{name}"
    yield from (f"pliant:{name}" for name in MODELS)
    modules = {kind.__module__.rpartition(".")[2] for kind in timm_reader.FAMILIES}
    names = {name for module in modules for name in timm.list_models(module=module)}
    for name in sorted(names, key=lambda name: (len(name), name)):
        if _ends_fit(timm.get_pretrained_cfg(name), given):
            yield f"timm:{name}"


def _ends_fit(configuration: Any, given: Mapping[str, Size]) -> bool:
    """Whether weights have the first convolution and the classifier that timm writes down for a model."""
    for layers in (configuration.first_conv, configuration.classifier) if configuration else ():
        for layer in (layers,) if isinstance(layers, str) else layers or ():
            if f"{layer}.weight" not in given:
                return False
    return True
