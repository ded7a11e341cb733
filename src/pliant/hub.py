"""Networks of Hugging Face transformers, by name: from the Hub, from a folder, or from a model type alone."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from pliant.core.errors import first_line

__all__ = ["create", "options_of"]


def create(
    name: str,
    *,
    num_classes: int | None = None,
    pretrained: bool = False,
    architecture: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Make a network of transformers.

    Args:
        name: `google/vit-base-patch16-224` (on the Hub or in its cache), a folder, or a model type: `vit`.
        num_classes: labels of the classifier.
        pretrained: load the weights too; a classifier of another size is new.
        architecture: the class, such as `BertForMaskedLM`; none = the config's own, else a classifier, else a
            decoder with its language model head.
        **options: entries of the config to change, such as `num_hidden_layers`.

    Raises:
        ValueError: no such model, class or entry, or no weights for it.
    """
    stored = "/" in name or Path(name).is_dir()
    if num_classes is not None:
        options["num_labels"] = num_classes
    config = _stored_config(name, options) if stored else _default_config(name, options)
    kind = _class_named(architecture, name) if architecture else _usual_class(config, name)
    if not pretrained:
        return kind(config)
    if not stored:
        raise ValueError(f"transformers:{name} is a model type without weights; name a model of the Hub or a folder")
    try:
        return kind.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
    except OSError as error:
        raise ValueError(f"transformers:{name}: {first_line(error)}") from None


def options_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return the options with which `create(model_type, ...)` makes a network of this structure again."""
    config: dict[str, Any] = model.config.to_diff_dict()
    for entry in ("model_type", "transformers_version", "architectures", "dtype", "_name_or_path"):
        config.pop(entry, None)
    # Trainers write further entries into a config, such as `use_cache` into that of a ViT, which makes nothing of it.
    kind: str = model.config.model_type
    known = AutoConfig.for_model(kind) if kind in CONFIG_MAPPING else model.config
    return {"architecture": type(model).__name__} | {
        entry: value for entry, value in config.items() if hasattr(known, entry)
    }


def _default_config(model_type: str, options: dict[str, Any]) -> PreTrainedConfig:
    known = list(CONFIG_MAPPING.keys())
    if model_type not in known:
        near = difflib.get_close_matches(model_type, known, n=3, cutoff=0.5) or known[:3]
        raise ValueError(
            f"unknown model 'transformers:{model_type}': nearest of {len(known)} model types: {', '.join(near)}; "
            "models of the Hub have a slash in their name"
        )
    _check_entries(model_type, AutoConfig.for_model(model_type), options)
    return AutoConfig.for_model(model_type, **options)


def _stored_config(name: str, options: dict[str, Any]) -> PreTrainedConfig:
    try:
        read: Any = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"transformers:{name}: {first_line(error)}") from None
    config, unused = read
    _check_entries(name, config, unused)
    return config


def _check_entries(name: str, config: PreTrainedConfig, options: dict[str, Any]) -> None:
    unknown = [entry for entry in options if not hasattr(config, entry)]
    if unknown:
        raise ValueError(f"transformers:{name}: its config has no entry {unknown[0]!r}")


def _class_named(architecture: str, name: str) -> type[PreTrainedModel]:
    kind = getattr(transformers, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedModel):
        raise ValueError(f"transformers:{name}: architecture={architecture!r} is no model class of transformers")
    return kind


def _usual_class(config: PreTrainedConfig, name: str) -> type[PreTrainedModel]:
    if config.architectures:
        return _class_named(config.architectures[0], name)
    # Encoders of text are pretrained with masks; what is no encoder is a decoder.
    encoder = type(config) in AutoModelForMaskedLM._model_mapping
    for auto in (
        AutoModelForImageClassification,
        AutoModelForSequenceClassification if encoder else AutoModelForCausalLM,
    ):
        mapping: Any = auto._model_mapping
        if type(config) in mapping:
            kind = mapping[type(config)]
            return kind[0] if isinstance(kind, tuple) else kind
    raise ValueError(f"transformers:{name}: no classifier and no language model of this type; give architecture=")
