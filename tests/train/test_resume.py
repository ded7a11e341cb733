import csv
import errno
import itertools
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pliant.checkpoint import CheckpointError
from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.losses import Loss
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]
Python = Callable[..., subprocess.Popen[str]]

TIMES = ("images_per_s", "seconds")

SCRIPT = """
import sys
import time
import warnings
warnings.simplefilter("error")
from pathlib import Path
from pliant.train.engine import train
from pliant.train.losses import Loss
from pliant.train.recipe import Recipe

recipe, out, slow = sys.argv[1:]
if slow == "slow":  # leaves the test time to kill this process in the middle of an epoch
    loss = Loss.labels
    Loss.labels = lambda *given: (time.sleep(0.2), loss(*given))[1]
train(Recipe.load(recipe), out=out, resume=True, device="cpu")
"""


def without_times(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


EVERYTHING = {
    "epochs": 4,
    "plan": {"name": "adn-sum", "base_start": 0.3},
    "schedule": {"name": "cosine", "warmup_epochs": 1.5},
    "ema": {"decay": 0.9},
    "clip_norm": 1.0,
}


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    new_python: Python, tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "recipe.yaml").write_text(tiny(source=str(photos), **EVERYTHING).to_yaml())

    straight = new_python("script.py", "recipe.yaml", "straight", "fast")
    killed = new_python("script.py", "recipe.yaml", "killed", "slow")
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "last.ckpt").exists():
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # the second epoch takes 0.6 s and more
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert len(without_times(tmp_path / "killed")) == 1

    resumed = new_python("script.py", "recipe.yaml", "killed", "fast")
    for process in (straight, resumed):
        output = process.communicate()[0]
        assert process.returncode == 0, output
    assert "epoch 2/4" in output
    assert "epoch 1/4" not in output
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "straight")
    for name in ("model.safetensors", "pliant.json", "recipe.yaml"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize("step", [4, 5, 12])
@pytest.mark.parametrize("backward", ["joint", "sequential"])
def test_an_interrupted_training_goes_on_with_the_same_randomness(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backward: str, step: int
) -> None:
    small = {"channels": [8, 8, 16, 16], "drop_path_rate": 0.3}
    recipe = tiny(model={"name": "timm:resnet18", "options": small}, backward=backward, **EVERYTHING)
    steps, loss = itertools.count(1), Loss.labels
    on_interrupt = signal.getsignal(signal.SIGINT)  # a job in the background has another than one at the prompt

    def labels(*given: object) -> torch.Tensor:
        if next(steps) == step:
            raise KeyboardInterrupt
        return loss(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Loss, "labels", labels)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data=images, out=tmp_path / "interrupted", log=None)
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    resumed = train(recipe, data=images, out=tmp_path / "interrupted", resume=True, log=None)
    straight = train(recipe, data=images, out=tmp_path / "straight", log=None)
    assert without_times(resumed.out) == without_times(straight.out)
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text(tiny().to_yaml())
    (out / ".last.ckpt.4711").write_bytes(b"half a checkpo")
    result = train(tiny(), data=images, out=out, resume=True, log=None)
    assert [row["epoch"] for row in result.rows] == [1, 2]
    assert not list(out.glob(".*"))


def test_a_finished_run_is_resumed_without_training(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    first = train(tiny(), data=images, out=tmp_path / "run", log=None)
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / "metrics.csv").unlink()
    again = train(tiny(), data=images, out=tmp_path / "run", resume=True, log=None)
    assert again.rows == first.rows
    assert len(without_times(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "model.safetensors").exists()
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, first.model.state_dict()[name])


def test_a_trained_folder_is_not_overwritten(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    train(tiny(epochs=1), data=images, out=tmp_path / "run", log=None)
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"run holds a training already \(last.ckpt\)"):
        train(tiny(epochs=1), data=images, out=tmp_path / "run", log=None)
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before


def test_another_recipe_is_refused_with_the_fields_that_differ(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    train(tiny(epochs=1), data=images, out=tmp_path / "run", log=None)
    other = tiny(epochs=1, optimizer={"lr": 0.1}, ema={"decay": 0.9})
    with pytest.raises(ValueError, match="another recipe") as refusal:
        train(other, data=images, out=tmp_path / "run", resume=True, log=None)
    message = str(refusal.value)
    assert "optimizer.lr was 0.05, is 0.1" in message
    assert "ema" in message
    assert "epochs" not in message
    assert "\n" not in message


def test_other_data_is_refused(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    train(tiny(epochs=1), data=images, out=tmp_path / "run", log=None)
    other = ImageData(**{**vars(images), "class_names": ("blue", "green", "yellow")})
    with pytest.raises(ValueError, match=r"other data.*class_names"):
        train(tiny(epochs=1), data=other, out=tmp_path / "run", resume=True, log=None)


def test_a_checkpoint_of_an_early_version_is_refused_in_one_line(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    train(tiny(epochs=1), data=images, out=tmp_path / "run", log=None)
    path = tmp_path / "run" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    facts = state["pliant"]["data"]
    early = {
        r"last\.ckpt says nothing of its data": {"recipe": state["pliant"]["recipe"]},
        r"last\.ckpt says nothing of its recipe and data": {},
        "does not say the validation images of its data": state["pliant"]
        | {"data": {name: fact for name, fact in facts.items() if name != "validation images"}},
    }
    for said, before in early.items():
        torch.save(state | {"pliant": before}, path)
        with pytest.raises(ValueError, match=f"{said}.*train anew in another folder$") as refusal:
            train(tiny(epochs=1), data=images, out=tmp_path / "run", resume=True, log=None)
        assert "\n" not in str(refusal.value)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("kind", ["pickle", "torch pickle", "truncated", "garbage", "empty", "flipped", "another file"])
def test_a_damaged_or_dangerous_checkpoint_is_refused(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny(epochs=1), data=images, out="run", log=None)
    path = tmp_path / "run" / "last.ckpt"
    whole = path.read_bytes()
    middle = whole.index(b"pytorch-lightning_version")
    if kind == "torch pickle":
        torch.save({"pliant": Bomb()}, path)
    elif kind == "another file":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        damaged = {
            "pickle": pickle.dumps(Bomb()),
            "truncated": whole[: len(whole) // 2],
            "garbage": b"\x07" * 5000,
            "empty": b"",
            "flipped": whole[:middle] + b"\xff" * 40 + whole[middle + 40 :],
        }
        path.write_bytes(damaged[kind])
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"last\.ckpt") as refusal:
        train(tiny(epochs=1), data=images, out="run", resume=True, log=None)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "exploded").exists()
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_previous_checkpoint_whole(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, checkpoints = Path.write_bytes, []

    def write_until_full(path: Path, content: bytes) -> int:
        if "last.ckpt" in path.name:
            checkpoints.append(path)
            if len(checkpoints) == 2:
                write(path, bytes(content)[:1000])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: No space left on device; .* is still whole") as stop:
        train(tiny(epochs=3), data=images, out=tmp_path / "run", log=None)
    assert "\n" not in str(stop.value)
    assert not list((tmp_path / "run").glob(".*"))
    assert len(without_times(tmp_path / "run")) == 1

    monkeypatch.undo()
    resumed = train(tiny(epochs=3), data=images, out=tmp_path / "run", resume=True, log=None)
    straight = train(tiny(epochs=3), data=images, out=tmp_path / "straight", log=None)
    assert without_times(resumed.out) == without_times(straight.out)
