"""`create_model`: from a name such as `torchvision:resnet50` to a model, and from a model back to its name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from pliant.core.config import Config
from pliant.core.surgery import replace
from pliant.core.weightless import Unwanted, weightless
from pliant.models import LIBRARY_CLASSES, MODELS
from pliant.own import create as create_own
from pliant.own import is_own

__all__ = ["ModelSource", "blueprint", "create_model", "identify", "image_options", "usual_image_size"]

RATE = "stochastic_depth_prob"


@dataclass(frozen=True, kw_only=True)
class ModelSource(Config):
    """How to make a model again.

    Attributes:
        name: `library:model`, or `FILE.py:FUNCTION` for a network of one's own.
        num_classes: outputs of the classifier; none = the library's default.
        options: further arguments of the library's, or one's own, function.
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
            transformers, or a model type such as `vit` (its default config, no network needed). Or
            `my_net.py:make_net`, a function in a file: the file is run.
        num_classes: outputs of the classifier; none = the library's default. A pretrained classifier
            of another size is replaced by a new one.
        pretrained: load the library's default weights.
        **options: further arguments of the library's own function.

    Raises:
        ValueError: unknown library or model, or options that it does not take.
    """
    if is_own(name):
        return create_own(name, num_classes=num_classes, pretrained=pretrained, **options)
    library, _, model = name.partition(":")
    if library not in _LIBRARIES or not model:
        raise ValueError(
            f"unknown model {name!r}: expected LIBRARY:MODEL with LIBRARY one of {', '.join(_LIBRARIES)}, "
            "such as torchvision:resnet50; or FILE.py:FUNCTION"
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
    # The functions of torchvision's Swins fix this option, which the class has.
    options = dict(options)
    rate = options.pop(RATE, None) if model.startswith("swin_") else None
    if pretrained or num_classes is None:
        created = torchvision.models.get_model(model, weights=weights, **options)
    else:
        created = torchvision.models.get_model(model, weights=weights, num_classes=num_classes, **options)
    if pretrained and num_classes is not None:
        _resize_classifier_(created, model, num_classes)
    if rate is not None:
        _set_stochastic_depth_(created, rate)
    return created


def _set_stochastic_depth_(swin: nn.Module, rate: float) -> None:
    """Let blocks be dropped as `SwinTransformer(stochastic_depth_prob=rate)` does: the first never, the last most."""
    if not 0 <= rate <= 1:
        raise ValueError(f"{RATE}: got {rate}, expected 0 to 1")
    drops: list[Any] = [module for module in swin.modules() if type(module).__name__ == "StochasticDepth"]
    for place, drop in enumerate(drops):
        drop.p = rate * float(place) / (len(drops) - 1)


def _resize_classifier_(created: nn.Module, model: str, num_classes: int) -> None:
    layers = [(path, module) for path, module in created.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"torchvision:{model}: its pretrained classifier has no linear layer to replace")
    path, head = layers[-1]
    if head.out_features != num_classes:
        replace(created, path, nn.Linear(head.in_features, num_classes))


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
    """Find the name and options that make a model of this structure again; none if there are none.

    The candidates are built without memory and compared layer by layer: types, settings, image sizes, and the
    names and shapes of all tensors.
    """
    structure = _structure(model)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for source in _candidates(model):
        try:
            candidate = blueprint(source, shapes)
        except Exception:  # whatever it is: this one cannot be made for such images, say
            continue
        if candidate is not None and _structure(candidate) == structure:
            return source
    return None


def blueprint(source: ModelSource, only: Mapping[str, torch.Size] | None = None) -> nn.Module | None:
    """Make a model without memory for its weights, to look at its structure.

    Args:
        source: which model.
        only: names and shapes of all tensors that the model may have; none is returned, soon, for a model that
            has others or more. This makes looking through many models quick.
    """
    left = Counter((name.rpartition(".")[2], shape) for name, shape in (only or {}).items())

    def accept(name: str, shape: torch.Size) -> bool:
        left[name, shape] -= 1
        return left[name, shape] >= 0 or name == "bias"  # which some layers make and take away again

    try:
        with weightless(accept if only else None):
            return source.create()
    except Unwanted:
        return None
    except NotImplementedError:  # computes buffers where its weights are
        with torch.device("meta"):
            return source.create()


def _structure(model: nn.Module) -> tuple[object, ...]:
    """What has to be equal in two models of one structure.

    Sizes of images are compared by themselves: they stand in no layer's description and may have no tensor.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    sizes = {
        f"{path}.{name}": vars(module)[name]
        for path, module in model.named_modules()
        for name in ("image_size", "img_size", "grid_size")
        if name in vars(module)
    }
    return repr(model), shapes, sizes


