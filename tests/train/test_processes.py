import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pliant.checkpoint import load
from pliant.train.recipe import Recipe

SCRIPT = """
import os
import sys
import warnings

import torch
from torch import nn

warnings.simplefilter("error")
import lightning as L

from pliant.train import engine, objective
from pliant.train.losses import Loss
from pliant.train.recipe import Recipe


class Frozen(L.Callback):
    # Batch statistics are each process's own, so that the joined batch has others: norms run in eval mode here.
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for module in pl_module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class Gradients(L.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        torch.save(gradients, f"{out}-step{trainer.global_step}-rank{rank}.pt")


def say(what):  # to a file of its own: two processes that print at once share a line
    with open(f"said-by-{processes}-rank{rank}.txt", "a") as file:
        print(what, file=file)


rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
make = engine._trainer
engine._trainer = lambda recipe, place, callbacks, **rest: make(
    recipe, place, [*callbacks, Frozen(), Gradients()], **rest
)
recipe = Recipe.load("recipe.yaml")
for backward in ("joint", "sequential"):
    out = f"{processes}-{backward}"
    result = engine.train(recipe.replace(backward=backward), out=out, device="cpu")
    torch.save(result.model.state_dict(), f"{out}-model-rank{rank}.pt")
    try:
        engine.train(recipe.replace(backward=backward), out=out, device="cpu")
    except ValueError as refusal:
        say(refusal)

if processes == 2:
    engine._trainer = make
    result = engine.train(recipe, out="free", device="cpu", log=None)
    torch.save(result.model.state_dict(), f"free-model-rank{rank}.pt")

    exits = {"adapt": {"depth": None, "exits": {}}, "plan": {"name": "exits"}, "ema": None}
    second = {
        "epochs": 1,
        "adapt": {"depth": None, "exits": {"collaboration": "concatenate"}},
        "plan": {"name": "one-for-all"},
        "learns": "classifiers",
        "teacher": "frozen",
    }
    phased = Recipe.from_dict(recipe.to_dict() | exits | {"then": [second]})
    result = engine.train(phased, out="phased", device="cpu", log=None)
    torch.save(result.model.state_dict(), f"phased-model-rank{rank}.pt")

    draw, drawn = objective.Objective._draw, []
    objective.Objective._draw = lambda self: drawn.append(draw(self)) or drawn[-1]
    width = {"choices": [0.25, 0.5, 0.75, 1.0], "norms": "private"}
    sandwich = {"adapt": {"depth": None, "width": width}, "plan": {"name": "sandwich", "random": 1}, "teacher": "ema"}
    model = {"name": "pliant:resnet20", "options": {"shortcut": "projection"}}
    drawing = Recipe.from_dict(recipe.to_dict() | sandwich | {"model": model, "recalibrate": 24, "views": 2})
    result = engine.train(drawing, out="width", device="cpu", log=None)
    torch.save(result.model.state_dict(), f"width-model-rank{rank}.pt")
    torch.save([torch.tensor(float(one["random-1"].partition("=")[2])) for one in drawn], f"width-drawn-rank{rank}.pt")

    loss = Loss.labels
    calls = []

    def broken(self, logits, y):
        calls.append(rank)
        return loss(self, logits * float("nan") if rank == 1 and len(calls) == 5 else logits, y)

    Loss.labels = broken
    out = "stopped"
    try:
        engine.train(recipe, out=out, device="cpu")
    except engine.TrainingStopped as stop:
        say(stop)
    torch.distributed.destroy_process_group()
"""


@pytest.fixture
def outputs(
    new_python: Callable[..., subprocess.Popen[str]], tiny: Callable[..., Recipe], photos: Path, tmp_path: Path
) -> tuple[str, str]:
    """What two processes under torchrun and one process alone print, while they train the same recipe."""
    (tmp_path / "script.py").write_text(SCRIPT)
    # Until the base-net starts, its norms have no gradients.
    recipe = tiny(source=str(photos), ema={"decay": 0.5}, plan={"name": "adn-sum", "base_start": 0.5})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    together = new_python(*torchrun, "script.py")
    alone = new_python("script.py")
    texts = [process.communicate()[0] for process in (together, alone)]
    assert (together.returncode, alone.returncode) == (0, 0), texts
    return texts[0], texts[1]


def test_two_processes_train_as_one_on_the_joined_batch(outputs: tuple[str, str], tmp_path: Path) -> None:
    def tensors(name: str) -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / f"{name}.pt", weights_only=True)

    def last_row(out: str) -> dict[str, str]:
        with open(tmp_path / out / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2
        return rows[-1]

    for backward in ("joint", "sequential"):
        for step in range(6):
            expected = tensors(f"1-{backward}-step{step}-rank0")
            assert (len(expected) > 60) == (step >= 3)
            for rank in (0, 1):
                gradients = tensors(f"2-{backward}-step{step}-rank{rank}")
                assert gradients.keys() == expected.keys()
                for name, gradient in gradients.items():
                    torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=f"{step} {name}")
        saved = tensors(f"2-{backward}-model-rank0")
        for name, tensor in tensors(f"1-{backward}-model-rank0").items():
            torch.testing.assert_close(saved[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
            assert torch.equal(saved[name], tensors(f"2-{backward}-model-rank1")[name])
        row, expected_row = last_row(f"2-{backward}"), last_row(f"1-{backward}")
        assert row.keys() == expected_row.keys()
        for name in row.keys() - {"images_per_s", "seconds"}:
            assert float(row[name]) == pytest.approx(float(expected_row[name]), rel=1e-4), name

    drawn, by_the_other = tensors("width-drawn-rank0"), tensors("width-drawn-rank1")
    assert drawn == by_the_other
    assert {float(width) for width in drawn} == {0.5, 0.75}
    for run in ("free", "width", "phased"):
        one, other = tensors(f"{run}-model-rank0"), tensors(f"{run}-model-rank1")
        for name in one:
            assert torch.equal(one[name], other[name]), f"{name} differs between the processes"
    first = load(tmp_path / "phased" / "phase-1").state_dict()
    assert {name for name in first if torch.equal(first[name], one[name])} == {
        name for name in first if ".linear." not in name and not name.startswith("fc.")
    }

    lines = outputs[0].splitlines()
    assert sum(line.startswith("epoch 2/2") for line in lines) == 2, "one process speaks for both"
    for rank in (0, 1):
        said = (tmp_path / f"said-by-2-rank{rank}.txt").read_text().splitlines()
        assert "2-joint holds a training already (last.ckpt); resume it, or choose another folder" in said
        assert (
            "training stopped in epoch 2: the loss term 'FFF<-labels' became nan in step 5; "
            "the checkpoint of epoch 1 is kept" in said
        )
