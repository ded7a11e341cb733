"""What a model takes: like the example that it was adapted with, else what its first layer says."""

from __future__ import annotations

from typing import Any

from torch import nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import InputSpec, input_spec, spec_of_example

__all__ = ["inputs_of"]


def inputs_of(
    model: nn.Module, *, image_size: int | None = None, example: Any = None, usual: int | None = None
) -> InputSpec | None:
    """Return what a model takes; none where nobody says it.

    Args:
        model: adaptive or plain.
        image_size: height and width of the images in pixels, or the number of tokens of texts; none = of the example.
        example: one input, as for `adapt_`, or what is known of one; none = that of `adapt_`.
        usual: the image size of a model without an example.

    Raises:
        ValueError: an image size that is not a positive whole number, or of a model that takes something else.
    """
    if image_size is not None and (not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1):
        raise ValueError(f"image_size: got {image_size!r}, expected a whole number of at least 1")
    if example is None and isinstance(model, AdaptiveModule) and model.example_spec is not None:
        example = InputSpec(model.example_spec)
    if example is not None:
        inputs = example if isinstance(example, InputSpec) else InputSpec(spec_of_example(example))
        return inputs if image_size is None else inputs.of_size(image_size)
    size = usual if image_size is None else image_size
    return None if size is None else input_spec(model, size)
