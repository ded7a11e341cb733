"""Images per second of the loader alone, against a training step of the network that it feeds.

    python benchmarks/loader.py [--rounds 40] [--threads 2] [--device cpu] [--data digits]

Small images, 32 pixels, batch 128: the next batch with each way of varying images, against one training step of the
CIFAR ResNet-20 (forward, backward, SGD). Large images: two real photographs of 640 x 427 pixels, read from JPEG files,
cut, scaled to 224 pixels and varied by one core, against one step of ResNet-50 with a batch of 8. Medians of
interleaved rounds. `share_of_step` is the loader's time over that of the fastest step: below 1 the network waits for no
image, even if nothing overlaps. A load average beyond the number of cores says that others were working on the
machine: then only the shares mean something. Writes results/loader.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from provenance import write_result
from torch import Tensor

import pliant
from pliant.data import Augment, ImageData
from pliant.measure.latency import interleaved_ms, using_threads

VARIATIONS: dict[str, Augment | None] = {
    "none": None,
    "crop, flip": Augment(flip=True),
    "crop, flip, erase": Augment(flip=True, erase=0.25),
    "crop, flip, mixup, cutmix": Augment(flip=True, mixup=0.2, cutmix=1.0),
    "crop, flip, TrivialAugment": Augment(flip=True, auto="trivial"),
    "crop, flip, RandAugment": Augment(flip=True, auto="rand"),
    "crop, flip, repeated 3 times": Augment(flip=True, repeats=3),
}


def endless(data: ImageData, batch_size: int, augment: Augment | None, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count():
        yield from data.train.batches(
            batch_size, augment=augment, shuffle=True, epoch=epoch, drop_last=True, device=device, channels_last=True
        )


def training_step(
    name: str, adaptive: bool, bf16: bool, data: ImageData, batch_size: int, device: str
) -> Callable[[], None]:
    """One training step on a batch that is there already."""
    torch.manual_seed(0)
    network = pliant.create_model(name, num_classes=len(data.class_names)).to(device, memory_format=torch.channels_last)
    if adaptive:
        network = pliant.adapt_(network, pliant.Depth())
    network.train()
    objective = pliant.Objective(network) if adaptive else None
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images, labels = next(endless(data, batch_size, None, device))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=bf16):
            loss = objective(images, labels) if objective else F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return step


def compare(
    loaders: dict[str, Iterator[Any]], steps: dict[str, Callable[[], None]], batch_size: int, rounds: int, device: str
) -> list[dict[str, Any]]:
    calls = {f"loader: {name}": partial(next, batches) for name, batches in loaders.items()}
    calls |= {f"step: {name}": step for name, step in steps.items()}
    times = interleaved_ms(calls, rounds=rounds, warmup=2, device=device)
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = min(medians, key=lambda name: medians[name] if name.startswith("step") else float("inf"))
    rows = []
    for name, ms in medians.items():
        row = {"what": name, "batch_size": batch_size, "ms": round(ms, 3), "images_per_s": round(1e3 * batch_size / ms)}
        if name.startswith("loader"):
            # Ratios round by round: a machine that slows down meanwhile slows both alike.
            ratios = [own / step for own, step in zip(times[name], times[fastest], strict=True)]
            row["share_of_step"] = round(statistics.median(ratios), 4)
        rows.append(row)
        print(row, flush=True)
    return rows


def small_images(data: ImageData, rounds: int, device: str) -> list[dict[str, Any]]:
    loaders = {name: endless(data, 128, augment, device) for name, augment in VARIATIONS.items()}
    steps = {
        "ResNet-20, float32": training_step("pliant:resnet20", False, False, data, 128, device),
        "ResNet-20, bf16": training_step("pliant:resnet20", False, True, data, 128, device),
        "ResNet-20, adaptive, bf16": training_step("pliant:resnet20", True, True, data, 128, device),
    }
    return compare(loaders, steps, 128, rounds, device)


def large_images(rounds: int, device: str) -> list[dict[str, Any]]:
    from sklearn.datasets import load_sample_images

    with tempfile.TemporaryDirectory() as folder:
        for photograph in load_sample_images().filenames:
            source = Path(photograph)
            target = Path(folder) / "photographs" / "train" / source.stem
            target.mkdir(parents=True)
            for number in range(32):
                shutil.copy(source, target / f"{number}.jpg")
        data = pliant.load_data(Path(folder) / "photographs", workers=0, cache=folder)
        loaders = {
            name: endless(data, 8, augment, device)
            for name, augment in {
                "none": None,
                "crop, flip": Augment(),
                "crop, flip, TrivialAugment": Augment(auto="trivial"),
            }.items()
        }
        steps = {"ResNet-50, bf16": training_step("torchvision:resnet50", False, True, data, 8, device)}
        return compare(loaders, steps, 8, rounds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", default="digits", help="name or path of a data set of small images")
    parser.add_argument("--out", default="results/loader.json")
    arguments = parser.parse_args()
    with using_threads(arguments.threads):
        data = pliant.load_data(arguments.data, image_size=32)
        figures = {
            "seed": 0,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "device": arguments.device,
            "data": data.name,
            "load_average_before": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
            "small_images": small_images(data, arguments.rounds, arguments.device),
            "large_images": large_images(max(3, arguments.rounds // 4), arguments.device),
        }
    write_result(arguments.out, figures)


if __name__ == "__main__":
    main()
