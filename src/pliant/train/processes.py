"""Which device a training runs on, and with how many processes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

__all__ = ["Place", "choose_place", "wait_for_all"]


@dataclass(frozen=True)
class Place:
    """Where this process trains.

    Attributes:
        device: of this process.
        rank: which of all processes this is.
        local_world_size: processes on this machine.
        world_size: processes in all.
    """

    device: torch.device
    rank: int = 0
    local_world_size: int = 1
    world_size: int = 1

    @property
    def nodes(self) -> int:
        """Machines that train together."""
        return self.world_size // self.local_world_size


def choose_place(device: str) -> Place:
    """Read the environment that `torchrun` sets, and find the device.

    Raises:
        ValueError: no such device, or a numbered one where `torchrun` gives each process its own.
    """
    if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise ValueError(f"device {device!r}: expected auto, cpu, cuda or cuda:NUMBER")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ
    if distributed and ":" in device:
        raise ValueError(f"device {device!r}: torchrun gives each process its own; expected auto, cpu or cuda")
    local_rank = int(os.environ["LOCAL_RANK"]) if distributed else 0
    if device.startswith("cuda"):
        index = int(device[5:]) if ":" in device else local_rank
        if index >= torch.cuda.device_count():
            raise ValueError(f"device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices")
        place = torch.device("cuda", index)
    else:
        place = torch.device("cpu")
    if not distributed:
        return Place(place)
    world_size = int(os.environ["WORLD_SIZE"])
    return Place(
        place,
        rank=int(os.environ["RANK"]),
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", world_size)),
        world_size=world_size,
    )


def wait_for_all() -> None:
    """Wait until all processes have come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
