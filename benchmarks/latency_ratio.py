"""Whether what a sub-network saves in multiply-accumulates is saved in time: the four networks of the paper's Table 1.

    python benchmarks/latency_ratio.py [--rounds 60] [--threads 2]

On the CPU, batch 1, 224 pixels: latency of the base-net over the super-net, both extracted, beside the same ratio of
MACs (limit: 1.10 times), and each of the two over the same network built by its library (limit: 1.02). `again` is a
second copy of the network built by hand: how far it is from 1 is the error. Figures are medians over interleaved
rounds; ratios are taken round by round, because a machine that slows down meanwhile slows all alike.
Writes results/latency_ratio.json.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from provenance import write_result
from timing import median_ratio, timing_arguments
from torch import nn
from torchvision.models import MobileNetV2, ResNet, SwinTransformer, VisionTransformer
from torchvision.models.resnet import Bottleneck

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.core.macs import count_gmacs
from pliant.measure.latency import interleaved_ms, using_threads

IMAGE_SIZE = 224
LIMITS = {"latency_over_macs": 1.10, "extracted_over_hand": 1.02}


def mobilenet_v2(blocks: Sequence[int]) -> nn.Module:
    middle = zip((24, 32, 64, 96, 160), blocks, (2, 2, 2, 1, 2), strict=True)
    setting = [[1, 16, 1, 1], *([6, width, number, stride] for width, number, stride in middle), [6, 320, 1, 1]]
    return MobileNetV2(inverted_residual_setting=setting)


def vit_b_16(blocks: Sequence[int]) -> nn.Module:
    return VisionTransformer(IMAGE_SIZE, 16, sum(blocks), num_heads=12, hidden_dim=768, mlp_dim=3072)


def swin_t(blocks: Sequence[int]) -> nn.Module:
    return SwinTransformer([4, 4], 96, list(blocks), [3, 6, 12, 24], [7, 7], stochastic_depth_prob=0.2)


# For each model how its library builds it with so many blocks a stage, and the ratios (base-net over super-net) of
# MACs and of latency, which the paper measured on a Jetson Orin Nano.
NETWORKS: dict[str, tuple[Callable[[Sequence[int]], nn.Module], float, float]] = {
    "torchvision:resnet50": (lambda blocks: ResNet(Bottleneck, list(blocks)), 2.58 / 4.11, 27.6 / 43.2),
    "torchvision:mobilenet_v2": (mobilenet_v2, 0.25 / 0.32, 13.2 / 15.5),
    "torchvision:vit_b_16": (vit_b_16, 11.76 / 17.58, 90.7 / 138.6),
    "torchvision:swin_t": (swin_t, 2.69 / 4.49, 39.9 / 74.4),
}


def networks(name: str) -> dict[str, dict[str, nn.Module]]:
    """For super-net and base-net: extracted, built by hand, and by hand once more; same values, own tensors."""
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model(name), pliant.Depth()).eval()
    assert isinstance(model, AdaptiveModule)
    lengths = [len(stage.blocks) for stage in model.anatomy.stages]
    kept = [length - skipped for length, skipped in zip(lengths, model.space.skippable_blocks, strict=True)]
    made: dict[str, dict[str, nn.Module]] = {}
    for size, subnet, blocks in (("super", "largest", lengths), ("base", "smallest", kept)):
        extracted = pliant.extract(model, subnet)
        by_hand = NETWORKS[name][0](blocks).eval()
        by_hand.load_state_dict(extracted.state_dict())
        made[size] = {"extracted": extracted, "hand": by_hand, "again": copy.deepcopy(by_hand)}
    return made


def compare(name: str, rounds: int) -> dict[str, Any]:
    made = networks(name)
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    calls: dict[str, Callable[[], Any]] = {}
    for size, kinds in made.items():
        expected = kinds["hand"](images)
        assert all(torch.equal(network(images), expected) for network in kinds.values()), "not the same network"
        calls |= {f"{size} {kind}": partial(network, images) for kind, network in kinds.items()}
    times = interleaved_ms(calls, rounds=rounds, warmup=5)

    ratio = partial(median_ratio, times)

    gmacs = {size: count_gmacs(kinds["extracted"], IMAGE_SIZE) for size, kinds in made.items()}
    macs_ratio, latency_ratio = gmacs["base"] / gmacs["super"], ratio("base extracted", "super extracted")
    _, paper_macs, paper_latency = NETWORKS[name]
    row: dict[str, Any] = {"model": name}
    row |= {f"{size}_ms": statistics.median(times[f"{size} extracted"]) for size in made}
    row |= {"latency_ratio": latency_ratio, "macs_ratio": macs_ratio, "latency_over_macs": latency_ratio / macs_ratio}
    row |= {"paper_latency_ratio": paper_latency, "paper_macs_ratio": paper_macs}
    for kind in ("extracted", "again"):
        row |= {f"{size}_{kind}_over_hand": ratio(f"{size} {kind}", f"{size} hand") for size in made}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    arguments = timing_arguments(__doc__, rounds=60, out="results/latency_ratio.json")
    rows = []
    with using_threads(arguments.threads), torch.inference_mode():
        for name in NETWORKS:
            rows.append(compare(name, arguments.rounds))
            print(rows[-1], flush=True)
    figures = {"batch_size": 1, "image_size": IMAGE_SIZE, "threads": arguments.threads, "rounds": arguments.rounds}
    write_result(arguments.out, {**figures, "seed": 0, "limits": LIMITS, "rows": rows})


if __name__ == "__main__":
    main()
