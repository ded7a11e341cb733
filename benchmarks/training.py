"""What one ADN training step costs against two separate networks, in time and in memory.

    python benchmarks/training.py [--rounds 15] [--threads 2]

Time: one step (forward, backward, SGD) of the adaptive network over one step of the super-net plus one step of the
base-net, each trained on its own; medians of interleaved rounds. Memory: the most that tensors hold during a step,
sequential and joint backward, over the super-net's own step. Writes results/training.json.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from provenance import write_result
from timing import timing_arguments

import pliant
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.measure.memory import peak_bytes

CASES = {"pliant:resnet20": (128, 32), "torchvision:resnet18": (16, 112), "torchvision:resnet50": (8, 112)}


def step_of(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, kind: str, bf16: bool
) -> Callable[[], None]:
    """One training step, as a function without arguments."""
    network = network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    objective = None if kind == "alone" else pliant.Objective(network)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if objective is None:
                loss = F.cross_entropy(network(images), labels)
            elif kind == "sequential":
                loss = objective.backward(images, labels)
            else:
                loss = objective(images, labels)
        if kind != "sequential":
            loss.backward()
        optimizer.step()

    return step


def compare(name: str, batch: int, size: int, rounds: int, bf16: bool) -> dict[str, float | int | str]:
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model(name, num_classes=10), pliant.Depth())
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    steps = {
        "super": step_of(pliant.extract(model, "largest"), images, labels, "alone", bf16),
        "base": step_of(pliant.extract(model, "smallest"), images, labels, "alone", bf16),
        "joint": step_of(copy.deepcopy(model), images, labels, "joint", bf16),
        "sequential": step_of(copy.deepcopy(model), images, labels, "sequential", bf16),
    }
    times = interleaved_ms(steps, rounds=rounds, warmup=3)
    ms = {kind: statistics.median(values) for kind, values in times.items()}
    # Ratios round by round: a machine that slows down meanwhile slows numerator and denominator alike.
    alone = [one + other for one, other in zip(times["super"], times["base"], strict=True)]
    ratio = {
        kind: statistics.median(value / sum_ for value, sum_ in zip(times[kind], alone, strict=True))
        for kind in ("joint", "sequential")
    }
    # What lasts from step to step: weights, norm statistics and momentum.
    lasting = sum(t.nbytes for t in model.state_dict().values()) + sum(p.nbytes for p in model.parameters())
    peak = {kind: lasting + peak_bytes(step) for kind, step in steps.items()}
    return {
        "model": name,
        "batch_size": batch,
        "image_size": size,
        "precision": "bf16" if bf16 else "32",
        **{f"{kind}_step_ms": value for kind, value in ms.items()},
        **{f"{kind}_step_over_two_networks": value for kind, value in ratio.items()},
        **{f"{kind}_peak_mb": value / 1e6 for kind, value in peak.items()},
        **{f"{kind}_peak_over_super": peak[kind] / peak["super"] for kind in ("joint", "sequential")},
    }


def main() -> None:
    arguments = timing_arguments(__doc__, rounds=15, out="results/training.json")
    with using_threads(arguments.threads):
        rows = [
            compare(name, batch, size, arguments.rounds, bf16)
            for name, (batch, size) in CASES.items()
            for bf16 in (False, True)
        ]
    for row in rows:
        print(row)
    write_result(arguments.out, {"threads": arguments.threads, "rounds": arguments.rounds, "rows": rows})


if __name__ == "__main__":
    main()
