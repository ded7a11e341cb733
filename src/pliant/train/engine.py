"""`train`: from a recipe to a run folder, on Lightning."""

from __future__ import annotations

import copy
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from pliant.core.adaptive import AdaptiveModule
from pliant.create import ModelSource
from pliant.data import load_data
from pliant.train.callbacks import LAST, Reseed, RunFolder, WeightAverage
from pliant.train.feed import TrainFeed, ValidationFeed
from pliant.train.files import AtomicCheckpointIO, read_state, remove_leftovers, write_file
from pliant.train.module import TrainingModule, TrainingStopped
from pliant.train.network import build_network, save_network
from pliant.train.objective import Objective
from pliant.train.processes import Place, choose_place
from pliant.train.progress import ProgressBar
from pliant.train.recipe import Recipe
from pliant.train.records import Row

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["RunResult", "TrainingStopped", "train"]

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class RunResult:
    """A finished training.

    Attributes:
        out: the run folder.
        model: the trained network, on the CPU and in eval mode; its moving average if the recipe has one.
        rows: one dictionary an epoch, as in metrics.csv.
    """

    out: Path
    model: nn.Module
    rows: list[Row]


def train(
    recipe: Recipe,
    *,
    data: ImageData | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str],
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    log: Callable[[str], None] | None = print,
) -> RunResult:
    """Train a network.

    The folder `out` then holds the network (`pliant.load(out)`), metrics.csv with a line an epoch,
    tensorboard/, recipe.yaml, and last.ckpt, from which a killed training goes on exactly as if it had
    not been killed: same losses, on the CPU bit for bit. Started by `torchrun`, all processes train one network.

    Args:
        recipe: what to train, and how.
        data: takes the place of the recipe's data source.
        out: the run folder.
        resume: go on from the last checkpoint in `out`; where there is none yet, start.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        progress: show a progress bar if the standard output is a terminal.
        log: gets a line an epoch; none = silent.

    Raises:
        ValueError: the recipe does not fit the data or the device; `out` holds a training already; with
            `resume`, a training of another recipe, or a damaged checkpoint.
        CheckpointError: a file cannot be written; the ones written before are whole.
        TrainingStopped: a loss became NaN or infinite.
    """
    out = Path(out)
    place = choose_place(device)
    if isinstance(data, str | os.PathLike):
        recipe, data = recipe.replace(data=recipe.data.replace(source=os.fspath(data))), None
    before = _earlier_state(out, recipe, resume)
    if data is None:
        data = load_data(
            recipe.data.source,
            image_size=recipe.data.image_size,
            resize=recipe.data.resize,
            interpolation=recipe.data.interpolation,
            val_fraction=recipe.data.val_fraction,
            seed=recipe.seed,
        )
    if before is not None:
        _refuse_other_data(out, before["data"], _facts(data))
    torch.manual_seed(recipe.seed)
    source = ModelSource(name=recipe.model.name, num_classes=len(data.class_names), options=recipe.model.options)
    model = build_network(source, recipe, place, image_size=data.image_size, fresh=before is None)
    checkpoint = out / LAST if before is not None else None
    module, rows = _fit(model, recipe, data, place, out, checkpoint, progress, log)
    # A copy leaves the compiler's work behind.
    model = copy.deepcopy(module.evaluated) if recipe.compile else module.evaluated
    # As `pliant.load` gives it.
    model = model.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    if place.rank == 0:
        save_network(model, source, recipe, data, out)
    return RunResult(out, model, rows)


