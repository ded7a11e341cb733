"""What one term of a plan measures. All results are scalars, averaged over the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["feature_divergence", "label_loss", "logit_divergence"]


def label_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits `[batch, classes]` with labels `[batch]`, or probabilities `[batch, classes]`."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def logit_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """KL divergence of the student's class distribution from the teacher's, times the temperature squared.

    With `top_k`, both are restricted to the classes that the teacher ranks highest and normalised again.
    Both are `[batch, classes]`; the caller detaches the teacher (ADN paper, Algorithm 1).
    """
    student, teacher = student.float(), teacher.float()
    if top_k is not None and top_k < teacher.shape[-1]:
        teacher, classes = teacher.topk(top_k, dim=-1)
        student = student.gather(-1, classes)
    return _divergence(student, teacher, temperature)


def feature_divergence(
    student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float = 1.0, stages: int | None = None
) -> Tensor:
    """Sum over stages of the KL divergence between softmaxes over the channels of pooled stage outputs.

    Each stage is `[batch, channels]`; `stages` takes the first so many (ADN paper, Algorithm 1).
    """
    pairs = list(zip(student, teacher, strict=True))[:stages]
    losses = [_divergence(own.float(), other.float(), temperature) for own, other in pairs]
    return sum(losses[1:], losses[0])


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    own = F.log_softmax(student / temperature, dim=-1)
    other = F.log_softmax(teacher / temperature, dim=-1)
    return F.kl_div(own, other, reduction="batchmean", log_target=True) * temperature**2
