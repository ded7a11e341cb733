"""A gate against static widths, on CIFAR-10: Stage I and II of DS-Net.

    python benchmarks/gate_evidence.py resnet20 --data PATH [--seeds 0 1] [--stages bootstrapping sandwich]

Stage I is trained once for each seed and way of teaching; Stage II several times, with more and more weight on the
cost, which gives a curve. All figures on test images; nothing is chosen by them. A training is resumed where it was
interrupted and never repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT

from pliant.data import ImageData, load_data
from pliant.train.engine import train
from pliant.train.recipe import Recipe

RECIPES = {"resnet20": "recipes/cifar10_dsnet_resnet20.yaml", "ds-mbnet": "recipes/cifar10_ds_mbnet.yaml"}
# Who teaches in Stage I: the moving average, as in DS-Net, or the network itself.
TEACHERS: dict[str, dict[str, Any]] = {"bootstrapping": {}, "sandwich": {"teacher": "live"}}


def stage_one(recipe: Recipe, data: ImageData, out: Path) -> None:
    """Train all widths."""
    train(recipe, data=data, out=out, resume=True, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--data", default="cifar10", help="folder or archive of class folders, or a data set")
    parser.add_argument("--stages", nargs="+", choices=TEACHERS, default=["bootstrapping"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load_data(arguments.data, seed=0)
    for seed in arguments.seeds:
        for name in arguments.stages:
            recipe = Recipe.load(ROOT / RECIPES[arguments.network]).phases[0].replace(seed=seed, **TEACHERS[name])
            stage_one(recipe, data, arguments.out / f"cifar10-gate-{arguments.network}" / f"{name}-seed{seed}")


if __name__ == "__main__":
    main()
