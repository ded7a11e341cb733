"""What width saves in time, beside what depth saves; what switching costs; and a step of the sandwich.

    python benchmarks/width.py [--rounds 40] [--threads 2]

ResNet-50 at 224 pixels, batch 1, on the CPU. `latencies`: every width and every depth as an extracted network, against
the whole one, and the same sub-network through `model(x, subnet=...)` over the extracted one (limit 1.05). The curve of
latency over multiply-accumulates is drawn into docs/images/width-and-depth.png: Figure 5 of the ADN paper for this
machine. `steps`: a training step of the sandwich (the whole network, two drawn ones, the smallest) over the sum of the
same four passes as plain networks, each with its own forward, backward and optimizer step (limit 1.05), for two batch
sizes.

Figures are medians over interleaved rounds; ratios are taken round by round, because a machine that slows down
meanwhile slows all alike. Writes results/width.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from provenance import ROOT, write_result
from timing import median_ratio, timing_arguments
from torch import Tensor, nn

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.core.macs import count_gmacs
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.plans import build_plan

NAME, IMAGE_SIZE = "torchvision:resnet50", 224
CHOICES = (0.25, 0.5, 0.75, 1.0)
DEPTHS = ("TTTT", "TTTF", "TTFF", "TFFF")
STEP_BATCHES, STEP_SIZE = (8, 32), 112
LIMITS = {"speedup_at_half": 2.0, "switched_over_extracted": 1.05, "sandwich_over_passes": 1.05}
IMAGE = ROOT / "docs" / "images" / "width-and-depth.png"


def adapted(config: Any) -> AdaptiveModule:
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model(NAME), config).eval()
    assert isinstance(model, AdaptiveModule)
    return model


def latencies(rounds: int) -> list[dict[str, Any]]:
    """Time all widths and depths in one run."""
    widths, depths = adapted(pliant.Width(choices=CHOICES)), adapted(pliant.Depth())
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    networks = {f"width={width}": pliant.extract(widths, f"width={width}") for width in CHOICES}
    networks |= {f"depth={depth}": pliant.extract(depths, depth) for depth in DEPTHS}
    calls: dict[str, Callable[[], Any]] = {name: partial(network, images) for name, network in networks.items()}
    times = interleaved_ms(calls, rounds=rounds, warmup=3)
    rows = []
    for name, network in networks.items():
        row: dict[str, Any] = {"subnet": name, "gmacs": count_gmacs(network, IMAGE_SIZE)}
        row |= {"latency_ms": statistics.median(times[name]), "speedup": median_ratio(times, "width=1.0", name)}
        model = widths if name.startswith("width") else depths
        row["switched_over_extracted"] = switched(model, name, network, images, rounds)
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def switched(model: nn.Module, subnet: str, network: nn.Module, images: Tensor, rounds: int) -> float:
    """Time two at a time, each with weights of its own, so that no third one empties their cache."""
    calls = {"switched": partial(model, images, subnet=subnet), "extracted": partial(network, images)}
    torch.testing.assert_close(calls["switched"](), calls["extracted"]())
    return median_ratio(interleaved_ms(calls, rounds=rounds, warmup=3), "switched", "extracted")


def step(batch: int, rounds: int) -> dict[str, Any]:
    """Time a step of the sandwich, its drawn widths fixed, and its four passes as plain networks."""
    model = adapted(pliant.Width(choices=CHOICES))
    plan = build_plan("sandwich", model.space)
    plan = plan.drawn(dict(zip(plan.random, ("width=0.5", "width=0.75"), strict=True)))
    images = torch.rand(batch, 3, STEP_SIZE, STEP_SIZE)
    labels = torch.randint(0, 10, (batch,))
    plain = {f"width={width}": pliant.extract(model, f"width={width}").train() for width in CHOICES}
    calls = {
        name: training_step(network, partial(plain_loss, network, images, labels)) for name, network in plain.items()
    }
    calls["sandwich"] = training_step(model.train(), partial(pliant.Objective(model, plan), images, labels))
    times = interleaved_ms(calls, rounds=rounds, warmup=2)
    sums = [sum(one) for one in zip(*(times[name] for name in plain), strict=True)]
    over = statistics.median(one / all_ for one, all_ in zip(times["sandwich"], sums, strict=True))
    return {
        "batch_size": batch,
        "image_size": STEP_SIZE,
        "sandwich_ms": round(statistics.median(times["sandwich"]), 1),
        "passes_ms": round(statistics.median(sums), 1),
        "sandwich_over_passes": round(over, 4),
    }


def plain_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(network(images), labels)


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def draw(rows: Sequence[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    whole = next(row for row in rows if row["subnet"] == "width=1.0")
    for axis, marker in (("width", "o"), ("depth", "s")):
        own = [row for row in rows if row["subnet"].startswith(axis)]
        own = sorted([*own, whole] if whole not in own else own, key=lambda row: row["gmacs"])
        axes.plot([row["gmacs"] for row in own], [row["latency_ms"] for row in own], marker=marker, label=axis)
        for row in own:
            text = row["subnet"].partition("=")[2]
            axes.annotate(text, (row["gmacs"], row["latency_ms"]), (4, -10), textcoords="offset points", fontsize=8)
    top = whole["gmacs"], whole["latency_ms"]
    axes.plot([0, top[0]], [0, top[1]], color="gray", linewidth=0.8, linestyle=":", label="as the computation falls")
    axes.set_xlabel("10$^9$ multiply-accumulates of an image")
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=150)


def main() -> None:
    arguments = timing_arguments(__doc__, rounds=40, out="results/width.json")
    with using_threads(arguments.threads):
        with torch.no_grad():
            rows = latencies(arguments.rounds)
        steps = [step(batch, max(1, arguments.rounds // 4)) for batch in STEP_BATCHES]
    for row in [*rows, *steps]:
        print(row)
    figures = {"model": NAME, "batch_size": 1, "image_size": IMAGE_SIZE, "threads": arguments.threads}
    document = {**figures, "rounds": arguments.rounds, "seed": 0, "limits": LIMITS, "latencies": rows, "steps": steps}
    write_result(arguments.out, document)
    draw(rows)


if __name__ == "__main__":
    main()
