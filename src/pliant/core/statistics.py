"""Batch norms that a pass of the super-net does not run, such as second sets and those of exits.

`torch.optim.swa_utils.update_bn` resets all norms and then runs the model, which by itself would leave these at mean 0
and variance 1. So the model is told, and runs its other sub-networks on the same batches. Where no batch comes, the
statistics stay what they were, and the norm refuses to normalise with them.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.core.surgery import demote, mix_in
from pliant.core.switch import Switch

__all__ = ["LateReset", "out_of_date", "refuse_out_of_date"]


class LateReset(nn.Module):
    """A batch norm that keeps its statistics, once they are reset, until a batch takes their place."""

    _pliant_resets: Switch
    _pliant_out_of_date: bool

    @staticmethod
    def make_(module: nn.Module, switch: Switch) -> None:
        """Let all batch norms of `module`, itself included, be reset late, in place."""
        for norm in list(module.modules()):
            if isinstance(norm, _BatchNorm) and norm.track_running_stats:
                mix_in(norm, LateReset, "LateReset", resets=switch, out_of_date=False)

    @staticmethod
    def unmake_(module: nn.Module) -> None:
        """Undo `make_`."""
        for norm in module.modules():
            if isinstance(norm, LateReset):
                demote(norm, LateReset)

    def reset_running_stats(self) -> None:
        """Reset the statistics when the next batch comes."""
        self._pliant_out_of_date = True
        self._pliant_resets.was_reset = self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Normalise.

        Raises:
            ValueError: the statistics are out of date, and are to be used.
        """
        if self._pliant_out_of_date:
            if not self.training:
                raise out_of_date("forward", type(self).__name__)
            self._pliant_out_of_date = False
            super().reset_running_stats()  # type: ignore[misc]
        return super().forward(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}running_mean" in state_dict:
            self._pliant_out_of_date = False


def refuse_out_of_date(model: nn.Module, caller: str) -> None:
    """Refuse a model some of whose statistics were reset and not computed anew.

    Raises:
        ValueError: names the first norm.
    """
    for path, module in model.named_modules():
        # Of the norm itself, or of its narrower widths.
        if vars(module).get("_pliant_out_of_date") or vars(module).get("_pliant_own_out_of_date"):
            raise out_of_date(caller, path)


def out_of_date(caller: str, where: str) -> ValueError:
    """Return the error that names a norm whose statistics were reset and not computed anew."""
    return ValueError(
        f"{caller}: the BatchNorm statistics of {where!r} were reset and not recomputed; recompute those of every "
        "sub-network with pliant.recalibrate_(model, batches)"
    )