def _earlier_state(out: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """Refuse to overwrite a training, and to go on with another one; returns what the checkpoint says of itself."""
    last = out / LAST
    if not resume:
        found = [name for name in (LAST, "model.safetensors") if (out / name).exists()]
        if found:
            raise ValueError(f"{out} holds a training already ({found[0]}); resume it, or choose another folder")
        return None
    if not last.exists():
        return None
    before = read_state(last)["pliant"]
    changes = Recipe.from_dict(before["recipe"]).differences(recipe)
    if changes:
        told = "; ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changes.items())
        raise ValueError(f"cannot resume {out} with another recipe: {told}")
    return before


def _facts(data: ImageData) -> dict[str, Any]:
    """What must be the same for a training to go on."""
    return {
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "training images": len(data.train),
        "validation images": len(data.val),
    }


def _refuse_other_data(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    unsaid = [name for name in now if name not in before]
    if unsaid:
        raise ValueError(
            f"cannot resume {out}: its checkpoint, of an early version of pliant, does not say the {', '.join(unsaid)} "
            "of its data; train anew in another folder"
        )
    changes = [f"{name} was {before[name]!r}, is {now[name]!r}" for name in now if before[name] != now[name]]
    if changes:
        raise ValueError(f"cannot resume {out} with other data: {'; '.join(changes)}")


def _fit(
    model: nn.Module,
    recipe: Recipe,
    data: ImageData,
    place: Place,
    out: Path,
    checkpoint: Path | None,
    progress: bool,
    log: Callable[[str], None] | None,
) -> tuple[TrainingModule, list[Row]]:
    """Run Lightning; returns what was trained and the rows of metrics.csv."""
    feed = TrainFeed(data.train, recipe, place, epoch=lambda: trainer.current_epoch)
    val_feed = ValidationFeed(data.val, recipe, place)
    plan = recipe.plan.build(model.space) if isinstance(model, AdaptiveModule) else None
    objective = Objective(model, plan, label_smoothing=recipe.label_smoothing)
    module = TrainingModule(objective, recipe, facts=_facts(data), steps_per_epoch=len(feed))

    bar = ProgressBar(batch_size=recipe.batch_size) if progress and place.rank == 0 and sys.stdout.isatty() else None
    log = log or (lambda text: None)
    folder = RunFolder(out, recipe, bar.say if bar and log is print else log, batch_size=feed.batch_size)
    callbacks: list[L.Callback] = [Reseed(recipe.seed), folder]
    callbacks += [WeightAverage(recipe)] if recipe.ema else []
    callbacks += [bar] if bar else []
    if place.rank == 0:
        _prepare_folder(out, recipe)
    with _quiet():
        trainer = _trainer(recipe, place, callbacks, validate=len(data.val) > 0, partial=_leaves_some_out(objective))
        _run(trainer, module, feed, val_feed, checkpoint)
    return module, folder.rows


def _run(
    trainer: L.Trainer, module: TrainingModule, feed: TrainFeed, val_feed: ValidationFeed, checkpoint: Path | None
) -> None:
    """Let Lightning fit; an interruption by the keyboard stays one, where Lightning would end the whole process."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, feed, val_feed, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None


def _prepare_folder(out: Path, recipe: Recipe) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {out}: {error.strerror}") from None
    remove_leftovers(out / LAST)
    write_file(out / RECIPE, recipe.to_yaml().encode())


def _trainer(recipe: Recipe, place: Place, callbacks: list[L.Callback], *, validate: bool, partial: bool) -> L.Trainer:
    strategy: Any = "auto"
    if place.world_size > 1:
        strategy = DDPStrategy(
            process_group_backend="nccl" if place.device.type == "cuda" else "gloo",
            broadcast_buffers=False,  # RunFolder does it once an epoch
            find_unused_parameters=partial,
        )
    on_cuda = place.device.type == "cuda"
    return L.Trainer(
        accelerator="cuda" if on_cuda else "cpu",
        devices=[place.device.index] if on_cuda and place.world_size == 1 else place.local_world_size,
        num_nodes=place.nodes,
        strategy=strategy,
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        max_epochs=recipe.epochs,
        check_val_every_n_epoch=recipe.validate_every,
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        benchmark=on_cuda,
        use_distributed_sampler=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _leaves_some_out(objective: Objective) -> bool:
    """Whether some steps leave parameters without a gradient, for which DDP would wait in vain.

    The largest sub-network has all blocks and the first set of the norms, the smallest the second set. Every exit has
    a classifier of its own.
    """
    if not isinstance(objective.model, AdaptiveModule):
        return False
    space = objective.model.space
    learning = [space.parse(term.student) for term in objective.plan.terms if term.start == 0]
    depths = {subnet.depth for subnet in learning}
    skipping = tuple(count > 0 for count in space.skippable_blocks)
    every_exit = {subnet.exit for subnet in learning} >= set(range(1, len(space.exit_stages) + 1))
    return not (every_exit and {space.largest.depth, skipping} <= depths)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning tells its own users, and is not for ours."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
