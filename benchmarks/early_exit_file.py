"""Whether the one ONNX file of a policy saves time in ONNX Runtime: half the multiply-accumulates against all of them.

    python benchmarks/early_exit_file.py [--model pliant:msdnet_cifar100_k7] [--rounds 20] [--threads 1]

Speed is measured here and not accuracy; network, images and thresholds are those of `early_exit_speed.py`: random
weights, noise, and a policy that `find_policies` finds for half of what the network's own end costs. Three files answer
all images one by one (batch 1, which is what a file with conditions takes):

- `policy`: the file that stops at the first sure answer;
- `last`: the plain file of the last exit alone, which is what one would ship otherwise;
- `never`: the file of a policy that nobody is ever sure enough for: what the conditions and the other classifiers cost
  an image that goes to the end.

The files take turns; figures are medians over rounds of the mean over images, ratios are taken round by round, because
a machine that slows down meanwhile slows all alike. `export` has compared every path of each file with eager PyTorch
before; here the answers of the first are compared with those of `pliant.predict`. Writes
results/early_exit_file.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import torch
from early_exit_speed import noise, random_network
from provenance import write_result
from torch import Tensor, nn

import pliant
from pliant.create import usual_image_size
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.measure.policies import cumulative_gmacs, find_policies, usual_subnets
from pliant.policy.confidence import ConfidencePolicy

NOBODY = 2.0  # no probability is that large


def write_files(model: nn.Module, policy: ConfidencePolicy, folder: Path) -> dict[str, Path]:
    """Export the three ways of answering."""
    never = dataclasses.replace(policy, thresholds=(*(NOBODY for _ in policy.subnets[1:]), policy.thresholds[-1]))
    return {
        "policy": pliant.export(model, folder / "policy.onnx", policy=policy).path,
        "last": pliant.export(model, folder / "last.onnx", batch=1).path,
        "never": pliant.export(model, folder / "never.onnx", policy=never).path,
    }


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load a file for so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer_all(session: onnxruntime.InferenceSession, images: list[numpy.ndarray]) -> list[Any]:
    """Run a file image by image."""
    return [session.run(None, {"images": image}) for image in images]


def refuse_differences(answers: list[Any], expected: Tensor, places: Tensor) -> None:
    """Assert that the file answers as `pliant.predict` does, with the same exits."""
    assert [int(number[0]) - 1 for _, number in answers] == places.tolist(), "other exits than pliant.predict"
    logits = torch.cat([torch.from_numpy(logits) for logits, _ in answers])
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def compare(files: dict[str, Path], images: list[numpy.ndarray], rounds: int, threads: int) -> dict[str, Any]:
    """Time the files, all images one by one in a round."""
    sessions = {name: open_session(path, threads) for name, path in files.items()}
    runs = {name: (lambda session=session: answer_all(session, images)) for name, session in sessions.items()}
    times = interleaved_ms(runs, rounds=rounds, warmup=1)
    figures: dict[str, Any] = {}
    for name, each in times.items():
        figures[f"{name}_ms"] = round(statistics.median(each) / len(images), 3)
        figures[f"{name}_mb"] = round(files[name].stat().st_size / 1e6, 3)
    for name in ("policy", "never"):
        ratios = [last / own for own, last in zip(times[name], times["last"], strict=True)]
        figures[f"{name}_speedup"] = round(statistics.median(ratios), 3)
        figures[f"{name}_speedup_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pliant:msdnet_cifar100_k7")
    parser.add_argument("--images", type=int, default=256, help="answered one by one in a round")
    parser.add_argument("--held-out", type=int, default=1000, help="images on which thresholds are found")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="results/early_exit_file.json")
    arguments = parser.parse_args()
    model = random_network(arguments.model)
    size = usual_image_size(model) or 32
    images, held_out = noise(arguments.images, 1, size), noise(arguments.held_out, 2, size)
    subnets = usual_subnets(model)
    with using_threads(arguments.threads), torch.inference_mode():
        (last_gmacs,) = cumulative_gmacs(model, subnets[-1:], images[:1])  # alone, as the plain file has it
        labels = torch.arange(len(held_out)) % 2  # which decide nothing
        (policy,) = find_policies(model, held_out, labels, budgets=[last_gmacs / 2], subnets=subnets, batch_size=64)
        logits, places = pliant.predict(model, images, policy)
    counts = torch.bincount(places, minlength=len(subnets)).tolist()
    average = sum(count * cost for count, cost in zip(counts, policy.costs, strict=True)) / len(images)
    one_by_one = [image[None].numpy() for image in images]
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(model, policy, Path(folder))
        refuse_differences(answer_all(open_session(files["policy"], 1), one_by_one), logits, places)
        figures = compare(files, one_by_one, arguments.rounds, arguments.threads)
    circumstances = {"model": arguments.model, "image_size": size, "images": len(images), "threads": arguments.threads}
    circumstances |= {"rounds": arguments.rounds, "seed": 0}
    shares = {subnet: count / len(images) for subnet, count in zip(subnets, counts, strict=True)}
    costs = {"last_gmacs": last_gmacs, "budget_gmacs": policy.budget, "average_gmacs": average, "shares": shares}
    write_result(arguments.out, circumstances | costs | figures)
    print(costs, figures, sep="\n")


if __name__ == "__main__":
    main()
