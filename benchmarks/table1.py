"""The structure of the networks in the ADN paper's Table 1, counted, beside what the paper prints.

    python benchmarks/table1.py

Multiply-accumulates of convolutions, linear layers and attention products at 224 pixels, and active parameters, of the
super-net and of the base-net; the parameters of the adaptive network hold both sets of norms. No weight is needed, so
none is made: everything is counted on PyTorch's meta device. Writes results/table1.json.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from provenance import write_result

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.core.macs import count_gmacs, count_params_m

IMAGE_SIZE = 224

FIGURES = ("super_gmacs", "base_gmacs", "adaptive_params_m", "super_params_m", "base_params_m")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One line of the table; `paper` holds those of `FIGURES` that the paper prints, in their order."""

    title: str
    name: str
    config: pliant.Depth
    paper: tuple[float | None, ...] = (None,) * len(FIGURES)
    note: str = ""


RESNET_50 = Network(
    title="ResNet-50",
    name="torchvision:resnet50",
    config=pliant.Depth(),
    paper=(4.11, 2.58, 25.58, 25.56, 17.11),
    note="The second norms are 26,112 parameters, 0.10 % of the network; the paper says 0.07 %.",
)
MOBILENET: dict[str, Any] = dict(name="torchvision:mobilenet_v2", paper=(0.32, 0.25, 3.72, 3.50, 2.99))
VIT_B_16 = Network(
    title="ViT-B/16",
    name="torchvision:vit_b_16",
    config=pliant.Depth(),
    paper=(17.58, 11.76, 86.59, 86.57, 67.70),
    note="Eight of twelve blocks have 58.22 M parameters; 67.70 M is what is left without four MLPs.",
)
SWIN: dict[str, Any] = dict(name="torchvision:swin_t", paper=(4.49, 2.69, 28.30, 28.29, 15.63))
NETWORKS = (
    RESNET_50,
    Network(title="ResNet-101", name="torchvision:resnet101", config=pliant.Depth()),
    Network(
        title="MobileNetV2, five flags",
        config=pliant.Depth(),
        **MOBILENET,
        note="The released code. The paper counts norms and activations too; its 3.72 M is no count of either variant.",
    ),
    Network(
        title="MobileNetV2, four flags",
        config=pliant.Depth(mandatory=(2, 2, 2, 2, 2)),
        **MOBILENET,
        note="The paper speaks of four stages, and 0.25 G fits this variant with norms and activations counted.",
    ),
    VIT_B_16,
    Network(title="ViT-B/32", name="torchvision:vit_b_32", config=pliant.Depth()),
    Network(
        title="Swin-T [1,1,3,2]",
        config=pliant.Depth(),
        **SWIN,
        note="The paper's 2.69 G is this variant; its 15.63 M fits none.",
    ),
    Network(
        title="Swin-T [1,1,3,1]",
        config=pliant.Depth(mandatory=(1, 1, 3, 1)),
        **SWIN,
        note="The released code, which gives 2.34 G.",
    ),
)


def count(network: Network) -> dict[str, Any]:
    """One row: which blocks always run, and each figure followed by the paper's."""
    with torch.device("meta"):
        model = pliant.adapt_(pliant.create_model(network.name), network.config).eval()
    assert isinstance(model, AdaptiveModule)
    full, base = (pliant.extract(model, subnet, share=True) for subnet in ("largest", "smallest"))
    counted = (
        count_gmacs(full, IMAGE_SIZE),
        count_gmacs(base, IMAGE_SIZE),
        *(count_params_m(part) for part in (model, full, base)),
    )
    stages = zip(model.anatomy.stages, model.space.skippable_blocks, strict=True)
    row: dict[str, Any] = {"network": network.title, "model": network.name, "base_net": str(model.space.smallest)}
    row["mandatory_blocks"] = [len(stage.blocks) - skippable for stage, skippable in stages]
    row["skippable_blocks"] = list(model.space.skippable_blocks)
    for figure, value, printed in zip(FIGURES, counted, network.paper, strict=True):
        row[figure] = round(value, 4)
        if printed is not None:
            row[f"{figure}_paper"] = printed
    return row | ({"note": network.note} if network.note else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/table1.json")
    arguments = parser.parse_args()
    rows = []
    for network in NETWORKS:
        rows.append(count(network))
        print(f"{network.title}: {'-'.join(map(str, rows[-1]['mandatory_blocks']))} blocks always run")
        for figure in FIGURES:
            printed = rows[-1].get(f"{figure}_paper", "-")
            print(f"    {figure:18} {rows[-1][figure]:8.3f}   paper {printed}")
        print(f"    {network.note}" if network.note else "", flush=True)
    write_result(arguments.out, {"image_size": IMAGE_SIZE, "structure": rows})


if __name__ == "__main__":
    main()
