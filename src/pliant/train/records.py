"""Rows of metrics.csv, lines for people, scalars for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Row", "Scalars", "csv_text", "line"]

Row = dict[str, float | int]
"""One epoch: epoch, step, train_loss, loss_<term>, lr, val_acc1_<subnet> (%), images_per_s, seconds."""


def csv_text(rows: Sequence[Row]) -> str:
    """All rows as CSV; a value that an epoch does not have is left empty."""
    columns = _columns(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """In the order of `Row`, also where a term or a validation comes in late."""
    groups = ("epoch", "step", "train_loss", "loss_", "lr", "val_acc1", "images_per_s", "seconds")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return sorted(names, key=lambda name: next(i for i, group in enumerate(groups) if name.startswith(group)))


def line(row: Row, epochs: int) -> str:
    """One epoch for a person to read."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.4f}"]
    parts += [
        f"{name.replace('val_acc1', 'val').replace('_', ' ')} {value:.2f} %"
        for name, value in row.items()
        if name.startswith("val_acc1")
    ]
    return "  ".join([*parts, f"lr {row['lr']:.3g}", f"{row['images_per_s']:.0f} images/s", f"{row['seconds']:.1f} s"])


class Scalars:
    """TensorBoard's log, where TensorBoard is installed."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            # Steps that a killed run logged after its last checkpoint are hidden when they come again.
            self._writer = SummaryWriter(str(folder), purge_step=after_step + 1)

    def add(self, row: Row) -> None:
        """Log one epoch."""
        if self._writer:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    self._writer.add_scalar(name, value, int(row["step"]))
            self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer:
            self._writer.close()
