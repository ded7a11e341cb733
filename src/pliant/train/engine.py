"""`train`: from a recipe to a run folder, on Lightning."""

from __future__ import annotations

import copy
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.pointwise import StridedPointwise
from pliant.create import ModelSource
from pliant.data import load_data
from pliant.plans import LABELS
from pliant.train.callbacks import Reseed, RunFolder, WeightAverage
from pliant.train.feed import TrainFeed, ValidationFeed
from pliant.train.files import AtomicCheckpointIO
from pliant.train.gates import GateObjective
from pliant.train.module import TrainingModule, TrainingStopped
from pliant.train.network import build_network, kept_statistics, load_teacher, save_network, verify_network
from pliant.train.objective import Objective
from pliant.train.phases import PhaseRun, check_folders, facts_of, first_to_run, phase_runs, refuse_other_data
from pliant.train.processes import Place, choose_place, wait_for_all
from pliant.train.progress import ProgressBar
from pliant.train.recalibration import keeps_statistics, recalibrate_network_, refuse_recalibration
from pliant.train.recipe import Recipe
from pliant.train.records import Row

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["RunResult", "TrainingStopped", "train"]


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
    records = check_folders(out, recipe, resume)
    if data is None:
        data = load_data(
            recipe.data.source,
            image_size=recipe.data.image_size,
            resize=recipe.data.resize,
            interpolation=recipe.data.interpolation,
            white=recipe.data.white,
            val_fraction=recipe.data.val_fraction,
            seed=recipe.seed,
        )
    if recipe.class_weights and len(recipe.class_weights) != len(data.class_names):
        given, classes = len(recipe.class_weights), len(data.class_names)
        raise ValueError(f"Recipe.class_weights: got {given}, expected {classes}, one for each class of the data")
    for folder, record in records:
        refuse_other_data(folder, record["data"], facts_of(data))
    source = ModelSource(name=recipe.model.name, num_classes=len(data.class_names), options=recipe.model.options)
    runs = phase_runs(recipe, out)
    first = first_to_run(runs)
    if len(runs) > 1:
        _rehearse(runs, source, data, place)
        if first and log:
            log(f"{runs[first - 1].name} is finished")
    for run in runs[first:-1]:
        _train_phase(run, source, data, place, progress, log)
    return _train_phase(runs[-1], source, data, place, progress, log)


def _rehearse(runs: Sequence[PhaseRun], source: ModelSource, data: ImageData, place: Place) -> None:
    """Find out, before the first phase is trained, whether a later one cannot be."""
    before = None
    for run in runs:
        try:
            model = build_network(source, run.recipe, place, image_size=data.image_size, fresh=False)
            _objective(model, run.recipe, {"live": None, "frozen": before, "ema": model}[run.recipe.teacher])
            TrainFeed(data.train, run.recipe, place, epoch=lambda: 0)
            refuse_recalibration(model, run.recipe, data)
            verify_network(model, source, run.recipe, data)
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from None
        before = model


def _train_phase(
    run: PhaseRun,
    source: ModelSource,
    data: ImageData,
    place: Place,
    progress: bool,
    log: Callable[[str], None] | None,
) -> RunResult:
    """Train one phase, or the rest of it, and save its network."""
    recipe = run.recipe
    resumed = run.checkpoint.exists()
    torch.manual_seed(recipe.seed)
    model = build_network(source, recipe, place, image_size=data.image_size, fresh=not resumed)
    refuse_recalibration(model, recipe, data)
    verify_network(model, source, recipe, data)
    if recipe.learns == "gates" and not kept_statistics(recipe) and keeps_statistics(model):
        _named(run, log)(
            "the gate learns with norm statistics of the training; to take them anew first, add 'recalibrate' to the "
            "phase before"
        )
    teacher = load_teacher(source, recipe, place)
    guarded = [path for path, part in model.named_modules() if StridedPointwise.make_(part)]
    module, rows = _fit(model, teacher, run, data, place, resumed, progress, log)
    # A copy leaves the compiler's work behind.
    model = copy.deepcopy(module.evaluated) if recipe.compile else module.evaluated
    for path in guarded:
        StridedPointwise.unmake_(model.get_submodule(path))
    if recipe.recalibrate:
        recalibrate_network_(model.to(place.device), run, data, place, _named(run, log))
    # As `pliant.load` gives it.
    model = model.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(True)  # type: ignore[call-overload]
    if place.rank == 0:
        save_network(model, source, recipe, data, run.folder)
        run.recalibration.unlink(missing_ok=True)
    wait_for_all()  # the next phase starts from what the first process has written
    return RunResult(run.folder, model, rows)


def _objective(model: nn.Module, recipe: Recipe, teacher: nn.Module | None) -> Objective | GateObjective:
    plan = recipe.plan.build(model.space) if isinstance(model, AdaptiveModule) else LABELS
    on_labels: dict[str, Any] = {
        "label_smoothing": recipe.label_smoothing,
        "class_weights": recipe.class_weights or None,
    }
    if recipe.learns == "gates":
        return GateObjective(model, plan, **on_labels)
    objective = Objective(model, plan, teacher=teacher, **on_labels)
    if recipe.views == 2:
        objective.check_views()
    return objective


def _fit(
    model: nn.Module,
    teacher: nn.Module | None,
    run: PhaseRun,
    data: ImageData,
    place: Place,
    resumed: bool,
    progress: bool,
    log: Callable[[str], None] | None,
) -> tuple[TrainingModule, list[Row]]:
    """Run Lightning; returns what was trained and the rows of metrics.csv."""
    recipe = run.recipe
    feed = TrainFeed(data.train, recipe, place, epoch=lambda: trainer.current_epoch)
    val_feed = ValidationFeed(data.val, recipe, place)
    average = WeightAverage(recipe, model) if recipe.ema else None
    objective = _objective(model, recipe, average.average.module if average and recipe.teacher == "ema" else teacher)
    record = {"recipe": run.whole.to_dict(), "data": facts_of(data)}
    module = TrainingModule(objective, recipe, record=record, steps_per_epoch=len(feed))

    bar = ProgressBar(batch_size=recipe.batch_size) if progress and place.rank == 0 and sys.stdout.isatty() else None
    log = bar.say if bar and log is print else log
    folder = RunFolder(run.folder, recipe, _named(run, log), batch_size=feed.batch_size)
    callbacks: list[L.Callback] = [Reseed(recipe.seed), folder]
    callbacks += [average] if average else []
    callbacks += [bar] if bar else []
    if place.rank == 0:
        run.prepare()
    with _quiet():
        trainer = _trainer(recipe, place, callbacks, validate=len(data.val) > 0)
        _run(trainer, module, feed, val_feed, run.checkpoint if resumed else None)
    return module, folder.rows


def _named(run: PhaseRun, log: Callable[[str], None] | None) -> Callable[[str], None]:
    """What tells a person how it goes, and in which phase."""
    return lambda text: log(f"{run.name}, {text}" if run.name else text) if log else None


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


def _trainer(recipe: Recipe, place: Place, callbacks: list[L.Callback], *, validate: bool) -> L.Trainer:
    strategy: Any = "auto"
    if place.world_size > 1:
        strategy = DDPStrategy(
            process_group_backend="nccl" if place.device.type == "cuda" else "gloo",
            broadcast_buffers=False,  # RunFolder does it once an epoch
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
