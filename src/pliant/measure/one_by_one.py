"""What measuring on single test images needs: refusals, batches that tell how far they are, and latency."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.modes import evaluating
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.measure.timing import Progress
from pliant.policy.percentiles import summarise_ms

if TYPE_CHECKING:
    from pliant.data import ImageData, Split

__all__ = ["Batches", "batches_of", "refuse_conditions", "refuse_other_classes", "time_one_by_one"]

Batches = Iterable[tuple[Tensor, Tensor]]


def refuse_conditions(*, rounds: int, warmup: int, threads: int | None) -> None:
    """Refuse numbers that cannot be before anything is measured: minutes may lie between.

    Raises:
        ValueError: names the number and what is allowed.
    """
    for option, value, least in (("rounds", rounds, 0), ("warmup", warmup, 0), ("threads", threads, 1)):
        if value is not None and value < least:
            raise ValueError(f"{option}={value}: allowed are whole numbers from {least} on")


def refuse_other_classes(model: nn.Module, data: ImageData) -> None:
    """Refuse data whose classes the network does not tell apart.

    Raises:
        ValueError: says how many there are of each.
    """
    outputs = model.anatomy.num_classes if isinstance(model, AdaptiveModule) else 0
    if outputs and outputs != len(data.class_names):
        raise ValueError(f"the network has {outputs} outputs, but the data has {len(data.class_names)} classes")


def batches_of(model: nn.Module, split: Split, batch_size: int, what: str, on_progress: Progress) -> Batches:
    """Yield images and labels as the model takes them, and tell how many are done after each batch."""
    parameter, done = next(model.parameters()), 0
    for images, labels in split.batches(batch_size, device=parameter.device, dtype=parameter.dtype):
        yield images, labels
        done += len(labels)
        on_progress(what, done, len(split))


def time_one_by_one(
    model: nn.Module,
    callables: Mapping[str, Callable[[Tensor], object]],
    split: Split,
    *,
    threads: int | None,
    rounds: int,
    warmup: int,
    on_progress: Progress,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Time callables on the same images, one image a round: easy and hard ones take their turns.

    Args:
        model: whose device and type the images have; in eval mode meanwhile.
        callables: by name, what takes one image `[1, ...]`; without gradients.
        split: from all over which the images are taken.
        threads: CPU threads; none = as many as PyTorch uses now.
        rounds: how many images, at most all.
        warmup: images before that, not recorded.
        on_progress: called after each image.

    Returns:
        For each name `latency_ms_mean` and what `pliant.policy.percentiles.summarise_ms` returns; and `threads` and
        `rounds`.
    """
    chosen = torch.linspace(0, len(split) - 1, min(rounds, len(split))).long()
    parameter = next(model.parameters())
    images = [x for x, _ in split.subset(chosen).batches(1, device=parameter.device, dtype=parameter.dtype)]

    def timed(call: Callable[[Tensor], object]) -> Callable[[], object]:
        turn = cycle(images[-warmup % len(images) :] + images[: -warmup % len(images)])
        return lambda: call(next(turn))

    with using_threads(threads) as used, evaluating(model), torch.no_grad():
        times = interleaved_ms(
            {name: timed(call) for name, call in callables.items()},
            rounds=len(images),
            warmup=warmup,
            device=parameter.device,
            on_round=lambda done: on_progress("latency", done, len(images) + warmup),
        )
    summaries = {name: {"latency_ms_mean": statistics.fmean(each)} | summarise_ms(each) for name, each in times.items()}
    return summaries, {"threads": used, "rounds": len(images)}
