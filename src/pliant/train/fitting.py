"""Which loss fits what a network gives and the labels of a batch: decided by their shapes, refused where two fit.

- Labels without one dimension of the logits, the class dimension, are class numbers; where that dimension has size 1,
  a network says yes or no by one logit.
- Labels of the logits' own shape are probabilities where they sum to 1, and several labels an image where all are 0 or
  1 and some do not.
- Whatever fits in two ways needs `task` or `class_dim`.

What the first batch has decided holds for all others: a `Loss` that was fitted once has its task and class dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pliant.train.losses import Loss, Task

__all__ = ["check_values", "fit", "labels_of"]


def labels_of(y: Any) -> Tensor:
    """Return labels as torch's losses take them, whole numbers as int64.

    Raises:
        ValueError: they are no tensor, or neither whole nor floating point numbers.
    """
    if not isinstance(y, Tensor):
        raise ValueError(f"y: got a {type(y).__name__}, expected labels as one tensor")
    if y.dtype is torch.bool or y.is_complex():
        raise ValueError(f"y: got labels of {y.dtype}, expected class numbers (y.long()) or probabilities (y.float())")
    return y if y.is_floating_point() else y.long()


def fit(loss: Loss, logits: Tensor, y: Tensor) -> Loss:
    """Return the loss with its task and its class dimension, as far as they are open.

    Args:
        loss: what is decided already.
        logits: what the network gives, the batch first.
        y: what `labels_of` returns.

    Raises:
        ValueError: the labels do not fit the logits or the task, or fit in two ways; names both shapes.
    """
    if not logits.dim():
        raise ValueError("x: the network gives one number for the whole batch, expected logits for each input")
    if loss.task == "causal-lm":
        fitted = _next_tokens(loss, logits, y)
    elif y.shape == logits.shape:
        fitted = _of_same_shape(loss, logits, y)
    else:
        fitted = _class_numbers(loss, logits, y)
    _check_weights(fitted, logits)
    return fitted


def check_values(loss: Loss, logits: Tensor, y: Tensor) -> None:
    """Check every label of a batch; on an accelerator this waits for the device.

    Raises:
        ValueError: names the first label that is wrong.
    """
    counted = y != loss.ignore_index
    if loss.task in ("binary", "multilabel"):
        bad, expected = ~((y >= 0) & (y <= 1)) & counted, "0 to 1"
    elif y.is_floating_point():
        assert loss.class_dim is not None
        if not _sums_to_one(y, loss.class_dim):
            raise _no_probabilities(y)
        return
    else:
        assert loss.class_dim is not None
        classes = logits.shape[loss.class_dim]
        bad, expected = ((y < 0) | (y >= classes)) & counted, f"0 to {classes - 1}"
    if bad.any():
        raise ValueError(
            f"y: got the label {y[bad][0].item():g}, expected {expected}, or ignore_index={loss.ignore_index}"
        )


def _next_tokens(loss: Loss, logits: Tensor, y: Tensor) -> Loss:
    if logits.dim() != 3 or y.shape != logits.shape[:2] or y.is_floating_point():
        raise ValueError(f"y: got {_shape(y)}, expected tokens {list(logits.shape[:2])} for {_given(logits)}")
    return _decided(loss, class_dim=_one_of([2], loss, logits, y))


def _class_numbers(loss: Loss, logits: Tensor, y: Tensor) -> Loss:
    """Fit labels from whose shape the class dimension is absent."""
    shape = list(logits.shape)
    fitting = [dim for dim in range(1, logits.dim()) if shape[:dim] + shape[dim + 1 :] == list(y.shape)]
    if not fitting:
        raise ValueError(f"y: got {_shape(y)}, expected {_expected(logits)} for {_given(logits)}")
    class_dim = _one_of(fitting, loss, logits, y)
    if shape[class_dim] == 1 and loss.task != "multiclass":
        return _decided(loss, task="binary", class_dim=class_dim)
    if shape[class_dim] == 1:
        raise ValueError(
            f"task: got 'multiclass' for {_given(logits)}, of which one logit is always right; use 'binary'"
        )
    if loss.task == "binary":
        raise ValueError(f"task: got 'binary', expected one logit a label, not {shape[class_dim]}, in {_given(logits)}")
    if loss.task == "multilabel":
        raise ValueError(f"y: got {_shape(y)}, expected a 0 or 1 for each of {_given(logits)} with task='multilabel'")
    if y.is_floating_point():
        raise ValueError(
            f"y: got {_shape(y)}, expected class numbers, which are whole (y.long()), for {_given(logits)}"
        )
    return _decided(loss, task="multiclass", class_dim=class_dim)


def _of_same_shape(loss: Loss, logits: Tensor, y: Tensor) -> Loss:
    """Fit labels that say something of every logit."""
    last = logits.dim() - 1 if logits.dim() == 3 else 1  # of texts, one logit a token: [batch, tokens, 1]
    dims = (1, last) if loss.class_dim is None else (_absolute(loss, logits),)
    one_logit = logits.dim() == 1 or any(logits.shape[dim] == 1 for dim in dims)
    if loss.task == "binary" or (one_logit and loss.task != "multiclass"):
        return _decided(loss, task="binary")
    if not y.is_floating_point() and loss.task != "multilabel":
        raise ValueError(
            f"y: got {_shape(y)}, expected {_expected(logits)} for {_given(logits)}; for several labels an image give "
            "task='multilabel'"
        )
    dims = [dim for dim in range(1, logits.dim()) if logits.shape[dim] > 1]
    if loss.task != "multilabel":
        # Values decide: only for the first batch, since whatever it was is written into the loss.
        fitting = dims if loss.class_dim is not None and loss.task else [dim for dim in dims if _sums_to_one(y, dim)]
        if fitting and (loss.class_dim is None or _absolute(loss, logits) in fitting):
            return _decided(loss, task="multiclass", class_dim=_one_of(fitting, loss, logits, y))
        if loss.task == "multiclass" or not ((y == 0) | (y == 1)).all():
            raise _no_probabilities(y)
    return _decided(loss, task="multilabel", class_dim=_one_of(dims, loss, logits, y))


def _decided(loss: Loss, *, task: Task | None = None, class_dim: int | None = None) -> Loss:
    decided = {"task": task or loss.task, "class_dim": loss.class_dim if class_dim is None else class_dim}
    return loss if decided == {"task": loss.task, "class_dim": loss.class_dim} else loss.replace(**decided)


def _one_of(fitting: Sequence[int], loss: Loss, logits: Tensor, y: Tensor) -> int:
    """Return the class dimension, which is asked for where several fit."""
    if loss.class_dim is None:
        if len(fitting) == 1:
            return fitting[0]
        dims = " and ".join(map(str, fitting))
        raise ValueError(f"class_dim: is needed, as dimensions {dims} of {_given(logits)} fit labels {_shape(y)}")
    class_dim = _absolute(loss, logits)
    if class_dim not in fitting:
        dims = " or ".join(map(str, fitting))
        raise ValueError(
            f"class_dim: got {loss.class_dim}, expected {dims} for {_given(logits)} and labels {_shape(y)}"
        )
    return class_dim


def _absolute(loss: Loss, logits: Tensor) -> int:
    assert loss.class_dim is not None
    if not -logits.dim() < loss.class_dim < logits.dim() or loss.class_dim == 0:
        raise ValueError(f"class_dim: got {loss.class_dim}, expected 1 to {logits.dim() - 1} for {_given(logits)}")
    return loss.class_dim % logits.dim()


def _sums_to_one(y: Tensor, dim: int) -> bool:
    """Whether all rows are probabilities; sums of numbers of 16 bits are as wrong as a hundredth."""
    return bool((y >= 0).all() and ((y.sum(dim, dtype=torch.float32) - 1).abs() < 0.02).all())


def _no_probabilities(y: Tensor) -> ValueError:
    return ValueError(
        f"y: got {_shape(y)} of which not all rows are probabilities that sum to 1, as task='multiclass' expects; for "
        "several labels an image give task='multilabel'"
    )


def _check_weights(loss: Loss, logits: Tensor) -> None:
    if loss.class_weights is None:
        return
    classes = 2 if loss.task == "binary" else logits.shape[loss.class_dim or 1]
    if len(loss.class_weights) != classes:
        what = "for the labels 0 and 1 of one logit" if loss.task == "binary" else "one for each class"
        raise ValueError(f"class_weights: got {len(loss.class_weights)}, expected {classes}, {what}")


def _expected(logits: Tensor) -> str:
    """Say which labels fit, where the class dimension is the second, as mostly, or the last."""
    shape = list(logits.shape)
    if len(shape) < 2:
        return f"a 0 or 1 for each logit {shape}"
    numbers = " or ".join(dict.fromkeys(str(shape[:dim] + shape[dim + 1 :]) for dim in (1, len(shape) - 1)))
    return f"class numbers {numbers}, or probabilities {shape}"


def _given(logits: Tensor) -> str:
    return f"logits {list(logits.shape)}"


def _shape(y: Tensor) -> str:
    return f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}"
