"""Write what users have on their disks: run folders, exported files, a folder for the Hub, and what all of them answer.

    python tests/artefacts/write.py FOLDER

Run once by the version whose files later versions must read; `tests/artefacts/v0.1` is what the version of its card
wrote. The files are never written again by newer code: a format that changes gets a folder of its own beside it.
Networks are as small as their libraries make them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import pliant
from pliant.core.inputs import logits_of
from pliant.runtime import load as load_file

HERE = Path(__file__).parent
RESNET = {"name": "timm:resnet18", "options": {"channels": [4, 4, 8, 8], "stem_width": 4}}
VIT_OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 4, "num_heads": 2}
VIT = {"name": "timm:vit_tiny_patch16_224", "options": VIT_OPTIONS}
OWN = {"name": "network.py:make"}
HALF_WIDTHS = {"choices": [0.5, 1.0]}

# What is different in the recipe of each run; all have one epoch on the digits.
RUNS: dict[str, dict[str, Any]] = {
    "depth": {"plan": {"name": "adn"}},
    "depth-vit": {"model": VIT, "adapt": {"depth": {"groups": 2}}},
    "depth-own": {"model": OWN, "adapt": {"depth": {"groups": 2}}},
    "exits": {"adapt": {"depth": None, "exits": {}}, "plan": {"name": "exits"}},
    "depth-exits": {"adapt": {"depth": {}, "exits": {}}, "plan": {"name": "adn+exits"}},
    "width": {
        "adapt": {"depth": None, "width": HALF_WIDTHS},
        "plan": {"name": "sandwich", "random": 0},
        "ema": {"decay": 0.5},
        "teacher": "ema",
    },
    "width-private": {
        "adapt": {"depth": None, "width": HALF_WIDTHS | {"norms": "private"}},
        "plan": {"name": "slimmable"},
    },
    "width-depth": {"adapt": {"depth": {}, "width": HALF_WIDTHS}, "plan": {"name": "adn-sum+sandwich"}},
    "gate": {
        "adapt": {"depth": None, "width": {"choices": [0.5, 0.75, 1.0], "gate": {"behind": 2}}},
        "plan": {"name": "sandwich"},
        "then": [{"epochs": 1, "learns": "gates", "plan": {"name": "gates"}}],
    },
    "only": {"only": "TTTT"},
}  # fmt: skip
# The file, the run and the options of `pliant export`.
FILES = {
    "static.onnx": ("depth", ["--subnet", "TTFF"]),
    "static.pt2": ("depth", ["--subnet", "TTFF"]),
    "int8.onnx": ("depth", ["--subnet", "FFFF", "--int8", "64", "--tolerance", "1"]),
    "depths-fast.onnx": ("depth", ["--switchable"]),
    "depths-compact.onnx": ("depth", ["--switchable", "--mode", "compact"]),
    "widths.onnx": ("width", ["--switchable"]),
    "policy.onnx": ("exits", ["--policy", "exits/policies.json", "--budget", "0.000657"]),
    "gate.onnx": ("gate", ["--policy", "gate"]),
}
CHOOSE_THEMSELVES = ("policy", "gate")
INPUTS = 4


def write(folder: Path) -> None:
    """Write everything into a new folder."""
    folder.mkdir(parents=True)
    shutil.copyfile(HERE / "network.py", folder / "network.py")
    golden: dict[str, Tensor] = {"images": torch.randn(INPUTS, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    for name, changes in RUNS.items():
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(changes), sort_keys=False))
        command(folder, "train", "--recipe", "recipe.yaml", "--out", name)
        (folder / "recipe.yaml").unlink()
        own = ["--model", OWN["name"]] if name == "depth-own" else []
        command(folder, "measure", name, "--rounds", "6", "--no-energy", "--threads", "1", *own)
        golden |= {f"{name}/{subnet}": logits for subnet, logits in answers(folder, name, golden["images"]).items()}
    command(folder, "measure", "exits", "--policy", "confidence", "--budgets", "2", "--rounds", "3", "--threads", "1")
    command(folder, "measure", "gate", "--policy", "gate", "--budgets", "2", "--rounds", "3", "--threads", "1")
    for file, (run, options) in FILES.items():
        command(folder, "export", run, file, *options)
        golden |= {f"{file}/{subnet}": logits for subnet, logits in answers_of(folder / file, golden["images"]).items()}
    command(folder, "push", "depth", "somebody/digits", "--folder", "hub")
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, folder / "golden.safetensors")
    for unneeded in [*folder.glob("*/tensorboard"), *folder.glob("*/phase-*/tensorboard"), *folder.glob("*/*.png")]:
        shutil.rmtree(unneeded) if unneeded.is_dir() else unneeded.unlink()
    # One state of a training is enough to go on from, and they are the largest files.
    for state in folder.glob("*/**/*.ckpt"):
        if state.parent.name != "depth":
            state.unlink()
    about = {"pliant": pliant.__version__, "torch": torch.__version__, "commit": commit()}
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")


def recipe(changes: Mapping[str, Any]) -> dict[str, Any]:
    data = {"source": "digits", "image_size": 16, "val_fraction": 0.3}
    return {"model": RESNET, "data": data, "epochs": 1, "batch_size": 64, "optimizer": {"lr": 0.01}} | dict(changes)


def command(folder: Path, *arguments: str) -> None:
    print("pliant", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "pliant", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@torch.no_grad()
def answers(folder: Path, name: str, images: Tensor) -> dict[str, Tensor]:
    """What every sub-network of a saved network answers; of a gate also what it chooses."""
    os.chdir(folder)
    model: Any = pliant.load(name, model=OWN["name"] if name == "depth-own" else None)
    if not hasattr(model, "subnets"):
        return {"only": logits_of(model(images))}
    found = {str(subnet): logits_of(model(images, subnet=subnet)) for subnet in model.subnets}
    return found | ({"gate": model.gated(images)[0]} if model.routes else {})


def answers_of(path: Path, images: Tensor) -> dict[str, Tensor]:
    """What every sub-network of an exported file answers; one that chooses by itself takes one image at a time."""
    array = images.numpy()
    if path.stem in CHOOSE_THEMSELVES:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (name,) = (taken.name for taken in session.get_inputs())
        given = [session.run(None, {name: image})[0] for image in numpy.split(array, INPUTS)]
        return {"all": torch.from_numpy(numpy.concatenate(given))}
    file = load_file(path)
    return {subnet: torch.from_numpy(file(array, subnet)) for subnet in file.subnets}


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
