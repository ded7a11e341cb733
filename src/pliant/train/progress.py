"""The progress bar of a training, for terminals."""

from __future__ import annotations

import time
from typing import Any, cast

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pliant.train.module import TrainingModule

__all__ = ["ProgressBar"]

REFRESH_S = 0.25


class ProgressBar(L.Callback):
    """Shows epoch, step, loss, images/s and the time left of the whole training."""

    def __init__(self, *, batch_size: int) -> None:
        self.batch_size = batch_size
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[speed]}"),
            TimeRemainingColumn(),
            auto_refresh=False,
            transient=True,
            speed_estimate_period=120.0,
        )
        self._task = self._bar.add_task("", total=None, epoch="", loss="", speed="")
        self._shown_at = 0.0
        self._shown_step = 0

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        total = cast(TrainingModule, pl_module).total_steps
        self._bar.reset(self._task, total=total, completed=trainer.global_step)
        self._bar.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        self._shown_at, self._shown_step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        now, step = time.perf_counter(), trainer.global_step
        if now - self._shown_at < REFRESH_S:
            return
        images = (step - self._shown_step) * self.batch_size
        loss = cast(TrainingModule, pl_module).losses.latest
        self._bar.update(
            self._task,
            completed=step,
            epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            loss="" if loss is None else f"loss {loss:.3f}",
            speed=f"{images / (now - self._shown_at):.0f} images/s",
        )
        self._bar.refresh()
        self._shown_at, self._shown_step = now, step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        self._bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Lightning's hook."""
        self._bar.stop()
