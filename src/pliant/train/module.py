"""The LightningModule: one training step, one validation step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import class_logits
from pliant.core.plan import GATE
from pliant.train.lossbook import TOTAL, LossBook, NotFinite
from pliant.train.optim import build_optimizer, build_schedule
from pliant.train.recipe import Recipe

if TYPE_CHECKING:
    from torchmetrics import Metric

    from pliant.train.gates import GateObjective
    from pliant.train.objective import Objective

__all__ = ["TrainingModule", "TrainingStopped"]

Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Images `[batch, 3, height, width]`, labels `[batch]` or class probabilities `[batch, classes]`, and the view of the
students where they have one."""


class TrainingStopped(ValueError):
    """A training that cannot go on; what it wrote to the disk is whole."""


class TrainingModule(L.LightningModule):
    """Runs an `Objective` in Lightning.

    Args:
        objective: the model and its plan.
        recipe: optimizer, schedule, backward and gradient clipping are read from it.
        record: what the checkpoint says of the training: `recipe` and `data`.
        steps_per_epoch: on each process.
    """

    def __init__(
        self, objective: Objective | GateObjective, recipe: Recipe, *, record: dict[str, Any], steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.objective = objective
        self.recipe = recipe
        self.record = record
        self.steps_per_epoch = steps_per_epoch
        self.automatic_optimization = recipe.backward == "joint"
        self.losses = LossBook()
        self.num_classes = len(record["data"]["class_names"])
        self.metrics = _accuracies(objective.model, recipe, self.num_classes)
        self.last_lr = 0.0
        self._validated = False
        self._evaluated = [objective.model]  # in a list: a second path to a module would double its keys

    @property
    def total_steps(self) -> int:
        """Of the whole training."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and saved: the trained one or its moving average."""
        return self._evaluated[0]

    def evaluate_instead(self, network: nn.Module) -> None:
        """Validate and save `network` instead of the trained one."""
        self._evaluated = [network]

    def configure_optimizers(self) -> Any:
        """Lightning's hook."""
        optimizer = build_optimizer(self.objective.model, self.recipe.optimizer)
        schedule = build_schedule(
            optimizer, self.recipe.schedule, epochs=self.recipe.epochs, steps_per_epoch=self.steps_per_epoch
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Lightning's hook."""
        if self.recipe.compile:
            self.objective.model.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Lightning's hook: forward, and in sequential mode the rest of the step too."""
        step = self.global_step
        self.objective.progress = step / self.total_steps
        self.last_lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        if self.automatic_optimization:
            loss = self.objective(*batch)
        else:
            loss = self._sequential_step(batch)
        if self.losses.add(step + 1, self.objective.terms | {TOTAL: loss.detach()}):
            self.check_losses()
        return loss if self.automatic_optimization else None

    def _sequential_step(self, batch: Batch) -> Tensor:
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        loss = self.objective.backward(*batch)
        self._average_gradients()
        self._clip_gradients()
        optimizer.step()
        cast(LRScheduler, self.lr_schedulers()).step()
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *arguments: Any, **options: Any) -> None:
        """Lightning's hook, for the joint backward."""
        self._clip_gradients()

    def _clip_gradients(self) -> None:
        """Not by Lightning: in mixed precision it refuses fused optimizers, for a scaling that bf16 does not need."""
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.clip_norm)

    def _average_gradients(self) -> None:
        """Once, after all passes: DDP itself would send the gradients of every pass."""
        world_size = self.trainer.world_size
        if world_size == 1:
            return
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= world_size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def check_losses(self) -> None:
        """Wait for the losses; raise `TrainingStopped` if one of them, on any process, is not finite."""
        bad: NotFinite | None = self.losses.look()
        if self.trainer.world_size > 1:
            everywhere: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everywhere, bad and (bad.step, bad.term, bad.value))
            first = min((item for item in everywhere if item), default=None)
            bad = NotFinite(*first) if first else None
        if bad is not None:
            epoch = (bad.step - 1) // self.steps_per_epoch + 1
            kept = f"; the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else ""
            raise TrainingStopped(f"training stopped in epoch {epoch}: {bad}{kept}")

    def on_validation_epoch_start(self) -> None:
        """Lightning's hook."""
        self.evaluated.eval()
        self._validated = True
        for metric in self.metrics.values():
            metric.to(self.device).reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Lightning's hook: the largest and the smallest sub-network, what a gate chooses, or the plain network."""
        images, labels = batch
        for subnet, metric in self.metrics.items():
            if not isinstance(self.evaluated, AdaptiveModule):
                output = self.evaluated(images)
            elif subnet == GATE:
                output, _ = self.evaluated.gated(images)
            else:
                output = self.evaluated(images, subnet=subnet)
            metric.update(class_logits(output, self.num_classes), labels)

    def take_accuracies(self) -> dict[str, float]:
        """Percent on the validation images, as columns of metrics.csv; empty if the epoch was not validated."""
        if not self._validated:
            return {}
        self._validated = False
        return {
            f"val_acc1_{subnet}".rstrip("_"): round(100 * metric.compute().item(), 4)
            for subnet, metric in self.metrics.items()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook."""
        checkpoint["pliant"] = self.record


def _accuracies(model: nn.Module, recipe: Recipe, num_classes: int) -> dict[str, Metric]:
    """One metric for each sub-network that is validated."""
    from torchmetrics.classification import MulticlassAccuracy

    names = [recipe.only]
    if isinstance(model, AdaptiveModule):
        names = [str(model.space.smallest), str(model.space.largest)]
        names += [GATE] if recipe.learns == "gates" else []
    return {name: MulticlassAccuracy(num_classes, average="micro", validate_args=False) for name in names}
