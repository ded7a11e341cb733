"""Whether early exits save time: a policy for half the multiply-accumulates against always running to the last exit.

    python benchmarks/early_exit_speed.py [--model pliant:msdnet_cifar100_k7] [--rounds 20] [--threads 2]

Speed is measured here and not accuracy. The network, an MSDNet, has random weights, the images are noise of varying
strength, and so its answers mean nothing; its confidences differ from image to image, which is all that thresholds
need. They are found on some images by `find_policies`, for an average of half of what `model(x)` computes, so that the
budget forces the shares of the exits, and tried on others. In a trained network the shares are those that images
deserve, and the time is what the shares make it.

Timed is `pliant.predict` against `model(x)`, which runs no classifier but the last: image by image (batch 1, the mean
over all test images, one after the other), and all of them as one batch. The two take turns; figures are medians over
rounds, ratios are taken round by round, because a machine that slows down meanwhile slows both alike. Before that the
answers are compared with those of the slow path, which computes every exit for every image and chooses afterwards.
Writes results/early_exit_speed.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from provenance import write_result
from torch import Tensor, nn

import pliant
from pliant.create import usual_image_size
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.measure.policies import cumulative_gmacs, find_policies, usual_subnets
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.runner import all_logits

LIMIT = 1.6


def noise(count: int, seed: int, size: int) -> Tensor:
    """Images `[count, 3, size, size]`: fine and coarse noise, mixed and scaled differently in each."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(count, 3, size, size, generator=generator)
    coarse = nn.functional.interpolate(torch.randn(count, 3, 4, 4, generator=generator), size=size, mode="bilinear")
    share, scale = torch.rand(2, count, 1, 1, 1, generator=generator)
    return (share * fine + (1 - share) * coarse) * (0.2 + 2 * scale)


def random_network(name: str) -> nn.Module:
    """The network, with norm statistics of noise, as those of training are of images, and answers that differ."""
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model(name), pliant.Exits())
    model.train()
    with torch.no_grad():
        for seed in range(20):
            model(noise(16, 100 + seed, usual_image_size(model) or 32), exits=True)
        for path, module in model.named_modules():
            if path.endswith("exit.linear"):
                module.get_parameter("weight").mul_(10)
    return model.eval()


def refuse_differences(model: nn.Module, images: Tensor, policy: ConfidencePolicy) -> None:
    """Assert that every image is answered as the slow path answers it, as a batch and alone."""
    expected, expected_places = policy.apply(all_logits(model, images, policy.subnets))
    answers = {
        "batch": pliant.predict(model, images, policy),
        "alone": tuple(map(torch.cat, zip(*(pliant.predict(model, x[None], policy) for x in images), strict=True))),
    }
    for way, (logits, places) in answers.items():
        assert torch.equal(places, expected_places), f"{way}: other exits than the slow path"
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def compare(model: nn.Module, images: Tensor, policy: ConfidencePolicy, rounds: int) -> list[dict[str, Any]]:
    """Time both ways of answering all images, one by one and together: a row each, milliseconds an image."""

    def one_by_one(run: Callable[[Tensor], object]) -> None:
        for image in images:
            run(image[None])

    def early(x: Tensor) -> object:
        return pliant.predict(model, x, policy)

    rows = []
    ways = {
        len(images): (lambda: early(images), lambda: model(images)),
        1: (lambda: one_by_one(early), lambda: one_by_one(model)),
    }
    for batch_size, (with_policy, to_the_end) in ways.items():
        times = interleaved_ms({"policy": with_policy, "last": to_the_end}, rounds=rounds, warmup=1)
        ratios = [last / own for own, last in zip(times["policy"], times["last"], strict=True)]
        row: dict[str, Any] = {"batch_size": batch_size}
        row |= {f"{way}_ms": round(statistics.median(each) / len(images), 3) for way, each in times.items()}
        row |= {"speedup": round(statistics.median(ratios), 3)}
        row |= {"lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pliant:msdnet_cifar100_k7")
    parser.add_argument("--images", type=int, default=256, help="in the batch, and answered one by one")
    parser.add_argument("--held-out", type=int, default=1000, help="images on which thresholds are found")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="results/early_exit_speed.json")
    arguments = parser.parse_args()
    model = random_network(arguments.model)
    size = usual_image_size(model) or 32
    images, held_out = noise(arguments.images, 1, size), noise(arguments.held_out, 2, size)
    subnets = usual_subnets(model)
    (last_gmacs,) = cumulative_gmacs(model, subnets[-1:], images[:1])  # alone, as `model(x)` runs it
    with using_threads(arguments.threads), torch.inference_mode():
        labels = torch.arange(len(held_out)) % 2  # which decide nothing
        (policy,) = find_policies(model, held_out, labels, budgets=[last_gmacs / 2], subnets=subnets, batch_size=64)
        refuse_differences(model, images, policy)
        _, places = pliant.predict(model, images, policy)
        counts = torch.bincount(places, minlength=len(subnets)).tolist()
        gmacs = sum(count * cost for count, cost in zip(counts, policy.costs, strict=True)) / len(images)
        figures = compare(model, images, policy, arguments.rounds)
    shares = {subnet: count / len(images) for subnet, count in zip(subnets, counts, strict=True)}
    circumstances = {
        "model": arguments.model,
        "image_size": size,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seed": 0,
    }
    costs = {"last_gmacs": last_gmacs, "budget_gmacs": policy.budget, "average_gmacs": gmacs, "shares": shares}
    write_result(arguments.out, {**circumstances, "limit_speedup": LIMIT, **costs, "times": figures})


if __name__ == "__main__":
    main()
