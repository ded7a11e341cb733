"""`create_model`: from a name such as `torchvision:resnet50` to a model, and from a model back to its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pliant.core.config import Config
from pliant.core.surgery import replace
from pliant.models import MODELS

__all__ = ["ModelSource", "create_model", "identify", "usual_image_size"]


@dataclass(frozen=True, kw_only=True)
class ModelSource(Config):
    """How to make a model again.

    Attributes:
        name: `library:model`.
        num_classes: outputs of the classifier; none = the library's default.
        options: further arguments of the library's own function.
    """

    name: str
    num_classes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def create(self, *, pretrained: bool = False) -> nn.Module:
        """Make the model, with random or with the library's pretrained weights."""
        return create_model(self.name, num_classes=self.num_classes, pretrained=pretrained, **self.options)


def create_model(name: str, *, num_classes: int | None = None, pretrained: bool = False, **options: Any) -> nn.Module:
    """Make a model from its name.

    Args:
        name: `torchvision:resnet50`, `timm:resnet50d`, `transformers:google/vit-base-patch16-224`,
            `pliant:resnet20`, ...; after `transformers:` a name on the Hugging Face Hub, a folder saved by
            transformers, or a model type such as `vit` (its default config, no network needed).
        num_classes: outputs of the classifier; none = the library's default. A pretrained classifier
            of another size is replaced by a new one.
        pretrained: load the library's default weights.
        **options: further arguments of the library's own function.

    Raises:
        ValueError: unknown library or model, or options that it does not take.
    """
    library, _, model = name.partition(":")
    if library not in _LIBRARIES or not model:
        raise ValueError(
            f"unknown model {name!r}: expected LIBRARY:MODEL with LIBRARY one of {', '.join(_LIBRARIES)}, "
            "such as torchvision:resnet50"
        )
    try:
        return _LIBRARIES[library](model, num_classes, pretrained, options)
    except TypeError as error:
        raise ValueError(f"{name}: options {options} are not what it takes ({error})") from None


def _unknown(library: str, model: str, known: list[str]) -> ValueError:
    near = difflib.get_close_matches(model, known, n=3, cutoff=0.5) or known[:3]
    hint = f"{library} has {', '.join(known)}" if len(known) < 10 else f"nearest of {len(known)}: {', '.join(near)}"
    return ValueError(f"unknown model '{library}:{model}': {hint}")


def _create_torchvision(model: str, num_classes: int | None, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise _unknown("torchvision", model, known)
    weights = "DEFAULT" if pretrained else None
    if pretrained or num_classes is None:
        created = torchvision.models.get_model(model, weights=weights, **options)
    else:
        created = torchvision.models.get_model(model, weights=weights, num_classes=num_classes, **options)
    path, head = _last_linear(created)
    if num_classes is not None and head.out_features != num_classes:
        replace(created, path, nn.Linear(head.in_features, num_classes))
    return created


def _last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """The classifier of any of torchvision's networks and of ours."""
    return [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def _create_timm(model: str, num_classes: int | None, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(model):
        raise _unknown("timm", model, timm.list_models())
    if num_classes is not None:
        options = {**options, "num_classes": num_classes}
    return timm.create_model(model, pretrained=pretrained, **options)


def _create_transformers(model: str, num_classes: int | None, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    try:
        from pliant.hub import create
    except ImportError:
        raise ValueError(
            f"transformers:{model} needs the library transformers: pip install 'pliant[transformers]'"
        ) from None

    return create(model, num_classes=num_classes, pretrained=pretrained, **options)


def _create_own(model: str, num_classes: int | None, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    if model not in MODELS:
        raise _unknown("pliant", model, list(MODELS))
    if pretrained:
        raise ValueError(f"pliant:{model} has no pretrained weights; train it with `pliant train`")
    if num_classes is not None:
        options = {**options, "num_classes": num_classes}
    return MODELS[model](**options)


_LIBRARIES: dict[str, Callable[[str, int | None, bool, dict[str, Any]], nn.Module]] = {
    "torchvision": _create_torchvision,
    "timm": _create_timm,
    "transformers": _create_transformers,
    "pliant": _create_own,
}


def identify(model: nn.Module) -> ModelSource | None:
    """Find the name that makes a model of this structure again; none if there is no such name.

    The candidates are built without memory and compared layer by layer: types, settings and shapes.
    """
    num_classes = getattr(getattr(model, "fc", None), "out_features", None)
    structure = repr(model)
    for name in _candidates(model):
        source = ModelSource(name=name, num_classes=num_classes)
        with torch.device("meta"):
            candidate = source.create()
        if repr(candidate) == structure:
            return source
    return None


def _candidates(model: nn.Module) -> Iterator[str]:
    module = type(model).__module__
    library = module.partition(".")[0]
    if library == "torchvision":
        import torchvision

        for name in torchvision.models.list_models(module=torchvision.models):
            if torchvision.models.get_model_builder(name).__module__ == module:
                yield f"torchvision:{name}"
    elif library == "timm":
        configuration = getattr(model, "pretrained_cfg", None) or {}
        if configuration.get("architecture"):
            yield f"timm:{configuration['architecture']}"
    elif library == "pliant":
        yield from (f"pliant:{name}" for name in MODELS)


def usual_image_size(model: nn.Module) -> int | None:
    """Return the image size in pixels that a model was made for; none where nobody knows.

    timm writes it down; torchvision's take 224, ours are for CIFAR.
    """
    written_down = getattr(model, "pretrained_cfg", None)
    if isinstance(written_down, Mapping) and written_down.get("input_size"):
        return written_down["input_size"][-1]
    for package, size in (("torchvision.models.", 224), ("pliant.models.", 32)):
        if any(base.__module__.startswith(package) for base in type(model).__mro__):
            return size
    return None
