"""What happens around the steps: seeds, moving average, the run folder's files, the lines a person reads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pliant.train.files import write_file
from pliant.train.lossbook import TOTAL
from pliant.train.module import TrainingModule
from pliant.train.recipe import Recipe
from pliant.train.records import Row, Scalars, csv_text, line

__all__ = ["Reseed", "RunFolder", "WeightAverage"]

LAST = "last.ckpt"
METRICS = "metrics.csv"


class Reseed(L.Callback):
    """Makes the randomness of an epoch a function of seed, epoch and process: a resumed epoch equals the first try."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        torch.manual_seed(random.Random(f"{self.seed}/{trainer.current_epoch}/{trainer.global_rank}").getrandbits(63))


class WeightAverage(L.Callback):
    """Keeps torch's moving average of the weights and of the norm statistics, and has it validated and saved.

    During a warm-up it follows the weights, so that the average starts from a network that has learned something.
    """

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        assert recipe.ema is not None
        decay = recipe.ema.decay
        if recipe.ema.rescale:
            decay = 1 - min(1.0, (1 - decay) * recipe.batch_size * recipe.ema.every / recipe.epochs)
        self.every = recipe.ema.every
        self.warmup_epochs = recipe.schedule.warmup_epochs
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.average = average.requires_grad_(False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning's hook."""
        cast(TrainingModule, pl_module).evaluate_instead(self.average.module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        self.average.module.to(pl_module.device)  # its counter stays on the CPU, where a look at it costs nothing

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        if trainer.global_step % self.every == 0:
            self.average.update_parameters(cast(TrainingModule, pl_module).objective.model)
            if trainer.current_epoch < self.warmup_epochs:
                self.average.n_averaged.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook."""
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's hook."""
        self.average.load_state_dict(state_dict)


class RunFolder(Checkpoint):
    """Writes what a run folder holds at the end of every epoch, and says how it went.

    The checkpoint holds the rows of all epochs, and metrics.csv is written from it: whenever the run
    is killed, the two agree after a resume. (Lightning calls a `Checkpoint` after all other callbacks.)
    """

    def __init__(self, out: Path, recipe: Recipe, say: Callable[[str], None], *, batch_size: int) -> None:
        self.out = out
        self.recipe = recipe
        self.say = say
        self.batch_size = batch_size
        self.rows: list[Row] = []
        self._scalars: Scalars | None = None
        self._began = self._trained_s = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook, called when there is nothing left to train too."""
        if trainer.is_global_zero and self.rows:
            self._write_metrics()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        if trainer.is_global_zero:
            self._scalars = Scalars(self.out / "tensorboard", after_step=trainer.global_step)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        self._began = time.perf_counter()
        self._trained_s = 0.0
        if trainer.current_epoch + 1 == self.recipe.epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook: after the last batch and before validation, wait for the device."""
        module = cast(TrainingModule, pl_module)
        if trainer.is_last_batch:
            module.check_losses()
            self._trained_s = time.perf_counter() - self._began
            _share_buffers(module, trainer.world_size)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook: note the epoch, save, tell."""
        module = cast(TrainingModule, pl_module)
        self.rows.append(self._row(trainer, module))
        trainer.save_checkpoint(self.out / LAST)
        if trainer.is_global_zero:
            self._write_metrics()
            if self._scalars:
                self._scalars.add(self.rows[-1])
            self.say(line(self.rows[-1], self.recipe.epochs))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        if self._scalars:
            self._scalars.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Lightning's hook."""
        self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's hook."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Lightning's hook."""
        self.rows = [dict(row) for row in state_dict["rows"]]

    def _row(self, trainer: L.Trainer, module: TrainingModule) -> Row:
        images = trainer.num_training_batches * self.batch_size * trainer.world_size
        losses = _mean_over_processes(module.losses.close(), trainer.world_size, module.device)
        return {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            TOTAL: losses.pop(TOTAL),
            **{f"loss_{name}": value for name, value in losses.items()},
            "lr": module.last_lr,
            **module.take_accuracies(),
            "images_per_s": images / self._trained_s,
            "seconds": time.perf_counter() - self._began,
        }

    def _write_metrics(self) -> None:
        write_file(self.out / METRICS, csv_text(self.rows).encode())


def _share_buffers(module: TrainingModule, world_size: int) -> None:
    """Give every process the norm statistics of the first: they validate, and go on, with one network."""
    if world_size > 1:
        networks = {id(network): network for network in (module.objective.model, module.evaluated)}
        for network in networks.values():
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, src=0)


def _mean_over_processes(losses: dict[str, float], world_size: int, device: torch.device) -> dict[str, float]:
    if world_size == 1:
        return losses
    values = torch.tensor(list(losses.values()), device=device)
    torch.distributed.all_reduce(values)
    return dict(zip(losses, (values / world_size).tolist(), strict=True))