def _candidates(model: nn.Module) -> Iterator[ModelSource]:
    module = type(model).__module__
    library = module.partition(".")[0]
    if library == "torchvision":
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        own = [name for name in names if torchvision.models.get_model_builder(name).__module__ == module]
    elif library == "timm":
        configuration = getattr(model, "pretrained_cfg", None) or {}
        own = [configuration["architecture"]] if configuration.get("architecture") else []
    elif library == "pliant":
        # Networks may differ in how many classes are usual alone: the one that they are usual for comes first.
        own = sorted(MODELS, key=lambda name: not _is_usual(name, _num_classes(model)))
    elif library == "transformers":
        yield from _candidates_of_transformers(model)
        return
    else:
        return
    options, rate = image_options(model), _rate_of_stochastic_depth(model)
    if type(model).__module__ == "pliant.models.resnet":
        own = [name for name in own if name.startswith("resnet")]
        options = {"shortcut": vars(model)["shortcut"]}
    for name in own:
        yield ModelSource(name=f"{library}:{name}", num_classes=_num_classes(model))
        if options:
            yield ModelSource(name=f"{library}:{name}", num_classes=_num_classes(model), options=options)
        if rate:
            yield ModelSource(name=f"{library}:{name}", num_classes=_num_classes(model), options=options | rate)
    for name in LIBRARY_CLASSES.get(module, ()):
        yield ModelSource(name=f"pliant:{name}", num_classes=_num_classes(model))


def _is_usual(name: str, num_classes: int | None) -> bool:
    """Whether one of our networks tells so many classes apart where nothing is said."""
    made = MODELS[name]
    return isinstance(made, partial) and made.keywords.get("num_classes") == num_classes


def _candidates_of_transformers(model: nn.Module) -> Iterator[ModelSource]:
    from pliant.hub import PreTrainedModel, options_of

    if isinstance(model, PreTrainedModel):
        yield ModelSource(name=f"transformers:{model.config.model_type}", options=options_of(model))


def _num_classes(model: nn.Module) -> int | None:
    """How many classes a network of torchvision, timm or ours tells apart."""
    if isinstance(vars(model).get("num_classes"), int):
        return vars(model)["num_classes"]
    linear = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def image_options(model: nn.Module) -> dict[str, Any]:
    """Return the option that makes a model for images of its size, where the model knows that."""
    library = type(model).__module__.partition(".")[0]
    children = dict(model.named_children())
    if library == "torchvision" and "image_size" in vars(model):  # ViT
        return {"image_size": vars(model)["image_size"]}
    if type(model).__module__ == "torchvision.models.maxvit":
        # Stem, then first block, halve the image.
        return {"input_size": [4 * side for side in vars(model.get_submodule("blocks.0"))["grid_size"]]}
    if library == "timm" and "patch_embed" in children:
        size = vars(children["patch_embed"]).get("img_size")
        return {"img_size": list(size)} if size else {}
    return {}


def _rate_of_stochastic_depth(model: nn.Module) -> dict[str, Any]:
    """Return the option for it of torchvision's networks in which the last block has the full rate, as in a Swin."""
    rates = [vars(module)["p"] for module in model.modules() if type(module).__name__ == "StochasticDepth"]
    # A product and a quotient of the option: rounded, it is the option itself again.
    return {RATE: round(rates[-1], 12)} if rates and type(model).__module__.startswith("torchvision.") else {}


def usual_image_size(model: nn.Module) -> int | None:
    """Return the image size in pixels that a model was made for, or tokens of a text; none where nobody knows.

    Where it is not written down, torchvision's take 224 pixels, and ours are for CIFAR if they do not say
    `image_size`; of texts 128 tokens are usual.
    """
    for size in image_options(model).values():
        return size if isinstance(size, int) else size[-1]
    written_down = getattr(model, "pretrained_cfg", None)
    if isinstance(written_down, Mapping) and written_down.get("input_size"):
        return written_down["input_size"][-1]
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "transformers" in packages:
        size = getattr(model.config, "image_size", None)
        return (size if isinstance(size, int) else size[-1]) if size else 128
    return 224 if "torchvision" in packages else vars(model).get("image_size", 32) if _is_own(model) else None


def _is_own(model: nn.Module) -> bool:
    return any(base.__module__.startswith("pliant.models.") for base in type(model).__mro__)
