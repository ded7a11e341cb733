"""What one term of a plan measures. All results are scalars, averaged over the batch and its positions.

Letters of shapes: B batch, C classes, S stages, ... = positions, such as H, W of an image or T tokens.
Inside of `Loss`, logits are `[B, C, ...]`, whatever the network gives; of one logit, `[B, ...]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pliant.core.config import Config

__all__ = ["IGNORED", "Loss", "Task", "feature_divergence"]

IGNORED = -100
"""The label of what has none, such as the padding of a text: as in torch's cross-entropy."""

Task = Literal["multiclass", "binary", "multilabel", "causal-lm"]


@dataclass(frozen=True, kw_only=True)
class Loss(Config):
    """The loss on labels, and the divergence from a teacher that goes with it.

    `multiclass` and `causal-lm`: a softmax over the classes. `binary` and `multilabel`: a sigmoid for every logit. What
    the label `ignore_index` marks counts in neither; where nothing is left, both are 0.
    `pliant.train.fitting.fit` finds the task and the class dimension.

    Attributes:
        task: none = not decided yet.
        class_dim: of the logits; none = not decided yet, or one logit.
        class_weights: factors of the loss on labels, `[C]`; of one logit `[2]`, for the labels 0 and 1. Averages are
            divided by the weights of the labels, those of `multilabel` and of probabilities by their number, as torch
            does.
        ignore_index: the label of what does not count.
        label_smoothing: in [0, 1); of sigmoids, labels move so far towards 1/2.
    """

    task: Task | None = None
    class_dim: int | None = None
    class_weights: tuple[float, ...] | None = None
    ignore_index: int = IGNORED
    label_smoothing: float = 0.0

    def validate(self) -> None:
        """Check the ranges."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"Loss.label_smoothing: got {self.label_smoothing}, expected a fraction in [0, 1)")
        if not all(0 <= weight < math.inf for weight in self.class_weights or ()):
            raise ValueError(
                f"Loss.class_weights: got {list(self.class_weights or ())}, expected numbers of at least 0"
            )

    def labels(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of logits on labels, of shapes that `fit` has accepted."""
        logits, y = self._arranged(logits), self._arranged_labels(y, logits)
        weights = None if self.class_weights is None else _on(logits.device, self.class_weights).to(logits.dtype)
        if self.task in ("binary", "multilabel"):
            return self._sigmoid_labels(logits, y, weights)
        if y.is_floating_point():
            return F.cross_entropy(logits, y.to(logits.dtype), weights, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            logits,
            y,
            weights,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        counted = y != self.ignore_index
        if weights is None:
            return total / _at_least_tiny(counted.sum())
        return total / _at_least_tiny((weights[y.where(counted, 0)] * counted).sum())

    def divergence(
        self, student: Tensor, teacher: Tensor, y: Tensor, temperature: float = 1.0, top_k: int | None = None
    ) -> Tensor:
        """Return the KL divergence of the student's distributions from the teacher's, times the temperature squared.

        One distribution over the classes for each position, or of sigmoids one for each logit. With `top_k`, only the
        classes count that the teacher ranks highest, normalised again (ADN paper, Algorithm 1). The caller detaches
        the teacher. Of `y`, only where it is `ignore_index` matters.

        Raises:
            ValueError: teacher and student give logits of different shapes.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"teacher: gives logits {list(teacher.shape)}, expected {list(student.shape)}, as its student gives"
            )
        counted = self._counted(self._arranged_labels(y, student))
        student, teacher = self._arranged(student), self._arranged(teacher)
        if top_k is not None and self.task != "binary" and top_k < teacher.shape[1]:
            teacher, classes = teacher.topk(top_k, dim=1)
            student = student.gather(1, classes)
            counted = counted.gather(1, classes) if counted is not None and self.task == "multilabel" else counted
        if self.task in ("binary", "multilabel"):  # a sigmoid of z is a softmax over 0 and z
            student, teacher = (torch.stack((torch.zeros_like(z), z), dim=1) for z in (student, teacher))
        value = _divergence(student, teacher, temperature)
        if counted is None:
            return value.mean()
        return value.where(counted, 0).sum() / _at_least_tiny(counted.sum())

    def _sigmoid_labels(self, logits: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        y = y.to(logits.dtype)
        counted = y != self.ignore_index
        target = y * (1 - self.label_smoothing) + self.label_smoothing / 2
        if weights is None:
            value = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            total_weight = counted.sum()
        elif self.task == "binary":
            of_no, of_yes = weights
            value = -(of_yes * target * F.logsigmoid(logits) + of_no * (1 - target) * F.logsigmoid(-logits))
            total_weight = (of_no + (of_yes - of_no) * y).where(counted, 0).sum()
        else:
            of_class = weights.view(-1, *(1,) * (logits.dim() - 2))
            value = F.binary_cross_entropy_with_logits(logits, target, of_class, reduction="none")
            total_weight = counted.sum()
        return value.where(counted, 0).sum() / _at_least_tiny(total_weight)

    def _counted(self, y: Tensor) -> Tensor | None:
        """Return what counts, in the shape of `y`; probabilities of classes all do."""
        if self.task == "multiclass" and y.is_floating_point():
            return None
        return y != self.ignore_index

    def _arranged(self, logits: Tensor) -> Tensor:
        """Return logits in float32 or more, the class dimension second; classes in the last one, `[positions, C]`."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.task == "binary":
            return logits.flatten()
        assert self.class_dim is not None
        return _class_second(logits, self.class_dim)

    def _arranged_labels(self, y: Tensor, logits: Tensor) -> Tensor:
        """Return labels in the order of what `_arranged` makes of `logits`."""
        if self.task == "binary":
            return y.flatten()
        assert self.class_dim is not None
        if y.dim() == logits.dim():
            return _class_second(y, self.class_dim)
        if self.task == "causal-lm":  # a token is predicted at the position before it
            y = F.pad(y[:, 1:], (0, 1), value=self.ignore_index)
        return y.flatten() if self.class_dim == logits.dim() - 1 else y


def feature_divergence(
    student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float = 1.0, stages: Sequence[int] | None = None
) -> Tensor:
    """Sum over stages of the KL divergence between softmaxes over the channels of pooled stage outputs.

    Args:
        student: `[B, channels]` for each of S stages.
        teacher: the same, detached by the caller (ADN paper, Algorithm 1).
        temperature: divides both; the result is multiplied by its square.
        stages: which, counted from 1; none = all.

    Raises:
        ValueError: one of the two has no such stage, or without `stages`, they have not the same number of them.
    """
    least, most = sorted((len(student), len(teacher)))
    if most > least if stages is None else max(stages) > least:
        asked = "all" if stages is None else list(stages)
        raise ValueError(
            f"stages: got {asked}, but the student runs {len(student)} stages and its teacher {len(teacher)}; expected "
            f"stages from 1 to {least}"
        )
    chosen = [number - 1 for number in stages] if stages is not None else range(least)
    losses = [_divergence(student[s].float(), teacher[s].float(), temperature).mean() for s in chosen]
    return sum(losses[1:], losses[0])


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergences `[B, ...]` of distributions over the second dimension."""
    own = F.log_softmax(student / temperature, dim=1)
    other = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(own, other, reduction="none", log_target=True).sum(1) * temperature**2


def _class_second(values: Tensor, class_dim: int) -> Tensor:
    if class_dim == values.dim() - 1:
        return values.flatten(0, -2)
    return values.movedim(class_dim, 1)


@cache
def _on(device: torch.device, weights: tuple[float, ...]) -> Tensor:
    """Return class weights as a tensor, which is copied to an accelerator once."""
    return torch.tensor(weights, device=device, dtype=torch.float64)


def _at_least_tiny(weight: Tensor) -> Tensor:
    """Return what to divide by: where nothing counts, the sum is 0, and so is the average."""
    return weight.clamp(min=torch.finfo(torch.float32).tiny)
