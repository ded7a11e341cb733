"""Whether a budget that was promised is kept: ResNet-50 in all depths, random weights, random budgets.

    python benchmarks/pick.py [--rounds 100] [--threads 2] [--budgets 20] [--image-size 224]

On the CPU, batch 1. All sub-networks are measured once. For the median and for the 95th percentile, budgets are drawn
between what the fastest and the slowest sub-network is promised to take (their upper bounds). For each of them
`table.pick(slo_ms=..., percentile=...)` chooses; more multiply-accumulates are better, since random weights have no
accuracy. Then the chosen sub-network and all better ones are timed again, interleaved, and with them the smallest,
which tells whether the machine itself has become slower or faster meanwhile (`speed`, 1.1 = it takes a tenth longer):

- `met`: the chosen one kept to the budget (limit: 19 of 20);
- `met_at_equal_speed`: it did, had the machine stayed as it was;
- `missed`: the better ones that would have kept to it by more than 3 %, at equal speed (limit: none).

Writes results/pick.json.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from networks import adapted
from provenance import write_result
from timing import timing_parser

import pliant
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.policy.percentiles import bound_key, percentile_key, summarise_ms

MODEL = "torchvision:resnet50"
PERCENTILES = (50, 95)
LIMITS = {"met_share": 0.95, "missed_by": 0.03}
Calls = dict[str, Callable[[], Any]]


def compare(table: pliant.Table, calls: Calls, percentile: int, budget_ms: float, rounds: int) -> dict[str, Any]:
    chosen = table.pick(slo_ms=budget_ms, percentile=percentile)
    better = [row["subnet"] for row in table.rows if row["gmacs"] > chosen["gmacs"]]
    smallest = table.rows[0]
    names = {smallest["subnet"], chosen["subnet"], *better}
    again = interleaved_ms({name: calls[name] for name in sorted(names)}, rounds=rounds, warmup=3)
    took_ms = {name: summarise_ms(times)[percentile_key(percentile)] for name, times in again.items()}
    speed = summarise_ms(again[smallest["subnet"]])["latency_ms"] / smallest["latency_ms"]
    return {
        "percentile": percentile,
        "budget_ms": round(budget_ms, 3),
        "subnet": chosen["subnet"],
        "promised_ms": round(chosen[bound_key(percentile)], 3),
        "took_ms": round(took_ms[chosen["subnet"]], 3),
        "speed": round(speed, 4),
        "met": took_ms[chosen["subnet"]] <= budget_ms,
        "met_at_equal_speed": took_ms[chosen["subnet"]] <= budget_ms * speed,
        "missed": [name for name in better if took_ms[name] < (1 - LIMITS["missed_by"]) * budget_ms * speed],
    }


def main() -> None:
    parser = timing_parser(__doc__, rounds=100, out="results/pick.json")
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args()
    rounds, threads, size = arguments.rounds, arguments.threads, arguments.image_size
    model = adapted(MODEL, pliant.Depth(), size)
    table = pliant.measure(model, image_size=size, threads=threads, rounds=rounds, memory=False, energy=False)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    calls: Calls = {str(one): partial(pliant.extract(model, one, share=True), images) for one in model.subnets}
    draw, rows = random.Random(0), []
    with using_threads(threads), torch.inference_mode():
        for percentile in PERCENTILES:
            promised = [row[bound_key(percentile)] for row in table.rows]
            for _ in range(arguments.budgets):
                rows.append(compare(table, calls, percentile, draw.uniform(min(promised), max(promised)), rounds))
                print(rows[-1], flush=True)
    figures = {"model": MODEL, "batch_size": 1, "image_size": size, "threads": threads, "rounds": rounds, "seed": 0}
    totals = [
        {
            "percentile": percentile,
            "budgets": arguments.budgets,
            "met": sum(row["met"] for row in rows if row["percentile"] == percentile),
            "met_at_equal_speed": sum(row["met_at_equal_speed"] for row in rows if row["percentile"] == percentile),
            "missed": sum(bool(row["missed"]) for row in rows if row["percentile"] == percentile),
        }
        for percentile in PERCENTILES
    ]
    write_result(arguments.out, {**figures, "limits": LIMITS, "promises": totals, "rows": rows, "table": table.rows})


if __name__ == "__main__":
    main()
