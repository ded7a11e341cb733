"""What a change costs: this checkout against an earlier commit, in one run.

    python benchmarks/against.py COMMIT [--rounds 60] [--threads 2]

Two processes wait, one for each version, and are asked in turns, in a random order, so that a machine that slows down
slows both alike. Each round times one call of everything; ratios are medians of new over old, round by round. `again`
is the earlier version in a third process: how far it is from 1 is the error. Writes results/against.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from provenance import ROOT, write_result
from timing import timing_parser

# Run by both versions: what it needs must be in both.
WORKER = """
import gc, json, sys, tempfile, time
import torch, pliant

threads, asked = int(sys.argv[1]), sys.stdin
torch.set_num_threads(threads)


def adapted(name):
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model(name), pliant.Depth()).eval()


def timed(call):
    gc.disable()
    start = time.perf_counter()
    call()
    took = 1000 * (time.perf_counter() - start)
    gc.enable()
    return took


small, large = adapted("pliant:resnet20"), adapted("torchvision:resnet50")
x_small, x_large = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 224, 224)
folder = tempfile.mkdtemp()
objective = pliant.Objective(adapted("pliant:resnet20").train())
batch, labels = torch.rand(32, 3, 32, 32), torch.arange(32) % 10


def without_gradients(call, times=1):
    def run():
        with torch.no_grad():
            for _ in range(times):
                call()
    return run


calls = {
    "ResNet-20, model(x, subnet='FFF'), 30 times": without_gradients(lambda: small(x_small, subnet="FFF"), 30),
    "ResNet-20, model(x, subnet='TTT'), 30 times": without_gradients(lambda: small(x_small, subnet="TTT"), 30),
    "ResNet-50, model(x, subnet='FFFF')": without_gradients(lambda: large(x_large, subnet="FFFF")),
    "ResNet-50, model(x, subnet='TTTT')": without_gradients(lambda: large(x_large, subnet="TTTT")),
    "ResNet-50, extract": lambda: pliant.extract(large, "TTTT"),
    "ResNet-50, save(verify=False)": lambda: pliant.save(large, folder, **UNVERIFIED),
    "ResNet-20, a training step of 32 images": lambda: objective.backward(batch, labels),
}
UNVERIFIED = {"verify": False} if "verify" in pliant.save.__code__.co_varnames else {}
for call in calls.values():
    for _ in range(3):
        call()
print("ready", flush=True)
for line in asked:
    print(json.dumps(timed(calls[json.loads(line)])), flush=True)
"""
NAMES = (
    "ResNet-20, model(x, subnet='FFF'), 30 times",
    "ResNet-20, model(x, subnet='TTT'), 30 times",
    "ResNet-50, model(x, subnet='FFFF')",
    "ResNet-50, model(x, subnet='TTTT')",
    "ResNet-50, extract",
    "ResNet-50, save(verify=False)",
    "ResNet-20, a training step of 32 images",
)


class Worker:
    """A process with one version of pliant."""

    def __init__(self, source: Path, threads: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._ask, self._answer = self._process.stdin, self._process.stdout
        if self._answer.readline().strip() != "ready":
            raise RuntimeError(f"the version in {source} does not run")

    def time_ms(self, name: str) -> float:
        """Let the process time one call, while the others wait."""
        self._ask.write(json.dumps(name) + "\n")
        self._ask.flush()
        return float(json.loads(self._answer.readline()))

    def close(self) -> None:
        self._ask.close()
        self._process.wait()


def arguments() -> argparse.Namespace:
    parser = timing_parser(__doc__, rounds=60, out="results/against.json")
    parser.add_argument("commit")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in NAMES}
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", given.commit, "src"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        earlier = Path(folder) / "src"
        workers = {
            name: Worker(source, given.threads)
            for name, source in {"new": ROOT / "src", "old": earlier, "again": earlier}.items()
        }
        for _ in range(given.rounds):
            for name in NAMES:
                for version in order.sample(sorted(workers), len(workers)):
                    times[name][version].append(workers[version].time_ms(name))
        for worker in workers.values():
            worker.close()
    rows: list[dict[str, Any]] = []
    for name, of in times.items():
        ratios = {
            version: statistics.median(new / old for new, old in zip(of[version], of["old"], strict=True))
            for version in ("new", "again")
        }
        rows.append({"what": name, "old_ms": statistics.median(of["old"]), "new_ms": statistics.median(of["new"])})
        rows[-1] |= {"new_over_old": ratios["new"], "again_over_old": ratios["again"]}
        print(f"{name}: {ratios['new']:.3f} (again {ratios['again']:.3f})", flush=True)
    write_result(given.out, {"against": given.commit, "rounds": given.rounds, "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
