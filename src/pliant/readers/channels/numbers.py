"""Numbers that modules wrote down of their channels, and with which they compute: tables by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from pliant.readers.channels.labels import Dimension, product, regroup

__all__ = ["agreements_of", "numbers_of"]

Labels = Callable[[Tensor], list[Dimension]]

# Attribute -> the tensor and the dimension of it that the number counts: all of it, or the outer labels alone (heads).
Follows = dict[str, tuple[str, int]]

TORCH: dict[type[nn.Module], Follows] = {
    nn.Linear: {"in_features": ("weight", 1), "out_features": ("weight", 0)},
    _NormBase: {"num_features": ("weight", 0)},
    nn.LayerNorm: {"normalized_shape": ("weight", 0)},
    nn.RMSNorm: {"normalized_shape": ("weight", 0)},
    nn.GroupNorm: {"num_channels": ("weight", 0), "num_groups": ("weight", 0)},
    nn.Embedding: {"embedding_dim": ("weight", 1)},
    nn.PReLU: {"num_parameters": ("weight", 0)},
    nn.MultiheadAttention: {
        "embed_dim": ("out_proj.weight", 0),
        "num_heads": ("out_proj.weight", 1),
        "kdim": ("k_proj_weight", 1),
        "vdim": ("v_proj_weight", 1),
    },
}

# Classes of libraries by package (or module) and name: no library is imported for a model that is not from it.
LIBRARIES: dict[tuple[str, str], Follows] = {
    ("torchvision", "VisionTransformer"): {"hidden_dim": ("conv_proj.weight", 0)},
    ("torchvision", "ShiftedWindowAttention"): {"num_heads": ("proj.weight", 1)},
    ("torchvision", "RelativePositionalMultiHeadAttention"): {"n_heads": ("merge.weight", 1)},
    ("timm", "Attention"): {"num_heads": ("proj.weight", 1), "attn_dim": ("proj.weight", 1)},
    ("timm", "EvaAttention"): {"num_heads": ("proj.weight", 1)},
    ("timm", "WindowAttention"): {"num_heads": ("proj.weight", 1), "dim": ("proj.weight", 0)},
    ("transformers", "ViTAttention"): {"num_attention_heads": ("o_proj.weight", 1)},
    ("transformers", "DeiTAttention"): {"num_attention_heads": ("o_proj.weight", 1)},
}

# Attentions that take the number of channels of a head from the width of the stream: both shrink together. Dimensions 0
# and 1 of a weight; nothing of that where a module has the attribute in which newer versions keep the number.
AGREE: dict[tuple[str, str], tuple[str, str]] = {
    ("torch.nn", "MultiheadAttention"): ("out_proj.weight", ""),
    ("timm", "Attention"): ("proj.weight", "attn_dim"),
    ("timm", "EvaAttention"): ("proj.weight", ""),
    ("timm.models.swin_transformer_v2", "WindowAttention"): ("proj.weight", ""),
    ("torchvision", "ShiftedWindowAttention"): ("proj.weight", ""),
    ("torchvision", "RelativePositionalMultiHeadAttention"): ("merge.weight", ""),
}


def _of_classes(module: nn.Module, names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those of the names that are a class of a module."""
    classes = [(f"{base.__module__}.", base.__name__) for base in type(module).__mro__]
    return [name for name in names if any(at.startswith(f"{name[0]}.") and name[1] == kind for at, kind in classes)]


def agreements_of(module: nn.Module, labels: Labels) -> list[tuple[Dimension, Dimension]]:
    """Return the dimensions that must agree because of how a module's forward computes."""
    found = []
    for name in _of_classes(module, AGREE):
        path, attribute = AGREE[name]
        tensor = _tensor(module, path)
        if tensor is not None and tensor.shape[0] == tensor.shape[1] and attribute not in vars(module):
            found.append((labels(tensor)[0], labels(tensor)[1]))
    return found


def numbers_of(module: nn.Module, labels: Labels) -> dict[str, Dimension | None]:
    """Return what the numbers of a module count; none for one that counts something else than it should.

    Args:
        module: any.
        labels: tells the dimensions of a tensor.
    """
    if isinstance(module, _ConvNd):
        return _of_convolution(module, labels)
    tables = [follows for kind, follows in TORCH.items() if isinstance(module, kind)]
    tables += [LIBRARIES[name] for name in _of_classes(module, LIBRARIES)]
    found: dict[str, Dimension | None] = {}
    for attribute, (path, dim) in [item for table in tables for item in table.items()]:
        tensor, value = _tensor(module, path), getattr(module, attribute, None)
        if tensor is None and attribute in ("kdim", "vdim"):  # one weight for queries, keys and values
            tensor, dim = _tensor(module, "out_proj.weight"), 0
        if tensor is None or value is None:
            continue
        found[attribute] = _counted(labels(tensor)[dim], value)
    return found


def _of_convolution(module: _ConvNd, labels: Labels) -> dict[str, Dimension | None]:
    """A grouped convolution has a weight for the inputs of one group alone."""
    weight = _tensor(module, "weight")
    if weight is None:
        return {}
    outer, inner = labels(weight)[:2]
    groups = _counted(outer, module.groups)
    all_inner = None if groups is None else (*groups, *inner)
    given, taken = (all_inner, outer) if module.transposed else (outer, all_inner)
    return {"groups": groups, "in_channels": taken, "out_channels": given}


def _tensor(module: nn.Module, path: str) -> Tensor | None:
    """Return a parameter by path; none where a module has none, or computes it, as weight norm does."""
    *parents, name = path.split(".")
    for parent in parents:
        module = getattr(module, parent, module)
    return module._parameters.get(name)


def _counted(dimension: Dimension, value: int | tuple[int, ...]) -> Dimension | None:
    """Return the outer labels of a dimension of which there are `value`; none where they cannot be told apart."""
    if isinstance(value, tuple):
        if len(value) != 1:
            return None
        value = value[0]
    size = product(dimension)
    if value < 1 or size % value:
        return None
    return regroup([dimension], (value, size // value))[0]
