"""Top-1 and top-5 accuracy of sub-networks on a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pliant.core.inputs import class_logits

if TYPE_CHECKING:
    from torchmetrics import Metric

    from pliant.data import Split

__all__ = ["measure_accuracy"]

TOP5_MIN_CLASSES = 6
"""With fewer classes five guesses are always, or all but always, right."""


@torch.inference_mode()
def measure_accuracy(
    networks: Mapping[str, Callable[[Tensor], Any]],
    split: Split,
    num_classes: int,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_batch: Callable[[int], object] = lambda images: None,
) -> dict[str, dict[str, float]]:
    """Measure the accuracy of several networks in one pass over the split, in its own order.

    An image whose logits hold a NaN counts as answered wrongly.

    Args:
        networks: by name, what turns images `[batch, 3, height, width]` into logits `[batch, classes]`.
        split: what to measure on.
        num_classes: how many classes the data has.
        batch_size: images in one pass.
        device: where the networks are.
        dtype: of the images.
        on_batch: called after each batch with the number of images it had.

    Returns:
        For each network `acc1` in percent and, from six classes on, `acc5`.

    Raises:
        ValueError: the split is empty, or a network has not as many outputs as the data has classes.
    """
    tallies = {name: _Tally(num_classes, device) for name in networks}
    images_seen = 0
    for images, labels in split.batches(batch_size, device=device, dtype=dtype):
        for name, network in networks.items():
            tallies[name].update(class_logits(network(images), num_classes), labels)
        images_seen += len(labels)
        on_batch(len(labels))
    if not images_seen:
        raise ValueError("accuracy cannot be measured: the split has no images")
    return {name: tally.percentages(images_seen) for name, tally in tallies.items()}


class _Tally:
    """Counts right answers of one network."""

    def __init__(self, num_classes: int, device: torch.device | str) -> None:
        from torchmetrics.classification import MulticlassAccuracy

        top_k = {"acc1": 1, "acc5": 5} if num_classes >= TOP5_MIN_CLASSES else {"acc1": 1}
        self._metrics: dict[str, Metric] = {
            key: MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False).to(device)
            for key, k in top_k.items()
        }
        self._answered = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        answered = ~logits.isnan().any(dim=1)
        if not answered.all():
            logits, labels = logits[answered], labels[answered]
        if len(labels):
            for metric in self._metrics.values():
                metric.update(logits.float(), labels)
        self._answered += len(labels)

    def percentages(self, images: int) -> dict[str, float]:
        if not self._answered:
            return dict.fromkeys(self._metrics, 0.0)
        share = 100 * self._answered / images
        return {key: share * metric.compute().item() for key, metric in self._metrics.items()}
