"""What gradient equilibrium does to gradients: their variance in the first step of a network, over the number of exits.

    python benchmarks/gradient_equilibrium.py --data PATH_OF_CIFAR10 [--batches 8] [--batch-size 128]

IMTA paper, section 3.1: where the losses of k exits are added, the variance of the gradient in the first layers grows
with k; scaled, it stays bounded. An MSDNet with eight exits and random weights sees real images in training mode; the
first k exits learn from the labels, for k = 2, 3, ..., 8. Printed is the variance over all elements of the gradient of
the loss with respect to the coarsest features behind the first step, an average over batches, and relative to k = 2.
(Finer scales do not read those features, so `coarsest` and `all` give the same here.) Writes
results/gradient_equilibrium.json and docs/images/gradient-equilibrium.png.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from provenance import ROOT, write_result
from torch import Tensor, nn

import pliant
from pliant.data import load_data

MODEL = "pliant:msdnet_cifar10_k8"
EXITS = 8
CURVES = {"none": "losses added", "coarsest": "gradient equilibrium"}
IMAGE = ROOT / "docs" / "images" / "gradient-equilibrium.png"


def network(equilibrium: str) -> nn.Module:
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model(MODEL), pliant.Exits(equilibrium=equilibrium)).train()


def variance(model: nn.Module, images: Tensor, labels: Tensor, exits: int) -> float:
    """Variance of the gradient behind the first step, where so many exits learn."""
    seen: list[list[Tensor]] = []
    handle = model.get_submodule("steps.0").register_forward_hook(lambda _module, _inputs, scales: seen.append(scales))
    try:
        answers = model(images, subnet=f"exit={exits}", exits=True)
    finally:
        handle.remove()
    loss = torch.stack([F.cross_entropy(logits, labels) for logits in answers]).sum()
    (gradient,) = torch.autograd.grad(loss, seen[0][-1])
    return gradient.var().item()


def measured(batches: Sequence[tuple[Tensor, Tensor]]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [{"exits": exits} for exits in range(2, EXITS + 1)]
    for equilibrium in CURVES:
        model = network(equilibrium)
        for row in rows:
            values = [variance(model, images, labels, int(row["exits"])) for images, labels in batches]
            row[equilibrium] = statistics.fmean(values)
        first = rows[0][equilibrium]
        for row in rows:
            row[f"{equilibrium}_relative"] = round(row[equilibrium] / first, 4)
    return rows


def draw(rows: Sequence[Mapping[str, float]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for name, label in CURVES.items():
        axes.plot([row["exits"] for row in rows], [row[f"{name}_relative"] for row in rows], marker="o", label=label)
    axes.set(xlabel="exits that learn", ylabel="variance of the gradient\n(two exits = 1)", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(IMAGE, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="folder or archive of class folders, or a data set's name")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", default="results/gradient_equilibrium.json")
    arguments = parser.parse_args()
    data = load_data(arguments.data, image_size=32, seed=0)
    every = data.train.batches(arguments.batch_size, shuffle=True)
    rows = measured(list(islice(every, arguments.batches)))
    print(*rows, sep="\n")
    figures = {"model": MODEL, "data": data.name, "batches": arguments.batches, "batch_size": arguments.batch_size}
    write_result(arguments.out, {**figures, "seed": 0, "rows": rows})
    draw(rows)


if __name__ == "__main__":
    main()
